package tcp

import "kitnet.dev/kit/stack/clock"

// caState is what congestion control thinks of the path.
type caState uint8

const (
	caOpen     caState = iota // all is well
	caDisorder                // duplicate ACKs or SACK blocks, nothing known to be lost
	caCWR                     // cwnd goes down because of ECN or a repaired tail
	caRecovery                // fast recovery (RFC 5681 section 3.2, RFC 6675 section 5)
	caLoss                    // after an RTO
)

var caNames = [...]string{"open", "disorder", "cwr", "recovery", "loss"}

// String returns one word.
func (s caState) String() string { return caNames[s] }

// dupThresh is DupThresh (RFC 5681 section 3.2).
const dupThresh = 3

// recover is what loss recovery and congestion control make of an ACK.
func (c *Conn) recover(now clock.Time, s *Segment, e *ackEvent) {
	c.tailAcked(e, s)
	if c.cc.state != caOpen || e.sacked > 0 || e.duplicate || e.dsack || e.ece {
		c.alert(now, s, e)
	}
	if c.cc.state == caCWR || c.cc.state == caRecovery {
		c.reduce(e)
		return
	}
	if e.advanced && e.delivered() > 0 {
		c.cc.limitedNow = e.limited
		c.congestion().acked(c, now, e.delivered(), e.late)
	}
}

// alert moves between the states of congestion control.
func (c *Conn) alert(now clock.Time, s *Segment, e *ackEvent) {
	cc := &c.cc
	if e.ece {
		cc.priorSsthresh = 0 // the reduction that ECN asks for is not undone
	}
	if cc.state != caOpen && !c.snd.una.Before(cc.highSeq) && c.leave(s, e) {
		return
	}
	switch cc.state {
	case caRecovery:
		if !e.advanced {
			c.addReno(e)
		} else if c.undoPartial(s, e) {
			return
		}
		if c.undoDSACK() {
			return
		}
		c.findLost(now, e)
	case caLoss:
		c.afterTimeout(now, s, e)
		if cc.state == caLoss {
			c.findLost(now, e)
		}
	default:
		if e.advanced {
			c.forgetReno(e)
		}
		c.addReno(e)
		if cc.state <= caDisorder {
			c.undoDSACK()
		}
		c.findLost(now, e)
		if c.flight == nil || c.flight.lost == 0 {
			c.settle(e)
			return
		}
		c.enterRecovery(e)
	}
}

// leave ends a state once all that was in flight when it began is acknowledged,
// and reports whether there is no more to do.
func (c *Conn) leave(s *Segment, e *ackEvent) bool {
	cc := &c.cc
	switch cc.state {
	case caCWR:
		// CWR goes to something above highSeq, so that its effect is seen.
		if c.snd.una != cc.highSeq {
			c.endReduction()
			cc.state = caOpen
		}
	case caRecovery:
		c.forgetReno(e)
		c.rackRecovered()
		return c.undoRecovery(s)
	case caDisorder:
		cc.state = caOpen
	}
	return false
}

// settle is the end of an ACK that gives no reason for recovery.
func (c *Conn) settle(e *ackEvent) {
	cc := &c.cc
	if e.ece && cc.state != caCWR {
		c.enterCWR()
		return
	}
	if cc.state == caCWR {
		return
	}
	next := caOpen
	if f := c.flight; f != nil && f.sacked+f.reno+f.lost > 0 || cc.undoing && cc.undoRexmt > 0 && c.snd.una.Before(cc.highSeq) {
		next = caDisorder
	}
	if next != cc.state {
		cc.state = next
		cc.highSeq = c.snd.nxt
	}
}

// enterRecovery begins fast recovery (RFC 6675 section 5, RFC 6937).
func (c *Conn) enterRecovery(e *ackEvent) {
	cc := &c.cc
	c.layer.stats.Recoveries++
	cc.priorSsthresh = 0
	c.beginUndo()
	if cc.state != caCWR {
		if !e.ece {
			cc.priorSsthresh = cc.currentSsthresh()
		}
		c.beginReduction()
	}
	cc.highSeq = c.snd.nxt
	cc.state = caRecovery
}

// findLost takes segments for lost by the means that the connection has.
func (c *Conn) findLost(now clock.Time, e *ackEvent) {
	f := c.flight
	if f == nil || f.n == 0 {
		return
	}
	switch {
	case !c.opt.sack:
		c.findLostReno(e)
	case c.layer.cfg.RACK:
		c.rackDetect(now, e)
	default:
		c.findLostSACK(e)
	}
	c.count.lost += e.lost
}

// findLostReno is NewReno's (RFC 6582 section 3.2): three duplicate ACKs prove the first
// segment lost, and in recovery each partial ACK the next one.
func (c *Conn) findLostReno(e *ackEvent) {
	f := c.flight
	if c.cc.state < caRecovery && f.reno >= dupThresh || c.cc.state == caRecovery && e.advanced {
		if f.rec(f.first).mark&lost == 0 && f.markLost(f.first) {
			e.lost++
			f.limitReno()
		}
	}
}

// findLostSACK is RFC 6675 section 4, IsLost: DupThresh segments above are
// sacked.
func (c *Conn) findLostSACK(e *ackEvent) {
	f := c.flight
	if f.sacked < dupThresh {
		return
	}
	above := uint32(0)
	for i := f.first + f.n - 1; ; i-- {
		r := f.rec(i)
		if r.mark&sacked != 0 {
			above++
		} else if above >= dupThresh && r.mark&(lost|everRexmt) == 0 && f.markLost(i) {
			e.lost++
		}
		if i == f.first {
			return
		}
	}
}

// addReno counts a duplicate ACK where SACK is not agreed. Together with pipe
// this is limited transmit (RFC 3042 section 2): each of the first two lets a new
// segment leave, and cwnd stays.
func (c *Conn) addReno(e *ackEvent) {
	if f := c.flight; !c.opt.sack && e.duplicate && f != nil {
		f.reno++
		e.sacked++
		f.limitReno()
	}
}

// limitReno keeps the count of duplicate ACKs possible.
func (f *flight) limitReno() { f.reno = min(f.reno, f.n-min(f.n, max(1, f.lost))) }

// forgetReno takes what SEG.ACK covers out of the count: one of the segments
// was the hole, the others had caused the duplicates.
func (c *Conn) forgetReno(e *ackEvent) {
	f := c.flight
	if c.opt.sack || f == nil || f.reno == 0 || e.acked == 0 {
		return
	}
	known := min(f.reno, e.acked-1)
	f.reno -= known
	e.acked -= known // they were delivered before
	f.limitReno()
}

// enterLoss is what an RTO does (RFC 5681 section 3.1, RFC 6675 section 5.1): all that
// is not sacked counts as lost, and cwnd is one segment.
func (c *Conn) enterLoss(now clock.Time) {
	cc, f := &c.cc, c.flight
	first := cc.state < caRecovery
	c.markAllLost(now)
	if cc.state <= caDisorder || !cc.highSeq.After(c.snd.una) || cc.state == caLoss && c.timer.retries == 0 {
		cc.priorSsthresh = cc.currentSsthresh()
		cc.priorCwnd = cc.cwnd
		cc.ssthresh = c.congestion().reduced(c)
		c.beginUndo()
		c.ecnReduced()
	}
	c.congestion().timedOut(c)
	cc.cwnd = c.pipe() + 1
	cc.count = 0
	cc.state = caLoss
	cc.highSeq = c.snd.nxt
	cc.tlp.active = false
	// RFC 5682 section 3.1, step 1: not if a recovery was under way, for then
	// the acknowledgments cannot be told apart.
	cc.frto = c.layer.cfg.FRTO && (first || c.timer.retries > 0) && f.sacked < f.n
	c.due.frto = false
}

// markAllLost takes everything for lost that is not sacked; what RACK knows to be
// on its way yet is not (RFC 8985 section 6.3). A first segment that is sacked
// and not acknowledged means that the peer threw away what it had (RFC 2018
// section 8): the marks count no more.
func (c *Conn) markAllLost(now clock.Time) {
	f := c.flight
	reneged := f.rec(f.first).mark&sacked != 0
	if reneged {
		clear(f.cache[:])
	}
	f.reno = 0
	for i := f.first; i != f.first+f.n; i++ {
		r := f.rec(i)
		if reneged && r.mark&sacked != 0 {
			r.mark &^= sacked
			r.run = 0
			f.sacked--
		}
		if !reneged && i != f.first && c.opt.sack && c.layer.cfg.RACK && f.rack.at != clock.Never &&
			r.at.Add(f.rack.rtt+c.reorderWindow()).After(now) {
			continue
		}
		if f.markLost(i) {
			c.count.lost++
		}
	}
}
