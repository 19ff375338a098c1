package tcp

import "kitnet.dev/kit/stack/clock"

// Abort is ABORT (RFC 9293 section 3.10.5): the connection is gone, and where
// the peer may still believe in it Emit sends <SEQ=SND.NXT><CTL=RST>. With
// SO_LINGER of zero this is the user's close.
func (c *Conn) Abort(now clock.Time) {
	switch c.state {
	case Closed:
		return
	case SynReceived, Established, FinWait1, FinWait2, CloseWait:
		seq := c.snd.nxt
		// Behind a window that was taken back the peer would not believe it.
		if edge := c.snd.una + Seq(c.snd.wnd); c.state != SynReceived && seq.After(edge) {
			seq = edge
		}
		c.answerRST(seq, c.rcv.nxt, RST|ACK)
	}
	if c.err == None && c.state != TimeWait {
		c.err = ErrAborted
	}
	c.setState(Closed)
}
