package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// On a virtual machine the host moves the virtual CPUs, for minutes at a time, and with the way between the two cores of a
// measurement everything measured changes, by as much as two. So the way is measured before and after each.

// The values that each sample has beside its workload's columns: how long a cache line took from core to core right before and
// right after, ns. Where the cores were too busy to tell, the sample lacks it; where there is one core, all do.
const (
	beforeKey = "core_to_core_before_ns"
	afterKey  = "core_to_core_after_ns"
)

const (
	// throwRounds is how often the line goes there and back in one timing: so short, some 50 µs, that other work on a core
	// holds up few of them. throwTimings is how many there are, after one that does not count, in which the second core begins.
	throwRounds  = 100
	throwTimings = 51
	// throwQuantile is which of the timings is believed. Other work only adds to them, and so does a rhythm into which the
	// cores fall at times, and which doubles most of a measurement's timings, but not all. Of 300 measurements at one
	// placement, it was 201 to 288 ns, and 95 of 100 were 201 to 231 ns.
	throwQuantile = 0.1
	// throwPatience bounds it all, which else takes 1 to 5 ms.
	throwPatience = 500 * time.Millisecond
	// looks is how often a core looks at the line before it looks at the clock.
	looks = 1 << 12
)

// ball is what two cores throw each other: a number on a cache line and, as processors fetch lines in pairs, a pair of its own.
type ball struct {
	_        [128]byte
	number   atomic.Uint64
	_        [120]byte
	deadline time.Time
}

// await spins until the number is there; it is false where the deadline comes first.
func (b *ball) await(number uint64) bool {
	for {
		for range looks {
			if b.number.Load() == number {
				return true
			}
		}
		if time.Now().After(b.deadline) {
			return false
		}
	}
}

// throw is the first core's part; took gets the times, in ns, of the timings that came to their end, whose number it returns.
func (b *ball) throw(took *[1 + throwTimings]int64) (timings int) {
	number := uint64(0)
	for i := range took {
		start := time.Now()
		for range throwRounds {
			b.number.Store(number + 1)
			if !b.await(number + 2) {
				return i
			}
			number += 2
		}
		took[i] = int64(time.Since(start))
	}
	return len(took)
}

// throwBack is the second core's part.
func (b *ball) throwBack() {
	for number := uint64(1); number < 2*throwRounds*(1+throwTimings) && b.await(number); number += 2 {
		b.number.Store(number + 1)
	}
}

// coreToCore returns how long a cache line takes from one core to another, ns: half the way there and back of one atomic
// number. It is 0 where a core was too busy for one timing.
func coreToCore(from, to int) (ns float64, err error) {
	if runtime.GOMAXPROCS(0) < 2 {
		// Both have to run at once.
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	restore, err := pinThread(from)
	if err != nil {
		return 0, err
	}
	defer restore()
	b := &ball{deadline: time.Now().Add(throwPatience)}
	other := make(chan error, 1)
	go func() {
		restore, err := pinThread(to)
		if err == nil {
			defer restore()
			b.throwBack()
		}
		other <- err
	}()
	var took [1 + throwTimings]int64
	timings := b.throw(&took)
	if err := <-other; err != nil {
		return 0, err
	}
	if timings < 2 {
		return 0, nil
	}
	counted := took[1:timings]
	slices.Sort(counted)
	return float64(quantile(counted, throwQuantile)) / (2 * throwRounds), nil
}

// nearPatience is how long a run waits in all for the cores to be as near as was asked for, and nearEvery how often it looks.
const (
	nearPatience = 10 * time.Minute
	nearEvery    = time.Second
)

// oneCore says that there is no way between cores to measure.
func (o *Options) oneCore() bool { return o.GeneratorCPU == o.SubjectCPU }

// near is CoreToCore in ns.
func (o *Options) near() float64 { return float64(o.CoreToCore.Nanoseconds()) }

// placed measures the way between the cores into the sample. A nil runner.distance measures none.
func (r *runner) placed(sample Sample, key string) error {
	if r.distance == nil {
		return nil
	}
	ns, err := r.distance()
	if err == nil && ns > 0 {
		sample[key] = ns
	}
	return err
}

// waitNear waits until the cores are as near as was asked for, if it was. When the run has no more patience for that, it
// measures wherever they are, and the report says so.
func (r *runner) waitNear(ctx context.Context) error {
	bound := r.opts.near()
	if bound == 0 || r.tooFar {
		return nil
	}
	for said := false; ; {
		ns, err := r.distance()
		if err != nil || ns > 0 && ns <= bound {
			return err
		}
		if r.patience <= 0 {
			r.tooFar = true
			fmt.Fprintf(r.out, "the cores have not come as near as %v in %v: measuring wherever they are\n",
				r.opts.CoreToCore, nearPatience)
			return nil
		}
		if !said {
			said = true
			fmt.Fprintf(r.out, "core to core %s: waiting for %v, for %v at most\n",
				betweenCores(ns), r.opts.CoreToCore, r.patience)
		}
		if err := pause(ctx, nearEvery); err != nil {
			return err
		}
		r.patience -= nearEvery
	}
}

// betweenCores writes what coreToCore returns.
func betweenCores(ns float64) string {
	if ns == 0 {
		return "unknown"
	}
	return Nanoseconds.Format(ns)
}
