package stack

import (
	"net/netip"
	"syscall"

	"kitnet.dev/kit/stack/wire"
)

// SourceTo is the local address that packets for dst come from where their sender does not say: the one that the route prefers.
// Errors: ENETUNREACH and EHOSTUNREACH no way there; EADDRNOTAVAIL no address; EACCES and EINVAL a route refuses; EAFNOSUPPORT;
// ENETDOWN the card is gone.
func (s *Stack) SourceTo(dst netip.Addr) (netip.Addr, error) {
	a, ok := wire.AddrFrom(dst)
	if !ok {
		return netip.Addr{}, syscall.EAFNOSUPPORT
	}
	src, err := s.sourceTo(a)
	if err != nil {
		return netip.Addr{}, err
	}
	return src.Netip(), nil
}

// Generation changes whenever an address or a route does.
func (s *Stack) Generation() uint32 { return s.gen.Load() }

// WatchAddresses makes w be told when addresses come or go. Look again after it and before sleeping, as after Datagram.Watch.
func (s *Stack) WatchAddresses(w *Waiter) { s.addressWaiters.add(w, 0) }

// UnwatchAddresses ends WatchAddresses.
func (s *Stack) UnwatchAddresses(w *Waiter) { s.addressWaiters.remove(w) }

// SyscallConn gives access to the kernel's socket that holds a port of the interface (InterfaceConfig.Ports), to set options on
// it. EOPNOTSUPP: the kernel has none, as the addresses are not its own.
func (i *Interface) SyscallConn(proto wire.Protocol, addr netip.Addr, port uint16) (syscall.RawConn, error) {
	if p, ok := i.ports.(interface {
		SyscallConn(wire.Protocol, netip.Addr, uint16) (syscall.RawConn, error)
	}); ok {
		return p.SyscallConn(proto, addr, port)
	}
	return nil, syscall.EOPNOTSUPP
}
