//go:build amd64

package wire

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// bothWays does something with wide addition and without.
func bothWays(do func(wide bool)) {
	defer func(had bool) { wide = had }(wide)
	if wide {
		do(true)
	}
	wide = false
	do(false)
}

// agree sums and copies b in both ways and wants the same, and no byte written
// beyond what was to be copied.
func agree(t *testing.T, b []byte, initial uint16) {
	var sums []uint16
	bothWays(func(bool) {
		dst := make([]byte, len(b)+64)
		for i := range dst {
			dst[i] = 0xA5
		}
		sums = append(sums, Sum(b, initial), CopySum(dst[32:32+len(b)], b, initial))
		require.Equal(t, b, dst[32:32+len(b)])
		for i, v := range dst {
			if v != 0xA5 && (i < 32 || i >= 32+len(b)) {
				t.Fatalf("byte %d beside the copy of %d was written", i-32, len(b))
			}
		}
	})
	for _, s := range sums {
		require.Equal(t, sums[0], s, "%d bytes and %x", len(b), initial)
	}
}

// The wide way and the other agree for every length up to two segments, at
// every place in a line of the cache, with words that carry.
func TestWideSumsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	buf := make([]byte, 4096)
	for _, fill := range []func(int) byte{
		func(int) byte { return byte(rng.Uint32()) },
		func(int) byte { return 0xFF },
		func(int) byte { return 0 },
		func(i int) byte { return byte(i>>2&1) * 0xFF }, // the high halves of lanes alone
	} {
		for i := range buf {
			buf[i] = fill(i)
		}
		for n := range 700 {
			agree(t, buf[n%64:n%64+n], uint16(rng.Uint32()))
		}
		for range 200 {
			at := rng.IntN(64)
			n := rng.IntN(len(buf) - at)
			agree(t, buf[at:at+n], uint16(rng.Uint32()))
		}
	}
	agree(t, make([]byte, 1<<20), 0)
}

func FuzzWideSum(f *testing.F) {
	f.Add(make([]byte, 200), uint16(0xFFFF))
	f.Fuzz(func(t *testing.T, b []byte, initial uint16) {
		agree(t, append([]byte{}, b...), initial) // never nil
	})
}
