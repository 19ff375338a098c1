package kittest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"kitnet.dev/kit/stack/wire"
)

var (
	packetLine = regexp.MustCompile(`^(\S+) > (\S+): (udp|icmp echo request id (\d+) seq (\d+)|icmp echo reply id (\d+) seq (\d+))( length)? (\d+|".*")$`)
	arpAsks    = regexp.MustCompile(`^arp who-has (\S+) tell (\S+)$`)
	arpTells   = regexp.MustCompile(`^arp (\S+) is-at (\S+)$`)
	quoted     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"$`)
)

// frame makes the frame that a line describes, without its Ethernet header.
func frame(line string) (t wire.EtherType, b []byte, err error) {
	if m := packetLine.FindStringSubmatch(line); m != nil {
		b, err = packet(m)
		return wire.EtherTypeIPv4, b, err
	}
	var f wire.ARPFields
	var sender, target string
	if m := arpAsks.FindStringSubmatch(line); m != nil {
		f.Op, target, sender = wire.ARPRequest, m[1], m[2]
	} else if m := arpTells.FindStringSubmatch(line); m != nil {
		hardware, err := net.ParseMAC(m[2])
		if err != nil || len(hardware) != 6 {
			return 0, nil, fmt.Errorf("%q is no Ethernet address", m[2])
		}
		f.Op, f.SenderHardware, sender, target = wire.ARPReply, wire.HardwareAddr(hardware), m[1], m[1]
	} else {
		return 0, nil, fmt.Errorf(`want '10.0.0.2.4000 > 10.0.0.1.7: udp "text"', '10.0.0.2 > 10.0.0.1: icmp echo request id 1 seq 2 "text"', ` +
			`'arp who-has 10.0.0.1 tell 10.0.0.2' or 'arp 10.0.0.2 is-at 02:00:00:00:00:02'`)
	}
	if f.Sender, err = address(sender); err != nil {
		return 0, nil, err
	}
	if f.Target, err = address(target); err != nil {
		return 0, nil, err
	}
	b = make([]byte, wire.ARPLen)
	wire.PutARP(b, &f)
	return wire.EtherTypeARP, b, nil
}

// packet makes the IPv4 packet of a line that packetLine has taken apart.
func packet(m []string) ([]byte, error) {
	payload, err := payloadOf(m[9])
	if err != nil {
		return nil, err
	}
	if m[3] == "udp" {
		return datagram(m[1], m[2], payload)
	}
	if m[8] != "" && len(payload) >= wire.ICMPLen { // as tcpdump says it: of the whole message
		payload = payload[wire.ICMPLen:]
	}
	src, err := address(m[1])
	if err != nil {
		return nil, err
	}
	dst, err := address(m[2])
	if err != nil {
		return nil, err
	}
	typ, id, seq := wire.ICMPEcho, m[4], m[5]
	if id == "" {
		typ, id, seq = wire.ICMPEchoReply, m[6], m[7]
	}
	b, body := ip(src, dst, wire.ProtocolICMP, wire.ICMPLen+len(payload))
	body[0] = byte(typ)
	for i, text := range []string{id, seq} {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, err
		}
		binary.BigEndian.PutUint16(body[4+2*i:], uint16(n))
	}
	copy(body[wire.ICMPLen:], payload)
	wire.ICMP(body).SetChecksum()
	return b, nil
}

// datagram makes a packet with a UDP datagram in it.
func datagram(from, to string, payload []byte) ([]byte, error) {
	src, sport, err := endpoint(from)
	if err != nil {
		return nil, err
	}
	dst, dport, err := endpoint(to)
	if err != nil {
		return nil, err
	}
	b, body := ip(src, dst, wire.ProtocolUDP, wire.UDPLen+len(payload))
	sum := wire.CopySum(body[wire.UDPLen:], payload, 0)
	wire.PutUDP(body, &wire.UDPFields{Src: src, Dst: dst, SrcPort: sport, DstPort: dport, PayloadLen: len(payload)}, sum)
	return b, nil
}

// ip makes a packet, and returns where its n bytes of payload go.
func ip(src, dst wire.Addr, proto wire.Protocol, n int) (b, body []byte) {
	b = make([]byte, wire.IPv4Len+n)
	wire.PutIPv4(b, &wire.IPv4Fields{TotalLength: len(b), DF: true, TTL: 64, Protocol: proto, Src: src, Dst: dst})
	return b, b[wire.IPv4Len:]
}

// payloadOf is the text between quotes, in Go's syntax, or so many bytes of a pattern.
func payloadOf(text string) ([]byte, error) {
	if text[0] == '"' {
		s, err := strconv.Unquote(text)
		if err != nil {
			return nil, fmt.Errorf("%s is no string as Go writes it: %w", text, err)
		}
		return []byte(s), nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b, nil
}

// endpoint reads "10.0.0.1.7".
func endpoint(text string) (wire.Addr, uint16, error) {
	dot := strings.LastIndexByte(text, '.')
	if dot < 0 {
		return 0, 0, fmt.Errorf("%q is no address and port, such as 10.0.0.1.7", text)
	}
	port, err := strconv.ParseUint(text[dot+1:], 10, 16)
	if err != nil {
		return 0, 0, err
	}
	a, err := address(text[:dot])
	return a, uint16(port), err
}

func address(text string) (wire.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return 0, err
	}
	w, ok := wire.AddrFrom(a)
	if !ok {
		return 0, fmt.Errorf("%v is no IPv4 address", a)
	}
	return w, nil
}

// describe says what a frame is, as a line of a script does: with its payload in quotes where like has some.
func describe(f []byte, like string) string {
	h, ok := wire.ParseEthernet(f)
	text := wire.Dump(f)
	if _, after, ok := strings.Cut(text, " > "); ok { // without the Ethernet addresses
		_, text, _ = strings.Cut(after, " ")
	}
	if !ok || h.Type != wire.EtherTypeIPv4 || !quoted.MatchString(like) {
		return text
	}
	p, err := wire.ParseIPv4(f[h.HeaderLen:])
	if err != nil {
		return text
	}
	var payload []byte
	if u, err := wire.ParseUDP(p.Payload()); err == nil && p.Protocol() == wire.ProtocolUDP {
		payload = u.Payload()
	} else if m, err := wire.ParseICMP(p.Payload()); err == nil && p.Protocol() == wire.ProtocolICMP {
		payload = m[wire.ICMPLen:]
		text = strings.Replace(text, " length", "", 1)
	} else {
		return text
	}
	number := regexp.MustCompile(` \d+( \(.*\))?$`)
	return number.ReplaceAllStringFunc(text, func(n string) string {
		_, remark, _ := strings.Cut(n[1:], " ")
		return strings.TrimSuffix(" "+strconv.Quote(string(payload))+" "+remark, " ")
	})
}
