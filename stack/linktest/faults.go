package linktest

import (
	"math/rand/v2"
	"time"
)

// Faults is what one direction of a line does to frames. The zero value
// delivers every frame at once. Probabilities are from 0 to 1, for each frame
// by itself.
type Faults struct {
	// Latency is how long a frame travels once it has left.
	Latency time.Duration
	// Jitter adds from 0 up to this to each frame's latency; frames stay in
	// order.
	Jitter time.Duration
	// Bandwidth in bits of frame a second makes a frame wait for those in front
	// of it; 0 is without limit.
	Bandwidth int64
	// Queue is how many bytes may wait for Bandwidth; a frame that finds more
	// waiting is dropped. 0 is without limit.
	Queue int

	Loss      float64
	Duplicate float64 // the copy comes right behind
	// Reorder holds a frame back by ReorderDelay (0: a millisecond), so that
	// those behind it overtake it.
	Reorder      float64
	ReorderDelay time.Duration
	// Corrupt flips CorruptBits bits (0: one) anywhere in the frame.
	Corrupt     float64
	CorruptBits int
	// Truncate cuts a frame to 1 byte or more.
	Truncate float64
}

// FaultStats counts what Faults did in one direction, in frames.
type FaultStats struct {
	Sent         uint64 // frames that came to the line
	Lost         uint64
	QueueDropped uint64 // found more than Queue bytes waiting
	Duplicated   uint64
	Reordered    uint64 // held back
	Corrupted    uint64
	Truncated    uint64
}

// Each kind of decision has its own random numbers and draws the same count for
// every frame, so that no setting changes what another one hits.
const (
	drawLoss = iota
	drawDuplicate
	drawReorder
	drawJitter
	drawCorrupt
	drawTruncate
	draws
)

// line applies Faults to the frames of one direction.
type line struct {
	faults Faults
	stats  FaultStats
	random [draws]rand.PCG
	busy   time.Duration // when the last frame has left
	last   time.Duration // when the last frame that keeps the order arrives
}

func newLine(seed uint64, direction int) line {
	var l line
	for i := range l.random {
		l.random[i] = *rand.NewPCG(seed, uint64(direction)<<8|uint64(i))
	}
	return l
}

// fate is what is to happen to a frame, which may be changed already.
type fate struct {
	dropped bool
	copies  int // 1 or 2
	at      time.Duration
	frame   []byte // the same frame, shorter if truncated
}

// hit draws a number below 1 and compares.
func (l *line) hit(draw int, probability float64) bool {
	return float64(l.random[draw].Uint64()>>11)*(1.0/(1<<53)) < probability
}

// pass decides about a frame sent now and damages it in place.
func (l *line) pass(now time.Duration, frame []byte) fate {
	f := &l.faults
	l.stats.Sent++
	lost := l.hit(drawLoss, f.Loss)
	duplicate := l.hit(drawDuplicate, f.Duplicate)
	reorder := l.hit(drawReorder, f.Reorder)
	corrupt := l.hit(drawCorrupt, f.Corrupt)
	corruptAt := l.random[drawCorrupt].Uint64()
	truncate := l.hit(drawTruncate, f.Truncate)
	truncateAt := l.random[drawTruncate].Uint64()
	jitter := l.random[drawJitter].Uint64()

	if !l.leave(now, len(frame)) {
		l.stats.QueueDropped++
		return fate{dropped: true}
	}
	if lost {
		l.stats.Lost++
		return fate{dropped: true}
	}
	out := fate{copies: 1, frame: frame, at: max(now, l.busy) + f.Latency}
	if f.Jitter > 0 {
		out.at += time.Duration(jitter % uint64(f.Jitter+1))
	}
	out.at = max(out.at, l.last)
	l.last = out.at
	if reorder {
		l.stats.Reordered++
		out.at += f.ReorderDelay
		if f.ReorderDelay == 0 {
			out.at += time.Millisecond
		}
	}
	if duplicate {
		l.stats.Duplicated++
		out.copies = 2
	}
	if truncate && len(frame) > 1 {
		l.stats.Truncated++
		out.frame = frame[:1+truncateAt%uint64(len(frame)-1)]
	}
	if corrupt && len(frame) > 0 {
		l.stats.Corrupted++
		flip(out.frame, corruptAt, max(1, f.CorruptBits))
	}
	return out
}

// leave books the time that n bytes take and reports whether they found room.
func (l *line) leave(now time.Duration, n int) bool {
	f := &l.faults
	if f.Bandwidth <= 0 {
		l.busy = now
		return true
	}
	perByte := 8 * float64(time.Second) / float64(f.Bandwidth)
	start := max(now, l.busy)
	if f.Queue > 0 && float64(start-now)/perByte > float64(f.Queue) {
		return false
	}
	l.busy = start + time.Duration(float64(n)*perByte)
	return true
}

// flip inverts count bits of frame, chosen by the number at.
func flip(frame []byte, at uint64, count int) {
	for range count {
		bit := at % uint64(len(frame)*8)
		frame[bit/8] ^= 1 << (bit % 8)
		at = at*6364136223846793005 + 1442695040888963407
		at ^= at >> 29
	}
}
