package bpf

import (
	"encoding/binary"
	"net/netip"
)

// A binding is one number bound on one address.
type binding struct {
	space  space
	addr   netip.Addr
	number uint16
}

// A datagram is what the fragments of one have in common.
type datagram struct {
	source, destination netip.Addr
	id                  uint16
	protocol            byte
}

// model is what kit.bpf.c decides, said in plain Go on slices and maps.
type model struct {
	disabled  bool
	noXSK     bool
	addresses map[netip.Addr]Kind
	bound     map[binding]bool
	fragments map[datagram]bool
}

func newModel() *model {
	return &model{addresses: map[netip.Addr]Kind{}, bound: map[binding]bool{}, fragments: map[datagram]bool{}}
}

// An ipv4Packet is an IPv4 header taken apart, and what lies behind it as far as it was captured.
type ipv4Packet struct {
	datagram
	more    bool
	offset  int
	payload []byte
}

// judge is the verdict on one frame; it learns from first fragments.
func (m *model) judge(frame []byte) Reason {
	reason, first := m.classify(frame)
	if reason.Steered() && m.noXSK {
		reason = PassNoXSK
	}
	if first != nil {
		if reason.Steered() {
			m.fragments[*first] = true
		} else {
			delete(m.fragments, *first)
		}
	}
	return reason
}

// classify names the datagram, too, when the frame is its first fragment to an address that is not owned.
func (m *model) classify(frame []byte) (reason Reason, first *datagram) {
	if m.disabled {
		return PassDisabled, nil
	}
	if len(frame) < 14 {
		return PassShort, nil
	}
	ethertype, rest := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	for tags := 0; tags < 2 && (ethertype == 0x8100 || ethertype == 0x88a8); tags++ {
		if len(rest) < 4 {
			return PassShort, nil
		}
		ethertype, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	switch ethertype {
	case 0x0806:
		return m.arp(rest), nil
	case 0x0800:
		return m.ipv4(rest)
	}
	return PassEthertype, nil
}

func (m *model) arp(b []byte) Reason {
	if len(b) < 28 {
		return PassShort
	}
	if string(b[:6]) != "\x00\x01\x08\x00\x06\x04" {
		return PassARP
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	if m.addresses[sender] == Owned || m.addresses[target] == Owned {
		return XSKARP
	}
	return PassARP
}

func (m *model) ipv4(b []byte) (reason Reason, first *datagram) {
	if len(b) < 20 {
		return PassShort, nil
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < 20 || total < header {
		return PassMalformed, nil
	}
	if len(b) < total {
		return PassShort, nil
	}
	p := takeApart(b[:total])
	kind, known := m.addresses[p.destination]
	switch {
	case !known:
		return PassAddress, nil
	case kind == Owned:
		return XSKOwned, nil
	case p.offset > 0 && m.fragments[p.datagram]:
		return XSKFragment, nil
	case p.offset > 0:
		return PassFragment, nil
	case p.more:
		return m.transport(p, kind), &p.datagram
	}
	return m.transport(p, kind), nil
}

// takeApart wants a whole header.
func takeApart(b []byte) ipv4Packet {
	header, fragment := int(b[0]&15)*4, binary.BigEndian.Uint16(b[6:])
	return ipv4Packet{
		datagram: datagram{
			source:      netip.AddrFrom4([4]byte(b[12:])),
			destination: netip.AddrFrom4([4]byte(b[16:])),
			id:          binary.BigEndian.Uint16(b[4:]),
			protocol:    b[9],
		},
		more:    fragment&0x2000 != 0,
		offset:  int(fragment&0x1fff) * 8,
		payload: b[header:],
	}
}

func (m *model) transport(p ipv4Packet, kind Kind) Reason {
	steered := map[byte]bool{17: true, 6: kind == Shared, 1: kind == Shared}
	if !steered[p.protocol] {
		return PassProtocol
	}
	if len(p.payload) < 8 {
		return PassShort
	}
	port := binary.BigEndian.Uint16(p.payload[2:])
	switch {
	case p.protocol == 1:
		return m.icmp(p)
	case p.protocol == 6 && m.bound[binding{spaceTCP, p.destination, port}]:
		return XSKTCP
	case p.protocol == 17 && kind == Shared && m.bound[binding{spaceUDP, p.destination, port}]:
		return XSKUDP
	case p.protocol == 17 && kind == Broadcast && m.boundAnywhere(port):
		return XSKUDP
	}
	return PassPort
}

func (m *model) boundAnywhere(port uint16) bool {
	for addr := range m.addresses {
		if m.bound[binding{spaceUDP, addr, port}] {
			return true
		}
	}
	return false
}

func (m *model) icmp(p ipv4Packet) Reason {
	switch p.payload[0] {
	case 0:
		if m.bound[binding{spaceEcho, p.destination, binary.BigEndian.Uint16(p.payload[4:])}] {
			return XSKEcho
		}
		return PassEcho
	case 3, 11, 12:
		if m.sent(p.destination, p.payload[8:]) {
			return XSKICMPError
		}
		return PassICMPError
	}
	return PassICMP
}

// sent reports whether a quoted packet, cut or not, is known to come from what is bound on addr.
func (m *model) sent(addr netip.Addr, quote []byte) bool {
	if len(quote) < 20 || quote[0]>>4 != 4 || quote[0]&15 < 5 || len(quote) < int(quote[0]&15)*4+8 {
		return false
	}
	p := takeApart(quote)
	if p.source != addr || p.offset > 0 {
		return false
	}
	switch p.protocol {
	case 17:
		return m.bound[binding{spaceUDP, addr, binary.BigEndian.Uint16(p.payload)}]
	case 6:
		return m.bound[binding{spaceTCP, addr, binary.BigEndian.Uint16(p.payload)}]
	case 1:
		return p.payload[0] == 8 && m.bound[binding{spaceEcho, addr, binary.BigEndian.Uint16(p.payload[4:])}]
	}
	return false
}
