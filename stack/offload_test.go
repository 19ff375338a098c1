package stack

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// An offloaded is what SendPartial was given.
type offloaded struct {
	frame         sent
	start, offset int
}

// offloads is a link that keeps what it was asked to finish.
type offloads struct {
	ChecksumOffloader
	asked *[]offloaded
}

func (l offloads) SendPartial(frame []byte, start, offset int) bool {
	*l.asked = append(*l.asked, offloaded{append(sent(nil), frame...), start, offset})
	return l.ChecksumOffloader.SendPartial(frame, start, offset)
}

// newOffloading makes a host whose card finishes checksums, and the list of those that it was asked for.
func newOffloading(t testing.TB, changes ...func(*setup)) (*host, *[]offloaded) {
	asked := new([]offloaded)
	return newHost(t, append(changes, func(s *setup) {
		s.offload = true
		s.wrap = func(l Link) Link { return offloads{l.(ChecksumOffloader), asked} }
	})...), asked
}

// The card is given the pseudo-header's sum in the field and where it lies; short datagrams are summed here. What arrives is right
// either way, as take says.
func TestOffloadOfDatagrams(t *testing.T) {
	h, asked := newOffloading(t)
	s := h.bind("10.0.0.1:7")
	for n, least := range map[int]bool{0: false, 64: false, offloadLeast - 1: false, offloadLeast: true, 1001: true, 1472: true} {
		*asked = nil
		s.writes(pattern(n), "10.0.0.2:9")
		require.Equal(t, pattern(n), string(h.take(0).udp().Payload()))
		if !least {
			require.Empty(t, *asked)
			continue
		}
		require.Len(t, *asked, 1)
		o := (*asked)[0]
		require.Equal(t, 14+20, o.start)
		require.Equal(t, 6, o.offset)
		u := wire.UDP(o.frame[o.start:])
		require.Equal(t, wire.PseudoSum(addr(hostIP), addr(peerIP), wire.ProtocolUDP, 8+n), u.Checksum())
		require.Equal(t, pattern(n), string(u.Payload()))
	}
	h.wantIdle("each datagram once")
	require.EqualValues(t, 3, h.wires[0].End(0).Stats().Partial)
}

// A segment's options, which vary, are behind the checksum and under it.
func TestOffloadOfSegments(t *testing.T) {
	h, asked := newOffloading(t)
	k, s, _ := h.accepted()
	require.Empty(t, *asked, "no payload, no gain")
	s.writes(1000)
	k.gets("P. 1:1001 ack 1")
	require.Len(t, *asked, 1)
	o := (*asked)[0]
	require.Equal(t, 14+20, o.start)
	require.Equal(t, 16, o.offset)
	require.Equal(t, wire.PseudoSum(addr(hostIP), addr(peerIP), wire.ProtocolTCP, len(o.frame)-o.start), wire.TCP(o.frame[o.start:]).Checksum())
	s.writes(10)
	k.sends(". 1:1 ack 1001")
	k.gets("P. 1001:1011 ack 1")
	require.Len(t, *asked, 1, "short")
}

// Streams between two cards that finish checksums come through whole, with losses and what they bring: retransmissions, segments
// whose text goes round the ring's end, probes.
func TestOffloadOfStreams(t *testing.T) {
	for _, bundles := range []int{0, 65535} {
		p := newDuo(t, linktest.Config{Seed: 7, Ends: []linktest.EndConfig{
			{HardwareAddr: hostMAC, TxChecksum: true, Bundles: bundles, Faults: linktest.Faults{Loss: 0.02, Duplicate: 0.02}},
			{HardwareAddr: peerMAC, TxChecksum: true, Faults: linktest.Faults{Loss: 0.02}},
		}})
		c, s := p.connected()
		p.transfer(c, s, []byte(pattern(3_000_001)), 1, 999, 70_001, 13)
		p.transfer(s, c, []byte(pattern(1_000_003)), 5000, 1, 333)
		require.Greater(t, p.wire.End(0).Stats().Partial, uint64(50), "bundles leave some")
		require.Greater(t, p.wire.End(1).Stats().Partial, uint64(100))
		require.Zero(t, p.a.Stats().Drops[DropTCPChecksum])
		require.Zero(t, p.b.Stats().Drops[DropTCPChecksum])
	}
}

// What the card could not sum, or does not see, is summed here.
func TestNoOffload(t *testing.T) {
	long := pattern(1400)
	t.Run("fragments", func(t *testing.T) {
		h, asked := newOffloading(t)
		h.bind("10.0.0.1:7").writes(pattern(3000), "10.0.0.2:9")
		u, err := wire.ParseUDP(h.wantFragments(1480, 1480, 48))
		require.NoError(t, err)
		require.Equal(t, wire.ChecksumOK, u.ChecksumState(addr(hostIP), addr(peerIP)))
		require.Empty(t, *asked)
	})
	t.Run("ping", func(t *testing.T) {
		h, asked := newOffloading(t)
		h.arrives("answered", packet{}.ping(1, 1, long))
		require.Equal(t, long, string(h.take(0).icmp().Payload()))
		require.Empty(t, *asked)
	})
	t.Run("loopback and another interface", func(t *testing.T) {
		h, asked := newOffloading(t)
		addCard(h, "eth1", "10.9.0.1/24")
		for _, at := range []string{"127.0.0.1:7", "10.9.0.1:7", "10.0.0.1:7"} {
			h.handle(at, func(p *Packet) { p.Echo() })
			s := h.bind("10.0.0.1:9")
			s.writes(long, at)
			s.wants(long, at)
			require.NoError(t, s.Close())
		}
		for _, at := range []string{"127.0.0.1", "10.0.0.1"} {
			h.handle(at+":8", func(p *Packet) { p.Reply(copy(p.Room(), long)) })
			s := h.bind(at + ":9")
			s.writes("hi", at+":8")
			s.wants(long, at+":8")
		}
		require.Empty(t, *asked)
	})
	t.Run("waiting for a neighbour", func(t *testing.T) {
		h, asked := newOffloading(t, func(s *setup) { s.strange = true })
		s := h.bind("10.0.0.1:7")
		s.writes(long, "10.0.0.2:9")
		h.want("ff:ff:ff:ff:ff:ff arp who-has 10.0.0.2 tell 10.0.0.1")
		require.True(t, h.peers[0].Inject(isAt(peerMAC, peerIP)))
		require.Equal(t, long, string(h.take(0).udp().Payload()))
		require.Empty(t, *asked)
		s.writes(long, "10.0.0.2:9")
		require.Equal(t, long, string(h.take(0).udp().Payload()))
		require.Len(t, *asked, 1, "known by now")
	})
	t.Run("a tap sees whole checksums", func(t *testing.T) {
		h, asked := newOffloading(t, func(s *setup) { s.partial = true })
		s := h.bind("10.0.0.1:7")
		h.handle("10.0.0.1:8", func(p *Packet) { p.Echo() })
		h.handle("10.0.0.1:9", func(p *Packet) { p.Reply(copy(p.Room(), long)) })
		seen := 0
		h.SetTap(func(_ *Interface, _ int, d Direction, _ DropReason, _ clock.Time, f []byte) {
			if d == Transmitted {
				seen++
				u := sent(f).udp()
				require.Equal(t, wire.ChecksumOK, u.ChecksumState(addr(hostIP), addr(peerIP)))
			}
		})
		s.writes(long, "10.0.0.2:9")
		h.arrives("delivered", packet{partial: true}.udp(4000, 8, long))
		h.arrives("delivered", packet{partial: true}.udp(4000, 9, "x"))
		require.Equal(t, 3, seen)
		require.Empty(t, *asked)
		for range 3 {
			h.take(0)
		}
	})
	t.Run("a card without", func(t *testing.T) {
		h := newHost(t)
		h.bind("10.0.0.1:7").writes(long, "10.0.0.2:9")
		require.Equal(t, long, string(h.take(0).udp().Payload()))
		require.Zero(t, h.wires[0].End(0).Stats().Partial)
	})
}

// An echo leaves the checksum as it came: a whole one whole, and one that the sender's kernel left to a card to ours. A reply is
// summed by the card where it is long.
func TestOffloadOfAnswers(t *testing.T) {
	h, asked := newOffloading(t, func(s *setup) { s.partial = true })
	h.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
	h.handle("10.0.0.1:8", func(p *Packet) { copy(p.Payload, "changed"); p.Reply(len(p.Payload)) })
	for _, c := range []struct {
		port    int
		partial bool
		payload int
		want    bool
	}{
		{7, false, 1400, false}, {7, true, 1400, true}, {7, true, 10, true}, {7, true, 0, true},
		{8, false, 1400, true}, {8, true, 1400, true}, {8, true, 10, false},
	} {
		*asked = nil
		// A frame is not shorter than 60 bytes: what is behind the datagram is not to be summed.
		request := packet{partial: c.partial}.udp(4000, c.port, pattern(c.payload))
		h.arrives("delivered", append(request, make([]byte, max(0, 60-len(request)))...))
		require.Len(t, h.take(0).udp().Payload(), c.payload)
		if !c.want {
			require.Empty(t, *asked, "%+v", c)
			continue
		}
		require.Len(t, *asked, 1, "%+v", c)
		o := (*asked)[0]
		require.Equal(t, 14+20, o.start)
		require.Equal(t, 6, o.offset)
		require.Len(t, o.frame, 14+20+8+c.payload)
		require.Equal(t, wire.PseudoSum(addr(hostIP), addr(peerIP), wire.ProtocolUDP, 8+c.payload), wire.UDP(o.frame[34:]).Checksum())
	}
}

// An answer that the card has no room for is tried once more, and then dropped under a reason, as one that is whole.
func TestOffloadedAnswerWithoutRoom(t *testing.T) {
	h, asked := newOffloading(t, func(s *setup) { s.ring, s.partial = 4, true })
	h.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
	h.stall(true)
	for n := range 8 {
		h.arrives("delivered", packet{partial: true}.udp(4000, 7, pattern(1400)), n)
	}
	require.EqualValues(t, 4, h.Stats().TxDrops[DropTransmitFull])
	h.stall(false)
	for range 4 {
		require.Equal(t, pattern(1400), string(h.take(0).udp().Payload()))
	}
	h.wantIdle("the others were dropped")
	require.Greater(t, len(*asked), 8, "each that found no room was tried again")
}
