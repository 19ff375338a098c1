package tcp

import "kitnet.dev/kit/stack/clock"

// Shutdown is CLOSE (RFC 9293 section 3.10.4): no more data will be written, what
// was written still leaves, then FIN. Data of the peer is still received.
func (c *Conn) Shutdown(now clock.Time) {
	switch c.state {
	case SynSent:
		c.setState(Closed)
	case SynReceived:
		// "Queue for processing after entering ESTABLISHED state."
		c.snd.finWanted = true
	case Established:
		c.snd.finWanted = true
		c.setState(FinWait1)
	case CloseWait:
		c.snd.finWanted = true
		c.setState(LastAck)
	}
}

// ShutdownRead says that nobody will read any more. Data that arrives after
// our FIN is then answered with RST.
func (c *Conn) ShutdownRead() { c.rcv.shut = true }

// Close is Shutdown for a user that goes away: the connection is an orphan
// that delivers what was written and then ends by itself, FIN-WAIT-2 by a
// time-out. Data that the user left unread was lost, and the peer learns it by
// an RST (RFC 9293 section 3.6.1, SHLD-3; RFC 2525 section 2.17).
func (c *Conn) Close(now clock.Time) {
	c.opt.orphan = true
	c.rcv.shut = true
	if c.rx.Used() > 0 && c.state != Closed && c.state != TimeWait {
		c.Abort(now)
		return
	}
	c.Shutdown(now)
	if c.state == FinWait2 {
		c.timer.keepAt = now.Add(c.layer.cfg.FinWait2)
	}
}

// enterFinWait2 waits for the peer's FIN, for ever if there is a user.
func (c *Conn) enterFinWait2(now clock.Time) {
	c.setState(FinWait2)
	if c.opt.orphan {
		c.timer.keepAt = now.Add(c.layer.cfg.FinWait2)
		return
	}
	c.armKeepAlive(now)
}
