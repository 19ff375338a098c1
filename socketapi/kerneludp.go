package socketapi

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// A kernelUDP is the part of a UDPConn that is in the kernel, or all of it.
type kernelUDP struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	family  int
	why     string
	release func()

	rearm  chan struct{} // to watch: what was there has been read
	closed chan struct{}
	done   sync.WaitGroup

	ms []stack.Message // of the call of read that is under way
	cs []outOfBand

	received, rxBytes, sent, txBytes atomic.Uint64
}

// outOfBand is what comes with a message of the kernel's, as it lays it out.
type outOfBand struct {
	oob      []byte // room
	n, flags int
}

func newKernelUDP(c *net.UDPConn, family int, why string, release func()) (*kernelUDP, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &kernelUDP{
		conn: c, raw: raw, family: family, why: why, release: release, rearm: make(chan struct{}, 1), closed: make(chan struct{}),
	}, nil
}

// wantControl makes the kernel say with each datagram what the stack says with its own.
func wantControl(fd, family int) error {
	options := []struct{ level, name int }{
		{unix.IPPROTO_IP, unix.IP_PKTINFO}, {unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_RECVTTL},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, {unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT},
	}
	if family == AF_INET {
		options = options[:3]
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// dialKernelUDP fixes the peer of a socket of the kernel's.
func (n *Net) dialKernelUDP(ctx context.Context, network string, e *ends) (*UDPConn, error) {
	conn, err := n.kernelConnect(ctx, SOCK_DGRAM, e.from, e.to)
	if err != nil {
		return nil, err
	}
	k, err := newKernelUDP(conn.(*net.UDPConn), familyOf(e.to.Addr()), e.why, func() {})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	c := newUDPConn(n, network, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
	c.kernel, c.remote, c.peer = k, e.to, addrOf("udp", e.to)
	c.sockets.Store(new([]udpSocket))
	if err := n.stack.Adopt(c); err != nil {
		_ = c.Close() // its only error is that it is closed already
		return nil, openError("socket", err)
	}
	return c, nil
}

// listenKernel makes the kernel's part of a UDPConn, and returns where it is.
func (c *UDPConn) listenKernel(at netip.AddrPort, why string) (netip.AddrPort, error) {
	f, got, release, err := c.n.kernelListen(SOCK_DGRAM, at, isWide(c.network), c.reuse)
	if err != nil {
		return at, err
	}
	defer f.Close()
	conn, err := net.FilePacketConn(f)
	if err == nil {
		c.kernel, err = newKernelUDP(conn.(*net.UDPConn), familyOf(got.Addr()), why, release)
	}
	if err != nil {
		release()
	}
	return got, err
}

// watch tells w whenever there is something to read, until the socket is closed. It waits in Go's poller, and reads nothing itself.
func (k *kernelUDP) watch(w *stack.Waiter) {
	for {
		if k.raw.Read(ready) != nil {
			return
		}
		w.Tell()
		select {
		case <-k.rearm:
		case <-k.closed:
			return
		}
	}
}

// ready reports whether a read of fd would not wait.
func ready(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// drained says that all was read that was there: the next is worth telling.
func (k *kernelUDP) drained() {
	select {
	case k.rearm <- struct{}{}:
	default:
	}
}

func (k *kernelUDP) close() {
	close(k.closed)
	_ = k.conn.Close() // its only error is that it is closed already
	k.done.Wait()
	k.release()
}

// read fills ms, and cs where that is not nil, with what is there, and waits for the first message where wait is true: until the
// deadline of conn. EAGAIN: there is none. One call at a time.
func (k *kernelUDP) read(ms []stack.Message, cs []outOfBand, wait bool) (n int, err error) {
	k.ms, k.cs = append(k.ms[:0], ms...), append(k.cs[:0], cs...) // so that ms and cs may be on the caller's stack
	var failed error
	if wait {
		failed = k.raw.Read(func(fd uintptr) bool {
			n, err = k.take(int(fd))
			return err != syscall.EAGAIN
		})
	} else { // Read would wait for its turn behind watch
		failed = k.raw.Control(func(fd uintptr) { n, err = k.take(int(fd)) })
	}
	copy(ms, k.ms)
	copy(cs, k.cs)
	clear(k.ms)
	clear(k.cs)
	if failed != nil {
		return 0, innerError(failed)
	}
	return n, err
}

func (k *kernelUDP) take(fd int) (n int, err error) {
	for ; n < len(k.ms); n++ {
		m := &k.ms[n]
		var room []byte
		if n < len(k.cs) {
			room = k.cs[n].oob
		}
		size, oobn, flags, from, err := unix.RecvmsgBuffers(fd, [][]byte{m.Buf}, room, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err == unix.EINTR {
			n--
			continue
		}
		if err != nil {
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		m.N, m.Size, m.Addr = min(size, len(m.Buf)), size, addrPortOf(from)
		if n < len(k.cs) {
			k.cs[n].n, k.cs[n].flags = oobn, flags&unix.MSG_CTRUNC
		}
		k.received.Add(1)
		k.rxBytes.Add(uint64(size))
	}
	return n, nil
}

// write sends a message to the connected peer, or elsewhere where to is not zero. It waits for room where wait is true: until the
// deadline of conn. EAGAIN: there is none.
func (k *kernelUDP) write(b, oob []byte, to netip.AddrPort, wait bool) error {
	var dst unix.Sockaddr
	if to.IsValid() {
		if k.family == AF_INET && !to.Addr().Unmap().Is4() {
			return syscall.EAFNOSUPPORT
		}
		dst = sockaddr(k.family, to)
	}
	var err error
	failed := k.raw.Write(func(fd uintptr) bool {
		for {
			_, err = unix.SendmsgN(int(fd), b, oob, dst, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != unix.EINTR {
				return !wait || err != unix.EAGAIN
			}
		}
	})
	switch {
	case failed != nil:
		return innerError(failed)
	case err == nil:
		k.sent.Add(1)
		k.txBytes.Add(uint64(len(b)))
	}
	return err
}

// writeAll sends ms one by one, and returns how many it took: fewer than all only with the error that stopped it.
func (k *kernelUDP) writeAll(ms []stack.Message, wait bool) (int, error) {
	for i := range ms {
		if err := k.write(ms[i].Buf, nil, ms[i].Addr, wait); err != nil {
			return i, err
		}
	}
	return len(ms), nil
}

// Accelerated reports whether the conn is the stack's, and if it is not, why the kernel has it (Fallback). One that listens in both is
// the stack's, and why says for what the kernel is there.
func (c *UDPConn) Accelerated() (yes bool, why string) {
	if c.kernel == nil {
		return true, ""
	}
	return len(*c.sockets.Load()) > 0, c.kernel.why
}

// Info is the line of the kernel's part in the list of sockets (stack.Outside).
func (c *UDPConn) Info() stack.SocketInfo {
	k := c.kernel
	i := stack.SocketInfo{
		Proto: wire.ProtocolUDP, Local: c.local, Remote: c.remote, Unaccelerated: k.why,
		Received: k.received.Load(), RxBytes: k.rxBytes.Load(), Sent: k.sent.Load(), TxBytes: k.txBytes.Load(),
	}
	i.ReadQueue, i.WriteQueue = queues(k.raw)
	return i
}

// File is net.UDPConn.File. A conn of kit's has none, and says so: the error wraps EOPNOTSUPP. One that is all the kernel's
// (Fallback) has one.
func (c *UDPConn) File() (*os.File, error) {
	if c.kernel == nil || len(*c.sockets.Load()) > 0 {
		return nil, c.wrap("file", "file", nil, errNoFile)
	}
	f, err := c.kernel.conn.File()
	return f, kernelError(c.network, err)
}

var _ stack.Outside = (*UDPConn)(nil)
