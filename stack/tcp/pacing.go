package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// Pacing gains in percent of cwnd a round trip: faster than the window in slow
// start, because it doubles, and a little faster later, so that the window and
// not the pace is the limit.
const (
	pacingSlowStart = 200
	pacingAvoidance = 120
	pacingBurst     = time.Millisecond // what leaves at once
)

// pacingRate returns bytes a second, 0 where there is no pacing.
func (c *Conn) pacingRate() uint64 {
	if !c.layer.cfg.Pacing {
		return 0
	}
	return c.rate()
}

// rate is that of pacing whether there is any or not; 0 before a round trip is
// known.
func (c *Conn) rate() uint64 {
	if c.rtt.srtt == 0 {
		return 0
	}
	gain := uint64(pacingAvoidance)
	if c.cc.cwnd < c.cc.ssthresh/2 || c.cc.ssthresh == infinite {
		gain = pacingSlowStart
	}
	window := uint64(max(c.cc.cwnd, c.inFlight())) * uint64(c.snd.mss)
	return max(1, window*gain/100*uint64(time.Second)/uint64(c.rtt.srtt))
}

// paceQuantum returns how many segments may leave at once, 0 for any number: a
// millisecond's worth, and at least two so that the peer acknowledges at once.
func (c *Conn) paceQuantum() int {
	rate := c.pacingRate()
	if rate == 0 {
		return 0
	}
	return max(2, int(rate*uint64(pacingBurst)/uint64(time.Second))/int(c.snd.mss))
}

// held reports whether pacing keeps everything back.
func (c *Conn) held(now clock.Time) bool {
	return c.timer.paceAt != clock.Never && c.timer.paceAt.After(now)
}

// paced notes that n bytes left.
func (c *Conn) paced(now clock.Time, n int) {
	rate := c.pacingRate()
	if rate == 0 || n == 0 {
		return
	}
	gap := max(1, time.Duration(uint64(n)*uint64(time.Second)/rate))
	c.timer.paceAt = max(c.timer.paceAt, now).Add(gap)
}
