package wire

// ParseError says why bytes are not the packet that they were taken for. The
// Parse functions return these constants, so a caller may compare or switch;
// making one does not allocate.
type ParseError uint8

// What can be wrong with a packet.
const (
	// ErrTruncated: the bytes end before the header, or before the length that
	// the header gives.
	ErrTruncated ParseError = iota + 1
	// ErrVersion: the version of an IP header is not 4.
	ErrVersion
	// ErrHeaderLength: an IPv4 header says that it is shorter than 20 bytes.
	ErrHeaderLength
	// ErrTotalLength: an IPv4 datagram's total length is less than its header.
	ErrTotalLength
	// ErrUDPLength: a UDP datagram's length is less than its header.
	ErrUDPLength
	// ErrHardware: an ARP packet is not about Ethernet addresses of 6 bytes.
	ErrHardware
	// ErrProtocolAddress: an ARP packet is not about IPv4 addresses of 4 bytes.
	ErrProtocolAddress
	// ErrOption: an IPv4 option's length is impossible or reaches out of the
	// header.
	ErrOption
	// ErrDataOffset: a TCP header says that it is shorter than 20 bytes.
	ErrDataOffset
	// ErrTCPOption: a TCP option's length is impossible or reaches out of the
	// header.
	ErrTCPOption
)

var parseErrors = [...]string{
	ErrTruncated:       "the packet is cut short",
	ErrVersion:         "the IP version is not 4",
	ErrHeaderLength:    "the IPv4 header length is below 20",
	ErrTotalLength:     "the IPv4 total length is below the header length",
	ErrUDPLength:       "the UDP length is below 8",
	ErrHardware:        "the ARP hardware type is not Ethernet",
	ErrProtocolAddress: "the ARP protocol type is not IPv4",
	ErrOption:          "an IPv4 option has an impossible length",
	ErrDataOffset:      "the TCP header length is below 20",
	ErrTCPOption:       "a TCP option has an impossible length",
}

// Error returns a sentence without its full stop.
func (e ParseError) Error() string {
	if int(e) < len(parseErrors) && e != 0 {
		return parseErrors[e]
	}
	return "the packet is malformed"
}
