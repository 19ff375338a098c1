package stack

import (
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// A dest is what an engine found out about a destination: where its packets go and how long they may be. Engines keep the
// last ones in a direct-mapped cache, so that a packet costs one comparison and no look-up in the routing table.
type dest struct {
	addr    wire.Addr
	gen     uint32 // of the engine's view of routes and addresses
	kind    destKind
	locked  bool // DF is left clear, and so each packet needs an identification (RFC 6864 §4.1); see minPMTU
	mtu     int
	source  wire.Addr // of what a socket of another interface broadcasts here
	neigh   *neighbour
	inside  *Engine
	expires clock.Time // of a path MTU
	hw      wire.HardwareAddr
}

type destKind uint8

const (
	destNoRoute     destKind = iota // nothing leads there
	destUnreachable                 // a route refuses it
	destTableFull                   // no neighbour entry could be made
	destLocal                       // ours: the in-stack loopback
	destInside                      // another interface's: its engine inside takes the packet
	destGroup                       // broadcast or multicast: hw is the Ethernet address
	destNeighbour                   // by way of neigh
)

const destCache = 1 << 10

func destSlot(addr wire.Addr) uint32 { return uint32(addr) * 0x9E3779B1 >> (32 - 10) }

// minMTU is the least that every link carries, RFC 791 §3.2.
const minMTU = 68

// minPMTU is the least path MTU that an ICMP error can teach: Linux's default of net.ipv4.route.min_pmtu. Where an error names
// less, packets of that length are sent with DF clear, so that a router which means it can cut them and one that lies is
// not believed: the path is locked (fnhe_mtu_locked and ip_dont_fragment, net/ipv4/route.c and include/net/ip.h).
const minPMTU = 552

// pmtuLife is how long a learnt path MTU is believed, RFC 1191 §6.3 and Linux's net.ipv4.route.mtu_expires.
const pmtuLife = 10 * time.Minute

// maxPMTU bounds the table of learnt path MTUs.
const maxPMTU = 4096

type pathMTU struct {
	mtu     int
	locked  bool
	expires clock.Time
}

// dest finds out where packets for addr go.
func (e *Engine) dest(addr wire.Addr) *dest {
	d := &e.dests[destSlot(addr)]
	if d.addr == addr && d.gen == e.gen && (d.neigh == nil || !d.neigh.dead) && (d.expires == 0 || e.now < d.expires) {
		return d
	}
	*d = dest{addr: addr, gen: e.gen}
	e.fillDest(d)
	return d
}

func (e *Engine) fillDest(d *dest) {
	d.mtu = e.mtu
	switch la := e.local(d.addr); {
	case la != nil && la.kind == localUnicast:
		d.kind, d.mtu = destLocal, loopbackMTU
		return
	case la != nil || d.addr.IsBroadcast():
		d.kind, d.hw, d.source = destGroup, wire.HardwareBroadcast, e.sourceFor(d.addr)
		return
	case d.addr.IsMulticast():
		d.kind, d.hw = destGroup, d.addr.MulticastHardwareAddr()
		return
	}
	if i := e.stack.ownerOf(d.addr); i != nil {
		d.kind, d.mtu, d.inside = destInside, loopbackMTU, i.engine(uint32(e.queue)).via
		return
	}
	r, ok := e.iface.routes.lookup(d.addr, e.queue)
	switch {
	case !ok || r.kind == RouteElsewhere || r.kind == RouteBlackhole:
		d.kind = destNoRoute
		return
	case r.kind != RouteUnicast:
		d.kind = destUnreachable
		return
	}
	if r.mtu != 0 {
		d.mtu = min(d.mtu, r.mtu)
	}
	if p, ok := e.pathMTU(d.addr); ok {
		d.mtu, d.locked, d.expires = min(d.mtu, p.mtu), p.locked, p.expires
	}
	hop := d.addr
	if r.gateway != 0 {
		hop = r.gateway
	}
	if d.neigh = e.neighbour(hop); d.neigh == nil {
		d.kind, d.gen = destTableFull, e.gen-1 // look again next time
		return
	}
	d.kind = destNeighbour
	d.mtu = min(d.mtu, e.mtuBehind(wire.EthernetLen+int(d.neigh.ntags)*wire.VLANTagLen))
}

// sourceFor picks the address of ours that fits best for a neighbour: the one whose network holds it, else the first.
func (e *Engine) sourceFor(hop wire.Addr) wire.Addr {
	var first wire.Addr
	for i := range e.locals {
		la := &e.locals[i]
		if la.kind != localUnicast {
			continue
		}
		if la.prefix.Contains(hop) {
			return la.addr
		}
		if first == 0 {
			first = la.addr
		}
	}
	return first
}

// learnPMTU lowers the path MTU towards addr, RFC 1191 §3. A router that does not tell its MTU gives 0: then the next lower
// of RFC 1191 §7.1's plateaus below the length of the packet that it refused.
func (e *Engine) learnPMTU(addr wire.Addr, mtu, refused int) {
	if mtu == 0 {
		for _, plateau := range []int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 576} {
			if plateau < refused {
				mtu = plateau
				break
			}
		}
	}
	least, known := e.mtu, false
	if p, ok := e.pathMTU(addr); ok {
		least, known = p.mtu, p.locked
	}
	locked := mtu < minPMTU
	if locked && known || !locked && mtu >= least {
		return
	}
	if locked {
		mtu = min(least, minPMTU)
	}
	if len(e.pmtu) >= maxPMTU {
		for a, p := range e.pmtu {
			if e.forgetPMTU(a); e.now >= p.expires || len(e.pmtu) < maxPMTU {
				break
			}
		}
	}
	e.forgetPMTU(addr)
	if locked {
		e.locked++
	}
	e.pmtu[addr] = pathMTU{mtu, locked, e.now.Add(pmtuLife)}
	e.dests[destSlot(addr)].gen = e.gen - 1
}

// pathMTU is what ICMP has told of the way to addr and is still believed.
func (e *Engine) pathMTU(addr wire.Addr) (p pathMTU, ok bool) {
	if p, ok = e.pmtu[addr]; ok && e.now >= p.expires {
		e.forgetPMTU(addr)
		return pathMTU{}, false
	}
	return p, ok
}

func (e *Engine) forgetPMTU(addr wire.Addr) {
	if e.pmtu[addr].locked {
		e.locked--
	}
	delete(e.pmtu, addr)
}

// mtuBehind is the longest packet behind an Ethernet header of n bytes: links have room for one VLAN tag beside the MTU.
func (e *Engine) mtuBehind(n int) int {
	return e.mtu - max(0, n-wire.EthernetLen-wire.VLANTagLen)
}

// fitsPath reports whether a packet of n bytes reaches addr in one piece and with DF set, as far as ICMP has told: for answers
// that leave without a look at the routing table.
func (e *Engine) fitsPath(addr wire.Addr, n int) bool {
	switch {
	case e.rx.link == Link(e.loop):
		return true
	case n > e.mtuBehind(e.rx.l3):
		return false
	case len(e.pmtu) == 0 || n <= minPMTU && e.locked == 0:
		return true
	}
	p, known := e.pathMTU(addr)
	return !known || n <= p.mtu && !p.locked
}
