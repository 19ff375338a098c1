package wire_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
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

// RFC 1071 section 3 adds these bytes to DDF2.
func TestSumOfRFC1071(t *testing.T) {
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	require.Equal(t, uint16(0xddf2), wire.Sum(b, 0))
	require.Equal(t, uint16(0x220d), wire.Checksum(b, 0))
}

func TestSumAgreesWithTheModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 2048)
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	dst := make([]byte, 2048)
	for n := range 400 {
		for at := range 9 {
			src, initial := buf[at:at+n], uint16(rng.Uint32())
			want := naiveSum(src, initial)
			if got := wire.Sum(src, initial); got != want {
				require.Equal(t, want, got, "%d bytes at %d", n, at)
			}
			clear(dst)
			to := dst[8-at : 8-at+n : 8-at+n]
			if got := wire.CopySum(to, src, initial); got != want || string(to) != string(src) {
				require.Equal(t, want, got, "copy of %d bytes from %d", n, at)
				require.Equal(t, src, to)
			}
		}
	}
}

// Sums at the edges of carrying: all ones and nearly all ones, in every length.
func TestSumCarries(t *testing.T) {
	for _, fill := range []byte{0x00, 0x01, 0xFE, 0xFF} {
		b := make([]byte, 300)
		for i := range b {
			b[i] = fill
		}
		for n := range b {
			for _, initial := range []uint16{0, 1, 0xFFFE, 0xFFFF} {
				require.Equal(t, naiveSum(b[:n], initial), wire.Sum(b[:n], initial), "%d bytes of %x and %x", n, fill, initial)
			}
		}
	}
	require.Equal(t, uint16(0xFFFF), wire.Sum([]byte{0xFF, 0xFF}, 0), "a sum that is not of zeros is never 0")
	require.Zero(t, wire.Sum(make([]byte, 100), 0))
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("an odd number of bytes!"), uint16(7), 3)
	f.Fuzz(func(t *testing.T, b []byte, initial uint16, cut int) {
		want := naiveSum(b, initial)
		require.Equal(t, want, wire.Sum(b, initial))
		require.Equal(t, ^want, wire.Checksum(b, initial))
		dst := make([]byte, len(b)+3)
		require.Equal(t, want, wire.CopySum(dst[3:], b, initial))
		require.Equal(t, b, append([]byte{}, dst[3:]...))
		// In parts that begin at even offsets.
		cut = max(0, min(cut, len(b))) &^ 1
		require.Equal(t, want, wire.Sum(b[cut:], wire.Sum(b[:cut], initial)))
	})
}

func TestCopySumCopiesTheShorter(t *testing.T) {
	dst := []byte{9, 9, 9, 9}
	require.Equal(t, uint16(0x0102), wire.CopySum(dst[:2], []byte{1, 2, 3}, 0))
	require.Equal(t, []byte{1, 2, 9, 9}, dst)
	require.Equal(t, uint16(0x0700), wire.CopySum(dst, []byte{7}, 0))
	require.Equal(t, []byte{7, 2, 9, 9}, dst)
}

// RFC 1624 section 4 gives this example, on which the formula of RFC 1141
// fails: the field becomes 0x0000 and not 0xFFFF.
func TestUpdateChecksumOfRFC1624(t *testing.T) {
	require.Equal(t, uint16(0x0000), wire.UpdateChecksum(0xDD2F, 0x5555, 0x3285))
}

func TestUpdateChecksumAgreesWithComputing(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		b := make([]byte, 20)
		for i := range b {
			b[i] = byte(rng.Uint32())
			if rng.IntN(3) == 0 {
				b[i] = byte(rng.IntN(2) * 255)
			}
		}
		b[10], b[11] = 0, 0
		b[0] |= 1 // an all-zero packet has two right checksums
		field := wire.Checksum(b, 0)
		old := binary.BigEndian.Uint32(b[12:])
		updated := rng.Uint32()
		binary.BigEndian.PutUint32(b[12:], updated)
		want := wire.Checksum(b, 0)
		got := wire.UpdateChecksum(field, uint16(old>>16), uint16(updated>>16))
		got = wire.UpdateChecksum(got, uint16(old), uint16(updated))
		if want != got {
			require.Equal(t, want, got, "from %08x to %08x in %x", old, updated, b)
		}
	}
}

func TestAddSum(t *testing.T) {
	require.Equal(t, uint16(3), wire.AddSum(1, 2))
	require.Equal(t, uint16(1), wire.AddSum(0xFFFF, 1))
	require.Equal(t, uint16(0xFFFF), wire.AddSum(0xFFFF, 0xFFFF))
}

func TestPseudoSumAgreesWithTheModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for i := range 2000 {
		src, dst := wire.Addr(rng.Uint32()), wire.Addr(rng.Uint32())
		if i%5 == 0 {
			src, dst = wire.AddrBroadcast, wire.AddrBroadcast
		}
		length := rng.IntN(65536)
		b := make([]byte, 12) // RFC 768: addresses, zero, protocol, length
		wire.PutAddr(b, src)
		wire.PutAddr(b[4:], dst)
		b[9] = byte(wire.ProtocolUDP)
		binary.BigEndian.PutUint16(b[10:], uint16(length))
		require.Equal(t, naiveSum(b, 0), wire.PseudoSum(src, dst, wire.ProtocolUDP, length))
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 1500, 65535} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				wire.Sum(buf, 0)
			}
		})
	}
}

func BenchmarkCopySum(b *testing.B) {
	for _, n := range []int{18, 64, 256, 1472} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			src, dst := make([]byte, n), make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				wire.CopySum(dst, src, 0)
			}
		})
	}
}
