package tcp

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// fuzzStates are where a fuzzer begins.
var fuzzStates = []State{SynSent, SynReceived, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait}

// tape hands out the fuzzer's bytes as numbers; behind its end come zeros.
type tape []byte

func (t *tape) byte() (b byte) {
	if len(*t) > 0 {
		b, *t = (*t)[0], (*t)[1:]
	}
	return b
}

func (t *tape) word() uint32 {
	return uint32(t.byte())<<24 | uint32(t.byte())<<16 | uint32(t.byte())<<8 | uint32(t.byte())
}

// near returns a number close to one of the edges that matter, or any.
func (t *tape) near(p *script) Seq {
	c := &p.c
	edges := []Seq{c.snd.una, c.snd.nxt, c.rcv.nxt, c.rcv.adv, c.snd.una + Seq(c.snd.wnd), c.rcv.irs, c.snd.iss}
	b := t.byte()
	if int(b) >= 28*len(edges) {
		return Seq(t.word())
	}
	return edges[int(b)%len(edges)] + Seq(int32(int8(t.byte()))*int32(1+t.byte()%200))
}

// segment draws a segment, most of it plausible.
func (t *tape) segment(p *script) *Segment {
	s := p.segment(wire.TCPFlags(t.byte()), nil)
	switch t.byte() % 4 {
	case 0:
		s.Flags = ACK
	case 1:
		s.Flags = ACK | PSH
	}
	shape := t.byte()
	if shape&1 != 0 {
		s.Seq = t.near(p)
	}
	if shape&2 != 0 {
		s.Ack = t.near(p)
	}
	if shape&4 != 0 {
		s.Payload = make([]byte, int(t.byte())*8)
	}
	if shape&8 != 0 {
		s.Window = uint16(t.word())
	}
	if shape&16 != 0 {
		s.Options.NSACK = t.byte() % 5
		for i := range s.Options.NSACK {
			s.Options.SACK[i] = wire.SACKBlock{Left: t.near(p), Right: t.near(p)}
		}
	}
	if shape&32 != 0 {
		s.Options.Timestamp = wire.TCPTimestamp{Has: t.byte()&1 != 0, Val: p.c.ts.recent + uint32(int8(t.byte())), Ecr: p.c.timestamp(p.now) - uint32(t.byte())}
	}
	if shape&64 != 0 {
		s.Options.MSS, s.Options.WScale = uint16(t.word()), int8(t.byte()%15)
	}
	if shape&128 != 0 {
		s.Urgent, s.ECN = uint16(t.word()), ECN(t.byte()%4)
	}
	return s
}

// fuzzConfig is the configuration that a byte stands for.
func fuzzConfig(b byte) setup {
	return with(func(c *Config) {
		c.SACK, c.RACK, c.WindowScale = b&1 != 0, b&2 == 0, b&4 != 0
		c.Pacing, c.ECN = b&8 != 0, ECNMode(b>>4%3)
		c.OutOfOrder = 3
		if b&64 != 0 {
			c.ReceiveBuffer, c.ReceiveBufferMax = 3000, 3000
		}
		if b&128 != 0 {
			c.Congestion, c.HyStart = "cubic", true
		}
	})
}

// FuzzConnection does what the bytes say to a connection: segments, user calls,
// ICMP errors and time. Nothing may panic, loop, contradict itself, send
// what was not written, or keep memory once it is closed.
func FuzzConnection(f *testing.F) {
	for i := range fuzzStates {
		f.Add(append([]byte{byte(i), 0xFF}, make([]byte, 64)...))
		f.Add([]byte{byte(i), 7, 0, 0, 0, 4, 10, 1, 50, 9, 0, 16, 0, 0, 22, 1, 200, 0, 9, 9, 3, 0, 1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := tape(data)
		state := fuzzStates[int(in.byte())%len(fuzzStates)]
		config := in.byte()
		p := ready[state](t, fuzzConfig(config))
		for step := 0; len(in) > 0 && step < 500; step++ {
			p.fuzzStep(&in)
			p.checkOutput()
		}
		p.c.Close(p.now)
		p.emit()
		for range 3000 {
			at := p.c.Deadline()
			if at == clock.Never {
				break
			}
			p.now = max(p.now, at)
			p.c.Timeout(p.now)
			p.emit()
			p.out = nil
		}
		if s := p.c.State(); s != Closed {
			t.Fatalf("an orphan stays in %v for ever", s)
		}
		require.Empty(t, p.c.inconsistent())
	})
}

// fuzzStep is one event.
func (p *script) fuzzStep(in *tape) {
	p.t.Helper()
	switch op := in.byte(); op % 16 {
	case 0, 1, 2, 3, 4, 5, 6, 7:
		p.c.Arrives(p.now, in.segment(p))
	case 8:
		p.now = p.now.Add(time.Duration(in.byte()) * time.Millisecond)
		p.c.Timeout(p.now)
	case 9:
		if at := p.c.Deadline(); at != clock.Never {
			p.now = max(p.now, at)
			p.c.Timeout(p.now)
		}
	case 10:
		if p.c.State().canSend() && !p.c.snd.finWanted {
			p.tx.Write(make([]byte, int(in.byte())*40))
		}
	case 11:
		var b [2000]byte
		p.c.ReceiveRead(p.now, p.rx.Read(b[:in.byte()]))
	case 12:
		p.c.PathError(p.now, PathErrorKind(in.byte()%7), int(in.byte())*8, in.near(p))
	case 13:
		p.full = in.byte()&1 != 0
	case 14:
		switch in.byte() % 8 {
		case 0:
			p.c.Shutdown(p.now)
		case 1:
			p.c.SetNoDelay(true)
		case 2:
			p.c.SetCork(in.byte()&1 != 0)
		case 3:
			p.c.SetKeepAlive(p.now, true, time.Second, time.Second, 2)
		case 4:
			p.c.SetUserTimeout(p.now, time.Duration(in.byte())*time.Second)
		case 5:
			p.c.SetReceiveBuffer(int(in.byte()) * 16)
		case 6:
			p.c.SetMaxSegment(int(in.byte()) * 8)
		case 7:
			p.c.SetUrgent()
		}
	case 15:
		p.emit()
	}
	if op := in.byte(); op&1 == 0 {
		p.emit()
	}
	p.full = false
}

// checkOutput wants of every segment what the peer may rely on.
func (p *script) checkOutput() {
	for i := range p.out {
		s := &p.out[i]
		why := ""
		switch {
		case s.PayloadLen() > 0 && s.has(SYN):
			why = "text on a SYN"
		case s.PayloadLen()+s.Options.Len(s.has(SYN)) > 1500-ipTCPLen:
			why = "longer than the MTU"
		case !s.has(SYN) && !s.has(RST) && !s.has(ACK):
			why = "no ACK"
		case s.has(ACK) && !s.has(RST) && s.Ack.After(p.c.rcv.nxt):
			why = "acknowledges what was not received"
		case !s.has(RST) && s.end().After(p.c.snd.nxt):
			why = "sends behind SND.NXT"
		}
		if why != "" {
			p.t.Fatalf("%s: %s", why, p.show(s))
		}
	}
	p.out = nil
}

// FuzzSegment lets bytes of any kind arrive, as they would from the wire:
// header, options and payload.
func FuzzSegment(f *testing.F) {
	header := make([]byte, 20)
	wire.PutTCP(header, &wire.TCPFields{Flags: ACK}, 0)
	f.Add(byte(2), header)
	f.Add(byte(0), append([]byte{0, 80, 156, 64, 0, 0, 27, 88, 0, 0, 0, 1, 0xB0, 0x12, 1, 0, 0, 0, 0, 0}, 2, 4, 5, 0xB4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7, 1, 1, 5, 2))
	f.Fuzz(func(t *testing.T, state byte, data []byte) {
		view, err := wire.ParseTCP(data)
		if err != nil {
			return
		}
		p := ready[fuzzStates[int(state)%len(fuzzStates)]](t)
		var s, answer Segment
		if s.Parse(view, ECN(state>>6)) != nil {
			return
		}
		p.c.Arrives(p.now, &s)
		p.emit()
		// The same where the numbers are right.
		s.Seq, s.Ack = p.c.rcv.nxt, p.c.snd.nxt
		p.c.Arrives(p.now, &s)
		p.emit()
		p.checkOutput()
		for _, flood := range []bool{false, true} {
			if p.layer.Listen(p.now, p.c.ID(), &s, flood, 1500, &answer) == Answer && answer.Flags&(RST|SYN) == 0 {
				t.Fatal(fmt.Sprint("LISTEN answers ", answer.Flags))
			}
		}
	})
}

// FuzzCookie takes any ACK for a cookie's: what is not one makes no connection.
func FuzzCookie(f *testing.F) {
	f.Add(uint32(1), uint32(2), uint32(3))
	f.Fuzz(func(t *testing.T, seq, ack, ecr uint32) {
		p := closed(t)
		s := &Segment{Seq: Seq(seq), Ack: Seq(ack), Flags: ACK, Options: wire.NoTCPOptions()}
		s.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: 1, Ecr: ecr}
		if p.c.AcceptCookie(p.now, s) {
			p.emit()
			p.wantState(Established)
			require.Contains(t, cookieMSS, p.c.snd.peer)
			return
		}
		p.wantState(Closed)
	})
}
