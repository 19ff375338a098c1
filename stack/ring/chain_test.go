package ring_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/ring"
)

func TestChainTakesNoMoreThanItsLimit(t *testing.T) {
	c := ring.NewChain(10_000)
	w, r := c.Writer(), c.Reader()
	require.Zero(t, c.Used())
	require.Nil(t, r.Peek())
	r.Release()

	n := 0
	for put(w, 92, byte(n)) {
		n++
	}
	w.Publish()
	require.Equal(t, 10_000/104, n, "104 bytes a record")
	require.Equal(t, n*104, c.Used(), "records of several rings, without padding")
	for i := range n {
		wantRecord(t, r, 92, byte(i))
	}
	require.Nil(t, r.Peek())
	r.Release()
	require.Zero(t, c.Used())
	require.True(t, put(w, 92, 1), "there is room again")
}

func TestChainLetsOneRecordThroughWhateverTheLimit(t *testing.T) {
	for _, limit := range []int{-5, 0, 1, 1000, 65_000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			c := ring.NewChain(limit)
			w, r := c.Writer(), c.Reader()
			for range 20 {
				require.True(t, put(w, 65_535, 3))
				require.False(t, put(w, 0, 0), "only one")
				w.Publish()
				require.False(t, put(w, 0, 0), "only one")
				wantRecord(t, r, 65_535, 3)
				r.Release()
			}
		})
	}
}

func TestChainLimitMayChange(t *testing.T) {
	c := ring.NewChain(1000)
	w, r := c.Writer(), c.Reader()
	fill := func() (n int) {
		for put(w, 92, 5) {
			n++
		}
		w.Publish()
		return n
	}
	require.Equal(t, 9, fill())
	c.SetLimit(50_000)
	require.Equal(t, 50_000, c.Limit())
	require.Equal(t, 480-9, fill())
	c.SetLimit(1000)
	require.Zero(t, fill(), "what is in stays, nothing is added")
	for range 480 - 9 {
		wantRecord(t, r, 92, 5)
	}
	r.Release()
	require.Zero(t, fill(), "still at the limit")
	wantRecord(t, r, 92, 5)
	r.Release()
	require.Equal(t, 1, fill())
	c.SetLimit(1 << 62)
	require.Equal(t, ring.MaxCapacity, c.Limit())
}

func TestChainLargestDatagramsWithinTheLimit(t *testing.T) {
	c := ring.NewChain(212_992)
	w, r := c.Writer(), c.Reader()
	for round := range 50 {
		for i := range 3 {
			require.True(t, put(w, 65_507, byte(i)), "round %d", round)
		}
		w.Publish()
		for i := range 3 {
			wantRecord(t, r, 65_507, byte(i))
		}
		require.Nil(t, r.Peek())
		r.Release()
	}
}

func TestChainLetsGoOfItsOldRings(t *testing.T) {
	c := ring.NewChain(100_000)
	w, r := c.Writer(), c.Reader()
	require.True(t, put(w, 1000, 1))
	w.Publish()
	first := weak.Make(&r.Peek()[0])
	for put(w, 1000, 1) {
	}
	w.Publish()
	runtime.GC()
	require.NotNil(t, first.Value(), "the reader is still there")
	for range 50 {
		wantRecord(t, r, 1000, 1)
	}
	r.Release()
	w.Publish()
	runtime.GC()
	require.Nil(t, first.Value())
	require.NotZero(t, c.Used())
	runtime.KeepAlive(c)
}

func TestChainAgainstAModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 2))
		limit := 1 + rng.IntN(200_000)
		t.Run(fmt.Sprintf("seed %d limit %d", seed, limit), func(t *testing.T) {
			c := ring.NewChain(limit)
			model(t, chainEnds(c), 1+rng.IntN(20_000), rng, 4000)
		})
	}
}

func TestChainBetweenGoroutines(t *testing.T) {
	for _, limit := range []int{100, 5_000, 300_000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			c := ring.NewChain(limit)
			e := chainEnds(c)
			go send(e, 30_000, 1500, func(int) { runtime.Gosched() })
			receive(t, e, 30_000, 1500, runtime.Gosched)
		})
	}
}

func TestChainDoesNotAllocateOnceGrown(t *testing.T) {
	c := ring.NewChain(200_000)
	w, r := c.Writer(), c.Reader()
	round := func() {
		for put(w, 1472, 1) {
		}
		w.Publish()
		for r.Peek() != nil {
			r.Advance()
		}
		r.Release()
	}
	round()
	round()
	require.Zero(t, testing.AllocsPerRun(100, round))
}

// A reader looks ahead within a ring, and comes back.
func TestChainRewinds(t *testing.T) {
	c := ring.NewChain(1 << 16)
	w, r := c.Writer(), c.Reader()
	if r.PeekOn() != nil {
		t.Fatal("a record where nothing was written")
	}
	for i := range 20 {
		copy(w.Reserve(200), fmt.Sprint("record ", i))
		w.Commit(200)
	}
	w.Publish()
	want := func(b []byte, n int) {
		t.Helper()
		if b == nil || !strings.HasPrefix(string(b), fmt.Sprint("record ", n, "\x00")) {
			t.Fatalf("record %d: %q", n, b)
		}
	}
	for i := 0; i < 20; {
		want(r.Peek(), i)
		mark, ahead := r.Mark(), 0
		for b := r.PeekOn(); b != nil; b = r.PeekOn() {
			want(b, i+ahead)
			ahead++
			r.Advance()
		}
		if ahead == 0 || i == 0 && ahead == 20 {
			t.Fatal("it looked ahead over", ahead)
		}
		r.Rewind(mark)
		want(r.PeekOn(), i)
		r.Advance()
		i++
		if i%3 == 0 {
			r.Release()
		}
	}
	if r.PeekOn() != nil || r.Peek() != nil {
		t.Fatal("a record beyond the last")
	}
}
