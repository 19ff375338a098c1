package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// armKeepAlive starts or stops the keep-alive timer. It runs in the states in
// which the peer may be silent for long.
func (c *Conn) armKeepAlive(now clock.Time) {
	switch c.state {
	case Established, CloseWait, FinWait2:
	default:
		return
	}
	if c.state == FinWait2 && c.opt.orphan {
		return
	}
	if !c.opt.keepAlive {
		c.timer.keepAt = clock.Never
		return
	}
	c.timer.keepAt = max(c.timer.heardAt.Add(c.keepIdle()), now+1)
}

func (c *Conn) keepIdle() time.Duration {
	if c.opt.keepIdle > 0 {
		return c.opt.keepIdle
	}
	return c.layer.cfg.KeepAliveIdle
}

// keepAliveTimeout probes a peer that was silent (RFC 9293 section 3.8.4). One
// probe without an answer proves nothing (MUST-28); a number of them does.
func (c *Conn) keepAliveTimeout(now clock.Time) {
	if !c.opt.keepAlive {
		return
	}
	idle, cfg := c.keepIdle(), &c.layer.cfg
	if c.flight != nil || c.wantsToSend() || now.Sub(c.timer.heardAt) < idle {
		// It was heard since, or other timers watch.
		c.timer.keepAt = c.timer.heardAt.Add(idle)
		if !c.timer.keepAt.After(now) {
			c.timer.keepAt = now.Add(idle)
		}
		return
	}
	interval, probes := c.opt.keepInterval, int(c.opt.keepProbes)
	if interval == 0 {
		interval = cfg.KeepAliveInterval
	}
	if probes == 0 {
		probes = cfg.KeepAliveProbes
	}
	silent := now.Sub(c.timer.heardAt)
	if int(c.timer.keepSent) >= probes && c.opt.userTimeout == 0 ||
		c.opt.userTimeout != 0 && c.timer.keepSent > 0 && silent >= c.opt.userTimeout {
		c.answerRST(c.snd.nxt, c.rcv.nxt, RST|ACK)
		c.giveUp()
		return
	}
	if c.timer.keepSent < 255 {
		c.timer.keepSent++
	}
	c.due.probe = true
	c.timer.keepAt = now.Add(interval)
}
