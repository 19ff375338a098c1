package tcp

import "kitnet.dev/kit/stack/clock"

// timerKind says what the one retransmission timer is for. The uses exclude
// each other.
type timerKind uint8

const (
	timerRTO      timerKind = iota
	timerTLP                // tail loss probe (RFC 8985 section 7)
	timerReorder            // RACK's wait for reordered segments (section 6.2, step 5)
	timerPersist            // probe of a closed window (RFC 9293 section 3.8.6.1)
	timerOverride           // end of holding small segments back (section 3.8.6.2.1)
)

// timers are the connection's moments; Never is a timer that does not run.
type timers struct {
	rexmtAt    clock.Time // see kind
	ackAt      clock.Time // delayed ACK
	keepAt     clock.Time // keep-alive, FIN-WAIT-2 of an orphan, TIME-WAIT
	paceAt     clock.Time // pacing lets the next segment go
	progressAt clock.Time // when data was last acknowledged, or began to wait for that
	heardAt    clock.Time // when the peer was last heard
	kind       timerKind
	retries    uint8      // time-outs in a row
	probes     uint8      // window probes without an answer
	backoff    uint8      // of window probes
	keepSent   uint8      // keep-alive probes without an answer
	invalidAt  clock.Time // last answer to an unacceptable segment
	synAt      clock.Time // first transmission of the SYN
	mtuAt      clock.Time // when a smaller MTU was found out
}

// Deadline returns when Timeout has to be called at the latest; Never if it
// need not.
func (c *Conn) Deadline() clock.Time {
	t := &c.timer
	d := clock.Earliest(t.rexmtAt, clock.Earliest(t.ackAt, t.keepAt))
	if t.paceAt != clock.Never {
		d = clock.Earliest(d, t.paceAt)
	}
	return d
}

// Timeout does what is due at now (RFC 9293 section 3.10.8); too early a call
// does nothing. Emit has to follow.
func (c *Conn) Timeout(now clock.Time) {
	t := &c.timer
	if ripe(t.paceAt, now) {
		t.paceAt = clock.Never
	}
	if ripe(t.ackAt, now) {
		c.ackTimeout()
	}
	if ripe(t.rexmtAt, now) {
		t.rexmtAt = clock.Never
		c.rexmtTimeout(now)
	}
	if ripe(t.keepAt, now) {
		t.keepAt = clock.Never
		c.keepTimeout(now)
	}
}

// ripe reports whether a timer has run out.
func ripe(at, now clock.Time) bool { return at != clock.Never && !at.After(now) }

func (c *Conn) rexmtTimeout(now clock.Time) {
	switch c.timer.kind {
	case timerTLP:
		c.probeTimeout(now)
	case timerReorder:
		c.reorderTimeout(now)
	case timerPersist:
		c.persistTimeout(now)
	case timerOverride:
		c.due.override, c.opt.more = true, false
	default:
		c.retransmissionTimeout(now)
	}
}

// armRTO starts the retransmission timer (RFC 6298 section 5, rules 5.1, 5.3 and 5.5).
func (c *Conn) armRTO(now clock.Time) {
	at := now.Add(c.rtt.backedOff(c.timer.retries, &c.layer.cfg))
	c.timer.kind, c.timer.rexmtAt = timerRTO, c.clampToUser(at)
}

// armForSegment starts it for a segment that leaves, unless it runs already (RFC
// 6298 section 5, rule 5.1) or RACK waits for reordered segments; instead of a
// probe it starts anew.
func (c *Conn) armForSegment(now clock.Time) {
	if c.timer.rexmtAt == clock.Never || c.timer.kind != timerRTO && c.timer.kind != timerReorder {
		c.armRTO(now)
	}
}

// stopRexmt stops it (RFC 6298 section 5, rule 5.2).
func (c *Conn) stopRexmt() { c.timer.rexmtAt = clock.Never }

// retransmissionTimeout is the end of an RTO (RFC 6298 section 5, rules 5.4 to 5.6).
func (c *Conn) retransmissionTimeout(now clock.Time) {
	cfg := &c.layer.cfg
	switch c.state {
	case SynSent, SynReceived:
		c.synTimeout(now)
		return
	}
	if c.flight == nil {
		return
	}
	if c.tooLong(now, int(c.timer.retries)) {
		c.giveUp()
		return
	}
	c.layer.stats.Timeouts++
	c.blackHole(now)
	c.enterLoss(now)
	if int(c.timer.retries) < 255 {
		c.timer.retries++
	}
	c.rtt.rto = min(c.rtt.rto, cfg.MaxRTO)
	c.armRTO(now)
}

// synTimeout repeats a SYN or gives up (RFC 9293 section 3.8.3, MUST-23).
func (c *Conn) synTimeout(now clock.Time) {
	limit := c.layer.cfg.SYNRetries
	if c.state == SynReceived {
		limit = c.layer.cfg.SYNACKRetries
	}
	if int(c.timer.retries) >= limit || c.userTimedOut(now) {
		c.layer.stats.AttemptFails++
		if c.opt.passive {
			c.setState(Closed)
			return
		}
		c.giveUp()
		return
	}
	c.timer.retries++
	c.due.syn = true
}

// giveUp ends a connection whose peer is silent. What a router said about the
// path says more than that (RFC 1122 section 4.2.3.9).
func (c *Conn) giveUp() {
	if c.soft != None {
		c.fail(c.soft)
		return
	}
	c.fail(ErrTimeout)
}

// tooLong reports whether R2 is reached: the user's time-out, or a number of
// retransmissions (RFC 9293 section 3.8.3, MUST-20 to MUST-22). A peer that keeps its
// window closed and says so is alive.
func (c *Conn) tooLong(now clock.Time, tries int) bool {
	limit := c.layer.cfg.Retries
	if c.opt.orphan {
		limit = min(limit, c.layer.cfg.OrphanRetries)
	}
	if c.opt.userTimeout != 0 {
		return c.userTimedOut(now)
	}
	if c.snd.wnd == 0 && !c.opt.orphan && now.Sub(c.timer.heardAt) < 2*c.layer.cfg.MaxRTO {
		return false
	}
	return tries >= limit
}

// userTimedOut reports whether the user's time-out has passed without progress
// (RFC 5482 section 3).
func (c *Conn) userTimedOut(now clock.Time) bool {
	return c.opt.userTimeout != 0 && now.Sub(c.timer.progressAt) >= c.opt.userTimeout
}

// clampToUser lets a timer run out no later than the user's time-out.
func (c *Conn) clampToUser(at clock.Time) clock.Time {
	if c.opt.userTimeout == 0 {
		return at
	}
	end := c.timer.progressAt.Add(c.opt.userTimeout)
	return min(at, max(end, 1))
}

// keepTimeout is the timer that depends on the state.
func (c *Conn) keepTimeout(now clock.Time) {
	switch c.state {
	case TimeWait:
		c.setState(Closed)
	case FinWait2:
		if c.opt.orphan {
			c.setState(Closed)
			return
		}
		c.keepAliveTimeout(now)
	default:
		c.keepAliveTimeout(now)
	}
}
