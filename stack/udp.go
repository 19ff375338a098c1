package stack

import (
	"kitnet.dev/kit/stack/wire"
)

// UDP, RFC 768 with RFC 1122 §4.1.

func (e *Engine) udp(p wire.IPv4, la *localAddr) DropReason {
	u, err := wire.ParseUDP(p.Payload())
	if err != nil {
		if err == wire.ErrUDPLength || len(p.Payload()) >= wire.UDPLen {
			return DropUDPLength
		}
		return DropUDPTruncated
	}
	switch e.rx.sum = u.ChecksumState(p.Src(), p.Dst()); e.rx.sum {
	case wire.ChecksumBad:
		return DropUDPChecksum
	case wire.ChecksumPartial:
		if !e.partial {
			return DropUDPChecksum
		}
		e.stats.PartialChecksums++
	}
	if u.DstPort() == 0 {
		return DropUDPPort
	}
	if la.kind == localBroadcast {
		return e.udpBroadcast(p, u)
	}
	h := la.udp.get(u.DstPort())
	if h != nil {
		h = h.find(p.Src(), u.SrcPort())
	}
	if h == nil {
		// RFC 1122 §4.1.3.1.
		e.sendICMPError(p, wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: wire.CodePortUnreachable})
		return DropUDPNoPort
	}
	return e.udpDeliver(h, p, u)
}

func (e *Engine) udpDeliver(h *half, p wire.IPv4, u wire.UDP) DropReason {
	if h.handler != nil {
		return e.handle(h, p, u)
	}
	return e.deliverTo(h, p, u.SrcPort(), u.Payload())
}

// udpBroadcast gives a broadcast to every socket of the interface that has its port. Handlers see a copy each, as one may
// answer in the frame that the next one is to read.
func (e *Engine) udpBroadcast(p wire.IPv4, u wire.UDP) DropReason {
	heard, delivered := false, false
	for i := range e.locals {
		la := &e.locals[i]
		if la.kind != localUnicast {
			continue
		}
		for h := la.udp.get(u.DstPort()); h != nil; h = h.peer {
			if h.connected && (h.remote != p.Src() || h.remotePort != u.SrcPort()) {
				continue
			}
			heard = true
			before := e.stats.Delivered
			if h.handler != nil {
				e.handleBroadcast(h, p, u)
			} else if r := e.deliverTo(h, p, u.SrcPort(), u.Payload()); r != NotDropped {
				continue
			}
			e.stats.Delivered = before
			delivered = true
		}
	}
	switch {
	case delivered:
		e.stats.Delivered++ // once, however many heard it: a packet has one end
		return NotDropped
	case heard:
		return DropSocketFull
	}
	return DropUDPNoPort
}

// emitUDP sends one datagram of a socket. outFull means that the transmit ring is: call it again with the same c after a flush.
func (e *Engine) emitUDP(h *half, m *outgoing, payload []byte, c *cut) outcome {
	d := e.dest(m.dst)
	src := m.src
	if src == 0 {
		src = d.source
	}
	n := wire.IPv4Len + wire.UDPLen + len(payload)
	whole, mtu := h.d.whole.Load(), d.mtu
	if whole {
		mtu = e.probeMTU(h, d)
	}
	if n > mtu || c.off > 0 {
		if whole && c.off == 0 {
			_, res := e.refuse(DropTooLong)
			return e.emitFailed(h, d, res)
		}
		return e.emitFailed(h, d, e.emitLongUDP(h, d, src, m, payload, c))
	}
	b, res := e.begin(d, n)
	if res != outReady {
		return e.emitFailed(h, d, res)
	}
	sum := uint16(0)
	if e.offload != nil && e.leaveSum(len(payload), n) {
		copy(b[wire.IPv4Len+wire.UDPLen:], payload)
	} else {
		sum = wire.CopySum(b[wire.IPv4Len+wire.UDPLen:], payload, 0)
	}
	wire.PutUDP(b[wire.IPv4Len:], &wire.UDPFields{
		Src: src, Dst: m.dst, SrcPort: h.localPort, DstPort: m.port, PayloadLen: len(payload),
	}, sum)
	f := wire.IPv4Fields{
		TOS: m.tos, TotalLength: n, DF: !d.locked || whole, TTL: m.ttl, Protocol: wire.ProtocolUDP, Src: src, Dst: m.dst,
	}
	if !f.DF {
		f.ID = e.nextID(src, m.dst, wire.ProtocolUDP)
	}
	wire.PutIPv4(b, &f)
	e.commit()
	return outReady
}

// probeMTU is the longest packet that a socket whose datagrams stay whole sends to d.
func (e *Engine) probeMTU(h *half, d *dest) int {
	if h.d.probe.Load() && d.kind == destNeighbour {
		return e.mtuBehind(d.neigh.headerLen)
	}
	return d.mtu
}

// emitLongUDP sends a datagram in fragments, made from a copy with its UDP header in front.
func (e *Engine) emitLongUDP(h *half, d *dest, src wire.Addr, m *outgoing, payload []byte, c *cut) outcome {
	u := e.scratchBuffer()[:wire.UDPLen+len(payload)]
	sum := wire.CopySum(u[wire.UDPLen:], payload, 0)
	wire.PutUDP(u, &wire.UDPFields{
		Src: src, Dst: m.dst, SrcPort: h.localPort, DstPort: m.port, PayloadLen: len(payload),
	}, sum)
	return e.sendFragments(d, &wire.IPv4Fields{TOS: m.tos, TTL: m.ttl, Protocol: wire.ProtocolUDP, Src: src, Dst: m.dst}, u, c)
}

// emitICMP sends one message of an ICMP socket, under the socket's identifier, as emitUDP does.
func (e *Engine) emitICMP(h *half, m *outgoing, payload []byte, c *cut) outcome {
	d := e.dest(m.dst)
	src := m.src
	if src == 0 {
		src = d.source
	}
	b := wire.ICMP(e.scratchBuffer()[:copy(e.scratchBuffer(), payload)])
	b.SetID(h.localPort)
	b.SetChecksum()
	whole := h.d.whole.Load()
	if wire.IPv4Len+len(b) > d.mtu && whole && c.off == 0 {
		_, res := e.refuse(DropTooLong)
		return e.emitFailed(h, d, res)
	}
	return e.emitFailed(h, d, e.sendPacket(d, &wire.IPv4Fields{
		TOS: m.tos, TTL: m.ttl, DF: whole, Protocol: wire.ProtocolICMP, Src: src, Dst: m.dst,
	}, b, c))
}
