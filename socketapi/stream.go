package socketapi

import (
	"net/netip"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/tcp"
)

// Listen makes a bound stream take connections. n is the acceptance count: how many clients may be held at a time, those that
// wait for Accept and those that were accepted and whose sockets are not closed. One more is refused at once, and sees
// ECONNREFUSED; CloseSocket on an accept socket frees its place. Calling Listen again changes n.
//
// Errors: EBADF; EINVAL, the socket is not bound, is connected, is no stream, or n is not positive; EINTR.
func (k *Kit) Listen(t Token, n int) error {
	s, err := k.find(t)
	if err != nil {
		return err
	}
	if s.st == nil || n <= 0 {
		return syscall.EINVAL
	}
	return s.overtaken(s.st.Listen(stack.ListenConfig{Count: n}))
}

// Accept waits for a client of a listening stream and returns the token of its accept socket, which is bound and connected,
// and the client's address. The caller owns the token and must close it.
//
// Errors: EBADF; EINVAL, the socket does not listen or is no stream; EWOULDBLOCK, it is non-blocking and no client waits, or none
// came within SO_RCVTIMEO; EINTR, it was closed meanwhile; EMFILE and ENETDOWN as for Socket.
func (k *Kit) Accept(t Token) (Token, netip.AddrPort, error) {
	s, err := k.find(t)
	if err != nil {
		return -1, netip.AddrPort{}, err
	}
	if s.st == nil {
		return -1, netip.AddrPort{}, syscall.EINVAL
	}
	c, err := s.st.Accept()
	if err == syscall.EAGAIN && !s.nonBlock.Load() {
		c, err = s.acceptBlocked()
	}
	if err != nil {
		return -1, netip.AddrPort{}, s.overtaken(err)
	}
	a := newSocket(k, nil, c)
	if err := k.sockets.insert(a); err != nil {
		_ = c.Abort() // nobody will ever have it
		return -1, netip.AddrPort{}, err
	}
	return a.token, c.RemoteAddr(), nil
}

func (s *socket) acceptBlocked() (*stack.Stream, error) {
	sl := s.kit.sleeper(time.Duration(s.rcvTimeout.Load()))
	defer s.kit.release(sl)
	s.st.Watch(sl.waiter, stack.Readable)
	defer s.st.Unwatch(sl.waiter)
	for {
		c, err := s.st.Accept()
		if err != syscall.EAGAIN {
			return c, err
		}
		if !sl.sleep(nil) {
			return nil, syscall.EWOULDBLOCK
		}
	}
}

// connectStream is Connect of a stream: it begins the handshake, and waits for its end unless the socket is non-blocking.
func (s *socket) connectStream(addr netip.AddrPort) error {
	switch err := s.st.Connect(addr); err {
	case syscall.EINPROGRESS, syscall.EALREADY:
	default:
		return err
	}
	if s.nonBlock.Load() {
		return syscall.EWOULDBLOCK
	}
	sl := s.kit.sleeper(time.Duration(s.sndTimeout.Load()))
	defer s.kit.release(sl)
	s.st.Watch(sl.waiter, stack.Writable)
	defer s.st.Unwatch(sl.waiter)
	for {
		if over, err := connected(s.st); over {
			return err
		}
		if !sl.sleep(nil) {
			return syscall.EWOULDBLOCK
		}
	}
}

// connected reports whether the handshake that Connect began is over, and how it ended. ECONNABORTED: it failed, and another call
// was told why.
func connected(st *stack.Stream) (over bool, err error) {
	// In this order: an error is there before the peer is forgotten, and a connection that fails after the first look is one that
	// still connects by that look.
	ev := st.Events()
	connects := st.RemoteAddr().IsValid()
	if ev&stack.Closed != 0 {
		return true, syscall.EBADF
	}
	if err := st.TakeError(); err != nil {
		return true, err
	}
	if !connects {
		return true, syscall.ECONNABORTED
	}
	return ev != 0 && ev&stack.Errored == 0, nil
}

// sendStream waits until all of b is in the send buffer. What was taken before an error is what it returns, and the error comes
// with the next call.
func (s *socket) sendStream(b []byte, flags int) (int, error) {
	if flags&^(MSG_DONTWAIT|MSG_MORE) != 0 {
		return 0, syscall.EOPNOTSUPP
	}
	n, err := s.put(b, flags)
	if err == nil && n == len(b) {
		return n, nil
	}
	if err == nil || err == syscall.EAGAIN {
		if flags&MSG_DONTWAIT != 0 || s.nonBlock.Load() {
			if n > 0 {
				return n, nil
			}
			return 0, syscall.EWOULDBLOCK
		}
		n, err = s.sendBlocked(b, n, flags)
	}
	if n > 0 {
		switch errno, _ := err.(syscall.Errno); errno {
		case 0, syscall.EWOULDBLOCK, syscall.EPIPE, syscall.EBADF: // which the next call finds by itself
		default:
			s.st.PutError(errno)
		}
		return n, nil
	}
	return 0, s.overtaken(err)
}

// put gives the stream what has room.
func (s *socket) put(b []byte, flags int) (int, error) {
	if flags&MSG_MORE != 0 {
		return s.st.WriteMore(b)
	}
	return s.st.Write(b)
}

func (s *socket) sendBlocked(b []byte, n, flags int) (int, error) {
	sl := s.kit.sleeper(time.Duration(s.sndTimeout.Load()))
	defer s.kit.release(sl)
	s.st.Watch(sl.waiter, stack.Writable)
	defer s.st.Unwatch(sl.waiter)
	for {
		m, err := s.put(b[n:], flags)
		n += m
		switch {
		case err == nil && n == len(b):
			return n, nil
		case err != nil && err != syscall.EAGAIN:
			return n, err
		case err == syscall.EAGAIN && !sl.sleep(nil):
			return n, syscall.EWOULDBLOCK
		}
	}
}

// recvStream waits until there is a byte, or the end.
func (s *socket) recvStream(b []byte, flags int) (int, error) {
	if flags&^MSG_DONTWAIT != 0 {
		return 0, syscall.EOPNOTSUPP
	}
	n, err := s.st.Read(b)
	if err == syscall.EAGAIN {
		if flags&MSG_DONTWAIT != 0 || s.nonBlock.Load() {
			return 0, syscall.EWOULDBLOCK
		}
		n, err = s.recvBlocked(b)
	}
	return n, s.overtaken(err)
}

func (s *socket) recvBlocked(b []byte) (int, error) {
	sl := s.kit.sleeper(time.Duration(s.rcvTimeout.Load()))
	defer s.kit.release(sl)
	s.st.Watch(sl.waiter, stack.Readable)
	defer s.st.Unwatch(sl.waiter)
	for {
		n, err := s.st.Read(b)
		if err != syscall.EAGAIN {
			return n, err
		}
		if !sl.sleep(nil) {
			return 0, syscall.EWOULDBLOCK
		}
	}
}

// The ways of Shutdown.
const (
	SHUT_RD   = 0
	SHUT_WR   = 1
	SHUT_RDWR = 2
)

// Shutdown ends one direction of a connected stream, or both: SHUT_WR sends what was written and then the end of the stream;
// after SHUT_RD Recv returns 0 once what has arrived is read. The socket stays to be closed.
//
// Errors: EBADF; ENOTCONN; EINVAL, how is none of the three; EOPNOTSUPP, the socket is no stream; EINTR.
func (k *Kit) Shutdown(t Token, how int) error {
	s, err := k.find(t)
	if err != nil {
		return err
	}
	if s.st == nil {
		return syscall.EOPNOTSUPP
	}
	ways := [...]int{SHUT_RD: stack.ShutRead, SHUT_WR: stack.ShutWrite, SHUT_RDWR: stack.ShutRead | stack.ShutWrite}
	if how < 0 || how >= len(ways) {
		return syscall.EINVAL
	}
	return s.overtaken(s.st.Shutdown(ways[how]))
}

// TCPInfo is what the state machine knows of a stream's connection. Errors: EBADF; ENOTCONN; EOPNOTSUPP, the socket is no stream.
func (k *Kit) TCPInfo(t Token) (tcp.Info, error) {
	s, err := k.find(t)
	if err != nil {
		return tcp.Info{}, err
	}
	if s.st == nil {
		return tcp.Info{}, syscall.EOPNOTSUPP
	}
	i, ok := s.st.Info()
	if !ok {
		return i, syscall.ENOTCONN
	}
	return i, nil
}

// linger is the rest of CloseSocket where SO_LINGER has a time: it waits until the peer has all, at most for d, and then resets
// what is left.
func (s *socket) linger(d time.Duration) {
	sl := s.kit.sleeper(d)
	defer s.kit.release(sl)
	s.st.Watch(sl.waiter, stack.Writable)
	defer s.st.Unwatch(sl.waiter)
	for s.st.Unacknowledged() > 0 && s.st.Connected() {
		if !sl.sleep(nil) {
			_ = s.st.Abort() // its only error is that it is closed already, which it is
			return
		}
	}
}
