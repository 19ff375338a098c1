package socketapi

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
)

// Out-of-band data as Linux lays it out (cmsg(3), ip(7), udp(7)): what belongs to a datagram beside its payload.
//
//	received  IP_PKTINFO   struct in_pktinfo: the card's index in the kernel, or 0; our address; the address it was sent to
//	          IP_TOS       1 byte, the lower two bits of which are ECN (RFC 3168)
//	          IP_TTL       4 bytes
//	sent      IP_PKTINFO   the address to come from, where it is not 0.0.0.0; the index is not looked at
//	          IP_TOS       1 or 4 bytes
//	          IP_TTL       4 bytes
//	          UDP_SEGMENT  2 bytes: the payload is cut into datagrams of so many bytes, the last of which may be shorter
//
// Received are those for which the caller's buffer has room, in this order, without having to be asked for. Two datagrams are
// never received as one (UDP_GRO). What goes by the kernel (Fallback) has the kernel's own, with IPV6_PKTINFO, IPV6_TCLASS and
// IPV6_HOPLIMIT for IPv6.

// Lengths of the control messages with their headers, and the room that each takes.
var (
	pktinfoLen   = unix.CmsgLen(unix.SizeofInet4Pktinfo)
	pktinfoSpace = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	tosLen       = unix.CmsgLen(1)
	intLen       = unix.CmsgLen(4)
	intSpace     = unix.CmsgSpace(4) // of 1 byte, too
	dataAt       = unix.CmsgLen(0)
)

// maxSegments is how many datagrams UDP_SEGMENT makes at most (UDP_MAX_SEGMENTS of include/linux/udp.h).
const maxSegments = 128

// putControl writes what belongs to a message that s heard into oob, and returns how many bytes that is, and the flags.
func (s *udpSocket) putControl(oob []byte, m *stack.Message) (n, flags int) {
	if len(oob) == 0 {
		return 0, 0
	}
	header := func(length, space, kind int) []byte {
		if len(oob)-n < space {
			return nil
		}
		b := oob[n : n+space]
		n += space
		clear(b)
		binary.NativeEndian.PutUint64(b, uint64(length))
		binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_IP)
		binary.NativeEndian.PutUint32(b[12:], uint32(kind))
		return b[dataAt:]
	}
	if b := header(pktinfoLen, pktinfoSpace, unix.IP_PKTINFO); b != nil {
		binary.NativeEndian.PutUint32(b, uint32(s.index()))
		ours, to := s.addr.As4(), m.Dst.As4()
		copy(b[4:], ours[:])
		copy(b[8:], to[:])
	}
	if b := header(tosLen, intSpace, unix.IP_TOS); b != nil {
		b[0] = m.TOS
	}
	if b := header(intLen, intSpace, unix.IP_TTL); b != nil {
		binary.NativeEndian.PutUint32(b, uint32(m.TTL))
	}
	if n == 0 {
		flags = unix.MSG_CTRUNC
	}
	return n, flags
}

// control puts what belongs to a message into c, where the kernel has not done so: s is nil then.
func (s *udpSocket) control(m *stack.Message, c *outOfBand) (n, flags int) {
	if s == nil {
		return c.n, c.flags
	}
	return s.putControl(c.oob, m)
}

// control is what out-of-band data says about a datagram to send.
type control struct {
	from     netip.Addr // zero: nothing
	tos, ttl uint8      // 0: the socket's
	segment  int        // 0: the payload is one datagram
}

// parseControl reads out-of-band data. EINVAL: it is malformed, or asks for something of IP or UDP that is not known. What is on
// other levels is not looked at, as in Linux.
func parseControl(oob []byte) (c control, err error) {
	for len(oob) > 0 {
		if len(oob) < dataAt {
			return c, syscall.EINVAL
		}
		length := binary.NativeEndian.Uint64(oob)
		if length < uint64(dataAt) || length > uint64(len(oob)) {
			return c, syscall.EINVAL
		}
		level, kind := binary.NativeEndian.Uint32(oob[8:]), int(binary.NativeEndian.Uint32(oob[12:]))
		data := oob[dataAt:length]
		oob = oob[min(len(oob), unix.CmsgSpace(len(data))):]
		switch {
		case level == unix.IPPROTO_IP:
			err = c.ip(kind, data)
		case level == unix.IPPROTO_UDP && kind == unix.UDP_SEGMENT && len(data) == 2:
			c.segment = int(binary.NativeEndian.Uint16(data))
		case level == unix.IPPROTO_UDP:
			err = syscall.EINVAL
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *control) ip(kind int, data []byte) error {
	switch {
	case kind == unix.IP_PKTINFO && len(data) == unix.SizeofInet4Pktinfo:
		if a := netip.AddrFrom4([4]byte(data[4:8])); !a.IsUnspecified() {
			c.from = a
		}
	case kind == unix.IP_TOS && len(data) == 1:
		c.tos = data[0]
	case (kind == unix.IP_TOS || kind == unix.IP_TTL) && len(data) == 4:
		v := binary.NativeEndian.Uint32(data)
		if v > 255 || kind == unix.IP_TTL && v == 0 {
			return syscall.EINVAL
		}
		if kind == unix.IP_TOS {
			c.tos = uint8(v)
		} else {
			c.ttl = uint8(v)
		}
	default:
		return syscall.EINVAL
	}
	return nil
}

// ReadMsgUDP is net.UDPConn.ReadMsgUDP. The flags are MSG_TRUNC, b was too short, and MSG_CTRUNC, oob was.
func (c *UDPConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, oobn, flags, from, err := c.ReadMsgUDPAddrPort(b, oob)
	if err == nil {
		addr = net.UDPAddrFromAddrPort(from)
	}
	return n, oobn, flags, addr, err
}

// ReadMsgUDPAddrPort is ReadMsgUDP without allocation.
func (c *UDPConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	ms := [1]stack.Message{{Buf: b}}
	cs := [1]outOfBand{{oob: oob}}
	_, s, err := c.receive(ms[:], cs[:], true)
	if err != nil {
		return 0, 0, 0, netip.AddrPort{}, c.wrap("read", "recvmsg", nil, err)
	}
	m := &ms[0]
	oobn, flags = s.control(m, &cs[0])
	return m.N, oobn, flags | truncated(m), m.Addr, nil
}

func truncated(m *stack.Message) int {
	if m.Size > m.N {
		return unix.MSG_TRUNC
	}
	return 0
}

// WriteMsgUDP is net.UDPConn.WriteMsgUDP. addr is nil for the connected peer.
func (c *UDPConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if addr != nil && c.remote.IsValid() {
		return 0, 0, c.wrap("write", "sendmsg", addr, net.ErrWriteToConnected)
	}
	return c.writeMsg(b, oob, addr.AddrPort())
}

// WriteMsgUDPAddrPort is WriteMsgUDP without allocation. addr is zero for the connected peer.
func (c *UDPConn) WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	if addr.IsValid() && c.remote.IsValid() {
		return 0, 0, c.wrap("write", "sendmsg", addrOf("udp", addr), net.ErrWriteToConnected)
	}
	return c.writeMsg(b, oob, addr)
}

func (c *UDPConn) writeMsg(b, oob []byte, to netip.AddrPort) (n, oobn int, err error) {
	if !to.IsValid() && !c.remote.IsValid() {
		return 0, 0, c.wrap("write", "sendmsg", nil, errMissingAddress)
	}
	if err := c.writeWith(b, oob, to, true); err != nil {
		return 0, 0, c.wrap("write", "sendmsg", addrOf("udp", to), err)
	}
	return len(b), len(oob), nil
}

// writeWith sends b as its out-of-band data says.
func (c *UDPConn) writeWith(b, oob []byte, to netip.AddrPort, wait bool) error {
	ctl, err := parseControl(oob)
	if err != nil {
		return err
	}
	s, err := c.senderFrom(ctl.from, to)
	if err != nil {
		return err
	}
	if s == nil {
		if c.writeDeadline.isPassed() {
			return os.ErrDeadlineExceeded
		}
		return c.kernel.write(b, oob, to, wait)
	}
	if ctl.segment > 0 && len(b) > ctl.segment {
		return c.writeSegments(s, b, to, ctl, wait)
	}
	ms := [1]stack.Message{{Buf: b, Addr: to, TTL: ctl.ttl, TOS: ctl.tos}}
	_, err = c.send(s, ms[:], wait)
	return err
}

// senderFrom is sender, or the socket of an address that the caller chose. EINVAL: we have none there.
func (c *UDPConn) senderFrom(from netip.Addr, to netip.AddrPort) (*udpSocket, error) {
	if !from.IsValid() {
		return c.sender(to), nil
	}
	if c.kernel != nil && c.sender(to) == nil {
		return nil, nil
	}
	sockets := *c.sockets.Load()
	for i := range sockets {
		if sockets[i].addr == from {
			return &sockets[i], nil
		}
	}
	if c.kernel != nil {
		return nil, nil
	}
	return nil, syscall.EINVAL
}

// segments are for writeSegments.
var segments = sync.Pool{New: func() any { return new([maxSegments]stack.Message) }}

// writeSegments cuts b into datagrams. EINVAL: they would be more than Linux allows. EAGAIN: there was no room for the first;
// where there was room for some, the others wait for it, as a part of a message can't be taken back.
func (c *UDPConn) writeSegments(s *udpSocket, b []byte, to netip.AddrPort, ctl control, wait bool) error {
	if len(b) > ctl.segment*maxSegments {
		return syscall.EINVAL
	}
	ms := segments.Get().(*[maxSegments]stack.Message)
	defer func() {
		clear(ms[:])
		segments.Put(ms)
	}()
	n := 0
	for ; len(b) > 0; n++ {
		part := min(ctl.segment, len(b))
		ms[n] = stack.Message{Buf: b[:part], Addr: to, TTL: ctl.ttl, TOS: ctl.tos}
		b = b[part:]
	}
	sent, err := c.send(s, ms[:n], wait)
	if err == syscall.EAGAIN && sent > 0 {
		_, err = c.send(s, ms[sent:n], true)
	}
	return err
}

// batches are for ReadBatch and WriteBatch.
var batches = sync.Pool{New: func() any { return new(batch) }}

type batch struct {
	ms      []stack.Message
	cs      []outOfBand
	scratch []byte // of a message whose buffers are several
}

// batchFlags are those that ReadBatch and WriteBatch take. Both behave as with MSG_WAITFORONE in any case.
const batchFlags = MSG_DONTWAIT | unix.MSG_WAITFORONE

// ReadBatch receives up to len(ms) messages in the form of golang.org/x/net/ipv4.PacketConn.ReadBatch: it waits until there is
// one, takes those that are there, and returns how many. A message that has several Buffers fills one after the other. Flags are
// MSG_DONTWAIT, where EWOULDBLOCK says that there is none, and MSG_WAITFORONE; another is EOPNOTSUPP.
func (c *UDPConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	if flags&^batchFlags != 0 {
		return 0, c.wrap("read", "recvmmsg", nil, syscall.EOPNOTSUPP)
	}
	if len(ms) == 0 {
		return 0, nil
	}
	b := batches.Get().(*batch)
	defer b.release()
	for i := range ms {
		if len(ms[i].Buffers) == 1 {
			b.ms = append(b.ms, stack.Message{Buf: ms[i].Buffers[0]})
			continue
		}
		if i == 0 {
			b.ms = append(b.ms, stack.Message{Buf: b.room()})
		}
		break
	}
	for i := range b.ms {
		b.cs = append(b.cs, outOfBand{oob: ms[i].OOB})
	}
	n, s, err := c.receive(b.ms, b.cs, flags&MSG_DONTWAIT == 0)
	if err != nil {
		return 0, c.wrap("read", "recvmmsg", nil, err)
	}
	for i := range n {
		got, m := &b.ms[i], &ms[i]
		if len(m.Buffers) != 1 {
			scatter(got, m.Buffers)
		}
		m.N, m.Addr = got.N, net.UDPAddrFromAddrPort(got.Addr)
		m.NN, m.Flags = s.control(got, &b.cs[i])
		m.Flags |= truncated(got)
	}
	return n, nil
}

// scatter moves a message to several buffers.
func scatter(m *stack.Message, to [][]byte) {
	left := m.Buf[:m.N]
	for _, b := range to {
		left = left[copy(b, left):]
	}
	m.N -= len(left)
}

// WriteBatch sends messages in the form of golang.org/x/net/ipv4.PacketConn.WriteBatch: each to its Addr, a *net.UDPAddr, or
// where that is nil to the connected peer, with its OOB. It returns how many it sent, and an error only where it sent none: the
// next call tells why it went no further. Flags are ReadBatch's.
func (c *UDPConn) WriteBatch(ms []ipv4.Message, flags int) (int, error) {
	if flags&^batchFlags != 0 {
		return 0, c.wrap("write", "sendmmsg", nil, syscall.EOPNOTSUPP)
	}
	b := batches.Get().(*batch)
	defer b.release()
	sent := 0
	for sent < len(ms) {
		n, addr, err := c.writeSome(ms[sent:], b, flags&MSG_DONTWAIT == 0)
		if sent += n; err != nil {
			if sent > 0 {
				break
			}
			return 0, c.wrap("write", "sendmmsg", addr, err)
		}
	}
	return sent, nil
}

// writeSome sends the first of ms, and with it those behind it that go by the same socket and have neither OOB nor several
// buffers.
func (c *UDPConn) writeSome(ms []ipv4.Message, b *batch, wait bool) (n int, addr net.Addr, err error) {
	addr = ms[0].Addr
	to, err := c.destination(addr)
	if err != nil {
		return 0, addr, err
	}
	if !plain(&ms[0]) {
		if err = c.writeWith(b.gather(ms[0].Buffers), ms[0].OOB, to, wait); err != nil {
			return 0, addr, err
		}
		ms[0].N, ms[0].NN = size(ms[0].Buffers), len(ms[0].OOB)
		return 1, addr, nil
	}
	s := c.sender(to)
	b.ms = b.ms[:0]
	for i := range ms {
		if i > 0 {
			if to, err = c.destination(ms[i].Addr); err != nil || !plain(&ms[i]) || c.sender(to) != s {
				break
			}
		}
		b.ms = append(b.ms, stack.Message{Buf: ms[i].Buffers[0], Addr: to})
	}
	n, err = c.send(s, b.ms, wait)
	for i := range n {
		ms[i].N, ms[i].NN = len(ms[i].Buffers[0]), 0
	}
	if n > 0 {
		err = nil // it is about the next, and comes again with that
	}
	return n, addr, err
}

// plain reports whether a message is one buffer and no more.
func plain(m *ipv4.Message) bool { return len(m.Buffers) == 1 && len(m.OOB) == 0 }

// destination is where a message of WriteBatch goes; zero: to the connected peer.
func (c *UDPConn) destination(addr net.Addr) (netip.AddrPort, error) {
	a, ok := addr.(*net.UDPAddr)
	switch {
	case addr != nil && !ok:
		return netip.AddrPort{}, syscall.EINVAL
	case c.remote.IsValid() && a != nil:
		return netip.AddrPort{}, net.ErrWriteToConnected
	case c.remote.IsValid():
		return netip.AddrPort{}, nil
	case a == nil:
		return netip.AddrPort{}, errMissingAddress
	}
	return a.AddrPort(), nil
}

// gather returns one buffer that holds what several hold.
func (b *batch) gather(from [][]byte) []byte {
	if len(from) == 1 {
		return from[0]
	}
	all := b.room()[:0]
	for _, part := range from {
		all = append(all, part...)
	}
	return all
}

func size(bufs [][]byte) (n int) {
	for _, b := range bufs {
		n += len(b)
	}
	return n
}

// room is a buffer for the longest message.
func (b *batch) room() []byte {
	if b.scratch == nil {
		b.scratch = make([]byte, 1<<16)
	}
	return b.scratch
}

// release gives a batch back, without what belongs to the caller.
func (b *batch) release() {
	clear(b.ms[:cap(b.ms)])
	clear(b.cs[:cap(b.cs)])
	b.ms, b.cs = b.ms[:0], b.cs[:0]
	batches.Put(b)
}
