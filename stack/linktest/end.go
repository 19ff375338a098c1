package linktest

import "time"

// End is one end of a Wire: a link. Its Link methods are for one goroutine, but
// for Wake; the others may be called from any.
type End struct {
	wire    *Wire
	mtu     int
	addr    [6]byte
	partial bool
	offload bool
	bundles int  // bytes
	line    line // what happens to frames that leave here
	stats   EndStats
	err     error
	stalled bool
	taken   int   // frames allocated and not yet sent
	sent    queue // waiting for Flush
	pending []*End
	coming  schedule
	// received are the frames that can be polled.
	received queue
	woken    bool
	wake     chan struct{} // something changed for a sleeping Wait
	timer    *time.Timer
}

// EndStats counts the frames of one end.
type EndStats struct {
	FaultStats        // of what this end sent
	Partial    uint64 // taken by SendPartial
	Bundles    uint64 // taken by SendBundle
	// LongBundles are those longer than an IPv4 packet can say.
	LongBundles uint64
	Unsendable  uint64 // empty, longer than the MTU allows, or sent after Fail
	NoReceiver  uint64 // a switch knows no end with that address
	Received    uint64 // lent by Poll
	Overflowed  uint64 // came while the receive ring was full
}

// queue is a first-in-first-out of buffers.
type queue struct {
	b    []*buffer
	from int
}

func (q *queue) len() int { return len(q.b) - q.from }

func (q *queue) push(b *buffer) {
	if q.from > len(q.b)/2 && len(q.b) == cap(q.b) {
		q.b = q.b[:copy(q.b, q.b[q.from:])]
		q.from = 0
	}
	q.b = append(q.b, b)
}

func (q *queue) pop() *buffer {
	b := q.b[q.from]
	q.from++
	if q.from == len(q.b) {
		q.b, q.from = q.b[:0], 0
	}
	return b
}

// Poll lends up to budget of the frames that have arrived to input, one at a
// time and each for the call only, and returns how many. A frame's capacity
// reaches to the end of its buffer.
func (e *End) Poll(budget int, input func(frame []byte)) int {
	w := e.wire
	n := 0
	for n < budget {
		w.mu.Lock()
		e.collect(w.clock())
		if e.received.len() == 0 {
			w.mu.Unlock()
			break
		}
		b := e.received.pop()
		b.state = lent
		e.stats.Received++
		w.mu.Unlock()

		input(b.frame())
		n++

		w.mu.Lock()
		if b.state == lent && b.owner == e {
			w.pool.put(b)
		}
		w.mu.Unlock()
	}
	return n
}

// collect moves frames whose time has come to the receive ring.
func (e *End) collect(now time.Duration) {
	for b := e.coming.due(now); b != nil; b = e.coming.due(now) {
		if e.received.len() >= e.wire.ring {
			e.stats.Overflowed++
			e.wire.pool.put(b)
			continue
		}
		b.state = waiting
		e.received.push(b)
	}
}

// Alloc returns a frame to fill, nil when the transmit ring is full.
func (e *End) Alloc() []byte {
	w := e.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.taken+e.sent.len() >= w.ring {
		return nil
	}
	e.taken++
	return w.get(e, allocated).frame()
}

// Send queues a frame from Alloc, or the one that Poll lends, resliced to its
// length. It reports false, for a lent frame only, when the transmit ring is
// full. The frame leaves with Flush.
func (e *End) Send(frame []byte) bool {
	w := e.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.owned(e, frame, "Send")
	if b.state == allocated {
		e.taken--
	} else if e.taken+e.sent.len() >= w.ring {
		return false
	}
	b.state, b.n = queued, len(frame)
	e.sent.push(b)
	return true
}

// Free gives a frame from Alloc back unsent.
func (e *End) Free(frame []byte) {
	w := e.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.owned(e, frame, "Free")
	if b.state != allocated {
		panic("linktest: Free of a frame that Poll lends")
	}
	e.taken--
	w.pool.put(b)
}

// Flush lets the queued frames go. It reports whether some remain, which is so
// only while the end is stalled.
func (e *End) Flush() (pending bool) {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	return e.flush()
}

// flush is Flush; the lock is held.
func (e *End) flush() (pending bool) {
	if e.stalled {
		return e.sent.len() > 0
	}
	now := e.wire.clock()
	for e.sent.len() > 0 {
		e.wire.carry(e, e.sent.pop(), now)
	}
	return false
}

// Wait sleeps until a frame can be polled, Wake is called, or the timeout has
// passed; a negative one never does. On a wire with virtual time it returns at
// once. It returns the error that Fail was given.
func (e *End) Wait(timeout time.Duration) error {
	w := e.wire
	until := time.Duration(-1)
	for {
		w.mu.Lock()
		now := w.clock()
		e.collect(now)
		if until < 0 && timeout >= 0 {
			until = now + timeout
		}
		ready := !w.realTime || e.woken || e.received.len() > 0 || e.err != nil || until >= 0 && now >= until
		err := e.err
		next, some := e.coming.next()
		if ready {
			e.woken = false
		}
		w.mu.Unlock()
		if ready {
			return err
		}
		if until >= 0 && (!some || until < next) {
			next, some = until, true
		}
		e.sleep(next-now, some)
	}
}

// sleep waits for a signal and, where limited, for d at most.
func (e *End) sleep(d time.Duration, limited bool) {
	if !limited {
		<-e.wake
		return
	}
	if e.timer == nil {
		e.timer = time.NewTimer(d)
	} else {
		e.timer.Reset(d)
	}
	select {
	case <-e.wake:
		e.timer.Stop()
	case <-e.timer.C:
	}
}

// signal makes a sleeping Wait look again. One that does not sleep yet finds the
// token.
func (e *End) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Wake ends a present or the next Wait. Safe from any goroutine.
func (e *End) Wake() {
	e.wire.mu.Lock()
	e.woken = true
	e.wire.mu.Unlock()
	e.signal()
}

// MTU returns the longest IP packet, in bytes.
func (e *End) MTU() int { return e.mtu }

// HardwareAddr returns the end's Ethernet address.
func (e *End) HardwareAddr() [6]byte { return e.addr }

// PartialChecksums reports what EndConfig said.
func (e *End) PartialChecksums() bool { return e.partial }

// takes reports whether a switch hands this end a frame.
func (e *End) takes(frame []byte) bool {
	if len(frame) < 6 || frame[0]&1 != 0 {
		return true
	}
	return [6]byte(frame) == e.addr
}

// SetFaults changes what happens to frames that this end sends from now on.
func (e *End) SetFaults(f Faults) {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	e.line.faults = f
}

// SetStalled stops the transmit side, as a card that completes nothing does:
// Flush leaves the frames queued until the ring is full.
func (e *End) SetStalled(stalled bool) {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	e.stalled = stalled
}

// Fail makes Wait return err from now on and discards what is sent, as for a
// device that was removed (give it an error that wraps ENETDOWN or ENODEV).
func (e *End) Fail(err error) {
	e.wire.mu.Lock()
	e.err = err
	e.wire.mu.Unlock()
	e.signal()
}

// Stats returns the counters of this end.
func (e *End) Stats() EndStats {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	s := e.stats
	s.FaultStats = e.line.stats
	return s
}

// Inject sends a copy of frame at once. It reports false where the transmit ring
// is full or the frame is longer than any end's MTU allows.
func (e *End) Inject(frame []byte) bool {
	b := e.Alloc()
	if b == nil {
		return false
	}
	if len(frame) > len(b) {
		e.Free(b)
		return false
	}
	e.Send(b[:copy(b, frame)])
	e.Flush()
	return true
}

// Take polls one frame and returns a copy, nil where none has arrived.
func (e *End) Take() (frame []byte) {
	e.Poll(1, func(f []byte) { frame = append([]byte{}, f...) })
	return frame
}
