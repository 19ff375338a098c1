package wire

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strconv"
)

// Addr is an IPv4 address as a number: 10.0.0.1 is 0x0A000001. Its zero value
// is 0.0.0.0, the unspecified address.
type Addr uint32

// Addresses with a meaning of their own (RFC 1122 section 3.2.1.3).
const (
	AddrAny       Addr = 0          // 0.0.0.0
	AddrLoopback  Addr = 0x7F000001 // 127.0.0.1
	AddrBroadcast Addr = 0xFFFFFFFF // 255.255.255.255, the limited broadcast
)

// AddrLen is the length of an IPv4 address in a packet.
const AddrLen = 4

// AddrFrom converts a. It reports false where a is not IPv4; an IPv4 address
// mapped into IPv6 (::ffff:10.0.0.1) counts as IPv4.
func AddrFrom(a netip.Addr) (Addr, bool) {
	a = a.Unmap()
	if !a.Is4() {
		return 0, false
	}
	b := a.As4()
	return GetAddr(b[:]), true
}

// GetAddr reads the address in the first 4 bytes of b.
func GetAddr(b []byte) Addr { return Addr(binary.BigEndian.Uint32(b)) }

// PutAddr writes a into the first 4 bytes of b.
func PutAddr(b []byte, a Addr) { binary.BigEndian.PutUint32(b, uint32(a)) }

// Netip converts a to the type that public interfaces use.
func (a Addr) Netip() netip.Addr {
	var b [AddrLen]byte
	PutAddr(b[:], a)
	return netip.AddrFrom4(b)
}

// AppendTo appends the dotted form, "10.0.0.1".
func (a Addr) AppendTo(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(a>>24), 10)
	for shift := 16; shift >= 0; shift -= 8 {
		b = append(b, '.')
		b = strconv.AppendUint(b, uint64(a>>shift&0xFF), 10)
	}
	return b
}

// String returns the dotted form.
func (a Addr) String() string { return string(a.AppendTo(make([]byte, 0, 15))) }

// IsUnspecified reports whether a is 0.0.0.0.
func (a Addr) IsUnspecified() bool { return a == AddrAny }

// IsBroadcast reports whether a is the limited broadcast, 255.255.255.255. A
// network's own broadcast address is known to its Prefix.
func (a Addr) IsBroadcast() bool { return a == AddrBroadcast }

// IsMulticast reports whether a is in 224.0.0.0/4 (RFC 1112 section 4).
func (a Addr) IsMulticast() bool { return a>>28 == 0xE }

// IsLoopback reports whether a is in 127.0.0.0/8 (RFC 1122 section 3.2.1.3).
func (a Addr) IsLoopback() bool { return a>>24 == 127 }

// MulticastHardwareAddr returns the Ethernet group address for a multicast
// address: 01-00-5E and its low 23 bits (RFC 1112 section 6.4).
func (a Addr) MulticastHardwareAddr() HardwareAddr {
	return HardwareAddr{0x01, 0x00, 0x5E, byte(a>>16) & 0x7F, byte(a >> 8), byte(a)}
}

// Prefix is an address with the length of its network part, 0 to 32 bits. The
// host bits of Addr are kept, so one value can say both an interface's address
// and its network.
type Prefix struct {
	Addr Addr
	Bits uint8
}

// PrefixFrom converts p. It reports false where p is invalid or not IPv4.
func PrefixFrom(p netip.Prefix) (Prefix, bool) {
	if !p.IsValid() || !p.Addr().Is4() {
		return Prefix{}, false
	}
	a, ok := AddrFrom(p.Addr())
	return Prefix{Addr: a, Bits: uint8(p.Bits())}, ok
}

// Netip converts p to the type that public interfaces use.
func (p Prefix) Netip() netip.Prefix { return netip.PrefixFrom(p.Addr.Netip(), int(p.Bits)) }

// String returns the form "10.0.0.1/24".
func (p Prefix) String() string {
	b := append(p.Addr.AppendTo(make([]byte, 0, 18)), '/')
	return string(strconv.AppendUint(b, uint64(p.Bits), 10))
}

// Mask returns the network mask: /24 gives 255.255.255.0.
func (p Prefix) Mask() Addr { return ^Addr(0) << (32 - p.Bits) }

// Masked returns p with its host bits cleared.
func (p Prefix) Masked() Prefix { return Prefix{Addr: p.Addr & p.Mask(), Bits: p.Bits} }

// Contains reports whether a lies in the network.
func (p Prefix) Contains(a Addr) bool { return (a^p.Addr)&p.Mask() == 0 }

// Broadcast returns the network's directed broadcast address, all host bits
// one. A /31 (RFC 3021 section 2.1) and a /32 have none, and it reports false.
func (p Prefix) Broadcast() (Addr, bool) {
	if p.Bits > 30 {
		return 0, false
	}
	return p.Addr | ^p.Mask(), true
}

// IsBroadcast reports whether a is the network's directed broadcast address.
func (p Prefix) IsBroadcast(a Addr) bool {
	b, ok := p.Broadcast()
	return ok && a == b
}

// swap16 turns a 16-bit number round.
func swap16(v uint16) uint16 { return bits.ReverseBytes16(v) }

// get16 and get32 read a number of the network, put16 and put32 write one.
func get16(b []byte) uint16    { return binary.BigEndian.Uint16(b) }
func get32(b []byte) uint32    { return binary.BigEndian.Uint32(b) }
func put16(b []byte, v uint16) { binary.BigEndian.PutUint16(b, v) }
func put32(b []byte, v uint32) { binary.BigEndian.PutUint32(b, v) }
