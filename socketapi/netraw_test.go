package socketapi_test

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// keeper reserves ports in the kernel, as shared mode does, by a listener or a conn of the loopback that stands for each.
type keeper struct {
	kernel
	held map[wire.Protocol]syscall.Conn
}

func (k *keeper) SyscallConn(proto wire.Protocol, _ netip.Addr, _ uint16) (syscall.RawConn, error) {
	return k.held[proto].SyscallConn()
}

// kept is a Net on a card whose ports the kernel holds.
func kept(t *testing.T) (*Net, *keeper) {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	k := &keeper{
		kernel: kernel{taken: map[uint16]error{}},
		held:   map[wire.Protocol]syscall.Conn{wire.ProtocolTCP: tcp.(syscall.Conn), wire.ProtocolUDP: udp.(syscall.Conn)},
	}
	s := stack.New(stack.Config{})
	_, err = s.AddInterface(stack.InterfaceConfig{
		Name: "shared0", Links: []stack.Link{linktest.New(linktest.Config{}).End(0)}, Ports: k,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.NoError(t, tcp.Close())
		require.NoError(t, udp.Close())
	})
	return NewNet(s), k
}

// raw is what SyscallConn returns.
func raw(t *testing.T, c syscall.Conn) syscall.RawConn {
	t.Helper()
	r, err := c.SyscallConn()
	require.NoError(t, err)
	return r
}

// control runs f with a raw conn's descriptor.
func control(t *testing.T, r syscall.RawConn, f func(fd int)) {
	t.Helper()
	called := 0
	require.NoError(t, r.Control(func(fd uintptr) { called++; f(int(fd)) }))
	require.Equal(t, 1, called)
}

// SyscallConn is the kernel's socket that holds the port.
func TestSyscallConnIsTheKeeper(t *testing.T) {
	n, k := kept(t)
	port := func(fd int) int {
		name, err := unix.Getsockname(fd)
		require.NoError(t, err)
		return name.(*unix.SockaddrInet4).Port
	}
	for proto, listen := range map[wire.Protocol]func() syscall.Conn{
		wire.ProtocolTCP: func() syscall.Conn { l, err := n.ListenTCP("tcp", nil); require.NoError(t, err); return l },
		wire.ProtocolUDP: func() syscall.Conn { c, err := n.ListenUDP("udp", nil); require.NoError(t, err); return c },
	} {
		var want int
		control(t, raw(t, k.held[proto]), func(fd int) { want = port(fd) })
		c := listen()
		control(t, raw(t, c), func(fd int) { require.Equal(t, want, port(fd)) })
		require.NoError(t, c.(interface{ Close() error }).Close())
	}
}

// Where the kernel holds no port a socket stands in; data passes neither.
func TestSyscallConnStandIn(t *testing.T) {
	w := openStacks(t, true)
	near, far := w.tcpPair()
	l, u := w.near.listens(), w.near.hearing("udp", ":0")
	for _, c := range []syscall.Conn{near, far, l, u} {
		r := raw(t, c)
		control(t, r, func(fd int) {
			kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
			require.NoError(t, err)
			require.Equal(t, c == syscall.Conn(u), kind == unix.SOCK_DGRAM)
		})
		require.ErrorIs(t, r.Read(func(uintptr) bool { return true }), EOPNOTSUPP)
		require.ErrorIs(t, r.Write(func(uintptr) bool { return true }), EOPNOTSUPP)
	}
	r := raw(t, near)
	require.NoError(t, near.Close())
	wantOpError(t, r.Control(func(uintptr) { t.Error("it is closed") }), "raw-control", "tcp", net.ErrClosed)
}

// What a program sets on the descriptor is set on the conn, and what the conn has is what it finds there.
func TestSyscallConnMirrors(t *testing.T) {
	w := openStacks(t, true)
	near, _ := w.tcpPair()
	st := near.Stream()
	require.NoError(t, near.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 77e9}))
	set := func(fd, level, opt, v int) { require.NoError(t, unix.SetsockoptInt(fd, level, opt, v)) }
	control(t, raw(t, near), func(fd int) {
		for _, o := range []struct{ level, opt, want int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77}, {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.IPPROTO_IP, unix.IP_TTL, 64},
		} {
			v, err := unix.GetsockoptInt(fd, o.level, o.opt)
			require.NoError(t, err)
			require.Equal(t, o.want, v, o)
		}
		set(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		set(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 30000)
		set(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 40000)
		set(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 0)
		set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5)
		set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 6)
		set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 7)
		set(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 8000)
		set(fd, unix.IPPROTO_IP, unix.IP_TTL, 9)
	})
	on, idle, interval, probes := st.KeepAlive()
	require.Equal(t, []any{false, 5.0, 6.0, 7}, []any{on, idle.Seconds(), interval.Seconds(), probes})
	require.Equal(t, []any{false, 8.0, uint8(9)}, []any{st.NoDelay(), st.UserTimeout().Seconds(), st.TTL()})
	require.Equal(t, 40000, st.SendBuffer())

	u := w.near.hearing("udp", ":0")
	require.NoError(t, ipv4.NewPacketConn(u).SetTOS(0xB8), "golang.org/x/net/ipv4 sets it on the descriptor")
	tos, err := ipv4.NewPacketConn(u).TOS()
	require.NoError(t, err)
	require.Equal(t, 0xB8, tos)
	for _, d := range u.Datagrams() {
		require.Equal(t, uint8(0xB8), d.TOS(), "of every address")
	}
}

// Conns that share the kernel's socket have options of their own, however many set them at once.
func TestSyscallConnsAreApart(t *testing.T) {
	w := openStacks(t, true)
	l := w.far.listens()
	var wg sync.WaitGroup
	for i := range 16 {
		_, err := w.near.goNet().Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		c, err := l.AcceptTCP()
		require.NoError(t, err)
		wg.Go(func() {
			r, err := c.SyscallConn()
			if err == nil {
				err = r.Control(func(fd uintptr) {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1000*(i+1))
				})
			}
			if err != nil || c.Stream().UserTimeout().Seconds() != float64(i+1) {
				t.Errorf("conn %d: %v, %v", i, c.Stream().UserTimeout(), err)
			}
		})
	}
	wg.Wait()
}

// QUIC libraries set IP_MTU_DISCOVER on the descriptor, and count on datagrams that are too long for the path to be lost.
func TestSyscallConnKeepsDatagramsWhole(t *testing.T) {
	w := openStacks(t, true)
	for _, fallback := range []bool{false, true} {
		config := ListenConfig{Net: w.near.goNet(), Fallback: fallback}
		c, err := config.ListenPacket(t.Context(), "udp", ":0")
		require.NoError(t, err)
		u := c.(*UDPConn)
		control(t, raw(t, u), func(fd int) {
			require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE))
		})
		for _, d := range u.Datagrams() {
			require.False(t, d.Fragment())
		}
		require.NoError(t, u.Close())
	}
}
