package wire

// HardwareAddr is an Ethernet address, in the order of the wire.
type HardwareAddr [6]byte

// HardwareBroadcast is the address of every station.
var HardwareBroadcast = HardwareAddr{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}

// IsBroadcast reports whether h is the broadcast address.
func (h HardwareAddr) IsBroadcast() bool { return h == HardwareBroadcast }

// IsMulticast reports whether h is a group address, the broadcast included:
// the lowest bit of its first byte is set (IEEE 802-2014 section 8.2.2).
func (h HardwareAddr) IsMulticast() bool { return h[0]&1 != 0 }

// IsZero reports whether h is all zeros, which no station has.
func (h HardwareAddr) IsZero() bool { return h == HardwareAddr{} }

// AppendTo appends the form "02:00:00:00:00:01".
func (h HardwareAddr) AppendTo(b []byte) []byte {
	const digits = "0123456789abcdef"
	for i, x := range h {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, digits[x>>4], digits[x&0xF])
	}
	return b
}

// String returns the form "02:00:00:00:00:01".
func (h HardwareAddr) String() string { return string(h.AppendTo(make([]byte, 0, 17))) }

// Lengths of Ethernet headers.
const (
	EthernetLen     = 14 // destination, source, type
	VLANTagLen      = 4  // each tag adds these
	MaxTags         = 2  // 802.1ad service tag and 802.1Q customer tag
	EthernetMaxLen  = EthernetLen + MaxTags*VLANTagLen
	EthernetMinimum = 60 // shortest frame on a wire without its FCS (IEEE 802.3)
)

// VLANTag is one tag of a frame: the tag protocol identifier (0x8100 or 0x88A8)
// in the high 16 bits and the tag control information in the low.
type VLANTag uint32

// TPID returns the tag protocol identifier, EtherTypeVLAN or EtherTypeQinQ.
func (t VLANTag) TPID() EtherType { return EtherType(t >> 16) }

// ID returns the VLAN identifier, 0 to 4095.
func (t VLANTag) ID() uint16 { return uint16(t) & 0xFFF }

// EthernetInfo is a frame's header, its tags looked through.
type EthernetInfo struct {
	Dst, Src HardwareAddr
	// Type is that of the payload, behind the tags.
	Type EtherType
	// NTags says how many of Tags are in use, the outermost first.
	NTags uint8
	// HeaderLen is where the payload begins: 14, 18 or 22.
	HeaderLen uint8
	Tags      [MaxTags]VLANTag
}

// ParseEthernet reads the header of a frame without FCS. Up to two tags are
// looked through; a third leaves its TPID as the Type. It reports false where
// the frame ends before its header does.
func ParseEthernet(frame []byte) (h EthernetInfo, ok bool) {
	ok = h.Parse(frame)
	return h, ok
}

// Parse is ParseEthernet into a struct that is there already, some nanoseconds
// cheaper because nothing is copied. Tags beyond NTags keep what they held; after
// false nothing in h counts.
func (h *EthernetInfo) Parse(frame []byte) (ok bool) {
	if len(frame) < EthernetLen {
		return false
	}
	h.Dst = HardwareAddr(frame[0:6])
	h.Src = HardwareAddr(frame[6:12])
	h.Type = EtherType(get16(frame[12:]))
	h.NTags = 0
	h.HeaderLen = EthernetLen
	if h.Type == EtherTypeVLAN || h.Type == EtherTypeQinQ {
		return h.parseTags(frame)
	}
	return true
}

// parseTags goes on behind the addresses where the first type is a tag's.
func (h *EthernetInfo) parseTags(frame []byte) bool {
	for h.NTags < MaxTags && (h.Type == EtherTypeVLAN || h.Type == EtherTypeQinQ) {
		rest := frame[h.HeaderLen:]
		if len(rest) < VLANTagLen {
			return false
		}
		h.Tags[h.NTags] = VLANTag(uint32(h.Type)<<16 | uint32(get16(rest)))
		h.Type = EtherType(get16(rest[2:]))
		h.NTags++
		h.HeaderLen += VLANTagLen
	}
	return true
}

// PutEthernet writes h with its tags to the start of b and returns its length,
// 14, 18 or 22; HeaderLen is not looked at.
func PutEthernet(b []byte, h *EthernetInfo) int {
	PutEthernetAddrs(b, h.Dst, h.Src)
	n := EthernetLen - 2
	for _, tag := range h.Tags[:min(h.NTags, MaxTags)] {
		put32(b[n:], uint32(tag))
		n += VLANTagLen
	}
	put16(b[n:], uint16(h.Type))
	return n + 2
}

// PutEthernetAddrs writes the two addresses at the start of b and leaves the
// tags and the type as they are: the way to answer in the frame that asked.
func PutEthernetAddrs(b []byte, dst, src HardwareAddr) {
	_ = b[11]
	*(*HardwareAddr)(b[0:6]) = dst
	*(*HardwareAddr)(b[6:12]) = src
}
