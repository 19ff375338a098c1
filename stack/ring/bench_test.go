package ring_test

import (
	"testing"

	"kitnet.dev/kit/stack/ring"
)

// benchmark moves batches of 64 records of 64 bytes; the time of one operation
// is that of one record at both ends.
func benchmark(b *testing.B, w writer, r reader) {
	const batch, size = 64, 64
	src := make([]byte, size)
	dst := make([]byte, size)
	b.SetBytes(size)
	for i := 0; i < b.N; i += batch {
		for range batch {
			copy(w.Reserve(size), src)
			w.Commit(size)
		}
		w.Publish()
		for range batch {
			copy(dst, r.Peek())
			r.Advance()
		}
		r.Release()
	}
}

func BenchmarkRecords(b *testing.B) {
	w, r, _ := pair(b, 1<<16)
	benchmark(b, w, r)
}

func BenchmarkChain(b *testing.B) {
	c := ring.NewChain(1 << 16)
	benchmark(b, c.Writer(), c.Reader())
}
