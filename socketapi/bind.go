package socketapi

import (
	"net/netip"
	"syscall"
)

// Bind gives a socket its one address and port, and rewrites addr with those it got.
//
// Port 0 takes a free one. Address 0 (INADDR_ANY, or the zero netip.Addr) takes the first interface on which the port is
// free, cards before the loopback: a loop of sockets that are each bound to address 0 and the same port covers one
// interface after another and then fails with EADDRINUSE. On an ICMP socket the port is the echo identifier.
//
// Errors: EBADF; EINVAL, the socket is bound, also by an earlier Connect or SendTo, or addr is nil; EADDRINUSE, the port
// is taken here or in the kernel; EADDRNOTAVAIL, the address is not this machine's; EACCES, the user may not have the
// port; EAFNOSUPPORT, the address is not IPv4; EINTR. On an error addr stays as it was.
func (k *Kit) Bind(t Token, addr *netip.AddrPort) error {
	s, err := k.find(t)
	if err != nil {
		return err
	}
	if addr == nil {
		return syscall.EINVAL
	}
	a := *addr
	if !a.Addr().IsValid() {
		a = netip.AddrPortFrom(INADDR_ANY, a.Port())
	}
	if a, err = toIPv4(a); err != nil {
		return err
	}
	if err := s.endpoint.Bind(a); err != nil {
		return s.overtaken(err)
	}
	*addr = s.LocalAddr()
	return nil
}

// Connect fixes the peer of a socket. An unbound socket is bound to the address that the route to the peer prefers. There is
// no disconnect.
//
// On a datagram socket Send then goes there, and only the peer's messages, and the errors about what was sent to it, are
// received from then on. Nothing is sent, so it does not block for the peer. The port of an ICMP socket's peer is 0, whatever
// addr says.
//
// A stream shakes hands with the peer, and Connect waits for the end of that, about a minute at most, or SO_SNDTIMEO. Where the
// socket is non-blocking, or time is up, it answers EWOULDBLOCK and the handshake goes on: Select finds the socket ready to write
// when it is over, and SO_ERROR tells how. A second Connect answers EWOULDBLOCK meanwhile, or waits, and EISCONN when it is done.
//
// Errors: EBADF; EISCONN, the socket is connected; EWOULDBLOCK; ECONNREFUSED, nobody listens there or is held too many clients;
// ETIMEDOUT, the peer does not answer; ENETUNREACH and EHOSTUNREACH, no route leads there, one refuses, or a neighbour does not
// answer; EACCES, a broadcast address after SO_BROADCAST was switched off; EADDRINUSE, no port is free; EINVAL, port 0 on a UDP
// socket or a stream, or a stream that listens; EDESTADDRREQ, addr is zero; EAFNOSUPPORT, addr is not IPv4; EINTR.
func (k *Kit) Connect(t Token, addr netip.AddrPort) error {
	s, err := k.find(t)
	if err != nil {
		return err
	}
	if addr, err = peer(addr); err != nil {
		return err
	}
	if s.st != nil {
		return s.overtaken(s.connectStream(addr))
	}
	if err := s.d.Connect(addr); err != nil {
		return s.overtaken(err)
	}
	s.connected.Store(true)
	return nil
}

// GetSockName returns the address and port of a socket. Errors: EBADF; EINVAL, the socket is not bound.
func (k *Kit) GetSockName(t Token) (netip.AddrPort, error) {
	s, err := k.find(t)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a := s.LocalAddr()
	if !a.IsValid() {
		return a, syscall.EINVAL
	}
	return a, nil
}

// GetPeerName returns the peer of a socket. Errors: EBADF; ENOTCONN, the socket is not connected.
func (k *Kit) GetPeerName(t Token) (netip.AddrPort, error) {
	s, err := k.find(t)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a := s.RemoteAddr()
	if !a.IsValid() {
		return a, syscall.ENOTCONN
	}
	return a, nil
}

// toIPv4 returns a with an IPv4 address mapped into IPv6 brought back to IPv4, or EAFNOSUPPORT.
func toIPv4(a netip.AddrPort) (netip.AddrPort, error) {
	ip := a.Addr()
	if ip.Is4() {
		return a, nil
	}
	if !ip.Is4In6() {
		return a, syscall.EAFNOSUPPORT
	}
	return netip.AddrPortFrom(ip.Unmap(), a.Port()), nil
}

// peer is toIPv4 for a destination, which must be there: EDESTADDRREQ.
func peer(a netip.AddrPort) (netip.AddrPort, error) {
	if !a.IsValid() {
		return a, syscall.EDESTADDRREQ
	}
	return toIPv4(a)
}
