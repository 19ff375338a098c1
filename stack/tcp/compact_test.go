package tcp

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// A TimeWaitConn is small, and a connection of a user who reads slowly does not have
// to wait for it.
func TestCompactIsSmall(t *testing.T) {
	t.Logf("%d bytes instead of %d", unsafe.Sizeof(TimeWaitConn{}), unsafe.Sizeof(Conn{}))
	require.LessOrEqual(t, unsafe.Sizeof(TimeWaitConn{}), uintptr(104))
}

// Compact is for TIME-WAIT, once Emit has sent the last ACK.
func TestCompactWhen(t *testing.T) {
	var c TimeWaitConn
	for state, make := range ready {
		p := make(t)
		require.Equal(t, state == TimeWait, p.c.Compact(&c), state)
	}
	p := finWait2(t)
	p.c.Arrives(p.now, p.segment(FIN|ACK, nil))
	p.wantState(TimeWait)
	require.False(t, p.c.Compact(&c), "the ACK of the FIN has not left")
	p.emit()
	require.True(t, p.c.Compact(&c))
	require.Equal(t, p.c.ID(), c.ID())
	require.Equal(t, p.c.Deadline(), c.Deadline())
}

// both is a connection in TIME-WAIT, and its twin in compact form.
type both struct {
	*script
	twin  *script // has the layer and the output
	small TimeWaitConn

	answers int
}

func newBoth(t *testing.T, prepare func(p *script), setups ...setup) *both {
	make := func() *script {
		p := finWait2(t, setups...)
		prepare(p)
		p.arrives(FIN | ACK)
		p.wantState(TimeWait)
		p.out = nil
		return p
	}
	p := &both{script: make(), twin: make()}
	require.True(t, p.twin.c.Compact(&p.small))
	p.c.selectWindow() // as Compact does
	p.twin.c = Conn{}
	return p
}

// compare wants the same to leave, and the same deadline and state.
func (p *both) compare() {
	p.t.Helper()
	p.emit()
	for p.small.Emit(p.now, p.twin) && !p.full {
	}
	show := func(out []Segment) (lines []string) {
		for _, s := range out {
			lines = append(lines, fmt.Sprintf("%v %d %d %d %+v %v", s.Flags, s.Seq, s.Ack, s.Window, s.Options.Timestamp, s.Options.SACK[:s.Options.NSACK]))
		}
		return lines
	}
	require.Equal(p.t, show(p.out), show(p.twin.out))
	p.answers += len(p.out)
	p.out, p.twin.out = nil, nil
	require.Equal(p.t, p.c.State(), p.small.State())
	require.Equal(p.t, p.c.Deadline(), p.small.Deadline())
	require.Equal(p.t, p.layer.Stats(), p.twin.layer.Stats())
}

// step lets both live through what the tape says.
func (p *both) step(in *tape) {
	p.t.Helper()
	switch op := in.byte(); op % 8 {
	case 0:
		p.now = p.now.Add(time.Duration(in.byte()) * 5 * time.Millisecond)
	case 1:
		if at := p.c.Deadline(); in.byte()&3 == 0 && at != clock.Never {
			p.now = max(p.now, at)
		}
	case 2:
		p.full = in.byte()&1 != 0
	default:
		s := in.segment(p.script)
		if op&8 != 0 {
			s.Seq, s.Flags = p.c.rcv.nxt-1, s.Flags|FIN
		}
		require.Equal(p.t, p.c.Reusable(s), p.small.Reusable(s))
		p.c.Arrives(p.now, s)
		p.small.Arrives(p.now, s)
	}
	p.c.Timeout(p.now)
	p.small.Timeout(p.now)
	p.twin.now, p.twin.full = p.now, p.full
	p.compare()
	p.full, p.twin.full = false, false
}

// waits are the ways in which a connection may come to TIME-WAIT.
func waits(t *testing.T, way byte) *both {
	setups := []setup{with(func(c *Config) {
		c.SACK = way&1 == 0
		c.ChallengeACKs = 1 + int(way>>5)*10
		if way&16 != 0 {
			c.ReceiveBuffer, c.ReceiveBufferMax = 100, 100
		}
	})}
	if way&2 != 0 {
		setups = append(setups, withTimestamps)
	}
	return newBoth(t, func(p *script) {
		if way&4 != 0 {
			p.c.opt.ecn, p.c.cc.echoCE = true, true
		}
		if way&8 != 0 {
			p.arrives(ACK, text(100)) // which nobody reads
		}
	}, setups...)
}

// Whatever arrives, a compact connection does as a Conn does (RFC 9293 section
// 3.10.7.4, RFC 5961, RFC 7323 section 5).
func TestCompactAnswersAlike(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	answers, ends := 0, 0
	for way := range 256 {
		in := make(tape, 1000)
		for i := range in {
			in[i] = byte(rng.Uint32())
		}
		for len(in) > 0 {
			p := waits(t, byte(way))
			for len(in) > 0 && p.c.State() == TimeWait {
				p.step(&in)
			}
			answers += p.answers
			ends++
		}
	}
	t.Logf("%d answers of %d connections", answers, ends)
	require.Greater(t, answers, 3000)
}

func FuzzCompact(f *testing.F) {
	f.Add(byte(3), []byte{3, 0, 0, 0, 11, 0, 0, 0, 0, 200, 1, 0, 5, 2, 3, 255, 1, 2, 3})
	f.Fuzz(func(t *testing.T, way byte, data []byte) {
		p := waits(t, way)
		in := tape(data)
		for n := 0; len(in) > 0 && n < 300; n++ {
			p.step(&in)
		}
	})
}

// RFC 6191 §2, RFC 9293 §3.6.1: a new connection takes the place of a compact one,
// and its numbers begin behind the old one's.
func TestCompactGivesWay(t *testing.T) {
	p := timeWait(t, withTimestamps)
	var old TimeWaitConn
	require.True(t, p.c.Compact(&old))
	nxt := p.c.snd.nxt
	next, syn := newScript(t, []setup{withTimestamps})
	syn.Options.Timestamp.Val = old.ts.recent
	syn.Seq = p.c.rcv.nxt - 1
	require.False(t, old.Reusable(syn), "as old as the old one")
	syn.Options.Timestamp.Val++
	require.True(t, old.Reusable(syn))
	next.layer.isnKey = p.layer.isnKey
	next.now = p.now.Add(-time.Hour / 2) // the clock of ISNs is behind
	next.c.AcceptAfterTimeWait(next.now, syn, &old)
	require.Equal(t, nxt+65537, next.c.snd.iss)
	next.emit()
	next.wants(SYN|ACK, seq(nxt+65537))
	require.Equal(t, wire.Seq(nxt), old.snd)
}
