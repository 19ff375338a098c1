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

// through sends numbered datagrams from left to right, and returns how often each arrived. The lab has written neighbours,
// so that no ARP counts.
func through(t *testing.T, lab *netlab.Lab) (arrived [lossPackets]int) {
	server, err := lab.Right.ListenPacket("udp4", "10.77.0.2:0")
	require.NoError(t, err)
	defer server.Close()
	require.NoError(t, server.(*net.UDPConn).SetReadBuffer(8<<20))
	client, err := lab.Left.ListenPacket("udp4", "10.77.0.1:0")
	require.NoError(t, err)
	defer client.Close()
	var b [4]byte
	for i := range uint32(lossPackets) {
		binary.BigEndian.PutUint32(b[:], i)
		_, err := client.WriteTo(b[:], server.LocalAddr())
		require.NoError(t, err)
	}
	for {
		// On a veth pair everything that will come has come when the last send returned or shortly after.
		require.NoError(t, server.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		n, _, err := server.ReadFrom(b[:])
		if err != nil {
			return arrived
		}
		require.Equal(t, 4, n)
		arrived[binary.BigEndian.Uint32(b[:])]++
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
			require.Equal(t, want, through(t, lab))
			stats, err := loss.Stats()
			require.NoError(t, err)
			require.Equal(t, wantStats, stats)
			require.NoError(t, loss.Close())
			require.NoError(t, loss.Close())
		})
	}
	want, _ := fates(0, 0, 0)
	require.Equal(t, want, through(t, lab), "no loss stays behind")

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
