package tcp

import "kitnet.dev/kit/stack/clock"

// predicted is header prediction (Van Jacobson, 1990; RFC 7323 section 5.3 asks that it
// include the timestamp): nearly all segments are the next text in order, or
// acknowledge text in flight while nothing is thought to be lost, or both. Such a
// segment is taken here as arrivesOtherwise would take it, step by step, without what
// those steps do for others. Of any other segment nothing is done, and predicted
// reports false.
//
// TestPredictionChangesNothing and FuzzPrediction hold the two ways against each
// other, field by field.
func (c *Conn) predicted(now clock.Time, s *Segment) bool {
	if s.Flags&^PSH != ACK || s.Seq != c.rcv.nxt || s.Options.NSACK != 0 || s.ECN == CE ||
		!c.state.Synchronized() || c.cc.state != caOpen || c.cc.tlp.active || c.layer.unpredicted {
		return false
	}
	if ts := &s.Options.Timestamp; c.ts.on && (!ts.Has || int32(ts.Val-c.ts.recent) < 0) {
		return false
	}
	text := len(s.Payload) > 0
	if text && (len(s.Payload) > int(c.rcvWnd()) || c.rcv.finSeen || c.rcv.shut && c.state != Established || len(s.Wrapped) != 0) {
		return false
	}
	var covered uint32 // segments
	if s.Ack != c.snd.una {
		if covered = c.covered(s.Ack); covered == 0 {
			return false
		}
	} else if !text {
		return false
	}

	c.layer.stats.Predicted++
	c.heard(now)
	c.updateTimestamp(now, s)
	c.updateWindow(s)
	c.probeAnswered()
	if covered > 0 {
		c.forgetCovered(now, s.Ack, covered)
	} else if c.flight == nil && c.timer.kind != timerPersist && c.timer.kind != timerOverride {
		c.stopRexmt()
	}
	if text {
		c.receiveNext(now, s)
	}
	return true
}

// covered returns how many segments an ACK covers whole of a flight in which none was
// sacked, lost or ever sent again, and 0 where that is not so, it covers none, or
// it covers the FIN.
func (c *Conn) covered(ack Seq) (n uint32) {
	f := c.flight
	if f == nil || f.sacked|f.lost|f.rexmt != 0 || f.fack.After(c.snd.una) ||
		!ack.After(c.snd.una) || ack.After(c.snd.nxt) || c.snd.finSent && ack.After(c.snd.fin) {
		return 0
	}
	for ; n < f.n; n++ {
		r := f.rec(f.first + n)
		if r.end.After(ack) {
			break
		}
		if r.mark&everRexmt != 0 {
			return 0
		}
	}
	return n
}

// forgetCovered is acknowledged for an ACK that covers n segments, see covered.
func (c *Conn) forgetCovered(now clock.Time, ack Seq, n uint32) {
	f, cc := c.flight, &c.cc
	limited := cc.isLimited()
	// The segments left in the order of their numbers: the first has the longest
	// round trip, the last is the one that RACK looks at.
	oldest := max(now.Sub(f.rec(f.first).at), 1)
	last := f.rec(f.first + n - 1)
	late := now.Sub(last.at)
	if sentAfter(last.at, last.end, f.rack.at, f.rack.end) {
		f.rack.at, f.rack.end, f.rack.rtt = last.at, last.end, late
	}
	f.first += n
	f.n -= n
	if int32(f.hint-f.first) < 0 {
		f.hint = f.first
	}
	if f.n > 0 {
		if r := f.rec(f.first); r.seq.Before(ack) {
			r.seq = ack
		}
	}
	f.fack = ack
	acked := int(ack - c.snd.una)
	c.release(ack, acked)
	c.timer.retries = 0
	c.timer.progressAt = now
	c.rtt.sample(now, oldest, max(1, f.n/2), &c.layer.cfg)
	cc.limitedNow = limited
	c.congestion().acked(c, now, n, late)
	if f.n > 0 {
		if c.timer.kind != timerReorder || c.timer.rexmtAt == clock.Never {
			c.armRTO(now)
			c.scheduleProbe(now)
		}
	} else {
		if c.timer.kind != timerPersist && c.timer.kind != timerOverride {
			c.stopRexmt()
		}
		c.dropFlight()
	}
	c.tuneSend(acked)
}

// receiveNext is receive for text that begins at RCV.NXT and lies in the window.
func (c *Conn) receiveNext(now clock.Time, s *Segment) {
	if n := len(s.Payload); n > int(c.rcv.mss) {
		c.rcv.mss = max(c.rcv.mss, uint16(min(n, int(c.announcedMSS()))))
	}
	c.dataArrived(now)
	if n := c.rx.Put(0, s.Payload); n > 0 {
		c.advance(n)
		c.measureReceiver(now, s)
	}
}
