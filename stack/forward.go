package stack

import (
	"unsafe"

	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/wire"
)

// What one engine has for another goes over by a bounded ring. Among the engines of a card: fragments to the one that puts
// their datagram together, as a card spreads them by other fields than whole packets; ARP and path MTUs to every one, as each
// has its own tables. Between interfaces: packets that never leave the host, such as a handler's answer from 127.0.0.1 to a
// socket on a card's address.

// forwardBytes is enough for the longest packet wherever it begins in the ring.
const forwardBytes = 256 << 10

// An inbox is what one engine has for another. Each end is on cache lines of its own.
type inbox struct {
	sending
	_ [2*cacheLine - unsafe.Sizeof(sending{})]byte
	r ring.Reader // the receiving engine's
	_ [2*cacheLine - unsafe.Sizeof(ring.Reader{})]byte
}

// sending is the sending engine's.
type sending struct {
	w        ring.Writer
	to       *Engine
	passed   bool // on the engine's list of inboxes to publish
	unshared int  // records that the other engine does not see yet
}

// passBatch is how many frames another engine is shown at once: many, so that the line with the ring's index moves seldom from core to
// core, and few beside what the ring holds, so that the other engine makes room meanwhile.
const passBatch = 32

// pass sends what was written into the room reserved. The other engine sees it with others, by publishPassed at the latest.
func (e *Engine) pass(in *inbox, n int) {
	in.w.Commit(n)
	if in.unshared++; in.unshared == passBatch {
		in.share()
	}
	if !in.passed {
		in.passed = true
		e.passed = append(e.passed, in)
	}
}

// share shows the other engine what is its, and wakes it if it sleeps.
func (s *sending) share() {
	s.unshared = 0
	s.w.Publish()
	s.to.wakeIfAsleep()
}

// publishPassed shows the other engines what they have not seen yet.
func (e *Engine) publishPassed() {
	if len(e.passed) > 0 {
		e.showPassed()
	}
}

func (e *Engine) showPassed() {
	for i, in := range e.passed {
		in.passed = false
		if in.unshared > 0 {
			in.share()
		}
		e.passed[i] = nil
	}
	e.passed = e.passed[:0]
}

// inboxTo is e's inbox at another engine, made when e has something for it the first time: most pairs of engines never do.
func (e *Engine) inboxTo(to *Engine) *inbox {
	slot := &to.inboxes[e.number]
	in := slot.Load()
	if in == nil {
		mem := ringMemory(forwardBytes)
		w, _ := ring.NewWriter(mem)
		r, _ := ring.NewReader(mem)
		in = &inbox{sending: sending{w: *w, to: to}, r: *r}
		slot.Store(in)
	}
	return in
}

// ringMemory is formatted memory for a ring; the capacity is a constant power of two.
func ringMemory(capacity int) []byte {
	words := make([]uint64, ring.Size(capacity)/8) // a ring begins at a multiple of 8
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
	if err := ring.Format(mem); err != nil {
		panic(err)
	}
	return mem
}

// A receiver is a link that may only receive: some drivers have more receive than transmit queues once XDP is attached.
type receiver interface{ CanSend() bool }

// pairSenders gives each engine whose link only receives another one of its interface, which takes all frames that arrive
// there and sends what the socket's users send.
func pairSenders(es []*Engine) {
	var senders []*Engine
	for _, e := range es {
		if r, ok := e.link.(receiver); !ok || r.CanSend() {
			senders = append(senders, e)
		}
	}
	if len(senders) == 0 {
		return
	}
	for n, e := range es {
		if r, ok := e.link.(receiver); ok && !r.CanSend() {
			e.via, e.input = senders[n%len(senders)], e.passOn
		}
	}
}

// passOn gives a frame to the engine that can answer it.
func (e *Engine) passOn(frame []byte) {
	e.stats.RxFrames++
	e.stats.RxBytes += uint64(len(frame))
	e.rx.frame = frame
	if r := e.forward(e.via); r != NotDropped {
		e.stats.Drops[r]++
	}
}

// fragmentOwner is the engine that puts p's datagram together, nil for e itself.
func (e *Engine) fragmentOwner(p wire.IPv4) *Engine {
	n := len(e.iface.engines)
	if n == 1 || e.rx.forwarded || e.rx.link == Link(e.loop) {
		return nil
	}
	h := (uint32(p.Src()) ^ uint32(p.ID())<<16 ^ uint32(p.Protocol())) * 0x9E3779B1
	if to := e.iface.engines[int(h>>16)%n].via; to != e {
		return to
	}
	return nil
}

// forward passes the frame on.
func (e *Engine) forward(to *Engine) DropReason {
	if !e.put(to, e.rx.frame) {
		return DropForwardFull
	}
	e.stats.Forwarded++
	return NotDropped
}

// forwardPacket passes p on: by its frame, or where it was put together from fragments, in a frame of its own.
func (e *Engine) forwardPacket(to *Engine, p wire.IPv4) DropReason {
	if !e.rx.whole {
		return e.forward(to)
	}
	in := e.inboxTo(to)
	b := in.w.Reserve(wire.EthernetLen + len(p))
	if b == nil {
		return DropForwardFull
	}
	wire.PutEthernet(b, &wire.EthernetInfo{Dst: to.hw, Src: e.rx.src, Type: wire.EtherTypeIPv4})
	copy(b[wire.EthernetLen:], p)
	e.pass(in, len(b))
	e.stats.Forwarded++
	return NotDropped
}

// isInside reports whether a frame that an engine of the same interface passed on never saw the card: its Ethernet header is
// all zeros, where one from the card has our address or a group's.
func isInside(frame []byte) bool { return wire.HardwareAddr(frame[0:6]).IsZero() }

// forwardToSiblings shows a frame that tells something about neighbours or paths to the other engines as well. What finds no
// room is not counted as dropped: the frame's end is here, and what another engine misses is asked for or told again.
func (e *Engine) forwardToSiblings(frame []byte) {
	if e.rx.whole || e.rx.link == Link(e.loop) {
		return
	}
	for _, to := range e.iface.engines {
		if to != e && to.via == to && e.put(to, frame) {
			e.stats.Copied++
		}
	}
}

func (e *Engine) put(to *Engine, frame []byte) bool {
	in := e.inboxTo(to)
	b := in.w.Reserve(len(frame))
	if b == nil {
		return false
	}
	copy(b, frame)
	e.pass(in, len(frame))
	return true
}

// beginInside makes room for an IPv4 packet of n bytes for another interface's engine; commitInside sends it.
func (e *Engine) beginInside(to *Engine, n int) []byte {
	b := e.inboxTo(to).w.Reserve(wire.EthernetLen + n)
	if b == nil {
		return nil
	}
	e.outInside, e.outLen = to, len(b)
	wire.PutEthernet(b, &wire.EthernetInfo{Type: wire.EtherTypeIPv4})
	return b[wire.EthernetLen:]
}

func (e *Engine) commitInside() {
	e.pass(e.inboxTo(e.outInside), e.outLen)
	e.outInside = nil
}

// takeForwarded takes what other engines passed on, up to budget frames from each.
func (e *Engine) takeForwarded(budget int) (n int) {
	for from := range e.inboxes {
		in := e.inboxes[from].Load()
		if in == nil {
			continue
		}
		sender := e.stack.engines[from]
		inside, any := sender.iface != e.iface, sender.via == e
		for range budget {
			f := in.r.Peek()
			if f == nil {
				break
			}
			n++
			if inside || !any && isInside(f) {
				e.receiveLocal(f)
			} else {
				e.receiveForwarded(f, any)
			}
			in.r.Advance()
		}
		in.r.Release()
	}
	return n
}

// receiveForwarded takes a frame that another engine received: a fragment, one of a connection here, or one that tells
// something, or, where the other engine's link only receives, any. None is answered in place.
func (e *Engine) receiveForwarded(frame []byte, any bool) {
	e.stats.RxForwarded++
	e.rx.link, e.rx.forwarded, e.rx.passed = e.link, !any, any
	if any && e.tapping.tap != nil {
		e.tapping.hold(frame)
	}
	r := e.ethernet(frame)
	if r != NotDropped {
		e.stats.Drops[r]++
	}
	switch {
	case e.tapping.holding:
		e.releaseTap(r)
	case e.tapping.tap != nil && r != NotDropped && r != DropARPNotForUs: // the tap has seen it where it came, without its end
		e.tapping.tap(e.iface, e.queue, Received, r, e.now, frame)
	}
}
