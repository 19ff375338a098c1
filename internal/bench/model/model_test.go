package model

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// All that is sent arrives, and every engine has its part.
func TestTraffic(t *testing.T) {
	for _, traffic := range []Traffic{Handler, Ring, Stream} {
		r, err := Run(Case{Traffic: traffic, Engines: 4, Load: 4, Packets: 1024})
		require.NoError(t, err, traffic)
		require.GreaterOrEqual(t, r.Packets, uint64(4*1024), traffic)
		require.Len(t, r.Busy, 4)
		for _, busy := range r.Busy {
			require.Positive(t, busy, traffic)
		}
		require.Zero(t, r.Forwarded, "%s: each packet comes to the engine that it is for", traffic)
	}
}

// Each segment that comes to another engine is passed on, and one engine may have the traffic of many.
func TestAstray(t *testing.T) {
	c := Case{Traffic: Stream, Engines: 1, Load: 3, Packets: 512}
	r, err := Run(c)
	require.NoError(t, err)
	require.Zero(t, r.Forwarded)
	c.Engines, c.Astray = 3, true
	r, err = Run(c)
	require.NoError(t, err)
	require.GreaterOrEqual(t, r.Forwarded, r.Packets)
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, c := range []Case{
		{Traffic: Ring, Load: 1, Packets: 1}, {Traffic: Ring, Engines: 1, Packets: 1}, {Traffic: Ring, Engines: 1, Load: 1},
		{Traffic: Ring, Engines: 2, Load: 2, Packets: 1, Astray: true}, {Traffic: Stream, Engines: 1, Load: 1, Packets: 1, Astray: true},
	} {
		_, err := Run(c)
		require.ErrorContains(t, err, "can't be", "%+v", c)
	}
}

// The busiest engine is the limit.
func TestResult(t *testing.T) {
	r := Result{Packets: 600, Busy: []time.Duration{time.Millisecond, 3 * time.Millisecond, 2 * time.Millisecond}}
	require.InEpsilon(t, 200_000, r.PerSecond(), 1e-9)
	require.Equal(t, 10*time.Microsecond, r.Cost())
	require.InEpsilon(t, 2.0/3, r.Balance(), 1e-9)
}

// A step that an interrupt held up counts as the longest of the others, and nobody's time is no engine's.
func TestMeter(t *testing.T) {
	m := newMeter(2)
	m.reset()
	for n := range 40 {
		m.steps[0] = append(m.steps[0], time.Duration(1+n%2))
	}
	m.steps[0][7] = time.Hour
	require.Equal(t, []time.Duration{60, 0}, m.busy())

	m.reset()
	burn := func(d time.Duration) {
		for from := threadTime(); threadTime()-from < d; {
		}
	}
	m.enter(1)
	burn(2 * time.Millisecond)
	m.enter(-1)
	burn(8 * time.Millisecond)
	m.enter(0)
	m.enter(-1)
	busy := m.busy()
	require.Less(t, busy[0], time.Millisecond)
	require.GreaterOrEqual(t, busy[1], 2*time.Millisecond-m.cost)
	require.Less(t, busy[1], 8*time.Millisecond)
}
