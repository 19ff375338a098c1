package ring

// Writer is the end of a ring that puts records in.
type Writer struct {
	end
	head      uint64 // where the next record or padding begins
	published uint64 // what the reader may see
	tail      uint64 // the reader's index when it was last read and found good
	at        uint64 // where the reserved record begins, behind padding if any
	reserved  int    // length of the reservation, -1 for none
}

// NewWriter takes the writer's end of a ring that Format prepared and that
// nobody has written to yet.
func NewWriter(mem []byte) (*Writer, error) {
	e, err := open(mem)
	if err != nil {
		return nil, err
	}
	return &Writer{end: e, reserved: -1}, nil
}

// free forgets what the reader is done with and reports how many bytes it is
// not done with.
func (w *Writer) free() uint64 {
	w.refresh()
	return w.head - w.tail
}

// Reserve returns room for a record of n bytes, or nil when there is none: now,
// or for ever where Closed or Err say so. (A closed ring may still take what it
// has room for.) What was reserved before and not committed is given up. The
// bytes hold whatever was there before.
func (w *Writer) Reserve(n int) []byte {
	w.reserved = -1
	if uint64(n) > w.capacity-RecordLen {
		return nil // negative numbers too
	}
	need := recordSize(uint64(n))
	at := w.head
	offset := at & (w.capacity - 1)
	if rest := w.capacity - offset; need > rest {
		at += rest
		offset = 0
	}
	if at+need-w.tail > w.capacity && (!w.refresh() || at+need-w.tail > w.capacity) {
		return nil
	}
	w.at, w.reserved = at, n
	from := offset + RecordLen
	return w.data[from : from+uint64(n) : from+uint64(n)]
}

// refresh reads the reader's index and reports whether it can be used.
func (w *Writer) refresh() bool {
	if w.err != nil || w.shared.readerClosed.Load() != 0 {
		return false
	}
	tail := w.shared.consumer.Load()
	// A reader goes forward, in whole records, up to what it was shown.
	if tail-w.tail > w.published-w.tail || tail%8 != 0 {
		w.err = ErrCorrupt
		w.tail = w.head - w.capacity // full for ever
		w.Close()
		return false
	}
	w.tail = tail
	return true
}

// Commit takes the first n bytes of the reservation as a record; n may be
// smaller than what was reserved and is cut to it. Without a reservation it does
// nothing. The reader sees the record after Publish.
func (w *Writer) Commit(n int) {
	if w.reserved < 0 {
		return
	}
	length := uint64(max(0, min(n, w.reserved)))
	w.reserved = -1
	mask := w.capacity - 1
	if w.at != w.head {
		*w.wordAt(w.head & mask) = word(w.at-w.head-RecordLen, kindPad)
	}
	*w.wordAt(w.at & mask) = word(length, 0)
	w.head = w.at + recordSize(length)
}

// Publish shows the reader everything committed, at the cost of one store for
// all of it, and reports whether the reader asked to be woken (see Reader.Arm).
func (w *Writer) Publish() (wake bool) {
	if w.head != w.published {
		w.published = w.head
		w.shared.producer.Store(w.head)
	}
	return answers(&w.shared.readerAsks)
}

// Arm asks the reader for a wake at its next Release and looks again: it
// reports whether there is still no room for a record of n bytes, and the
// writer may go to sleep.
func (w *Writer) Arm(n int) bool {
	w.shared.writerAsks.Store(1)
	if w.Closed() || w.err != nil {
		return false
	}
	full := w.Reserve(n) == nil
	w.reserved = -1
	return full && w.err == nil
}

// Close says that nothing more will be published. The reader still gets what
// is there. May be called from any goroutine, and more than once.
func (w *Writer) Close() { w.shared.writerClosed.Store(1) }

// Closed reports whether the reader closed its end, after which nobody will
// read. May be called from any goroutine.
func (w *Writer) Closed() bool { return w.shared.readerClosed.Load() != 0 }
