package socketapi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// Fallback: where the stack does not reach, a socket of the kernel does for one of the stack, behind the same types. The kernel's own
// conns are inside: they wait in Go's poller, and their errors are the net package's.

// Kernel gives the sockets for Fallback.
type Kernel interface {
	// Socket opens a socket that does not block. family is AF_INET or unix.AF_INET6, kind SOCK_STREAM or SOCK_DGRAM.
	Socket(family, kind int) (fd int, err error)
	// Share calls bind, which binds fd to at, so that ports which the stack holds or will hold in the kernel are no obstacle: until
	// release, fd stands for them. The port is not 0; an address 0.0.0.0 or [::] is all of IPv4's.
	Share(proto wire.Protocol, at netip.AddrPort, fd int, bind func() error) (release func(), err error)
}

// SetKernel says where the sockets for Fallback come from, before the first is wanted. Without it they are opened in the network
// namespace of the thread that happens to want one.
func (n *Net) SetKernel(k Kernel) { n.kernel = k }

// threadKernel is the kernel of the calling thread, with a stack that holds no ports there.
type threadKernel struct{}

func (threadKernel) Socket(family, kind int) (fd int, err error) {
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

func (threadKernel) Share(_ wire.Protocol, _ netip.AddrPort, _ int, bind func() error) (release func(), err error) {
	return func() {}, bind()
}

// whyKernel says why a destination is the kernel's to reach, a phrase; "": the stack reaches it, or may say why not. from is the
// local address that was asked for, zero for none.
func (n *Net) whyKernel(proto wire.Protocol, from netip.Addr, to netip.AddrPort) string {
	dst := to.Addr().Unmap()
	if !dst.Is4() {
		return "kit has no IPv6"
	}
	if from = from.Unmap(); from.IsValid() && !from.IsUnspecified() {
		switch i := n.stack.Owner(from); {
		case i == nil:
			return "local address " + from.String() + " is the kernel's"
		case i.Mode() == stack.Owned && !i.Loopback():
			return "" // the kernel does not have it
		}
	}
	if i := n.stack.Owner(dst); i != nil {
		if i.Mode() == stack.Owned && !i.Loopback() || n.stack.Bound(proto, to) {
			return ""
		}
		return "destination " + dst.String() + " is the kernel's"
	}
	source, err := n.stack.SourceTo(dst)
	if err == syscall.ENETUNREACH {
		return "no route of kit leads to " + dst.String()
	}
	if err == nil {
		if i := n.stack.Owner(source); i != nil && i.Mode() == stack.Owned && n.isKernels(dst) {
			return "destination " + dst.String() + " is the kernel's"
		}
	}
	return ""
}

// kernelAddrs remembers for a second what isKernels found out, which takes the kernel several system calls.
type kernelAddrs struct {
	mu    sync.Mutex
	known map[netip.Addr]kernelAddr
}

type kernelAddr struct {
	its   bool
	until time.Time
}

const (
	kernelAddrLife  = time.Second
	mostKernelAddrs = 4096
)

// isKernels reports whether the kernel has an address that the stack takes for another host's, by an owned card: what is sent to it
// over that does not come back. With shared addresses the routes know that.
func (n *Net) isKernels(a netip.Addr) bool {
	if n.stack.IsBroadcast(a) || a.IsMulticast() {
		return false
	}
	now := time.Now()
	k := &n.kernelAddrs
	k.mu.Lock()
	known, ok := k.known[a]
	k.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.its
	}
	its := n.askKernel(a)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil || len(k.known) >= mostKernelAddrs {
		k.known = make(map[netip.Addr]kernelAddr)
	}
	k.known[a] = kernelAddr{its, now.Add(kernelAddrLife)}
	return its
}

// askKernel has the kernel choose a source address for a: its own addresses are their own.
func (n *Net) askKernel(a netip.Addr) bool {
	fd, err := n.kernel.Socket(AF_INET, SOCK_DGRAM)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	const discard = 9 // any port: nothing is sent
	if unix.Connect(fd, &unix.SockaddrInet4{Port: discard, Addr: a.As4()}) != nil {
		return false
	}
	name, err := unix.Getsockname(fd)
	return err == nil && addrPortOf(name).Addr() == a
}

// kernelServes reports whether a socket that listens at an address is to listen in the kernel, too, and for whom.
func (n *Net) kernelServes(a netip.Addr) (why string, serves bool) {
	switch i := n.stack.Owner(a); {
	case a.IsUnspecified():
		return "for the addresses that are not kit's", true
	case i == nil:
		return "local address " + a.String() + " is the kernel's", true
	case i.Mode() == stack.Owned && !i.Loopback():
		return "", false
	}
	return "for what the kernel brings to " + a.String(), true
}

// sockaddr is an address as the kernel takes it. One of IPv4 for a socket of family AF_INET6 is mapped.
func sockaddr(family int, a netip.AddrPort) unix.Sockaddr {
	if family == AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zoneID(a.Addr().Zone())}
}

// zoneID is an IPv6 zone as a number, 0 where there is none.
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	id, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(id)
}

// addrPortOf is an address as the kernel gives it, zero for another family's or none.
func addrPortOf(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(s.Addr).Unmap()
		if s.ZoneId != 0 && a.Is6() {
			a = a.WithZone(strconv.Itoa(int(s.ZoneId)))
		}
		return netip.AddrPortFrom(a, uint16(s.Port))
	}
	return netip.AddrPort{}
}

// familyOf is the family of sockets for an address.
func familyOf(a netip.Addr) int {
	if a.Unmap().Is4() {
		return AF_INET
	}
	return unix.AF_INET6
}

// kernelConnect connects a kernel socket from an address, anywhere where it is zero, and waits for a stream's handshake.
func (n *Net) kernelConnect(ctx context.Context, kind int, from, to netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextError(err)
	}
	family := familyOf(to.Addr())
	fd, err := n.kernel.Socket(family, kind)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	if from.IsValid() || from.Port() != 0 {
		if !from.Addr().IsValid() {
			from = netip.AddrPortFrom(anyOf(family), from.Port())
		}
		if familyOf(from.Addr()) != family && !from.Addr().IsUnspecified() {
			return nil, &net.AddrError{Err: "mismatched local address type", Addr: from.String()}
		}
		if from.Addr().IsUnspecified() {
			from = netip.AddrPortFrom(anyOf(family), from.Port())
		}
		if err := unix.Bind(fd, sockaddr(family, from)); err != nil {
			return nil, os.NewSyscallError("bind", err)
		}
	}
	if kind == SOCK_DGRAM { // before anything comes
		if err := wantControl(fd, family); err != nil {
			return nil, err
		}
	}
	switch err := unix.Connect(fd, sockaddr(family, to)); err {
	case nil:
	case unix.EINPROGRESS, unix.EINTR:
		if err := awaitConnect(ctx, f); err != nil {
			return nil, err
		}
	default:
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

func anyOf(family int) netip.Addr {
	if family == AF_INET {
		return INADDR_ANY
	}
	return netip.IPv6Unspecified()
}

// awaitConnect waits for the end of a handshake.
func awaitConnect(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failed = os.NewSyscallError("getsockopt", err)
		case v != 0:
			failed = os.NewSyscallError("connect", syscall.Errno(v))
		default:
			_, err := unix.Getpeername(int(fd))
			return err == nil // else there is no connection yet
		}
		return true
	})
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return contextError(ctx.Err())
	}
	return err
}

// kernelListen binds a socket of the kernel to at, where port 0 becomes a free one, and returns it with that. wide is whether an
// unspecified address is IPv6's as well as IPv4's.
func (n *Net) kernelListen(kind int, at netip.AddrPort, wide, reusePort bool) (f *os.File, got netip.AddrPort, release func(), err error) {
	family := familyOf(at.Addr())
	if wide && at.Addr().IsUnspecified() {
		family = unix.AF_INET6
	}
	if f, got, release, err = n.kernelBind(family, kind, at, wide, reusePort); wide && errors.Is(err, syscall.EAFNOSUPPORT) {
		return n.kernelBind(AF_INET, kind, at, false, reusePort) // a kernel without IPv6
	}
	return f, got, release, err
}

func (n *Net) kernelBind(family, kind int, at netip.AddrPort, wide, reusePort bool) (*os.File, netip.AddrPort, func(), error) {
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(anyOf(family), at.Port())
	}
	fail := func(call string, err error) (*os.File, netip.AddrPort, func(), error) {
		return nil, at, nil, os.NewSyscallError(call, err)
	}
	if at.Port() == 0 {
		port, err := n.freePort(family, kind, at, wide)
		if err != nil {
			return fail("bind", err)
		}
		at = netip.AddrPortFrom(at.Addr(), port)
	}
	fd, err := n.openListener(family, kind, wide, reusePort)
	if err != nil {
		return fail("socket", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	call := "bind"
	bind := func() error {
		if err := unix.Bind(fd, sockaddr(family, at)); err != nil || kind == SOCK_DGRAM {
			return err
		}
		call = "listen"
		return unix.Listen(fd, goBacklog)
	}
	proto := wire.ProtocolTCP
	if kind == SOCK_DGRAM {
		proto = wire.ProtocolUDP
		if err := wantControl(fd, family); err != nil {
			f.Close()
			return nil, at, nil, err
		}
	}
	release := func() {}
	if family == AF_INET || wide {
		release, err = n.kernel.Share(proto, at, fd, bind)
	} else {
		err = bind()
	}
	if err != nil {
		f.Close()
		return fail(call, err)
	}
	return f, at, release, nil
}

// openListener opens a socket with the options that the net package gives its own.
func (n *Net) openListener(family, kind int, wide, reusePort bool) (fd int, err error) {
	if fd, err = n.kernel.Socket(family, kind); err != nil {
		return -1, err
	}
	set := func(level, name int, on bool) {
		v := 0
		if on {
			v = 1
		}
		if err == nil {
			err = unix.SetsockoptInt(fd, level, name, v)
		}
	}
	if family == unix.AF_INET6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, !wide)
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, kind == SOCK_STREAM)
	set(unix.SOL_SOCKET, unix.SO_REUSEPORT, reusePort)
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

// freePort is one that the kernel says is free. A socket that got it with the number would lose it when it stops listening.
func (n *Net) freePort(family, kind int, at netip.AddrPort, wide bool) (uint16, error) {
	fd, err := n.openListener(family, kind, wide, false)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(family, at)); err != nil {
		return 0, err
	}
	name, err := unix.Getsockname(fd)
	return addrPortOf(name).Port(), err
}

// kernelError is what an error of a kernel conn's is about, under the name of the network that the user gave.
func kernelError(network string, err error) error {
	var o *net.OpError
	if err == nil || !errors.As(err, &o) {
		return err
	}
	o.Net = network
	return err
}

// innerError is what is inside a net.OpError.
func innerError(err error) error {
	var o *net.OpError
	if errors.As(err, &o) {
		err = o.Err
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrClosed):
		return net.ErrClosed
	}
	return err
}

// isWide reports whether a network is of both families.
func isWide(network string) bool {
	return !strings.HasSuffix(network, "4") && !strings.HasSuffix(network, "6")
}

// queues is how many bytes wait in a kernel socket to be read, and to be sent or acknowledged.
func queues(raw syscall.RawConn) (read, write int) {
	_ = raw.Control(func(fd uintptr) {
		read, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		write, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	})
	return read, write
}

// errNoFile is why a conn of the stack has no File.
var errNoFile error = noFile{}

type noFile struct{}

func (noFile) Error() string {
	return "a socket of kit's has no file descriptor, as its packets do not pass the kernel: share the conn itself, and set options by " +
		"its methods or by SyscallConn's Control"
}
func (noFile) Unwrap() error { return syscall.EOPNOTSUPP }
