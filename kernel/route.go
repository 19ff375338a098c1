package kernel

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
)

// kernelRoute is one route of the kernel's as it tells it (struct rtmsg and its attributes).
type kernelRoute struct {
	table   uint32
	dst     netip.Prefix
	tos     uint8
	metric  uint32
	kind    uint8 // RTN_
	proto   uint8 // RTPROT_
	scope   uint8
	source  netip.Addr
	mtu     int
	nexthop uint32 // nexthop object, see ip-nexthop(8)
	hops    []hop
}

// hop is one way that a route may take.
type hop struct {
	index   int
	gateway netip.Addr // zero: the destination is on the link
	foreign bool       // behind an IPv6 gateway or in a tunnel: a way that only the kernel can go
	dead    bool
}

// rtaNexthop is RTA_NH_ID of include/uapi/linux/rtnetlink.h.
const rtaNexthop = 30

// decodeRoute reads the body of an RTM_NEWROUTE or RTM_DELROUTE. Cached routes are not routes.
func decodeRoute(b []byte) (r kernelRoute, ok bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET || native.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
		return kernelRoute{}, false
	}
	r = kernelRoute{tos: b[3], table: uint32(b[4]), proto: b[5], scope: b[6], kind: b[7]}
	dst := netip.IPv4Unspecified()
	single := hop{dead: native.Uint32(b[8:])&unix.RTNH_F_DEAD != 0}
	eachAttr(b[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.RTA_DST:
			dst = addrOf(v)
		case unix.RTA_TABLE:
			r.table = numberOf(v)
		case unix.RTA_PRIORITY:
			r.metric = numberOf(v)
		case unix.RTA_PREFSRC:
			r.source = addrOf(v)
		case unix.RTA_METRICS:
			eachAttr(v, func(kind uint16, v []byte) {
				if kind == unix.RTAX_MTU {
					r.mtu = int(numberOf(v))
				}
			})
		case rtaNexthop:
			r.nexthop = numberOf(v)
		case unix.RTA_MULTIPATH:
			r.hops = decodeHops(v)
		default:
			single.attr(kind, v)
		}
	})
	if single.index != 0 {
		r.hops = []hop{single}
	}
	r.dst = netip.PrefixFrom(dst, int(b[1]))
	return r, r.dst.IsValid()
}

// attr reads an attribute that a route and a hop of a multipath route have in common.
func (h *hop) attr(kind uint16, v []byte) {
	switch kind {
	case unix.RTA_OIF:
		h.index = int(numberOf(v))
	case unix.RTA_GATEWAY:
		h.gateway = addrOf(v)
	case unix.RTA_VIA, unix.RTA_ENCAP:
		h.foreign = true
	}
}

// decodeHops reads an RTA_MULTIPATH: a list of struct rtnexthop, each with attributes of its own.
func decodeHops(b []byte) (hops []hop) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(native.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			break
		}
		h := hop{dead: b[2]&unix.RTNH_F_DEAD != 0, index: int(int32(native.Uint32(b[4:])))}
		eachAttr(b[unix.SizeofRtNexthop:size], h.attr)
		hops = append(hops, h)
		b = b[min(align4(size), len(b)):]
	}
	return hops
}

// followed reports whether the route is in one of the tables that a packet without a policy rule is looked up in.
func (r *kernelRoute) followed() bool {
	return r.table == unix.RT_TABLE_LOCAL || r.table == unix.RT_TABLE_MAIN
}

// same reports whether r and o are one route; whether its hops are dead at the moment is no part of that.
func (r *kernelRoute) same(o *kernelRoute) bool {
	return r.place() == o.place() && r.kind == o.kind && r.proto == o.proto && r.scope == o.scope && r.source == o.source &&
		r.mtu == o.mtu && r.nexthop == o.nexthop && slices.EqualFunc(r.hops, o.hops, func(a, b hop) bool {
		a.dead, b.dead = false, false
		return a == b
	})
}

// place is what the kernel sorts the routes to one destination by (net/ipv4/fib_trie.c, fib_find_alias). Several may share
// one place; the first of them counts.
type place struct {
	table  uint32
	dst    netip.Prefix
	tos    uint8
	metric uint32
}

func (r *kernelRoute) place() place { return place{r.table, r.dst, r.tos, r.metric} }

// routes is a copy of the kernel's routes, kept current by its changes. Each list holds the routes to one destination in the
// order in which the kernel tries them: the local table's first, then by metric.
type routes map[netip.Prefix][]kernelRoute

// add does what an RTM_NEWROUTE with these flags tells (fib_table_insert in net/ipv4/fib_trie.c). It also holds for a change
// that the list knows already, which happens after a reading: NLM_F_EXCL says that the route has its place to itself, and so
// does NLM_F_REPLACE where it had one neighbour at most. Of several in one place, it reports false: then which of them comes
// first, or was replaced, is a guess.
func (t routes) add(r kernelRoute, flags uint16) (sure bool) {
	list := t[r.dst]
	if slices.ContainsFunc(list, func(o kernelRoute) bool { return o.same(&r) }) && flags&unix.NLM_F_EXCL == 0 {
		return true
	}
	inPlace := func(o kernelRoute) bool { return o.place() == r.place() }
	first, _ := slices.BinarySearchFunc(list, r, compareRoutes)
	end := first
	for end < len(list) && inPlace(list[end]) {
		end++
	}
	switch {
	case flags&unix.NLM_F_EXCL != 0:
		list, sure = slices.Replace(list, first, end, r), true
	case flags&unix.NLM_F_REPLACE != 0 && end > first:
		list, sure = slices.Replace(list, first, first+1, r), end == first+1
	case flags&unix.NLM_F_APPEND != 0:
		list, sure = slices.Insert(list, end, r), end == first
	default:
		list, sure = slices.Insert(list, first, r), end == first
	}
	t[r.dst] = list
	return sure
}

// crowded reports whether some place is shared by several routes.
func (t routes) crowded() bool {
	for _, list := range t {
		for i := range list[1:] {
			if list[i].place() == list[i+1].place() {
				return true
			}
		}
	}
	return false
}

// services counts the routes for one type of service only, which are not followed.
func (t routes) services() (n int64) {
	for _, list := range t {
		for i := range list {
			if list[i].tos != 0 {
				n++
			}
		}
	}
	return n
}

func compareRoutes(a, b kernelRoute) int {
	// The local table has the higher number.
	return cmp.Or(cmp.Compare(b.table, a.table), cmp.Compare(b.tos, a.tos), cmp.Compare(a.metric, b.metric))
}

// remove does what an RTM_DELROUTE tells. It reports false where the route is not there.
func (t routes) remove(r kernelRoute) bool {
	list := t[r.dst]
	i := slices.IndexFunc(list, func(o kernelRoute) bool { return o.same(&r) })
	if i < 0 {
		return false
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(t, r.dst)
	} else {
		t[r.dst] = list
	}
	return true
}

// A view is where the routes are looked at from: one interface and its addresses.
type view struct {
	index     int
	addresses []netip.Prefix
}

// route is what the kernel does with packets to exactly dst's network, in the stack's terms. It reports false where the
// stack needs no route: there is none, or it knows by itself, as of its own addresses and their broadcast.
func (v *view) route(t routes, dst netip.Prefix) (stack.Route, bool) {
	if dst.Addr().IsLoopback() {
		return stack.Route{}, false // the stack has a loopback interface of its own
	}
	for i := range t[dst] {
		r := &t[dst][i]
		if r.tos != 0 {
			continue // for packets with that TOS only
		}
		if sr, use, ok := v.translate(r); ok {
			return sr, use
		}
	}
	return stack.Route{}, false
}

// translate turns r into the stack's terms. ok is false where the kernel would go on to the next route; use is false where
// the stack knows by itself.
func (v *view) translate(r *kernelRoute) (sr stack.Route, use, ok bool) {
	sr = stack.Route{Dst: r.dst, Metric: int(r.metric), MTU: r.mtu}
	h, reached := v.pick(r.hops)
	switch r.kind {
	case unix.RTN_UNICAST:
		if !reached {
			return sr, false, false
		}
		sr.Kind = stack.RouteElsewhere
		if h.index == v.index && !h.foreign {
			sr.Kind, sr.Gateway, sr.Source = stack.RouteUnicast, h.gateway, v.source(r)
		}
	case unix.RTN_BLACKHOLE:
		sr.Kind = stack.RouteBlackhole
	case unix.RTN_UNREACHABLE:
		sr.Kind = stack.RouteUnreachable
	case unix.RTN_PROHIBIT:
		sr.Kind = stack.RouteProhibit
	case unix.RTN_LOCAL:
		if r.proto == unix.RTPROT_KERNEL && h.index == v.index {
			return sr, false, true
		}
		sr.Kind = stack.RouteElsewhere
	case unix.RTN_BROADCAST:
		if h.index == v.index {
			return sr, false, true
		}
		sr.Kind = stack.RouteElsewhere
	case unix.RTN_THROW:
		sr.Kind = stack.RouteElsewhere // to the tables that the next rule names
	default:
		return sr, false, false
	}
	return sr, true, true
}

// pick chooses among a route's hops: the first that leads over the view's interface, else the first that leads anywhere.
func (v *view) pick(hops []hop) (picked hop, ok bool) {
	for _, h := range hops {
		switch {
		case h.dead:
		case h.index == v.index && !h.foreign:
			return h, true
		case !ok:
			picked, ok = h, true
		}
	}
	return picked, ok
}

// source is the route's preferred source address if it is the interface's: answers to another would not come to kit.
func (v *view) source(r *kernelRoute) netip.Addr {
	for _, p := range v.addresses {
		if p.Addr() == r.source {
			return r.source
		}
	}
	return netip.Addr{}
}

// routes lists the kernel's routes that are followed.
func (r *requests) routes() (routes, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = unix.AF_INET
	var t routes
	unresolved := false
	err := r.dump(unix.RTM_GETROUTE, body, func() { t = routes{} }, func(b []byte) {
		if kr, ok := decodeRoute(b); ok && kr.followed() {
			unresolved = unresolved || kr.unresolved()
			t.add(kr, unix.NLM_F_APPEND)
		}
	})
	if err == nil && unresolved {
		err = r.resolveHops(t)
	}
	return t, err
}
