package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// ackEvent is what one ACK told; loss recovery and congestion control read it.
type ackEvent struct {
	fack      Seq           // highest number that the peer was known to have before
	acked     uint32        // segments newly covered by SEG.ACK
	sacked    uint32        // segments newly covered by SACK blocks
	lost      uint32        // segments newly taken for lost
	rtt       time.Duration // of the oldest segment newly covered that was sent once; 0 for none
	late      time.Duration // of the youngest
	advanced  bool          // SND.UNA moved
	rexmt     bool          // a segment that was sent again is newly covered
	original  bool          // a segment that was sent once, before highSeq, is newly covered
	dsack     bool
	duplicate bool // an ACK as RFC 5681 section 2 defines it
	ece       bool
	window    bool // the window changed
	limited   bool // cwnd was what held us back
}

// delivered returns how many segments the ACK shows to have arrived.
func (e *ackEvent) delivered() uint32 { return e.acked + e.sacked }

// acknowledged is the fifth check in ESTABLISHED (RFC 9293 section 3.10.7.4): it
// forgets what SEG.ACK covers, takes the window, and hands what it learnt to
// loss recovery and congestion control.
func (c *Conn) acknowledged(now clock.Time, s *Segment) {
	e := ackEvent{fack: c.snd.una, limited: c.cc.isLimited()}
	if c.flight != nil {
		e.fack = c.flight.fack
	}
	e.advanced = s.Ack.After(c.snd.una)
	if s.Ack.Before(c.snd.una) {
		// An old ACK. Its SACK blocks may still be news.
		if c.opt.sack && s.Options.NSACK > 0 && c.flight != nil {
			c.takeSACK(now, s, &e)
			c.recover(now, s, &e)
		}
		return
	}
	e.window = c.updateWindow(s)
	e.duplicate = !e.advanced && !e.window && s.PayloadLen() == 0 && !s.has(FIN) && c.flight != nil
	e.ece = c.opt.ecn && s.has(ECE)
	if c.opt.sack && s.Options.NSACK > 0 {
		c.takeSACK(now, s, &e)
	}
	una := c.snd.una
	if e.advanced {
		c.forget(now, s.Ack, &e)
		c.timer.retries = 0
		c.timer.progressAt = now
	}
	c.sampleRTT(now, s, &e)
	c.probeAnswered()
	c.recover(now, s, &e)
	c.armAfterACK(now, &e)
	if c.flight != nil && c.flight.n == 0 {
		c.dropFlight()
	}
	if e.advanced {
		c.tuneSend(int(c.snd.una - una))
	}
}

// updateWindow takes SEG.WND if the segment is the most recent (RFC 9293 section
// 3.10.7.4, fifth: SND.WL1 and SND.WL2) and reports whether it differs.
func (c *Conn) updateWindow(s *Segment) bool {
	if !c.snd.wl1.Before(s.Seq) && (c.snd.wl1 != s.Seq || c.snd.wl2.After(s.Ack)) {
		return false
	}
	window := uint32(s.Window) << c.snd.scale
	c.snd.wl1, c.snd.wl2 = s.Seq, s.Ack
	changed := window != c.snd.wnd
	c.snd.wnd = window
	c.snd.maxWnd = max(c.snd.maxWnd, window)
	return changed
}

// forget drops what SEG.ACK covers from the scoreboard and the send stream.
func (c *Conn) forget(now clock.Time, ack Seq, e *ackEvent) {
	bytes := int(ack - c.snd.una)
	if c.snd.finSent && ack.After(c.snd.fin) {
		c.snd.finAcked = true
		bytes--
	}
	if f := c.flight; f != nil {
		for f.n > 0 {
			r := f.rec(f.first)
			if r.end.After(ack) {
				if r.seq.Before(ack) {
					r.seq = ack
				}
				break
			}
			c.arrived(now, r, e)
			if r.mark&sacked == 0 {
				e.acked++
				if r.mark&everRexmt == 0 && r.end.Before(e.fack) {
					c.reordered(e.fack.Sub(r.seq))
				}
			}
			f.pop()
		}
		if f.fack.Before(ack) {
			f.fack = ack
		}
		if !c.opt.sack && e.rexmt {
			e.original = false // which copy of it made way for the rest?
		}
	}
	c.release(ack, bytes)
}

// release moves SND.UNA over that many bytes of the send stream, and perhaps the
// FIN.
func (c *Conn) release(ack Seq, bytes int) {
	c.snd.una = ack
	if c.snd.small.Before(ack) {
		c.snd.small = ack // or it would seem to be ahead after 2 GiB
	}
	if c.snd.urgent && !c.snd.up.After(ack) {
		c.snd.urgent = false
	}
	if bytes > 0 {
		c.tx.Release(bytes)
		c.count.delivered += uint64(bytes)
		c.events |= Writable
	}
}

// arrived notes that the peer has a segment, which r describes as it was before:
// round trips (RFC 6298 section 3: none of a segment sent again), RACK (RFC 8985
// section 6.2, steps 1 to 3) and what tells a spurious retransmission.
func (c *Conn) arrived(now clock.Time, r *sent, e *ackEvent) {
	if r.mark&sacked != 0 {
		return // it was noted then
	}
	if r.mark&everRexmt != 0 {
		e.rexmt = true
	} else {
		rtt := now.Sub(r.at)
		e.late = rtt
		if e.rtt == 0 {
			e.rtt = max(rtt, 1)
		}
		if !r.end.After(c.cc.highSeq) {
			e.original = true
		}
	}
	c.rackArrived(now, r)
}

// sampleRTT measures a round trip by what this ACK newly covers, or, where that
// was sent again, by the timestamp that came back (RFC 7323 section 4.1).
func (c *Conn) sampleRTT(now clock.Time, s *Segment, e *ackEvent) {
	samples := max(1, c.inFlight()/2)
	switch {
	case e.rtt > 0:
		c.rtt.sample(now, e.rtt, samples, &c.layer.cfg)
	case e.advanced && c.ts.on && s.Options.Timestamp.Ecr != 0:
		c.sampleEcho(now, s, samples)
	case e.advanced && c.rtt.srtt != 0:
		// RFC 6298 section 5.7 keeps a backed-off RTO until a new sample; here the
		// ACK is progress and the next segment sent brings one.
		c.rtt.set(&c.layer.cfg)
	}
}

// takeSACK marks what the SACK blocks cover (RFC 2018 section 5). Blocks that
// cannot be are ignored; a first block about what was acknowledged, or inside of
// the second, is a DSACK (RFC 2883 section 4).
func (c *Conn) takeSACK(now clock.Time, s *Segment, e *ackEvent) {
	blocks := s.Options.SACK[:min(int(s.Options.NSACK), len(s.Options.SACK))]
	first := blocks[0]
	d := span{first.Left, first.Right}
	if d.left.Before(d.right) && (!d.right.After(s.Ack) ||
		len(blocks) > 1 && !d.left.Before(blocks[1].Left) && !d.right.After(blocks[1].Right)) {
		if c.dsackPlausible(d) {
			e.dsack = true
			c.sawDSACK(d, s.Ack)
		}
		blocks = blocks[1:]
	}
	f := c.flight
	if f == nil {
		return
	}
	var seen [wire.MaxSACK]span
	for i := range blocks {
		left, right := blocks[i].Left, blocks[i].Right
		if !left.Before(right) || right.After(c.snd.nxt) || !right.After(c.snd.una) || !left.After(s.Ack) {
			continue
		}
		c.markSpan(now, left, right, e)
		seen[i] = span{left, right}
	}
	f.cache = seen
}

// markSpan marks the segments that lie whole in a block, stepping over the part
// of it that an earlier ACK reported: long blocks come again and again.
func (c *Conn) markSpan(now clock.Time, left, right Seq, e *ackEvent) {
	f := c.flight
	from := left
	for _, old := range f.cache {
		if old.left == old.right || from.Before(old.left) || from.After(old.right) {
			continue
		}
		if !right.After(old.right) {
			return
		}
		from = old.right
	}
	i := f.find(from)
	for end := f.first + f.n; i != end; i++ {
		r := f.rec(i)
		if r.end.After(right) {
			return
		}
		if r.mark&sacked != 0 || r.seq.Before(left) {
			continue
		}
		c.arrived(now, r, e)
		if r.mark&everRexmt == 0 && r.end.Before(e.fack) {
			c.reordered(e.fack.Sub(r.seq))
		}
		f.markSacked(r)
		e.sacked++
	}
}

// armAfterACK restarts or stops the retransmission timer (RFC 6298 section 5,
// rules 5.2 and 5.3), and the tail loss probe's.
func (c *Conn) armAfterACK(now clock.Time, e *ackEvent) {
	if c.flight == nil || c.flight.n == 0 {
		if c.timer.kind != timerPersist && c.timer.kind != timerOverride {
			c.stopRexmt()
		}
		return
	}
	if c.timer.kind == timerReorder && c.timer.rexmtAt != clock.Never {
		return
	}
	if e.advanced || c.timer.rexmtAt == clock.Never {
		c.armRTO(now)
	}
	if e.advanced || e.sacked > 0 {
		c.scheduleProbe(now)
	}
}
