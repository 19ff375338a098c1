package tcp

import "kitnet.dev/kit/stack/clock"

// afterTimeout handles an ACK after an RTO: F-RTO in its SACK-enhanced form (RFC
// 5682 section 3.1) finds out whether the time-out was spurious, and otherwise
// everything is sent again in slow start.
func (c *Conn) afterTimeout(now clock.Time, s *Segment, e *ackEvent) {
	cc := &c.cc
	recovered := !c.snd.una.Before(cc.highSeq)
	if e.advanced && c.undoLoss(s, false) {
		return
	}
	if cc.frto {
		// Step 3b: something arrived that was never sent again, so not all was
		// lost and the time-out was spurious.
		if e.original && c.undoLoss(s, true) {
			return
		}
		if c.snd.nxt.After(cc.highSeq) {
			// Step 3a: new data was sent, and the peer still misses something.
			if e.sacked > 0 || e.duplicate {
				cc.frto = false
			}
		} else if e.advanced && !recovered {
			// Step 2b: the first retransmission arrived. Try new data before
			// anything else is sent again.
			cc.highSeq = c.snd.nxt
			if c.unsent() > 0 && c.usable() > 0 {
				c.due.frto = true
				return
			}
			cc.frto = false
		}
	}
	if !cc.frto {
		c.due.frto = false
	}
	if recovered {
		c.forgetReno(e)
		c.undoRecovery(s)
		return
	}
	if e.advanced {
		c.forgetReno(e)
	} else if c.snd.nxt.After(cc.highSeq) {
		c.addReno(e)
	}
}
