package socketapi

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// rawConn is a syscall.RawConn of what has no descriptor: programs get the kernel's socket that holds the port, or where the
// kernel holds none, as for an owned address, the loopback, or a connection that was accepted, one that is made for the call.
// What is sent and received does not pass either, so that Read and Write are EOPNOTSUPP.
//
// Control shows kit's options on that socket before it calls f, and takes over those that f has changed: SO_KEEPALIVE,
// SO_BROADCAST, SO_RCVBUF, SO_SNDBUF, IP_TOS, IP_TTL, IP_MTU_DISCOVER, TCP_NODELAY, TCP_CORK, TCP_MAXSEG, TCP_KEEPIDLE, TCP_KEEPINTVL,
// TCP_KEEPCNT and TCP_USER_TIMEOUT. Another option stays the kernel socket's alone.
type rawConn struct {
	kernel  syscall.RawConn // nil: the kernel holds none
	kind    int             // SOCK_STREAM or SOCK_DGRAM
	sockets []*socket       // that the options are of
	busy    *sync.Mutex     // one Control at a time, as conns may share a kernel socket
	wrap    func(op string, err error) error
}

// newRawConn is for sockets that are bound. kernel is the kernel's part of them, nil where there is none or that is to be found. own says
// that the port is theirs alone, or else nothing is asked of whoever holds it.
func newRawConn(n *Net, sockets []*socket, kernel syscall.RawConn, own bool, busy *sync.Mutex, wrap func(op string, err error) error) *rawConn {
	r := &rawConn{kernel: kernel, kind: unix.SOCK_DGRAM, sockets: sockets, busy: busy, wrap: wrap}
	proto := wire.ProtocolUDP
	if sockets[0].st != nil {
		r.kind, proto = unix.SOCK_STREAM, wire.ProtocolTCP
	}
	for _, s := range sockets {
		if i := s.iface(); own && i != nil && r.kernel == nil {
			at := s.LocalAddr()
			if c, err := i.SyscallConn(proto, at.Addr(), at.Port()); err == nil {
				r.kernel = c
			}
		}
	}
	return r
}

// iface is the interface that a socket is bound to.
func (s *socket) iface() *stack.Interface {
	if s.st != nil {
		return s.st.Interface()
	}
	return s.d.Interface()
}

// Control implements syscall.RawConn.
func (r *rawConn) Control(f func(fd uintptr)) error {
	r.busy.Lock()
	defer r.busy.Unlock()
	if r.sockets[0].Events()&stack.Closed != 0 {
		return r.wrap("raw-control", net.ErrClosed)
	}
	var changed error
	control := func(fd uintptr) { changed = r.control(int(fd), f) }
	var err error
	if r.kernel != nil {
		err = r.kernel.Control(control)
	} else {
		err = standIn(r.kind, control)
	}
	if err == nil {
		err = changed
	}
	if err != nil {
		return r.wrap("raw-control", err)
	}
	return nil
}

// standIn calls f with a socket of the kernel that is bound to nothing.
func standIn(kind int, f func(fd uintptr)) error {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	f(uintptr(fd))
	return nil
}

// mirrored are the options that Control takes over.
var mirrored = [...]struct{ level, name int }{
	{SOL_SOCKET, SO_KEEPALIVE}, {SOL_SOCKET, SO_BROADCAST}, {SOL_SOCKET, SO_RCVBUF}, {SOL_SOCKET, SO_SNDBUF},
	{IPPROTO_IP, IP_TOS}, {IPPROTO_IP, IP_TTL}, {IPPROTO_IP, IP_MTU_DISCOVER},
	{IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_CORK}, {IPPROTO_TCP, TCP_MAXSEG}, {IPPROTO_TCP, TCP_KEEPIDLE},
	{IPPROTO_TCP, TCP_KEEPINTVL}, {IPPROTO_TCP, TCP_KEEPCNT}, {IPPROTO_TCP, TCP_USER_TIMEOUT},
}

// control calls f between the two halves of the mirror.
func (r *rawConn) control(fd int, f func(fd uintptr)) error {
	var was [len(mirrored)]int
	for i, o := range mirrored {
		was[i] = r.show(fd, o.level, o.name)
	}
	f(uintptr(fd))
	var errs []error
	for i, o := range mirrored {
		if now, err := unix.GetsockoptInt(fd, o.level, o.name); err == nil && now != was[i] {
			errs = append(errs, r.takeOver(o.level, o.name, now))
		}
	}
	return errors.Join(errs...)
}

// show sets an option of the kernel's socket to what it is in kit, and returns what it is then: the kernel has its own limits.
func (r *rawConn) show(fd, level, name int) int {
	if o := r.sockets[0].option(level, name); o != nil {
		v := int(o.get(r.sockets[0]))
		if force, ok := forced[name]; !ok || level != SOL_SOCKET || unix.SetsockoptInt(fd, level, force, v) != nil {
			_ = unix.SetsockoptInt(fd, level, name, v)
		}
	}
	v, _ := unix.GetsockoptInt(fd, level, name)
	return v
}

// forced are the options by which root sets buffers beyond the kernel's limits.
var forced = map[int]int{SO_RCVBUF: unix.SO_RCVBUFFORCE, SO_SNDBUF: unix.SO_SNDBUFFORCE}

// takeOver sets an option in kit to what it has become in the kernel.
func (r *rawConn) takeOver(level, name, v int) error {
	if _, isBuffer := forced[name]; isBuffer && level == SOL_SOCKET {
		v /= 2 // the kernel says how much memory it takes with its own share (sock_setsockopt in net/core/sock.c)
	}
	for _, s := range r.sockets {
		o := s.option(level, name)
		if o == nil {
			return nil
		}
		if err := o.set(s, int64(v)); err != nil {
			return callError("setsockopt", err)
		}
	}
	return nil
}

// Read implements syscall.RawConn: it is EOPNOTSUPP.
func (r *rawConn) Read(func(fd uintptr) bool) error { return r.wrap("raw-read", syscall.EOPNOTSUPP) }

// Write implements syscall.RawConn: it is EOPNOTSUPP.
func (r *rawConn) Write(func(fd uintptr) bool) error {
	return r.wrap("raw-write", syscall.EOPNOTSUPP)
}

// optionsOf is a stream or a datagram socket of n as the table of options takes it.
func (n *Net) optionsOf(d *stack.Datagram, st *stack.Stream) *socket {
	return newSocket(&Kit{stack: n.stack}, d, st)
}

var _ syscall.RawConn = (*rawConn)(nil)
