package tcp

import "kitnet.dev/kit/stack/clock"

// enterTimeWait waits 2 MSL for what is still in the network (RFC 9293 section
// 3.6.1, MUST-13). Nothing but ACKs leave from now on.
func (c *Conn) enterTimeWait(now clock.Time) {
	c.stopRexmt()
	c.timer.paceAt = clock.Never
	c.dropFlight()
	c.dropHoles()
	c.setState(TimeWait)
	c.timer.keepAt = now.Add(c.layer.cfg.TimeWait)
}

// Reusable reports whether a SYN that arrives in TIME-WAIT begins a new
// connection of the same name: its timestamp is greater than the last one of
// the old connection, or, where one of them has none or they are equal, its
// sequence number is (RFC 6191 section 2; RFC 9293 section 3.6.1, MAY-2). The caller
// then forgets c and hands the SYN to the listener, and Accept to AcceptAfter.
func (c *Conn) Reusable(s *Segment) bool { return c.state == TimeWait && s.newerThan(c.rcv.nxt, &c.ts) }

// newerThan reports whether s is a SYN that begins another connection than the one
// with this RCV.NXT and these timestamps.
func (s *Segment) newerThan(nxt Seq, old *timestamps) bool {
	if s.Flags&(SYN|ACK|RST) != SYN {
		return false
	}
	newer := s.Seq.After(nxt - 1)
	ts := &s.Options.Timestamp
	if !old.on || !ts.Has {
		// Old without, new with: the sender has changed its mind, which a
		// timestamp of its own does not prove to be newer.
		return newer
	}
	age := int32(ts.Val - old.recent)
	return age > 0 || age == 0 && newer
}

// AcceptAfter is Accept in place of a connection in TIME-WAIT. Its sequence
// numbers begin behind those of the old one (RFC 9293 section 3.6.1, MAY-2).
func (c *Conn) AcceptAfter(now clock.Time, syn *Segment, old *Conn) {
	nxt := old.snd.nxt
	c.Accept(now, syn)
	if !c.snd.iss.After(nxt) {
		iss := nxt + 65537
		c.snd.iss, c.snd.una, c.snd.nxt, c.snd.up, c.snd.small = iss, iss, iss, iss, iss
	}
}
