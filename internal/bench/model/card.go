package model

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	frameRoom = 2048 // bytes of a frame's memory
	mtu       = 1500
)

// queue is a queue of a card in memory, a link of the stack. What it sends goes out by carry, with the frame for the time of the call.
type queue struct {
	number  int
	address [6]byte
	meter   *meter // nil: not measured
	room    int    // frames that may be sent before a flush
	carry   func(frame []byte)

	// arrivals puts frames onto the queue right before they are polled, when no engine's time runs: in a processor's cache they then are
	// as a card leaves them, whatever the number of engines. nil: they are there already.
	arrivals func()

	waiting, sending, free [][]byte
	alloced                int
	lent                   []byte // what input has now, nil once it was sent
}

// arrive gives the queue a copy of a frame.
func (q *queue) arrive(frame []byte) {
	b := q.take()
	q.waiting = append(q.waiting, b[:copy(b, frame)])
}

func (q *queue) take() []byte {
	if n := len(q.free); n > 0 {
		b := q.free[n-1]
		q.free = q.free[:n-1]
		return b
	}
	return make([]byte, frameRoom)
}

func (q *queue) giveBack(frame []byte) { q.free = append(q.free, frame[:frameRoom]) }

// Poll implements stack.Link. It is where the stack's round comes from one engine to the next.
func (q *queue) Poll(budget int, input func(frame []byte)) int {
	if q.arrivals != nil {
		q.meter.enter(-1)
		q.arrivals()
	}
	if q.meter != nil {
		q.meter.enter(q.number)
	}
	n := min(budget, len(q.waiting))
	for _, frame := range q.waiting[:n] {
		q.lent = frame
		input(frame)
		if q.lent != nil {
			q.giveBack(frame)
		}
	}
	q.lent = nil
	q.waiting = q.waiting[:copy(q.waiting, q.waiting[n:])]
	return n
}

// Alloc implements stack.Link.
func (q *queue) Alloc() []byte {
	if q.alloced+len(q.sending) >= q.room {
		return nil
	}
	q.alloced++
	return q.take()[:mtu+18]
}

// Send implements stack.Link.
func (q *queue) Send(frame []byte) bool {
	if q.lent != nil && &q.lent[0] == &frame[0] {
		q.lent = nil
	} else {
		q.alloced--
	}
	q.sending = append(q.sending, frame)
	return true
}

// Free implements stack.Link.
func (q *queue) Free(frame []byte) {
	q.alloced--
	q.giveBack(frame)
}

// Flush implements stack.Link: the card has the frames, and deliver puts them on the wire.
func (q *queue) Flush() (pending bool) { return false }

// deliver carries what was sent.
func (q *queue) deliver() {
	for _, frame := range q.sending {
		q.carry(frame)
		q.giveBack(frame)
	}
	q.sending = q.sending[:0]
}

// Wait and Wake implement stack.Link for engines that are stepped and never sleep.
func (q *queue) Wait(time.Duration) error { return nil }

// Wake is Wait's.
func (q *queue) Wake() {}

// MTU implements stack.Link.
func (q *queue) MTU() int { return mtu }

// HardwareAddr implements stack.Link.
func (q *queue) HardwareAddr() [6]byte { return q.address }

// PartialChecksums implements stack.Link.
func (q *queue) PartialChecksums() bool { return false }

// meter says how much of its thread's CPU time each engine took.
type meter struct {
	steps [][]time.Duration // of each engine
	cost  time.Duration     // of a look at the clock
	owner int               // whose time runs, -1: nobody's
	since time.Duration
}

func newMeter(engines int) *meter {
	m := &meter{steps: make([][]time.Duration, engines), owner: -1, cost: time.Hour}
	for range 1000 {
		from := threadTime()
		m.cost = min(m.cost, threadTime()-from)
	}
	return m
}

// enter lets an engine's time run, or with -1 nobody's, and ends that of who had it.
func (m *meter) enter(engine int) {
	now := threadTime()
	if m.owner >= 0 {
		m.steps[m.owner] = append(m.steps[m.owner], max(0, now-m.since-m.cost))
	}
	m.owner, m.since = engine, now
}

// reset forgets what was.
func (m *meter) reset() {
	for n := range m.steps {
		m.steps[n] = make([]time.Duration, 0, 1<<12)
	}
}

// busy is the time of each engine. Its longest steps, one in twenty, count no more than the longest of the others: the time of a thread
// has in it that of interrupts which came meanwhile.
func (m *meter) busy() []time.Duration {
	all := make([]time.Duration, len(m.steps))
	for n, steps := range m.steps {
		slices.Sort(steps)
		for _, took := range steps {
			all[n] += min(took, steps[(len(steps)-1)*19/20])
		}
	}
	return all
}

// threadTime is the CPU time of the calling thread, which nothing but what it does adds to. The system's part of it is the clock's own:
// a stack in memory makes no system call.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // it can't fail with these arguments
	return time.Duration(t.Nano())
}
