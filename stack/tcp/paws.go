package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// pawsIdle is how long TS.Recent may stand before it says nothing (RFC 7323
// section 5.5): 24 days, less than the clock takes to wrap.
const pawsIdle = 24 * 24 * time.Hour

// checkTimestamp is protection against wrapped sequence numbers (RFC 7323
// section 5.3, R1). An RST passes: PAWS does not apply to it.
func (c *Conn) checkTimestamp(now clock.Time, s *Segment) bool {
	if !c.ts.on || s.has(RST) {
		return true
	}
	ts := &s.Options.Timestamp
	if !ts.Has {
		// "If a non-<RST> segment is received without a TSopt, a TCP SHOULD
		// silently drop the segment" (RFC 7323 section 3.2).
		return false
	}
	if !c.ts.older(now, ts.Val) {
		return true
	}
	c.layer.stats.PAWSRejected++
	c.duplicate(s)
	c.answerInvalid(now, s)
	return false
}

// older reports whether a timestamp comes before TS.Recent, where that still says
// something.
func (ts *timestamps) older(now clock.Time, val uint32) bool {
	return int32(val-ts.recent) < 0 && now.Sub(ts.recentAt) <= pawsIdle
}

// updateTimestamp keeps TS.Recent (RFC 7323 section 4.3, step 2): only a segment at
// the left of what was not acknowledged counts, so that a delayed ACK is
// measured from its first segment. One with an ACK that cannot be is forged
// (RFC 5961 section 5) and comes not so far: a TSval of the future in it would
// have PAWS reject all that is genuine.
func (c *Conn) updateTimestamp(now clock.Time, s *Segment) {
	if !c.ts.on || s.Seq.After(c.rcv.acked) {
		return
	}
	if val := s.Options.Timestamp.Val; !c.ts.older(now, val) {
		c.ts.recent, c.ts.recentAt = val, now
	}
}
