package socketapi

import (
	"errors"
	"sync"

	"kitnet.dev/kit/stack"
)

// Kit is one program's view of a stack: its tokens and the calls on them. All its methods may be called from any
// goroutine.
type Kit struct {
	stack   *stack.Stack
	sockets table
	done    chan struct{} // closed by Close

	sleepers   sync.Pool // of *sleeper
	selections sync.Pool // of *selection
}

// New returns a Kit without sockets on s. The stack stays the caller's: closing the Kit does not close it, and several
// Kits may share it.
func New(s *stack.Stack) *Kit {
	k := &Kit{stack: s, done: make(chan struct{})}
	k.sockets.free = noSlot
	k.sleepers.New = func() any { return newSleeper() }
	k.selections.New = func() any { return new(selection) }
	return k
}

// Close closes every socket, as CloseSocket does. Calls in progress answer EINTR, later ones EBADF, and Socket answers
// ENETDOWN. It returns what the sockets' closing failed with, and nil when the Kit is already closed.
func (k *Kit) Close() error {
	var errs []error
	if k.sockets.close(func(s *socket) {
		if err := s.close(); err != nil {
			errs = append(errs, err)
		}
	}) {
		close(k.done)
	}
	return errors.Join(errs...)
}
