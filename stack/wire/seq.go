package wire

// Seq is a TCP sequence number. The space is a circle of 2^32 numbers, so two
// of them compare by the shorter way round, and only where they are less than
// 2^31 apart (RFC 9293 section 3.4, RFC 1982 section 3.2). Exactly 2^31 apart
// each one is before the other; a receiver's window never reaches that far.
type Seq uint32

// Add returns the number n bytes behind s, or in front of it where n is
// negative.
func (s Seq) Add(n int) Seq { return s + Seq(n) }

// Sub returns how far s is behind t, negative where it is in front.
func (s Seq) Sub(t Seq) int32 { return int32(s - t) }

// Before reports whether s is in front of t: "s < t" in RFC 9293.
func (s Seq) Before(t Seq) bool { return int32(s-t) < 0 }

// After reports whether s is behind t: "s > t" in RFC 9293. The RFC's "s =< t"
// is !s.After(t).
func (s Seq) After(t Seq) bool { return int32(t-s) < 0 }

// In reports whether s is one of the size numbers that begin at first:
// "first =< s < first+size", the receive window's test (RFC 9293 section 3.4).
func (s Seq) In(first Seq, size uint32) bool { return uint32(s-first) < size }
