package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The layouts below are those of include/uapi/linux/rtnetlink.h, if_addr.h, if_link.h, neighbour.h, nexthop.h and
// fib_rules.h. Numbers are in host byte order, addresses as on the wire.

var native = binary.NativeEndian

// attrTypeMask leaves out the two flag bits of an attribute's type (NLA_F_NESTED and NLA_F_NET_BYTEORDER).
const attrTypeMask = 0x3fff

// eachAttr calls f with every attribute in b. It stops where b is malformed.
func eachAttr(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(native.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		f(native.Uint16(b[2:])&attrTypeMask, b[unix.SizeofRtAttr:size])
		b = b[min(align4(size), len(b)):]
	}
}

// putAttr appends an attribute whose value is a multiple of 4 bytes.
func putAttr(b []byte, kind uint16, value []byte) []byte {
	b = native.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = native.AppendUint16(b, kind)
	return append(b, value...)
}

func align4(n int) int { return (n + 3) &^ 3 }

// addrOf reads an IPv4 address; the zero Addr where b is not one.
func addrOf(b []byte) netip.Addr {
	if len(b) != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b))
}

// numberOf reads a 32-bit number, 0 where b is too short.
func numberOf(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return native.Uint32(b)
}

// link is what matters of a network interface.
type link struct {
	index int
	name  string
	up    bool   // IFF_UP and IFF_RUNNING: it is on and has a carrier
	flags uint32 // IFF_UP, IFF_RUNNING and IFF_LOWER_UP
	mtu   int
	// hardware is the Ethernet address, zero where the interface has another kind.
	hardware [6]byte
	master   int
	slave    string // what it is to its master: "vrf", "bridge", "bond"
}

// decodeLink reads the body of an RTM_NEWLINK or RTM_DELLINK. It reports false for those about a part of the interface, such as
// its place in a bridge (family AF_BRIDGE) or its wireless state (without IFLA_MTU).
func decodeLink(b []byte) (l link, ok bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC {
		return link{}, false
	}
	const ours = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	flags := native.Uint32(b[8:])
	l.index = int(int32(native.Uint32(b[4:])))
	l.flags = flags & ours
	l.up = flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING != 0
	eachAttr(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(v)
		case unix.IFLA_MTU:
			l.mtu = int(numberOf(v))
		case unix.IFLA_ADDRESS:
			if len(v) == len(l.hardware) {
				l.hardware = [6]byte(v)
			}
		case unix.IFLA_MASTER:
			l.master = int(numberOf(v))
		case unix.IFLA_LINKINFO:
			eachAttr(v, func(kind uint16, v []byte) {
				if kind == unix.IFLA_INFO_SLAVE_KIND {
					l.slave = unix.ByteSliceToString(v)
				}
			})
		}
	})
	return l, l.mtu > 0
}

// address is one IPv4 address of an interface.
type address struct {
	index  int
	prefix netip.Prefix // the address with its network's length; 32 bits where it has a peer
}

// decodeAddress reads the body of an RTM_NEWADDR or RTM_DELADDR.
func decodeAddress(b []byte) (a address, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg || b[0] != unix.AF_INET {
		return address{}, false
	}
	bits := int(b[1])
	a.index = int(native.Uint32(b[4:]))
	var local, peer netip.Addr
	eachAttr(b[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			local = addrOf(v)
		case unix.IFA_ADDRESS:
			peer = addrOf(v)
		}
	})
	if !local.IsValid() {
		local = peer
	} else if peer.IsValid() && peer != local {
		bits = 32 // the length is that of the peer's network
	}
	a.prefix = netip.PrefixFrom(local, bits)
	return a, a.prefix.IsValid()
}

// neighbour is one entry of the kernel's ARP table.
type neighbour struct {
	index    int
	addr     netip.Addr
	hardware [6]byte
	known    bool   // hardware is there
	state    uint16 // NUD_
}

// decodeNeighbour reads the body of an RTM_NEWNEIGH, RTM_DELNEIGH or RTM_GETNEIGH. Proxy entries, multicast and broadcast
// are not neighbours.
func decodeNeighbour(b []byte) (n neighbour, ok bool) {
	if len(b) < unix.SizeofNdMsg || b[0] != unix.AF_INET || b[10]&unix.NTF_PROXY != 0 {
		return neighbour{}, false
	}
	n.index = int(int32(native.Uint32(b[4:])))
	n.state = native.Uint16(b[8:])
	eachAttr(b[unix.SizeofNdMsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.NDA_DST:
			n.addr = addrOf(v)
		case unix.NDA_LLADDR:
			if n.known = len(v) == len(n.hardware); n.known {
				n.hardware = [6]byte(v)
			}
		}
	})
	broadcast := n.known && n.hardware == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	return n, n.addr.IsValid() && !n.addr.IsMulticast() && !broadcast
}

// neighbourRequest is the body of an RTM_NEWNEIGH or RTM_GETNEIGH about one address.
func neighbourRequest(index int, addr netip.Addr, flags uint8) []byte {
	b := make([]byte, unix.SizeofNdMsg, unix.SizeofNdMsg+unix.SizeofRtAttr+4)
	b[0] = unix.AF_INET
	native.PutUint32(b[4:], uint32(index))
	b[10] = flags
	a := addr.As4()
	return putAttr(b, unix.NDA_DST, a[:])
}

// ruleHeaderLen is the length of struct fib_rule_hdr.
const ruleHeaderLen = 12

// decodeRule reads the priority and the action of an RTM_NEWRULE: whether it is one of the three rules that a kernel starts
// with (rule 0 looks up local, 32766 main, 32767 default).
func decodeRule(b []byte) (standard, ok bool) {
	if len(b) < ruleHeaderLen || b[0] != unix.AF_INET {
		return false, false
	}
	var priority, table uint32
	table = uint32(b[4])
	plain := b[7] == unix.FR_ACT_TO_TBL && b[1] == 0 && b[2] == 0 && b[3] == 0
	eachAttr(b[ruleHeaderLen:], func(kind uint16, v []byte) {
		switch kind {
		case unix.FRA_PRIORITY:
			priority = numberOf(v)
		case unix.FRA_TABLE:
			table = numberOf(v)
		case unix.FRA_FWMARK, unix.FRA_IIFNAME, unix.FRA_OIFNAME, unix.FRA_L3MDEV, unix.FRA_UID_RANGE,
			unix.FRA_IP_PROTO, unix.FRA_SPORT_RANGE, unix.FRA_DPORT_RANGE:
			// FRA_L3MDEV is sent as 0 with some rules that are not about a VRF.
			plain = plain && kind == unix.FRA_L3MDEV && len(v) > 0 && v[0] == 0
		}
	})
	standard = plain && (priority == 0 && table == unix.RT_TABLE_LOCAL ||
		priority == 32766 && table == unix.RT_TABLE_MAIN || priority == 32767 && table == unix.RT_TABLE_DEFAULT)
	return standard, true
}
