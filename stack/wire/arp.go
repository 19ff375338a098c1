package wire

// ARPLen is the length of an ARP packet about Ethernet and IPv4.
const ARPLen = 28

// ARPOp is an ARP operation (RFC 826, "ar$op").
type ARPOp uint16

// The operations of RFC 826.
const (
	ARPRequest ARPOp = 1
	ARPReply   ARPOp = 2
)

// ARP is a view of an ARP packet about Ethernet and IPv4, exactly 28 bytes. Make
// one with ParseARP.
type ARP []byte

// ParseARP checks the packet that begins at b (RFC 826, "Packet format"); bytes
// behind it are padding. Errors: ErrTruncated, ErrHardware, ErrProtocolAddress.
func ParseARP(b []byte) (ARP, error) {
	if len(b) < ARPLen {
		return nil, ErrTruncated
	}
	if get16(b) != 1 || b[4] != 6 {
		return nil, ErrHardware
	}
	if EtherType(get16(b[2:])) != EtherTypeIPv4 || b[5] != AddrLen {
		return nil, ErrProtocolAddress
	}
	return ARP(b[:ARPLen]), nil
}

// Op returns the operation; others than request and reply exist (RARP).
func (p ARP) Op() ARPOp { return ARPOp(get16(p[6:])) }

// SenderHardware returns ar$sha.
func (p ARP) SenderHardware() HardwareAddr { return HardwareAddr(p[8:14]) }

// Sender returns ar$spa; 0.0.0.0 in a probe (RFC 5227 section 1.1).
func (p ARP) Sender() Addr { return GetAddr(p[14:]) }

// TargetHardware returns ar$tha, which means nothing in a request.
func (p ARP) TargetHardware() HardwareAddr { return HardwareAddr(p[18:24]) }

// Target returns ar$tpa.
func (p ARP) Target() Addr { return GetAddr(p[24:]) }

// ARPFields are the fields of a packet to write.
type ARPFields struct {
	Op             ARPOp
	SenderHardware HardwareAddr
	Sender         Addr
	TargetHardware HardwareAddr
	Target         Addr
}

// PutARP writes a packet of 28 bytes to the start of b.
func PutARP(b []byte, f *ARPFields) {
	_ = b[ARPLen-1]
	put16(b[0:], 1)
	put16(b[2:], uint16(EtherTypeIPv4))
	b[4], b[5] = 6, AddrLen
	put16(b[6:], uint16(f.Op))
	*(*HardwareAddr)(b[8:14]) = f.SenderHardware
	PutAddr(b[14:], f.Sender)
	*(*HardwareAddr)(b[18:24]) = f.TargetHardware
	PutAddr(b[24:], f.Target)
}
