package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Kind says what an address in the tables stands for (enum kit_kind in kit.h).
type Kind uint8

const (
	// Shared is an address that the kernel has too: only what is bound on it is steered.
	Shared Kind = iota + 1
	// Owned is an address that the kernel does not have: all its IPv4 and ARP is steered.
	Owned
	// Broadcast is 255.255.255.255 or a subnet's broadcast address: UDP to every port that any address has bound is steered.
	Broadcast
)

// removed is the kind of a cell that only keeps its probe chain whole.
const removed Kind = 0

func (k Kind) String() string {
	switch k {
	case Shared:
		return "shared"
	case Owned:
		return "owned"
	case Broadcast:
		return "broadcast"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Protocol is an IP protocol number whose ports can be bound.
type Protocol uint8

const (
	TCP Protocol = unix.IPPROTO_TCP
	UDP Protocol = unix.IPPROTO_UDP
)

// MaxAddresses is how many shared and owned addresses a program's tables hold, and how many broadcast addresses beside them.
const MaxAddresses = 64

var (
	// ErrFull is when the tables hold [MaxAddresses] already.
	ErrFull = errors.New("the address table is full")
	// ErrNoAddress is when an address is not in the tables, or not of a kind that has ports.
	ErrNoAddress = errors.New("no such address in the steering tables")
	// ErrClosed is when the tables have been closed.
	ErrClosed = errors.New("the steering tables are closed")
)

// A space is one of the sets of numbers that can be bound on an address (enum kit_space in kit.h).
type space int

const (
	spaceUDP space = iota
	spaceTCP
	spaceEcho
)

// Tables steers one loaded program. A change is a store to memory that the program reads, seen by the next frame;
// frames that are being judged meanwhile may still be judged by the old state. Any goroutine may call any method.
type Tables struct {
	mu sync.Mutex
	// All state lies in the two mappings; nothing is kept twice. nil once closed.
	config *bpfKitConfig
	// ports[broadcastSlot] is what all broadcast cells point at, the others belong to one address each. The ports of a
	// slot that no cell points at are all clear.
	ports []bpfKitPorts

	stats    *ebpf.Map
	mappings [][]byte
}

const broadcastSlot = 0

// NewTables maps the tables of a collection loaded from [Spec]. They start empty and switched off. The collection may
// be closed before the tables.
func NewTables(coll *ebpf.Collection) (*Tables, error) {
	t := &Tables{}
	config, err := t.mmap(coll, configMap)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	ports, err := t.mmap(coll, bpfMapPorts)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	stats, err := collectionMap(coll, bpfMapStats)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if t.stats, err = stats.Clone(); err != nil {
		return nil, errors.Join(fmt.Errorf("keeping the BPF map %s open failed: %w", bpfMapStats, err), t.Close())
	}
	t.config = (*bpfKitConfig)(unsafe.Pointer(&config[0]))
	t.ports = unsafe.Slice((*bpfKitPorts)(unsafe.Pointer(&ports[0])), MaxAddresses+1)
	return t, nil
}

func collectionMap(coll *ebpf.Collection, name string) (*ebpf.Map, error) {
	m := coll.Maps[name]
	if m == nil {
		return nil, fmt.Errorf("the collection has no BPF map %s: it is not one of kit's; load what Spec returns", name)
	}
	return m, nil
}

func (t *Tables) mmap(coll *ebpf.Collection, name string) ([]byte, error) {
	m, err := collectionMap(coll, name)
	if err != nil {
		return nil, err
	}
	memory, err := unix.Mmap(m.FD(), 0, int(m.MaxEntries()*m.ValueSize()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the BPF map %s into memory failed: %w", name, err)
	}
	t.mappings = append(t.mappings, memory)
	return memory, nil
}

// Close unmaps the tables. The program goes on with what they say.
func (t *Tables) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, m := range t.mappings {
		errs = append(errs, unix.Munmap(m))
	}
	if t.stats != nil {
		errs = append(errs, t.stats.Close())
	}
	t.config, t.ports, t.stats, t.mappings = nil, nil, nil, nil
	return errors.Join(errs...)
}

// SetEnabled switches steering on or off; off, every frame is the kernel's ([PassDisabled]).
func (t *Tables) SetEnabled(on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.config == nil {
		return ErrClosed
	}
	var word uint32
	if on {
		word = 1
	}
	atomic.StoreUint32(&t.config.Enabled, word)
	return nil
}

// SetAddress puts an IPv4 address into the tables or changes its kind. What is bound on it stays bound, except that a
// broadcast address has no ports of its own. ErrFull when there are [MaxAddresses] of its sort already.
func (t *Tables) SetAddress(addr netip.Addr, kind Kind) error {
	number, err := ipv4(addr)
	if err != nil {
		return err
	}
	if kind != Shared && kind != Owned && kind != Broadcast {
		return fmt.Errorf("address %s cannot be steered as %s: an address is shared, owned or broadcast", addr, kind)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.config == nil {
		return ErrClosed
	}
	if i, ok := t.find(number); ok {
		c := cell(t.config.Cells[i])
		if (c.kind() == Broadcast) == (kind == Broadcast) {
			t.store(i, newCell(number, kind, c.slot()))
			return nil
		}
		t.remove(i)
	}
	slot, ok := t.freeSlot(kind)
	if !ok {
		return fmt.Errorf("address %s cannot be steered beside %d others, which is the limit; remove one first: %w", addr, MaxAddresses, ErrFull)
	}
	t.store(t.freeCell(number), newCell(number, kind, slot))
	return nil
}

// RemoveAddress takes an address and all that is bound on it out of the tables.
func (t *Tables) RemoveAddress(addr netip.Addr) error {
	number, err := ipv4(addr)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.config == nil {
		return ErrClosed
	}
	i, ok := t.find(number)
	if !ok {
		return fmt.Errorf("address %s cannot be removed: %w", addr, ErrNoAddress)
	}
	t.remove(i)
	return nil
}

// BindPort steers UDP datagrams or TCP segments for a port of a shared address, errors about what was sent from it, and,
// of UDP, what is broadcast to it. On an owned address only the last matters. Any port from 0 to 65535 can be bound;
// binding it twice is as good as once, and one unbind undoes both.
func (t *Tables) BindPort(proto Protocol, addr netip.Addr, port uint16) error {
	return t.setPort(proto, addr, port, true)
}

// UnbindPort undoes [Tables.BindPort]. A broadcast to a UDP port is steered as long as another address has the port bound.
func (t *Tables) UnbindPort(proto Protocol, addr netip.Addr, port uint16) error {
	return t.setPort(proto, addr, port, false)
}

// BindICMPID steers ICMP echo replies to a shared address with an identifier, and errors about its requests.
func (t *Tables) BindICMPID(addr netip.Addr, id uint16) error {
	return t.setBound(spaceEcho, addr, id, true)
}

// UnbindICMPID undoes [Tables.BindICMPID].
func (t *Tables) UnbindICMPID(addr netip.Addr, id uint16) error {
	return t.setBound(spaceEcho, addr, id, false)
}

// Stats sums the counters of all CPUs. It is the only method that makes a system call.
func (t *Tables) Stats() (Stats, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stats == nil {
		return Stats{}, ErrClosed
	}
	var (
		perCPU []bpfKitStats
		total  Stats
	)
	if err := t.stats.Lookup(uint32(0), &perCPU); err != nil {
		return Stats{}, fmt.Errorf("reading the XDP program's counters failed: %w", err)
	}
	for _, cpu := range perCPU {
		for r, n := range cpu.Frames {
			total[r] += n
		}
	}
	return total, nil
}

func (t *Tables) setPort(proto Protocol, addr netip.Addr, port uint16, on bool) error {
	switch proto {
	case UDP:
		return t.setBound(spaceUDP, addr, port, on)
	case TCP:
		return t.setBound(spaceTCP, addr, port, on)
	}
	return fmt.Errorf("port %d of IP protocol %d cannot be steered: only UDP (17) and TCP (6) have ports", port, proto)
}

func (t *Tables) setBound(s space, addr netip.Addr, n uint16, on bool) error {
	number, err := ipv4(addr)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.config == nil {
		return ErrClosed
	}
	i, ok := t.find(number)
	if !ok || cell(t.config.Cells[i]).kind() == Broadcast {
		return fmt.Errorf("number %d cannot be steered on %s, set it as a shared or owned address first: %w", n, addr, ErrNoAddress)
	}
	word := &t.ports[cell(t.config.Cells[i]).slot()].Bound[s][n/64]
	bits := *word &^ (1 << (n % 64))
	if on {
		bits |= 1 << (n % 64)
	}
	atomic.StoreUint64(word, bits)
	if s == spaceUDP {
		t.mergeBroadcast(int(n / 64))
	}
	return nil
}

// mergeBroadcast makes a word of the broadcasts' UDP ports what all addresses have bound together.
func (t *Tables) mergeBroadcast(word int) {
	var bits uint64
	for slot := range t.ports {
		if slot != broadcastSlot {
			bits |= t.ports[slot].Bound[spaceUDP][word]
		}
	}
	atomic.StoreUint64(&t.ports[broadcastSlot].Bound[spaceUDP][word], bits)
}

// remove frees a cell, and the slot of one that is no broadcast.
func (t *Tables) remove(i int) {
	slot := cell(t.config.Cells[i]).slot()
	t.freeChain(i)
	if slot == broadcastSlot {
		return
	}
	for s := range t.ports[slot].Bound {
		for word := range t.ports[slot].Bound[s] {
			atomic.StoreUint64(&t.ports[slot].Bound[s][word], 0)
		}
	}
	for word := range t.ports[broadcastSlot].Bound[spaceUDP] {
		t.mergeBroadcast(word)
	}
}

// freeSlot is the slot for another address of a kind.
func (t *Tables) freeSlot(kind Kind) (slot uint16, ok bool) {
	var used [MaxAddresses + 1]bool
	broadcasts := 0
	for _, c := range t.config.Cells {
		switch cell(c).kind() {
		case Shared, Owned:
			used[cell(c).slot()] = true
		case Broadcast:
			broadcasts++
		}
	}
	if kind == Broadcast {
		return broadcastSlot, broadcasts < MaxAddresses
	}
	for slot := broadcastSlot + 1; slot < len(used); slot++ {
		if !used[slot] {
			return uint16(slot), true
		}
	}
	return 0, false
}

func (t *Tables) store(i int, c cell) { atomic.StoreUint64(&t.config.Cells[i], uint64(c)) }

// ipv4 is an address as the tables have it: a number, 10.0.0.1 being 0x0a000001.
func ipv4(addr netip.Addr) (uint32, error) {
	addr = addr.Unmap()
	if !addr.Is4() || addr.IsUnspecified() {
		return 0, fmt.Errorf("%s cannot be steered: it is not the IPv4 address of an interface", addr)
	}
	b := addr.As4()
	return binary.BigEndian.Uint32(b[:]), nil
}
