package ring

import "sync/atomic"

// Reader is the end of a ring that takes records out.
type Reader struct {
	end
	pos      uint64 // where the next record begins
	next     uint64 // where the peeked record ends; pos when none is peeked
	released uint64 // what the writer was told
	head     uint64 // the writer's index when it was last read and found good
	most     uint64 // bytes that were not released at any such time
}

// NewReader takes the reader's end of a ring that Format prepared and that
// nobody has read from yet.
func NewReader(mem []byte) (*Reader, error) {
	e, err := open(mem)
	if err != nil {
		return nil, err
	}
	return &Reader{end: e}, nil
}

// Peek returns the next record, nil when there is none now or the ring is in
// error. A record without bytes is not nil. The same record is returned until
// Advance.
func (r *Reader) Peek() []byte {
	if r.pos == r.head && !r.refresh() {
		return nil
	}
	offset, n, kind := r.look()
	if kind == kindPad {
		// Behind padding comes offset 0, where no padding can be: no loop.
		if !r.skip(offset, n) || (r.pos == r.head && !r.refresh()) {
			return nil
		}
		offset, n, kind = r.look()
	}
	size := recordSize(n)
	if kind != 0 || size > r.head-r.pos || size > r.capacity-offset {
		r.fail()
		return nil
	}
	r.next = r.pos + size
	from := offset + RecordLen
	return r.data[from : from+n : from+n]
}

// look reads the word at pos, once: the other end may write to it meanwhile.
func (r *Reader) look() (offset, n, kind uint64) {
	offset = r.pos & (r.capacity - 1)
	v := atomic.LoadUint64(r.wordAt(offset))
	return offset, v & 0xFFFFFFFF, v >> 32
}

// skip steps over padding of n bytes, which reaches exactly to the end.
func (r *Reader) skip(offset, n uint64) bool {
	size := n + RecordLen
	if offset == 0 || size != r.capacity-offset || size > r.head-r.pos {
		r.fail()
		return false
	}
	r.pos += size
	r.next = r.pos
	return true
}

// refresh reads the writer's index and reports whether there is something new.
func (r *Reader) refresh() bool {
	if r.err != nil {
		return false
	}
	head := r.shared.producer.Load()
	// A writer goes forward, in whole records, and not over what it was told is
	// still in use.
	used := head - r.released
	if used > r.capacity || used < r.head-r.released || head%8 != 0 {
		r.fail()
		return false
	}
	r.head = head
	r.most = max(r.most, used)
	return r.pos != head
}

// fail ends the use of the ring: head moves to pos, so that Peek finds nothing.
func (r *Reader) fail() {
	r.err = ErrCorrupt
	r.head, r.next = r.pos, r.pos
	r.Close()
}

// Advance steps over the record that Peek returned; without one it does
// nothing. The record's bytes stay valid until Release.
func (r *Reader) Advance() { r.pos = r.next }

// Release gives the room of all records passed back to the writer, at the cost
// of one store, and reports whether the writer asked to be woken (see
// Writer.Arm).
func (r *Reader) Release() (wake bool) {
	if r.pos != r.released {
		r.released = r.pos
		r.shared.consumer.Store(r.pos)
	}
	return answers(&r.shared.writerAsks)
}

// Arm asks the writer for a wake at its next Publish and looks again: it
// reports whether there is still nothing to read, and the reader may go to
// sleep.
func (r *Reader) Arm() bool {
	r.shared.readerAsks.Store(1)
	return r.Peek() == nil && r.err == nil && r.shared.writerClosed.Load() == 0
}

// Close says that nothing more will be read. May be called from any goroutine,
// and more than once.
func (r *Reader) Close() { r.shared.readerClosed.Store(1) }

// Closed reports whether the writer closed its end. What it published before
// can still be read: Closed and then a Peek that returns nil means the end. May
// be called from any goroutine.
func (r *Reader) Closed() bool { return r.shared.writerClosed.Load() != 0 }
