package ring_test

import (
	"testing"

	"kitnet.dev/kit/stack/ring"
)

// The benchmarks move batches of 64 records of 64 bytes; the time of one
// operation is that of one record at both ends, with both copies.
const batch, size = 64, 64

func BenchmarkRecords(b *testing.B) {
	w, r, _ := pair(b, 1<<16)
	src, dst := make([]byte, size), make([]byte, size)
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

func BenchmarkChain(b *testing.B) {
	c := ring.NewChain(1 << 16)
	w, r := c.Writer(), c.Reader()
	src, dst := make([]byte, size), make([]byte, size)
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
