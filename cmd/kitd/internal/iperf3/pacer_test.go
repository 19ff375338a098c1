package iperf3

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// 8 Mbit/s in blocks of 1000 bytes is a block a millisecond.
func megabyte(burst int) (*pacer, time.Time) {
	start := time.Unix(1e9, 0)
	return newPacer(&params{rate: 8e6, length: 1000, burst: burst, pacing: time.Millisecond}, start, nil), start
}

func TestPacerKeepsTheRate(t *testing.T) {
	p, start := megabyte(1)
	for _, c := range []struct {
		after time.Duration
		n     int
		wait  time.Duration
	}{
		{0, 1, 0}, {0, 0, time.Millisecond}, {500 * time.Microsecond, 0, time.Millisecond}, {1100 * time.Microsecond, 1, 0},
		{10500 * time.Microsecond, 9, 0}, {10500 * time.Microsecond, 0, time.Millisecond},
		{time.Second, 64, 0}, // what a stall kept back, as much as fits
	} {
		n, wait := p.due(start.Add(c.after), 64)
		require.Equal(t, c.n, n, "after %v", c.after)
		require.Equal(t, c.wait, wait, "after %v", c.after)
		p.sent += int64(n)
	}
	p.unsent(14)
	require.Equal(t, int64(61), p.sent)
}

func TestPacerWaitsLong(t *testing.T) {
	start := time.Unix(1e9, 0)
	p := newPacer(&params{rate: 8, length: 10, burst: 1, pacing: time.Millisecond}, start, nil)
	p.sent = 1
	n, wait := p.due(start.Add(4*time.Second), 64)
	require.Zero(t, n)
	require.Equal(t, 6*time.Second, wait, "one block in ten seconds")
}

func TestPacerBursts(t *testing.T) {
	p, start := megabyte(10)
	n, _ := p.due(start, 64)
	require.Equal(t, 10, n)
	p.sent = 10
	n, wait := p.due(start.Add(5*time.Millisecond), 64)
	require.Zero(t, n)
	require.InDelta(t, 5*time.Millisecond, wait, float64(time.Microsecond))
	n, _ = p.due(start.Add(10*time.Millisecond), 64)
	require.Equal(t, 10, n)
}

func TestPacerWithoutRate(t *testing.T) {
	stop := make(chan struct{})
	p := newPacer(&params{length: 1000, burst: 7, pacing: time.Hour}, time.Now(), stop)
	require.Equal(t, 64, p.wait(64))
	close(stop)
	require.Zero(t, p.wait(64))
	require.False(t, p.pause())
}

func TestPacerIsStoppedWhileItWaits(t *testing.T) {
	stop := make(chan struct{})
	p := newPacer(&params{rate: 1, length: 1000, burst: 1, pacing: time.Hour}, time.Now(), stop)
	require.Equal(t, 1, p.wait(64))
	ended := make(chan int)
	go func() { ended <- p.wait(64) }()
	close(stop)
	require.Zero(t, <-ended)
}
