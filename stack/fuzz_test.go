package stack

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// FuzzInput sends frames of any make to a host with sockets of every kind: nothing panics, every packet has one end, all that
// leaves is well-formed, nothing grows beyond its limit, and after a while nothing is left.
func FuzzInput(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte("\x01\x10\x03\x08\x00\x07hello, host\x04\x09\x08\x00\x00\x00\x00\x01\x00\x01\x05\x20\x01\x00\x11"))
	rng := rand.New(rand.NewPCG(1, 1))
	for range 8 {
		b := make([]byte, 300)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(playInput)
}

// Chance plays the same game, the same each time.
func TestInputOfChance(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 150 {
		b := make([]byte, 2000)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		playInput(t, b)
	}
}

// A tape is a script of bytes that is read from the front; behind its end it is all zeros.
type tape []byte

func (b *tape) byte() byte {
	if len(*b) == 0 {
		return 0
	}
	v := (*b)[0]
	*b = (*b)[1:]
	return v
}

func (b *tape) take(n int) []byte {
	n = min(n, len(*b))
	v := (*b)[:n]
	*b = (*b)[n:]
	return v
}

func playInput(t *testing.T, script []byte) {
	b := tape(script)
	mode := b.byte()
	h := newHost(t, func(s *setup) {
		s.queues = 1 + int(mode&1)
		s.partial, s.offload = mode&2 != 0, mode&8 != 0
		s.Limits = Limits{Neighbours: 8, NeighbourQueue: 4, ReassemblyBytes: 100_000}
		s.Addresses = append(s.Addresses, prefix("10.0.0.4/24"))
		if mode&4 != 0 {
			s.Mode, s.Gateway, s.Resolver = Shared, netip.Addr{}, new(asked)
		}
	})
	if mode&4 != 0 {
		require.NoError(t, h.iface.SetRoutes([]Route{via("10.0.0.0/24", "")}))
	}
	socks := []*sock{h.bind("10.0.0.1:7"), h.connect("10.0.0.1:9", "10.0.0.2:9"), h.pinger("10.0.0.1:1"), h.bind("10.0.0.4:7")}
	socks[0].SetReceiveBuffer(4096)
	h.handle("10.0.0.1:8", func(p *Packet) { p.Reply(copy(p.Room(), pattern(200))) })
	h.handle("10.0.0.4:8", func(p *Packet) { p.ReplyWith(p.Payload); p.Echo() })
	for len(b) > 0 {
		if !playFrame(h, &b) {
			playHost(h, socks, &b)
		}
		h.settle()
		for _, p := range h.peers {
			for f := p.Take(); f != nil; f = p.Take() {
				wantWellFormed(t, f)
				require.LessOrEqual(t, len(f), 1500+22)
				require.Equal(t, hostMAC, wire.HardwareAddr(f[6:12]))
				require.True(t, f[0]&1 == 0 || wire.HardwareAddr(f[:6]).IsBroadcast())
			}
		}
		for _, e := range h.iface.engines {
			require.LessOrEqual(t, len(e.neighbours), 8)
			require.LessOrEqual(t, e.frags.bytes, 100_000)
			require.LessOrEqual(t, len(e.frags.table), 25)
		}
	}
	h.wantSums()
	h.wait(seconds(120))
	require.Zero(t, h.Stats().Held)
	require.Zero(t, h.Stats().Waiting)
	for _, e := range h.iface.engines {
		require.Zero(t, e.frags.bytes)
	}
}

// playFrame sends one frame of the script, and reports false where the script wants something else.
func playFrame(h *host, b *tape) bool {
	kind, queue := b.byte(), 0
	if kind&0x40 != 0 {
		queue = len(h.peers) - 1
	}
	var p packet
	p.from = []string{peerIP, otherIP, hostIP, farIP, bcastIP, "127.0.0.1", "0.0.0.0", peerIP}[b.byte()&7]
	p.to = []string{hostIP, hostIP, "10.0.0.4", bcastIP, "255.255.255.255", otherIP, hostIP, hostIP}[b.byte()&7]
	if kind&0x80 != 0 {
		p.toMAC = wire.HardwareBroadcast
	}
	if kind&0x20 != 0 {
		p.vlans = []wire.VLANTag{0x81000000 | wire.VLANTag(b.byte())}
	}
	if kind&0x10 != 0 {
		p.options = append(b.take(int(b.byte()&3)*4), 0, 0, 0, 0)
		p.options = p.options[:len(p.options)&^3]
	}
	p.partial = b.byte()&7 == 0
	var f []byte
	switch kind & 0xF {
	case 0:
		f = b.take(1 + int(b.byte()))
	case 1:
		f = p.ethernet(wire.EtherType(0x0800+int(b.byte()&7)), b.take(int(b.byte())))
	case 2:
		f = p.ip(wire.Protocol(b.byte()), b.take(int(b.byte())))
	case 3, 4:
		f = p.ip(wire.ProtocolUDP, p.udpBody(int(b.byte()), int(b.byte()&15), b.take(int(b.byte()))))
	case 5:
		f = p.icmp(wire.ICMPType(b.byte()&15), b.byte()&15, uint32(b.byte()&3)<<16|uint32(b.byte())<<3, b.take(int(b.byte())))
	case 6: // an error about what one of the sockets might have sent
		q := packet{from: hostIP, to: peerIP}
		quote := q.udp(int(b.byte()&15), 9, "x")[wire.EthernetLen:]
		f = p.icmp(wire.ICMPUnreachable, b.byte()&15, uint32(b.byte())<<3, quote[:min(len(quote), int(b.byte()))])
	case 7, 8:
		p.id, p.off, p.mf = uint16(b.byte()&7), int(b.byte()&15)*8, b.byte()&3 != 0
		f = p.ip([]wire.Protocol{wire.ProtocolUDP, wire.ProtocolICMP, 47}[int(b.byte())%3], b.take(int(b.byte())&^7))
	case 9:
		p.id, p.off = uint16(b.byte()), int(b.byte())*256
		p.mf = true
		f = p.ip(wire.ProtocolUDP, make([]byte, 1400))
	case 10:
		mac := wire.HardwareAddr{2, 0, 0, 0, b.byte() & 1, b.byte()}
		f = p.arp(wire.ARPOp(1+b.byte()&1), mac, p.from, hostMAC, p.to)
	default:
		return false
	}
	if len(f) == 0 {
		return true
	}
	if at := int(b.byte()); kind&0xF != 0 && at&0x80 != 0 {
		f[at%len(f)] ^= b.byte()
	}
	h.peers[queue].Inject(f)
	return true
}

// playHost has the host's users do something, or the time go on.
func playHost(h *host, socks []*sock, b *tape) {
	s := socks[int(b.byte())%len(socks)]
	switch b.byte() % 6 {
	case 0:
		h.wait(seconds(float64(b.byte()) / 16))
	case 1:
		s.read()
	case 2:
		s.write(make([]byte, int(b.byte())*32), []string{"10.0.0.2:9", "10.0.0.77:9", "10.0.0.255:9", "127.0.0.1:9", "10.0.0.4:8"}[int(b.byte())%5])
	case 3:
		h.iface.SetNeighbour(entry([]string{peerIP, otherIP}[b.byte()&1], peerMAC, NeighbourState(b.byte()%6)))
	case 4:
		h.iface.DeleteNeighbour(netip.MustParseAddr(peerIP))
	case 5:
		s.write(request(1, string(b.take(int(b.byte())))), "10.0.0.2:0")
	}
}
