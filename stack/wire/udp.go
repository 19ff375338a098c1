package wire

const (
	// UDPLen is the length of a UDP header.
	UDPLen = 8
	// UDPChecksumAt is where in the header the checksum lies.
	UDPChecksumAt = 6
)

// UDP is a view of a datagram, header and payload (RFC 768). Make one with
// ParseUDP.
type UDP []byte

// ParseUDP checks the datagram that begins at b, an IPv4 datagram's payload,
// and cuts off what lies behind its length; the capacity stays. The checksum
// is not looked at: see ChecksumState. Errors: ErrTruncated, ErrUDPLength.
func ParseUDP(b []byte) (UDP, error) {
	if len(b) < UDPLen {
		return nil, ErrTruncated
	}
	n := int(get16(b[4:]))
	if n < UDPLen {
		return nil, ErrUDPLength
	}
	if n > len(b) {
		return nil, ErrTruncated
	}
	return UDP(b[:n]), nil
}

// SrcPort returns the source port; 0 means that no answer is wanted.
func (u UDP) SrcPort() uint16 { return get16(u) }

// DstPort returns the destination port.
func (u UDP) DstPort() uint16 { return get16(u[2:]) }

// Length returns the length of header and payload, which is that of u.
func (u UDP) Length() int { return int(get16(u[4:])) }

// Checksum returns the checksum field as it stands.
func (u UDP) Checksum() uint16 { return get16(u[6:]) }

// Payload returns what is behind the header.
func (u UDP) Payload() []byte { return u[UDPLen:] }

// ChecksumState checks the checksum for a datagram between these addresses.
// One damaged packet in 65,536 looks partial, so a caller takes ChecksumPartial
// only from a link that leaves such checksums.
func (u UDP) ChecksumState(src, dst Addr) ChecksumState {
	field := u.Checksum()
	if field == 0 {
		return ChecksumNone
	}
	pseudo := PseudoSum(src, dst, ProtocolUDP, len(u))
	switch {
	case Sum(u, pseudo) == 0xFFFF:
		return ChecksumOK
	case field == pseudo:
		return ChecksumPartial
	}
	return ChecksumBad
}

// PutPorts writes the ports and leaves the checksum alone: it stays right
// where they only change places.
func (u UDP) PutPorts(src, dst uint16) {
	put16(u, src)
	put16(u[2:], dst)
}

// SetChecksum computes the checksum of the datagram as it stands.
func (u UDP) SetChecksum(src, dst Addr) {
	put16(u[6:], 0)
	put16(u[6:], udpField(Sum(u, PseudoSum(src, dst, ProtocolUDP, len(u)))))
}

// udpField returns the field for a sum: a checksum of 0 is sent as 0xFFFF,
// because 0 says that there is none (RFC 768).
func udpField(sum uint16) uint16 {
	if sum == 0xFFFF {
		return 0xFFFF
	}
	return ^sum
}

// UDPFields are the fields of a datagram to write.
type UDPFields struct {
	Src, Dst         Addr // of the IP header; only the checksum sees them
	SrcPort, DstPort uint16
	PayloadLen       int // 0 to 65507
}

// PutUDP writes a header with its checksum to the start of b. payloadSum is the
// Sum of the payload, which CopySum gives while the payload is put behind the
// header.
func PutUDP(b []byte, f *UDPFields, payloadSum uint16) {
	_ = b[UDPLen-1]
	length := UDPLen + f.PayloadLen
	v := uint64(f.Src) + uint64(f.Dst) + uint64(ProtocolUDP) + uint64(length)*2 +
		uint64(f.SrcPort) + uint64(f.DstPort) + uint64(payloadSum)
	put16(b[0:], f.SrcPort)
	put16(b[2:], f.DstPort)
	put16(b[4:], uint16(length))
	put16(b[6:], udpField(fold32(v)))
}

// PutPartialChecksum puts the sum of the pseudo-header alone, with the length that
// stands in the header, into the checksum field, not complemented, for who computes
// the rest further down (CHECKSUM_PARTIAL, include/linux/skbuff.h).
func (u UDP) PutPartialChecksum(src, dst Addr) {
	put16(u[6:], PseudoSum(src, dst, ProtocolUDP, int(get16(u[4:]))))
}
