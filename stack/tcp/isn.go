package tcp

import (
	"math/bits"

	"kitnet.dev/kit/stack/clock"
)

// sipKey is a key of SipHash.
type sipKey [2]uint64

// sum is SipHash-2-4 (Aumasson and Bernstein, 2012) of three words, the shape
// that everything hashed here has. It is the keyed function F of RFC 6528
// section 3, which only has to be unpredictable without the key.
func (k sipKey) sum(m0, m1, m2 uint64) uint64 {
	v0, v1 := k[0]^0x736f6d6570736575, k[1]^0x646f72616e646f6d
	v2, v3 := k[0]^0x6c7967656e657261, k[1]^0x7465646279746573
	round := func() {
		v0 += v1
		v2 += v3
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v1
		v0 += v3
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 = bits.RotateLeft64(v2, 32)
	}
	const length = 24 << 56 // the message's last word is its length alone
	for _, m := range [...]uint64{m0, m1, m2, length} {
		v3 ^= m
		round()
		round()
		v0 ^= m
	}
	v2 ^= 0xFF
	for range 4 {
		round()
	}
	return v0 ^ v1 ^ v2 ^ v3
}

// id hashes a connection's name with one more number.
func (k sipKey) id(id ID, extra uint64) uint64 {
	return k.sum(uint64(id.Local)<<32|uint64(id.Remote), uint64(id.LocalPort)<<16|uint64(id.RemotePort), extra)
}

// iss returns an initial send sequence number: a clock that ticks every 4
// microseconds plus a keyed hash of the connection's name, so that it grows
// from one incarnation to the next and tells an outsider nothing (RFC 6528
// section 3; RFC 9293 section 3.4.1, MUST-8 and SHLD-1).
func (l *Layer) iss(now clock.Time, id ID) Seq {
	return Seq(uint32(uint64(now)/4000) + uint32(l.isnKey.id(id, 0)))
}

// timestampOffset returns what the timestamp clock of connections between these
// two hosts begins with. It depends on the addresses alone, so that the clock
// grows from one connection of theirs to the next, as RFC 6191 and PAWS across
// connections need, and does not tell how long the machine is up
// (RFC 7323 section 7.1).
func (l *Layer) timestampOffset(id ID) uint32 {
	return uint32(l.tsKey.sum(uint64(id.Local)<<32|uint64(id.Remote), 0, 1))
}
