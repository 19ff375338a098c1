package ring

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// Sizes of a ring, in bytes.
const (
	HeaderLen   = 384     // in front of the data
	MinCapacity = 64      // of the data
	MaxCapacity = 1 << 30 // of the data
	RecordLen   = 8       // in front of each record's payload
)

// ErrCorrupt says that the other end wrote an index or a record that cannot be.
var ErrCorrupt = errors.New("ring: the other end wrote an impossible index or record length; the ring is closed, make a new one")

const magic = 0x6b69_7452_6563_0001 // "kitRec", version 1

// header is the part of the memory in front of the data. Only atomic reads and
// writes touch it once Format is done.
type header struct {
	magic    uint64
	capacity uint64
	// readerAsks and writerAsks are 1 while that end wants to be woken; it sets
	// them, the other end clears them.
	readerAsks atomic.Uint32
	writerAsks atomic.Uint32
	// readerClosed and writerClosed are set once, by that end.
	readerClosed atomic.Uint32
	writerClosed atomic.Uint32
	// limit is how many bytes a ring of bytes may hold, set by either end; a ring
	// of records does not look at it.
	limit    atomic.Uint64
	_        [88]byte
	producer atomic.Uint64
	_        [120]byte
	consumer atomic.Uint64
	_        [120]byte
}

// The layout is a promise between processes.
var _ = [1]struct{}{}[unsafe.Sizeof(header{})-HeaderLen]

// kindPad in the high half of a record's word marks padding; 0 a record.
const kindPad = 1

// word returns what stands in front of a payload of n bytes.
func word(n uint64, kind uint64) uint64 { return kind<<32 | n }

// recordSize returns what a record with a payload of n bytes takes.
func recordSize(n uint64) uint64 { return RecordLen + (n+7)&^7 }

// Size returns how many bytes of memory a ring with this capacity takes.
func Size(capacity int) int { return HeaderLen + capacity }

// MaxRecord returns the longest payload that an empty ring of this capacity
// takes wherever its indices stand: a little less than half of it. A longer one
// may find no room for ever.
func MaxRecord(capacity int) int { return capacity/2 - RecordLen }

// checkMemory returns the capacity of the ring in mem, judged by its length
// alone.
func checkMemory(mem []byte) (uint64, error) {
	capacity := len(mem) - HeaderLen
	if capacity < MinCapacity || capacity > MaxCapacity || bits.OnesCount(uint(capacity)) != 1 {
		return 0, fmt.Errorf("ring: memory of %d bytes leaves %d for data, which is not a power of two from %d to %d; use Size",
			len(mem), capacity, MinCapacity, MaxCapacity)
	}
	if uintptr(unsafe.Pointer(&mem[0]))%8 != 0 {
		return 0, errors.New("ring: the memory does not begin at a multiple of 8 bytes; align it")
	}
	return uint64(capacity), nil
}

// Format prepares mem as an empty ring. Its length must be Size of a capacity
// that is a power of two from MinCapacity to MaxCapacity, and it must begin at a
// multiple of 8 bytes. Afterwards one NewWriter and one NewReader may take it.
func Format(mem []byte) error {
	capacity, err := checkMemory(mem)
	if err != nil {
		return err
	}
	format(mem, capacity)
	return nil
}

func format(mem []byte, capacity uint64) {
	clear(mem[:HeaderLen])
	h := headerOf(mem)
	h.capacity = capacity
	h.magic = magic
}

func headerOf(mem []byte) *header { return (*header)(unsafe.Pointer(&mem[0])) }

// end is what both ends of a ring have.
type end struct {
	shared   *header
	data     []byte
	capacity uint64
	err      error
}

// open checks that mem was formatted as what its length says.
func open(mem []byte) (end, error) {
	capacity, err := checkMemory(mem)
	if err != nil {
		return end{}, err
	}
	h := headerOf(mem)
	if h.magic != magic || h.capacity != capacity {
		return end{}, fmt.Errorf("ring: memory of %d bytes is not formatted for a capacity of %d; call Format first, on the same length", len(mem), capacity)
	}
	return endOf(mem), nil
}

// endOf takes memory that is known to be a ring.
func endOf(mem []byte) end {
	data := mem[HeaderLen:]
	return end{shared: headerOf(mem), data: data, capacity: uint64(len(data))}
}

// wordAt returns the word in front of a record. The position is a multiple of 8
// and the capacity too, so the word lies inside.
func (e *end) wordAt(offset uint64) *uint64 {
	return (*uint64)(unsafe.Pointer(&e.data[offset]))
}

// Err returns ErrCorrupt once this end saw the other one lie, else nil.
func (e *end) Err() error { return e.err }

// Used returns how many bytes are published and not yet released, words and
// padding included; 0 means that there is nothing to read. It may be called
// from any goroutine, and is then a moment old.
func (e *end) Used() int {
	return int(used(e.shared, e.capacity))
}

func used(h *header, capacity uint64) uint64 {
	// In this order: a consumer index read first can only be too low.
	consumer := h.consumer.Load()
	return min(h.producer.Load()-consumer, capacity)
}

// answers clears a wake request and reports whether it stood. No wake is lost,
// because the end that asks looks at the other's index again afterwards, and
// the other one looks here after it stored its index.
func answers(flag *atomic.Uint32) bool {
	if flag.Load() == 0 {
		return false
	}
	flag.Store(0)
	return true
}
