package stack

import (
	"slices"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// localAddr is an address at which an engine takes packets, with the sockets that are bound there.
type localAddr struct {
	addr     wire.Addr
	kind     localKind
	prefix   wire.Prefix
	defended clock.Time // when a conflict about it was last answered
	udp      *portTable
	ids      *portTable // ICMP sockets by identifier
	next     *localAddr // in the same place of the localTable
}

type localKind uint8

const (
	localUnicast   localKind = iota
	localBroadcast           // of the network or the limited one: every socket with the port hears it
)

// A localTable finds an engine's addresses: each packet asks for its destination, and for its source, which is none of them.
type localTable [256]*localAddr

// at is where an address would be: a place by the upper bits of a multiplicative hash.
func (t *localTable) at(a wire.Addr) **localAddr { return &t[uint8(uint32(a)*0x9E3779B1>>24)] }

// local finds the address, nil when it is not ours.
func (e *Engine) local(a wire.Addr) *localAddr {
	for la := *e.localTable.at(a); la != nil; la = la.next {
		if la.addr == a {
			return la
		}
	}
	if e.iface.loopback && a.IsLoopback() {
		return e.loopbackAddr(a)
	}
	return nil
}

// loopbackAddr is local for the addresses of 127.0.0.0/8 beyond 127.0.0.1, which nobody configures.
func (e *Engine) loopbackAddr(a wire.Addr) *localAddr {
	la := &e.loopAddr
	*la = localAddr{addr: a, prefix: loopbackPrefix, udp: e.portTables[portKey{wire.ProtocolUDP, a}], ids: e.portTables[portKey{wire.ProtocolICMP, a}]}
	if la.udp == nil {
		la.udp = &noPorts
	}
	if la.ids == nil {
		la.ids = &noPorts
	}
	return la
}

var loopbackPrefix = wire.Prefix{Addr: wire.AddrLoopback, Bits: 8}

// setLocals makes the engine take packets for the addresses. Sockets that are bound to one that went away stay bound and
// hear nothing until it comes back, as in the kernel.
func (e *Engine) setLocals(prefixes []wire.Prefix) {
	e.locals = make([]localAddr, 0, 2*len(prefixes)+1) // never moved: the table points into it
	e.localTable = localTable{}
	add := func(a wire.Addr, kind localKind, p wire.Prefix) {
		place := e.localTable.at(a)
		for *place != nil {
			place = &(*place).next
		}
		e.locals = append(e.locals, localAddr{
			addr: a, kind: kind, prefix: p,
			udp: e.ports(wire.ProtocolUDP, a), ids: e.ports(wire.ProtocolICMP, a),
		})
		*place = &e.locals[len(e.locals)-1]
	}
	for _, p := range prefixes {
		add(p.Addr, localUnicast, p)
	}
	if !e.iface.loopback {
		for _, p := range prefixes {
			if b, ok := p.Broadcast(); ok && e.local(b) == nil {
				add(b, localBroadcast, p)
			}
		}
		add(wire.AddrBroadcast, localBroadcast, wire.Prefix{Addr: wire.AddrBroadcast, Bits: 32})
	}
	for k, t := range e.portTables {
		e.dropTable(k, t)
	}
	e.gen++
}

// A portTable finds the sockets on one address by port or identifier: two loads, whatever the number of sockets.
type portTable struct {
	pages [256]*[256]*half
	count int
}

var noPorts portTable

func (t *portTable) get(port uint16) *half {
	if entry := t.entry(port); entry != nil {
		return *entry
	}
	return nil
}

// entry is where get finds what it returns; nil where it looks no further than the page.
func (t *portTable) entry(port uint16) **half {
	page := t.pages[port>>8]
	if page == nil {
		return nil
	}
	return &page[port&0xFF]
}

func (t *portTable) insert(port uint16, h *half) {
	page := t.pages[port>>8]
	if page == nil {
		page = new([256]*half)
		t.pages[port>>8] = page
	}
	h.peer = page[port&0xFF]
	page[port&0xFF] = h
	t.count++
}

func (t *portTable) remove(port uint16, h *half) {
	page := t.pages[port>>8]
	if page == nil {
		return
	}
	for p := &page[port&0xFF]; *p != nil; p = &(*p).peer {
		if *p == h {
			*p, h.peer = h.peer, nil
			t.count--
			return
		}
	}
}

type portKey struct {
	proto wire.Protocol
	addr  wire.Addr
}

// ports is the table for an address, kept while sockets or the address itself need it.
func (e *Engine) ports(proto wire.Protocol, addr wire.Addr) *portTable {
	k := portKey{proto, addr}
	t := e.portTables[k]
	if t == nil {
		t = new(portTable)
		e.portTables[k] = t
	}
	return t
}

// dropTable forgets a table that neither a socket nor an address of ours needs: a user may bind to each of 127.0.0.0/8 in turn.
func (e *Engine) dropTable(k portKey, t *portTable) {
	if t.count > 0 || slices.ContainsFunc(e.locals, func(la localAddr) bool { return la.addr == k.addr }) {
		return
	}
	delete(e.portTables, k)
}

// find picks the socket for a packet from src:sport: of several on the port the one that is connected to it, else by a hash
// of the flow among the ones that are not (SO_REUSEPORT).
func (h *half) find(src wire.Addr, sport uint16) *half {
	if h.peer == nil && !h.connected {
		return h
	}
	return h.findAmong(src, sport)
}

func (h *half) findAmong(src wire.Addr, sport uint16) *half {
	open := uint32(0)
	for s := h; s != nil; s = s.peer {
		if !s.connected {
			open++
		} else if s.remote == src && s.remotePort == sport {
			return s
		}
	}
	if open == 0 {
		return nil
	}
	pick := (uint32(src) ^ uint32(sport)<<16 ^ uint32(sport)) * 0x9E3779B1 >> 16 % open
	for s := h; s != nil; s = s.peer {
		if s.connected {
			continue
		}
		if pick == 0 {
			return s
		}
		pick--
	}
	return nil
}
