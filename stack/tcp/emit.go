package tcp

import (
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Emit sends what may be sent now: answers, what was lost, new data, probes,
// and an ACK if one is due and nothing else carried it. It reports whether it
// ended because out had no room; the caller then calls it again once there is.
func (c *Conn) Emit(now clock.Time, out Output) (more bool) {
	if c.due.rst && !c.emitRST(now, out) {
		return true
	}
	switch c.state {
	case Closed, Listen:
		return false
	case SynSent, SynReceived:
		if c.due.syn && !c.emitSYN(now, out) {
			return true
		}
	default:
		if c.flight == nil && !c.wantsToSend() {
			c.due.tail, c.due.override = false, false
			break
		}
		if !c.emitStream(now, out) {
			return true
		}
		c.superviseIdle(now)
	}
	if c.due.probe && !c.emitProbe(now, out) {
		return true
	}
	return !c.emitACK(now, out)
}

// segment begins a segment with an ACK, the window and the options that every
// segment has, in the layer's scratch. It clears what counts and no more: this is a
// good part of what a segment costs.
func (c *Conn) segment(now clock.Time, seq Seq, flags wire.TCPFlags) *Segment {
	s := &c.layer.out
	s.Seq, s.Ack, s.Flags, s.ECN = seq, c.rcv.nxt, flags|ACK, NotECT
	s.Window, s.Urgent = c.selectWindow(), 0
	s.Payload, s.Wrapped = nil, nil
	o := &s.Options
	o.MSS, o.WScale, o.SACKPermitted, o.NSACK = 0, -1, false, 0 // so that no block counts
	o.Timestamp = wire.TCPTimestamp{}
	if c.ts.on {
		o.Timestamp = wire.TCPTimestamp{Has: true, Val: c.timestamp(now), Ecr: c.ts.recent}
	}
	if c.opt.ecn && c.cc.echoCE {
		s.Flags |= ECE
	}
	return s
}

// send hands a segment over and notes that its ACK has left.
func (c *Conn) send(out Output, s *Segment) bool {
	if !out.Send(s) {
		return false
	}
	c.countSent(s.has(ACK))
	return true
}

// countSent notes that a segment has left, with an ACK or without.
func (c *Conn) countSent(ack bool) {
	c.count.segsOut++
	c.layer.stats.OutSegments++
	if ack {
		c.acked()
	}
}

// emitRST sends the RST that is due, with a timestamp where the peer takes them
// (RFC 7323 section 3.2).
func (c *Conn) emitRST(now clock.Time, out Output) bool {
	s := &c.layer.out
	*s = Segment{Seq: c.rst.seq, Ack: c.rst.ack, Flags: c.rst.flags, Options: wire.NoTCPOptions()}
	if c.ts.on && c.state != SynSent {
		s.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: c.timestamp(now), Ecr: c.ts.recent}
	}
	if !out.Send(s) {
		return false
	}
	c.count.segsOut++
	c.layer.stats.OutSegments++
	c.layer.stats.ResetsSent++
	c.due.rst = false
	return true
}

// synWindow is the window of a SYN, which is never scaled (RFC 7323 section
// 2.2).
func (c *Conn) synWindow() uint16 { return uint16(min(c.freeReceive(), 65535)) }

// emitSYN sends the SYN or the SYN-ACK.
func (c *Conn) emitSYN(now clock.Time, out Output) bool {
	s := &c.layer.out
	*s = Segment{Seq: c.snd.iss, Flags: SYN, Options: c.synOptions(now)}
	s.Window = c.synWindow()
	if c.state == SynReceived {
		s.Flags |= ACK
		s.Ack = c.rcv.nxt
	}
	c.ecnOnSYN(s)
	if !out.Send(s) {
		return false
	}
	if c.timer.synAt == clock.Never || c.snd.nxt == c.snd.iss {
		c.timer.synAt = now
	} else {
		c.count.retransmitted++
		c.layer.stats.RetransmittedSegments++
	}
	c.count.segsOut++
	c.layer.stats.OutSegments++
	c.snd.nxt = c.snd.iss + 1
	if c.state == SynReceived {
		c.acked()
		c.rcv.adv = c.rcv.nxt + Seq(s.Window)
	}
	c.due.syn = false
	c.armRTO(now)
	return true
}

// emitACK sends an ACK if one must leave, or starts the timer for it.
func (c *Conn) emitACK(now clock.Time, out Output) bool {
	if c.state == SynSent {
		return true
	}
	for c.mustAck() || c.due.extra > 0 {
		s := c.segment(now, c.snd.nxt, 0)
		c.putSACK(&s.Options, maxOptions-s.Options.Len(false))
		if !c.send(out, s) {
			return false
		}
		if c.due.extra > 0 {
			c.due.extra--
			c.due.ack = true
		}
	}
	c.delayACK(now)
	return true
}

// emitProbe sends a segment without text in front of what the peer has
// acknowledged. It cannot be accepted, so the peer answers with an ACK that has
// its window: for keep-alive (RFC 9293 section 3.8.4) and for a closed window
// (section 3.8.6.1), where a byte of text would be thrown away or, worse,
// taken.
func (c *Conn) emitProbe(now clock.Time, out Output) bool {
	s := c.segment(now, c.snd.una-1, 0)
	if !c.send(out, s) {
		return false
	}
	c.due.probe = false
	return true
}

// fill puts n bytes of the send stream from seq on into a segment.
func (c *Conn) fill(s *Segment, seq Seq, n int) {
	if n > 0 {
		s.Payload, s.Wrapped = c.tx.Peek(int(seq-c.first()), n)
	}
}
