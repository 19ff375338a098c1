package wire_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// The tests here write random packets with this package and with gopacket and
// want the same bytes.

// serialize is gopacket's answer, with lengths and checksums filled in.
func serialize(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	require.NoError(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...))
	return b.Bytes()
}

func netIP(a wire.Addr) net.IP { return a.Netip().AsSlice() }

func randomMAC(rng *rand.Rand) (h wire.HardwareAddr) {
	for i := range h {
		h[i] = byte(rng.Uint32())
	}
	return h
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestPutEthernet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		h := wire.EthernetInfo{Dst: randomMAC(rng), Src: randomMAC(rng), Type: wire.EtherTypeIPv6, NTags: uint8(rng.IntN(3))}
		ls := []gopacket.SerializableLayer{&layers.Ethernet{DstMAC: h.Dst[:], SrcMAC: h.Src[:], EthernetType: layers.EthernetTypeIPv6}}
		if h.NTags > 0 {
			// The outer type stands in the Ethernet layer, each inner one in the tag.
			tpids := []wire.EtherType{wire.EtherTypeVLAN, wire.EtherTypeQinQ}
			for i := range h.NTags {
				tpid, tci := tpids[rng.IntN(2)], uint16(rng.Uint32())
				h.Tags[i] = wire.VLANTag(uint32(tpid)<<16 | uint32(tci))
				require.Equal(t, tpid, h.Tags[i].TPID())
				require.Equal(t, tci&0xFFF, h.Tags[i].ID())
				switch outer := ls[len(ls)-1].(type) {
				case *layers.Ethernet:
					outer.EthernetType = layers.EthernetType(tpid)
				case *layers.Dot1Q:
					outer.Type = layers.EthernetType(tpid)
				}
				ls = append(ls, &layers.Dot1Q{Priority: uint8(tci >> 13), DropEligible: tci&0x1000 != 0,
					VLANIdentifier: tci & 0xFFF, Type: layers.EthernetTypeIPv6})
			}
		}
		payload := randomBytes(rng, 60)
		want := serialize(t, append(ls, gopacket.Payload(payload))...)
		got := make([]byte, 100)
		n := wire.PutEthernet(got, &h)
		got = append(got[:n], payload...)
		require.Equal(t, want, got)

		back, ok := wire.ParseEthernet(got)
		require.True(t, ok)
		h.HeaderLen = uint8(n)
		require.Equal(t, h, back)
	}
}

func TestPutEthernetTakesNoMoreTagsThanThereAre(t *testing.T) {
	b := make([]byte, 64)
	require.Equal(t, wire.EthernetMaxLen, wire.PutEthernet(b, &wire.EthernetInfo{NTags: 200}))
}

func TestPutEthernetAddrsKeepsTheRest(t *testing.T) {
	frame := make([]byte, 22)
	h := wire.EthernetInfo{NTags: 1, Type: wire.EtherTypeIPv4, Tags: [2]wire.VLANTag{0x81000005}}
	h.HeaderLen = uint8(wire.PutEthernet(frame, &h))
	h.Dst, h.Src = wire.HardwareAddr{1, 2, 3, 4, 5, 6}, wire.HardwareAddr{7, 8, 9, 10, 11, 12}
	wire.PutEthernetAddrs(frame, h.Dst, h.Src)
	back, ok := wire.ParseEthernet(frame)
	require.True(t, ok)
	require.Equal(t, h, back)
}

func TestPutARP(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 500 {
		f := wire.ARPFields{Op: wire.ARPOp(rng.Uint32()), SenderHardware: randomMAC(rng), Sender: wire.Addr(rng.Uint32()),
			TargetHardware: randomMAC(rng), Target: wire.Addr(rng.Uint32())}
		want := serialize(t, &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, Operation: uint16(f.Op),
			SourceHwAddress: f.SenderHardware[:], SourceProtAddress: netIP(f.Sender),
			DstHwAddress: f.TargetHardware[:], DstProtAddress: netIP(f.Target)})
		got := make([]byte, wire.ARPLen)
		wire.PutARP(got, &f)
		require.Equal(t, want, got)
	}
}

func randomIPv4(rng *rand.Rand) wire.IPv4Fields {
	return wire.IPv4Fields{TOS: uint8(rng.Uint32()), ID: uint16(rng.Uint32()), DF: rng.IntN(2) == 0, MF: rng.IntN(2) == 0,
		FragmentOffset: rng.IntN(0x2000) * 8, TTL: uint8(rng.Uint32()), Protocol: wire.Protocol(rng.Uint32()),
		Src: wire.Addr(rng.Uint32()), Dst: wire.Addr(rng.Uint32())}
}

func gopacketIPv4(f *wire.IPv4Fields) *layers.IPv4 {
	ip := &layers.IPv4{Version: 4, IHL: 5, TOS: f.TOS, Id: f.ID, FragOffset: uint16(f.FragmentOffset / 8), TTL: f.TTL,
		Protocol: layers.IPProtocol(f.Protocol), SrcIP: netIP(f.Src), DstIP: netIP(f.Dst)}
	if f.DF {
		ip.Flags |= layers.IPv4DontFragment
	}
	if f.MF {
		ip.Flags |= layers.IPv4MoreFragments
	}
	return ip
}

func TestPutIPv4(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 2000 {
		f := randomIPv4(rng)
		payload := randomBytes(rng, rng.IntN(40))
		f.TotalLength = wire.IPv4Len + len(payload)
		want := serialize(t, gopacketIPv4(&f), gopacket.Payload(payload))
		got := make([]byte, wire.IPv4Len)
		wire.PutIPv4(got, &f)
		got = append(got, payload...)
		require.Equal(t, want, got)

		p, err := wire.ParseIPv4(got)
		require.NoError(t, err)
		require.True(t, p.HeaderOK())
		require.Equal(t, f, wire.IPv4Fields{TOS: p.TOS(), TotalLength: p.TotalLength(), ID: p.ID(), DF: p.DF(), MF: p.MF(),
			FragmentOffset: p.FragmentOffset(), TTL: p.TTL(), Protocol: p.Protocol(), Src: p.Src(), Dst: p.Dst()})
		require.Equal(t, f.MF || f.FragmentOffset != 0, p.IsFragment())
		require.Equal(t, f.TOS, p.DSCP()<<2|uint8(p.ECN()))
		require.Equal(t, payload, append([]byte{}, p.Payload()...))
		require.Len(t, p.Header(), wire.IPv4Len)
		require.Empty(t, p.Options())
		require.False(t, p.HasOptions())

		// An answer in place: the checksum stays right.
		p.PutAddrs(p.Dst(), p.Src())
		require.True(t, p.HeaderOK())
		p.PutAddrs(f.Src, f.Dst+1)
		require.False(t, p.HeaderOK())
	}
}

func TestPutUDP(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range 2000 {
		f := wire.UDPFields{Src: wire.Addr(rng.Uint32()), Dst: wire.Addr(rng.Uint32()),
			SrcPort: uint16(rng.Uint32()), DstPort: uint16(rng.Uint32()), PayloadLen: rng.IntN(100)}
		payload := randomBytes(rng, f.PayloadLen)
		ip := wire.IPv4Fields{TTL: 64, Protocol: wire.ProtocolUDP, Src: f.Src, Dst: f.Dst}
		udp := &layers.UDP{SrcPort: layers.UDPPort(f.SrcPort), DstPort: layers.UDPPort(f.DstPort)}
		g := gopacketIPv4(&ip)
		require.NoError(t, udp.SetNetworkLayerForChecksum(g))
		want := serialize(t, udp, gopacket.Payload(payload))
		if want[6] == 0 && want[7] == 0 {
			want[6], want[7] = 0xFF, 0xFF // RFC 768; gopacket leaves 0
		}
		got := make([]byte, wire.UDPLen+f.PayloadLen)
		wire.PutUDP(got, &f, wire.CopySum(got[wire.UDPLen:], payload, 0))
		require.Equal(t, want, got, "round %d", i)

		u, err := wire.ParseUDP(got)
		require.NoError(t, err)
		require.Equal(t, wire.ChecksumOK, u.ChecksumState(f.Src, f.Dst))
		field := u.Checksum()
		u.SetChecksum(f.Src, f.Dst)
		require.Equal(t, field, u.Checksum())
		u.PutPorts(f.DstPort, f.SrcPort)
		require.Equal(t, wire.ChecksumOK, u.ChecksumState(f.Dst, f.Src), "an answer in place stays right")
	}
}

// RFC 768: a checksum that comes out as zero is sent as all ones.
func TestUDPChecksumIsNeverSentAsZero(t *testing.T) {
	f := wire.UDPFields{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), SrcPort: 1000, DstPort: 7, PayloadLen: 2}
	b := make([]byte, 10)
	wire.PutUDP(b, &f, 0)
	u, err := wire.ParseUDP(b)
	require.NoError(t, err)
	// A payload equal to the checksum brings the sum to all ones.
	b[8], b[9] = byte(u.Checksum()>>8), byte(u.Checksum())
	wire.PutUDP(b, &f, wire.Sum(b[8:], 0))
	require.Equal(t, uint16(0xFFFF), u.Checksum())
	require.Equal(t, wire.ChecksumOK, u.ChecksumState(f.Src, f.Dst))
	u.SetChecksum(f.Src, f.Dst)
	require.Equal(t, uint16(0xFFFF), u.Checksum())
}

// putEcho makes an echo message of all of b, whose bytes from 8 on are its data.
func putEcho(b []byte, typ wire.ICMPType, id, seq uint16) {
	b[0], b[1] = byte(typ), 0
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	wire.ICMP(b).SetChecksum()
}

func TestEcho(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 500 {
		payload := randomBytes(rng, rng.IntN(100))
		id, seq := uint16(rng.Uint32()), uint16(rng.Uint32())
		request := serialize(t, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: id, Seq: seq}, gopacket.Payload(payload))
		reply := serialize(t, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(0, 0), Id: id, Seq: seq}, gopacket.Payload(payload))

		got := append(make([]byte, wire.ICMPLen), payload...)
		putEcho(got, wire.ICMPEcho, id, seq)
		require.Equal(t, request, got)
		m, err := wire.ParseICMP(got)
		require.NoError(t, err)
		require.True(t, m.ChecksumOK())
		require.Equal(t, wire.ICMPEcho, m.Type())
		require.Equal(t, id, m.ID())
		require.Equal(t, seq, m.Seq())

		m.MakeEchoReply()
		require.Equal(t, reply, got)

		m.SetID(id + 77)
		require.True(t, m.ChecksumOK())
		require.Equal(t, id+77, m.ID())
		m.SetID(id)
		require.Equal(t, reply, got)
		got[9%len(got)] ^= 0x10
		m.SetChecksum()
		require.True(t, m.ChecksumOK())
	}
}

func TestMakeEchoReplyClearsTheCode(t *testing.T) {
	b := make([]byte, 12)
	putEcho(b, wire.ICMPEcho, 1, 2)
	b[1] = 9
	m := wire.ICMP(b)
	m.SetChecksum()
	m.MakeEchoReply()
	require.Zero(t, m.Code())
	require.True(t, m.ChecksumOK())
}

// RFC 1812 section 4.3.2.3: as much of the original as fits into 576 bytes.
func TestPutICMPErrorQuotes(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	for _, c := range []struct{ original, room, quoted int }{
		{28, 1500, 28}, {548, 1500, 548}, {549, 1500, 548}, {1500, 1500, 548}, {1500, 108, 100}, {0, 1500, 0},
	} {
		original := randomBytes(rng, c.original)
		b := make([]byte, c.room)
		n := wire.PutICMPError(b, wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: wire.CodeFragNeeded, Rest: 1400}, original)
		require.Equal(t, wire.ICMPLen+c.quoted, n)
		require.LessOrEqual(t, wire.IPv4Len+n, 576)
		want := serialize(t, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1400}, gopacket.Payload(original[:c.quoted]))
		require.Equal(t, want, b[:n])
		m, err := wire.ParseICMP(b[:n])
		require.NoError(t, err)
		require.Equal(t, 1400, m.MTU())
		require.Equal(t, wire.CodeFragNeeded, m.Code())
		require.True(t, m.ChecksumOK())
	}
	b := make([]byte, 8)
	wire.PutICMPError(b, wire.ICMPErrorFields{Type: wire.ICMPParameterProblem, Rest: 20 << 24}, nil)
	require.Equal(t, uint8(20), wire.ICMP(b).Pointer())
	wire.PutICMPError(b, wire.ICMPErrorFields{Type: wire.ICMPRedirect, Rest: 0x0A000001}, nil)
	require.Equal(t, addr("10.0.0.1"), wire.ICMP(b).Gateway())
}
