package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

const stations = "02:00:00:00:00:01 > 02:00:00:00:00:02 "

// ip puts payload into a datagram with this protocol, in a frame.
func ip(p wire.Protocol, payload []byte) []byte {
	f := between
	f.Protocol = p
	return frame(wire.EtherTypeIPv4, datagram(f, nil, payload))
}

func icmpError(f wire.ICMPErrorFields, quote []byte) []byte {
	b := make([]byte, 100)
	return ip(wire.ProtocolICMP, b[:wire.PutICMPError(b, f, quote)])
}

func TestDump(t *testing.T) {
	udp := udpBetween("hello")
	arp := make([]byte, wire.ARPLen)
	arpOf := func(op wire.ARPOp) []byte {
		wire.PutARP(arp, &wire.ARPFields{Op: op, SenderHardware: wire.HardwareAddr{2, 0, 0, 0, 0, 1}, Sender: between.Src, Target: between.Dst})
		return frame(wire.EtherTypeARP, append([]byte{}, arp...))
	}
	echo := make([]byte, 64)
	putEcho(echo, wire.ICMPEcho, 7, 1)
	reply := make([]byte, 64)
	putEcho(reply, wire.ICMPEchoReply, 7, 1)
	stamp := make([]byte, 20)
	putEcho(stamp, wire.ICMPTimestamp, 7, 1)

	partial := append([]byte{}, udp...)
	sum := wire.PseudoSum(between.Src, between.Dst, wire.ProtocolUDP, 13)
	partial[26], partial[27] = byte(sum>>8), byte(sum)
	badHeader := append([]byte{}, udp...)
	badHeader[8]++
	badEcho := append([]byte{}, echo...)
	badEcho[20]++

	first, later := between, between
	first.Protocol, first.MF, first.ID = wire.ProtocolUDP, true, 99
	later.Protocol, later.FragmentOffset, later.ID = wire.ProtocolUDP, 1480, 99
	whole := make([]byte, 1480)
	wire.PutUDP(whole, &wire.UDPFields{SrcPort: 4000, DstPort: 7, PayloadLen: 2992}, 0)

	tagged := make([]byte, wire.EthernetMaxLen)
	wire.PutEthernet(tagged, &wire.EthernetInfo{Dst: wire.HardwareAddr{2, 0, 0, 0, 0, 2}, Src: wire.HardwareAddr{2, 0, 0, 0, 0, 1},
		Type: wire.EtherTypeIPv4, NTags: 2, Tags: [2]wire.VLANTag{0x88A80007, 0x81000009}})

	for want, b := range map[string][]byte{
		"10.0.0.1.4000 > 10.0.0.2.7: udp 5":                                               frame(wire.EtherTypeIPv4, udp),
		"qinq 7 vlan 9 10.0.0.1.4000 > 10.0.0.2.7: udp 5":                                 append(tagged, udp...),
		"10.0.0.1.4000 > 10.0.0.2.7: udp 5 (partial udp checksum)":                        frame(wire.EtherTypeIPv4, partial),
		"10.0.0.1.4000 > 10.0.0.2.7: udp 5 (bad ip checksum)":                             frame(wire.EtherTypeIPv4, badHeader),
		"10.0.0.1.4000 > 10.0.0.2.7: udp 2992 (frag 99:1480@0+)":                          frame(wire.EtherTypeIPv4, datagram(first, nil, whole)),
		"10.0.0.1 > 10.0.0.2: udp (frag 99:40@1480)":                                      frame(wire.EtherTypeIPv4, datagram(later, nil, whole[:40])),
		"10.0.0.1 > 10.0.0.2: udp: the packet is cut short":                               ip(wire.ProtocolUDP, []byte{1, 2, 3}),
		"10.0.0.1.4660 > 10.0.0.2.80: tcp: the TCP header length is below 20":             ip(wire.ProtocolTCP, append([]byte{0x12, 0x34, 0, 80}, make([]byte, 16)...)),
		"10.0.0.1.4660 > 10.0.0.2.80: tcp: the packet is cut short":                       ip(wire.ProtocolTCP, []byte{0x12, 0x34, 0, 80}),
		"10.0.0.1 > 10.0.0.2: tcp: the packet is cut short":                               ip(wire.ProtocolTCP, []byte{1, 2}),
		"10.0.0.1 > 10.0.0.2: proto 89 3":                                                 ip(89, []byte{1, 2, 3}),
		"10.0.0.1 > 10.0.0.2: proto 89 4 (options 01010100)":                              frame(wire.EtherTypeIPv4, datagram(wire.IPv4Fields{Src: between.Src, Dst: between.Dst, Protocol: 89}, []byte{1, 1, 1, 0}, make([]byte, 4))),
		"10.0.0.1 > 10.0.0.2: icmp echo request id 7 seq 1 length 64":                     ip(wire.ProtocolICMP, echo),
		"10.0.0.1 > 10.0.0.2: icmp echo request id 7 seq 1 length 64 (bad icmp checksum)": ip(wire.ProtocolICMP, badEcho),
		"10.0.0.1 > 10.0.0.2: icmp echo reply id 7 seq 1 length 64":                       ip(wire.ProtocolICMP, reply),
		"10.0.0.1 > 10.0.0.2: icmp type 13 code 0 length 20":                              ip(wire.ProtocolICMP, stamp),
		"10.0.0.1 > 10.0.0.2: icmp: the packet is cut short":                              ip(wire.ProtocolICMP, echo[:7]),
		"10.0.0.1 > 10.0.0.2: icmp unreachable code 3 [10.0.0.1.4000 > 10.0.0.2.7: udp]": icmpError(
			wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: wire.CodePortUnreachable}, udp[:28]),
		"10.0.0.1 > 10.0.0.2: icmp unreachable code 4 mtu 1400 [10.0.0.1.4000 > 10.0.0.2.7: udp]": icmpError(
			wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: wire.CodeFragNeeded, Rest: 1400}, udp[:28]),
		"10.0.0.1 > 10.0.0.2: icmp time exceeded code 1 [10.0.0.1 > 10.0.0.2: udp]": icmpError(
			wire.ICMPErrorFields{Type: wire.ICMPTimeExceeded, Code: wire.CodeReassemblyExceeded}, udp[:20]),
		"10.0.0.1 > 10.0.0.2: icmp parameter problem at 20 [10.0.0.1 > 10.0.0.2: udp]": icmpError(
			wire.ICMPErrorFields{Type: wire.ICMPParameterProblem, Rest: 20 << 24}, udp[:20]),
		"10.0.0.1 > 10.0.0.2: icmp redirect to 10.0.0.9 [10.0.0.1 > 10.0.0.2: udp]": icmpError(
			wire.ICMPErrorFields{Type: wire.ICMPRedirect, Rest: 0x0A000009}, udp[:20]),
		"10.0.0.1 > 10.0.0.2: icmp type 4 code 0 [the packet is cut short]": icmpError(
			wire.ICMPErrorFields{Type: wire.ICMPSourceQuench}, udp[:19]),
		"arp who-has 10.0.0.2 tell 10.0.0.1":   arpOf(wire.ARPRequest),
		"arp 10.0.0.1 is-at 02:00:00:00:00:01": arpOf(wire.ARPReply),
		"arp op 8 10.0.0.1 > 10.0.0.2":         arpOf(8),
		"arp: the packet is cut short":         frame(wire.EtherTypeARP, arp[:20]),
		"ipv4: the IP version is not 4":        frame(wire.EtherTypeIPv4, append([]byte{0x65}, udp[1:]...)),
		"ipv6 length 3":                        frame(wire.EtherTypeIPv6, []byte{1, 2, 3}),
		"ethertype 0x88cc length 2":            frame(0x88CC, []byte{1, 2}),
	} {
		require.Equal(t, stations+want, wire.Dump(b))
	}
	require.Equal(t, "ethernet of 13 bytes is cut short", wire.Dump(make([]byte, 13)))
}
