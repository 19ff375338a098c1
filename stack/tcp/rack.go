package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// reorderPersist is how many recoveries a widened reordering window lasts
// (RFC 8985 section 6.2, step 4).
const reorderPersist = 16

// rackState is the part of RACK that outlives what is in flight.
type rackState struct {
	round   uint64 // RACK.dsack_round, see position
	mult    uint8  // RACK.reo_wnd_mult
	persist uint8  // RACK.reo_wnd_persist
	seen    bool   // RACK.reordering_seen
	extent  uint32 // of the worst reordering, in segments (RFC 4737 section 4.2.1)
}

// sentAfter reports whether a segment left after another; of one batch the one
// with higher numbers did (RFC 8985 section 6.2, RACK_sent_after).
func sentAfter(at1 clock.Time, end1 Seq, at2 clock.Time, end2 Seq) bool {
	return at1.After(at2) || at1 == at2 && end1.After(end2)
}

// rackArrived is steps 1 to 3 of RFC 8985 section 6.2: the most recently sent
// segment that arrived. A segment sent again that seems to have come back
// faster than the least round trip is the first copy's.
func (c *Conn) rackArrived(now clock.Time, r *sent) {
	f := c.flight
	rtt := now.Sub(r.at)
	if r.mark&everRexmt != 0 && rtt < c.rtt.min {
		return
	}
	if sentAfter(r.at, r.end, f.rack.at, f.rack.end) {
		f.rack.at, f.rack.end, f.rack.rtt = r.at, r.end, rtt
	}
}

// reordered notes that a segment arrived after one with higher numbers that was
// sent later (RFC 8985 section 6.2, step 3), which ends this many numbers behind its
// beginning.
func (c *Conn) reordered(by int32) {
	c.count.reorderings++
	c.cc.rack.extent = max(c.cc.rack.extent, uint32(max(0, by)+int32(c.snd.mss)-1)/uint32(c.snd.mss))
	c.cc.rack.seen = true
}

// reorderWindow is step 4: how much later than its successors a segment may
// arrive. While nothing was ever reordered, three SACKed segments or a recovery
// need no patience.
func (c *Conn) reorderWindow() time.Duration {
	k := &c.cc.rack
	if !k.seen && (c.cc.state >= caRecovery || c.flight != nil && c.flight.sacked >= dupThresh) {
		return 0
	}
	return min(time.Duration(max(1, k.mult))*c.rtt.min/4, c.rtt.srtt)
}

// rackDSACK widens the window once a round trip in which a retransmission turned
// out to be in vain.
func (c *Conn) rackDSACK() {
	k := &c.cc.rack
	if c.count.delivered < k.round {
		return
	}
	k.round = c.position(c.snd.nxt)
	k.mult = min(max(1, k.mult), 254) + 1
	k.persist = reorderPersist
	k.seen = true
}

// rackRecovered counts a recovery that ended.
func (c *Conn) rackRecovered() {
	k := &c.cc.rack
	if k.persist > 0 {
		k.persist--
		if k.persist == 0 {
			k.mult = 1
		}
	}
}

// rackDetect is step 5 (RACK_detect_loss): a segment is lost if one that was sent
// later arrived, and a round trip and the reordering window have passed since it
// was sent. Where the window has not passed yet, a timer ends it.
func (c *Conn) rackDetect(now clock.Time, e *ackEvent) {
	f := c.flight
	if f.rack.at == clock.Never {
		return
	}
	wait := f.rack.rtt + c.reorderWindow()
	var timeout time.Duration
	for i := f.skipSacked(f.first); i != f.first+f.n; i = f.skipSacked(i + 1) {
		r := f.rec(i)
		if !sentAfter(f.rack.at, f.rack.end, r.at, r.end) {
			if r.mark&everRexmt == 0 {
				break // and so is all that was sent behind it
			}
			continue
		}
		if r.mark&(lost|rexmt) == lost {
			continue
		}
		if remaining := r.at.Add(wait).Sub(now); remaining > 0 {
			timeout = max(timeout, remaining)
		} else if f.markLost(i) {
			e.lost++
		}
	}
	if timeout > 0 {
		c.timer.kind, c.timer.rexmtAt = timerReorder, now.Add(timeout)
	}
}

// reorderTimeout is the end of the reordering window (RFC 8985 section 6.3).
func (c *Conn) reorderTimeout(now clock.Time) {
	f := c.flight
	if f == nil || f.n == 0 {
		return
	}
	var e ackEvent
	c.rackDetect(now, &e)
	c.count.lost += e.lost
	if e.lost > 0 && c.cc.state < caRecovery {
		c.enterRecovery(&e)
		e.acked = 1
		c.reduce(&e)
	}
	if c.timer.rexmtAt == clock.Never {
		c.armRTO(now)
	}
}
