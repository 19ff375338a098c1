package ring

import (
	"math/bits"
	"sync/atomic"
)

// firstCapacity is what a chain allocates for its first record, if that is not
// longer.
const firstCapacity = 4096

// Chain is a ring inside one process that begins without memory, allocates a
// small ring for the first record and a ring of twice the size whenever one is
// full, up to a limit. The writer links the new ring behind the old one; the
// reader empties the old one and goes over. Once it has its size nothing
// allocates.
//
// The limit is in bytes of Used, words and padding included. A record is
// refused where it would go over the limit, unless the chain is empty: one
// record of any size gets through, as with SO_RCVBUF in the kernel.
type Chain struct {
	limit  atomic.Int64
	_      [64]byte
	writer ChainWriter
	_      [64]byte
	reader ChainReader
}

// segment is one ring of a chain. The first one, the root, has no memory and
// holds no record. Nothing points to a segment that both ends have left, so the
// collector takes it.
type segment struct {
	mem  []byte
	next atomic.Pointer[segment]
}

// used returns the bytes published and not released in s and behind it.
func (s *segment) used() (n uint64) {
	for ; s != nil; s = s.next.Load() {
		if s.mem != nil {
			n += used(headerOf(s.mem), uint64(len(s.mem)-HeaderLen))
		}
	}
	return n
}

// NewChain returns a chain without memory, with a limit in bytes.
func NewChain(limit int) *Chain {
	c := new(Chain)
	c.SetLimit(limit)
	root := new(segment)
	c.writer = ChainWriter{chain: c, last: root, cur: Writer{reserved: -1}}
	c.reader.current.Store(root)
	return c
}

// SetLimit changes the limit, from any goroutine. What is already in stays.
func (c *Chain) SetLimit(limit int) { c.limit.Store(int64(min(limit, MaxCapacity))) }

// Limit returns the limit in bytes.
func (c *Chain) Limit() int { return int(c.limit.Load()) }

// Writer returns the end that puts records in.
func (c *Chain) Writer() *ChainWriter { return &c.writer }

// Reader returns the end that takes records out.
func (c *Chain) Reader() *ChainReader { return &c.reader }

// Used returns how many bytes are published and not yet released, words and
// padding included; 0 means that there is nothing to read. It may be called
// from any goroutine, and is then a moment old.
func (c *Chain) Used() int { return int(c.reader.current.Load().used()) }

// ChainWriter is the end of a Chain that puts records in, for one goroutine at a
// time.
type ChainWriter struct {
	chain *Chain
	last  *segment
	cur   Writer // over last, unless that is the root
	// old are the rings in front of last that the reader had not emptied when
	// the writer last looked, and oldUsed what was in them.
	old     []Writer
	oldUsed uint64
}

// Reserve returns room for a record of n bytes, nil when there is none: the
// limit does not allow it now. See Writer.Reserve.
func (w *ChainWriter) Reserve(n int) []byte {
	w.cur.reserved = -1
	if uint64(n) > MaxCapacity/2-RecordLen {
		return nil // negative numbers too
	}
	need := recordSize(uint64(n))
	limit := uint64(max(0, w.chain.limit.Load()))
	if u := w.oldUsed + w.cur.head - w.cur.tail; u != 0 && u+need > limit {
		if u = w.free(); u != 0 && u+need > limit {
			return nil
		}
	}
	if w.last.mem != nil {
		if b := w.cur.Reserve(n); b != nil {
			return b
		}
	}
	if !w.grow(need, limit) {
		return nil
	}
	return w.cur.Reserve(n)
}

// free looks how far the reader has come and returns how many bytes it is not
// done with. There is a ring.
func (w *ChainWriter) free() uint64 {
	kept := w.old[:0]
	w.oldUsed = 0
	for i := range w.old {
		if n := w.old[i].free(); n != 0 {
			w.oldUsed += n
			kept = append(kept, w.old[i])
		}
	}
	clear(w.old[len(kept):])
	w.old = kept
	return w.oldUsed + w.cur.free()
}

// grow links a larger ring, in which a record of need bytes has room, and
// reports false where the present one is as large as the limit wants it.
func (w *ChainWriter) grow(need, limit uint64) bool {
	capacity := max(firstCapacity, powerOfTwo(need))
	if w.last.mem != nil {
		// Twice the record, so that it finds room in an empty ring wherever the
		// indices stand.
		if w.cur.capacity >= powerOfTwo(max(limit, 2*need)) {
			return false
		}
		capacity = max(capacity, 2*w.cur.capacity)
	}
	next := &segment{mem: make([]byte, Size(int(capacity)))}
	format(next.mem, capacity)
	w.link(next)
	w.cur = Writer{end: endOf(next.mem), reserved: -1}
	return true
}

// link puts a segment behind the last. All of the last is published before, so
// that a reader that sees the link and then finds the ring empty knows that it
// is done with it.
func (w *ChainWriter) link(next *segment) {
	if w.last.mem != nil {
		w.cur.Publish()
		w.old = append(w.old, w.cur)
		w.oldUsed += w.cur.head - w.cur.tail
	}
	w.last.next.Store(next)
	w.last = next
}

// powerOfTwo returns the smallest power of two that is not below n.
func powerOfTwo(n uint64) uint64 { return 1 << bits.Len64(n-1) }

// Commit takes the first n bytes of the reservation as a record. See
// Writer.Commit.
func (w *ChainWriter) Commit(n int) { w.cur.Commit(n) }

// Publish shows the reader everything committed, at the cost of one store for
// all of it.
func (w *ChainWriter) Publish() {
	if w.last.mem == nil {
		return
	}
	w.cur.Publish()
	if len(w.old) > 0 {
		w.free() // lets go of the memory that the reader is done with
	}
}

// ChainReader is the end of a Chain that takes records out, for one goroutine at
// a time.
type ChainReader struct {
	current atomic.Pointer[segment] // others read it for Used
	cur     Reader                  // over current, unless that is the root
}

// Peek returns the next record, nil when there is none now. See Reader.Peek.
func (r *ChainReader) Peek() []byte {
	s := r.current.Load()
	for {
		if s.mem != nil {
			if b := r.cur.Peek(); b != nil {
				return b
			}
		}
		next := s.next.Load()
		if next == nil {
			return nil
		}
		if s.mem != nil {
			// The last records of this ring may have come just before the link.
			if b := r.cur.Peek(); b != nil {
				return b
			}
			r.cur.Release()
		}
		s = next
		r.cur = Reader{end: endOf(s.mem)}
		r.current.Store(s)
	}
}

// Advance steps over the record that Peek returned. See Reader.Advance.
func (r *ChainReader) Advance() { r.cur.Advance() }

// Release gives the room of all records passed back to the writer, at the cost
// of one store.
func (r *ChainReader) Release() {
	if r.cur.shared != nil {
		r.cur.Release()
	}
}
