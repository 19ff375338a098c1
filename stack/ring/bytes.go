package ring

import "fmt"

const magicBytes = 0x6b69_7442_7974_0001 // "kitByt", version 1

// FormatBytes prepares mem as an empty ring of bytes, for one NewBytesWriter and
// one NewBytesReader. The layout is that of records (see the package's
// overview), and so is what mem must be (see Format); the data are bytes and
// nothing else, any number of them up to the capacity.
func FormatBytes(mem []byte) error {
	capacity, err := checkMemory(mem)
	if err != nil {
		return err
	}
	format(mem, capacity)
	h := headerOf(mem)
	h.limit.Store(capacity)
	h.magic = magicBytes
	return nil
}

// bytesEnd is what both ends of a ring of bytes have.
type bytesEnd struct{ end }

// openBytes checks that mem was formatted as what its length says.
func openBytes(mem []byte) (bytesEnd, error) {
	capacity, err := checkMemory(mem)
	if err != nil {
		return bytesEnd{}, err
	}
	if h := headerOf(mem); h.magic != magicBytes || h.capacity != capacity {
		return bytesEnd{}, fmt.Errorf("ring: memory of %d bytes is not formatted for a ring of bytes with a capacity of %d; call FormatBytes first, on the same length", len(mem), capacity)
	}
	return bytesEnd{endOf(mem)}, nil
}

// SetLimit changes how many bytes may be in the ring, for both ends and from
// either: 0 to its capacity, and other numbers are cut to that. What is in
// already stays. May be called from any goroutine.
func (e *bytesEnd) SetLimit(limit int) {
	e.shared.limit.Store(uint64(max(0, min(limit, int(e.capacity)))))
}

// Limit returns the limit in bytes, at first the capacity. The other end may
// change it at any time, though not beyond the capacity. May be called from any
// goroutine.
func (e *bytesEnd) Limit() int { return int(min(e.shared.limit.Load(), e.capacity)) }

// BytesWriter is the end of a ring of bytes that puts bytes in.
type BytesWriter struct {
	bytesEnd
	head uint64 // how many bytes were committed since the beginning
	high uint64 // the end of what was put, not below head
	tail uint64 // the reader's index when it was last read and found good
}

// NewBytesWriter takes the writer's end of a ring that FormatBytes prepared and
// that nobody has written to yet.
func NewBytesWriter(mem []byte) (*BytesWriter, error) {
	e, err := openBytes(mem)
	if err != nil {
		return nil, err
	}
	return &BytesWriter{bytesEnd: e}, nil
}

// refresh reads the reader's index, and does nothing where it cannot be used.
func (w *BytesWriter) refresh() {
	if w.err != nil || w.shared.readerClosed.Load() != 0 {
		return
	}
	tail := w.shared.consumer.Load()
	// A reader goes forward, up to what it was shown.
	if tail-w.tail > w.head-w.tail {
		w.err = ErrCorrupt
		w.tail, w.high = w.head-w.capacity, w.head // full for ever
		w.Close()
		return
	}
	w.tail = tail
}

// Used returns how many bytes are committed and not yet released.
func (w *BytesWriter) Used() int {
	w.refresh()
	return int(w.head - w.tail)
}

// Free returns how many bytes behind those committed have room: the limit less
// Used, so bytes put out of order count as room. A closed ring may still take
// what it had room for; one in error has none.
func (w *BytesWriter) Free() int {
	w.refresh()
	return int(w.room(uint64(w.Limit())))
}

// room returns how many bytes may be put from head on, as the reader's index
// was last read.
func (w *BytesWriter) room(limit uint64) uint64 {
	return limit - min(limit, w.head-w.tail)
}

// Put copies p to its place off bytes behind the last byte committed and
// returns how many bytes had room (see Free); the rest is left out. It is not
// for the reader before Commit, and may be put over again until then.
func (w *BytesWriter) Put(off int, p []byte) int {
	if off < 0 {
		return 0
	}
	limit := uint64(w.Limit())
	if uint64(off)+uint64(len(p)) > w.room(limit) {
		w.refresh()
	}
	at, n := cut(off, len(p), w.room(limit))
	if n == 0 {
		return 0
	}
	putSpan(w.data, w.head+at, p[:n])
	w.high = max(w.high, w.head+at+n)
	return int(n)
}

// Commit makes the next n bytes readable, which were Put; a larger n is cut to
// the furthest byte that was. See Asked.
func (w *BytesWriter) Commit(n int) {
	if n = min(n, int(w.high-w.head)); n > 0 {
		w.head += uint64(n)
		w.shared.producer.Store(w.head)
	}
}

// Write appends as much of p as has room, commits it and returns its length.
func (w *BytesWriter) Write(p []byte) int {
	n := w.Put(0, p)
	w.Commit(n)
	return n
}

// Asked reports whether the reader asked to be woken (see BytesReader.Arm), once
// for each request. Look behind the last Commit or Write of a batch.
func (w *BytesWriter) Asked() bool { return answers(&w.shared.readerAsks) }

// Arm asks the reader for a wake behind its next Release and looks again: it
// reports whether there is still no room for n bytes, and the writer may go to
// sleep.
func (w *BytesWriter) Arm(n int) bool {
	w.shared.writerAsks.Store(1)
	return w.Free() < n && !w.Closed() && w.err == nil
}

// Close says that nothing more will be committed. The reader still gets what
// is there. May be called from any goroutine, and more than once.
func (w *BytesWriter) Close() { w.shared.writerClosed.Store(1) }

// Closed reports whether the reader closed its end, after which nobody will
// read. May be called from any goroutine.
func (w *BytesWriter) Closed() bool { return w.shared.readerClosed.Load() != 0 }

// BytesReader is the end of a ring of bytes that takes bytes out.
type BytesReader struct {
	bytesEnd
	tail uint64 // how many bytes were released since the beginning
	head uint64 // the writer's index when it was last read and found good
}

// NewBytesReader takes the reader's end of a ring that FormatBytes prepared and
// that nobody has read from yet.
func NewBytesReader(mem []byte) (*BytesReader, error) {
	e, err := openBytes(mem)
	if err != nil {
		return nil, err
	}
	return &BytesReader{bytesEnd: e}, nil
}

// refresh reads the writer's index, and does nothing where it cannot be used.
func (r *BytesReader) refresh() {
	if r.err != nil {
		return
	}
	head := r.shared.producer.Load()
	// A writer goes forward, and not over what is still in use.
	if used := head - r.tail; used > r.capacity || used < r.head-r.tail {
		r.err = ErrCorrupt
		r.head = r.tail // nothing to read any more
		r.Close()
		return
	}
	r.head = head
}

// seen returns how many bytes there are, at least want if there are so many.
func (r *BytesReader) seen(want uint64) uint64 {
	if r.head-r.tail < want {
		r.refresh()
	}
	return r.head - r.tail
}

// Used returns how many bytes are committed and not yet released.
func (r *BytesReader) Used() int {
	r.refresh()
	return int(r.head - r.tail)
}

// Peek returns up to n bytes from off bytes behind the last byte released, in
// one piece or in two, and nothing where there are none. They stay in the ring
// and do not change until they are released, unless the writer lies. a is empty
// only if b is.
func (r *BytesReader) Peek(off, n int) (a, b []byte) {
	if off < 0 || n <= 0 {
		return nil, nil
	}
	at, m := cut(off, n, r.seen(uint64(off)+uint64(n)))
	if m == 0 {
		return nil, nil
	}
	return span(r.data, r.tail+at, m)
}

// Release gives the next n bytes back; a larger n is cut to what is there. See
// Asked.
func (r *BytesReader) Release(n int) {
	if n <= 0 {
		return
	}
	if m := min(uint64(n), r.seen(uint64(n))); m > 0 {
		r.tail += m
		r.shared.consumer.Store(r.tail)
	}
}

// Read copies the next bytes to p, releases them and returns how many.
func (r *BytesReader) Read(p []byte) int {
	n := min(uint64(len(p)), r.seen(uint64(len(p))))
	getSpan(p[:n], r.data, r.tail)
	r.Release(int(n))
	return int(n)
}

// Asked reports whether the writer asked to be woken (see BytesWriter.Arm), once
// for each request. Look behind the last Release or Read of a batch.
func (r *BytesReader) Asked() bool { return answers(&r.shared.writerAsks) }

// Arm asks the writer for a wake behind its next Commit and looks again: it
// reports whether there is still nothing to read, and the reader may go to
// sleep.
func (r *BytesReader) Arm() bool {
	r.shared.readerAsks.Store(1)
	// In this order: what was committed before the close is seen.
	closed := r.Closed()
	return r.Used() == 0 && !closed && r.err == nil
}

// Close says that nothing more will be read. May be called from any goroutine,
// and more than once.
func (r *BytesReader) Close() { r.shared.readerClosed.Store(1) }

// Closed reports whether the writer closed its end. What it committed before
// can still be read: Closed and then a Used of 0 means the end. May be called
// from any goroutine.
func (r *BytesReader) Closed() bool { return r.shared.writerClosed.Load() != 0 }
