package wire

// Lengths of TCP headers.
const (
	TCPLen        = 20 // header without options
	TCPMaxLen     = 60 // header with options
	TCPMaxOptions = TCPMaxLen - TCPLen
)

// TCPChecksumAt is where in a TCP header the checksum lies.
const TCPChecksumAt = 16

// TCPFlags are the control bits of a segment (RFC 9293 section 3.1). The
// four reserved bits in front of them are ignored when read and 0 when written.
type TCPFlags uint8

// The control bits.
const (
	FIN TCPFlags = 1 << iota // no more data from the sender
	SYN                      // synchronize sequence numbers
	RST                      // reset the connection
	PSH                      // push
	ACK                      // the acknowledgment field counts
	URG                      // the urgent pointer counts
	ECE                      // congestion experienced echo (RFC 3168 section 6.1)
	CWR                      // congestion window reduced (RFC 3168 section 6.1)
)

// flagLetters are tcpdump's, from FIN up.
const flagLetters = "FSRP.UEW"

// AppendTo appends what String returns.
func (f TCPFlags) AppendTo(b []byte) []byte {
	if f == 0 {
		return append(b, "none"...)
	}
	for i := range len(flagLetters) {
		if f&(1<<i) != 0 {
			b = append(b, flagLetters[i])
		}
	}
	return b
}

// String returns tcpdump's letters: "S." is a SYN with an ACK, 0 is "none".
func (f TCPFlags) String() string { return string(f.AppendTo(make([]byte, 0, 8))) }

// TCP is a view of a segment, header and payload (RFC 9293 section 3.1). Make
// one with ParseTCP.
type TCP []byte

// ParseTCP checks the segment that fills b, an IPv4 datagram's payload. The
// checksum is not looked at, nor what is in the options: see ChecksumState and
// ParseTCPOptions. Errors: ErrTruncated (the header reaches behind b),
// ErrDataOffset.
func ParseTCP(b []byte) (TCP, error) {
	if len(b) < TCPLen {
		return nil, ErrTruncated
	}
	n := int(b[12]>>4) * 4
	if n < TCPLen {
		return nil, ErrDataOffset
	}
	if n > len(b) {
		return nil, ErrTruncated
	}
	return TCP(b), nil
}

// SrcPort returns the source port.
func (s TCP) SrcPort() uint16 { return get16(s) }

// DstPort returns the destination port.
func (s TCP) DstPort() uint16 { return get16(s[2:]) }

// Seq returns the sequence number, SEG.SEQ: of the SYN where there is one, else
// of the first byte of the payload.
func (s TCP) Seq() Seq { return Seq(get32(s[4:])) }

// Ack returns the acknowledgment number, SEG.ACK, which counts only with ACK.
func (s TCP) Ack() Seq { return Seq(get32(s[8:])) }

// HeaderLen returns the length of the header with its options, 20 to 60: four
// times the data offset.
func (s TCP) HeaderLen() int { return int(s[12]>>4) * 4 }

// Flags returns the control bits.
func (s TCP) Flags() TCPFlags { return TCPFlags(s[13]) }

// Window returns the window field as it stands, not scaled (RFC 7323
// section 2.2).
func (s TCP) Window() uint16 { return get16(s[14:]) }

// Checksum returns the checksum field as it stands.
func (s TCP) Checksum() uint16 { return get16(s[16:]) }

// Urgent returns the urgent pointer, which counts only with URG.
func (s TCP) Urgent() uint16 { return get16(s[18:]) }

// Options returns the bytes of the options, none to 40; see ParseTCPOptions.
func (s TCP) Options() []byte { return s[TCPLen:s.HeaderLen()] }

// Payload returns what is behind the header.
func (s TCP) Payload() []byte { return s[s.HeaderLen():] }

// Len returns SEG.LEN, the sequence numbers that the segment takes: its
// payload's bytes, and one each for SYN and FIN (RFC 9293 section 3.4).
func (s TCP) Len() int {
	return len(s) - s.HeaderLen() + int(s[13]&1) + int(s[13]>>1&1)
}

// ChecksumState checks the checksum for a segment between these addresses. It
// is never ChecksumNone: every segment has one (RFC 9293 section 3.1, MUST-2).
// One damaged segment in 65,536 looks partial, so a caller takes
// ChecksumPartial only from a link that leaves such checksums.
func (s TCP) ChecksumState(src, dst Addr) ChecksumState {
	pseudo := PseudoSum(src, dst, ProtocolTCP, len(s))
	switch {
	case Sum(s, pseudo) == 0xFFFF:
		return ChecksumOK
	case s.Checksum() == pseudo:
		return ChecksumPartial
	}
	return ChecksumBad
}

// TCPFields are the fields of a segment to write.
type TCPFields struct {
	Src, Dst         Addr // of the IP header; only the checksum sees them
	SrcPort, DstPort uint16
	Seq, Ack         Seq
	Flags            TCPFlags
	Window           uint16 // as it is sent: already scaled
	Urgent           uint16
	OptionsLen       int // 0 to 40, a multiple of 4, as PutTCPOptions returns
	PayloadLen       int // 0 to 65495, less OptionsLen
}

// PutTCP writes a header with its checksum to the start of b. Its options
// stand at b[TCPLen:] already. payloadSum is the Sum of the payload, which
// CopySum and CopySum2 give while the payload is put behind the header.
func PutTCP(b []byte, f *TCPFields, payloadSum uint16) {
	_ = b[TCPLen-1]
	header := TCPLen + f.OptionsLen
	ports := uint32(f.SrcPort)<<16 | uint32(f.DstPort)
	control := uint32(header)<<26 | uint32(f.Flags)<<16 | uint32(f.Window)
	v := uint64(f.Src) + uint64(f.Dst) + uint64(ProtocolTCP) + uint64(header+f.PayloadLen) +
		uint64(ports) + uint64(f.Seq) + uint64(f.Ack) + uint64(control) + uint64(f.Urgent) + uint64(payloadSum)
	if o := b[TCPLen:header]; len(o) == 12 { // a timestamp
		v += uint64(get32(o)) + uint64(get32(o[4:])) + uint64(get32(o[8:]))
	} else {
		for ; len(o) >= 4; o = o[4:] {
			v += uint64(get32(o))
		}
	}
	put32(b[0:], ports)
	put32(b[4:], uint32(f.Seq))
	put32(b[8:], uint32(f.Ack))
	put32(b[12:], control)
	put32(b[16:], uint32(^fold32(v))<<16|uint32(f.Urgent))
}

// PutPartialChecksum puts the sum of the pseudo-header alone into the checksum
// field, not complemented, for who computes the rest further down
// (CHECKSUM_PARTIAL, include/linux/skbuff.h). length is that of header and payload
// in bytes.
func (s TCP) PutPartialChecksum(src, dst Addr, length int) {
	put16(s[16:], PseudoSum(src, dst, ProtocolTCP, length))
}
