package clock_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
)

func TestEarliestTakesNeverForNone(t *testing.T) {
	require.Equal(t, clock.Never, clock.Earliest(clock.Never, clock.Never))
	require.Equal(t, clock.Time(5), clock.Earliest(clock.Never, 5))
	require.Equal(t, clock.Time(5), clock.Earliest(5, clock.Never))
	require.Equal(t, clock.Time(3), clock.Earliest(5, 3))
	require.Equal(t, clock.Time(3), clock.Earliest(3, 5))
	require.Equal(t, clock.Time(4), clock.Earliest(4, 4))
}

func TestArithmetic(t *testing.T) {
	at := clock.Time(1_000)
	later := at.Add(time.Microsecond)
	require.Equal(t, clock.Time(2_000), later)
	require.Equal(t, time.Microsecond, later.Sub(at))
	require.Equal(t, -time.Microsecond, at.Sub(later))
	require.True(t, at.Before(later))
	require.True(t, later.After(at))
	require.False(t, at.Before(at))
	require.False(t, at.After(at))
}

func TestNowIsAMomentAndDoesNotGoBack(t *testing.T) {
	last := clock.Now()
	require.True(t, last.Add(-10*time.Minute).After(clock.Never),
		"a time-out may be taken off the present")
	for range 1000 {
		now := clock.Now()
		require.False(t, now.Before(last))
		last = now
	}
}

func TestNowDoesNotAllocate(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() { clock.Now() }))
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		clock.Now()
	}
}
