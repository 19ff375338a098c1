package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// newReno is the standard congestion control of RFC 5681.
type newReno struct{}

// acked is slow start and congestion avoidance (RFC 5681 section 3.1).
func (newReno) acked(c *Conn, _ clock.Time, n uint32, rtt time.Duration) {
	cc := &c.cc
	if !cc.limitedNow {
		return
	}
	if cc.slowStart() {
		if n = c.hystart(n, rtt); n == 0 {
			return
		}
	}
	cc.growBy(cc.cwnd, n)
}

// reduced is half of what is in flight (RFC 5681 section 3.1, equation 4; cwnd
// stands for FlightSize, because it is validated).
func (newReno) reduced(c *Conn) uint32 { return max(c.cc.cwnd/2, minCwnd) }

func (newReno) timedOut(*Conn) {}

func (newReno) undone(*Conn) {}

func (newReno) idled(*Conn, time.Duration) {}
