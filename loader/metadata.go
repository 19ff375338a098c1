package loader

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TX metadata asks the card, or in copy mode the kernel, to finish the checksum of a frame (struct xsk_tx_metadata,
// include/uapi/linux/if_xdp.h; Documentation/networking/xsk-tx-metadata.rst). It lies right before the frame, in the frame's
// own chunk:
//
//	built here     │ 40 free │ metadata │ frame …            │   Alloc, and the copy of a short answer
//	               0         40         64                   chunk's end
//	received       │ headroom    │ metadata │ frame …        │   a long answer in place
//	               0            232        256
//
// So it overlaps no other chunk, and not the frame. Once the packet memory is registered with metadata the kernel takes no
// descriptor without room for it before the frame in the same chunk (xp_aligned_validate_desc, net/xdp/xsk_queue.h), so that
// a frame of several chunks can't be sent.
const (
	txMetadataLen = 24
	// txLead is how far into its chunk a frame that is built here begins: behind the metadata, at a cache line.
	txLead = 64
)

// A partialSum says where the checksum lies that is left to the card, in bytes: offset from start, from which on the frame
// is summed. Zero: the frame is whole.
type partialSum struct{ start, offset uint16 }

// checksumLen is the length of a checksum field in bytes.
const checksumLen = 2

// TxChecksum reports whether SendPartial leaves UDP and TCP checksums to the card.
func (l *Link) TxChecksum() bool { return l.lead > 0 }

// SendPartial is Send for a frame whose UDP or TCP checksum the card shall finish: what is in the field, offset bytes from
// byte start of the frame, is the pseudo-header's sum, not complemented, and the rest from start on to the frame's end is added
// below (CHECKSUM_PARTIAL, include/linux/skbuff.h). It refuses, beside what Send refuses, a field outside of the frame, and any
// frame where TxChecksum is false.
func (l *Link) SendPartial(frame []byte, start, offset int) bool {
	if !l.send(frame, partialSum{uint16(start), uint16(offset)}) {
		return false
	}
	l.counters.TxPartial++
	return true
}

// sums tells whether the checksum of a frame of this length can be left to the card. In copy mode the kernel would look at one
// with a field outside of it again and again (xsk_build_skb, net/xdp/xsk.c).
func (l *Link) sums(length int, sum partialSum) bool {
	return l.lead > 0 && int(sum.start)+int(sum.offset)+checksumLen <= length
}

// leads counts and reports false for a received frame without room for metadata before it. The kernel leaves 256 bytes there,
// which an XDP program might have used.
func (l *Link) leads(offset uint64) bool {
	if l.lead > 0 && offset&l.chunkMask < txMetadataLen {
		l.counters.TxInvalid++
		return false
	}
	return true
}

// describe writes the metadata of a frame to send and returns the options of its descriptor. Where there is metadata a whole
// frame has some too: drivers look there whatever the options say (mlx5e_xsk_tx, drivers/net/ethernet/mellanox/mlx5).
func (l *Link) describe(addr uint64, sum partialSum) (options uint32) {
	if l.lead == 0 {
		return 0
	}
	m := unsafe.Slice((*byte)(unsafe.Add(l.base, addr-txMetadataLen)), txMetadataLen)
	if sum.start == 0 {
		binary.NativeEndian.PutUint64(m, 0)
		return 0
	}
	binary.NativeEndian.PutUint64(m, unix.XDP_TXMD_FLAGS_CHECKSUM)
	binary.NativeEndian.PutUint16(m[8:], sum.start)
	binary.NativeEndian.PutUint16(m[10:], sum.offset)
	return unix.XDP_TX_METADATA
}

// metadataFits tells whether the longest frame to send and its metadata lie in one chunk.
func (g geometry) metadataFits() bool {
	return g.mtu+frameExtra+txLead <= int(g.chunkSize)
}

// offload adds to the ways to bind a socket those that leave checksums to the card, or where that is demanded leaves no
// others. x is what the driver says of itself: with zero-copy it alone decides, in copy mode the kernel does it for all.
func (c *Config) offload(modes []bindMode, g geometry, x *XDPFeatures) ([]bindMode, error) {
	switch c.TxChecksum {
	case ChecksumAuto:
		if !x.TxChecksum || !g.metadataFits() {
			return modes, nil
		}
		var all []bindMode
		for _, m := range modes {
			if m.zeroCopy {
				all = append(all, bindMode{zeroCopy: true, scatter: m.scatter, offload: true})
			}
			all = append(all, m)
		}
		return all, nil
	case ChecksumOn:
		if !g.metadataFits() {
			return nil, fmt.Errorf("%w: frames of %d bytes with %d of metadata do not fit into %d; use a frame size of %d, an MTU of at most %d, "+
				"or the TX checksum auto", ErrNoChecksum, g.mtu+frameExtra, txLead, g.chunkSize, largeFrame, largeFrame-txLead-frameExtra)
		}
		modes = slices.DeleteFunc(slices.Clone(modes), func(m bindMode) bool { return m.zeroCopy && !x.TxChecksum })
		for i := range modes {
			modes[i].offload = true
		}
		if len(modes) == 0 {
			return nil, fmt.Errorf("%w: the driver of %s computes no checksums with zero-copy, which was asked for; use copy mode, "+
				"or the TX checksum auto", ErrNoChecksum, c.Interface)
		}
	}
	return modes, nil
}
