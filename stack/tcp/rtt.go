package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// roundTrip is the state of RFC 6298.
type roundTrip struct {
	srtt, rttvar time.Duration // SRTT and RTTVAR; srtt is 0 before the first sample
	rto          time.Duration
	min          time.Duration // least of the last minWindow
	minAt        clock.Time
}

// minWindow is how long a least round trip counts (RFC 8985 section 6.2, step 1
// leaves it to us; Linux takes 5 minutes).
const minWindow = 5 * time.Minute

func (r *roundTrip) init(cfg *Config) { *r = roundTrip{rto: cfg.InitialRTO} }

// sample takes a measured round trip: RFC 6298 section 2.2 for the first and 2.3
// for the others, with alpha 1/8 and beta 1/4. One in flight segment measured
// per ACK would make the average forget too soon (RFC 7323 appendix G), so samples is how many of
// them a round trip has.
func (r *roundTrip) sample(now clock.Time, rtt time.Duration, samples uint32, cfg *Config) {
	rtt = max(rtt, time.Microsecond)
	if r.min == 0 || rtt <= r.min || now.Sub(r.minAt) > minWindow {
		r.min, r.minAt = rtt, now
	}
	if r.srtt == 0 {
		r.srtt, r.rttvar = rtt, rtt/2
	} else {
		n := time.Duration(max(1, samples))
		difference := r.srtt - rtt
		if difference < 0 {
			difference = -difference
		}
		// The variance grows at once and shrinks at the pace of round trips.
		if difference > r.rttvar {
			r.rttvar += (difference - r.rttvar) / 4
		} else {
			r.rttvar -= (r.rttvar - difference) / (4 * n)
		}
		r.srtt += (rtt - r.srtt) / (8 * n)
	}
	r.set(cfg)
}

// set computes RTO = SRTT + max(G, 4*RTTVAR) (RFC 6298 section 2.3), where G
// is Config.MinRTO, and no more than Config.MaxRTO (section 2.5).
func (r *roundTrip) set(cfg *Config) {
	r.rto = min(r.srtt+max(cfg.MinRTO, 4*r.rttvar), cfg.MaxRTO)
}

// backedOff is the RTO after n time-outs in a row (RFC 6298 section 5.5).
func (r *roundTrip) backedOff(n uint8, cfg *Config) time.Duration {
	rto := r.rto
	for ; n > 0 && rto < cfg.MaxRTO; n-- {
		rto *= 2
	}
	return min(rto, cfg.MaxRTO)
}
