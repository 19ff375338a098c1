package tcp

import (
	"testing"
	"time"
	"unsafe"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/wire"
)

// The benchmarks report what the state machine costs a segment. "stream" has
// ring.Stream behind it and so the copies of the bytes; "counted" has streams
// that only count, so that nothing else is measured.

// countedReceive and countedSend are streams without bytes.
type (
	countedReceive struct{ used, limit int }
	countedSend    struct {
		used, limit int
		bytes       []byte
	}
)

func (s *countedReceive) Used() int                 { return s.used }
func (s *countedReceive) Put(off int, p []byte) int { return min(len(p), s.limit-s.used-off) }
func (s *countedReceive) Commit(n int)              { s.used += n }
func (s *countedReceive) Limit() int                { return s.limit }
func (s *countedReceive) SetLimit(n int)            { s.limit = n }

func (s *countedSend) Used() int                   { return s.used }
func (s *countedSend) Peek(_, n int) (a, b []byte) { return s.bytes[:n], nil }
func (s *countedSend) Release(n int)               { s.used -= n }
func (s *countedSend) Limit() int                  { return s.limit }
func (s *countedSend) SetLimit(n int)              { s.limit = n }

// sink is an Output that counts.
type sink struct {
	segments int
	bytes    int
	last     Seq
}

func (o *sink) Send(s *Segment) bool {
	o.segments++
	o.bytes += s.PayloadLen()
	o.last = s.end()
	return true
}

func (o *sink) SendRun(s *Segment, mss int) int { return s.Cut(mss, o.Send) }

const (
	benchMSS   = 1448
	benchBatch = 32
	// benchGap is how far apart segments are at 10 Gbit/s.
	benchGap = 1200 * time.Nanosecond
)

// reportSegments says how long a segment took.
func reportSegments(b *testing.B, segments int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(segments), "ns/segment")
	b.ReportAllocs()
}

// Full segments in order, in batches of 32, one Emit and one read a batch.
func BenchmarkReceive(b *testing.B) {
	run := func(b *testing.B, counted bool) {
		p := newPair(b)
		p.connect(b, 1000)
		c := &p.b
		counts := &countedReceive{limit: p.layer.cfg.ReceiveBuffer}
		if counted {
			c.rx = counts
		}
		payload, buf := make([]byte, benchMSS), make([]byte, benchBatch*benchMSS)
		in := Segment{Seq: c.rcv.nxt, Ack: c.snd.nxt, Flags: ACK, Window: 500, Options: wire.NoTCPOptions(), Payload: payload}
		in.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: c.ts.recent, Ecr: c.timestamp(p.now)}
		base, begin := in.Options.Timestamp.Val, p.now
		var out sink
		segments := 0
		for b.Loop() {
			p.now = p.now.Add(benchBatch * benchGap)
			in.Options.Timestamp.Val = base + uint32(p.now.Sub(begin)/time.Millisecond)
			in.Options.Timestamp.Ecr = c.timestamp(p.now)
			for range benchBatch {
				c.Arrives(p.now, &in)
				in.Seq += benchMSS
			}
			c.Emit(p.now, &out)
			n := counts.used
			if counted {
				counts.used = 0
			} else {
				n = p.rx[1].Read(buf)
			}
			c.ReceiveRead(p.now, n)
			segments += benchBatch
		}
		if c.rcv.nxt != in.Seq || out.segments == 0 {
			b.Fatal("not all was taken")
		}
		reportSegments(b, segments)
	}
	b.Run("stream", func(b *testing.B) { run(b, false) })
	b.Run("counted", func(b *testing.B) { run(b, true) })
}

// A window of 256 segments, full all the time; 16 ACKs of two segments each and
// one Emit a batch. The congestion window is what limits it.
func BenchmarkSend(b *testing.B) {
	run := func(b *testing.B, counted bool) {
		const window = 256
		p := newPair(b)
		p.connect(b, 1000)
		c := &p.a
		buf := make([]byte, benchBatch*benchMSS)
		counts := &countedSend{used: 1 << 40, limit: 1 << 40, bytes: buf}
		if counted {
			c.tx = counts
		} else {
			p.tx[0].SetLimit(2 * window * benchMSS)
			for p.tx[0].Write(buf) == len(buf) {
			}
		}
		c.opt.fixedSend = true
		c.snd.wnd, c.snd.maxWnd = 1<<30, 1<<30
		c.cc.cwnd, c.cc.ssthresh = window, window/2
		var out sink
		c.Emit(p.now, &out)
		in := Segment{Seq: c.rcv.nxt, Ack: c.snd.una, Flags: ACK, Window: 65535, Options: wire.NoTCPOptions()}
		in.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: c.ts.recent, Ecr: c.timestamp(p.now)}
		base, begin := in.Options.Timestamp.Val, p.now
		segments := 0
		for b.Loop() {
			p.now = p.now.Add(benchBatch * benchGap)
			in.Options.Timestamp.Val = base + uint32(p.now.Sub(begin)/time.Millisecond)
			in.Options.Timestamp.Ecr = c.timestamp(p.now)
			for range benchBatch / 2 {
				in.Ack += 2 * benchMSS
				c.Arrives(p.now, &in)
			}
			c.cc.cwnd = window
			if !counted {
				p.tx[0].Write(buf)
			}
			c.Emit(p.now, &out)
			segments += benchBatch
		}
		if out.last != c.snd.nxt || c.inFlight() != window {
			b.Fatal("the window is not full")
		}
		reportSegments(b, segments)
	}
	b.Run("stream", func(b *testing.B) { run(b, false) })
	b.Run("counted", func(b *testing.B) { run(b, true) })
}

// Both ends: 32 full segments from one to the other, copies and all.
func BenchmarkBulk(b *testing.B) {
	p := newPair(b)
	p.connect(b, 1000)
	buf := make([]byte, benchBatch*benchMSS)
	segments := 0
	for b.Loop() {
		p.tx[0].Write(buf)
		for p.rx[1].Used() < len(buf) && p.tx[0].Used() > 0 {
			p.run()
		}
		p.b.ReceiveRead(p.now, p.rx[1].Read(buf))
		segments += benchBatch
	}
	reportSegments(b, segments)
}

// exchange is a request and an answer of a byte each, in the steps that an
// engine makes: each end's ACK goes with its answer.
func (p *pair) exchange(buf []byte) {
	p.tx[0].Write(buf)
	p.ab.step(p.now)
	p.b.ReceiveRead(p.now, p.rx[1].Read(buf))
	p.now = p.now.Add(10 * time.Microsecond)
	p.tx[1].Write(buf)
	p.ba.step(p.now)
	p.a.ReceiveRead(p.now, p.rx[0].Read(buf))
	p.now = p.now.Add(10 * time.Microsecond)
}

// Both ends of a request and its answer, a segment each.
func BenchmarkRequest(b *testing.B) {
	p := newPair(b)
	p.connect(b, 1000)
	buf := make([]byte, 1)
	segments := 0
	for b.Loop() {
		p.exchange(buf)
		segments += 2
	}
	reportSegments(b, segments)
}

// The same over so many connections, one after the other, that each is out of
// the nearer caches when its turn comes.
func BenchmarkRequestMany(b *testing.B) {
	const many = 10_000
	pairs := make([]*pair, many)
	first := newPair(b)
	for i := range pairs {
		pairs[i] = &pair{now: first.now, layer: first.layer, ab: first.ab, ba: first.ba}
		pairs[i].connect(b, uint16(i+1))
	}
	buf := make([]byte, 1)
	for _, p := range pairs {
		p.aim()
		p.exchange(buf)
	}
	segments, i := 0, 0
	for b.Loop() {
		pairs[i].aim()
		pairs[i].exchange(buf)
		segments += 2
		if i++; i == many {
			i = 0
		}
	}
	reportSegments(b, segments)
}

// Both ends of a connection from SYN to CLOSED with a byte in it.
func BenchmarkLife(b *testing.B) {
	p := newPair(b)
	buf := make([]byte, 1)
	port := uint16(0)
	for b.Loop() {
		port++
		p.connect(b, port)
		p.tx[0].Write(buf)
		p.run()
		p.b.ReceiveRead(p.now, p.rx[1].Read(buf))
		p.a.Close(p.now)
		p.run()
		p.b.Close(p.now)
		p.run()
		p.now = p.now.Add(2 * time.Minute)
		p.a.Timeout(p.now)
		for i := range 2 {
			p.tx[i].Shrink()
			p.rx[i].Shrink()
		}
	}
	b.ReportAllocs()
}

// What a step costs a connection in which nothing happens: the deadline, a
// time-out that is not due, an Emit that has nothing to say.
func BenchmarkIdle(b *testing.B) {
	p := newPair(b)
	p.connect(b, 1000)
	c := &p.a
	c.SetKeepAlive(p.now, true, 0, 0, 0)
	var out sink
	b.Run("deadline", func(b *testing.B) {
		var d clock.Time
		for b.Loop() {
			d = c.Deadline()
		}
		if d == clock.Never {
			b.Fatal("keep-alive has no deadline")
		}
	})
	b.Run("timeout", func(b *testing.B) {
		for b.Loop() {
			c.Timeout(p.now)
		}
	})
	b.Run("emit", func(b *testing.B) {
		for b.Loop() {
			c.Emit(p.now, &out)
		}
	})
	b.ReportMetric(float64(unsafe.Sizeof(Conn{})+2*unsafe.Sizeof(ring.Stream{})), "bytes")
	if out.segments > 0 {
		b.Fatal("an idle connection sends")
	}
}

// What stands between the wire and the state machine for a segment with
// timestamps: reading its header, and writing one.
func BenchmarkSegment(b *testing.B) {
	frame := make([]byte, 1500)
	o := wire.NoTCPOptions()
	o.Timestamp = wire.TCPTimestamp{Has: true, Val: 1, Ecr: 2}
	n := wire.PutTCPOptions(frame[wire.TCPLen:], &o, false)
	wire.PutTCP(frame, &wire.TCPFields{Seq: 1, Ack: 2, Flags: ACK, Window: 500, OptionsLen: n, PayloadLen: benchMSS}, 0)
	frame = frame[:wire.TCPLen+n+benchMSS]
	b.Run("parse", func(b *testing.B) {
		var s Segment
		for b.Loop() {
			t, err := wire.ParseTCP(frame)
			if err != nil || s.Parse(t, NotECT) != nil {
				b.Fatal("the segment is not good")
			}
		}
	})
	s := Segment{Seq: 1, Ack: 2, Flags: ACK, Window: 500, Options: o}
	b.Run("put", func(b *testing.B) {
		for b.Loop() {
			n := wire.PutTCPOptions(frame[wire.TCPLen:], &s.Options, false)
			wire.PutTCP(frame, &wire.TCPFields{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4, Seq: s.Seq, Ack: s.Ack,
				Flags: s.Flags, Window: s.Window, Urgent: s.Urgent, OptionsLen: n, PayloadLen: benchMSS}, 0x1234)
		}
	})
}

// A window of 4000 segments of which the first is lost: SACK blocks grow by two
// segments an ACK until a window's worth has come, and the repair ends it.
func BenchmarkRecovery(b *testing.B) {
	const window = 4000
	p := newPair(b)
	p.connect(b, 1000)
	c := &p.a
	c.tx = &countedSend{used: 1 << 40, limit: 1 << 40, bytes: make([]byte, benchMSS)}
	c.opt.fixedSend = true
	c.snd.wnd, c.snd.maxWnd = 1<<30, 1<<30
	var out sink
	segments := 0
	in := Segment{Seq: c.rcv.nxt, Flags: ACK, Window: 65535, Options: wire.NoTCPOptions()}
	in.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: c.ts.recent, Ecr: c.timestamp(p.now)}
	for b.Loop() {
		c.cc.cwnd, c.cc.ssthresh = window, window
		c.Emit(p.now, &out)
		una := c.snd.una
		in.Ack = una
		in.Options.NSACK = 1
		in.Options.SACK[0].Left = una + benchMSS
		for k := Seq(3); k < window; k += 2 {
			p.now = p.now.Add(2 * benchGap)
			in.Options.Timestamp.Ecr = c.timestamp(p.now)
			in.Options.SACK[0].Right = una + k*benchMSS
			c.Arrives(p.now, &in)
			c.Emit(p.now, &out)
			segments += 2
		}
		in.Options.NSACK = 0
		for c.flight != nil {
			p.now = p.now.Add(time.Millisecond)
			in.Ack = c.snd.nxt
			c.Arrives(p.now, &in)
		}
	}
	if p.layer.stats.Recoveries == 0 {
		b.Fatal("nothing was repaired")
	}
	reportSegments(b, segments)
}
