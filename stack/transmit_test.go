package stack

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// What sockets wrote waits while the transmit ring is full, in order, and the engine goes on receiving.
func TestTransmitRingFull(t *testing.T) {
	h := newHost(t, func(s *setup) { s.ring = 64 })
	s := h.bind("10.0.0.1:7")
	h.stall(true)
	for n := range 100 {
		s.writes(fmt.Sprint("message ", n), "10.0.0.2:9")
		if n%7 == 0 {
			h.settle()
		}
	}
	h.arrives("delivered", packet{}.udp(9, 7, "hello"))
	s.wants("hello", "10.0.0.2:9")
	h.arrives("transmit-full", packet{}.ping(1, 1, "x"))
	h.wantIdle("the card completes nothing")
	require.Equal(t, uint64(64), h.Stats().Sent)
	h.wires[0].End(0).SetStalled(false)
	h.wires[0].End(0).Flush() // the card completes what it has, while the engine is elsewhere
	for n := range 100 {
		if n == 64 {
			h.stall(false)
			h.settle()
		}
		require.Equal(t, fmt.Sprint("message ", n), string(sent(h.peers[0].Take()).udp().Payload()))
	}
	h.wantIdle("each once")
	require.Equal(t, uint64(100), h.Stats().Sent)
}

// A ring that is full is flushed, and what that sends makes room in the same step.
func TestTransmitBeyondTheRing(t *testing.T) {
	h := newHost(t, func(s *setup) { s.ring = 16 })
	s := h.bind("10.0.0.1:7")
	for range 200 {
		s.writes("x", "10.0.0.2:9")
	}
	before := h.Stats()
	h.Step(h.now)
	after := h.Stats()
	require.Equal(t, uint64(200), after.Sent-before.Sent)
	require.Equal(t, uint64(200), after.TxFrames-before.TxFrames)
	require.Equal(t, uint64(200*(14+20+8+1)), after.TxBytes-before.TxBytes)
	for h.peers[0].Take() != nil {
	}
	h.arrives("answered", packet{}.ping(1, 1, "x"))
	require.Equal(t, after.TxBytes+14+20+8+1, h.Stats().TxBytes)
	require.Equal(t, after.RxBytes+14+20+8+1, h.Stats().RxBytes)
}

// A full transmit ring is for all senders in turn, one that always has more to send among them.
func TestTransmitRingIsShared(t *testing.T) {
	h, room := newScarce(t, func(s *setup) { s.ring = 4096 })
	*room = 0
	var socks []*sock
	for port := 1; port <= 5; port++ {
		s := h.bind(fmt.Sprint("10.0.0.1:", port))
		for range 400 {
			s.writes("x", "10.0.0.2:9")
		}
		socks = append(socks, s)
	}
	sent := make(map[uint16]int)
	for range 100 {
		*room = 7
		h.Step(h.now)
		for f := h.peers[0].Take(); f != nil; f = h.peers[0].Take() {
			sent[sentUDPPort(f)]++
		}
	}
	for _, s := range socks {
		require.InDelta(t, 140, sent[s.LocalAddr().Port()], 7, "%v", sent)
	}
	*room, h.stalled = 10_000, false
	h.settle()
}

func sentUDPPort(f []byte) uint16 { return sent(f).udp().SrcPort() }

// A socket that writes again and again while the ring is full is one sender all the same.
func TestTransmitListsASenderOnce(t *testing.T) {
	h, room := newScarce(t)
	s, other := h.bind("10.0.0.1:7"), h.bind("10.0.0.1:8")
	*room = 0
	for range 100 {
		s.writes("x", "10.0.0.2:9")
		other.writes("x", "10.0.0.2:9")
		h.Step(h.now)
		require.Len(t, h.iface.engines[0].senders, 2)
	}
	*room, h.stalled = 1000, false
	for range 200 {
		require.NotNil(t, h.take(0))
	}
	require.Empty(t, h.iface.engines[0].senders)
}

// A flush is a system call: a step that finds the ring full makes one for it, however many packets want out, and one at its end.
func TestTransmitFlushesOnce(t *testing.T) {
	flushes := 0
	h, room := newScarce(t, func(s *setup) { s.ring = 4096 })
	h.iface.engines[0].link = &flushLink{h.iface.engines[0].link, &flushes}
	h.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
	for port := 100; port < 200; port++ {
		h.bind(fmt.Sprint("10.0.0.1:", port)).writes("x", "10.0.0.2:9")
	}
	for range 100 {
		h.peers[0].Inject(packet{}.udp(9, 7, "x"))
	}
	*room = 0
	flushes = 0
	h.Step(h.now)
	require.LessOrEqual(t, flushes, 2)
	require.Equal(t, uint64(100), h.Stats().TxDrops[DropTransmitFull], "the answers are lost")
	flushes = 0
	h.Step(h.now)
	require.LessOrEqual(t, flushes, 1, "the sockets alone")
	*room, h.stalled = 1000, false
	flushes = 0
	h.settle()
	require.Equal(t, 1, flushes, "and with room there is one for all")
	for range 100 {
		require.NotNil(t, h.take(0), "what sockets wrote is not")
	}
}

type flushLink struct {
	Link
	flushes *int
}

func (l *flushLink) Flush() bool { *l.flushes++; return l.Link.Flush() }

// Tags take room that the MTU does not count: a packet that then is too long for a link with less room than it promised is
// dropped and counted. One that had to wait is cut.
func TestTransmitTooLongForTags(t *testing.T) {
	h := newHost(t, strange, func(s *setup) { s.wrap = func(l Link) Link { return tightLink{l} } })
	s := h.bind("10.0.0.1:7")
	s.writes(pattern(1472), "10.0.0.2:9")
	s.writes(pattern(1468), "10.0.0.2:9")
	h.want(askPeer)
	h.arrives("consumed", packet{vlans: []wire.VLANTag{0x81000005}}.arp(wire.ARPReply, peerMAC, peerIP, hostMAC, hostIP))
	h.wantFragmented(1472, 1472, 8)
	require.Equal(t, 1468, len(h.take(0).udp().Payload()))
	require.Zero(t, h.Stats().TxDrops[DropTooLong])
	s.writes(pattern(1472), "10.0.0.2:9")
	s.writes(pattern(1468), "10.0.0.2:9")
	require.Equal(t, 1468, len(h.take(0).udp().Payload()))
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropTooLong])
	h.wantIdle("what fits")
}

// A tightLink has frames for its MTU and an Ethernet header without tags.
type tightLink struct{ Link }

func (l tightLink) Alloc() []byte {
	f := l.Link.Alloc()
	return f[:min(len(f), l.MTU()+wire.EthernetLen)]
}

// behindTwoTags is how the peer answers for itself from behind two VLAN tags, where a full packet is four bytes shorter.
var behindTwoTags = packet{vlans: []wire.VLANTag{0x88A80007, 0x81000005}}.arp(wire.ARPReply, peerMAC, peerIP, hostMAC, hostIP)

// A full packet whose neighbour turns out to be behind two VLAN tags arrives in fragments, as the next ones do; so does a
// fragment.
func TestFirstPacketsToBehindTwoTags(t *testing.T) {
	for _, c := range []struct {
		payload  int
		lengths  []int // of the fragments' payloads
		datagram uint64
	}{
		{1468, nil, 0},
		{1469, []int{1472, 5}, 1},
		{1472, []int{1472, 8}, 1},
		{2952, []int{1472, 8, 1472, 8}, 1}, // fragments of 1480 and 1480 bytes that waited
		{3000, []int{1472, 8, 1472, 8, 48}, 1},
	} {
		h := newHost(t, strange)
		s := h.bind("10.0.0.1:7")
		s.writes(pattern(c.payload), "10.0.0.2:9")
		h.want(askPeer)
		h.arrives("consumed", behindTwoTags)
		if c.lengths == nil {
			f := h.take(0)
			require.Len(t, f.tags(), 2)
			require.True(t, f.ip().DF())
		} else {
			h.wantFragmented(c.payload, c.lengths...)
		}
		require.Equal(t, c.datagram, h.Stats().Fragmented, "%d bytes", c.payload)
		require.Zero(t, h.Stats().Waiting)

		s.writes(pattern(1472), "10.0.0.2:9") // by now it is known
		h.wantFragmented(1472, 1472, 8)
		h.wantIdle("all of it")
	}
}

// RFC 6864 §4.2 holds for what is cut late as well; and the peer of a ping is no other matter than that of a datagram.
func TestFirstPingToBehindTwoTags(t *testing.T) {
	h := newHost(t, strange)
	ping := h.pinger("10.0.0.1:100")
	for n := range 3 {
		require.NoError(t, ping.write(request(byte(n), pattern(1472)), "10.0.0.2:0"))
	}
	h.want(askPeer)
	h.arrives("consumed", behindTwoTags)
	ids := map[uint16]bool{}
	for range 3 {
		first := h.take(0)
		ids[first.ip().ID()] = true
		require.Equal(t, []int{1472, 8}, []int{len(first.ip().Payload()), len(h.take(0).ip().Payload())})
	}
	require.Len(t, ids, 3)
}

// Where the ring has room for the first fragment alone, the packet is lost and counted once.
func TestTransmitFullBetweenFragmentsThatWaited(t *testing.T) {
	h, room := newScarce(t, strange)
	h.stalled = false
	h.bind("10.0.0.1:7").writes(pattern(1472), "10.0.0.2:9")
	h.want(askPeer)
	*room = 1
	h.arrives("consumed", behindTwoTags)
	require.Equal(t, 1472, len(h.take(0).ip().Payload()))
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropTransmitFull])
	require.Zero(t, h.Stats().Fragmented)
	h.wantIdle("the rest had no room")
}

// Packets that waited for a neighbour and then find the ring full are dropped, and counted.
func TestTransmitFullAfterWaiting(t *testing.T) {
	h, room := newScarce(t, strange)
	h.stalled = false
	s := h.bind("10.0.0.1:7")
	for range 5 {
		s.writes("x", "10.0.0.2:9")
	}
	h.want(askPeer)
	*room = 2
	h.arrives("consumed", isAt(peerMAC, peerIP))
	require.Equal(t, uint64(3), h.Stats().TxDrops[DropTransmitFull])
	require.Zero(t, h.Stats().Waiting)
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
	h.wantIdle("two had room")
}

// An ARP request that finds no room is asked again in its turn.
func TestARPRequestWithoutRoom(t *testing.T) {
	h, room := newScarce(t, strange)
	h.stalled = false
	*room = 0
	h.bind("10.0.0.1:7").writes("x", "10.0.0.2:9")
	h.wantIdle("no room")
	*room = 10
	h.wait(seconds(1.1))
	h.want(askPeer)
	h.arrives("consumed", isAt(peerMAC, peerIP))
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
}

// Whoever writes to many sockets learns that the engine has not come to send, until it has.
func TestEngineFallsBehind(t *testing.T) {
	h := newHost(t)
	var sockets []*sock
	for n := range behindBy {
		sockets = append(sockets, h.bind(fmt.Sprintf("10.0.0.1:%d", 1000+n)))
	}
	e := h.iface.engines[0]
	for n, s := range sockets {
		require.False(t, e.behind(), "after %d", n)
		s.writes("x", "10.0.0.2:9")
		s.writes("y", "10.0.0.2:9")
	}
	require.True(t, e.behind())
	h.Step(h.now)
	require.False(t, e.behind())
	for h.peers[0].Take() != nil {
	}
}

// An engine polls on after it has sent: an answer may come, and more to send.
func TestSendingIsWork(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.keepPeer()
	e := h.iface.engines[0]
	_, worked := e.step(h.now)
	require.False(t, worked, "there is nothing to do")
	s.writes("x", "10.0.0.2:9")
	_, worked = e.step(h.now)
	require.True(t, worked)
	_, worked = e.step(h.now)
	require.False(t, worked)
	for h.peers[0].Take() != nil {
	}
}
