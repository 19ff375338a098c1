package stack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// RFC 1191 §6.5 and RFC 5927: a router that needs to fragment makes segments smaller, of every connection to that host, if it
// quotes what is in flight.
func TestStreamPathMTU(t *testing.T) {
	for _, queues := range []int{1, 4} {
		h := newHost(t, func(s *setup) { s.queues = queues })
		h.keepPeer()
		k, s, l := h.accepted()
		others := make(map[int]*talk) // by queue
		streams := make(map[int]*stream)
		for q := range queues {
			others[q] = h.talk(80, uint16(5000+q))
			others[q].queue = q
			others[q].handshake()
			streams[q] = l.accepts()
		}
		s.writes(1460)
		f := k.gets("P. 1:1461 ack 1")
		h.arrives("icmp-quote", fragNeeded(f.withSeq(-1), 1000), "about what was acknowledged")
		h.arrives("icmp-quote", fragNeeded(f.withSeq(1460), 1000), "about what was not sent")
		stranger := sent(append([]byte{}, f...))
		stranger[wire.EthernetLen+wire.IPv4Len+3] ^= 1
		h.arrives("icmp-quote", fragNeeded(stranger, 1000), "of another connection")
		h.wantIdle("forgeries change nothing")
		require.Empty(t, h.iface.engines[0].pmtu)

		before := h.Stats().Copied
		h.arrives("consumed", fragNeeded(f, 1000))
		require.Equal(t, before, h.Stats().Copied, "the other engines are told, not shown")
		k.gets(". 1:961 ack 1")
		k.gets("P. 961:1461 ack 1")
		h.wantIdle("at once, in pieces that fit")
		i, _ := s.Info()
		require.Equal(t, 1000, i.MTU)
		for q, other := range others {
			streams[q].writes(1460)
			other.gets(". 1:961 ack 1")
			other.gets("P. 961:1461 ack 1")
		}
		h.arrives("icmp-quote", fragNeeded(f, 1200), "no reason to grow")
		for _, c := range others {
			c.sends(". 1:1 ack 1461")
		}
		k.sends(". 1:1 ack 1461")
		h.wait(pmtuLife)
		s.writes(1460)
		k.gets("P. 1461:2921 ack 1")
		h.wantIdle("what was learnt is forgotten after ten minutes")
	}
}

// An error that does not tell the MTU means the next lower plateau of RFC 1191 §7.1.
func TestStreamPathMTUUntold(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	s.writes(1460)
	h.arrives("consumed", fragNeeded(k.gets("P. 1:1461 ack 1"), 0))
	k.gets(". 1:1453 ack 1")
	k.gets("P. 1453:1461 ack 1")
	i, _ := s.Info()
	require.Equal(t, 1492, i.MTU)
	k.sends(". 1:1 ack 1461")
	s.writes(1460)
	k.gets(". 1461:2913 ack 1")
}

// The route's MTU counts, also when it changes in the middle.
func TestStreamRouteMTU(t *testing.T) {
	h := newHost(t)
	k, s, l := h.accepted()
	route := Route{Dst: prefix("10.0.0.0/24"), MTU: 1000}
	require.NoError(t, h.iface.SetRoutes([]Route{route}))
	s.writes(1460)
	k.gets(". 1:961 ack 1")
	k.gets("P. 961:1461 ack 1")
	k.sends(". 1:1 ack 1461")
	route.MTU = 1200
	require.NoError(t, h.iface.SetRoutes([]Route{route}))
	s.writes(1460)
	k.gets(". 1461:2621 ack 1")
	k.gets("P. 2621:2921 ack 1")
	c := h.talk(80, 1)
	c.sends("S 0:0 mss 1460")
	c.gets("S. 0:0 ack 1 mss 1160")
	c.sends(". 1:1 ack 1")
	l.accepts()
	h.wantIdle("all is said")
}

// ICMP errors about a connection are advice (RFC 1122 §4.2.3.9): told by Info, and at its end.
func TestStreamSoftErrors(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s, _ := h.accepted()
	s.writes(10)
	f := k.gets("P. 1:11 ack 1")
	for _, code := range []uint8{wire.CodePortUnreachable, wire.CodeProtocolUnreachable, wire.CodeNetUnreachable, wire.CodeHostUnreachable} {
		h.arrives("consumed", packet{from: otherIP}.icmpAbout(f, wire.ICMPUnreachable, code, 0))
		s.wantState(tcp.Established)
		require.Equal(t, Writable, s.Events())
	}
	i, _ := s.Info()
	require.ErrorIs(t, i.SoftError, tcp.ErrHostUnreachable)
	h.arrives("icmp-quote", packet{}.ip(wire.ProtocolICMP, icmpBody(wire.ICMPRedirect, 0, 0, f.ip()[:28])), "not for TCP")
	h.wait(seconds(1200))
	k.drains()
	s.wantErrno(syscall.EHOSTUNREACH, "in place of a time-out")
}

// A neighbour that fails in the middle of a connection is advice too: it comes back, and the bytes with it.
func TestStreamNeighbourFails(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	h.iface.DeleteNeighbour(netip.MustParseAddr(peerIP))
	s.writes(10)
	h.wait(seconds(4))
	s.wantState(tcp.Established)
	i, _ := s.Info()
	require.ErrorIs(t, i.SoftError, tcp.ErrHostUnreachable)
	require.NotZero(t, h.Stats().TxDrops[DropNeighbourFailed])
	require.NoError(t, h.iface.SetRoutes(nil))
	h.wait(seconds(30))
	i, _ = s.Info()
	require.ErrorIs(t, i.SoftError, tcp.ErrNetUnreachable, "no route either")
	require.NoError(t, h.iface.SetRoutes([]Route{via("10.0.0.0/24", "")}))
	h.keepPeer()
	h.wait(seconds(60))
	require.Equal(t, 11, h.lastOf(k))
	k.sends(". 1:1 ack 11")
	h.wantIdle("all is said")
}

// withSeq is the same segment with another sequence number.
func (f sent) withSeq(more int) sent {
	g := append(sent{}, f...)
	binary.BigEndian.PutUint32(g.tcp()[4:], uint32(f.tcp().Seq().Add(more)))
	return g
}

// lastOf takes all frames, and returns how far the segments among them reach.
func (h *host) lastOf(k *talk) (end int) {
	for f := h.take(0); f != nil; f = h.take(0) {
		if f.ethernet().Type == wire.EtherTypeIPv4 {
			end = max(end, int(int32(f.tcp().Seq().Add(f.tcp().Len())-k.hostISS)))
		}
	}
	return end
}

// Several connections wait for one neighbour, and all fail with it.
func TestStreamsFailWithTheirNeighbour(t *testing.T) {
	h := newHost(t)
	var ss []*stream
	for range 10 {
		s := &stream{Stream: h.NewStream(), h: h}
		require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(otherIP+":80")))
		ss = append(ss, s)
	}
	h.wait(seconds(3.1))
	for _, s := range ss {
		s.wantFailed(syscall.EHOSTUNREACH, "each is told")
		require.NoError(t, s.Close())
	}
	h.lastOf(h.talk(0, 0))
	h.wantNoStreams()
}

// A neighbour that makes room for another one in the middle of a step takes its connections with it, and none is forgotten.
func TestStreamsFailWhileOthersAreServed(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Limits.Neighbours = 2 })
	h.keepPeer()
	dial := func(to string) *stream {
		s := &stream{Stream: h.NewStream(), h: h}
		require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(to+":80")))
		return s
	}
	first := dial(otherIP)
	h.want(broadcastTo + "arp who-has 10.0.0.3 tell 10.0.0.1")
	second := dial("10.0.0.4")
	h.want(broadcastTo + "arp who-has 10.0.0.4 tell 10.0.0.1")
	first.wantFailed(syscall.EHOSTUNREACH, "its neighbour made room")
	k, third := h.dials()
	k.gets("S 0:0")
	fourth := dial("10.0.0.5")
	h.want(broadcastTo + "arp who-has 10.0.0.5 tell 10.0.0.1")
	second.wantFailed(syscall.EHOSTUNREACH, "and so did this one's")
	k.sends("R. 0:0 ack 1")
	third.wantFailed(syscall.ECONNREFUSED, "it is served still")
	for _, s := range []*stream{first, second, third, fourth} {
		require.NoError(t, s.Close())
	}
	h.wantIdle("all is said")
	h.wantNoStreams()
}

// With a neighbour table that is full of entries in use nothing is sent, and nothing is lost by that.
func TestStreamNeighbourTableFull(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Limits.Neighbours = 1 })
	h.keepPeer()
	s := &stream{Stream: h.NewStream(), h: h}
	require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(otherIP+":80")))
	h.settle()
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropNeighbourTableFull])
	s.wantNothing("it may be empty when the SYN is repeated")
	h.iface.DeleteNeighbour(netip.MustParseAddr(peerIP))
	h.wait(seconds(1.1))
	h.want(broadcastTo + "arp who-has 10.0.0.3 tell 10.0.0.1")
	h.arrives("consumed", isAt(otherMAC, otherIP))
	require.Equal(t, wire.SYN, h.take(0).tcp().Flags())
	require.NoError(t, s.Close())
}

// A card that is deleted takes its connections with it, and those that were to begin; who listened is told.
func TestStreamInterfaceGone(t *testing.T) {
	gone := func(h *host) {
		h.iface.gone.Store(true) // as Engine.failed does
		h.interfaceGone(h.iface)
	}
	h := newHost(t, func(s *setup) { s.queues = 2 })
	_, s, l := h.accepted()
	half := h.talk(80, 1)
	half.sends("S 0:0 mss 1460")
	half.gets("S. 0:0 ack 1")
	unaccepted := h.talk(80, 2)
	unaccepted.handshake()
	lo := &stream{Stream: h.NewStream(), h: h}
	require.NoError(t, lo.Bind(ap("127.0.0.1:80")))
	require.NoError(t, lo.Listen(ListenConfig{Count: 1}))
	connecting := h.NewStream()
	require.Equal(t, syscall.EINPROGRESS, connecting.Connect(ap(otherIP+":80")))
	h.settle()
	atOnce := &stream{Stream: h.NewStream(), h: h}
	require.Equal(t, syscall.EINPROGRESS, atOnce.Connect(ap(peerIP+":80")))
	s.writes(10)
	w := NewWaiter()
	l.Watch(w, Readable)
	s.Watch(w, 0)
	gone(h)
	require.NotEmpty(t, w.C)
	require.Equal(t, Errored|Readable|Writable, s.Events())
	_, err := s.Write([]byte("x"))
	require.Equal(t, syscall.ENETDOWN, err)
	s.wantEnd("told once")
	wantNoMemory(t, s.Stream)
	require.Equal(t, syscall.ENETDOWN, connecting.TakeError())
	atOnce.wantFailed(syscall.ENETDOWN, "it had not begun")
	require.Equal(t, syscall.ENETDOWN, atOnce.Connect(ap(peerIP+":80")))
	require.Equal(t, Errored|Readable, l.Events())
	c := l.accepts()
	c.wantErrno(syscall.ENETDOWN, "it waited, and is no more")
	_, err = l.Accept()
	require.Equal(t, syscall.ENETDOWN, err)
	require.Equal(t, syscall.ENETDOWN, h.NewStream().Connect(ap(peerIP+":80")))

	here := &stream{Stream: h.NewStream(), h: h}
	require.Equal(t, syscall.EINPROGRESS, here.Connect(ap("127.0.0.1:80")))
	h.settle()
	require.True(t, here.Connected(), "the loopback goes on")
	require.NoError(t, errors.Join(here.Abort(), lo.Close()))
	for _, st := range []*Stream{s.Stream, l.Stream, connecting, c.Stream, atOnce.Stream} {
		require.NoError(t, st.Close())
	}
	for q := range h.peers {
		for h.take(q) != nil {
		}
	}
	h.wantNoStreams()
}

// IP_TTL and IP_TOS of what a connection sends, the bits for ECN excepted; also after it began.
func TestStreamTTLAndTOS(t *testing.T) {
	h := newHost(t)
	k, s, l := h.accepted(func(l *Stream) {
		require.NoError(t, l.SetTTL(7))
		l.SetTOS(0xFF)
	})
	require.Equal(t, uint8(7), s.TTL(), "accepted ones inherit it")
	require.Equal(t, uint8(0xFC), s.TOS())
	require.Equal(t, syscall.EINVAL, s.SetTTL(0))
	s.writes(1)
	f := k.gets("P. 1:2 ack 1")
	require.Equal(t, uint8(7), f.ip().TTL())
	require.Equal(t, uint8(0xFC), f.ip().TOS())
	require.NoError(t, s.SetTTL(9))
	s.SetTOS(0x10)
	k.sends(". 1:1 ack 2")
	s.writes(1)
	f = k.gets("P. 2:3 ack 1")
	require.Equal(t, uint8(9), f.ip().TTL())
	require.Equal(t, uint8(0x10), f.ip().TOS())
	require.Equal(t, uint8(7), l.TTL(), "each its own")
	k2, _ := h.dials(func(s *Stream) { require.NoError(t, s.SetTTL(3)) })
	require.Equal(t, uint8(3), k2.gets("S 0:0").ip().TTL())
}

// RFC 3168: with ECN agreed on, data is marked, and what a router marked is echoed.
func TestStreamECN(t *testing.T) {
	cfg := DefaultTCP()
	cfg.ECN = tcp.ECNOn
	h := newHost(t, func(s *setup) { s.Config.TCP = &cfg })
	k, s := h.dials()
	k.gets("SEW 0:0")
	k.sends("S.E 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	s.writes(10)
	require.Equal(t, uint8(tcp.ECT0), k.gets("P. 1:11 ack 1").ip().TOS())
	k.ip.tos = uint8(tcp.CE)
	k.sends("P. 1:11 ack 11")
	k.gets(".E 11:11 ack 11")
}

// A line of the list of sockets, in each stage of a stream's life.
func TestStreamsAreListed(t *testing.T) {
	h := newHost(t)
	line := func(n int) SocketInfo {
		t.Helper()
		h.settle()
		list := h.Sockets()
		require.Greater(t, len(list), n)
		return list[n]
	}
	s := h.NewStream()
	require.Empty(t, h.Sockets(), "one that is not bound is nowhere")
	require.NoError(t, s.Bind(ap(hostIP+":80")))
	i := line(0)
	require.Equal(t, SocketInfo{ID: i.ID, Proto: wire.ProtocolTCP, Local: ap(hostIP + ":80"), Interface: "eth0", State: "CLOSED"}, i)
	require.NoError(t, s.Listen(ListenConfig{Backlog: 7}))
	k := h.talk(80, 4000)
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	require.Equal(t, "SYN-RECEIVED", line(1).State)
	k.sends(". 1:1 ack 1")
	i = line(0)
	require.Equal(t, SocketInfo{ID: i.ID, Proto: wire.ProtocolTCP, Local: ap(hostIP + ":80"), Interface: "eth0", State: "LISTEN", ReadQueue: 1, Backlog: 7}, i)
	st := &stream{Stream: s, h: h}
	c := st.accepts()
	k.sends("P. 1:11 ack 1")
	k.gets(". 1:1 ack 11")
	c.writes(5)
	k.gets("P. 1:6 ack 11")
	i = line(1)
	require.NotNil(t, i.TCP)
	require.Equal(t, uint64(10), i.TCP.Received)
	require.Equal(t, 5, i.TCP.Unsent+int(i.TCP.InFlight)*5)
	i.TCP = nil
	require.Equal(t, SocketInfo{
		ID: i.ID, Proto: wire.ProtocolTCP, Local: ap(hostIP + ":80"), Remote: ap(peerIP + ":4000"), Interface: "eth0", State: "ESTABLISHED",
		ReadQueue: 10, WriteQueue: 5, RxBytes: 10, Received: 2, Sent: 3,
	}, i)
	k.dies(11)
	i = line(1)
	require.Equal(t, SocketInfo{
		ID: i.ID, Proto: wire.ProtocolTCP, Local: ap(hostIP + ":80"), Remote: ap(peerIP + ":4000"), Interface: "eth0", State: "CLOSED", ReadQueue: 10,
	}, i, "it has ended, and its socket is not closed")
	require.NoError(t, c.Close())
	_, d := h.dials()
	require.Equal(t, ap(peerIP+":80"), line(1).Remote, "also before it begins")
	h.take(0)
	require.Equal(t, "SYN-SENT", line(1).State)
	require.NoError(t, d.Close())
	require.NoError(t, s.Close())
	h.wantNoStreams()
}

// What each transition tells those who watch.
func TestStreamEventsAreTold(t *testing.T) {
	h := newHost(t)
	w := NewWaiter()
	told := func(want bool, why string) {
		t.Helper()
		h.settle()
		select {
		case <-w.C:
			require.True(t, want, why)
		default:
			require.False(t, want, why)
		}
	}
	k, s := h.dials()
	s.Watch(w, Readable)
	k.gets("S 0:0")
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	told(false, "to be connected is to be writable")
	s.Unwatch(w)
	s.Watch(w, Writable)
	k.sends("P. 1:11 ack 1")
	told(false, "not to be read")
	s.Unwatch(w)
	s.Watch(w, Readable)
	k.sends("P. 11:21 ack 1")
	told(true, "bytes came")
	k.sends("P. 31:41 ack 1")
	told(false, "not yet in order")
	k.sends("F. 41:41 ack 1")
	told(false, "nor is the end")
	k.sends("P. 21:31 ack 1")
	told(true, "now they are")
	require.NoError(t, s.Shutdown(ShutRead))
	told(true, "our own call changes what Events says")
	require.NoError(t, s.Close())
	told(true, "it is closed")

	for _, want := range []Events{0, Writable, Readable} {
		k, s = h.dials()
		s.Watch(w, want)
		k.drains()
		k.knows = false
		h.wait(time.Millisecond)
		k.peerISS++
		f := h.take(0)
		require.Nil(t, f)
		told(false, "nothing happened yet")
		h.wait(seconds(1.1))
		k.gets("S 0:0")
		k.sends("R. 0:0 ack 1")
		told(true, "a failure is told to all")
		require.Equal(t, syscall.ECONNREFUSED, s.TakeError())
		require.NoError(t, s.Close())
		told(true, "and so is the end")
		s.Unwatch(w)
	}
	k, s = h.dials()
	s.Watch(w, Writable)
	k.gets("S 0:0")
	told(false, "not yet")
	k.sends("S. 0:0 ack 1 mss 1460")
	told(true, "it is connected")
	s.Unwatch(w)

	for _, want := range []Events{0, Writable, Readable} {
		s := h.NewStream()
		require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(otherIP+":80")))
		s.Watch(w, want)
		told(false, "its neighbour is being asked for")
		h.wait(seconds(3.1))
		told(true, "a failure that no segment brought is told too")
		require.Equal(t, syscall.EHOSTUNREACH, s.TakeError())
		s.Unwatch(w)
		h.wait(seconds(2))
	}
}
