package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack/wire"
)

const (
	udp  = wire.ProtocolUDP
	tcp  = wire.ProtocolTCP
	icmp = wire.ProtocolICMP
)

// steering is a Steer that remembers. check, when set, is called before each change.
type steering struct {
	mu    sync.Mutex
	bound map[string]bool
	fail  error
	check func(on bool, key string)
}

func newSteering() *steering { return &steering{bound: map[string]bool{}} }

func (s *steering) set(on bool, proto uint8, addr netip.Addr, port uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprintf("%v %v:%d", wire.Protocol(proto), addr, port)
	if s.check != nil {
		s.check(on, key)
	}
	if s.fail != nil {
		return s.fail
	}
	s.bound[key] = on
	if !on {
		delete(s.bound, key)
	}
	return nil
}

func (s *steering) BindPort(proto uint8, addr netip.Addr, port uint16) error {
	return s.set(true, proto, addr, port)
}

func (s *steering) UnbindPort(proto uint8, addr netip.Addr, port uint16) error {
	return s.set(false, proto, addr, port)
}

func (s *steering) keys() (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.bound {
		keys = append(keys, k)
	}
	return keys
}

// newPorts makes Ports in a namespace.
func newPorts(t *testing.T, n *netlab.Namespace, cfg PortsConfig) (*Ports, *steering) {
	t.Helper()
	s := newSteering()
	cfg.Steer = s
	var p *Ports
	require.NoError(t, n.Do(func() (err error) {
		p, err = NewPorts(cfg)
		return err
	}))
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p, s
}

// bindKernel binds a kernel socket as another program does, and returns its end.
func bindKernel(n *netlab.Namespace, proto wire.Protocol, addr string) (interface{ Close() error }, error) {
	if proto == udp {
		return n.ListenPacket("udp4", addr)
	}
	return n.Listen("tcp4", addr) // with SO_REUSEADDR, as servers do
}

// TestResteer: what is held is steered again, and nothing that was released.
func TestResteer(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	for _, port := range []uint16{7, 8} {
		_, err := p.Reserve(udp, l.Left.Addr(), port)
		require.NoError(t, err)
	}
	p.Release(udp, l.Left.Addr(), 8)
	s.bound = map[string]bool{}
	p.Resteer([]netip.Prefix{netip.MustParsePrefix("10.99.0.1/24")}, s.BindPort)
	require.Empty(t, s.keys())
	p.Resteer([]netip.Prefix{netip.PrefixFrom(l.Left.Addr(), 24)}, s.BindPort)
	require.Equal(t, []string{fmt.Sprintf("%v %v:7", udp, l.Left.Addr())}, s.keys())
}

func TestReserveKeepsOthersOut(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	for _, proto := range []wire.Protocol{udp, tcp} {
		port, err := p.Reserve(proto, l.Left.Addr(), 7)
		require.NoError(t, err)
		require.EqualValues(t, 7, port)
		require.Equal(t, []string{proto.String() + " 10.77.0.1:7"}, s.keys())
		for _, addr := range []string{"10.77.0.1:7", "0.0.0.0:7"} {
			_, err := bindKernel(l.Left, proto, addr)
			require.ErrorIs(t, err, unix.EADDRINUSE, "%v %s", proto, addr)
		}
		for _, addr := range []string{"127.0.0.1:7", "10.77.0.1:8"} {
			c, err := bindKernel(l.Left, proto, addr)
			require.NoError(t, err, "%v %s is not ours", proto, addr)
			require.NoError(t, c.Close())
		}
		p.Release(proto, l.Left.Addr(), 7)
		require.Empty(t, s.keys())
		c, err := bindKernel(l.Left, proto, "10.77.0.1:7")
		require.NoError(t, err, "a port that was given back is the kernel's again")
		require.NoError(t, c.Close())
	}
}

func TestReserveOfWhatOthersHave(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	for _, proto := range []wire.Protocol{udp, tcp} {
		for _, addr := range []string{"10.77.0.1:7", "0.0.0.0:7"} {
			c, err := bindKernel(l.Left, proto, addr)
			require.NoError(t, err)
			_, err = p.Reserve(proto, l.Left.Addr(), 7)
			require.ErrorIs(t, err, unix.EADDRINUSE)
			require.ErrorContains(t, err, proto.String()+" port 7 on 10.77.0.1")
			require.Empty(t, s.keys(), "what is not reserved is not steered")
			require.NoError(t, c.Close())
			_, err = p.Reserve(proto, l.Left.Addr(), 7)
			require.NoError(t, err)
			p.Release(proto, l.Left.Addr(), 7)
		}
	}
}

func TestReserveErrors(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	_, err := p.Reserve(udp, netip.MustParseAddr("10.77.0.77"), 7)
	require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
	_, err = p.Reserve(udp, netip.MustParseAddr("fe80::1"), 7)
	require.ErrorIs(t, err, unix.EAFNOSUPPORT)
	_, err = p.Reserve(udp, netip.Addr{}, 7)
	require.ErrorIs(t, err, unix.EAFNOSUPPORT)
	_, err = p.Reserve(wire.Protocol(132), l.Left.Addr(), 7)
	require.ErrorIs(t, err, unix.EPROTONOSUPPORT)

	s.fail = unix.ENOSPC
	_, err = p.Reserve(udp, l.Left.Addr(), 7)
	require.ErrorIs(t, err, unix.ENOSPC)
	c, err := bindKernel(l.Left, udp, "10.77.0.1:7")
	require.NoError(t, err, "what can't be steered is given back")
	require.NoError(t, c.Close())
	s.fail = nil

	p.Release(udp, l.Left.Addr(), 7) // of nothing
	_, err = p.SyscallConn(udp, l.Left.Addr(), 7)
	require.ErrorIs(t, err, unix.ENOENT)

	_, err = p.Reserve(udp, l.Left.Addr(), 7)
	require.NoError(t, err)
	require.NoError(t, p.Close())
	require.Empty(t, s.keys())
	_, err = p.Reserve(udp, l.Left.Addr(), 8)
	require.ErrorIs(t, err, unix.EBADF)
	require.NoError(t, p.Close())
}

// A port below net.ipv4.ip_unprivileged_port_start takes CAP_NET_BIND_SERVICE.
func TestReserveOfAPrivilegedPort(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	require.NoError(t, l.Left.Do(func() error {
		// Do's thread goes back to the runtime, so the capability is given back too.
		defer dropCapability(t, unix.CAP_NET_BIND_SERVICE)()
		_, err := p.Reserve(udp, l.Left.Addr(), 7)
		require.ErrorIs(t, err, unix.EACCES)
		require.ErrorContains(t, err, "CAP_NET_BIND_SERVICE")
		_, err = p.Reserve(udp, l.Left.Addr(), 7777)
		require.NoError(t, err)
		return nil
	}))
	require.Equal(t, []string{"udp 10.77.0.1:7777"}, s.keys())
}

// Where the limit of open files can't be raised, the error says so. This takes a process of its own: lowering the hard limit
// is for ever.
func TestReserveBeyondTheLimitOfFiles(t *testing.T) {
	const inChild = "KIT_TEST_LIMIT_OF_FILES"
	if os.Getenv(inChild) == "" {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), inChild+"=1")
		out, err := child.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 128}, nil))
	p, err := NewPorts(PortsConfig{Steer: newSteering()})
	require.NoError(t, err)
	defer p.Close()
	reserve := func(most int) (reserved int, err error) {
		for ; err == nil && reserved < most; reserved++ {
			_, err = p.Reserve(udp, netip.MustParseAddr("127.0.0.1"), 0)
		}
		return reserved, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if hasCapability(t, unix.CAP_SYS_RESOURCE) {
		_, err := reserve(200)
		require.NoError(t, err, "the hard limit is raised too")
		dropCapability(t, unix.CAP_SYS_RESOURCE)
	}
	reserved, err := reserve(1 << 20)
	require.ErrorIs(t, err, unix.EMFILE)
	require.ErrorContains(t, err, "LimitNOFILE")
	require.Greater(t, reserved, 64, "the hard limit is reached")
}

func hasCapability(t *testing.T, capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &have[0]))
	return have[capability/32].Effective&(1<<(capability%32)) != 0
}

// limitFiles lowers the soft limit of open files; the function that it returns sets it back.
func limitFiles(t *testing.T, most uint64) (restore func()) {
	var before unix.Rlimit
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &before))
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: before.Max}, nil))
	return func() { require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &before, nil)) }
}

// dropCapability takes a capability from the calling thread; the function that it returns gives it back.
func dropCapability(t *testing.T, capability int) (restore func()) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &before[0]))
	without := before
	without[capability/32].Effective &^= 1 << (capability % 32)
	require.NoError(t, unix.Capset(&header, &without[0]))
	return func() { require.NoError(t, unix.Capset(&header, &before[0])) }
}

// First reserved, then steered; first no longer steered, then given back.
func TestOrderOfReservingAndSteering(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	var calls []bool
	s.check = func(on bool, key string) {
		calls = append(calls, on)
		_, err := bindKernel(l.Left, udp, "10.77.0.1:7")
		require.ErrorIs(t, err, unix.EADDRINUSE, "the kernel holds the port for us whenever steering changes")
	}
	_, err := p.Reserve(udp, l.Left.Addr(), 7)
	require.NoError(t, err)
	p.Release(udp, l.Left.Addr(), 7)
	require.Equal(t, []bool{true, false}, calls)
}

func TestUsersAreCounted(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	for range 3 {
		_, err := p.Reserve(udp, l.Left.Addr(), 7)
		require.NoError(t, err)
	}
	for range 2 {
		p.Release(udp, l.Left.Addr(), 7)
		require.Len(t, s.keys(), 1)
	}
	p.Release(udp, l.Left.Addr(), 7)
	require.Empty(t, s.keys())
}

func TestPortZeroIsWhatTheKernelSaysIsFree(t *testing.T) {
	l := lab(t)
	require.NoError(t, l.Left.Sysctl("net.ipv4.ip_local_port_range", "40000 40009"))
	p, s := newPorts(t, l.Left, PortsConfig{})
	for _, proto := range []wire.Protocol{udp, tcp} {
		c, err := bindKernel(l.Left, proto, "10.77.0.1:40004")
		require.NoError(t, err)
		seen := map[uint16]bool{40004: true}
		for range 9 {
			port, err := p.Reserve(proto, l.Left.Addr(), 0)
			require.NoError(t, err)
			require.False(t, seen[port], "port %d is given out twice", port)
			seen[port] = true
			require.Contains(t, s.keys(), fmt.Sprintf("%v 10.77.0.1:%d", proto, port))
		}
		_, err = p.Reserve(proto, l.Left.Addr(), 0)
		require.ErrorIs(t, err, unix.EADDRINUSE)
		require.NoError(t, c.Close())
	}
}

// A thousand ports take a thousand descriptors, whatever the limit was before.
func TestAThousandPorts(t *testing.T) {
	l := lab(t)
	defer limitFiles(t, 128)()

	var log logged
	p, s := newPorts(t, l.Left, PortsConfig{Logger: log.logger()})
	for port := range uint16(1000) {
		_, err := p.Reserve(udp, l.Left.Addr(), 20000+port)
		require.NoError(t, err)
	}
	require.Len(t, s.keys(), 1000)
	require.NotZero(t, log.count("limit of open files was raised"))
	_, err := bindKernel(l.Left, udp, "10.77.0.1:20999")
	require.ErrorIs(t, err, unix.EADDRINUSE)
	require.NoError(t, p.Close())
	require.Empty(t, s.keys())
	c, err := bindKernel(l.Left, udp, "10.77.0.1:20999")
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestAdvice(t *testing.T) {
	for _, errno := range []error{
		unix.EADDRINUSE, unix.EACCES, unix.EADDRNOTAVAIL, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM,
	} {
		require.NotEmpty(t, advice(fmt.Errorf("bind: %w", errno)), errno)
	}
	require.Empty(t, advice(unix.EINVAL))
}

// What reaches the reserving socket before its port is steered is dropped, and is not answered with an ICMP error.
func TestNothingQueuesOnTheReservingSocket(t *testing.T) {
	l := lab(t)
	p, _ := newPorts(t, l.Left, PortsConfig{})
	_, err := p.Reserve(udp, l.Left.Addr(), 7)
	require.NoError(t, err)
	c, err := l.Right.Dial(context.Background(), "udp4", "10.77.0.1:7")
	require.NoError(t, err)
	defer c.Close()
	for range 100 {
		_, err = c.Write([]byte("to nobody"))
		require.NoError(t, err, "and not ECONNREFUSED")
	}
	var line []string
	dropped := func() bool {
		table, err := l.Left.Run(context.Background(), "cat", "/proc/net/udp")
		require.NoError(t, err)
		for _, text := range strings.Split(string(table), "\n") {
			if f := strings.Fields(text); len(f) == 13 && f[1] == "01004D0A:0007" {
				line = f
			}
		}
		return line != nil && line[12] == "100"
	}
	eventually(t, dropped, func() string { return fmt.Sprintf("want 100 drops, have the socket %v", line) })
	require.Equal(t, "00000000:00000000", line[4], "bytes in the queues")
}

func TestSyscallConn(t *testing.T) {
	l := lab(t)
	p, _ := newPorts(t, l.Left, PortsConfig{})
	port, err := p.Reserve(tcp, l.Left.Addr(), 0)
	require.NoError(t, err)
	raw, err := p.SyscallConn(tcp, l.Left.Addr(), port)
	require.NoError(t, err)
	var name unix.Sockaddr
	require.NoError(t, raw.Control(func(fd uintptr) { name, err = unix.Getsockname(int(fd)) }))
	require.NoError(t, err)
	require.Equal(t, &unix.SockaddrInet4{Port: int(port), Addr: l.Left.Addr().As4()}, name)
}

func TestPingIdentifiers(t *testing.T) {
	l := lab(t)
	require.NoError(t, l.Left.Sysctl("net.ipv4.ping_group_range", "0 0"))
	var log logged
	p, s := newPorts(t, l.Left, PortsConfig{Logger: log.logger()})
	id, err := p.Reserve(icmp, l.Left.Addr(), 4711)
	require.NoError(t, err)
	require.EqualValues(t, 4711, id)
	require.Equal(t, []string{"icmp 10.77.0.1:4711"}, s.keys())
	_, err = bindPing(l.Left, 4711)
	require.ErrorIs(t, err, unix.EADDRINUSE)
	other, err := bindPing(l.Left, 4712)
	require.NoError(t, err)
	_, err = p.Reserve(icmp, l.Left.Addr(), 4712)
	require.ErrorIs(t, err, unix.EADDRINUSE)
	require.ErrorContains(t, err, "ICMP identifier 4712 on 10.77.0.1")
	require.NoError(t, other.Close())

	free, err := p.Reserve(icmp, l.Left.Addr(), 0)
	require.NoError(t, err)
	require.NotZero(t, free)
	require.NotEqual(t, id, free)
	_, err = p.SyscallConn(icmp, l.Left.Addr(), free)
	require.NoError(t, err)
	p.Release(icmp, l.Left.Addr(), 4711)
	other, err = bindPing(l.Left, 4711)
	require.NoError(t, err)
	require.NoError(t, other.Close())
	require.Zero(t, log.count("ICMP"))
}

// bindPing binds a kernel ping socket to an identifier, as ping(8) does.
func bindPing(n *netlab.Namespace, id int) (f *os.File, err error) {
	return f, n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "ping")
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: id}); err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	})
}

// Where this process may not have ping sockets, as by default, identifiers are kit's own business.
func TestPingIdentifiersWithoutPingSockets(t *testing.T) {
	l := lab(t)
	require.NoError(t, l.Left.Sysctl("net.ipv4.ping_group_range", "1 0"))
	var log logged
	p, s := newPorts(t, l.Left, PortsConfig{Logger: log.logger()})
	seen := map[uint16]bool{}
	for range 1000 {
		id, err := p.Reserve(icmp, l.Left.Addr(), 0)
		require.NoError(t, err)
		require.False(t, seen[id] || id == 0)
		seen[id] = true
	}
	require.Len(t, s.keys(), 1000)
	require.Equal(t, 1, log.count("ping_group_range"), "it is told once")
	for id := range seen {
		_, err := p.SyscallConn(icmp, l.Left.Addr(), id)
		require.ErrorIs(t, err, unix.EOPNOTSUPP)
		p.Release(icmp, l.Left.Addr(), id)
	}
	require.Empty(t, s.keys())
	id, err := p.Reserve(icmp, l.Left.Addr(), 4711)
	require.NoError(t, err)
	require.EqualValues(t, 4711, id)
}

func TestPortsOfTheProcess(t *testing.T) {
	p, err := NewPorts(PortsConfig{Steer: newSteering()})
	require.NoError(t, err)
	defer p.Close()
	loopback := netip.MustParseAddr("127.0.0.1")
	port, err := p.Reserve(udp, loopback, 0)
	require.NoError(t, err)
	_, err = net.ListenPacket("udp4", netip.AddrPortFrom(loopback, port).String())
	require.ErrorIs(t, err, unix.EADDRINUSE)
}

func TestPortsFromManyGoroutines(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 50 {
				port, err := p.Reserve(udp, l.Left.Addr(), 0)
				if err == nil {
					p.Release(udp, l.Left.Addr(), port)
				}
				fixed := uint16(5000 + g%2)
				if _, err := p.Reserve(tcp, l.Left.Addr(), fixed); err == nil {
					p.Release(tcp, l.Left.Addr(), fixed)
				}
			}
		})
	}
	wg.Wait()
	require.Empty(t, s.keys())
	require.Empty(t, p.held)
}

func TestOwnedPorts(t *testing.T) {
	s := newSteering()
	p := NewOwnedPorts(s)
	addr := netip.MustParseAddr("10.0.0.5")
	for range 2 {
		port, err := p.Reserve(udp, addr, 68)
		require.NoError(t, err)
		require.EqualValues(t, 68, port)
	}
	for _, proto := range []wire.Protocol{tcp, icmp} {
		_, err := p.Reserve(proto, addr, 68)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"udp 10.0.0.5:68"}, s.keys(), "only UDP is broadcast")
	p.Release(udp, addr, 68)
	require.Len(t, s.keys(), 1)
	p.Release(udp, addr, 68)
	p.Release(udp, addr, 68)
	p.Release(tcp, addr, 68)
	require.Empty(t, s.keys())

	_, err := p.Reserve(udp, netip.MustParseAddr("fe80::1"), 68)
	require.ErrorIs(t, err, unix.EAFNOSUPPORT)
	s.fail = unix.ENOSPC
	_, err = p.Reserve(udp, addr, 68)
	require.ErrorIs(t, err, unix.ENOSPC)
	s.fail = nil

	seen := map[uint16]bool{}
	for range lastDynamic - firstDynamic + 1 {
		port, err := p.Reserve(tcp, addr, 0)
		require.NoError(t, err)
		require.False(t, seen[port] || port < firstDynamic)
		seen[port] = true
	}
	_, err = p.Reserve(tcp, addr, 0)
	require.ErrorIs(t, err, unix.EADDRINUSE)
}
