package instructions

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// A Case is one thing whose cost is measured.
type Case struct {
	// Name is split by slashes and has key=value where something varies, as benchstat reads names: "receive/batch/payload=64".
	Name string
	// Unit is what a round has many of, such as "packet", if empty, or "timer".
	Unit string
	// Warm is how many rounds run before any is measured, 100 if 0: enough for tables and rings to have their size.
	Warm int
	// Rounds is how many rounds are single-stepped, 1 if 0.
	Rounds int
	// Setup makes what the rounds need, and returns one round. The round says how many units it moved; only what it does between
	// Start and Stop of its Meter is measured, which may be several times.
	Setup func(tb testing.TB) (round func(m *Meter) (units int))
}

func (c *Case) unit() string {
	if c.Unit == "" {
		return "packet"
	}
	return c.Unit
}

// start makes a case and warms it up.
func (c *Case) start(tb testing.TB) func(m *Meter) int {
	round := c.Setup(tb)
	warm := c.Warm
	if warm == 0 {
		warm = 100
	}
	for range warm {
		if round(new(Meter)) == 0 {
			tb.Fatal("nothing moves")
		}
	}
	return round
}

// A Meter is told by a round what of it is to be measured.
type Meter struct {
	marking bool
	began   time.Time
	elapsed time.Duration
}

// Start begins what is measured. A nil Meter measures nothing.
func (m *Meter) Start() {
	if m == nil {
		return
	}
	if m.marking {
		// The scheduler's quantum begins anew, so that it asks for no yield in what follows.
		runtime.Gosched()
		mark()
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
		mark()
		return
	}
	m.elapsed += time.Since(m.began)
}

// counted names, in its environment, the one case that a process is to run for whoever single-steps it.
const counted = "KIT_COUNTED_CASE"

// empties are how many intervals without anything in them come first; the last says what counting itself costs.
const empties = 2

// run is the part of the process that is single-stepped.
func (c *Case) run(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	round := c.start(t)
	m := &Meter{marking: true}
	for range empties {
		m.Start()
		m.Stop()
	}
	units := 0
	for range max(c.Rounds, 1) {
		units += round(m)
	}
	fmt.Fprintf(os.Stdout, "units %d\n", units)
}
