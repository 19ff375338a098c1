package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// Arrives is SEGMENT ARRIVES (RFC 9293 section 3.10.7) for a connection. Its
// payload is copied into the receive stream before the call returns. Answers
// leave at the next Emit, one for all segments of a step where the RFCs allow
// it. A segment for which there is no connection is for Layer.Refuse, and one
// for a listener for Layer.Listen.
func (c *Conn) Arrives(now clock.Time, s *Segment) {
	c.layer.stats.InSegments++
	switch c.state {
	case Closed, Listen:
	case SynSent:
		c.count.segsIn++
		c.arrivesSynSent(now, s)
	default:
		c.count.segsIn++
		if !c.predicted(now, s) {
			c.arrivesOtherwise(now, s)
		}
	}
}

// arrivesSynSent is RFC 9293 section 3.10.7.3.
func (c *Conn) arrivesSynSent(now clock.Time, s *Segment) {
	// First, check the ACK bit.
	if s.has(ACK) && (!s.Ack.After(c.snd.iss) || s.Ack.After(c.snd.nxt)) {
		if !s.has(RST) {
			c.answerRST(s.Ack, 0, RST)
		}
		return
	}
	// Second, check the RST bit. Without an ACK of the SYN it proves nothing
	// (RFC 5961 section 3.2).
	if s.has(RST) {
		if s.has(ACK) {
			c.layer.stats.AttemptFails++
			c.fail(ErrRefused)
		}
		return
	}
	// Third, security: IPv4's option is not in use. Fourth, check the SYN bit.
	if !s.has(SYN) {
		return
	}
	c.takeSYN(now, s)
	c.takeSYNOptions(now, s)
	c.rcv.adv = c.rcv.nxt + Seq(c.synWindow()) // as our SYN announced it
	c.snd.wl1, c.snd.wl2 = s.Seq, s.Ack
	if !s.has(ACK) {
		// Simultaneous open: <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>.
		c.setState(SynReceived)
		c.due.syn = true
		c.timer.retries = 0
		return
	}
	c.snd.una = s.Ack
	c.establish(now, s)
	c.due.ack = true
	if s.PayloadLen() == 0 && !s.has(FIN) {
		return
	}
	// Other controls and text in the segment go on at the sixth step.
	rest := *s
	rest.Seq++
	rest.Flags &^= SYN
	c.afterACK(now, &rest)
}

// arrivesOtherwise is RFC 9293 section 3.10.7.4.
func (c *Conn) arrivesOtherwise(now clock.Time, s *Segment) {
	if c.state == SynReceived && s.has(SYN) && s.Seq == c.rcv.irs {
		c.arrivesSYNAgain(now, s)
		return
	}
	// First, check the sequence number, after the timestamp (RFC 7323
	// section 5.3).
	if !c.checkTimestamp(now, s) || !c.checkSequence(now, s) {
		return
	}
	c.heard(now)
	// Second, check the RST bit.
	if s.has(RST) {
		c.arrivesRST(now, s)
		return
	}
	// Third, security: IPv4's option is not in use. Fourth, check the SYN bit.
	if s.has(SYN) {
		c.arrivesSYN(now)
		return
	}
	// Fifth, check the ACK field.
	if !s.has(ACK) {
		return
	}
	if c.arrivesACK(now, s) {
		c.afterACK(now, s)
	}
}

// afterACK is the sixth to the eighth step: URG, the text and FIN.
func (c *Conn) afterACK(now clock.Time, s *Segment) {
	if c.state == Closed {
		return
	}
	if s.has(URG) {
		c.arrivesURG(s)
	}
	c.noteECN(s)
	if s.PayloadLen() > 0 || s.has(FIN) {
		c.arrivesText(now, s)
	}
}

// acceptable is the test of RFC 9293 section 3.10.7.4, table 6: some of the
// segment lies in a receive window of this size that begins at nxt. A whole segment
// around the window has bytes for us too, which table 6 does not see.
func (s *Segment) acceptable(nxt Seq, window uint32) bool {
	length := s.Len()
	switch {
	case length == 0 && window == 0:
		return s.Seq == nxt
	case length == 0:
		return s.Seq.In(nxt, window)
	case window == 0:
		return false
	}
	return s.Seq.In(nxt, window) || s.Seq.Add(length-1).In(nxt, window) ||
		s.Seq.Before(nxt) && s.end().After(nxt+Seq(window))
}

// checkSequence is the first check. What is not acceptable is answered with an
// ACK, unless it is an RST.
func (c *Conn) checkSequence(now clock.Time, s *Segment) bool {
	if s.acceptable(c.rcv.nxt, c.rcvWnd()) {
		return true
	}
	// "If the RCV.WND is zero, no segments will be acceptable, but special
	// allowance should be made to accept valid ACKs, URGs, and RSTs."
	if c.rcvWnd() == 0 && s.Seq == c.rcv.nxt {
		c.due.ack = c.due.ack || s.Len() > 0 && !s.has(RST)
		return true
	}
	c.layer.stats.OutOfWindow++
	if s.has(RST) {
		// A peer that sent a FIN and then an RST may number the RST as if the
		// FIN took no number, and the connection is over all the same.
		if c.rcv.finDone && s.Seq+1 == c.rcv.nxt {
			c.reset()
		}
		return false
	}
	if c.state == TimeWait && s.has(FIN) && s.end() == c.rcv.nxt {
		// A retransmission of the remote FIN: "Acknowledge it, and restart the 2
		// MSL timeout."
		c.timer.keepAt = now.Add(c.layer.cfg.TimeWait)
		c.due.ack = true
		return false
	}
	c.duplicate(s)
	c.answerInvalid(now, s)
	return false
}

// arrivesRST is the second check with the rules of RFC 5961 section 3.2: only an
// RST at exactly RCV.NXT is believed.
func (c *Conn) arrivesRST(now clock.Time, s *Segment) {
	if s.Seq != c.rcv.nxt {
		c.challenge(now)
		return
	}
	c.reset()
}

// reset is what each state does with a good RST.
func (c *Conn) reset() {
	switch c.state {
	case SynReceived:
		// A passive open returns to LISTEN and the user hears nothing; an
		// active one was refused.
		c.layer.stats.AttemptFails++
		if c.opt.passive {
			c.setState(Closed)
			return
		}
		c.fail(ErrRefused)
	case Closing, LastAck, TimeWait:
		c.setState(Closed)
	default:
		c.layer.stats.EstabResets++
		c.fail(ErrReset)
	}
}

// arrivesSYN is the fourth check. In a synchronized state the answer is a
// challenge ACK (RFC 5961 section 4.2), TIME-WAIT included where the SYN does not
// begin a new connection (see Reusable).
func (c *Conn) arrivesSYN(now clock.Time) {
	if c.state == SynReceived && c.opt.passive {
		c.setState(Closed)
		return
	}
	c.challenge(now)
}

// arrivesSYNAgain takes a segment in SYN-RECEIVED that has the number of the
// peer's SYN: the SYN repeated because our SYN-ACK was lost, or the SYN-ACK of a
// simultaneous open (RFC 9293 section 3.5, figure 8).
func (c *Conn) arrivesSYNAgain(now clock.Time, s *Segment) {
	switch {
	case s.has(RST):
		// Before RCV.NXT, so outside of the window.
	case s.has(ACK) && !c.opt.passive:
		again := *s
		again.Seq++
		again.Flags &^= SYN
		c.arrivesOtherwise(now, &again)
		if c.state.Synchronized() {
			// A window in a SYN is never scaled (RFC 7323 section 2.2).
			c.snd.wnd = uint32(s.Window)
			c.snd.maxWnd = c.snd.wnd
		}
		c.due.ack = c.due.ack || c.state == Established
	case s.has(ACK):
		c.challenge(now)
	default:
		c.due.syn = true
	}
}

// arrivesACK is the fifth check, and reports whether the segment goes on.
func (c *Conn) arrivesACK(now clock.Time, s *Segment) bool {
	if c.state == SynReceived {
		if !s.Ack.After(c.snd.una) || s.Ack.After(c.snd.nxt) {
			c.answerRST(s.Ack, 0, RST)
			return false
		}
		c.snd.wl1, c.snd.wl2 = s.Seq, s.Ack
		c.snd.wnd = uint32(s.Window) << c.snd.scale
		c.snd.maxWnd = max(c.snd.maxWnd, c.snd.wnd)
		c.snd.una = c.snd.iss + 1
		c.establish(now, s)
		if c.snd.finWanted {
			c.setState(FinWait1)
		}
	}
	// RFC 5961 section 5.2: SND.UNA-MAX.SND.WND =< SEG.ACK =< SND.NXT.
	if s.Ack.After(c.snd.nxt) || s.Ack.Before(c.snd.una-Seq(c.snd.maxWnd)) {
		c.challenge(now)
		return false
	}
	c.updateTimestamp(now, s)
	if c.state == TimeWait {
		// "The only thing that can arrive in this state is a retransmission of
		// the remote FIN", and the first check has seen that.
		return false
	}
	c.acknowledged(now, s)
	switch c.state {
	case FinWait1:
		if c.snd.finAcked {
			c.enterFinWait2(now)
		}
	case Closing:
		if c.snd.finAcked {
			c.enterTimeWait(now)
		}
	case LastAck:
		if c.snd.finAcked {
			c.setState(Closed)
		}
	}
	return c.state != Closed
}

// establish enters ESTABLISHED, when our SYN was acknowledged.
func (c *Conn) establish(now clock.Time, s *Segment) {
	cfg := &c.layer.cfg
	c.due.syn = false
	if c.timer.retries == 0 && c.timer.synAt != clock.Never {
		c.rtt.sample(now, now.Sub(c.timer.synAt), 1, cfg)
	} else if c.ts.on && s.Options.Timestamp.Ecr != 0 && c.timer.synAt != clock.Never {
		c.sampleEcho(now, s, 1)
	}
	c.cc.start(cfg, c.timer.retries)
	c.tuneSend(0)
	c.stopRexmt()
	c.timer.retries = 0
	c.timer.progressAt = now
	c.setState(Established)
	c.heard(now)
	c.armKeepAlive(now)
	c.cc.highSeq = c.snd.una
	c.rcv.rttSeq, c.rcv.rttAt = c.rcv.adv, now
}

// heard notes that the peer is alive.
func (c *Conn) heard(now clock.Time) {
	c.timer.heardAt = now
	c.timer.keepSent = 0
}

// arrivesURG is the sixth step (RFC 9293 section 3.8.5): the user is told, and the
// bytes stay in line.
func (c *Conn) arrivesURG(s *Segment) {
	if !c.state.canReceive() {
		return
	}
	up := s.Seq + Seq(s.Urgent)
	if c.rcv.urgent && !up.After(c.rcv.up) || !up.After(c.rcv.nxt) {
		return
	}
	c.rcv.up = up
	if !c.rcv.urgent {
		c.events |= Urgent
	}
	c.rcv.urgent = true
}

// arrivesText is the seventh and the eighth step: the text and FIN.
func (c *Conn) arrivesText(now clock.Time, s *Segment) {
	if !c.state.canReceive() {
		// The peer sent its FIN: what is behind it does not exist.
		return
	}
	if c.rcv.shut && c.state != Established && s.PayloadLen() > 0 && s.Seq.Add(s.PayloadLen()).After(c.rcv.nxt) {
		// RFC 9293 section 3.6.1, RFC 2525 section 2.17: data for a user
		// that closed is answered with RST, so that the peer learns that it is
		// lost.
		c.answerRST(s.Ack, 0, RST)
		c.fail(ErrAborted)
		return
	}
	c.receive(now, s)
	if c.rcv.finSeen && !c.rcv.finDone && c.rcv.nxt == c.rcv.fin {
		c.arrivesFIN(now)
	}
}

// arrivesFIN is the eighth step, once all in front of the FIN is there.
func (c *Conn) arrivesFIN(now clock.Time) {
	c.rcv.finDone = true
	c.rcv.nxt++
	if c.rcv.adv.Before(c.rcv.nxt) {
		c.rcv.adv = c.rcv.nxt
	}
	c.due.ack = true
	c.dropHoles()
	c.events |= EndOfStream | Readable
	switch c.state {
	case Established:
		c.setState(CloseWait)
	case FinWait1:
		// Our FIN is not acknowledged, or the fifth step had moved on.
		c.setState(Closing)
	case FinWait2:
		c.enterTimeWait(now)
	}
}

// sampleEcho measures a round trip by the timestamp that came back (RFC 7323
// section 4).
func (c *Conn) sampleEcho(now clock.Time, s *Segment, samples uint32) {
	ticks := c.timestamp(now) - s.Options.Timestamp.Ecr
	if int32(ticks) < 0 || ticks > 1<<24 {
		return
	}
	c.rtt.sample(now, max(time.Duration(ticks), 1)*time.Millisecond, samples, &c.layer.cfg)
}
