package pcapfilter

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// kind is what an identifier names.
type kind uint8

const (
	unsaid kind = iota
	host
	network4
	port
	portRange
	protocol
)

var kinds = map[string]kind{"host": host, "net": network4, "port": port, "portrange": portRange, "proto": protocol}

// qualifiers are the words in front of an identifier.
type qualifiers struct {
	proto string // "" where none is said
	dir   direction
	// dirSaid: a direction was written.
	dirSaid bool
	kind    kind
}

// ipProtocols are the protocols inside IP that have a word, and the IP
// versions that carry them.
var ipProtocols = map[string]protoNode{
	"icmp":  {proto: protoICMP, ip4: true},
	"igmp":  {proto: protoIGMP, ip4: true},
	"tcp":   {proto: protoTCP, ip4: true, ip6: true},
	"udp":   {proto: protoUDP, ip4: true, ip6: true},
	"sctp":  {proto: protoSCTP, ip4: true, ip6: true},
	"icmp6": {proto: protoICMPv6, ip6: true},
}

// etherTypes are the protocols on Ethernet that have a word.
var etherTypes = map[string]int{"ip": typeIPv4, "ip6": typeIPv6, "arp": typeARP, "rarp": typeRARP}

// unsupported are words of pcap-filter(7) that are about other links, other
// protocols, or what libpcap asks the kernel.
var unsupported = map[string]bool{
	"gateway": true, "protochain": true, "inbound": true, "outbound": true, "ifname": true, "ifindex": true,
	"on": true, "rnr": true, "rulenum": true, "reason": true, "rset": true, "ruleset": true, "srnr": true,
	"subrulenum": true, "action": true, "mpls": true, "pppoed": true, "pppoes": true, "geneve": true, "vxlan": true,
	"wlan": true, "fddi": true, "tr": true, "ppp": true, "slip": true, "link": true, "radio": true, "llc": true,
	"atalk": true, "aarp": true, "decnet": true, "iso": true, "clnp": true, "esis": true, "isis": true, "stp": true,
	"ipx": true, "netbeui": true, "lat": true, "moprc": true, "mopdl": true, "sca": true, "ah": true, "esp": true,
	"pim": true, "vrrp": true, "carp": true, "igrp": true, "type": true, "subtype": true, "dir": true, "lane": true,
	"oam": true, "oamf4": true, "vpi": true, "vci": true,
}

func isProtocolWord(w string) bool {
	_, inIP := ipProtocols[w]
	_, onEther := etherTypes[w]
	return inIP || onEther || w == "ether"
}

func isQualifier(w string) bool {
	return isProtocolWord(w) || w == "src" || w == "dst" || kinds[w] != unsaid
}

// isKeyword reports whether w can't be an identifier unless it is escaped.
func isKeyword(w string) bool {
	switch w {
	case "and", "or", "not", "vlan", "less", "greater", "broadcast", "multicast", "mask", "len":
		return true
	}
	return isQualifier(w) || unsupported[w]
}

// qualified: [protocol] [direction] [kind] identifier, or a protocol alone.
func (p *parser) qualified() (node, error) {
	var q qualifiers
	first := p.peek()
	if isProtocolWord(first.text) {
		q.proto = p.next().text
		if t := p.peek(); t.text == "broadcast" || t.text == "multicast" {
			return p.cast(q.proto)
		}
	}
	p.direction(&q)
	if k := kinds[p.peek().text]; k != unsaid && !p.peek().escaped {
		q.kind = k
		p.next()
	}
	if q.kind == unsaid && !q.dirSaid {
		return p.protocolAlone(first)
	}
	if q.kind == unsaid {
		q.kind = host
	}
	p.last = &q
	return p.named()
}

// direction: src, dst, src or dst, src and dst.
func (p *parser) direction(q *qualifiers) {
	other := map[string]string{"src": "dst", "dst": "src"}[p.peek().text]
	if other == "" {
		return
	}
	q.dirSaid = true
	q.dir = source
	if p.next().text == "dst" {
		q.dir = destination
	}
	if p.peekAt(1).text != other {
		return
	}
	switch p.peek().text {
	case "or", "||":
		q.dir = either
	case "and", "&&":
		q.dir = both
	default:
		return
	}
	p.pos += 2
}

// protocolAlone is the test for a protocol word that nothing belongs to.
func (p *parser) protocolAlone(word token) (node, error) {
	p.last = nil
	t := p.peek()
	if t.word && (t.escaped || !isKeyword(t.text)) {
		return nil, p.refuse(t, "follows %q without a word such as host or port between them", word.text)
	}
	if n, ok := ipProtocols[word.text]; ok {
		n.shift = p.shift
		return n, nil
	}
	if typ, ok := etherTypes[word.text]; ok {
		return typeNode{shift: p.shift, types: []int{typ}}, nil
	}
	return nil, p.refuse(word, "needs host, src, dst, proto, broadcast or multicast behind it")
}

// cast: ether broadcast, ether multicast, ip multicast.
func (p *parser) cast(proto string) (node, error) {
	t := p.peek()
	switch {
	case proto == "ether":
		return p.etherCast()
	case proto == "ip" && t.text == "multicast":
		p.next()
		p.last = nil
		return ipMulticast{p.shift}, nil
	}
	return nil, p.refuse(t, "behind %q is not supported by kit's filters", proto)
}

// named reads what the qualifiers in p.last are about: one identifier, or
// several in parentheses.
func (p *parser) named() (node, error) {
	if p.peek().text == "(" {
		return p.grouped(func() (node, error) {
			return p.joined(func() (node, error) { return p.negated(p.named) })
		})
	}
	return p.identifier()
}

// identifier reads one address, network, port, range or protocol, by the
// qualifiers in p.last.
func (p *parser) identifier() (node, error) {
	t := p.next()
	switch {
	case t == end:
		return nil, p.refuse(t, "stands where an address, port or test is due")
	case !t.word:
		return nil, p.refuse(t, "stands where an address or number is due")
	case unsupported[t.text] && !t.escaped:
		return nil, p.refuse(t, "is not supported by kit's filters")
	case isKeyword(t.text) && !t.escaped:
		return nil, p.refuse(t, "is a keyword where an address or number is due; write \\%s for the name", t.text)
	}
	if p.last == nil {
		return nil, p.refuse(t, "has no word such as host or port in front of it")
	}
	q := *p.last
	switch q.kind {
	case host:
		if q.proto == "ether" {
			return p.hardwareAddress(t, q)
		}
		return p.hostAddress(t, q)
	case network4:
		return p.networkAddress(t, q)
	case port, portRange:
		return p.portNumber(t, q)
	default:
		return p.protocolNumber(t, q)
	}
}

func (p *parser) hardwareAddress(t token, q qualifiers) (node, error) {
	mac, err := net.ParseMAC(t.text)
	if err != nil || len(mac) != 6 {
		return nil, p.refuse(t, "is not a hardware address such as 02:00:00:00:00:01")
	}
	return etherNode{dir: q.dir, addr: [6]byte(mac)}, nil
}

func (p *parser) hostAddress(t token, q qualifiers) (node, error) {
	types, err := p.addressTypes(t, q, "host")
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(t.text)
	if err != nil || !addr.Is4() {
		return nil, p.refuse(t, "is not an IPv4 address (names are not looked up, IPv6 is not supported)")
	}
	if p.peek().text == "/" {
		return nil, p.refuse(t, "has a prefix length: write net %s/…", t.text)
	}
	return addrNode{shift: p.shift, dir: q.dir, value: number4(addr), mask: 0xFFFFFFFF, types: types}, nil
}

// addressTypes are the Ethernet types in which an address is looked for.
func (p *parser) addressTypes(t token, q qualifiers, what string) ([]int, error) {
	switch q.proto {
	case "":
		return []int{typeIPv4, typeARP, typeRARP}, nil
	case "ip", "arp", "rarp":
		return []int{etherTypes[q.proto]}, nil
	}
	return nil, p.refuse(t, "can't be the %s of %q: only ip, arp, rarp%s have one here",
		what, q.proto, map[bool]string{true: ", ether"}[what == "host"])
}

// networkAddress: 10.0.0.0/8, 10.0.0.0 mask 255.0.0.0, 10 or 10.1.
func (p *parser) networkAddress(t token, q qualifiers) (node, error) {
	types, err := p.addressTypes(t, q, "net")
	if err != nil {
		return nil, err
	}
	octets := strings.Split(t.text, ".")
	addr, err := netip.ParseAddr(t.text + strings.Repeat(".0", max(0, 4-len(octets))))
	if err != nil || !addr.Is4() {
		return nil, p.refuse(t, "is not an IPv4 network such as 10.0.0.0/8")
	}
	n := addrNode{shift: p.shift, dir: q.dir, value: number4(addr), types: types}
	switch {
	case p.accept("/"):
		bits, err := p.number(32)
		if err != nil {
			return nil, err
		}
		n.mask = uint32(uint64(0xFFFFFFFF) << (32 - bits))
	case p.accept("mask"):
		m := p.next()
		mask, err := netip.ParseAddr(m.text)
		if err != nil || !mask.Is4() {
			return nil, p.refuse(m, "is not a mask such as 255.0.0.0")
		}
		n.mask = number4(mask)
	default:
		n.mask = uint32(uint64(0xFFFFFFFF) << (32 - 8*len(octets)))
	}
	if n.value&^n.mask != 0 {
		return nil, p.refuse(t, "has bits set outside its network")
	}
	return n, nil
}

// portProtocols are the protocols in which a port is looked for.
var portProtocols = map[string][]int{
	"": {protoSCTP, protoTCP, protoUDP}, "tcp": {protoTCP}, "udp": {protoUDP}, "sctp": {protoSCTP},
}

// portNumber: a port, or a range of them.
func (p *parser) portNumber(t token, q qualifiers) (node, error) {
	protos, ok := portProtocols[q.proto]
	if !ok {
		return nil, p.refuse(t, "can't be a port of %q: only tcp, udp and sctp have ports", q.proto)
	}
	n := portNode{shift: p.shift, dir: q.dir, protos: protos}
	lo, hi := t.text, t.text
	if q.kind == portRange {
		var ranged bool
		if lo, hi, ranged = strings.Cut(t.text, "-"); !ranged {
			hi = lo
		}
	}
	var okLo, okHi bool
	n.lo, okLo = portOf(lo, q.proto)
	n.hi, okHi = portOf(hi, q.proto)
	if !okLo || !okHi {
		return nil, p.refuse(t, "is no port, and no service of /etc/services%s",
			map[bool]string{true: "; a range is written 1000-2000"}[q.kind == portRange])
	}
	n.lo, n.hi = min(n.lo, n.hi), max(n.lo, n.hi)
	return n, nil
}

// portOf reads a port's number or its name in /etc/services.
func portOf(text, proto string) (int, bool) {
	if number, err := strconv.ParseUint(text, 0, 16); err == nil {
		return int(number), true
	}
	if text == "" || '0' <= text[0] && text[0] <= '9' {
		return 0, false
	}
	if proto == "" || proto == "sctp" {
		proto = "tcp"
	}
	var resolver net.Resolver
	for _, proto := range []string{proto, "udp"} {
		if number, err := resolver.LookupPort(context.Background(), proto, text); err == nil {
			return number, true
		}
	}
	return 0, false
}

// protocolNumber: the protocol behind proto, by number or name.
func (p *parser) protocolNumber(t token, q qualifiers) (node, error) {
	if q.dirSaid {
		return nil, p.refuse(t, "is a protocol, which has no direction")
	}
	switch q.proto {
	case "ether":
		typ, known := etherTypes[t.text]
		if number, err := strconv.ParseUint(t.text, 0, 16); err == nil && number > 1500 {
			typ, known = int(number), true
		}
		if !known {
			return nil, p.refuse(t, "is no Ethernet type: a number above 1500, \\ip, \\ip6, \\arp or \\rarp")
		}
		return typeNode{shift: p.shift, types: []int{typ}}, nil
	case "", "ip", "ip6":
	default:
		return nil, p.refuse(t, "can't be the proto of %q: only ether, ip and ip6 have one", q.proto)
	}
	word, known := ipProtocols[t.text]
	number := word.proto
	if n, err := strconv.ParseUint(t.text, 0, 8); err == nil {
		number, known = int(n), true
	}
	if !known {
		return nil, p.refuse(t, "is no protocol: a number up to 255, \\icmp, \\igmp, \\tcp, \\udp, \\sctp or \\icmp6")
	}
	return protoNode{shift: p.shift, proto: number, ip4: q.proto != "ip6", ip6: q.proto != "ip"}, nil
}

// number reads a number from 0 to most.
func (p *parser) number(most int) (int, error) {
	t := p.next()
	value, err := strconv.ParseUint(t.text, 0, 31)
	if !t.word || err != nil || int(value) > most {
		return 0, p.refuse(t, "stands where a number from 0 to %d is due", most)
	}
	return int(value), nil
}

func isNumber(t token) bool {
	_, err := strconv.ParseUint(t.text, 0, 32)
	return t.word && err == nil
}

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
