package iperf3

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

const (
	maxBatch      = 64
	maxBatchBytes = 256 << 10
	// defaultUDPBuffer is Linux's net.core.rmem_default, bytes.
	defaultUDPBuffer = 208 << 10
)

// batch is how many datagrams of so many bytes go together.
func batch(length int) int { return max(1, min(maxBatch, maxBatchBytes/length)) }

// greetings are the datagrams that open a UDP stream, each with its answer. Both are a number in the byte order of the machine
// that sends it: 0x36373839 and 0x39383736 from iperf3 3.10 on (iperf.h), 123456789 and 987654321 before (iperf_udp.c). On a
// big-endian machine those of 3.10 and later are each other's.
var greetings = map[[4]byte][4]byte{
	little(0x36373839): little(0x39383736),
	big(0x36373839):    big(0x39383736),
	little(123456789):  little(987654321),
	big(123456789):     big(987654321),
}

func little(n uint32) (b [4]byte) { binary.LittleEndian.PutUint32(b[:], n); return b }
func big(n uint32) (b [4]byte)    { binary.BigEndian.PutUint32(b[:], n); return b }

// udp is the socket of a test's UDP streams. One goroutine reads it, and one for each stream that is sent writes.
type udp struct {
	conn   net.PacketConn
	r      BatchReader
	w      BatchWriter
	p      *params
	client netip.Addr // streams come from nowhere else: a forged source would have somebody else flooded
	start  time.Time  // of the test, for arrival times

	streams  []*stream // in order; only those that were opened
	byPeer   map[netip.AddrPort]*stream
	opened   chan struct{} // closed when all are
	counting atomic.Bool   // the test runs
	fresh    atomic.Bool   // the omitted time is over: jitter begins anew
	ending   atomic.Bool   // streams have goals
	done     chan struct{} // closed when the reader has ended
}

func newUDP(c net.PacketConn, p *params, client netip.Addr, start time.Time) *udp {
	return &udp{
		conn: c, r: reader(c), w: writer(c), p: p, client: client, start: start,
		byPeer: map[netip.AddrPort]*stream{}, opened: make(chan struct{}), done: make(chan struct{}),
	}
}

// room sizes the socket's buffers: it stands for as many sockets as there are streams.
func (u *udp) room() error {
	streams := u.p.streams()
	if u.p.window > 0 {
		return buffers(u.conn, min(u.p.window*streams, maxWindow))
	}
	if c, ok := u.conn.(bufferer); ok && streams > 1 {
		_ = c.SetReadBuffer(streams * defaultUDPBuffer) // nobody asked for it
	}
	return nil
}

// read serves the socket until it is closed, a deadline, or the goals of all streams.
func (u *udp) read() {
	defer close(u.done)
	ms := make([]Message, batch(u.p.length))
	for i := range ms {
		ms[i].Buf = make([]byte, u.p.length)
	}
	for {
		n, err := u.r.ReadBatch(ms)
		if n > 0 {
			u.deliver(ms[:n], int64(time.Since(u.start)))
		}
		switch {
		case err != nil && passing(err):
		case err != nil:
			for _, s := range u.streams {
				s.fail(err)
			}
			return
		case u.ending.Load() && u.complete():
			return
		}
	}
}

// deliver counts a batch that came at a moment, in ns since the test's start. Its datagrams share the moment: jitter is no
// finer than a batch.
func (u *udp) deliver(ms []Message, now int64) {
	if u.fresh.CompareAndSwap(true, false) {
		for _, s := range u.streams {
			s.path.begin()
		}
	}
	var last *stream
	for i := range ms {
		m := &ms[i]
		if last == nil || last.peer != m.Addr {
			if last != nil {
				last.publish(now)
			}
			last = u.byPeer[m.Addr]
		}
		switch {
		case m.N == len(greetings[[4]byte{}]):
			u.greet(m)
		case last != nil && !last.sends && u.counting.Load():
			last.path.arrive(m.Buf[:m.N], now, u.p.wide)
		}
	}
	if last != nil {
		last.publish(now)
	}
}

// greet opens a stream, or says again that it is open when the client has not heard it.
func (u *udp) greet(m *Message) {
	answer, ok := greetings[[4]byte(m.Buf[:4])]
	if !ok || m.Addr.Addr().Unmap() != u.client {
		return
	}
	if u.byPeer[m.Addr] == nil {
		if len(u.streams) == u.p.streams() {
			return
		}
		s := newStream(len(u.streams), u.p.reverse || len(u.streams) >= u.p.parallel)
		s.peer = m.Addr
		u.streams = append(u.streams, s)
		u.byPeer[m.Addr] = s
		if len(u.streams) == u.p.streams() {
			defer close(u.opened)
		}
	}
	// An answer that is lost is asked for again.
	_, _ = u.w.WriteBatch([]Message{{Buf: answer[:], Addr: m.Addr}})
}

// complete reports whether all that the client sent has come.
func (u *udp) complete() bool {
	return !slices.ContainsFunc(u.streams, func(s *stream) bool { return !s.sends && s.packets.Load() < s.goal.Load() })
}

// path is what a receiver knows of the way that a stream's datagrams take.
type path struct {
	bytes, packets, lost, disorder int64
	transit, jitter                int64 // ns
	known                          bool  // transit is
}

// begin forgets the jitter.
func (p *path) begin() { p.jitter, p.known = 0, false }

// arrive takes a datagram that came at a moment, in ns. Its head is the sender's clock in seconds and microseconds and a
// sequence number from 1, all big-endian, the number of 32 or, where wide, of 64 bits. What is lost and what is out of order
// is told from the numbers alone, as iperf3 does: one that comes late was counted as lost before. The jitter is RFC 3550's
// (6.4.1, A.8), in which the clocks need not agree.
func (p *path) arrive(b []byte, now int64, wide bool) {
	var seq uint64
	switch {
	case wide && len(b) >= 16:
		seq = binary.BigEndian.Uint64(b[8:])
	case !wide && len(b) >= 12:
		seq = uint64(binary.BigEndian.Uint32(b[8:]))
	}
	if seq == 0 || seq > math.MaxInt64/2 {
		return // not of this test
	}
	p.bytes += int64(len(b))
	if n := int64(seq); n > p.packets {
		p.lost += n - p.packets - 1
		p.packets = n
	} else {
		p.disorder++
		p.lost = max(p.lost-1, 0)
	}
	sent := int64(binary.BigEndian.Uint32(b))*int64(time.Second) + int64(binary.BigEndian.Uint32(b[4:]))*int64(time.Microsecond)
	transit := now - sent
	if p.known {
		d := transit - p.transit
		p.jitter += (max(d, -d) - p.jitter) / 16
	}
	p.transit, p.known = transit, true
}

// publish shows the test what the path has come to.
func (s *stream) publish(now int64) {
	if s.sends {
		return
	}
	s.bytes.Store(s.path.bytes)
	s.packets.Store(s.path.packets)
	s.lost.Store(s.path.lost)
	s.disorder.Store(s.path.disorder)
	s.jitter.Store(s.path.jitter)
	if s.goal.Load() != math.MaxInt64 {
		s.last.Store(now)
	}
}

// transmit sends a stream's datagrams until it is stopped. filling is what they carry behind their head.
func (u *udp) transmit(s *stream, filling []byte, pace *pacer) {
	ms := make([]Message, batch(u.p.length))
	for i := range ms {
		ms[i] = Message{Buf: slices.Clone(filling), Addr: s.peer}
	}
	for {
		k := pace.wait(len(ms))
		if k == 0 {
			return
		}
		now := time.Now()
		for i := range ms[:k] {
			head(ms[i].Buf, now, s.packets.Load()+int64(i)+1, u.p.wide)
		}
		n, err := u.w.WriteBatch(ms[:k])
		s.packets.Add(int64(n))
		s.bytes.Add(int64(n) * int64(u.p.length))
		if err == nil {
			continue
		}
		if !passing(err) {
			s.fail(err)
			return
		}
		pace.unsent(k - n)
		if !pace.pause() {
			return
		}
	}
}

// head writes what heads a datagram, see arrive. Numbers of 32 bits wrap, as iperf3's do.
func head(b []byte, now time.Time, seq int64, wide bool) {
	binary.BigEndian.PutUint32(b, uint32(now.Unix()))
	binary.BigEndian.PutUint32(b[4:], uint32(now.Nanosecond()/1000))
	if wide {
		binary.BigEndian.PutUint64(b[8:], uint64(seq))
	} else {
		binary.BigEndian.PutUint32(b[8:], uint32(seq))
	}
}
