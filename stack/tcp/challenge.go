package tcp

import (
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// challenge sends an ACK that a genuine peer answers in a way that proves it
// (RFC 5961 sections 3.2, 4.2 and 5.2), within what the layer sends a second
// (section 7) and the connection in Config.InvalidInterval.
func (c *Conn) challenge(now clock.Time) {
	if c.due.ack {
		return // one leaves anyway
	}
	if !c.mayAnswer(now) {
		c.layer.stats.ChallengesSuppressed++
		return
	}
	if !c.layer.challenges.allow(now) {
		c.layer.stats.ChallengesSuppressed++
		return
	}
	c.layer.stats.ChallengeACKs++
	c.due.ack = true
}

// answerInvalid answers a segment that cannot be accepted with an ACK (RFC 9293
// section 3.10.7.4, first). Two ends that disagree must not do so for ever, so
// segments without text are answered once in Config.InvalidInterval.
func (c *Conn) answerInvalid(now clock.Time, s *Segment) {
	if s.PayloadLen() > 0 || s.has(FIN) || c.mayAnswer(now) {
		c.due.ack = true
	}
}

// mayAnswer reports whether the last answer of this kind is long enough ago.
func (c *Conn) mayAnswer(now clock.Time) bool {
	if c.timer.invalidAt != clock.Never && now.Sub(c.timer.invalidAt) < c.layer.cfg.InvalidInterval {
		return false
	}
	c.timer.invalidAt = now
	return true
}

// answerRST has the next Emit send an RST and lets the connection be.
func (c *Conn) answerRST(seq, ack Seq, flags wire.TCPFlags) {
	c.due.rst, c.rst = true, reset{seq, ack, flags}
}
