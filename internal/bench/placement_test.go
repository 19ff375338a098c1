package bench

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// twoCores skips a test of the way between cores where there is none; to bind to them it needs CAP_SYS_NICE.
func twoCores(t *testing.T) {
	netlab.NeedRoot(t)
	if runtime.NumCPU() < 2 {
		t.Skip("this machine has one CPU")
	}
}

func TestCoreToCore(t *testing.T) {
	twoCores(t)
	for _, procs := range []int{1, runtime.NumCPU()} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		ns, err := coreToCore(0, 1)
		require.NoError(t, err)
		// From two cores on one cache to two sockets, and what a host that gives neither its whole core adds.
		require.Greater(t, ns, 5.0)
		require.Less(t, ns, 10_000.0)
		require.Equal(t, procs, runtime.GOMAXPROCS(0), "as it was")
	}
	_, err := coreToCore(0, 1023)
	require.ErrorContains(t, err, "bind to CPU 1023")
	_, err = coreToCore(1023, 0)
	require.ErrorContains(t, err, "bind to CPU 1023")
}

// Two threads on one core wait for each other's turn at each throw, which is as busy as a core can be.
func TestCoreToCoreEndsOnABusyCore(t *testing.T) {
	twoCores(t)
	start := time.Now()
	ns, err := coreToCore(1, 1)
	require.NoError(t, err)
	require.True(t, ns == 0 || ns > 10_000, "%v ns is no turn of the kernel's scheduler", ns)
	require.Less(t, time.Since(start), 10*throwPatience)
}

func TestBallEndsWithoutTheOther(t *testing.T) {
	b := &ball{deadline: time.Now().Add(time.Millisecond)}
	var took [1 + throwTimings]int64
	require.Zero(t, b.throw(&took))
	b = &ball{deadline: time.Now().Add(time.Millisecond)}
	b.throwBack()
	require.Zero(t, b.number.Load(), "nothing came that could be thrown back")
}

// waiting is a runner whose cores are as far apart as it is told, one figure a look and the last for ever.
func waiting(near time.Duration, ns ...float64) (*runner, *strings.Builder) {
	out := &strings.Builder{}
	r := &runner{opts: Options{CoreToCore: near}, out: out, patience: nearPatience}
	r.distance = func() (float64, error) {
		now := ns[0]
		if len(ns) > 1 {
			ns = ns[1:]
		}
		return now, nil
	}
	return r, out
}

func TestWaitsForNearCores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r, out := waiting(120*time.Nanosecond, 250, 0, 240, 91)
		require.NoError(t, r.waitNear(t.Context()))
		require.Equal(t, 3*nearEvery, time.Since(start))
		require.Equal(t, "core to core 250 ns: waiting for 120ns, for 10m0s at most\n", out.String())
		require.Empty(t, r.placementNotes(nil)[1:])
		require.NoError(t, r.waitNear(t.Context()))
		require.Equal(t, 3*nearEvery, time.Since(start), "they are near")
	})
}

func TestWaitsForNearCoresTenMinutesInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r, out := waiting(120*time.Nanosecond, 250, 250, 91, 250)
		for range 3 {
			require.NoError(t, r.waitNear(t.Context()))
		}
		require.Equal(t, nearPatience, time.Since(start))
		require.Contains(t, out.String(), "for 9m58s at most\n"+
			"the cores have not come as near as 120ns in 10m0s: measuring wherever they are\n")
		require.Contains(t, r.placementNotes(nil)[1], "did not come as near as 120ns in the 10m0s")
	})
}

func TestWaitForNearCoresEnds(t *testing.T) {
	r, _ := waiting(120*time.Nanosecond, 250)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, r.waitNear(ctx), context.Canceled)

	broken := errors.New("broken")
	r.distance = func() (float64, error) { return 0, broken }
	require.ErrorIs(t, r.waitNear(context.Background()), broken)

	r, out := waiting(0, 250)
	require.NoError(t, r.waitNear(context.Background()))
	require.Empty(t, out.String(), "nobody asked for near cores")
}
