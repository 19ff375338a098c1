package stack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"kitnet.dev/kit/stack/wire"
)

// Interface is a card with its addresses, routes and engines, or the loopback "lo".
type Interface struct {
	stack      *Stack
	name       string
	mode       Mode
	loopback   bool
	hw         atomic.Pointer[wire.HardwareAddr]
	mtu        atomic.Int64
	engines    []*Engine
	ports      Ports
	resolver   Resolver
	wait       WaitMode
	spin       time.Duration
	onConflict func(netip.Addr, net.HardwareAddr)
	onError    func(error)
	addrs      atomic.Pointer[[]wire.Prefix]
	gone       atomic.Bool // a link has failed: the device was deleted
	idKey      uint64      // of the identifications of fragmented datagrams
	routes     routeTable
	flows      *flowTable // of a card with several queues
	cookies    cookieGiver
}

// Name is the card's name.
func (i *Interface) Name() string { return i.name }

// Mode says how the interface holds its addresses; that of the loopback is Owned.
func (i *Interface) Mode() Mode { return i.mode }

// Loopback reports whether this is the in-stack loopback.
func (i *Interface) Loopback() bool { return i.loopback }

// HardwareAddr is the card's Ethernet address, all zeros for the loopback.
func (i *Interface) HardwareAddr() net.HardwareAddr {
	hw := *i.hw.Load()
	return hw[:]
}

// MTU is the longest IPv4 packet, in bytes.
func (i *Interface) MTU() int { return int(i.mtu.Load()) }

// LinkChanged makes the engines ask their links for the MTU and the Ethernet address again, for whoever sees that the
// device's were changed. Owned addresses are announced anew from a new Ethernet address.
func (i *Interface) LinkChanged() {
	i.each(func(e *Engine) {
		e.mtu = max(e.link.MTU(), minMTU)
		e.readdress(e.link.HardwareAddr())
		e.gen++
	})
	i.mtu.Store(int64(i.engines[0].link.MTU()))
	hw := wire.HardwareAddr(i.engines[0].link.HardwareAddr())
	if old := *i.hw.Swap(&hw); old == hw || i.mode != Owned || i.loopback || i.resolver != nil {
		return
	}
	e := i.engines[0].via
	for _, p := range i.prefixes() {
		e.do(func() { e.reannounce(p.Addr) })
	}
}

// Gone reports whether the card was deleted: its sockets answer ENETDOWN.
func (i *Interface) Gone() bool { return i.gone.Load() }

// WaitMode says how its engines wait.
func (i *Interface) WaitMode() WaitMode { return i.wait }

// Addresses lists the addresses with their networks.
func (i *Interface) Addresses() []netip.Prefix {
	ps := i.prefixes()
	out := make([]netip.Prefix, len(ps))
	for n, p := range ps {
		out[n] = p.Netip()
	}
	return out
}

func (i *Interface) prefixes() []wire.Prefix { return *i.addrs.Load() }

// engine picks one of the interface's engines.
func (i *Interface) engine(n uint32) *Engine { return i.engines[n%uint32(len(i.engines))] }

// each runs f as the owner of every engine, one after the other.
func (i *Interface) each(f func(e *Engine)) {
	for _, e := range i.engines {
		e.do(func() { f(e) })
	}
}

// SetAddresses replaces the addresses. In Owned mode the routes to their networks follow, and new ones are probed for and
// announced (RFC 5227).
func (i *Interface) SetAddresses(ps []netip.Prefix) error {
	next := make([]wire.Prefix, 0, len(ps))
	for _, p := range ps {
		w, err := checkAddress(p, i.mode, i.loopback)
		if err != nil {
			return err
		}
		next = append(next, w)
	}
	i.each(func(e *Engine) { e.setLocals(next) })
	old := *i.addrs.Swap(&next)
	i.stack.addressesChanged()
	if i.mode != Owned || i.loopback {
		return nil
	}
	gone, come := without(old, next), without(next, old)
	for _, p := range gone {
		i.routes.remove(route{prefix: p.Masked()})
	}
	for _, p := range next {
		if changes(p, gone) || changes(p, come) {
			i.routes.add(route{prefix: p.Masked(), source: firstIn(next, p)})
		}
	}
	for _, p := range come {
		if i.resolver == nil {
			e := i.engines[0].via
			e.do(func() { e.announce(p.Addr) })
		}
	}
	i.routesChanged()
	return nil
}

// changes reports whether one of ps is on the same network as p.
func changes(p wire.Prefix, ps []wire.Prefix) bool {
	return slices.ContainsFunc(ps, func(o wire.Prefix) bool { return o.Masked() == p.Masked() })
}

// firstIn is the first of ps that is on the same network as p: the source of what goes there, as the kernel's primary address is.
func firstIn(ps []wire.Prefix, p wire.Prefix) wire.Addr {
	n := slices.IndexFunc(ps, func(o wire.Prefix) bool { return o.Masked() == p.Masked() })
	return ps[n].Addr
}

func without(ps, others []wire.Prefix) (out []wire.Prefix) {
next:
	for _, p := range ps {
		for _, o := range others {
			if p == o {
				continue next
			}
		}
		out = append(out, p)
	}
	return out
}

var errNotUnicast = errors.New("it is not the address of a single host: give one as 10.0.0.5/24")

// CheckAddress reports what is wrong with an address for a card in Owned mode; nil when it can be used.
func CheckAddress(p netip.Prefix) error {
	_, err := checkAddress(p, Owned, false)
	return err
}

func checkAddress(p netip.Prefix, mode Mode, loopback bool) (wire.Prefix, error) {
	w, ok := wire.PrefixFrom(p)
	if !ok {
		return w, fmt.Errorf("address %v is not an IPv4 address with a prefix length: give one as 10.0.0.5/24", p)
	}
	a := w.Addr
	bad := a == 0 || a>>28 >= 0xE || a.IsLoopback() != loopback || w.Bits == 0
	if w.Bits <= 30 && !bad && mode == Owned {
		bad = a == w.Masked().Addr || w.IsBroadcast(a)
	}
	if bad {
		return w, fmt.Errorf("address %v: %w", p, errNotUnicast)
	}
	return w, nil
}

// SetRoutes replaces all routes in one step, those that owned addresses brought too.
func (i *Interface) SetRoutes(rs []Route) error {
	next := make([]route, len(rs))
	for n, r := range rs {
		var err error
		if next[n], err = routeFrom(r); err != nil {
			return err
		}
	}
	i.routes.replace(next)
	i.routesChanged()
	return nil
}

// AddRoute adds a route, in place of one with the same destination, metric, gateway and kind.
func (i *Interface) AddRoute(r Route) error {
	n, err := routeFrom(r)
	if err != nil {
		return err
	}
	i.routes.add(n)
	i.routesChanged()
	return nil
}

// DeleteRoute removes the route with r's destination, metric, gateway and kind, and reports whether there was one.
func (i *Interface) DeleteRoute(r Route) bool {
	n, err := routeFrom(r)
	if err != nil || !i.routes.remove(n) {
		return false
	}
	i.routesChanged()
	return true
}

// Routes lists the routes, the longest prefixes first.
func (i *Interface) Routes() []Route { return i.routes.all() }

// routesChanged makes the engines and sockets look their ways up again.
func (i *Interface) routesChanged() {
	i.stack.gen.Add(1)
	for _, e := range i.engines {
		e.post(func() { e.gen++ })
	}
}

// SetNeighbour records what somebody else, in shared mode the kernel, knows of a neighbour. NeighbourFailed tells those who
// wait for it.
func (i *Interface) SetNeighbour(n NeighbourEntry) {
	a, ok := wire.AddrFrom(n.Addr)
	if !ok || len(n.HardwareAddr) != 6 && n.State != NeighbourFailed && n.State != NeighbourIncomplete {
		return
	}
	var hw wire.HardwareAddr
	copy(hw[:], n.HardwareAddr)
	var tags []wire.VLANTag
	for _, v := range n.VLANs[:min(len(n.VLANs), wire.MaxTags)] {
		tags = append(tags, wire.VLANTag(uint32(wire.EtherTypeVLAN)<<16|uint32(v)))
	}
	for _, e := range i.engines {
		e.post(func() { e.setNeighbour(a, hw, tags, n.State) })
	}
}

// DeleteNeighbour forgets a neighbour.
func (i *Interface) DeleteNeighbour(addr netip.Addr) {
	a, ok := wire.AddrFrom(addr)
	if !ok {
		return
	}
	for _, e := range i.engines {
		e.post(func() {
			if n := e.neighbours[a]; n != nil {
				e.removeNeighbour(n)
			}
		})
	}
}

// Neighbours lists what the engines know of their neighbours, each neighbour once: as the engine that heard of it last sees it.
func (i *Interface) Neighbours() []NeighbourEntry {
	seen := make(map[netip.Addr]NeighbourEntry)
	i.each(func(e *Engine) {
		for _, n := range e.neighbours {
			p := n.public(e.now)
			if o, ok := seen[p.Addr]; !ok || p.State != NeighbourIncomplete && (o.HardwareAddr == nil || p.Age < o.Age) {
				seen[p.Addr] = p
			}
		}
	})
	out := make([]NeighbourEntry, 0, len(seen))
	for _, n := range seen {
		out = append(out, n)
	}
	sortNeighbours(out)
	return out
}

// EachLink calls f with every link as its owner, between two steps of its engine: the way to a link's own counters.
func (i *Interface) EachLink(f func(queue int, l Link)) {
	i.each(func(e *Engine) { f(e.queue, e.link) })
}

// Queues are the figures of the interface's engines.
func (i *Interface) Queues() []QueueStats {
	out := make([]QueueStats, 0, len(i.engines))
	i.each(func(e *Engine) { out = append(out, e.queueStats()) })
	return out
}
