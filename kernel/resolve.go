package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
)

var _ stack.Resolver = (*Follower)(nil)

const (
	// askInterval is how long an address is not asked for again. It is less than the second after which the stack asks
	// again, and no more than what the kernel itself does (net.ipv4.neigh.*.retrans_time_ms).
	askInterval = 500 * time.Millisecond
	// askQueue bounds the addresses that wait to be asked for, and askMost the ones asked for in an askInterval.
	askQueue = 1024
	askMost  = 4096
	// askSlotBits is the size of the filter in front of the queue, as a power of two.
	askSlotBits = 10
)

// An asker has the kernel ask for neighbours. Engines hand it addresses without a lock while an address that they hand over
// for every packet is one it has asked for already.
type asker struct {
	f     *Follower
	slots [1 << askSlotBits]atomic.Uint32 // addresses handed over in the last askInterval; a collision only costs a place in the queue
	queue chan uint32
	asked map[uint32]struct{} // in the last askInterval
	order []asked             // the same, the oldest first
}

type asked struct {
	addr uint32
	free time.Time // when it may be asked for again
}

func (a *asker) init(f *Follower) {
	a.f, a.queue, a.asked = f, make(chan uint32, askQueue), make(map[uint32]struct{})
}

func (a *asker) slot(addr uint32) *atomic.Uint32 {
	return &a.slots[addr*0x9E3779B1>>(32-askSlotBits)] // Fibonacci hashing: neighbours spread
}

// Resolve has the kernel find or confirm the Ethernet address of a neighbour on the interface: one that is missing or has
// failed is asked for by ARP, a stale one is probed by and by. The sink is told the neighbour's present state at once, and
// later what has become of it. Resolve never blocks; an address is asked for at most twice a second. Any goroutine may call
// it; until Start, requests wait.
func (f *Follower) Resolve(addr netip.Addr) {
	if addr = addr.Unmap(); !addr.Is4() {
		return
	}
	b := addr.As4()
	n := binary.BigEndian.Uint32(b[:])
	slot := f.asker.slot(n)
	if slot.Load() == n || slot.Swap(n) == n {
		return
	}
	select {
	case f.asker.queue <- n:
	default:
		f.stats.unasked.Add(1)
		slot.CompareAndSwap(n, 0)
	}
}

// loop asks for what comes by the queue.
func (a *asker) loop() {
	timer := time.NewTimer(askInterval)
	defer timer.Stop()
	for {
		select {
		case <-a.f.done:
			return
		case n := <-a.queue:
			a.take(n, time.Now())
		case now := <-timer.C:
			a.forget(now)
		}
		if len(a.order) > 0 {
			timer.Reset(time.Until(a.order[0].free))
		}
	}
}

func (a *asker) take(n uint32, now time.Time) {
	if _, ok := a.asked[n]; ok {
		return
	}
	if len(a.order) == askMost {
		a.f.stats.unasked.Add(1)
		a.slot(n).CompareAndSwap(n, 0)
		return
	}
	a.asked[n] = struct{}{}
	a.order = append(a.order, asked{n, now.Add(askInterval)})
	a.f.stats.asked.Add(1)
	a.ask(n)
}

// forget lets the addresses through again that were asked for an askInterval ago.
func (a *asker) forget(now time.Time) {
	for len(a.order) > 0 && !now.Before(a.order[0].free) {
		n := a.order[0].addr
		a.order = a.order[1:]
		delete(a.asked, n)
		a.slot(n).CompareAndSwap(n, 0)
	}
}

// ask tells the kernel that the neighbour is in use (NTF_USE, neigh_add in net/core/neighbour.c), as if it sent a packet to
// it, then asks for its state. Answers and errors come with the changes.
func (a *asker) ask(n uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	addr, index := netip.AddrFrom4(b), a.f.view.index
	err := a.f.changes.ask(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE, neighbourRequest(index, addr, unix.NTF_USE))
	if err == nil {
		err = a.f.changes.ask(unix.RTM_GETNEIGH, 0, neighbourRequest(index, addr, 0))
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		// The stack asks again; until then its packets wait.
		a.f.log.Debug("the kernel could not be asked for a neighbour", "neighbour", addr, "error", err)
	}
}

// refused deals with the kernel's refusal of what ask has sent: struct nlmsgerr, a negative errno and the request.
func (f *Follower) refused(b []byte) {
	if len(b) < 4+unix.SizeofNlMsghdr {
		return
	}
	errno := syscall.Errno(-int32(native.Uint32(b)))
	n, ok := decodeNeighbour(b[4+unix.SizeofNlMsghdr:])
	if errno == 0 || !ok || native.Uint16(b[8:]) != unix.RTM_NEWNEIGH {
		return // an entry that was gone again when its state was asked for
	}
	if now := time.Now(); errno == unix.ENOBUFS && now.Sub(f.tableFull) > time.Minute {
		f.tableFull = now
		f.log.Warn("the kernel's neighbour table is full; raise net.ipv4.neigh.default.gc_thresh3", "neighbour", n.addr)
	} else {
		f.log.Debug("the kernel does not ask for a neighbour", "neighbour", n.addr, "error", errno)
	}
	f.sink.SetNeighbour(stack.NeighbourEntry{Addr: n.addr, State: stack.NeighbourFailed})
}
