package kernel

import "golang.org/x/sys/unix"

// unresolved reports whether the route names a nexthop object without what is in it, as routes do where
// net.ipv4.nexthop_compat_mode is 0.
func (r *kernelRoute) unresolved() bool {
	return r.nexthop != 0 && len(r.hops) == 0 && r.kind == unix.RTN_UNICAST
}

// nexthop is a nexthop object: one hop, or a group of others.
type nexthop struct {
	hop   hop
	group []uint32
}

// decodeNexthop reads the body of an RTM_NEWNEXTHOP (struct nhmsg and its attributes, include/uapi/linux/nexthop.h).
func decodeNexthop(b []byte) (id uint32, n nexthop) {
	if len(b) < unix.SizeofNhmsg {
		return 0, nexthop{}
	}
	n.hop.dead = native.Uint32(b[4:])&unix.RTNH_F_DEAD != 0
	n.hop.foreign = b[0] == unix.AF_INET6
	eachAttr(b[unix.SizeofNhmsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.NHA_ID:
			id = numberOf(v)
		case unix.NHA_GROUP:
			const member = 8 // struct nexthop_grp: the id comes first
			for ; len(v) >= member; v = v[member:] {
				n.group = append(n.group, numberOf(v))
			}
		case unix.NHA_OIF:
			n.hop.index = int(numberOf(v))
		case unix.NHA_GATEWAY:
			n.hop.gateway = addrOf(v)
		case unix.NHA_ENCAP:
			n.hop.foreign = true
		}
	})
	return id, n
}

// resolveHops fills in the hops of the routes that only name a nexthop object.
func (r *requests) resolveHops(t routes) error {
	objects := map[uint32]nexthop{}
	err := r.dump(unix.RTM_GETNEXTHOP, make([]byte, unix.SizeofNhmsg), func() { clear(objects) }, func(b []byte) {
		id, n := decodeNexthop(b)
		objects[id] = n
	})
	if err != nil {
		return err
	}
	for _, list := range t {
		for i := range list {
			if list[i].unresolved() {
				list[i].resolve(objects)
			}
		}
	}
	return nil
}

func (r *kernelRoute) resolve(objects map[uint32]nexthop) {
	n, ok := objects[r.nexthop]
	if !ok {
		return // removed meanwhile, and the route with it
	}
	members := n.group
	if members == nil {
		members = []uint32{r.nexthop}
	}
	for _, id := range members {
		if m := objects[id]; m.hop.index != 0 {
			r.hops = append(r.hops, m.hop)
		}
	}
}
