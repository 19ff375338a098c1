package stack

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// RFC 1122 §3.2.2.6: "Every host MUST implement an ICMP Echo server function … Data received in an ICMP Echo Request MUST be
// entirely included in the resulting Echo Reply."
func TestEchoIsAnswered(t *testing.T) {
	h := newHost(t)
	for _, n := range []int{0, 1, 2, 55, 56, 1471, 1472} {
		h.arrives("answered", packet{}.ping(7, 9, pattern(n)))
		f := h.want(fmt.Sprintf("10.0.0.1 > 10.0.0.2: icmp echo reply id 7 seq 9 length %d", n+8))
		require.Equal(t, pattern(n), string(f.icmp().Payload()))
		require.Equal(t, hostMAC, f.ethernet().Src)
	}
	h.wantIdle("one reply each")
}

// RFC 1624 §3: an updated checksum of 0 is right but where all the rest is zeros too.
func TestEchoOfZeros(t *testing.T) {
	h := newHost(t)
	for n := range 9 {
		for _, p := range []packet{{}, {options: []byte{1, 1, 1, 1}}} {
			h.arrives("answered", p.icmp(wire.ICMPEcho, 0, 0, make([]byte, n)))
			f := h.want(fmt.Sprintf("10.0.0.1 > 10.0.0.2: icmp echo reply id 0 seq 0 length %d", n+8))
			require.Equal(t, uint16(0xFFFF), f.icmp().Checksum())
		}
	}
}

// An answer goes back to the Ethernet address that the request came from, without ARP and without a route.
func TestEchoIsAnsweredWhereItCameFrom(t *testing.T) {
	h := newHost(t, strange)
	h.arrives("answered", packet{from: "203.0.113.5", fromMAC: otherMAC}.ping(1, 1, "x"))
	h.want("02:00:00:00:00:03 10.0.0.1 > 203.0.113.5: icmp echo reply id 1 seq 1 length 9")
	h.wantIdle("nobody is asked for")
	h.arrives("ip-source", packet{fromMAC: wire.HardwareAddr{1, 0, 0x5E, 0, 0, 1}}.ping(1, 1, "x"))
	h.wantIdle("but never to a group")
}

// RFC 1122 §3.2.2.6: "Data received in an ICMP Echo Request MUST be entirely included in the resulting Echo Reply": also of one
// that came in fragments, whose reply leaves in fragments.
func TestEchoOfFragments(t *testing.T) {
	for _, n := range []int{1473, 4000, 60000, 65507} {
		h := newHost(t)
		p := packet{id: 77}
		frames := p.pieces(wire.ProtocolICMP, icmpBody(wire.ICMPEcho, 0, 7<<16|9, []byte(pattern(n))), 1480)
		for _, f := range frames[:len(frames)-1] {
			h.arrives("held", f)
		}
		end := fmt.Sprintf("answered consumed*%d held*-%d", len(frames)-1, len(frames)-1)
		if len(frames) == 2 {
			end = "answered consumed held*-1"
		}
		h.arrives(end, frames[len(frames)-1])
		m := wire.ICMP(h.wantRest(0))
		require.True(t, m.ChecksumOK())
		require.Equal(t, wire.ICMPEchoReply, m.Type())
		require.Equal(t, uint16(7), m.ID())
		require.Equal(t, uint16(9), m.Seq())
		require.Equal(t, pattern(n), string(m.Payload()))
		h.wantIdle("one reply")
	}
}

// RFC 792: what is wrong with a message, and what a host has no part in.
func TestICMPErrorsInMessages(t *testing.T) {
	h := newHost(t)
	bad := packet{}.ping(1, 1, "hello")
	bad[len(bad)-1] ^= 1
	h.arrives("icmp-checksum", bad)
	h.arrives("icmp-truncated", packet{}.ip(wire.ProtocolICMP, make([]byte, 7)))
	h.arrives("icmp-truncated", packet{}.ip(wire.ProtocolICMP, nil))
	for _, typ := range []wire.ICMPType{wire.ICMPTimestamp, wire.ICMPTimestampReply, 15, 17, 9, 10, 30, 255} {
		h.arrives("icmp-type", packet{}.icmp(typ, 0, 0, make([]byte, 12)))
	}
	h.wantIdle(`RFC 1122 §3.2.2: "If an ICMP message of unknown type is received, it MUST be silently discarded."`)
}

// RFC 1122 §3.2.2.6: "An ICMP Echo Request destined to an IP broadcast or IP multicast address MAY be silently discarded."
func TestEchoToABroadcastIsNotAnswered(t *testing.T) {
	h := newHost(t)
	for _, to := range []string{bcastIP, "255.255.255.255"} {
		h.arrives("icmp-broadcast", packet{to: to, toMAC: wire.HardwareBroadcast}.ping(1, 1, "hello"))
	}
	h.wantIdle("else one request brings an answer of every host")
}

// RFC 1122 §4.1.3.3: "UDP MUST pass to the application layer all ICMP error messages that it receives from the IP layer."
func TestICMPErrorsReachConnectedSockets(t *testing.T) {
	un, ex, pp := wire.ICMPUnreachable, wire.ICMPTimeExceeded, wire.ICMPParameterProblem
	for _, c := range []struct {
		typ   wire.ICMPType
		code  uint8
		errno syscall.Errno // EAGAIN: none
	}{
		{un, 0, syscall.ENETUNREACH}, {un, 1, syscall.EHOSTUNREACH}, {un, 2, syscall.ENOPROTOOPT}, {un, 3, syscall.ECONNREFUSED},
		{un, 4, syscall.EAGAIN}, {un, 5, syscall.EOPNOTSUPP}, {un, 6, syscall.ENETUNREACH}, {un, 7, syscall.EHOSTUNREACH},
		{un, 8, syscall.EHOSTUNREACH}, {un, 9, syscall.ENETUNREACH}, {un, 10, syscall.EHOSTUNREACH}, {un, 11, syscall.ENETUNREACH},
		{un, 12, syscall.EHOSTUNREACH}, {un, 13, syscall.EHOSTUNREACH}, {un, 14, syscall.EHOSTUNREACH}, {un, 15, syscall.EHOSTUNREACH},
		{un, 99, syscall.EHOSTUNREACH},
		{ex, 0, syscall.EHOSTUNREACH}, {ex, 1, syscall.EHOSTUNREACH}, {pp, 0, syscall.EPROTO}, {pp, 1, syscall.EPROTO},
		{wire.ICMPSourceQuench, 0, syscall.EAGAIN}, {wire.ICMPRedirect, 1, syscall.EAGAIN},
	} {
		t.Run(fmt.Sprintf("type %d code %d", c.typ, c.code), func(t *testing.T) {
			h := newHost(t)
			s := h.connect("10.0.0.1:7", "10.0.0.2:9")
			quiet := h.connect("10.0.0.1:8", "10.0.0.2:9")
			s.writes("hello", "")
			f := h.want("10.0.0.1.7 > 10.0.0.2.9: udp 5")
			h.arrives("consumed", packet{from: farIP}.icmpAbout(f, c.typ, c.code, 0))
			s.wantErrno(c.errno, "the error of the type and code")
			s.wantNothing("told once")
			quiet.wantNothing("only who sent it is told")
			h.wantIdle("an error has no answer")
		})
	}
}

// An error waits until a call takes it: Read, Write or TakeError, whichever comes first, and once.
func TestICMPErrorIsTakenOnce(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	refuse := func() {
		s.writes("hello", "")
		h.arrives("consumed", packet{}.icmpAbout(h.take(0), wire.ICMPUnreachable, wire.CodePortUnreachable, 0))
		require.Equal(t, Errored|Readable|Writable, s.Events())
	}
	refuse()
	s.wantErrno(syscall.ECONNREFUSED, "by Read")
	refuse()
	require.Equal(t, syscall.ECONNREFUSED, s.write([]byte("x"), ""), "by Write, which sends nothing then")
	h.wantIdle("nothing was sent")
	refuse()
	require.Equal(t, syscall.ECONNREFUSED, s.TakeError())
	require.NoError(t, s.TakeError())
	require.Equal(t, Writable, s.Events())
	h.arrives("delivered", packet{}.udp(9, 7, "data"))
	refuse()
	s.wantErrno(syscall.ECONNREFUSED, "it comes before data")
	s.wants("data", "10.0.0.2:9")
}

// A socket that is not connected is told nothing, as in the kernel: it could not say which message the error is about.
func TestICMPErrorsPassUnconnectedSockets(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.writes("hello", "10.0.0.2:9")
	h.arrives("consumed", packet{}.icmpAbout(h.take(0), wire.ICMPUnreachable, wire.CodePortUnreachable, 0))
	s.wantNothing("not connected")
}

// RFC 1122 §3.2.2: the quoted header says whose the error is. What nobody here can have sent is dropped.
func TestICMPQuoteIsChecked(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	h.pinger("10.0.0.1:99")
	quote := func(p packet, body []byte) []byte { return p.ip(wire.ProtocolUDP, body)[wire.EthernetLen:] }
	ours := packet{from: hostIP, to: peerIP}
	ports := func(p packet, from, to int) []byte { return quote(p, p.udpBody(from, to, []byte("hello"))) }
	about := func(q []byte) []byte { return packet{}.icmp(wire.ICMPUnreachable, wire.CodePortUnreachable, 0, q) }
	later := ours
	later.off = 8
	for why, q := range map[string][]byte{
		"no quote at all":                           nil,
		"19 bytes of a header":                      ports(ours, 7, 9)[:19],
		"a header alone":                            ports(ours, 7, 9)[:20],
		"3 bytes of the ports":                      ports(ours, 7, 9)[:23],
		"another source":                            ports(packet{from: otherIP, to: peerIP}, 7, 9),
		"a broadcast as source":                     ports(packet{from: bcastIP, to: peerIP}, 7, 9),
		"a loopback source":                         ports(packet{from: "127.0.0.1", to: peerIP}, 7, 9),
		"a port that nobody has":                    ports(ours, 8, 9),
		"another destination":                       ports(packet{from: hostIP, to: otherIP}, 7, 9),
		"another destination port":                  ports(ours, 7, 10),
		"a later fragment":                          quote(later, []byte(pattern(16))),
		"version 6":                                 append([]byte{0x65}, ports(ours, 7, 9)[1:]...),
		"a header of 4 bytes":                       append([]byte{0x41}, ports(ours, 7, 9)[1:]...),
		"a header beyond the quote":                 append([]byte{0x4F}, ports(ours, 7, 9)[1:]...),
		"TCP":                                       ours.ip(wire.ProtocolTCP, ours.udpBody(7, 9, []byte("hello")))[wire.EthernetLen:],
		"another protocol":                          ours.ip(47, ours.udpBody(7, 9, []byte("hello")))[wire.EthernetLen:],
		"an echo that nobody sent":                  ours.icmp(wire.ICMPEcho, 0, 7<<16, nil)[wire.EthernetLen:],
		"an echo reply, for which no error is made": ours.icmp(wire.ICMPEchoReply, 0, 99<<16, nil)[wire.EthernetLen:],
	} {
		h.arrives("icmp-quote", about(q), why)
	}
	s.wantNothing("none was for the socket")
	h.arrives("icmp-quote", packet{to: bcastIP}.icmp(wire.ICMPUnreachable, wire.CodePortUnreachable, 0, ports(ours, 7, 9)), "an error to a broadcast")
	h.arrives("consumed", about(ports(ours, 7, 9)[:28]), "8 bytes are enough")
	s.wantErrno(syscall.ECONNREFUSED, "that one")
	h.arrives("consumed", about(ports(ours, 7, 9)[:24]), "even the ports alone")
	s.wantErrno(syscall.ECONNREFUSED, "that one too")
	opt := ours
	opt.options = []byte{1, 1, 1, 1}
	h.arrives("consumed", about(ports(opt, 7, 9)), "options in the quote")
	s.wantErrno(syscall.ECONNREFUSED, "and that one")
	h.wantIdle("no error is answered")
}

// RFC 1812 §4.3.2.8: "A router SHOULD also be able to limit the rate at which it sends other sorts of ICMP error messages". Here
// that is 1000 a second, and a burst of what a twentieth of a second allows.
func TestICMPErrorRateLimit(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	flood := func(n int) (errors int) {
		for range n {
			h.arrives("udp-no-port", packet{}.udp(4000, 9, "x"))
			if h.take(0) != nil {
				errors++
			}
		}
		return errors
	}
	require.Equal(t, 50, flood(500))
	require.Equal(t, uint64(450), h.Stats().ICMPErrorsHeld)
	require.Equal(t, uint64(50), h.Stats().ICMPErrorsSent)
	h.wait(seconds(0.010))
	require.Equal(t, 10, flood(100))
	h.wait(seconds(100))
	require.Equal(t, 50, flood(100), "a long silence saves nothing up")
	h.wait(seconds(1))
	total := 0
	for range 1000 {
		total += flood(2)
		h.wait(seconds(0.001))
	}
	require.InDelta(t, 1000, total, 51)
}

func TestICMPErrorRateIsConfigured(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Limits.ICMPErrorsPerSecond = 1 })
	h.keepPeer()
	for n := range 5 {
		h.arrives("udp-no-port", packet{}.udp(4000, 9, "x"))
		require.NotNil(t, h.take(0))
		h.arrives("udp-no-port", packet{}.udp(4000, 9, "x"))
		h.wantIdle("one a second")
		require.Equal(t, uint64(n+1), h.Stats().ICMPErrorsHeld)
		h.wait(seconds(1))
	}
}

// RFC 1122 §3.2.2: "An ICMP error message MUST NOT be sent as the result of receiving: an ICMP error message, or a datagram
// destined to an IP broadcast or IP multicast address, or a datagram sent as a link-layer broadcast, or a non-initial fragment, or
// a datagram whose source address does not define a single host".
func TestNoICMPErrorAbout(t *testing.T) {
	h := newHost(t)
	route := []byte{131, 7, 8, 10, 0, 0, 9, 0}
	bad := []byte{7, 0, 0, 0}
	for _, typ := range []wire.ICMPType{3, 4, 5, 11, 12} {
		h.arrives("ip-options", packet{options: bad}.icmp(typ, 0, 0, make([]byte, 28)), "an ICMP error")
		h.arrives("ip-options", packet{options: route}.icmp(typ, 0, 0, make([]byte, 28)))
	}
	h.arrives("ip-options", packet{options: bad}.ip(wire.ProtocolICMP, nil), "ICMP of unknown type counts as an error")
	h.arrives("udp-no-port", packet{to: bcastIP, toMAC: wire.HardwareBroadcast}.udp(4000, 9, "x"), "a broadcast")
	h.arrives("ip-options", packet{to: bcastIP, options: bad}.udp(4000, 9, "x"))
	h.arrives("ip-options", packet{options: bad, id: 1, off: 8}.ip(wire.ProtocolUDP, make([]byte, 8)), "a fragment but the first")
	h.arrives("ip-source", packet{from: "224.0.0.1"}.udp(4000, 9, "x"), "a source that is no single host")
	h.wantIdle("none of these brings an error")

	h.arrives("ip-options", packet{options: bad}.ping(1, 1, "x"))
	h.want("10.0.0.1 > 10.0.0.2: icmp parameter problem at 21 [10.0.0.2 > 10.0.0.1: icmp]")
	h.arrives("ip-options", packet{options: bad, id: 1, mf: true}.ip(wire.ProtocolUDP, make([]byte, 8)), "but a first fragment does")
	h.want("10.0.0.1 > 10.0.0.2: icmp parameter problem at 21 [10.0.0.2.0 > 10.0.0.1.0: udp]")
	h.wantIdle("that was all")
}

// RFC 1812 §4.3.2.3: "The ICMP datagram SHOULD contain as much of the original datagram as possible without the length of the ICMP
// datagram exceeding 576 bytes." §4.3.2.5: precedence 6.
func TestICMPErrorQuotes(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct{ payload, total int }{{1, 57}, {520, 576}, {521, 576}, {1472, 576}} {
		frame := packet{}.udp(4000, 9, pattern(c.payload))
		h.arrives("udp-no-port", frame)
		f := h.want("10.0.0.1 > 10.0.0.2: icmp unreachable code 3 [10.0.0.2.4000 > 10.0.0.1.9: udp]")
		require.Equal(t, c.total, f.ip().TotalLength())
		quote := f.icmp().Payload()
		require.Equal(t, frame[wire.EthernetLen:][:len(quote)], []byte(quote))
		require.Equal(t, uint8(0xC0), f.ip().TOS())
	}
}

// An error goes by the routing table: it may be about a packet from beyond a router.
func TestICMPErrorGoesByTheRoute(t *testing.T) {
	h := newHost(t)
	h.arrives("udp-no-port", packet{from: farIP, fromMAC: otherMAC}.udp(4000, 9, "x"))
	h.want(broadcastTo + "arp who-has 10.0.0.254 tell 10.0.0.1")
	h.arrives("consumed", isAt(otherMAC, gatewayIP))
	h.want("02:00:00:00:00:03 10.0.0.1 > 192.0.2.9: icmp unreachable code 3 [192.0.2.9.4000 > 10.0.0.1.9: udp]")
}

// An answer or an error that finds no room in the transmit ring is dropped, and counted.
func TestAnswersWithoutRoom(t *testing.T) {
	h, room := newScarce(t)
	h.stalled = false
	*room = 0
	h.arrives("transmit-full", packet{}.ping(1, 1, "x"))
	h.arrives("transmit-full", whoHas(hostIP))
	h.arrives("transmit-full", packet{options: []byte{1, 1, 1, 1}}.ping(1, 1, "x"))
	h.arrives("udp-no-port", packet{}.udp(4000, 9, "x"))
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropTransmitFull])
	require.Zero(t, h.Stats().ICMPErrorsSent)
	*room = 1
	h.arrives("answered", packet{}.ping(1, 1, "x"))
	h.want("10.0.0.1 > 10.0.0.2: icmp echo reply id 1 seq 1 length 9")
	h.wantIdle("only the last had room")
}
