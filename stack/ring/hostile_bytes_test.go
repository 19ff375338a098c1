package ring_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/ring"
)

const limitAt = 32

func TestBytesWriterSurvivesAnyConsumerIndex(t *testing.T) {
	for name, index := range map[string]uint64{
		"behind what was committed": 11,
		"far behind":                1 << 40,
		"before the beginning":      ^uint64(0),
		"gone back":                 3,
	} {
		t.Run(name, func(t *testing.T) {
			w, r, mem := bytesPair(t, 64)
			require.Equal(t, 10, w.Write(make([]byte, 10)))
			require.Equal(t, 5, w.Put(20, make([]byte, 5)), "put and not committed")
			r.Release(4)
			require.Equal(t, 6, w.Used())
			set64(mem, consumerAt, index)
			require.Zero(t, w.Free())
			require.ErrorIs(t, w.Err(), ring.ErrCorrupt)
			require.True(t, r.Closed(), "the other end can see that this one gave up")
			set64(mem, consumerAt, 5)
			require.Zero(t, w.Free(), "an end in error stays in error")
			require.Zero(t, w.Put(0, make([]byte, 1)))
			require.Zero(t, w.Write(make([]byte, 1)))
			require.False(t, w.Arm(1), "and does not wait")
			w.Commit(15)
			require.Equal(t, 64, w.Used(), "what was put is not committed any more")
		})
	}
}

func TestBytesReaderSurvivesAnyProducerIndex(t *testing.T) {
	for name, index := range map[string]uint64{
		"over a capacity away": 68 + 1,
		"far away":             1 << 40,
		"before the beginning": ^uint64(0),
		"gone back":            9,
	} {
		t.Run(name, func(t *testing.T) {
			w, r, mem := bytesPair(t, 64)
			require.Equal(t, 10, w.Write(make([]byte, 10)))
			r.Release(4)
			require.Equal(t, 6, r.Used())
			set64(mem, producerAt, index)
			require.Zero(t, r.Used())
			require.ErrorIs(t, r.Err(), ring.ErrCorrupt)
			require.True(t, w.Closed(), "the other end can see that this one gave up")
			set64(mem, producerAt, 20)
			require.Zero(t, r.Used(), "an end in error stays in error")
			require.Empty(t, peek(r, 0, 10))
			require.Zero(t, r.Read(make([]byte, 10)))
			require.False(t, r.Arm(), "and does not wait")
			r.Release(5)
		})
	}
}

func TestLimitIsNeverBeyondTheCapacity(t *testing.T) {
	w, r, mem := bytesPair(t, 64)
	set64(mem, limitAt, ^uint64(0))
	require.Equal(t, 64, w.Limit())
	require.Equal(t, 64, r.Limit())
	require.Equal(t, 64, w.Write(make([]byte, 100)))
	require.NoError(t, w.Err())
}

// A close in the other end is a closed connection, not an error.
func TestBytesClose(t *testing.T) {
	w, r, _ := bytesPair(t, 64)
	require.Equal(t, 64, w.Write(make([]byte, 64)))
	require.True(t, w.Arm(1), "full")
	r.Close()
	require.True(t, w.Closed())
	require.False(t, w.Arm(1), "no room will come: do not sleep")
	r.Release(64)
	require.Zero(t, w.Free(), "a closed ring gives no new room")

	w, r, _ = bytesPair(t, 64)
	require.Equal(t, 3, w.Write([]byte("end")))
	w.Close()
	require.True(t, r.Closed())
	require.Equal(t, "end", peek(r, 0, 10), "what is there can be read")
	require.False(t, r.Arm())
	r.Release(3)
	require.False(t, r.Arm(), "nothing will come: do not sleep")
	require.NoError(t, r.Err())
}

func TestBytesArmAsksForOneWake(t *testing.T) {
	w, r, _ := bytesPair(t, 64)
	require.False(t, w.Asked())
	require.True(t, r.Arm(), "empty")
	w.Write([]byte("x"))
	require.True(t, w.Asked())
	require.False(t, w.Asked(), "a request is answered once")
	require.False(t, r.Arm(), "there is a byte: do not sleep")
	require.True(t, w.Asked(), "the request stands although the reader looked again")

	w.Write(make([]byte, 63))
	require.True(t, w.Arm(1), "full")
	require.True(t, w.Arm(2))
	r.Release(1)
	require.True(t, r.Asked())
	require.False(t, r.Asked())
	require.True(t, w.Arm(2), "one byte is not enough")
	require.False(t, w.Arm(1))
}

// FuzzHostileBytes lets the input scribble over all of the shared memory between
// honest steps of both ends. Neither may panic or leave its memory, and no number
// that comes out is beyond the capacity.
func FuzzHostileBytes(f *testing.F) {
	f.Add([]byte{0, 5, 5, 2, 5, 3, 1, 9})
	f.Add([]byte{0, 40, 90, 2, 100, 5, 0, 8, 0, 0, 3, 0, 9, 4, 9, 1, 3, 200})
	f.Add([]byte{5, 1, 255, 255, 255, 255, 0, 9, 9, 5, 0, 1, 0, 0, 0, 3, 1, 200})
	f.Fuzz(func(t *testing.T, steps []byte) {
		const capacity = 128
		w, r, mem := bytesPair(t, capacity)
		next := func() byte {
			if len(steps) == 0 {
				return 0
			}
			b := steps[0]
			steps = steps[1:]
			return b
		}
		for len(steps) > 0 {
			switch next() % 6 {
			case 0:
				require.LessOrEqual(t, w.Put(int(next()), make([]byte, next())), capacity)
			case 1:
				w.Commit(int(next()))
			case 2:
				require.LessOrEqual(t, w.Write(make([]byte, next())), capacity)
			case 3:
				off, n := int(next()), int(next())
				a, b := r.Peek(off, n)
				require.LessOrEqual(t, len(a)+len(b), min(n, capacity))
				require.LessOrEqual(t, r.Read(make([]byte, next())), capacity)
				r.Release(int(next()))
			case 4: // a byte anywhere but in the part that is read once, at the start
				at := 16 + (int(next())|int(next())<<8)%(len(mem)-16)
				mem[at] = next()
			case 5: // a whole index
				at := []int{producerAt, consumerAt, limitAt}[next()%3]
				set64(mem, at, uint64(next())|uint64(next())<<8|uint64(next())<<32|uint64(next())<<56)
			}
			for _, n := range []int{w.Used(), w.Free(), w.Limit(), r.Used(), r.Limit()} {
				require.GreaterOrEqual(t, n, 0)
				require.LessOrEqual(t, n, capacity)
			}
		}
	})
}
