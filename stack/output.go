package stack

import (
	"kitnet.dev/kit/stack/wire"
)

// outcome says how begin went.
type outcome uint8

const (
	outReady   outcome = iota // write the packet, then commit
	outFull                   // the transmit ring is full: try again after a flush
	outDropped                // counted; there is nothing to write
)

// begin makes room for an IPv4 packet of n bytes on its way to d. The caller writes all of it and calls commit, before it
// calls begin again.
func (e *Engine) begin(d *dest, n int) ([]byte, outcome) {
	switch d.kind {
	case destNeighbour:
		return e.beginNeighbour(d.neigh, n)
	case destLocal:
		if b := e.loop.begin(n); b != nil {
			e.stats.Output++
			e.outLocal = true
			return b, outReady
		}
		return nil, outFull
	case destGroup:
		f := e.allocFrame()
		if f == nil {
			return nil, outFull
		}
		h := wire.EthernetInfo{Dst: d.hw, Src: e.hw, Type: wire.EtherTypeIPv4}
		return e.beginFrame(f, wire.PutEthernet(f, &h), n)
	case destTableFull:
		return e.refuse(DropNeighbourTableFull)
	}
	return e.refuse(DropNoRoute)
}

func (e *Engine) beginNeighbour(nb *neighbour, n int) ([]byte, outcome) {
	nb.used = true
	if !nb.fresh() {
		e.use(nb)
		if nb.state == NeighbourFailed {
			return e.refuse(DropNeighbourFailed)
		}
		if !nb.usable() {
			b := e.wait(nb, n)
			if b == nil {
				return e.refuse(DropNeighbourQueueFull)
			}
			e.stats.Output++
			e.out = nil
			return b, outReady
		}
	}
	f := e.allocFrame()
	if f == nil {
		return nil, outFull
	}
	*(*[wire.EthernetMaxLen]byte)(f) = nb.header
	return e.beginFrame(f, nb.headerLen, n)
}

func (e *Engine) beginFrame(f []byte, headerLen, n int) ([]byte, outcome) {
	if headerLen+n > len(f) { // VLAN tags beyond what the MTU left room for
		e.link.Free(f)
		return e.refuse(DropTooLong)
	}
	e.stats.Output++
	e.out = f[:headerLen+n]
	return e.out[headerLen:], outReady
}

func (e *Engine) refuse(r DropReason) ([]byte, outcome) {
	e.stats.Output++
	e.stats.TxDrops[r]++
	return nil, outDropped
}

// commit sends what the last begin made room for.
func (e *Engine) commit() {
	switch {
	case e.outLocal:
		e.outLocal = false
		e.loop.commit()
		e.stats.Sent++
	case e.out != nil:
		e.sendFrame(e.out)
		e.out = nil
		e.stats.Sent++
	}
}

// allocFrame is a transmit frame, nil when there is none even after a flush.
func (e *Engine) allocFrame() []byte {
	if f := e.link.Alloc(); f != nil {
		return f
	}
	e.flush()
	return e.link.Alloc()
}

// sendFrame gives a whole frame from allocFrame to the link.
func (e *Engine) sendFrame(f []byte) {
	e.stats.TxFrames++
	e.stats.TxBytes += uint64(len(f))
	e.unflushed = true
	if e.tap != nil {
		e.tap(e.iface, e.queue, Transmitted, NotDropped, e.now, f)
	}
	e.link.Send(f)
}

func (e *Engine) flush() {
	e.unflushed = e.link.Flush()
}

// answer sends the received frame back to where it came from, cut to n bytes, and says what became of it. The destination
// is the frame's source, whoever the router of the way back would be, as it came from a host or router that is alive.
func (e *Engine) answer(n int, to wire.HardwareAddr) DropReason {
	if r := e.sendBack(e.rx.frame[:n], to); r != NotDropped {
		return r
	}
	e.stats.Answered++
	return NotDropped
}

// sendBack gives the lent frame to where it came from. A group is no sender: one request must not bring answers to many.
func (e *Engine) sendBack(f []byte, to wire.HardwareAddr) DropReason {
	if to.IsMulticast() {
		return DropIPSource
	}
	wire.PutEthernetAddrs(f, to, e.hw)
	if !e.rx.link.Send(f) {
		e.flush()
		if !e.rx.link.Send(f) {
			return DropTransmitFull
		}
	}
	if e.rx.link != Link(e.loop) {
		e.stats.TxFrames++
		e.stats.TxBytes += uint64(len(f))
		e.unflushed = true
		if e.tap != nil {
			e.tap(e.iface, e.queue, Transmitted, NotDropped, e.now, f)
		}
	}
	return NotDropped
}

// sendPacket sends an IPv4 payload, in fragments where it is longer than the path's MTU (RFC 791 §2.3). full means that
// nothing was sent and the transmit ring is full: try again after a flush.
func (e *Engine) sendPacket(d *dest, f *wire.IPv4Fields, payload []byte) (full bool) {
	n := wire.IPv4Len + len(payload)
	if n > d.mtu {
		e.sendFragments(d, f, payload)
		return false
	}
	b, res := e.begin(d, n)
	if res != outReady {
		return res == outFull
	}
	f.TotalLength = n
	wire.PutIPv4(b, f)
	copy(b[wire.IPv4Len:], payload)
	e.commit()
	return false
}

// sendFragments cuts payload into fragments. A datagram that finds the transmit ring full in the middle is lost, counted
// once: its fragments alone are of no use.
func (e *Engine) sendFragments(d *dest, f *wire.IPv4Fields, payload []byte) {
	room := (d.mtu - wire.IPv4Len) &^ 7
	f.DF, f.ID = false, e.nextID(f.Src, f.Dst, f.Protocol)
	e.stats.Fragmented++
	for off := 0; off < len(payload); off += room {
		part := payload[off:min(off+room, len(payload))]
		b, res := e.begin(d, wire.IPv4Len+len(part))
		if res == outFull {
			e.refuse(DropTransmitFull)
			return
		}
		if res == outDropped {
			return
		}
		f.TotalLength, f.FragmentOffset, f.MF = wire.IPv4Len+len(part), off, off+room < len(payload)
		wire.PutIPv4(b, f)
		copy(b[wire.IPv4Len:], part)
		e.commit()
	}
}

// nextID gives the identification of the next fragmented datagram: unique for source, destination and protocol for as long
// as 65,536 datagrams take (RFC 6864 §4.3), from counters at secret places with secret starts (RFC 7739 §5.3).
func (e *Engine) nextID(src, dst wire.Addr, p wire.Protocol) uint16 {
	h := (uint64(src)<<32 | uint64(dst)) ^ uint64(p)<<24 ^ e.idKey
	h ^= h >> 33
	h *= 0xFF51AFD7ED558CCD
	h ^= h >> 33
	c := &e.ids[h%uint64(len(e.ids))]
	*c++
	return *c + uint16(h>>48)
}
