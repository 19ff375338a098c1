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

const (
	broadcastTo = "ff:ff:ff:ff:ff:ff "
	askPeer     = broadcastTo + "arp who-has 10.0.0.2 tell 10.0.0.1"
)

// strange is for scripts that begin without the peer's Ethernet address.
func strange(s *setup) { s.strange = true }

// RFC 826: "?Is the opcode ares_op$REQUEST? … Swap hardware and protocol fields, putting the local hardware and protocol
// addresses in the sender fields. Set the ar$op field to ares_op$REPLY. Send the packet to the (new) target hardware address."
func TestARPRequestIsAnswered(t *testing.T) {
	h := newHost(t, strange)
	h.arrives("answered", whoHas(hostIP))
	f := h.want("arp 10.0.0.1 is-at 02:00:00:00:00:01")
	require.Equal(t, hostMAC, f.ethernet().Src)
	require.Equal(t, peerMAC, f.arp().TargetHardware())
	require.Equal(t, addr(peerIP), f.arp().Target())
	h.wantIdle("one reply")
}

// RFC 826: "If the pair <protocol type, sender protocol address> is already in my translation table, update the sender hardware
// address field of the entry with the new information in the packet and set Merge_flag to true. … ?Am I the target protocol
// address? … If Merge_flag is false, add the triplet".
func TestARPMergeAndAdd(t *testing.T) {
	t.Run("a request for us adds its sender", func(t *testing.T) {
		h := newHost(t, strange)
		h.arrives("answered", whoHas(hostIP))
		h.want("arp 10.0.0.1 is-at 02:00:00:00:00:01")
		h.bind("10.0.0.1:7").writes("hi", "10.0.0.2:7")
		h.want("10.0.0.1.7 > 10.0.0.2.7: udp 2")
		h.wantIdle("the peer was known by its request")
	})
	t.Run("a request for somebody else adds nothing", func(t *testing.T) {
		h := newHost(t, strange)
		h.arrives("arp-not-for-us", whoHas(otherIP))
		require.Empty(t, h.iface.Neighbours())
		h.wantIdle("it is not our address")
	})
	t.Run("a request for somebody else updates its sender", func(t *testing.T) {
		h := newHost(t)
		h.wait(seconds(2))
		h.arrives("consumed", packet{}.arp(wire.ARPRequest, otherMAC, peerIP, wire.HardwareAddr{}, otherIP))
		h.bind("10.0.0.1:7").writes("hi", "10.0.0.2:7")
		h.want("02:00:00:00:00:03 10.0.0.1.7 > 10.0.0.2.7: udp 2")
	})
	t.Run("a reply for us adds its sender", func(t *testing.T) {
		h := newHost(t, strange)
		h.arrives("consumed", isAt(otherMAC, otherIP))
		require.Equal(t, []NeighbourEntry{{
			Addr: netip.MustParseAddr(otherIP), HardwareAddr: otherMAC[:], State: NeighbourReachable,
		}}, h.iface.Neighbours())
	})
	t.Run("a probe adds nothing", func(t *testing.T) { // RFC 5227 §1.1: its sender address is 0.0.0.0
		h := newHost(t, strange)
		h.arrives("answered", packet{}.arp(wire.ARPRequest, peerMAC, "0.0.0.0", wire.HardwareAddr{}, hostIP))
		h.want("arp 10.0.0.1 is-at 02:00:00:00:00:01")
		require.Empty(t, h.iface.Neighbours())
	})
	t.Run("a gratuitous request updates", func(t *testing.T) {
		h := newHost(t)
		h.wait(seconds(2))
		h.arrives("consumed", packet{}.arp(wire.ARPRequest, otherMAC, peerIP, wire.HardwareAddr{}, peerIP))
		require.Equal(t, net.HardwareAddr(otherMAC[:]), h.iface.Neighbours()[0].HardwareAddr)
		h.wantIdle("an announcement has no answer")
	})
	t.Run("a gratuitous reply to all updates", func(t *testing.T) {
		h := newHost(t)
		h.wait(seconds(2))
		h.arrives("consumed", packet{toMAC: wire.HardwareBroadcast}.arp(wire.ARPReply, otherMAC, peerIP, wire.HardwareBroadcast, peerIP))
		require.Equal(t, net.HardwareAddr(otherMAC[:]), h.iface.Neighbours()[0].HardwareAddr)
	})
}

// RFC 826, "Packet Reception": hardware and protocol must be ours; a sender must be a single host.
func TestARPMalformed(t *testing.T) {
	h := newHost(t)
	good := whoHas(hostIP)
	change := func(at int, v byte) []byte {
		f := append([]byte{}, good...)
		f[wire.EthernetLen+at] = v
		return f
	}
	h.arrives("arp-malformed", change(1, 6), "hardware type 6")
	h.arrives("arp-malformed", change(3, 1), "protocol type 0x0801")
	h.arrives("arp-malformed", change(4, 8), "hardware addresses of 8 bytes")
	h.arrives("arp-malformed", change(5, 16), "protocol addresses of 16 bytes")
	h.arrives("arp-malformed", good[:len(good)-1], "cut short")
	h.arrives("arp-malformed", change(8, 3), "the sender's Ethernet address is a group's")
	h.arrives("arp-malformed", change(14, 224), "the sender is a multicast address")
	h.arrives("arp-malformed", packet{}.arp(wire.ARPRequest, peerMAC, "255.255.255.255", wire.HardwareAddr{}, hostIP))
	h.arrives("arp-malformed", packet{fromMAC: peerMAC}.arp(wire.ARPReply, wire.HardwareAddr{}, peerIP, hostMAC, hostIP))
	h.wantIdle("none of them is answered")
	h.arrives("answered", append(good, make([]byte, 18)...), "padding to the least length of a frame")
}

// RFC 826, "Packet Reception", asks for no check of the frame's own source; the answer goes back to where the frame came from,
// but never to a group.
func TestARPReplyNeverGoesToAGroup(t *testing.T) {
	h := newHost(t)
	h.arrives("ip-source", packet{fromMAC: wire.HardwareAddr{1, 0, 0, 0, 0, 9}}.arp(wire.ARPRequest, peerMAC, peerIP, wire.HardwareAddr{}, hostIP))
	h.wantIdle("one request must not bring answers to many")
}

// RFC 1122 §2.3.2.1: "a mechanism to prevent ARP flooding (repeatedly sending an ARP Request for the same IP address, at a high
// rate) MUST be included. The recommended maximum rate is 1 per second per destination."
func TestARPRequestsArePaced(t *testing.T) {
	h := newHost(t, strange)
	s := h.connect("10.0.0.1:7", "10.0.0.2:7")
	for range 5 {
		s.writes("x", "")
	}
	h.want(askPeer)
	h.wantIdle("one request for five packets")
	for range 2 {
		h.wait(seconds(0.99))
		h.wantIdle("not within a second")
		h.wait(seconds(0.02))
		h.want(askPeer)
	}
	require.Equal(t, uint64(3), h.Stats().ARPRequests)
	require.Equal(t, uint64(5), h.Stats().Waiting)
	h.wait(seconds(0.9))
	s.wantNothing("the last try may still be answered")
	h.wait(seconds(0.2))
	s.wantErrno(syscall.EHOSTUNREACH, "three tries went unanswered")
	s.wantNothing("the error is told once")
	require.Zero(t, h.Stats().Waiting)
	require.Equal(t, uint64(5), h.Stats().TxDrops[DropNeighbourFailed])
	h.wantIdle("no fourth try")
}

// RFC 1122 §2.3.2.2: "The link layer SHOULD save (rather than discard) at least one (the latest) packet of each set of packets
// destined to the same unresolved IP address, and transmit the saved packet when the address has been resolved."
func TestARPWaitingPackets(t *testing.T) {
	h := newHost(t, strange, func(s *setup) { s.Limits.NeighbourQueue = 3 })
	s := h.connect("10.0.0.1:7", "10.0.0.2:7")
	for _, p := range []string{"1", "22", "333", "4444", "55555"} {
		s.writes(p, "")
	}
	h.want(askPeer)
	require.Equal(t, 3, h.iface.Neighbours()[0].Queued)
	require.Equal(t, uint64(2), h.Stats().TxDrops[DropNeighbourQueueFull], "the oldest made room")
	h.arrives("consumed", isAt(peerMAC, peerIP))
	h.want("10.0.0.1.7 > 10.0.0.2.7: udp 3")
	h.want("10.0.0.1.7 > 10.0.0.2.7: udp 4")
	h.want("10.0.0.1.7 > 10.0.0.2.7: udp 5")
	h.wantIdle("and in order")
	require.Zero(t, h.Stats().Waiting)
	s.wantNothing("dropping the oldest is no error")
}

// All neighbours together hold no more than neighbourWaiting packets.
func TestARPWaitingPacketsOfAllNeighbours(t *testing.T) {
	h := newHost(t, strange)
	s := h.bind("10.0.0.1:7")
	const hosts = neighbourWaiting/64 + 2
	for n := range hosts {
		for range 64 {
			s.writes("x", netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + n)}), 9).String())
		}
	}
	h.settle()
	require.Equal(t, uint64(neighbourWaiting), h.Stats().Waiting)
	require.Equal(t, uint64(hosts*64-neighbourWaiting), h.Stats().TxDrops[DropNeighbourQueueFull])
	h.wait(seconds(10))
	require.Zero(t, h.Stats().Waiting)
}

// A failure is remembered for a second: what is sent meanwhile fails at once, without another request.
func TestARPFailureIsRemembered(t *testing.T) {
	h := newHost(t, strange)
	s := h.connect("10.0.0.1:7", "10.0.0.2:7")
	s.writes("x", "")
	for range 3 {
		h.want(askPeer)
		h.wait(seconds(1.01))
	}
	s.wantErrno(syscall.EHOSTUNREACH, "no answer")
	require.Equal(t, NeighbourFailed, h.iface.Neighbours()[0].State)
	s.writes("y", "")
	s.wantErrno(syscall.EHOSTUNREACH, "it failed just now")
	h.wantIdle("no request so soon")
	h.wait(seconds(1.1))
	require.Empty(t, h.iface.Neighbours())
	s.writes("z", "")
	h.want(askPeer)
	h.arrives("consumed", isAt(peerMAC, peerIP))
	h.want("10.0.0.1.7 > 10.0.0.2.7: udp 1")
	s.wantNothing("it is back")
}

// A late answer ends the failure.
func TestARPFailedNeighbourComesBack(t *testing.T) {
	h := newHost(t, strange)
	s := h.connect("10.0.0.1:7", "10.0.0.2:7")
	s.writes("x", "")
	h.wait(seconds(3.2))
	s.wantErrno(syscall.EHOSTUNREACH, "no answer")
	for range 3 {
		h.want(askPeer)
	}
	h.arrives("consumed", isAt(peerMAC, peerIP))
	s.writes("y", "")
	h.want("10.0.0.1.7 > 10.0.0.2.7: udp 1")
}

// RFC 1122 §2.3.2.1 (2): "Unicast Poll -- Actively poll the remote host by periodically sending a point-to-point ARP Request to
// it, and delete the entry if no ARP Reply is received from N successive polls."
func TestARPUnicastProbe(t *testing.T) {
	stale := func(t *testing.T) (*host, *sock) {
		h := newHost(t)
		s := h.connect("10.0.0.1:7", "10.0.0.2:7")
		h.wait(seconds(31))
		require.Equal(t, NeighbourStale, h.iface.Neighbours()[0].State)
		h.wantIdle("nobody asks for what nobody uses")
		s.writes("x", "")
		f := h.want("arp who-has 10.0.0.2 tell 10.0.0.1")
		require.Equal(t, peerMAC, f.ethernet().Dst, "to the address as it was last known")
		require.Equal(t, peerMAC, f.arp().TargetHardware())
		h.want("10.0.0.1.7 > 10.0.0.2.7: udp 1")
		require.Equal(t, NeighbourProbe, h.iface.Neighbours()[0].State)
		return h, s
	}
	t.Run("answered", func(t *testing.T) {
		h, s := stale(t)
		h.arrives("consumed", isAt(peerMAC, peerIP))
		require.Equal(t, NeighbourReachable, h.iface.Neighbours()[0].State)
		s.writes("y", "")
		h.want("10.0.0.1.7 > 10.0.0.2.7: udp 1")
		h.wait(seconds(20))
		h.wantIdle("it is fresh again")
	})
	t.Run("unanswered", func(t *testing.T) {
		h, s := stale(t)
		for range 2 {
			h.wait(seconds(1.01))
			require.Equal(t, peerMAC, h.want("arp who-has 10.0.0.2 tell 10.0.0.1").ethernet().Dst)
			s.writes("y", "")
			h.want("10.0.0.1.7 > 10.0.0.2.7: udp 1")
		}
		h.wait(seconds(1.01))
		require.Equal(t, NeighbourFailed, h.iface.Neighbours()[0].State)
		s.writes("z", "")
		s.wantErrno(syscall.EHOSTUNREACH, "the neighbour is gone")
		h.wantIdle("no packet to it")
	})
	t.Run("moved", func(t *testing.T) {
		h, s := stale(t)
		h.arrives("consumed", isAt(otherMAC, peerIP))
		s.writes("y", "")
		h.want("02:00:00:00:00:03 10.0.0.1.7 > 10.0.0.2.7: udp 1")
	})
}

// A neighbour in use is asked again when its confirmation is old, without waiting for the next packet.
func TestARPUsedNeighbourIsConfirmed(t *testing.T) {
	h := newHost(t)
	h.bind("10.0.0.1:7").writes("x", "10.0.0.2:7")
	h.want("10.0.0.1.7 > 10.0.0.2.7: udp 1")
	h.wait(seconds(30.1))
	h.want("arp who-has 10.0.0.2 tell 10.0.0.1")
	h.arrives("consumed", isAt(peerMAC, peerIP))
	h.wait(seconds(30.1))
	require.Equal(t, NeighbourStale, h.iface.Neighbours()[0].State, "it was not used since")
	h.wait(time.Minute + seconds(1))
	require.Empty(t, h.iface.Neighbours(), "a stale entry that nobody uses goes after a minute")
	h.wantIdle("in silence")
}

// An answer is not replaced by another for a second: of two hosts that both answer, the first one counts (net/ipv4/arp.c).
func TestARPLockTime(t *testing.T) {
	h := newHost(t, strange)
	s := h.bind("10.0.0.1:7")
	s.writes("x", "10.0.0.2:7")
	h.want(askPeer)
	h.arrives("consumed", isAt(peerMAC, peerIP))
	h.want("10.0.0.1.7 > 10.0.0.2.7: udp 1")
	h.wait(seconds(0.5))
	h.arrives("consumed", isAt(otherMAC, peerIP))
	s.writes("x", "10.0.0.2:7")
	h.want("10.0.0.1.7 > 10.0.0.2.7: udp 1")
	h.wait(seconds(0.6))
	h.arrives("consumed", isAt(otherMAC, peerIP))
	s.writes("x", "10.0.0.2:7")
	h.want("02:00:00:00:00:03 10.0.0.1.7 > 10.0.0.2.7: udp 1")
}

// IEEE 802.1Q: what comes from a neighbour with tags goes back with them.
func TestARPLearnsVLANTags(t *testing.T) {
	for _, tags := range [][]wire.VLANTag{
		{wire.VLANTag(uint32(wire.EtherTypeVLAN)<<16 | 100)},
		{wire.VLANTag(uint32(wire.EtherTypeQinQ)<<16 | 7), wire.VLANTag(uint32(wire.EtherTypeVLAN)<<16 | 100)},
	} {
		h := newHost(t, strange)
		s := h.bind("10.0.0.1:7")
		p := packet{vlans: tags}
		h.arrives("answered", p.arp(wire.ARPRequest, peerMAC, peerIP, wire.HardwareAddr{}, hostIP))
		f := h.take(0)
		require.Equal(t, tags, f.tags(), "the reply has the request's tags")
		s.writes("hi", "10.0.0.2:7")
		f = h.take(0)
		require.Equal(t, tags, f.tags())
		require.Equal(t, "hi", string(f.udp().Payload()))
		h.arrives("answered", p.ping(1, 1, "ping"))
		require.Equal(t, tags, h.take(0).tags())
		h.wait(seconds(31))
		s.writes("hi", "10.0.0.2:7")
		f = h.take(0)
		require.Equal(t, wire.EtherTypeARP, f.ethernet().Type)
		require.Equal(t, tags, f.tags(), "the probe goes where the neighbour was")
		require.Len(t, h.iface.Neighbours()[0].VLANs, len(tags))
	}
}

// The table holds Limits.Neighbours entries. Those that nothing needs make room; with all of them in use there is none.
func TestNeighbourTableLimit(t *testing.T) {
	h := newHost(t, strange, func(s *setup) { s.Limits.Neighbours = 4 })
	s := h.bind("10.0.0.1:7")
	ip := func(n int) string { return netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + n)}).String() }
	use := func(n int) {
		s.writes("x", ip(n)+":9")
		h.settle()
		h.arrives("consumed", isAt(wire.HardwareAddr{2, 0, 0, 0, 1, byte(n)}, ip(n)))
		h.want(broadcastTo + "arp who-has " + ip(n) + " tell 10.0.0.1")
		require.Equal(t, ip(n), h.take(0).ip().Dst().String())
	}
	for n := range 4 {
		use(n)
	}
	c := h.connect("10.0.0.1:8", "10.0.0.99:9")
	c.writes("x", "")
	c.wantErrno(syscall.ENOBUFS, "four neighbours are in use")
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropNeighbourTableFull])
	h.wantIdle("and nobody is asked for")
	h.arrives("consumed", isAt(otherMAC, otherIP), "nor learnt")
	require.Len(t, h.iface.Neighbours(), 4)

	h.iface.DeleteNeighbour(netip.MustParseAddr(ip(0)))
	c.writes("x", "")
	h.want(broadcastTo + "arp who-has 10.0.0.99 tell 10.0.0.1")
	require.Len(t, h.iface.Neighbours(), 4)
}

// Invented hosts that ask for our address, and packets to hosts that are not there, keep nobody out.
func TestNeighbourTableUnderFlood(t *testing.T) {
	h := newHost(t, strange, func(s *setup) { s.Limits.Neighbours = 64 })
	for n := range 1000 {
		mac := wire.HardwareAddr{2, 0, 0, 1, byte(n >> 8), byte(n)}
		h.arrives("answered", packet{}.arp(wire.ARPRequest, mac, netip.AddrFrom4([4]byte{10, 0, 1, byte(n)}).String(), wire.HardwareAddr{}, hostIP))
		require.NotNil(t, h.take(0))
	}
	require.Len(t, h.iface.Neighbours(), 64)
	s := h.bind("10.0.0.1:7")
	for n := range 200 {
		s.writes("x", netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + n)}), 9).String())
	}
	for range 200 {
		require.Equal(t, wire.EtherTypeARP, h.take(0).ethernet().Type)
	}
	require.Len(t, h.iface.Neighbours(), 64)
	s.writes("x", "10.0.0.2:9")
	h.want(askPeer)
	h.arrives("consumed", isAt(peerMAC, peerIP))
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
}

// RFC 5227 §2.1.1: probes for a new address have the sender address 0; §2.3: it is then announced twice, two seconds apart.
func TestARPProbesAndAnnouncements(t *testing.T) {
	h := newHost(t, strange, func(s *setup) { s.loud = true })
	for range 3 {
		f := h.want(broadcastTo + "arp who-has 10.0.0.1 tell 0.0.0.0")
		require.Equal(t, hostMAC, f.arp().SenderHardware())
		require.True(t, f.arp().TargetHardware().IsZero(), `RFC 5227 §2.1.1: "SHOULD be set to all zeroes"`)
		h.wantIdle("one at a time")
		h.wait(seconds(0.26))
	}
	h.want(broadcastTo + "arp who-has 10.0.0.1 tell 10.0.0.1")
	h.wait(seconds(1.9))
	h.wantIdle("two seconds between announcements")
	h.wait(seconds(0.2))
	h.want(broadcastTo + "arp who-has 10.0.0.1 tell 10.0.0.1")
	h.wait(time.Minute)
	h.wantIdle("twice is enough")

	require.NoError(t, h.iface.SetAddresses([]netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.7/24")}))
	h.wait(seconds(3))
	for range 3 {
		h.want(broadcastTo + "arp who-has 10.0.0.7 tell 0.0.0.0")
	}
	for range 2 {
		h.want(broadcastTo + "arp who-has 10.0.0.7 tell 10.0.0.7")
	}
	h.wantIdle("the old address needs no more")
}

// The card is given another Ethernet address while the engines run. RFC 5227 §2.3: others hear of it by two announcements,
// and nothing comes from the old one any more.
func TestNewHardwareAddress(t *testing.T) {
	hw, next := hostMAC, wire.HardwareAddr{2, 0, 0, 0, 7, 1}
	h := newHost(t, func(s *setup) {
		s.queues = 2
		s.wrap = func(l Link) Link { return &changingLink{Link: l, hw: &hw} }
		s.Addresses = append(s.Addresses, prefix("10.9.0.1/24"))
	})
	s := h.bind("10.0.0.1:7")
	h.handle("10.0.0.1:8", func(p *Packet) { p.Echo() })
	s.writes("x", "10.0.0.3:9") // waits for its neighbour across the change
	require.Equal(t, hostMAC, h.take(1).ethernet().Src)
	hw = next
	h.iface.LinkChanged()
	require.Equal(t, net.HardwareAddr(next[:]), h.iface.HardwareAddr())

	for _, at := range []float64{0.01, 2} {
		h.wait(seconds(at))
		for _, ip := range []string{hostIP, "10.9.0.1"} {
			f := h.take(0)
			require.Equal(t, next, f.ethernet().Src)
			require.Equal(t, wire.HardwareBroadcast, f.ethernet().Dst)
			require.Equal(t, [2]wire.Addr{addr(ip), addr(ip)}, [2]wire.Addr{f.arp().Sender(), f.arp().Target()})
			require.Equal(t, next, f.arp().SenderHardware())
		}
		if at < 1 {
			h.wait(seconds(1.1)) // the neighbour is asked again
			f := h.take(1)
			require.Equal(t, [2]wire.HardwareAddr{next, next}, [2]wire.HardwareAddr{f.ethernet().Src, f.arp().SenderHardware()})
			require.True(t, h.peers[1].Inject(packet{toMAC: next}.arp(wire.ARPReply, otherMAC, otherIP, next, hostIP)))
			f = h.take(1)
			require.Equal(t, [2]wire.HardwareAddr{otherMAC, next}, [2]wire.HardwareAddr{f.ethernet().Dst, f.ethernet().Src})
		}
	}
	for queue := range 2 {
		to := packet{toMAC: next}
		h.arrivesOn(queue, "other-host", packet{}.ping(1, 1, "to the old address"))
		h.arrivesOn(queue, "answered", to.ping(1, 1, "ping"))
		require.Equal(t, next, h.take(queue).ethernet().Src)
		h.arrivesOn(queue, "delivered", to.udp(9, 8, "handler"))
		require.Equal(t, next, h.take(queue).ethernet().Src)
		h.arrivesOn(queue, "delivered", to.udp(9, 7, "socket"))
		s.wants("socket", "10.0.0.2:9")
		s.writes("answer", "10.0.0.2:9")
		f := h.take(queue)
		require.Equal(t, [2]wire.HardwareAddr{peerMAC, next}, [2]wire.HardwareAddr{f.ethernet().Dst, f.ethernet().Src})
	}
	require.True(t, h.peers[0].Inject(packet{fromMAC: next, toMAC: wire.HardwareBroadcast}.arp(wire.ARPRequest, next, hostIP, wire.HardwareAddr{}, hostIP)))
	h.settle()
	require.Zero(t, h.Stats().ARPConflicts, "our own announcement, sent back by a switch")
	h.iface.LinkChanged()
	h.wait(seconds(5))
	h.wantIdle("a change of something else is not announced")
}

// In shared mode the kernel announces its address, and nobody else does.
func TestNewHardwareAddressOfASharedCard(t *testing.T) {
	hw, next := hostMAC, wire.HardwareAddr{2, 0, 0, 0, 7, 1}
	h := newShared(t, nil, func(s *setup) { s.wrap = func(l Link) Link { return &changingLink{Link: l, hw: &hw} } })
	h.keepPeer()
	s := h.bind("10.0.0.1:7")
	hw = next
	h.iface.LinkChanged()
	h.wait(seconds(5))
	h.wantIdle("the kernel announces it")
	s.writes("x", "10.0.0.2:9")
	require.Equal(t, next, h.take(0).ethernet().Src)
}

// RFC 5227 §2.3: who has given an address up does not announce it.
func TestARPAnnouncementsEndWithTheAddress(t *testing.T) {
	h := newHost(t, strange, func(s *setup) { s.loud = true })
	h.want(broadcastTo + "arp who-has 10.0.0.1 tell 0.0.0.0")
	require.NoError(t, h.iface.SetAddresses(nil))
	h.wait(seconds(5))
	h.wantIdle("the address is gone")
	h.arrives("arp-not-for-us", whoHas(hostIP))
}

// RFC 5227 §2.4 (c), for a host that does not give up its address: it defends it by one ARP Announcement, but "if this is not the
// first conflicting ARP packet the host has seen, and the time recorded for the previous conflicting ARP packet is within
// DEFEND_INTERVAL seconds, then the host MUST NOT send another defensive ARP Announcement."
func TestARPConflictIsDefended(t *testing.T) {
	type told struct {
		addr  string
		other wire.HardwareAddr
	}
	var conflicts []told
	h := newHost(t, func(s *setup) {
		s.OnConflict = func(a netip.Addr, other net.HardwareAddr) {
			conflicts = append(conflicts, told{a.String(), wire.HardwareAddr(other)})
		}
	})
	claim := isAt(otherMAC, hostIP)
	h.arrives("consumed", claim)
	h.want(broadcastTo + "arp who-has 10.0.0.1 tell 10.0.0.1")
	h.arrives("consumed", claim)
	h.wait(seconds(9))
	h.arrives("consumed", claim)
	h.wantIdle("once in ten seconds")
	h.wait(seconds(1.1))
	h.arrives("consumed", claim)
	h.want(broadcastTo + "arp who-has 10.0.0.1 tell 10.0.0.1")
	require.Equal(t, []told{{hostIP, otherMAC}, {hostIP, otherMAC}}, conflicts)
	require.Equal(t, uint64(4), h.Stats().ARPConflicts)
	require.Len(t, h.iface.Neighbours(), 1, "the claimant is no neighbour")

	h.arrives("arp-not-for-us", isAt(hostMAC, hostIP), "our own packet, sent back by a switch")
	h.wantIdle("that is no conflict")
}

// RFC 5227 §2.1.1: a probe of another host for our address is a conflict for it, which the answer tells it.
func TestARPProbeForOurAddressIsAnswered(t *testing.T) {
	h := newHost(t)
	h.arrives("answered", packet{}.arp(wire.ARPRequest, otherMAC, "0.0.0.0", wire.HardwareAddr{}, hostIP))
	h.want("02:00:00:00:00:03 arp 10.0.0.1 is-at 02:00:00:00:00:01")
	require.Zero(t, h.Stats().ARPConflicts)
}

// An ARP packet is for the card of the address that it asks for, whatever other networks the card is on.
func TestARPOfSecondAddress(t *testing.T) {
	h := newHost(t, strange, func(s *setup) { s.Addresses = append(s.Addresses, netip.MustParsePrefix("10.9.0.1/24")) })
	h.arrives("answered", packet{}.arp(wire.ARPRequest, peerMAC, "10.9.0.2", wire.HardwareAddr{}, "10.9.0.1"))
	h.want("arp 10.9.0.1 is-at 02:00:00:00:00:01")
	h.bind("10.9.0.1:7").writes("x", "10.9.0.3:7")
	h.want(broadcastTo + "arp who-has 10.9.0.3 tell 10.9.0.1")
}
