package socketapi

import (
	"net/netip"
	"sync/atomic"
	"syscall"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// socket is what a token stands for.
type socket struct {
	token Token
	kit   *Kit
	endpoint
	d  *stack.Datagram // one of the two is nil
	st *stack.Stream

	connected  atomic.Bool // of datagram sockets
	nonBlock   atomic.Bool
	debug      atomic.Bool
	rcvTimeout atomic.Int64 // nanoseconds; 0: none
	sndTimeout atomic.Int64
}

// endpoint is what a Datagram and a Stream have in common.
type endpoint interface {
	Bind(netip.AddrPort) error
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
	Events() stack.Events
	Watch(*stack.Waiter, stack.Events)
	Unwatch(*stack.Waiter)
	TakeError() error
	Close() error
	TTL() uint8
	SetTTL(uint8) error
	TOS() uint8
	SetTOS(uint8)
	ReceiveBuffer() int
	SendBuffer() int
	ReuseAddr() bool
	ReusePort() bool
	SetReusePort(bool) error
}

// newSocket is a socket without a token; one of d and st is nil.
func newSocket(k *Kit, d *stack.Datagram, st *stack.Stream) *socket {
	if st != nil {
		return &socket{kit: k, endpoint: st, st: st}
	}
	return &socket{kit: k, endpoint: d, d: d}
}

// Socket makes a socket and returns its token.
//
// The family is AF_INET. The type is SOCK_DGRAM with protocol 0 or IPPROTO_UDP for UDP, or with IPPROTO_ICMP for ICMP
// messages; or it is SOCK_STREAM with protocol 0 or IPPROTO_TCP for TCP.
//
// On an ICMP socket the caller writes whole ICMP messages, type and checksum fields included, and receives the messages
// that belong to it. Its port is the echo identifier: a message goes out with the identifier that the socket is bound
// to, whatever the caller wrote there, and with its checksum right, as on Linux's ping sockets (net/ipv4/ping.c).
//
// Errors: EAFNOSUPPORT, family is not AF_INET; EPROTONOSUPPORT, type or protocol is unknown; EPROTOTYPE, they do not go
// together; EMFILE, 16 million sockets are open; ENETDOWN, the Kit is closed.
func (k *Kit) Socket(family, typ, protocol int) (Token, error) {
	proto, err := protocolFor(family, typ, protocol)
	if err != nil {
		return -1, err
	}
	var s *socket
	if proto == wire.ProtocolTCP {
		s = newSocket(k, nil, k.stack.NewStream())
	} else {
		s = newSocket(k, k.stack.NewDatagram(proto), nil)
	}
	if err := k.sockets.insert(s); err != nil {
		s.close()
		return -1, err
	}
	return s.token, nil
}

// protocolFor checks the arguments of Socket.
func protocolFor(family, typ, protocol int) (wire.Protocol, error) {
	if family != AF_INET {
		return 0, syscall.EAFNOSUPPORT
	}
	switch protocol {
	case IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP:
	default:
		return 0, syscall.EPROTONOSUPPORT
	}
	switch typ {
	case SOCK_DGRAM:
		switch protocol {
		case IPPROTO_TCP:
			return 0, syscall.EPROTOTYPE
		case IPPROTO_ICMP:
			return wire.ProtocolICMP, nil
		}
		return wire.ProtocolUDP, nil
	case SOCK_STREAM:
		if protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP {
			return 0, syscall.EPROTOTYPE
		}
		return wire.ProtocolTCP, nil
	}
	return 0, syscall.EPROTONOSUPPORT
}

// CloseSocket closes a socket and frees its port. What was sent still goes out, and on a stream then its end; what was received
// and not yet read is gone, and a stream's peer learns so by a reset. Every call that is blocked on the socket answers EINTR,
// Select included. An accept socket frees its place in the acceptance count of its listener. It does not wait, unless SO_LINGER
// has a time and the socket blocks. Errors: EBADF.
func (k *Kit) CloseSocket(t Token) error {
	s := k.sockets.remove(t)
	if s == nil {
		return syscall.EBADF
	}
	s.close()
	return nil
}

// close ends the socket. The one error of its endpoint would be that closing the whole stack has done so before.
func (s *socket) close() {
	if s.st == nil {
		_ = s.d.Close()
		return
	}
	d, on := s.st.Linger()
	on = on && d > 0 && s.st.Connected() && !s.nonBlock.Load()
	_ = s.st.Close()
	if on {
		s.linger(d)
	}
}
