package socketapi

import (
	"sync"

	"kitnet.dev/kit/stack"
)

// Kit is one program's view of a stack: its tokens and the calls on them. All its methods may be called from any
// goroutine.
type Kit struct {
	stack   *stack.Stack
	net     *Net
	sockets table
	done    chan struct{} // closed by Close
	names   resolver

	sleepers   sync.Pool // of *sleeper
	selections sync.Pool // of *selection
}

// New returns a Kit without sockets on s. The stack stays the caller's: closing the Kit does not close it, and several
// Kits may share it.
func New(s *stack.Stack) *Kit {
	k := &Kit{stack: s, net: NewNet(s), done: make(chan struct{})}
	k.sockets.free = noSlot
	k.sleepers.New = func() any { return newSleeper() }
	k.selections.New = func() any { return new(selection) }
	return k
}

// Close closes every socket, as CloseSocket does. Calls in progress answer EINTR, later ones EBADF, and Socket answers
// ENETDOWN. A second Close does nothing. It returns nil.
func (k *Kit) Close() error {
	if k.sockets.close((*socket).close) {
		close(k.done)
	}
	return nil
}
