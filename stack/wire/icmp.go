package wire

// Lengths of ICMP messages.
const (
	ICMPLen = 8 // every header of RFC 792 that the stack speaks
	// ICMPMaxQuote is how much of a datagram an error quotes, its IP header
	// included, so that the whole answer is at most 576 bytes (RFC 1812
	// section 4.3.2.3).
	ICMPMaxQuote = 576 - IPv4Len - ICMPLen
)

// ICMPType is the type of an ICMP message (RFC 792).
type ICMPType uint8

// The types of RFC 792.
const (
	ICMPEchoReply        ICMPType = 0
	ICMPUnreachable      ICMPType = 3
	ICMPSourceQuench     ICMPType = 4
	ICMPRedirect         ICMPType = 5
	ICMPEcho             ICMPType = 8
	ICMPTimeExceeded     ICMPType = 11
	ICMPParameterProblem ICMPType = 12
	ICMPTimestamp        ICMPType = 13
	ICMPTimestampReply   ICMPType = 14
)

// Codes of ICMPUnreachable (RFC 792, RFC 1122 section 3.2.2.1, RFC 1812
// section 5.2.7.1).
const (
	CodeNetUnreachable      uint8 = 0
	CodeHostUnreachable     uint8 = 1
	CodeProtocolUnreachable uint8 = 2
	CodePortUnreachable     uint8 = 3
	CodeFragNeeded          uint8 = 4
	CodeSourceRouteFailed   uint8 = 5
	CodeNetUnknown          uint8 = 6
	CodeHostUnknown         uint8 = 7
	CodeSourceIsolated      uint8 = 8
	CodeNetProhibited       uint8 = 9
	CodeHostProhibited      uint8 = 10
	CodeNetTOS              uint8 = 11
	CodeHostTOS             uint8 = 12
	CodeAdminProhibited     uint8 = 13
	CodePrecedenceViolation uint8 = 14
	CodePrecedenceCutoff    uint8 = 15
)

// Codes of ICMPTimeExceeded (RFC 792).
const (
	CodeTTLExceeded        uint8 = 0
	CodeReassemblyExceeded uint8 = 1
)

// IsError reports whether a message of this type quotes a datagram. No error
// is ever sent about one (RFC 1122 section 3.2.2).
func (t ICMPType) IsError() bool {
	switch t {
	case ICMPUnreachable, ICMPSourceQuench, ICMPRedirect, ICMPTimeExceeded, ICMPParameterProblem:
		return true
	}
	return false
}

// ICMP is a view of an ICMP message, header and data. Make one with ParseICMP.
type ICMP []byte

// ParseICMP checks the message that fills b, an IPv4 datagram's payload. The
// checksum is not looked at: see ChecksumOK. The only error is ErrTruncated.
func ParseICMP(b []byte) (ICMP, error) {
	if len(b) < ICMPLen {
		return nil, ErrTruncated
	}
	return ICMP(b), nil
}

// Type returns the message's type.
func (m ICMP) Type() ICMPType { return ICMPType(m[0]) }

// Code returns the message's code.
func (m ICMP) Code() uint8 { return m[1] }

// Checksum returns the checksum field as it stands.
func (m ICMP) Checksum() uint16 { return get16(m[2:]) }

// ID returns the identifier of an echo or timestamp message.
func (m ICMP) ID() uint16 { return get16(m[4:]) }

// Seq returns the sequence number of an echo or timestamp message.
func (m ICMP) Seq() uint16 { return get16(m[6:]) }

// Pointer returns the byte at fault of a parameter problem.
func (m ICMP) Pointer() uint8 { return m[4] }

// Gateway returns the router that a redirect recommends.
func (m ICMP) Gateway() Addr { return GetAddr(m[4:]) }

// MTU returns the next hop's MTU of a "fragmentation needed"; 0 from a router
// older than RFC 1191 (section 4).
func (m ICMP) MTU() int { return int(get16(m[6:])) }

// Payload returns what is behind the header: an echo's data, or the datagram
// that an error quotes (see ParseQuoted).
func (m ICMP) Payload() []byte { return m[ICMPLen:] }

// ChecksumOK reports whether the checksum is right.
func (m ICMP) ChecksumOK() bool { return Sum(m, 0) == 0xFFFF }

// SetID writes the identifier and keeps a right checksum right.
func (m ICMP) SetID(id uint16) {
	put16(m[2:], UpdateChecksum(m.Checksum(), m.ID(), id))
	put16(m[4:], id)
}

// SetChecksum computes the checksum of the message as it stands.
func (m ICMP) SetChecksum() {
	put16(m[2:], 0)
	put16(m[2:], Checksum(m, 0))
}

// MakeEchoReply turns an echo request with a right checksum into its reply in
// place: the data stays, and the checksum follows the type (RFC 792, "Echo or
// Echo Reply Message").
func (m ICMP) MakeEchoReply() {
	put16(m[2:], UpdateChecksum(m.Checksum(), get16(m), 0))
	put16(m[0:], 0)
}

// ICMPErrorFields are what an error says.
type ICMPErrorFields struct {
	Type ICMPType
	Code uint8
	// Rest is the second word of the header: the next hop's MTU, or
	// the pointer of a parameter problem shifted left by 24.
	Rest uint32
}

// PutICMPError writes an error about the datagram original to the start of b:
// a header, as much of original as b and ICMPMaxQuote allow, and the checksum.
// It returns the length of the message.
func PutICMPError(b []byte, f ICMPErrorFields, original []byte) int {
	put32(b, uint32(f.Type)<<24|uint32(f.Code)<<16)
	put32(b[4:], f.Rest)
	n := ICMPLen + copy(b[ICMPLen:], original[:min(len(original), ICMPMaxQuote)])
	put16(b[2:], Checksum(b[:n], 0))
	return n
}

// Quoted is a datagram of ours that came back inside an ICMP error.
type Quoted struct {
	Src, Dst Addr
	Protocol Protocol
	// TotalLength is the datagram's length when it was sent.
	TotalLength int
	// FragmentOffset in bytes; where it is not 0 nothing below is known.
	FragmentOffset int
	// HasPorts: SrcPort and DstPort are known (UDP and TCP).
	HasPorts         bool
	SrcPort, DstPort uint16
	// HasSeq: it was a TCP segment, and TCPSeq, its sequence number, is known.
	HasSeq bool
	TCPSeq Seq
	// HasEcho: it was an echo message, and EchoType, ID and Seq are known.
	HasEcho  bool
	EchoType ICMPType
	ID, Seq  uint16
	// Transport is what was quoted behind the IP header, mostly 8 bytes.
	Transport []byte
}

// ParseQuoted reads the datagram in an error's payload (RFC 792: an IP header
// and the first 8 bytes behind it). The quote is nearly always cut, so its
// lengths are not held against b and its checksums are not looked at. Errors:
// ErrTruncated (less than the IP header), ErrVersion, ErrHeaderLength.
func ParseQuoted(b []byte) (q Quoted, err error) {
	if len(b) < IPv4Len {
		return q, ErrTruncated
	}
	if err := checkIPv4Length(b, IPv4MaxSize); err != nil {
		return q, err
	}
	p := IPv4(b)
	q.Src, q.Dst, q.Protocol = p.Src(), p.Dst(), p.Protocol()
	q.TotalLength, q.FragmentOffset = p.TotalLength(), p.FragmentOffset()
	q.Transport = p.Payload()
	if q.FragmentOffset == 0 {
		q.parseTransport()
	}
	return q, nil
}

// parseTransport reads ports, sequence or echo numbers where enough of them was quoted.
func (q *Quoted) parseTransport() {
	t := q.Transport
	switch q.Protocol {
	case ProtocolUDP, ProtocolTCP:
		if len(t) >= 4 {
			q.HasPorts = true
			q.SrcPort, q.DstPort = get16(t), get16(t[2:])
		}
		if q.Protocol == ProtocolTCP && len(t) >= 8 {
			q.HasSeq = true
			q.TCPSeq = Seq(get32(t[4:]))
		}
	case ProtocolICMP:
		if len(t) < ICMPLen {
			return
		}
		if typ := ICMPType(t[0]); typ == ICMPEcho || typ == ICMPEchoReply {
			q.HasEcho = true
			q.EchoType, q.ID, q.Seq = typ, get16(t[4:]), get16(t[6:])
		}
	}
}
