package socketapi

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// Dialer is net.Dialer with the fields that mean something here. Control and ControlContext do not: there is no descriptor to set
// options on before the connection; set them on the conn, or by TCPConn.Stream. The addresses of a name are tried one by one, so that
// there is no FallbackDelay either.
type Dialer struct {
	Net *Net // whose sockets; nil: SetDefault's

	Timeout         time.Duration       // for the whole of Dial, looking names up included; 0: none but TCP's own, about a minute
	Deadline        time.Time           // the same as a moment; zero: none
	LocalAddr       net.Addr            // *net.TCPAddr or *net.UDPAddr; nil, or an address 0.0.0.0: what the route prefers
	KeepAlive       time.Duration       // of TCP, see net.Dialer.KeepAlive; below 0 there is none
	KeepAliveConfig net.KeepAliveConfig // where its Enable is set, in place of KeepAlive
	Resolver        *net.Resolver       // nil: net.DefaultResolver

	// Fallback has the kernel dial what the stack does not reach, with a socket of the kernel behind the same types: an address of the
	// kernel's own where nobody in the stack has the port, the loopback included; what no route of the stack leads to, and so
	// goes over another card or a tunnel; IPv6. TCPConn.Accelerated, UDPConn.Accelerated and Stack.Sockets say which it is, and why.
	Fallback bool
}

// Dial is DialContext without a context.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects: with "tcp" it waits for the handshake, with "udp" it fixes the peer. Where a name has several addresses
// they are tried in turn, each for its share of the time. The conn is a *TCPConn or a *UDPConn.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := d.limit(ctx)
	defer cancel()
	from, err := d.localAddr(network)
	if err != nil {
		return nil, opError("dial", network, d.LocalAddr, nil, err)
	}
	to, err := resolve(ctx, d.Resolver, network, address, d.Fallback)
	if err != nil {
		return nil, opError("dial", network, nil, nil, err)
	}
	var first error
	for i, addr := range to {
		part, cancel := share(ctx, len(to)-i)
		var c net.Conn
		c, err = d.dial(part, network, from, addr)
		cancel()
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// dial keeps a nil pointer from becoming a conn that is not nil.
func (d *Dialer) dial(ctx context.Context, network string, from, to netip.AddrPort) (net.Conn, error) {
	if network[0] == 't' {
		c, err := d.DialTCP(ctx, network, from, to)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	c, err := d.DialUDP(ctx, network, from, to)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// limit is ctx with the Dialer's own limits.
func (d *Dialer) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	until := d.Deadline
	if d.Timeout > 0 {
		if t := time.Now().Add(d.Timeout); until.IsZero() || t.Before(until) {
			until = t
		}
	}
	if until.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, until)
}

// leastShare is what each of several addresses gets, where there is so much time: less would be lost on one that is only slow.
const leastShare = 2 * time.Second

// share is ctx for the first of n attempts.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	until, ok := ctx.Deadline()
	if !ok || n == 1 {
		return ctx, func() {}
	}
	left := time.Until(until)
	return context.WithTimeout(ctx, min(left, max(left/time.Duration(n), leastShare)))
}

// localAddr is LocalAddr for a network; zero where there is none.
func (d *Dialer) localAddr(network string) (netip.AddrPort, error) {
	protocol, err := protocolOf(network, d.Fallback)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch a := d.LocalAddr.(type) {
	case nil:
		return netip.AddrPort{}, nil
	case *net.TCPAddr:
		if protocol == "tcp" {
			return a.AddrPort(), nil
		}
	case *net.UDPAddr:
		if protocol == "udp" {
			return a.AddrPort(), nil
		}
	}
	return netip.AddrPort{}, &net.AddrError{Err: "mismatched local address type", Addr: d.LocalAddr.String()}
}

// ends are where a connection begins and ends.
type ends struct {
	n        *Net
	from, to netip.AddrPort // from is zero where that is free
	why      string         // the kernel has to make it; "": the stack does
}

// prepare checks the ends of a connection.
func (d *Dialer) prepare(network, protocol string, laddr, raddr netip.AddrPort) (e ends, err error) {
	if err := wantNetwork(network, protocol, d.Fallback); err != nil {
		return e, err
	}
	if e.n, err = d.Net.orDefault(); err != nil {
		return e, err
	}
	if !raddr.IsValid() {
		if raddr.Port() == 0 {
			return e, &net.AddrError{Err: "missing address"}
		}
		raddr = netip.AddrPortFrom(anywhere(network), raddr.Port())
	}
	e.to = netip.AddrPortFrom(loopbackIfAny(raddr.Addr().Unmap()), raddr.Port())
	if laddr.IsValid() || laddr.Port() != 0 {
		e.from = netip.AddrPortFrom(laddr.Addr().Unmap(), laddr.Port())
	}
	if d.Fallback {
		if !suits(network, e.to.Addr()) {
			return e, &net.AddrError{Err: "no suitable address found", Addr: e.to.Addr().String()}
		}
		proto := wire.ProtocolTCP
		if protocol == "udp" {
			proto = wire.ProtocolUDP
		}
		if e.why = e.n.whyKernel(proto, e.from.Addr(), e.to); e.why != "" {
			return e, nil
		}
	}
	if e.to, err = toIPv4(e.to); err != nil || e.from == (netip.AddrPort{}) {
		return e, err
	}
	if e.from, err = toIPv4(anyIfZero(e.from)); err != nil || !e.from.Addr().IsUnspecified() {
		return e, err
	}
	source, err := e.n.stack.SourceTo(e.to.Addr())
	e.from = netip.AddrPortFrom(source, e.from.Port())
	return e, err
}

// loopbackIfAny is this machine for no host.
func loopbackIfAny(a netip.Addr) netip.Addr {
	switch {
	case !a.IsUnspecified():
		return a
	case a.Is4():
		return INADDR_LOOPBACK
	}
	return netip.IPv6Loopback()
}

// DialTCP connects to raddr, from laddr unless that is zero.
func (d *Dialer) DialTCP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*TCPConn, error) {
	ctx, cancel := d.limit(ctx)
	defer cancel()
	fail := func(err error) error {
		return opError("dial", network, addrOf("tcp", laddr), addrOf("tcp", raddr), err)
	}
	e, err := d.prepare(network, "tcp", laddr, raddr)
	if err != nil {
		return nil, fail(openError("connect", err))
	}
	if e.why != "" {
		c, err := e.n.kernelConnect(ctx, SOCK_STREAM, e.from, e.to)
		if err != nil {
			return nil, fail(err)
		}
		t, err := newKernelConn(e.n, network, c.(*net.TCPConn), e.why, d.keepAlive())
		if err != nil {
			return nil, fail(err)
		}
		return t, nil
	}
	st := e.n.stack.NewStream()
	err = connectTo(ctx, st, d.keepAlive(), e.from, e.to)
	if err != nil {
		_ = st.Abort() // nobody has it
		return nil, fail(err)
	}
	c := newTCPConn(e.n, network, st)
	c.dialled = true
	return c, nil
}

func (d *Dialer) keepAlive() net.KeepAliveConfig { return keepAliveOf(d.KeepAlive, d.KeepAliveConfig) }

// connectTo waits for the end of a handshake.
func connectTo(ctx context.Context, st *stack.Stream, keep net.KeepAliveConfig, from, to netip.AddrPort) error {
	if err := ctx.Err(); err != nil {
		return contextError(err)
	}
	if err := prepareStream(st, keep); err != nil {
		return openError("setsockopt", err)
	}
	if from.IsValid() {
		if err := st.Bind(from); err != nil {
			return openError("bind", err)
		}
	}
	w := stack.NewWaiter()
	st.Watch(w, stack.Writable)
	defer st.Unwatch(w)
	if err := st.Connect(to); err != syscall.EINPROGRESS {
		return openError("connect", err)
	}
	for {
		if over, err := connected(st); over {
			return openError("connect", err)
		}
		select {
		case <-w.C:
		case <-ctx.Done():
			return contextError(ctx.Err())
		}
	}
}

// DialUDP fixes the peer raddr of a socket at laddr, or where that is zero at the address that the route prefers.
func (d *Dialer) DialUDP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*UDPConn, error) {
	fail := func(err error) error {
		return opError("dial", network, addrOf("udp", laddr), addrOf("udp", raddr), err)
	}
	e, err := d.prepare(network, "udp", laddr, raddr)
	if err != nil {
		return nil, fail(openError("connect", err))
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(contextError(err))
	}
	if e.why != "" {
		u, err := e.n.dialKernelUDP(ctx, network, &e)
		if err != nil {
			return nil, fail(err)
		}
		return u, nil
	}
	s := e.n.stack.NewDatagram(wire.ProtocolUDP)
	if e.from.IsValid() {
		err = openError("bind", s.Bind(e.from))
	}
	if err == nil {
		err = openError("connect", s.Connect(e.to))
	}
	if err != nil {
		_ = s.Close() // its only error is that it is closed already
		return nil, fail(err)
	}
	c := newUDPConn(e.n, network, s.LocalAddr())
	c.remote, c.peer = s.RemoteAddr(), addrOf("udp", s.RemoteAddr())
	c.sockets.Store(&[]udpSocket{newUDPSocket(s, local{s.LocalAddr().Addr(), s.Interface(), true})})
	return c, nil
}
