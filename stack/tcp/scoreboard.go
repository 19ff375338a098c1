package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Sizes in segments: of a scoreboard at first, and of all the memory beyond that
// which the layer keeps for the next ones that grow, 1.5 MiB.
const (
	firstRecords = 16
	keptRecords  = 64 << 10
)

// sent is a segment in flight. It begins where its predecessor ends.
type sent struct {
	seq, end Seq
	at       clock.Time // of the last transmission
	// run is how many records from this one on are known to be sacked, where it is
	// itself: see skipSacked.
	run  uint32
	mark mark
}

// mark is what is known of a segment in flight.
type mark uint8

const (
	sacked    mark = 1 << iota // the peer has it (RFC 2018)
	lost                       // taken for lost
	rexmt                      // sent again, and that is still under way
	everRexmt                  // was sent again at some time (Karn, RFC 6298 section 3)
	hasFIN                     // its last number is the FIN
	pushed                     // it ended a write
)

// flight is the scoreboard of what is in flight (RFC 6675 section 3), with the
// variables of RACK and TLP that mean nothing once all is acknowledged. It is a
// ring of records in the order of their sequence numbers.
//
// Numbers of segments: pipe = n - sacked - lost + rexmt, each counting the
// marks of the same name (RFC 6675 section 4, SetPipe).
type flight struct {
	layer   *Layer
	records []sent // length a power of two: small, or from the layer
	first   uint32 // index of the oldest; an index & (len(records)-1) is its place
	n       uint32

	sacked, lost, rexmt uint32
	// hint: no record in front of this index is lost and not sent again.
	hint uint32
	// fack is behind the highest number that the peer is known to have.
	fack Seq

	rack struct {
		at  clock.Time    // RACK.xmit_ts
		end Seq           // RACK.end_seq
		rtt time.Duration // RACK.rtt
	}
	// reno counts duplicate ACKs, each of which tells that some segment
	// arrived, where SACK does not tell which (RFC 6582 section 3.2).
	reno  uint32
	cache [wire.MaxSACK]span // SACK blocks of the last ACK
	next  *flight            // in the layer's free list
	small [firstRecords]sent
}

// rec returns the record of an index from first to first+n-1.
func (f *flight) rec(i uint32) *sent { return &f.records[i&uint32(len(f.records)-1)] }

// last returns the record with the highest numbers.
func (f *flight) last() *sent { return f.rec(f.first + f.n - 1) }

// push adds a segment behind all others.
func (f *flight) push(r sent) {
	if int(f.n) == len(f.records) {
		f.grow()
	}
	f.n++
	*f.rec(f.first + f.n - 1) = r
}

func (f *flight) grow() {
	larger := f.layer.takeRecords(2 * len(f.records))
	for i := range f.n {
		larger[(f.first+i)&uint32(len(larger)-1)] = *f.rec(f.first + i)
	}
	f.layer.keepRecords(f.records)
	f.records = larger
}

// pop forgets the oldest segment.
func (f *flight) pop() {
	f.uncount(f.rec(f.first).mark)
	f.first++
	f.n--
	if int32(f.hint-f.first) < 0 {
		f.hint = f.first
	}
}

// uncount takes a record's marks out of the numbers.
func (f *flight) uncount(m mark) {
	if m&sacked != 0 {
		f.sacked--
	}
	if m&lost != 0 {
		f.lost--
	}
	if m&rexmt != 0 {
		f.rexmt--
	}
}

// find returns the index of the first record that ends behind seq, first+n when
// there is none.
func (f *flight) find(seq Seq) uint32 {
	low, high := uint32(0), f.n
	for low < high {
		middle := (low + high) / 2
		if f.rec(f.first + middle).end.After(seq) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return f.first + low
}

// split cuts record i so that its first part has n numbers.
func (f *flight) split(i uint32, n int) {
	f.push(sent{})
	for j := f.first + f.n - 1; j != i; j-- {
		*f.rec(j) = *f.rec(j - 1)
	}
	a, b := f.rec(i), f.rec(i+1)
	a.end = a.seq.Add(n)
	b.seq = a.end
	a.mark &^= hasFIN | pushed
	f.count(b.mark)
}

// count adds a record's marks to the numbers.
func (f *flight) count(m mark) {
	if m&sacked != 0 {
		f.sacked++
	}
	if m&lost != 0 {
		f.lost++
	}
	if m&rexmt != 0 {
		f.rexmt++
	}
}

// markLost takes a segment for lost, the retransmission of one that was lost
// before too, and reports whether that is news.
func (f *flight) markLost(i uint32) bool {
	r := f.rec(i)
	if r.mark&sacked != 0 {
		return false
	}
	news := false
	if r.mark&rexmt != 0 {
		r.mark &^= rexmt
		f.rexmt--
		news = true
	}
	if r.mark&lost == 0 {
		r.mark |= lost
		f.lost++
		news = true
	}
	if news && int32(i-f.hint) < 0 {
		f.hint = i
	}
	return news
}

// markSacked notes that the peer has a segment.
func (f *flight) markSacked(r *sent) {
	f.uncount(r.mark & (lost | rexmt))
	r.mark = r.mark&^(lost|rexmt) | sacked
	f.sacked++
	if r.end.After(f.fack) {
		f.fack = r.end
	}
}

// skipSacked returns the index of the first record from i on that is not sacked,
// first+n where there is none. Long runs of sacked records are met by every ACK of a
// recovery, so each remembers how far it reached the last time.
func (f *flight) skipSacked(i uint32) uint32 {
	r := f.rec(i)
	end := f.first + f.n
	j := i
	for j != end {
		q := f.rec(j)
		if q.mark&sacked == 0 {
			break
		}
		j += max(1, q.run)
	}
	if j != i {
		r.run = j - i
	}
	return j
}

// toRexmt returns the index of the next segment that is lost and not sent
// again, and false when there is none.
func (f *flight) toRexmt() (uint32, bool) {
	if f.lost == 0 {
		return 0, false
	}
	for end := f.first + f.n; f.hint != end; f.hint++ {
		if f.rec(f.hint).mark&(lost|rexmt|sacked) == lost {
			return f.hint, true
		}
	}
	return 0, false
}

// pipe is RFC 6675's: how many segments are thought to be in the network.
func (c *Conn) pipe() uint32 {
	f := c.flight
	if f == nil {
		return 0
	}
	out := f.n + f.rexmt
	left := f.sacked + f.lost + f.reno
	if left >= out {
		return 0
	}
	return out - left
}

// inFlight returns how many segments are not acknowledged.
func (c *Conn) inFlight() uint32 {
	if c.flight == nil {
		return 0
	}
	return c.flight.n
}

// track notes a segment that was sent for the first time.
func (c *Conn) track(r sent) {
	if c.flight == nil {
		c.flight = c.layer.borrowFlight()
		c.flight.fack = c.snd.una
	}
	c.flight.push(r)
}
