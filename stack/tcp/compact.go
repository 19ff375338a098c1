package tcp

import (
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// TimeWaitConn is a connection in TIME-WAIT, and that alone: a seventh of a Conn,
// without streams, for the minute in which nothing but a repeated FIN is to come. It
// answers every segment as its Conn would. Its zero value is of no use before
// Conn.Compact; like a Conn it belongs to a Layer's goroutine.
//
// The caller's step is that of a Conn: Arrives, Timeout if Deadline has passed,
// Emit, and then State.
type TimeWaitConn struct {
	layer     *Layer
	ts        timestamps
	until     clock.Time // end of 2 MSL; Never in CLOSED
	invalidAt clock.Time // last answer to an unacceptable segment
	id        ID
	snd       Seq    // SND.NXT, which is SND.UNA: our FIN is acknowledged
	maxWnd    uint32 // MAX.SND.WND
	rcv       Seq    // RCV.NXT, behind the peer's FIN
	rcvWnd    uint32 // RCV.WND
	dsack     span   // of the next ACK, empty for none
	window    uint16 // as announced
	sack      bool
	ece       bool
	due       bool // an ACK
}

// Compact makes t the compact form of a connection in TIME-WAIT to which Emit has
// nothing to add, and reports whether c is one. The caller then takes its last Events
// and forgets c. The receive stream may still have bytes that the user has not read; no
// window will follow from reading them.
func (c *Conn) Compact(t *TimeWaitConn) bool {
	if c.state != TimeWait || c.due.ack || c.due.rst || c.due.probe || c.rcv.acked != c.rcv.nxt {
		return false
	}
	*t = TimeWaitConn{
		layer: c.layer, ts: c.ts, until: c.timer.keepAt, invalidAt: c.timer.invalidAt, id: c.id,
		snd: c.snd.nxt, maxWnd: c.snd.maxWnd, rcv: c.rcv.nxt,
		window: c.selectWindow(), sack: c.opt.sack, ece: c.opt.ecn && c.cc.echoCE,
	}
	t.rcvWnd = c.rcvWnd()
	if c.ack.hasDSACK {
		t.dsack = c.ack.dsack
	}
	return true
}

// ID returns the connection's name.
func (t *TimeWaitConn) ID() ID { return t.id }

// State returns TimeWait, and Closed once the caller may forget t.
func (t *TimeWaitConn) State() State {
	if t.until == clock.Never {
		return Closed
	}
	return TimeWait
}

// Deadline returns when Timeout has to be called.
func (t *TimeWaitConn) Deadline() clock.Time { return t.until }

// Timeout closes the connection if 2 MSL have passed at now (RFC 9293 section
// 3.10.8).
func (t *TimeWaitConn) Timeout(now clock.Time) {
	if ripe(t.until, now) {
		t.close()
	}
}

func (t *TimeWaitConn) close() { t.until, t.due = clock.Never, false }

// Reusable is Conn.Reusable; AcceptAfterTimeWait follows.
func (t *TimeWaitConn) Reusable(s *Segment) bool {
	return t.until != clock.Never && s.newerThan(t.rcv, &t.ts)
}

// Arrives is SEGMENT ARRIVES (RFC 9293 section 3.10.7.4) in TIME-WAIT.
func (t *TimeWaitConn) Arrives(now clock.Time, s *Segment) {
	t.layer.stats.InSegments++
	if t.until == clock.Never || !t.checkTimestamp(now, s) || !t.checkSequence(now, s) {
		return
	}
	switch {
	case s.has(RST) && s.Seq == t.rcv: // RFC 5961 section 3.2
		t.close()
	case s.Flags&(RST|SYN) != 0: // section 4.2
		t.challenge(now)
	case !s.has(ACK):
	case s.Ack.After(t.snd) || s.Ack.Before(t.snd-Seq(t.maxWnd)): // section 5.2
		t.challenge(now)
	case t.ts.on && !s.Seq.After(t.rcv) && !t.ts.older(now, s.Options.Timestamp.Val):
		t.ts.recent, t.ts.recentAt = s.Options.Timestamp.Val, now
	}
}

// checkTimestamp is PAWS, see Conn.checkTimestamp.
func (t *TimeWaitConn) checkTimestamp(now clock.Time, s *Segment) bool {
	ts := &s.Options.Timestamp
	if !t.ts.on || s.has(RST) {
		return true
	}
	if ts.Has && t.ts.older(now, ts.Val) {
		t.layer.stats.PAWSRejected++
		t.answerInvalid(now, s)
		return false
	}
	return ts.Has
}

// checkSequence is the first check; a FIN that was repeated restarts 2 MSL.
func (t *TimeWaitConn) checkSequence(now clock.Time, s *Segment) bool {
	if s.acceptable(t.rcv, t.rcvWnd) {
		return true
	}
	if t.rcvWnd == 0 && s.Seq == t.rcv {
		t.due = t.due || !s.has(RST) // what has no length was acceptable
		return true
	}
	t.layer.stats.OutOfWindow++
	switch {
	case s.has(RST):
		if s.Seq+1 == t.rcv {
			t.close()
		}
	case s.has(FIN) && s.end() == t.rcv:
		t.until = now.Add(t.layer.cfg.TimeWait)
		t.due = true
	default:
		t.answerInvalid(now, s)
	}
	return false
}

// answerInvalid notes a duplicate, and an ACK unless that would go on for ever.
func (t *TimeWaitConn) answerInvalid(now clock.Time, s *Segment) {
	if n := s.PayloadLen(); t.sack && n > 0 && s.Seq.Before(t.rcv) {
		t.dsack = span{s.Seq, s.Seq.Add(n)}
		if t.dsack.right.After(t.rcv) {
			t.dsack.right = t.rcv
		}
	}
	if s.PayloadLen() > 0 || s.has(FIN) || t.layer.mayAnswer(now, &t.invalidAt) {
		t.due = true
	}
}

func (t *TimeWaitConn) challenge(now clock.Time) {
	if !t.due {
		t.due = t.layer.mayChallenge(now, &t.invalidAt)
	}
}

// Emit sends the ACK that is due, if one is. It reports whether it ended because
// out had no room.
func (t *TimeWaitConn) Emit(now clock.Time, out Output) (more bool) {
	if !t.due {
		return false
	}
	s := &t.layer.out
	*s = Segment{Seq: t.snd, Ack: t.rcv, Flags: ACK, Window: t.window, Options: wire.NoTCPOptions()}
	if t.ece {
		s.Flags |= ECE
	}
	if t.ts.on {
		s.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: t.ts.clock(now), Ecr: t.ts.recent}
	}
	if t.dsack.left != t.dsack.right {
		s.Options.NSACK, s.Options.SACK[0] = 1, wire.SACKBlock{Left: t.dsack.left, Right: t.dsack.right}
	}
	if !out.Send(s) {
		return true
	}
	t.layer.stats.OutSegments++
	t.due, t.dsack = false, span{}
	return false
}
