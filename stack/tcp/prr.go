package tcp

// reduction is the state of proportional rate reduction (RFC 6937 section 3.1).
type reduction struct {
	delivered uint32 // prr_delivered, in segments
	out       uint32 // prr_out
	prior     uint32 // RecoverFS, as cwnd when the reduction began
}

// beginReduction lets cwnd go down to what congestion control wants, over a
// round trip.
func (c *Conn) beginReduction() {
	cc := &c.cc
	cc.highSeq = c.snd.nxt
	cc.tlp.active = false
	cc.count = 0
	cc.priorCwnd = cc.cwnd
	cc.prr = reduction{prior: cc.cwnd}
	cc.ssthresh = c.congestion().reduced(c)
	c.ecnReduced()
}

// reduce sets cwnd so that as many segments leave as RFC 6937 section 3.1 allows:
// in proportion to what arrives while more is in flight than wanted, and
// by slow start (PRR-SSRB) below.
func (c *Conn) reduce(e *ackEvent) {
	cc := &c.cc
	delivered := e.delivered()
	if delivered == 0 && e.lost == 0 || cc.prr.prior == 0 {
		return
	}
	pipe := c.pipe()
	cc.prr.delivered += delivered
	var n int64
	if pipe > cc.ssthresh {
		n = (int64(cc.ssthresh)*int64(cc.prr.delivered)+int64(cc.prr.prior)-1)/int64(cc.prr.prior) - int64(cc.prr.out)
	} else {
		n = max(int64(cc.prr.delivered)-int64(cc.prr.out), int64(delivered))
		if e.advanced && e.lost == 0 {
			n++ // an ACK that moves on and shows no further loss
		}
		n = min(int64(cc.ssthresh)-int64(pipe), n)
	}
	if cc.prr.out == 0 || !c.opt.sack && e.advanced && e.lost > 0 {
		n = max(n, 1) // fast retransmit does not wait, nor the one of a partial ACK (RFC 6582 section 3.2)
	}
	cc.cwnd = max(1, pipe+uint32(max(0, n)))
}

// endReduction ends with cwnd = ssthresh (RFC 6937 section 3.1).
func (c *Conn) endReduction() {
	cc := &c.cc
	if cc.ssthresh < infinite && (cc.state == caCWR || cc.undoing) {
		cc.cwnd = cc.ssthresh
	}
	cc.prr.prior = 0
}

// enterCWR reduces cwnd without a loss (RFC 3168 section 6.1.2).
func (c *Conn) enterCWR() {
	cc := &c.cc
	cc.priorSsthresh = 0
	if cc.state < caCWR {
		cc.undoing = false
		c.beginReduction()
		cc.state = caCWR
	}
}
