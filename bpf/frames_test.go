package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Builders of frames, from the inside out. Checksums stay 0: the program does not look at them.

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// ethernet puts VLAN tags (their ethertypes, outermost first) before the ethertype of the payload.
func ethernet(ethertype uint16, payload []byte, tags ...uint16) []byte {
	frame := []byte{0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 9}
	for _, tag := range tags {
		frame = join(frame, be16(tag), be16(100))
	}
	return join(frame, be16(ethertype), payload)
}

func ip(payload []byte, tags ...uint16) []byte { return ethernet(0x0800, payload, tags...) }

// A header is an IPv4 header to come; zero fields get what an ordinary packet has.
type header struct {
	src, dst netip.Addr
	protocol byte
	id       uint16
	fragment uint16 // flags and offset, as on the wire
	options  int    // bytes
	version  byte
	ihl      byte   // words
	length   uint16 // total
}

func (h header) packet(payload []byte) []byte {
	if !h.src.IsValid() {
		h.src = peer
	}
	if h.version == 0 {
		h.version = 4
	}
	if h.ihl == 0 {
		h.ihl = byte(5 + h.options/4)
	}
	if h.length == 0 {
		h.length = uint16(20 + h.options + len(payload))
	}
	src, dst := h.src.As4(), h.dst.As4()
	return join([]byte{h.version<<4 | h.ihl, 0}, be16(h.length), be16(h.id), be16(h.fragment), []byte{64, h.protocol, 0, 0},
		src[:], dst[:], slices.Repeat([]byte{1}, h.options), payload)
}

func udp(src, dst uint16) []byte {
	return join(be16(src), be16(dst), be16(12), be16(0), []byte("data"))
}

func tcp(src, dst uint16) []byte {
	return join(be16(src), be16(dst), []byte{0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0})
}

func icmp(kind byte, id uint16, rest []byte) []byte {
	return join([]byte{kind, 0, 0, 0}, be16(id), be16(1), rest)
}

func udpTo(dst netip.Addr, port uint16) []byte {
	return header{dst: dst, protocol: 17}.packet(udp(4000, port))
}
func tcpTo(dst netip.Addr, port uint16) []byte {
	return header{dst: dst, protocol: 6}.packet(tcp(4000, port))
}
func icmpTo(dst netip.Addr, message []byte) []byte {
	return header{dst: dst, protocol: 1}.packet(message)
}

// icmpError is an error of a kind to shared1 that quotes what the header and the payload say.
func icmpError(kind byte, h header, payload []byte) []byte {
	if !h.src.IsValid() {
		h.src = shared1
	}
	if !h.dst.IsValid() {
		h.dst = peer
	}
	return ip(icmpTo(shared1, icmp(kind, 0, h.packet(payload))))
}

// quoting is an ICMP error about a packet of a protocol, cut after n bytes of its payload.
func quoting(protocol byte, payload []byte, n int) []byte {
	return icmpError(3, header{protocol: protocol}, payload[:n])
}

func arp(sender, target netip.Addr) []byte {
	s, t := sender.As4(), target.As4()
	return ethernet(0x0806, join([]byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9}, s[:], make([]byte, 6), t[:], make([]byte, 18)))
}

// changed is a frame with one byte set.
func changed(frame []byte, offset int, value byte) []byte {
	frame = slices.Clone(frame)
	frame[offset] = value
	return frame
}

// fragmentOf is a fragment of a UDP datagram with an id to an address; offset is in units of 8 bytes.
func fragmentOf(dst netip.Addr, id uint16, offset uint16, more bool, payload []byte) []byte {
	if more {
		offset |= 0x2000
	}
	return ip(header{dst: dst, protocol: 17, id: id, fragment: offset}.packet(payload))
}

// padded is a frame filled up to Ethernet's 60 bytes with what looks like ports.
func padded(frame []byte) []byte {
	return join(frame, slices.Repeat(be16(udpPort), 30))[:60]
}

// A named frame, and the frames that went before it.
type named struct {
	name   string
	before [][]byte
	frame  []byte
	reason Reason
}

const dot1Q, dot1AD = 0x8100, 0x88a8

// namedFrames is every verdict, each way to it that the program tells apart, and the nearest ways past it.
func namedFrames() []named {
	return slices.Concat(linkFrames(), ipv4Frames(), portFrames(), icmpFrames(), errorFrames(), fragmentFrames())
}

func linkFrames() []named {
	question := arp(peer, owned1)
	return []named{
		{"IPv6", nil, ethernet(0x86dd, make([]byte, 40)), PassEthertype},
		{"an 802.3 length", nil, ethernet(46, make([]byte, 46)), PassEthertype},
		{"nothing but Ethernet", nil, ethernet(0x9000, nil), PassEthertype},
		{"a VLAN tag", nil, ip(udpTo(shared1, udpPort), dot1Q), XSKUDP},
		{"a service tag", nil, ip(udpTo(shared1, udpPort), dot1AD), XSKUDP},
		{"QinQ", nil, ip(udpTo(shared1, udpPort), dot1AD, dot1Q), XSKUDP},
		{"QinQ by two customer tags", nil, ip(udpTo(shared1, udpPort), dot1Q, dot1Q), XSKUDP},
		{"three VLAN tags", nil, ip(udpTo(shared1, udpPort), dot1AD, dot1Q, dot1Q), PassEthertype},
		{"a VLAN tag cut", nil, ip(nil, dot1Q)[:16], PassShort},
		{"IPv6 in a VLAN", nil, ethernet(0x86dd, make([]byte, 40), dot1Q), PassEthertype},
		{"ARP for an owned address", nil, question, XSKARP},
		{"ARP in a VLAN", nil, join(question[:12], be16(dot1Q), be16(5), question[12:]), XSKARP},
		{"ARP from an owned address", nil, arp(owned1, peer), XSKARP},
		{"an ARP announcement of an owned address", nil, arp(owned1, owned1), XSKARP},
		{"ARP for a shared address", nil, arp(peer, shared1), PassARP},
		{"ARP from a shared address", nil, arp(shared1, peer), PassARP},
		{"ARP for a broadcast address", nil, arp(peer, subnet), PassARP},
		{"ARP for a stranger", nil, arp(peer, stranger), PassARP},
		{"an ARP probe by a stranger", nil, arp(netip.IPv4Unspecified(), stranger), PassARP},
		{"ARP on IEEE 802", nil, changed(question, 15, 6), PassARP},
		{"ARP for IPv6", nil, changed(question, 16, 0x86), PassARP},
		{"ARP with long hardware addresses", nil, changed(question, 18, 8), PassARP},
		{"ARP with long protocol addresses", nil, changed(question, 19, 16), PassARP},
		{"ARP cut", nil, question[:41], PassShort},
		{"ARP without padding", nil, question[:42], XSKARP},
	}
}

func ipv4Frames() []named {
	good := header{dst: shared1, protocol: 17}
	with := func(change func(h *header)) []byte {
		h := good
		change(&h)
		return ip(h.packet(udp(4000, udpPort)))
	}
	return []named{
		{"IPv4 cut", nil, ip(udpTo(shared1, udpPort))[:33], PassShort},
		{"version 5", nil, with(func(h *header) { h.version = 5 }), PassMalformed},
		{"version 0 with 5 words", nil, changed(with(func(*header) {}), 14, 0x05), PassMalformed},
		{"a header of 4 words", nil, with(func(h *header) { h.ihl = 4 }), PassMalformed},
		{"a header of 0 words", nil, changed(with(func(*header) {}), 14, 0x40), PassMalformed},
		{"a header beyond the total length", nil, with(func(h *header) { h.ihl, h.length = 15, 59 }), PassMalformed},
		{"a header beyond the frame", nil, with(func(h *header) { h.ihl, h.length = 15, 60 }), PassShort},
		{"a total length of 0", nil, changed(changed(with(func(*header) {}), 16, 0), 17, 0), PassMalformed},
		{"a total length of 19", nil, with(func(h *header) { h.length = 19 }), PassMalformed},
		{"a total length beyond the frame", nil, with(func(h *header) { h.length = 33 }), PassShort},
		{"a total length beyond the frame, owned", nil, with(func(h *header) { h.dst, h.length = owned1, 33 }), PassShort},
		{"a total length of 65535", nil, with(func(h *header) { h.length = 65535 }), PassShort},
		{"a malformed packet to an owned address", nil, with(func(h *header) { h.dst, h.version = owned1, 6 }), PassMalformed},
		{"4 bytes of options", nil, with(func(h *header) { h.options = 4 }), XSKUDP},
		{"40 bytes of options", nil, with(func(h *header) { h.options = 40 }), XSKUDP},
		{"options, a port that is not bound", nil, ip(header{dst: shared1, protocol: 17, options: 8}.packet(udp(4000, 8))), PassPort},
		{"nothing behind the options", nil, ip(header{dst: shared1, protocol: 17, options: 40}.packet(nil)), PassShort},
		{"options to an owned address", nil, ip(header{dst: owned1, protocol: 17, options: 40}.packet(nil)), XSKOwned},
		{"another host", nil, ip(udpTo(stranger, udpPort)), PassAddress},
		{"multicast", nil, ip(udpTo(netip.MustParseAddr("224.0.0.251"), 5353)), PassAddress},
		{"address 0.0.0.0", nil, ip(udpTo(netip.IPv4Unspecified(), udpPort)), PassAddress},
		{"UDP to an owned address", nil, ip(udpTo(owned1, 9999)), XSKOwned},
		{"TCP to an owned address", nil, ip(tcpTo(owned1, 9999)), XSKOwned},
		{"ping to an owned address", nil, ip(icmpTo(owned1, icmp(8, 1, nil))), XSKOwned},
		{"a redirect to an owned address", nil, ip(icmpTo(owned1, icmp(5, 1, nil))), XSKOwned},
		{"GRE to an owned address", nil, ip(header{dst: owned1, protocol: 47}.packet([]byte("tunnel"))), XSKOwned},
		{"nothing to an owned address", nil, ip(header{dst: owned1}.packet(nil)), XSKOwned},
		{"an owned address in QinQ", nil, ip(udpTo(owned1, 9999), dot1AD, dot1Q), XSKOwned},
		{"GRE to a shared address", nil, ip(header{dst: shared1, protocol: 47}.packet([]byte("tunnel"))), PassProtocol},
		{"IGMP to a shared address", nil, ip(header{dst: shared1, protocol: 2, options: 4}.packet(make([]byte, 8))), PassProtocol},
	}
}

func portFrames() []named {
	return []named{
		{"UDP to a bound port", nil, ip(udpTo(shared1, udpPort)), XSKUDP},
		{"UDP to port 0", nil, ip(udpTo(shared1, 0)), XSKUDP},
		{"UDP to port 65535", nil, ip(udpTo(shared1, 65535)), XSKUDP},
		{"UDP to the next port", nil, ip(udpTo(shared1, udpPort+1)), PassPort},
		{"UDP to the port with its bytes swapped", nil, ip(udpTo(shared1, udpPort<<8)), PassPort},
		{"UDP to a port bound for TCP", nil, ip(udpTo(shared1, tcpPort)), PassPort},
		{"UDP to a port bound elsewhere", nil, ip(udpTo(shared2, udpPort)), PassPort},
		{"UDP from a bound port", nil, ip(header{dst: shared1, protocol: 17}.packet(udp(udpPort, 4000))), PassPort},
		{"UDP of 8 bytes", nil, ip(header{dst: shared1, protocol: 17}.packet(udp(4000, udpPort)[:8])), XSKUDP},
		{"UDP of 7 bytes", nil, ip(header{dst: shared1, protocol: 17}.packet(udp(4000, udpPort)[:7])), PassShort},
		{"ports only in the padding", nil, padded(ip(header{dst: shared1, protocol: 17}.packet(nil))), PassShort},
		{"ports only in the padding behind options", nil, padded(ip(header{dst: shared1, protocol: 17, options: 8}.packet(nil))), PassShort},
		{"a padded frame", nil, padded(ip(udpTo(shared1, udpPort))), XSKUDP},
		{"a segment to a bound port", nil, ip(tcpTo(shared1, tcpPort)), XSKTCP},
		{"a segment to port 0", nil, ip(tcpTo(shared2, 0)), XSKTCP},
		{"a segment to port 65535", nil, ip(tcpTo(shared2, 65535)), XSKTCP},
		{"a segment to the next port", nil, ip(tcpTo(shared1, tcpPort+1)), PassPort},
		{"a segment to a port bound for UDP", nil, ip(tcpTo(shared1, udpPort)), PassPort},
		{"a segment of 7 bytes", nil, ip(header{dst: shared1, protocol: 6}.packet(tcp(4000, tcpPort)[:7])), PassShort},
		{"a broadcast to a bound port", nil, ip(udpTo(subnet, udpPort)), XSKUDP},
		{"a broadcast to everybody", nil, ip(udpTo(everybody, udpPort)), XSKUDP},
		{"a broadcast to a port bound on an owned address", nil, ip(udpTo(everybody, 67)), XSKUDP},
		{"a broadcast to another port", nil, ip(udpTo(everybody, 68)), PassPort},
		{"a broadcast to a port bound for TCP", nil, ip(udpTo(everybody, tcpPort)), PassPort},
		{"a broadcast in a VLAN", nil, ip(udpTo(subnet, udpPort), dot1Q), XSKUDP},
		{"a broadcast segment", nil, ip(tcpTo(subnet, tcpPort)), PassProtocol},
		{"a broadcast ping", nil, ip(icmpTo(subnet, icmp(8, echoID, nil))), PassProtocol},
		{"a broadcast echo reply", nil, ip(icmpTo(everybody, icmp(0, echoID, nil))), PassProtocol},
		{"a broadcast of 7 bytes", nil, ip(header{dst: subnet, protocol: 17}.packet(udp(4000, udpPort)[:7])), PassShort},
	}
}

func icmpFrames() []named {
	return []named{
		{"an echo reply", nil, ip(icmpTo(shared1, icmp(0, echoID, []byte("payload")))), XSKEcho},
		{"an echo reply with a code", nil, changed(ip(icmpTo(shared1, icmp(0, echoID, nil))), 35, 1), XSKEcho},
		{"an echo reply to another identifier", nil, ip(icmpTo(shared1, icmp(0, echoID+1, nil))), PassEcho},
		{"an echo reply with the identifier swapped", nil, ip(icmpTo(shared1, icmp(0, 0x3412, nil))), PassEcho},
		{"an echo reply to another address", nil, ip(icmpTo(shared2, icmp(0, echoID, nil))), PassEcho},
		{"an echo reply to a number bound as a port", nil, ip(icmpTo(shared1, icmp(0, udpPort, nil))), PassEcho},
		{"an echo reply of 7 bytes", nil, ip(icmpTo(shared1, icmp(0, echoID, nil)[:7])), PassShort},
		{"an echo request", nil, ip(icmpTo(shared1, icmp(8, echoID, nil))), PassICMP},
		{"a source quench", nil, icmpError(4, header{protocol: 17}, udp(udpPort, 5000)), PassICMP},
		{"a redirect", nil, icmpError(5, header{protocol: 17}, udp(udpPort, 5000)), PassICMP},
		{"a timestamp request", nil, ip(icmpTo(shared1, icmp(13, echoID, make([]byte, 12)))), PassICMP},
		{"an ICMP type that nobody has", nil, ip(icmpTo(shared1, icmp(255, echoID, nil))), PassICMP},
	}
}

func errorFrames() []named {
	mine := header{protocol: 17}
	request := icmp(8, echoID, []byte("payload"))
	return []named{
		{"unreachable about UDP", nil, icmpError(3, mine, udp(udpPort, 5000)), XSKICMPError},
		{"time exceeded about UDP", nil, icmpError(11, mine, udp(udpPort, 5000)), XSKICMPError},
		{"parameter problem about UDP", nil, icmpError(12, mine, udp(udpPort, 5000)), XSKICMPError},
		{"unreachable in a VLAN", nil, join(icmpError(3, mine, udp(udpPort, 1))[:12], be16(dot1Q), be16(1), icmpError(3, mine, udp(udpPort, 1))[12:]), XSKICMPError},
		{"unreachable about TCP", nil, icmpError(3, header{protocol: 6}, tcp(tcpPort, 5000)), XSKICMPError},
		{"unreachable about an echo request", nil, icmpError(3, header{protocol: 1}, request), XSKICMPError},
		{"unreachable about another echo request", nil, icmpError(3, header{protocol: 1}, icmp(8, echoID+1, nil)), PassICMPError},
		{"unreachable about an echo reply", nil, icmpError(3, header{protocol: 1}, icmp(0, echoID, nil)), PassICMPError},
		{"unreachable about another UDP port", nil, icmpError(3, mine, udp(udpPort+1, 5000)), PassICMPError},
		{"unreachable about a destination port that is bound", nil, icmpError(3, mine, udp(5000, udpPort)), PassICMPError},
		{"unreachable about UDP from a TCP port", nil, icmpError(3, mine, udp(tcpPort, 5000)), PassICMPError},
		{"unreachable about TCP from a UDP port", nil, icmpError(3, header{protocol: 6}, tcp(udpPort, 5000)), PassICMPError},
		{"unreachable about GRE", nil, icmpError(3, header{protocol: 47}, make([]byte, 8)), PassICMPError},
		{"unreachable about another host's packet", nil, icmpError(3, header{protocol: 17, src: stranger}, udp(udpPort, 5000)), PassICMPError},
		{"unreachable about our other address's packet", nil, icmpError(3, header{protocol: 6, src: shared2}, tcp(udpPort, 5000)), PassICMPError},
		{"a quote with options", nil, icmpError(3, header{protocol: 17, options: 40}, udp(udpPort, 5000)), XSKICMPError},
		{"a quote with options, another port", nil, icmpError(3, header{protocol: 17, options: 12}, udp(5000, udpPort)), PassICMPError},
		{"a quote of 8 bytes", nil, quoting(17, udp(udpPort, 5000), 8), XSKICMPError},
		{"a quote of 7 bytes", nil, quoting(17, udp(udpPort, 5000), 7), PassICMPError},
		{"a quote of a header", nil, quoting(17, udp(udpPort, 5000), 0), PassICMPError},
		{"a quote cut in its options", nil, icmpError(3, header{protocol: 17, ihl: 15}, udp(udpPort, 5000)), PassICMPError},
		{"a quote cut in its header", nil, ip(icmpTo(shared1, icmp(3, 0, header{src: shared1, dst: peer, protocol: 17}.packet(nil)[:19]))), PassICMPError},
		{"no quote", nil, ip(icmpTo(shared1, icmp(3, 0, nil))), PassICMPError},
		{"a quote in the padding only", nil, padded(ip(icmpTo(shared1, icmp(3, 0, nil)))), PassICMPError},
		{"a quote that ends in the padding", nil, join(icmpError(3, header{protocol: 17, options: 8}, nil), udp(udpPort, 5000)), PassICMPError},
		{"a quote of IPv6", nil, icmpError(3, header{protocol: 17, version: 6}, udp(udpPort, 5000)), PassICMPError},
		{"a quote with a header of 4 words", nil, icmpError(3, header{protocol: 17, ihl: 4}, udp(udpPort, 5000)), PassICMPError},
		{"a quote of a first fragment", nil, icmpError(11, header{protocol: 17, fragment: 0x2000}, udp(udpPort, 5000)), XSKICMPError},
		{"a quote of a later fragment", nil, icmpError(11, header{protocol: 17, fragment: 0x0001}, udp(udpPort, 5000)), PassICMPError},
		{"a quote with don't fragment", nil, icmpError(3, header{protocol: 17, fragment: 0x4000}, udp(udpPort, 5000)), XSKICMPError},
		{"an error of 7 bytes", nil, ip(icmpTo(shared1, icmp(3, 0, nil)[:7])), PassShort},
	}
}

func fragmentFrames() []named {
	first := fragmentOf(shared1, 77, 0, true, udp(4000, udpPort))
	middle := fragmentOf(shared1, 77, 2, true, []byte("moredata"))
	last := fragmentOf(shared1, 77, 3, false, []byte("end"))
	others := fragmentOf(shared1, 77, 0, true, udp(4000, 8))
	reply := header{dst: shared1, protocol: 1, id: 5, fragment: 0x2000}
	about := header{src: shared1, dst: peer, protocol: 17}.packet(udp(udpPort, 5000))
	tail := reply
	tail.fragment = 2
	return []named{
		{"a first fragment", nil, first, XSKUDP},
		{"a middle fragment after its first", [][]byte{first}, middle, XSKFragment},
		{"a last fragment after its first", [][]byte{first, middle}, last, XSKFragment},
		{"fragments out of order after their first", [][]byte{first, last}, middle, XSKFragment},
		{"a fragment that overtook its first", nil, last, PassFragment},
		{"a fragment after its late first", [][]byte{last, first}, middle, XSKFragment},
		{"a first fragment to another port", nil, others, PassPort},
		{"a later fragment to another port", [][]byte{others}, last, PassFragment},
		{"an identification used again by the kernel", [][]byte{first, others}, last, PassFragment},
		{"a fragment of another identification", [][]byte{first}, fragmentOf(shared1, 78, 3, false, nil), PassFragment},
		{"a fragment to another address", [][]byte{first}, fragmentOf(shared2, 77, 3, false, nil), PassFragment},
		{"a fragment from another host", [][]byte{first}, ip(header{src: stranger, dst: shared1, protocol: 17, id: 77, fragment: 3}.packet(nil)), PassFragment},
		{"a fragment of another protocol", [][]byte{first}, ip(header{dst: shared1, protocol: 6, id: 77, fragment: 3}.packet(nil)), PassFragment},
		{"a later fragment of a bound port's shape", nil, fragmentOf(shared1, 79, 1, false, udp(4000, udpPort)), PassFragment},
		{"don't fragment", nil, ip(header{dst: shared1, protocol: 17, fragment: 0x4000}.packet(udp(4000, udpPort))), XSKUDP},
		{"the reserved flag", nil, ip(header{dst: shared1, protocol: 17, fragment: 0x8000}.packet(udp(4000, udpPort))), XSKUDP},
		{"a first fragment of 7 bytes", nil, fragmentOf(shared1, 80, 0, true, udp(4000, udpPort)[:7]), PassShort},
		{"a first fragment of TCP", nil, ip(header{dst: shared1, protocol: 6, id: 6, fragment: 0x2000}.packet(tcp(4000, tcpPort))), XSKTCP},
		{"a fragmented echo reply", nil, ip(reply.packet(icmp(0, echoID, nil))), XSKEcho},
		{"the rest of an echo reply", [][]byte{ip(reply.packet(icmp(0, echoID, nil)))}, ip(tail.packet([]byte("rest"))), XSKFragment},
		{"the rest of an ICMP error", [][]byte{ip(reply.packet(icmp(3, 0, about)))}, ip(tail.packet([]byte("rest"))), XSKFragment},
		{"a fragmented echo request", nil, ip(reply.packet(icmp(8, echoID, nil))), PassICMP},
		{"the rest of an echo request", [][]byte{ip(reply.packet(icmp(8, echoID, nil)))}, ip(tail.packet([]byte("rest"))), PassFragment},
		{"a first fragment of GRE", nil, ip(header{dst: shared1, protocol: 47, fragment: 0x2000}.packet(make([]byte, 8))), PassProtocol},
		{"a fragment of a broadcast", [][]byte{fragmentOf(subnet, 9, 0, true, udp(4000, udpPort))}, fragmentOf(subnet, 9, 2, false, nil), XSKFragment},
		{"a fragment of another broadcast", [][]byte{fragmentOf(subnet, 9, 0, true, udp(4000, 8))}, fragmentOf(subnet, 9, 2, false, nil), PassFragment},
		{"a first fragment to an owned address", nil, fragmentOf(owned1, 1, 0, true, udp(4000, 8)), XSKOwned},
		{"a later fragment to an owned address", nil, fragmentOf(owned1, 2, 2, false, nil), XSKOwned},
		{"a fragment in a VLAN", [][]byte{first}, join(last[:12], be16(dot1Q), be16(1), last[12:]), XSKFragment},
	}
}
