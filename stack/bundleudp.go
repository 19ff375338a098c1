package stack

import (
	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/wire"
)

const (
	// bundleDatagrams is how many datagrams a bundle has at most: Linux's UDP_MAX_SEGMENTS, before 6.9.
	bundleDatagrams = 64
	// bundleWorth is how many it has at least.
	bundleWorth = 4

	udpHeaders = wire.IPv4Len + wire.UDPLen
)

// emitBundle sends the next datagrams of a socket in one piece, if there are several that may go so: from one address to one
// other, of one length but for the last, which may be shorter, and none longer than a frame. It returns how many it sent, and
// has passed their records; after 0 nothing has changed. m is the first of them as read.
func (e *Engine) emitBundle(h *half, m *outgoing, r *ring.ChainReader) int {
	if h.cut.off > 0 {
		return 0
	}
	b, d := &e.bundle, e.dest(m.dst)
	limit := e.bundleLimit(d, wire.ProtocolUDP) - udpHeaders
	b.segment = len(r.PeekOn()) - outRecord
	if b.segment == 0 || b.segment > limit || udpHeaders+b.segment > d.mtu {
		return 0
	}
	mark := r.Mark()
	next := *m
	for b.n < bundleDatagrams {
		rec := r.PeekOn()
		if rec == nil {
			break
		}
		payload := rec[outRecord:]
		if next.get(rec); next != *m || len(payload) == 0 || len(payload) > b.segment || b.bytes+len(payload) > limit {
			break
		}
		b.addPart(payload)
		b.n++
		b.bytes += len(payload)
		r.Advance()
		if len(payload) < b.segment {
			break
		}
	}
	sent := b.n
	if sent < bundleWorth || !e.sendUDPBundle(h, m, d) {
		r.Rewind(mark)
		r.PeekOn() // as the caller left it
		sent = 0
	}
	h.sent += uint64(sent)
	h.txBytes += uint64(b.bytes * min(sent, 1))
	b.empty()
	return sent
}

// sendUDPBundle gives the link the bundle. It reports false when the link did not take it.
func (e *Engine) sendUDPBundle(h *half, m *outgoing, d *dest) bool {
	b := &e.bundle
	src := m.src
	if src == 0 {
		src = d.source
	}
	ip := b.begin(d.neigh, udpHeaders)
	u := wire.UDP(ip[wire.IPv4Len:])
	wire.PutUDP(u, &wire.UDPFields{Src: src, Dst: m.dst, SrcPort: h.localPort, DstPort: m.port, PayloadLen: b.bytes}, 0)
	u.PutPartialChecksum(src, m.dst)
	wire.PutIPv4(ip, &wire.IPv4Fields{
		TOS: m.tos, TotalLength: udpHeaders + b.bytes, DF: true, TTL: m.ttl, Protocol: wire.ProtocolUDP, Src: src, Dst: m.dst,
	})
	return e.giveBundle(d.neigh.headerLen, udpHeaders)
}

// giveBundle gives the link what was gathered, under network bytes of Ethernet header and the n that begin gave, and counts it.
func (e *Engine) giveBundle(network, n int) bool {
	b := &e.bundle
	header := b.header[:network+n]
	if !b.link.SendBundle(header, network, b.parts[:b.nparts], b.segment) {
		b.refused = e.steps
		return false
	}
	e.stats.Output += uint64(b.n)
	e.stats.Sent += uint64(b.n)
	e.stats.TxFrames += uint64(b.n)
	e.stats.TxBytes += uint64(b.n*len(header) + b.bytes)
	return true
}
