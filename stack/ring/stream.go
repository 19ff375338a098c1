package ring

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Stream is a ring of bytes inside one process that begins without memory,
// takes 4 KiB for the first byte and the next power of two that suffices
// whenever it is full, up to a limit. What is in it keeps its place. The zero
// value is an empty stream with limit 0: SetLimit before use. Do not copy it.
//
// One goroutine at a time is the writer, one the reader, without a lock:
//
//	writer:          Write, Put, Commit
//	reader:          Peek, Release, Read
//	any goroutine:   Used, Free, Limit, SetLimit, Memory
//	one of the two:  Shrink
//
// In the send direction the user writes, and the engine peeks at any offset and
// sends, peeks again to send again, and releases what is acknowledged. In the
// receive direction the engine puts what arrives at its final place, in order or
// not, and commits what is in order; the user reads.
//
// Each end has its own index, publishes it by one atomic store, and reads the
// other's once a call, into a local. The writer alone makes the memory larger:
// it copies what is there, publishes the new memory and then its index. The
// reader reads the index first, so the memory that it finds holds all that the
// index says. Nobody writes to the old memory any more: what Peek returned
// stays right.
type Stream struct {
	// The writer's.
	head   atomic.Uint64          // how many bytes were committed since the beginning
	memory atomic.Pointer[memory] // nil for none
	high   uint64                 // the end of what was put, not below head
	tailAt uint64                 // the reader's index when it was last read
	limit  atomic.Int32
	size   atomic.Int32  // of memory
	inside atomic.Uint32 // 1 while Write may look at the memory
	shrink atomic.Uint32 // 1 while Shrink may take it away

	// Seldom written, and so what keeps the two ends' lines of the cache apart.
	first memory // what memory points to while it has the first size: saves an allocation
	_     [40]byte

	// The reader's.
	tail   atomic.Uint64 // how many bytes were released since the beginning
	headAt uint64        // the writer's index when it was last read
}

// memory is the data of a stream at one time; it does not change while a
// byte of the stream is in it.
type memory struct{ data []byte }

// SetLimit changes how many bytes may be in the stream, from any goroutine: 0
// to MaxCapacity, and other numbers are cut to that. What is in already stays.
func (s *Stream) SetLimit(limit int) { s.limit.Store(int32(max(0, min(limit, MaxCapacity)))) }

// Limit returns the limit in bytes.
func (s *Stream) Limit() int { return int(s.limit.Load()) }

// Used returns how many bytes are committed and not yet released. It may be
// called from any goroutine, and is then a moment old: never too high for the
// reader, never too low for the writer.
func (s *Stream) Used() int {
	// In this order: a tail read first can only be too low.
	tail := s.tail.Load()
	return int(min(s.head.Load()-tail, MaxCapacity))
}

// Free returns how many bytes behind those committed have room: the limit less
// Used, so bytes put out of order count as room. It may be called from any
// goroutine, and is then a moment old: never too high for the writer.
func (s *Stream) Free() int { return max(0, s.Limit()-s.Used()) }

// Memory returns how many bytes of data are allocated: 0, or a power of two from
// 4 KiB up. It may be called from any goroutine.
func (s *Stream) Memory() int { return int(s.size.Load()) }

// room returns how many bytes may be put from head on, as the reader's index
// was last read.
func (s *Stream) room(head uint64) uint64 {
	limit := uint64(s.limit.Load())
	return limit - min(limit, head-s.tailAt)
}

// Put copies p to its place off bytes behind the last byte committed and
// returns how many bytes had room (see Free); the rest is left out. It is not
// seen by the reader before Commit, and may be put over again until then.
func (s *Stream) Put(off int, p []byte) int {
	head := s.head.Load()
	s.tailAt = s.tail.Load()
	at, n := cut(off, len(p), s.room(head))
	if n == 0 {
		return 0
	}
	pos := head + at
	putSpan(s.grown(pos+n), pos, p[:n])
	s.high = max(s.high, pos+n)
	return int(n)
}

// Commit makes the next n bytes readable, which were Put; a larger n is cut to
// the furthest byte that was.
func (s *Stream) Commit(n int) {
	head := s.head.Load()
	if n = min(n, int(s.high-head)); n > 0 {
		s.head.Store(head + uint64(n))
	}
}

// Write appends as much of p as has room, commits it and returns its length.
func (s *Stream) Write(p []byte) int {
	s.inside.Store(1)
	for s.shrink.Load() != 0 {
		runtime.Gosched() // for the few instructions that Shrink takes
	}
	n := s.Put(0, p)
	s.Commit(n)
	s.inside.Store(0)
	return n
}

// grown returns memory that has room up to position end, which the limit
// allows, with everything in it that was.
func (s *Stream) grown(end uint64) []byte {
	m := s.memory.Load()
	need := end - s.tailAt
	if m != nil && need <= uint64(len(m.data)) {
		return m.data
	}
	data := newData(max(firstCapacity, powerOfTwo(need)))
	if m != nil {
		a, b := span(m.data, s.tailAt, s.high-s.tailAt)
		putSpan(data, s.tailAt, a)
		putSpan(data, s.tailAt+uint64(len(a)), b)
	}
	if m == nil && len(data) == firstCapacity {
		// The reader looks at the memory only while there are bytes. There are
		// none, so it cannot be looking at first.
		s.first.data = data
		s.memory.Store(&s.first)
	} else {
		s.memory.Store(&memory{data})
	}
	s.size.Store(int32(len(data)))
	return data
}

// seen returns how many bytes there are from tail on, the reader's index, at
// least want if there are so many.
func (s *Stream) seen(tail, want uint64) uint64 {
	if s.headAt-tail < want {
		s.headAt = s.head.Load()
	}
	return s.headAt - tail
}

// Peek returns up to n bytes from off bytes behind the last byte released, in
// one piece or in two, and nothing where there are none. They stay in the
// stream and do not change until they are released. a is empty only if b is.
func (s *Stream) Peek(off, n int) (a, b []byte) {
	tail := s.tail.Load()
	if off < 0 || n <= 0 {
		return nil, nil
	}
	at, m := cut(off, n, s.seen(tail, uint64(off)+uint64(n)))
	if m == 0 {
		return nil, nil
	}
	return span(s.memory.Load().data, tail+at, m)
}

// Release gives the next n bytes back; a larger n is cut to what is there.
func (s *Stream) Release(n int) {
	tail := s.tail.Load()
	if n <= 0 {
		return
	}
	if m := min(uint64(n), s.seen(tail, uint64(n))); m > 0 {
		s.tail.Store(tail + m)
	}
}

// Read copies the next bytes to p, releases them and returns how many.
func (s *Stream) Read(p []byte) int {
	tail := s.tail.Load()
	n := min(uint64(len(p)), s.seen(tail, uint64(len(p))))
	if n == 0 {
		return 0
	}
	getSpan(p[:n], s.memory.Load().data, tail)
	s.tail.Store(tail + n)
	return int(n)
}

// Shrink gives the memory back and reports true if nothing is in the stream,
// neither committed nor put out of order; the next byte takes memory again. What
// Peek returned before may be another stream's by then. Always the same end
// calls it: the writer, or the reader if the writer uses Write and never Put.
func (s *Stream) Shrink() bool {
	if s.memory.Load() == nil {
		return true // nothing is in it, and there is nothing to give back
	}
	// Either Write sees shrink and waits, or this sees inside and gives up.
	s.shrink.Store(1)
	defer s.shrink.Store(0)
	if s.inside.Load() != 0 || s.Used() != 0 || s.high != s.head.Load() {
		return false
	}
	m := s.memory.Swap(nil)
	s.size.Store(0)
	if m != nil && m != &s.first {
		keepData(m.data)
	}
	keepData(s.first.data)
	s.first.data = nil
	return true
}

// spare keeps memory of the sizes 4, 8 … 64 KiB that Shrink gave back: the many
// short connections of a server take it and give it back all the time.
var spare [5]sync.Pool

// newData returns zeroed memory of a size that is a power of two.
func newData(n uint64) []byte {
	if i := n / firstCapacity; i < 1<<len(spare) {
		if p, ok := spare[bits.Len64(i)-1].Get().(*byte); ok {
			return unsafe.Slice(p, n)
		}
	}
	return make([]byte, n)
}

// keepData takes memory that nobody looks at any more, or none. It clears it, so
// that no mistake can show one connection's bytes to another.
func keepData(data []byte) {
	if i := len(data) / firstCapacity; 0 < i && i < 1<<len(spare) {
		clear(data)
		spare[bits.Len(uint(i))-1].Put(unsafe.SliceData(data))
	}
}
