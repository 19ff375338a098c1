package bpf

// Reason is why the program gave a frame to the AF_XDP socket or left it to the kernel (enum kit_reason in kit.h).
type Reason uint8

// The reasons, in kit.h's order. A frame counted under one that begins with Pass was left to the kernel, one with XSK
// went to the AF_XDP socket; [Reason.Help] says which frames each counts.
const (
	PassDisabled Reason = iota
	PassEthertype
	PassShort
	PassMalformed
	PassARP
	PassAddress
	PassProtocol
	PassPort
	PassEcho
	PassICMP
	PassICMPError
	PassFragment
	PassNoXSK
	XSKOwned
	XSKARP
	XSKUDP
	XSKTCP
	XSKEcho
	XSKICMPError
	XSKFragment

	// Reasons is how many there are.
	Reasons = len(bpfKitStats{}.Frames)
)

var reasons = [Reasons]struct{ name, help string }{
	PassDisabled:  {"pass_disabled", "steering is switched off"},
	PassEthertype: {"pass_ethertype", "neither IPv4 nor ARP"},
	PassShort:     {"pass_short", "the frame ends inside a header or before the IPv4 total length"},
	PassMalformed: {"pass_malformed", "impossible IPv4 version, header length or total length"},
	PassARP:       {"pass_arp", "ARP about no owned address"},
	PassAddress:   {"pass_address", "IPv4 to an address that kit does not hold"},
	PassProtocol:  {"pass_protocol", "a protocol that is not steered on a shared or broadcast address"},
	PassPort:      {"pass_port", "UDP or TCP to a port that is not bound"},
	PassEcho:      {"pass_echo", "an echo reply to an identifier that is not bound"},
	PassICMP:      {"pass_icmp", "ICMP other than echo replies and errors to a shared address"},
	PassICMPError: {"pass_icmp_error", "an ICMP error about a packet of somebody else"},
	PassFragment:  {"pass_fragment", "a later fragment that overtook its first, or whose first was the kernel's"},
	PassNoXSK:     {"pass_no_xsk", "ours, but the queue has no AF_XDP socket"},
	XSKOwned:      {"xsk_owned", "IPv4 to an owned address"},
	XSKARP:        {"xsk_arp", "ARP for or from an owned address"},
	XSKUDP:        {"xsk_udp", "UDP to a bound port"},
	XSKTCP:        {"xsk_tcp", "TCP to a bound port"},
	XSKEcho:       {"xsk_echo", "an echo reply to a bound identifier"},
	XSKICMPError:  {"xsk_icmp_error", "an ICMP error about a packet of ours"},
	XSKFragment:   {"xsk_fragment", "a later fragment whose first was ours"},
}

// String is the reason's name in metrics and listings: kit.h's enumerator without KIT_, in lower case.
func (r Reason) String() string { return reasons[r].name }

// Help says in a phrase which frames the reason counts.
func (r Reason) Help() string { return reasons[r].help }

// Steered reports whether frames counted under r went to the AF_XDP socket.
func (r Reason) Steered() bool { return r >= XSKOwned }

// Stats counts frames, indexed by [Reason], since the program was loaded. Every frame is counted once.
type Stats [Reasons]uint64

// Steered is how many frames went to an AF_XDP socket.
func (s *Stats) Steered() uint64 { return sum(s[XSKOwned:]) }

// Passed is how many frames were left to the kernel.
func (s *Stats) Passed() uint64 { return sum(s[:XSKOwned]) }

func sum(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}
