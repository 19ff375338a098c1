package stack

import (
	"net/netip"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Handler is called on the engine for each datagram of a socket, with the frame as the card's link lent it: nothing is
// copied, and an answer is built in place. It must not block, keep the Packet or its slices, or call anything of the stack
// but the Packet's methods. It runs on as many engines at once as the card has queues.
type Handler func(p *Packet)

// Packet is a datagram that a Handler looks at.
type Packet struct {
	// Payload is what was sent. A handler may write to it and to Room.
	Payload []byte

	e    *Engine
	h    *half
	ip   wire.IPv4
	udp  wire.UDP
	room []byte // of an answer that cannot be built in the frame
	done bool   // answered in place, so that the frame is gone, or no answer is wanted
}

// Src is who sent the datagram.
func (p *Packet) Src() netip.AddrPort {
	return netip.AddrPortFrom(p.ip.Src().Netip(), p.udp.SrcPort())
}

// Dst is the address that it was sent to: ours, or a broadcast address.
func (p *Packet) Dst() netip.AddrPort {
	return netip.AddrPortFrom(p.ip.Dst().Netip(), p.udp.DstPort())
}

// SrcPort is the port of Src alone, at less cost.
func (p *Packet) SrcPort() uint16 { return p.udp.SrcPort() }

// Now is the time of this step of the engine.
func (p *Packet) Now() clock.Time { return p.e.now }

// TTL and TOS are those of the IPv4 header.
func (p *Packet) TTL() uint8 { return p.ip.TTL() }

// TOS is the type-of-service byte: DSCP and ECN.
func (p *Packet) TOS() uint8 { return p.ip.TOS() }

// body is the payload, wherever the handler has let Payload point.
func (p *Packet) body() []byte {
	if p.room != nil {
		return p.room[:len(p.udp)-wire.UDPLen]
	}
	return p.udp.Payload()
}

// Room is the payload extended to the longest answer that Reply can send.
func (p *Packet) Room() []byte {
	b := p.body()
	if !p.inPlace() {
		if p.room == nil {
			if p.e.answerBuf == nil {
				p.e.answerBuf = make([]byte, maxUDPPayload)
			}
			p.room = p.e.answerBuf
			p.Payload = p.room[:copy(p.room, b)]
		}
		return p.room
	}
	room := p.e.mtu - wire.IPv4Len - wire.UDPLen
	if p.e.rx.link == Link(p.e.loop) {
		room = maxUDPPayload
	}
	return b[:max(len(b), min(cap(b), room))]
}

// maxUDPPayload is the longest payload of a UDP datagram over IPv4.
const maxUDPPayload = wire.IPv4MaxSize - wire.IPv4Len - wire.UDPLen

// inPlace reports whether the answer can be built in the frame: a packet from fragments is not in one, and one with options
// would send them back.
func (p *Packet) inPlace() bool {
	return !p.done && !p.e.rx.copied && p.e.local(p.ip.Dst()).kind == localUnicast
}

// fits reports whether an answer with n bytes gets through in one piece.
func (p *Packet) fits(n int) bool {
	return p.e.fitsPath(p.ip.Src(), wire.IPv4Len+wire.UDPLen+n)
}

// Echo answers with the payload as it came; a handler that wrote to it calls Reply. Behind Echo and Reply the frame is gone
// and with it what p can tell. Nothing is sent where the sender's port is 0, which wants no answer (RFC 768).
func (p *Packet) Echo() {
	b := p.body()
	if !p.inPlace() || !p.fits(len(b)) {
		p.ReplyWith(b)
		return
	}
	partial := p.e.rx.sum == wire.ChecksumPartial
	if partial && !p.e.leavesLentSum() {
		p.Reply(len(b))
		return
	}
	// Addresses and ports only change places, so the checksum stays right, and so does the pseudo-header's sum.
	p.udp.PutPorts(p.udp.DstPort(), p.udp.SrcPort())
	p.sendInPlace(len(b), partial)
}

// Reply answers with the first n bytes of Room, built in place: to the sender, from the address that it sent to. An n
// beyond Room is cut to it.
func (p *Packet) Reply(n int) {
	if p.done {
		return
	}
	room := p.Room()
	n = max(0, min(n, len(room)))
	if !p.inPlace() || !p.fits(n) {
		p.ReplyWith(room[:n])
		return
	}
	b := p.udp[:wire.UDPLen+n]
	src, dst := p.ip.Dst(), p.ip.Src()
	partial, sum := n >= offloadLeast && p.e.leavesLentSum(), uint16(0)
	if !partial {
		sum = wire.Sum(b[wire.UDPLen:], 0)
	}
	wire.PutUDP(b, &wire.UDPFields{
		Src: src, Dst: dst, SrcPort: p.udp.DstPort(), DstPort: p.udp.SrcPort(), PayloadLen: n,
	}, sum)
	if partial {
		b.PutPartialChecksum(src, dst)
	}
	p.sendInPlace(n, partial)
}

// ttl and tos are those of the answer: the socket's, and where that has set no TOS the packet's without its congestion mark.
func (p *Packet) ttl() uint8 { return uint8(p.h.d.ttl.Load()) }

func (p *Packet) tos() uint8 {
	if t := p.h.d.tos.Load(); t != 0 {
		return uint8(t)
	}
	return p.ip.TOS() &^ 3
}

// sendInPlace turns the rest of the frame round. partial leaves the checksum to the card.
func (p *Packet) sendInPlace(n int, partial bool) {
	e, sum := p.e, 0
	if partial {
		sum = e.rx.l3 + wire.IPv4Len
	}
	e.replyHeader(p.ip[:wire.IPv4Len+wire.UDPLen+n], p.ttl(), p.tos())
	p.done = true
	if r := e.sendBack(e.rx.frame[:e.rx.l3+wire.IPv4Len+wire.UDPLen+n], e.rx.src, sum); r != NotDropped {
		e.stats.TxDrops[r]++
		e.stats.Output++
		return
	}
	p.h.sent++
	p.h.txBytes += uint64(n)
}

// ReplyWith answers with a copy of b, in fragments where it is long. It may be called more than once, before an answer in place.
func (p *Packet) ReplyWith(b []byte) {
	if p.done || len(b) > maxUDPPayload {
		return
	}
	e := p.e
	src := p.ip.Dst()
	if p.e.local(src).kind != localUnicast {
		src = p.h.local
	}
	m := outgoing{src: src, dst: p.ip.Src(), port: p.udp.SrcPort(), ttl: p.ttl(), tos: p.tos()}
	if e.emitUDP(p.h, &m, b, new(cut)) == outFull {
		e.refuse(DropTransmitFull)
		return
	}
	p.h.sent++
	p.h.txBytes += uint64(len(b))
}

// handle calls a socket's handler with the packet in the frame.
func (e *Engine) handle(h *half, ip wire.IPv4, u wire.UDP) DropReason {
	p := &e.packet
	*p = Packet{Payload: u.Payload(), e: e, h: h, ip: ip, udp: u, done: u.SrcPort() == 0}
	h.received++
	h.rxBytes += uint64(len(p.Payload))
	h.handler(p)
	e.stats.Delivered++
	return NotDropped
}

// handleBroadcast calls a handler with a copy of a broadcast.
func (e *Engine) handleBroadcast(h *half, ip wire.IPv4, u wire.UDP) {
	e.broadcast = append(e.broadcast[:0], ip...)
	c := wire.IPv4(e.broadcast)
	e.handle(h, c, wire.UDP(c[len(ip)-len(u):]))
}
