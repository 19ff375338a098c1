package socketapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
)

// Net is Go's own way to the sockets of a stack: what it returns are net.Conn and net.Listener, and behaves as the net package's.
type Net struct {
	stack *stack.Stack
}

// NewNet returns a Net on s, which stays the caller's.
func NewNet(s *stack.Stack) *Net { return &Net{s} }

// Net returns Go's own way to the sockets of the Kit's stack. They have no tokens, and the Kit's Close does not close them.
func (k *Kit) Net() *Net { return NewNet(k.stack) }

// goBacklog is how many connections wait for Accept: Linux's net.core.somaxconn, which net.Listen takes.
const goBacklog = 4096

// goKeepAlive is what the net package sets on its connections (net.KeepAliveConfig).
const goKeepAlive = 15 * time.Second

// goOptions gives a stream what the net package gives its own.
func goOptions(st *stack.Stream) error {
	return errors.Join(st.SetNoDelay(true), st.SetKeepAlive(true), st.SetKeepAliveTimes(goKeepAlive, goKeepAlive, 9))
}

// resolve reads a TCP address for network "tcp" or "tcp4".
func resolve(ctx context.Context, network, address string) (netip.AddrPort, error) {
	if network != "tcp" && network != "tcp4" {
		return netip.AddrPort{}, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp4", service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr := netip.IPv4Unspecified()
	if host != "" {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
		if err != nil {
			return netip.AddrPort{}, err
		}
		addr = found[0].Unmap()
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// opError is an error as the net package tells it: what failed, on what, and why, with the errno inside.
func opError(op string, local, remote netip.AddrPort, err error) error {
	var source, addr net.Addr
	if local.IsValid() {
		source = net.TCPAddrFromAddrPort(local)
	}
	if remote.IsValid() {
		addr = net.TCPAddrFromAddrPort(remote)
	}
	if errno, ok := err.(syscall.Errno); ok {
		if errno == syscall.EBADF {
			err = net.ErrClosed
		} else {
			err = os.NewSyscallError(op, errno)
		}
	}
	return &net.OpError{Op: op, Net: "tcp", Source: source, Addr: addr, Err: err}
}

// Listen listens as net.Listen does, on network "tcp" or "tcp4". An address without a host is every address that the stack
// has at this time, each of which must have the port free.
func (n *Net) Listen(network, address string) (*TCPListener, error) {
	at, err := resolve(context.Background(), network, address)
	if err != nil {
		return nil, opError("listen", netip.AddrPort{}, at, err)
	}
	l := &TCPListener{addr: at, waiter: stack.NewWaiter()}
	l.deadline.init()
	addrs := []netip.Addr{at.Addr()}
	if at.Addr().IsUnspecified() {
		addrs = addrs[:0]
		for _, i := range n.stack.Interfaces() {
			for _, p := range i.Addresses() {
				addrs = append(addrs, p.Addr())
			}
		}
	}
	for _, a := range addrs {
		st := n.stack.NewStream()
		l.streams = append(l.streams, st)
		err = errors.Join(goOptions(st), st.SetReuseAddr(true))
		if err == nil {
			err = st.Bind(netip.AddrPortFrom(a, l.addr.Port()))
		}
		if err == nil {
			l.addr = netip.AddrPortFrom(at.Addr(), st.LocalAddr().Port()) // of port 0 the one that the first got
			err = st.Listen(stack.ListenConfig{Backlog: goBacklog})
		}
		if err != nil {
			l.close()
			return nil, opError("listen", netip.AddrPort{}, netip.AddrPortFrom(a, at.Port()), err)
		}
		st.Watch(l.waiter, stack.Readable)
	}
	return l, nil
}

// TCPListener is a net.Listener on a stack.
type TCPListener struct {
	addr     netip.AddrPort
	streams  []*stack.Stream
	waiter   *stack.Waiter
	deadline deadline

	mu     sync.Mutex // Accept
	next   int        // whose turn it is
	closed sync.Once
}

// Accept waits for a connection.
func (l *TCPListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptTCP is Accept with a type that says more.
func (l *TCPListener) AcceptTCP() (*TCPConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for range l.streams {
			l.next = (l.next + 1) % len(l.streams)
			st, err := l.streams[l.next].Accept()
			if err == nil {
				return newTCPConn(st), nil
			}
			if err != syscall.EAGAIN {
				l.waiter.Tell() // for the next who calls
				return nil, opError("accept", netip.AddrPort{}, l.addr, err)
			}
		}
		select {
		case <-l.deadline.passed():
			return nil, opError("accept", netip.AddrPort{}, l.addr, os.ErrDeadlineExceeded)
		default:
		}
		select {
		case <-l.waiter.C:
		case <-l.deadline.passed():
		}
	}
}

// Close ends listening: who waits in Accept is told net.ErrClosed, and connections that nobody accepted are reset.
func (l *TCPListener) Close() error {
	err := opError("close", netip.AddrPort{}, l.addr, net.ErrClosed)
	l.closed.Do(func() {
		l.close()
		err = nil
	})
	return err
}

func (l *TCPListener) close() {
	for _, st := range l.streams {
		_ = st.Close() // its only error is that it is closed already
	}
}

// Addr is a *net.TCPAddr. Its address is 0.0.0.0 where Listen was given none.
func (l *TCPListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// SetDeadline bounds how long Accept waits; the zero time: for ever.
func (l *TCPListener) SetDeadline(t time.Time) error {
	l.deadline.set(t)
	return nil
}

// Dial is DialContext without a context.
func (n *Net) Dial(network, address string) (*TCPConn, error) {
	return n.DialContext(context.Background(), network, address)
}

// DialContext connects as net.Dialer.DialContext does, on network "tcp" or "tcp4".
func (n *Net) DialContext(ctx context.Context, network, address string) (*TCPConn, error) {
	to, err := resolve(ctx, network, address)
	if err != nil {
		return nil, opError("dial", netip.AddrPort{}, to, err)
	}
	if to.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(INADDR_LOOPBACK, to.Port())
	}
	st := n.stack.NewStream()
	if err := goOptions(st); err != nil {
		return nil, opError("dial", netip.AddrPort{}, to, err)
	}
	if err := connect(ctx, st, to); err != nil {
		_ = st.Abort() // nobody has it
		return nil, opError("dial", netip.AddrPort{}, to, err)
	}
	return newTCPConn(st), nil
}

// connect waits for the end of a handshake.
func connect(ctx context.Context, st *stack.Stream, to netip.AddrPort) error {
	w := stack.NewWaiter()
	st.Watch(w, stack.Writable)
	defer st.Unwatch(w)
	if err := st.Connect(to); err != syscall.EINPROGRESS {
		return os.NewSyscallError("connect", err)
	}
	for {
		if over, err := connected(st); over {
			return os.NewSyscallError("connect", err)
		}
		select {
		case <-w.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return os.ErrDeadlineExceeded
			}
			return ctx.Err()
		}
	}
}

// TCPConn is a net.Conn on a stack, with the methods of net.TCPConn.
type TCPConn struct {
	st            *stack.Stream
	local, remote *net.TCPAddr

	rmu, wmu      sync.Mutex // one Read at a time; one Write, so that its bytes stay together
	readWaiter    *stack.Waiter
	writeWaiter   *stack.Waiter
	readDeadline  deadline
	writeDeadline deadline
}

func newTCPConn(st *stack.Stream) *TCPConn {
	c := &TCPConn{st: st, local: net.TCPAddrFromAddrPort(st.LocalAddr()), remote: net.TCPAddrFromAddrPort(st.RemoteAddr())}
	c.readDeadline.init()
	c.writeDeadline.init()
	return c
}

// wrap is opError for the connection.
func (c *TCPConn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return opError(op, c.st.LocalAddr(), c.st.RemoteAddr(), err)
}

// Read waits until there is a byte, and takes what is there. io.EOF: the peer has sent all.
func (c *TCPConn) Read(b []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if c.readDeadline.isPassed() {
		return 0, c.wrap("read", os.ErrDeadlineExceeded)
	}
	n, err := c.st.Read(b)
	if err == syscall.EAGAIN {
		n, err = c.readBlocked(b)
	}
	if n == 0 && err == nil && len(b) > 0 {
		return 0, io.EOF
	}
	return n, c.wrap("read", err)
}

func (c *TCPConn) readBlocked(b []byte) (int, error) {
	if c.readWaiter == nil {
		c.readWaiter = stack.NewWaiter()
	}
	c.st.Watch(c.readWaiter, stack.Readable)
	defer c.st.Unwatch(c.readWaiter)
	for {
		n, err := c.st.Read(b)
		if err != syscall.EAGAIN {
			return n, err
		}
		select {
		case <-c.readWaiter.C:
		case <-c.readDeadline.passed():
			return 0, os.ErrDeadlineExceeded
		}
		if c.readDeadline.isPassed() {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Write waits until all of b is in the send buffer.
func (c *TCPConn) Write(b []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.writeDeadline.isPassed() {
		return 0, c.wrap("write", os.ErrDeadlineExceeded)
	}
	n, err := c.st.Write(b)
	if err == syscall.EAGAIN || err == nil && n < len(b) {
		n, err = c.writeBlocked(b, n)
	}
	return n, c.wrap("write", err)
}

func (c *TCPConn) writeBlocked(b []byte, n int) (int, error) {
	if c.writeWaiter == nil {
		c.writeWaiter = stack.NewWaiter()
	}
	c.st.Watch(c.writeWaiter, stack.Writable)
	defer c.st.Unwatch(c.writeWaiter)
	for {
		m, err := c.st.Write(b[n:])
		if n += m; err == nil && n == len(b) {
			return n, nil
		}
		if err != nil && err != syscall.EAGAIN {
			return n, err
		}
		if err == nil {
			continue
		}
		select {
		case <-c.writeWaiter.C:
		case <-c.writeDeadline.passed():
			return n, os.ErrDeadlineExceeded
		}
	}
}

// Close ends the connection: what was written is still sent.
func (c *TCPConn) Close() error { return c.wrap("close", c.st.Close()) }

// CloseRead says that nothing more is read.
func (c *TCPConn) CloseRead() error { return c.wrap("close", c.st.Shutdown(stack.ShutRead)) }

// CloseWrite sends what was written, and then the end.
func (c *TCPConn) CloseWrite() error { return c.wrap("close", c.st.Shutdown(stack.ShutWrite)) }

// LocalAddr is a *net.TCPAddr.
func (c *TCPConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is a *net.TCPAddr.
func (c *TCPConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *TCPConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds how long Read waits, one that waits already included; the zero time: for ever.
func (c *TCPConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readDeadline, t) }

// SetWriteDeadline does so for Write.
func (c *TCPConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeDeadline, t) }

func (c *TCPConn) setDeadline(d *deadline, t time.Time) error {
	if c.st.Events()&stack.Closed != 0 {
		return c.wrap("set", net.ErrClosed)
	}
	d.set(t)
	return nil
}

// SetNoDelay switches Nagle's algorithm off, as it is from the start.
func (c *TCPConn) SetNoDelay(on bool) error { return c.wrap("set", c.st.SetNoDelay(on)) }

// SetLinger says what Close does: below 0 it sends what is left behind the caller's back, as from the start; otherwise it
// resets the connection. (The net package's Close does not wait either where sec is positive.)
func (c *TCPConn) SetLinger(sec int) error {
	return c.wrap("set", c.st.SetLinger(time.Duration(sec)*time.Second))
}

// SetKeepAlive probes a silent peer, as from the start.
func (c *TCPConn) SetKeepAlive(on bool) error { return c.wrap("set", c.st.SetKeepAlive(on)) }

// SetKeepAlivePeriod is both the time of silence and the one between probes.
func (c *TCPConn) SetKeepAlivePeriod(d time.Duration) error {
	_, _, _, probes := c.st.KeepAlive()
	return c.wrap("set", c.st.SetKeepAliveTimes(d, d, probes))
}

// SetReadBuffer fixes the receive buffer's size, in bytes.
func (c *TCPConn) SetReadBuffer(n int) error { return c.wrap("set", c.st.SetReceiveBuffer(n)) }

// SetWriteBuffer fixes the send buffer's size, in bytes.
func (c *TCPConn) SetWriteBuffer(n int) error { return c.wrap("set", c.st.SetSendBuffer(n)) }

// Stream is the socket below, for what net.Conn has no words for.
func (c *TCPConn) Stream() *stack.Stream { return c.st }

// A deadline is a moment that may be moved while somebody waits for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{} // closed when it has passed
}

func (d *deadline) init() { d.done = make(chan struct{}) }

// passed is closed when the deadline, as it is set now, has passed.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func (d *deadline) isPassed() bool {
	select {
	case <-d.passed():
		return true
	default:
		return false
	}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // its function has run, or is about to
	}
	d.timer = nil
	select {
	case <-d.done:
		d.done = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	done := d.done
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(done) })
		return
	}
	close(done)
}
