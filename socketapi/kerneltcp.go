package socketapi

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// newKernelConn makes a TCPConn of the kernel's. It closes c when it fails.
func newKernelConn(n *Net, network string, c *net.TCPConn, why string, keep net.KeepAliveConfig) (*TCPConn, error) {
	t := &TCPConn{n: n, network: network, kernel: c, why: why}
	t.local, _ = c.LocalAddr().(*net.TCPAddr)
	t.remote, _ = c.RemoteAddr().(*net.TCPAddr)
	err := innerError(c.SetKeepAliveConfig(keep))
	if err == nil {
		err = openError("socket", n.stack.Adopt(t))
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return t, nil
}

// closeKernel is Close of a connection of the kernel's.
func (c *TCPConn) closeKernel() error {
	c.n.stack.Disown(c)
	return kernelError(c.network, c.kernel.Close())
}

// Accelerated reports whether the connection is the stack's, and if it is not, why the kernel has it (Fallback).
func (c *TCPConn) Accelerated() (yes bool, why string) { return c.kernel == nil, c.why }

// Info is the line of a connection of the kernel's in the list of sockets (stack.Outside).
func (c *TCPConn) Info() stack.SocketInfo {
	i := stack.SocketInfo{
		Proto: wire.ProtocolTCP, Local: c.local.AddrPort(), Remote: c.remote.AddrPort(), Unaccelerated: c.why, State: tcp.Closed.String(),
	}
	raw, err := c.kernel.SyscallConn()
	if err != nil {
		return i
	}
	i.ReadQueue, i.WriteQueue = queues(raw)
	_ = raw.Control(func(fd uintptr) {
		t, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		congestion, _ := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		i.TCP = kernelFigures(t, congestion)
		i.State = i.TCP.State.String()
		i.Received, i.Sent, i.RxBytes, i.TxBytes = uint64(t.Segs_in), uint64(t.Segs_out), t.Bytes_received, t.Bytes_acked
	})
	return i
}

// kernelStates are the states as enum in include/net/tcp_states.h numbers them.
var kernelStates = [...]tcp.State{
	1: tcp.Established, tcp.SynSent, tcp.SynReceived, tcp.FinWait1, tcp.FinWait2, tcp.TimeWait, tcp.Closed, tcp.CloseWait,
	tcp.LastAck, tcp.Listen, tcp.Closing, tcp.SynReceived,
}

// kernelCongestion are the states of congestion control as include/uapi/linux/tcp.h numbers them.
var kernelCongestion = [...]string{"open", "disorder", "cwr", "recovery", "loss"}

// Bits of tcpi_options.
const (
	optTimestamps = 1
	optSACK       = 2
	optECN        = 8
)

// kernelFigures is struct tcp_info (include/uapi/linux/tcp.h) in the stack's terms.
func kernelFigures(t *unix.TCPInfo, congestion string) *tcp.Info {
	micros := func(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
	i := &tcp.Info{
		State: tcp.Closed, Congestion: congestion, SACK: t.Options&optSACK != 0, Timestamps: t.Options&optTimestamps != 0,
		ECN: t.Options&optECN != 0, RTO: micros(t.Rto), SRTT: micros(t.Rtt), RTTVar: micros(t.Rttvar), MinRTT: micros(t.Min_rtt),
		SendMSS: int(t.Snd_mss), ReceiveMSS: int(t.Rcv_mss), MTU: int(t.Pmtu), Cwnd: t.Snd_cwnd, Ssthresh: t.Snd_ssthresh,
		InFlight: t.Unacked, Sacked: t.Sacked, Lost: t.Lost, Retransmits: t.Retransmits, Probes: t.Probes, Backoff: t.Backoff,
		Retransmitted: t.Total_retrans, SegmentsIn: t.Segs_in, SegmentsOut: t.Segs_out, Delivered: t.Bytes_acked,
		Received: t.Bytes_received, Unsent: int(t.Notsent_bytes), SendWindow: t.Snd_wnd, ReceiveWindow: t.Rcv_wnd,
	}
	if int(t.State) < len(kernelStates) {
		i.State = kernelStates[t.State]
	}
	if int(t.Ca_state) < len(kernelCongestion) {
		i.CongestionState = kernelCongestion[t.Ca_state]
	}
	if t.Pacing_rate != ^uint64(0) {
		i.PacingRate = t.Pacing_rate
	}
	return i
}

// A kernelListener is the part of a TCPListener that is in the kernel.
type kernelListener struct {
	listener *net.TCPListener
	release  func()
	why      string
	accepted chan kernelAccepted
	closed   chan struct{}
	done     sync.WaitGroup
}

// kernelAccepted is what an Accept in the kernel came to.
type kernelAccepted struct {
	conn *net.TCPConn
	err  error
}

// listenKernel listens in the kernel, and returns where.
func (l *TCPListener) listenKernel(at netip.AddrPort, why string) (netip.AddrPort, error) {
	f, got, release, err := l.n.kernelListen(SOCK_STREAM, at, isWide(l.network), l.config.ReusePort)
	if err != nil {
		return at, err
	}
	defer f.Close()
	listener, err := net.FileListener(f)
	if err != nil {
		release()
		return at, err
	}
	l.kernel = &kernelListener{
		listener: listener.(*net.TCPListener), release: release, why: why, accepted: make(chan kernelAccepted), closed: make(chan struct{}),
	}
	l.kernel.done.Go(l.kernel.accept)
	return got, nil
}

// accept takes a connection at a time and waits until somebody wants it.
func (k *kernelListener) accept() {
	for {
		c, err := k.listener.AcceptTCP()
		select {
		case k.accepted <- kernelAccepted{c, innerError(err)}:
		case <-k.closed:
			if err == nil {
				_ = c.SetLinger(0) // nobody accepted it: it is reset, as those in the kernel's queue are
				_ = c.Close()
			}
			return
		}
	}
}

// close ends listening: the port is free, but for connections.
func (k *kernelListener) close() {
	close(k.closed)
	_ = k.listener.Close() // its only error is that it is closed already
	k.done.Wait()
	k.release()
}

// take returns a connection of the kernel's if one is there; EAGAIN: there is none.
func (l *TCPListener) take() (*TCPConn, error) {
	if l.kernel == nil {
		return nil, syscall.EAGAIN
	}
	select {
	case a := <-l.kernel.accepted:
		return l.accept(a)
	default:
		return nil, syscall.EAGAIN
	}
}

// accept makes a TCPConn of what the kernel accepted.
func (l *TCPListener) accept(a kernelAccepted) (*TCPConn, error) {
	if a.err != nil {
		return nil, a.err
	}
	at := a.conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	return newKernelConn(l.n, l.network, a.conn, "the kernel took it at "+at.String(), keepAliveOf(l.config.KeepAlive, l.config.KeepAliveConfig))
}

// Info is the line of the kernel's part in the list of sockets (stack.Outside).
func (l *TCPListener) Info() stack.SocketInfo {
	i := stack.SocketInfo{Proto: wire.ProtocolTCP, Local: l.addr, State: tcp.Listen.String(), Unaccelerated: l.kernel.why, Backlog: goBacklog}
	if raw, err := l.kernel.listener.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if t, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				i.ReadQueue, i.Backlog = int(t.Unacked), int(t.Sacked) // of one that listens (tcp_get_info in net/ipv4/tcp.c)
			}
		})
	}
	return i
}

// File is net.TCPListener.File. A listener of kit's has none, and says so: the error wraps EOPNOTSUPP. One that is all the kernel's
// (Fallback) has one.
func (l *TCPListener) File() (*os.File, error) {
	if l.kernel == nil || len(*l.streams.Load()) > 0 {
		return nil, l.wrap("file", errNoFile)
	}
	f, err := l.kernel.listener.File()
	return f, kernelError(l.network, err)
}

// File is net.TCPConn.File. A connection of kit's has none, and says so: the error wraps EOPNOTSUPP. One of the kernel's (Fallback)
// has one.
func (c *TCPConn) File() (*os.File, error) {
	if c.kernel == nil {
		return nil, opError("file", c.network, c.local, c.remote, errNoFile)
	}
	f, err := c.kernel.File()
	return f, kernelError(c.network, err)
}

var _, _ stack.Outside = (*TCPConn)(nil), (*TCPListener)(nil)
