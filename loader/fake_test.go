package loader

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A fakeKernel is the other side of a link's rings over plain memory: it receives into the chunks of the fill ring and
// sends what is on the TX ring when it is kicked, as net/xdp/xsk.c does in copy mode.
type fakeKernel struct {
	t      testing.TB
	umem   *umem
	shared rings

	metadata bool         // the packet memory is registered with TX metadata
	asked    []partialSum // what was asked for each frame that went out

	fill       consumer
	tx         consumer
	rx         producer
	completion producer

	sent      [][]byte // frames that went out, if keep is set
	keep      bool
	lag       bool // completions are held back until release
	lagging   []uint64
	answer    []error // what the next kicks say instead of sending
	quiet     bool    // a full completion ring is no error, as on Linux 6.1
	noQueue   bool    // the card has no such transmit queue any more
	budget    int     // descriptors that one kick sends; 0: all
	kicks     int
	fillKicks int
	pending   error // SO_ERROR
	hasNAPI   bool
}

// fakeConfig describes a link over a fakeKernel; zero values give a small link of 2048-byte chunks.
type fakeConfig struct {
	chunk, frames, ring, completion uint32
	mtu                             int
	start                           uint32 // of all ring indices
	joins                           bool
	busyPoll                        bool
	receiveOnly                     bool
	offload                         bool
}

// newFake makes a link and the kernel at its other side.
func newFake(t testing.TB, c fakeConfig) (*Link, *fakeKernel) {
	t.Helper()
	if c.chunk == 0 {
		c.chunk = 2048
	}
	if c.ring == 0 {
		c.ring = 16
	}
	if c.frames == 0 {
		c.frames = 2 * c.ring
	}
	if c.mtu == 0 {
		c.mtu = 1500
	}
	runLength := (uint32(c.mtu) + frameExtra + c.chunk - 1) / c.chunk
	runs := uint32(0)
	if runLength > 1 {
		runs = c.ring / runLength
	}
	memory := make([]byte, (c.frames+runs*runLength)*c.chunk)
	u := newUmem(memory, c.chunk, c.frames, runLength, runs)
	if c.completion == 0 {
		c.completion = c.ring
	}
	k := &fakeKernel{t: t, umem: u, metadata: c.offload, shared: rings{
		rx:         plainRing(t, c.ring, descSize, c.start),
		tx:         plainRing(t, c.ring, descSize, c.start),
		fill:       plainRing(t, c.frames, addrSize, c.start),
		completion: plainRing(t, c.completion, addrSize, c.start),
	}}
	k.fill, k.tx = newConsumer(k.shared.fill), newConsumer(k.shared.tx)
	k.rx, k.completion = newProducer(k.shared.rx), newProducer(k.shared.completion)
	*k.shared.tx.flags = unix.XDP_RING_NEED_WAKEUP
	limit := c.ring
	if c.receiveOnly {
		limit = 0
	}
	l, err := newLink(u, k.shared, k, -1, linkConfig{
		queue: 3, mtu: c.mtu, target: c.ring, limit: limit, join: c.joins, busyPoll: c.busyPoll, copies: true,
		address: [6]byte{2, 0, 0, 0, 0, 1}, offload: c.offload,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.wake.close()) })
	return l, k
}

// deliver receives one frame, in as many buffers as it needs; false: the fill ring or the RX ring ran out, it is dropped.
func (k *fakeKernel) deliver(frame []byte) bool {
	room := int(k.umem.chunkSize) - headroom
	pieces := uint32((len(frame) + room - 1) / room)
	if k.fill.ready(pieces) < pieces || k.rx.room(pieces) < pieces {
		return false
	}
	for len(frame) > 0 {
		part := frame[:min(len(frame), room)]
		frame = frame[len(part):]
		addr := *k.fill.addr(k.fill.own) + headroom
		k.fill.own++
		copy(k.umem.memory[addr:], part)
		d := unix.XDPDesc{Addr: addr, Len: uint32(len(part))}
		if len(frame) > 0 {
			d.Options = unix.XDP_PKT_CONTD
		}
		*k.rx.desc(k.rx.own) = d
		k.rx.own++
	}
	k.rx.publish()
	k.fill.publish()
	return true
}

// describe puts a descriptor of the test's making on the RX ring, using up a chunk of the fill ring.
func (k *fakeKernel) describe(d unix.XDPDesc) {
	require.NotZero(k.t, k.fill.ready(1))
	k.fill.own++
	k.fill.publish()
	require.NotZero(k.t, k.rx.room(1))
	*k.rx.desc(k.rx.own) = d
	k.rx.own++
	k.rx.publish()
}

// transmit is the kick.
func (k *fakeKernel) transmit() error {
	k.kicks++
	if len(k.answer) > 0 {
		err := k.answer[0]
		if k.answer = k.answer[1:]; err == unix.EBUSY {
			k.send(false)
		}
		return err
	}
	for left := k.budget; k.tx.ready(1) > 0; left-- {
		if k.noQueue || k.quiet && k.completion.room(1) < 1 {
			return nil
		}
		if k.budget > 0 && left == 0 || k.completion.room(1) < 1 {
			return unix.EAGAIN
		}
		k.send(true)
	}
	return nil
}

// send takes one frame from the TX ring and completes it; good: it also reaches the wire.
func (k *fakeKernel) send(good bool) {
	var frame []byte
	for k.tx.ready(1) > 0 {
		d := *k.tx.desc(k.tx.own)
		k.tx.own++
		k.look(d)
		if k.keep && good {
			frame = append(frame, k.umem.memory[d.Addr:d.Addr+uint64(d.Len)]...)
		}
		if k.lag {
			k.lagging = append(k.lagging, d.Addr)
		} else {
			k.complete(d.Addr)
		}
		if d.Options&unix.XDP_PKT_CONTD == 0 {
			break
		}
	}
	k.tx.publish()
	if k.keep && good {
		k.sent = append(k.sent, frame)
	}
}

// look reads a frame's metadata, and fails the test where the kernel would refuse the descriptor (xp_aligned_validate_desc,
// net/xdp/xsk_queue.h; xsk_build_skb, net/xdp/xsk.c), or where a driver that looks at all metadata would read another thing
// than the descriptor's options say.
func (k *fakeKernel) look(d unix.XDPDesc) {
	if !k.metadata {
		require.Zero(k.t, d.Options&unix.XDP_TX_METADATA)
		return
	}
	require.GreaterOrEqual(k.t, d.Addr&k.umem.chunkMask, uint64(txMetadataLen), "the metadata begins in another chunk")
	require.LessOrEqual(k.t, d.Addr&k.umem.chunkMask+uint64(d.Len), uint64(k.umem.chunkSize))
	m := k.umem.memory[d.Addr-txMetadataLen:]
	flags := binary.NativeEndian.Uint64(m)
	if d.Options&unix.XDP_TX_METADATA == 0 {
		require.Zero(k.t, flags)
		k.asked = append(k.asked, partialSum{})
		return
	}
	require.EqualValues(k.t, unix.XDP_TXMD_FLAGS_CHECKSUM, flags)
	sum := partialSum{binary.NativeEndian.Uint16(m[8:]), binary.NativeEndian.Uint16(m[10:])}
	require.LessOrEqual(k.t, uint32(sum.start)+uint32(sum.offset)+2, d.Len)
	k.asked = append(k.asked, sum)
}

// complete puts an address on the completion ring.
func (k *fakeKernel) complete(addr uint64) {
	require.NotZero(k.t, k.completion.room(1), "completion ring overflows")
	*k.completion.addr(k.completion.own) = addr
	k.completion.own++
	k.completion.publish()
}

// release completes what lag held back.
func (k *fakeKernel) release() {
	for _, addr := range k.lagging {
		k.complete(addr)
	}
	k.lagging = nil
}

func (k *fakeKernel) receive()       { k.fillKicks++ }
func (k *fakeKernel) failure() error { err := k.pending; k.pending = nil; return err }
func (k *fakeKernel) napi() bool     { return k.hasNAPI }

// wantWhole asserts that every chunk is at exactly one station of its cycle, by walking all stations.
func (k *fakeKernel) wantWhole(l *Link) {
	k.t.Helper()
	seen := map[uint64]string{}
	station := func(name string, addr uint64) {
		chunk := addr &^ k.umem.chunkMask
		if other, twice := seen[chunk]; twice {
			k.t.Fatalf("chunk %#x is at %s and at %s", chunk, other, name)
		}
		seen[chunk] = name
	}
	for _, addr := range k.umem.free {
		station("free", addr)
	}
	for i := k.fill.own; i != l.fill.own; i++ {
		station("fill ring", *l.fill.addr(i))
	}
	for i := l.rx.own; i != k.rx.own; i++ {
		station("RX ring", l.rx.desc(i).Addr)
	}
	runs := map[uint64]bool{}
	sending := func(name string, addr uint64) {
		if addr >= k.umem.singles {
			runs[k.umem.run(addr)] = true
			return
		}
		station(name, addr)
	}
	for i := k.tx.own; i != l.tx.own; i++ {
		sending("TX ring", l.tx.desc(i).Addr)
	}
	for i := l.completion.own; i != k.completion.own; i++ {
		sending("completion ring", *l.completion.addr(i))
	}
	for _, addr := range k.lagging {
		sending("card", addr)
	}
	singles := uint32(k.umem.singles / uint64(k.umem.chunkSize))
	if k.umem.runLength == 1 {
		require.EqualValues(k.t, singles-l.reserved, len(seen), "a single chunk is lost")
		return
	}
	require.EqualValues(k.t, singles, len(seen), "a single chunk is lost")
	require.EqualValues(k.t, cap(k.umem.freeRuns), len(k.umem.freeRuns)+len(runs)+int(l.reserved/k.umem.runLength), "a run is lost")
}
