package stack

import (
	"encoding/binary"
	"sync"
	"syscall"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/wire"
)

// A half is what a Datagram is on one engine: its two rings and what the engine needs to know of it. The engine writes rx and
// reads tx; the user's side of the Datagram does the opposite. Everything below the rings is the engine's alone.
//
// What a packet that arrives reads and writes of it is one cache line, and the lines of many sockets are close together: of
// 100,000 none is in a cache when its packet comes, nor is the address translation of 100,000 larger objects.
type half struct {
	handler    Handler
	peer       *half // the next socket on the same port (local.go)
	received   uint64
	rxBytes    uint64
	remote     wire.Addr
	remotePort uint16
	connected  bool
	unread     bool        // on the engine's list of halves to publish
	rx         *ring.Chain // received, ahead of each its inRecord
	d          *Datagram
	*halfRest
}

// halfRest is the part of a half that a packet which arrives is not about.
type halfRest struct {
	e  *Engine
	tx *ring.Chain // to be sent, ahead of each its outRecord

	// The dirty list (engine.go): the user's side puts the half there when tx has something.
	dirty dirtyLink

	local     wire.Addr
	localPort uint16 // or the ICMP identifier
	again     bool   // on the engine's list of halves that have more to send
	cut       cut    // of the datagram at the head of tx
	dropped   uint64
	sent      uint64
	txBytes   uint64
	idle      timer    // gives back what the rings do not need
	_         [48]byte // to cacheLine: the halves of several engines lie in a row
}

// A record in rx is an inRecord and the payload, one in tx an outRecord and the payload.
//
//	inRecord:   0 sender  4 destination  8 sender's port  10 TTL  11 TOS  12 length   (numbers as the machine has them)
//	outRecord:  0 source  4 destination  8 destination's port  10 TTL  11 TOS
const (
	inRecord  = 16
	outRecord = 12
)

// outgoing is an outRecord as read.
type outgoing struct {
	src, dst wire.Addr // src 0: the interface's own that fits best
	port     uint16
	ttl, tos uint8
}

func (m *outgoing) put(b []byte) {
	_ = b[outRecord-1]
	binary.NativeEndian.PutUint32(b[0:], uint32(m.src))
	binary.NativeEndian.PutUint32(b[4:], uint32(m.dst))
	binary.NativeEndian.PutUint16(b[8:], m.port)
	b[10], b[11] = m.ttl, m.tos
}

func (m *outgoing) get(b []byte) {
	_ = b[outRecord-1]
	m.src = wire.Addr(binary.NativeEndian.Uint32(b[0:]))
	m.dst = wire.Addr(binary.NativeEndian.Uint32(b[4:]))
	m.port = binary.NativeEndian.Uint16(b[8:])
	m.ttl, m.tos = b[10], b[11]
}

// incoming is an inRecord as read.
type incoming struct {
	src, dst wire.Addr
	port     uint16
	ttl, tos uint8
}

func (m *incoming) get(b []byte) {
	_ = b[inRecord-1]
	m.src = wire.Addr(binary.NativeEndian.Uint32(b[0:]))
	m.dst = wire.Addr(binary.NativeEndian.Uint32(b[4:]))
	m.port = binary.NativeEndian.Uint16(b[8:])
	m.ttl, m.tos = b[10], b[11]
}

// deliverTo copies a payload into a socket's ring: the copy of the receive path.
func (e *Engine) deliverTo(h *half, p wire.IPv4, sport uint16, payload []byte) DropReason {
	w := h.rx.Writer()
	b := w.Reserve(inRecord + len(payload))
	if b == nil {
		h.dropped++
		return DropSocketFull
	}
	binary.NativeEndian.PutUint32(b[0:], uint32(p.Src()))
	binary.NativeEndian.PutUint32(b[4:], uint32(p.Dst()))
	binary.NativeEndian.PutUint16(b[8:], sport)
	b[10], b[11] = p.TTL(), p.TOS()
	copy(b[inRecord:], payload)
	w.Commit(len(b))
	h.received++
	h.rxBytes += uint64(len(payload))
	e.stats.Delivered++
	if !h.unread {
		h.unread = true
		e.unread = append(e.unread, h)
	}
	return NotDropped
}

// trimInterval is how often a socket in use is looked at for memory that its rings no longer need, and how long an idle one keeps
// any: twice as long at most.
const trimInterval = 10 * time.Second

// watch has h's memory looked at.
func (e *Engine) watch(h *half) {
	if !h.idle.armed() && !h.d.closed.Load() {
		e.wheel.arm(&h.idle, e.now.Add(trimInterval))
	}
}

// expire gives back what memory h's rings do not need.
func (h *half) expire(_ *timer, _ clock.Time) {
	rx := trim(h.rx, &h.d.rmu)
	tx := trim(h.tx, &h.d.wmu)
	if rx || tx {
		h.e.watch(h)
	}
}

// trim is called on the engine, which is one end of the ring; users keeps those away who are the other. It reports whether there
// is something to come back for.
func trim(c *ring.Chain, users *sync.Mutex) (more bool) {
	if !users.TryLock() {
		return true
	}
	defer users.Unlock()
	return c.Trim()
}

// publish shows the sockets, and other engines, what this step delivered, once for each, and wakes those who sleep.
func (e *Engine) publish() {
	e.publishPassed()
	for i, h := range e.unread {
		h.unread = false
		h.rx.Writer().Publish()
		e.watch(h)
		if h.d.waiters.notify(Readable) {
			e.woke = true
		}
		e.unread[i] = nil
	}
	e.unread = e.unread[:0]
}

// emitBudget is how many datagrams of one socket are sent before it is the next one's turn.
const emitBudget = 256

// emit sends what the sockets on the dirty list have written. It reports whether some have more.
func (e *Engine) emit() (more bool) {
	for l := e.takeDirty(); l != nil; {
		next := l.next
		l.next = nil
		l.queued.Store(false)
		if h := l.half; h == nil {
			e.touch(l.stream)
		} else if !h.again {
			h.again = true
			e.senders = append(e.senders, h)
			e.watch(h)
		}
		l = next
	}
	if len(e.active) > 0 {
		more = e.emitStreams()
	}
	if len(e.senders) == 0 {
		return more
	}
	kept := e.senders[:0]
	for _, h := range e.senders {
		if e.emitHalf(h) {
			kept = append(kept, h)
			continue
		}
		h.again = false
	}
	clear(e.senders[len(kept):])
	e.senders = kept
	if len(kept) > 1 { // whoever was first is last next time: a full transmit ring is for all in turn
		first := kept[0]
		kept[copy(kept, kept[1:])] = first
	}
	return more || len(kept) > 0
}

// emitHalf sends up to emitBudget datagrams of a socket, and reports whether it has more.
func (e *Engine) emitHalf(h *half) (more bool) {
	r := h.tx.Reader()
	var m outgoing
	n := 0
	bundles := h.d.proto == wire.ProtocolUDP && e.bundle.link != nil && e.bundle.link.BundleLimit(uint8(wire.ProtocolUDP)) > 0
	for ; n < emitBudget; n++ {
		rec := r.Peek()
		if rec == nil {
			break
		}
		m.get(rec)
		if bundles && n+bundleDatagrams <= emitBudget {
			if sent := e.emitBundle(h, &m, r); sent > 0 {
				n += sent - 1
				continue
			}
		}
		var res outcome
		if h.d.proto == wire.ProtocolUDP {
			res = e.emitUDP(h, &m, rec[outRecord:], &h.cut)
		} else {
			res = e.emitICMP(h, &m, rec[outRecord:], &h.cut)
		}
		if res == outFull {
			more = true
			break
		}
		h.sent++
		h.txBytes += uint64(len(rec) - outRecord)
		r.Advance()
	}
	if n > 0 {
		r.Release()
		if h.d.waiters.notify(Writable) {
			e.woke = true
		}
	}
	return more || n == emitBudget
}

// emitFailed tells a connected socket why its datagram went nowhere, where that is known at once, and returns res.
func (e *Engine) emitFailed(h *half, d *dest, res outcome) outcome {
	if res != outDropped || !h.connected {
		return res
	}
	switch {
	case d.kind == destNoRoute:
		h.d.fail(syscall.ENETUNREACH)
	case d.kind == destUnreachable, d.kind == destNeighbour && d.neigh.state == NeighbourFailed:
		h.d.fail(syscall.EHOSTUNREACH)
	case d.kind == destTableFull:
		h.d.fail(syscall.ENOBUFS)
	}
	return res
}

// attach makes h hear its port. detach ends that.
func (e *Engine) attach(h *half) {
	e.ports(h.d.proto, h.local).insert(h.localPort, h)
	e.sockets++
}

func (e *Engine) detach(h *half) {
	t := e.ports(h.d.proto, h.local)
	t.remove(h.localPort, h)
	e.dropTable(portKey{h.d.proto, h.local}, t)
	e.sockets--
}
