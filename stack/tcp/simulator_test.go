package tcp

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed of the simulator alone, with a trace")
	simSeeds = flag.Int("sim.seeds", 3000, "how many seeds the simulator runs")
	simFirst = flag.Uint64("sim.first", 1, "the first of them")
)

// drawConfig draws numbers that a user might choose.
func drawConfig(r *rand.Rand) Config {
	cfg := DefaultConfig()
	odds := func(p float64) bool { return r.Float64() < p }
	cfg.SACK = !odds(0.2)
	cfg.Timestamps = !odds(0.3)
	cfg.WindowScale = !odds(0.2)
	cfg.RACK = !odds(0.2)
	cfg.TLP = !odds(0.2)
	cfg.FRTO = !odds(0.2)
	cfg.HyStart = !odds(0.3)
	cfg.Pacing = odds(0.2)
	if odds(0.5) {
		cfg.Congestion = "newreno"
	}
	if odds(0.5) {
		cfg.ECN = ECNOn
	}
	if odds(0.3) {
		cfg.ReceiveBuffer = 1 + r.IntN(8000)
		cfg.ReceiveBufferMax = cfg.ReceiveBuffer + r.IntN(8000)
	}
	if odds(0.3) {
		cfg.SendBuffer = 1 + r.IntN(8000)
	}
	if odds(0.2) {
		cfg.OutOfOrder = 1 + r.IntN(4)
	}
	if odds(0.2) {
		cfg.MSS = 48 + r.IntN(1000)
	}
	return cfg
}

// drawPipe draws a path, up to a bad one.
func drawPipe(r *rand.Rand) pipeConfig {
	p := pipeConfig{delay: time.Duration(r.IntN(60)) * time.Millisecond}
	some := func(most float64) float64 {
		if r.IntN(2) == 0 {
			return 0
		}
		return r.Float64() * most
	}
	p.loss, p.dup, p.reorder, p.garble = some(0.1), some(0.1), some(0.2), some(0.05)
	if r.IntN(3) == 0 {
		p.jitter = time.Duration(1 + r.IntN(30_000_000))
	}
	if r.IntN(3) == 0 {
		p.rate = 100_000 + r.IntN(10_000_000)
		p.queue = 5000 + r.IntN(100_000)
		p.markAt = r.IntN(20_000)
	}
	return p
}

// drawSim makes the simulation that a seed stands for.
func drawSim(seed uint64) *sim {
	r := rand.New(rand.NewPCG(seed, 2))
	m := newSim(seed, [2]Config{drawConfig(r), drawConfig(r)}, [2]pipeConfig{drawPipe(r), drawPipe(r)})
	for _, e := range m.ends {
		if r.IntN(2) == 0 {
			// The numbers wrap, or pass 2^31, somewhere in the middle.
			e.iss = Seq(uint32(r.IntN(2))<<31 - uint32(1+r.IntN(20_000)))
		}
		e.total = r.IntN(1 << uint(4+r.IntN(14)))
		if r.IntN(3) == 0 {
			e.chunk = 1 + r.IntN(3000)
		}
		if r.IntN(4) == 0 {
			e.pause = time.Duration(1 + r.IntN(300_000_000))
		}
		if r.IntN(4) == 0 {
			e.budget = 2 + r.IntN(5)
		}
	}
	return m
}

// runSeed checks that every byte arrives once and in order; a user of a dying
// peer may get an error instead.
func runSeed(seed uint64, trace func(string, ...any)) error {
	m := drawSim(seed)
	m.trace = trace
	return m.check(seed)
}

func (m *sim) check(seed uint64) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("at %v: %v", time.Duration(m.now)-time.Hour, v)
		}
	}()
	a := m.ends[0]
	a.init()
	a.conn.Connect(m.now)
	a.renumber()
	dies := seed%8 == 7
	if dies {
		m.run(time.Duration(m.rng.IntN(2000)) * time.Millisecond)
		m.ends[m.rng.IntN(2)].dead = true
		for _, e := range m.ends {
			if e.opened {
				e.conn.SetKeepAlive(m.now, true, time.Minute, time.Second, 3)
			}
		}
	}
	done := m.run(24 * time.Hour)
	for i, e := range m.ends {
		if e.dead || !e.opened && m.ends[1-i].dead {
			continue
		}
		if !done {
			return fmt.Errorf("side %d: not done: %v, wrote %d of %d, read %d of %d, err %v, %+v", i, e.conn.State(),
				e.written, e.total, e.read, m.ends[1-i].total, e.err, e.conn.Info(m.now))
		}
		if e.err == nil && !m.ends[1-i].dead && e.read != m.ends[1-i].total {
			return fmt.Errorf("side %d read %d of %d bytes and saw no error", i, e.read, m.ends[1-i].total)
		}
		if e.err != nil && !dies {
			return fmt.Errorf("side %d: %v, though the path is fair", i, e.err)
		}
	}
	return nil
}

// TestRunsAreSegments: what is sent, and when, is the same whether full segments leave in runs or one by one.
func TestRunsAreSegments(t *testing.T) {
	runs := 0
	for seed := uint64(1); seed <= 400; seed++ {
		var sums [2]uint32
		var stats [2][2]Stats
		var infos [2][2]Info
		for i := range sums {
			m := drawSim(seed)
			r := rand.New(rand.NewPCG(seed, 5))
			for side, e := range m.ends {
				e.layer.single = i == 1
				e.total *= 20
				e.habits = habits(r.IntN(16))
				if side == 0 && i == 0 {
					e.run = func() { runs++ }
				}
			}
			if err := m.check(seed); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			sums[i] = m.sum
			for side, e := range m.ends {
				if stats[i][side] = e.layer.Stats(); e.opened {
					infos[i][side] = e.conn.Info(m.now)
				}
			}
		}
		require.Equal(t, sums[1], sums[0], "what was sent with seed %d", seed)
		require.Equal(t, stats[1], stats[0], "counters of seed %d", seed)
		require.Equal(t, infos[1], infos[0], "connections of seed %d", seed)
	}
	require.Greater(t, runs, 1000)
}

// Every byte arrives once, in order, or the user gets an error (RFC 9293
// section 3.8: reliability).
func TestSimulator(t *testing.T) {
	if *simSeed != 0 {
		if err := runSeed(*simSeed, t.Logf); err != nil {
			t.Fatal(err)
		}
		return
	}
	begin := time.Now()
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
		if err := runSeed(seed, nil); err != nil {
			t.Errorf("seed %d: %v\n\tgo test ./stack/tcp -run TestSimulator -sim.seed=%d -v", seed, err, seed)
			if t.Failed() && seed > *simFirst+200 {
				break
			}
		}
	}
	t.Logf("%.0f seeds a second", float64(*simSeeds)/time.Since(begin).Seconds())
}
