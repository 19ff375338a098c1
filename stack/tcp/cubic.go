package tcp

import (
	"math"
	"time"

	"kitnet.dev/kit/stack/clock"
)

// cubic is RFC 9438.
type cubic struct{}

// Constants of RFC 9438 sections 4.2, 4.6 and 4.3.
const (
	cubicC     = 0.4 // segments per second^3
	cubicBeta  = 0.7
	cubicAlpha = 3 * (1 - cubicBeta) / (1 + cubicBeta)
)

// cubicState are the variables of RFC 9438 section 4.1.2. Windows are in
// segments.
type cubicState struct {
	epoch clock.Time // t_epoch; Never before congestion avoidance
	wMax  float64    // W_max
	k     float64    // K, seconds
	wEst  float64    // W_est
	prior float64    // W_max before the last reduction, to undo it
}

// acked is slow start with HyStart++ (RFC 9438 section 4.10) and the three regions
// of section 4.2 to 4.5.
func (cubic) acked(c *Conn, now clock.Time, n uint32, rtt time.Duration) {
	cc := &c.cc
	if !cc.limitedNow {
		return
	}
	if cc.slowStart() {
		if n = c.hystart(n, rtt); n == 0 {
			return
		}
	}
	s := &cc.algorithm.cubic
	if s.epoch == clock.Never {
		s.begin(now, float64(cc.cwnd))
	}
	target := s.target(float64(cc.cwnd), now.Sub(s.epoch)+c.rtt.srtt)
	alpha := float64(cubicAlpha)
	if s.wEst >= float64(cc.priorCwnd) {
		alpha = 1 // section 4.3: as fast as Reno once it is at cwnd_prior
	}
	s.wEst += alpha * float64(n) / float64(cc.cwnd)
	target = max(target, s.wEst) // the Reno-friendly region
	// (target - cwnd) / cwnd for each segment acknowledged, section 4.4.
	per := uint32(100 * cc.cwnd)
	if grow := target - float64(cc.cwnd); grow > 0 {
		per = uint32(min(float64(per), float64(cc.cwnd)/grow))
	}
	cc.growBy(max(per, 2), n)
}

// begin starts an epoch of congestion avoidance (RFC 9438 section 4.2).
func (s *cubicState) begin(now clock.Time, cwnd float64) {
	s.epoch = now
	s.wEst = cwnd
	s.k = 0
	if s.wMax > cwnd {
		s.k = math.Cbrt((s.wMax - cwnd) / cubicC)
	} else {
		s.wMax = cwnd
	}
}

// target is W_cubic(t + RTT) within its limits (RFC 9438 section 4.2, equation 1
// and what follows it).
func (s *cubicState) target(cwnd float64, t time.Duration) float64 {
	// Written so that no compiler fuses the steps: golden tables compare.
	d := float64(t)/1e9 - s.k
	cube := float64(d*d) * d
	w := float64(cubicC*cube) + s.wMax
	return min(max(w, cwnd), 1.5*cwnd)
}

// reduced is the multiplicative decrease with fast convergence (RFC 9438 sections 4.6
// and 4.7).
func (cubic) reduced(c *Conn) uint32 {
	s := &c.cc.algorithm.cubic
	cwnd := float64(c.cc.cwnd)
	s.prior = s.wMax
	s.epoch = clock.Never
	if cwnd < s.wMax {
		s.wMax = cwnd * (1 + cubicBeta) / 2
	} else {
		s.wMax = cwnd
	}
	return max(uint32(cwnd*cubicBeta), minCwnd)
}

// timedOut is RFC 9438 section 4.8: congestion avoidance after a time-out begins anew, with W_max its first cwnd
// and K 0, for what was known of the path is old.
func (cubic) timedOut(c *Conn) {
	s := &c.cc.algorithm.cubic
	s.wMax, s.epoch = 0, clock.Never
}

// undone is RFC 9438 section 4.9: the reduction had no reason.
func (cubic) undone(c *Conn) {
	s := &c.cc.algorithm.cubic
	s.wMax = max(s.wMax, s.prior)
	s.epoch = clock.Never
}

// idled lets the epoch stand still while nothing was sent (RFC 9438 section
// 5.8).
func (cubic) idled(c *Conn, d time.Duration) {
	if s := &c.cc.algorithm.cubic; s.epoch != clock.Never {
		s.epoch = s.epoch.Add(d)
	}
}
