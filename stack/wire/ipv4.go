package wire

// Lengths of IPv4 headers and datagrams.
const (
	IPv4Len     = 20     // header without options
	IPv4MaxLen  = 60     // header with options
	IPv4MaxSize = 0xFFFF // whole datagram
)

// ECN is the low two bits of the TOS byte (RFC 3168 section 5).
type ECN uint8

// The codepoints of RFC 3168.
const (
	ECNNotECT ECN = 0
	ECNECT1   ECN = 1
	ECNECT0   ECN = 2
	ECNCE     ECN = 3
)

// IPv4 is a view of one datagram, header and payload, without what a link put
// behind it (RFC 791 section 3.1). Make one with ParseIPv4.
type IPv4 []byte

// ParseIPv4 checks the datagram that begins at b and cuts off the padding
// behind its total length; the capacity stays. The header checksum is not
// looked at: see HeaderOK. Errors: ErrTruncated (header or total length reach
// behind b), ErrVersion, ErrHeaderLength, ErrTotalLength.
func ParseIPv4(b []byte) (IPv4, error) {
	if len(b) < IPv4Len {
		return nil, ErrTruncated
	}
	total := int(get16(b[2:]))
	// Nearly every header has no options, and this one comparison knows it.
	if b[0] != 0x45 {
		if err := checkIPv4Length(b, total); err != nil {
			return nil, err
		}
	}
	if total < IPv4Len {
		return nil, ErrTotalLength
	}
	if total > len(b) {
		return nil, ErrTruncated
	}
	return IPv4(b[:total]), nil
}

// checkIPv4Length checks the first byte of a header that is not the usual one.
func checkIPv4Length(b []byte, total int) error {
	n := int(b[0]&0xF) * 4
	switch {
	case b[0]>>4 != 4:
		return ErrVersion
	case n < IPv4Len:
		return ErrHeaderLength
	case n > len(b):
		return ErrTruncated
	case n > total:
		return ErrTotalLength
	}
	return nil
}

// HeaderLen returns the length of the header with its options, 20 to 60.
func (p IPv4) HeaderLen() int { return int(p[0]&0xF) * 4 }

// TOS returns the whole type-of-service byte.
func (p IPv4) TOS() uint8 { return p[1] }

// DSCP returns the differentiated services codepoint, 6 bits (RFC 2474).
func (p IPv4) DSCP() uint8 { return p[1] >> 2 }

// ECN returns the congestion codepoint (RFC 3168 section 5).
func (p IPv4) ECN() ECN { return ECN(p[1] & 3) }

// TotalLength returns the length of header and payload, which is that of p.
func (p IPv4) TotalLength() int { return int(get16(p[2:])) }

// ID returns the identification.
func (p IPv4) ID() uint16 { return get16(p[4:]) }

// DF reports whether the datagram must not be fragmented.
func (p IPv4) DF() bool { return p[6]&0x40 != 0 }

// MF reports whether more fragments follow.
func (p IPv4) MF() bool { return p[6]&0x20 != 0 }

// FragmentOffset returns where the payload stands in the whole datagram's, in
// bytes; a multiple of 8.
func (p IPv4) FragmentOffset() int { return int(get16(p[6:])&0x1FFF) * 8 }

// IsFragment reports whether this is a part of a datagram, the first included.
func (p IPv4) IsFragment() bool { return get16(p[6:])&0x3FFF != 0 }

// TTL returns the time to live.
func (p IPv4) TTL() uint8 { return p[8] }

// Protocol returns the payload's protocol.
func (p IPv4) Protocol() Protocol { return Protocol(p[9]) }

// HeaderChecksum returns the checksum field as it stands.
func (p IPv4) HeaderChecksum() uint16 { return get16(p[10:]) }

// Src returns the source address.
func (p IPv4) Src() Addr { return GetAddr(p[12:]) }

// Dst returns the destination address.
func (p IPv4) Dst() Addr { return GetAddr(p[16:]) }

// Header returns the header with its options.
func (p IPv4) Header() []byte { return p[:p.HeaderLen()] }

// HasOptions reports whether the header is longer than 20 bytes.
func (p IPv4) HasOptions() bool { return p[0] != 0x45 }

// Options returns the bytes of the options, none to 40; see NextIPv4Option.
func (p IPv4) Options() []byte { return p[IPv4Len:p.HeaderLen()] }

// Payload returns what is behind the header.
func (p IPv4) Payload() []byte { return p[p.HeaderLen():] }

// HeaderOK reports whether the header checksum is right (RFC 791 section 3.1).
func (p IPv4) HeaderOK() bool {
	if p[0] != 0x45 {
		return Sum(p.Header(), 0) == 0xFFFF
	}
	v := uint64(get32(p)) + uint64(get32(p[4:])) + uint64(get32(p[8:])) +
		uint64(get32(p[12:])) + uint64(get32(p[16:]))
	return fold32(v) == 0xFFFF
}

// PutAddrs writes source and destination and leaves the header checksum alone:
// it stays right where the two only change places.
func (p IPv4) PutAddrs(src, dst Addr) {
	PutAddr(p[12:], src)
	PutAddr(p[16:], dst)
}

// IPv4Fields are the fields of a header to write, without options.
type IPv4Fields struct {
	TOS         uint8
	TotalLength int // of header and payload, 20 to 65535
	ID          uint16
	DF, MF      bool
	// FragmentOffset is in bytes, a multiple of 8.
	FragmentOffset int
	TTL            uint8
	Protocol       Protocol
	Src, Dst       Addr
}

// PutIPv4 writes a header of 20 bytes with its checksum to the start of b.
func PutIPv4(b []byte, f *IPv4Fields) {
	_ = b[IPv4Len-1]
	length := 0x45000000 | uint32(f.TOS)<<16 | uint32(uint16(f.TotalLength))
	fragment := uint32(f.ID)<<16 | uint32(f.FragmentOffset)>>3&0x1FFF
	if f.DF {
		fragment |= 0x4000
	}
	if f.MF {
		fragment |= 0x2000
	}
	life := uint32(f.TTL)<<24 | uint32(f.Protocol)<<16
	sum := fold32(uint64(length) + uint64(fragment) + uint64(life) + uint64(f.Src) + uint64(f.Dst))
	put32(b[0:], length)
	put32(b[4:], fragment)
	put32(b[8:], life|uint32(^sum))
	PutAddr(b[12:], f.Src)
	PutAddr(b[16:], f.Dst)
}
