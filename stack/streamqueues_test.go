package stack

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

func fourQueues(s *setup) { s.queues = 4 }

// on is a talk whose next segments arrive on another queue.
func (k *talk) on(queue int) *talk {
	k.queue = queue
	return k
}

// sendsOn has the peer send a segment that arrives on another queue than that of the connection.
func (k *talk) sendsOn(queue int, description string) {
	k.h.t.Helper()
	k.endsOn(queue, "delivered forwarded", description)
}

func (k *talk) endsOn(queue int, end, description string) {
	k.h.t.Helper()
	k.h.arrivesOn(queue, end, k.frame(description), description)
}

// A connection that the host begins lives on the queue of its SYN, and its segments are found wherever they arrive.
func TestStreamAnsweredOnAnotherQueue(t *testing.T) {
	h := newHost(t, fourQueues)
	h.keepPeer()
	s := &stream{Stream: h.NewStream(), h: h}
	require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(peerIP+":80")))
	k := h.talk(s.LocalAddr().Port(), 80).on(s.e.Load().queue)
	k.gets("S 0:0")
	at := 1
	k.sendsOn((k.queue+1)%4, "S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	for n := range 8 { // the sender's kernel chooses another queue for each
		q := (k.queue + n) % 4
		end := "delivered forwarded"
		if q == k.queue {
			end = "delivered"
		}
		k.endsOn(q, end, fmt.Sprintf("P. %d:%d ack 1", at, at+10))
		k.gets(fmt.Sprintf(". 1:1 ack %d", at+10))
		s.reads(10)
		at += 10
	}
	s.writes(10)
	f := k.gets("P. 1:11 ack 81")
	other := (k.queue + 2) % 4
	h.arrivesOn(other, "consumed forwarded", packet{from: otherIP}.icmpAbout(f, wire.ICMPUnreachable, wire.CodeHostUnreachable, 0))
	i, _ := s.Info()
	require.ErrorIs(t, i.SoftError, tcp.ErrHostUnreachable)
	h.arrivesOn(other, "forwarded icmp-quote", fragNeeded(f.withSeq(100), 1000))
	k.endsOn(other, "delivered forwarded", "R 81:81")
	s.wantErrno(syscall.ECONNRESET, "by another queue")
	k.endsOn(other, "tcp-no-port", "R 81:81")
	require.NoError(t, s.Close())
	h.wantIdle("all is said")
	h.wantNoStreams()
}

// A connection that the peer begins lives where its SYN arrived.
func TestStreamAcceptedChangesQueue(t *testing.T) {
	h := newHost(t, fourQueues)
	h.keepPeer()
	l := h.listens(hostIP+":80", ListenConfig{Count: 2})
	k := h.talk(80, 4000).on(2)
	k.sends("S 0:0 mss 1460")
	k.sendsOn(1, "S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	k.gets("S. 0:0 ack 1")
	h.wantIdle("a SYN that is repeated elsewhere is no other connection")
	k.sendsOn(0, ". 1:1 ack 1")
	s := l.accepts()
	l.wantNone("one client")
	k.sendsOn(3, "P. 1:11 ack 1")
	k.gets(". 1:1 ack 11")
	s.reads(10)
	require.NoError(t, s.Close())
	k.gets("F. 1:1 ack 11")
	k.sendsOn(0, "F. 11:11 ack 2")
	k.gets(". 2:2 ack 12")
	s.wantState(tcp.TimeWait)

	again := h.talk(80, 4000).on(2) // RFC 6191, from another queue
	again.peerISS = k.peerISS + 100
	again.sendsOn(1, "S 0:0 mss 1460")
	again.gets("S. 0:0 ack 1")
	again.sendsOn(1, ". 1:1 ack 1")
	require.NoError(t, l.accepts().Abort())
	again.gets("R. 1:1 ack 1")
	again.endsOn(1, "tcp-listen-ignored", "P. 1:11 ack 1")
	again.on(1).gets("R 1:1")
	require.NoError(t, l.Close())
	h.wantIdle("all is said")
	h.wantNoStreams()
}

// Two copies of one SYN at the same time on two queues: the slower engine leaves it to the other.
func TestStreamSYNTakenTwice(t *testing.T) {
	for _, cfg := range []ListenConfig{{Count: 5}, {Backlog: 5}} {
		h := newHost(t, twoQueues)
		l := h.listens(hostIP+":80", cfg)
		k := h.talk(80, 4000)
		k.sends("S 0:0 mss 1460")
		k.gets("S. 0:0 ack 1")
		e := h.iface.engines[1]
		s := tcp.Segment{Seq: k.peerISS, Flags: tcp.SYN, Options: wire.NoTCPOptions()}
		id := tcp.ID{Local: addr(hostIP), Remote: addr(peerIP), LocalPort: 80, RemotePort: 4000}
		require.Equal(t, DropTCPListenIgnored, e.tcpListen(l.listen.Load(), &id, &s, nil), "as it goes when it did not see the other's in time")
		require.Zero(t, e.conns.count)
		k.sends(". 1:1 ack 1")
		l.accepts()
		require.Zero(t, l.listen.Load().halfOpen.Load())
		require.LessOrEqual(t, l.listen.Load().held.Load(), int32(1))
	}
}

// RFC 4987: the ACK that brings a cookie back may come to another engine than the one that gave it.
func TestStreamCookieOnAnotherQueue(t *testing.T) {
	h := newHost(t, fourQueues)
	h.keepPeer()
	l := h.listens(hostIP+":80", ListenConfig{Backlog: 100, HalfOpen: 1})
	h.talk(80, 1).sends("S 0:0 mss 1460")
	require.NotNil(t, h.take(0))
	forged := h.talk(80, 9).on(3)
	forged.knows = true
	forged.ends("tcp-listen-ignored", ". 1:1 ack 77")
	forged.gets("R 77:77")
	for n, queue := range []int{0, 1, 2, 3} {
		k := h.talk(80, uint16(2+n)).on(2)
		k.ends("answered", "S 0:0 mss 1460")
		k.gets("S. 0:0 ack 1")
		end := "delivered forwarded"
		if queue == 2 {
			end = "delivered"
		}
		k.endsOn(queue, end, ". 1:1 ack 1")
		s := l.accepts()
		k.endsOn(queue, end, "P. 1:11 ack 1")
		k.gets(". 1:1 ack 11")
		s.reads(10)
	}
	forged.endsOn(3, "forwarded tcp-listen-ignored", ". 1:1 ack 77")
	forged.on(2).gets("R 77:77")
	k := h.talk(80, 50).on(1) // now this one has given one too
	k.ends("answered", "S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	k = h.talk(80, 51).on(2)
	k.ends("answered", "S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	k.on(1).sends(". 1:1 ack 1")
	l.accepts()
	h.wait(cookieMemory)
	h.drain()
	forged.on(3).ends("tcp-listen-ignored", ". 1:1 ack 77")
	forged.gets("R 77:77")
	h.wantIdle("no cookie is about any more")
}

// drain throws away what the host has sent.
func (h *host) drain() {
	h.t.Helper()
	for q := range h.peers {
		for h.take(q) != nil {
		}
	}
}

// A segment in fragments is put together by one engine and taken by another. So is an ICMP error.
func TestStreamFragmentsOnOtherQueues(t *testing.T) {
	for queue := range 4 {
		h := newHost(t, fourQueues)
		h.keepPeer()
		l := h.listens(hostIP+":80", ListenConfig{Count: 2})
		k := h.talk(80, 4000).on(queue)
		k.handshake()
		s := l.accepts()
		for id := range uint16(8) { // by which the engine is chosen that puts it together
			segment := sent(k.frame(fmt.Sprintf("P. %d:%d ack 1", 1+100*int(id), 101+100*int(id))))
			for n, f := range (packet{id: id}).pieces(wire.ProtocolTCP, segment.ip().Payload(), 64) {
				require.True(t, h.peers[(n+int(id))%4].Inject(f))
				h.settle()
			}
			s.reads(100)
		}
		require.NotZero(t, h.Stats().Reassembled)
		h.drain()
		s.writes(10)
		f := k.gets("P. 1:11 ack 801")
		for id := range uint16(8) {
			s.e.Load().conns.each(func(st *Stream) { st.conn.PathTrouble(tcp.NetUnreachable) })
			m := sent(packet{from: otherIP}.icmpAbout(f, wire.ICMPUnreachable, wire.CodeHostUnreachable, 0))
			for n, f := range (packet{from: otherIP, id: id}).pieces(wire.ProtocolICMP, m.ip().Payload(), 16) {
				require.True(t, h.peers[(n+int(id))%4].Inject(f))
				h.settle()
			}
			i, _ := s.Info()
			require.ErrorIs(t, i.SoftError, tcp.ErrHostUnreachable)
		}
		h.wantIdle("all is said")
	}
}

// Connections inside the host, between interfaces of which one has several queues: whatever engine takes a segment, it finds its
// connection.
func TestStreamInsideAcrossQueues(t *testing.T) {
	h := newHost(t, fourQueues)
	addCard(h, "eth1", "10.1.0.1/24")
	before := h.Stats().TxFrames
	for _, at := range []string{"127.0.0.1:80", hostIP + ":80", "10.1.0.1:80"} {
		l := h.listens(at, ListenConfig{Backlog: 100})
		for _, from := range []string{"127.0.0.1:0", hostIP + ":0", "10.1.0.1:0"} {
			for range 12 {
				c := &stream{Stream: h.NewStream(), h: h}
				require.NoError(t, c.Bind(ap(from)))
				require.Equal(t, syscall.EINPROGRESS, c.Connect(ap(at)))
				h.settle()
				require.True(t, c.Connected(), "from %s to %s", from, at)
				s := l.accepts()
				c.writes(50_000)
				s.writes(50_000)
				h.settle()
				c.reads(50_000)
				s.reads(50_000)
				require.NoError(t, c.Shutdown(ShutWrite))
				s.wantEnd("the other end is done")
				require.NoError(t, s.Close())
				c.wantEnd("and so is this")
				require.NoError(t, c.Close())
			}
		}
		require.NoError(t, l.Close())
	}
	require.Equal(t, before, h.Stats().TxFrames, "nothing of this leaves")
	require.NotZero(t, h.Stats().Forwarded)
	h.wait(seconds(61))
	h.wantNoStreams()
}

// What arrives on a queue that only receives is taken by the one that sends for it, connections too.
func TestStreamOnAReceiveOnlyQueue(t *testing.T) {
	h := newHost(t, muteQueue1)
	l := h.listens(hostIP+":80", ListenConfig{Backlog: 100})
	k := h.talk(80, 4000)
	k.sendsOn(1, "S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	k.sends(". 1:1 ack 1")
	k.sendsOn(1, "P. 1:11 ack 1")
	k.gets(". 1:1 ack 11")
	l.accepts().reads(10)
	for range 4 {
		c := &stream{Stream: h.NewStream(), h: h}
		require.Equal(t, syscall.EINPROGRESS, c.Connect(ap(peerIP+":80")))
		k := h.talk(c.LocalAddr().Port(), 80)
		k.gets("S 0:0")
		k.sendsOn(1, "S. 0:0 ack 1 mss 1460")
		k.gets(". 1:1 ack 1")
		in := &stream{Stream: h.NewStream(), h: h}
		require.NoError(t, in.Bind(ap("127.0.0.1:0")))
		require.Equal(t, syscall.EINPROGRESS, in.Connect(ap(hostIP+":80")))
		h.settle()
		require.True(t, in.Connected(), "from inside")
		l.accepts()
	}
	h.wantIdle("all is said")
}

// Connections inside never come to a queue that only receives, or what is sent to them there would be taken for the card's.
func TestStreamInsideBesideAReceiveOnlyQueue(t *testing.T) {
	for _, which := range []int{0, 1} {
		h := newHost(t, muteQueue(which))
		l := h.listens("127.0.0.1:80", ListenConfig{Backlog: 100})
		for range 4 {
			c := &stream{Stream: h.NewStream(), h: h}
			require.NoError(t, c.Bind(ap(hostIP+":0")))
			require.Equal(t, syscall.EINPROGRESS, c.Connect(ap("127.0.0.1:80")))
			h.settle()
			require.True(t, c.Connected())
			s := l.accepts()
			s.writes(1000)
			c.reads(1000)
		}
	}
}

// Connections that the host begins are spread over its queues.
func TestStreamsAreSpread(t *testing.T) {
	h := newHost(t, fourQueues)
	h.keepPeer()
	counts := make(map[int]int)
	for range 400 {
		s := h.NewStream()
		require.Equal(t, syscall.EINPROGRESS, s.Connect(ap(peerIP+":80")))
		counts[s.e.Load().queue]++
	}
	for q := range 4 {
		require.Greater(t, counts[q], 60, "%v", counts)
	}
}
