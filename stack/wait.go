package stack

import (
	"sync"
	"sync/atomic"
)

// Events are what a socket may be ready for: a bit set.
type Events uint8

// The events of a socket.
const (
	Readable Events = 1 << iota // Read has a message, or an error to tell
	Writable                    // Write has room
	Errored                     // an error waits: the next Read, Write or TakeError tells it
	Closed                      // the socket is closed
)

// A Waiter is told when a socket that it watches may have become ready. It may watch many sockets.
type Waiter struct {
	C chan struct{} // has room for one
}

// NewWaiter returns a Waiter that watches nothing.
func NewWaiter() *Waiter { return &Waiter{C: make(chan struct{}, 1)} }

// Tell wakes who waits on C, or makes the next one not wait.
func (w *Waiter) Tell() {
	select {
	case w.C <- struct{}{}:
	default:
	}
}

// waitQueue holds a socket's waiters. The engine looks at one flag and goes on when nobody sleeps.
type waitQueue struct {
	want atomic.Uint32 // union of what the entries want
	mu   sync.Mutex
	list []watch
}

type watch struct {
	w    *Waiter
	want Events
}

func (q *waitQueue) add(w *Waiter, want Events) {
	q.mu.Lock()
	q.list = append(q.list, watch{w, want | Errored | Closed})
	q.rearm()
	q.mu.Unlock()
}

func (q *waitQueue) remove(w *Waiter) {
	q.mu.Lock()
	for i := range q.list {
		if q.list[i].w == w {
			last := len(q.list) - 1
			q.list[i] = q.list[last]
			q.list[last] = watch{}
			q.list = q.list[:last]
			break
		}
	}
	q.rearm()
	q.mu.Unlock()
}

func (q *waitQueue) rearm() {
	var want Events
	for i := range q.list {
		want |= q.list[i].want
	}
	q.want.Store(uint32(want))
}

// notify tells every waiter that wants one of ev, and reports whether there was one.
func (q *waitQueue) notify(ev Events) bool {
	if Events(q.want.Load())&ev == 0 {
		return false
	}
	q.mu.Lock()
	told := false
	for i := range q.list {
		if q.list[i].want&ev != 0 {
			q.list[i].w.Tell()
			told = true
		}
	}
	q.mu.Unlock()
	return told
}
