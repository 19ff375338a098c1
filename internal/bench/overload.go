package bench

import (
	"context"
	"errors"
	"time"
)

const (
	// searchFrom is the load at which the search for a subject's best begins, frames a second, and searchStep the factor
	// from one load to the next.
	searchFrom = 40_000
	searchStep = 1.5
	// searchMost ends the search: no generator offers more.
	searchMost = 8_000_000
	// searchWindow is how long one load is offered in the search.
	searchWindow = 150 * time.Millisecond
	// answered is the share of the offered load that a subject must answer not to count as overloaded.
	answered = 0.9
)

// load is what happened at one offered load, per second.
type load struct {
	offered, goodput float64
}

// measureOverload raises the load until the subject no longer answers it, takes the most that it answered as its best,
// and offers multiples of that.
func measureOverload(ctx context.Context, r *runner, s Subject) (sample Sample, err error) {
	err = r.underLive(ctx, s, Echo, func(_ *process, g *live) (err error) {
		sink, err := newSink(r.lab.Left, r.address)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sink.Close()) }()
		best, err := findBest(ctx, g, sink)
		if err != nil {
			return err
		}
		sample = Sample{}
		saturation := best
		for _, step := range []struct {
			key    string
			factor float64
		}{{"kept_1", 1}, {"kept_1.5", 1.5}, {"kept_2", 2}} {
			if r.opts.Smoke && step.factor == 1.5 {
				continue
			}
			at, err := offer(ctx, g, sink, saturation*step.factor, r.opts.Window)
			if err != nil {
				return err
			}
			best = max(best, at.goodput)
			sample[step.key], sample["offered_per_s"] = at.goodput, at.offered
		}
		for key := range sample {
			if key != "offered_per_s" {
				sample[key] /= best
			}
		}
		sample["best_per_s"] = best
		return nil
	})
	return sample, err
}

// findBest returns the most answers a second that the subject gave while the load rose past what it could answer.
func findBest(ctx context.Context, g *live, sink *sink) (best float64, err error) {
	for rate := float64(searchFrom); rate < searchMost; rate *= searchStep {
		at, err := offer(ctx, g, sink, rate, searchWindow)
		if err != nil {
			return 0, err
		}
		best = max(best, at.goodput)
		if at.goodput < answered*at.offered {
			break
		}
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
