package tcp

import "kitnet.dev/kit/stack/clock"

// armPersist starts the timer of window probes: the first after an RTO, then
// backing off (RFC 9293 section 3.8.6.1, SHLD-29 and SHLD-30).
func (c *Conn) armPersist(now clock.Time) {
	c.countBulk(false) // until its peer takes something
	at := now.Add(c.rtt.backedOff(c.timer.backoff, &c.layer.cfg))
	c.timer.kind, c.timer.rexmtAt = timerPersist, c.clampToUser(at)
}

// persistTimeout probes the window. As long as the peer answers, it may be
// closed for ever (RFC 9293 section 3.8.6.1, MUST-37); probes counts those without an
// answer.
func (c *Conn) persistTimeout(now clock.Time) {
	if c.flight != nil || !c.wantsToSend() {
		return
	}
	if c.usable() > 0 {
		c.due.override = true
		return
	}
	if c.tooLong(now, int(c.timer.probes)) || c.opt.orphan && int(c.timer.probes) >= c.layer.cfg.OrphanRetries {
		c.giveUp()
		return
	}
	c.timer.probes = min(c.timer.probes, 254) + 1
	c.timer.backoff = min(c.timer.backoff, 254) + 1
	c.due.probe = true
}

// probeAnswered takes any ACK for an answer to a window probe. While the window
// stays closed the interval keeps growing.
func (c *Conn) probeAnswered() {
	c.timer.probes = 0
	if c.snd.wnd != 0 {
		c.timer.backoff = 0
		if c.timer.kind == timerPersist {
			c.stopRexmt()
		}
	}
}
