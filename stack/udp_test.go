package stack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// RFC 1122 §4.1.3.5: "When a UDP datagram is received, its specific-destination address MUST be passed up to the application
// layer."
func TestUDPIsDelivered(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Addresses = append(s.Addresses, prefix("10.0.0.4/24")) })
	s, second := h.bind("10.0.0.1:7"), h.bind("10.0.0.4:7")
	h.arrives("delivered", packet{ttl: 9, tos: 0x28}.udp(4000, 7, "hello"))
	m := s.wants("hello", "10.0.0.2:4000")
	require.Equal(t, netip.MustParseAddr(hostIP), m.Dst)
	require.Equal(t, uint8(9), m.TTL)
	require.Equal(t, uint8(0x28), m.TOS)
	h.arrives("delivered", packet{to: "10.0.0.4"}.udp(0, 7, ""))
	m = second.wants("", "10.0.0.2:0")
	require.Equal(t, netip.MustParseAddr("10.0.0.4"), m.Dst)
	s.wantNothing("each address has its own ports")
	h.wantIdle("UDP answers nothing by itself")
}

// A message that is longer than the room for it is cut, and the rest is gone.
func TestUDPReadCuts(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{}.udp(4000, 7, "hello"))
	h.arrives("delivered", packet{}.udp(4000, 7, "again"))
	ms := []Message{{Buf: make([]byte, 3)}, {}}
	n, err := s.Read(ms)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, "hel", string(ms[0].Buf[:ms[0].N]))
	require.Equal(t, 3, ms[0].N)
	require.Equal(t, 5, ms[0].Size)
	require.Equal(t, 0, ms[1].N)
	require.Equal(t, 5, ms[1].Size)
	s.wantNothing("both are gone")
}

// RFC 768: "If the computed checksum is zero, it is transmitted as all ones … An all zero transmitted checksum value means that
// the transmitter generated no checksum". RFC 1122 §4.1.3.4: "If a UDP datagram is received with a checksum that is non-zero and
// invalid, UDP MUST silently discard the datagram."
func TestUDPChecksums(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{noChecksum: true}.udp(4000, 7, "none"))
	s.wants("none", "10.0.0.2:4000")
	h.arrives("udp-checksum", packet{partial: true}.udp(4000, 7, "partial"), "no kernel is at the other side of this link")
	for bit := range 8 * (wire.UDPLen + 5) {
		f := packet{}.udp(4000, 7, "hello")
		f[wire.EthernetLen+wire.IPv4Len+bit/8] ^= 1 << (bit % 8)
		if field := bit / 8; field == 4 || field == 5 {
			continue // the length
		}
		h.arrives("udp-checksum", f, "bit ", bit)
	}
	s.wantNothing("none of them")
	// A checksum that comes out as zero: the payload makes up for the rest.
	f := packet{}.udp(4000, 7, "\x00\x00")
	u := f[wire.EthernetLen+wire.IPv4Len:]
	copy(u[wire.UDPLen:], u[6:8])
	binary.BigEndian.PutUint16(u[6:], 0xFFFF)
	h.arrives("delivered", f)
	_, err := s.read()
	require.NoError(t, err)
	h.wantIdle("nothing is said of a bad checksum")
}

// What is sent never has the field 0, which would mean that there is no checksum.
func TestUDPChecksumOfZeroIsSentAsOnes(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.writes("\x00\x00", "10.0.0.2:9")
	field := h.take(0).udp().Checksum()
	s.writes(string(binary.BigEndian.AppendUint16(nil, field)), "10.0.0.2:9")
	require.Equal(t, uint16(0xFFFF), h.take(0).udp().Checksum())
}

// CHECKSUM_PARTIAL (include/linux/skbuff.h): over a veth the sender's kernel leaves the sum of the pseudo-header.
func TestUDPPartialChecksums(t *testing.T) {
	h := newHost(t, func(s *setup) { s.partial = true })
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{partial: true}.udp(4000, 7, "partial"))
	s.wants("partial", "10.0.0.2:4000")
	require.Equal(t, uint64(1), h.Stats().PartialChecksums)
	h.arrives("delivered", packet{}.udp(4000, 7, "whole"))
	s.wants("whole", "10.0.0.2:4000")
	bad := packet{partial: true}.udp(4000, 7, "bad")
	bad[wire.EthernetLen+wire.IPv4Len+7] ^= 1
	h.arrives("udp-checksum", bad)
	require.Equal(t, uint64(1), h.Stats().PartialChecksums)
}

// RFC 768: the length counts header and data, so 8 at the least, and it cannot be beyond the packet.
func TestUDPLengths(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	length := func(n int) []byte {
		u := packet{noChecksum: true}.udpBody(4000, 7, []byte("hello"))
		binary.BigEndian.PutUint16(u[4:], uint16(n))
		return packet{}.ip(wire.ProtocolUDP, u)
	}
	for _, n := range []int{0, 1, 7, 14, 65535} {
		h.arrives("udp-length", length(n), n)
	}
	for n := range 8 {
		h.arrives("udp-truncated", packet{}.ip(wire.ProtocolUDP, make([]byte, n)))
	}
	h.arrives("udp-port", packet{}.udp(4000, 0, "hello"), "RFC 768 and RFC 6335 §6: port 0 is reserved")
	s.wantNothing("none of them")
	h.wantIdle("all in silence")
	h.arrives("delivered", length(8), "what is behind the length is no data")
	s.wants("", "10.0.0.2:4000")
	h.arrives("delivered", length(11))
	s.wants("hel", "10.0.0.2:4000")
}

// RFC 1122 §4.1.3.1: "If a datagram arrives addressed to a UDP port for which there is no pending LISTEN call, UDP SHOULD send an
// ICMP Port Unreachable message."
func TestUDPPortUnreachable(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.arrives("udp-no-port", packet{}.udp(4000, 9, "hello"))
	h.want("10.0.0.1 > 10.0.0.2: icmp unreachable code 3 [10.0.0.2.4000 > 10.0.0.1.9: udp]")
	require.NoError(t, s.Close())
	h.arrives("udp-no-port", packet{}.udp(4000, 7, "hello"))
	h.want("10.0.0.1 > 10.0.0.2: icmp unreachable code 3 [10.0.0.2.4000 > 10.0.0.1.7: udp]")
	h.wantIdle("one each")
}

// A connected socket hears its peer only; the port stays open for nobody else.
func TestUDPConnectFilters(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	h.arrives("udp-no-port", packet{}.udp(10, 7, "another port"))
	h.arrives("udp-no-port", packet{from: otherIP, fromMAC: otherMAC}.udp(9, 7, "another host"))
	h.want("10.0.0.1 > 10.0.0.2: icmp unreachable code 3 [10.0.0.2.10 > 10.0.0.1.7: udp]")
	h.want(broadcastTo + "arp who-has 10.0.0.3 tell 10.0.0.1")
	s.wantNothing("neither was the peer")
	h.arrives("delivered", packet{}.udp(9, 7, "the peer"))
	s.wants("the peer", "10.0.0.2:9")
	require.Equal(t, ap("10.0.0.2:9"), s.RemoteAddr())
}

// What was there before Connect and is not the peer's is not heard.
func TestUDPConnectDropsWhatWasQueued(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{from: otherIP}.udp(9, 7, "other"))
	h.arrives("delivered", packet{}.udp(9, 7, "peer"))
	h.arrives("delivered", packet{}.udp(10, 7, "other port"))
	require.NoError(t, s.Connect(ap("10.0.0.2:9")))
	s.wants("peer", "10.0.0.2:9")
	s.wantNothing("the others are gone")
}

// SO_REUSEPORT: packets of one flow go to one of the sockets, flows are spread, and a connected socket is first.
func TestUDPReusePort(t *testing.T) {
	h := newHost(t)
	var socks []*sock
	for range 4 {
		s := h.socket(wire.ProtocolUDP)
		require.NoError(t, s.SetReusePort(true))
		require.NoError(t, s.Bind(ap("10.0.0.1:7")))
		require.Equal(t, syscall.EINVAL, s.SetReusePort(false))
		socks = append(socks, s)
	}
	require.Equal(t, syscall.EADDRINUSE, h.socket(wire.ProtocolUDP).Bind(ap("10.0.0.1:7")), "who did not ask does not share")
	heard := make(map[int]int)
	who := func() int {
		for n, s := range socks {
			if _, err := s.read(); err == nil {
				return n
			}
		}
		return -1
	}
	for port := 1; port <= 400; port++ {
		h.arrives("delivered", packet{}.udp(port, 7, "x"))
		first := who()
		h.arrives("delivered", packet{}.udp(port, 7, "x"))
		require.Equal(t, first, who(), "a flow stays where it is")
		heard[first]++
	}
	for n := range socks {
		require.InDelta(t, 100, heard[n], 60, "%v", heard)
	}
	require.NoError(t, socks[2].Connect(ap("10.0.0.2:4000")))
	h.arrives("delivered", packet{}.udp(4000, 7, "x"))
	require.Equal(t, 2, who(), "the connected one")
	for port := 1; port <= 100; port++ {
		h.arrives("delivered", packet{}.udp(port, 7, "x"))
		require.NotEqual(t, 2, who(), "and nothing else for it")
	}
	for n, s := range socks {
		require.NoError(t, s.Close())
		if n < 3 {
			require.Equal(t, syscall.EADDRINUSE, h.socket(wire.ProtocolUDP).Bind(ap("10.0.0.1:7")), "somebody has it still")
		}
	}
	h.bind("10.0.0.1:7")
}

// RFC 1122 §4.1.3.5 has a broadcast go to whoever listens: every socket of the card with the port hears it, handlers too, and it
// is one packet all the same.
func TestUDPBroadcastIsHeardByAll(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Addresses = append(s.Addresses, prefix("10.9.0.1/24")) })
	a, b := h.bind("10.0.0.1:7"), h.bind("10.9.0.1:7")
	c := h.connect("10.0.0.1:8", "10.0.0.2:4000")
	var heard []string
	hs := h.handle("10.0.0.1:9", func(p *Packet) { heard = append(heard, string(p.Payload)) })
	for _, to := range []string{"255.255.255.255", bcastIP, "10.9.0.255"} {
		p := packet{to: to, toMAC: wire.HardwareBroadcast}
		h.arrives("delivered", p.udp(4000, 7, "all"))
		require.Equal(t, netip.MustParseAddr(to), a.wants("all", "10.0.0.2:4000").Dst)
		b.wants("all", "10.0.0.2:4000")
		h.arrives("delivered", p.udp(4000, 8, "peer's"))
		c.wants("peer's", "10.0.0.2:4000")
		h.arrives("udp-no-port", p.udp(4001, 8, "not the peer's"))
		c.wantNothing("it is connected")
		h.arrives("delivered", p.udp(4000, 9, "handler"))
		h.arrives("udp-no-port", p.udp(4000, 10, "nobody"))
	}
	require.Equal(t, []string{"handler", "handler", "handler"}, heard)
	require.NoError(t, hs.Close())
	h.wantIdle("a broadcast brings no error")
}

// Two handlers and a socket: each handler has its own copy, and answers to the sender from the socket's own address.
func TestUDPBroadcastToHandlers(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Addresses = append(s.Addresses, prefix("10.0.0.4/24")) })
	upper := func(p *Packet) {
		require.Equal(t, "all", string(p.Payload), "what another handler wrote is not seen")
		copy(p.Payload, "ALL")
		p.Echo()
	}
	h.handle("10.0.0.1:7", upper)
	h.handle("10.0.0.4:7", upper)
	h.arrives("delivered", packet{to: bcastIP, toMAC: wire.HardwareBroadcast}.udp(4000, 7, "all"))
	first, second := h.take(0), h.take(0)
	require.ElementsMatch(t, []string{"10.0.0.1.7 > 10.0.0.2.4000: udp 3", "10.0.0.4.7 > 10.0.0.2.4000: udp 3"},
		[]string{describe(first), describe(second)})
	require.Equal(t, "ALL", string(first.udp().Payload()))
	h.wantIdle("one answer each")
}

// A receive buffer that is full drops what comes, counted at the socket and under its reason; one that has room again takes it.
func TestUDPReceiveBufferFull(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.SetReceiveBuffer(4096)
	fits := 0
	for h.Stats().Drops[DropSocketFull] == 0 {
		h.peers[0].Inject(packet{}.udp(4000, 7, pattern(1000)))
		h.settle()
		fits++
	}
	fits--
	require.InDelta(t, 4, fits, 1)
	h.arrives("socket-full", packet{}.udp(4000, 7, pattern(1000)))
	require.Equal(t, uint64(2), h.Sockets()[0].Dropped)
	for range fits {
		s.wants(pattern(1000), "10.0.0.2:4000")
	}
	h.arrives("delivered", packet{}.udp(4000, 7, "room again"))
	s.wants("room again", "10.0.0.2:4000")
}

// A broadcast that finds every buffer full is dropped; where one has room it is delivered.
func TestUDPBroadcastToFullBuffers(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.SetReceiveBuffer(1)
	require.Equal(t, 2048, s.ReceiveBuffer())
	p := packet{to: bcastIP, toMAC: wire.HardwareBroadcast}
	for range 3 {
		h.peers[0].Inject(p.udp(4000, 7, pattern(1000)))
	}
	h.settle()
	h.arrives("socket-full", p.udp(4000, 7, pattern(1000)))
	s.wants(pattern(1000), "10.0.0.2:4000")
	h.arrives("delivered", p.udp(4000, 7, pattern(1000)))
}

// A datagram in fragments is delivered whole, and leaves in fragments; the longest too.
func TestUDPLongDatagramsBothWays(t *testing.T) {
	for _, n := range []int{1473, 9000, 65507} {
		h := newHost(t)
		s := h.bind("10.0.0.1:7")
		for _, f := range pieces(1, pattern(n), 1480) {
			h.peers[0].Inject(f)
		}
		s.wants(pattern(n), "10.0.0.2:4000")
		s.writes(pattern(n), "10.0.0.2:9")
		u, err := wire.ParseUDP(h.wantRest(0))
		require.NoError(t, err)
		require.Equal(t, wire.ChecksumOK, u.ChecksumState(addr(hostIP), addr(peerIP)))
		require.Equal(t, pattern(n), string(u.Payload()))
	}
}

// Many sockets, each with its own; and many messages in one call.
func TestUDPBatches(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	ms := make([]Message, 300)
	for n := range ms {
		ms[n] = Message{Buf: []byte(fmt.Sprint("message ", n)), Addr: ap("10.0.0.2:9")}
	}
	n, err := s.Write(ms)
	require.NoError(t, err)
	require.Equal(t, 300, n)
	for n := range ms {
		require.Equal(t, fmt.Sprint("message ", n), string(h.take(0).udp().Payload()))
	}
	h.wantIdle("300 of them")
	for n := range 300 {
		h.peers[0].Inject(packet{}.udp(9, 7, fmt.Sprint("message ", n)))
	}
	h.settle()
	for n := range ms {
		ms[n] = Message{Buf: make([]byte, 100)}
	}
	n, err = s.Read(ms[:299])
	require.NoError(t, err)
	require.Equal(t, 299, n)
	for n := range 299 {
		require.Equal(t, fmt.Sprint("message ", n), string(ms[n].Buf[:ms[n].N]))
	}
	s.wants("message 299", "10.0.0.2:9")
	n, err = s.Read(nil)
	require.Zero(t, n)
	require.NoError(t, err)
}

// A socket whose datagrams may not leave in fragments sends them with DF, on a path with the least MTU too; and one that probes
// does not believe ICMP (RFC 8899 §4.6).
func TestUDPNeverInFragments(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	s := h.bind("10.0.0.1:7")
	s.SetFragment(false)
	e := h.iface.engines[0]
	send := func(n int) (f sent) {
		s.writes(pattern(n), "10.0.0.2:9")
		return h.take(0)
	}
	for _, mtu := range []int{500, 1000} { // below minPMTU, and above
		e.do(func() {
			e.forgetPMTU(addr(peerIP))
			e.learnPMTU(addr(peerIP), mtu, 1500)
		})
		ip, err := wire.ParseIPv4(send(400)[wire.EthernetLen:])
		require.NoError(t, err)
		require.True(t, ip.DF())
		require.Nil(t, send(1200), "longer than the path's MTU")
		s.SetProbe(true)
		ip, err = wire.ParseIPv4(send(1472)[wire.EthernetLen:])
		require.NoError(t, err)
		require.True(t, ip.DF())
		require.Nil(t, send(1473), "longer than the card's MTU")
		s.SetProbe(false)
	}
	require.Equal(t, uint64(4), h.Stats().TxDrops[DropTooLong])
}
