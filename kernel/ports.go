package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// Steer brings the packets for a port to kit. proto is an IP protocol number: 6 TCP, 17 UDP, 1 ICMP, whose port is the
// identifier of an echo request.
type Steer interface {
	BindPort(proto uint8, addr netip.Addr, port uint16) error
	UnbindPort(proto uint8, addr netip.Addr, port uint16) error
}

// PortsConfig describes Ports.
type PortsConfig struct {
	Steer  Steer
	Logger *slog.Logger // nil: silent
}

// Ports implements stack.Ports for addresses that are the kernel's too. Every port is first taken in the kernel, by a socket
// that is bound, never read, and drops what still reaches it; only then it is steered. So the kernel decides who gets a port,
// by its own rules: EADDRINUSE when another program has it (a TCP port also for the minute in which the kernel keeps closed
// connections of it, TIME-WAIT), EACCES below net.ipv4.ip_unprivileged_port_start without CAP_NET_BIND_SERVICE,
// EADDRNOTAVAIL when the address is not the kernel's. The other way round a program that binds a port of kit's gets
// EADDRINUSE.
//
// An ICMP identifier is taken by a ping socket, for all addresses at once, where net.ipv4.ping_group_range lets this process
// have one. Elsewhere nobody can take one, and identifiers are only unique within Ports. Neither keeps out a ping program
// with a raw socket: such programs take replies without asking anybody.
//
// Each port costs a file descriptor; where RLIMIT_NOFILE does not suffice it is raised.
type Ports struct {
	Sockets // in the same namespace

	steer Steer
	log   *slog.Logger

	mu       sync.Mutex
	held     map[portKey]*heldPort
	shares   []*share
	pingless bool // ping sockets are not for this process, which has been logged
	closed   bool
}

type portKey struct {
	proto wire.Protocol
	addr  netip.Addr
	port  uint16
}

func (k portKey) String() string {
	if k.proto == wire.ProtocolICMP {
		return fmt.Sprintf("ICMP identifier %d on %s", k.port, k.addr)
	}
	if !k.addr.IsValid() {
		return fmt.Sprintf("%s port %d on every address", k.proto, k.port)
	}
	return fmt.Sprintf("%s port %d on %s", k.proto, k.port, k.addr)
}

type heldPort struct {
	socket *os.File // nil: an ICMP identifier that the kernel does not keep, or share holds it
	share  *share
	users  int
}

var (
	_ stack.Ports = (*Ports)(nil)
	_ stack.Ports = (*OwnedPorts)(nil)
)

// NewPorts makes Ports that hold nothing. They take ports in the calling thread's network namespace, whatever threads use
// them later; a thread stays in it until Close.
func NewPorts(cfg PortsConfig) (*Ports, error) {
	p := &Ports{steer: cfg.Steer, log: cfg.Logger, held: make(map[portKey]*heldPort)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("reserve ports in the kernel: %w", err)
	}
	return p, nil
}

// Reserve takes a port in the kernel and steers it to kit; 0 takes one that the kernel says is free. It returns the port. One
// that is held already gets one user more. The error names the port, says what to do, and wraps the kernel's errno (see Ports),
// EAFNOSUPPORT for an address that is not IPv4, EPROTONOSUPPORT, EBADF after Close, or what Steer has said.
func (p *Ports) Reserve(proto wire.Protocol, addr netip.Addr, port uint16) (uint16, error) {
	key := portKey{proto, addr.Unmap(), port}
	if !key.addr.Is4() {
		return 0, fmt.Errorf("reserve %s: it is not an IPv4 address: %w", key, unix.EAFNOSUPPORT)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, fmt.Errorf("reserve %s: ports are no longer given out: %w", key, unix.EBADF)
	}
	if h := p.held[key]; h != nil {
		h.users++
		return port, nil
	}
	h := &heldPort{share: p.shareOf(key), users: 1}
	if h.share == nil {
		var err error
		if h.socket, err = p.take(&key); err != nil {
			return 0, err
		}
	}
	if err := p.steer.BindPort(uint8(proto), key.addr, key.port); err != nil {
		if h.socket != nil {
			h.socket.Close()
		}
		return 0, fmt.Errorf("steer %s: %w", key, err)
	}
	if h.share != nil {
		h.share.users++
	}
	p.held[key] = h
	return key.port, nil
}

// Release ends one use of a port; with the last, it is no longer steered and then given back to the kernel.
func (p *Ports) Release(proto wire.Protocol, addr netip.Addr, port uint16) {
	key := portKey{proto, addr.Unmap(), port}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.held[key]
	if h == nil {
		return
	}
	if h.users--; h.users == 0 {
		p.drop(key, h)
	}
}

// Resteer calls bind, as Steer's BindPort, for the ports that are held on these addresses: one that was away has lost them.
func (p *Ports) Resteer(addrs []netip.Prefix, bind func(proto uint8, addr netip.Addr, port uint16) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.held {
		if !slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Addr() == key.addr }) {
			continue
		}
		if err := bind(uint8(key.proto), key.addr, key.port); err != nil {
			p.log.Warn("a port whose address came back is not steered", "port", key.String(), "error", err)
		}
	}
}

// drop stops steering first: the other way round another program could get a port whose packets do not reach it.
func (p *Ports) drop(key portKey, h *heldPort) {
	delete(p.held, key)
	if err := p.steer.UnbindPort(uint8(key.proto), key.addr, key.port); err != nil {
		p.log.Warn("a port that was given back may still be steered to kit", "port", key.String(), "error", err)
	}
	if h.socket != nil {
		h.socket.Close()
	}
	if h.share != nil {
		h.share.users--
		p.forget(h.share)
	}
}

// Close releases all ports, whoever uses them. Reserve fails afterwards.
func (p *Ports) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for key, h := range p.held {
		p.drop(key, h)
	}
	return p.Sockets.Close()
}

// SyscallConn gives access to the kernel socket that holds a port, to set options on it. Errors: ENOENT when the port is not
// held; EOPNOTSUPP for an ICMP identifier that the kernel does not keep.
func (p *Ports) SyscallConn(proto wire.Protocol, addr netip.Addr, port uint16) (syscall.RawConn, error) {
	key := portKey{proto, addr.Unmap(), port}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.held[key]
	if h == nil {
		return nil, fmt.Errorf("the kernel socket of %s: the port is not reserved: %w", key, unix.ENOENT)
	}
	if h.share != nil {
		return h.share.socket.SyscallConn()
	}
	if h.socket == nil {
		return nil, fmt.Errorf("the kernel socket of %s: the kernel does not keep identifiers for this process: %w", key, unix.EOPNOTSUPP)
	}
	return h.socket.SyscallConn()
}

// take binds a kernel socket to key and fills in the port where that is 0.
func (p *Ports) take(key *portKey) (*os.File, error) {
	kind := unix.SOCK_DGRAM
	switch key.proto {
	case wire.ProtocolUDP:
	case wire.ProtocolTCP:
		kind = unix.SOCK_STREAM
	case wire.ProtocolICMP:
		if p.pingless {
			return nil, p.takeID(key)
		}
	default:
		return nil, fmt.Errorf("reserve %s: only UDP, TCP and ICMP have ports: %w", key, unix.EPROTONOSUPPORT)
	}
	fd, err := p.socket(kind, int(key.proto))
	if key.proto == wire.ProtocolICMP && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPROTONOSUPPORT)) {
		p.pingless = true
		p.log.Info("ICMP identifiers can't be reserved in the kernel: they are unique in kit only; to reserve them, " +
			"let this process's group into net.ipv4.ping_group_range")
		return nil, p.takeID(key)
	}
	if err != nil {
		return nil, fmt.Errorf("reserve %s: %w%s", key, err, advice(err))
	}
	if err := bind(fd, key); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("reserve %s: %w%s", key, err, advice(err))
	}
	return os.NewFile(uintptr(fd), key.String()), nil
}

// advice says what the operator can do about an error of the kernel's.
func advice(err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "; another program has it, `ss -anp` says which, or a TCP port was in use less than a minute ago"
	case errors.Is(err, unix.EACCES):
		return "; it is below net.ipv4.ip_unprivileged_port_start and takes CAP_NET_BIND_SERVICE"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "; the kernel does not have this address, `ip address` lists what it has"
	case errors.Is(err, unix.EMFILE):
		return "; each port takes a file descriptor: raise the limit (ulimit -n, LimitNOFILE=)"
	case errors.Is(err, unix.ENFILE):
		return "; the whole system is out of file descriptors: raise fs.file-max"
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return "; the kernel has no memory for one more socket"
	}
	return ""
}

// dropAll is a classic BPF program that lets nothing through: what reaches the socket before the port is steered, or where
// no XDP program runs, is dropped at once and fills no queue.
var dropAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}

// bind binds a socket as key says and reads back the port.
func bind(fd int, key *portKey) error {
	prog := unix.SockFprog{Len: uint16(len(dropAll)), Filter: &dropAll[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("attach a filter: %w", err)
	}
	// A ping socket is made with SO_REUSEADDR on (INET_PROTOSW_REUSE in net/ipv4/af_inet.c), with which several share an
	// identifier.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0); err != nil {
		return fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(key.port), Addr: key.addr.As4()}); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if in, ok := name.(*unix.SockaddrInet4); ok {
		key.port = uint16(in.Port)
	}
	return nil
}

// takeID chooses an identifier where the kernel keeps none. One that is held does not come here.
func (p *Ports) takeID(key *portKey) error {
	if key.port != 0 {
		return nil
	}
	return pick(key, 1, 1<<16-1, p.held)
}

// pick fills in a free port from first to last, beginning at a random one (RFC 6056 §3.3.1).
func pick[H any](key *portKey, first, last int, held map[portKey]H) error {
	n := last - first + 1
	start := rand.IntN(n)
	for i := range n {
		key.port = uint16(first + (start+i)%n)
		if _, ok := held[*key]; !ok {
			return nil
		}
	}
	key.port = 0
	return fmt.Errorf("reserve %s: all from %d to %d are taken: %w", key, first, last, unix.EADDRINUSE)
}

// socket opens a socket, and raises the limit of open files where that is in the way.
func (p *Ports) socket(kind, proto int) (int, error) {
	fd, err := p.open(unix.AF_INET, kind, proto)
	if errors.Is(err, unix.EMFILE) && p.raiseLimit() {
		fd, err = p.open(unix.AF_INET, kind, proto)
	}
	return fd, err
}
