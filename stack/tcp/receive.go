package tcp

import "kitnet.dev/kit/stack/clock"

// receive takes the text of an acceptable segment and notes its FIN: what lies
// in the window goes to its final place in the receive stream, in order or not
// (RFC 9293 section 3.10.7.4, seventh).
func (c *Conn) receive(now clock.Time, s *Segment) {
	seq, p, fin := s.Seq, s.Payload, s.has(FIN)
	c.rcv.mss = max(c.rcv.mss, uint16(min(len(p), int(c.announcedMSS()))))
	c.dataArrived(now)
	if seq.Before(c.rcv.nxt) {
		have := min(int(c.rcv.nxt-seq), len(p))
		c.reportDuplicate(seq, seq.Add(have))
		seq, p = seq.Add(have), p[have:]
		c.due.ack = true
	}
	if over := int(seq.Add(len(p)).Sub(c.rcv.adv)); over > 0 {
		p, fin = p[:max(0, len(p)-over)], false
		c.due.ack = true
	}
	offset := int(seq - c.rcv.nxt)
	if len(p) > 0 {
		if offset > 0 && !c.roomForRange(seq, seq.Add(len(p))) {
			c.layer.stats.OutOfOrderDrops++
			c.due.ack = true
			return
		}
		if n := c.rx.Put(offset, p); n < len(p) {
			p, fin = p[:n], false
		}
	}
	if fin {
		c.rcv.fin, c.rcv.finSeen = seq.Add(len(p)), true
		c.due.ack = true
	}
	if len(p) == 0 {
		return
	}
	if offset > 0 {
		c.layer.stats.OutOfOrder++
		c.keepRange(seq, seq.Add(len(p)))
		return
	}
	c.advance(len(p))
	c.measureReceiver(now, s)
}

// advance commits n bytes that were put at RCV.NXT, and what had arrived behind
// them before.
func (c *Conn) advance(n int) {
	c.rcv.nxt = c.rcv.nxt.Add(n)
	if h := c.holes; h != nil {
		// RFC 5681 section 4.2: an ACK at once for what fills a gap.
		c.due.ack = true
		n += c.absorb()
	}
	c.rx.Commit(n)
	c.count.received += uint64(n)
	c.events |= Readable
	if c.rcv.urgent && !c.rcv.up.After(c.rcv.nxt) {
		c.rcv.urgent = false
	}
}

// absorb moves RCV.NXT over the ranges that are now in order and returns how
// many bytes that is.
func (c *Conn) absorb() int {
	h, from := c.holes, c.rcv.nxt
	k := 0
	for ; k < len(h.ranges) && !h.ranges[k].left.After(c.rcv.nxt); k++ {
		if h.ranges[k].right.After(c.rcv.nxt) {
			c.rcv.nxt = h.ranges[k].right
		}
	}
	h.ranges = append(h.ranges[:0], h.ranges[k:]...)
	if len(h.ranges) == 0 {
		c.dropHoles()
	}
	return int(c.rcv.nxt - from)
}

// ReceiveRead tells that the user took n bytes from the receive stream, so that
// the window may open. The bytes were released already.
func (c *Conn) ReceiveRead(now clock.Time, n int) {
	c.rcv.read += uint32(min(n, 1<<30))
	if !c.state.canReceive() {
		return
	}
	c.autotune(now)
	if c.windowUpdateDue() {
		c.due.ack = true
	}
}

// UrgentPending returns how many bytes from the last one committed to the
// urgent pointer are still to come, and whether the peer is in urgent mode
// (RFC 9293 section 3.8.5).
func (c *Conn) UrgentPending() (n int, ok bool) {
	return int(c.rcv.up - c.rcv.nxt), c.rcv.urgent
}
