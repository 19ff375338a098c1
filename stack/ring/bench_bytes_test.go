package ring_test

import (
	"testing"

	"kitnet.dev/kit/stack/ring"
)

// One operation is a segment of 1448 bytes at both ends, with both copies.
func BenchmarkStreamSegment(b *testing.B) {
	s := newStream(1 << 16)
	p := make([]byte, 1448)
	b.SetBytes(1448)
	for b.Loop() {
		s.Put(0, p)
		s.Commit(len(p))
		s.Read(p)
	}
}

func BenchmarkBytesSegment(b *testing.B) {
	w, r, _ := bytesPair(b, 1<<16)
	p := make([]byte, 1448)
	b.SetBytes(1448)
	for b.Loop() {
		w.Put(0, p)
		w.Commit(len(p))
		r.Read(p)
	}
}

// Without the copies: what the calls themselves cost.
func BenchmarkStreamByte(b *testing.B) {
	s := newStream(1 << 16)
	p := make([]byte, 1)
	b.Run("put", func(b *testing.B) {
		for b.Loop() {
			s.Put(0, p)
			s.Commit(1)
			s.Release(1)
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			s.Write(p)
			s.Release(1)
		}
	})
	s.Write(make([]byte, 4000))
	b.Run("peek", func(b *testing.B) {
		for b.Loop() {
			s.Peek(1000, 1448)
		}
	})
}

// A connection that carries one byte and gives its memory back.
func BenchmarkStreamLife(b *testing.B) {
	p := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		var s ring.Stream
		s.SetLimit(1 << 16)
		s.Write(p)
		s.Release(1)
		s.Shrink()
	}
}

// From nothing to 1 MiB in writes of 64 KiB; bytes are those that are copied
// from the outside.
func BenchmarkStreamGrowth(b *testing.B) {
	p := make([]byte, 1<<16)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		s := newStream(1 << 20)
		for s.Write(p) > 0 {
		}
	}
}
