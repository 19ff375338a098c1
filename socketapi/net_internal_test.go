package socketapi

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func peerNumber(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 16), byte(i >> 8)}), uint16(i)|1)
}

// The table knows the last thousands of peers, and never takes one for another.
func TestAskedTable(t *testing.T) {
	const peers = 20_000
	var tab askedTable
	_, ok := tab.find(peerNumber(0))
	require.False(t, ok)
	for i := range peers {
		tab.note(peerNumber(i*2), i%7)
		got, ok := tab.find(peerNumber(i * 2))
		require.True(t, ok)
		require.Equal(t, i%7, got)
	}
	known, recent := 0, 0
	for i := range peers {
		if got, ok := tab.find(peerNumber(i * 2)); ok {
			require.Equal(t, i%7, got)
			known++
			if i >= peers-1000 {
				recent++
			}
		}
	}
	require.Greater(t, known, 3500, "of the 4096 that have room")
	require.Greater(t, recent, 950, "of the last thousand")
	tab.note(peerNumber(peers*2-2), 3)
	got, _ := tab.find(peerNumber(peers*2 - 2))
	require.Equal(t, 3, got, "the last that it asked")
}

// A deadline may be moved to and fro while it passes, and who waits is never left behind.
func TestDeadline(t *testing.T) {
	var d deadline
	d.init()
	require.False(t, d.isPassed())
	d.set(time.Unix(1, 0))
	require.True(t, d.isPassed())
	<-d.passed()
	d.set(time.Time{})
	require.False(t, d.isPassed())
	waits := d.passed()
	for range 1000 {
		d.set(time.Now().Add(time.Microsecond))
	}
	<-d.passed()
	require.True(t, d.isPassed())
	select {
	case <-waits:
	case <-time.After(20 * time.Second):
		t.Fatal("who waited before is still waiting")
	}
	d.set(time.Now().Add(time.Hour))
	require.False(t, d.isPassed())
	d.set(time.Now().Add(time.Millisecond))
	<-d.passed()
}
