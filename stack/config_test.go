package stack

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// Names that flags, files and JSON use.
func TestModeNames(t *testing.T) {
	require.Equal(t, "shared", Shared.String())
	require.Equal(t, "owned", Owned.String())
	for _, w := range []WaitMode{Adaptive, Busy, Interrupt} {
		got, err := ParseWaitMode(w.String())
		require.NoError(t, err)
		require.Equal(t, w, got)
	}
	_, err := ParseWaitMode("lazy")
	require.EqualError(t, err, `wait mode "lazy" is not known: use adaptive, busy or interrupt`)
}

// A limit that is not given has its default, one that is given is kept.
func TestLimitDefaults(t *testing.T) {
	require.Equal(t, Limits{
		ReassemblyBytes: 4 << 20, ReassemblyTimeout: 30 * time.Second, Neighbours: 8192, NeighbourQueue: 64,
		ICMPErrorsPerSecond: 1000, ReceiveBuffer: 1 << 20, TimeWaits: 1 << 16, SendBuffer: 512 << 10,
	}, Limits{Neighbours: -1}.withDefaults())
	given := Limits{1, 2, 3, 4, 5, 6, 7, 8}
	require.Equal(t, given, given.withDefaults())
}

// What an interface says of itself.
func TestInterfaceAccessors(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Wait = Busy; s.mtu = 1400 })
	require.Equal(t, "eth0", h.iface.Name())
	require.Equal(t, Owned, h.iface.Mode())
	require.Equal(t, Busy, h.iface.WaitMode())
	require.Equal(t, 1400, h.iface.MTU())
	require.Equal(t, net.HardwareAddr(hostMAC[:]), h.iface.HardwareAddr())
	require.False(t, h.iface.Loopback())
	lo := h.Interfaces()[1]
	require.Equal(t, "lo", lo.Name())
	require.Equal(t, Owned, lo.Mode())
	require.True(t, lo.Loopback())
	require.Equal(t, 65535, lo.MTU())
	require.Equal(t, []netip.Prefix{prefix("127.0.0.1/8")}, lo.Addresses())
	require.Equal(t, prefix("127.0.0.0/8"), lo.Routes()[0].Dst)
	require.Empty(t, lo.Neighbours())
}

// A stack without a seed is another one each time; with one it is the same.
func TestSeeds(t *testing.T) {
	port := func(seed uint64) uint16 {
		d := New(Config{Seed: seed}).NewDatagram(wire.ProtocolUDP)
		require.NoError(t, d.Bind(ap("127.0.0.1:0")))
		return d.LocalAddr().Port()
	}
	require.Equal(t, port(1), port(1))
	different := 0
	for range 20 {
		if one, another := port(0), port(0); one != another {
			different++
		}
	}
	require.Greater(t, different, 15)
}

// A socket of a closed stack is closed; a stack that was closed does not start.
func TestClosedStack(t *testing.T) {
	s := New(Config{})
	require.NoError(t, s.Close())
	s.Start()
	d := s.NewDatagram(wire.ProtocolUDP)
	require.Error(t, d.Bind(ap("127.0.0.1:7")))
	require.Error(t, d.Connect(ap("127.0.0.1:7")))
	require.Equal(t, Closed|Readable|Writable, d.Events())
	require.Empty(t, s.Sockets())
}
