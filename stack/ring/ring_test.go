package ring_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/ring"
)

// writer and reader are what the ends of a ring and of a Chain share.
type writer interface {
	Reserve(n int) []byte
	Commit(n int)
}

type reader interface {
	Peek() []byte
	Advance()
}

// pair makes both ends over new memory, which it returns too.
func pair(t testing.TB, capacity int) (*ring.Writer, *ring.Reader, []byte) {
	t.Helper()
	mem := make([]byte, ring.Size(capacity))
	require.NoError(t, ring.Format(mem))
	w, err := ring.NewWriter(mem)
	require.NoError(t, err)
	r, err := ring.NewReader(mem)
	require.NoError(t, err)
	return w, r, mem
}

// put writes a record of n bytes that all hold v.
func put(w writer, n int, v byte) bool {
	b := w.Reserve(n)
	if b == nil {
		return false
	}
	for i := range b {
		b[i] = v
	}
	w.Commit(n)
	return true
}

// wantRecord takes a record and checks it.
func wantRecord(t testing.TB, r reader, n int, v byte) {
	t.Helper()
	b := r.Peek()
	require.NotNil(t, b, "a record of %d bytes is there", n)
	require.Len(t, b, n)
	require.Equal(t, n, cap(b), "an append must not reach the next record")
	require.Equal(t, n, bytes.Count(b, []byte{v}), "every byte is %d", v)
	r.Advance()
}

func TestMemoryThatCannotBeARing(t *testing.T) {
	for name, mem := range map[string][]byte{
		"nothing":             nil,
		"only a header":       make([]byte, ring.HeaderLen),
		"not a power of two":  make([]byte, ring.Size(96)),
		"below the least":     make([]byte, ring.Size(32)),
		"not a multiple of 8": make([]byte, ring.Size(64)+8)[1 : 1+ring.Size(64)],
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, ring.Format(mem))
			_, err := ring.NewWriter(mem)
			require.Error(t, err)
			_, err = ring.NewReader(mem)
			require.Error(t, err)
		})
	}
}

func TestEndsRefuseMemoryFormattedOtherwise(t *testing.T) {
	mem := make([]byte, ring.Size(256))
	_, err := ring.NewWriter(mem)
	require.ErrorContains(t, err, "call Format first")

	require.NoError(t, ring.Format(mem))
	_, err = ring.NewReader(mem[:ring.Size(128)])
	require.ErrorContains(t, err, "call Format first", "the length given counts, not the length written")
}

func TestNothingIsSeenBeforePublish(t *testing.T) {
	w, r, _ := pair(t, 256)
	require.True(t, put(w, 5, 1))
	require.Nil(t, r.Peek())
	require.Zero(t, r.Used())
	w.Publish()
	require.Equal(t, 16, r.Used(), "a word of 8 and 5 bytes filled up to 8")
	wantRecord(t, r, 5, 1)
	require.Equal(t, 16, w.Used(), "not released yet")
	r.Release()
	require.Zero(t, w.Used())
}

func TestPeekRepeatsUntilAdvance(t *testing.T) {
	w, r, _ := pair(t, 256)
	require.True(t, put(w, 3, 7))
	w.Publish()
	require.Equal(t, []byte{7, 7, 7}, r.Peek())
	require.Equal(t, []byte{7, 7, 7}, r.Peek())
	r.Advance()
	r.Advance() // without a Peek: nothing
	require.Nil(t, r.Peek())
	require.True(t, put(w, 1, 8))
	w.Publish()
	wantRecord(t, r, 1, 8)
}

func TestRecordWithoutBytesIsARecord(t *testing.T) {
	w, r, _ := pair(t, 64)
	for range 30 { // over the end too, where the payload begins at the capacity
		require.True(t, put(w, 0, 0))
		w.Publish()
		require.NotNil(t, r.Peek())
		wantRecord(t, r, 0, 0)
		require.Nil(t, r.Peek())
		r.Release()
	}
}

func TestCommitShortensAndReserveGivesUp(t *testing.T) {
	w, r, _ := pair(t, 256)
	w.Commit(4) // nothing is reserved
	w.Publish()
	require.Nil(t, r.Peek())

	require.NotNil(t, w.Reserve(100))
	copy(w.Reserve(50), "hello")
	w.Commit(5)
	w.Commit(5) // the reservation is used up
	w.Publish()
	require.Equal(t, "hello", string(r.Peek()))
	r.Advance()
	require.Nil(t, r.Peek())

	w.Reserve(3)
	w.Commit(200) // cut to what was reserved
	w.Publish()
	require.Len(t, r.Peek(), 3)
	r.Advance()

	w.Reserve(3)
	w.Commit(-1)
	w.Publish()
	require.Empty(t, r.Peek())
}

func TestImpossibleLengthsFindNoRoom(t *testing.T) {
	w, _, _ := pair(t, 256)
	for _, n := range []int{-1, -1 << 62, 249, 256, 1 << 40, 1<<63 - 1} {
		require.Nil(t, w.Reserve(n), "%d bytes", n)
	}
	require.NotNil(t, w.Reserve(248), "an empty ring at offset 0 takes all but the word")

	chain := ring.NewChain(1 << 20).Writer()
	chain.Commit(1)
	for _, n := range []int{-1, -1 << 62, 1 << 40, 1<<63 - 1} {
		require.Nil(t, chain.Reserve(n), "%d bytes", n)
	}
}

func TestMaxRecordFitsAtEveryOffset(t *testing.T) {
	const capacity = 256
	for at := 0; at < capacity; at += 8 {
		w, r, _ := pair(t, capacity)
		for range at / 8 {
			require.True(t, put(w, 0, 0))
			w.Publish()
			wantRecord(t, r, 0, 0)
			r.Release()
		}
		require.True(t, put(w, ring.MaxRecord(capacity), 9), "at offset %d", at)
		w.Publish()
		wantRecord(t, r, ring.MaxRecord(capacity), 9)
	}
}

func TestFullRingTakesMoreAfterRelease(t *testing.T) {
	w, r, _ := pair(t, 128)
	for i := range 8 {
		require.True(t, put(w, 8, byte(i)))
	}
	require.False(t, put(w, 0, 0), "full")
	w.Publish()
	wantRecord(t, r, 8, 0)
	require.False(t, put(w, 8, 8), "passed and not yet released")
	r.Release()
	require.True(t, put(w, 8, 8))
	w.Publish()
	for i := 1; i < 9; i++ {
		wantRecord(t, r, 8, byte(i))
	}
	require.Nil(t, r.Peek())
}

func TestCloseFromTheWriter(t *testing.T) {
	w, r, _ := pair(t, 128)
	require.True(t, put(w, 4, 1))
	w.Publish()
	require.False(t, r.Closed())
	w.Close()
	require.True(t, r.Closed())
	wantRecord(t, r, 4, 1)
	require.Nil(t, r.Peek())
	require.False(t, r.Arm(), "nothing will come: do not sleep")
}

func TestCloseFromTheReader(t *testing.T) {
	w, r, _ := pair(t, 128)
	for put(w, 8, 1) {
	}
	w.Publish()
	require.True(t, w.Arm(8))
	r.Close()
	require.True(t, w.Closed())
	require.False(t, w.Arm(8), "no room will come: do not sleep")
	wantRecord(t, r, 8, 1)
	r.Release()
	require.Nil(t, w.Reserve(8), "a closed ring gives no new room")
}

func TestArmAsksForOneWake(t *testing.T) {
	w, r, _ := pair(t, 64)
	require.True(t, put(w, 8, 1))
	require.False(t, w.Publish(), "nobody asked")
	require.False(t, r.Arm(), "there is a record: do not sleep")
	require.True(t, put(w, 8, 2))
	require.True(t, w.Publish(), "the request stands although the reader looked again")
	require.True(t, put(w, 8, 3))
	require.False(t, w.Publish(), "a request is answered once")

	require.True(t, put(w, 8, 4))
	w.Publish()
	require.True(t, w.Arm(8), "full")
	wantRecord(t, r, 8, 1)
	require.True(t, r.Release())
	require.False(t, w.Arm(8), "there is room again")
	for i := 2; i < 5; i++ {
		wantRecord(t, r, 8, byte(i))
	}
	require.True(t, r.Release())
	require.True(t, r.Arm(), "empty")
	require.True(t, w.Publish(), "even without a record a request is answered")
}

// ends is a ring or a chain under test.
type ends struct {
	w       writer
	r       reader
	publish func()
	release func()
	used    func() int
}

func ringEnds(w *ring.Writer, r *ring.Reader) ends {
	return ends{w, r, func() { w.Publish() }, func() { r.Release() }, r.Used}
}

func chainEnds(c *ring.Chain) ends {
	return ends{c.Writer(), c.Reader(), c.Writer().Publish, c.Reader().Release, c.Used}
}

// model checks both ends against a slice queue with random steps.
func model(t *testing.T, e ends, maxRecord int, rng *rand.Rand, steps int) {
	t.Helper()
	w, r := e.w, e.r
	var committed, visible [][]byte
	var passed int
	for step := range steps {
		switch rng.IntN(6) {
		case 0, 1:
			n := rng.IntN(maxRecord + 1)
			if rng.IntN(2) == 0 {
				n = rng.IntN(min(64, maxRecord) + 1)
			}
			b := w.Reserve(n)
			if b == nil {
				continue
			}
			if len(b) != n {
				require.FailNow(t, "wrong room", "step %d: %d bytes, not %d", step, len(b), n)
			}
			v := byte(rng.Uint32())
			for i := range b {
				b[i] = v + byte(i)
			}
			n = rng.IntN(n + 1)
			committed = append(committed, append([]byte{}, b[:n]...))
			w.Commit(n)
		case 2:
			e.publish()
			visible = append(visible, committed...)
			committed = nil
		case 3, 4:
			b := r.Peek()
			if len(visible) == 0 {
				// A chain that grows publishes early: then more may be seen.
				if b == nil {
					continue
				}
				require.NotEmpty(t, committed, "step %d", step)
				visible, committed = committed[:1], committed[1:]
			}
			if b == nil || !bytes.Equal(visible[0], b) {
				require.FailNow(t, "wrong record", "step %d: %x, not %x", step, b, visible[0])
			}
			visible = visible[1:]
			r.Advance()
			passed++
		case 5:
			e.release()
			if len(visible) == 0 && len(committed) == 0 {
				require.Nil(t, r.Peek(), "step %d: nothing is there", step)
				require.Zero(t, e.used(), "step %d: nothing is in use", step)
			}
		}
	}
	require.Greater(t, passed, steps/40, "records went through")
}

func TestRecordsAgainstAModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		capacity := 64 << rng.IntN(6)
		t.Run(fmt.Sprintf("seed %d capacity %d", seed, capacity), func(t *testing.T) {
			w, r, _ := pair(t, capacity)
			model(t, ringEnds(w, r), ring.MaxRecord(capacity), rng, 4000)
			require.NoError(t, w.Err())
			require.NoError(t, r.Err())
		})
	}
}

// send writes numbered records of changing length; full is called until there
// is room.
func send(e ends, total, maxRecord int, full func(n int)) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range total {
		n := 8 + rng.IntN(maxRecord-7)
		b := e.w.Reserve(n)
		for b == nil {
			e.publish()
			full(n)
			b = e.w.Reserve(n)
		}
		binary.LittleEndian.PutUint64(b, uint64(i))
		for j := range b[8:] {
			b[8+j] = byte(i)
		}
		e.w.Commit(n)
		if i%7 == 0 {
			e.publish()
		}
	}
	e.publish()
}

// receive takes what send wrote; empty is called until there is something.
func receive(t *testing.T, e ends, total, maxRecord int, empty func()) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range total {
		n := 8 + rng.IntN(maxRecord-7)
		b := e.r.Peek()
		for b == nil {
			e.release()
			empty()
			b = e.r.Peek()
		}
		if len(b) != n || binary.LittleEndian.Uint64(b) != uint64(i) || (n > 8 && b[n-1] != byte(i)) {
			require.FailNow(t, "wrong record", "record %d: %d bytes, number %d", i, len(b), binary.LittleEndian.Uint64(b))
		}
		e.r.Advance()
		if i%5 == 0 {
			e.release()
		}
	}
	e.release()
	require.Nil(t, e.r.Peek())
	require.Zero(t, e.used())
}

// The two sleep by Arm and a channel only: a lost wake would hang the test.
func TestRecordsBetweenGoroutines(t *testing.T) {
	const total = 100_000
	w, r, _ := pair(t, 1024)
	wakeReader, wakeWriter := make(chan struct{}, 1), make(chan struct{}, 1)
	wake := func(asked bool, c chan struct{}) {
		if asked {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	e := ringEnds(w, r)
	e.publish = func() { wake(w.Publish(), wakeReader) }
	e.release = func() { wake(r.Release(), wakeWriter) }
	go func() {
		send(e, total, ring.MaxRecord(1024), func(n int) {
			if w.Arm(n) {
				<-wakeWriter
			}
		})
		w.Close()
		wake(w.Publish(), wakeReader)
	}()
	receive(t, e, total, ring.MaxRecord(1024), func() {
		if r.Arm() {
			<-wakeReader
		}
	})
	for !r.Closed() {
		if r.Arm() {
			<-wakeReader
		}
	}
	require.NoError(t, w.Err())
	require.NoError(t, r.Err())
}

func TestRecordsDoNotAllocate(t *testing.T) {
	w, r, _ := pair(t, 4096)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		for range 8 {
			put(w, 100, 1)
		}
		w.Publish()
		for r.Peek() != nil {
			r.Advance()
		}
		r.Release()
	}))
}
