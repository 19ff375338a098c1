package wire_test

import (
	"bytes"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// Each fuzzer wants of its parser that it never panics, that its view stays
// inside the input, that gopacket reads the same numbers, and that writing the
// fields gives the input back.

// inside reports whether view is a part of b, which must have a spare capacity
// behind its end only where the view may too.
func inside(t *testing.T, b, view []byte) {
	t.Helper()
	if len(view) == 0 {
		return
	}
	at := bytes.Index(b, view)
	require.GreaterOrEqual(t, at, 0)
	require.LessOrEqual(t, len(view), len(b))
}

func FuzzEthernet(f *testing.F) {
	f.Add(frame(wire.EtherTypeIPv4, udpBetween("x")))
	f.Add(frame(wire.EtherTypeVLAN, []byte{0, 5, 8, 0, 1}))
	f.Add(frame(wire.EtherTypeQinQ, []byte{0, 5, 0x81, 0, 0x20, 6, 8, 0, 1}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := wire.ParseEthernet(b)
		used := wire.EthernetInfo{NTags: 2, HeaderLen: 22, Type: 7, Tags: h.Tags}
		require.Equal(t, ok, used.Parse(b))
		if !ok {
			return
		}
		require.Equal(t, h, used, "what was there before does not count")
		require.LessOrEqual(t, int(h.HeaderLen), len(b))
		require.Equal(t, wire.EthernetLen+wire.VLANTagLen*int(h.NTags), int(h.HeaderLen))
		again := make([]byte, wire.EthernetMaxLen)
		n := wire.PutEthernet(again, &h)
		require.Equal(t, b[:h.HeaderLen], again[:n])

		var eth layers.Ethernet
		require.NoError(t, eth.DecodeFromBytes(b, gopacket.NilDecodeFeedback))
		require.Equal(t, h.Dst[:], []byte(eth.DstMAC))
		require.Equal(t, h.Src[:], []byte(eth.SrcMAC))
		typ, rest := uint16(eth.EthernetType), b[wire.EthernetLen:]
		for _, tag := range h.Tags[:h.NTags] {
			require.Equal(t, uint16(tag.TPID()), typ)
			var q layers.Dot1Q
			require.NoError(t, q.DecodeFromBytes(rest, gopacket.NilDecodeFeedback))
			require.Equal(t, q.VLANIdentifier, tag.ID())
			typ, rest = uint16(q.Type), rest[wire.VLANTagLen:]
		}
		if typ >= 1536 { // gopacket takes a smaller one for an 802.3 length
			require.Equal(t, wire.EtherType(typ), h.Type)
		}
	})
}

func FuzzARP(f *testing.F) {
	b := make([]byte, wire.ARPLen)
	wire.PutARP(b, &wire.ARPFields{Op: wire.ARPRequest, Sender: 1, Target: 2})
	f.Add(b)
	f.Add(append(b, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := wire.ParseARP(b)
		if err != nil {
			return
		}
		again := make([]byte, wire.ARPLen)
		wire.PutARP(again, &wire.ARPFields{Op: p.Op(), SenderHardware: p.SenderHardware(), Sender: p.Sender(),
			TargetHardware: p.TargetHardware(), Target: p.Target()})
		require.Equal(t, b[:wire.ARPLen], again)

		var arp layers.ARP
		require.NoError(t, arp.DecodeFromBytes(b, gopacket.NilDecodeFeedback))
		require.Equal(t, arp.Operation, uint16(p.Op()))
		require.Equal(t, arp.SourceProtAddress, p.Sender().Netip().AsSlice())
		require.Equal(t, arp.DstProtAddress, p.Target().Netip().AsSlice())
	})
}

func FuzzIPv4(f *testing.F) {
	f.Add(udpBetween("hello"))
	f.Add(datagram(between, []byte{131, 7, 4, 10, 0, 0, 9, 0}, []byte("routed")))
	f.Add(datagram(between, []byte{1, 7, 3, 4}, []byte("padded, and more")))
	f.Add([]byte{0x45})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := wire.ParseIPv4(b)
		if err != nil {
			return
		}
		require.Equal(t, p.TotalLength(), len(p))
		require.True(t, &p[0] == &b[0])
		require.Equal(t, len(p), len(p.Header())+len(p.Payload()))
		require.Equal(t, p.HasOptions(), len(p.Options()) > 0)
		require.Equal(t, wire.Sum(p.Header(), 0) == 0xFFFF, p.HeaderOK())
		wantScan(t, p)

		var ip layers.IPv4
		if ip.DecodeFromBytes(append([]byte{}, p...), gopacket.NilDecodeFeedback) == nil {
			require.Equal(t, int(ip.Length), p.TotalLength())
			require.Equal(t, ip.TOS, p.TOS())
			require.Equal(t, ip.Id, p.ID())
			require.Equal(t, int(ip.FragOffset)*8, p.FragmentOffset())
			require.Equal(t, ip.Flags&layers.IPv4DontFragment != 0, p.DF())
			require.Equal(t, ip.Flags&layers.IPv4MoreFragments != 0, p.MF())
			require.Equal(t, ip.TTL, p.TTL())
			require.Equal(t, uint8(ip.Protocol), uint8(p.Protocol()))
			require.Equal(t, ip.SrcIP.String(), p.Src().String())
			require.Equal(t, ip.DstIP.String(), p.Dst().String())
			require.Equal(t, ip.Payload, []byte(p.Payload()))
		}
		if !p.HasOptions() && p.HeaderOK() && p[6]&0x80 == 0 {
			again := make([]byte, wire.IPv4Len)
			wire.PutIPv4(again, &wire.IPv4Fields{TOS: p.TOS(), TotalLength: len(p), ID: p.ID(), DF: p.DF(), MF: p.MF(),
				FragmentOffset: p.FragmentOffset(), TTL: p.TTL(), Protocol: p.Protocol(), Src: p.Src(), Dst: p.Dst()})
			// A sum has two names for zero; only one of them is ever computed.
			if p.HeaderChecksum() != 0xFFFF {
				require.Equal(t, p.Header(), again)
			}
		}
	})
}

// wantScan holds ScanOptions against a plain reading of RFC 791 section 3.1.
func wantScan(t *testing.T, p wire.IPv4) {
	t.Helper()
	var routed, malformed bool
	b := p.Header()
	for at := wire.IPv4Len; at < len(b) && b[at] != 0 && !malformed; {
		if b[at] == 1 {
			at++
			continue
		}
		if at+1 >= len(b) || b[at+1] < 2 || at+int(b[at+1]) > len(b) {
			malformed = true
			break
		}
		switch b[at] {
		case 131, 137:
			routed = true
			malformed = b[at+1] < 3 || b[at+2] < 4
		case 7:
			malformed = b[at+1] < 3 || b[at+2] < 4
		}
		at += int(b[at+1])
	}
	s := p.ScanOptions()
	require.Equal(t, routed, s.SourceRoute)
	require.Equal(t, malformed, s.Malformed)
	if malformed {
		require.GreaterOrEqual(t, int(s.Pointer), wire.IPv4Len)
		require.Less(t, int(s.Pointer), len(b))
	} else {
		require.Zero(t, s.Pointer)
	}
}

func FuzzUDP(f *testing.F) {
	f.Add(udpBetween("hello")[20:], uint32(0x0A000001), uint32(0x0A000002))
	f.Add([]byte{0, 1, 0, 2, 0, 8, 0, 0}, uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, from, to uint32) {
		u, err := wire.ParseUDP(b)
		if err != nil {
			return
		}
		src, dst := wire.Addr(from), wire.Addr(to)
		require.Equal(t, u.Length(), len(u))
		inside(t, b, u.Payload())
		state := u.ChecksumState(src, dst)

		var udp layers.UDP
		require.NoError(t, udp.DecodeFromBytes(append([]byte{}, u...), gopacket.NilDecodeFeedback))
		require.Equal(t, uint16(udp.SrcPort), u.SrcPort())
		require.Equal(t, uint16(udp.DstPort), u.DstPort())
		require.Equal(t, udp.Payload, append([]byte{}, u.Payload()...))

		again := append([]byte{}, u...)
		wire.PutUDP(again, &wire.UDPFields{Src: src, Dst: dst, SrcPort: u.SrcPort(), DstPort: u.DstPort(), PayloadLen: len(u) - wire.UDPLen},
			wire.Sum(u.Payload(), 0))
		require.Equal(t, wire.ChecksumOK, wire.UDP(again).ChecksumState(src, dst))
		require.Equal(t, state == wire.ChecksumOK, bytes.Equal(again, u))
		u.SetChecksum(src, dst)
		require.Equal(t, again, append([]byte{}, u...))
	})
}

func FuzzICMP(f *testing.F) {
	echo := make([]byte, 16)
	putEcho(echo, wire.ICMPEcho, 1, 2)
	f.Add(echo)
	b := make([]byte, 100)
	f.Add(b[:wire.PutICMPError(b, wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: 4, Rest: 1400}, udpBetween("quoted"))])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.ParseICMP(b)
		if err != nil {
			return
		}
		require.Len(t, m.Payload(), len(b)-wire.ICMPLen)
		var icmp layers.ICMPv4
		require.NoError(t, icmp.DecodeFromBytes(b, gopacket.NilDecodeFeedback))
		require.Equal(t, icmp.TypeCode.Type(), uint8(m.Type()))
		require.Equal(t, icmp.TypeCode.Code(), m.Code())
		require.Equal(t, icmp.Checksum, m.Checksum())
		require.Equal(t, icmp.Id, m.ID())
		require.Equal(t, icmp.Seq, m.Seq())
		require.Equal(t, int(icmp.Seq), m.MTU())
		m.SetChecksum()
		require.True(t, m.ChecksumOK())
		m.SetID(77)
		require.True(t, m.ChecksumOK())
		if m.Type() == wire.ICMPEcho {
			m.MakeEchoReply()
			require.True(t, m.ChecksumOK())
			require.Equal(t, wire.ICMPEchoReply, m.Type())
		}
	})
}

func FuzzQuoted(f *testing.F) {
	f.Add(udpBetween("quoted")[:28])
	f.Add(datagram(between, []byte{1, 1, 1, 1}, []byte{1, 2, 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := wire.ParseQuoted(b)
		if err != nil {
			return
		}
		inside(t, b, q.Transport)
		require.False(t, q.HasPorts && q.HasEcho)
		if q.HasPorts || q.HasEcho {
			require.Zero(t, q.FragmentOffset)
			require.GreaterOrEqual(t, len(q.Transport), 4)
		}
		// A whole datagram reads the same when it is quoted.
		if p, err := wire.ParseIPv4(b); err == nil {
			require.Equal(t, p.Src(), q.Src)
			require.Equal(t, p.Dst(), q.Dst)
			require.Equal(t, p.Protocol(), q.Protocol)
			require.Equal(t, len(p), q.TotalLength)
		}
	})
}

func FuzzDump(f *testing.F) {
	f.Add(frame(wire.EtherTypeIPv4, udpBetween("hello")))
	f.Add(frame(wire.EtherTypeARP, make([]byte, 28)))
	f.Add(icmpError(wire.ICMPErrorFields{Type: wire.ICMPTimeExceeded}, udpBetween("quoted")))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := append([]byte{}, b...)
		s := wire.Dump(b)
		require.NotEmpty(t, s)
		require.NotContains(t, s, "\n", "one line")
		require.NotContains(t, s, "%!", "a format that does not fit")
		require.Equal(t, before, append([]byte{}, b...), "the frame is only read")
	})
}
