package stack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// newBound is a quiet host with so many sockets, from port 1 on, whose handler notes the ports of what it gets.
func newBound(t *testing.T, sockets int) (q *quiet, got *[]uint16) {
	q, got = newQuiet(t), new([]uint16)
	note := func(p *Packet) { *got = append(*got, p.Dst().Port()) }
	for port := 1; port <= sockets; port++ {
		d := q.NewDatagram(wire.ProtocolUDP)
		require.NoError(t, d.Bind(netip.AddrPortFrom(netip.MustParseAddr(hostIP), uint16(port))))
		require.NoError(t, d.SetHandler(note))
	}
	return q, got
}

// With many sockets packets are looked at ahead. They come to the same sockets in the same order as without, and what has none is
// counted as it is.
func TestLooksAheadForManySockets(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, sockets := range []int{manySockets - 1, manySockets} {
		t.Run(fmt.Sprint(sockets), func(t *testing.T) {
			q, got := newBound(t, sockets)
			var frames [][]byte
			var want []uint16
			for range 3*budget + 7 {
				port := 1 + rng.IntN(sockets)
				want = append(want, uint16(port))
				frames = append(frames, packet{}.udp(4000, port, "x"))
			}
			frames = slices.Insert(frames, 100, packet{}.udp(4000, sockets+1, "no socket"), packet{}.udp(4000, 65535, "no page of the table"))
			q.link.Lend(0, frames...)
			q.step(len(frames))
			for q.link.Left > 0 {
				q.e.Step(q.now)
			}
			require.Equal(t, want, *got)
			require.EqualValues(t, 2, q.Stats().Drops[DropUDPNoPort])
			require.Equal(t, sockets >= manySockets, q.e.ahead.heard > 0, "only with many sockets")
		})
	}
}

// Of what comes only whole UDP datagrams to an address of ours are looked up ahead, and nothing that is cut off anywhere does harm.
func TestSeesAheadWhatHasASocket(t *testing.T) {
	q, _ := newBound(t, 300)
	seen := func(frame []byte) int {
		q.e.ahead.n = 0
		q.e.seeAhead(frame)
		return q.e.ahead.n
	}
	whole := packet{}.udp(4000, 7, "")
	require.Equal(t, 1, seen(whole))
	require.Same(t, q.e.local(addr(hostIP)).udp.get(7), *q.e.ahead.entries[0])
	for n := range whole {
		require.Zero(t, seen(whole[:n:n]), "cut to %d bytes", n)
	}
	for name, frame := range map[string][]byte{
		"with options":         packet{options: []byte{1, 1, 1, 1}}.udp(4000, 7, "x"),
		"tagged":               packet{vlans: []wire.VLANTag{0x81000005}}.udp(4000, 7, "x"),
		"to another address":   packet{to: otherIP}.udp(4000, 7, "x"),
		"to a page of no port": packet{}.udp(4000, 40_000, "x"),
	} {
		require.Zero(t, seen(frame), name)
	}
	require.Equal(t, 1, seen(packet{}.udp(4000, 299+1, "x")))
	for range 2 * aheadBurst {
		q.e.seeAhead(whole)
	}
	require.Equal(t, aheadBurst, q.e.ahead.n, "no more than a burst, whatever a link shows")
}
