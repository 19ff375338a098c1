package host

import (
	"errors"
	"io"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/clock"
)

// socket is what a descriptor stands for.
type socket struct {
	st         *stack.Stream
	flags      int  // O_NONBLOCK and its like, as fcntl tells them
	connecting bool // connect was called and its end not told
}

func (s *socket) blocks(flags int) bool {
	return s.flags&unix.O_NONBLOCK == 0 && flags&unix.MSG_DONTWAIT == 0
}

// errnoOf is -errno of an error of the stack, 0 for none.
func errnoOf(err error) int {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return -int(errno)
	}
	return -int(unix.EIO)
}

// with calls f with the socket of a descriptor, or returns -EBADF.
func (h *Host) with(fd int, f func(*socket) int) int {
	s, ok := h.sockets[fd]
	if !ok {
		return -int(unix.EBADF)
	}
	return f(s)
}

// prompt is with for calls that never wait: the stack has done all before, and what f asks for behind it.
func (h *Host) prompt(fd int, f func(*socket) int) int {
	return h.with(fd, func(s *socket) int {
		h.step()
		r := f(s)
		h.step()
		return r
	})
}

// Owns reports whether a descriptor is a socket of the host.
func (h *Host) Owns(fd int) bool {
	_, ok := h.sockets[fd]
	return ok
}

// descriptor makes one for a stream. It is a real one, of /dev/null, for programs that look or close behind the host's back.
func (h *Host) descriptor(st *stack.Stream, flags int) int {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return errnoOf(err)
	}
	h.sockets[fd] = &socket{st: st, flags: unix.O_RDWR | flags&unix.O_NONBLOCK}
	return fd
}

// Socket is socket(2), for TCP over IPv4 alone.
func (h *Host) Socket(domain, kind, proto int) int {
	switch {
	case domain != unix.AF_INET:
		return -int(unix.EAFNOSUPPORT)
	case kind&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != unix.SOCK_STREAM, proto != 0 && proto != unix.IPPROTO_TCP:
		return -int(unix.EPROTONOSUPPORT)
	}
	if err := h.boot(); err != nil {
		h.cfg.Logf("%v", err)
		return -int(unix.EINVAL)
	}
	return h.descriptor(h.stack.NewStream(), kind)
}

// Bind is bind(2).
func (h *Host) Bind(fd int, addr netip.AddrPort) int {
	return h.prompt(fd, func(s *socket) int { return errnoOf(s.st.Bind(addr)) })
}

// Listen is listen(2). The kernel lets one connection more wait than it is told (sk_acceptq_is_full, include/net/sock.h).
func (h *Host) Listen(fd, backlog int) int {
	return h.prompt(fd, func(s *socket) int {
		return errnoOf(s.st.Listen(stack.ListenConfig{Backlog: min(max(backlog, 0), 4096) + 1}))
	})
}

// Accept is accept(2). Where it answers at once, or once it has ended, Peer tells whom it accepted.
func (h *Host) Accept(fd int) int {
	return h.with(fd, func(s *socket) int {
		return h.wait(s.blocks(0), func() (int, bool) {
			st, err := s.st.Accept()
			if err != nil {
				return errnoOf(err), !errors.Is(err, unix.EAGAIN)
			}
			return h.descriptor(st, 0), true
		})
	})
}

// Peer is the other end of a socket, the zero AddrPort where it has none.
func (h *Host) Peer(fd int) (peer netip.AddrPort) {
	if s, ok := h.sockets[fd]; ok {
		peer = s.st.RemoteAddr()
	}
	return peer
}

// Connect is connect(2).
func (h *Host) Connect(fd int, peer netip.AddrPort) int {
	return h.with(fd, func(s *socket) int {
		if !s.connecting {
			err := s.st.Connect(peer)
			if !errors.Is(err, unix.EINPROGRESS) {
				return errnoOf(err)
			}
			s.connecting = true
		} else if !s.blocks(0) {
			h.step()
			if r, done := h.connected(s); done {
				return r
			}
			return -int(unix.EALREADY)
		}
		return h.wait(s.blocks(0), func() (int, bool) { return h.connected(s) })
	})
}

// connected is how an attempt to connect ended.
func (h *Host) connected(s *socket) (result int, done bool) {
	if err := s.st.TakeError(); err != nil {
		s.connecting = false
		return errnoOf(err), true
	}
	if s.st.RemoteAddr().IsValid() && s.st.Events()&stack.Writable == 0 {
		return -int(unix.EINPROGRESS), false
	}
	s.connecting = false
	return 0, true
}

// Read is recv(2) into several buffers.
func (h *Host) Read(fd int, bufs [][]byte, flags int) int {
	const known = unix.MSG_DONTWAIT | unix.MSG_WAITALL | unix.MSG_TRUNC | unix.MSG_NOSIGNAL
	return h.with(fd, func(s *socket) int {
		switch {
		case flags&unix.MSG_ERRQUEUE != 0:
			return -int(unix.EAGAIN) // nothing is ever there
		case flags&^known != 0:
			return -int(unix.EOPNOTSUPP)
		}
		least := 1
		if flags&unix.MSG_WAITALL != 0 {
			least = length(bufs)
		}
		got := 0
		return h.wait(s.blocks(flags), func() (int, bool) {
			n, err := each(bufs, got, s.st.Read)
			got += n
			switch {
			case got > 0:
				return got, got >= least || err != nil && !errors.Is(err, unix.EAGAIN)
			case errors.Is(err, io.EOF):
				return 0, true
			case err != nil:
				return errnoOf(err), !errors.Is(err, unix.EAGAIN)
			}
			return 0, true
		})
	})
}

// Write is send(2) of several buffers.
func (h *Host) Write(fd int, bufs [][]byte, flags int) int {
	const known = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL | unix.MSG_MORE
	return h.with(fd, func(s *socket) int {
		if flags&^known != 0 {
			return -int(unix.EOPNOTSUPP)
		}
		write := s.st.Write
		if flags&unix.MSG_MORE != 0 {
			write = s.st.WriteMore
		}
		most, put := length(bufs), 0
		return h.wait(s.blocks(flags), func() (int, bool) {
			n, err := each(bufs, put, write)
			put += n
			switch {
			case put == most && err == nil:
				return put, true
			case err == nil, errors.Is(err, unix.EAGAIN):
				if put > 0 {
					return put, false
				}
				return -int(unix.EAGAIN), false
			case put > 0:
				return put, true
			}
			return errnoOf(err), true
		})
	})
}

func length(bufs [][]byte) (n int) {
	for _, b := range bufs {
		n += len(b)
	}
	return n
}

// each calls f with what lies behind the first skip bytes of bufs, one buffer after the other, until one is not done whole.
func each(bufs [][]byte, skip int, f func([]byte) (int, error)) (done int, err error) {
	if length(bufs) == 0 {
		return f(nil)
	}
	for _, b := range bufs {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		n, err := f(b[skip:])
		done += n
		if err != nil || n < len(b)-skip {
			return done, err
		}
		skip = 0
	}
	return done, nil
}

// Close is close(2).
func (h *Host) Close(fd int) int {
	return h.prompt(fd, func(s *socket) int {
		delete(h.sockets, fd)
		_ = unix.Close(fd) // it is ours and of /dev/null
		return errnoOf(s.st.Close())
	})
}

// Shutdown is shutdown(2).
func (h *Host) Shutdown(fd, how int) int {
	return h.prompt(fd, func(s *socket) int {
		switch how {
		case unix.SHUT_RD:
			how = stack.ShutRead
		case unix.SHUT_WR:
			how = stack.ShutWrite
		case unix.SHUT_RDWR:
			how = stack.ShutRead | stack.ShutWrite
		default:
			return -int(unix.EINVAL)
		}
		return errnoOf(s.st.Shutdown(how))
	})
}

// Fcntl is fcntl(2): F_GETFL and F_SETFL.
func (h *Host) Fcntl(fd, command, argument int) int {
	return h.prompt(fd, func(s *socket) int {
		switch command {
		case unix.F_GETFL:
			return s.flags
		case unix.F_SETFL:
			s.flags = s.flags&unix.O_ACCMODE | argument&^unix.O_ACCMODE
			return 0
		}
		return -int(unix.EINVAL)
	})
}

// Ioctl is ioctl(2) of tcp(7): SIOCINQ and SIOCOUTQ, whose number comes back as value.
func (h *Host) Ioctl(fd int, request uint) (value, result int) {
	result = h.prompt(fd, func(s *socket) int {
		switch request {
		case unix.SIOCINQ:
			value = h.queued(s).ReadQueue
		case unix.SIOCOUTQ:
			value = h.queued(s).WriteQueue
		default:
			return -int(unix.ENOTTY)
		}
		return 0
	})
	return value, result
}

// queued is the socket's line in the list of all, which says how much waits in it.
func (h *Host) queued(s *socket) stack.SocketInfo {
	for _, i := range h.stack.Sockets() {
		if i.Local == s.st.LocalAddr() && i.Remote == s.st.RemoteAddr() {
			return i
		}
	}
	return stack.SocketInfo{}
}

// Poll is poll(2) of n descriptors: ask tells the descriptor and the events wanted, and tell takes what has happened.
func (h *Host) Poll(n int, ask func(i int) (fd int, events int16), tell func(i int, revents int16), timeout int) int {
	end := clock.Never
	if timeout > 0 {
		end = h.now.Add(milliseconds(timeout))
	}
	return h.waitUntil(end, timeout != 0, func() (int, bool) {
		ready := 0
		for i := range n {
			revents := int16(0)
			if fd, events := ask(i); fd >= 0 {
				if s, ok := h.sockets[fd]; ok {
					revents = s.happened() & (events | unix.POLLERR | unix.POLLHUP)
				} else {
					revents = unix.POLLNVAL
				}
			}
			tell(i, revents)
			if revents != 0 {
				ready++
			}
		}
		return ready, ready > 0 || end != clock.Never && !h.now.Before(end)
	})
}

// What x/sys/unix leaves out of <poll.h>.
const (
	pollRdNorm = 0x40
	pollWrNorm = 0x100
)

// happened is tcp_poll's answer (net/ipv4/tcp.c).
func (s *socket) happened() (revents int16) {
	ev := s.st.Events()
	if ev&stack.Readable != 0 {
		revents |= unix.POLLIN | pollRdNorm
	}
	if ev&stack.Writable != 0 {
		revents |= unix.POLLOUT | pollWrNorm
	}
	if ev&stack.Errored != 0 {
		revents |= unix.POLLERR
	}
	return revents
}
