package socketapi

import (
	"sync"
	"sync/atomic"
	"time"
)

// A deadline is a moment that may be moved while somebody waits for it.
type deadline struct {
	over  atomic.Bool
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{} // closed when it has passed
}

func (d *deadline) init() { d.done = make(chan struct{}) }

// passed is closed when the deadline, as it is set now, has passed.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// isPassed takes no lock and reads no clock.
func (d *deadline) isPassed() bool { return d.over.Load() }

// set moves the deadline; the zero time: there is none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // its function has run, or is about to
	}
	d.timer = nil
	if d.over.Swap(false) {
		d.done = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	done := d.done
	pass := func() {
		d.over.Store(true)
		close(done)
	}
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, pass)
		return
	}
	pass()
}
