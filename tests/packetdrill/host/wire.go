package host

import (
	"bytes"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

var (
	ourMAC     = [6]byte{2, 0, 0, 0, 0, 1}
	gatewayMAC = [6]byte{2, 0, 0, 0, 0, 2}
)

// cable is a stack.Link whose other end are IP packets.
type cable struct {
	mtu int
	in  [][]byte // frames
	out []leaving
	now *clock.Time
}

// leaving is an IP packet that the stack sent.
type leaving struct {
	packet []byte
	at     clock.Time
}

// inject has the next Poll lend an IP packet as a frame from the gateway.
func (c *cable) inject(packet []byte) {
	frame := make([]byte, max(len(packet), c.mtu)+wire.EthernetLen)
	at := wire.PutEthernet(frame, &wire.EthernetInfo{Dst: ourMAC, Src: gatewayMAC, Type: wire.EtherTypeIPv4})
	n := copy(frame[at:], packet)
	c.in = append(c.in, frame[:at+n])
}

// take returns the packet that left first, false where none has.
func (c *cable) take() (l leaving, ok bool) {
	if len(c.out) == 0 {
		return l, false
	}
	l, c.out = c.out[0], c.out[1:]
	return l, true
}

// Poll implements stack.Link.
func (c *cable) Poll(budget int, input func(frame []byte)) int {
	n := min(budget, len(c.in))
	for _, f := range c.in[:n] {
		input(f)
	}
	c.in = c.in[n:]
	return n
}

// Alloc implements stack.Link.
func (c *cable) Alloc() []byte { return make([]byte, c.mtu+wire.EthernetLen) }

// Send implements stack.Link. What is not IPv4 is for nobody.
func (c *cable) Send(frame []byte) bool {
	if h, ok := wire.ParseEthernet(frame); ok && h.Type == wire.EtherTypeIPv4 {
		c.out = append(c.out, leaving{bytes.Clone(frame[h.HeaderLen:]), *c.now})
	}
	return true
}

// Free implements stack.Link.
func (c *cable) Free([]byte) {}

// Flush implements stack.Link.
func (c *cable) Flush() bool { return false }

// Wait implements stack.Link.
func (c *cable) Wait(time.Duration) error { return nil }

// Wake implements stack.Link.
func (c *cable) Wake() {}

// MTU implements stack.Link.
func (c *cable) MTU() int { return c.mtu }

// HardwareAddr implements stack.Link.
func (c *cable) HardwareAddr() [6]byte { return ourMAC }

// PartialChecksums implements stack.Link.
func (c *cable) PartialChecksums() bool { return false }
