package stack

import (
	"net"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// ARP, RFC 826, with the conflict detection of RFC 5227.

// Times of RFC 5227 §1.1, the probes closer together: an address is in use from the start, and a conflict found by them is
// told and defended against as one that comes later is.
const (
	probeInterval   = 250 * time.Millisecond
	probeCount      = 3
	announceCount   = 2
	announceSpacing = 2 * time.Second
	defendInterval  = 10 * time.Second
)

// arp takes an ARP packet behind an Ethernet header.
func (e *Engine) arp(h *wire.EthernetInfo, b []byte) DropReason {
	p, err := wire.ParseARP(b)
	if err != nil {
		return DropARPMalformed
	}
	sender, from := p.Sender(), p.SenderHardware()
	if from.IsMulticast() || from.IsZero() || sender.IsMulticast() || sender.IsBroadcast() {
		return DropARPMalformed
	}
	if la := e.local(sender); la != nil && la.kind == localUnicast {
		if from != e.hw {
			e.conflict(la, from)
			return e.consumed()
		}
		return DropARPNotForUs // our own, sent back by a switch or a bond
	}
	// RFC 826: the sender is merged into the table if it is there, and added if the packet is for us.
	la := e.local(p.Target())
	forUs := la != nil && la.kind == localUnicast
	merged := sender != 0 && e.learn(sender, from, h, forUs)
	if forUs && p.Op() == wire.ARPRequest && !e.rx.forwarded {
		if e.iface.mode == Shared {
			return e.consumed() // the kernel answers for its own address
		}
		return e.answerARP(h, p)
	}
	if forUs || merged {
		return e.consumed()
	}
	return DropARPNotForUs
}

func (e *Engine) consumed() DropReason {
	e.stats.Consumed++
	return NotDropped
}

// learn merges an answer into the table and passes it on to the other engines. It reports whether there was an entry.
func (e *Engine) learn(addr wire.Addr, hw wire.HardwareAddr, h *wire.EthernetInfo, add bool) bool {
	if e.iface.resolver != nil {
		return false
	}
	n := e.neighbours[addr]
	if n == nil {
		if !add {
			return false
		}
		if n = e.newNeighbour(addr); n == nil {
			return false
		}
	}
	if n.state == NeighbourPermanent {
		return true
	}
	if n.usable() && n.headerLen > 0 && n.hardwareAddr() != hw && e.now.Sub(n.confirmed) < neighbourLocked {
		return true
	}
	e.confirm(n, hw, h.Tags[:h.NTags], NeighbourReachable)
	return true
}

// answerARP turns a request into its reply, in place where the frame is this engine's.
func (e *Engine) answerARP(h *wire.EthernetInfo, p wire.ARP) DropReason {
	f := wire.ARPFields{
		Op: wire.ARPReply, SenderHardware: e.hw, Sender: p.Target(),
		TargetHardware: p.SenderHardware(), Target: p.Sender(),
	}
	if e.rx.passed {
		e.sendARP(h.Src, h.Tags[:h.NTags], &f)
		e.stats.Answered++
		return NotDropped
	}
	wire.PutARP(p, &f)
	return e.answer(int(h.HeaderLen)+wire.ARPLen, h.Src)
}

// sendARP broadcasts or unicasts an ARP packet; one that finds no room is lost as on a busy wire, and asked again later.
func (e *Engine) sendARP(to wire.HardwareAddr, tags []wire.VLANTag, f *wire.ARPFields) {
	frame := e.allocFrame()
	if frame == nil {
		return
	}
	h := wire.EthernetInfo{Dst: to, Src: e.hw, Type: wire.EtherTypeARP}
	h.NTags = uint8(copy(h.Tags[:], tags))
	n := wire.PutEthernet(frame, &h)
	wire.PutARP(frame[n:], f)
	e.sendFrame(frame[:n+wire.ARPLen])
}

func (e *Engine) sendARPRequest(n *neighbour) {
	f := wire.ARPFields{Op: wire.ARPRequest, SenderHardware: e.hw, Sender: e.sourceFor(n.addr), Target: n.addr}
	e.stats.ARPRequests++
	if n.state == NeighbourProbe { // RFC 1122 §2.3.2.1: a unicast poll of the last known address
		f.TargetHardware = n.hardwareAddr()
		e.sendARP(f.TargetHardware, n.tags[:n.ntags], &f)
		return
	}
	e.sendARP(wire.HardwareBroadcast, nil, &f)
}

// An announcer probes for and then announces one of our own addresses, RFC 5227 §2.1.1 and §2.3.
type announcer struct {
	e     *Engine
	addr  wire.Addr
	sent  int
	timer timer
}

func (e *Engine) announce(addr wire.Addr) { e.startAnnouncer(&announcer{e: e, addr: addr}) }

// reannounce tells a new Ethernet address to those who have the old one in their tables, RFC 5227 §2.3. Nothing is probed
// for: the address has been ours.
func (e *Engine) reannounce(addr wire.Addr) {
	e.startAnnouncer(&announcer{e: e, addr: addr, sent: probeCount})
}

func (e *Engine) startAnnouncer(a *announcer) {
	a.timer.owner = a
	e.wheel.arm(&a.timer, e.now)
}

func (a *announcer) expire(_ *timer, now clock.Time) {
	e := a.e
	if la := e.local(a.addr); la == nil || la.kind != localUnicast {
		return
	}
	f := wire.ARPFields{Op: wire.ARPRequest, SenderHardware: e.hw, Target: a.addr}
	if a.sent >= probeCount {
		f.Sender = a.addr // an announcement: sender and target are the same
	}
	e.sendARP(wire.HardwareBroadcast, nil, &f)
	a.sent++
	switch {
	case a.sent <= probeCount:
		e.wheel.arm(&a.timer, now.Add(probeInterval))
	case a.sent < probeCount+announceCount:
		e.wheel.arm(&a.timer, now.Add(announceSpacing))
	}
}

// conflict tells that another host claims la's address, and defends it, at most once in defendInterval (RFC 5227 §2.4 (c)).
func (e *Engine) conflict(la *localAddr, other wire.HardwareAddr) {
	if e.rx.forwarded {
		return // the engine that received it sees to it
	}
	e.stats.ARPConflicts++
	if la.defended != clock.Never && e.now.Sub(la.defended) < defendInterval {
		return
	}
	la.defended = e.now
	if e.iface.mode == Owned {
		e.sendARP(wire.HardwareBroadcast, nil, &wire.ARPFields{
			Op: wire.ARPRequest, SenderHardware: e.hw, Sender: la.addr, Target: la.addr,
		})
	}
	if f := e.iface.onConflict; f != nil {
		f(la.addr.Netip(), net.HardwareAddr(other[:]))
	}
}
