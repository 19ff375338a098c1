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
	c.due.ack = c.layer.mayChallenge(now, &c.timer.invalidAt)
}

// mayChallenge takes the right to a challenge ACK of a connection whose last answer
// of this kind was at that time.
func (l *Layer) mayChallenge(now clock.Time, at *clock.Time) bool {
	if !l.mayAnswer(now, at) || !l.challenges.allow(now) {
		l.stats.ChallengesSuppressed++
		return false
	}
	l.stats.ChallengeACKs++
	return true
}

// answerInvalid answers a segment that cannot be accepted with an ACK (RFC 9293
// section 3.10.7.4, first). Two ends that disagree must not do so for ever, so
// segments without text are answered once in Config.InvalidInterval.
func (c *Conn) answerInvalid(now clock.Time, s *Segment) {
	if s.PayloadLen() > 0 || s.has(FIN) || c.layer.mayAnswer(now, &c.timer.invalidAt) {
		c.due.ack = true
	}
}

// mayAnswer reports whether the last answer of this kind, at the time given, is long
// enough ago, and sets it.
func (l *Layer) mayAnswer(now clock.Time, at *clock.Time) bool {
	if *at != clock.Never && now.Sub(*at) < l.cfg.InvalidInterval {
		return false
	}
	*at = now
	return true
}

// answerRST has the next Emit send an RST and lets the connection be.
func (c *Conn) answerRST(seq, ack Seq, flags wire.TCPFlags) {
	c.due.rst, c.rst = true, reset{seq, ack, flags}
}
