package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack/wire"
)

// A share is a socket of this process that serves a port of the kernel's beside kit, on one address or on all. It holds the port for
// kit as well, since two sockets of the kernel can't both have it.
type share struct {
	at       portKey  // its addr is the zero Addr for every address
	socket   *os.File // a descriptor of our own
	users    int      // ports that it holds
	released bool
}

func (s *share) has(k portKey) bool {
	return s.at.proto == k.proto && s.at.port == k.port && (!s.at.addr.IsValid() || s.at.addr == k.addr)
}

// Share calls bind, which binds a kernel socket of this process, fd, to at, and for TCP makes it listen. Ports that kit holds there
// are no obstacle to that, and from then on the socket also stands for those that are to be reserved: nobody else gets them,
// kit does. An address 0.0.0.0 or [::] is all of IPv4's. The port is not 0. After release, when fd is to be closed as well, what
// it still holds for kit stays held. Errors are bind's, and EBADF after Close.
func (p *Ports) Share(proto wire.Protocol, at netip.AddrPort, fd int, bind func() error) (release func(), err error) {
	s := &share{at: portKey{proto, at.Addr().Unmap(), at.Port()}}
	if at.Addr().IsUnspecified() {
		s.at.addr = netip.Addr{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("share %s: ports are no longer given out: %w", s.at, unix.EBADF)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", s.at, err)
	}
	s.socket = os.NewFile(uintptr(own), s.at.String())
	if err := p.beside(s, bind); err != nil {
		s.socket.Close()
		return nil, err
	}
	p.shares = append(p.shares, s)
	return sync.OnceFunc(func() { p.unshare(s) }), nil
}

// beside calls bind while the kernel lets s share a port with what kit holds. That takes SO_REUSEADDR on all of them, for so long
// and no longer: other programs are not to share it (inet_csk_get_port in net/ipv4/inet_connection_sock.c and udp_lib_get_port in
// net/ipv4/udp.c).
func (p *Ports) beside(s *share, bind func() error) (err error) {
	var held []*os.File
	for key, h := range p.held {
		if s.has(key) && h.socket != nil {
			held = append(held, h.socket)
		}
	}
	for _, o := range p.shares {
		if o.released && o.at.proto == s.at.proto && o.at.port == s.at.port {
			held = append(held, o.socket)
		}
	}
	if len(held) == 0 {
		return bind()
	}
	was, err := reuseAddr(s.socket, 1)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range held {
			_, e := reuseAddr(f, 0)
			err = errors.Join(err, e)
		}
		_, e := reuseAddr(s.socket, was)
		err = errors.Join(err, e)
	}()
	for _, f := range held {
		if _, err := reuseAddr(f, 1); err != nil {
			return err
		}
	}
	return bind()
}

// reuseAddr sets SO_REUSEADDR and returns what it was.
func reuseAddr(f *os.File, v int) (was int, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = c.Control(func(fd uintptr) {
		if was, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR); failed == nil {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, v)
		}
	})
	return was, errors.Join(err, failed)
}

// shareOf is the share that holds a port already, nil where there is none.
func (p *Ports) shareOf(k portKey) *share {
	for _, s := range p.shares {
		if s.has(k) {
			return s
		}
	}
	return nil
}

// unshare ends a share. Where connections of kit still have its ports the socket goes on holding them, and does not listen any more:
// shut down, it keeps a port that it was bound to by number (tcp_set_state in net/ipv4/tcp.c).
func (p *Ports) unshare(s *share) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.released = true
	if s.users > 0 {
		c, err := s.socket.SyscallConn()
		if err == nil {
			err = errors.Join(err, c.Control(func(fd uintptr) {
				if s.at.proto == wire.ProtocolTCP {
					err = unix.Shutdown(int(fd), unix.SHUT_RD)
				} else { // what still comes is read by nobody
					prog := unix.SockFprog{Len: uint16(len(dropAll)), Filter: &dropAll[0]}
					err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
				}
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
			}))
		}
		if err != nil {
			p.log.Warn("the kernel still listens at a port", "port", s.at.String(), "error", err)
		}
	}
	p.forget(s)
}

// forget closes a share that nobody needs.
func (p *Ports) forget(s *share) {
	if !s.released || s.users > 0 {
		return
	}
	s.socket.Close()
	p.shares = slices.DeleteFunc(p.shares, func(o *share) bool { return o == s })
}
