package stack

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// seen is a frame as it arrived.
type seen struct {
	at    clock.Time
	frame string
}

// haul sends n bytes in writes of these sizes over a new connection, whose sender's link takes bundles of up to limit bytes,
// checks what arrives, and returns the frames that did and the sender.
func haul(t *testing.T, wireConfig linktest.Config, limit, n int, writes []int) ([]seen, *duo) {
	t.Helper()
	wireConfig.Ends = []linktest.EndConfig{
		{HardwareAddr: hostMAC, Bundles: limit, Faults: linktest.Faults{Latency: time.Millisecond}},
		{HardwareAddr: peerMAC, Faults: linktest.Faults{Latency: time.Millisecond}},
	}
	p := newDuo(t, wireConfig)
	c, s := p.connected()
	var frames []seen
	p.b.SetTap(func(_ *Interface, _ int, d Direction, r DropReason, now clock.Time, f []byte) {
		if d == Received {
			require.Equal(t, NotDropped, r)
			f = append([]byte(nil), f...)
			ip, err := wire.ParseIPv4(f[wire.EthernetLen:])
			if err != nil {
				return // ARP, at moments of its own
			}
			require.True(t, ip.HeaderOK())
			copy(ip[4:6], "\x00\x00")   // the identification of what is cut is the cutter's
			copy(ip[10:12], "\x00\x00") // and so the checksum
			frames = append(frames, seen{now, string(f)})
		}
	})
	p.transfer(c, s, []byte(pattern(n)), writes...)
	require.NoError(t, c.Close())
	require.NoError(t, s.Close())
	p.wait(2 * time.Minute)
	p.b.SetTap(nil)
	p.settle()
	return frames, p
}

// TestBundlesAreSegments: what arrives, and when, is the same whether segments leave one by one or in bundles.
func TestBundlesAreSegments(t *testing.T) {
	for name, writes := range map[string][]int{
		"large writes": {1 << 17}, "odd writes": {1, 5000, 777, 100000, 1460, 1461, 40000}, "segments": {1460}, "small writes": {300},
	} {
		t.Run(name, func(t *testing.T) {
			want, p := haul(t, linktest.Config{}, 0, 1<<20, writes)
			require.Zero(t, p.wire.End(0).Stats().Bundles)
			segments := p.a.Stats()
			for _, limit := range []int{1 << 18, 65535, 3 * 1500} {
				frames, p := haul(t, linktest.Config{}, limit, 1<<20, writes)
				require.Equal(t, len(want), len(frames))
				for i := range want {
					require.Equal(t, want[i], frames[i], "frame %d", i)
				}
				stats := p.a.Stats()
				require.Equal(t, segments.Sent, stats.Sent)
				require.Equal(t, segments.TxBytes-42*segments.ARPRequests, stats.TxBytes-42*stats.ARPRequests)
				require.Zero(t, p.a.TCPStats().RetransmittedSegments)
				require.Greater(t, p.wire.End(0).Stats().Bundles, uint64(5))
			}
		})
	}
}

// TestBundlesThatAreRefused: what the link does not take in one piece goes in frames, in order, and none is lost that a frame was
// free for.
func TestBundlesThatAreRefused(t *testing.T) {
	want, _ := haul(t, linktest.Config{}, 0, 1<<20, []int{1 << 17})
	frames, p := haul(t, linktest.Config{BundlesRefused: true}, 65535, 1<<20, []int{1 << 17})
	require.Equal(t, want, frames)
	require.Zero(t, p.wire.End(0).Stats().Bundles)
	require.Zero(t, p.a.Stats().TxDrops[DropTransmitFull])

	haul(t, linktest.Config{BundlesRefused: true}, 65535, 4<<20, []int{5000}) // some begin where the ring ends

	frames, p = haul(t, linktest.Config{Ring: 8}, 65535, 1<<18, []int{1 << 17})
	require.NotZero(t, p.wire.End(0).Stats().Bundles, "smaller ones fit")
	require.Zero(t, p.a.Stats().TxDrops[DropTransmitFull])
	require.NotEmpty(t, frames)
}

// TestBundlesBeyondAPacket: what is longer than an IPv4 packet's length can say leaves in one piece where the link takes that.
func TestBundlesBeyondAPacket(t *testing.T) {
	p := newDuo(t, linktest.Config{Ends: []linktest.EndConfig{{HardwareAddr: hostMAC, Bundles: 1 << 18}, {HardwareAddr: peerMAC}}})
	c, s := p.connected()
	p.transfer(c, s, []byte(pattern(8<<20)), 1<<18)
	require.NotZero(t, p.wire.End(0).Stats().LongBundles)
	require.Zero(t, p.a.TCPStats().RetransmittedSegments)
}

// TestNoBundleWhileTapped: a tap sees segments as they are on the wire.
func TestNoBundleWhileTapped(t *testing.T) {
	p := newDuo(t, linktest.Config{Ends: []linktest.EndConfig{{HardwareAddr: hostMAC, Bundles: 65535}, {HardwareAddr: peerMAC}}})
	c, _ := p.connected()
	longest := 0
	p.a.SetTap(func(_ *Interface, _ int, _ Direction, _ DropReason, _ clock.Time, f []byte) {
		longest = max(longest, len(f))
	})
	_, err := c.Write([]byte(pattern(14000)))
	require.NoError(t, err)
	p.settle()
	require.Equal(t, 1514, longest)
	require.Zero(t, p.wire.End(0).Stats().Bundles)
	p.a.SetTap(nil)
	_, err = c.Write([]byte(pattern(14000)))
	require.NoError(t, err)
	p.settle()
	require.NotZero(t, p.wire.End(0).Stats().Bundles)
}

// TestBundlesToOthers: no bundle without a neighbour that is known, none inside, and none where the path's MTU is locked.
func TestBundlesToOthers(t *testing.T) {
	p := newDuo(t, linktest.Config{Ends: []linktest.EndConfig{{HardwareAddr: hostMAC, Bundles: 65535}, {HardwareAddr: peerMAC, Bundles: 65535}}})
	l := p.listen(p.a, hostIP+":80", ListenConfig{Backlog: 1})
	c := p.dial(p.a, hostIP+":80")
	p.until("the connection is made", func() bool { return c.Connected() && l.Events()&Readable != 0 })
	_, err := c.Write([]byte(pattern(60000)))
	require.NoError(t, err)
	p.settle()
	require.Zero(t, p.wire.End(0).Stats().Bundles)

	c, _ = p.connected()
	e := c.e.Load()
	e.do(func() { e.learnPMTU(addr(peerIP), minPMTU-1, 1500) })
	p.settle()
	_, err = c.Write([]byte(pattern(5000)))
	require.NoError(t, err)
	p.settle()
	require.Zero(t, p.wire.End(0).Stats().Bundles)
}

// A bundleHose throws away bundles too.
type bundleHose struct {
	*linktest.Hose
	bundles int
}

func (*bundleHose) BundleLimit(uint8) int { return 65535 }

func (h *bundleHose) SendBundle(header []byte, network int, payload [][]byte, segment int) bool {
	h.bundles++
	bytes := 0
	for _, p := range payload {
		bytes += len(p)
	}
	h.Sent += (bytes + segment - 1) / segment
	return true
}
