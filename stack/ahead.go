package stack

import (
	"encoding/binary"

	"kitnet.dev/kit/stack/wire"
)

// A Peeker is a Link that can show what it is going to lend.
type Peeker interface {
	Link
	// Peek shows look up to n of the frames that Poll lends next, in their order, and keeps them. It may show fewer. A frame is
	// valid during the call only, and is not to be written to.
	Peek(n int, look func(frame []byte))
}

// What the packets for many sockets need is in no cache: a packet waits for its socket's entry in the table of ports, and then for the
// socket. Packet after packet that is all there is to an engine's time. So a burst of packets is looked at ahead, and of all of them
// first the entries and then the sockets are asked for: the processor waits once for many.
const (
	// manySockets is from how many sockets on an engine that pays.
	manySockets = 16384
	// aheadBurst is how many packets are looked at ahead: what they need stays in a level 1 cache until it is their turn.
	aheadBurst = 64
)

type ahead struct {
	link    Peeker       // nil where the link is none
	look    func([]byte) // seeAhead, bound once
	entries [aheadBurst]**half
	n       int
	heard   uint64 // nobody reads it; it is why the sockets are read
}

// pollOn takes more frames in a step that took n, a whole budget. Mere acknowledgements do not count: they cost little and have
// nothing that a user would have to take meanwhile, who sends on many connections gets more of them in a step than the
// budget, and what waits in the ring is late for its time-out, or lost where the ring is full. Nor does the rest up to newsBudget where several
// connections have something, so that each has more than a segment or two, and one ACK for them; but not where so many have that
// their users, who are woken all at once, would keep the engine from its core. It returns how many it took with the first n.
func (e *Engine) pollOn(n int) int {
	for got := n; got == budget && n < ackBudget && len(e.unread) == 0 && !e.full; n += got {
		several := len(e.active) >= someActive && len(e.active) <= manyActive
		if n-e.acksTaken >= budget && (!several || n >= newsBudget) {
			break
		}
		got = e.pollLink()
	}
	return n
}

// pollLink takes up to budget frames from the card's link.
func (e *Engine) pollLink() (n int) {
	if e.sockets < manySockets || e.ahead.link == nil {
		return e.link.Poll(budget, e.input)
	}
	for more := true; more && n < budget; {
		e.lookAhead()
		lent := e.link.Poll(aheadBurst, e.input)
		n += lent
		more = lent == aheadBurst
	}
	return n
}

// lookAhead brings the sockets of the next packets into the cache.
func (e *Engine) lookAhead() {
	a := &e.ahead
	a.n = 0
	a.link.Peek(aheadBurst, a.look)
	for _, entry := range a.entries[:a.n] {
		if h := *entry; h != nil {
			a.heard += h.received
		}
	}
	clear(a.entries[:a.n])
}

// seeAhead notes where the socket of a UDP datagram is found, if it is like most: neither tagged nor with options.
func (e *Engine) seeAhead(frame []byte) {
	const udp = wire.EthernetLen + wire.IPv4Len
	if len(frame) < udp+wire.UDPLen || frame[wire.EthernetLen] != 0x45 ||
		binary.BigEndian.Uint16(frame[12:]) != uint16(wire.EtherTypeIPv4) || frame[wire.EthernetLen+9] != byte(wire.ProtocolUDP) {
		return
	}
	la := e.local(wire.Addr(binary.BigEndian.Uint32(frame[wire.EthernetLen+16:])))
	if la == nil {
		return
	}
	if entry := la.udp.entry(binary.BigEndian.Uint16(frame[udp+2:])); entry != nil && e.ahead.n < aheadBurst {
		e.ahead.entries[e.ahead.n] = entry
		e.ahead.n++
	}
}
