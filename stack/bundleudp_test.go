package stack

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// spray has a send batches of datagrams of random lengths to two ports of b, by way of a link that takes bundles of up to limit
// bytes, and returns the frames that arrive.
func spray(t *testing.T, cfg linktest.Config, limit int) (frames []string, p *duo) {
	t.Helper()
	cfg.Ends = []linktest.EndConfig{{HardwareAddr: hostMAC, Bundles: limit}, {HardwareAddr: peerMAC}}
	p = newDuo(t, cfg)
	p.b.SetTap(func(_ *Interface, _ int, d Direction, _ DropReason, _ clock.Time, f []byte) {
		f = append([]byte(nil), f...)
		ip, err := wire.ParseIPv4(f[wire.EthernetLen:])
		if err != nil || d != Received {
			return
		}
		u, err := wire.ParseUDP(ip.Payload())
		if !ip.IsFragment() {
			require.NoError(t, err)
			require.Equal(t, wire.ChecksumOK, u.ChecksumState(ip.Src(), ip.Dst()))
			copy(ip[4:6], "\x00\x00")
			copy(ip[10:12], "\x00\x00")
		}
		frames = append(frames, string(f))
	})
	s := p.a.NewDatagram(wire.ProtocolUDP)
	require.NoError(t, s.Bind(ap(hostIP+":7")))
	_, err := s.Write([]Message{{Buf: []byte("who is there?"), Addr: ap(peerIP + ":9")}})
	require.NoError(t, err)
	p.wait(time.Second) // b is a neighbour now
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		var ms []Message
		for range 1 + rng.IntN(6) {
			length := []int{0, 1, 64, 1000, 1472, 3000}[rng.IntN(6)]
			to := ap(fmt.Sprintf("%s:%d", peerIP, 9+rng.IntN(2)))
			tos := uint8(rng.IntN(2) * 4)
			for range 1 + rng.IntN(100) {
				ms = append(ms, Message{Buf: []byte(pattern(length)), Addr: to, TOS: tos})
			}
			ms = append(ms, Message{Buf: []byte(pattern(min(length, 1+round))), Addr: to, TOS: tos})
		}
		for len(ms) > 0 {
			n, err := s.Write(ms)
			if err != nil {
				require.Equal(t, syscall.EAGAIN, err)
			}
			ms = ms[n:]
			p.settle()
		}
	}
	p.wait(time.Second)
	p.b.SetTap(nil)
	p.settle()
	return frames, p
}

// TestUDPBundlesAreDatagrams: what arrives is the same whether datagrams leave one by one or in bundles.
func TestUDPBundlesAreDatagrams(t *testing.T) {
	want, p := spray(t, linktest.Config{}, 0)
	require.Greater(t, len(want), 1000)
	alone := p.a.Stats()
	for _, limit := range []int{65535, 3 * 1500} {
		frames, p := spray(t, linktest.Config{}, limit)
		require.Equal(t, want, frames)
		require.Greater(t, p.wire.End(0).Stats().Bundles, uint64(20))
		stats := p.a.Stats()
		require.Equal(t, alone.Sent, stats.Sent)
		require.Equal(t, alone.TxBytes-42*alone.ARPRequests, stats.TxBytes-42*stats.ARPRequests)
	}
	frames, p := spray(t, linktest.Config{BundlesRefused: true}, 65535)
	require.Equal(t, want, frames)
	require.Zero(t, p.wire.End(0).Stats().Bundles)
}

// TestUDPBundlesWaitForRoom: what neither a bundle nor a frame has room for stays in the socket's ring.
func TestUDPBundlesWaitForRoom(t *testing.T) {
	p := newDuo(t, linktest.Config{Ring: 8, Ends: []linktest.EndConfig{{HardwareAddr: hostMAC, Bundles: 65535}, {HardwareAddr: peerMAC}}})
	s := p.a.NewDatagram(wire.ProtocolUDP)
	require.NoError(t, s.Bind(ap(hostIP+":7")))
	_, err := s.Write([]Message{{Buf: []byte("who is there?"), Addr: ap(peerIP + ":9")}})
	require.NoError(t, err)
	p.wait(time.Second)
	p.wire.End(0).SetStalled(true)
	earlier := p.wire.End(1).Stats()
	ms := make([]Message, 50)
	for i := range ms {
		ms[i] = Message{Buf: []byte(fmt.Sprint("message ", 10+i)), Addr: ap(peerIP + ":9")}
	}
	n, err := s.Write(ms)
	require.NoError(t, err)
	require.Equal(t, 50, n)
	for range 5 {
		p.a.Step(p.now)
	}
	before := p.a.Stats().TxFrames
	require.Less(t, before, uint64(20), "the rest waits")
	p.wire.End(0).SetStalled(false)
	p.wait(time.Second)
	arrived := p.wire.End(1).Stats()
	require.Equal(t, uint64(50), arrived.Received+arrived.Overflowed-earlier.Received-earlier.Overflowed)
	require.Zero(t, p.a.Stats().TxDrops[DropTransmitFull])
}
