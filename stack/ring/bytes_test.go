package ring_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/ring"
)

// sink and source are what the ends of a ring of bytes and of a Stream share.
type sink interface {
	Free() int
	Put(off int, p []byte) int
	Commit(n int)
	Write(p []byte) int
	Used() int
	Limit() int
	SetLimit(n int)
}

type source interface {
	Peek(off, n int) (a, b []byte)
	Release(n int)
	Read(p []byte) int
	Used() int
	Limit() int
	SetLimit(n int)
}

var (
	_ sink   = (*ring.BytesWriter)(nil)
	_ source = (*ring.BytesReader)(nil)
	_ sink   = (*ring.Stream)(nil)
	_ source = (*ring.Stream)(nil)
)

// bytesPair makes both ends over new memory, which it returns too.
func bytesPair(t testing.TB, capacity int) (*ring.BytesWriter, *ring.BytesReader, []byte) {
	t.Helper()
	mem := make([]byte, ring.Size(capacity))
	require.NoError(t, ring.FormatBytes(mem))
	w, err := ring.NewBytesWriter(mem)
	require.NoError(t, err)
	r, err := ring.NewBytesReader(mem)
	require.NoError(t, err)
	return w, r, mem
}

// newStream makes a stream with a limit.
func newStream(limit int) *ring.Stream {
	s := new(ring.Stream)
	s.SetLimit(limit)
	return s
}

// both runs a test on a ring of bytes and on a stream, each with room for n
// bytes, a power of two.
func both(t *testing.T, n int, test func(t *testing.T, w sink, r source)) {
	t.Run("bytes", func(t *testing.T) {
		w, r, _ := bytesPair(t, n)
		test(t, w, r)
	})
	t.Run("stream", func(t *testing.T) {
		s := newStream(n)
		test(t, s, s)
	})
}

// peek joins what Peek returns.
func peek(r source, off, n int) string {
	a, b := r.Peek(off, n)
	return string(a) + string(b)
}

func TestMemoryThatCannotBeARingOfBytes(t *testing.T) {
	for _, mem := range [][]byte{nil, make([]byte, ring.HeaderLen), make([]byte, ring.Size(96)), make([]byte, ring.Size(32))} {
		require.Error(t, ring.FormatBytes(mem))
		_, err := ring.NewBytesWriter(mem)
		require.Error(t, err)
		_, err = ring.NewBytesReader(mem)
		require.Error(t, err)
	}
	records, size := make([]byte, ring.Size(256)), ring.Size(256)
	require.NoError(t, ring.Format(records))
	_, err := ring.NewBytesWriter(records)
	require.ErrorContains(t, err, "call FormatBytes first", "a ring of records is none of bytes")
	require.NoError(t, ring.FormatBytes(records))
	_, err = ring.NewWriter(records)
	require.ErrorContains(t, err, "call Format first", "nor the other way round")
	_, err = ring.NewBytesReader(records[:size-128])
	require.ErrorContains(t, err, "call FormatBytes first", "the length given counts, not the length written")
}

func TestSentAgainUntilAcknowledged(t *testing.T) {
	both(t, 64, func(t *testing.T, w sink, r source) {
		require.Empty(t, peek(r, 0, 10))
		require.Equal(t, 10, w.Write([]byte("0123456789")))
		require.Equal(t, 10, r.Used())
		require.Equal(t, 54, w.Free())
		require.Equal(t, "0123", peek(r, 0, 4))
		require.Equal(t, "4567", peek(r, 4, 4))
		require.Equal(t, "89", peek(r, 8, 4))
		require.Empty(t, peek(r, 10, 4))
		require.Equal(t, "0123", peek(r, 0, 4), "a retransmission")
		require.Equal(t, 54, w.Free(), "to peek takes nothing")
		r.Release(6)
		require.Equal(t, "6789", peek(r, 0, 100))
		require.Equal(t, 60, w.Free())
		r.Release(100)
		require.Equal(t, 64, w.Free(), "cut to what was there")
		require.Zero(t, r.Used())
	})
}

func TestOutOfOrderGoesToItsPlace(t *testing.T) {
	both(t, 64, func(t *testing.T, w sink, r source) {
		require.Equal(t, 3, w.Put(6, []byte("ghi")))
		require.Equal(t, 3, w.Put(3, []byte("def")))
		require.Zero(t, r.Used())
		require.Empty(t, peek(r, 0, 10), "not in order yet")
		require.Equal(t, 64, w.Free(), "bytes out of order count as room")
		require.Equal(t, 4, w.Put(0, []byte("abcd")), "overlapping")
		w.Commit(9)
		require.Equal(t, "abcdefghi", peek(r, 0, 10))
		w.Commit(5)
		require.Equal(t, 9, r.Used(), "nothing else was put")
	})
}

func TestNoRoomForMoreThanTheLimit(t *testing.T) {
	both(t, 64, func(t *testing.T, w sink, r source) {
		require.Equal(t, 64, w.Limit())
		require.Equal(t, 4, w.Put(60, []byte("123456")))
		require.Zero(t, w.Put(64, []byte("1")))
		require.Equal(t, 64, w.Write(make([]byte, 100)))
		require.Zero(t, w.Write([]byte("1")))
		require.Zero(t, w.Free())
		r.Release(10)
		require.Equal(t, 10, w.Write(make([]byte, 100)))

		w.SetLimit(20)
		require.Equal(t, 20, r.Limit())
		require.Equal(t, 64, r.Used(), "what is in stays")
		require.Zero(t, w.Free())
		r.Release(50)
		require.Equal(t, 6, w.Free())
		require.Equal(t, 6, w.Put(0, make([]byte, 10)))
		r.SetLimit(30)
		require.Equal(t, 16, w.Free())
		r.SetLimit(-1)
		require.Zero(t, w.Limit())
		require.Zero(t, w.Put(0, []byte("1")))
	})
}

func TestImpossibleNumbersDoNothing(t *testing.T) {
	const most = 1<<63 - 1
	both(t, 64, func(t *testing.T, w sink, r source) {
		require.Equal(t, 5, w.Write([]byte("hello")))
		for _, off := range []int{-1, -most - 1, most, most - 3, 64} {
			require.Zero(t, w.Put(off, []byte("x")), "%d", off)
			require.Empty(t, peek(r, off, 1), "%d", off)
			require.Empty(t, peek(r, off, most), "%d", off)
		}
		for _, n := range []int{0, -1, -most - 1} {
			w.Commit(n)
			r.Release(n)
			require.Empty(t, peek(r, 0, n))
		}
		require.Zero(t, w.Write(nil))
		require.Zero(t, r.Read(nil))
		require.Equal(t, "hello", peek(r, 0, most))
		r.Release(most)
		w.Commit(most)
		require.Zero(t, r.Used())
		require.Zero(t, r.Read(make([]byte, 1)))
	})
}

func TestPeekOverTheEnd(t *testing.T) {
	both(t, 4096, func(t *testing.T, w sink, r source) {
		w.Write(make([]byte, 4090))
		r.Release(4090)
		require.Equal(t, 16, w.Write([]byte("0123456789abcdef")))
		a, b := r.Peek(0, 16)
		require.Equal(t, "012345", string(a))
		require.Equal(t, "6789abcdef", string(b))
		require.Equal(t, [2]int{6, 10}, [2]int{cap(a), cap(b)}, "an append must not reach other bytes")
		a, b = r.Peek(2, 4)
		require.Equal(t, "2345", string(a))
		require.Empty(t, b)
		require.Equal(t, 4, cap(a))
		a, b = r.Peek(7, 4)
		require.Equal(t, "789a", string(a))
		require.Empty(t, b)
		p := make([]byte, 8)
		require.Equal(t, 8, r.Read(p))
		require.Equal(t, "01234567", string(p))
		require.Equal(t, 8, r.Read(make([]byte, 100)))
	})
}

// byteModel is a ring of bytes, naively: every byte since the beginning.
type byteModel struct {
	all              []byte // with put, as far as anything was
	put              []bool
	head, tail       int
	limit            int
	peeked           [2][]byte // still looked at, from peekedAt on
	peekedAt         int
	peekedWas        []byte
	moved, committed int
}

func (m *byteModel) free() int { return max(0, m.limit-(m.head-m.tail)) }

// store is Put.
func (m *byteModel) store(off int, p []byte) int {
	n := max(0, min(len(p), m.free()-off))
	for i, v := range p[:n] {
		at := m.head + off + i
		for at >= len(m.all) {
			m.all, m.put = append(m.all, 0), append(m.put, false)
		}
		m.all[at], m.put[at] = v, true
	}
	return n
}

// inOrder is how many bytes behind head were put without a gap.
func (m *byteModel) inOrder() (n int) {
	for m.head+n < len(m.put) && m.put[m.head+n] {
		n++
	}
	return n
}

// wantPeeked checks that what Peek returned holds what it did.
func (m *byteModel) wantPeeked(t *testing.T) {
	t.Helper()
	if m.peekedAt >= m.tail && !bytes.Equal(m.peekedWas, append(append([]byte{}, m.peeked[0]...), m.peeked[1]...)) {
		require.FailNow(t, "bytes changed that were not released")
	}
}

// modelBytes checks both ends against a byteModel. Each step takes numbers below
// n from next, which reports the end by going; shrink is nil where there is none.
func modelBytes(t *testing.T, w sink, r source, shrink func() bool, next func(n int) int, more func() bool) *byteModel {
	t.Helper()
	m := &byteModel{limit: w.Limit()}
	value := byte(0)
	fresh := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			value = value*5 + 1
			p[i] = value ^ byte(i>>8)
		}
		return p
	}
	for more() {
		most := m.limit + 8
		switch next(9) {
		case 0:
			p := fresh(next(most))
			n := m.store(0, p)
			m.head += n
			m.committed += n
			equal(t, n, w.Write(p), "Write")
		case 1, 2:
			off, p := next(most), fresh(next(most))
			equal(t, m.store(off, p), w.Put(off, p), "Put")
		case 3, 4:
			n := m.inOrder()
			if n != len(m.all)-m.head { // a gap: beyond it nothing may be committed
				n = next(n + 1)
				w.Commit(n)
			} else {
				w.Commit(n + next(3))
			}
			m.head += n
			m.committed += n
		case 5:
			off, n := next(most), next(most)
			a, b := r.Peek(off, n)
			want := m.all[min(m.tail+off, m.head):min(m.tail+off+n, m.head)]
			if !bytes.Equal(want, append(append([]byte{}, a...), b...)) {
				require.FailNow(t, "wrong bytes peeked")
			}
			require.False(t, len(a) == 0 && len(b) > 0)
			m.wantPeeked(t)
			m.peeked, m.peekedAt, m.peekedWas = [2][]byte{a, b}, m.tail+off, want
		case 6:
			m.wantPeeked(t)
			n := next(m.head - m.tail + 2)
			r.Release(n)
			m.tail = min(m.tail+n, m.head)
		case 7:
			m.wantPeeked(t)
			p := make([]byte, next(most))
			n := r.Read(p)
			equal(t, min(len(p), m.head-m.tail), n, "Read")
			if !bytes.Equal(m.all[m.tail:m.tail+n], p[:n]) {
				require.FailNow(t, "wrong bytes read")
			}
			m.tail += n
			m.moved += n
		case 8:
			switch {
			case next(4) == 0:
				w.SetLimit(next(2*most + 10))
				m.limit = r.Limit()
			case shrink != nil:
				equal(t, m.head == m.tail && len(m.all) <= m.head, shrink(), "Shrink")
			}
		}
		equal(t, m.head-m.tail, r.Used(), "Used")
		equal(t, m.head-m.tail, w.Used(), "Used")
		equal(t, m.free(), w.Free(), "Free")
	}
	return m
}

// equal is require.Equal, much faster.
func equal[T comparable](t *testing.T, want, got T, what string) {
	if want != got {
		t.Helper()
		require.Equal(t, want, got, what)
	}
}

// steps returns sources of numbers for modelBytes.
func steps(rng *rand.Rand, n int) (func(int) int, func() bool) {
	return func(below int) int {
			if rng.IntN(3) == 0 {
				below = min(below, 100)
			}
			return rng.IntN(below)
		}, func() bool {
			n--
			return n >= 0
		}
}

func TestBytesAgainstAModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 3))
		capacity := 64 << rng.IntN(6)
		t.Run(fmt.Sprintf("seed %d capacity %d", seed, capacity), func(t *testing.T) {
			w, r, _ := bytesPair(t, capacity)
			next, more := steps(rng, 3000)
			m := modelBytes(t, w, r, nil, next, more)
			require.NoError(t, w.Err())
			require.NoError(t, r.Err())
			require.Greater(t, m.committed, capacity, "bytes went through")
		})
	}
}

func FuzzBytes(f *testing.F) {
	f.Add(uint16(64), []byte{0, 20, 5, 0, 20, 7, 9, 1, 30, 40, 1, 20, 5, 2, 0, 3, 3, 1, 5, 0, 30})
	f.Add(uint16(4096), []byte{0, 200, 5, 0, 200, 8, 1, 6, 200, 8, 1, 0, 3})
	f.Add(uint16(20_000), []byte{1, 9, 255, 1, 0, 9, 3, 0, 5, 0, 40, 0, 255, 5, 3, 250, 7, 255, 8, 0, 3})
	f.Fuzz(func(t *testing.T, limit uint16, input []byte) {
		for _, stream := range []bool{false, true} {
			rest := input
			next := func(below int) int {
				if len(rest) == 0 {
					return 0
				}
				v := int(rest[0])
				rest = rest[1:]
				if below > 255 {
					v = v * v / 2 // up to 32,512
				}
				return v % below
			}
			more := func() bool { return len(rest) > 0 }
			if stream {
				s := newStream(int(limit))
				modelBytes(t, s, s, s.Shrink, next, more)
				continue
			}
			w, r, _ := bytesPair(t, ring.MinCapacity<<(limit%8))
			modelBytes(t, w, r, nil, next, more)
			require.NoError(t, w.Err())
			require.NoError(t, r.Err())
		}
	})
}

// byteAt is the byte at a position of the streams here.
func byteAt(pos int) byte { return byte(pos*7 ^ pos>>8 ^ pos>>16) }

func fill(p []byte, pos int) []byte {
	for i := range p {
		p[i] = byteAt(pos + i)
	}
	return p
}

// wantBytes checks bytes that begin at a position.
func wantBytes(t *testing.T, pos int, p []byte) {
	for i, v := range p {
		if v != byteAt(pos+i) {
			t.Helper()
			require.FailNow(t, "wrong byte", "at %d: %d, not %d", pos+i, v, byteAt(pos+i))
		}
	}
}

// The two sleep by Arm and a channel only: a lost wake would hang the test.
func TestBytesBetweenGoroutines(t *testing.T) {
	const total = 1_000_000
	w, r, _ := bytesPair(t, 1024)
	wakeReader, wakeWriter := make(chan struct{}, 1), make(chan struct{}, 1)
	wake := func(asked bool, c chan struct{}) {
		if asked {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	go func() {
		rng := rand.New(rand.NewPCG(1, 1))
		p := make([]byte, 700)
		for pos := 0; pos < total; {
			n := min(total-pos, 1+rng.IntN(len(p)))
			done := w.Write(fill(p[:n], pos))
			pos += done
			wake(w.Asked(), wakeReader)
			if done < n && w.Arm(1+rng.IntN(512)) {
				<-wakeWriter
			}
		}
		w.Close()
		wake(w.Asked(), wakeReader)
	}()
	rng := rand.New(rand.NewPCG(2, 2))
	p := make([]byte, 700)
	for pos := 0; pos < total; {
		if rng.IntN(2) == 0 {
			n := r.Read(p[:rng.IntN(len(p))])
			wantBytes(t, pos, p[:n])
			pos += n
		} else {
			off := rng.IntN(100)
			a, b := r.Peek(off, 300)
			wantBytes(t, pos+off, a)
			wantBytes(t, pos+off+len(a), b)
			a, b = r.Peek(0, 300)
			wantBytes(t, pos, a)
			wantBytes(t, pos+len(a), b)
			r.Release(len(a) + len(b))
			pos += len(a) + len(b)
		}
		wake(r.Asked(), wakeWriter)
		if r.Used() == 0 && r.Arm() {
			<-wakeReader
		}
	}
	require.Zero(t, r.Used())
	require.False(t, r.Arm(), "nothing will come: do not sleep")
	require.True(t, r.Closed())
	require.NoError(t, r.Err())
}
