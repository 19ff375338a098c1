package ring_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/ring"
)

// drain takes everything out of a chain.
func drain(r *ring.ChainReader) {
	for r.Peek() != nil {
		r.Advance()
	}
	r.Release()
}

// heap is how many bytes are reachable.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Chains that have grown to 256 KiB and are idle keep next to nothing.
func TestIdleChainsGiveTheirMemoryBack(t *testing.T) {
	before := heap()
	chains := make([]*ring.Chain, 200)
	for i := range chains {
		chains[i] = ring.NewChain(256 << 10)
		for put(chains[i].Writer(), 1472, 1) {
		}
		chains[i].Writer().Publish()
	}
	grown := heap() - before
	require.Greater(t, grown, len(chains)*256<<10)
	for _, c := range chains {
		require.True(t, c.Trim(), "it is full")
		wantRecord(t, c.Reader(), 1472, 1)
		drain(c.Reader())
		require.True(t, c.Trim(), "it was full a moment ago")
		require.False(t, c.Trim(), "it has been empty since")
		require.False(t, c.Trim())
	}
	require.Less(t, heap()-before, grown/100)
	for _, c := range chains {
		require.Zero(t, c.Used())
		require.Nil(t, c.Reader().Peek())
		require.True(t, put(c.Writer(), 1472, 2), "and goes on as new")
		c.Writer().Publish()
		wantRecord(t, c.Reader(), 1472, 2)
	}
}

// A chain that was large once and has little traffic since becomes as small as that needs.
func TestChainShrinksToItsTraffic(t *testing.T) {
	c := ring.NewChain(1 << 20)
	w, r := c.Writer(), c.Reader()
	for put(w, 1472, 1) {
	}
	w.Publish()
	drain(r)
	large := weak.Make(&w.Reserve(1)[0])
	c.Trim()
	for round := range 3 { // of four records at a time
		for i := range 4 {
			require.True(t, put(w, 1000, byte(i)))
		}
		w.Publish()
		for i := range 4 {
			wantRecord(t, r, 1000, byte(i))
		}
		r.Release()
		require.True(t, c.Trim(), "round %d: it is in use", round)
	}
	w.Publish()
	runtime.GC()
	require.Nil(t, large.Value(), "the large ring is gone")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for range 4 {
			put(w, 1000, 1)
		}
		w.Publish()
		drain(r)
		c.Trim()
	}), "a chain of the right size is left alone")
}

// What is in when a chain shrinks comes out in order.
func TestChainShrinksWithRecordsIn(t *testing.T) {
	c := ring.NewChain(1 << 20)
	w, r := c.Writer(), c.Reader()
	for put(w, 1472, 1) {
	}
	w.Publish()
	drain(r)
	c.Trim()
	for i := range 6 {
		require.True(t, put(w, 100, byte(i)))
		if i == 2 {
			w.Publish()
		}
		c.Trim()
	}
	w.Publish()
	for i := range 6 {
		wantRecord(t, r, 100, byte(i))
	}
	require.Nil(t, r.Peek())
	r.Release()
	require.Zero(t, c.Used())
}

func TestTrimmedChainAgainstAModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		limit := 1 + rng.IntN(200_000)
		t.Run(fmt.Sprintf("seed %d limit %d", seed, limit), func(t *testing.T) {
			c := ring.NewChain(limit)
			e := chainEnds(c)
			release := e.release
			e.release = func() {
				release()
				c.Trim()
			}
			model(t, e, 1+rng.IntN(20_000), rng, 4000)
		})
	}
}

// Whoever trims is both ends at that moment; others may look at Used all the time.
func TestChainIsTrimmedBetweenGoroutines(t *testing.T) {
	const total = 20_000
	c := ring.NewChain(50_000)
	var writing, reading sync.Mutex
	var running sync.WaitGroup
	done := make(chan struct{})
	running.Go(func() {
		rng := rand.New(rand.NewPCG(1, 2))
		for i := 0; i < total; {
			writing.Lock()
			for range rng.IntN(60) {
				if i == total || !put(c.Writer(), 8+i%1400, byte(i)) {
					break
				}
				i++
			}
			c.Writer().Publish()
			writing.Unlock()
			runtime.Gosched()
		}
	})
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			c.Used()
			if writing.TryLock() {
				if reading.TryLock() {
					c.Trim()
					reading.Unlock()
				}
				writing.Unlock()
			}
			runtime.Gosched()
		}
	})
	for i := 0; i < total; {
		reading.Lock()
		for b := c.Reader().Peek(); b != nil; b = c.Reader().Peek() {
			if len(b) != 8+i%1400 || b[0] != byte(i) || b[len(b)-1] != byte(i) {
				require.FailNow(t, "wrong record", "record %d: %d bytes of %d", i, len(b), b[0])
			}
			c.Reader().Advance()
			i++
		}
		c.Reader().Release()
		reading.Unlock()
		runtime.Gosched()
	}
	close(done)
	running.Wait()
	c.Trim()
	require.False(t, c.Trim())
}
