package stack

import (
	"time"
	"unsafe"

	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/wire"
)

// loopback carries packets from an engine to itself: those for 127.0.0.0/8 and those for our own addresses never see a
// card. It is a Link, so that a handler answers in place here too, and the link of the interface "lo".
type loopback struct {
	w       *ring.Writer
	r       *ring.Reader
	open    []byte // reserved by begin or Alloc
	scratch []byte // lent by Poll: a record's room ends with it, an answer in place may be longer
	wake    chan struct{}
	timer   *time.Timer
}

const (
	loopbackMTU   = wire.IPv4MaxSize
	loopbackBytes = 1 << 20
)

func newLoopback() *loopback { return &loopback{wake: make(chan struct{}, 1)} }

// begin makes room for an IPv4 packet of n bytes; commit sends it.
func (l *loopback) begin(n int) []byte {
	if l.w == nil {
		l.allocate()
	}
	if l.open = l.w.Reserve(wire.EthernetLen + n); l.open == nil {
		return nil
	}
	wire.PutEthernet(l.open, &wire.EthernetInfo{Type: wire.EtherTypeIPv4})
	return l.open[wire.EthernetLen:]
}

func (l *loopback) commit() {
	l.w.Commit(len(l.open))
	l.w.Publish()
}

// allocate makes the ring when the first packet needs it: most engines never do.
func (l *loopback) allocate() {
	mem := ringMemory(loopbackBytes)
	l.w, _ = ring.NewWriter(mem)
	l.r, _ = ring.NewReader(mem)
	l.scratch = make([]byte, wire.EthernetLen+loopbackMTU)
}

func (l *loopback) pending() bool { return l.r != nil && l.r.Peek() != nil }

// Poll implements Link.
func (l *loopback) Poll(budget int, input func([]byte)) int {
	if l.r == nil {
		return 0
	}
	n := 0
	for ; n < budget; n++ {
		rec := l.r.Peek()
		if rec == nil {
			break
		}
		f := l.scratch[:copy(l.scratch, rec)]
		l.r.Advance()
		l.r.Release()
		input(f)
	}
	return n
}

// Alloc implements Link.
func (l *loopback) Alloc() []byte {
	if l.begin(loopbackMTU) == nil {
		return nil
	}
	return l.open
}

// Send implements Link: a frame that is not the one from Alloc is the lent one, and is copied.
func (l *loopback) Send(frame []byte) bool {
	if len(l.open) == 0 || unsafe.SliceData(frame) != unsafe.SliceData(l.open) {
		b := l.w.Reserve(len(frame))
		if b == nil {
			return false
		}
		copy(b, frame)
	}
	l.open = nil
	l.w.Commit(len(frame))
	l.w.Publish()
	return true
}

// Free implements Link.
func (l *loopback) Free([]byte) { l.open = nil }

// Flush implements Link.
func (l *loopback) Flush() bool { return false }

// Wait implements Link. What is in the ring was put there by the engine itself, which looks before it sleeps.
func (l *loopback) Wait(timeout time.Duration) error {
	if timeout == 0 {
		return nil
	}
	if timeout < 0 {
		<-l.wake
		return nil
	}
	if l.timer == nil {
		l.timer = time.NewTimer(timeout)
	} else {
		l.timer.Reset(timeout)
	}
	select {
	case <-l.wake:
		l.timer.Stop()
	case <-l.timer.C:
	}
	return nil
}

// Wake implements Link.
func (l *loopback) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// MTU implements Link.
func (l *loopback) MTU() int { return loopbackMTU }

// HardwareAddr implements Link: the loopback has none.
func (l *loopback) HardwareAddr() [6]byte { return [6]byte{} }

// PartialChecksums implements Link.
func (l *loopback) PartialChecksums() bool { return false }
