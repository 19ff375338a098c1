package linktest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/linktest"
)

var errGone = errors.New("gone")

// wrapped makes a wire whose first end is behind a Fault with the wire's clock.
func wrapped(ring int, in, out linktest.Faults) (*linktest.Wire, *linktest.Fault) {
	w := linktest.New(linktest.Config{Ring: ring})
	return w, linktest.NewFault(w.End(0), linktest.FaultConfig{Seed: 1, In: in, Out: out, Now: w.Now})
}

// send puts a frame through a link's whole transmit side.
func send(t *testing.T, l linktest.Link, frame []byte) {
	t.Helper()
	f := l.Alloc()
	require.NotNil(t, f)
	require.True(t, l.Send(f[:copy(f, frame)]))
	l.Flush()
}

// poll copies what a link lends.
func poll(l linktest.Link) (frames [][]byte) {
	l.Poll(64, func(f []byte) { frames = append(frames, append([]byte{}, f...)) })
	return frames
}

func TestFaultPassesErrorsAndPropertiesThrough(t *testing.T) {
	w := linktest.New(linktest.Config{Ends: []linktest.EndConfig{{MTU: 900, PartialChecksums: true}, {}}})
	f := linktest.NewFault(w.End(0), linktest.FaultConfig{})
	require.Equal(t, 900, f.MTU())
	require.Equal(t, w.End(0).HardwareAddr(), f.HardwareAddr())
	require.True(t, f.PartialChecksums())
	w.End(0).Fail(errGone)
	require.ErrorIs(t, f.Wait(0), errGone)
}

func TestFaultWithoutFaultsIsTransparent(t *testing.T) {
	w, f := wrapped(0, linktest.Faults{}, linktest.Faults{})
	for i := range 20 {
		send(t, f, numbered(i, 60))
		require.Equal(t, numbered(i, 60), w.End(1).Take())
		require.True(t, w.End(1).Inject(numbered(i, 70)))
		require.Equal(t, [][]byte{numbered(i, 70)}, poll(f))
	}
	f.Free(f.Alloc())
	_, ok := f.NextEvent()
	require.False(t, ok)
}

func TestFaultAnswersInPlace(t *testing.T) {
	w, f := wrapped(0, linktest.Faults{}, linktest.Faults{})
	require.True(t, w.End(1).Inject(numbered(1, 60)))
	require.Equal(t, 1, f.Poll(8, func(frame []byte) {
		require.Equal(t, 1522, cap(frame), "room for a longer answer")
		require.True(t, f.Send(append(frame, "more"...)))
	}))
	f.Flush()
	require.Equal(t, append(numbered(1, 60), "more"...), w.End(1).Take())
}

func TestFaultDelaysBothDirections(t *testing.T) {
	late := linktest.Faults{Latency: time.Millisecond}
	w, f := wrapped(0, late, late)
	send(t, f, numbered(1, 60))
	require.True(t, w.End(1).Inject(numbered(2, 60)))
	require.Empty(t, poll(f))
	require.Nil(t, w.End(1).Take())
	at, ok := f.NextEvent()
	require.True(t, ok)
	require.Equal(t, time.Millisecond, at)
	w.Advance(at)
	require.Equal(t, [][]byte{numbered(2, 60)}, poll(f))
	require.NoError(t, f.Wait(0))
	require.Equal(t, numbered(1, 60), w.End(1).Take(), "Wait sends what is due")
}

func TestFaultRates(t *testing.T) {
	in := linktest.Faults{Loss: 0.1, Duplicate: 0.1}
	out := linktest.Faults{Corrupt: 0.1, Truncate: 0.1}
	w, f := wrapped(0, in, out)
	const n = 5000
	got, changed := 0, 0
	for i := range n {
		require.True(t, w.End(1).Inject(numbered(i, 60)))
		got += len(poll(f))
		send(t, f, numbered(i, 60))
		if string(w.End(1).Take()) != string(numbered(i, 60)) {
			changed++
		}
	}
	inStats, outStats := f.Stats()
	within(t, 0.1, inStats.Lost, n, "lost")
	within(t, 0.09, inStats.Duplicated, n, "duplicated, of those not lost")
	require.Equal(t, n-inStats.Lost+inStats.Duplicated, uint64(got))
	within(t, 0.1, outStats.Corrupted, n, "corrupted")
	within(t, 0.1, outStats.Truncated, n, "truncated")
	within(t, 0.19, uint64(changed), n, "one or the other")
}

func TestFaultWaitsForRoomInTheLink(t *testing.T) {
	w, f := wrapped(2, linktest.Faults{}, linktest.Faults{})
	w.End(0).SetStalled(true)
	for i := range 3 {
		frame := f.Alloc()
		require.NotNil(t, frame)
		require.True(t, f.Send(frame[:copy(frame, numbered(i, 60))]))
	}
	require.True(t, f.Flush(), "one has no room")
	require.Nil(t, f.Alloc(), "so no more is taken")
	require.True(t, w.End(1).Inject(numbered(9, 60)))
	require.Equal(t, 1, f.Poll(1, func(frame []byte) { require.False(t, f.Send(frame)) }))

	w.End(0).SetStalled(false)
	require.False(t, f.Flush())
	require.Equal(t, uint64(3), w.End(0).Stats().Sent)
	require.NotNil(t, f.Alloc())
}

func TestFaultTakesFramesLongerThanItsMTU(t *testing.T) {
	w := linktest.New(linktest.Config{Ends: []linktest.EndConfig{{MTU: 100}, {MTU: 1000}}})
	f := linktest.NewFault(w.End(0), linktest.FaultConfig{Now: w.Now})
	require.True(t, w.End(1).Inject(numbered(1, 1014)))
	require.Equal(t, [][]byte{numbered(1, 1014)}, poll(f))
}

func TestFaultOnTheMachinesClock(t *testing.T) {
	w := linktest.New(linktest.Config{RealTime: true})
	f := linktest.NewFault(w.End(0), linktest.FaultConfig{In: linktest.Faults{Latency: time.Millisecond}})
	require.True(t, w.End(1).Inject(numbered(1, 60)))
	began := w.Now()
	for {
		frames := poll(f)
		if len(frames) > 0 {
			require.Equal(t, numbered(1, 60), frames[0])
			break
		}
		require.NoError(t, f.Wait(-1), "sleeps until the frame is due")
	}
	require.GreaterOrEqual(t, w.Now()-began, time.Millisecond)
	f.Wake()
	require.NoError(t, f.Wait(-1))
}

func TestCaptureShowsBothDirections(t *testing.T) {
	type seen struct {
		outbound bool
		number   int
	}
	var got []seen
	w := linktest.New(linktest.Config{Ring: 2})
	c := linktest.NewCapture(w.End(0), func(outbound bool, frame []byte) {
		got = append(got, seen{outbound, number(frame)})
	})
	send(t, c, numbered(1, 60))
	require.True(t, w.End(1).Inject(numbered(2, 60)))
	require.Len(t, poll(c), 1)
	w.End(0).SetStalled(true)
	send(t, c, numbered(3, 60))
	send(t, c, numbered(4, 60))
	require.True(t, w.End(1).Inject(numbered(5, 60)))
	c.Poll(1, func(frame []byte) { require.False(t, c.Send(frame), "the ring is full") })
	require.Equal(t, []seen{{true, 1}, {false, 2}, {true, 3}, {true, 4}, {false, 5}}, got,
		"a frame that the link refused was not sent")
	require.Equal(t, 1500, c.MTU())
}

func TestWrappersDoNotAllocate(t *testing.T) {
	faults := linktest.Faults{Duplicate: 0.2, Loss: 0.1}
	w, f := wrapped(0, faults, faults)
	count := 0
	c := linktest.NewCapture(f, func(bool, []byte) { count++ })
	answer := func(frame []byte) { c.Send(frame) }
	ignore := func([]byte) {}
	b := w.End(1)
	round := func() {
		for range 8 {
			frame := b.Alloc()
			b.Send(frame[:60])
		}
		b.Flush()
		c.Poll(64, answer)
		c.Flush()
		b.Poll(64, ignore)
	}
	for range 100 {
		round()
	}
	require.Zero(t, testing.AllocsPerRun(1000, round))
	require.NotZero(t, count)
}
