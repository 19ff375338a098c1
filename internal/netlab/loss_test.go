package netlab_test

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

const lossPackets = 2000

// through sends numbered datagrams from left to right under a loss, takes the loss off, and returns how often each
// arrived and the loss's counts. The lab has written neighbours, so that no ARP counts.
func through(t *testing.T, lab *netlab.Lab, loss *netlab.Loss) (arrived [lossPackets]int, stats netlab.LossStats) {
	server, err := lab.Right.ListenPacket("udp4", "10.77.0.2:0")
	require.NoError(t, err)
	defer server.Close()
	require.NoError(t, server.(*net.UDPConn).SetReadBuffer(8<<20))
	client, err := lab.Left.ListenPacket("udp4", "10.77.0.1:0")
	require.NoError(t, err)
	defer client.Close()
	var b [4]byte
	send := func(number uint32) {
		binary.BigEndian.PutUint32(b[:], number)
		_, err := client.WriteTo(b[:], server.LocalAddr())
		require.NoError(t, err)
	}
	for i := range uint32(lossPackets) {
		send(i)
	}
	require.Eventually(t, func() bool {
		stats, err = loss.Stats()
		return err == nil && stats.Seen == lossPackets
	}, 10*time.Second, time.Millisecond, "all packets have met the loss")
	require.NoError(t, loss.Close())

	// What comes after the loss ends the count: a wire keeps its order.
	send(lossPackets)
	require.NoError(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
	for {
		n, _, err := server.ReadFrom(b[:])
		require.NoError(t, err)
		require.Equal(t, 4, n)
		number := binary.BigEndian.Uint32(b[:])
		if number == lossPackets {
			return arrived, stats
		}
		arrived[number]++
	}
}

func fates(drop, duplicate uint32, seed uint64) (want [lossPackets]int, stats netlab.LossStats) {
	stats.Seen = lossPackets
	for i := range want {
		switch netlab.FateOf(uint64(i), drop, duplicate, seed) {
		case netlab.Pass:
			want[i] = 1
		case netlab.Duplicate:
			want[i] = 2
			stats.Duplicated++
		case netlab.Drop:
			stats.Dropped++
		}
	}
	return want, stats
}

// sameFates compares how often each packet arrived, and names the first that differs.
func sameFates(t *testing.T, want, got [lossPackets]int) {
	t.Helper()
	for i := range want {
		require.Equal(t, want[i], got[i], "arrivals of packet %d", i)
	}
}

func TestLossRepeatsForASeed(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{Neighbors: true})
	for _, c := range []struct {
		name            string
		lose            func(drop, duplicate uint32, seed uint64) (*netlab.Loss, error)
		drop, duplicate uint32
		seed            uint64
	}{
		{"in", lab.Right.Loss, 1000, 500, 1},
		{"in again", lab.Right.Loss, 1000, 500, 1},
		{"in, another seed", lab.Right.Loss, 1000, 500, 1 << 63},
		{"out", lab.Left.LossOut, 1000, 500, 1},
		{"out, all twice", lab.Left.LossOut, 0, 10_000, 2},
		{"in, nothing passes", lab.Right.Loss, 10_000, 0, 2},
		{"in, everything passes", lab.Right.Loss, 0, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			loss, err := c.lose(c.drop, c.duplicate, c.seed)
			require.NoError(t, err)
			_, err = c.lose(0, 0, 0)
			require.ErrorContains(t, err, "one at a time")
			want, wantStats := fates(c.drop, c.duplicate, c.seed)
			got, stats := through(t, lab, loss)
			sameFates(t, want, got)
			require.Equal(t, wantStats, stats)
			require.NoError(t, loss.Close(), "a second Close does nothing")
		})
	}
	_, err := lab.Left.Loss(10_001, 0, 0)
	require.ErrorContains(t, err, "more than all")
}

func TestFatesFollowTheOdds(t *testing.T) {
	var n [3]int
	for i := range uint64(1_000_000) {
		n[netlab.FateOf(i, 100, 50, 42)]++
	}
	require.InDelta(t, 10_000, n[netlab.Drop], 400)
	require.InDelta(t, 4_950, n[netlab.Duplicate], 300)
	require.NotEqual(t, netlab.FateOf(0, 5000, 0, 1), netlab.FateOf(0, 5000, 0, 4), "the seed counts")
}
