package tcp

import "time"

// Constants of RFC 9406 section 4.3.
const (
	hystartMinThresh  = 4 * time.Millisecond
	hystartMaxThresh  = 16 * time.Millisecond
	hystartDivisor    = 8 // MIN_RTT_DIVISOR
	hystartSamples    = 8 // N_RTT_SAMPLE
	hystartGrowthDiv  = 4 // CSS_GROWTH_DIVISOR
	hystartRounds     = 5 // CSS_ROUNDS
	hystartUnmeasured = time.Duration(0)
)

// hystartState are the variables of RFC 9406 section 4.2.
type hystartState struct {
	windowEnd uint64        // see position
	last      time.Duration // lastRoundMinRTT
	current   time.Duration // currentRoundMinRTT
	baseline  time.Duration // cssBaselineMinRtt
	samples   uint8         // rttSampleCount
	rounds    uint8         // of CSS
	inCSS     bool          // conservative slow start
	started   bool
}

// hystart grows cwnd in slow start and leaves it when round trips grow, before
// there is loss (RFC 9406 section 4.2), upon an ACK for that many segments. It returns
// how many of them are left for congestion avoidance.
func (c *Conn) hystart(acked uint32, rtt time.Duration) uint32 {
	cc, h := &c.cc, &c.cc.algorithm.hystart
	// Section 4.3: in the initial slow start only.
	if !c.layer.cfg.HyStart || cc.ssthresh != infinite {
		return cc.growSlow(acked)
	}
	if !h.started || c.count.delivered >= h.windowEnd {
		h.nextRound(c.position(c.snd.nxt))
		if h.inCSS {
			h.rounds++
			if h.rounds >= hystartRounds {
				cc.ssthresh = cc.cwnd
				h.inCSS = false
				return acked
			}
		}
	}
	if rtt > 0 {
		if h.current == hystartUnmeasured || rtt < h.current {
			h.current = rtt
		}
		if h.samples < 255 {
			h.samples++
		}
	}
	h.judge()
	if !h.inCSS {
		return cc.growSlow(acked)
	}
	cc.count += acked
	n := cc.count / hystartGrowthDiv
	cc.count %= hystartGrowthDiv
	return cc.growSlow(n)
}

// nextRound begins a round, which ends when what is in flight now is
// acknowledged.
func (h *hystartState) nextRound(end uint64) {
	h.started = true
	h.windowEnd = end
	h.last, h.current, h.samples = h.current, hystartUnmeasured, 0
}

// judge compares this round's least round trip with the last one's.
func (h *hystartState) judge() {
	if h.samples < hystartSamples || h.current == hystartUnmeasured {
		return
	}
	if h.inCSS {
		if h.current < h.baseline {
			// The delay is gone: it was not our queue.
			h.inCSS, h.rounds = false, 0
		}
		return
	}
	if h.last == hystartUnmeasured {
		return
	}
	thresh := max(hystartMinThresh, min(h.last/hystartDivisor, hystartMaxThresh))
	if h.current >= h.last+thresh {
		h.baseline, h.inCSS, h.rounds = h.current, true, 0
	}
}
