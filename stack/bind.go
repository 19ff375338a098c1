package stack

import (
	"net/netip"
	"sync/atomic"
	"syscall"

	"kitnet.dev/kit/stack/wire"
)

// Binding: who has which port of which address. The stack's own register comes first, then whoever else has a say in it
// (InterfaceConfig.Ports: in shared mode the kernel).

// The range of ports that the stack chooses from, RFC 6335 §6.
const (
	firstEphemeral = 49152
	lastEphemeral  = 65535
)

type bindKey struct {
	proto wire.Protocol
	addr  wire.Addr
	port  uint16
}

// bindEntry counts the sockets that share a port (SO_REUSEPORT).
type bindEntry struct {
	users int // sockets
	reuse bool
	conns atomic.Int32 // connections that hold it beside sockets: those that a listening socket took, and those of closed sockets
}

// Bind gives the socket a local address and port, or for ICMP an identifier. Port 0 picks a free one. The address 0.0.0.0
// takes the first address on which the port is free, those of cards before the loopback's, so that as many sockets as there
// are addresses can be bound to it. Errors: EINVAL already bound; EADDRINUSE; EADDRNOTAVAIL; EACCES; EAFNOSUPPORT; EBADF.
func (d *Datagram) Bind(addr netip.AddrPort) error {
	a, ok := wire.AddrFrom(addr.Addr())
	if !ok {
		return syscall.EAFNOSUPPORT
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bind(a, addr.Port())
}

func (d *Datagram) bind(a wire.Addr, port uint16) error {
	if d.closed.Load() {
		return syscall.EBADF
	}
	if d.bound.Load() != nil {
		return syscall.EINVAL
	}
	return d.s.bindAnywhere(a, func(i *Interface, a wire.Addr) error { return d.bindOn(i, a, port) })
}

// bindAnywhere calls bind for the address a, or where that is 0 for one address of ours after the other until one is not
// taken, those of cards before the loopback's.
func (s *Stack) bindAnywhere(a wire.Addr, bind func(*Interface, wire.Addr) error) error {
	if a != 0 {
		i := s.ownerOf(a)
		if i == nil {
			return syscall.EADDRNOTAVAIL
		}
		return bind(i, a)
	}
	err := error(syscall.EADDRNOTAVAIL)
	for _, i := range s.ifaces() {
		for _, p := range i.prefixes() {
			if err = bind(i, p.Addr); err != syscall.EADDRINUSE {
				return err
			}
		}
	}
	return err
}

// bindFor binds an unbound socket for sending to dst: to the address that the route prefers, on any free port.
func (d *Datagram) bindFor(dst wire.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bound.Load() != nil {
		return nil // another goroutine was first
	}
	a, err := d.s.sourceTo(dst)
	if err != nil {
		return err
	}
	return d.bind(a, 0)
}

func (d *Datagram) bindOn(i *Interface, a wire.Addr, port uint16) error {
	port, _, err := d.s.takePort(i, bindKey{d.proto, a, port}, d.reuse, false)
	if err != nil {
		return err
	}
	b := &binding{iface: i, local: a, port: port}
	d.bound.Store(b)
	for _, e := range i.engines {
		h := d.newHalf(e, b)
		e.do(func() { e.attach(h) })
	}
	return nil
}

// takePort enters a port in the register, and reserves it outside where there is an outside.
// A port that only connections hold can be had with again (SO_REUSEADDR).
func (s *Stack) takePort(i *Interface, k bindKey, reuse, again bool) (uint16, *bindEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, nil, syscall.EBADF
	}
	if k.port != 0 {
		if b := s.binds[k]; b != nil {
			if b.users == 0 && again {
				b.reuse = reuse
			} else if b.users == 0 || !reuse || !b.reuse {
				return 0, nil, syscall.EADDRINUSE
			}
			b.users++
			return k.port, b, nil
		}
	}
	if i.ports != nil {
		port, err := i.ports.Reserve(k.proto, k.addr.Netip(), k.port)
		if err != nil {
			return 0, nil, errnoOf(err)
		}
		k.port = port
	} else if k.port == 0 && !s.pickPort(&k) {
		return 0, nil, syscall.EADDRINUSE
	}
	b := &bindEntry{users: 1, reuse: reuse}
	s.binds[k] = b
	return k.port, b, nil
}

// pickPort finds a free port beginning at a random one (RFC 6056 §3.3.1).
func (s *Stack) pickPort(k *bindKey) bool {
	const n = lastEphemeral - firstEphemeral + 1
	start := s.rand.IntN(n)
	for j := range n {
		k.port = uint16(firstEphemeral + (start+j)%n)
		if s.binds[*k] == nil {
			return true
		}
	}
	return false
}

func (s *Stack) releasePort(i *Interface, k bindKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.binds[k]; b != nil {
		b.users--
		s.releaseUnused(i, k, b)
	}
}

// releaseUnused gives a port back that neither a socket nor a connection holds.
func (s *Stack) releaseUnused(i *Interface, k bindKey, b *bindEntry) {
	if b.users > 0 || b.conns.Load() > 0 {
		return
	}
	delete(s.binds, k)
	if i.ports != nil {
		i.ports.Release(k.proto, k.addr.Netip(), k.port)
	}
}

// errnoOf is the errno inside an error from outside the stack, EIO where there is none.
func errnoOf(err error) error {
	for e := err; e != nil; {
		if errno, ok := e.(syscall.Errno); ok {
			return errno
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			break
		}
		e = u.Unwrap()
	}
	return syscall.EIO
}

// Connect fixes the peer: Write may leave the destination out, Read takes only the peer's messages, and errors that ICMP
// tells about it are the socket's. An unbound socket is bound to the address that the route prefers. There is no
// disconnecting. Errors: EISCONN; ENETUNREACH; EINVAL port 0; EAFNOSUPPORT; EADDRNOTAVAIL; EBADF.
func (d *Datagram) Connect(peer netip.AddrPort) error {
	dst, ok := wire.AddrFrom(peer.Addr())
	if !ok {
		return syscall.EAFNOSUPPORT
	}
	if dst == 0 {
		dst = wire.AddrLoopback
	}
	if d.proto == wire.ProtocolUDP && peer.Port() == 0 {
		return syscall.EINVAL
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.bound.Load()
	if b != nil && b.connected {
		return syscall.EISCONN
	}
	a, err := d.s.sourceTo(dst)
	if err != nil {
		return err
	}
	if d.noBroadcast.Load() && d.s.isBroadcast(dst) {
		return syscall.EACCES
	}
	if b == nil {
		if err := d.bind(a, 0); err != nil {
			return err
		}
		b = d.bound.Load()
	}
	c := *b
	c.connected, c.remote, c.rport = true, dst, peer.Port()
	if d.proto == wire.ProtocolICMP {
		c.rport = 0
	}
	d.bound.Store(&c)
	for i := range d.halves {
		if h := d.halves[i].Load(); h != nil {
			h.e.do(func() { h.remote, h.remotePort, h.connected = c.remote, c.rport, true })
		}
	}
	return nil
}

// Close ends the socket. What Write took still goes out; whoever waits is told. A second Close is EBADF.
func (d *Datagram) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Swap(true) {
		return syscall.EBADF
	}
	b := d.bound.Load()
	for i := range d.halves {
		h := d.halves[i].Load()
		if h == nil {
			continue
		}
		h.e.do(func() {
			if h.e.iface == b.iface {
				h.e.detach(h)
			}
			h.handler = nil
			h.e.wheel.stop(&h.idle)
		})
	}
	if b != nil {
		d.s.releasePort(b.iface, bindKey{d.proto, b.local, b.port})
	}
	d.s.mu.Lock()
	delete(d.s.sockets, d)
	d.s.mu.Unlock()
	d.waiters.notify(Closed | Readable | Writable | Errored)
	return nil
}
