package tcp

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"kitnet.dev/kit/stack/clock"
)

// Layer is what the connections of one engine share: numbers, secrets, rate
// limits, and the memory that connections borrow. One goroutine uses it.
type Layer struct {
	cfg        Config
	congestion algorithm
	isnKey     sipKey // RFC 6528
	tsKey      sipKey // offsets of timestamp clocks
	portKey    sipKey // RFC 6056
	cookies    cookieKeys
	challenges limiter
	out        Segment // what Emit hands to Output
	// unpredicted is for tests: every segment goes the whole way.
	unpredicted bool
	// single is for tests: there are no runs.
	single  bool
	burst   bursts
	flights *flight      // free scoreboards, small
	bulk    int          // connections that send in bulk
	records [32][][]sent // free memory of scoreboards that had grown, by the logarithm of its length
	kept    int          // records in there
	holes   *holes       // free lists of ranges
	stats   Stats
}

// Stats counts what happened in a Layer since it was made.
type Stats struct {
	ActiveOpens, PassiveOpens   uint64 // RFC 4022: tcpActiveOpens, tcpPassiveOpens
	AttemptFails, EstabResets   uint64
	InSegments, OutSegments     uint64
	Predicted                   uint64 // of InSegments, those that header prediction took
	RetransmittedSegments       uint64
	ResetsSent                  uint64
	Timeouts, LossProbes        uint64
	SpuriousTimeouts            uint64 // found by F-RTO or Eifel
	Recoveries, Undone          uint64
	CookiesSent, CookiesGood    uint64
	CookiesBad                  uint64
	ChallengeACKs               uint64
	ChallengesSuppressed        uint64
	PAWSRejected                uint64
	OutOfWindow                 uint64
	BlackHoles                  uint64
	OutOfOrder, OutOfOrderDrops uint64 // segments
}

// Stats returns the counters.
func (l *Layer) Stats() Stats { return l.stats }

// OutSegments is Stats().OutSegments.
func (l *Layer) OutSegments() uint64 { return l.stats.OutSegments }

// Config returns the numbers that the layer was made with.
func (l *Layer) Config() *Config { return &l.cfg }

// NewLayer returns a layer with these numbers, or says which of them cannot
// be.
func NewLayer(cfg Config) (*Layer, error) {
	if cfg.Random == nil {
		cfg.Random = systemRandom
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := &Layer{cfg: cfg}
	l.congestion, _ = algorithmByName(cfg.Congestion)
	key := func() sipKey { return sipKey{cfg.Random(), cfg.Random()} }
	l.isnKey, l.tsKey, l.portKey = key(), key(), key()
	l.cookies.init(key)
	l.challenges.rate = cfg.ChallengeACKs
	l.challenges.random = cfg.Random
	return l, nil
}

// systemRandom reads the system's random source, which cannot fail on Linux.
func systemRandom() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// borrowFlight gives c a scoreboard.
func (l *Layer) borrowFlight() *flight {
	f := l.flights
	if f == nil {
		f = &flight{layer: l}
		f.records = f.small[:]
		return f
	}
	l.flights, f.next = f.next, nil
	return f
}

// returnFlight takes an empty scoreboard back.
func (l *Layer) returnFlight(f *flight) {
	l.keepRecords(f.records)
	*f = flight{layer: l, next: l.flights}
	f.records = f.small[:]
	l.flights = f
}

// takeRecords returns memory for n records, a power of two.
func (l *Layer) takeRecords(n int) []sent {
	free := &l.records[bits.Len(uint(n))]
	last := len(*free) - 1
	if last < 0 {
		return make([]sent, n)
	}
	b := (*free)[last]
	(*free)[last] = nil
	*free = (*free)[:last]
	l.kept -= n
	return b
}

// keepRecords takes them back. What is too much goes to the collector.
func (l *Layer) keepRecords(b []sent) {
	if n := len(b); n > firstRecords && l.kept+n <= keptRecords {
		free := &l.records[bits.Len(uint(n))]
		*free = append(*free, b)
		l.kept += n
	}
}

// borrowHoles gives a connection a list of ranges.
func (l *Layer) borrowHoles() *holes {
	h := l.holes
	if h == nil {
		return new(holes)
	}
	l.holes, h.next = h.next, nil
	return h
}

// returnHoles takes a list back.
func (l *Layer) returnHoles(h *holes) {
	*h = holes{ranges: h.ranges[:0], next: l.holes}
	l.holes = h
}

// limiter is a token bucket of a second's worth, whose size is drawn anew each
// second so that nobody can count what others used (RFC 5961 section 7;
// CVE-2016-5696).
type limiter struct {
	rate   int
	left   int
	until  clock.Time
	random func() uint64
}

// allow takes a token.
func (l *limiter) allow(now clock.Time) bool {
	if l.until == clock.Never || !now.Before(l.until) {
		l.until = now.Add(1e9)
		half := (l.rate + 1) / 2
		l.left = half + int(l.random()%uint64(l.rate))
	}
	if l.left <= 0 {
		return false
	}
	l.left--
	return true
}
