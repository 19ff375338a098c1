package tcp

// agreeECN takes what a SYN or a SYN-ACK says about ECN (RFC 3168 section 6.1.1).
func (c *Conn) agreeECN(s *Segment) {
	mode := c.layer.cfg.ECN
	if s.has(ACK) {
		c.opt.ecn = c.opt.ecn && s.Flags&(ECE|CWR) == ECE
		return
	}
	c.opt.ecn = mode != ECNOff && s.has(ECE|CWR)
}

// ecnOnSYN asks for ECN or agrees to it. A SYN that had no answer is repeated
// without, for networks that drop it (RFC 3168 section 6.1.1.1).
func (c *Conn) ecnOnSYN(s *Segment) {
	if !c.opt.ecn {
		return
	}
	if c.state == SynReceived {
		s.Flags |= ECE
		return
	}
	if c.timer.retries > 0 {
		c.opt.ecn = false
		return
	}
	s.Flags |= ECE | CWR
}

// ecnOnData marks a segment of new text as ECN-capable, and tells once that
// cwnd was reduced (RFC 3168 sections 6.1.2 and 6.1.5: neither on retransmissions).
func (c *Conn) ecnOnData(s *Segment) {
	if !c.opt.ecn {
		return
	}
	s.ECN = ECT0
	if c.cc.cwrDue {
		s.Flags |= CWR
	}
}

// ecnReduced notes that cwnd was reduced for whatever reason (RFC 3168 section
// 6.1.2).
func (c *Conn) ecnReduced() { c.cc.cwrDue = c.opt.ecn }

// noteECN is the receiver's part (RFC 3168 section 6.1.3): from a CE mark on every ACK
// says ECE, until CWR answers.
func (c *Conn) noteECN(s *Segment) {
	if !c.opt.ecn {
		return
	}
	if s.has(CWR) {
		c.cc.echoCE = false
	}
	if s.ECN == CE && s.PayloadLen() > 0 {
		if !c.cc.echoCE {
			c.due.ack = true
		}
		c.cc.echoCE = true
	}
}
