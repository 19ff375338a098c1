package stack

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

func twoQueues(s *setup) { s.queues = 2 }

// What ARP tells one engine it tells all: each has its own table, and the answer comes on any queue.
func TestQueuesShareARP(t *testing.T) {
	h := newHost(t, twoQueues, strange)
	s := h.bind("10.0.0.1:7")
	h.arrivesOn(0, "delivered", packet{}.udp(9, 7, "on queue 0"))
	s.wants("on queue 0", "10.0.0.2:9")
	s.writes("answer", "10.0.0.2:9")
	h.wantOn(0, askPeer)
	before := h.Stats()
	h.arrivesOn(1, "consumed*2", isAt(peerMAC, peerIP), "here and there")
	require.Equal(t, uint64(1), h.Stats().Copied-before.Copied)
	h.wantOn(0, "10.0.0.1.7 > 10.0.0.2.9: udp 6")
	require.Len(t, h.iface.Neighbours(), 1, "one neighbour, whoever knows it")

	h.arrivesOn(1, "delivered", packet{}.udp(9, 7, "on queue 1"))
	s.wants("on queue 1", "10.0.0.2:9")
	s.writes("answer", "10.0.0.2:9")
	h.wantOn(1, "10.0.0.1.7 > 10.0.0.2.9: udp 6")
	h.wantIdle("no second request: the other engine heard the answer too")
}

// A request is answered once, where it came, and known everywhere.
func TestQueuesAnswerARPOnce(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 4; s.strange = true })
	h.arrivesOn(2, "answered consumed*3", whoHas(hostIP))
	h.wantOn(2, "arp 10.0.0.1 is-at 02:00:00:00:00:01")
	h.wantIdle("one reply")
	for _, e := range h.iface.engines {
		require.Contains(t, e.neighbours, addr(peerIP))
	}
}

// RFC 5227 §2.4: one claim of another host is one conflict, told and defended once.
func TestQueuesSeeAConflictOnce(t *testing.T) {
	told := 0
	h := newHost(t, twoQueues, func(s *setup) { s.OnConflict = func(netip.Addr, net.HardwareAddr) { told++ } })
	h.arrivesOn(1, "consumed*2", isAt(otherMAC, hostIP))
	h.wantOn(1, broadcastTo+"arp who-has 10.0.0.1 tell 10.0.0.1")
	h.wantIdle("one announcement")
	require.Equal(t, 1, told)
	require.Equal(t, uint64(1), h.Stats().ARPConflicts)
}

// RFC 1191 §3: an error about what one engine sent may come to another: the path MTU is learnt by both, the socket told once.
func TestQueuesSharePathMTU(t *testing.T) {
	h := newHost(t, twoQueues)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	s.writes(pattern(1472), "")
	f := h.takeAny()
	h.arrivesOn(1, "consumed*2", fragNeeded(f, 1000))
	h.arrivesOn(0, "consumed*2", fragNeeded(f, 1200), "told everywhere, and believed nowhere")
	for _, e := range h.iface.engines {
		require.Equal(t, 1000, e.pmtu[addr(peerIP)].mtu)
	}
	ping := h.pinger("10.0.0.1:100")
	require.NoError(t, ping.write(request(1, pattern(900)), "10.0.0.2:0"))
	h.arrivesOn(1, "delivered consumed", fragNeeded(h.takeAny(), 600))
	_, err := ping.read()
	require.NoError(t, err)
	ping.wantNothing("one message")
}

// takeAny takes a frame from whichever queue has one.
func (h *host) takeAny() sent {
	for q := range h.peers {
		if f := h.take(q); f != nil {
			return f
		}
	}
	return nil
}

// An error that comes to another engine than the one that sent reaches the socket.
func TestQueuesShareErrors(t *testing.T) {
	h := newHost(t, twoQueues)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	s.writes("x", "")
	f := h.takeAny()
	for q := range 2 {
		h.arrivesOn(q, "consumed", packet{}.icmpAbout(f, wire.ICMPUnreachable, wire.CodePortUnreachable, 0))
		s.wantErrno(syscall.ECONNREFUSED, "whichever queue it came on")
	}
}

// Sockets that have heard nothing yet are spread over the queues.
func TestQueuesShareSending(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 4 })
	for range 8 {
		s := h.socket(wire.ProtocolUDP)
		s.writes("x", "10.0.0.2:9")
	}
	for q := range 4 {
		for range 2 {
			require.NotNil(t, h.take(q), "queue %d", q)
		}
	}
	h.wantIdle("two on each")
}

// A flow stays on its queue: an answer leaves where the question came, by a socket as in place.
func TestQueuesKeepAFlow(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 4 })
	s := h.bind("10.0.0.1:7")
	h.handle("10.0.0.1:8", func(p *Packet) { p.Echo() })
	for _, q := range []int{2, 0, 3, 1, 1} {
		h.arrivesOn(q, "delivered", packet{}.udp(9, 7, "x"))
		s.wants("x", "10.0.0.2:9")
		for range 3 {
			s.wantNothing("looking in vain changes nothing")
		}
		s.writes("answer", "10.0.0.2:9")
		h.wantOn(q, "10.0.0.1.7 > 10.0.0.2.9: udp 6")
		h.arrivesOn(q, "delivered", packet{}.udp(9, 8, "x"))
		h.wantOn(q, "10.0.0.1.8 > 10.0.0.2.9: udp 1")
	}
	h.wantIdle("each on its own")
}

// A flood on one queue does not keep a reader from the others.
func TestQueuesAreReadInTurn(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 4 })
	s := h.bind("10.0.0.1:7")
	ms := make([]Message, 8)
	for n := range ms {
		ms[n].Buf = make([]byte, 100)
	}
	for range 50 {
		h.peers[0].Inject(packet{}.udp(9, 7, "flood"))
	}
	for q := 1; q < 4; q++ {
		h.peers[q].Inject(packet{}.udp(9, 7, fmt.Sprint("queue ", q)))
	}
	h.settle()
	heard := make(map[string]int)
	for range 4 {
		n, err := s.Read(ms)
		require.NoError(t, err)
		for _, m := range ms[:n] {
			heard[string(m.Buf[:m.N])]++
		}
	}
	require.Equal(t, 1, heard["queue 1"]*heard["queue 2"]*heard["queue 3"], "%v", heard)
}

// Of what the engines know of a neighbour the list shows what was confirmed last, and any answer rather than none.
func TestQueuesListNeighboursOnce(t *testing.T) {
	for _, first := range []int{0, 1} {
		h := newHost(t, twoQueues, strange)
		old, fresh := h.iface.engines[first], h.iface.engines[1-first]
		set := func(e *Engine, ip string, mac wire.HardwareAddr) {
			e.setNeighbour(addr(ip), mac, nil, NeighbourReachable)
		}
		set(old, peerIP, otherMAC)
		set(old, otherIP, otherMAC)
		h.wait(seconds(5))
		set(fresh, peerIP, peerMAC)
		fresh.neighbour(addr(otherIP))
		list := h.iface.Neighbours()
		require.Len(t, list, 2)
		require.Equal(t, net.HardwareAddr(peerMAC[:]), list[0].HardwareAddr, "the newer one")
		require.Equal(t, NeighbourReachable, list[1].State, "not the one that is only asked for")
		for q := range 2 {
			h.take(q)
		}
	}
}

// The figures of each queue are its own.
func TestQueueStats(t *testing.T) {
	h := newHost(t, twoQueues)
	h.bind("10.0.0.1:7")
	before := h.iface.Queues()
	h.arrivesOn(1, "delivered", packet{}.udp(9, 7, "x"))
	after := h.iface.Queues()
	require.Equal(t, before[0].Delivered, after[0].Delivered)
	require.Equal(t, before[1].Delivered+1, after[1].Delivered)
	require.Equal(t, 1, after[1].Queue)
	require.Equal(t, 1, after[1].Sockets)
	require.False(t, after[1].Running, "a test steps it")
	require.Greater(t, after[1].Steps, before[1].Steps)
	require.Len(t, h.Interfaces()[1].Queues(), 1)
}
