package stack

// DropReason says why a packet ended anywhere but in a socket, in an answer or in the stack's own tables. Its number may
// change between versions; its String is stable, being a label of metrics and captures.
type DropReason uint8

// The reasons. Those of one group stand in the order in which a frame meets them.
const (
	NotDropped DropReason = iota

	// Ethernet and ARP.
	DropFrameTooShort
	DropOtherHost
	DropEtherType
	DropARPMalformed
	DropARPNotForUs

	// IPv4 (RFC 791, RFC 1122 §3.2.1).
	DropIPTruncated
	DropIPVersion
	DropIPHeaderLength
	DropIPTotalLength
	DropIPChecksum
	DropIPOptions
	DropIPSource
	DropIPNotOurs
	DropIPLinkBroadcast
	DropIPProtocol

	// Reassembly.
	DropFragmentMalformed
	DropFragmentOverlap
	DropFragmentTooLong
	DropFragmentTimeout
	DropFragmentMemory

	// ICMP.
	DropICMPTruncated
	DropICMPChecksum
	DropICMPBroadcast
	DropICMPType
	DropICMPNoSocket
	DropICMPQuote

	// UDP.
	DropUDPTruncated
	DropUDPLength
	DropUDPChecksum
	DropUDPPort
	DropUDPNoPort

	// TCP.
	DropTCPHeader
	DropTCPChecksum
	DropTCPBroadcast
	DropTCPOptions
	DropTCPPort
	DropTCPNoPort
	DropTCPListenIgnored
	DropListenRefused
	DropListenOverflow

	// Sockets.
	DropSocketFull

	// Transmit.
	DropNoRoute
	DropNeighbourFailed
	DropNeighbourQueueFull
	DropNeighbourTableFull
	DropTooLong
	DropTransmitFull
	DropForwardFull

	// NumDropReasons is how many there are, NotDropped counted.
	NumDropReasons
)

var dropReasons = [NumDropReasons]struct{ name, doc string }{
	NotDropped:             {"none", "The packet was not dropped."},
	DropFrameTooShort:      {"frame-too-short", "The frame ends before its Ethernet header or VLAN tags do."},
	DropOtherHost:          {"other-host", "The frame is for another host's Ethernet address."},
	DropEtherType:          {"ether-type", "The frame carries neither IPv4 nor ARP."},
	DropARPMalformed:       {"arp-malformed", "The ARP packet is too short or not for IPv4 over Ethernet."},
	DropARPNotForUs:        {"arp-not-for-us", "The ARP packet asks for an address that is not ours and tells nothing that we need."},
	DropIPTruncated:        {"ip-truncated", "The frame is shorter than an IPv4 header."},
	DropIPVersion:          {"ip-version", "The version field of the IP header is not 4."},
	DropIPHeaderLength:     {"ip-header-length", "The header length is below 20 bytes or beyond the packet."},
	DropIPTotalLength:      {"ip-total-length", "The total length is below the header's or beyond the frame."},
	DropIPChecksum:         {"ip-checksum", "The IPv4 header checksum is wrong."},
	DropIPOptions:          {"ip-options", "The IPv4 options are malformed or ask for source routing."},
	DropIPSource:           {"ip-source", "The source cannot be answered: it is multicast, broadcast, loopback, zero or our own address (RFC 1122 §3.2.1.3)."},
	DropIPNotOurs:          {"ip-not-ours", "The destination is not one of our addresses."},
	DropIPLinkBroadcast:    {"ip-link-broadcast", "A unicast packet came in a broadcast or multicast frame (RFC 1122 §3.3.6)."},
	DropIPProtocol:         {"ip-protocol", "Nothing here speaks the packet's protocol."},
	DropFragmentMalformed:  {"fragment-malformed", "A fragment that is not the last has a length that is no multiple of 8, or is empty."},
	DropFragmentOverlap:    {"fragment-overlap", "Fragments of one datagram overlap: the whole datagram is refused (RFC 5722 §4)."},
	DropFragmentTooLong:    {"fragment-too-long", "The fragments make a packet of more than 65,535 bytes."},
	DropFragmentTimeout:    {"fragment-timeout", "The rest of the datagram did not come in time."},
	DropFragmentMemory:     {"fragment-memory", "The oldest unfinished datagram made room for a newer one."},
	DropICMPTruncated:      {"icmp-truncated", "The ICMP message is shorter than its header."},
	DropICMPChecksum:       {"icmp-checksum", "The ICMP checksum is wrong."},
	DropICMPBroadcast:      {"icmp-broadcast", "An echo request to a broadcast address is not answered (RFC 1122 §3.2.2.6)."},
	DropICMPType:           {"icmp-type", "The ICMP type is not one that a host acts on."},
	DropICMPNoSocket:       {"icmp-no-socket", "No socket is bound to the echo reply's identifier."},
	DropICMPQuote:          {"icmp-quote", "The ICMP error quotes a packet that no socket here sent."},
	DropUDPTruncated:       {"udp-truncated", "The packet is shorter than a UDP header."},
	DropUDPLength:          {"udp-length", "The UDP length is below 8 or beyond the packet."},
	DropUDPChecksum:        {"udp-checksum", "The UDP checksum is wrong."},
	DropUDPPort:            {"udp-port", "The destination port is 0."},
	DropUDPNoPort:          {"udp-no-port", "No socket is bound to the destination port."},
	DropTCPHeader:          {"tcp-header", "The packet is shorter than the TCP header in it, or that says a length below 20 bytes."},
	DropTCPChecksum:        {"tcp-checksum", "The TCP checksum is wrong."},
	DropTCPBroadcast:       {"tcp-broadcast", "A TCP segment was sent to a broadcast address (RFC 9293 §3.9.2.3)."},
	DropTCPOptions:         {"tcp-options", "The TCP options are malformed."},
	DropTCPPort:            {"tcp-port", "A port of a TCP segment is 0."},
	DropTCPNoPort:          {"tcp-no-port", "No connection or listening socket has the segment's ports; it was answered with RST unless it was one."},
	DropTCPListenIgnored:   {"tcp-listen-ignored", "A listening socket has no use for the segment: it is neither a SYN nor an ACK with a cookie, or a copy of one that another queue has just taken; an ACK was answered with RST."},
	DropListenRefused:      {"listen-refused", "The listening socket holds as many clients as it was told to; the SYN was answered with RST."},
	DropListenOverflow:     {"listen-overflow", "As many connections wait for Accept as the backlog allows; the peer will try again."},
	DropSocketFull:         {"socket-full", "The socket's receive buffer is full."},
	DropNoRoute:            {"no-route", "No route leads to the destination over this interface."},
	DropNeighbourFailed:    {"neighbour-failed", "The next hop does not answer ARP."},
	DropNeighbourQueueFull: {"neighbour-queue-full", "Too many packets wait for the next hop's Ethernet address."},
	DropNeighbourTableFull: {"neighbour-table-full", "The neighbour table is full of entries in use."},
	DropTooLong:            {"too-long", "The packet is too long for the path and may not be fragmented."},
	DropTransmitFull:       {"transmit-full", "The transmit ring has no room for an answer made on the engine."},
	DropForwardFull:        {"forward-full", "The ring to the engine that this packet belongs to is full."},
}

// String is the reason's stable name, such as "udp-checksum".
func (r DropReason) String() string {
	if r >= NumDropReasons {
		return "unknown"
	}
	return dropReasons[r].name
}

// Doc is one sentence for the operator.
func (r DropReason) Doc() string {
	if r >= NumDropReasons {
		return "The reason is not known to this version."
	}
	return dropReasons[r].doc
}

// DropReasons lists every reason but NotDropped.
func DropReasons() []DropReason {
	rs := make([]DropReason, 0, NumDropReasons-1)
	for r := NotDropped + 1; r < NumDropReasons; r++ {
		rs = append(rs, r)
	}
	return rs
}
