package tcp

import (
	"kitnet.dev/kit/stack/clock"
)

// SEND (RFC 9293 section 3.10.2) is no call of its own: the user writes to the send stream,
// and the next Emit finds it there.

// SetUrgent makes the last byte written so far urgent (RFC 9293 section 3.8.5).
func (c *Conn) SetUrgent() {
	c.snd.up = c.first().Add(c.tx.Used())
	c.snd.urgent = c.snd.up != c.snd.una
}

// usable returns how many numbers the peer's window still takes.
func (c *Conn) usable() int {
	return max(0, int((c.snd.una + Seq(c.snd.wnd)).Sub(c.snd.nxt)))
}

// wantsToSend reports whether text or a FIN waits that was never sent.
func (c *Conn) wantsToSend() bool {
	return c.unsent() > 0 || c.snd.finWanted && !c.snd.finSent
}

// emitStream sends what is lost, then what is new.
func (c *Conn) emitStream(now clock.Time, out Output) bool {
	if c.due.tail && !c.emitTail(now, out) {
		return false
	}
	sentNew := false
	if !c.due.frto && !c.emitLost(now, out) {
		return false
	}
	ok := c.emitNew(now, out, &sentNew)
	if sentNew {
		c.due.frto = false
		c.scheduleProbe(now)
	}
	return ok
}

// emitLost sends again what is lost, the lowest numbers first, as far as the
// congestion window lets it (RFC 6675 section 5, NextSeg rule 1).
func (c *Conn) emitLost(now clock.Time, out Output) bool {
	if c.flight == nil {
		return true
	}
	for c.pipe() < c.cc.cwnd {
		i, ok := c.flight.toRexmt()
		if !ok {
			return true
		}
		r := c.flight.rec(i)
		if !r.end.Before(c.snd.una+Seq(c.snd.wnd)+1) && i != c.flight.first {
			return true // the peer took its window back
		}
		if c.held(now) {
			return true
		}
		if !c.emitAgain(now, out, i) {
			return false
		}
	}
	return true
}

// emitAgain sends segment i of the scoreboard once more.
func (c *Conn) emitAgain(now clock.Time, out Output, i uint32) bool {
	f := c.flight
	r := f.rec(i)
	length := int(r.end - r.seq)
	if r.mark&hasFIN != 0 {
		length--
	}
	if length > int(c.snd.mss) { // the path's MTU became smaller
		f.split(i, int(c.snd.mss))
		r = f.rec(i)
		length = int(c.snd.mss)
	}
	s := c.segment(now, r.seq, 0)
	c.putSACK(&s.Options, min(maxOptions-s.Options.Len(false), int(c.snd.mss)-length))
	c.fill(s, r.seq, length)
	if r.mark&hasFIN != 0 {
		s.Flags |= FIN
	}
	if r.mark&pushed != 0 {
		s.Flags |= PSH
	}
	c.putUrgent(s)
	if !c.send(out, s) {
		return false
	}
	if r.mark&rexmt == 0 {
		r.mark |= rexmt
		f.rexmt++
	}
	r.mark |= everRexmt
	r.at = now
	c.retransmitted(now, s.PayloadLen())
	c.armForSegment(now)
	return true
}

// emitNew sends text that was never sent, and the FIN. It cuts what may go now
// into full segments; all of them have the same options and leave together.
func (c *Conn) emitNew(now clock.Time, out Output, sentNew *bool) bool {
	unsent := c.unsent()
	if unsent == 0 && (!c.snd.finWanted || c.snd.finSent) {
		c.due.override = false
		return true
	}
	c.restartAfterIdle(now)
	c.restoreMTU(now)
	allow := c.allowance(now, unsent)
	var s *Segment
	for allow > 0 || c.finMayGo(unsent) {
		first := s == nil
		if first {
			s = c.newSegment(now)
		}
		n, ok := c.emitRun(now, out, s, allow, unsent, first)
		if n == 0 && ok {
			n, ok = c.emitNext(now, out, s, allow, unsent, first)
		}
		if n > 0 || c.snd.finSent {
			*sentNew = true
			c.due.override = false
		}
		if !ok {
			return false
		}
		if n == 0 && !c.snd.finSent {
			return true // the stream has less than it said
		}
		allow -= n
		unsent -= n
	}
	c.validateWindow(now)
	return true
}

// allowance returns how many bytes of new text may leave now.
func (c *Conn) allowance(now clock.Time, unsent int) int {
	mss := int(c.snd.mss)
	room := 0
	if pipe := c.pipe(); pipe < c.cc.cwnd {
		room = int(c.cc.cwnd - pipe)
	}
	if c.held(now) {
		room = 0
	} else if q := c.paceQuantum(); q > 0 {
		room = min(room, q)
	}
	if c.due.frto {
		room = min(room, 2)
	}
	allow := min(unsent, c.usable(), room*mss)
	if partial := allow % mss; partial != 0 && c.holdPartial(allow, partial, unsent) {
		allow -= partial
	}
	return allow
}

// holdPartial decides whether the last segment, which is not full, waits.
func (c *Conn) holdPartial(allow, partial, unsent int) bool {
	if c.due.override {
		return false
	}
	if allow == unsent {
		if c.snd.finWanted {
			return false
		}
		// Nagle (RFC 9293 section 3.7.4, SHLD-7), in Minshall's variant: one small
		// segment at a time is in flight.
		return c.opt.cork || c.opt.more || !c.opt.noDelay && c.snd.small.After(c.snd.una)
	}
	// Sender's silly window avoidance (section 3.8.6.2.1, MUST-38): the window
	// cuts the text, so wait for it to open unless this is a good part of what it
	// ever was and nothing else would bring an ACK.
	return allow != partial || c.inFlight() != 0 || uint32(partial) < c.snd.maxWnd/2
}

// finMayGo reports whether the FIN can be sent alone: behind all text, and in
// the peer's window.
func (c *Conn) finMayGo(unsent int) bool {
	return c.snd.finWanted && !c.snd.finSent && unsent == 0 && c.usable() > 0
}

// newSegment begins the first of the segments that emitNext sends: the others of
// the same Emit have the same ACK, window and timestamp.
func (c *Conn) newSegment(now clock.Time) *Segment {
	s := c.segment(now, c.snd.nxt, 0)
	if (c.holes != nil || c.ack.hasDSACK) && c.mustAck() {
		c.putSACK(&s.Options, min(maxOptions-s.Options.Len(false), int(c.snd.mss)-1))
	}
	return s
}

// emitNext sends one new segment of at most allow bytes, of the unsent that there
// are, and returns how many it took. s is newSegment's and, unless this is the
// first, was sent before.
func (c *Conn) emitNext(now clock.Time, out Output, s *Segment, allow, unsent int, first bool) (int, bool) {
	n := min(allow, int(c.snd.mss))
	if !first {
		s.Seq, s.Flags, s.ECN, s.Urgent = c.snd.nxt, s.Flags&(ACK|ECE), NotECT, 0
		s.Options.NSACK = 0
	} else if k := int(s.Options.NSACK); k > 0 {
		n = min(n, int(c.snd.mss)-sackLen-k*sackBlockLen)
	}
	s.Payload, s.Wrapped = c.tx.Peek(int(c.snd.nxt-c.snd.una), n)
	n = s.PayloadLen()
	r := sent{seq: c.snd.nxt, at: now}
	if n == unsent && c.snd.finWanted && c.usable() > n {
		s.Flags |= FIN
		r.mark |= hasFIN
	}
	// PSH at the end of what was written, and of a burst (RFC 9293 section
	// 3.9.1.2, SHLD-28).
	if n > 0 && n == unsent && (!c.opt.more || c.snd.finWanted) {
		r.mark |= pushed
	}
	alone := first && n == allow // no burst to speak of
	if !alone && c.endsBurst(n, allow, first) || r.mark&pushed != 0 {
		s.Flags |= PSH
	}
	if n > 0 {
		c.ecnOnData(s)
	} else if !s.has(FIN) {
		return 0, true
	}
	c.putUrgent(s)
	if !c.send(out, s) {
		return 0, false
	}
	r.end = s.Seq.Add(n)
	if r.mark&hasFIN != 0 {
		c.snd.fin, c.snd.finSent = r.end, true
		r.end++
	}
	if s.Flags&CWR != 0 {
		c.cc.cwrDue = false
	}
	c.sentNew(now, r, n)
	c.dataSent(now)
	c.armForSegment(now)
	return n, true
}

// sentNew notes that a new segment with n bytes of text has left.
func (c *Conn) sentNew(now clock.Time, r sent, n int) {
	if n < int(c.snd.mss) {
		c.snd.small = r.end
	}
	if c.flight == nil {
		c.timer.progressAt = now
	}
	c.track(r)
	c.snd.nxt = r.end
	c.cc.prr.out++
	c.cc.sentAt = now
	c.paced(now, n)
}

// emitRun sends new full segments that differ in nothing but their numbers and text, and perhaps a shorter one behind them, in
// one go: what is left of a burst and its PSH. It returns how many bytes it sent, of which 0 and true says that there is no such
// run, and whether out had room for all. The arguments are emitNext's.
func (c *Conn) emitRun(now clock.Time, out Output, s *Segment, allow, unsent int, first bool) (sent int, ok bool) {
	mss := int(c.snd.mss)
	if allow <= mss || c.snd.urgent || c.cc.cwrDue || first && s.Options.NSACK > 0 || c.layer.single {
		return 0, true
	}
	n, ends := c.burstLeft(allow, first)
	if n == unsent && c.snd.finWanted {
		n, ends = (n-1)/mss*mss, false // the last one has the FIN
	}
	if n <= mss {
		return 0, true
	}
	s.Seq, s.Flags, s.ECN, s.Urgent = c.snd.nxt, s.Flags&(ACK|ECE), NotECT, 0
	s.Options.NSACK = 0
	if s.Payload, s.Wrapped = c.tx.Peek(int(c.snd.nxt-c.snd.una), n); s.PayloadLen() < n {
		return 0, true
	}
	c.ecnOnData(s)
	pushed := n == unsent && !c.opt.more
	if ends || pushed {
		s.Flags |= PSH
	}
	if sent = out.SendRun(s, mss); sent == 0 {
		return 0, false
	}
	c.sentRun(now, sent, pushed && sent == n)
	c.layer.burst.sent(segmentsOf(sent, mss), ends) // where out had no room, the next Emit begins another
	return sent, sent == n
}

// sentRun notes that the next n bytes of text have left in full segments but for the last, which ends a write if push.
func (c *Conn) sentRun(now clock.Time, n int, push bool) {
	for n > 0 {
		part := min(n, int(c.snd.mss))
		r := sent{seq: c.snd.nxt, end: c.snd.nxt.Add(part), at: now}
		if n -= part; n == 0 && push {
			r.mark = pushed
		}
		c.sentNew(now, r, part)
		c.countSent(true)
	}
	c.dataSent(now)
	c.armForSegment(now)
}

// segmentsOf is how many segments n bytes of text fill.
func segmentsOf(n, mss int) int { return (n + mss - 1) / mss }

// putUrgent sets the urgent pointer of a segment in front of it (RFC 9293 section
// 3.8.5).
func (c *Conn) putUrgent(s *Segment) {
	if !c.snd.urgent {
		return
	}
	if ahead := c.snd.up.Sub(s.Seq); ahead > 0 && ahead <= 65535 {
		s.Flags |= URG
		s.Urgent = uint16(ahead)
	}
}

// superviseIdle starts the timer that nothing else would: data waits, nothing
// is in flight, so that no ACK will come to let it go.
func (c *Conn) superviseIdle(now clock.Time) {
	if c.flight != nil || !c.wantsToSend() || c.timer.rexmtAt != clock.Never {
		return
	}
	if c.timer.paceAt != clock.Never && c.timer.paceAt.After(now) {
		return
	}
	if c.usable() == 0 {
		if c.timer.backoff == 0 {
			c.timer.progressAt = now
		}
		c.armPersist(now)
		return
	}
	c.timer.kind, c.timer.rexmtAt = timerOverride, now.Add(c.layer.cfg.CorkTimeout)
}
