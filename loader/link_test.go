package loader

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testFrame is a frame of n bytes, recognisable by its number.
func testFrame(n, number int) []byte {
	frame := make([]byte, n)
	for i := range frame {
		frame[i] = byte(number + i*7)
	}
	return frame
}

// drop is an input that only looks.
func drop([]byte) {}

func TestPollLendsFramesAndGivesTheirMemoryBack(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			l, k := newFake(t, fakeConfig{start: start})
			for round := range 40 {
				n := round%16 + 1
				for i := range n {
					require.True(t, k.deliver(testFrame(60+i, round+i)))
				}
				seen := 0
				got := l.Poll(64, func(frame []byte) {
					require.Equal(t, testFrame(60+seen, round+seen), frame)
					require.Equal(t, 2048-headroom, cap(frame), "capacity reaches the chunk's end")
					seen++
				})
				require.Equal(t, n, got)
				require.Zero(t, l.Poll(64, drop))
				k.wantWhole(l)
			}
		})
	}
}

func TestPollKeepsToItsBudget(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	for i := range 10 {
		require.True(t, k.deliver(testFrame(60, i)))
	}
	require.Zero(t, l.Poll(0, drop))
	require.Zero(t, l.Poll(-1, drop))
	require.Equal(t, 3, l.Poll(3, drop))
	require.Equal(t, 7, l.Poll(100, drop))
	require.EqualValues(t, 10, l.Counters().RxFrames)
	require.EqualValues(t, 600, l.Counters().RxBytes)
}

func TestPeekShowsWhatPollLends(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			l, k := newFake(t, fakeConfig{start: start, ring: 64, mtu: 9000, joins: true})
			var seen [][]byte
			look := func(frame []byte) { seen = append(seen, bytes.Clone(frame)) }
			l.Peek(64, look)
			require.Empty(t, seen)
			for _, n := range []int{60, 1792, 4000, 61, 9014, 62, 63} {
				require.True(t, k.deliver(testFrame(n, n)))
			}
			whole := [][]byte{testFrame(60, 60), testFrame(1792, 1792), testFrame(61, 61), testFrame(62, 62), testFrame(63, 63)}
			l.Peek(0, look)
			l.Peek(-1, look)
			require.Empty(t, seen)
			l.Peek(2, look)
			require.Equal(t, whole[:2], seen)
			seen = nil
			l.Peek(64, look)
			require.Equal(t, whole, seen, "those in one buffer")
			require.Equal(t, 2, l.Poll(4, drop), "a third of which a buffer is still to come")
			seen = nil
			l.Peek(64, look)
			require.Equal(t, whole[2:], seen)
			require.Equal(t, 5, l.Poll(64, drop))
			k.wantWhole(l)
		})
	}
}

func TestSendAnswersInPlace(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	k.keep = true
	require.True(t, k.deliver(testFrame(60, 1)))
	require.True(t, k.deliver(testFrame(61, 2)))
	require.True(t, k.deliver(testFrame(62, 3)))
	turn := 0
	l.Poll(64, func(frame []byte) {
		switch turn++; turn {
		case 1:
			require.True(t, l.Send(frame))
			require.False(t, l.Send(frame), "it is the link's now")
		case 2: // kept by nobody
		case 3:
			require.True(t, l.Send(frame[4:cap(frame)][:100]), "resliced at both ends")
		}
	})
	require.False(t, l.Flush())
	require.Len(t, k.sent, 2)
	require.Equal(t, testFrame(60, 1), k.sent[0])
	require.Equal(t, testFrame(62, 3)[4:], k.sent[1][:58])
	require.Len(t, k.sent[1], 100)
	k.wantWhole(l)
	l.Flush()
	require.EqualValues(t, 2, l.Counters().Completions)
	k.wantWhole(l)
}

func TestSendOfAllocatedFrames(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	k.keep = true
	for round := range 50 {
		frame := l.Alloc()
		require.Len(t, frame, 1500+frameExtra)
		require.Equal(t, len(frame), cap(frame))
		require.True(t, l.Send(frame[:copy(frame, testFrame(60+round, round))]))
		unsent := l.Alloc()
		l.Free(unsent[10:20])
		require.False(t, l.Flush())
		require.Equal(t, testFrame(60+round, round), k.sent[round])
		k.wantWhole(l)
	}
	require.EqualValues(t, 50, l.Counters().TxFrames)
	require.EqualValues(t, 0, l.reserved)
}

// After an Alloc a Send cannot fail: Alloc sets the room aside, and a frame sent in place does not get it.
func TestAllocReservesRoom(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	k.lag = true
	var frames [][]byte
	for {
		frame := l.Alloc()
		if frame == nil {
			break
		}
		frames = append(frames, frame)
	}
	require.Len(t, frames, 16, "as many as the ring holds")
	require.True(t, k.deliver(testFrame(60, 1)))
	l.Poll(1, func(frame []byte) { require.False(t, l.Send(frame), "all room is reserved") })
	for _, frame := range frames {
		require.True(t, l.Send(frame[:60]))
	}
	l.Flush()
	require.Nil(t, l.Alloc(), "the card has not completed them")
	k.wantWhole(l)
	k.release()
	require.NotNil(t, l.Alloc(), "Alloc itself reaps completions")
	require.NotZero(t, l.Counters().TxFull)
}

// A link that sends all that it can, with a card that completes nothing, goes on receiving.
func TestSendingDoesNotStarveReceiving(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	k.lag = true
	for i := range 100 {
		require.True(t, k.deliver(testFrame(60, i)), "frame %d", i)
		require.Equal(t, 1, l.Poll(64, func(frame []byte) { l.Send(frame) }))
		l.Flush()
		k.wantWhole(l)
	}
	require.EqualValues(t, 16, l.Counters().TxFrames)
	require.EqualValues(t, 84, l.Counters().TxFull)
}

func TestSendRefusesWhatIsNoFrame(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	require.False(t, l.Send(nil))
	require.False(t, l.Send(make([]byte, 100)), "not the link's memory")
	require.False(t, l.Send(l.Alloc()[:13]), "shorter than an Ethernet header")
	require.True(t, k.deliver(testFrame(60, 1)))
	l.Poll(1, func(frame []byte) {
		require.False(t, l.Send(frame[:0]))
		require.False(t, l.Send(frame[:1500+frameExtra+1]), "longer than the MTU allows")
		require.True(t, l.Send(frame[:1500+frameExtra]), "it was still lent")
	})
	l.Free(make([]byte, 100))
	l.Free(nil)
	frame := l.Alloc()
	require.True(t, l.Send(frame[:60]))
	require.False(t, l.Send(frame[:60]), "it is the link's now")
	l.Free(frame)
	require.EqualValues(t, 9, l.Counters().TxInvalid)
	require.EqualValues(t, 0, l.reserved)
	k.wantWhole(l)
}

func TestFreeLeavesALentFrameAlone(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	require.True(t, k.deliver(testFrame(60, 1)))
	l.Poll(1, func(frame []byte) { l.Free(frame) })
	k.wantWhole(l)
	require.Zero(t, l.Counters().TxInvalid)
}

func TestInvalidReceiveDescriptorsAreCounted(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	chunk := *k.fill.addr(k.fill.own)
	k.describe(unix.XDPDesc{Addr: chunk + headroom, Len: 2048 - headroom + 1})
	k.describe(unix.XDPDesc{Addr: k.umem.singles, Len: 60})
	k.describe(unix.XDPDesc{Addr: math.MaxUint64, Len: 60})
	k.describe(unix.XDPDesc{Addr: 1 << 63, Len: math.MaxUint32})
	l.Peek(64, func([]byte) { t.Fatal("shown") })
	require.Zero(t, l.Counters().RxInvalid, "Poll counts them, once")
	require.Zero(t, l.Poll(64, func([]byte) { t.Fatal("lent") }))
	require.EqualValues(t, 4, l.Counters().RxInvalid)
}

func TestInvalidCompletionsAreIgnored(t *testing.T) {
	for name, mtu := range map[string]int{"single chunks": 1500, "runs": 9000} {
		t.Run(name, func(t *testing.T) {
			l, k := newFake(t, fakeConfig{mtu: mtu})
			k.complete(0)
			k.complete(math.MaxUint64)
			k.complete(uint64(len(k.umem.memory)))
			k.complete(k.umem.singles)
			l.Flush()
			require.EqualValues(t, 4, l.Counters().CompletionInvalid)
			require.Zero(t, l.Counters().Completions)
			k.wantWhole(l)
			require.True(t, l.Send(l.Alloc()[:60]))
			l.Flush()
			l.Flush()
			require.EqualValues(t, 1, l.Counters().Completions)
		})
	}
}

func TestInsaneIndicesAreCounted(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	*k.shared.rx.producer = 1 << 20
	*k.shared.completion.producer = 1 << 20
	require.Zero(t, l.Poll(64, func([]byte) { t.Fatal("lent") }))
	l.Flush()
	require.EqualValues(t, 2, l.Counters().RingInsane)
}

// The answers of sendto, one by one (net/xdp/xsk.c, __xsk_generic_xmit).
func TestFlushHandlesEveryAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  []error
		pending bool
		kicks   int
		left    uint32 // frames still on the TX ring
		count   func(Counters) uint64
	}{
		{"sent", nil, false, 1, 0, func(c Counters) uint64 { return 1 }},
		{"EAGAIN without progress", []error{unix.EAGAIN}, true, 1, 4, func(c Counters) uint64 { return c.KickAgain }},
		{"EBUSY drops one and goes on", []error{unix.EBUSY}, false, 2, 0, func(c Counters) uint64 { return c.KickDropped }},
		{"ENOBUFS keeps them", []error{unix.ENOBUFS}, true, 1, 4, func(c Counters) uint64 { return c.KickNoBuffers }},
		{"ENETDOWN keeps them, no hurry", []error{unix.ENETDOWN}, false, 1, 4, func(c Counters) uint64 { return c.KickDown }},
		{"EPERM is counted", []error{unix.EPERM}, false, 1, 4, func(c Counters) uint64 { return c.KickFailed }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, k := newFake(t, fakeConfig{})
			k.answer = c.answer
			for range 4 {
				require.True(t, l.Send(l.Alloc()[:60]))
			}
			require.Equal(t, c.pending, l.Flush())
			require.Equal(t, c.kicks, k.kicks)
			require.Equal(t, c.left, k.tx.ready(99))
			require.EqualValues(t, 1, c.count(l.Counters()))
			require.False(t, l.Flush(), "the next one sends what was left")
			require.Zero(t, k.tx.ready(99))
			l.Flush()
			require.EqualValues(t, 4, l.Counters().Completions)
			k.wantWhole(l)
		})
	}
}

// Kernels without XDP_MAX_TX_SKB_BUDGET send 32 frames a kick and say EAGAIN: one Flush sends all the same.
func TestFlushRepeatsWhileTheBudgetMovesFrames(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	k.budget = 3
	for range 10 {
		require.True(t, l.Send(l.Alloc()[:60]))
	}
	require.False(t, l.Flush())
	require.Equal(t, 4, k.kicks)
	require.EqualValues(t, 3, l.Counters().KickAgain)
	require.Zero(t, k.tx.ready(99))
}

// EAGAIN from a full completion ring repeats for ever unless completions are reaped first. Older kernels do not even say
// so.
func TestFlushReapsAFullCompletionRing(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		l, k := newFake(t, fakeConfig{completion: 4})
		k.quiet = quiet
		for range 10 {
			require.True(t, l.Send(l.Alloc()[:60]))
		}
		require.False(t, l.Flush())
		require.Zero(t, k.tx.ready(99))
		l.Flush()
		require.EqualValues(t, 10, l.Counters().Completions)
		k.wantWhole(l)
	}
}

// The card lost the transmit queue: sendto says that all is well and sends nothing. The engine may sleep, and each Flush
// tries again.
func TestFlushToAQueueThatIsNoMore(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	k.noQueue = true
	require.True(t, l.Send(l.Alloc()[:60]))
	require.False(t, l.Flush())
	require.False(t, l.Flush())
	require.Equal(t, 2, k.kicks)
	k.noQueue = false
	require.False(t, l.Flush())
	require.Zero(t, k.tx.ready(99))
}

func TestFlushKicksOnlyWhenTold(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	require.False(t, l.Flush())
	require.Zero(t, k.kicks, "nothing to send")
	*k.shared.tx.flags = 0
	require.True(t, l.Send(l.Alloc()[:60]))
	require.False(t, l.Flush())
	require.Zero(t, k.kicks, "the driver looks by itself")
	require.EqualValues(t, 1, k.tx.ready(1), "and the frame is there")
}

func TestFillRingWakeup(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	l.Poll(64, drop)
	require.Zero(t, k.fillKicks)
	*k.shared.fill.flags = unix.XDP_RING_NEED_WAKEUP
	l.Poll(64, drop)
	require.Equal(t, 1, k.fillKicks, "an empty poll calls the driver")
	require.True(t, k.deliver(testFrame(60, 1)))
	l.Poll(64, drop)
	require.Equal(t, 2, k.fillKicks, "so does refilling")
}

func TestBusyPollOnlyWithNAPI(t *testing.T) {
	for _, has := range []bool{false, true} {
		l, k := newFake(t, fakeConfig{busyPoll: true})
		k.hasNAPI = has
		l.Poll(64, drop)
		require.Equal(t, 1, k.fillKicks, "not known before the first frame")
		require.True(t, k.deliver(testFrame(60, 1)))
		l.Poll(64, drop)
		l.Poll(64, drop)
		l.Poll(64, drop)
		if has {
			require.Equal(t, 3, k.fillKicks)
		} else {
			require.Equal(t, 1, k.fillKicks, "polling would only cost")
		}
	}
}

func TestReceiveOnlyLink(t *testing.T) {
	l, k := newFake(t, fakeConfig{receiveOnly: true})
	require.False(t, l.CanSend())
	require.Nil(t, l.Alloc())
	require.True(t, k.deliver(testFrame(60, 1)))
	require.Equal(t, 1, l.Poll(64, func(frame []byte) { require.False(t, l.Send(frame)) }))
	require.False(t, l.Flush())
	require.Zero(t, k.kicks)
	require.EqualValues(t, 2, l.Counters().TxFull)
}

func TestJoinsFramesOfSeveralBuffers(t *testing.T) {
	l, k := newFake(t, fakeConfig{mtu: 9000, joins: true, ring: 64})
	k.keep = true
	for _, n := range []int{60, 1792, 1793, 3584, 3585, 9014, 60} {
		require.True(t, k.deliver(testFrame(n, n)))
	}
	var got [][]byte
	require.Equal(t, 7, l.Poll(64, func(frame []byte) {
		got = append(got, bytes.Clone(frame))
		if len(frame) > 1792 {
			require.Equal(t, longestJoined, cap(frame), "room to answer in place")
		}
		require.True(t, l.Send(frame))
	}))
	for i, n := range []int{60, 1792, 1793, 3584, 3585, 9014, 60} {
		require.Equal(t, testFrame(n, n), got[i])
	}
	require.False(t, l.Flush())
	require.Equal(t, got, k.sent)
	l.Flush()
	require.EqualValues(t, 4, l.Counters().RxJoined)
	require.EqualValues(t, 7, l.Counters().RxFrames)
	k.wantWhole(l)
}

// A frame's buffers may be published apart, and Poll's budget may cut between them.
func TestJoinsAcrossPolls(t *testing.T) {
	l, k := newFake(t, fakeConfig{mtu: 9000, joins: true, ring: 64})
	require.True(t, k.deliver(testFrame(9014, 5)))
	polls := 1
	for ; l.Poll(1, func(frame []byte) { require.Equal(t, testFrame(9014, 5), frame) }) == 0; polls++ {
		k.wantWhole(l)
	}
	require.Equal(t, 6, polls)
	k.wantWhole(l)
}

func TestDropsJoinedFramesThatAreTooLong(t *testing.T) {
	l, k := newFake(t, fakeConfig{mtu: 9000, joins: true, ring: 128})
	require.True(t, k.deliver(testFrame(longestJoined+1, 1)))
	require.True(t, k.deliver(testFrame(longestJoined, 2)))
	require.Equal(t, 0, l.Poll(39, drop), "the long one is dropped")
	require.EqualValues(t, 1, l.Counters().RxTooLong)
	require.Equal(t, 1, l.Poll(39, func(frame []byte) {
		require.Len(t, frame, longestJoined)
		require.False(t, l.Send(frame), "longer than the MTU allows")
	}))
	k.wantWhole(l)
}

// Without multi-buffer the kernel never continues a frame; should it, nothing is lent.
func TestContinuedBufferWithoutScatterIsDropped(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	require.True(t, k.deliver(testFrame(3000, 1)))
	require.Zero(t, l.Poll(64, drop))
	require.EqualValues(t, 1, l.Counters().RxTooLong)
	k.wantWhole(l)
}

func TestSendsLongFramesInRuns(t *testing.T) {
	l, k := newFake(t, fakeConfig{mtu: 9000, ring: 64})
	k.keep = true
	for i, n := range []int{60, 2048, 2049, 4096, 9018} {
		frame := l.Alloc()
		require.Len(t, frame, 9018)
		require.True(t, l.Send(frame[:copy(frame, testFrame(n, n))]))
		require.False(t, l.Flush())
		require.Equal(t, testFrame(n, n), k.sent[i])
		k.wantWhole(l)
	}
	frame := l.Alloc()
	copy(frame, testFrame(9018, 3))
	require.True(t, l.Send(frame[4:]), "resliced: the first piece is shorter")
	l.Flush()
	require.Equal(t, testFrame(9018, 3)[4:], k.sent[5])
	l.Free(l.Alloc()[5000:])
	l.Flush()
	k.wantWhole(l)
	require.Zero(t, l.inFlight)
}

// All frames of runs can be out at once, none is lost, and the room for answers in place is what is left of the ring.
func TestRunsRunOut(t *testing.T) {
	l, k := newFake(t, fakeConfig{mtu: 9000, ring: 64})
	k.lag = true
	n := 0
	for frame := l.Alloc(); frame != nil; frame = l.Alloc() {
		require.True(t, l.Send(frame))
		n++
	}
	require.Equal(t, 64/5, n)
	l.Flush()
	k.wantWhole(l)
	k.release()
	l.Flush()
	k.wantWhole(l)
	require.Len(t, k.umem.freeRuns, 64/5)
}

// Anything that an owner and a kernel may do in any order keeps every chunk at one station. The seed is fixed.
func TestChunksAreNeverLost(t *testing.T) {
	for name, c := range map[string]fakeConfig{
		"single chunks": {start: math.MaxUint32 - 100},
		"runs":          {start: math.MaxUint32 - 100, mtu: 9000, joins: true, ring: 64},
		"large chunks":  {chunk: 4096, mtu: 3500, joins: true},
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			l, k := newFake(t, c)
			var held [][]byte
			input := func(frame []byte) {
				switch random.IntN(4) {
				case 0:
					l.Send(frame)
				case 1:
					l.Send(frame[min(4, len(frame)):])
				case 2:
					if out := l.Alloc(); out != nil {
						require.True(t, l.Send(out[:copy(out, frame)]))
					}
				}
			}
			for range 4_000 {
				switch random.IntN(9) {
				case 0, 1, 2:
					k.deliver(testFrame(60+random.IntN(l.MTU()-60), random.IntN(256)))
				case 3, 4:
					l.Poll(random.IntN(20), input)
				case 5:
					k.lag = random.IntN(2) == 0
					l.Flush()
				case 6:
					k.release()
				case 7:
					if frame := l.Alloc(); frame != nil {
						held = append(held, frame)
					}
				case 8:
					for _, frame := range held {
						if random.IntN(2) == 0 {
							l.Free(frame)
						} else {
							require.True(t, l.Send(frame[:60]))
						}
					}
					held = held[:0]
				}
				k.wantWhole(l)
			}
			c := l.Counters()
			require.NotZero(t, c.RxFrames)
			require.NotZero(t, c.TxFrames)
			require.Zero(t, c.TxInvalid+c.RxInvalid+c.CompletionInvalid+c.RingInsane)
		})
	}
}

func TestWaitAndWake(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	start := time.Now()
	require.NoError(t, l.Wait(20*time.Millisecond))
	require.GreaterOrEqual(t, time.Since(start), 20*time.Millisecond)

	l.Wake()
	require.NoError(t, l.Wait(-1), "a wake before the sleep ends the sleep")
	go l.Wake()
	require.NoError(t, l.Wait(-1), "a wake during the sleep ends it")
	require.EqualValues(t, 3, l.Counters().Sleeps)

	require.True(t, k.deliver(testFrame(60, 1)))
	require.NoError(t, l.Wait(-1), "a frame is there")
	require.EqualValues(t, 3, l.Counters().Sleeps, "so it did not sleep")
}

func TestWaitReturnsWhileFramesWaitToBeKicked(t *testing.T) {
	l, k := newFake(t, fakeConfig{})
	k.answer = []error{unix.ENOBUFS}
	require.True(t, l.Send(l.Alloc()[:60]))
	require.True(t, l.Flush())
	require.NoError(t, l.Wait(-1), "or it would sleep for ever")
}

func TestGoneInterface(t *testing.T) {
	for name, lose := range map[string]func(*Link, *fakeKernel){
		"found by Wait": func(l *Link, k *fakeKernel) { k.pending = unix.ENETDOWN },
		"found by Flush": func(l *Link, k *fakeKernel) {
			k.answer = []error{unix.ENXIO}
			l.Send(l.Alloc()[:60])
			require.False(t, l.Flush())
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, k := newFake(t, fakeConfig{})
			require.NoError(t, l.Wait(0))
			lose(l, k)
			for _, timeout := range []time.Duration{0, -1, time.Hour} {
				require.ErrorIs(t, l.Wait(timeout), ErrGone)
			}
			require.ErrorContains(t, l.Wait(0), "queue 3: interface is gone: ")
		})
	}
}

func TestWakeAfterClose(t *testing.T) {
	l, _ := newFake(t, fakeConfig{})
	require.NoError(t, l.wake.close())
	l.Wake()
	require.NoError(t, l.wake.close(), "twice is fine")
}

func TestLinkFacts(t *testing.T) {
	l, _ := newFake(t, fakeConfig{})
	require.Equal(t, 1500, l.MTU())
	require.Equal(t, 3, l.Queue())
	require.Equal(t, [6]byte{2, 0, 0, 0, 0, 1}, l.HardwareAddr())
	require.True(t, l.CanSend())
	require.False(t, l.PartialChecksums())
}

// Nothing on a frame's way allocates.
func TestNoAllocations(t *testing.T) {
	for name, c := range map[string]fakeConfig{
		"single chunks": {ring: 64},
		"joined frames": {ring: 64, mtu: 9000, joins: true},
	} {
		t.Run(name, func(t *testing.T) {
			l, k := newFake(t, c)
			frame := testFrame(l.MTU()+ethernetHeader, 1)
			input := func(frame []byte) { l.Send(frame) }
			l.Wake()
			require.Zero(t, testing.AllocsPerRun(200, func() {
				for range 4 {
					k.deliver(frame)
				}
				l.Peek(64, drop)
				l.Poll(64, input)
				if out := l.Alloc(); out != nil {
					l.Send(out[:60])
				}
				l.Free(l.Alloc())
				l.Flush()
				l.Wake()
				_ = l.Wait(time.Second)
				_ = l.Wait(0)
			}))
			require.NotZero(t, l.Counters().TxFrames)
		})
	}
}

// A benchKernel completes at once and looks at nothing: the cheapest other side.
type benchKernel struct{ *fakeKernel }

func (k benchKernel) transmit() error {
	n := k.tx.ready(k.tx.size)
	for range n {
		*k.completion.addr(k.completion.own) = k.tx.desc(k.tx.own).Addr
		k.completion.own++
		k.tx.own++
	}
	k.tx.publish()
	k.completion.publish()
	return nil
}

// deliver receives n frames of no content.
func (k benchKernel) deliver(n uint32) {
	for range min(k.fill.ready(n), n) {
		*k.rx.desc(k.rx.own) = unix.XDPDesc{Addr: *k.fill.addr(k.fill.own) + headroom, Len: 60}
		k.rx.own++
		k.fill.own++
	}
	k.rx.publish()
	k.fill.publish()
}

// The ring work alone, a frame a turn, with the other side's own few nanoseconds: what a link adds to the kernel's cost.
func BenchmarkRing(b *testing.B) {
	const batch = 64
	bench := func(name string, turn func(l *Link, k benchKernel)) {
		b.Run(name, func(b *testing.B) {
			l, fake := newFake(b, fakeConfig{ring: 2048})
			k := benchKernel{fake}
			l.bell = k
			for b.Loop() {
				turn(l, k)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/frame")
		})
	}
	var sum uint64
	look := func(frame []byte) { sum += uint64(frame[0]) }
	bench("receive", func(l *Link, k benchKernel) {
		k.deliver(batch)
		l.Poll(batch, look)
	})
	var current *Link
	answer := func(frame []byte) { current.Send(frame) }
	bench("echo", func(l *Link, k benchKernel) {
		current = l
		k.deliver(batch)
		l.Poll(batch, answer)
		l.Flush()
	})
	bench("transmit", func(l *Link, k benchKernel) {
		for range batch {
			l.Send(l.Alloc()[:60])
		}
		l.Flush()
	})
}
