package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// searchFrom is the load at which the search for a subject's best begins, frames a second, and searchStep the factor
	// from one load to the next.
	searchFrom = 40_000
	searchStep = 1.5
	// searchMost ends the search: what answers so much, XDP alone, is compared at that.
	searchMost = 8_000_000
	// searchWindow is how long one load is offered in the search.
	searchWindow = 150 * time.Millisecond
	// answered is the share of the offered load that a subject must answer not to count as overloaded.
	answered = 0.75
)

// load is what happened at one offered load, per second.
type load struct {
	offered, goodput float64
}

// measureOverload raises the load until the subject no longer answers it, takes the most that it answered for its
// saturation, and offers multiples of that. Its best is the most that it answered at one of those: what it answered in
// the short windows of the search would favour a lucky one.
func measureOverload(ctx context.Context, r *runner, s Subject) (sample Sample, err error) {
	err = r.underLive(ctx, s, Echo, func(_ *process, g *live) (err error) {
		sink, err := newSink(r.lab.Left, r.address)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sink.Close()) }()
		saturation, err := findBest(ctx, g, sink)
		if err != nil {
			return err
		}
		goodput := map[float64]float64{}
		var best, offered float64
		for _, factor := range r.overloadSteps() {
			at, err := offer(ctx, g, sink, saturation*factor, r.opts.Window)
			if err != nil {
				return err
			}
			best, offered = max(best, at.goodput), at.offered
			goodput[factor] = at.goodput
		}
		if best == 0 {
			return errors.New("bench: the subject answers nothing under overload")
		}
		sample = Sample{"best_per_s": best, "offered_per_s": offered}
		for factor, got := range goodput {
			sample[keptKey(factor)] = got / best
		}
		return nil
	})
	return sample, err
}

// overloadFactors are what a full run offers.
var overloadFactors = []float64{1, 1.25, 1.5, 2}

// overloadSteps are the multiples of a subject's saturation that are offered, the last of them twice it.
func (r *runner) overloadSteps() []float64 {
	if r.opts.Smoke {
		return []float64{1, 2}
	}
	return overloadFactors
}

// keptKey is the column of what a subject does at a multiple of its saturation.
func keptKey(factor float64) string { return fmt.Sprintf("kept_%g", factor) }

// findBest returns the most answers a second that the subject gave while the load rose past what it could answer. One
// window in which other work held the subject up is not believed.
func findBest(ctx context.Context, g *live, sink *sink) (best float64, err error) {
	missed := 0
	for rate := float64(searchFrom); rate < searchMost && missed < 2; {
		at, err := offer(ctx, g, sink, rate, searchWindow)
		if err != nil {
			return 0, err
		}
		best = max(best, at.goodput)
		if at.goodput < answered*at.offered {
			missed++
			continue
		}
		missed = 0
		rate *= searchStep
	}
	if best == 0 {
		return 0, errors.New("bench: the subject answered nothing")
	}
	return best, nil
}

// offer sends at a rate and returns what was really sent and answered.
func offer(ctx context.Context, g *live, sink *sink, rate float64, window time.Duration) (at load, err error) {
	err = whileSending(ctx, g, rate, warmUp/2, func() error {
		sent, err := startMeter(g.Sent)
		if err != nil {
			return err
		}
		got, err := startMeter(sink.Count)
		if err != nil {
			return err
		}
		if err := pause(ctx, window); err != nil {
			return err
		}
		if at.offered, err = sent.rate(); err != nil {
			return err
		}
		at.goodput, err = got.rate()
		return err
	})
	return at, err
}
