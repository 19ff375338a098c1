package loader

import (
	"fmt"
	"math/bits"
	"unsafe"

	"golang.org/x/sys/unix"
)

// headroom is what the kernel leaves free in front of a received frame (XDP_PACKET_HEADROOM): a chunk of 2048 bytes
// takes a frame of 1792, one of 4096 a frame of 3840.
const headroom = unix.XDP_PACKET_HEADROOM

// A umem is the packet memory of one queue, cut into chunks of one size, and the pools of chunks that nobody uses.
//
// Every chunk is at exactly one station of a cycle. The kernel owns it at the stations in brackets:
//
//	  ┌──────────────────────── not sent ─────────────────────────┐
//	  ▼                                                           │
//	free ──► [fill ring] ──► [RX ring] ──► lent to Poll's input ──┤
//	  ▲                                                           │ Send
//	  │                                                           ▼
//	  ├──────────── [completion ring] ◄──── [card] ◄──────── [TX ring]
//	  │                                                           ▲
//	  │                                                           │ Send
//	  └──────────────────────── Free ◄──────── allocated ◄── Alloc from free
//
// A lent chunk that was not sent goes straight back to the fill ring, which is the same as free and again to fill.
//
// Where frames to send may be longer than a chunk, a second region behind the single chunks holds runs: groups of
// adjacent chunks, so that such a frame is built in one piece and sent as several descriptors without a copy. A run is
// free again when the last of its chunks came back on the completion ring. Chunks of runs never visit the fill ring.
type umem struct {
	memory    []byte
	chunkSize uint32 // bytes, 2048 or 4096
	chunkMask uint64 // address &^ chunkMask is the chunk's start
	shift     uint   // address >> shift is the chunk's number
	singles   uint64 // bytes of the region of single chunks; runs follow
	mapped    bool   // memory came from mmap
	huge      bool   // in huge pages

	free []uint64 // single chunks that nobody uses, last in first out: the last used is the one still in the cache

	runLength uint32   // chunks in a run; 1: there are no runs, and frames to send come from free
	freeRuns  []uint64 // addresses of the first chunks
	runBusy   []uint16 // for each run, its chunks that are still in the TX ring, the card or the completion ring

	owned []bool // for each single chunk, or run where there are runs: the link's owner has it by alloc

	_ [24]byte // to cache lines of 64: another queue's may lie beside it
}

// newUmem divides memory into count single chunks and runs groups of runLength chunks. memory has at least
// (count + runs*runLength) * chunkSize bytes; the caller has checked all numbers.
func newUmem(memory []byte, chunkSize, count, runLength, runs uint32) *umem {
	u := &umem{
		memory:    memory,
		chunkSize: chunkSize,
		chunkMask: uint64(chunkSize) - 1,
		shift:     uint(bits.TrailingZeros32(chunkSize)),
		singles:   uint64(count) * uint64(chunkSize),
		free:      make([]uint64, 0, count),
		runLength: runLength,
		freeRuns:  make([]uint64, 0, runs),
		runBusy:   make([]uint16, runs),
		owned:     make([]bool, max(count, runs)),
	}
	for i := count; i > 0; i-- {
		u.free = append(u.free, uint64(i-1)*uint64(chunkSize))
	}
	for i := runs; i > 0; i-- {
		u.freeRuns = append(u.freeRuns, u.singles+uint64(i-1)*u.runBytes())
	}
	return u
}

// runBytes is the length of a run, which is the longest frame that a transmit frame can hold.
func (u *umem) runBytes() uint64 { return uint64(u.runLength) * uint64(u.chunkSize) }

// umemBytes is how much memory newUmem wants.
func umemBytes(chunkSize, count, runLength, runs uint32) uint64 {
	return (uint64(count) + uint64(runs)*uint64(runLength)) * uint64(chunkSize)
}

// mapUmem maps memory for newUmem, populated so that no page fault meets a packet. Huge pages are tried if asked for;
// when there are none, ordinary pages serve, and u.huge says which.
func mapUmem(chunkSize, count, runLength, runs uint32, huge bool) (*umem, error) {
	const hugePage = 2 << 20
	const prot = unix.PROT_READ | unix.PROT_WRITE
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_POPULATE
	length := int(umemBytes(chunkSize, count, runLength, runs))
	if huge {
		rounded := (length + hugePage - 1) &^ (hugePage - 1)
		if memory, err := unix.Mmap(-1, 0, rounded, prot, flags|unix.MAP_HUGETLB); err == nil {
			u := newUmem(memory, chunkSize, count, runLength, runs)
			u.mapped, u.huge = true, true
			return u, nil
		}
	}
	memory, err := unix.Mmap(-1, 0, length, prot, flags)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of packet memory: %w; use fewer or smaller frames", length, err)
	}
	u := newUmem(memory, chunkSize, count, runLength, runs)
	u.mapped = true
	return u, nil
}

// close unmaps the memory. Nothing may hold a frame any more.
func (u *umem) close() error {
	if !u.mapped {
		return nil
	}
	memory := u.memory
	u.memory, u.mapped = nil, false
	if err := unix.Munmap(memory); err != nil {
		return fmt.Errorf("unmap packet memory: %w", err)
	}
	return nil
}

// base is the address of the first chunk.
func (u *umem) base() unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(u.memory)) }

// take removes a single chunk from the free ones.
func (u *umem) take() (addr uint64, ok bool) {
	n := len(u.free)
	if n == 0 {
		return 0, false
	}
	addr = u.free[n-1]
	u.free = u.free[:n-1]
	return addr, true
}

// give puts a single chunk among the free ones. The pool's capacity is the number of chunks, so this never grows it.
func (u *umem) give(addr uint64) { u.free = append(u.free, addr) }

// run is the index of the run that holds addr, and huge for an addr before the region of runs.
func (u *umem) run(addr uint64) uint64 { return (addr - u.singles) / u.runBytes() }

// alloc takes a chunk, or a run where there are runs, for the link's owner to build a frame in.
func (u *umem) alloc() (addr uint64, ok bool) {
	if u.runLength == 1 {
		if addr, ok = u.take(); ok {
			u.owned[addr>>u.shift] = true
		}
		return addr, ok
	}
	n := len(u.freeRuns)
	if n == 0 {
		return 0, false
	}
	addr = u.freeRuns[n-1]
	u.freeRuns = u.freeRuns[:n-1]
	u.owned[u.run(addr)] = true
	return addr, true
}

// disown ends the owner's possession of the chunk or run in which offset lies. It reports false if the owner has not got
// it: not a frame of alloc, or one that it has already given away.
func (u *umem) disown(offset uint64) bool {
	i := offset >> u.shift
	if u.runLength > 1 {
		i = u.run(offset) // huge for an offset in the region of single chunks
	}
	if i >= uint64(len(u.owned)) || !u.owned[i] {
		return false
	}
	u.owned[i] = false
	return true
}

// giveBack frees what disown took from the owner, unsent.
func (u *umem) giveBack(offset uint64) {
	if u.runLength == 1 {
		u.give(offset &^ u.chunkMask)
		return
	}
	u.freeRuns = append(u.freeRuns, u.singles+u.run(offset)*u.runBytes())
}

// complete takes back what the completion ring names: an address anywhere in a chunk that was sent. It reports false
// for an address that cannot have been sent; such a one is ignored.
func (u *umem) complete(addr uint64) bool {
	if addr < u.singles {
		if len(u.free) == cap(u.free) {
			return false // more came back than there are
		}
		u.give(addr &^ u.chunkMask)
		return true
	}
	if u.runLength == 1 || addr >= u.singles+uint64(len(u.runBusy))*u.runBytes() {
		return false
	}
	i := u.run(addr)
	if u.runBusy[i] == 0 {
		return false
	}
	if u.runBusy[i]--; u.runBusy[i] == 0 {
		u.giveBack(addr)
	}
	return true
}
