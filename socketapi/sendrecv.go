package socketapi

import (
	"net/netip"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
)

// Send sends buf to the peer of a connected socket, as one message or, on a stream, as the next bytes, and returns its length. It
// waits for room in the send buffer, at most for SO_SNDTIMEO, unless the socket is non-blocking or flags has MSG_DONTWAIT; a
// stream that had room for a part returns how many bytes that is.
//
// Errors: EBADF; ENOTCONN; EPIPE, a stream was shut down for sending or is gone; ECONNRESET and ETIMEDOUT, once, why it is;
// EMSGSIZE, buf is longer than a packet can be; EWOULDBLOCK, no room, or not in time; EINTR, the socket was closed meanwhile;
// ENETUNREACH and EHOSTUNREACH, no route leads there or one refuses; EOPNOTSUPP, a flag that Send does not take; and, once, what
// came back for an earlier message: ECONNREFUSED, EHOSTUNREACH, ENOBUFS (the interface was busy) and their like.
func (k *Kit) Send(t Token, buf []byte, flags int) (int, error) {
	s, err := k.find(t)
	if err != nil {
		return 0, err
	}
	if s.st != nil {
		return s.sendStream(buf, flags)
	}
	if !s.connected.Load() {
		return 0, syscall.ENOTCONN
	}
	return s.sendOne(stack.Message{Buf: buf}, flags)
}

// SendTo sends buf as one message to addr, on a connected socket too, and returns its length. It blocks as Send does. To
// INADDR_BROADCAST the message goes out on every interface. A socket that is not bound is bound first, by the route to
// addr.
//
// Errors: EBADF; EMSGSIZE; EWOULDBLOCK; EINTR; EADDRNOTAVAIL, there is no interface to send on; ENETUNREACH, no route
// leads there; EACCES, a broadcast after SO_BROADCAST was switched off; EDESTADDRREQ, addr is zero; EAFNOSUPPORT, addr is
// not IPv4; EINVAL, port 0, anything but an echo request on an ICMP socket, or a machine beyond this one from a loopback
// address; EOPNOTSUPP, a flag that SendTo does not take; what binding fails with; and, once, what came back for an
// earlier message.
func (k *Kit) SendTo(t Token, buf []byte, flags int, addr netip.AddrPort) (int, error) {
	s, err := k.find(t)
	if err != nil {
		return 0, err
	}
	if s.st != nil {
		return 0, syscall.EOPNOTSUPP
	}
	if addr, err = peer(addr); err != nil {
		return 0, err
	}
	return s.sendOne(stack.Message{Buf: buf, Addr: addr}, flags)
}

func (s *socket) sendOne(m stack.Message, flags int) (int, error) {
	ms := [1]stack.Message{m}
	if _, err := s.write(ms[:], flags); err != nil {
		return 0, err
	}
	return len(m.Buf), nil
}

// Recv receives one message of a connected socket into buf and returns its length, which may be 0. What does not fit is lost;
// with MSG_TRUNC in flags the length is that of the whole message, so that it may be more than len(buf). Recv waits for a
// message, at most for SO_RCVTIMEO, unless the socket is non-blocking or flags has MSG_DONTWAIT. Many goroutines may wait on one
// socket: each message goes to one of them. On a stream it receives the bytes that are there, waits where there are none, and
// returns 0 at the end of the stream.
//
// Errors: EBADF; ENOTCONN; ECONNRESET and ETIMEDOUT, once, where a stream ended so; EWOULDBLOCK, no message, or not in time;
// EINTR, the socket was closed meanwhile; EOPNOTSUPP, a flag that Recv does not take; and, once, what came back for an earlier
// message: ECONNREFUSED, EHOSTUNREACH and their like.
func (k *Kit) Recv(t Token, buf []byte, flags int) (int, error) {
	s, err := k.find(t)
	if err != nil {
		return 0, err
	}
	if s.st != nil {
		return s.recvStream(buf, flags)
	}
	if !s.connected.Load() {
		return 0, syscall.ENOTCONN
	}
	n, _, err := s.recvOne(buf, flags)
	return n, err
}

// RecvFrom receives one message, as Recv does, and returns its sender too. The socket need not be connected. An unbound
// socket can receive nothing before it is bound, and RecvFrom waits for that too. Errors are Recv's without ENOTCONN, and
// EOPNOTSUPP on a stream.
func (k *Kit) RecvFrom(t Token, buf []byte, flags int) (int, netip.AddrPort, error) {
	s, err := k.find(t)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	if s.st != nil {
		return 0, netip.AddrPort{}, syscall.EOPNOTSUPP
	}
	return s.recvOne(buf, flags)
}

func (s *socket) recvOne(buf []byte, flags int) (int, netip.AddrPort, error) {
	ms := [1]stack.Message{{Buf: buf}}
	if _, err := s.read(ms[:], flags&^MSG_TRUNC); err != nil {
		return 0, netip.AddrPort{}, err
	}
	if flags&MSG_TRUNC != 0 {
		return ms[0].Size, ms[0].Addr, nil
	}
	return ms[0].N, ms[0].Addr, nil
}

// read fills ms, at least one message of it, and returns how many.
func (s *socket) read(ms []stack.Message, flags int) (int, error) {
	if flags&^MSG_DONTWAIT != 0 {
		return 0, syscall.EOPNOTSUPP
	}
	n, err := s.d.Read(ms)
	if err != syscall.EAGAIN {
		return n, s.overtaken(err)
	}
	if flags&MSG_DONTWAIT != 0 || s.nonBlock.Load() {
		return 0, syscall.EWOULDBLOCK
	}
	return s.readBlocked(ms)
}

// readBlocked is read when nothing was there.
func (s *socket) readBlocked(ms []stack.Message) (int, error) {
	sl := s.kit.sleeper(time.Duration(s.rcvTimeout.Load()))
	defer s.kit.release(sl)
	// Ask for the wakeup, then look again, then sleep: a message that came in between is seen by the look.
	s.d.Watch(sl.waiter, stack.Readable)
	defer s.d.Unwatch(sl.waiter)
	for {
		n, err := s.d.Read(ms)
		if err != syscall.EAGAIN {
			return n, s.overtaken(err)
		}
		if !sl.sleep(nil) {
			return 0, syscall.EWOULDBLOCK
		}
	}
}

// write sends ms and returns how many it sent: fewer than all only with the error that stopped it.
func (s *socket) write(ms []stack.Message, flags int) (int, error) {
	if flags&^MSG_DONTWAIT != 0 {
		return 0, syscall.EOPNOTSUPP
	}
	sent, err := writeAll(s.d, ms)
	if err != syscall.EAGAIN {
		return sent, s.overtaken(err)
	}
	if flags&MSG_DONTWAIT != 0 || s.nonBlock.Load() {
		return sent, syscall.EWOULDBLOCK
	}
	n, err := s.writeBlocked(ms[sent:])
	return sent + n, err
}

// writeAll writes until all is written or something stops it. One Write tells its error only where it wrote nothing.
func writeAll(d *stack.Datagram, ms []stack.Message) (int, error) {
	sent, err := d.Write(ms)
	for err == nil && sent < len(ms) {
		var n int
		n, err = d.Write(ms[sent:])
		sent += n
	}
	return sent, err
}

// writeBlocked is write when there was no room.
func (s *socket) writeBlocked(ms []stack.Message) (int, error) {
	sl := s.kit.sleeper(time.Duration(s.sndTimeout.Load()))
	defer s.kit.release(sl)
	s.d.Watch(sl.waiter, stack.Writable)
	defer s.d.Unwatch(sl.waiter)
	sent := 0
	for {
		n, err := writeAll(s.d, ms[sent:])
		sent += n
		if err != syscall.EAGAIN {
			return sent, s.overtaken(err)
		}
		if !sl.sleep(nil) {
			return sent, syscall.EWOULDBLOCK
		}
	}
}
