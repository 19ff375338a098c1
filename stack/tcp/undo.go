package tcp

import "kitnet.dev/kit/stack/clock"

// beginUndo notes where a reduction begins, so that it can be taken back if the
// reason turns out to be none.
func (c *Conn) beginUndo() {
	cc := &c.cc
	cc.undoing = true
	cc.undoMarker = c.count.delivered
	cc.undoRexmt = 0
	cc.rexmtStamp, cc.hasStamp = 0, false
	if f := c.flight; f != nil {
		// Segments under way again already may come back as duplicates too.
		cc.undoRexmt = int32(f.rexmt)
	}
}

// spurious reports whether the reduction can be taken back: every
// retransmission was reported as a duplicate (RFC 3708 section 3 by RFC 2883), or the
// first was sent after the segment left that the peer acknowledges now (Eifel,
// RFC 3522 section 3.2).
func (c *Conn) spurious(s *Segment) bool {
	return c.cc.undoing && (c.allDuplicates() || c.eifel(s))
}

// allDuplicates reports whether something was sent again and DSACKs say that
// all of it was in vain.
func (c *Conn) allDuplicates() bool {
	return c.cc.undoing && c.cc.hasStamp && c.cc.undoRexmt <= 0
}

// eifel is the detection algorithm of RFC 3522.
func (c *Conn) eifel(s *Segment) bool {
	ts := &s.Options.Timestamp
	return c.ts.on && c.cc.hasStamp && ts.Has && ts.Ecr != 0 && int32(ts.Ecr-c.cc.rexmtStamp) < 0
}

// undo restores cwnd and ssthresh (RFC 4015 section 3.2).
func (c *Conn) undo() {
	cc := &c.cc
	c.layer.stats.Undone++
	if cc.priorSsthresh != 0 {
		cc.cwnd = max(cc.cwnd, cc.priorCwnd)
		cc.ssthresh = max(cc.ssthresh, cc.priorSsthresh)
		c.congestion().undone(c)
		cc.cwrDue = false
	}
	cc.undoing = false
	c.rackRecovered()
}

// unmarkLost takes back that segments are lost.
func (f *flight) unmarkLost() {
	for i := range f.n {
		if r := f.rec(f.first + i); r.mark&lost != 0 {
			f.lost--
			r.mark &^= lost
		}
	}
}

// undoRecovery ends recovery, or the time after an RTO, at its end. It reports
// whether the state is to stay: without SACK, until something behind highSeq is
// acknowledged, because until then duplicate ACKs may be of the old time (RFC 6582
// section 4.1).
func (c *Conn) undoRecovery(s *Segment) bool {
	cc := &c.cc
	if c.spurious(s) {
		if cc.state == caLoss {
			c.layer.stats.SpuriousTimeouts++
		}
		c.undo()
		cc.state = caOpen
		return false
	}
	if c.snd.una == cc.highSeq && !c.opt.sack && cc.state == caRecovery && c.flight != nil && c.flight.n > 0 {
		return true
	}
	if cc.state == caRecovery {
		c.endReduction()
	}
	cc.state = caOpen
	cc.frto = false
	return false
}

// undoPartial leaves recovery at a partial ACK that proves it to be spurious: the
// segment was late, not lost.
func (c *Conn) undoPartial(s *Segment, e *ackEvent) bool {
	if !c.opt.sack {
		c.forgetReno(e)
	}
	f := c.flight
	if !c.cc.undoing || !c.eifel(s) {
		return false
	}
	c.reordered(e.fack.Sub(c.snd.una))
	if f != nil && f.rexmt > 0 {
		return true // wait for what was sent again
	}
	c.leaveRecovery()
	return true
}

// leaveRecovery takes the whole recovery back.
func (c *Conn) leaveRecovery() {
	if f := c.flight; f != nil {
		f.unmarkLost()
	}
	c.undo()
	c.cc.state = caOpen
	c.settle(&ackEvent{})
}

// undoDSACK takes the reduction back once every retransmission was in vain.
func (c *Conn) undoDSACK() bool {
	if !c.allDuplicates() {
		return false
	}
	if c.cc.state == caRecovery {
		c.leaveRecovery()
		return true
	}
	c.undo()
	return true
}

// undoLoss takes an RTO back that was spurious: known by F-RTO, or by what
// spurious sees.
func (c *Conn) undoLoss(s *Segment, frto bool) bool {
	if !frto && !c.spurious(s) {
		return false
	}
	c.layer.stats.SpuriousTimeouts++
	c.leaveRecovery()
	c.timer.retries = 0
	c.cc.frto, c.due.frto = false, false
	return true
}

// dsackPlausible reports whether a DSACK block is about something that was sent
// (RFC 2883 section 4).
func (c *Conn) dsackPlausible(d span) bool {
	return !d.left.Before(c.snd.una-Seq(c.snd.maxWnd)) && !d.right.After(c.snd.nxt) &&
		!(d.left.Before(c.snd.iss+1) && c.snd.una.Sub(c.snd.iss) >= 0 && c.snd.una.Sub(c.snd.iss) < 1<<30)
}

// sawDSACK counts a duplicate that the peer reports.
func (c *Conn) sawDSACK(d span, ack Seq) {
	cc := &c.cc
	c.count.duplicates++
	c.rackDSACK()
	if cc.undoing && int64(c.position(d.left)-cc.undoMarker) >= 0 && cc.hasStamp {
		cc.undoRexmt--
	}
}

// retransmitted notes that a segment with n bytes of text was sent again.
func (c *Conn) retransmitted(now clock.Time, n int) {
	cc := &c.cc
	c.count.retransmitted++
	c.layer.stats.RetransmittedSegments++
	cc.undoRexmt++
	cc.prr.out++
	if !cc.hasStamp {
		cc.rexmtStamp, cc.hasStamp = c.timestamp(now), true
	}
	c.paced(now, n)
}
