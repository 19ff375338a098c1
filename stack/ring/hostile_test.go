package ring_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/ring"
)

// Where doc.go says that the indices and the data are.
const (
	producerAt = 128
	consumerAt = 256
	dataAt     = 384
)

func set64(mem []byte, at int, v uint64) { binary.NativeEndian.PutUint64(mem[at:], v) }

func TestWriterSurvivesAnyConsumerIndex(t *testing.T) {
	for name, index := range map[string]uint64{
		"behind what was published":   24,
		"far behind":                  1 << 40,
		"before the beginning":        ^uint64(7),
		"not at a record's beginning": 4,
	} {
		t.Run(name, func(t *testing.T) {
			w, _, mem := pair(t, 64)
			require.True(t, put(w, 8, 1))
			w.Publish()
			for put(w, 8, 2) { // not published
			}
			set64(mem, consumerAt, index)
			require.Nil(t, w.Reserve(8))
			require.ErrorIs(t, w.Err(), ring.ErrCorrupt)
			set64(mem, consumerAt, 16)
			require.Nil(t, w.Reserve(0), "an end in error stays in error")
			require.False(t, w.Arm(0), "and does not wait")
			w.Publish()
			w.Commit(8)
		})
	}
}

func TestConsumerIndexMayNotGoBack(t *testing.T) {
	w, r, mem := pair(t, 64)
	for range 2 {
		require.True(t, put(w, 24, 1))
	}
	w.Publish()
	wantRecord(t, r, 24, 1)
	r.Release()
	require.True(t, put(w, 24, 1), "the writer saw the release")
	set64(mem, consumerAt, 0)
	require.Nil(t, w.Reserve(24))
	require.ErrorIs(t, w.Err(), ring.ErrCorrupt)
}

func TestReaderSurvivesAnyProducerIndex(t *testing.T) {
	for name, index := range map[string]uint64{
		"over a capacity away":        72,
		"far away":                    1 << 40,
		"before the beginning":        ^uint64(7),
		"not at a record's beginning": 12,
	} {
		t.Run(name, func(t *testing.T) {
			_, r, mem := pair(t, 64)
			set64(mem, producerAt, index)
			require.Nil(t, r.Peek())
			require.ErrorIs(t, r.Err(), ring.ErrCorrupt)
			set64(mem, producerAt, 16)
			require.Nil(t, r.Peek(), "an end in error stays in error")
			require.False(t, r.Arm(), "and does not wait")
			r.Advance()
			r.Release()
		})
	}
}

func TestProducerIndexMayNotGoBack(t *testing.T) {
	w, r, mem := pair(t, 64)
	for range 2 {
		require.True(t, put(w, 8, 1))
	}
	w.Publish()
	wantRecord(t, r, 8, 1)
	set64(mem, producerAt, 8)
	wantRecord(t, r, 8, 1) // the index is not read again before it is needed
	require.Nil(t, r.Peek())
	require.ErrorIs(t, r.Err(), ring.ErrCorrupt)
}

func TestReaderSurvivesAnyRecordWord(t *testing.T) {
	const pad = 1 << 32
	for name, word := range map[string]uint64{
		"longer than published":             9,
		"longer than the ring":              65,
		"longest":                           0xFFFFFFFF,
		"unknown kind":                      2<<32 | 8,
		"padding at the beginning":          pad | 56,
		"padding shorter than to the end":   pad | 8,
		"padding longer than what is there": pad | 0xFFFFFFFF,
		"all ones":                          ^uint64(0),
	} {
		t.Run(name, func(t *testing.T) {
			w, r, mem := pair(t, 64)
			require.True(t, put(w, 8, 1))
			w.Publish()
			set64(mem, dataAt, word)
			require.Nil(t, r.Peek())
			require.ErrorIs(t, r.Err(), ring.ErrCorrupt)
			require.True(t, w.Closed(), "the other end can see that this one gave up")
			r.Release()
		})
	}
}

func TestRecordMayNotReachOverTheEnd(t *testing.T) {
	w, r, mem := pair(t, 64)
	for range 3 {
		require.True(t, put(w, 8, 1))
		w.Publish()
		wantRecord(t, r, 8, 1)
		r.Release()
	}
	set64(mem, dataAt+48, 24) // 8 bytes are left behind this word
	set64(mem, producerAt, 48+32)
	require.Nil(t, r.Peek())
	require.ErrorIs(t, r.Err(), ring.ErrCorrupt)
}

func TestPaddingBehindPaddingIsRefused(t *testing.T) {
	w, r, mem := pair(t, 64)
	require.True(t, put(w, 24, 1))
	w.Publish()
	wantRecord(t, r, 24, 1)
	r.Release()
	set64(mem, dataAt+32, 1<<32|24)
	set64(mem, dataAt, 1<<32|24)
	set64(mem, producerAt, 96)
	require.Nil(t, r.Peek())
	require.ErrorIs(t, r.Err(), ring.ErrCorrupt)
}

// FuzzHostilePeer lets the input scribble over all of the shared memory between
// honest steps of both ends. Neither may panic, leave its memory or loop; the
// records that come out lie inside the data.
func FuzzHostilePeer(f *testing.F) {
	f.Add([]byte{0, 5, 1, 2, 3})
	f.Add([]byte{0, 40, 1, 4, 128, 0, 8, 2, 3, 0, 8, 1, 2})
	f.Add([]byte{4, 129, 0, 255, 2, 0, 9, 5, 0, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, steps []byte) {
		const capacity = 128
		w, r, mem := pair(t, capacity)
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
				n := int(next())
				if b := w.Reserve(n); b != nil {
					require.Len(t, b, n)
					clear(b)
				}
				w.Commit(n)
			case 1:
				w.Publish()
			case 2:
				for range capacity { // a reader that takes all it is given
					b := r.Peek()
					if b == nil {
						break
					}
					require.LessOrEqual(t, len(b), capacity-ring.RecordLen)
					r.Advance()
				}
				require.LessOrEqual(t, r.Used(), capacity)
			case 3:
				r.Release()
			case 4: // a byte anywhere but in the part that is read once, at the start
				at := 16 + (int(next())|int(next())<<8)%(len(mem)-16)
				mem[at] = next()
			case 5: // a whole word, at an index or a record
				at := []int{producerAt, consumerAt, dataAt, dataAt + 8, dataAt + 64}[next()%5]
				set64(mem, at, uint64(next())|uint64(next())<<8|uint64(next())<<32|uint64(next())<<56)
			}
		}
	})
}
