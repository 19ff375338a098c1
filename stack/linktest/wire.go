package linktest

import (
	"fmt"
	"sync"
	"time"
)

// Config describes a Wire. The zero value is a virtual-time wire with two ends
// of MTU 1500 and no faults.
type Config struct {
	// Ends describes each end; without any there are two.
	Ends []EndConfig
	// Seed decides every fault.
	Seed uint64
	// RealTime makes frames travel by the machine's clock and Wait sleep.
	RealTime bool
	// Switch delivers a frame only to the end whose hardware address it names,
	// and to all others where it names a group. Without it the wire is a hub.
	Switch bool
	// Ring is how many frames each end can hold for sending, and how many
	// received; 0 is 1024.
	Ring int
	// BundlesRefused makes SendBundle report that there is no room.
	BundlesRefused bool
}

// EndConfig describes one End.
type EndConfig struct {
	MTU          int     // of the IP packet, bytes; 0 is 1500
	HardwareAddr [6]byte // zero is 02:00:00:00:00:01 for the first end and so on
	// PartialChecksums says that the frames which arrive here come from a kernel
	// that leaves checksums to the card. The wire does not change checksums.
	PartialChecksums bool
	// Bundles is the longest IPv4 packet that SendBundle takes, in bytes; 0: none.
	Bundles int
	// TxChecksum makes the end a card that finishes checksums: SendPartial may be used.
	TxChecksum bool
	// Faults is what happens to the frames that this end sends.
	Faults Faults
}

// overhead is what a frame may have beside the IP packet: an Ethernet header
// with two VLAN tags.
const overhead = 22

// Wire joins its ends. Its methods may be called from any goroutine.
type Wire struct {
	mu       sync.Mutex
	realTime bool
	byAddr   bool
	noBundle bool
	ring     int
	began    time.Time
	now      time.Duration
	seq      uint64
	pool     pool
	buffers  map[*byte]*buffer
	ends     []*End
}

// New makes a wire at virtual time 0, or with its clock running.
func New(c Config) *Wire {
	w := &Wire{realTime: c.RealTime, byAddr: c.Switch, noBundle: c.BundlesRefused, ring: c.Ring, began: time.Now(), buffers: make(map[*byte]*buffer)}
	if w.ring <= 0 {
		w.ring = 1024
	}
	if len(c.Ends) == 0 {
		c.Ends = make([]EndConfig, 2)
	}
	for i, ec := range c.Ends {
		if ec.MTU <= 0 {
			ec.MTU = 1500
		}
		if ec.HardwareAddr == [6]byte{} {
			ec.HardwareAddr = [6]byte{0x02, 0, 0, 0, byte((i + 1) >> 8), byte(i + 1)}
		}
		e := &End{wire: w, mtu: ec.MTU, addr: ec.HardwareAddr, partial: ec.PartialChecksums, offload: ec.TxChecksum, bundles: ec.Bundles, line: newLine(c.Seed, i)}
		e.line.faults = ec.Faults
		e.wake = make(chan struct{}, 1)
		w.ends = append(w.ends, e)
		w.pool.size = max(w.pool.size, ec.MTU+overhead)
	}
	return w
}

// End returns the end with this index, counted from 0.
func (w *Wire) End(i int) *End { return w.ends[i] }

// Now returns the time on the wire since New.
func (w *Wire) Now() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock()
}

// Advance moves virtual time forward to the given time since New; it never goes
// back. Frames due by then can be polled. It panics on a real-time wire.
func (w *Wire) Advance(to time.Duration) {
	if w.realTime {
		panic("linktest: Advance on a real-time wire, whose time goes by itself")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = max(w.now, to)
	for _, e := range w.ends {
		e.collect(w.now)
	}
}

// NextEvent returns when the next frame can be polled at some end: now or
// earlier where one can be already. It reports false where none is on its way.
func (w *Wire) NextEvent() (at time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.ends {
		if e.received.len() > 0 {
			return w.clock(), true
		}
		if t, some := e.coming.next(); some && (!ok || t < at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// clock returns the time; the lock is held.
func (w *Wire) clock() time.Duration {
	if w.realTime {
		return time.Since(w.began)
	}
	return w.now
}

// get takes a buffer for e and remembers it by its first byte.
func (w *Wire) get(e *End, s state) *buffer {
	made := w.pool.made
	b := w.pool.get()
	if w.pool.made != made {
		w.buffers[&b.data[0]] = b
	}
	b.state, b.owner, b.n = s, e, w.pool.size
	return b
}

// owned finds the buffer of a frame that e may send or give back.
func (w *Wire) owned(e *End, frame []byte, what string) *buffer {
	if cap(frame) == 0 {
		panic("linktest: " + what + " of a frame without memory")
	}
	b := w.buffers[&frame[:1][0]]
	switch {
	case b == nil:
		panic("linktest: " + what + " of a slice that does not begin where a frame of this wire does")
	case b.owner != e || b.state != allocated && b.state != lent:
		panic("linktest: " + what + " of a frame that this end does not hold any more")
	}
	return b
}

// carry takes a frame that e sent off to its receivers.
func (w *Wire) carry(e *End, b *buffer, now time.Duration) {
	frame := b.frame()
	if e.err != nil || len(frame) == 0 || len(frame) > e.mtu+headerLen(frame) {
		e.stats.Unsendable++
		w.pool.put(b)
		return
	}
	out := e.line.pass(now, frame)
	if out.dropped {
		w.pool.put(b)
		return
	}
	b.n = len(out.frame)
	b.state = travelling
	e.pending = e.pending[:0]
	for _, to := range w.ends {
		if to != e && (!w.byAddr || to.takes(b.frame())) {
			e.pending = append(e.pending, to)
		}
	}
	if len(e.pending) == 0 {
		e.stats.NoReceiver++
		w.pool.put(b)
		return
	}
	for copies := out.copies; copies > 0; copies-- {
		for i, to := range e.pending {
			c := b
			if copies > 1 || i < len(e.pending)-1 {
				c = w.get(to, travelling)
				c.n = copy(c.data, b.frame())
			}
			w.seq++
			c.owner = to
			to.coming.push(arrival{at: out.at, seq: w.seq, b: c})
		}
	}
	for _, to := range e.pending {
		to.signal()
	}
}

// headerLen is the length of a frame's Ethernet header with its tags.
func headerLen(frame []byte) int {
	n := 14
	for n < overhead && len(frame) >= n && (string(frame[n-2:n]) == "\x81\x00" || string(frame[n-2:n]) == "\x88\xa8") {
		n += 4
	}
	return n
}

// String describes the wire for a failing test.
func (w *Wire) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := fmt.Sprintf("wire at %v", w.clock())
	for i, e := range w.ends {
		s += fmt.Sprintf("; end %d: %d sent and not flushed, %d on their way to it, %d received", i, e.sent.len(), len(e.coming), e.received.len())
	}
	return s
}
