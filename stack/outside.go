package stack

import (
	"net/netip"
	"syscall"

	"kitnet.dev/kit/stack/wire"
)

// An Outside is a socket of the kernel that does for a user of the stack what the stack can't: it reaches what no interface of the
// stack does. Adopt enters it in the list of sockets, and the stack's Close closes it.
type Outside interface {
	// Info is its line in Stack.Sockets, without the ID. Unaccelerated says why the socket is not the stack's.
	Info() SocketInfo
	Close() error
}

// Adopt enters a socket in the list. EBADF: the stack is closed.
func (s *Stack) Adopt(o Outside) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return syscall.EBADF
	}
	s.outside[o] = s.lastID.Add(1)
	return nil
}

// Disown takes it from the list.
func (s *Stack) Disown(o Outside) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.outside, o)
}

// Owner is the interface that has an address, nil where the stack does not have it. The loopback has all of 127.0.0.0/8.
func (s *Stack) Owner(addr netip.Addr) *Interface {
	a, ok := wire.AddrFrom(addr)
	if !ok {
		return nil
	}
	return s.ownerOf(a)
}

// Bound reports whether a port of an address of the stack is a socket's or a connection's. It takes a lock.
func (s *Stack) Bound(proto wire.Protocol, at netip.AddrPort) bool {
	a, ok := wire.AddrFrom(at.Addr())
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.binds[bindKey{proto, a, at.Port()}] != nil
}

// IsBroadcast reports whether an address is a broadcast address of one of the stack's networks, or the limited one.
func (s *Stack) IsBroadcast(addr netip.Addr) bool {
	a, ok := wire.AddrFrom(addr)
	return ok && s.isBroadcast(a)
}
