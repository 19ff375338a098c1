package loader

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of ring entries in bytes: a descriptor (struct xdp_desc) on the RX and TX rings, a chunk address (__u64) on the
// fill and completion rings. Source: include/uapi/linux/if_xdp.h.
const (
	descSize = uint32(unsafe.Sizeof(unix.XDPDesc{}))
	addrSize = uint32(unsafe.Sizeof(uint64(0)))
)

// ringShared is what both sides of one AF_XDP ring see. The indices run freely through all of uint32 and are masked only
// to address an entry; each has one writer. All pointers point into the ring's mapping (or, in tests, plain memory).
type ringShared struct {
	producer *uint32        // written by the side that fills the ring
	consumer *uint32        // written by the side that empties it
	flags    *uint32        // XDP_RING_NEED_WAKEUP, written by the kernel
	entries  unsafe.Pointer // the first entry
	size     uint32         // entries, a power of two
}

// newRingShared lays a ring of size entries of entrySize bytes over memory at the kernel's offsets (XDP_MMAP_OFFSETS).
// It refuses a size that is not a power of two and offsets that do not lie within memory.
func newRingShared(memory []byte, off unix.XDPRingOffset, size, entrySize uint32) (ringShared, error) {
	if size == 0 || size&(size-1) != 0 {
		return ringShared{}, fmt.Errorf("ring of %d entries: the size must be a power of two", size)
	}
	need := max(off.Producer, off.Consumer, off.Flags) + 4
	if need = max(need, off.Desc+uint64(size)*uint64(entrySize)); need > uint64(len(memory)) {
		return ringShared{}, fmt.Errorf("ring of %d entries of %d bytes needs %d bytes, its mapping has %d",
			size, entrySize, need, len(memory))
	}
	base := unsafe.Pointer(unsafe.SliceData(memory))
	return ringShared{
		producer: (*uint32)(unsafe.Add(base, off.Producer)),
		consumer: (*uint32)(unsafe.Add(base, off.Consumer)),
		flags:    (*uint32)(unsafe.Add(base, off.Flags)),
		entries:  unsafe.Add(base, off.Desc),
		size:     size,
	}, nil
}

// A ring is one side's private view. The capacity and the own index are kept here and never read back from shared
// memory, so whatever the peer writes there, an access stays within the ring's entries.
//
// Memory ordering, one pair of barriers a batch: the peer's index is loaded with acquire (sync/atomic load) before
// entries are touched, the own index is stored with release (sync/atomic store) after. The store is also a full
// barrier before the following load of flags, which need_wakeup's protocol asks for (net/xdp/xsk_queue.h).
type ring struct {
	entries unsafe.Pointer
	mask    uint32
	size    uint32
	own     uint32  // the next entry of ours: producing or consuming position
	peer    uint32  // the peer's index as last seen and believed
	ownPtr  *uint32 // where own is published
	peerPtr *uint32
	flags   *uint32
	insane  uint64 // times that the peer's index was impossible
}

// desc is entry i of an RX or TX ring. It skips the bounds check: the mask keeps i within the entries.
func (r *ring) desc(i uint32) *unix.XDPDesc {
	return (*unix.XDPDesc)(unsafe.Add(r.entries, uintptr(i&r.mask)*uintptr(descSize)))
}

// addr is entry i of a fill or completion ring. It skips the bounds check: the mask keeps i within the entries.
func (r *ring) addr(i uint32) *uint64 {
	return (*uint64)(unsafe.Add(r.entries, uintptr(i&r.mask)*uintptr(addrSize)))
}

// publish makes everything up to own visible to the peer.
func (r *ring) publish() { atomic.StoreUint32(r.ownPtr, r.own) }

// needWakeup tells that the kernel wants a system call to go on with this ring (XDP_RING_NEED_WAKEUP).
func (r *ring) needWakeup() bool { return atomic.LoadUint32(r.flags)&unix.XDP_RING_NEED_WAKEUP != 0 }

// A producer is the filling side of a ring: our side of TX and fill.
type producer struct{ ring }

// newProducer starts at the index that the shared memory has, believing the ring full until the consumer's index says
// otherwise.
func newProducer(s ringShared) producer {
	own := atomic.LoadUint32(s.producer)
	p := producer{ring{
		entries: s.entries, mask: s.size - 1, size: s.size, own: own, peer: own - s.size,
		ownPtr: s.producer, peerPtr: s.consumer, flags: s.flags,
	}}
	p.refresh()
	return p
}

// room returns how many entries may be produced. It looks at the peer's index only if fewer than want are known of.
func (p *producer) room(want uint32) uint32 {
	if n := p.size - (p.own - p.peer); n >= want {
		return n
	}
	p.refresh()
	return p.size - (p.own - p.peer)
}

// refresh reads the consumer's index. An index that is ahead of ours or goes back is refused and counted; what was
// believed before stays.
func (p *producer) refresh() {
	peer := atomic.LoadUint32(p.peerPtr)
	if peer-p.peer > p.own-p.peer {
		p.insane++
		return
	}
	p.peer = peer
}

// A consumer is the emptying side of a ring: our side of RX and completion.
type consumer struct{ ring }

// newConsumer starts at the index that the shared memory has, believing the ring empty until the producer's index says
// otherwise.
func newConsumer(s ringShared) consumer {
	own := atomic.LoadUint32(s.consumer)
	return consumer{ring{
		entries: s.entries, mask: s.size - 1, size: s.size, own: own, peer: own,
		ownPtr: s.consumer, peerPtr: s.producer, flags: s.flags,
	}}
}

// ready returns how many entries may be consumed. It looks at the peer's index only if fewer than want are known of.
func (c *consumer) ready(want uint32) uint32 {
	if n := c.peer - c.own; n >= want {
		return n
	}
	c.refresh()
	return c.peer - c.own
}

// refresh reads the producer's index. One that is more than the ring's size ahead of ours, or goes back, is refused and
// counted; what was believed before stays.
func (c *consumer) refresh() {
	peer := atomic.LoadUint32(c.peerPtr)
	if n := peer - c.own; n > c.size || n < c.peer-c.own {
		c.insane++
		return
	}
	c.peer = peer
}
