package tcp

import "time"

// bursts is the place of the segment being sent in a burst. It is the layer's, for it means nothing between two Emits.
type bursts struct {
	size  int // segments of one
	place int // of the last segment in its burst, from 1
}

// A burst is what leaves in a millisecond, up to burstBytes, and more over a round trip so short that the path's queues are: as
// Linux cuts what a card segments (tcp_tso_autosize, net/ipv4/tcp_output.c). Half of cwnd is its limit, so that a second one is
// under way while the first is acknowledged. It is what a link is given in one piece, if that takes as much.
const (
	burstTime  = time.Millisecond
	burstBytes = 256 << 10
	burstRTT   = 512 * time.Microsecond
)

// endsBurst reports whether a new segment, of the allow bytes of text that may leave n long, is the last of several that make a
// burst. It has PSH then, so that a receiver that gathers segments (GRO) hands them up and does not wait for more: RFC 9293
// section 3.9.1.2 wants PSH where no more follows, and allows it elsewhere.
func (c *Conn) endsBurst(n, allow int, first bool) bool {
	b := c.burst(first)
	b.place++
	if b.place < b.size && n < allow {
		return false
	}
	several := b.place > 1 && n > 0
	b.place = 0
	return several
}

// burst begins with the first segment of an Emit.
func (c *Conn) burst(first bool) *bursts {
	b := &c.layer.burst
	if first {
		b.size, b.place = c.burstSize(), 0
	}
	return b
}

// burstLeft is how many of the allow bytes of text the burst still takes, and whether its end, or theirs, is reached with them.
func (c *Conn) burstLeft(allow int, first bool) (n int, ends bool) {
	b := c.burst(first)
	n = min(allow, (b.size-b.place)*int(c.snd.mss))
	return n, n == allow || b.size-b.place == segmentsOf(n, int(c.snd.mss))
}

// sent notes that so many segments have left, with which the burst ends or does not.
func (b *bursts) sent(segments int, ends bool) {
	if b.place += segments; ends {
		b.place = 0
	}
}

// burstSize returns the segments of a burst.
func (c *Conn) burstSize() int {
	size := c.rate() / uint64(time.Second/burstTime)
	if shift := c.rtt.min / burstRTT; shift < 32 {
		size += burstBytes >> shift
	}
	n := max(int(min(size, burstBytes))/int(c.snd.mss), c.layer.cfg.MinBurst)
	return max(1, min(n, int(c.cc.cwnd/2)))
}
