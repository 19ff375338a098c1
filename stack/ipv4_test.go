package stack

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// ipHeader returns a frame with its IPv4 header changed, and the header's checksum right again.
func ipHeader(frame []byte, change func(ip []byte)) []byte {
	f := append([]byte{}, frame...)
	change(f[wire.EthernetLen:])
	fixIPChecksum(f[wire.EthernetLen:])
	return f
}

// RFC 1122 §3.2.1: "A host … MUST silently discard" what is wrong with an IPv4 header.
func TestIPv4HeaderErrors(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	good := packet{}.udp(4000, 7, "hello")
	for _, c := range []struct {
		name, end string
		frame     []byte
	}{
		{"one byte short of a header", "ip-truncated", good[:wire.EthernetLen+19]},
		{"no header at all", "ip-truncated", good[:wire.EthernetLen]},
		{"version 6", "ip-version", ipHeader(good, func(ip []byte) { ip[0] = 0x65 })},
		{"version 0", "ip-version", ipHeader(good, func(ip []byte) { ip[0] = 0x05 })},
		{"header of 16 bytes", "ip-header-length", ipHeader(good, func(ip []byte) { ip[0] = 0x44 })},
		{"header of 0 bytes", "ip-header-length", ipHeader(good, func(ip []byte) { ip[0] = 0x40 })},
		{"header of 60 bytes in 33", "ip-header-length", ipHeader(good, func(ip []byte) { ip[0] = 0x4F })},
		{"total length below the header's", "ip-total-length", ipHeader(good, func(ip []byte) { ip[3] = 19 })},
		{"total length 0", "ip-total-length", ipHeader(good, func(ip []byte) { ip[3] = 0 })},
		{"total length beyond the frame", "ip-total-length", ipHeader(good, func(ip []byte) { ip[3]++ })},
		{"total length below a header with options", "ip-total-length", ipHeader(good, func(ip []byte) { ip[0], ip[3] = 0x46, 23 })},
		{"checksum off by one", "ip-checksum", func() []byte { f := append([]byte{}, good...); f[wire.EthernetLen+11]++; return f }()},
		{"one bit of the TTL turned over", "ip-checksum", func() []byte { f := append([]byte{}, good...); f[wire.EthernetLen+8] ^= 1; return f }()},
	} {
		h.arrives(c.end, c.frame, c.name)
	}
	h.wantIdle(`RFC 1122 §3.2.1.1, §3.2.1.2: "MUST be silently discarded"`)
	s.wantNothing("none of them is delivered")
	h.arrives("delivered", append(good, make([]byte, 40)...), "padding behind the total length is no error")
	s.wants("hello", "10.0.0.2:4000")
}

// Ethernet: what is too short, for somebody else or of another type.
func TestEthernetErrors(t *testing.T) {
	h := newHost(t)
	good := packet{}.udp(4000, 7, "hello")
	for n := 1; n < wire.EthernetLen; n++ {
		h.arrives("frame-too-short", good[:n])
	}
	tag := wire.VLANTag(uint32(wire.EtherTypeVLAN) << 16)
	tagged := packet{vlans: []wire.VLANTag{tag, tag}}.udp(4000, 7, "hello")
	h.arrives("frame-too-short", tagged[:wire.EthernetLen+2], "the first tag is cut")
	h.arrives("frame-too-short", tagged[:wire.EthernetLen+4], "the second tag is cut")
	h.arrives("other-host", packet{toMAC: otherMAC}.udp(4000, 7, "hello"))
	h.arrives("ether-type", packet{}.ethernet(wire.EtherTypeIPv6, make([]byte, 40)))
	h.arrives("ether-type", packet{}.ethernet(60, make([]byte, 60)), "an 802.3 length")
	h.arrives("ether-type", packet{vlans: []wire.VLANTag{tag, tag}}.ethernet(wire.EtherTypeVLAN, make([]byte, 60)), "a third tag")
	h.wantIdle("none is answered")
}

// IEEE 802.1Q: a packet behind one tag or two is the packet.
func TestVLANTagsAreLookedThrough(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	for _, tags := range [][]wire.VLANTag{{0x81000005}, {0x88A80007, 0x81000005}} {
		h.arrives("delivered", packet{vlans: tags}.udp(4000, 7, "hello"))
		s.wants("hello", "10.0.0.2:4000")
	}
}

// RFC 1122 §3.2.1.3: "a host MUST silently discard an incoming datagram containing an IP source address that is invalid by the
// rules of this section."
func TestIPv4SourceValidation(t *testing.T) {
	h := newHost(t)
	h.bind("10.0.0.1:7")
	for _, from := range []string{
		"0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1", // (a), (c), (d)
		"127.0.0.1", "127.255.255.255", // (g)
		hostIP,  // ours: nobody else may have sent it
		bcastIP, // (d): our network's directed broadcast
	} {
		h.arrives("ip-source", packet{from: from}.udp(4000, 7, "hello"))
		h.arrives("ip-source", packet{from: from}.ping(1, 1, "hello"))
	}
	h.wantIdle("and nothing is said")
}

// RFC 1122 §3.2.1.3: "A host MUST silently discard an incoming datagram that is not destined for the host."
func TestIPv4NotOurs(t *testing.T) {
	h := newHost(t)
	for _, to := range []string{otherIP, farIP, "127.0.0.1", "224.0.0.1", "10.0.0.0", "0.0.0.0", "10.0.1.255"} {
		h.arrives("ip-not-ours", packet{to: to}.udp(4000, 7, "hello"))
	}
	h.wantIdle("a host is no router")
}

// RFC 1122 §3.3.6: "When a host sends a datagram to a link-layer broadcast address, the IP destination address MUST be a legal
// IP broadcast or IP multicast address. A host SHOULD silently discard a datagram that is received via a link-layer broadcast
// … but does not specify an IP multicast or broadcast destination address."
func TestIPv4LinkBroadcast(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	for _, mac := range []wire.HardwareAddr{wire.HardwareBroadcast, {1, 0, 0x5E, 0, 0, 1}} {
		h.arrives("ip-link-broadcast", packet{toMAC: mac}.udp(4000, 7, "hello"))
		h.arrives("ip-link-broadcast", packet{toMAC: mac}.ping(1, 1, "hello"))
	}
	h.wantIdle("nobody answers")
	s.wantNothing("nobody hears")
	h.arrives("delivered", packet{toMAC: wire.HardwareBroadcast, to: bcastIP}.udp(4000, 7, "hello"))
	h.arrives("delivered", packet{toMAC: wire.HardwareBroadcast, to: "255.255.255.255"}.udp(4000, 7, "hello"))
	h.arrives("delivered", packet{to: bcastIP}.udp(4000, 7, "hello"), "as from a router that does not know better")
}

// RFC 1122 §3.2.1.7: "A host MUST NOT discard a datagram just because it was received with TTL less than 2."
func TestIPv4LowTTL(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{ttl: 1}.udp(4000, 7, "one"))
	require.Equal(t, uint8(1), s.wants("one", "10.0.0.2:4000").TTL)
	zero := ipHeader(packet{}.udp(4000, 7, "zero"), func(ip []byte) { ip[8] = 0 })
	h.arrives("delivered", zero)
	require.Equal(t, uint8(0), s.wants("zero", "10.0.0.2:4000").TTL)
	h.arrives("answered", ipHeader(packet{}.ping(1, 1, "zero"), func(ip []byte) { ip[8] = 0 }))
	require.Equal(t, uint8(64), h.want("10.0.0.1 > 10.0.0.2: icmp echo reply id 1 seq 1 length 12").ip().TTL())
}

// RFC 1122 §3.2.2.1: "A host SHOULD generate Destination Unreachable messages with code: 2 (Protocol Unreachable)".
func TestIPv4ProtocolUnreachable(t *testing.T) {
	h := newHost(t)
	h.arrives("ip-protocol", packet{}.ip(132, make([]byte, 12)))
	h.want("10.0.0.1 > 10.0.0.2: icmp unreachable code 2 [10.0.0.2 > 10.0.0.1: proto 132]")
	h.arrives("ip-protocol", packet{}.ip(47, make([]byte, 20)))
	h.want("10.0.0.1 > 10.0.0.2: icmp unreachable code 2 [10.0.0.2 > 10.0.0.1: proto 47]")
	h.arrives("ip-protocol", packet{to: bcastIP}.ip(132, make([]byte, 12)))
	h.wantIdle("never about a broadcast")
}

// RFC 791 §3.1, RFC 1122 §3.2.1.8: options that need nothing of a host are passed over; the answer has none.
func TestIPv4Options(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	for name, options := range map[string][]byte{
		"end":                {0, 0, 0, 0},
		"no operation":       {1, 1, 1, 1},
		"router alert":       {148, 4, 0, 0},
		"record route":       {7, 7, 4, 0, 0, 0, 0, 0},
		"full record route":  {7, 7, 8, 10, 0, 0, 9, 0},
		"timestamp":          {68, 8, 5, 0, 0, 0, 0, 0},
		"unknown":            {0x5E, 4, 1, 2},
		"40 bytes":           append([]byte{7, 39, 4}, make([]byte, 37)...),
		"something then end": {1, 148, 4, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			h.arrives("delivered", packet{options: options}.udp(4000, 7, "hello"))
			s.wants("hello", "10.0.0.2:4000")
			h.arrives("answered", packet{options: options}.ping(1, 1, "hello"))
			h.want("10.0.0.1 > 10.0.0.2: icmp echo reply id 1 seq 1 length 13")
		})
	}
	h.t = t
	h.wantIdle("one answer each")
}

// RFC 1122 §3.2.2.5: "A host SHOULD generate Parameter Problem messages"; RFC 792: the pointer identifies the octet with the error.
func TestIPv4MalformedOptions(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		options []byte
		pointer uint8
	}{
		{[]byte{7, 0, 0, 0}, 21},               // length 0
		{[]byte{7, 1, 0, 0}, 21},               // length 1
		{[]byte{7, 9, 4, 0}, 21},               // beyond the header
		{[]byte{1, 1, 1, 148}, 23},             // no length
		{[]byte{1, 7, 3, 3}, 23},               // a route's pointer below 4
		{[]byte{1, 1, 0x5E, 200}, 23},          // unknown and beyond the header
		{[]byte{131, 3, 1, 0}, 22},             // loose source route with a bad pointer
		{[]byte{148, 4, 0, 0, 7, 2, 0, 0}, 25}, // a route without a pointer
	} {
		h.arrives("ip-options", packet{options: c.options}.udp(4000, 7, "hello"), c.options)
		f := h.take(0)
		require.NotNil(t, f, c.options)
		require.Equal(t, wire.ICMPParameterProblem, f.icmp().Type())
		require.Equal(t, c.pointer, f.icmp().Pointer(), "%v: %s", c.options, wire.Dump(f))
	}
	h.arrives("ip-options", packet{to: bcastIP, options: []byte{7, 0, 0, 0}}.udp(4000, 7, "hello"))
	h.wantIdle("never about a broadcast")
}

// RFC 7126 §4.3, §4.4: source routes are refused; RFC 1122 §3.2.1.8 (c) and §3.2.2.1 have the code for it.
func TestIPv4SourceRoutesAreRefused(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	for _, o := range []byte{131, 137} {
		h.arrives("ip-options", packet{options: []byte{o, 7, 8, 10, 0, 0, 9, 0}}.udp(4000, 7, "hello"))
		h.want("10.0.0.1 > 10.0.0.2: icmp unreachable code 5 [10.0.0.2.4000 > 10.0.0.1.7: udp]")
	}
	s.wantNothing("not even one that is done with")
}

// RFC 6864 §4.1: an atomic datagram, one with DF and in one piece, needs no identification. RFC 1191 §3: DF is set in all
// datagrams, so that a router that cannot carry one tells.
func TestIPv4OutputHeader(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.SetTOS(0xB8)
	require.NoError(t, s.SetTTL(9))
	s.writes("hello", "10.0.0.2:4000")
	p := h.want("10.0.0.1.7 > 10.0.0.2.4000: udp 5").ip()
	require.True(t, p.DF())
	require.Equal(t, uint8(0xB8), p.TOS())
	require.Equal(t, uint8(9), p.TTL())
	require.Equal(t, 20, p.HeaderLen())
	n, err := s.Write([]Message{{Buf: []byte("hello"), Addr: ap("10.0.0.2:4000"), TTL: 3, TOS: 8}})
	require.Equal(t, 1, n)
	require.NoError(t, err)
	p = h.want("10.0.0.1.7 > 10.0.0.2.4000: udp 5").ip()
	require.Equal(t, uint8(8), p.TOS(), "a message's own come first")
	require.Equal(t, uint8(3), p.TTL())
}

// RFC 3168 §5: an answer on the engine does not carry the congestion mark of the packet that it answers.
func TestAnswersHaveNoCongestionMark(t *testing.T) {
	h := newHost(t)
	h.arrives("answered", packet{tos: 0xBB, ttl: 1}.ping(1, 1, "hello"))
	p := h.want("10.0.0.1 > 10.0.0.2: icmp echo reply id 1 seq 1 length 13").ip()
	require.Equal(t, uint8(0xB8), p.TOS(), "RFC 1349 §5.1: the rest of the type of service is the request's")
	require.Equal(t, uint8(64), p.TTL())
	require.True(t, p.DF())
}

// Every destination that a broadcast can have, and every way it ends.
func TestBroadcastAddresses(t *testing.T) {
	h := newHost(t, func(s *setup) {
		s.Addresses = append(s.Addresses, netip.MustParsePrefix("10.9.0.5/31"), netip.MustParsePrefix("10.8.0.1/32"), netip.MustParsePrefix("10.7.0.1/30"))
	})
	h.arrives("udp-no-port", packet{to: bcastIP}.udp(4000, 7, "hello"))
	h.arrives("udp-no-port", packet{to: "10.7.0.3"}.udp(4000, 7, "hello"))
	h.arrives("ip-not-ours", packet{to: "10.9.0.4"}.udp(4000, 7, "hello"), "RFC 3021 §2.1: a /31 has no broadcast address")
	h.arrives("ip-not-ours", packet{to: "10.8.0.255"}.udp(4000, 7, "hello"))
	h.wantIdle(`RFC 1122 §3.2.2: no error "as the result of receiving … a datagram destined to an IP broadcast"`)
}

// RFC 1071: a header whose sum comes out as 0 has the checksum 0xFFFF or 0; both are right.
func TestIPv4ChecksumOfZero(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	found := false
	for id := range 1 << 16 {
		f := packet{id: uint16(id)}.udp(4000, 7, "hello")
		ip := f[wire.EthernetLen:]
		if binary.BigEndian.Uint16(ip[10:]) != 0 {
			continue
		}
		found = true
		h.arrives("delivered", f)
		s.wants("hello", "10.0.0.2:4000")
		ip[10], ip[11] = 0xFF, 0xFF
		h.arrives("delivered", f)
		s.wants("hello", "10.0.0.2:4000")
	}
	require.True(t, found)
}
