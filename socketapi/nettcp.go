package socketapi

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
)

// TCPConn is net.TCPConn on a stack, or with Fallback the kernel's behind the same methods.
type TCPConn struct {
	n             *Net
	st            *stack.Stream
	kernel        *net.TCPConn // where it is not nil, the connection is the kernel's, and st is nil
	why           string
	network       string
	dialled       bool // or accepted
	local, remote *net.TCPAddr

	rmu, wmu      sync.Mutex // one Read at a time; one Write, so that its bytes stay together
	readWaiter    *stack.Waiter
	writeWaiter   *stack.Waiter
	readDeadline  deadline
	writeDeadline deadline
	raw           sync.Mutex // SyscallConn
}

func newTCPConn(n *Net, network string, st *stack.Stream) *TCPConn {
	c := &TCPConn{
		n: n, st: st, network: network, local: net.TCPAddrFromAddrPort(st.LocalAddr()), remote: net.TCPAddrFromAddrPort(st.RemoteAddr()),
	}
	c.readDeadline.init()
	c.writeDeadline.init()
	return c
}

// wrap is an error of the connection; io.EOF stays itself.
func (c *TCPConn) wrap(op, call string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return opError(op, c.network, c.local, c.remote, callError(call, err))
}

// set is an error of an option.
func (c *TCPConn) set(err error) error {
	if err == nil {
		return nil
	}
	return opError("set", c.network, nil, c.local, callError("setsockopt", err))
}

// Read waits until there is a byte, and takes what is there. io.EOF: the peer has sent all.
func (c *TCPConn) Read(b []byte) (int, error) {
	if c.kernel != nil {
		n, err := c.kernel.Read(b)
		return n, kernelError(c.network, err)
	}
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if c.readDeadline.isPassed() {
		return 0, c.wrap("read", "read", os.ErrDeadlineExceeded)
	}
	n, err := c.st.Read(b)
	if err == syscall.EAGAIN {
		n, err = c.readBlocked(b)
	}
	if n == 0 && err == nil && len(b) > 0 {
		return 0, io.EOF
	}
	return n, c.wrap("read", "read", err)
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
		}
		if c.readDeadline.isPassed() {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Write waits until all of b is in the send buffer.
func (c *TCPConn) Write(b []byte) (int, error) {
	if c.kernel != nil {
		n, err := c.kernel.Write(b)
		return n, kernelError(c.network, err)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.writeDeadline.isPassed() {
		return 0, c.wrap("write", "write", os.ErrDeadlineExceeded)
	}
	n, err := c.st.Write(b)
	if err == syscall.EAGAIN || err == nil && n < len(b) {
		n, err = c.writeBlocked(b, n)
	}
	return n, c.wrap("write", "write", err)
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
		if err == syscall.EAGAIN {
			select {
			case <-c.writeWaiter.C:
			case <-c.writeDeadline.passed():
			}
		}
		if c.writeDeadline.isPassed() {
			return n, os.ErrDeadlineExceeded
		}
	}
}

// copyBuffers are what ReadFrom and WriteTo copy by way of.
var copyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// ReadFrom writes what r gives until its end: io.ReaderFrom, which io.Copy uses.
func (c *TCPConn) ReadFrom(r io.Reader) (int64, error) {
	if c.kernel != nil {
		n, err := c.kernel.ReadFrom(r)
		return n, kernelError(c.network, err)
	}
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{r}, buf[:])
}

// WriteTo writes what is received to w until its end: io.WriterTo, which io.Copy uses.
func (c *TCPConn) WriteTo(w io.Writer) (int64, error) {
	if c.kernel != nil {
		n, err := c.kernel.WriteTo(w)
		return n, kernelError(c.network, err)
	}
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{c}, buf[:])
}

// Close ends the connection: what was written is still sent.
func (c *TCPConn) Close() error {
	if c.kernel != nil {
		return c.closeKernel()
	}
	return c.wrap("close", "close", c.st.Close())
}

// CloseRead says that nothing more is read.
func (c *TCPConn) CloseRead() error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.CloseRead())
	}
	return c.wrap("close", "shutdown", c.st.Shutdown(stack.ShutRead))
}

// CloseWrite sends what was written, and then the end.
func (c *TCPConn) CloseWrite() error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.CloseWrite())
	}
	return c.wrap("close", "shutdown", c.st.Shutdown(stack.ShutWrite))
}

// LocalAddr is a *net.TCPAddr.
func (c *TCPConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is a *net.TCPAddr.
func (c *TCPConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *TCPConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds how long Read waits, one that waits already included; the zero time: for ever.
func (c *TCPConn) SetReadDeadline(t time.Time) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetReadDeadline(t))
	}
	return c.setDeadline(&c.readDeadline, t)
}

// SetWriteDeadline does so for Write.
func (c *TCPConn) SetWriteDeadline(t time.Time) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetWriteDeadline(t))
	}
	return c.setDeadline(&c.writeDeadline, t)
}

func (c *TCPConn) setDeadline(d *deadline, t time.Time) error {
	if c.st.Events()&stack.Closed != 0 {
		return c.set(net.ErrClosed)
	}
	d.set(t)
	return nil
}

// SetNoDelay switches Nagle's algorithm off, as it is from the start.
func (c *TCPConn) SetNoDelay(on bool) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetNoDelay(on))
	}
	return c.set(c.st.SetNoDelay(on))
}

// SetLinger says what Close does with what the peer has not acknowledged: 0 forgets it and resets the connection, any other
// number sends it behind the caller's back, as from the start. Close never waits.
func (c *TCPConn) SetLinger(sec int) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetLinger(sec))
	}
	return c.set(c.st.SetLinger(time.Duration(sec) * time.Second))
}

// SetKeepAlive probes a silent peer, as from the start.
func (c *TCPConn) SetKeepAlive(on bool) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetKeepAlive(on))
	}
	return c.set(c.st.SetKeepAlive(on))
}

// SetKeepAlivePeriod is after how long a peer is silent.
func (c *TCPConn) SetKeepAlivePeriod(d time.Duration) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetKeepAlivePeriod(d))
	}
	if d <= 0 {
		return c.set(syscall.EINVAL)
	}
	_, _, interval, probes := c.st.KeepAlive()
	return c.set(c.st.SetKeepAliveTimes((d + time.Second - 1).Truncate(time.Second), interval, probes))
}

// SetKeepAliveConfig is net.TCPConn's: numbers that are 0 become 15 s, 15 s and 9, those below 0 are left as they are.
func (c *TCPConn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetKeepAliveConfig(config))
	}
	return c.set(setKeepAlive(c.st, config))
}

// SetReadBuffer fixes the receive buffer's size, in bytes.
func (c *TCPConn) SetReadBuffer(n int) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetReadBuffer(n))
	}
	return c.set(c.st.SetReceiveBuffer(n))
}

// SetWriteBuffer fixes the send buffer's size, in bytes.
func (c *TCPConn) SetWriteBuffer(n int) error {
	if c.kernel != nil {
		return kernelError(c.network, c.kernel.SetWriteBuffer(n))
	}
	return c.set(c.st.SetSendBuffer(n))
}

// MultipathTCP is false.
func (c *TCPConn) MultipathTCP() (bool, error) { return false, nil }

// Stream is the socket below, for what net.TCPConn has no words for: TTL, congestion control, figures. It is nil
// where the connection is the kernel's.
func (c *TCPConn) Stream() *stack.Stream { return c.st }

// SyscallConn is for Control alone, see UDPConn.SyscallConn; a connection that was accepted has no kernel socket of its own.
// Programs that read from a descriptor to find out whether a connection is alive must be told not to. That of a connection of the
// kernel's is the net package's.
func (c *TCPConn) SyscallConn() (syscall.RawConn, error) {
	if c.kernel != nil {
		raw, err := c.kernel.SyscallConn()
		return raw, kernelError(c.network, err)
	}
	wrap := func(op string, err error) error { return opError(op, c.network, c.local, c.remote, err) }
	if c.st.Events()&stack.Closed != 0 {
		return nil, wrap("raw-conn", net.ErrClosed)
	}
	return newRawConn(c.n, []*socket{c.n.optionsOf(nil, c.st)}, nil, c.dialled, &c.raw, wrap), nil
}
