package tcp

import (
	"slices"

	"kitnet.dev/kit/stack/wire"
)

// span is a run of sequence numbers, from left to right exclusive.
type span struct{ left, right Seq }

// holes is what arrived behind a gap: disjoint ranges, sorted. The bytes are at
// their place in the receive stream already.
type holes struct {
	ranges []span
	// recent are numbers in the ranges that got a segment last, the newest
	// first, for the order of SACK blocks.
	recent  [wire.MaxSACK]Seq
	nRecent uint8
	next    *holes // in the layer's free list
}

// place returns the ranges, from i to j exclusive, that touch the one from left
// to right.
func (h *holes) place(left, right Seq) (i, j int) {
	i, _ = slices.BinarySearchFunc(h.ranges, left, func(r span, s Seq) int { return int(r.right.Sub(s)) })
	for j = i; j < len(h.ranges) && !h.ranges[j].left.After(right); j++ {
	}
	return i, j
}

// roomForRange reports whether one more range can be kept.
func (c *Conn) roomForRange(left, right Seq) bool {
	h := c.holes
	if h == nil || len(h.ranges) < c.layer.cfg.OutOfOrder {
		return true
	}
	i, j := h.place(left, right)
	return j > i
}

// keepRange notes bytes behind a gap and wants a duplicate ACK at once (RFC 5681
// section 4.2). Where SACK is not agreed the sender counts such ACKs, so each
// segment gets its own.
func (c *Conn) keepRange(left, right Seq) {
	h := c.holes
	if h == nil {
		h = c.layer.borrowHoles()
		c.holes = h
	}
	i, j := h.place(left, right)
	if j == i {
		h.ranges = slices.Insert(h.ranges, i, span{left, right})
	} else {
		first, last := h.ranges[i], h.ranges[j-1]
		if !left.Before(first.left) && !right.After(first.right) {
			c.reportDuplicate(left, right)
		}
		if first.left.Before(left) {
			left = first.left
		}
		if last.right.After(right) {
			right = last.right
		}
		h.ranges[i] = span{left, right}
		h.ranges = slices.Delete(h.ranges, i+1, j)
	}
	h.touch(h.ranges[i])
	if c.due.ack && !c.opt.sack && c.due.extra < 255 {
		c.due.extra++
	}
	c.due.ack = true
}

// touch puts a range in front of the recent ones.
func (h *holes) touch(r span) {
	n := uint8(1)
	recent := [wire.MaxSACK]Seq{r.left}
	for _, s := range h.recent[:h.nRecent] {
		if n < wire.MaxSACK && !(span{r.left, r.right}).holds(s) {
			recent[n] = s
			n++
		}
	}
	h.recent, h.nRecent = recent, n
}

// holds reports whether the range contains a number.
func (r span) holds(s Seq) bool { return !s.Before(r.left) && s.Before(r.right) }

// duplicate reports the text of a segment that was received before (RFC 2883
// section 4).
func (c *Conn) duplicate(s *Segment) {
	if end := s.Seq.Add(s.PayloadLen()); s.PayloadLen() > 0 && s.Seq.Before(c.rcv.nxt) {
		if end.After(c.rcv.nxt) {
			end = c.rcv.nxt
		}
		c.reportDuplicate(s.Seq, end)
	}
}

// reportDuplicate has the next ACK carry a DSACK block.
func (c *Conn) reportDuplicate(left, right Seq) {
	if c.opt.sack && left != right {
		c.ack.dsack, c.ack.hasDSACK = span{left, right}, true
		c.count.duplicates++
	}
}

// putSACK fills a segment's SACK blocks: a DSACK first (RFC 2883 section 4), then
// the range that got the most recent segment, then those before it (RFC 2018
// section 4). room is how many bytes of options are left.
func (c *Conn) putSACK(o *wire.TCPOptions, room int) {
	if !c.opt.sack {
		return
	}
	most := uint8(max(0, min((room-sackLen)/sackBlockLen, wire.MaxSACK)))
	add := func(r span) {
		if o.NSACK < most {
			o.SACK[o.NSACK] = wire.SACKBlock{Left: r.left, Right: r.right}
			o.NSACK++
		}
	}
	if c.ack.hasDSACK {
		add(c.ack.dsack)
	}
	h := c.holes
	if h == nil {
		return
	}
	for _, s := range h.recent[:h.nRecent] {
		i, j := h.place(s, s)
		if i < j && h.ranges[i].right == s {
			i++ // touches, but s is in the one behind
		}
		if i < len(h.ranges) && h.ranges[i].holds(s) && !listed(o, h.ranges[i]) {
			add(h.ranges[i])
		}
	}
	// A list that was merged and cut may have more to tell than it remembers.
	for i := len(h.ranges) - 1; i >= 0 && o.NSACK < most; i-- {
		if !listed(o, h.ranges[i]) {
			add(h.ranges[i])
		}
	}
}

// listed reports whether a block for the range is there already, not counting a
// DSACK that happens to lie in it.
func listed(o *wire.TCPOptions, r span) bool {
	for _, b := range o.SACK[:o.NSACK] {
		if b.Left == r.left && b.Right == r.right {
			return true
		}
	}
	return false
}
