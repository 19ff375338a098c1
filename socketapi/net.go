package socketapi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
)

// Net is Go's own way to the sockets of a stack. Its methods are the net package's functions, with their arguments, results and
// errors, so that a program which takes n.Listen for net.Listen needs no other change:
//
//	n := k.Net()
//	l, err := n.Listen("tcp", ":80")
//	err = http.Serve(l, nil)
//	client := http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
//
// Networks are "tcp" and "tcp4", "udp" and "udp4"; "tcp6" and "udp6", and IPv6 addresses, are EAFNOSUPPORT but with Fallback, others
// a net.UnknownNetworkError. Hosts and services may be names, which net.DefaultResolver looks up, by way of the kernel.
//
// Every error is a *net.OpError. Inside it is a syscall.Errno that errors.Is finds, net.ErrClosed, or a time-out that says so by
// Timeout() and is os.ErrDeadlineExceeded.
//
// An address without a host is every address of every interface, those that come later included. What is sent to a peer that was
// heard comes from the address that it asked.
type Net struct {
	stack  *stack.Stack
	kernel Kernel // for Fallback
	kernelAddrs
}

// NewNet returns a Net on s, which stays the caller's.
func NewNet(s *stack.Stack) *Net { return &Net{stack: s, kernel: threadKernel{}} }

// Net returns Go's own way to the sockets of the Kit's stack, the same each time. They have no tokens, and the Kit's Close does
// not close them.
func (k *Kit) Net() *Net { return k.net }

// Stack is the stack below.
func (n *Net) Stack() *stack.Stack { return n.stack }

var defaultNet atomic.Pointer[Net]

// SetDefault makes n the Net of Dialers and ListenConfigs that name none, and of the methods of a nil *Net. nil: there is none.
func SetDefault(n *Net) { defaultNet.Store(n) }

// UnsetDefault ends SetDefault for n, if it still holds.
func UnsetDefault(n *Net) { defaultNet.CompareAndSwap(n, nil) }

// noDefault is ENETDOWN that says what to do.
type noDefault struct{}

func (noDefault) Error() string {
	return "there is no network: call kit.SetDefault with an open Kit, or use the methods of its Net()"
}
func (noDefault) Unwrap() error { return syscall.ENETDOWN }

// orDefault is n, or the default where n is nil.
func (n *Net) orDefault() (*Net, error) {
	if n == nil {
		n = defaultNet.Load()
	}
	if n == nil {
		return nil, noDefault{}
	}
	return n, nil
}

// Listen is net.Listen. The listener is a *TCPListener.
func (n *Net) Listen(network, address string) (net.Listener, error) {
	return (&ListenConfig{Net: n}).Listen(context.Background(), network, address)
}

// ListenPacket is net.ListenPacket. The conn is a *UDPConn.
func (n *Net) ListenPacket(network, address string) (net.PacketConn, error) {
	return (&ListenConfig{Net: n}).ListenPacket(context.Background(), network, address)
}

// ListenTCP is net.ListenTCP. A nil address is every address and any port.
func (n *Net) ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	if err := wantNetwork(network, "tcp", false); err != nil {
		return nil, opError("listen", network, nil, tcpOrNil(laddr), err)
	}
	return (&ListenConfig{Net: n}).listen(network, anyIfZero(laddr.AddrPort()))
}

// ListenUDP is net.ListenUDP. A nil address is every address and any port.
func (n *Net) ListenUDP(network string, laddr *net.UDPAddr) (*UDPConn, error) {
	if err := wantNetwork(network, "udp", false); err != nil {
		return nil, opError("listen", network, nil, udpOrNil(laddr), err)
	}
	return (&ListenConfig{Net: n}).listenPacket(network, anyIfZero(laddr.AddrPort()))
}

// Dial is net.Dial. The conn is a *TCPConn or a *UDPConn.
func (n *Net) Dial(network, address string) (net.Conn, error) {
	return (&Dialer{Net: n}).Dial(network, address)
}

// DialTimeout is net.DialTimeout.
func (n *Net) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return (&Dialer{Net: n, Timeout: timeout}).Dial(network, address)
}

// DialContext is net.Dialer.DialContext, in the form that http.Transport takes.
func (n *Net) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return (&Dialer{Net: n}).DialContext(ctx, network, address)
}

// DialTCP is net.DialTCP.
func (n *Net) DialTCP(network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	return (&Dialer{Net: n}).DialTCP(context.Background(), network, laddr.AddrPort(), raddr.AddrPort())
}

// DialUDP is net.DialUDP.
func (n *Net) DialUDP(network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	return (&Dialer{Net: n}).DialUDP(context.Background(), network, laddr.AddrPort(), raddr.AddrPort())
}

// wantNetwork checks that network is that protocol, "tcp" or "udp". IPv6 takes the kernel.
func wantNetwork(network, protocol string, fallback bool) error {
	p, err := protocolOf(network, fallback)
	if err == nil && p != protocol {
		err = net.UnknownNetworkError(network)
	}
	return err
}

// protocolOf is "tcp" or "udp".
func protocolOf(network string, fallback bool) (string, error) {
	switch network {
	case "tcp", "tcp4":
		return "tcp", nil
	case "udp", "udp4":
		return "udp", nil
	case "tcp6", "udp6":
		if fallback {
			return network[:3], nil
		}
		return "", syscall.EAFNOSUPPORT
	}
	return "", net.UnknownNetworkError(network)
}

// resolve reads an address as the net package does. It becomes several where a name has several, those of IPv4 first; no host is
// every address, 0.0.0.0, or [::] where network is IPv6's. IPv6 takes the kernel.
func resolve(ctx context.Context, r *net.Resolver, network, address string, fallback bool) ([]netip.AddrPort, error) {
	if r == nil {
		r = net.DefaultResolver
	}
	protocol, err := protocolOf(network, fallback)
	if err != nil {
		return nil, err
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := r.LookupPort(ctx, protocol, service)
	if err != nil {
		return nil, err
	}
	at := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, uint16(port)) }
	if host == "" {
		return []netip.AddrPort{at(anywhere(network))}, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a = a.Unmap(); !a.Is4() && !fallback {
			return nil, syscall.EAFNOSUPPORT
		}
		if !suits(network, a) {
			return nil, &net.AddrError{Err: "no suitable address found", Addr: host}
		}
		return []netip.AddrPort{at(a)}, nil
	}
	family := "ip4"
	if fallback {
		family = "ip" + network[len(protocol):]
	}
	found, err := r.LookupNetIP(ctx, family, host)
	addrs := make([]netip.AddrPort, 0, len(found))
	for _, want4 := range []bool{true, false} {
		for _, a := range found {
			if a = a.Unmap(); a.Is4() == want4 {
				addrs = append(addrs, at(a))
			}
		}
	}
	if err == nil && len(addrs) == 0 {
		err = &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	return addrs, err
}

// suits reports whether an address is of a network's family.
func suits(network string, a netip.Addr) bool {
	return isWide(network) || a.Is4() == (network[3] == '4')
}

// anywhere is every address of a network.
func anywhere(network string) netip.Addr {
	if network[len(network)-1] == '6' {
		return netip.IPv6Unspecified()
	}
	return INADDR_ANY
}

// bothFamilies is 0.0.0.0 for [::] where a network is of both families: there that is every address, too.
func bothFamilies(network string, at netip.AddrPort) netip.AddrPort {
	if at.Addr() == netip.IPv6Unspecified() && isWide(network) {
		return netip.AddrPortFrom(INADDR_ANY, at.Port())
	}
	return at
}

// anyIfZero is a with 0.0.0.0 in place of no address.
func anyIfZero(a netip.AddrPort) netip.AddrPort {
	if !a.Addr().IsValid() {
		return netip.AddrPortFrom(INADDR_ANY, a.Port())
	}
	return a
}

// addrOf is a *net.TCPAddr or *net.UDPAddr, nil for the zero AddrPort.
func addrOf(network string, a netip.AddrPort) net.Addr {
	switch {
	case !a.IsValid():
		return nil
	case network[0] == 't':
		return net.TCPAddrFromAddrPort(a)
	}
	return net.UDPAddrFromAddrPort(a)
}

// tcpOrNil and udpOrNil keep a nil pointer from becoming an interface that is not nil.
func tcpOrNil(a *net.TCPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}

func udpOrNil(a *net.UDPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}

// opError is an error as the net package tells it: what failed, on what, and why.
func opError(op, network string, source, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: network, Source: source, Addr: addr, Err: err}
}

// callError is the error of a stack's call, under the name of the system call that it stands for.
func callError(call string, err error) error {
	errno, ok := err.(syscall.Errno)
	switch {
	case !ok:
		return err
	case errno == syscall.EBADF:
		return net.ErrClosed
	}
	return os.NewSyscallError(call, errno)
}

// openError is callError for a socket that nobody has yet: where it is closed, its stack is.
func openError(call string, err error) error {
	if err == syscall.EBADF {
		err = syscall.ENETDOWN
	}
	return callError(call, err)
}

// contextError is a context's error as a Dialer tells it.
func contextError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return canceled{}
	case errors.Is(err, context.DeadlineExceeded):
		return timedOut{}
	}
	return err
}

// canceled is a call whose context was cancelled.
type canceled struct{}

func (canceled) Error() string        { return "operation was canceled" }
func (canceled) Is(target error) bool { return target == context.Canceled }

// timedOut is a call that took too long: for those who look for a context's error, and for those who look for a deadline's.
type timedOut struct{}

func (timedOut) Error() string   { return os.ErrDeadlineExceeded.Error() }
func (timedOut) Timeout() bool   { return true }
func (timedOut) Temporary() bool { return true }
func (timedOut) Is(target error) bool {
	return target == context.DeadlineExceeded || target == os.ErrDeadlineExceeded
}

// addresses lists every address of the stack, those of cards first.
func (n *Net) addresses() (addrs []local) {
	for _, i := range n.stack.Interfaces() {
		for k, p := range i.Addresses() {
			addrs = append(addrs, local{p.Addr(), i, k == 0})
		}
	}
	return addrs
}

// local is one address of the stack.
type local struct {
	addr  netip.Addr
	iface *stack.Interface
	first bool // of its interface
}

// locals is the addresses for which a socket that listens at addr needs one of the stack's.
func (n *Net) locals(addr netip.Addr) []local {
	switch {
	case addr == INADDR_ANY:
		return n.addresses()
	case !addr.Is4():
		return nil
	}
	return []local{{addr: addr, first: true}}
}
