package loader

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ethernetHeader = 14 // bytes: two addresses and the type
	// frameExtra is what a frame may be longer than the IP packet: the Ethernet header and one VLAN tag, which is what
	// the kernel lets pass beyond the MTU (is_skb_forwardable, net/core/dev.c).
	frameExtra = ethernetHeader + 4

	// What Link.lent holds when it is not the address of a chunk. No chunk begins at an odd address.
	lentNothing = ^uint64(0)
	lentJoined  = ^uint64(0) - 2
)

// A doorbell is what a link asks of the kernel by system call; the rest goes over the rings. It is apart so that the
// link's own work runs over plain memory.
type doorbell interface {
	transmit() error // look at the TX ring
	receive()        // look at the fill ring
	failure() error  // the pending error, once
	napi() bool      // the traffic's NAPI instance can be polled
}

// A Link is one queue of a card: its AF_XDP socket, its packet memory and its counters. One goroutine, the owner, uses
// it; only Wake may be called from others, also after Close. Frames are Ethernet frames without the FCS.
//
// Who owns a frame's memory at which time is drawn at umem. The numbers that keep it whole, in chunks:
//
//	held + reserved + inFlight + free = all, with held ≤ target and reserved + inFlight ≤ limit
//
// where held are the kernel's for receiving (fill ring, card, RX ring), reserved are the owner's by Alloc and inFlight
// are the kernel's for sending (TX ring, card, completion ring). As target + limit ≤ all, a link that sends as much as
// it can still receives, and no ring can overflow: the TX and completion rings have room for limit, the fill ring for all.
type Link struct {
	rx         consumer
	tx         producer
	fill       producer
	completion consumer

	base      unsafe.Pointer // of the packet memory
	umem      *umem
	chunkMask uint64
	lent      uint64 // the chunk that input has now, or lentNothing, or lentJoined
	held      uint32
	target    uint32
	reserved  uint32
	inFlight  uint32
	limit     uint32
	maxFrame  uint32 // bytes of the longest frame to send
	lead      uint32 // how far into its chunk a frame of Alloc begins, in bytes: txLead where there is TX metadata, else 0
	unkicked  bool   // frames are on the TX ring that the kernel was not told about with success
	stalled   bool   // the last kick moved nothing, and another one at once would not either
	copies    bool   // the kernel copies: a kick that succeeds has sent all
	busyPoll  bool   // an empty Poll polls the card
	askNAPI   bool   // whether busyPoll is of use is not known yet
	counters  Counters
	join      joiner

	bell    doorbell
	packet  *packetSocket  // nil: no bundles
	waiter  [2]unix.PollFd // the socket and the eventfd
	sleep   unix.Timespec
	gone    error
	wake    wakeup
	mtu     atomic.Int32
	address atomic.Pointer[[6]byte]
	partial bool
	queue   int
}

// Counters are what one link has counted since it was opened. Frames and bytes are Ethernet frames without the FCS.
type Counters struct {
	RxFrames, RxBytes uint64 // lent to Poll's input
	RxJoined          uint64 // of these, frames that came in several buffers
	RxTooLong         uint64 // dropped: frames in several buffers that are longer than 68 KiB
	RxInvalid         uint64 // dropped: descriptors that point outside the packet memory
	TxFrames, TxBytes uint64 // queued by Send
	TxPartial         uint64 // of these, frames whose checksum was left to the card
	TxFull            uint64 // Alloc or Send found no room
	TxInvalid         uint64 // Send or Free refused: too short, too long, or not a frame that the owner has
	Completions       uint64 // chunks that came back after sending
	CompletionInvalid uint64 // ignored: completions of what was not sent
	Kicks             uint64 // sendto calls
	KickAgain         uint64 // of these, EAGAIN: budget used, completion ring or socket buffer full
	KickNoBuffers     uint64 // of these, ENOBUFS: the kernel had no memory
	KickDropped       uint64 // of these, EBUSY: the driver or the other end dropped a frame
	KickDown          uint64 // of these, ENETDOWN: the interface is down, the frames wait
	KickFailed        uint64 // of these, any other error
	FillKicks         uint64 // system calls to make the driver look at the fill ring, or to poll the card
	Bundles           uint64 // SendBundle calls that sent; their segments count as TxFrames, without Completions
	BundleAgain       uint64 // SendBundle calls that had no room
	BundleFailed      uint64 // SendBundle calls that failed for good; frames are sent instead
	Sleeps            uint64 // waits that went to sleep
	RingInsane        uint64 // impossible ring indices of the other side, refused
}

// linkConfig is what a link is made of besides rings and memory.
type linkConfig struct {
	queue    int
	mtu      int    // bytes of the IP packet
	target   uint32 // chunks to hold ready for receiving
	limit    uint32 // chunks that may be on their way out; 0: the link only receives
	busyPoll bool
	copies   bool // the kernel copies (XDP_COPY)
	join     bool // frames of several buffers may arrive
	offload  bool // checksums can be left to the card: the packet memory is registered with TX metadata
	address  [6]byte
	partial  bool
}

// newLink makes a link over rings and packet memory and gives the kernel its chunks to receive into. fd is what Wait
// polls, the socket's.
func newLink(u *umem, r rings, bell doorbell, fd int, c linkConfig) (*Link, error) {
	l := &Link{
		rx: newConsumer(r.rx), fill: newProducer(r.fill), completion: newConsumer(r.completion),
		base: u.base(), umem: u, chunkMask: u.chunkMask, lent: lentNothing,
		target: c.target, limit: c.limit,
		busyPoll: c.busyPoll, askNAPI: c.busyPoll, copies: c.copies,
		bell: bell, partial: c.partial, queue: c.queue,
	}
	if c.offload {
		l.lead = txLead
	}
	l.maxFrame = uint32(min(uint64(c.mtu)+frameExtra, u.runBytes()-uint64(l.lead)))
	if c.limit > 0 {
		l.tx = newProducer(r.tx)
	}
	if c.join {
		l.join.scratch = make([]byte, longestJoined)
	}
	if err := l.wake.open(); err != nil {
		return nil, err
	}
	l.waiter = [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(l.wake.fd), Events: unix.POLLIN}}
	l.mtu.Store(int32(c.mtu))
	l.address.Store(&c.address)
	l.refill()
	return l, nil
}

// Poll lends up to budget received frames to input, one at a time, and returns how many it lent. A frame is valid during
// the call only, and its capacity reaches to the end of its buffer, so that an answer can be built in place. input may
// call Alloc, Send, Free and Flush, not Poll.
func (l *Link) Poll(budget int, input func(frame []byte)) int {
	want := uint32(max(budget, 0))
	n := min(l.rx.ready(want), want)
	if n == 0 {
		l.idle()
		return 0
	}
	var lent, bytes uint64
	first := l.rx.own
	for i := range n {
		d := l.rx.desc(first + i)
		addr, length, options := d.Addr, uint64(d.Len), d.Options
		chunk := addr &^ l.chunkMask
		room := chunk + l.chunkMask + 1 - addr
		if addr >= l.umem.singles || length > room {
			l.refuse(chunk)
			continue
		}
		frame := unsafe.Slice((*byte)(unsafe.Add(l.base, addr)), room)[:length]
		if options&unix.XDP_PKT_CONTD != 0 || l.join.open {
			l.putFill(chunk)
			if frame = l.join.add(frame, options, &l.counters); frame == nil {
				continue
			}
			chunk = lentJoined
		}
		lent++
		bytes += uint64(len(frame))
		l.lent = chunk
		input(frame)
		if l.lent == chunk && chunk != lentJoined {
			l.putFill(chunk)
		}
	}
	l.lent = lentNothing
	l.rx.own = first + n
	l.rx.publish()
	l.held -= n
	l.refill()
	l.counters.RxFrames += lent
	l.counters.RxBytes += bytes
	return int(lent)
}

// Peek shows up to n of the frames that the next Poll lends, but for those in several pieces. They are not to be written to.
func (l *Link) Peek(n int, look func(frame []byte)) {
	want := uint32(max(n, 0))
	first, piece := l.rx.own, l.join.open
	for i := range min(l.rx.ready(want), want) {
		d := l.rx.desc(first + i)
		addr, length := d.Addr, uint64(d.Len)
		room := l.chunkMask + 1 - addr&l.chunkMask
		last := d.Options&unix.XDP_PKT_CONTD == 0
		if !piece && last && addr < l.umem.singles && length <= room {
			look(unsafe.Slice((*byte)(unsafe.Add(l.base, addr)), room)[:length])
		}
		piece = !last
	}
}

// refuse counts a descriptor that the kernel cannot mean. Its chunk, if it is one, is not lost.
func (l *Link) refuse(chunk uint64) {
	l.counters.RxInvalid++
	if chunk < l.umem.singles {
		l.putFill(chunk)
	}
}

// putFill writes a chunk to the fill ring, which has room for all; publish shows it to the kernel.
func (l *Link) putFill(chunk uint64) {
	*l.fill.addr(l.fill.own) = chunk
	l.fill.own++
	l.held++
}

// refill brings the chunks that the kernel holds for receiving up to target, publishes the fill ring, and calls the
// driver if it waits for that.
func (l *Link) refill() {
	for l.held < l.target {
		chunk, ok := l.umem.take()
		if !ok {
			break
		}
		l.putFill(chunk)
	}
	l.fill.publish()
	if l.fill.needWakeup() {
		l.kickFill()
	}
}

// idle is an empty Poll: the driver may still be waiting for the fill ring, or for us to poll the card.
func (l *Link) idle() {
	if l.held < l.target {
		l.refill()
		return
	}
	if l.askNAPI && l.counters.RxFrames > 0 {
		l.askNAPI, l.busyPoll = false, l.bell.napi()
	}
	if l.busyPoll || l.fill.needWakeup() {
		l.kickFill()
	}
}

func (l *Link) kickFill() {
	l.counters.FillKicks++
	l.bell.receive()
}

// Alloc returns a frame to send, its length and capacity the longest that Send takes, or nil when no room is free (Flush
// may make some). It must go back by Send or Free.
func (l *Link) Alloc() []byte {
	pieces := l.umem.runLength
	if l.limit-l.reserved-l.inFlight < pieces {
		if l.reap(); l.limit-l.reserved-l.inFlight < pieces {
			l.counters.TxFull++
			return nil
		}
	}
	addr, ok := l.umem.alloc()
	if !ok {
		l.counters.TxFull++
		return nil
	}
	l.reserved += pieces
	return unsafe.Slice((*byte)(unsafe.Add(l.base, addr+uint64(l.lead))), l.maxFrame)
}

// offset is where in the packet memory a frame begins; beyond its end for one that is not there.
func (l *Link) offset(frame []byte) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(frame))) - uintptr(l.base))
}

// Send queues a frame: one from Alloc, or the one that Poll is lending, either of them resliced. The link then owns it.
// It reports false and counts when it refuses: no room (a lent frame only), shorter than an Ethernet header, longer
// than the MTU allows, not a frame that the owner has. A refused frame from Alloc goes back to the pool; a lent one stays
// lent.
func (l *Link) Send(frame []byte) bool { return l.send(frame, partialSum{}) }

// send is Send, or SendPartial where sum says so.
func (l *Link) send(frame []byte, sum partialSum) bool {
	offset := l.offset(frame)
	chunk := offset &^ l.chunkMask
	if chunk == l.lent {
		return l.sendLent(offset, uint32(len(frame)), sum)
	}
	if l.lent == lentJoined && l.join.holds(frame) {
		return l.sendJoined(frame, sum)
	}
	if !l.umem.disown(offset) {
		l.counters.TxInvalid++
		return false
	}
	l.reserved -= l.umem.runLength
	if !l.fits(len(frame), sum) {
		l.umem.giveBack(offset)
		return false
	}
	if l.umem.runLength == 1 {
		l.putTx(offset, uint32(len(frame)), l.describe(offset, sum))
	} else {
		l.sendRun(offset, uint32(len(frame)))
	}
	l.counters.TxFrames++
	l.counters.TxBytes += uint64(len(frame))
	return true
}

// fits counts and reports false for a length that no frame may have, and for a sum that can't be left to the card.
func (l *Link) fits(length int, sum partialSum) bool {
	if length < ethernetHeader || uint64(length) > uint64(l.maxFrame) || sum.start != 0 && !l.sums(length, sum) {
		l.counters.TxInvalid++
		return false
	}
	return true
}

// shortFrame is the length in bytes up to which an answer is copied. The chunks that come and go between the fill ring and
// the TX ring are many, and each is cold in this processor's cache and dirty in it when the card's side writes it next; the
// last one that came back from sending is warm. Measured with frames of 106 bytes on veth, the copy echoes a tenth more.
const shortFrame = 256

// sendLent queues the frame that input has: a long one in place, a short one by a copy, so that its chunk goes straight
// back to the fill ring.
func (l *Link) sendLent(offset uint64, length uint32, sum partialSum) bool {
	if !l.fits(int(length), sum) || !l.leads(offset) {
		return false
	}
	if l.limit-l.reserved-l.inFlight < 1 {
		if l.reap(); l.limit-l.reserved-l.inFlight < 1 {
			l.counters.TxFull++
			return false
		}
	}
	chunk := l.lent
	l.lent = lentNothing
	if length <= shortFrame {
		if warm, ok := l.umem.take(); ok {
			warm += uint64(l.lead)
			copy(l.chunkBytes(warm, length), l.chunkBytes(offset, length))
			l.putFill(chunk) // shown to the kernel when Poll is done: what was lent stays as it is until then
			offset = warm
		}
	}
	l.putTx(offset, length, l.describe(offset, sum))
	l.counters.TxFrames++
	l.counters.TxBytes += uint64(length)
	return true
}

// chunkBytes are length bytes of packet memory, which must lie in one chunk.
func (l *Link) chunkBytes(offset uint64, length uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(l.base, offset)), length)
}

// putTx writes one descriptor to the TX ring, which has room: limit is not more than its size.
func (l *Link) putTx(addr uint64, length, options uint32) {
	*l.tx.desc(l.tx.own) = unix.XDPDesc{Addr: addr, Len: length, Options: options}
	l.tx.own++
	l.inFlight++
	l.unkicked = true
}

// Free gives a frame from Alloc, resliced or not, back unsent. A lent frame needs no Free and is left alone.
func (l *Link) Free(frame []byte) {
	offset := l.offset(frame)
	chunk := offset &^ l.chunkMask
	if chunk == l.lent || l.lent == lentJoined && l.join.holds(frame) {
		return
	}
	if !l.umem.disown(offset) {
		l.counters.TxInvalid++
		return
	}
	l.reserved -= l.umem.runLength
	l.umem.giveBack(offset)
}

// reap takes back the chunks that were sent.
func (l *Link) reap() {
	n := l.completion.ready(l.completion.size)
	if n == 0 {
		return
	}
	first, bad := l.completion.own, uint32(0)
	for i := range n {
		if l.inFlight == bad || !l.umem.complete(*l.completion.addr(first + i)) {
			bad++
			continue
		}
		l.inFlight--
	}
	l.completion.own = first + n
	l.completion.publish()
	l.counters.Completions += uint64(n - bad)
	l.counters.CompletionInvalid += uint64(bad)
}

// Flush takes back what was sent and tells the kernel about what Send has queued. It reports whether frames are still
// queued that another Flush may move; frames that wait for an interface that is down do not count, the next Flush that
// finds it up sends them.
func (l *Link) Flush() (pending bool) {
	// Before the kick: a full completion ring answers EAGAIN for ever.
	l.reap()
	if !l.unkicked {
		return false
	}
	l.tx.publish()
	for l.tx.needWakeup() {
		before := l.tx.peer
		again, pending := l.kicked(l.bell.transmit())
		if !again {
			return pending
		}
		l.reap()
		if l.tx.refresh(); l.tx.peer == before {
			return pending
		}
	}
	l.unkicked = false
	return false
}

// kicked judges the answer of a kick. again: part of the ring may have been sent, kick once more if so; otherwise
// pending is Flush's answer.
func (l *Link) kicked(err error) (again, pending bool) {
	l.counters.Kicks++
	l.stalled = false
	if err == nil {
		// Older kernels (6.1) say so too when the completion ring is full, and all do for a transmit queue that the card
		// has no more.
		if l.tx.refresh(); l.copies && l.tx.peer != l.tx.own {
			l.stalled = true
			return true, false
		}
		l.unkicked = false
		return false, false
	}
	switch err {
	case unix.EAGAIN:
		l.counters.KickAgain++
		return true, true
	case unix.EBUSY: // the frame is gone, those behind it are not
		l.counters.KickDropped++
		return true, true
	case unix.ENOBUFS:
		l.counters.KickNoBuffers++
		return false, true
	case unix.ENETDOWN:
		l.counters.KickDown++
		l.stalled = true
	case unix.ENXIO, unix.ENODEV:
		l.counters.KickFailed++
		l.lost(err)
	default:
		l.counters.KickFailed++
	}
	return false, false
}

// MTU is the longest IP packet that the link carries now, in bytes: the interface's, and never more than at Open.
func (l *Link) MTU() int { return int(l.mtu.Load()) }

// HardwareAddr is the interface's Ethernet address now.
func (l *Link) HardwareAddr() [6]byte { return *l.address.Load() }

// PartialChecksums reports whether received UDP and TCP checksum fields may hold only the pseudo-header's sum
// (CHECKSUM_PARTIAL): on interfaces whose other end is a kernel on this machine, such as veth and tap.
func (l *Link) PartialChecksums() bool { return l.partial }

// CanSend reports whether the link can transmit: some drivers have more receive than transmit queues once XDP is
// attached. On a link that cannot, Alloc returns nil and Send reports false.
func (l *Link) CanSend() bool { return l.limit > 0 }

// Queue is the number of the card's queue.
func (l *Link) Queue() int { return l.queue }

// Counters returns a copy of the link's counters. Only the owner may call it.
func (l *Link) Counters() Counters {
	c := l.counters
	c.RingInsane = l.rx.insane + l.tx.insane + l.fill.insane + l.completion.insane
	return c
}

// Wake ends the present Wait or the next one. Any goroutine may call it, also after Close.
func (l *Link) Wake() { l.wake.ring() }
