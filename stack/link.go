package stack

import "time"

// Link is one receive and transmit queue of a card: the seam between the engine and everything that moves frames.
// loader's AF_XDP link, linktest's in-memory wire and the stack's own loopback satisfy it.
//
// One goroutine uses a link; only Wake may be called from others. Frames are Ethernet frames without the FCS.
//
// Who owns a frame:
//
//	free ──Alloc──▶ the engine ──Send──▶ the link ──sent──▶ free
//	  ▲                 └──Free──▶ free
//	  └─ the link ──Poll──▶ lent to input ──returns──▶ free
//	                            └──Send (answered in place)──▶ the link ──sent──▶ free
type Link interface {
	// Poll lends up to budget received frames to input, one at a time, and returns how many it lent. A frame is valid
	// during the call only. Its capacity reaches to the end of its buffer, so that an answer can be built in place.
	Poll(budget int, input func(frame []byte)) int
	// Alloc returns a transmit frame, its length the longest frame that Send takes, or nil when no frame or no place in
	// the transmit ring is free. Flush may make one free.
	Alloc() []byte
	// Send queues a frame: one from Alloc cut to its length, or the one that Poll is lending, resliced. It reports false
	// when the transmit ring is full, which cannot happen to a frame from Alloc; a lent frame is then still only lent.
	Send(frame []byte) bool
	// Free gives a frame from Alloc back unsent.
	Free(frame []byte)
	// Flush hands what Send has queued to the wire and takes back what was sent. It reports whether some of it is still
	// queued, so that the engine calls it again instead of going to sleep.
	Flush() (pending bool)
	// Wait sleeps until a frame has arrived, Wake was called or timeout has passed; it may return early. A negative timeout
	// is none, and 0 does not sleep and only looks whether the device is still there. An error means that it is gone.
	Wait(timeout time.Duration) error
	// Wake ends the present Wait or the next one. Any goroutine may call it.
	Wake()
	// MTU is the longest IPv4 packet that the link carries now, in bytes, with at most one VLAN tag; see
	// Interface.LinkChanged.
	MTU() int
	// HardwareAddr is the link's Ethernet address now; see Interface.LinkChanged.
	HardwareAddr() [6]byte
	// PartialChecksums reports whether the other side's kernel hands frames over with a UDP or TCP checksum field that
	// holds only the pseudo-header's sum (CHECKSUM_PARTIAL, include/linux/skbuff.h), as over veth and tap.
	PartialChecksums() bool
}

// A ChecksumOffloader is a Link that can have the UDP or TCP checksum of a frame finished below, by the card or by a kernel that
// knows what the card can do. loader's link is one where it has TX metadata.
type ChecksumOffloader interface {
	Link
	// TxChecksum reports whether SendPartial may be used. It does not change.
	TxChecksum() bool
	// SendPartial is Send of a frame whose checksum field, offset bytes behind byte start, holds the pseudo-header's sum, not
	// complemented. From start, where the UDP or TCP header begins, the frame is summed to its end (CHECKSUM_PARTIAL,
	// include/linux/skbuff.h).
	SendPartial(frame []byte, start, offset int) bool
}

// A Bundler is a Link that can also take consecutive TCP segments of one connection, or UDP datagrams of one length from one socket
// to one other, in one piece and have them cut apart below, which costs less than a frame for each. loader's link is one in copy
// mode.
type Bundler interface {
	Link
	// BundleLimit is the longest IPv4 packet that SendBundle takes now of TCP or UDP, in bytes; 0 when it takes none.
	BundleLimit(protocol uint8) int
	// SendBundle sends segments or datagrams, after all that Send has queued. header are their headers, from Ethernet on, with
	// IPv4 from byte network on, as one packet would have them that holds the whole payload, but a total length of 0 where
	// that is over 65535, the TCP or UDP checksum being the pseudo-header's sum, not complemented. payload, in at most 64
	// slices, is cut into this many bytes each; the last may be shorter, and of segments is the only one with the PSH. It
	// reports false when nothing was sent. Nothing is kept.
	SendBundle(header []byte, network int, payload [][]byte, segment int) bool
}
