package bench

import (
	"fmt"
	"math"
	"strings"
)

// comparableWithin is the factor within which all ways between the cores are, where rounds count as measured at one placement:
// more than the same placement varies by, and less than lies between two.
const comparableWithin = 1.5

// extraRounds is how many rounds a run may add, in ratio to those asked for, until as many are comparable.
const extraRounds = 2

// Placement says how far apart the two cores were in a workload's rounds, in each of which every subject is measured once, and
// so which rounds count.
type Placement struct {
	// MinNS and MaxNS are the least and the most that a cache line took from core to core before and after the
	// measurements that count, ns; 0 is where a core was too busy to tell.
	MinNS float64 `json:"min_ns"`
	MaxNS float64 `json:"max_ns"`
	// Comparable says that the rounds that count were all measured at one placement. Where there was no such round, all
	// count, and ratios mislead.
	Comparable bool `json:"comparable"`
	// Counted is how many rounds count. Moved is how many were left out since the cores moved within them, or could not be
	// told apart from such; Elsewhere, since the cores were at another placement.
	Counted   int `json:"counted"`
	Moved     int `json:"moved"`
	Elsewhere int `json:"elsewhere"`
}

// span is the least and the most that a cache line took from core to core in a round, or in several, ns. The least is 0 where
// it is not known.
type span struct{ min, max float64 }

// noSpan is that of no rounds.
var noSpan = span{min: math.Inf(1)}

func (s span) join(o span) span { return span{min(s.min, o.min), max(s.max, o.max)} }

// comparable says that the cores were at one placement all the time.
func (s span) comparable() bool { return s.min > 0 && s.max <= comparableWithin*s.min }

// String writes both ends.
func (s span) String() string { return betweenCores(s.min) + " … " + betweenCores(s.max) }

// choose returns the indices of the rounds that count: of all sets of rounds at one placement the largest, and of several as
// large the one with the nearest cores. Where any is as near as was asked for (ns, 0: nothing was), only such do. It returns
// none where the cores moved in each round.
func choose(rounds []span, near float64) (counted []int) {
	best := noSpan
	asAsked := func(s span) bool { return s.min <= near }
	for _, from := range rounds {
		if !from.comparable() {
			continue
		}
		var set []int
		for i, r := range rounds {
			if r.min >= from.min && r.max <= comparableWithin*from.min {
				set = append(set, i)
			}
		}
		better := len(set) > len(counted) || len(set) == len(counted) && from.min < best.min
		if asAsked(from) != asAsked(best) {
			better = asAsked(from)
		}
		if better {
			counted, best = set, from
		}
	}
	return counted
}

// rounds returns the span of each round that is complete: a subject that failed has no samples, and the others have one in each.
func (w *Workload) rounds() (rounds []span) {
	for i := range w.Results {
		for n, s := range w.Results[i].Samples {
			if n == len(rounds) {
				rounds = append(rounds, noSpan)
			}
			rounds[n] = rounds[n].join(s.span())
		}
	}
	return rounds
}

// span is that of one measurement.
func (s Sample) span() span {
	before, after := s[beforeKey], s[afterKey]
	return span{min(before, after), max(before, after)}
}

// span is that of the subject's samples that count.
func (r *Result) span() span {
	all := noSpan
	for _, s := range r.Samples {
		all = all.join(s.span())
	}
	return all
}

// settle puts the samples of rounds that do not count aside; near is choose's.
func (w *Workload) settle(near float64) {
	rounds := w.rounds()
	if len(rounds) == 0 {
		return
	}
	counted := choose(rounds, near)
	p := &Placement{Comparable: len(counted) > 0}
	if !p.Comparable {
		for n := range rounds {
			counted = append(counted, n)
		}
	}
	counts, all := make([]bool, len(rounds)), noSpan
	for _, n := range counted {
		counts[n], all = true, all.join(rounds[n])
	}
	p.MinNS, p.MaxNS, p.Counted = all.min, all.max, len(counted)
	for n, r := range rounds {
		switch {
		case counts[n]:
		case r.comparable():
			p.Elsewhere++
		default:
			p.Moved++
		}
	}
	for i := range w.Results {
		r := &w.Results[i]
		samples := r.Samples
		r.Samples = nil
		for n, s := range samples {
			if counts[n] {
				r.Samples = append(r.Samples, s)
			} else {
				r.LeftOut = append(r.LeftOut, s)
			}
		}
	}
	w.Placement = p
}

// note says what could mislead a reader of the workload's table, "" where nothing could: all that were asked for count.
func (p *Placement) note(workload string, asked int) string {
	at := span{p.MinNS, p.MaxNS}
	if !p.Comparable {
		return fmt.Sprintf("%s: in none of %d rounds did the cores stay as far apart as they were (core to core %s), so all "+
			"count, and its ratios may be those of placements.", workload, p.Counted, at)
	}
	if p.Moved+p.Elsewhere == 0 && p.Counted >= asked {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d rounds count, in which the cores stayed as far apart as they were (core to core %s).",
		workload, p.Counted, p.Counted+p.Moved+p.Elsewhere, at)
	if p.Moved > 0 {
		fmt.Fprintf(&b, " Left out since the cores moved, or were too busy to tell: %d.", p.Moved)
	}
	if p.Elsewhere > 0 {
		fmt.Fprintf(&b, " Left out since the cores were nearer or farther: %d.", p.Elsewhere)
	}
	if p.Counted < asked {
		fmt.Fprintf(&b, " Asked for were %d.", asked)
	}
	return b.String()
}
