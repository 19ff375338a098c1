package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// acknowledging decides when an ACK leaves (RFC 9293 section 3.8.6.3, RFC 5681
// section 4.2).
type acknowledging struct {
	lastData clock.Time    // when text last arrived
	ato      time.Duration // how long an ACK waits now
	dsack    span
	hasDSACK bool
	quick    uint8 // ACKs that do not wait
	// interactive: data leaves soon after data arrives, so that waiting for
	// something to carry the ACK is worth it.
	interactive bool
}

// dataArrived keeps the pace of arriving segments: ACKs wait about as long as
// the next segment takes, and not at all in a new burst after a pause longer
// than the RTO, when the peer is in slow start again.
func (c *Conn) dataArrived(now clock.Time) {
	a, cfg := &c.ack, &c.layer.cfg
	least := cfg.DelayedACK
	switch gap := now.Sub(a.lastData); {
	case a.ato == 0:
		a.ato, a.quick = least, uint8(cfg.QuickACKs)
	case gap <= least/2:
		a.ato = a.ato/2 + least/2
	case gap < a.ato:
		a.ato = min(a.ato/2+gap, c.rtt.rto)
	case gap > c.rtt.rto:
		a.quick = uint8(cfg.QuickACKs)
	}
	a.lastData = now
}

// dataSent notes that text leaves.
func (c *Conn) dataSent(now clock.Time) {
	if c.ack.ato != 0 && now.Sub(c.ack.lastData) < c.ack.ato {
		c.ack.interactive = true
	}
}

// mustAck reports whether an ACK has to leave in this step. MUST-58 and SHLD-19
// of RFC 9293: at least for every second full segment, whatever was received in
// one step counting together.
func (c *Conn) mustAck() bool {
	if c.due.ack {
		return true
	}
	if c.rcv.nxt == c.rcv.acked {
		return false
	}
	return c.holes != nil || c.opt.quickACK ||
		uint32(c.rcv.nxt-c.rcv.acked) > uint32(c.rcv.mss) ||
		c.ack.quick > 0 && !c.ack.interactive
}

// ACKCanWait reports whether an ACK is all that Emit would send, and whether the
// user may have something to say that could carry it. Where a caller has just woken
// the user, it does well to leave Emit for its next turn: each packet saved is one
// for the peer too. Received text beyond two full segments, and what arrived out of
// order, does not wait.
func (c *Conn) ACKCanWait() bool {
	return (c.state == Established || c.state == CloseWait) && c.flight == nil && !c.wantsToSend() &&
		!c.due.rst && !c.due.probe && c.due.extra == 0 && c.holes == nil && c.mustAck() &&
		uint32(c.rcv.nxt-c.rcv.acked) <= 2*uint32(c.rcv.mss)
}

// delayACK starts the timer for an ACK that waits.
func (c *Conn) delayACK(now clock.Time) {
	if c.rcv.nxt != c.rcv.acked && c.timer.ackAt == clock.Never {
		cfg := &c.layer.cfg
		c.timer.ackAt = now.Add(min(max(c.ack.ato, cfg.DelayedACK), cfg.MaxDelayedACK))
	}
}

// ackTimeout is the end of waiting.
func (c *Conn) ackTimeout() {
	c.timer.ackAt = clock.Never
	if c.rcv.nxt == c.rcv.acked {
		return
	}
	if c.ack.interactive {
		// Nothing came to carry it: no longer a conversation.
		c.ack.interactive = false
		c.ack.ato = c.layer.cfg.DelayedACK
	} else {
		c.ack.ato = min(2*c.ack.ato, c.rtt.rto)
	}
	c.due.ack = true
}

// acked notes that a segment with an ACK and this window left.
func (c *Conn) acked() {
	if c.ack.quick > 0 {
		c.ack.quick--
	}
	c.rcv.acked = c.rcv.nxt
	c.ack.hasDSACK = false
	c.due.ack = false
	c.timer.ackAt = clock.Never
}
