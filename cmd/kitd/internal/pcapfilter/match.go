package pcapfilter

import "encoding/binary"

// verdict is what a part of a filter says of a frame.
type verdict uint8

const (
	no verdict = iota
	yes
	// outside: the filter read behind the end of the frame, so the frame is not
	// wanted whatever stands around this part (as a BPF program that loads out of
	// bounds returns 0).
	outside
)

func verdictOf(b bool) verdict {
	if b {
		return yes
	}
	return no
}

// node is a part of a filter.
type node interface{ eval(frame []byte) verdict }

type (
	andNode struct{ left, right node }
	orNode  struct{ left, right node }
	notNode struct{ of node }
)

func (n andNode) eval(frame []byte) verdict {
	if v := n.left.eval(frame); v != yes {
		return v
	}
	return n.right.eval(frame)
}

func (n orNode) eval(frame []byte) verdict {
	if v := n.left.eval(frame); v != no {
		return v
	}
	return n.right.eval(frame)
}

func (n notNode) eval(frame []byte) verdict {
	switch n.of.eval(frame) {
	case yes:
		return no
	case no:
		return yes
	}
	return outside
}

// Offsets of the fields that filters look at, in bytes.
const (
	etherDst  = 0
	etherSrc  = 6
	etherType = 12 // all from here on move by 4 for each vlan word before
	network   = 14 // the network header

	ipFragment = 6
	ipProtocol = 9
	ipSrc      = 12
	ipDst      = 16
	ip6Next    = 6
	ip6Len     = 40
	arpSender  = 14
	arpTarget  = 24
)

const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeRARP = 0x8035
	typeIPv6 = 0x86DD
)

const (
	protoICMP     = 1
	protoIGMP     = 2
	protoTCP      = 6
	protoUDP      = 17
	protoFragment = 44 // IPv6 fragment header
	protoICMPv6   = 58
	protoSCTP     = 132
)

func load8(frame []byte, at int) (int, bool) {
	if at >= len(frame) {
		return 0, false
	}
	return int(frame[at]), true
}

func load16(frame []byte, at int) (int, bool) {
	if at+2 > len(frame) {
		return 0, false
	}
	return int(binary.BigEndian.Uint16(frame[at:])), true
}

func load32(frame []byte, at int) (uint32, bool) {
	if at+4 > len(frame) {
		return 0, false
	}
	return binary.BigEndian.Uint32(frame[at:]), true
}

// typeNode wants one of the Ethernet types.
type typeNode struct {
	shift int // bytes of VLAN tags that vlan words have stepped over
	types []int
}

func (n typeNode) eval(frame []byte) verdict {
	t, ok := load16(frame, etherType+n.shift)
	if !ok {
		return outside
	}
	for _, want := range n.types {
		if t == want {
			return yes
		}
	}
	return no
}

// protoNode wants an IP protocol, in IPv4, IPv6 or either. Behind an IPv6
// header it is looked for there and behind one fragment header.
type protoNode struct {
	shift    int
	proto    int
	ip4, ip6 bool
}

func (n protoNode) eval(frame []byte) verdict {
	t, ok := load16(frame, etherType+n.shift)
	if !ok {
		return outside
	}
	at := network + n.shift
	switch {
	case t == typeIPv4 && n.ip4:
		got, ok := load8(frame, at+ipProtocol)
		if !ok {
			return outside
		}
		return verdictOf(got == n.proto)
	case t == typeIPv6 && n.ip6:
		got, ok := load8(frame, at+ip6Next)
		if ok && got == protoFragment && n.proto != protoFragment {
			got, ok = load8(frame, at+ip6Len)
		}
		if !ok {
			return outside
		}
		return verdictOf(got == n.proto)
	}
	return no
}

// direction is which of a packet's two ends a word is about.
type direction uint8

const (
	either direction = iota // src or dst, and where nothing is said
	source
	destination
	both // src and dst
)

// ends combines what two reads say, the source first; each is made only if
// the answer depends on it.
func (d direction) ends(read func(at int) verdict, src, dst int) verdict {
	switch d {
	case source:
		return read(src)
	case destination:
		return read(dst)
	case both:
		if v := read(src); v != yes {
			return v
		}
		return read(dst)
	}
	if v := read(src); v != no {
		return v
	}
	return read(dst)
}

// addrNode wants an IPv4 address or network at an end of an IPv4, ARP or RARP
// packet.
type addrNode struct {
	shift       int
	dir         direction
	value, mask uint32
	types       []int
}

func (n addrNode) eval(frame []byte) verdict {
	t, ok := load16(frame, etherType+n.shift)
	if !ok {
		return outside
	}
	for _, want := range n.types {
		if t != want {
			continue
		}
		src, dst := arpSender, arpTarget
		if t == typeIPv4 {
			src, dst = ipSrc, ipDst
		}
		at := network + n.shift
		return n.dir.ends(func(at int) verdict {
			a, ok := load32(frame, at)
			if !ok {
				return outside
			}
			return verdictOf(a&n.mask == n.value)
		}, at+src, at+dst)
	}
	return no
}

// portNode wants a port of lo to hi at an end of a packet that has ports and is
// not a later fragment.
type portNode struct {
	shift  int
	dir    direction
	lo, hi int
	protos []int
}

func (n portNode) eval(frame []byte) verdict {
	at, v := transport(frame, n.shift, n.protos)
	if v != yes {
		return v
	}
	return n.dir.ends(func(at int) verdict {
		port, ok := load16(frame, at)
		if !ok {
			return outside
		}
		return verdictOf(n.lo <= port && port <= n.hi)
	}, at, at+2)
}

// transport finds the header behind IPv4 or IPv6 if it is of one of the
// protocols.
func transport(frame []byte, shift int, protos []int) (at int, v verdict) {
	t, ok := load16(frame, etherType+shift)
	if !ok {
		return 0, outside
	}
	at = network + shift
	switch t {
	case typeIPv4:
		return transport4(frame, at, protos)
	case typeIPv6:
		proto, ok := load8(frame, at+ip6Next)
		if !ok {
			return 0, outside
		}
		return at + ip6Len, oneOf(proto, protos)
	}
	return 0, no
}

// transport4 is transport for the IPv4 header at an offset.
func transport4(frame []byte, at int, protos []int) (int, verdict) {
	proto, ok := load8(frame, at+ipProtocol)
	if !ok {
		return 0, outside
	}
	if oneOf(proto, protos) == no {
		return 0, no
	}
	fragment, _ := load16(frame, at+ipFragment) // in front of the protocol, so it is there
	if fragment&0x1FFF != 0 {
		return 0, no
	}
	return at + int(frame[at]&0x0F)*4, yes
}

func oneOf(got int, wanted []int) verdict {
	for _, w := range wanted {
		if got == w {
			return yes
		}
	}
	return no
}

// etherNode wants a hardware address at an end.
type etherNode struct {
	dir  direction
	addr [6]byte
}

func (n etherNode) eval(frame []byte) verdict {
	return n.dir.ends(func(at int) verdict {
		if at+6 > len(frame) {
			return outside
		}
		return verdictOf([6]byte(frame[at:at+6]) == n.addr)
	}, etherSrc, etherDst)
}

// etherMulticast wants a group address as destination.
type etherMulticast struct{}

func (etherMulticast) eval(frame []byte) verdict {
	if len(frame) == 0 {
		return outside
	}
	return verdictOf(frame[0]&1 != 0)
}

// ipMulticast wants an IPv4 destination in 224.0.0.0/4 or above, as libpcap
// has it.
type ipMulticast struct{ shift int }

func (n ipMulticast) eval(frame []byte) verdict {
	if v := (typeNode{shift: n.shift, types: []int{typeIPv4}}).eval(frame); v != yes {
		return v
	}
	first, ok := load8(frame, network+n.shift+ipDst)
	if !ok {
		return outside
	}
	return verdictOf(first >= 224)
}

// vlanNode wants a VLAN tag, and if id is not negative that VLAN.
type vlanNode struct {
	shift int
	id    int
}

func (n vlanNode) eval(frame []byte) verdict {
	t, ok := load16(frame, etherType+n.shift)
	if !ok {
		return outside
	}
	if t != 0x8100 && t != 0x88A8 && t != 0x9100 {
		return no
	}
	if n.id < 0 {
		return yes
	}
	tag, ok := load16(frame, network+n.shift)
	if !ok {
		return outside
	}
	return verdictOf(tag&0x0FFF == n.id)
}

// lengthNode wants frames of at least min and at most max bytes.
type lengthNode struct{ min, max int }

func (n lengthNode) eval(frame []byte) verdict {
	return verdictOf(n.min <= len(frame) && len(frame) <= n.max)
}
