package wire

import "strconv"

// Protocol is the protocol field of an IPv4 header (IANA's list).
type Protocol uint8

// The protocols that the stack knows.
const (
	ProtocolICMP Protocol = 1
	ProtocolTCP  Protocol = 6
	ProtocolUDP  Protocol = 17
)

// String returns the protocol's name in small letters, or "proto 89".
func (p Protocol) String() string {
	switch p {
	case ProtocolICMP:
		return "icmp"
	case ProtocolTCP:
		return "tcp"
	case ProtocolUDP:
		return "udp"
	}
	return "proto " + strconv.Itoa(int(p))
}

// EtherType is the type field of an Ethernet frame (IEEE 802's list). A value
// below 1536 is the length of an 802.3 frame instead.
type EtherType uint16

// The types that the stack knows.
const (
	EtherTypeIPv4 EtherType = 0x0800
	EtherTypeARP  EtherType = 0x0806
	EtherTypeVLAN EtherType = 0x8100 // IEEE 802.1Q customer tag
	EtherTypeIPv6 EtherType = 0x86DD
	EtherTypeQinQ EtherType = 0x88A8 // IEEE 802.1ad service tag
)

// String returns the type's name, or "ethertype 0x88cc".
func (t EtherType) String() string {
	switch t {
	case EtherTypeIPv4:
		return "ipv4"
	case EtherTypeARP:
		return "arp"
	case EtherTypeVLAN:
		return "vlan"
	case EtherTypeIPv6:
		return "ipv6"
	case EtherTypeQinQ:
		return "qinq"
	}
	return "ethertype 0x" + strconv.FormatUint(uint64(t), 16)
}
