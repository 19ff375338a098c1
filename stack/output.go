package stack

import (
	"math/bits"

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
	case destInside:
		if b := e.beginInside(d.inside, n); b != nil {
			e.stats.Output++
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
	if !nb.used { // neighbours of several engines may lie on one cache line
		nb.used = true
	}
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
	case e.outInside != nil:
		e.commitInside()
		e.stats.Sent++
	case e.out != nil:
		e.sendFrame(e.out)
		e.out = nil
		e.stats.Sent++
	}
}

// allocFrame is a transmit frame, nil when there is none even after a flush.
func (e *Engine) allocFrame() []byte {
	f := e.link.Alloc()
	if f == nil && !e.full {
		e.flush()
		f = e.link.Alloc()
		e.full = f == nil
	}
	return f
}

// sendFrame gives a whole frame from allocFrame to the link.
func (e *Engine) sendFrame(f []byte) {
	e.stats.TxFrames++
	e.stats.TxBytes += uint64(len(f))
	e.unflushed = true
	if e.tapping.tap != nil {
		e.tapSent(f)
	}
	if e.outSum != 0 {
		e.sendPartial(f)
		return
	}
	e.link.Send(f)
}

func (e *Engine) flush() {
	e.stuck = e.link.Flush()
	e.unflushed = e.stuck
}

// answer sends the received frame back to where it came from, cut to n bytes, and says what became of it. The destination
// is the frame's source, whoever the router of the way back would be, as it came from a host or router that is alive.
func (e *Engine) answer(n int, to wire.HardwareAddr) DropReason {
	if r := e.sendBack(e.rx.frame[:n], to, 0); r != NotDropped {
		return r
	}
	e.stats.Answered++
	return NotDropped
}

// sendBack gives the lent frame to where it came from. A group is no sender: one request must not bring answers to many. Where
// sum is not 0 the checksum of the UDP datagram that begins there is left to the card.
func (e *Engine) sendBack(f []byte, to wire.HardwareAddr, sum int) DropReason {
	if to.IsMulticast() {
		return DropIPSource
	}
	wire.PutEthernetAddrs(f, to, e.hw)
	if !e.sendLent(f, sum) && !e.sendAgain(f, sum) {
		return DropTransmitFull
	}
	if e.rx.link != Link(e.loop) {
		e.stats.TxFrames++
		e.stats.TxBytes += uint64(len(f))
		e.unflushed = true
		if e.tapping.tap != nil {
			e.tapSent(f)
		}
	}
	return NotDropped
}

// sendLent gives the link the frame that it lent, as sendBack says.
func (e *Engine) sendLent(f []byte, sum int) bool {
	if sum == 0 {
		return e.rx.link.Send(f)
	}
	return e.offload.SendPartial(f, sum, wire.UDPChecksumAt)
}

// sendAgain tries sendLent once more after a flush, which is a system call: once in a step that finds the ring full.
func (e *Engine) sendAgain(f []byte, sum int) bool {
	if e.full || e.rx.link == Link(e.loop) {
		return false
	}
	e.flush()
	e.full = !e.sendLent(f, sum)
	return !e.full
}

// sendPacket sends an IPv4 payload, in fragments where it is longer than the path's MTU (RFC 791 §2.3), else with DF set unless
// the path is locked. outFull means that
// the transmit ring is full: try again with the same c after a flush.
func (e *Engine) sendPacket(d *dest, f *wire.IPv4Fields, payload []byte, c *cut) outcome {
	n := wire.IPv4Len + len(payload)
	if n > d.mtu || c.off > 0 {
		return e.sendFragments(d, f, payload, c)
	}
	b, res := e.begin(d, n)
	if res != outReady {
		return res
	}
	f.TotalLength = n
	if f.DF = f.DF || !d.locked; !f.DF {
		f.ID = e.nextID(f.Src, f.Dst, f.Protocol)
	}
	wire.PutIPv4(b, f)
	copy(b[wire.IPv4Len:], payload)
	e.commit()
	return outReady
}

// A cut says how far a datagram that leaves in fragments has got. Its zero value is one that has not begun.
type cut struct {
	off int // bytes of payload sent
	id  uint16
}

// sendFragments cuts payload into fragments. Where the transmit ring is full it returns outFull, and goes on from there when
// it is called with the same c again: a ring that never has room for all fragments at once must not lose every datagram.
func (e *Engine) sendFragments(d *dest, f *wire.IPv4Fields, payload []byte, c *cut) outcome {
	room := (d.mtu - wire.IPv4Len) &^ 7
	if c.off == 0 {
		c.id = e.nextID(f.Src, f.Dst, f.Protocol)
	}
	f.DF, f.ID = false, c.id
	for c.off < len(payload) {
		part := payload[c.off:min(c.off+room, len(payload))]
		b, res := e.begin(d, wire.IPv4Len+len(part))
		if res == outFull {
			return outFull
		}
		if res == outDropped {
			*c = cut{}
			return outDropped
		}
		f.TotalLength, f.FragmentOffset, f.MF = wire.IPv4Len+len(part), c.off, c.off+len(part) < len(payload)
		wire.PutIPv4(b, f)
		copy(b[wire.IPv4Len:], part)
		e.commit()
		c.off += len(part)
	}
	*c = cut{}
	e.stats.Fragmented++
	return outReady
}

// nextID gives the identification of the next fragmented datagram: unique for source, destination and protocol for as long
// as 65,536 datagrams take (RFC 6864 §4.3), from counters at secret places with secret starts (RFC 7739 §5.3). The engines
// of an interface share the key and each have numbers of their own.
func (e *Engine) nextID(src, dst wire.Addr, p wire.Protocol) uint16 {
	h := (uint64(src)<<32 | uint64(dst)) ^ uint64(p)<<24 ^ e.iface.idKey
	h ^= h >> 33
	h *= 0xFF51AFD7ED558CCD
	h ^= h >> 33
	c := &e.ids[h%uint64(len(e.ids))]
	*c++
	return *c<<bits.Len(uint(len(e.iface.engines)-1)) + uint16(e.queue) + uint16(h>>48)
}
