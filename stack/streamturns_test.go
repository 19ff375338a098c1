package stack

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// acks are so many segments that acknowledge nothing new, from the crowd's clients in turn.
func (c *crowd) acks(n int) (frames [][]byte) {
	for i := range n {
		c.sends(i%len(c.clients), wire.ACK, nil)
		frames = append(frames, slices.Clone(c.lends[0]))
	}
	return frames
}

// A step takes as many acknowledgements as there are, but no more than the budget of what a user, or a handler, is to see.
func TestAcknowledgementsAreTakenAtOnce(t *testing.T) {
	c := newCrowd(t)
	c.grow(10)
	d := c.bind(hostIP + ":7")
	c.handle(hostIP+":8", func(*Packet) {})
	data, syn := slices.Clone(c.clients), []byte(nil)
	acks := c.acks(ackBudget + 300)
	c.sends(3, wire.ACK|wire.PSH, []byte("news"))
	text := slices.Clone(c.lends[0])
	c.clients = append(data, client{addr: addr("192.0.2.77"), port: 999, nxt: 1})
	c.sends(10, wire.SYN, nil)
	syn = slices.Clone(c.lends[0])
	left := func(frames ...[]byte) int {
		c.link.Lend(len(frames), frames...)
		c.e.Step(c.now)
		n := c.link.Left
		for c.link.Left > 0 || c.e.unserved {
			c.e.Step(c.now)
		}
		return len(frames) - n
	}
	require.Equal(t, ackBudget, left(acks...))
	require.Equal(t, 700, left(acks[:700]...))
	require.Equal(t, ackBudget, left(slices.Insert(slices.Clone(acks), budget+7, text, syn)...), "others are few")
	var half [][]byte
	for i := range 2 * budget {
		half = append(half, acks[i], text)
	}
	require.Equal(t, 2*budget, left(half...), "who is to read runs first")
	udp := func(port int) (frames [][]byte) {
		for range 2*budget + 1 {
			frames = append(frames, packet{}.udp(4000, port, "x"))
		}
		return frames
	}
	require.Equal(t, budget, left(udp(7)...))
	require.Equal(t, budget, left(udp(8)...), "a handler's answers have to leave")
	require.Equal(t, budget, left(slices.Insert(slices.Clone(acks), 7, udp(7)[:1]...)...))
	require.Equal(t, 2*budget, left(slices.Insert(udp(8), 0, acks[:budget]...)...))
	require.NoError(t, d.Close())

	c.clients = data
	c.grow(someActive)
	var texts [][]byte
	for i := range newsBudget + 300 {
		c.sends(i%len(c.clients), wire.ACK|wire.PSH, []byte("x"))
		texts = append(texts, slices.Clone(c.lends[0])) // heard already
	}
	require.Equal(t, newsBudget, left(texts...), "so that one ACK serves several segments of each")
	require.Equal(t, ackBudget, left(append(slices.Clone(texts[:5]), c.acks(ackBudget)...)...))
	c.grow(manyActive)
	texts = texts[:0]
	for i := range newsBudget + 300 {
		c.sends(i%len(c.clients), wire.ACK|wire.PSH, []byte("x"))
		texts = append(texts, slices.Clone(c.lends[0]))
	}
	require.Equal(t, 2*budget, left(texts...), "all their users run first")
}

// Of many streams that may all send, each has its turn, and none twice before another one had its first; between the turns the
// engine looks at what comes.
func TestStreamsHaveTheirTurns(t *testing.T) {
	const streams, each = 1000, 10 // segments: the first window
	c := newCrowd(t)
	c.grow(streams)
	c.acks(streams)
	sent, order := make(map[uint32]int), []uint32(nil)
	c.link.Heard = func(f []byte) {
		ip := wire.IPv4(f[wire.EthernetLen:])
		if who := uint32(ip.Dst())<<16 | uint32(wire.TCP(ip.Payload()).DstPort()); len(wire.TCP(ip.Payload()).Payload()) > 0 {
			if sent[who] == 0 {
				order = append(order, who)
			}
			sent[who]++
		}
	}
	total := func() (n int) {
		for _, k := range sent {
			n += k
		}
		return n
	}
	payload := make([]byte, each*int(c.streams[0].conn.Info(c.now).SendMSS))
	for _, st := range c.streams {
		n, err := st.Write(payload)
		require.NoError(t, err)
		require.Equal(t, len(payload), n)
	}
	for turn := 1; turn*segmentBudget < streams*each; turn++ {
		c.e.Step(c.now)
		require.InDelta(t, turn*segmentBudget, total(), float64(turn*each))
		require.True(t, c.e.unserved)
	}
	c.e.Step(c.now)
	require.Equal(t, streams*each, total())
	require.Len(t, order, streams)
	require.False(t, c.e.unserved)
	for who, n := range sent {
		require.Equal(t, each, n, who)
	}
	require.Empty(t, c.e.active)
}
