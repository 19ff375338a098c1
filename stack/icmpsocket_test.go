package stack

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// pinger makes an ICMP socket with an identifier.
func (h *host) pinger(local string) *sock {
	h.t.Helper()
	s := h.socket(wire.ProtocolICMP)
	require.NoError(h.t, s.Bind(ap(local)))
	return s
}

// request is an echo request as a user writes it: with any identifier and without a checksum.
func request(seq byte, payload string) []byte {
	return append([]byte{8, 0, 0, 0, 0xDE, 0xAD, 0, seq}, payload...)
}

// As a ping socket of the kernel (net/ipv4/ping.c): the identifier is the socket's, the checksum is made, and the replies with
// that identifier are its messages.
func TestICMPSocketPings(t *testing.T) {
	h := newHost(t)
	s, other := h.pinger("10.0.0.1:100"), h.pinger("10.0.0.1:101")
	require.NoError(t, s.write(request(1, "hello"), "10.0.0.2:0"))
	f := h.want("10.0.0.1 > 10.0.0.2: icmp echo request id 100 seq 1 length 13")
	require.True(t, f.ip().DF())
	h.arrives("delivered", packet{ttl: 9}.icmp(wire.ICMPEchoReply, 0, 100<<16|1, []byte("hello")))
	m, err := s.read()
	require.NoError(t, err)
	require.Equal(t, ap("10.0.0.2:0"), m.Addr)
	require.Equal(t, uint8(9), m.TTL)
	reply := wire.ICMP(m.Buf)
	require.Equal(t, wire.ICMPEchoReply, reply.Type())
	require.Equal(t, uint16(100), reply.ID())
	require.Equal(t, "hello", string(reply.Payload()))
	other.wantNothing("its identifier is another")
	h.arrives("icmp-no-socket", packet{}.icmp(wire.ICMPEchoReply, 0, 102<<16|1, nil))
	h.wantIdle("a reply has no answer")
}

// Pings of others are the engine's, whatever sockets there are.
func TestICMPSocketDoesNotTakeRequests(t *testing.T) {
	h := newHost(t)
	s := h.pinger("10.0.0.1:100")
	h.arrives("answered", packet{}.ping(100, 1, "x"))
	h.want("10.0.0.1 > 10.0.0.2: icmp echo reply id 100 seq 1 length 9")
	s.wantNothing("a request is no reply")
}

// Errors about what the socket sent are messages, as they came: the user sees who sent them and what they quote.
func TestICMPSocketReadsErrors(t *testing.T) {
	h := newHost(t)
	s := h.pinger("10.0.0.1:100")
	require.NoError(t, s.write(request(5, "hello"), "10.0.0.2:0"))
	f := h.want("10.0.0.1 > 10.0.0.2: icmp echo request id 100 seq 5 length 13")
	h.arrives("delivered", packet{from: farIP}.icmpAbout(f, wire.ICMPTimeExceeded, 0, 0))
	m, err := s.read()
	require.NoError(t, err)
	require.Equal(t, ap("192.0.2.9:0"), m.Addr)
	require.Equal(t, wire.ICMPTimeExceeded, wire.ICMP(m.Buf).Type())
	q, err := wire.ParseQuoted(wire.ICMP(m.Buf).Payload())
	require.NoError(t, err)
	require.Equal(t, uint16(100), q.ID)
	require.Equal(t, uint16(5), q.Seq)
	s.wantNothing("and no errno beside it")
}

// A path MTU is learnt from an error about a ping too, and the message is delivered all the same.
func TestICMPSocketLearnsPathMTU(t *testing.T) {
	h := newHost(t)
	s := h.pinger("10.0.0.1:100")
	require.NoError(t, s.write(request(1, pattern(1472)), "10.0.0.2:0"))
	h.arrives("delivered", fragNeeded(h.take(0), 1000))
	require.NoError(t, s.write(request(2, pattern(1472)), "10.0.0.2:0"))
	m := wire.ICMP(h.wantFragments(976, 504))
	require.True(t, m.ChecksumOK())
	require.Equal(t, uint16(100), m.ID())
}

// A ping longer than the MTU leaves in fragments, and its reply comes back in fragments.
func TestICMPSocketLongPing(t *testing.T) {
	h := newHost(t)
	s := h.pinger("10.0.0.1:100")
	require.NoError(t, s.write(request(1, pattern(60000)), "10.0.0.2:0"))
	m := wire.ICMP(h.wantRest(0))
	require.True(t, m.ChecksumOK())
	require.Equal(t, pattern(60000), string(m.Payload()))
	for _, f := range (packet{id: 9}).pieces(wire.ProtocolICMP, icmpBody(wire.ICMPEchoReply, 0, 100<<16|1, []byte(pattern(60000))), 1480) {
		h.peers[0].Inject(f)
	}
	h.settle()
	got, err := s.read()
	require.NoError(t, err)
	require.Equal(t, pattern(60000), string(got.Buf[8:]))
}

// As in net/ipv4/ping.c: only echo requests are sent.
func TestICMPSocketSendsOnlyRequests(t *testing.T) {
	h := newHost(t)
	s := h.pinger("10.0.0.1:100")
	require.Equal(t, syscall.EINVAL, s.write(make([]byte, 7), "10.0.0.2:0"))
	require.Equal(t, syscall.EINVAL, s.write(nil, "10.0.0.2:0"))
	for typ := range 256 {
		if typ == int(wire.ICMPEcho) {
			continue
		}
		require.Equal(t, syscall.EINVAL, s.write([]byte{byte(typ), 0, 0, 0, 0, 0, 0, 0}, "10.0.0.2:0"))
	}
	require.Equal(t, syscall.EMSGSIZE, s.write(request(1, pattern(65508)), "10.0.0.2:0"))
	h.wantIdle("nothing of it")
	require.NoError(t, s.write(request(1, pattern(65507)), "10.0.0.2:0"))
	h.wantRest(0)
	require.NoError(t, s.write(request(1, pattern(1472)), "10.0.0.2:0"))
	require.True(t, h.take(0).ip().DF(), "1500 bytes are one packet")
	require.NoError(t, s.write(request(1, pattern(1473)), "10.0.0.2:0"))
	h.wantFragments(1480, 1)
	require.Equal(t, syscall.EOPNOTSUPP, s.SetHandler(func(*Packet) {}))
}

// A connected ICMP socket reads the peer's replies only, but errors from any router on the way.
func TestICMPSocketConnected(t *testing.T) {
	h := newHost(t)
	s := h.pinger("10.0.0.1:100")
	require.NoError(t, s.Connect(ap("10.0.0.2:33")))
	require.Equal(t, syscall.EISCONN, s.Connect(ap("10.0.0.3:0")))
	require.NoError(t, s.write(request(1, "hello"), ""))
	f := h.want("10.0.0.1 > 10.0.0.2: icmp echo request id 100 seq 1 length 13")
	h.arrives("icmp-no-socket", packet{from: otherIP}.icmp(wire.ICMPEchoReply, 0, 100<<16|1, nil))
	h.arrives("delivered", packet{}.icmp(wire.ICMPEchoReply, 0, 100<<16|1, nil))
	h.arrives("delivered", packet{from: farIP}.icmpAbout(f, wire.ICMPUnreachable, 1, 0))
	for range 2 {
		_, err := s.read()
		require.NoError(t, err)
	}
	s.wantNothing("two messages")
}

// Identifiers are bound like ports.
func TestICMPSocketBind(t *testing.T) {
	h := newHost(t)
	h.pinger("10.0.0.1:100")
	require.Equal(t, syscall.EADDRINUSE, h.socket(wire.ProtocolICMP).Bind(ap("10.0.0.1:100")))
	h.bind("10.0.0.1:100") // a UDP port is something else
	s := h.socket(wire.ProtocolICMP)
	require.NoError(t, s.write(request(1, ""), "10.0.0.2:0"))
	require.NotZero(t, s.LocalAddr().Port())
	f := h.take(0)
	require.Equal(t, s.LocalAddr().Port(), f.icmp().ID())
}
