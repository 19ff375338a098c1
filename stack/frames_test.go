package stack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// The two ends of a script's wire, and who else is about.
const (
	hostIP    = "10.0.0.1"
	peerIP    = "10.0.0.2"
	otherIP   = "10.0.0.3" // a third host on the link
	gatewayIP = "10.0.0.254"
	farIP     = "192.0.2.9" // beyond the gateway
	bcastIP   = "10.0.0.255"
)

var (
	hostMAC  = wire.HardwareAddr{0x02, 0, 0, 0, 0, 1}
	peerMAC  = wire.HardwareAddr{0x02, 0, 0, 0, 0, 2}
	otherMAC = wire.HardwareAddr{0x02, 0, 0, 0, 0, 3}
)

func addr(s string) wire.Addr {
	a, ok := wire.AddrFrom(netip.MustParseAddr(s))
	if !ok {
		panic(s)
	}
	return a
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// A packet says what a frame for the script to send looks like. Its zero value is an ordinary one from the peer to the host.
type packet struct {
	fromMAC, toMAC wire.HardwareAddr
	vlans          []wire.VLANTag // the outermost first
	from, to       string
	tos, ttl       uint8
	id             uint16
	df, mf         bool
	off            int
	options        []byte // of the IPv4 header, a multiple of 4
	noChecksum     bool   // UDP: the field is 0
	partial        bool   // UDP: the field holds the pseudo-header's sum
}

func (p packet) filled() packet {
	if p.fromMAC.IsZero() {
		p.fromMAC = peerMAC
	}
	if p.toMAC.IsZero() {
		p.toMAC = hostMAC
	}
	if p.from == "" {
		p.from = peerIP
	}
	if p.to == "" {
		p.to = hostIP
	}
	if p.ttl == 0 {
		p.ttl = 64
	}
	return p
}

// ethernet puts an Ethernet header in front of body.
func (p packet) ethernet(t wire.EtherType, body []byte) []byte {
	p = p.filled()
	h := wire.EthernetInfo{Dst: p.toMAC, Src: p.fromMAC, Type: t}
	h.NTags = uint8(copy(h.Tags[:], p.vlans))
	b := make([]byte, wire.EthernetMaxLen, wire.EthernetMaxLen+len(body))
	return append(b[:wire.PutEthernet(b, &h)], body...)
}

// ip makes a frame with body as the payload of one IPv4 packet.
func (p packet) ip(proto wire.Protocol, body []byte) []byte {
	p = p.filled()
	n := wire.IPv4Len + len(p.options)
	b := make([]byte, n+len(body))
	wire.PutIPv4(b, &wire.IPv4Fields{
		TOS: p.tos, TotalLength: len(b), ID: p.id, DF: p.df, MF: p.mf, FragmentOffset: p.off, TTL: p.ttl,
		Protocol: proto, Src: addr(p.from), Dst: addr(p.to),
	})
	b[0] = 0x40 | byte(n/4)
	copy(b[wire.IPv4Len:], p.options)
	copy(b[n:], body)
	fixIPChecksum(b)
	return p.ethernet(wire.EtherTypeIPv4, b)
}

// fixIPChecksum computes the header checksum of the packet in b, whatever else is wrong with it.
func fixIPChecksum(b []byte) {
	n := min(int(b[0]&0xF)*4, len(b))
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^naiveSum(b[:n]))
}

// naiveSum is RFC 1071 §1, word by word.
func naiveSum(b []byte) uint16 {
	var v uint32
	for i, x := range b {
		v += uint32(x) << (8 * (1 - i%2))
		v = v&0xFFFF + v>>16
	}
	return uint16(v)
}

// udpBody is a UDP datagram with its checksum, between p's addresses.
func (p packet) udpBody(sport, dport int, payload []byte) []byte {
	p = p.filled()
	u := make([]byte, wire.UDPLen+len(payload))
	binary.BigEndian.PutUint16(u, uint16(sport))
	binary.BigEndian.PutUint16(u[2:], uint16(dport))
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	copy(u[wire.UDPLen:], payload)
	pseudo := make([]byte, 12)
	wire.PutAddr(pseudo, addr(p.from))
	wire.PutAddr(pseudo[4:], addr(p.to))
	pseudo[9] = byte(wire.ProtocolUDP)
	binary.BigEndian.PutUint16(pseudo[10:], uint16(len(u)))
	sum := naiveSum(pseudo)
	switch {
	case p.noChecksum:
		return u
	case !p.partial:
		if sum = ^naiveSum(append(pseudo, u...)); sum == 0 {
			sum = 0xFFFF
		}
	}
	binary.BigEndian.PutUint16(u[6:], sum)
	return u
}

// udp makes a frame with a UDP datagram.
func (p packet) udp(sport, dport int, payload string) []byte {
	return p.ip(wire.ProtocolUDP, p.udpBody(sport, dport, []byte(payload)))
}

func icmpBody(typ wire.ICMPType, code uint8, rest uint32, payload []byte) []byte {
	m := make([]byte, wire.ICMPLen+len(payload))
	m[0], m[1] = byte(typ), code
	binary.BigEndian.PutUint32(m[4:], rest)
	copy(m[wire.ICMPLen:], payload)
	binary.BigEndian.PutUint16(m[2:], ^naiveSum(m))
	return m
}

// icmp makes a frame with an ICMP message.
func (p packet) icmp(typ wire.ICMPType, code uint8, rest uint32, payload []byte) []byte {
	return p.ip(wire.ProtocolICMP, icmpBody(typ, code, rest, payload))
}

// ping makes an echo request.
func (p packet) ping(id, seq uint16, payload string) []byte {
	return p.icmp(wire.ICMPEcho, 0, uint32(id)<<16|uint32(seq), []byte(payload))
}

// icmpAbout makes an ICMP error about a frame that the host sent.
func (p packet) icmpAbout(f sent, typ wire.ICMPType, code uint8, rest uint32) []byte {
	quote := f.ip()
	return p.icmp(typ, code, rest, quote[:min(len(quote), quote.HeaderLen()+8)])
}

// pieces cuts a frame's IPv4 packet into fragments with payloads of size bytes, a multiple of 8.
func (p packet) pieces(proto wire.Protocol, body []byte, size int) (frames [][]byte) {
	for off := 0; off < len(body); off += size {
		q := p
		q.off, q.mf = off, off+size < len(body)
		frames = append(frames, q.ip(proto, body[off:min(off+size, len(body))]))
	}
	return frames
}

// arp makes an ARP packet, in a broadcast frame if it is a request.
func (p packet) arp(op wire.ARPOp, fromMAC wire.HardwareAddr, from string, toMAC wire.HardwareAddr, to string) []byte {
	if op == wire.ARPRequest && p.toMAC.IsZero() {
		p.toMAC = wire.HardwareBroadcast
	}
	if p.fromMAC.IsZero() {
		p.fromMAC = fromMAC
	}
	b := make([]byte, wire.ARPLen)
	wire.PutARP(b, &wire.ARPFields{Op: op, SenderHardware: fromMAC, Sender: addr(from), TargetHardware: toMAC, Target: addr(to)})
	return p.ethernet(wire.EtherTypeARP, b)
}

// whoHas and isAt are the peer's ARP request and reply.
func whoHas(target string) []byte {
	return packet{}.arp(wire.ARPRequest, peerMAC, peerIP, wire.HardwareAddr{}, target)
}

func isAt(mac wire.HardwareAddr, ip string) []byte {
	return packet{}.arp(wire.ARPReply, mac, ip, hostMAC, hostIP)
}

// A sent is a frame that the host sent.
type sent []byte

func (f sent) ethernet() wire.EthernetInfo {
	h, _ := wire.ParseEthernet(f)
	return h
}

func (f sent) tags() []wire.VLANTag {
	h := f.ethernet()
	return h.Tags[:h.NTags]
}

func (f sent) ip() wire.IPv4 {
	h := f.ethernet()
	p, err := wire.ParseIPv4(f[h.HeaderLen:])
	if err != nil {
		panic(err)
	}
	return p
}

func (f sent) udp() wire.UDP {
	u, err := wire.ParseUDP(f.ip().Payload())
	if err != nil {
		panic(err)
	}
	return u
}

func (f sent) tcp() wire.TCP {
	t, err := wire.ParseTCP(f.ip().Payload())
	if err != nil {
		panic(err)
	}
	return t
}

func (f sent) icmp() wire.ICMP { return wire.ICMP(f.ip().Payload()) }

func (f sent) arp() wire.ARP { return wire.ARP(f[f.ethernet().HeaderLen:]) }

// wantWellFormed holds a frame that the host sent against gopacket, a decoder of another make: nothing is left over, and
// every checksum is right.
func wantWellFormed(t testing.TB, frame []byte) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: false, NoCopy: true})
	if p.TransportLayer() == nil { // what is behind UDP is the script's
		require.Nil(t, p.ErrorLayer(), "%s: %v", wire.Dump(frame), p)
	}
	if ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		require.Equal(t, uint16(0xFFFF), naiveSum(ip.Contents), "IPv4 checksum of %s", wire.Dump(frame))
		require.Equal(t, len(frame), len(frame)-len(ip.Contents)-len(ip.Payload)+int(ip.Length), "length of %s", wire.Dump(frame))
		if ip.Flags&layers.IPv4MoreFragments != 0 || ip.FragOffset != 0 {
			return
		}
	}
	if u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
		ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		pseudo := bytes.Join([][]byte{ip.SrcIP.To4(), ip.DstIP.To4(), {0, 17, byte(u.Length >> 8), byte(u.Length)}, u.Contents, u.Payload}, nil)
		require.True(t, u.Checksum == 0 || naiveSum(pseudo) == 0xFFFF, "UDP checksum of %s", wire.Dump(frame))
	}
	if seg, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
		ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		n := len(seg.Contents) + len(seg.Payload)
		pseudo := bytes.Join([][]byte{ip.SrcIP.To4(), ip.DstIP.To4(), {0, 6, byte(n >> 8), byte(n)}, seg.Contents, seg.Payload}, nil)
		require.Equal(t, uint16(0xFFFF), naiveSum(pseudo), "TCP checksum of %s", wire.Dump(frame))
	}
	if m, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		require.Equal(t, uint16(0xFFFF), naiveSum(append(bytes.Clone(m.Contents), m.Payload...)), "ICMP checksum of %s", wire.Dump(frame))
	}
}
