package tcp

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Each test here runs everything twice, with header prediction and without.

// wholeWay lets every segment go the whole way of arrivesOtherwise.
func wholeWay(l *Layer) { l.unpredicted = true }

// differs says in which way two connections with the same name differ, in any
// field and in what they borrowed; "" if they do not.
func differs(a, b *Conn) string {
	x, y := *a, *b
	x.layer, x.tx, x.rx, x.flight, x.holes = nil, nil, nil, nil, nil
	y.layer, y.tx, y.rx, y.flight, y.holes = nil, nil, nil, nil, nil
	if x != y {
		return fmt.Sprintf("%+v\nand\n%+v", x, y)
	}
	if (a.flight == nil) != (b.flight == nil) || (a.holes == nil) != (b.holes == nil) {
		return "one has a scoreboard or ranges, the other has not"
	}
	if f, g := a.flight, b.flight; f != nil {
		// Where the ring begins depends on who had it before.
		v, w := *f, *g
		v.records, v.next, w.records, w.next = nil, nil, nil, nil
		v.layer, v.small, w.layer, w.small = nil, [firstRecords]sent{}, nil, [firstRecords]sent{}
		v.hint, v.first, w.hint, w.first = f.hint-f.first, 0, g.hint-g.first, 0
		if fmt.Sprint(v) != fmt.Sprint(w) {
			return fmt.Sprintf("the scoreboards are %+v and %+v", v, w)
		}
		for i := range f.n {
			if r, q := *f.rec(f.first + i), *g.rec(g.first + i); r != q {
				return fmt.Sprintf("record %d is %+v and %+v", i, r, q)
			}
		}
	}
	if h, g := a.holes, b.holes; h != nil {
		if fmt.Sprint(h.ranges, h.recent[:h.nRecent]) != fmt.Sprint(g.ranges, g.recent[:g.nRecent]) {
			return "the ranges are not the same"
		}
	}
	if u, v := a.tx.Used(), b.tx.Used(); u != v || a.tx.Limit() != b.tx.Limit() {
		return "the send streams are not the same"
	}
	if u, v := a.rx.Used(), b.rx.Used(); u != v || a.rx.Limit() != b.rx.Limit() {
		return "the receive streams are not the same"
	}
	return ""
}

// sameStats compares what two layers counted.
func sameStats(a, b *Layer) bool {
	x, y := a.Stats(), b.Stats()
	x.Predicted, y.Predicted = 0, 0
	return x == y
}

// The simulator sends the same bytes at the same moments with prediction and
// without, and both ends finish with the same control blocks.
func TestPredictionChangesNothing(t *testing.T) {
	predicted, all := uint64(0), uint64(0)
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds)/6; seed++ {
		m, w := drawSim(seed), drawSim(seed)
		for _, e := range w.ends {
			wholeWay(e.layer)
		}
		if a, b := m.check(seed), w.check(seed); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("seed %d: %v with prediction, %v without", seed, a, b)
		}
		if m.sum != w.sum || m.now != w.now {
			t.Fatalf("seed %d: other segments left, or at other times", seed)
		}
		for i, e := range m.ends {
			o := w.ends[i]
			if !e.opened {
				continue
			}
			if why := differs(&e.conn, &o.conn); why != "" {
				t.Fatalf("seed %d, side %d: %s", seed, i, why)
			}
			if !sameStats(e.layer, o.layer) {
				t.Fatalf("seed %d, side %d: %+v and %+v", seed, i, e.layer.Stats(), o.layer.Stats())
			}
			require.Zero(t, o.layer.Stats().Predicted)
			predicted += e.layer.Stats().Predicted
			all += e.layer.Stats().InSegments
		}
	}
	t.Logf("%d of %d segments were predicted", predicted, all)
	require.Greater(t, predicted, all/10, "the paths are bad, and yet some segments come in order")
}

// Without loss nearly everything is predicted, in bulk and in conversation.
func TestPredictionTakesNearlyAll(t *testing.T) {
	p := newPair(t)
	p.connect(t, 1000)
	buf := make([]byte, 64<<10)
	for range 100 {
		p.tx[0].Write(buf)
		for {
			p.run()
			n := p.rx[1].Read(buf)
			if n == 0 {
				break
			}
			p.b.ReceiveRead(p.now, n)
		}
		p.exchange(buf[:1])
	}
	s := p.layer.Stats()
	t.Logf("%d of %d segments were predicted", s.Predicted, s.InSegments)
	require.Greater(t, s.Predicted, s.InSegments*9/10)
}

// twins are two connections that live through the same, the second without
// prediction.
type twins struct {
	a, b *script
	t    *testing.T
}

// both does the same to both and compares what left and what they are.
func (p *twins) both(do func(p *script)) {
	p.t.Helper()
	do(p.a)
	do(p.b)
	require.Len(p.t, p.b.out, len(p.a.out), "segments")
	for i := range p.a.out {
		x, y := p.a.out[i], p.b.out[i]
		clear(x.Options.SACK[x.Options.NSACK:])
		clear(y.Options.SACK[y.Options.NSACK:])
		require.Equal(p.t, x, y)
	}
	p.a.out, p.b.out = nil, nil
	if why := differs(&p.a.c, &p.b.c); why != "" {
		p.t.Fatal(why)
	}
	if !sameStats(p.a.layer, p.b.layer) {
		p.t.Fatalf("%+v and %+v", p.a.layer.Stats(), p.b.layer.Stats())
	}
	if p.a.now != p.b.now || p.a.c.Info(p.a.now) != p.b.c.Info(p.b.now) {
		p.t.Fatal("not the same Info")
	}
}

func newTwins(t *testing.T, setups ...setup) *twins {
	p := &twins{established(t, setups...), established(t, setups...), t}
	wholeWay(p.b.layer)
	p.both(func(p *script) { p.c.opt.ecn = p.layer.cfg.ECN == ECNOn }) // what the handshake would agree on
	return p
}

// One condition of prediction after the other is broken, or is at its edge.
func TestPredictionAtItsEdges(t *testing.T) {
	second := Seq(testMSS)
	edges := map[string]func(p *script, s *Segment){
		"text":                 func(p *script, s *Segment) {},
		"text and ACK":         func(p *script, s *Segment) { s.Ack += second },
		"ACK alone":            func(p *script, s *Segment) { s.Ack, s.Payload = s.Ack+second, nil },
		"ACK of a part":        func(p *script, s *Segment) { s.Ack, s.Payload = s.Ack+10, nil },
		"ACK of one and more":  func(p *script, s *Segment) { s.Ack, s.Payload = s.Ack+second+1, nil },
		"ACK of all":           func(p *script, s *Segment) { s.Ack, s.Payload = p.c.snd.nxt, nil },
		"ACK of too much":      func(p *script, s *Segment) { s.Ack = p.c.snd.nxt + 1 },
		"old ACK":              func(p *script, s *Segment) { s.Ack-- },
		"nothing":              func(p *script, s *Segment) { s.Payload = nil },
		"window":               func(p *script, s *Segment) { s.Payload, s.Window = nil, 5 },
		"window closes":        func(p *script, s *Segment) { s.Ack, s.Window = p.c.snd.nxt, 0 },
		"in front":             func(p *script, s *Segment) { s.Seq-- },
		"behind":               func(p *script, s *Segment) { s.Seq++ },
		"PSH":                  func(p *script, s *Segment) { s.Flags |= PSH },
		"FIN":                  func(p *script, s *Segment) { s.Flags |= FIN },
		"URG":                  func(p *script, s *Segment) { s.Flags, s.Urgent = s.Flags|URG, 3 },
		"RST":                  func(p *script, s *Segment) { s.Flags |= RST },
		"SYN":                  func(p *script, s *Segment) { s.Flags |= SYN },
		"no ACK":               func(p *script, s *Segment) { s.Flags = 0 },
		"ECE":                  func(p *script, s *Segment) { s.Flags |= ECE },
		"CWR":                  func(p *script, s *Segment) { s.Flags |= CWR },
		"CE":                   func(p *script, s *Segment) { s.ECN = CE },
		"ECT":                  func(p *script, s *Segment) { s.ECN = ECT0 },
		"no timestamp":         func(p *script, s *Segment) { s.Options.Timestamp.Has = false },
		"timestamp older":      func(p *script, s *Segment) { s.Options.Timestamp.Val-- },
		"timestamp newer":      func(p *script, s *Segment) { s.Options.Timestamp.Val++ },
		"no echo":              func(p *script, s *Segment) { s.Options.Timestamp.Ecr = 0 },
		"full window":          func(p *script, s *Segment) { s.Payload = make([]byte, p.c.rcvWnd()) },
		"more than the window": func(p *script, s *Segment) { s.Payload = make([]byte, p.c.rcvWnd()+1) },
		"no room":              func(p *script, s *Segment) { p.rx.SetLimit(50) },
		"nobody reads":         func(p *script, s *Segment) { p.c.ShutdownRead() },
		"SACK": func(p *script, s *Segment) {
			s.Options.NSACK, s.Options.SACK[0] = 1, wire.SACKBlock{Left: s.Ack + second, Right: s.Ack + 2*second}
		},
	}
	before := map[string]func(p *script){
		"fresh":       func(p *script) {},
		"in flight":   func(p *script) { p.write(5 * testMSS) },
		"cwnd full":   func(p *script) { p.write(15 * testMSS) },
		"long flight": func(p *script) { p.write(5 * testMSS); p.now = p.now.Add(rtt); p.write(1) },
		"again": func(p *script) { // the last was sent again as a probe
			p.write(5 * testMSS)
			p.waitFor(time.Minute)
		},
		"lost": func(p *script) { p.write(5 * testMSS); p.wait(3 * rtt); p.waitFor(time.Minute) },
		"SACKed": func(p *script) {
			p.write(5 * testMSS)
			p.arrives(ACK, ack(p.c.snd.una), sack(p.c.snd.una+2*second, p.c.snd.una+3*second))
		},
		"duplicate":     func(p *script) { p.write(5 * testMSS); p.arrives(ACK, ack(p.c.snd.una)) },
		"gap":           func(p *script) { p.arrives(ACK, seq(p.c.rcv.nxt+10), text(5)) },
		"FIN behind":    func(p *script) { p.arrives(ACK|FIN, seq(p.c.rcv.nxt+100)) },
		"closed window": func(p *script) { p.arrives(ACK, win(0)); p.write(50); p.wait(20 * rtt) },
		"held back":     func(p *script) { p.c.SetCork(true); p.write(50) },
		"delayed ACK":   func(p *script) { p.arrives(ACK, text(10)); p.now = p.now.Add(time.Millisecond) },
		"urgent": func(p *script) {
			p.write(2 * testMSS)
			p.c.SetUrgent()
			p.c.rcv.urgent, p.c.rcv.up = true, p.c.rcv.nxt+50
		},
		"window of ACK":   func(p *script) { p.arrives(ACK, seq(p.c.rcv.nxt+200)) },
		"user time-out":   func(p *script) { p.c.SetUserTimeout(p.now, time.Second); p.write(5 * testMSS) },
		"after an RTO":    func(p *script) { p.write(testMSS); p.waitFor(time.Minute); p.waitFor(time.Minute); p.arrives(ACK) },
		"reneged":         func(p *script) { p.write(5 * testMSS); p.c.flight.fack += 3 * second },
		"sent again":      func(p *script) { p.write(5 * testMSS); p.c.flight.last().mark |= everRexmt },
		"RACK knows more": func(p *script) { p.write(5 * testMSS); p.c.flight.rack.at = p.now.Add(time.Second) },
		"RACK waits":      func(p *script) { p.write(5 * testMSS); p.c.timer.kind = timerReorder },
		"half closed":     func(p *script) { p.write(5 * testMSS); p.c.Shutdown(p.now) },
		"closed":          func(p *script) { p.write(5 * testMSS); p.c.Close(p.now) },
		"FIN-WAIT-2":      func(p *script) { p.c.Shutdown(p.now); p.emit(); p.arrives(ACK) },
		"CLOSE-WAIT":      func(p *script) { p.arrives(FIN | ACK); p.write(5 * testMSS) },
		"LAST-ACK":        func(p *script) { p.arrives(FIN | ACK); p.write(5 * testMSS); p.c.Shutdown(p.now) },
		"CLOSING": func(p *script) {
			p.write(5 * testMSS)
			p.c.Shutdown(p.now)
			p.emit()
			p.arrives(FIN|ACK, ack(p.c.snd.una))
		},
		"TIME-WAIT":       func(p *script) { p.c.Shutdown(p.now); p.emit(); p.arrives(FIN | ACK) },
		"SYN-RECEIVED":    func(p *script) { p.c.state = SynReceived; p.c.snd.una-- },
		"congested (CWR)": func(p *script) { p.write(5 * testMSS); p.arrives(ACK|ECE, ack(p.c.snd.una+second)) },
	}
	ways := map[string][]setup{
		"plain":       {noQuick},
		"timestamps":  {withTimestamps, with(func(c *Config) { c.Congestion, c.HyStart = "cubic", true })},
		"no SACK":     {noSACK},
		"ECN, pacing": {with(func(c *Config) { c.ECN, c.Pacing = ECNOn, true })},
	}
	for way, setups := range ways {
		for was, prepare := range before {
			for what, change := range edges {
				t.Run(way+"/"+was+"/"+what, func(t *testing.T) {
					p := newTwins(t, setups...)
					p.both(prepare)
					for range 2 {
						p.both(func(p *script) {
							p.now = p.now.Add(7 * time.Millisecond)
							s := p.segment(ACK, nil)
							s.Ack, s.Payload = p.c.snd.una, make([]byte, 100)
							change(p, s)
							p.c.Arrives(p.now, s)
						})
						p.both((*script).emit)
					}
					p.both(func(p *script) { p.wait(3 * rtt) })
				})
			}
		}
	}
}

// FuzzPrediction does the same to two connections, one with prediction, and wants
// them and what they send to be the same after each event. The bytes are
// FuzzConnection's.
func FuzzPrediction(f *testing.F) {
	for i := range 16 {
		f.Add(append([]byte{byte(i), 0xFF}, make([]byte, 64)...))
		f.Add([]byte{byte(i * 16), 10, 50, 0, 0, 2, 2, 0, 9, 0, 4, 10, 1, 50, 9, 0, 16, 0, 0, 22, 1, 200, 0, 9, 9, 3, 0, 1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := tape(data)
		setups := []setup{fuzzConfig(in.byte())}
		if in.byte()&1 != 0 {
			setups = append(setups, withTimestamps)
		}
		p := newTwins(t, setups...)
		for step := 0; len(in) > 0 && step < 300; step++ {
			tapes := []tape{in, in}
			i := 0
			p.both(func(p *script) {
				p.fuzzStep(&tapes[i])
				i++
			})
			in = tapes[0]
		}
		for range 100 {
			if p.a.c.Deadline() == clock.Never {
				break
			}
			p.both(func(p *script) {
				p.now = max(p.now, p.c.Deadline())
				p.c.Timeout(p.now)
				p.emit()
			})
		}
	})
}
