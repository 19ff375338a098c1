package tcp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// ESTABLISHED: closing

// RFC 9293 §3.6, figure 12: the active closer's way through FIN-WAIT-1, FIN-WAIT-2 and
// TIME-WAIT, which lasts 2 MSL.
func TestCloseNormal(t *testing.T) {
	p := established(t)
	p.write(100)
	p.wants(ACK|PSH, text(100))
	p.c.Shutdown(p.now)
	p.emit()
	p.wants(FIN|ACK, seq(p.snd(100)))
	p.arrives(ACK)
	p.wantState(FinWait2)
	p.arrives(FIN|ACK, text(7))
	p.wants(ACK, seq(p.snd(101)), ack(p.rcv(8)))
	p.wantState(TimeWait)
	require.Equal(t, EndOfStream|Readable, p.c.Events()&(EndOfStream|Readable))
	p.wait(time.Minute - 1)
	p.wantState(TimeWait)
	p.wait(1)
	p.wantState(Closed)
	require.NoError(t, p.c.Err())
	p.wantIdle("closed in order")
}

// RFC 9293 §3.10.4: text that was written before leaves before the FIN, which goes with
// the last of it.
func TestCloseSendsEverything(t *testing.T) {
	p := established(t)
	p.tx.Write(make([]byte, 2500))
	p.c.Shutdown(p.now)
	p.emit()
	p.wants(ACK, text(1000))
	p.wants(ACK, text(1000))
	p.wants(FIN|ACK|PSH, text(500))
	p.wantState(FinWait1)
	p.arrives(ACK, ack(p.snd(2500)))
	p.wantState(FinWait1)
	p.arrives(ACK, ack(p.snd(2501)))
	p.wantState(FinWait2)
}

// RFC 9293 §3.6, figure 13: both close at once.
func TestCloseSimultaneous(t *testing.T) {
	p := closing(t)
	p.arrives(ACK, ack(p.snd(1)))
	p.wantState(TimeWait)
	p.wantIdle("the FINs crossed")
}

// RFC 9293 §3.6: half-close: data is received behind our FIN.
func TestHalfClose(t *testing.T) {
	p := finWait2(t)
	p.arrives(ACK, bytes("late"))
	p.wants(ACK, ack(p.rcv(4)))
	require.Equal(t, "late", string(p.read(4)))
	p.arrives(FIN|ACK, bytes("last"))
	p.wants(ACK, ack(p.rcv(9)))
	require.Equal(t, "last", string(p.read(4)))
	p.wantState(TimeWait)
}

// CLOSE-WAIT: data still leaves.
func TestCloseWaitSends(t *testing.T) {
	p := closeWait(t)
	p.write(10)
	p.wants(ACK, text(10))
	p.c.Close(p.now)
	p.emit()
	p.wants(FIN|ACK, seq(p.snd(10)))
	p.wantState(LastAck)
	p.arrives(ACK)
	p.wantState(Closed)
	require.NoError(t, p.c.Err())
}

// A FIN that arrives before the text in front of it counts when that is there.
func TestFINOutOfOrder(t *testing.T) {
	p := established(t)
	p.arrives(FIN|ACK, seq(p.rcv(5)), bytes("world"))
	p.wants(ACK, ack(p.rcv(0)), sack(p.rcv(5), p.rcv(10)))
	p.wantState(Established)
	p.arrives(ACK, bytes("hello"))
	p.wants(ACK, ack(p.rcv(11)))
	p.wantState(CloseWait)
	require.Equal(t, "helloworld", string(p.read(10)))
}

// RFC 9293 §3.6.1, SHLD-3, RFC 2525 §2.17: data left unread on close is answered with
// RST, because it was lost.
func TestCloseWithUnreadData(t *testing.T) {
	p := established(t)
	p.arrives(ACK, text(10))
	p.wants(ACK)
	p.c.Close(p.now)
	p.emit()
	p.wants(RST|ACK, seq(p.snd(0)), ack(p.rcv(10)))
	p.wantState(Closed)
	p.wantIdle("and no FIN")
}

// The same for data that arrives after close.
func TestDataAfterClose(t *testing.T) {
	for _, in := range []func(*testing.T, ...setup) *script{established, finWait1, finWait2} {
		p := in(t)
		p.c.Close(p.now)
		p.emit()
		p.out = nil
		p.arrives(ACK, text(10), ack(p.c.snd.una))
		s := p.wants(RST)
		require.Equal(t, p.c.snd.una, s.Seq)
		p.wantState(Closed)
	}
}

// Shutdown alone keeps a reader: data is taken; ShutdownRead then has it
// answered with RST.
func TestShutdownBothWays(t *testing.T) {
	p := finWait2(t)
	p.arrives(ACK, text(10))
	p.wants(ACK, ack(p.rcv(10)))
	p.c.ShutdownRead()
	p.arrives(ACK, text(10))
	p.wants(RST)
	p.wantErr(ErrAborted)
}

// An orphan delivers what was written, and FIN-WAIT-2 ends by time.
func TestOrphan(t *testing.T) {
	p := established(t)
	p.tx.Write(make([]byte, 1500))
	p.c.Close(p.now)
	p.emit()
	p.wants(ACK, text(1000))
	p.wants(FIN|ACK, text(500))
	p.arrives(ACK)
	p.wantState(FinWait2)
	p.wait(time.Minute - 1)
	p.wantState(FinWait2)
	p.wait(1)
	p.wantState(Closed)
}

// An orphan whose peer is gone gives up sooner than a user would.
func TestOrphanGivesUp(t *testing.T) {
	p := established(t)
	p.tx.Write(make([]byte, 10))
	p.c.Close(p.now)
	p.emit()
	p.wait(3 * time.Minute)
	p.wantErr(ErrTimeout)
	require.Len(t, p.out, 1+1+8, "a probe and 8 time-outs")
}

// RFC 9293 §3.10.5: ABORT sends <SEQ=SND.NXT><CTL=RST> and forgets what was queued.
func TestAbort(t *testing.T) {
	p := established(t)
	p.write(100)
	p.wants(ACK)
	p.c.Abort(p.now)
	p.emit()
	p.wants(RST|ACK, seq(p.snd(100)))
	p.wantErr(ErrAborted)
	require.Equal(t, Gone, p.c.Events()&Gone)
	p.c.Abort(p.now)
	p.c.Shutdown(p.now)
	p.c.Close(p.now)
	p.c.Connect(p.now)
	p.wantIdle("a connection ends once")
}

// The peer's FIN and then its RST, numbered as if the FIN took no number.
func TestRSTBehindFIN(t *testing.T) {
	p := closeWait(t)
	p.arrives(RST, seq(p.rcv(0)))
	p.wantErr(ErrReset)
}

// TIME-WAIT

// RFC 9293 §3.10.7.4: a retransmission of the remote FIN is acknowledged, and 2
// MSL begin anew.
func TestTimeWaitFINAgain(t *testing.T) {
	p := timeWait(t)
	p.wait(50 * time.Second)
	p.arrives(FIN|ACK, seq(p.rcv(0)))
	p.wants(ACK, ack(p.rcv(1)))
	p.wait(59 * time.Second)
	p.wantState(TimeWait)
	p.wait(time.Second)
	p.wantState(Closed)
}

// RFC 6191 §2: a SYN with a later timestamp, or a higher sequence number, begins a
// new connection; an old duplicate gets an ACK.
func TestTimeWaitReuse(t *testing.T) {
	for _, c := range []struct {
		name     string
		old      bool // the old connection had timestamps
		new      bool
		tsval    uint32
		seq      int
		reusable bool
	}{
		{"later timestamp, lower number", true, true, 5001, -100, true},
		{"earlier timestamp, higher number", true, true, 4999, 100, false},
		{"same timestamp, higher number", true, true, 5000, 100, true},
		{"same timestamp, lower number", true, true, 5000, -100, false},
		{"no timestamp now, higher number", true, false, 0, 100, true},
		{"no timestamp now, lower number", true, false, 0, -100, false},
		{"no timestamp then, higher number", false, true, 1, 100, true},
		{"no timestamp then, lower number", false, true, 1, -100, false},
		{"none, higher number", false, false, 0, 100, true},
		{"none, lower number", false, false, 0, -100, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			setups := []setup{}
			if c.old {
				setups = append(setups, withTimestamps)
			}
			p := timeWait(t, setups...)
			syn := &Segment{Seq: p.c.rcv.nxt.Add(c.seq), Flags: SYN, Window: 1000, Options: wire.NoTCPOptions()}
			syn.Options.Timestamp = wire.TCPTimestamp{Has: c.new, Val: c.tsval}
			require.Equal(t, c.reusable, p.c.Reusable(syn))
			if !c.reusable {
				return
			}
			var next script
			next.c.Init(p.layer, p.c.ID(), 1500, &next.tx, &next.rx)
			next.c.AcceptAfter(p.now, syn, &p.c)
			require.True(t, next.c.snd.iss.After(p.c.snd.nxt), "RFC 9293 §3.6.1, MAY-2")
		})
	}
}

// ACKs of the old connection in TIME-WAIT are harmless (RFC 1337 is about RST:
// one at exactly RCV.NXT ends TIME-WAIT, as RFC 9293 §3.10.7.4 has it).
func TestTimeWaitOldSegments(t *testing.T) {
	p := timeWait(t)
	p.arrives(ACK)
	p.wantIdle("nothing to say")
	p.arrives(ACK, seq(p.rcv(-50)), text(10))
	p.wants(ACK, ack(p.rcv(1)))
	p.arrives(RST, seq(p.c.rcv.nxt+1))
	p.wantState(TimeWait)
}

// RFC 7323 §3.2: a TSopt SHOULD be on an RST, too.
func TestAbortHasTimestamp(t *testing.T) {
	p := established(t, withTimestamps)
	p.c.Abort(p.now)
	p.emit()
	require.Equal(t, uint32(5000), p.wants(RST|ACK).Options.Timestamp.Ecr)
}

// RFC 9293 §3.6.1, MAY-2: the numbers of a connection that follows one in
// TIME-WAIT begin behind those of the old one, however fast that was.
func TestTimeWaitReuseAfterFastConnection(t *testing.T) {
	p := timeWait(t)
	p.c.snd.nxt += 1 << 30
	syn := &Segment{Seq: p.c.rcv.nxt + 1, Flags: SYN, Window: 1000, Options: wire.NoTCPOptions()}
	var next script
	next.c.Init(p.layer, p.c.ID(), 1500, &next.tx, &next.rx)
	next.c.AcceptAfter(p.now, syn, &p.c)
	require.True(t, next.c.snd.iss.After(p.c.snd.nxt))
	require.Equal(t, next.c.snd.iss, next.c.snd.una)
}

// An RST may be due after CLOSED: the caller's Emit sends it however late there is
// room, once, and there is nothing else to do for the connection.
func TestGoneLeavesARST(t *testing.T) {
	for name, end := range map[string]func(p *script){
		"ABORT (RFC 9293 3.10.5)": func(p *script) { p.c.Abort(p.now) },
		"unread bytes (RFC 2525 2.17)": func(p *script) {
			p.c.Arrives(p.now, p.segment(ACK, []field{text(5)}))
			p.c.Close(p.now)
		},
		"text after Close (RFC 9293 3.6.1)": func(p *script) {
			p.c.Close(p.now)
			p.emit()
			p.wants(FIN | ACK)
			p.c.Arrives(p.now, p.segment(ACK, []field{text(5)}))
		},
		"keep-alive (RFC 9293 3.8.4)": func(p *script) {
			p.c.SetKeepAlive(p.now, true, time.Minute, time.Second, 1)
			p.wait(time.Minute)
			p.wants(ACK)
			p.now = p.c.Deadline()
			p.c.Timeout(p.now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := established(t)
			p.c.Events()
			end(p)
			require.Equal(t, Closed, p.c.State())
			require.NotZero(t, p.c.Events()&Gone)
			require.Zero(t, p.c.Deadline())
			p.full = true
			for range 3 {
				require.True(t, p.c.Emit(p.now, p), "no room, so there is more")
				p.now = p.now.Add(time.Hour)
				p.c.Timeout(p.now)
				p.c.Arrives(p.now, p.segment(ACK, []field{text(5)}))
			}
			p.full = false
			require.False(t, p.c.Emit(p.now, p))
			require.Len(t, p.out, 1)
			require.NotZero(t, p.out[0].Flags&RST)
			p.out = nil
			p.wantIdle("the RST left once")
			require.Zero(t, p.c.Events())
		})
	}
	p := established(t)
	p.c.Events()
	p.arrives(RST)
	require.NotZero(t, p.c.Events()&Gone)
	p.wantIdle("an RST is not answered")
}
