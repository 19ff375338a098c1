package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// scheduleProbe is TLP_calc_PTO and the decision to use it (RFC 8985 section 7.2): a
// tail loss probe goes out well before the RTO would, so that a lost tail
// is found by SACK.
func (c *Conn) scheduleProbe(now clock.Time) {
	cc, f, cfg := &c.cc, c.flight, &c.layer.cfg
	if !cfg.TLP || !c.opt.sack || f == nil || f.n == 0 || f.sacked+f.lost > 0 || cc.tlp.active ||
		cc.state != caOpen && cc.state != caCWR {
		return
	}
	pto := cfg.InitialRTO
	if c.rtt.srtt != 0 {
		pto = 2 * c.rtt.srtt
		if f.n == 1 {
			pto += cfg.MaxDelayedACK // TLP.max_ack_delay
		} else {
			pto += 2 * time.Millisecond
		}
	}
	at := now.Add(pto)
	if c.timer.kind == timerRTO && c.timer.rexmtAt != clock.Never {
		at = min(at, c.timer.rexmtAt)
	}
	c.timer.kind, c.timer.rexmtAt = timerTLP, c.clampToUser(at)
}

// probeTimeout is the end of the PTO (RFC 8985 section 7.3).
func (c *Conn) probeTimeout(now clock.Time) {
	if c.flight == nil || c.flight.n == 0 {
		return
	}
	if c.userTimedOut(now) {
		c.giveUp()
		return
	}
	c.armRTO(now)
	if !c.cc.tlp.active {
		c.due.tail = true
	}
}

// emitTail sends the probe: new text if there is some and the peer has room,
// else the last segment again.
func (c *Conn) emitTail(now clock.Time, out Output) bool {
	c.due.tail = false
	f := c.flight
	if f == nil || f.n == 0 {
		return true
	}
	again := false
	unsent := c.unsent()
	if n := min(unsent, c.usable(), int(c.snd.mss)); n > 0 {
		if _, ok := c.emitNext(now, out, c.newSegment(now), n, unsent, true); !ok {
			c.due.tail = true
			return false
		}
	} else {
		r := f.last()
		if r.mark&(sacked|lost) != 0 {
			return true
		}
		marks := r.mark
		if !c.emitAgain(now, out, f.first+f.n-1) {
			c.due.tail = true
			return false
		}
		// The probe is not counted as a second copy in the network (RFC 8985
		// section 7.3), nor is it a guess to be undone.
		if r = f.last(); marks&rexmt == 0 && r.mark&rexmt != 0 {
			r.mark &^= rexmt
			f.rexmt--
		}
		c.cc.undoRexmt--
		again = true
	}
	c.layer.stats.LossProbes++
	c.cc.tlp.active, c.cc.tlp.isRexmt, c.cc.tlp.end = true, again, c.snd.nxt
	c.armRTO(now)
	return true
}

// tailAcked is TLP_process_ack (RFC 8985 section 7.4.2): a probe that repaired a
// loss hides it from everybody else, so congestion control has to be told.
func (c *Conn) tailAcked(e *ackEvent, s *Segment) {
	tlp := &c.cc.tlp
	if !tlp.active || s.Ack.Before(tlp.end) {
		return
	}
	switch {
	case !tlp.isRexmt, e.dsack:
		tlp.active = false // nothing was lost
	case s.Ack.After(tlp.end):
		tlp.active = false
		if c.cc.state < caCWR {
			c.enterCWR()
			c.endReduction()
			c.cc.state = caOpen
			c.settle(&ackEvent{})
		}
	case !e.advanced && e.sacked == 0 && s.PayloadLen() == 0:
		tlp.active = false // both copies arrived
	}
}
