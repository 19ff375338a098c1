package stack

import "kitnet.dev/kit/stack/wire"

// UDP and TCP checksums that are finished below, where the link is a ChecksumOffloader. What is not sent as one whole frame is
// summed here: fragments, which the sum goes across, packets that wait for a neighbour, and those of the loopback and to
// other interfaces, which no card sees; and so are ICMP messages, whose sum no card takes.

// offloadLeast is the least payload in bytes whose sum is left to the card. A shorter one is summed while it is copied, in no
// more time than it takes to ask the card.
const offloadLeast = 256

// leavesSum reports whether the sum over so much payload is left to the card, for the packet that begin has just made room for. A
// tap is to see the checksums that are sent.
func (e *Engine) leavesSum(payload int) bool {
	return payload >= offloadLeast && e.out != nil && e.tapping.tap == nil
}

// leavesLentSum reports whether that of an answer in the lent frame can be.
func (e *Engine) leavesLentSum() bool {
	return e.offload != nil && e.rx.link != Link(e.loop) && e.tapping.tap == nil
}

// commitPartial is commit for a packet that leavesSum is true of: the last n bytes of the frame are the datagram or segment,
// whose checksum field, at this offset, has the pseudo-header's sum.
func (e *Engine) commitPartial(n, offset int) {
	f := e.out
	e.out = nil
	e.stats.Sent++
	e.stats.TxFrames++
	e.stats.TxBytes += uint64(len(f))
	e.unflushed = true
	e.offload.SendPartial(f, len(f)-n, offset)
}

// sendLent gives the lent frame back to be sent: whole where sum is 0, else with the checksum of the UDP datagram that begins
// there left to the card.
func (e *Engine) sendLent(f []byte, sum int) bool {
	if sum == 0 {
		return e.rx.link.Send(f)
	}
	return e.offload.SendPartial(f, sum, wire.UDPChecksumAt)
}
