package stack

import (
	"bytes"
	"math/bits"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Reassembly, RFC 791 §3.2 with the bitmap of RFC 815's spirit: a fragment is copied straight to its final place, and a bit
// for each 8 bytes says what has come. Fragments that overlap make the whole datagram refused, and what still comes of it,
// as RFC 5722 §4 demands of IPv6 and Linux does for both (net/ipv4/ip_fragment.c). An exact copy of a fragment is ignored.

// fragKey names a datagram in pieces, RFC 791 §3.2.
type fragKey struct {
	src, dst wire.Addr
	id       uint16
	proto    wire.Protocol
}

// A partial is a datagram of which fragments have come.
type partial struct {
	e          *Engine
	key        fragKey
	timer      timer
	buf        []byte // the IPv4 packet: 20 bytes for the header, then the payload
	end        int    // payload length once the last fragment has come, else -1
	reach      int    // where the furthest fragment ends
	got        int    // payload bytes that have come
	frames     uint64 // fragments held
	refused    bool   // overlap: what comes is dropped until the time-out
	first      []byte // header and 8 bytes of the first fragment, for the time exceeded error
	firstBuf   [wire.IPv4MaxLen + 8]byte
	tos        uint8
	ttl        uint8
	seen       [wire.IPv4MaxSize/8/64 + 1]uint64
	prev, next *partial // the list from oldest to newest
}

// A reassembly holds an engine's partials, oldest first.
type reassembly struct {
	table map[fragKey]*partial
	head  partial // of the list
	bytes int     // of buf's capacity, in use
	free  []*partial
	bufs  [3][][]byte // free buffers by size class
}

var fragClasses = [...]int{4096, 16384, 66 * 1024}

func (r *reassembly) init() {
	r.table = make(map[fragKey]*partial)
	r.head.prev, r.head.next = &r.head, &r.head
}

// fragment takes one fragment of a datagram for us.
func (e *Engine) fragment(p wire.IPv4, la *localAddr) DropReason {
	if to := e.fragmentOwner(p); to != nil {
		return e.forward(to)
	}
	off, n := p.FragmentOffset(), len(p)-p.HeaderLen()
	switch {
	case n == 0 || p.MF() && n%8 != 0:
		return DropFragmentMalformed
	case wire.IPv4Len+off+n > wire.IPv4MaxSize:
		return DropFragmentTooLong
	}
	k := fragKey{p.Src(), p.Dst(), p.ID(), p.Protocol()}
	f := e.frags.table[k]
	if f == nil {
		f = e.newPartial(k)
	}
	switch f.compare(off, n, !p.MF(), p.Payload()) {
	case fragOverlap:
		f.refuse()
		return DropFragmentOverlap
	case fragCopy:
		return e.consumed()
	}
	if !f.put(p, off, n) {
		return DropFragmentMemory
	}
	if f.got == f.end {
		return e.reassembled(f, la)
	}
	f.frames++
	e.stats.Held++
	return NotDropped
}

// newPartial begins a datagram, in place of the oldest ones where the limit is reached.
func (e *Engine) newPartial(k fragKey) *partial {
	r := &e.frags
	for r.bytes+fragClasses[0] > e.limits.ReassemblyBytes && r.head.next != &r.head {
		e.giveUp(r.head.next, DropFragmentMemory)
	}
	var f *partial
	if last := len(r.free) - 1; last >= 0 {
		f, r.free = r.free[last], r.free[:last]
	} else {
		f = new(partial)
	}
	*f = partial{e: e, key: k, end: -1}
	f.timer.owner = f
	r.table[k] = f
	f.prev, f.next = r.head.prev, &r.head
	f.prev.next, r.head.prev = f, f
	e.wheel.arm(&f.timer, e.now.Add(e.limits.ReassemblyTimeout))
	return f
}

// fragFit says how a fragment stands to what has come.
type fragFit uint8

const (
	fragNew     fragFit = iota
	fragCopy            // the very same bytes have come
	fragOverlap         // it contradicts or overlaps what has come
)

func (f *partial) compare(off, n int, last bool, b []byte) fragFit {
	switch {
	case f.refused,
		last && (f.end >= 0 && f.end != off+n || f.reach > off+n),
		f.end >= 0 && off+n > f.end:
		return fragOverlap
	}
	switch f.count(off, n) {
	case 0:
		return fragNew
	case (n + 7) / 8:
		if bytes.Equal(f.buf[wire.IPv4Len+off:wire.IPv4Len+off+n], b) {
			return fragCopy
		}
	}
	return fragOverlap
}

// count is how many of the 8-byte pieces of a fragment have come, and mark says that all have.
func (f *partial) count(off, n int) (c int) {
	f.words(off, n, func(w *uint64, mask uint64) { c += bits.OnesCount64(*w & mask) })
	return c
}

func (f *partial) mark(off, n int) {
	f.words(off, n, func(w *uint64, mask uint64) { *w |= mask })
}

// words visits the words of the bitmap that cover n bytes at off.
func (f *partial) words(off, n int, visit func(w *uint64, mask uint64)) {
	from, to := off/8, (off+n+7)/8
	for from < to {
		stop := min(to, (from/64+1)*64)
		mask := ^uint64(0) >> (64 - uint(stop-from)) << uint(from%64)
		visit(&f.seen[from/64], mask)
		from = stop
	}
}

// put copies a fragment to its final place. It fails where no memory is left for the datagram, which is then given up.
func (f *partial) put(p wire.IPv4, off, n int) bool {
	if !f.grow(wire.IPv4Len + off + n) {
		return false
	}
	copy(f.buf[wire.IPv4Len+off:], p.Payload())
	f.mark(off, n)
	f.got += n
	f.reach = max(f.reach, off+n)
	if !p.MF() {
		f.end = off + n
	}
	if off == 0 {
		f.tos, f.ttl = p.TOS(), p.TTL()
		f.first = f.firstBuf[:copy(f.firstBuf[:], p[:min(len(p), p.HeaderLen()+8)])]
	}
	return true
}

// grow makes the buffer hold size bytes.
func (f *partial) grow(size int) bool {
	if size <= len(f.buf) {
		return true
	}
	r := &f.e.frags
	class := 0
	for fragClasses[class] < size {
		class++
	}
	more := fragClasses[class] - len(f.buf)
	for r.bytes+more > f.e.limits.ReassemblyBytes {
		oldest := r.head.next
		f.e.giveUp(oldest, DropFragmentMemory)
		if oldest == f {
			return false
		}
	}
	r.bytes += more
	b := r.buffer(class)
	copy(b, f.buf)
	r.recycle(f.buf)
	f.buf = b
	return true
}

func (r *reassembly) buffer(class int) []byte {
	free := r.bufs[class]
	if last := len(free) - 1; last >= 0 {
		r.bufs[class] = free[:last]
		return free[last]
	}
	return make([]byte, fragClasses[class])
}

func (r *reassembly) recycle(b []byte) {
	for class, size := range fragClasses {
		if len(b) == size && len(r.bufs[class]) < 16 {
			r.bufs[class] = append(r.bufs[class], b)
		}
	}
}

// refuse gives up what has come of a datagram and keeps its name, so that the rest is refused too until the time-out.
func (f *partial) refuse() {
	f.e.stats.Held -= f.frames
	f.e.stats.Drops[DropFragmentOverlap] += f.frames
	f.frames, f.refused = 0, true
}

// giveUp drops a datagram for a reason.
func (e *Engine) giveUp(f *partial, r DropReason) {
	e.stats.Held -= f.frames
	e.stats.Drops[r] += f.frames
	e.removePartial(f)
}

func (e *Engine) removePartial(f *partial) {
	r := &e.frags
	e.wheel.stop(&f.timer)
	delete(r.table, f.key)
	f.prev.next, f.next.prev = f.next, f.prev
	r.bytes -= len(f.buf)
	r.recycle(f.buf)
	f.buf = nil
	if len(r.free) < 64 {
		r.free = append(r.free, f)
	}
}

// reassembled delivers a datagram of which the last missing fragment has come.
func (e *Engine) reassembled(f *partial, la *localAddr) DropReason {
	b := f.buf[:wire.IPv4Len+f.end]
	wire.PutIPv4(b, &wire.IPv4Fields{
		TOS: f.tos, TotalLength: len(b), ID: f.key.id, TTL: f.ttl, Protocol: f.key.proto, Src: f.key.src, Dst: f.key.dst,
	})
	e.stats.Held -= f.frames
	e.stats.Consumed += f.frames
	e.stats.Reassembled++
	e.rx.whole, e.rx.copied = true, true
	r := e.deliver(wire.IPv4(b), la)
	e.removePartial(f)
	return r
}

// expire gives up on a datagram, and tells its sender if the first fragment has come (RFC 792, RFC 1122 §3.3.2).
func (f *partial) expire(_ *timer, _ clock.Time) {
	e := f.e
	if len(f.first) > 0 && !f.refused {
		e.rx = rx{link: e.link}
		e.sendICMPError(wire.IPv4(f.first), wire.ICMPErrorFields{
			Type: wire.ICMPTimeExceeded, Code: wire.CodeReassemblyExceeded,
		})
	}
	e.giveUp(f, DropFragmentTimeout)
}
