package loader

import (
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
)

// AttachMode is where the XDP program runs.
type AttachMode uint8

const (
	// AttachAuto is native where the driver has it, else generic, said loudly.
	AttachAuto AttachMode = iota
	// AttachNative runs the program in the driver, before the kernel makes a packet of the frame.
	AttachNative
	// AttachGeneric runs it in the kernel's receive path, on any interface, slower on a real card.
	AttachGeneric
)

var attachNames = []string{"auto", "native", "generic"}

// String is the mode's name on the command line.
func (m AttachMode) String() string { return nameOf(attachNames, m) }

// MarshalText writes String.
func (m AttachMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads auto, native or generic.
func (m *AttachMode) UnmarshalText(text []byte) error {
	return parseName(m, attachNames, "attach mode", string(text))
}

// CopyMode is who moves frames between the card and packet memory.
type CopyMode uint8

const (
	// CopyAuto is zero-copy where the driver has it, else a copy by the kernel.
	CopyAuto CopyMode = iota
	// CopyZero lets the card use the packet memory itself (XDP_ZEROCOPY).
	CopyZero
	// CopyAlways lets the kernel copy (XDP_COPY).
	CopyAlways
)

var copyNames = []string{"auto", "zerocopy", "copy"}

// String is the mode's name on the command line.
func (m CopyMode) String() string { return nameOf(copyNames, m) }

// MarshalText writes String.
func (m CopyMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads auto, zerocopy or copy.
func (m *CopyMode) UnmarshalText(text []byte) error {
	return parseName(m, copyNames, "copy mode", string(text))
}

// ChecksumMode is who computes the UDP and TCP checksums of frames that are sent.
type ChecksumMode uint8

const (
	// ChecksumAuto leaves them to the card where it takes the frames itself (zero-copy) and its driver says that it computes
	// them (NETDEV_XSK_FLAGS_TX_CHECKSUM).
	ChecksumAuto ChecksumMode = iota
	// ChecksumOn leaves them to the card in copy mode too, by the kernel, which computes them for a card that does not; where
	// the driver computes none with zero-copy, copy mode is used. It needs Linux 6.11 and room for the metadata.
	ChecksumOn
	// ChecksumOff computes them here.
	ChecksumOff
)

var checksumNames = []string{"auto", "on", "off"}

// String is the mode's name on the command line.
func (m ChecksumMode) String() string { return nameOf(checksumNames, m) }

// MarshalText writes String.
func (m ChecksumMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads auto, on or off.
func (m *ChecksumMode) UnmarshalText(text []byte) error {
	return parseName(m, checksumNames, "TX checksum mode", string(text))
}

// nameOf is the name of a mode, or its number for one that has none.
func nameOf[M ~uint8](names []string, m M) string {
	if int(m) >= len(names) {
		return fmt.Sprintf("mode %d", uint8(m))
	}
	return names[m]
}

// parseName sets m to the mode of that name.
func parseName[M ~uint8](m *M, names []string, what, text string) error {
	i := slices.Index(names, text)
	if i < 0 {
		return fmt.Errorf("%w: %s %q is none of %v", ErrConfig, what, text, names)
	}
	*m = M(i)
	return nil
}

// Config says which interface to open and how. Only Interface is needed; zero values are good.
type Config struct {
	// Interface is the name of the network interface in the network namespace of the calling thread.
	Interface string
	// Attach is where the XDP program runs.
	Attach AttachMode
	// Copy is who moves the frames.
	Copy CopyMode
	// TxChecksum is who computes UDP and TCP checksums.
	TxChecksum ChecksumMode
	// Queues are the numbers of the queues to open; nil means all. What arrives on the others stays with the kernel.
	Queues []int
	// FrameSize is the size of a chunk of packet memory in bytes, 2048 or 4096; 0 chooses by the MTU. A received frame up
	// to FrameSize-256 lies in one chunk.
	FrameSize int
	// Frames is the number of chunks of each queue, from twice RingSize to 32768; 0 means twice RingSize.
	Frames int
	// RingSize is the number of entries of each queue's RX and TX ring, a power of two from 64 to 16384; 0 means 4096.
	RingSize int
	// BusyPoll lets the engine's system calls do the driver's work (SO_PREFER_BUSY_POLL): lower latency on real cards
	// for the price of a processor. It is left off where the kernel or the driver does not have it.
	BusyPoll bool
	// MTU bounds the IP packets that are sent, in bytes; 0 means the interface's, more is refused.
	MTU int
	// HugePages asks for packet memory in huge pages; where there are none, ordinary pages serve.
	HugePages bool
	// Logger is told what was chosen and what could not be had; nil means nobody.
	Logger *slog.Logger
}

// Bounds of what Config takes.
const (
	defaultRing = 4096
	leastRing   = 64
	mostRing    = 1 << 14
	mostFrames  = 1 << 15
	leastMTU    = 68 // RFC 791: every module must forward 68 octets without fragmentation
	smallFrame  = 2048
	largeFrame  = 4096
	// mostPieces is how many descriptors one frame may take in copy mode: MAX_SKB_FRAGS and the head (net/xdp/xsk.c).
	mostPieces = 18
)

// A geometry is the sizes of one queue's memory and rings, checked against each other and the interface.
type geometry struct {
	chunkSize uint32 // bytes
	frames    uint32 // single chunks
	ring      uint32 // entries of RX and TX ring
	runLength uint32 // chunks of the longest frame to send
	runs      uint32
	mtu       int // bytes of the longest IP packet to send
	longest   int // bytes of the longest frame that may arrive
}

// plan checks the configuration for an interface with the given MTU.
func (c *Config) plan(deviceMTU int) (geometry, error) {
	g := geometry{mtu: c.MTU, longest: deviceMTU + frameExtra}
	if err := c.planRings(&g); err != nil {
		return g, err
	}
	if c.MTU == 0 {
		g.mtu = deviceMTU
	}
	if g.mtu < leastMTU {
		return g, fmt.Errorf("%w: an MTU of %d bytes: IPv4 needs %d or more", ErrConfig, g.mtu, leastMTU)
	}
	if g.mtu > deviceMTU {
		return g, fmt.Errorf("%w: an MTU of %d bytes is more than the %d of %s; ip link set dev %s mtu %d raises that",
			ErrConfig, g.mtu, deviceMTU, c.Interface, c.Interface, g.mtu)
	}
	switch c.FrameSize {
	case 0:
		g.chunkSize = smallFrame
		if g.longest > smallFrame-headroom {
			g.chunkSize = largeFrame
		}
	case smallFrame, largeFrame:
		g.chunkSize = uint32(c.FrameSize)
	default:
		return g, fmt.Errorf("%w: a frame size of %d bytes: AF_XDP has %d and %d", ErrConfig, c.FrameSize, smallFrame, largeFrame)
	}
	g.runLength = (uint32(g.mtu) + frameExtra + g.chunkSize - 1) / g.chunkSize
	if g.runLength > mostPieces {
		return g, fmt.Errorf("%w: a packet of %d bytes takes %d frames of %d bytes, the kernel sends at most %d together; "+
			"use a frame size of %d",
			ErrMTU, g.mtu, g.runLength, g.chunkSize, mostPieces, largeFrame)
	}
	if g.runLength > 1 {
		g.runs = g.ring / g.runLength
	}
	return g, nil
}

// planRings checks RingSize and Frames.
func (c *Config) planRings(g *geometry) error {
	ring, frames := c.RingSize, c.Frames
	if ring == 0 {
		ring = defaultRing
	}
	if ring < leastRing || ring > mostRing || bits.OnesCount(uint(ring)) != 1 {
		return fmt.Errorf("%w: a ring size of %d: want a power of two from %d to %d", ErrConfig, ring, leastRing, mostRing)
	}
	if frames == 0 {
		frames = 2 * ring
	}
	if frames < 2*ring || frames > mostFrames {
		return fmt.Errorf("%w: %d frames with rings of %d: want from %d (one ring receiving, one sending) to %d",
			ErrConfig, frames, ring, 2*ring, mostFrames)
	}
	g.ring, g.frames = uint32(ring), uint32(frames)
	return nil
}

// memory is the packet memory of one queue in bytes.
func (g geometry) memory() uint64 { return umemBytes(g.chunkSize, g.frames, g.runLength, g.runs) }

// defaultSizes tells whether the sizes are left to this package.
func (c *Config) defaultSizes() bool {
	return c.MTU == 0 && c.FrameSize == 0 && c.Frames == 0 && c.RingSize == 0
}

// scatter tells whether frames of several buffers are needed: to receive what the interface's MTU lets in, or to send.
func (g geometry) scatter() bool { return g.longest > int(g.chunkSize)-headroom || g.runLength > 1 }

// rings are the sizes of a socket's rings: the fill ring has room for all single chunks, so that it never overflows.
func (g geometry) rings(canSend bool) ringSizes {
	sizes := ringSizes{rx: g.ring, tx: g.ring, fill: 1 << bits.Len32(g.frames-1), completion: g.ring}
	if !canSend {
		sizes.tx = 0
	}
	return sizes
}

// modes are the ways to bind a socket that the configuration allows, best first. scatterKnown: the program takes frames
// of several buffers; zeroCopySegments is how many buffers a frame may have with zero-copy, 1 where the driver has no
// multi-buffer zero-copy.
func (c *Config) modes(g geometry, attached AttachMode, scatterKnown bool, zeroCopySegments int) []bindMode {
	var modes []bindMode
	// With a generic program the kernel may report zero-copy and then lose frames: always force the copy.
	if attached == AttachNative && c.Copy != CopyAlways {
		if !g.scatter() {
			modes = append(modes, bindMode{zeroCopy: true})
		} else if scatterKnown && zeroCopySegments > 1 && int(g.runLength) <= zeroCopySegments {
			modes = append(modes, bindMode{zeroCopy: true, scatter: true})
		}
	}
	if c.Copy != CopyZero {
		if scatterKnown {
			modes = append(modes, bindMode{scatter: true})
		}
		if !g.scatter() {
			modes = append(modes, bindMode{})
		}
	}
	return modes
}
