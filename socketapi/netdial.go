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
// options on before the connection; set them on the conn, or by TCPConn.Stream. There is one family of addresses, so that there
// is no FallbackDelay either.
type Dialer struct {
	Net *Net // whose sockets; nil: SetDefault's

	Timeout         time.Duration       // for the whole of Dial, looking names up included; 0: none but TCP's own, about a minute
	Deadline        time.Time           // the same as a moment; zero: none
	LocalAddr       net.Addr            // *net.TCPAddr or *net.UDPAddr; nil, or an address 0.0.0.0: what the route prefers
	KeepAlive       time.Duration       // of TCP, see net.Dialer.KeepAlive; below 0 there is none
	KeepAliveConfig net.KeepAliveConfig // where its Enable is set, in place of KeepAlive
	Resolver        *net.Resolver       // nil: net.DefaultResolver
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
	to, err := resolve(ctx, d.Resolver, network, address)
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
	protocol, err := protocolOf(network)
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

// prepare checks the ends of a connection, and says where to bind: nowhere where laddr is zero.
func (d *Dialer) prepare(network, protocol string, laddr, raddr netip.AddrPort) (n *Net, from, to netip.AddrPort, err error) {
	if err := wantNetwork(network, protocol); err != nil {
		return nil, from, to, err
	}
	if n, err = d.Net.orDefault(); err != nil {
		return nil, from, to, err
	}
	if !raddr.IsValid() && raddr.Port() == 0 {
		return nil, from, to, &net.AddrError{Err: "missing address"}
	}
	if to, err = toIPv4(anyIfZero(raddr)); err != nil {
		return nil, from, to, err
	}
	if to.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(INADDR_LOOPBACK, to.Port())
	}
	if !laddr.IsValid() && laddr.Port() == 0 {
		return n, netip.AddrPort{}, to, nil
	}
	if from, err = toIPv4(anyIfZero(laddr)); err != nil || !from.Addr().IsUnspecified() {
		return n, from, to, err
	}
	source, err := n.stack.SourceTo(to.Addr())
	return n, netip.AddrPortFrom(source, from.Port()), to, err
}

// DialTCP connects to raddr, from laddr unless that is zero.
func (d *Dialer) DialTCP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*TCPConn, error) {
	ctx, cancel := d.limit(ctx)
	defer cancel()
	fail := func(err error) error {
		return opError("dial", network, addrOf("tcp", laddr), addrOf("tcp", raddr), err)
	}
	n, from, to, err := d.prepare(network, "tcp", laddr, raddr)
	if err != nil {
		return nil, fail(openError("connect", err))
	}
	st := n.stack.NewStream()
	err = connectTo(ctx, st, d.keepAlive(), from, to)
	if err != nil {
		_ = st.Abort() // nobody has it
		return nil, fail(err)
	}
	c := newTCPConn(n, network, st)
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
	n, from, to, err := d.prepare(network, "udp", laddr, raddr)
	if err != nil {
		return nil, fail(openError("connect", err))
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(contextError(err))
	}
	s := n.stack.NewDatagram(wire.ProtocolUDP)
	if from.IsValid() {
		err = openError("bind", s.Bind(from))
	}
	if err == nil {
		err = openError("connect", s.Connect(to))
	}
	if err != nil {
		_ = s.Close() // its only error is that it is closed already
		return nil, fail(err)
	}
	c := newUDPConn(n, network, s.LocalAddr())
	c.remote, c.peer = s.RemoteAddr(), addrOf("udp", s.RemoteAddr())
	c.sockets.Store(&[]udpSocket{newUDPSocket(s, local{s.LocalAddr().Addr(), s.Interface(), true})})
	return c, nil
}
