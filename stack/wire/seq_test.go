package wire_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// RFC 9293 section 3.4: all arithmetic on sequence numbers is modulo 2^32.
func TestSeqComparesOverTheWrap(t *testing.T) {
	for _, c := range []struct {
		s, t wire.Seq
		by   int32
	}{
		{0, 0, 0},
		{7, 7, 0},
		{1, 0, 1},
		{0, math.MaxUint32, 1},
		{5, math.MaxUint32 - 4, 10},
		{1<<31 - 1, 0, 1<<31 - 1},
		{1<<31 + 5, 1 << 31, 5},
	} {
		require.Equal(t, c.by, c.s.Sub(c.t))
		require.Equal(t, -c.by, c.t.Sub(c.s))
		require.Equal(t, c.by > 0, c.s.After(c.t))
		require.Equal(t, c.by > 0, c.t.Before(c.s))
		require.False(t, c.s.Before(c.t))
		require.False(t, c.t.After(c.s))
		require.Equal(t, c.s, c.t.Add(int(c.by)))
		require.Equal(t, c.t, c.s.Add(int(-c.by)))
	}
}

// RFC 1982 section 3.2 leaves two numbers that are 2^31 apart undefined.
func TestSeqHalfACircleApart(t *testing.T) {
	a, b := wire.Seq(10), wire.Seq(10+1<<31)
	require.True(t, a.Before(b) && b.Before(a))
	require.True(t, a.After(b) && b.After(a))
}

func TestSeqIn(t *testing.T) {
	for _, c := range []struct {
		s, first wire.Seq
		size     uint32
		want     bool
	}{
		{5, 5, 0, false},
		{5, 5, 1, true},
		{6, 5, 1, false},
		{4, 5, 10, false},
		{14, 5, 10, true},
		{15, 5, 10, false},
		{3, math.MaxUint32 - 1, 6, true},
		{4, math.MaxUint32 - 1, 6, false},
		{math.MaxUint32 - 2, math.MaxUint32 - 1, 6, false},
	} {
		require.Equal(t, c.want, c.s.In(c.first, c.size), "%d in %d+%d", c.s, c.first, c.size)
	}
	rng := rand.New(rand.NewPCG(9, 9))
	for range 2000 {
		s, first, size := wire.Seq(rng.Uint32()), wire.Seq(rng.Uint32()), rng.Uint32()>>1
		if rng.IntN(2) == 0 {
			s = first.Add(rng.IntN(1 << 31))
		}
		require.Equal(t, !s.Before(first) && s.Before(first.Add(int(size))), s.In(first, size))
	}
}
