package wire

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// naiveSum is RFC 1071 section 1, word by word.
func naiveSum(b []byte, initial uint16) uint16 {
	v := uint32(initial)
	for i, x := range b {
		if i%2 == 0 {
			v += uint32(x) << 8
		} else {
			v += uint32(x)
		}
		v = v&0xFFFF + v>>16
	}
	return uint16(v)
}

func TestSumAgreesWithTheNaiveModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 4096)
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	for n := 0; n < 300; n++ {
		for at := 0; at < 9; at++ {
			init := uint16(rng.Uint32())
			require.Equal(t, naiveSum(buf[at:at+n], init), Sum(buf[at:at+n], init), "%d bytes at %d", n, at)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 1500} {
		b.Run("", func(b *testing.B) {
			buf := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				Sum(buf, 0)
			}
		})
	}
}
