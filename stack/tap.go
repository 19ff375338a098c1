package stack

import "kitnet.dev/kit/stack/clock"

// Tap sees every frame of both directions, received ones when their end is known, with the reason where it was a drop. A
// fragment that another engine drops is seen once more there. A Tap is called on the engines, several at a time, and must
// neither block nor keep the frame.
type Tap func(i *Interface, queue int, dir Direction, reason DropReason, at clock.Time, frame []byte)

// tapping is what an engine keeps for its tap. A received frame may be answered in place before its end is known, so the
// tap gets a copy of it, and what is sent meanwhile is shown behind it: a capture has the question before the answer.
type tapping struct {
	tap     Tap
	frame   []byte // copy of the received frame
	holding bool   // between hold and release
	sent    []byte // what was sent meanwhile, one frame behind the other
	ends    []int  // where each of them ends
}

// hold keeps a copy of a frame that is about to be looked at.
func (t *tapping) hold(frame []byte) {
	t.frame = append(t.frame[:0], frame...)
	t.sent, t.ends, t.holding = t.sent[:0], t.ends[:0], true
}

// releaseTap shows the held frame, and then what was sent meanwhile.
func (e *Engine) releaseTap(r DropReason) {
	t := &e.tapping
	t.holding = false
	t.tap(e.iface, e.queue, Received, r, e.now, t.frame)
	from := 0
	for _, to := range t.ends {
		t.tap(e.iface, e.queue, Transmitted, NotDropped, e.now, t.sent[from:to])
		from = to
	}
}

// tapSent shows a frame that the link was given.
func (e *Engine) tapSent(f []byte) {
	t := &e.tapping
	if t.holding {
		t.sent = append(t.sent, f...)
		t.ends = append(t.ends, len(t.sent))
		return
	}
	t.tap(e.iface, e.queue, Transmitted, NotDropped, e.now, f)
}
