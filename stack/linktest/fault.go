package linktest

import "time"

// Fault is a link with faults: what a Wire does to frames, for any link, a real
// card's too. Frames are copied in and out, so it is for tests and not for
// measuring. Its methods are for the link's goroutine.
type Fault struct {
	link     Link
	now      func() time.Duration
	in, out  line
	incoming schedule // on their way to input
	outgoing schedule // on their way to the link
	pool     pool
	seq      uint64
	lent     *buffer
	blocked  bool // frames were due and the link had no room for them
	receive  func(frame []byte)
}

// FaultConfig says what a Fault does.
type FaultConfig struct {
	Seed    uint64
	In, Out Faults
	// Now is the clock for latencies, since any moment; nil is the machine's.
	Now func() time.Duration
}

// NewFault wraps link.
func NewFault(link Link, c FaultConfig) *Fault {
	f := &Fault{link: link, now: c.Now, in: newLine(c.Seed, 0), out: newLine(c.Seed, 1)}
	f.in.faults, f.out.faults = c.In, c.Out
	f.pool.size = link.MTU() + overhead
	if f.now == nil {
		began := time.Now()
		f.now = func() time.Duration { return time.Since(began) }
	}
	f.receive = func(frame []byte) { f.hold(&f.in, &f.incoming, frame) }
	return f
}

// hold decides about a frame and keeps copies until they are due. The damage is
// done to the first copy, never to the frame of the link.
func (f *Fault) hold(l *line, s *schedule, frame []byte) {
	b := f.copy(frame)
	out := l.pass(f.now(), b.frame())
	if out.dropped {
		f.pool.put(b)
		return
	}
	b.n = len(out.frame)
	s.push(arrival{at: out.at, seq: f.next(), b: b})
	if out.copies > 1 {
		s.push(arrival{at: out.at, seq: f.next(), b: f.copy(b.frame())})
	}
}

func (f *Fault) next() uint64 { f.seq++; return f.seq }

// copy puts a frame into a buffer of ours.
func (f *Fault) copy(frame []byte) *buffer {
	b := f.pool.get()
	if len(b.data) < len(frame) {
		b.data = make([]byte, len(frame))
	}
	b.n = copy(b.data, frame)
	return b
}

// Poll takes what the link received and lends the frames that are due.
func (f *Fault) Poll(budget int, input func(frame []byte)) int {
	f.release()
	f.link.Poll(budget, f.receive)
	now := f.now()
	n := 0
	for n < budget {
		b := f.incoming.due(now)
		if b == nil {
			break
		}
		f.lent = b
		input(b.frame())
		f.lent = nil
		f.pool.put(b)
		n++
	}
	return n
}

// Alloc returns a frame of the link, nil while frames that are due wait for room.
func (f *Fault) Alloc() []byte {
	if f.blocked {
		return nil
	}
	return f.link.Alloc()
}

// Send decides about the frame; what is to leave does so with Flush, when its
// time has come.
func (f *Fault) Send(frame []byte) bool {
	lent := f.lent != nil && cap(frame) > 0 && &frame[:1][0] == &f.lent.data[0]
	if lent && f.blocked {
		return false
	}
	f.hold(&f.out, &f.outgoing, frame)
	if !lent {
		f.link.Free(frame)
	}
	return true
}

// Free gives a frame from Alloc back unsent.
func (f *Fault) Free(frame []byte) { f.link.Free(frame) }

// release hands the frames that are due to the link.
func (f *Fault) release() {
	now := f.now()
	f.blocked = false
	for {
		if at, some := f.outgoing.next(); !some || at > now {
			return
		}
		tx := f.link.Alloc()
		if tx == nil {
			f.link.Flush()
			if tx = f.link.Alloc(); tx == nil {
				f.blocked = true
				return
			}
		}
		b := f.outgoing.due(now)
		f.link.Send(tx[:copy(tx, b.frame())])
		f.pool.put(b)
	}
}

// Flush sends what is due. It reports whether some of that remains; frames whose
// time has not come are not meant: Wait sends them.
func (f *Fault) Flush() (pending bool) {
	f.release()
	return f.link.Flush() || f.blocked
}

// Wait sleeps as the link does, but no longer than until a frame of either
// direction is due, and sends those that are.
func (f *Fault) Wait(timeout time.Duration) error {
	if at, some := f.NextEvent(); some {
		d := max(0, at-f.now())
		if timeout < 0 || d < timeout {
			timeout = d
		}
	}
	err := f.link.Wait(timeout)
	f.Flush()
	return err
}

// NextEvent returns when the next frame is due in either direction; it reports
// false where none is held.
func (f *Fault) NextEvent() (at time.Duration, ok bool) {
	at, ok = f.incoming.next()
	if t, some := f.outgoing.next(); some && (!ok || t < at) {
		at, ok = t, true
	}
	return at, ok
}

// Wake ends a present or the next Wait. Safe from any goroutine.
func (f *Fault) Wake() { f.link.Wake() }

// MTU is the link's.
func (f *Fault) MTU() int { return f.link.MTU() }

// HardwareAddr is the link's.
func (f *Fault) HardwareAddr() [6]byte { return f.link.HardwareAddr() }

// PartialChecksums is the link's.
func (f *Fault) PartialChecksums() bool { return f.link.PartialChecksums() }

// Stats returns what was done to received and to sent frames.
func (f *Fault) Stats() (in, out FaultStats) { return f.in.stats, f.out.stats }
