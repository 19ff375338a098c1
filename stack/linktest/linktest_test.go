package linktest_test

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/linktest"
)

// numbered makes a frame of n bytes for the second end, with a number in it.
func numbered(i, n int) []byte {
	f := make([]byte, n)
	copy(f, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00")
	f[14], f[15], f[16] = byte(i>>16), byte(i>>8), byte(i)
	return f
}

func number(f []byte) int { return int(f[14])<<16 | int(f[15])<<8 | int(f[16]) }

// drain takes every frame that has arrived.
func drain(e *linktest.End) (frames [][]byte) {
	for f := e.Take(); f != nil; f = e.Take() {
		frames = append(frames, f)
	}
	return frames
}

// pump sends count frames a microsecond apart from end 0 and returns what
// arrived at end 1, in order, with times.
type received struct {
	at    time.Duration
	frame []byte
}

func pump(t *testing.T, w *linktest.Wire, count, size int) (got []received) {
	t.Helper()
	take := func() {
		for _, f := range drain(w.End(1)) {
			got = append(got, received{w.Now(), f})
		}
	}
	for i := range count {
		at := time.Duration(i) * time.Microsecond
		for next, ok := w.NextEvent(); ok && next <= at; next, ok = w.NextEvent() {
			w.Advance(next)
			take()
		}
		w.Advance(at)
		require.True(t, w.End(0).Inject(numbered(i, size)))
	}
	for next, ok := w.NextEvent(); ok; next, ok = w.NextEvent() {
		w.Advance(next)
		take()
	}
	return got
}

func TestFramesArriveInOrderAndUnchanged(t *testing.T) {
	w := linktest.New(linktest.Config{})
	got := pump(t, w, 100, 60)
	require.Len(t, got, 100)
	for i, r := range got {
		require.Equal(t, numbered(i, 60), r.frame)
	}
	require.Equal(t, uint64(100), w.End(0).Stats().Sent)
	require.Equal(t, uint64(100), w.End(1).Stats().Received)
	require.Nil(t, w.End(0).Take(), "nobody hears itself")
}

func TestNothingLeavesBeforeFlush(t *testing.T) {
	w := linktest.New(linktest.Config{})
	a, b := w.End(0), w.End(1)
	f := a.Alloc()
	require.Len(t, f, 1522)
	require.Equal(t, 1522, cap(f))
	require.True(t, a.Send(f[:copy(f, numbered(1, 60))]))
	require.Nil(t, b.Take())
	require.False(t, a.Flush())
	require.Equal(t, numbered(1, 60), b.Take())
}

func TestLentFrameIsAnsweredInPlace(t *testing.T) {
	w := linktest.New(linktest.Config{})
	a, b := w.End(0), w.End(1)
	require.True(t, a.Inject(numbered(1, 60)))
	require.Equal(t, 1, b.Poll(8, func(f []byte) {
		require.Equal(t, 1522, cap(f), "room for a longer answer")
		f = append(f, "more"...)
		require.True(t, b.Send(f))
	}))
	b.Flush()
	require.Equal(t, append(numbered(1, 60), "more"...), a.Take())
}

func TestKeptFrameReadsNonsense(t *testing.T) {
	w := linktest.New(linktest.Config{})
	require.True(t, w.End(0).Inject(numbered(1, 300)))
	var kept []byte
	w.End(1).Poll(1, func(f []byte) { kept = f })
	require.Equal(t, bytes.Repeat([]byte{0xDB}, 300), kept)
}

func TestBrokenOwnershipPanics(t *testing.T) {
	w := linktest.New(linktest.Config{})
	a, b := w.End(0), w.End(1)
	f := a.Alloc()
	require.Panics(t, func() { a.Send(f[1:]) }, "not the beginning of a frame")
	require.Panics(t, func() { b.Send(f) }, "another end's frame")
	require.Panics(t, func() { a.Send(make([]byte, 60)) }, "a foreign frame")
	require.Panics(t, func() { a.Send(nil) })
	a.Send(f[:60])
	require.Panics(t, func() { a.Send(f[:60]) }, "sent twice")
	require.Panics(t, func() { a.Free(f) }, "freed after Send")
	a.Flush()
	var kept []byte
	b.Poll(1, func(f []byte) {
		kept = f
		require.Panics(t, func() { b.Free(f) }, "Poll frees what it lends")
	})
	require.Panics(t, func() { b.Send(kept) }, "sent after Poll")
	require.Panics(t, func() { linktest.New(linktest.Config{RealTime: true}).Advance(1) })
}

func TestTransmitRingFills(t *testing.T) {
	w := linktest.New(linktest.Config{Ring: 4})
	a, b := w.End(0), w.End(1)
	a.SetStalled(true)
	var frames [][]byte
	for range 4 {
		frames = append(frames, a.Alloc())
	}
	require.Nil(t, a.Alloc())
	a.Free(frames[0])
	frames[0] = a.Alloc()
	require.NotNil(t, frames[0])
	for _, f := range frames {
		require.True(t, a.Send(f[:60]), "after Alloc, Send cannot fail")
	}
	require.True(t, a.Flush(), "stalled: frames remain")

	require.True(t, b.Inject(numbered(1, 60)))
	a.Poll(1, func(f []byte) { require.False(t, a.Send(f), "no room for a lent frame") })
	require.False(t, a.Inject(numbered(1, 60)))

	a.SetStalled(false)
	require.False(t, a.Flush())
	require.Len(t, drain(b), 4)
	require.NotNil(t, a.Alloc())
}

func TestReceiveRingOverflows(t *testing.T) {
	w := linktest.New(linktest.Config{Ring: 4})
	for i := range 10 {
		require.True(t, w.End(0).Inject(numbered(i, 60)))
	}
	got := drain(w.End(1))
	require.Len(t, got, 4)
	require.Equal(t, 3, number(got[3]), "the first ones stay")
	require.Equal(t, uint64(6), w.End(1).Stats().Overflowed)
}

func TestPollKeepsToItsBudget(t *testing.T) {
	w := linktest.New(linktest.Config{})
	for i := range 5 {
		require.True(t, w.End(0).Inject(numbered(i, 60)))
	}
	require.Equal(t, 3, w.End(1).Poll(3, func([]byte) {}))
	require.Equal(t, 2, w.End(1).Poll(3, func([]byte) {}))
	require.Equal(t, 0, w.End(1).Poll(3, func([]byte) {}))
}

func TestMTUHoldsForTheIPPacket(t *testing.T) {
	w := linktest.New(linktest.Config{Ends: []linktest.EndConfig{{MTU: 100}, {MTU: 1000}}})
	a, b := w.End(0), w.End(1)
	require.Equal(t, 100, a.MTU())
	require.True(t, a.Inject(numbered(1, 114)))
	require.True(t, a.Inject(numbered(2, 115)))
	tagged := numbered(3, 118)
	copy(tagged[12:], "\x81\x00\x00\x05\x08\x00")
	require.True(t, a.Inject(tagged), "a tag does not count")
	qinq := numbered(4, 122)
	copy(qinq[12:], "\x88\xa8\x00\x05\x81\x00\x00\x05\x08\x00")
	require.True(t, a.Inject(qinq))
	require.Len(t, drain(b), 3)
	require.Equal(t, uint64(1), a.Stats().Unsendable)

	require.True(t, b.Inject(numbered(5, 1014)), "what arrives may be longer than one's own MTU")
	require.Len(t, a.Take(), 1014)
	require.False(t, b.Inject(numbered(6, 2000)), "longer than any buffer")
}

func TestEndsDescribeThemselves(t *testing.T) {
	w := linktest.New(linktest.Config{Ends: []linktest.EndConfig{{}, {PartialChecksums: true, HardwareAddr: [6]byte{2, 9}}}})
	require.Equal(t, [6]byte{2, 0, 0, 0, 0, 1}, w.End(0).HardwareAddr())
	require.Equal(t, [6]byte{2, 9}, w.End(1).HardwareAddr())
	require.False(t, w.End(0).PartialChecksums())
	require.True(t, w.End(1).PartialChecksums())
	require.Equal(t, 1500, w.End(1).MTU())
	require.Contains(t, w.String(), "end 1: 0 sent")
}

func TestHubAndSwitch(t *testing.T) {
	for _, sw := range []bool{false, true} {
		t.Run(fmt.Sprintf("switch %v", sw), func(t *testing.T) {
			w := linktest.New(linktest.Config{Ends: make([]linktest.EndConfig, 4), Switch: sw})
			require.True(t, w.End(0).Inject(numbered(7, 60))) // for the second end
			require.Equal(t, numbered(7, 60), w.End(1).Take())
			if sw {
				require.Nil(t, w.End(2).Take())
				require.Nil(t, w.End(3).Take())
			} else {
				require.Equal(t, numbered(7, 60), w.End(2).Take())
				require.Equal(t, numbered(7, 60), w.End(3).Take())
			}
			broadcast := numbered(8, 60)
			copy(broadcast, "\xff\xff\xff\xff\xff\xff")
			require.True(t, w.End(3).Inject(broadcast))
			for i := range 3 {
				require.Equal(t, broadcast, w.End(i).Take())
			}
			require.Nil(t, w.End(3).Take())

			nobody := numbered(9, 60)
			nobody[5] = 77
			require.True(t, w.End(0).Inject(nobody))
			require.True(t, w.End(0).Inject([]byte{1, 2, 3}), "a runt goes to all")
			if sw {
				require.Equal(t, uint64(1), w.End(0).Stats().NoReceiver)
				require.Equal(t, [][]byte{{1, 2, 3}}, drain(w.End(2)))
			}
		})
	}
}

func TestLatencyAndBandwidth(t *testing.T) {
	w := linktest.New(linktest.Config{})
	a, b := w.End(0), w.End(1)
	// 1000 bytes take a millisecond.
	a.SetFaults(linktest.Faults{Latency: 10 * time.Millisecond, Bandwidth: 8_000_000, Queue: 2500})
	for i := range 6 {
		require.True(t, a.Inject(numbered(i, 1000)))
	}
	require.Equal(t, uint64(3), a.Stats().QueueDropped, "a frame that finds 3000 or more bytes waiting")
	w.Advance(11*time.Millisecond - 1)
	require.Nil(t, b.Take())
	for i := range 3 {
		next, ok := w.NextEvent()
		require.True(t, ok)
		require.Equal(t, time.Duration(11+i)*time.Millisecond, next)
		w.Advance(next)
		again, ok := w.NextEvent()
		require.True(t, ok)
		require.Equal(t, next, again, "an arrived frame is an event until it is polled")
		require.Equal(t, i, number(b.Take()))
	}
	_, ok := w.NextEvent()
	require.False(t, ok)
	w.Advance(0)
	require.Equal(t, 13*time.Millisecond, w.Now(), "time never goes back")
}

// within wants a share of hits near p: five standard deviations and one.
func within(t *testing.T, p float64, hits uint64, of int, what string) {
	t.Helper()
	n := float64(of)
	require.InDelta(t, p*n, float64(hits), 5*sqrt(n*p*(1-p))+1, what)
}

func sqrt(x float64) float64 {
	z := x/2 + 1
	for range 60 {
		z = (z + x/z) / 2
	}
	return z
}

const many = 20_000

func faulty(seed uint64, f linktest.Faults) *linktest.Wire {
	return linktest.New(linktest.Config{Seed: seed, Ends: []linktest.EndConfig{{Faults: f}, {}}})
}

func TestLossRate(t *testing.T) {
	w := faulty(1, linktest.Faults{Loss: 0.03})
	got := pump(t, w, many, 60)
	s := w.End(0).Stats()
	within(t, 0.03, s.Lost, many, "lost")
	require.Equal(t, uint64(many), s.Lost+uint64(len(got)))
}

func TestDuplicationRate(t *testing.T) {
	w := faulty(2, linktest.Faults{Duplicate: 0.05})
	got := pump(t, w, many, 60)
	s := w.End(0).Stats()
	within(t, 0.05, s.Duplicated, many, "duplicated")
	require.Equal(t, many+s.Duplicated, uint64(len(got)))
	twice := uint64(0)
	for i := 1; i < len(got); i++ {
		if bytes.Equal(got[i-1].frame, got[i].frame) {
			twice++
		}
	}
	require.Equal(t, s.Duplicated, twice, "the copy comes right behind")
}

func TestReorderRate(t *testing.T) {
	w := faulty(3, linktest.Faults{Reorder: 0.02, ReorderDelay: 10 * time.Microsecond})
	got := pump(t, w, many, 60)
	require.Len(t, got, many)
	s := w.End(0).Stats()
	within(t, 0.02, s.Reordered, many, "held back")
	late := uint64(0)
	for _, r := range got {
		if r.at != time.Duration(number(r.frame))*time.Microsecond {
			require.Equal(t, time.Duration(number(r.frame)+10)*time.Microsecond, r.at)
			late++
		}
	}
	require.Equal(t, s.Reordered, late)
}

func TestReorderHasADelayOfItsOwn(t *testing.T) {
	w := faulty(3, linktest.Faults{Reorder: 1})
	require.True(t, w.End(0).Inject(numbered(1, 60)))
	w.End(0).SetFaults(linktest.Faults{})
	require.True(t, w.End(0).Inject(numbered(2, 60)))
	require.Equal(t, 2, number(w.End(1).Take()))
	w.Advance(time.Millisecond)
	require.Equal(t, 1, number(w.End(1).Take()))
}

func TestJitterKeepsTheOrder(t *testing.T) {
	const latency, jitter = 100 * time.Microsecond, 50 * time.Microsecond
	w := faulty(4, linktest.Faults{Latency: latency, Jitter: jitter})
	got := pump(t, w, many, 60)
	require.Len(t, got, many)
	spread := map[time.Duration]bool{}
	for i, r := range got {
		require.Equal(t, i, number(r.frame))
		delay := r.at - time.Duration(i)*time.Microsecond
		require.GreaterOrEqual(t, delay, latency)
		require.LessOrEqual(t, delay, latency+jitter)
		spread[delay/(10*time.Microsecond)] = true
	}
	require.GreaterOrEqual(t, len(spread), 3, "delays differ")
}

func TestCorruptionRate(t *testing.T) {
	for _, flips := range []int{0, 1, 3} {
		w := faulty(5, linktest.Faults{Corrupt: 0.04, CorruptBits: flips})
		got := pump(t, w, many, 60)
		require.Len(t, got, many)
		s := w.End(0).Stats()
		within(t, 0.04, s.Corrupted, many, "corrupted")
		changed := uint64(0)
		places := map[int]bool{}
		for i, r := range got {
			bits := 0
			for at, x := range numbered(i, 60) {
				for d := x ^ r.frame[at]; d != 0; d &= d - 1 {
					bits++
					places[at] = true
				}
			}
			if bits > 0 {
				require.LessOrEqual(t, bits, max(1, flips))
				changed++
			}
		}
		// Two of three flips may meet in one bit and leave fewer.
		require.InDelta(t, float64(s.Corrupted), float64(changed), float64(flips))
		require.Greater(t, len(places), 50, "anywhere in the frame")
	}
}

func TestTruncationRate(t *testing.T) {
	w := faulty(6, linktest.Faults{Truncate: 0.04})
	got := pump(t, w, many, 60)
	require.Len(t, got, many)
	s := w.End(0).Stats()
	within(t, 0.04, s.Truncated, many, "truncated")
	short, lengths := uint64(0), map[int]bool{}
	for _, r := range got {
		require.NotEmpty(t, r.frame)
		if len(r.frame) < 60 {
			short++
			lengths[len(r.frame)] = true
		}
	}
	require.Equal(t, s.Truncated, short)
	require.Greater(t, len(lengths), 50, "every length")
}

func all() linktest.Faults {
	return linktest.Faults{
		Latency: time.Millisecond, Jitter: 50 * time.Microsecond, Bandwidth: 1_000_000_000, Queue: 1500,
		Loss: 0.05, Duplicate: 0.05, Reorder: 0.05, ReorderDelay: 100 * time.Microsecond,
		Corrupt: 0.05, CorruptBits: 2, Truncate: 0.05,
	}
}

func fingerprint(got []received) uint64 {
	h := fnv.New64a()
	for _, r := range got {
		fmt.Fprintf(h, "%d %x\n", r.at, r.frame)
	}
	return h.Sum64()
}

func TestSameSeedSameFate(t *testing.T) {
	first := fingerprint(pump(t, faulty(7, all()), 5000, 200))
	require.Equal(t, first, fingerprint(pump(t, faulty(7, all()), 5000, 200)))
	require.NotEqual(t, first, fingerprint(pump(t, faulty(8, all()), 5000, 200)))
}

func TestOneFaultDoesNotChangeWhatAnotherHits(t *testing.T) {
	lost := func(f linktest.Faults) map[int]bool {
		gone := map[int]bool{}
		for i := range 2000 {
			gone[i] = true
		}
		for _, r := range pump(t, faulty(9, f), 2000, 60) {
			delete(gone, number(r.frame))
		}
		return gone
	}
	alone := lost(linktest.Faults{Loss: 0.05})
	require.NotEmpty(t, alone)
	require.Equal(t, alone, lost(linktest.Faults{Loss: 0.05, Duplicate: 0.3, Reorder: 0.3, Jitter: time.Millisecond, Latency: time.Second}))
}

func TestCountersAgree(t *testing.T) {
	w := faulty(10, all())
	got := pump(t, w, 5000, 200)
	a, b := w.End(0).Stats(), w.End(1).Stats()
	require.Equal(t, uint64(5000), a.Sent)
	require.NotZero(t, a.QueueDropped)
	require.Equal(t, a.Sent-a.Lost-a.QueueDropped+a.Duplicated, b.Received+b.Overflowed)
	require.Equal(t, uint64(len(got)), b.Received)
}

func TestDirectionsHaveTheirOwnFaults(t *testing.T) {
	w := faulty(1, linktest.Faults{Loss: 1})
	require.True(t, w.End(0).Inject(numbered(1, 60)))
	require.Nil(t, w.End(1).Take())
	require.True(t, w.End(1).Inject(numbered(2, 60)))
	require.NotNil(t, w.End(0).Take())
}

func TestVirtualWaitReturnsAtOnce(t *testing.T) {
	w := linktest.New(linktest.Config{})
	require.NoError(t, w.End(0).Wait(-1))
	require.NoError(t, w.End(0).Wait(time.Hour))
}

func TestFailedDevice(t *testing.T) {
	for _, real := range []bool{false, true} {
		w := linktest.New(linktest.Config{RealTime: real})
		gone := fmt.Errorf("device went: %w", syscall.ENODEV)
		done := make(chan error)
		if real {
			go func() { done <- w.End(0).Wait(-1) }()
			w.End(0).Fail(gone)
			require.ErrorIs(t, <-done, syscall.ENODEV)
		}
		w.End(0).Fail(gone)
		require.ErrorIs(t, w.End(0).Wait(0), syscall.ENODEV)
		require.True(t, w.End(0).Inject(numbered(1, 60)))
		require.Nil(t, w.End(1).Take())
		require.Equal(t, uint64(1), w.End(0).Stats().Unsendable)
		w.End(0).Fail(nil)
		require.NoError(t, w.End(0).Wait(0), "it came back")
	}
}

// TestRealTimePingPong lets two goroutines answer each other; nothing but Wait
// paces them.
func TestRealTimePingPong(t *testing.T) {
	const rounds = 300
	f := linktest.Faults{Latency: 20 * time.Microsecond, Jitter: 20 * time.Microsecond}
	w := linktest.New(linktest.Config{RealTime: true, Ends: []linktest.EndConfig{{Faults: f}, {Faults: f}}})
	var group sync.WaitGroup
	stop := make(chan struct{})
	group.Go(func() {
		e := w.End(1)
		for {
			e.Poll(8, func(frame []byte) { e.Send(frame) })
			e.Flush()
			select {
			case <-stop:
				return
			default:
			}
			if e.Wait(-1) != nil {
				return
			}
		}
	})
	e := w.End(0)
	for i := range rounds {
		require.True(t, e.Inject(numbered(i, 60)))
		var got []byte
		for got == nil {
			require.NoError(t, e.Wait(10*time.Second))
			got = e.Take()
		}
		require.Equal(t, i, number(got))
	}
	close(stop)
	w.End(1).Wake()
	group.Wait()
	require.GreaterOrEqual(t, w.Now(), 2*rounds*20*time.Microsecond)
}

func TestRealTimeWaitEnds(t *testing.T) {
	w := linktest.New(linktest.Config{RealTime: true})
	e := w.End(0)
	e.Wake()
	require.NoError(t, e.Wait(-1), "a wake before the sleep counts")
	before := w.Now()
	require.NoError(t, e.Wait(2*time.Millisecond))
	require.GreaterOrEqual(t, w.Now()-before, 2*time.Millisecond)
	require.NoError(t, e.Wait(0))

	done := make(chan error)
	go func() { done <- e.Wait(-1) }()
	e.Wake()
	require.NoError(t, <-done)
	go func() { done <- e.Wait(time.Hour) }()
	require.True(t, w.End(1).Inject(numbered(1, 60)))
	require.NoError(t, <-done)
	require.NotNil(t, e.Take())
}

func TestWireDoesNotAllocate(t *testing.T) {
	w := linktest.New(linktest.Config{Seed: 1, Ends: []linktest.EndConfig{
		{Faults: linktest.Faults{Duplicate: 0.1, Loss: 0.1, Reorder: 0.1, Jitter: time.Microsecond}}, {}, {}}})
	a, b := w.End(0), w.End(1)
	answer := func(f []byte) { b.Send(f) }
	ignore := func([]byte) {}
	at := time.Duration(0)
	round := func() {
		for range 16 {
			f := a.Alloc()
			a.Send(f[:60])
		}
		a.Flush()
		at += 10 * time.Millisecond
		w.Advance(at)
		b.Poll(64, answer)
		b.Flush()
		w.End(2).Poll(128, ignore)
		a.Poll(64, ignore)
	}
	for range 100 {
		round()
	}
	require.Zero(t, testing.AllocsPerRun(1000, round))
}

func TestBacklogKeepsItsOrder(t *testing.T) {
	w := linktest.New(linktest.Config{})
	next := 0
	for i := range 900 {
		require.True(t, w.End(0).Inject(numbered(i, 60)))
		if i%3 == 0 {
			require.Equal(t, next, number(w.End(1).Take()))
			next++
		}
	}
	for _, f := range drain(w.End(1)) {
		require.Equal(t, next, number(f))
		next++
	}
	require.Equal(t, 900, next)
}
