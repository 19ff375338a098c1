package stack

import "kitnet.dev/kit/stack/wire"

// UDP and TCP checksums that are finished below, where the link is a ChecksumOffloader. What is not sent as one whole frame is
// summed here: fragments, which the sum goes across, packets that wait for a neighbour, and those of the loopback and to
// other interfaces, which no card sees; and so are ICMP messages, whose sum no card takes.

// offloadLeast is the least payload in bytes whose sum is left to the card. A shorter one is summed while it is copied, in no
// more time than it takes to ask the card.
const offloadLeast = 256

// leaveSum reports whether the sum over so much payload is left to the card, for the packet of n bytes that begin has just made
// room for, and has commit see to it then. A tap is to see the checksums that are sent.
func (e *Engine) leaveSum(payload, n int) bool {
	if payload < offloadLeast || e.out == nil || e.tapping.tap != nil {
		return false
	}
	e.outSum = len(e.out) - n + wire.IPv4Len
	return true
}

// leavesLentSum reports whether that of an answer in the lent frame can be.
func (e *Engine) leavesLentSum() bool {
	return e.offload != nil && e.rx.link != Link(e.loop) && e.tapping.tap == nil
}

// sendPartial gives a frame to the link whose sum was left by leaveSum, with the pseudo-header's sum in its field.
func (e *Engine) sendPartial(f []byte) {
	ip := wire.IPv4(f[e.outSum-wire.IPv4Len:])
	start, offset := e.outSum, wire.UDPChecksumAt
	e.outSum = 0
	if ip.Protocol() == wire.ProtocolTCP {
		offset = wire.TCPChecksumAt
		wire.TCP(f[start:]).PutPartialChecksum(ip.Src(), ip.Dst(), len(f)-start)
	} else {
		wire.UDP(f[start:]).PutPartialChecksum(ip.Src(), ip.Dst())
	}
	e.offload.SendPartial(f, start, offset)
}
