package instructions

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// A Case is one thing whose cost is measured.
type Case struct {
	// Name is split by slashes and has key=value where something varies, as benchstat reads names: "receive/batch/payload=64".
	Name string
	// Unit is what a round has many of, such as "packet", if empty, or "timer".
	Unit string
	// Count is how large the two rounds are that are single-stepped, {2, 6} if zero: a unit costs what the larger one costs more, so
	// that what a round costs whatever its size drops out. {0, n} leaves it in.
	Count [2]int
	// Setup makes what the rounds need, and returns one. A round is told its size, usually the number of packets, and says how many
	// units it moved; only what it does between Start and Stop of its Meter is measured, which may be several times.
	Setup func(tb testing.TB) Round
}

// A Round is a case's work of a size of n.
type Round func(m *Meter, n int) (units int)

const (
	batch = 32  // the size of the rounds whose time is measured
	warm  = 100 // rounds before: enough for tables and rings to have their size
)

// Whole makes a case in which all that a round does is measured.
func Whole(name string, setup func(tb testing.TB) (round func(n int) (units int))) Case {
	return Case{Name: name, Setup: func(tb testing.TB) Round {
		round := setup(tb)
		return func(m *Meter, n int) int {
			m.Start()
			n = round(n)
			m.Stop()
			return n
		}
	}}
}

// Must is require.NoError for what is counted: it costs next to nothing.
func Must(tb testing.TB, err error) {
	if err != nil {
		tb.Fatal(err)
	}
}

// In returns the case with another unit, and with rounds of these sizes where it is single-stepped.
func (c Case) In(unit string, small, large int) Case {
	c.Unit, c.Count = unit, [2]int{small, large}
	return c
}

func (c *Case) unit() string {
	if c.Unit == "" {
		return "packet"
	}
	return c.Unit
}

// start makes a case and warms it up.
func (c *Case) start(tb testing.TB) Round {
	round := c.Setup(tb)
	for range warm {
		if round(new(Meter), batch) == 0 {
			tb.Fatal("nothing moves")
		}
	}
	return round
}

// A Meter is told by a round what of it is to be measured.
type Meter struct {
	marking   bool
	intervals int
	began     time.Time
	elapsed   time.Duration
}

// Start begins what is measured. A nil Meter measures nothing.
func (m *Meter) Start() {
	if m == nil {
		return
	}
	if m.marking {
		beginInterval()
		return
	}
	m.began = time.Now()
}

// Stop ends it.
func (m *Meter) Stop() {
	if m == nil {
		return
	}
	if m.marking {
		endInterval()
		m.intervals++
		return
	}
	m.elapsed += time.Since(m.began)
}

// counted names, in its environment, the one case that a process is to run for whoever single-steps it.
const counted = "KIT_COUNTED_CASE"

// run is the part of the process that is single-stepped. It prints how many intervals and units each thing had.
func (c *Case) run(t *testing.T) {
	round := c.start(t)
	m := &Meter{marking: true}
	tell := func(units int) {
		fmt.Fprintf(os.Stdout, "%s %d %d\n", counted, m.intervals, units)
		m.intervals = 0
	}
	// Without anything between: what an interval itself costs. The first one may find things as they never are again.
	for range 2 {
		m.Start()
		m.Stop()
	}
	tell(0)
	sizes := c.Count
	if sizes == [2]int{} {
		sizes = [2]int{2, 6}
	}
	for _, n := range sizes {
		if n == 0 {
			tell(0)
		} else {
			tell(round(m, n))
		}
	}
}
