package loader

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// longestJoined is the longest frame in several buffers that a link takes, in bytes: the longest IPv4 packet, its
// Ethernet header and tags, rounded up.
const longestJoined = 68 << 10

// A joiner makes one frame of several received buffers, each of which but the last has XDP_PKT_CONTD set. What it joins
// survives from one Poll to the next, since a driver may publish a frame's buffers apart.
type joiner struct {
	scratch []byte // nil where the socket does not take frames of several buffers (XDP_USE_SG)
	length  int
	open    bool // the last buffer said that one follows
	tooLong bool
}

// add appends one buffer and returns the frame once it is whole, nil before and for a frame that is too long, which is
// counted and dropped as one.
func (j *joiner) add(part []byte, options uint32, c *Counters) []byte {
	if !j.open {
		j.length, j.tooLong = 0, false
	}
	j.open = options&unix.XDP_PKT_CONTD != 0
	if j.tooLong = j.tooLong || j.length+len(part) > len(j.scratch); !j.tooLong {
		j.length += copy(j.scratch[j.length:], part)
	}
	if j.open {
		return nil
	}
	if j.tooLong {
		c.RxTooLong++
		return nil
	}
	c.RxJoined++
	return j.scratch[:j.length]
}

// holds tells whether frame begins within the joined frame's buffer.
func (j *joiner) holds(frame []byte) bool {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(frame))) - uintptr(unsafe.Pointer(unsafe.SliceData(j.scratch)))
	return start < uintptr(len(j.scratch))
}

// sendJoined sends the joined frame that input has by copying it out of the scratch buffer.
func (l *Link) sendJoined(frame []byte, sum partialSum) bool {
	if !l.fits(len(frame), sum) {
		return false
	}
	out := l.Alloc()
	if out == nil {
		return false
	}
	l.lent = lentNothing
	return l.send(out[:copy(out, frame)], sum)
}

// sendRun queues a frame that lies in a run of chunks, as one descriptor for each chunk that it touches.
func (l *Link) sendRun(offset uint64, length uint32) {
	run, pieces := l.umem.run(offset), uint16(0)
	for {
		here := min(length, l.umem.chunkSize-uint32(offset&l.chunkMask))
		pieces++
		if length -= here; length == 0 {
			l.putTx(offset, here, 0)
			break
		}
		l.putTx(offset, here, unix.XDP_PKT_CONTD)
		offset += uint64(here)
	}
	l.umem.runBusy[run] = pieces
}
