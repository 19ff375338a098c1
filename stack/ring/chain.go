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
// allocates. Trim lets it shrink again, in the same way.
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
// holds no record, and so has one that stands for a chain that gave all back.
// Nothing points to a segment that both ends have left, so the
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

// Trim gives memory back and reports whether the chain has some still: all goes
// when nothing is in and nothing has been since the last Trim, and what is more
// than four times the most that was in since then. Whoever calls it is writer and
// reader at that moment, and has no reservation open. Called now and then, it
// makes the chain as large as its traffic needs it.
func (c *Chain) Trim() (more bool) {
	w, r := &c.writer, &c.reader
	if w.last.mem == nil {
		return false
	}
	most := max(r.most, r.cur.most, uint64(c.Used()))
	r.most, r.cur.most = 0, 0
	switch capacity := powerOfTwo(max(firstCapacity, 2*most)); {
	case most == 0 && w.cur.head == w.cur.published:
		w.extend(0)
	case 2*capacity <= w.cur.capacity:
		w.extend(capacity)
	}
	r.Peek() // goes over where the old ring is empty
	w.free()
	return w.last.mem != nil
}

// ChainWriter is the end of a Chain that puts records in, for one goroutine at a
// time.
type ChainWriter struct {
	chain *Chain
	last  *segment
	cur   Writer // over last, unless that has no memory
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
// done with.
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
	if w.last.mem == nil {
		return w.oldUsed
	}
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
	w.extend(capacity)
	return true
}

// extend goes over to a new ring, or with a capacity of 0 to none.
func (w *ChainWriter) extend(capacity uint64) {
	next, cur := new(segment), Writer{reserved: -1}
	if capacity > 0 {
		next.mem = make([]byte, Size(int(capacity)))
		format(next.mem, capacity)
		cur.end = endOf(next.mem)
	}
	w.link(next)
	w.cur = cur
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
	cur     Reader                  // over current, unless that has no memory
	most    uint64                  // of the rings before current, as Reader.most
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
		r.most = max(r.most, r.cur.most)
		r.cur = Reader{}
		if s.mem != nil {
			r.cur.end = endOf(s.mem)
		}
		r.current.Store(s)
	}
}

// Advance steps over the record that Peek returned. See Reader.Advance.
func (r *ChainReader) Advance() { r.cur.Advance() }

// PeekOn is Peek that finds nothing where Rewind could not come back from.
func (r *ChainReader) PeekOn() []byte {
	if r.cur.shared == nil {
		return nil
	}
	return r.cur.Peek()
}

// Mark returns where the reader is, for Rewind.
func (r *ChainReader) Mark() uint64 { return r.cur.pos }

// Rewind goes back to a Mark. Neither Peek nor Release was called since.
func (r *ChainReader) Rewind(mark uint64) { r.cur.pos, r.cur.next = mark, mark }

// Release gives the room of all records passed back to the writer, at the cost
// of one store.
func (r *ChainReader) Release() {
	if r.cur.shared != nil {
		r.cur.Release()
	}
}
