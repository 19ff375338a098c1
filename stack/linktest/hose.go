package linktest

// A Hose is a link for measuring what drives it: it costs little and always the same. It lends the frames that it was given, again
// and again, as many as it is told to, and throws away what is sent.
type Hose struct {
	*End // answers what Hose does not: its MTU and addresses; nothing passes its wire

	Left    int               // frames that Poll has still to lend
	Sent    int               // frames
	Partial int               // of these, by SendPartial
	Last    []byte            // what was sent last; valid until the next Alloc
	Heard   func(sent []byte) // is shown what is sent, if not nil

	frames [][]byte
	next   int
	lent   []byte
	free   [][]byte
}

// NewHose makes a Hose in the place of an end.
func NewHose(e *End) *Hose {
	h := &Hose{End: e, lent: make([]byte, 2048)}
	for range 2048 {
		h.free = append(h.free, make([]byte, 1522))
	}
	return h
}

// Lend says which frames Poll is to lend in turn, and how many in all.
func (h *Hose) Lend(n int, frames ...[]byte) { h.frames, h.next, h.Left = frames, 0, n }

// Poll lends copies, as answers are made in the frame that asked.
func (h *Hose) Poll(budget int, input func([]byte)) int {
	n := min(h.Left, budget)
	h.Left -= n
	for range n {
		f := h.frames[h.next]
		if h.next++; h.next == len(h.frames) {
			h.next = 0
		}
		input(h.lent[:copy(h.lent, f)])
	}
	return n
}

// Peek shows the frames that Poll lends next.
func (h *Hose) Peek(n int, look func([]byte)) {
	for i := range min(n, h.Left) {
		look(h.frames[(h.next+i)%len(h.frames)])
	}
}

// Alloc is for a stack's link.
func (h *Hose) Alloc() []byte {
	last := len(h.free) - 1
	if last < 0 {
		return nil
	}
	f := h.free[last]
	h.free = h.free[:last]
	return f
}

// Send is for a stack's link.
func (h *Hose) Send(f []byte) bool {
	h.Sent++
	h.Last = f
	if h.Heard != nil {
		h.Heard(f)
	}
	if &f[0] != &h.lent[0] {
		h.Free(f)
	}
	return true
}

// Free is for a stack's link.
func (h *Hose) Free(f []byte) { h.free = append(h.free, f[:cap(f)]) }

// Flush is for a stack's link.
func (h *Hose) Flush() bool { return false }

// SendPartial is for a stack's link; nobody finishes the checksum.
func (h *Hose) SendPartial(f []byte, _, _ int) bool {
	h.Partial++
	return h.Send(f)
}
