package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// selectWindow moves the right edge of the receive window as far as the buffer
// allows and returns the field of a segment. The edge never goes back (RFC 9293
// section 3.8.6, SHLD-14), and goes on only by a good step, so that the sender
// is not led to small segments (section 3.8.6.2.2, MUST-39).
func (c *Conn) selectWindow() uint16 {
	used, limit := c.rx.Used(), c.rx.Limit()
	edge := c.rcv.nxt.Add(c.freeOf(limit, used))
	if edge.Sub(c.rcv.adv) >= c.goodStep(limit) || c.rcv.adv == c.rcv.nxt && edge != c.rcv.adv && used == 0 {
		c.rcv.adv = edge
	}
	field := c.rcvWnd() >> c.rcv.scale
	if field > 65535 {
		field = 65535
		c.rcv.adv = c.rcv.nxt + Seq(field<<c.rcv.scale)
	}
	return uint16(field)
}

// freeReceive returns how many bytes from RCV.NXT on have room.
func (c *Conn) freeReceive() int { return c.freeOf(c.rx.Limit(), c.rx.Used()) }

// freeOf is the same of a buffer with this limit and so many bytes in it.
func (c *Conn) freeOf(limit, used int) int { return min(max(0, limit-used), 65535<<c.rcv.scale) }

// goodStep is min(Fr*RCV.BUFF, Eff.snd.MSS) with Fr = 1/2.
func (c *Conn) goodStep(limit int) int32 { return int32(max(1, min(limit/2, int(c.rcv.mss)))) }

// windowUpdateDue reports whether the user read so much that the peer should
// hear of it without having sent anything: the window would at least double,
// and not by too little.
func (c *Conn) windowUpdateDue() bool {
	free := uint32(c.freeReceive())
	now := c.rcvWnd()
	return free >= 2*now && int32(free-now) >= c.goodStep(c.rx.Limit())
}

// measureReceiver estimates the round trip as a receiver can: by the timestamp
// that a full segment echoes, or by the time in which one window's worth of
// bytes arrives, for it was sent upon the ACK of the one before.
func (c *Conn) measureReceiver(now clock.Time, s *Segment) {
	if ts := &s.Options.Timestamp; c.ts.on && ts.Ecr != 0 {
		// An idle sender echoes late, so that only the least counts much.
		if ticks := c.timestamp(now) - ts.Ecr; len(s.Payload) >= int(c.rcv.mss) && ticks-1 < 1<<20 {
			c.sampleReceiver(ticks * 1000)
		}
		return
	}
	if c.rcv.nxt.Before(c.rcv.rttSeq) {
		return
	}
	if c.rcv.rttAt != clock.Never {
		c.sampleReceiver(uint32(min(max(now.Sub(c.rcv.rttAt)/time.Microsecond, 1), 1<<30)))
	}
	c.rcv.rttSeq, c.rcv.rttAt = c.rcv.adv, now
}

// sampleReceiver takes a round trip in µs: a lesser one at once, a greater one
// slowly.
func (c *Conn) sampleReceiver(us uint32) {
	if c.rcv.rtt == 0 || us < c.rcv.rtt {
		c.rcv.rtt = us
		return
	}
	c.rcv.rtt += (us - c.rcv.rtt) / 8
}

// autotune makes the receive buffer follow what the user takes in a round trip:
// dynamic right-sizing (Fisk and Feng, 2001). Twice that much lets the sender's
// slow start double.
func (c *Conn) autotune(now clock.Time) {
	rtt := time.Duration(c.rcv.rtt) * time.Microsecond
	if rtt == 0 {
		rtt = c.rtt.srtt
	}
	if rtt == 0 || now.Sub(c.rcv.tunedAt) < rtt {
		return
	}
	if copied := c.rcv.read; copied > c.rcv.space {
		if !c.opt.fixedReceive {
			// A sender that still doubles sends as much more as the last round
			// trip added.
			want := 2*uint64(copied) + 16*uint64(c.rcv.mss)
			want += 2 * want * uint64(copied-c.rcv.space) / uint64(max(1, c.rcv.space))
			want = min(want, uint64(c.layer.cfg.ReceiveBufferMax))
			if int(want) > c.rx.Limit() {
				c.rx.SetLimit(int(want))
			}
		}
		c.rcv.space = copied
	}
	c.rcv.read = 0
	c.rcv.tunedAt = now
}

// tuneSend lets the send buffer hold two windows, so that the user can refill
// it while the first is on its way: but no more than mostSend, for a buffer beyond a
// core's cache costs more for each byte. acked is how many bytes have just left it.
func (c *Conn) tuneSend(acked int) {
	if c.opt.fixedSend {
		return
	}
	limit, cfg := c.tx.Limit(), &c.layer.cfg
	if !c.snd.bulk {
		if c.tx.Used()+acked <= limit/2 {
			return // the user does not use what there is
		}
		c.countBulk(true)
	}
	want := 2 * int(max(c.cc.cwnd, uint32(cfg.InitialWindow))) * int(c.snd.mss)
	want = min(max(want, limit), max(c.mostSend(), cfg.SendBuffer), cfg.SendBufferMax)
	if want != limit {
		c.tx.SetLimit(want)
	}
}

// countBulk counts the connection among those that send in bulk, or no longer.
func (c *Conn) countBulk(is bool) {
	if c.snd.bulk == is {
		return
	}
	if c.snd.bulk = is; is {
		c.layer.bulk++
	} else {
		c.layer.bulk--
	}
}

// SendRests says that the user has not written for a while, and all that it had is
// acknowledged: the send buffer begins again as it began.
func (c *Conn) SendRests() {
	if c.snd.bulk && !c.opt.fixedSend {
		c.tx.SetLimit(c.layer.cfg.SendBuffer)
	}
	c.countBulk(false)
}

const (
	// nearBuffer is the send buffer in bytes that any path may have: two bursts,
	// one on its way and one to come, still fit a core's cache.
	nearBuffer = 2 * burstBytes
	// fastestPath is 40 Gbit/s in bytes a nanosecond.
	fastestPath = 5
	// fairPath is 0.5 Gbit/s, in nanoseconds a byte.
	fairPath = 16
)

// mostSend is what two of the least round trips take at the rate of the fastest
// path, in bytes, shared by all connections that send in bulk: but for each as much as they take at
// 0.5 Gbit/s. A path that has become much longer than its least is not
// believed to be near any more: its queues alone do not make it that.
func (c *Conn) mostSend() int {
	all := max(nearBuffer, 2*fastestPath*int(max(c.rtt.min, c.rtt.srtt/32)))
	return max(all/max(1, c.layer.bulk), 2*int(c.rtt.min)/fairPath)
}
