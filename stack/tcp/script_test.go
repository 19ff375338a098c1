package tcp

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/wire"
)

// A script plays the peer of one connection by hand. Sequence numbers are
// absolute; p.snd(n) is byte n of what we send, p.rcv(n) of what the peer sends, from 0,
// so that p.snd(-1) is our SYN.
type script struct {
	t      *testing.T
	layer  *Layer
	c      Conn
	tx, rx ring.Stream
	now    clock.Time
	out    []Segment
	iss    Seq // ours
	irs    Seq // the peer's
	full   bool
	fixed  Seq // our iss, if not 0
}

const (
	testMSS    = 1000
	testWindow = 64000
	rtt        = 100 * time.Millisecond
)

// setup changes a script before its connection is made.
type setup func(p *script, cfg *Config, syn *Segment)

// with changes the configuration.
func with(change func(cfg *Config)) setup {
	return func(_ *script, cfg *Config, _ *Segment) { change(cfg) }
}

// peer changes the SYN or SYN-ACK of the peer.
func peer(change func(syn *Segment)) setup {
	return func(_ *script, _ *Config, syn *Segment) { change(syn) }
}

// numbered sets both initial sequence numbers.
func numbered(iss, irs Seq) setup {
	return func(p *script, _ *Config, syn *Segment) { p.fixed, p.irs, syn.Seq = iss, irs, irs }
}

func noSACK(_ *script, cfg *Config, _ *Segment) { cfg.SACK = false }

// noRead is for tests in which delayed ACKs show: quick ACKs are off.
func noQuick(_ *script, cfg *Config, _ *Segment) { cfg.QuickACKs = 0 }

// withTimestamps has both ends use them.
func withTimestamps(_ *script, cfg *Config, syn *Segment) {
	cfg.Timestamps = true
	syn.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: 5000}
}

// newScript makes a connection in CLOSED. The peer has SACK and a MSS of 1000
// and no timestamps.
func newScript(t *testing.T, setups []setup) (*script, *Segment) {
	t.Helper()
	p := &script{t: t, now: clock.Time(time.Hour), irs: 7000}
	cfg := DefaultConfig()
	cfg.Timestamps, cfg.WindowScale, cfg.HyStart = false, false, false
	cfg.Congestion = "newreno"
	seed := uint64(1)
	cfg.Random = func() uint64 { seed = seed*6364136223846793005 + 1442695040888963407; return seed }
	syn := &Segment{Seq: p.irs, Flags: SYN, Window: testWindow, Options: wire.NoTCPOptions()}
	syn.Options.MSS = testMSS
	syn.Options.SACKPermitted = true
	for _, s := range setups {
		s(p, &cfg, syn)
	}
	layer, err := NewLayer(cfg)
	require.NoError(t, err)
	p.layer = layer
	p.c.Init(layer, ID{Local: 0x0A000001, Remote: 0x0A000002, LocalPort: 40000, RemotePort: 80}, 1500, &p.tx, &p.rx)
	return p, syn
}

func (p *script) renumber() {
	if p.fixed != 0 {
		s := &p.c.snd
		s.iss, s.una, s.nxt, s.up, s.small = p.fixed, p.fixed, p.fixed, p.fixed, p.fixed
	}
	p.iss = p.c.snd.iss
}

// Send is Output.
func (p *script) Send(s *Segment) bool {
	if p.full {
		return false
	}
	kept := *s
	kept.Payload = append(append([]byte(nil), s.Payload...), s.Wrapped...)
	kept.Wrapped = nil
	p.out = append(p.out, kept)
	return true
}

func (p *script) SendRun(s *Segment, mss int) int { return s.Cut(mss, p.Send) }

// emit is the end of a step.
func (p *script) emit() {
	p.t.Helper()
	for range 1000 {
		if !p.c.Emit(p.now, p) || p.full {
			require.Empty(p.t, p.c.inconsistent())
			return
		}
	}
	p.t.Fatal("Emit always has more")
}

// Ready-made connections, one for each state.

func synSent(t *testing.T, setups ...setup) (*script, *Segment) {
	t.Helper()
	p, syn := newScript(t, setups)
	p.c.Connect(p.now)
	p.renumber()
	p.emit()
	want := SYN
	if p.c.opt.ecn {
		want |= ECE | CWR
	}
	p.wants(want, seq(p.iss))
	syn.Flags |= SYN | ACK
	syn.Ack = p.iss + 1
	return p, syn
}

func closed(t *testing.T, setups ...setup) *script {
	t.Helper()
	p, _ := newScript(t, setups)
	return p
}

func synReceived(t *testing.T, setups ...setup) *script {
	t.Helper()
	p, syn := newScript(t, setups)
	var answer Segment
	require.Equal(t, Open, p.layer.Listen(p.now, p.c.ID(), syn, false, 1500, &answer))
	p.c.Accept(p.now, syn)
	p.renumber()
	p.emit()
	p.wants(SYN|ACK, seq(p.iss), ack(p.irs+1))
	return p
}

// established is a passive open, after a round trip of 100 ms.
func established(t *testing.T, setups ...setup) *script {
	t.Helper()
	p := synReceived(t, setups...)
	p.now = p.now.Add(rtt)
	p.arrives(ACK)
	p.wantState(Established)
	p.wantIdle("the handshake is over")
	return p
}

func finWait1(t *testing.T, setups ...setup) *script {
	t.Helper()
	p := established(t, setups...)
	p.c.Shutdown(p.now)
	p.emit()
	p.wants(FIN|ACK, seq(p.snd(0)))
	p.wantState(FinWait1)
	return p
}

func finWait2(t *testing.T, setups ...setup) *script {
	t.Helper()
	p := finWait1(t, setups...)
	p.arrives(ACK)
	p.wantState(FinWait2)
	return p
}

func closeWait(t *testing.T, setups ...setup) *script {
	t.Helper()
	p := established(t, setups...)
	p.arrives(FIN | ACK)
	p.wants(ACK, ack(p.rcv(1)))
	p.wantState(CloseWait)
	return p
}

func closing(t *testing.T, setups ...setup) *script {
	t.Helper()
	p := finWait1(t, setups...)
	p.arrives(FIN|ACK, ack(p.snd(0)))
	p.wants(ACK, ack(p.rcv(1)))
	p.wantState(Closing)
	return p
}

func lastAck(t *testing.T, setups ...setup) *script {
	t.Helper()
	p := closeWait(t, setups...)
	p.c.Shutdown(p.now)
	p.emit()
	p.wants(FIN|ACK, seq(p.snd(0)))
	p.wantState(LastAck)
	return p
}

func timeWait(t *testing.T, setups ...setup) *script {
	t.Helper()
	p := finWait2(t, setups...)
	p.arrives(FIN | ACK)
	p.wants(ACK, ack(p.rcv(1)))
	p.wantState(TimeWait)
	return p
}

func (p *script) snd(n int) Seq { return p.iss.Add(n + 1) }
func (p *script) rcv(n int) Seq { return p.irs.Add(n + 1) }

// field sets a field of a segment that arrives, or checks one of a segment that left.
type field struct {
	set   func(s *Segment)
	check func(s *Segment) string
}

func differ[T comparable](name string, want T, got func(s *Segment) T) func(s *Segment) string {
	return func(s *Segment) string {
		if g := got(s); g != want {
			return fmt.Sprintf("%s is %v and not %v", name, g, want)
		}
		return ""
	}
}

func seq(n Seq) field {
	return field{func(s *Segment) { s.Seq = n }, differ("SEG.SEQ", n, func(s *Segment) Seq { return s.Seq })}
}

func ack(n Seq) field {
	return field{func(s *Segment) { s.Ack = n }, differ("SEG.ACK", n, func(s *Segment) Seq { return s.Ack })}
}

func win(n int) field {
	return field{func(s *Segment) { s.Window = uint16(n) }, differ("SEG.WND", n, func(s *Segment) int { return int(s.Window) })}
}

// text is n bytes of the peer's stream, of value that depends on the sequence
// number, or that length.
func text(n int) field {
	return field{func(s *Segment) { s.Payload = make([]byte, n) }, differ("the payload's length", n, (*Segment).PayloadLen)}
}

// bytes is a payload.
func bytes(b string) field {
	return field{func(s *Segment) { s.Payload = []byte(b) }, differ("the payload", b, func(s *Segment) string { return string(s.Payload) })}
}

func sack(edges ...Seq) field {
	blocks := func(s *Segment) string { return fmt.Sprint(s.Options.SACK[:s.Options.NSACK]) }
	var want Segment
	for i := 0; i < len(edges); i += 2 {
		want.Options.SACK[want.Options.NSACK] = wire.SACKBlock{Left: edges[i], Right: edges[i+1]}
		want.Options.NSACK++
	}
	return field{func(s *Segment) { s.Options.SACK, s.Options.NSACK = want.Options.SACK, want.Options.NSACK },
		differ("SACK", blocks(&want), blocks)}
}

func tsval(n uint32) field {
	return field{func(s *Segment) { s.Options.Timestamp.Has, s.Options.Timestamp.Val = true, n },
		differ("TSval", n, func(s *Segment) uint32 { return s.Options.Timestamp.Val })}
}

func tsecr(n uint32) field {
	return field{func(s *Segment) { s.Options.Timestamp.Has, s.Options.Timestamp.Ecr = true, n },
		differ("TSecr", n, func(s *Segment) uint32 { return s.Options.Timestamp.Ecr })}
}

func ecn(e ECN) field {
	return field{func(s *Segment) { s.ECN = e }, differ("ECN", e, func(s *Segment) ECN { return s.ECN })}
}

func urgent(n uint16) field {
	return field{func(s *Segment) { s.Urgent = n }, differ("SEG.UP", n, func(s *Segment) uint16 { return s.Urgent })}
}

// segment is what arrives: by default the next in order, which acknowledges
// everything.
func (p *script) segment(flags wire.TCPFlags, fields []field) *Segment {
	s := &Segment{Seq: p.c.rcv.nxt, Flags: flags, Window: testWindow, Options: wire.NoTCPOptions()}
	if flags&ACK != 0 {
		s.Ack = p.c.snd.nxt
	}
	if p.c.ts.on && flags&RST == 0 {
		s.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: p.c.ts.recent, Ecr: p.c.timestamp(p.now)}
	}
	for _, f := range fields {
		f.set(s)
	}
	return s
}

// arrives lets a segment arrive and the step end.
func (p *script) arrives(flags wire.TCPFlags, fields ...field) {
	p.t.Helper()
	p.c.Arrives(p.now, p.segment(flags, fields))
	p.emit()
}

// batch lets segments arrive in one step.
func (p *script) batch(segments ...*Segment) {
	p.t.Helper()
	for _, s := range segments {
		p.c.Arrives(p.now, s)
	}
	p.emit()
}

// wants takes the next segment that left.
func (p *script) wants(flags wire.TCPFlags, fields ...field) *Segment {
	p.t.Helper()
	if len(p.out) == 0 {
		p.t.Fatalf("nothing left, want %v", flags)
	}
	s := p.out[0]
	p.out = p.out[1:]
	if s.Flags&^PSH != flags&^PSH || flags&PSH != 0 && s.Flags&PSH == 0 {
		p.t.Fatalf("flags are %v and not %v in %v", s.Flags, flags, p.show(&s))
	}
	for _, f := range fields {
		if why := f.check(&s); why != "" {
			p.t.Fatalf("%s in %s", why, p.show(&s))
		}
	}
	return &s
}

func (p *script) show(s *Segment) string {
	return fmt.Sprintf("%v seq %d (snd %d) len %d ack %d (rcv %d) win %d sack %v", s.Flags, s.Seq, s.Seq.Sub(p.snd(0)), s.PayloadLen(),
		s.Ack, s.Ack.Sub(p.rcv(0)), s.Window, s.Options.SACK[:s.Options.NSACK])
}

// wantIdle wants silence: every segment that left was looked at.
func (p *script) wantIdle(why string) {
	p.t.Helper()
	p.emit()
	if len(p.out) > 0 {
		p.t.Fatalf("%s, but there left %s", why, p.show(&p.out[0]))
	}
}

func (p *script) wantState(s State) {
	p.t.Helper()
	require.Equal(p.t, s.String(), p.c.State().String())
}

func (p *script) wantErr(e Error) {
	p.t.Helper()
	require.ErrorIs(p.t, p.c.Err(), e)
	require.Equal(p.t, Closed, p.c.State())
}

// wait lets time pass; what runs out meanwhile is served when it does.
func (p *script) wait(d time.Duration) {
	p.t.Helper()
	end := p.now.Add(d)
	for {
		at := p.c.Deadline()
		if at == clock.Never || at.After(end) {
			break
		}
		p.now = max(p.now, at)
		p.c.Timeout(p.now)
		p.emit()
	}
	p.now = end
}

// waitFor lets time pass until something leaves, and returns how long it took.
func (p *script) waitFor(limit time.Duration) time.Duration {
	p.t.Helper()
	begin := p.now
	for len(p.out) == 0 {
		at := p.c.Deadline()
		if at == clock.Never || at.Sub(begin) > limit {
			p.t.Fatalf("nothing leaves within %v", limit)
		}
		p.now = max(p.now, at)
		p.c.Timeout(p.now)
		p.emit()
	}
	return p.now.Sub(begin)
}

// write is the user's, n bytes that depend on their place.
func (p *script) write(n int) {
	p.t.Helper()
	b := make([]byte, n)
	require.Equal(p.t, n, p.tx.Write(b), "room in the send stream")
	p.emit()
}

// read is the user's; it wants n bytes and takes them.
func (p *script) read(n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	require.Equal(p.t, n, p.rx.Read(b), "bytes in the receive stream")
	p.c.ReceiveRead(p.now, n)
	p.emit()
	return b
}

// near wants a time within 4 ms, packetdrill's tolerance.
func (p *script) near(want, got time.Duration) {
	p.t.Helper()
	require.InDelta(p.t, want.Seconds(), got.Seconds(), 0.004)
}
