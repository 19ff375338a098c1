package stack

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// asked is a Resolver that writes down what it is asked.
type asked []string

func (a *asked) Resolve(addr netip.Addr) { *a = append(*a, addr.String()) }

// take returns what was asked since the last look.
func (a *asked) take() []string {
	s := *a
	*a = nil
	return s
}

func entry(ip string, mac wire.HardwareAddr, state NeighbourState) NeighbourEntry {
	return NeighbourEntry{Addr: netip.MustParseAddr(ip), HardwareAddr: mac[:], State: state}
}

// In shared mode the kernel's neighbours are ours: what it knows is used, what it does not know is asked of it.
func TestSharedNeighbourIsAskedFor(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	s := h.bind("10.0.0.1:7")
	s.writes("1", "10.0.0.2:9")
	s.writes("22", "10.0.0.2:9")
	h.wantIdle("the engine speaks no ARP of its own")
	require.Equal(t, []string{peerIP}, kernel.take(), "one question for two packets")
	h.wait(seconds(1.01))
	require.Equal(t, []string{peerIP}, kernel.take(), "the kernel is asked again after a second")
	h.iface.SetNeighbour(entry(peerIP, peerMAC, NeighbourReachable))
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 2")
	h.wait(seconds(10))
	require.Empty(t, kernel.take())
	require.Zero(t, h.Stats().ARPRequests)
}

// The kernel says that the neighbour does not answer.
func TestSharedNeighbourFails(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	s.writes("1", "")
	h.settle()
	require.Equal(t, []string{peerIP}, kernel.take())
	h.iface.SetNeighbour(NeighbourEntry{Addr: netip.MustParseAddr(peerIP), State: NeighbourFailed})
	s.wantErrno(syscall.EHOSTUNREACH, "the kernel gave up")
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropNeighbourFailed])
	h.wait(seconds(1.1))
	s.writes("2", "")
	h.settle()
	require.Equal(t, []string{peerIP}, kernel.take(), "a new packet is a new question")
	h.iface.SetNeighbour(entry(peerIP, peerMAC, NeighbourReachable))
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
}

// A kernel that answers nothing at all is asked three times.
func TestSharedNeighbourWithoutAnAnswer(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	s.writes("1", "")
	h.wait(seconds(3.1))
	s.wantErrno(syscall.EHOSTUNREACH, "no answer")
	require.Len(t, kernel.take(), 3)
}

// The kernel sends to a stale neighbour for five seconds before it asks (net.ipv4.neigh.*.delay_first_probe_time), and may say
// nothing new at all: a neighbour that it knows is used until it says that it has failed.
func TestSharedStaleNeighbourStaysInUse(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	h.iface.SetNeighbour(entry(peerIP, peerMAC, NeighbourStale))
	h.settle()
	require.Empty(t, kernel.take(), "nobody uses it")
	for range 20 {
		s.writes("x", "")
		h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
		h.wait(seconds(0.5))
		s.wantNothing("it is no failure")
	}
	n := len(kernel.take())
	require.True(t, n >= 8 && n <= 12, "the kernel is asked about once a second: %d times in ten", n)
	h.iface.SetNeighbour(NeighbourEntry{Addr: netip.MustParseAddr(peerIP), State: NeighbourFailed})
	s.writes("x", "")
	s.wantErrno(syscall.EHOSTUNREACH, "now it says so")
	h.wantIdle("nothing goes out")

	h.iface.SetNeighbour(entry(peerIP, peerMAC, NeighbourStale))
	s.writes("x", "")
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
	h.wait(seconds(70))
	require.Empty(t, h.iface.Neighbours(), "not used any more, it is forgotten in the end")
}

// What the kernel tells of neighbours that there is no room for is not kept.
func TestSharedNeighbourTableLimit(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel, func(s *setup) { s.Limits.Neighbours = 2 })
	for _, ip := range []string{peerIP, otherIP, "10.0.0.77"} {
		h.iface.SetNeighbour(entry(ip, peerMAC, NeighbourPermanent))
	}
	require.Len(t, h.iface.Neighbours(), 2)
	h.iface.SetNeighbour(NeighbourEntry{Addr: netip.MustParseAddr("10.0.0.77"), State: NeighbourFailed})
	h.iface.DeleteNeighbour(netip.MustParseAddr("10.0.0.77"))
	require.Len(t, h.iface.Neighbours(), 2)
}

// States that the kernel tells, and what becomes of packets in each.
func TestSharedNeighbourStates(t *testing.T) {
	for _, c := range []struct {
		told, shown NeighbourState
		asks        bool
	}{
		{NeighbourReachable, NeighbourReachable, false},
		{NeighbourPermanent, NeighbourPermanent, false},
		{NeighbourStale, NeighbourStale, true},
		{NeighbourProbe, NeighbourStale, true},
	} {
		t.Run(c.told.String(), func(t *testing.T) {
			var kernel asked
			h := newShared(t, &kernel)
			h.iface.SetNeighbour(entry(peerIP, peerMAC, c.told))
			require.Equal(t, c.shown, h.iface.Neighbours()[0].State)
			h.bind("10.0.0.1:7").writes("x", "10.0.0.2:9")
			h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
			require.Equal(t, c.asks, len(kernel.take()) == 1)
		})
	}
	t.Run("incomplete", func(t *testing.T) {
		var kernel asked
		h := newShared(t, &kernel)
		h.iface.SetNeighbour(NeighbourEntry{Addr: netip.MustParseAddr(peerIP), State: NeighbourIncomplete})
		require.Empty(t, h.iface.Neighbours(), "what the kernel itself looks for is nothing to us")
		h.bind("10.0.0.1:7").writes("x", "10.0.0.2:9")
		h.settle()
		require.Equal(t, []string{peerIP}, kernel.take(), "a packet of ours is asked for all the same")
	})
	t.Run("failed, and nobody waits", func(t *testing.T) {
		var kernel asked
		h := newShared(t, &kernel)
		h.iface.SetNeighbour(NeighbourEntry{Addr: netip.MustParseAddr(peerIP), State: NeighbourFailed})
		require.Empty(t, h.iface.Neighbours())
	})
	t.Run("permanent lasts", func(t *testing.T) {
		var kernel asked
		h := newShared(t, &kernel)
		h.iface.SetNeighbour(entry(peerIP, peerMAC, NeighbourPermanent))
		h.wait(time.Hour)
		h.bind("10.0.0.1:7").writes("x", "10.0.0.2:9")
		h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
		require.Empty(t, kernel.take())
	})
	t.Run("not an entry", func(t *testing.T) {
		var kernel asked
		h := newShared(t, &kernel)
		h.iface.SetNeighbour(NeighbourEntry{Addr: netip.MustParseAddr("fe80::1"), HardwareAddr: peerMAC[:], State: NeighbourReachable})
		h.iface.SetNeighbour(NeighbourEntry{Addr: netip.MustParseAddr(peerIP), State: NeighbourReachable})
		h.iface.SetNeighbour(NeighbourEntry{Addr: netip.MustParseAddr(peerIP), HardwareAddr: make(net.HardwareAddr, 8), State: NeighbourReachable})
		h.iface.DeleteNeighbour(netip.MustParseAddr("fe80::1"))
		require.Empty(t, h.iface.Neighbours())
	})
}

// The kernel forgets a neighbour: packets wait for it again.
func TestSharedNeighbourIsDeleted(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	s := h.bind("10.0.0.1:7")
	h.iface.SetNeighbour(entry(peerIP, peerMAC, NeighbourReachable))
	s.writes("x", "10.0.0.2:9")
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
	h.iface.DeleteNeighbour(netip.MustParseAddr(peerIP))
	s.writes("yy", "10.0.0.2:9")
	h.wantIdle("it is not known any more")
	require.Equal(t, []string{peerIP}, kernel.take())
	h.iface.SetNeighbour(entry(peerIP, otherMAC, NeighbourReachable))
	h.want("02:00:00:00:00:03 10.0.0.1.7 > 10.0.0.2.9: udp 2")
}

// A change of the Ethernet address that the kernel learns is ours at once: no lock time of our own.
func TestSharedNeighbourMoves(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	s := h.bind("10.0.0.1:7")
	h.iface.SetNeighbour(entry(peerIP, peerMAC, NeighbourReachable))
	s.writes("x", "10.0.0.2:9")
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
	h.iface.SetNeighbour(entry(peerIP, otherMAC, NeighbourReachable))
	s.writes("x", "10.0.0.2:9")
	h.want("02:00:00:00:00:03 10.0.0.1.7 > 10.0.0.2.9: udp 1")
}

// The kernel answers ARP for its own address, and what arrives here teaches the engine nothing.
func TestSharedAnswersNoARP(t *testing.T) {
	var kernel asked
	var conflicts int
	h := newShared(t, &kernel, func(s *setup) {
		s.loud = true
		s.OnConflict = func(netip.Addr, net.HardwareAddr) { conflicts++ }
	})
	h.arrives("consumed", whoHas(hostIP))
	require.Empty(t, h.iface.Neighbours())
	h.arrives("consumed", isAt(otherMAC, hostIP), "another host claims the address")
	require.Equal(t, 1, conflicts, "which is told")
	h.wait(seconds(5))
	h.wantIdle("neither answered, nor announced, nor defended")
}

// Tags that the operator or the kernel gives are used.
func TestSharedNeighbourWithVLANs(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	n := entry(peerIP, peerMAC, NeighbourPermanent)
	n.VLANs = []uint16{5, 6, 7}
	h.iface.SetNeighbour(n)
	h.bind("10.0.0.1:7").writes("x", "10.0.0.2:9")
	require.Equal(t, []wire.VLANTag{0x81000005, 0x81000006}, h.take(0).tags(), "two at the most")
	require.Equal(t, []uint16{5, 6}, h.iface.Neighbours()[0].VLANs)
}

// In a table that is full the one entry that nobody needs is found, wherever it stands.
func TestNeighbourEvictionLooksFarEnough(t *testing.T) {
	for n := range 30 {
		h := newHost(t, strange, func(s *setup) { s.Limits.Neighbours = 40; s.Seed = uint64(n + 1) })
		s := h.bind("10.0.0.1:7")
		for n := range 40 {
			ip := netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + n)})
			h.iface.SetNeighbour(entry(ip.String(), peerMAC, NeighbourReachable))
			if n != 17 {
				s.writes("x", netip.AddrPortFrom(ip, 9).String())
			}
		}
		for h.take(0) != nil {
		}
		s.writes("x", "10.0.0.2:9")
		h.want(askPeer)
		require.NotContains(t, h.iface.engines[0].neighbours, addr("10.0.0.27"))
	}
}

// Names of states are those of ip-neighbour(8).
func TestNeighbourStateNames(t *testing.T) {
	var names []string
	for s := NeighbourIncomplete; s <= NeighbourPermanent; s++ {
		names = append(names, s.String())
	}
	require.Equal(t, []string{"incomplete", "reachable", "stale", "probe", "failed", "permanent"}, names)
}
