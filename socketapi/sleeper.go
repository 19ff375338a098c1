package socketapi

import (
	"time"

	"kitnet.dev/kit/stack"
)

// sleeper is what a blocked call sleeps on. Sleepers are pooled, so that blocking allocates nothing.
type sleeper struct {
	waiter *stack.Waiter
	timer  *time.Timer
	timed  bool
}

func newSleeper() *sleeper {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &sleeper{waiter: stack.NewWaiter(), timer: t}
}

// sleeper takes a sleeper from the pool. It sleeps for timeout at most, counted from now over all its sleeps; 0: for
// ever.
func (k *Kit) sleeper(timeout time.Duration) *sleeper {
	sl := k.sleepers.Get().(*sleeper)
	if sl.timed = timeout > 0; sl.timed {
		sl.timer.Reset(timeout)
	}
	return sl
}

// release gives a sleeper that watches nothing back to the pool.
func (k *Kit) release(sl *sleeper) {
	if sl.timed {
		sl.timer.Stop()
	}
	select {
	case <-sl.waiter.C: // told after the last look
	default:
	}
	k.sleepers.Put(sl)
}

// sleep returns true when the waiter is told, which may be for nothing, or done is closed, and false when the time is up.
func (sl *sleeper) sleep(done <-chan struct{}) bool {
	if !sl.timed {
		select {
		case <-sl.waiter.C:
		case <-done:
		}
		return true
	}
	select {
	case <-sl.waiter.C:
	case <-done:
	case <-sl.timer.C:
		return false
	}
	return true
}
