package loader

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// plainOffsets lays a ring out as the kernel does: each index on a cache line of its own.
var plainOffsets = unix.XDPRingOffset{Producer: 0, Consumer: 64, Flags: 128, Desc: 192}

// plainRing is a ring over plain memory whose indices start at start.
func plainRing(t testing.TB, size, entrySize, start uint32) ringShared {
	t.Helper()
	words := make([]uint64, (plainOffsets.Desc+uint64(size)*uint64(entrySize))/8)
	memory := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
	s, err := newRingShared(memory, plainOffsets, size, entrySize)
	require.NoError(t, err)
	*s.producer, *s.consumer = start, start
	return s
}

// starts are index positions of interest: the beginning, just before the 32-bit wrap-around, and the sign change.
var starts = map[string]uint32{"at zero": 0, "over the wrap-around": math.MaxUint32 - 5, "over the sign": math.MaxInt32 - 5}

func TestRingRefusesBadGeometry(t *testing.T) {
	memory := make([]byte, 4096)
	for _, size := range []uint32{0, 3, 100} {
		_, err := newRingShared(memory, plainOffsets, size, addrSize)
		require.ErrorContains(t, err, "power of two")
	}
	_, err := newRingShared(memory, plainOffsets, 1024, addrSize)
	require.ErrorContains(t, err, "its mapping has 4096")
	_, err = newRingShared(memory, unix.XDPRingOffset{Flags: 4093}, 4, addrSize)
	require.ErrorContains(t, err, "its mapping has 4096")
}

func TestRingPassesEntriesInOrder(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			s := plainRing(t, 8, addrSize, start)
			p, c := newProducer(s), newConsumer(s)
			next, want := uint64(0), uint64(0)
			for round := range 50 {
				room := p.room(8)
				require.EqualValues(t, 8, room, "everything was consumed")
				n := uint32(round%8 + 1)
				for range n {
					*p.addr(p.own) = next
					p.own++
					next++
				}
				require.Zero(t, c.ready(1), "not published yet")
				p.publish()
				require.Equal(t, n, c.ready(8))
				require.Equal(t, 8-n, p.room(8), "not consumed yet")
				for range n {
					require.Equal(t, want, *c.addr(c.own))
					c.own++
					want++
				}
				c.publish()
			}
			require.Zero(t, p.insane+c.insane)
		})
	}
}

// The peer's index is read only when what is known of does not suffice: once a batch, not once an entry.
func TestRingCachesThePeersIndex(t *testing.T) {
	s := plainRing(t, 8, addrSize, 0)
	c := newConsumer(s)
	atomic.StoreUint32(s.producer, 4)
	require.EqualValues(t, 4, c.ready(1))
	atomic.StoreUint32(s.producer, 6)
	require.EqualValues(t, 4, c.ready(4), "four were known of and suffice")
	require.EqualValues(t, 6, c.ready(5), "five were asked for, so it looked again")
}

func TestConsumerRefusesInsaneProducer(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			s := plainRing(t, 8, addrSize, start)
			c := newConsumer(s)
			for i, bad := range []uint32{start + 9, start - 1, start + 1<<31, start + math.MaxUint32/2} {
				atomic.StoreUint32(s.producer, bad)
				require.Zero(t, c.ready(1), "index %d", bad-start)
				require.EqualValues(t, i+1, c.insane)
			}
			atomic.StoreUint32(s.producer, start+8)
			require.EqualValues(t, 8, c.ready(1), "a sane index is believed again")
			c.own += 2
			atomic.StoreUint32(s.producer, start+4)
			require.EqualValues(t, 6, c.ready(8), "it went back: what was believed before stays")
			require.EqualValues(t, 5, c.insane)
		})
	}
}

func TestProducerRefusesInsaneConsumer(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			s := plainRing(t, 8, addrSize, start)
			p := newProducer(s)
			require.EqualValues(t, 8, p.room(8))
			p.own += 8
			for i, bad := range []uint32{start + 9, start - 1, start + 1<<31} {
				atomic.StoreUint32(s.consumer, bad)
				require.Zero(t, p.room(1), "index %d", bad-start)
				require.EqualValues(t, i+1, p.insane)
			}
			atomic.StoreUint32(s.consumer, start+3)
			require.EqualValues(t, 3, p.room(1))
			atomic.StoreUint32(s.consumer, start+1)
			require.EqualValues(t, 3, p.room(4), "it went back: what was believed before stays")
			require.EqualValues(t, 4, p.insane)
		})
	}
}

func TestRingStartsSafelyOverInsaneMemory(t *testing.T) {
	s := plainRing(t, 8, addrSize, 0)
	*s.producer, *s.consumer = 5, 1<<30
	p := newProducer(s)
	require.Zero(t, p.room(1), "an impossible distance means full")
	require.NotZero(t, p.insane)

	*s.producer, *s.consumer = 1<<30, 5
	c := newConsumer(s)
	require.Zero(t, c.ready(1), "an impossible distance means empty")
	require.NotZero(t, c.insane)
}

func TestNeedWakeup(t *testing.T) {
	s := plainRing(t, 8, addrSize, 0)
	p := newProducer(s)
	require.False(t, p.needWakeup())
	*s.flags = unix.XDP_RING_NEED_WAKEUP
	require.True(t, p.needWakeup())
	*s.flags = ^uint32(unix.XDP_RING_NEED_WAKEUP)
	require.False(t, p.needWakeup(), "other flags mean nothing")
}

// Two goroutines, one ring: every entry arrives once, in order, whatever the scheduling. Under the race detector this
// proves the ordering of index and entry.
func TestRingBetweenGoroutines(t *testing.T) {
	const entries = 200_000
	s := plainRing(t, 64, descSize, math.MaxUint32-100)
	p, c := newProducer(s), newConsumer(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sent := uint64(0); sent < entries; {
			n := min(p.room(16), 16)
			if n == 0 {
				runtime.Gosched()
			}
			for range n {
				*p.desc(p.own) = unix.XDPDesc{Addr: sent, Len: uint32(sent) ^ 0x5a5a}
				p.own++
				sent++
			}
			p.publish()
		}
	}()
	for want := uint64(0); want < entries; {
		n := min(c.ready(16), 16)
		if n == 0 {
			runtime.Gosched()
		}
		for range n {
			d := c.desc(c.own)
			if d.Addr != want || d.Len != uint32(want)^0x5a5a {
				t.Fatalf("entry %d: got %+v", want, *d)
			}
			c.own++
			want++
		}
		c.publish()
	}
	<-done
	require.Zero(t, p.insane+c.insane)
}

// FuzzRing drives a ring against a naive model while the other side's index takes any value: the ring never admits more
// entries than it has, and what it believes only moves forward.
func FuzzRing(f *testing.F) {
	f.Add(uint32(0), []byte{1, 2, 3})
	f.Add(uint32(math.MaxUint32-2), []byte{0xff, 0, 0x80, 7, 9})
	f.Fuzz(func(t *testing.T, start uint32, script []byte) {
		const size = 16
		random := rand.New(rand.NewPCG(uint64(start), uint64(len(script))))
		sp, sc := plainRing(t, size, addrSize, start), plainRing(t, size, addrSize, start)
		p, c := newProducer(sp), newConsumer(sc)
		for _, step := range script {
			index := start + uint32(step&0x3f) - 8
			if step&0x40 != 0 {
				index = random.Uint32()
			}
			atomic.StoreUint32(sp.consumer, index)
			atomic.StoreUint32(sc.producer, index)
			want := uint32(step >> 4)
			peer, insane := p.peer, p.insane
			room := p.room(want)
			legal := index-peer <= p.own-peer
			require.LessOrEqual(t, room, uint32(size))
			require.True(t, p.peer == peer || p.peer == index && legal, "only a legal index is believed")
			require.True(t, p.insane == insane || !legal, "only an illegal one is counted")
			p.own += min(room, want)

			peer, insane = c.peer, c.insane
			ready := c.ready(want)
			legal = index-c.own <= size && index-c.own >= peer-c.own
			require.LessOrEqual(t, ready, uint32(size))
			require.True(t, c.peer == peer || c.peer == index && legal, "only a legal index is believed")
			require.True(t, c.insane == insane || !legal, "only an illegal one is counted")
			c.own += min(ready, want)
			*p.addr(p.own), *c.addr(c.own) = 1, 2 // within the entries, whatever the index
		}
	})
}
