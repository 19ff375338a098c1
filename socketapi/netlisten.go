package socketapi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
)

// ListenConfig is net.ListenConfig with the fields that mean something here. Control does not: what programs use it for most is
// ReusePort; SO_REUSEADDR is on for TCP, as in the net package.
type ListenConfig struct {
	Net *Net // whose sockets; nil: SetDefault's

	KeepAlive       time.Duration       // of TCP, see net.ListenConfig.KeepAlive; below 0 there is none
	KeepAliveConfig net.KeepAliveConfig // where its Enable is set, in place of KeepAlive
	ReusePort       bool                // SO_REUSEPORT: all that have it share the port, each connection or flow going to one of them
	Resolver        *net.Resolver       // nil: net.DefaultResolver

	// Fallback listens in the kernel as well, for what the stack does not hear: where no host is given every other address of the kernel,
	// those of IPv6 and the loopback included; with an address that the kernel has too, what it brings there, such as from its
	// own programs; an address that is the kernel's alone. What the card brings to the stack's addresses is the stack's as before.
	Fallback bool
}

// Listen listens as net.ListenConfig.Listen does. The context bounds the looking up of names. The listener is a *TCPListener.
func (c *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	at, err := c.resolve(ctx, network, "tcp", address)
	if err != nil {
		return nil, opError("listen", network, nil, nil, err)
	}
	l, err := c.listen(network, at)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ListenPacket listens as net.ListenConfig.ListenPacket does. The conn is a *UDPConn.
func (c *ListenConfig) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	at, err := c.resolve(ctx, network, "udp", address)
	if err != nil {
		return nil, opError("listen", network, nil, nil, err)
	}
	u, err := c.listenPacket(network, at)
	if err != nil {
		return nil, err
	}
	return u, nil
}

// resolve reads where to listen: the first of several addresses, as the net package does.
func (c *ListenConfig) resolve(ctx context.Context, network, protocol, address string) (netip.AddrPort, error) {
	if err := wantNetwork(network, protocol, c.Fallback); err != nil {
		return netip.AddrPort{}, err
	}
	if address == "" {
		return netip.AddrPortFrom(anywhere(network), 0), nil
	}
	at, err := resolve(ctx, c.Resolver, network, address, c.Fallback)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return at[0], nil
}

// anyPortTries is how often another port is tried where port 0 was asked for, and one that was free on the first address is not
// on all.
const anyPortTries = 20

// onEvery calls open with one port for every address of at, and where fallback is true listens in the kernel first: its address and
// port, and why, go to kernel, which gives back the port. It tries again as long as another port may do. open and kernel have
// nothing left when they fail, and undo takes back what kernel did.
func (n *Net) onEvery(at netip.AddrPort, fallback bool, kernel func(netip.AddrPort, string) (netip.AddrPort, error), undo func(),
	open func([]local, uint16) error) error {
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if !at.Addr().Is4() && !fallback {
		return syscall.EAFNOSUPPORT
	}
	why, inKernel := "", false
	if fallback {
		why, inKernel = n.kernelServes(at.Addr())
	}
	for try := 1; ; try++ {
		err := n.onEveryOnce(at, why, inKernel, kernel, undo, open)
		if at.Port() != 0 || try == anyPortTries || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
}

func (n *Net) onEveryOnce(at netip.AddrPort, why string, inKernel bool, kernel func(netip.AddrPort, string) (netip.AddrPort, error),
	undo func(), open func([]local, uint16) error) error {
	addrs := n.locals(at.Addr())
	if !inKernel {
		return open(addrs, at.Port())
	}
	got, err := kernel(at, why)
	if err != nil {
		return err
	}
	if !at.Addr().IsUnspecified() && n.stack.Owner(at.Addr()) == nil {
		addrs = nil
	}
	if err := open(addrs, got.Port()); err != nil {
		undo()
		return err
	}
	return nil
}

// keepAliveOf is what the net package makes of a Dialer's or ListenConfig's two fields.
func keepAliveOf(idle time.Duration, c net.KeepAliveConfig) net.KeepAliveConfig {
	if !c.Enable && idle >= 0 {
		return net.KeepAliveConfig{Enable: true, Idle: idle}
	}
	return c
}

// prepareStream gives a stream what the net package gives its own.
func prepareStream(st *stack.Stream, keep net.KeepAliveConfig) error {
	if err := st.SetNoDelay(true); err != nil {
		return err
	}
	return setKeepAlive(st, keep)
}

// setKeepAlive is net.TCPConn.SetKeepAliveConfig: numbers that are 0 become the net package's, those below 0 are left as they
// are.
func setKeepAlive(st *stack.Stream, c net.KeepAliveConfig) error {
	const count = 9
	pick := func(want, std, was time.Duration) time.Duration {
		switch {
		case want < 0:
			return was
		case want == 0:
			return std
		}
		return (want + time.Second - 1).Truncate(time.Second)
	}
	_, idle, interval, probes := st.KeepAlive()
	if c.Count >= 0 {
		if probes = c.Count; probes == 0 {
			probes = count
		}
	}
	if err := st.SetKeepAlive(c.Enable); err != nil || !c.Enable {
		return err
	}
	return st.SetKeepAliveTimes(pick(c.Idle, goKeepAlive, idle), pick(c.Interval, goKeepAlive, interval), probes)
}

// goKeepAlive is what net.KeepAliveConfig's times are where they are 0.
const goKeepAlive = 15 * time.Second

// goBacklog is how many connections wait for Accept: Linux's net.core.somaxconn, which net.Listen takes.
const goBacklog = 4096

// TCPListener is net.TCPListener on a stack.
type TCPListener struct {
	n       *Net
	config  ListenConfig
	network string
	addr    netip.AddrPort // where it was asked to listen, with the real port
	every   bool           // on every address
	waiter  *stack.Waiter  // watches all streams

	deadline deadline
	accepts  sync.Mutex // one Accept at a time
	turn     int        // whose turn it is

	kernel      *kernelListener // nil: it is the stack's alone
	kernelsTurn bool

	streams    atomic.Pointer[[]listeningStream]
	generation atomic.Uint32 // of the addresses that have one
	mu         sync.Mutex    // listens on more addresses, Close
	closed     bool
	raw        sync.Mutex // SyscallConn
}

// listeningStream is a TCPListener on one address.
type listeningStream struct {
	*stack.Stream
	local
}

func (c *ListenConfig) listen(network string, at netip.AddrPort) (*TCPListener, error) {
	n, err := c.Net.orDefault()
	if err != nil {
		return nil, opError("listen", network, nil, addrOf("tcp", at), err)
	}
	if c.Fallback {
		at = bothFamilies(network, at)
	}
	l := &TCPListener{n: n, config: *c, network: network, every: anyIfZero(at).Addr().Unmap() == INADDR_ANY, waiter: stack.NewWaiter()}
	l.deadline.init()
	l.generation.Store(n.stack.Generation())
	undo := func() {
		l.kernel.close()
		l.kernel = nil
	}
	err = n.onEvery(at, c.Fallback, l.listenKernel, undo, func(addrs []local, port uint16) error {
		streams := make([]listeningStream, 0, len(addrs))
		for _, a := range addrs {
			st, err := l.open(a, port)
			if err != nil {
				closeAll(streams)
				return err
			}
			streams = append(streams, st)
			port = st.LocalAddr().Port() // where it was 0: the one that the first got
		}
		l.addr = netip.AddrPortFrom(at.Addr().Unmap(), port)
		l.streams.Store(&streams)
		return nil
	})
	if err != nil {
		return nil, opError("listen", network, nil, addrOf("tcp", at), err)
	}
	for _, st := range *l.streams.Load() {
		st.Watch(l.waiter, stack.Readable)
	}
	if l.every {
		n.stack.WatchAddresses(l.waiter)
	}
	if l.kernel != nil {
		if l.every && isWide(network) {
			l.addr = netip.AddrPortFrom(netip.IPv6Unspecified(), l.addr.Port()) // as the net package says it
		}
		if err := n.stack.Adopt(l); err != nil {
			_ = l.Close() // its only error is that it is closed already
			return nil, opError("listen", network, nil, addrOf("tcp", at), openError("listen", err))
		}
	}
	return l, nil
}

func closeAll(streams []listeningStream) {
	for _, st := range streams {
		_ = st.Close() // its only error is that it is closed already
	}
}

// open listens on one address.
func (l *TCPListener) open(a local, port uint16) (listeningStream, error) {
	st := l.n.stack.NewStream()
	for _, step := range []struct {
		call string
		do   func() error
	}{
		{"setsockopt", func() error { return prepareStream(st, keepAliveOf(l.config.KeepAlive, l.config.KeepAliveConfig)) }},
		{"setsockopt", func() error { return st.SetReuseAddr(true) }},
		{"setsockopt", func() error { return st.SetReusePort(l.config.ReusePort) }},
		{"bind", func() error { return st.Bind(netip.AddrPortFrom(a.addr, port)) }},
		{"listen", func() error { return st.Listen(stack.ListenConfig{Backlog: goBacklog}) }},
	} {
		if err := step.do(); err != nil {
			_ = st.Close() // its only error is that it is closed already
			return listeningStream{}, openError(step.call, err)
		}
	}
	return listeningStream{st, a}, nil
}

// follow listens on the addresses that have come since. One whose port is taken is left out until addresses change again.
func (l *TCPListener) follow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.generation.Store(l.n.stack.Generation())
	streams := *l.streams.Load()
	had := len(streams)
	for _, a := range l.n.addresses() {
		known := false
		for _, st := range streams {
			known = known || st.addr == a.addr
		}
		if known {
			continue
		}
		if st, err := l.open(a, l.addr.Port()); err == nil {
			st.Watch(l.waiter, stack.Readable)
			streams = append(streams[:len(streams):len(streams)], st)
		}
	}
	if len(streams) > had {
		l.streams.Store(&streams)
	}
}

// Accept waits for a connection, a *TCPConn.
func (l *TCPListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptTCP is Accept with a type that says more.
func (l *TCPListener) AcceptTCP() (*TCPConn, error) {
	l.accepts.Lock()
	defer l.accepts.Unlock()
	for {
		if l.deadline.isPassed() {
			return nil, l.wrap("accept", os.ErrDeadlineExceeded)
		}
		if l.every && l.generation.Load() != l.n.stack.Generation() {
			l.follow()
		}
		c, err := l.acceptAny()
		switch {
		case err == nil:
			return c, nil
		case err != syscall.EAGAIN:
			l.waiter.Tell() // for the next who calls
			return nil, l.wrap("accept", callError("accept", err))
		}
		var kernels chan kernelAccepted
		if l.kernel != nil {
			kernels = l.kernel.accepted
		}
		select {
		case <-l.waiter.C:
		case <-l.deadline.passed():
		case a := <-kernels:
			if c, err := l.accept(a); err != net.ErrClosed {
				return c, l.wrap("accept", err)
			}
		}
	}
}

// acceptAny takes a connection from the stack and from the kernel in turn. EAGAIN: neither has one.
func (l *TCPListener) acceptAny() (*TCPConn, error) {
	if l.kernelsTurn = !l.kernelsTurn; l.kernelsTurn {
		if c, err := l.take(); err != syscall.EAGAIN {
			return c, err
		}
	}
	st, err := l.next()
	if err != nil {
		return nil, err
	}
	return newTCPConn(l.n, l.network, st), nil
}

// next takes a connection from the streams in turn. One whose card is gone has its say when all the others are, too.
func (l *TCPListener) next() (*stack.Stream, error) {
	streams := *l.streams.Load()
	quiet := false
	var failed error
	for range streams {
		l.turn = (l.turn + 1) % len(streams)
		st, err := streams[l.turn].Accept()
		switch err {
		case nil:
			return st, nil
		case syscall.EAGAIN:
			quiet = true
		default:
			failed = err
		}
	}
	switch {
	case l.kernel != nil && !quiet:
		select {
		case <-l.kernel.closed:
			return nil, syscall.EBADF
		default:
			return nil, syscall.EAGAIN // the kernel still listens
		}
	case quiet:
		return nil, syscall.EAGAIN
	}
	return nil, failed
}

func (l *TCPListener) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return opError(op, l.network, nil, l.Addr(), err)
}

// Close ends listening: who waits in Accept is told net.ErrClosed, and connections that nobody accepted are reset.
func (l *TCPListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.wrap("close", net.ErrClosed)
	}
	l.closed = true
	l.n.stack.UnwatchAddresses(l.waiter)
	closeAll(*l.streams.Load())
	if l.kernel != nil {
		l.n.stack.Disown(l)
		l.kernel.close()
		l.waiter.Tell() // where no stream does
	}
	return nil
}

// Addr is a *net.TCPAddr. Its address is 0.0.0.0 where Listen was given none.
func (l *TCPListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// SetDeadline bounds how long Accept waits, one that waits already included; the zero time: for ever.
func (l *TCPListener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.wrap("set", net.ErrClosed)
	}
	l.deadline.set(t)
	return nil
}

// Streams are the sockets below, one for each address.
func (l *TCPListener) Streams() []*stack.Stream {
	var sts []*stack.Stream
	for _, st := range *l.streams.Load() {
		sts = append(sts, st.Stream)
	}
	return sts
}

// SyscallConn gives access to the kernel's socket that holds the port, see UDPConn.SyscallConn.
func (l *TCPListener) SyscallConn() (syscall.RawConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, l.wrap("raw-conn", net.ErrClosed)
	}
	var kernel syscall.RawConn
	if l.kernel != nil {
		raw, err := l.kernel.listener.SyscallConn()
		if err != nil || len(*l.streams.Load()) == 0 {
			return raw, kernelError(l.network, err)
		}
		kernel = raw
	}
	var sockets []*socket
	for _, st := range *l.streams.Load() {
		sockets = append(sockets, l.n.optionsOf(nil, st.Stream))
	}
	return newRawConn(l.n, sockets, kernel, true, &l.raw, l.wrap), nil
}
