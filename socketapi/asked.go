package socketapi

import (
	"net/netip"
	"sync/atomic"

	"kitnet.dev/kit/stack/wire"
)

// An askedTable remembers which of several addresses a peer asked, so that what goes to the peer comes from there. It has room
// for 4,096 peers; of those that meet in one place the last four are known, and the others are answered by the route. One
// goroutine at a time notes, any number find, and neither takes a lock.
type askedTable [1024][4]atomic.Uint64

// An entry is the peer's address and port in its upper 48 bits, and below them the place of the socket and 1.

// addrKey is an IPv4 address as a number, 0 for another.
func addrKey(a netip.Addr) uint64 {
	w, _ := wire.AddrFrom(a)
	return uint64(w)
}

func peerKey(a netip.AddrPort) uint64 { return addrKey(a.Addr())<<32 | uint64(a.Port())<<16 }

func (t *askedTable) bucket(key uint64) *[4]atomic.Uint64 {
	return &t[key*0x9E3779B97F4A7C15>>54] // Fibonacci hashing: the ten upper bits
}

// note enters that a peer asked socket i. One of IPv6 is known by being that.
func (t *askedTable) note(peer netip.AddrPort, i int) {
	if !peer.Addr().Is4() {
		return
	}
	key := peerKey(peer)
	entry := key | uint64(i+1)
	b := t.bucket(key)
	for k := range b {
		switch old := b[k].Load(); {
		case old == entry:
			return
		case old == 0 || old&^0xFFFF == key:
			b[k].Store(entry)
			return
		}
	}
	for k := len(b) - 1; k > 0; k-- {
		b[k].Store(b[k-1].Load())
	}
	b[0].Store(entry)
}

// find is the socket that a peer asked last.
func (t *askedTable) find(peer netip.AddrPort) (int, bool) {
	key := peerKey(peer)
	b := t.bucket(key)
	for k := range b {
		if e := b[k].Load(); e != 0 && e&^0xFFFF == key {
			return int(e&0xFFFF) - 1, true
		}
	}
	return 0, false
}
