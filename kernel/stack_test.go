package kernel

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// stackSink is what kit makes of a stack's interface.
type stackSink struct{ *stack.Interface }

func (stackSink) LinkState(bool, int, [6]byte) {}

// sharedStack is a stack that shares the addresses of the left side's first interface. What it sends arrives at the second
// end of a wire in memory.
func sharedStack(t *testing.T, l *netlab.Lab) (s *stack.Stack, i *stack.Interface, peer *linktest.End) {
	t.Helper()
	w := linktest.New(linktest.Config{RealTime: true})
	s = stack.New(stack.Config{})
	f := newFollower(t, l.Left, FollowerConfig{})
	p, _ := newPorts(t, l.Left, PortsConfig{})
	i, err := s.AddInterface(stack.InterfaceConfig{
		Name: "left0", Links: []stack.Link{w.End(0)}, Addresses: f.Addresses(), Ports: p, Resolver: f,
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() {
		require.NoError(t, f.Close()) // before the engines that it speaks to
		require.NoError(t, s.Close())
	})
	require.NoError(t, f.Start(stackSink{i}))
	return s, i, w.End(1)
}

func send(t *testing.T, d *stack.Datagram, to string) error {
	t.Helper()
	_, err := d.Write([]stack.Message{{Buf: []byte("hello"), Addr: netip.MustParseAddrPort(to)}})
	return err
}

// A stack that shares the kernel's addresses sends as the kernel would, without a word of ARP or routing of its own.
func TestAStackFollowsTheKernel(t *testing.T) {
	l := twoCables(t)
	require.NoError(t, l.Left.Sysctl("net.ipv4.neigh.left0.retrans_time_ms", "50"))
	ip(t, l.Left, "route add 10.5.0.0/16 via 10.77.0.2", "route add 10.6.0.0/16 via 10.77.1.2")
	s, i, peer := sharedStack(t, l)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}, i.Addresses())
	d := s.NewDatagram(wire.ProtocolUDP)
	defer d.Close()
	require.NoError(t, d.Bind(netip.MustParseAddrPort("0.0.0.0:7")))
	require.Equal(t, netip.MustParseAddrPort("10.77.0.1:7"), d.LocalAddr())
	_, err := bindKernel(l.Left, udp, "10.77.0.1:7")
	require.ErrorIs(t, err, syscall.EADDRINUSE)

	arrives := func() bool {
		frame := peer.Take()
		require.True(t, len(frame) == 0 || string(frame[:6]) == string(l.Right.HardwareAddr()), "% x", frame)
		return len(frame) > 0
	}
	for _, to := range []string{"10.77.0.2:9", "10.5.6.7:9"} {
		require.NoError(t, send(t, d, to))
		eventually(t, arrives, func() string { return "what was sent to " + to + " does not arrive" })
	}
	require.ErrorIs(t, send(t, d, "10.6.0.1:9"), syscall.ENETUNREACH, "its route leads over another interface")
	require.ErrorIs(t, send(t, d, "10.7.0.1:9"), syscall.ENETUNREACH, "no route")
	ip(t, l.Left, "route add default via 10.77.0.2")
	eventually(t, func() bool { return send(t, d, "10.7.0.1:9") == nil }, func() string { return "a new route is not used" })
	eventually(t, arrives, func() string { return "what was sent by a new route does not arrive" })

	d = s.NewDatagram(wire.ProtocolUDP)
	defer d.Close()
	require.NoError(t, d.Connect(netip.MustParseAddrPort("10.77.0.99:9"))) // only a connected socket is told
	require.NoError(t, send(t, d, "10.77.0.99:9"))
	eventually(t, func() bool { return d.TakeError() == syscall.EHOSTUNREACH }, func() string { return "the failed neighbour is not told" })
}

// While packets flow, a neighbour that has gone stale in the kernel is confirmed, and nothing is lost or given up meanwhile,
// although the kernel takes longer before it asks than the stack waits for an answer.
func TestAStackKeepsItsNeighbours(t *testing.T) {
	l := lab(t)
	require.NoError(t, l.Left.Sysctl("net.ipv4.neigh.left0.delay_first_probe_time", "4"))
	s, i, peer := sharedStack(t, l)
	d := s.NewDatagram(wire.ProtocolUDP)
	defer d.Close()
	require.NoError(t, d.Bind(netip.MustParseAddrPort("10.77.0.1:7")))
	sent, arrived := 0, 0
	exchange := func() (state stack.NeighbourState) {
		require.NoError(t, send(t, d, "10.77.0.2:9"))
		sent++
		for peer.Take() != nil {
			arrived++
		}
		for _, n := range i.Neighbours() {
			state = n.State
		}
		require.NotEqual(t, stack.NeighbourFailed, state)
		return state
	}
	reachable := func() bool { return exchange() == stack.NeighbourReachable }
	eventually(t, reachable, func() string { return "it is not found" })
	ip(t, l.Left, fmt.Sprintf("neighbour change 10.77.0.2 lladdr %v nud stale dev left0", l.Right.HardwareAddr()))
	eventually(t, func() bool { return !reachable() }, func() string { return "it does not become stale" })
	began := time.Now()
	eventually(t, reachable, func() string { return "it is not confirmed" })
	require.Greater(t, time.Since(began), 3*time.Second, "the kernel has waited before it asked")
	eventually(t, func() bool { exchange(); return arrived >= sent }, func() string { return fmt.Sprintf("%d of %d arrive", arrived, sent) })
}
