package wire

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum is the complement of the one's complement sum of a
// packet's 16-bit words (RFC 1071 section 1). Here a "sum" is not complemented
// yet, is folded to 16 bits, and is the machine's own number, so that sums of
// parts that begin at even offsets may be passed on as the next one's initial
// value. A sum of anything but zeros is never 0: 0 appears as 0xFFFF.
//
// The words are added 8 or 32 bytes at a time in little-endian order and turned
// round at the end, which RFC 1071 section 2 (B) allows.

// wideLen is the least length for which sumWide is faster than what stands here.
const wideLen = 128

// Sum adds the bytes of b to an initial sum. An odd last byte counts as the
// high half of a word, so only the last part of a packet may have odd length.
func Sum(b []byte, initial uint16) uint16 {
	acc := uint64(swap16(initial))
	if wide && len(b) >= wideLen {
		n := len(b) &^ 31
		acc += sumWide(&b[0], n)
		b = b[n:]
	}
	var carry uint64
	for len(b) >= 64 {
		c := (*[64]byte)(b)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(c[0:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(c[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(c[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(c[24:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(c[32:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(c[40:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(c[48:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(c[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	acc, carry = bits.Add64(acc, tail(b), carry)
	return fold(acc, carry)
}

// tail reads the last 0 to 7 bytes as a number of the machine.
func tail(b []byte) uint64 {
	var v uint64
	var shift uint
	if len(b) >= 4 {
		v = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
		shift = 32
	}
	if len(b) >= 2 {
		v |= uint64(binary.LittleEndian.Uint16(b)) << shift
		b = b[2:]
		shift += 16
	}
	if len(b) == 1 {
		v |= uint64(b[0]) << shift
	}
	return v
}

// fold brings an accumulator in the packet's byte order and its carry down to a
// sum.
func fold(acc, carry uint64) uint16 {
	lo, c := bits.Add32(uint32(acc), uint32(acc>>32), uint32(carry))
	return swap16(fold32(uint64(lo) + uint64(c)))
}

// fold32 brings a sum of a few 32-bit words down to 16 bits.
func fold32(v uint64) uint16 {
	v = v&0xFFFFFFFF + v>>32
	v = v&0xFFFF + v>>16
	v = v&0xFFFF + v>>16
	return uint16(v)
}

// Checksum returns the checksum field for b and an initial sum: the complement
// of Sum. Over a packet whose field is filled in, the result 0 means intact.
func Checksum(b []byte, initial uint16) uint16 { return ^Sum(b, initial) }

// CopySum copies src to dst, which do not overlap, as much as copy does, and
// returns the sum of what it copied added to an initial sum. Where src changes
// meanwhile the sum may be neither the old bytes' nor the new ones'.
func CopySum(dst, src []byte, initial uint16) uint16 {
	n := min(len(dst), len(src))
	dst, src = dst[:n], src[:n]
	acc := uint64(swap16(initial))
	if n >= 64 {
		if !wide {
			// The wide stores of copy and the additions each go faster alone. The
			// source is summed, because reading what was just stored stalls.
			copy(dst, src)
			return Sum(src, initial)
		}
		n &^= 31
		acc += copySumWide(&dst[0], &src[0], n)
		dst, src = dst[n:], src[n:]
	}
	var carry uint64
	for len(src) >= 8 && len(dst) >= 8 {
		v := binary.LittleEndian.Uint64(src)
		binary.LittleEndian.PutUint64(dst, v)
		acc, carry = bits.Add64(acc, v, carry)
		dst, src = dst[8:], src[8:]
	}
	copy(dst, src)
	acc, carry = bits.Add64(acc, tail(src), carry)
	return fold(acc, carry)
}

// CopySum2 copies a and behind it b to dst, which has room for both, and returns
// the sum of all of it added to an initial sum: the two halves of a ring. Unlike
// elsewhere a may be of odd length.
func CopySum2(dst, a, b []byte, initial uint16) uint16 {
	initial = CopySum(dst, a, initial)
	if len(b) == 0 {
		return initial
	}
	if len(a)&1 == 0 {
		return CopySum(dst[len(a):], b, initial)
	}
	// The sum of bytes turned round is the sum turned round (RFC 1071
	// section 2 (B)).
	return AddSum(initial, swap16(CopySum(dst[len(a):], b, 0)))
}

// AddSum adds two sums.
func AddSum(a, b uint16) uint16 {
	v := uint32(a) + uint32(b)
	return uint16(v + v>>16)
}

// UpdateChecksum returns what a checksum field becomes when one 16-bit word of
// what it covers changes from old to new (RFC 1624 section 3, equation 3).
func UpdateChecksum(field, old, new uint16) uint16 {
	return ^AddSum(AddSum(^field, ^old), new)
}

// PseudoSum returns the sum of the pseudo-header that UDP and TCP checksums
// cover: addresses, protocol and the length of header and payload (RFC 768,
// RFC 9293 section 3.1). This very number in the field of a received packet is
// a partial checksum.
func PseudoSum(src, dst Addr, protocol Protocol, length int) uint16 {
	return fold32(uint64(src) + uint64(dst) + uint64(protocol) + uint64(length))
}

// ChecksumState is what a received transport checksum turned out to be.
type ChecksumState uint8

// The states. All but ChecksumBad are acceptable somewhere: ChecksumPartial
// only where the link says that its other side is a kernel on this machine.
const (
	// ChecksumOK: the sum agrees.
	ChecksumOK ChecksumState = iota
	// ChecksumNone: the field is 0, the sender made none (RFC 768).
	ChecksumNone
	// ChecksumPartial: the field holds only the pseudo-header's sum, as a
	// kernel leaves it for a card to complete (CHECKSUM_PARTIAL).
	ChecksumPartial
	// ChecksumBad: the packet is damaged.
	ChecksumBad
)

// String returns one word.
func (s ChecksumState) String() string {
	switch s {
	case ChecksumOK:
		return "ok"
	case ChecksumNone:
		return "none"
	case ChecksumPartial:
		return "partial"
	}
	return "bad"
}
