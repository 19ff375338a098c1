package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/bpf"
)

// A Device is an interface with kit's XDP program on it and an AF_XDP socket on each of its queues. Its methods may be
// called from any goroutine; the links have one owner each. It must be kept: the program is taken off when a Device that
// nobody refers to any more is collected.
type Device struct {
	mu      sync.Mutex
	closed  bool
	card    *card
	log     *slog.Logger
	program *program
	xdp     link.Link
	queues  []*queue
	info    Info
	mtu     int // at Open: the links' memory is made for it
}

// A queue is what belongs to one queue of the card.
type queue struct {
	number   int
	umem     *umem
	socket   *socket
	link     *Link
	busyPoll bool
}

// Info describes an open device. Interface, HardwareAddr, MTU, Up, Running, RxQueues and TxQueues are as of the call of Device.Info.
type Info struct {
	Interface    string
	Index        int
	HardwareAddr net.HardwareAddr
	Driver       string // "" where the driver does not say
	// Present is false when the interface was deleted; the rest is then as it was last.
	Present bool
	// Up: the interface is administratively up. Running: it has a carrier.
	Up, Running bool
	// MTU bounds the IP packets that are sent, DeviceMTU is the interface's, in bytes.
	MTU, DeviceMTU int
	// RxQueues and TxQueues are the queues that the card uses.
	RxQueues, TxQueues int
	// Attach is AttachNative or AttachGeneric.
	Attach AttachMode
	// Attached is false when somebody has taken the XDP program off: nothing is received any more.
	Attached bool
	// Program is the XDP program's name, ProgramID and LinkID its numbers in bpftool.
	Program           string
	ProgramID, LinkID uint32
	// FrameSize is a chunk's size in bytes; Frames and RingSize are numbers of entries a queue.
	FrameSize, Frames, RingSize int
	// PartialChecksums as Link.PartialChecksums.
	PartialChecksums bool
	// Features are what the driver says of itself.
	Features XDPFeatures
	// Queues are the opened ones, in order.
	Queues []QueueInfo
}

// QueueInfo describes one opened queue.
type QueueInfo struct {
	Queue int
	// Copy is CopyZero or CopyAlways: what the socket uses.
	Copy CopyMode
	// MultiBuffer: frames longer than FrameSize-256 bytes are received and sent.
	MultiBuffer bool
	// CanSend as Link.CanSend.
	CanSend bool
	// TxChecksum as Link.TxChecksum.
	TxChecksum bool
	// BusyPoll: the kernel accepted it.
	BusyPoll bool
	// HugePages: the packet memory is in huge pages.
	HugePages bool
}

// QueueStats are the kernel's counters of one queue's socket (XDP_STATISTICS, net/xdp/xsk.c), since it was opened.
type QueueStats struct {
	Queue           int
	RxDropped       uint64 // frames too long, or for other reasons
	RxInvalid       uint64 // bad addresses on the fill ring
	TxInvalid       uint64 // bad descriptors on the TX ring
	RxRingFull      uint64 // frames dropped because the engine was too slow
	RxFillRingEmpty uint64 // frames dropped because no chunk was free
	TxRingEmpty     uint64 // times that the kernel looked at an empty TX ring
}

// Open loads the XDP program, attaches it to the interface and opens an AF_XDP socket on each queue. It looks for the
// interface in the network namespace of the calling thread. The tables are empty and switched off: nothing is steered
// yet. The errors wrap this package's sentinels.
func Open(c Config) (*Device, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	kernel, err := runningKernel()
	if err != nil {
		return nil, err
	}
	card, err := openCard(c.Interface)
	if err != nil {
		return nil, err
	}
	d := &Device{card: card, log: c.Logger.With("interface", c.Interface)}
	if err := d.open(&c, kernel); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// open does Open's work; on failure the caller closes what is open.
func (d *Device) open(c *Config, kernel KernelVersion) error {
	attrs, err := d.card.attrs()
	if err != nil {
		return err
	}
	if attrs.EncapType != ethernetType {
		return fmt.Errorf("%w: %s does not carry Ethernet frames (%s); choose an Ethernet interface",
			ErrConfig, c.Interface, attrs.EncapType)
	}
	g, err := c.plan(attrs.MTU)
	if err != nil {
		return err
	}
	if err := d.card.refuseOther(c.Interface); err != nil {
		return err
	}
	d.mtu = g.mtu
	d.info = Info{
		Interface: c.Interface, Index: attrs.Index, HardwareAddr: attrs.HardwareAddr, Driver: d.card.driver(c.Interface),
		MTU: g.mtu, FrameSize: int(g.chunkSize), Frames: int(g.frames), RingSize: int(g.ring),
		Features: d.card.xdpFeatures(),
	}
	rx, _ := d.card.queueCounts(attrs)
	if d.program, err = loadProgram(kernel, max(rx, attrs.NumRxQueues)); err != nil {
		return err
	}
	if d.xdp, d.info.Attach, err = d.card.attach(d.program, c.Interface, c.Attach, d.log); err != nil {
		return err
	}
	if info, err := d.xdp.Info(); err == nil {
		d.info.Program, d.info.ProgramID, d.info.LinkID = string(d.program.kind), uint32(info.Program), uint32(info.ID)
	}
	d.info.PartialChecksums = partialChecksums(d.info.Driver, d.info.Attach)
	// Attaching changes the queues of some drivers (virtio_net): only now the counts are true.
	if attrs, err = d.card.attrs(); err != nil {
		return err
	}
	d.info.RxQueues, d.info.TxQueues = d.card.queueCounts(attrs)
	numbers, err := c.chooseQueues(d.info.RxQueues)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if err := d.openQueue(c, g, number); err != nil {
			return fmt.Errorf("open queue %d of %s: %w", number, c.Interface, err)
		}
	}
	return nil
}

// chooseQueues are the queues to open of a card that receives on count.
func (c *Config) chooseQueues(count int) ([]int, error) {
	if c.Queues == nil {
		numbers := make([]int, count)
		for i := range numbers {
			numbers[i] = i
		}
		return numbers, nil
	}
	numbers := slices.Clone(c.Queues)
	slices.Sort(numbers)
	if len(numbers) == 0 {
		return nil, fmt.Errorf("%w: no queue of %s was chosen; leave the list out for all", ErrConfig, c.Interface)
	}
	if numbers[0] < 0 || numbers[len(numbers)-1] >= count {
		return nil, fmt.Errorf("%w: queues %v of %s: it receives on queues 0 to %d; ethtool -L %s changes that",
			ErrConfig, c.Queues, c.Interface, count-1, c.Interface)
	}
	if len(slices.Compact(slices.Clone(numbers))) != len(numbers) {
		return nil, fmt.Errorf("%w: queues %v of %s: one appears twice", ErrConfig, c.Queues, c.Interface)
	}
	return numbers, nil
}

// openQueue opens one queue's socket, in the best mode that works, and puts it into the program's map.
func (d *Device) openQueue(c *Config, g geometry, number int) error {
	q := &queue{number: number}
	d.queues = append(d.queues, q)
	var err error
	if q.umem, err = mapUmem(g.chunkSize, g.frames, g.runLength, g.runs, c.HugePages); err != nil {
		return err
	}
	canSend := number < d.info.TxQueues
	if err := d.bind(c, g, q, canSend); err != nil {
		return err
	}
	if c.BusyPoll {
		if err := d.preferBusyPoll(q); err != nil {
			d.log.Warn("busy polling is off", "queue", number, "reason", err)
		}
	}
	lc := linkConfig{
		queue: number, mtu: g.mtu, target: g.frames - g.ring, limit: g.ring, busyPoll: q.busyPoll,
		copies: !q.socket.mode.zeroCopy, join: q.socket.mode.scatter, offload: q.socket.mode.offload,
		address: hardwareAddr(d.info.HardwareAddr), partial: d.info.PartialChecksums,
	}
	if !canSend {
		lc.limit = 0
		d.log.Warn("the card has no transmit queue of this number: the queue only receives", "queue", number)
	}
	if q.link, err = newLink(q.umem, q.socket.rings, q.socket, q.socket.fd, lc); err != nil {
		return err
	}
	if canSend && lc.copies {
		if err = d.bundles(); err == nil {
			q.link.packet, err = openPacketSocket(d.card.index, d.longestBundle())
		}
		if err != nil {
			d.log.Info("segments and datagrams are sent one by one", "queue", number, "reason", err)
		}
	}
	if err := d.program.steer(number, q.socket.fd); err != nil {
		return err
	}
	d.info.Queues = append(d.info.Queues, q.info())
	return nil
}

// preferBusyPoll switches busy polling on for a queue, or says why not.
func (d *Device) preferBusyPoll(q *queue) error {
	if q.socket.mode.zeroCopy && d.info.Driver == virtioDriver {
		// The kernel leaves the wakeup for sending out when it polls (xsk_no_wakeup), and polls what receives only.
		return fmt.Errorf("%s sends from another NAPI instance than it receives on: with zero-copy, frames would wait; "+
			"use copy mode", virtioDriver)
	}
	if err := q.socket.preferBusyPoll(); err != nil {
		return err
	}
	q.busyPoll = true
	return nil
}

// bind opens the queue's socket in the best of the allowed modes that works.
func (d *Device) bind(c *Config, g geometry, q *queue, canSend bool) error {
	modes := c.modes(g, d.info.Attach, d.program.kind == bpf.Frags, d.zeroCopySegments())
	if len(modes) == 0 {
		return d.noMode(c, g)
	}
	plain := modes
	modes, err := c.offload(modes, g, &d.info.Features)
	if err != nil {
		return err
	}
	if d.info.Features.ZeroCopy && plain[0].zeroCopy && !modes[0].zeroCopy {
		d.log.Warn("zero-copy is given up, with which the driver computes no checksums, as was demanded; the TX checksum auto keeps it",
			"queue", q.number)
	}
	for i, mode := range modes {
		if q.socket, err = openSocket(q.umem, d.card.index, q.number, g.rings(canSend), mode); err == nil {
			q.socket.raiseBudget(g.rings(canSend).tx)
			d.log.Info("queue opened", "queue", q.number, "mode", q.socket.mode.String())
			return nil
		}
		if i == len(modes)-1 || errors.Is(err, ErrQueueBusy) || errors.Is(err, ErrPermission) || errors.Is(err, ErrGone) {
			break
		}
		if mode.offload && modes[i+1].zeroCopy == mode.zeroCopy {
			d.log.Info("checksums can't be left to the card", "queue", q.number, "reason", err)
		} else if mode.zeroCopy {
			d.log.Info("zero-copy could not be had, the kernel copies", "queue", q.number, "reason", d.explainZeroCopy(err))
		}
	}
	if g.scatter() && errors.Is(err, ErrKernel) {
		return fmt.Errorf("%w (%w)", d.noMode(c, g), err)
	}
	return d.explainZeroCopy(err)
}

// explainZeroCopy adds what is known of a driver that says it has zero-copy and refuses it.
func (d *Device) explainZeroCopy(err error) error {
	if errors.Is(err, ErrNoZeroCopy) && errors.Is(err, unix.EINVAL) && d.info.Driver == virtioDriver {
		return fmt.Errorf("%w, or start the virtual machine's card with iommu_platform=on,disable-legacy=on", err)
	}
	return err
}

// zeroCopySegments is how many buffers a zero-copy frame may have.
func (d *Device) zeroCopySegments() int {
	if d.info.Features.Known {
		return d.info.Features.ZeroCopySegments
	}
	return 1
}

// noMode is the error for an MTU that no allowed mode can carry.
func (d *Device) noMode(c *Config, g geometry) error {
	if c.Copy == CopyZero && d.info.Attach != AttachNative {
		return fmt.Errorf("%w: zero-copy needs native XDP, and %s has generic; use copy mode", ErrNoZeroCopy, c.Interface)
	}
	fits := int(g.chunkSize) - headroom - frameExtra
	if c.Copy == CopyZero {
		return fmt.Errorf("%w: frames of %d bytes take several buffers of %d, which the driver of %s has not got with zero-copy; "+
			"use copy mode, or ip link set dev %s mtu %d", ErrMTU, g.longest, g.chunkSize, c.Interface, c.Interface, fits)
	}
	hint := fmt.Sprintf("ip link set dev %s mtu %d", c.Interface, fits)
	if g.chunkSize < largeFrame && g.longest <= largeFrame-headroom {
		hint = fmt.Sprintf("use a frame size of %d, or %s", largeFrame, hint)
	}
	return fmt.Errorf("%w: frames of %d bytes take several buffers of %d, which needs Linux %s; %s",
		ErrMTU, g.longest, g.chunkSize, scatterKernel, hint)
}

// info describes the queue.
func (q *queue) info() QueueInfo {
	i := QueueInfo{
		Queue: q.number, Copy: CopyAlways, MultiBuffer: q.socket.mode.scatter, CanSend: q.link.CanSend(),
		TxChecksum: q.link.TxChecksum(), BusyPoll: q.busyPoll, HugePages: q.umem.huge,
	}
	if q.socket.mode.zeroCopy {
		i.Copy = CopyZero
	}
	return i
}

// Links are the opened queues, in the order of their numbers. Each belongs to the goroutine that polls it; none may be
// used after Close, but for Wake.
func (d *Device) Links() []*Link {
	links := make([]*Link, len(d.queues))
	for i, q := range d.queues {
		links[i] = q.link
	}
	return links
}

// Tables steer the program: they say which addresses and ports are kit's. They are closed with the device.
func (d *Device) Tables() *bpf.Tables { return d.program.tables }

// Info describes the device as it is now. It reads the interface again: the links' Ethernet address follows the
// interface's, and their MTU as far as it does not exceed the one at Open.
func (d *Device) Info() Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refresh()
	info := d.info
	info.Queues = slices.Clone(d.info.Queues)
	return info
}

// refresh reads what may have changed.
func (d *Device) refresh() {
	if d.closed {
		return
	}
	attrs, err := d.card.attrs()
	if err != nil {
		d.info.Present, d.info.Attached, d.info.Up, d.info.Running = false, false, false, false
		return
	}
	i := &d.info
	i.Present, i.Interface, i.DeviceMTU, i.HardwareAddr = true, attrs.Name, attrs.MTU, attrs.HardwareAddr
	i.Up, i.Running = attrs.RawFlags&unix.IFF_UP != 0, attrs.RawFlags&unix.IFF_RUNNING != 0
	i.Attached = attrs.Xdp != nil && attrs.Xdp.ProgId == i.ProgramID
	i.RxQueues, i.TxQueues = d.card.queueCounts(attrs)
	i.MTU = min(d.mtu, attrs.MTU)
	address := hardwareAddr(attrs.HardwareAddr)
	for _, q := range d.queues {
		q.link.mtu.Store(int32(i.MTU))
		q.link.address.Store(&address)
	}
}

// Stats are the kernel's counters of each opened queue, in the order of Links.
func (d *Device) Stats() ([]QueueStats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("read the statistics of %s: %w", d.info.Interface, net.ErrClosed)
	}
	stats := make([]QueueStats, len(d.queues))
	for i, q := range d.queues {
		s, err := q.socket.statistics()
		if err != nil {
			return nil, fmt.Errorf("read the statistics of queue %d of %s: %w", q.number, d.info.Interface, err)
		}
		stats[i] = QueueStats{
			Queue: q.number, RxDropped: s.Rx_dropped, RxInvalid: s.Rx_invalid_descs, TxInvalid: s.Tx_invalid_descs,
			RxRingFull: s.Rx_ring_full, RxFillRingEmpty: s.Rx_fill_ring_empty_descs, TxRingEmpty: s.Tx_ring_empty_descs,
		}
	}
	return stats, nil
}

// Close takes the XDP program off the interface, so that the kernel sees all traffic again, and then closes the sockets
// and frees their memory. The links' owners must have stopped. It may be called again.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed, d.info.Attached = true, false
	var errs []error
	if d.xdp != nil {
		errs = append(errs, d.xdp.Close())
	}
	for _, q := range d.queues {
		errs = append(errs, q.close())
	}
	if d.program != nil {
		errs = append(errs, d.program.close())
	}
	d.card.close()
	return errors.Join(errs...)
}

// close gives back what the queue has.
func (q *queue) close() error {
	var errs []error
	if q.link != nil {
		errs = append(errs, q.link.wake.close())
		q.link.packet.close()
	}
	if q.socket != nil {
		errs = append(errs, q.socket.close())
	}
	if q.umem != nil {
		errs = append(errs, q.umem.close())
	}
	return errors.Join(errs...)
}
