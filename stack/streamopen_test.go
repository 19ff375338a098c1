package stack

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// RFC 9293 §3.10.1 and §3.10.7.3: an active open.
func TestStreamConnects(t *testing.T) {
	h := newHost(t)
	k, s := h.dials()
	require.Equal(t, ap(peerIP+":80"), s.RemoteAddr(), "known from Connect on")
	require.Equal(t, netip.MustParseAddr(hostIP), s.LocalAddr().Addr())
	require.GreaterOrEqual(t, s.LocalAddr().Port(), uint16(firstEphemeral))
	f := k.gets("S 0:0 win 65535 mss 1460 ws 7")
	require.Equal(t, uint8(64), f.ip().TTL())
	require.True(t, f.ip().DF())
	s.wantState(tcp.SynSent)
	require.Zero(t, s.Events(), "neither of the two has happened")
	_, err := s.Write([]byte("x"))
	require.Equal(t, syscall.EAGAIN, err)
	s.wantNothing("not connected yet")
	require.Equal(t, syscall.ENOTCONN, s.Shutdown(ShutWrite))
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	s.wantState(tcp.Established)
	require.True(t, s.Connected())
	require.Equal(t, Writable, s.Events())
	h.wantIdle("the handshake is over")
}

// RFC 9293 §3.10.7.2 and §3.10.7.4: a passive open.
func TestStreamAccepts(t *testing.T) {
	h := newHost(t)
	l := h.listens(hostIP+":80", ListenConfig{Backlog: 10})
	l.wantNone("nobody came")
	k := h.talk(80, 4000)
	k.sends("S 0:0 mss 1000 ws 2 sack ok ts 7:0")
	k.gets("S. 0:0 ack 1 win 65535 mss 1460 ws 7")
	l.wantNone("the handshake is not done")
	require.Zero(t, l.Events())
	k.sends(". 1:1 ack 1 ts 8:0")
	require.Equal(t, Readable, l.Events())
	s := l.accepts()
	l.wantNone("one client, one socket")
	require.Equal(t, ap(hostIP+":80"), s.LocalAddr())
	require.Equal(t, ap(peerIP+":4000"), s.RemoteAddr())
	require.Equal(t, h.iface, s.Interface())
	require.True(t, s.Connected())
	require.Equal(t, Writable, s.Events())
	i, ok := s.Info()
	require.True(t, ok)
	require.Equal(t, 988, i.SendMSS, "the peer's MSS less the timestamp")
	require.True(t, i.SACK)
	require.Equal(t, uint8(2), i.SendScale)
	h.wantIdle("the handshake is over")
}

// RFC 9293 §3.10.7.1: nobody listens there, and an RST is never answered.
func TestStreamRefusesWhatIsNobodys(t *testing.T) {
	h := newHost(t)
	k := h.talk(80, 4000)
	k.knows = true
	k.ends("tcp-no-port", "S 0:0 mss 1460")
	k.gets("R. 0:0 ack 1")
	k.ends("tcp-no-port", "P. 1:11 ack 5")
	k.gets("R 5:5")
	k.ends("tcp-no-port", "FP 1:11")
	k.gets("R. 0:0 ack 12")
	k.ends("tcp-no-port", "R 1:1")
	k.ends("tcp-no-port", "R. 1:1 ack 5")
	h.wantIdle("an RST has no answer")

	bound := &stream{Stream: h.NewStream(), h: h}
	require.NoError(t, bound.Bind(ap(hostIP+":80")))
	k.ends("tcp-no-port", "S 0:0")
	k.gets("R. 0:0 ack 1")
	h.wantIdle("a bound socket does not listen")
}

// RFC 9293 §3.10.7.3, second: an RST that acknowledges the SYN refuses the connection.
func TestStreamIsRefused(t *testing.T) {
	h := newHost(t)
	k, s := h.dials()
	k.gets("S 0:0")
	k.sends("R 0:0")
	s.wantNothing("an RST without ACK proves nothing (RFC 5961 §3.2)")
	k.sends("R. 0:0 ack 2")
	s.wantNothing("nor does one that acknowledges what was not sent")
	k.sends("S. 0:0 ack 5 mss 1460")
	k.gets("R 5:5")
	s.wantNothing("and such a SYN-ACK is an old one")
	s.wantState(tcp.SynSent)
	k.sends("R. 0:0 ack 1")
	s.wantFailed(syscall.ECONNREFUSED, "nobody listens there")
	require.False(t, s.RemoteAddr().IsValid())
	s.wantErrno(syscall.ENOTCONN, "it is not connected")
	_, err := s.Write([]byte("x"))
	require.Equal(t, syscall.ENOTCONN, err)
	require.Equal(t, syscall.ENOTCONN, s.Shutdown(ShutWrite))
	require.True(t, s.LocalAddr().IsValid(), "still bound")
	require.NoError(t, s.Close())
	h.wantIdle("all is said")
	h.wantNoStreams()
}

// Connect may be called again after it failed, to the same peer or to another.
func TestStreamConnectsAgain(t *testing.T) {
	h := newHost(t)
	k, s := h.dials()
	k.gets("S 0:0")
	k.sends("R. 0:0 ack 1")
	require.Equal(t, syscall.ECONNREFUSED, s.Connect(ap(peerIP+":80")), "nobody was told yet why it failed")
	for range 2 {
		require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(peerIP+":80")))
		k.knows = false
		k.gets("S 0:0")
		k.sends("R. 0:0 ack 1")
		s.wantFailed(syscall.ECONNREFUSED, "as before")
	}
	require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(peerIP+":81")))
	require.Equal(t, syscall.EALREADY, s.Connect(ap(peerIP+":81")))
	other := h.talk(s.LocalAddr().Port(), 81)
	other.gets("S 0:0")
	other.sends("S. 0:0 ack 1 mss 1460")
	other.gets(". 1:1 ack 1")
	require.True(t, s.Connected())
	require.Equal(t, Writable, s.Events())
	require.Equal(t, syscall.EISCONN, s.Connect(ap(peerIP+":81")))
	s.writes(5)
	other.gets("P. 1:6 ack 1")
	other.sends("P. 1:4 ack 6")
	s.reads(3)
	require.Len(t, h.Sockets(), 1)
	other.sends("R. 4:4 ack 6")
	s.wantErrno(syscall.ECONNRESET, "the peer is gone")
	require.Equal(t, syscall.EISCONN, s.Connect(ap(peerIP+":81")), "one socket, one connection")
	require.NoError(t, s.Close())
	h.wantNoStreams()
}

// A SYN without an answer is repeated after 1, 2, 4, 8 and 16 s, and given up after about a minute (network-kit.md).
func TestStreamConnectsToSilence(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s := h.dials()
	k.gets("S 0:0")
	began := h.now
	for _, at := range []float64{1, 3, 7, 15, 31} {
		h.wait(began.Add(seconds(at - 0.01)).Sub(h.now))
		h.wantIdle("not yet")
		h.wait(seconds(0.02))
		k.gets("S 0:0")
	}
	h.wait(seconds(31))
	s.wantNothing("the last one may still be answered")
	h.wait(seconds(2))
	s.wantFailed(syscall.ETIMEDOUT, "no answer in 63 s")
	h.wantIdle("it is over")
}

// A neighbour that does not answer ARP is told when that has failed, after three requests.
func TestStreamConnectsToNoNeighbour(t *testing.T) {
	h := newHost(t)
	s := &stream{Stream: h.NewStream(), h: h}
	require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(otherIP+":80")))
	for range 3 {
		h.want(broadcastTo + "arp who-has 10.0.0.3 tell 10.0.0.1")
		s.wantNothing("it is being asked for")
		h.wait(seconds(1.001))
	}
	s.wantFailed(syscall.EHOSTUNREACH, "nobody is there")
	require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(otherIP+":80")), "it may come back")
	s.wantFailed(syscall.EHOSTUNREACH, "and the failure is remembered for a second")
	require.NoError(t, s.Close())
	h.wantIdle("no more requests")
	h.wantNoStreams()
}

// The SYN waits for its neighbour's address.
func TestStreamSYNWaitsForItsNeighbour(t *testing.T) {
	h := newHost(t)
	s := &stream{Stream: h.NewStream(), h: h}
	require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(otherIP+":80")))
	h.want(broadcastTo + "arp who-has 10.0.0.3 tell 10.0.0.1")
	require.Equal(t, uint64(1), h.Stats().Waiting)
	h.arrives("consumed", isAt(otherMAC, otherIP))
	k := h.talk(s.LocalAddr().Port(), 80)
	k.ip = packet{from: otherIP, fromMAC: otherMAC}
	f := k.gets("S 0:0")
	require.Equal(t, otherMAC, f.ethernet().Dst)
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	h.wantIdle("one SYN")
}

// What the routing table says is told at once, and what it says later to the next SYN.
func TestStreamConnectsByTheRoutes(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	for kind, errno := range map[RouteKind]syscall.Errno{
		RouteUnreachable: syscall.EHOSTUNREACH, RouteProhibit: syscall.EACCES, RouteBlackhole: syscall.EINVAL, RouteElsewhere: syscall.ENETUNREACH,
	} {
		r := Route{Dst: prefix("192.0.2.0/24"), Kind: kind}
		require.NoError(t, h.iface.SetRoutes([]Route{r, via("10.0.0.0/24", "")}))
		require.Equal(t, errno, h.NewStream().Connect(ap(farIP+":80")))
	}
	require.Equal(t, syscall.ENETUNREACH, h.NewStream().Connect(ap("8.8.8.8:80")))

	k, s := h.dials()
	k.gets("S 0:0")
	require.NoError(t, h.iface.SetRoutes(nil))
	s.wantNothing("the SYN is on its way")
	h.wait(seconds(1.1))
	s.wantFailed(syscall.ENETUNREACH, "the next one has none")
	require.NoError(t, s.Close())

	require.NoError(t, h.iface.SetRoutes([]Route{via("10.0.0.0/24", "")}))
	k, s = h.dials()
	k.gets("S 0:0")
	require.NoError(t, h.iface.SetRoutes([]Route{{Dst: prefix("10.0.0.0/24"), Kind: RouteUnreachable}}))
	h.wait(seconds(1.1))
	s.wantFailed(syscall.EHOSTUNREACH, "the next one is refused")
	require.NoError(t, s.Close())
	require.Empty(t, h.Sockets(), "an unbound socket that failed to connect is not listed")
}

// RFC 1122 §4.2.3.9 and RFC 5927: what ICMP says about a SYN.
func TestStreamConnectsAndICMPAnswers(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	for _, c := range []struct {
		code  uint8
		errno syscall.Errno
	}{{wire.CodePortUnreachable, syscall.ECONNREFUSED}, {wire.CodeProtocolUnreachable, syscall.ENOPROTOOPT}} {
		k, s := h.dials()
		f := k.gets("S 0:0")
		h.arrives("icmp-quote", packet{}.icmpAbout(f.withSeq(1), wire.ICMPUnreachable, c.code, 0), "of another sequence number")
		s.wantNothing("a forgery")
		h.arrives("consumed", packet{}.icmpAbout(f, wire.ICMPUnreachable, c.code, 0))
		s.wantFailed(c.errno, "a hard error")
		h.arrives("icmp-quote", packet{}.icmpAbout(f, wire.ICMPUnreachable, c.code, 0), "there is no connection any more")
		require.NoError(t, s.TakeError())
		require.NoError(t, s.Close())
	}
	for _, c := range []struct {
		typ   wire.ICMPType
		code  uint8
		errno syscall.Errno
	}{
		{wire.ICMPUnreachable, wire.CodeHostUnreachable, syscall.EHOSTUNREACH},
		{wire.ICMPUnreachable, wire.CodeNetUnreachable, syscall.ENETUNREACH},
		{wire.ICMPTimeExceeded, 0, syscall.EHOSTUNREACH},
		{wire.ICMPParameterProblem, 0, syscall.EHOSTUNREACH},
	} {
		k, s := h.dials()
		f := k.gets("S 0:0")
		h.arrives("consumed", packet{from: otherIP}.icmpAbout(f, c.typ, c.code, 0), "a router says so")
		s.wantNothing("no more than advice, as routes come back")
		h.wait(seconds(64))
		k.drains()
		s.wantFailed(c.errno, "and then it says more than a time-out")
		require.NoError(t, s.Close())
	}
	h.wantNoStreams()
}

// RFC 9293 §3.5, figure 8: both ends connect to each other.
func TestStreamSimultaneousOpen(t *testing.T) {
	h := newHost(t)
	k, s := h.dials()
	k.gets("S 0:0")
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	s.wantNothing("half-way")
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	require.True(t, s.Connected())
	s.writes(3)
	k.gets("P. 1:4 ack 1")
	k.sends("R. 1:1 ack 4")
	h.wantIdle("over")
}

// What cannot be connected to, or not from there.
func TestStreamConnectErrors(t *testing.T) {
	h := newHost(t)
	for to, errno := range map[string]syscall.Errno{
		bcastIP + ":80": syscall.ENETUNREACH, "255.255.255.255:80": syscall.ENETUNREACH, "224.0.0.5:80": syscall.ENETUNREACH,
		peerIP + ":0": syscall.EINVAL, "[::1]:80": syscall.EAFNOSUPPORT,
	} {
		require.Equal(t, errno, h.NewStream().Connect(ap(to)), to)
	}
	s := h.NewStream()
	require.NoError(t, s.Bind(ap("127.0.0.1:0")))
	require.Equal(t, syscall.EINVAL, s.Connect(ap(peerIP+":80")), "RFC 1122 §3.2.1.3 (g)")
	require.NoError(t, s.Close())
	require.Equal(t, syscall.EBADF, s.Connect(ap(peerIP+":80")))
	l := h.listens(hostIP+":80", ListenConfig{Count: 1})
	require.Equal(t, syscall.EINVAL, l.Connect(ap(peerIP+":80")))
	require.NoError(t, l.Close())
	h.wantIdle("nothing of this leaves")
	h.wantNoStreams()
}

// The connection's four numbers are in use: by a connection of a listening socket that was closed since.
func TestStreamConnectsInPlaceOfAConnection(t *testing.T) {
	for _, queues := range []int{1, 4} {
		h := newHost(t, func(s *setup) { s.queues = queues })
		k, s, l := h.accepted()
		require.NoError(t, l.Close())
		c := &stream{Stream: h.NewStream(), h: h}
		require.NoError(t, c.SetReuseAddr(true))
		require.NoError(t, c.Bind(ap(hostIP+":80")))
		err := c.Connect(ap(peerIP + ":4000"))
		h.settle()
		if err == syscall.EINPROGRESS {
			err = c.TakeError()
		}
		require.Equal(t, syscall.EADDRNOTAVAIL, err)
		h.wantIdle("no SYN in the middle of a connection")
		s.writes(3)
		k.gets("P. 1:4 ack 1")
		require.NoError(t, s.Abort())
		k.gets("R. 4:4 ack 1")
		require.Equal(t, syscall.EINPROGRESS, c.Connect(ap(peerIP+":4000")), "it is over")
		require.NoError(t, c.Close())
		h.settle()
		for q := range queues {
			h.take(q)
		}
		h.wantNoStreams()
	}
}

// Close ends an attempt to connect, and what still comes for it is nobody's.
func TestStreamClosedWhileConnecting(t *testing.T) {
	h := newHost(t)
	k, s := h.dials()
	k.gets("S 0:0")
	require.NoError(t, s.Close())
	h.wantIdle("there is nobody to reset")
	k.ends("tcp-no-port", "S. 0:0 ack 1 mss 1460")
	k.gets("R 1:1")
	h.wantNoStreams()

	_, s = h.dials()
	require.NoError(t, s.Close())
	h.wantIdle("not even a SYN")
	h.wantNoStreams()

	h.arrives("consumed", isAt(peerMAC, peerIP))
	k, s = h.dials()
	k.gets("S 0:0")
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	require.NoError(t, s.Abort())
	k.gets("R. 1:1 ack 1")
	h.wantIdle("half-way of a simultaneous open there is")
	h.wantNoStreams()
}

// A socket of a card binds to what the card has, and its connections stay on the card, whatever the others' routes are.
func TestStreamStaysOnItsCard(t *testing.T) {
	h := newHost(t)
	other := addCard(h, "eth1", "10.1.0.1/24")
	require.NoError(t, h.Interfaces()[1].AddRoute(via("192.0.2.0/24", "10.1.0.2")))
	h.iface.SetNeighbour(entry(gatewayIP, peerMAC, NeighbourPermanent))
	s := &stream{Stream: h.NewStream(), h: h}
	require.NoError(t, s.Bind(ap(hostIP+":0")))
	require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(farIP+":80")))
	k := h.talk(s.LocalAddr().Port(), 80)
	k.ip = packet{from: farIP}
	k.gets("S 0:0")
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	require.Nil(t, other.Take(), "the other card's route would be the better one")

	require.NoError(t, h.iface.SetRoutes([]Route{via("10.0.0.0/24", "")}))
	c := h.NewStream()
	require.NoError(t, c.Bind(ap(hostIP+":0")))
	require.Equal(t, syscall.ENETUNREACH, c.Connect(ap(farIP+":80")), "from here there is no way")
	require.NoError(t, c.Close())
	u := h.NewStream()
	require.Equal(t, syscall.EINPROGRESS, u.Connect(ap(farIP+":80")))
	require.Equal(t, "eth1", u.Interface().Name(), "an unbound one comes from the address of the card with the way")
	require.NoError(t, u.Close())
}

// A connection to itself: the simultaneous open of one end.
func TestStreamConnectsToItself(t *testing.T) {
	h := newHost(t)
	s := &stream{Stream: h.NewStream(), h: h}
	require.NoError(t, s.Bind(ap(hostIP+":5000")))
	require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(hostIP+":5000")))
	h.wait(seconds(1))
	require.True(t, s.Connected())
	s.writes(10)
	h.wait(seconds(1))
	s.reads(10)
	require.NoError(t, s.Shutdown(ShutWrite))
	s.wantEnd("its own")
	require.NoError(t, s.Close())
	h.wait(seconds(120))
	h.wantIdle("nothing of this leaves")
	h.wantNoStreams()
}
