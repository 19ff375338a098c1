package stack

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"unsafe"

	"kitnet.dev/kit/stack/wire"
)

// RouteKind says what a route does with a packet.
type RouteKind uint8

// The kinds of routes.
const (
	RouteUnicast     RouteKind = iota // over this interface, to Gateway or straight to the destination
	RouteBlackhole                    // the packet is dropped, and nothing is said
	RouteUnreachable                  // the packet is refused: EHOSTUNREACH
	RouteProhibit                     // the packet is refused: EACCES
	RouteElsewhere                    // the kernel would send it over another device
)

// String is the kernel's name of the kind, as in ip-route(8).
func (k RouteKind) String() string {
	switch k {
	case RouteBlackhole:
		return "blackhole"
	case RouteUnreachable:
		return "unreachable"
	case RouteProhibit:
		return "prohibit"
	case RouteElsewhere:
		return "elsewhere"
	}
	return "unicast"
}

// Route is one entry of an interface's routing table. Of the routes that hold a destination the longest prefix wins, among
// equals the lowest metric (RFC 1812 §5.2.4.3).
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // zero: Dst is on the link
	Source  netip.Addr // preferred source address; zero: the interface's own that fits best
	Metric  int
	MTU     int // 0: the link's. Less than 68, the least that IPv4 goes over (RFC 791 §3.2), counts as 68.
	Kind    RouteKind
}

// route is Route in the stack's own terms.
type route struct {
	prefix  wire.Prefix
	gateway wire.Addr
	source  wire.Addr
	metric  int
	mtu     int
	kind    RouteKind
}

func routeFrom(r Route) (route, error) {
	p, ok := wire.PrefixFrom(r.Dst)
	if !ok {
		return route{}, fmt.Errorf("route to %v: the destination is not an IPv4 prefix", r.Dst)
	}
	n := route{prefix: p.Masked(), metric: r.Metric, kind: r.Kind}
	if r.MTU != 0 {
		n.mtu = max(r.MTU, minMTU)
	}
	for _, a := range []struct {
		from netip.Addr
		to   *wire.Addr
		name string
	}{{r.Gateway, &n.gateway, "gateway"}, {r.Source, &n.source, "source"}} {
		if !a.from.IsValid() {
			continue
		}
		if *a.to, ok = wire.AddrFrom(a.from); !ok {
			return route{}, fmt.Errorf("route to %v: the %s %v is not an IPv4 address", r.Dst, a.name, a.from)
		}
	}
	return n, nil
}

func (r route) public() Route {
	p := Route{Dst: r.prefix.Netip(), Metric: r.metric, MTU: r.mtu, Kind: r.kind}
	if r.gateway != 0 {
		p.Gateway = r.gateway.Netip()
	}
	if r.source != 0 {
		p.Source = r.source.Netip()
	}
	return p
}

// same reports whether two routes fill one place in the table.
func (r route) same(o route) bool {
	return r.prefix == o.prefix && r.metric == o.metric && r.gateway == o.gateway && r.kind == o.kind
}

// routeTable finds the longest matching prefix: one map for each length in use, so a look-up costs at most 33 map reads
// whatever the number of routes. Engines keep what they found (dest.go) and ask again only after a change.
type routeTable struct {
	locks  [routeLocks]routeLock
	byBits [33]map[wire.Addr][]route // sorted by metric
	used   uint64                    // bit n: byBits[n] is not empty
}

// The lock that it takes is the one of who asks, an engine's queue or, for others, any number: engines with more destinations than they
// keep would else all write to one lock for each packet.
func (t *routeTable) lookup(dst wire.Addr, who int) (route, bool) {
	l := &t.locks[uint(who)%routeLocks]
	l.RLock()
	defer l.RUnlock()
	for used := t.used; used != 0; {
		n := bits.Len64(used) - 1
		used &^= 1 << n
		if rs := t.byBits[n][dst&(wire.Prefix{Bits: uint8(n)}).Mask()]; len(rs) > 0 {
			return rs[0], true
		}
	}
	return route{}, false
}

// routeLocks is how many look up without writing to a line of another's.
const routeLocks = 16

// routeLock is two cache lines long, so that no two are on one wherever they begin.
type routeLock struct {
	sync.RWMutex
	_ [2*cacheLine - unsafe.Sizeof(sync.RWMutex{})]byte
}

// lock takes all locks, for a change.
func (t *routeTable) lock() {
	for i := range t.locks {
		t.locks[i].Lock()
	}
}

func (t *routeTable) unlock() {
	for i := range t.locks {
		t.locks[i].Unlock()
	}
}

func (t *routeTable) add(r route) {
	t.lock()
	defer t.unlock()
	n := r.prefix.Bits
	if t.byBits[n] == nil {
		t.byBits[n] = make(map[wire.Addr][]route)
	}
	key := r.prefix.Addr
	rs := slices.DeleteFunc(t.byBits[n][key], r.same)
	rs = append(rs, r)
	slices.SortStableFunc(rs, func(a, b route) int { return cmp.Compare(a.metric, b.metric) })
	t.byBits[n][key] = rs
	t.used |= 1 << n
}

func (t *routeTable) remove(r route) bool {
	t.lock()
	defer t.unlock()
	n, key := r.prefix.Bits, r.prefix.Addr
	before := len(t.byBits[n][key])
	rs := slices.DeleteFunc(t.byBits[n][key], r.same)
	if len(rs) == 0 {
		delete(t.byBits[n], key)
		if len(t.byBits[n]) == 0 {
			t.used &^= 1 << n
		}
	} else {
		t.byBits[n][key] = rs
	}
	return len(rs) < before
}

// replace puts rs in the place of all routes, in one step for those who look up.
func (t *routeTable) replace(rs []route) {
	var n routeTable
	for _, r := range rs {
		n.add(r)
	}
	t.lock()
	t.byBits, t.used = n.byBits, n.used
	t.unlock()
}

// all lists the routes, the longest prefixes first.
func (t *routeTable) all() []Route {
	t.locks[0].RLock()
	defer t.locks[0].RUnlock()
	var out []Route
	for n := 32; n >= 0; n-- {
		keys := make([]wire.Addr, 0, len(t.byBits[n]))
		for k := range t.byBits[n] {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			for _, r := range t.byBits[n][k] {
				out = append(out, r.public())
			}
		}
	}
	return out
}
