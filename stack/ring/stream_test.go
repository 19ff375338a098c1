package ring_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/ring"
)

func TestIdleStreamIsSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(ring.Stream{}), uintptr(128))
	s := newStream(1 << 20)
	require.Zero(t, s.Memory())
	require.Empty(t, peek(s, 0, 1))
	require.Zero(t, s.Memory(), "to look takes no memory")
	s.Write(nil)
	s.Commit(1)
	require.Zero(t, s.Memory())
	require.Zero(t, new(ring.Stream).Write([]byte("x")), "the limit is 0 at first")
}

func TestStreamTakesTheMemoryThatItNeeds(t *testing.T) {
	s := newStream(1 << 20)
	for _, c := range []struct{ write, memory int }{
		{1, 4096}, {4095, 4096}, {1, 8192}, {4095, 8192}, {100_000, 131_072}, {1 << 21, 1 << 20},
	} {
		s.Write(make([]byte, c.write))
		require.Equal(t, c.memory, s.Memory())
	}
	require.Equal(t, 1<<20, s.Used())
	require.False(t, s.Shrink(), "something is in it")
	s.Release(1 << 20)
	require.True(t, s.Shrink())
	require.Zero(t, s.Memory())
	require.True(t, s.Shrink(), "there is nothing to give back")

	s.SetLimit(5000)
	require.Equal(t, 1, s.Put(4999, []byte("xy")))
	require.Equal(t, 8192, s.Memory(), "a power of two")
	require.False(t, s.Shrink(), "a byte out of order is in it")
	s.SetLimit(1 << 62)
	require.Equal(t, ring.MaxCapacity, s.Limit())
}

func TestStreamGrowsAroundWhatIsInIt(t *testing.T) {
	s := newStream(1 << 20)
	s.Write(make([]byte, 4000))
	s.Release(3900)
	s.Write(fill(make([]byte, 200), 0)) // over the end of 4096
	s.Release(100)
	s.Put(1000, fill(make([]byte, 500), 1200)) // out of order
	a, b := s.Peek(0, 200)
	require.NotEmpty(t, b)
	require.Equal(t, 4096, s.Memory())

	s.Put(9000, fill(make([]byte, 500), 9200))
	require.Equal(t, 16384, s.Memory())
	wantBytes(t, 0, a)
	wantBytes(t, len(a), b)
	s.Put(0, fill(make([]byte, 1000), 200))
	s.Put(1500, fill(make([]byte, 7500), 1700))
	s.Commit(9500)
	p := make([]byte, 10_000)
	require.Equal(t, 9700, s.Read(p))
	wantBytes(t, 0, p[:9700])
}

func TestStreamLetsGoOfItsMemory(t *testing.T) {
	s := newStream(1 << 20)
	s.Write(make([]byte, 100_000))
	a, _ := s.Peek(0, 1)
	old := weak.Make(&a[0])
	s.Write(make([]byte, 100_000))
	runtime.GC()
	require.Nil(t, old.Value(), "what it grew out of")

	a, _ = s.Peek(0, 1)
	old = weak.Make(&a[0])
	s.Release(200_000)
	require.True(t, s.Shrink())
	runtime.GC()
	require.Nil(t, old.Value(), "what it shrank out of")
	runtime.KeepAlive(s)
}

// Memory that was given back comes again, and with nothing in it.
func TestStreamShowsNobodyElsesBytes(t *testing.T) {
	for size := 4096; size <= 1<<17; size *= 2 {
		for range 20 {
			s := newStream(size)
			s.Put(size-1, []byte{0}) // all before it was never put
			s.Commit(size)
			a, b := s.Peek(0, size)
			require.Len(t, a, size)
			require.Empty(t, b)
			for i := range a {
				require.Zero(t, a[i])
			}
			s.Release(size)
			s.Write([]byte("secret"))
			s.Release(6)
			require.Equal(t, size, s.Write(fill(make([]byte, size), 1)))
			s.Release(size)
			require.True(t, s.Shrink())
		}
	}
}

func TestStreamAgainstAModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 4))
		limit := 1 + rng.IntN(40_000)
		t.Run(fmt.Sprintf("seed %d limit %d", seed, limit), func(t *testing.T) {
			s := newStream(limit)
			next, more := steps(rng, 1500)
			m := modelBytes(t, s, s, s.Shrink, next, more)
			require.Positive(t, m.committed, "bytes went through")
		})
	}
}

// The send direction: a user who only writes, an engine that sends, sends again,
// releases what is acknowledged and gives the memory back when it can.
func TestStreamFromUserToEngine(t *testing.T) {
	const total = 1_500_000
	s := newStream(50_000)
	go func() {
		rng := rand.New(rand.NewPCG(1, 1))
		p := make([]byte, 30_000)
		for pos := 0; pos < total; {
			n := s.Write(fill(p[:min(total-pos, 1+rng.IntN(1+rng.IntN(len(p))))], pos))
			if pos += n; n == 0 || rng.IntN(8) == 0 {
				runtime.Gosched()
			}
		}
	}()
	rng := rand.New(rand.NewPCG(2, 2))
	shrunk := 0
	for pos := 0; pos < total; {
		used := s.Used()
		for range 3 {
			off := rng.IntN(used + 1)
			a, b := s.Peek(off, 1448)
			require.GreaterOrEqual(t, len(a)+len(b), min(1448, used-off), "no fewer than there were")
			wantBytes(t, pos+off, a)
			wantBytes(t, pos+off+len(a), b)
		}
		n := rng.IntN(used + 1)
		if rng.IntN(3) == 0 {
			n = used
		}
		s.Release(n)
		pos += n
		if s.Shrink() {
			shrunk++
		}
		if rng.IntN(64) == 0 {
			s.SetLimit(1 + rng.IntN(100_000))
		}
		if used == 0 {
			runtime.Gosched()
		}
	}
	require.Zero(t, s.Used())
	require.True(t, s.Shrink(), "nobody writes any more")
	require.Positive(t, shrunk)
}

// The receive direction: an engine that puts bytes out of order, grows the memory
// and gives it back, and a user who reads or peeks.
func TestStreamFromEngineToUser(t *testing.T) {
	const total, mss = 1_500_000, 1000
	s := newStream(60_000)
	var done sync.WaitGroup
	defer done.Wait()
	done.Add(1)
	go func() {
		defer done.Done()
		rng := rand.New(rand.NewPCG(3, 3))
		p := make([]byte, mss)
		for pos := 0; pos < total; {
			segments := min(1+rng.IntN(40), s.Free()/mss, (total-pos)/mss)
			for _, i := range rng.Perm(segments) {
				if n := s.Put(i*mss, fill(p, pos+i*mss)); n != mss {
					t.Errorf("%d bytes had room and now only %d have", mss, n)
				}
			}
			s.Commit(segments * mss)
			pos += segments * mss
			s.Shrink()
			if segments == 0 || rng.IntN(4) == 0 {
				runtime.Gosched()
			}
		}
	}()
	rng := rand.New(rand.NewPCG(4, 4))
	p := make([]byte, 20_000)
	for pos := 0; pos < total; {
		n := 0
		if rng.IntN(2) == 0 {
			n = s.Read(p[:1+rng.IntN(len(p))])
			wantBytes(t, pos, p[:n])
		} else {
			a, b := s.Peek(0, 1+rng.IntN(len(p)))
			wantBytes(t, pos, a)
			wantBytes(t, pos+len(a), b)
			runtime.Gosched() // while the engine may grow
			wantBytes(t, pos, a)
			wantBytes(t, pos+len(a), b)
			n = len(a) + len(b)
			s.Release(n)
		}
		if pos += n; n == 0 {
			runtime.Gosched()
		}
	}
	require.Zero(t, s.Used())
}

func TestStreamDoesNotAllocateOnceGrown(t *testing.T) {
	s := newStream(100_000)
	p := make([]byte, 1448)
	round := func() {
		s.Put(2*len(p), p)
		s.Put(0, p)
		s.Put(len(p), p)
		s.Commit(3 * len(p))
		for s.Write(p) == len(p) {
		}
		for off := 0; off < s.Used(); off += len(p) {
			s.Peek(off, len(p))
		}
		s.Release(s.Used() / 2)
		for s.Read(p) > 0 {
		}
	}
	round()
	require.Zero(t, testing.AllocsPerRun(100, round))

	w, r, _ := bytesPair(t, 4096)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		w.Put(1448, p)
		w.Write(p)
		r.Peek(10, 1448)
		r.Release(448)
		r.Read(p)
	}))
}
