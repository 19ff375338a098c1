package tcp

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/ring"
)

// An idle established connection, its empty streams included, takes at most 2
// KiB; this package's part of that leaves room for the socket around it.
func TestIdleConnectionIsSmall(t *testing.T) {
	p := established(t)
	p.write(100)
	p.out = nil
	p.arrives(ACK)
	p.arrives(ACK, text(100))
	p.out = nil
	p.read(100)
	p.wait(time.Minute)
	require.Nil(t, p.c.flight, "nothing is in flight")
	require.Nil(t, p.c.holes, "nothing is missing")
	require.True(t, p.tx.Shrink())
	require.True(t, p.rx.Shrink())
	size := unsafe.Sizeof(Conn{}) + 2*unsafe.Sizeof(ring.Stream{}) + uintptr(p.tx.Memory()+p.rx.Memory())
	t.Logf("Conn %d, Stream %d, a whole idle connection %d bytes", unsafe.Sizeof(Conn{}), unsafe.Sizeof(ring.Stream{}), size)
	require.LessOrEqual(t, size, uintptr(1536))
}

// loop joins two connections without loss or delay, to count what they
// allocate.
type loop struct {
	from, to *Conn
	queue    [64]Segment
	n        int
}

func (l *loop) Send(s *Segment) bool {
	if l.n == len(l.queue) {
		return false
	}
	l.queue[l.n] = *s
	l.n++
	return true
}

func (l *loop) SendRun(s *Segment, mss int) int { return s.Cut(mss, l.Send) }

func (l *loop) step(now clock.Time) (moved bool) {
	l.from.Emit(now, l)
	for i := range l.n {
		s := &l.queue[i]
		if len(s.Wrapped) > 0 { // the wire would have it in one piece
			rest := *s
			rest.Seq, rest.Payload, rest.Wrapped = s.Seq.Add(len(s.Payload)), s.Wrapped, nil
			rest.Flags = s.Flags
			s.Flags &^= FIN | PSH
			s.Wrapped = nil
			l.to.Arrives(now, s)
			l.to.Arrives(now, &rest)
			continue
		}
		l.to.Arrives(now, s)
	}
	moved = l.n > 0
	l.n = 0
	return moved
}

// pair is two connections of one layer.
type pair struct {
	now    clock.Time
	layer  *Layer
	a, b   Conn
	tx, rx [2]ring.Stream
	ab, ba *loop
}

func (p *pair) connect(t testing.TB, port uint16) {
	id := ID{Local: 0x0A000001, Remote: 0x0A000002, LocalPort: port, RemotePort: 80}
	back := ID{Local: id.Remote, Remote: id.Local, LocalPort: 80, RemotePort: port}
	p.tx, p.rx = [2]ring.Stream{}, [2]ring.Stream{}
	p.a.Init(p.layer, id, 1500, &p.tx[0], &p.rx[0])
	p.b.Init(p.layer, back, 1500, &p.tx[1], &p.rx[1])
	p.aim()
	p.a.Connect(p.now)
	p.a.Emit(p.now, p.ab)
	p.b.Accept(p.now, &p.ab.queue[0])
	p.ab.n = 0
	p.run()
	if p.a.State() != Established || p.b.State() != Established {
		t.Fatal("no connection")
	}
}

// aim joins the pair's connections, where it shares the loops with others.
func (p *pair) aim() { p.ab.from, p.ab.to, p.ba.from, p.ba.to = &p.a, &p.b, &p.b, &p.a }

// run lets segments cross until nobody has more to say now.
func (p *pair) run() {
	for {
		p.now = p.now.Add(10 * time.Microsecond)
		a := p.ab.step(p.now)
		b := p.ba.step(p.now)
		if !a && !b {
			return
		}
	}
}

func newPair(t testing.TB) *pair {
	cfg := DefaultConfig()
	layer, err := NewLayer(cfg)
	require.NoError(t, err)
	return &pair{now: clock.Time(time.Hour), layer: layer, ab: new(loop), ba: new(loop)}
}

// No segment allocates, in either direction.
func TestNoAllocationPerSegment(t *testing.T) {
	p := newPair(t)
	p.connect(t, 1000)
	buf := make([]byte, 64<<10)
	transfer := func() {
		p.tx[0].Write(buf)
		for {
			p.run()
			n := p.rx[1].Read(buf)
			if n == 0 {
				break
			}
			p.b.ReceiveRead(p.now, n)
		}
		p.a.Timeout(p.now)
		p.b.Timeout(p.now)
	}
	for range 100 {
		transfer()
	}
	require.Zero(t, testing.AllocsPerRun(100, transfer))
}

// A segment lost, ranges kept out of order, and recovery allocate nothing once
// the layer has what it lends.
func TestNoAllocationInRecovery(t *testing.T) {
	p := newPair(t)
	p.connect(t, 1000)
	buf := make([]byte, 20<<10)
	transfer := func() {
		p.tx[0].Write(buf)
		p.now = p.now.Add(time.Millisecond)
		p.a.Emit(p.now, p.ab)
		copy(p.ab.queue[1:], p.ab.queue[2:p.ab.n]) // the second is lost
		p.ab.n--
		for i := range p.ab.n {
			p.b.Arrives(p.now, &p.ab.queue[i])
		}
		p.ab.n = 0
		for range 20 {
			p.run()
			p.now = p.now.Add(50 * time.Millisecond)
			p.a.Timeout(p.now)
			p.b.Timeout(p.now)
			p.b.ReceiveRead(p.now, p.rx[1].Read(buf))
		}
	}
	for range 20 {
		transfer()
	}
	require.Nil(t, p.a.flight)
	require.Zero(t, testing.AllocsPerRun(50, transfer))
	require.NotZero(t, p.layer.Stats().Recoveries)
}

// A connection's whole life, with a request and an answer, allocates its
// streams' memory and nothing else: at most 10 times in all with the Conn
// and its streams themselves.
func TestAllocationsOfALife(t *testing.T) {
	p := newPair(t)
	port := uint16(1000)
	buf := make([]byte, 1000)
	life := func() {
		port++
		p.connect(t, port)
		p.tx[0].Write(buf)
		p.run()
		p.b.ReceiveRead(p.now, p.rx[1].Read(buf))
		p.tx[1].Write(buf)
		p.run()
		p.a.ReceiveRead(p.now, p.rx[0].Read(buf))
		p.a.Close(p.now)
		p.run()
		p.b.Close(p.now)
		p.run()
		p.now = p.now.Add(2 * time.Minute)
		p.a.Timeout(p.now)
		if p.a.State() != Closed || p.b.State() != Closed {
			t.Fatal("not closed")
		}
	}
	life()
	allocs := testing.AllocsPerRun(50, life)
	t.Logf("%.0f allocations for both ends of a connection", allocs)
	require.LessOrEqual(t, allocs, 4.0)
}

// fly sends text in segments that are all in flight at once, and has them acknowledged by ack.
func (p *script) fly(text []byte, ack *Segment) {
	p.c.cc.cwnd, p.c.snd.wnd = uint32(len(text)), uint32(len(text))
	p.c.tx.SetLimit(len(text))
	p.tx.Write(text)
	p.c.Emit(p.now, discard{})
	p.now = p.now.Add(rtt)
	ack.Ack = p.c.snd.nxt
	p.c.Arrives(p.now, ack)
	p.c.Emit(p.now, discard{})
}

// discard is an Output that takes all.
type discard struct{}

func (discard) Send(*Segment) bool              { return true }
func (discard) SendRun(s *Segment, mss int) int { return s.PayloadLen() }

// TestScoreboardsOfManySizes: large ones find their memory again however many small ones there were, and do not get into the hands
// of connections that need small ones.
func TestScoreboardsOfManySizes(t *testing.T) {
	bulk := established(t)
	layer := bulk.c.layer
	text, ack := make([]byte, 300*testMSS), bulk.segment(ACK, nil)
	bulk.fly(text, ack)
	require.Equal(t, 32+64+128+256+512, layer.kept)

	var many []*flight
	for range 5000 {
		many = append(many, layer.borrowFlight())
	}
	for _, f := range many {
		require.Len(t, f.records, firstRecords)
		layer.returnFlight(f)
	}
	require.Zero(t, testing.AllocsPerRun(20, func() { bulk.fly(text, ack) }))
	require.LessOrEqual(t, layer.kept, keptRecords)

	var large [][]sent
	for range 4 * keptRecords / 4096 {
		large = append(large, layer.takeRecords(4096))
	}
	for _, b := range large {
		layer.keepRecords(b)
	}
	require.LessOrEqual(t, layer.kept, keptRecords, "what is too much is not kept")
	require.Greater(t, layer.kept, keptRecords-4096)
}
