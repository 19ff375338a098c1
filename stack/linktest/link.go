package linktest

import "time"

// Link is the contract of one receive and transmit queue, as package stack
// declares it (see there). End, Fault and Capture fulfil it.
type Link interface {
	Poll(budget int, input func(frame []byte)) int
	Alloc() []byte
	Send(frame []byte) bool
	Free(frame []byte)
	Flush() (pending bool)
	Wait(timeout time.Duration) error
	Wake()
	MTU() int
	HardwareAddr() [6]byte
	PartialChecksums() bool
}

var (
	_ Link = (*End)(nil)
	_ Link = (*Fault)(nil)
	_ Link = (*Capture)(nil)
)

// Capture is a link that shows a function all frames that pass through it.
type Capture struct {
	Link
	tap     func(outbound bool, frame []byte)
	input   func(frame []byte)
	lend    func(frame []byte)
	scratch []byte
}

// NewCapture wraps link. tap is called on the link's goroutine, with each frame
// before it is lent and each one that was queued for sending; it must not keep
// or change the frame.
func NewCapture(link Link, tap func(outbound bool, frame []byte)) *Capture {
	c := &Capture{Link: link, tap: tap}
	c.lend = func(frame []byte) {
		c.tap(false, frame)
		c.input(frame)
	}
	return c
}

// Poll shows each frame and lends it.
func (c *Capture) Poll(budget int, input func(frame []byte)) int {
	c.input = input
	return c.Link.Poll(budget, c.lend)
}

// Send queues the frame and, if the link took it, shows it.
func (c *Capture) Send(frame []byte) bool {
	// The frame is the link's after Send, so a copy is shown.
	c.scratch = append(c.scratch[:0], frame...)
	if !c.Link.Send(frame) {
		return false
	}
	c.tap(true, c.scratch)
	return true
}
