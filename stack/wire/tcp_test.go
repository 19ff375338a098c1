package wire_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// tcpFields are the constant part of the segments here.
var tcpFields = wire.TCPFields{Src: between.Src, Dst: between.Dst, SrcPort: 4000, DstPort: 7,
	Seq: 1000, Ack: 2000, Flags: wire.PSH | wire.ACK, Window: 502}

// segment writes f with options, whose length is a multiple of 4, and payload.
func segment(f wire.TCPFields, options []byte, payload string) []byte {
	f.OptionsLen, f.PayloadLen = len(options), len(payload)
	b := append(append(make([]byte, wire.TCPLen), options...), payload...)
	wire.PutTCP(b, &f, wire.Sum([]byte(payload), 0))
	return b
}

// tcpBetween is the segment in a datagram.
func tcpBetween(f wire.TCPFields, options []byte, payload string) []byte {
	header := between
	header.Protocol = wire.ProtocolTCP
	return datagram(header, nil, segment(f, options, payload))
}

func TestParseTCPErrors(t *testing.T) {
	b := segment(tcpFields, []byte{1, 1, 1, 0, 1, 1, 1, 0}, "hello")
	for n := range 28 {
		_, err := wire.ParseTCP(b[:n])
		require.Equal(t, wire.ErrTruncated, err, "%d bytes", n)
	}
	for n := 28; n <= len(b); n++ {
		s, err := wire.ParseTCP(b[:n])
		require.NoError(t, err)
		require.Equal(t, "hello"[:n-28], string(s.Payload()))
		require.Len(t, s.Options(), 8)
	}
	for offset := range 16 {
		long := append(b, make([]byte, 60-len(b)-1)...)
		long[12] = byte(offset)<<4 | 0xF // the reserved bits do not count
		s, err := wire.ParseTCP(long)
		switch {
		case offset < 5:
			require.Equal(t, wire.ErrDataOffset, err)
		case offset == 15:
			require.Equal(t, wire.ErrTruncated, err, "a header of 60 in 59 bytes")
		default:
			require.NoError(t, err)
			require.Equal(t, offset*4, s.HeaderLen())
			require.Equal(t, 59, s.HeaderLen()+len(s.Payload()))
		}
	}
}

func TestTCPFlagsString(t *testing.T) {
	for f, want := range map[wire.TCPFlags]string{
		0:                              "none",
		wire.SYN:                       "S",
		wire.SYN | wire.ACK:            "S.",
		wire.ACK:                       ".",
		wire.PSH | wire.ACK:            "P.",
		wire.FIN | wire.PSH | wire.ACK: "FP.",
		wire.RST | wire.ACK:            "R.",
		wire.SYN | wire.ECE | wire.CWR: "SEW",
		0xFF:                           "FSRP.UEW",
	} {
		require.Equal(t, want, f.String())
	}
}

// RFC 9293 section 3.4: SYN and FIN take a sequence number each.
func TestTCPLen(t *testing.T) {
	for flags, want := range map[wire.TCPFlags]int{
		wire.ACK: 5, wire.SYN: 6, wire.FIN | wire.ACK: 6, wire.SYN | wire.FIN: 7, wire.RST: 5, 0xFF: 7,
	} {
		f := tcpFields
		f.Flags = flags
		require.Equal(t, want, wire.TCP(segment(f, []byte{1, 1, 1, 1}, "hello")).Len(), "%v", flags)
	}
}

func TestPutTCP(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range 2000 {
		f := wire.TCPFields{Src: wire.Addr(rng.Uint32()), Dst: wire.Addr(rng.Uint32()),
			SrcPort: uint16(rng.Uint32()), DstPort: uint16(rng.Uint32()), Seq: wire.Seq(rng.Uint32()), Ack: wire.Seq(rng.Uint32()),
			Flags: wire.TCPFlags(rng.Uint32()), Window: uint16(rng.Uint32()), Urgent: uint16(rng.Uint32()),
			OptionsLen: 4 * rng.IntN(11), PayloadLen: rng.IntN(100)}
		options, payload := randomBytes(rng, f.OptionsLen), randomBytes(rng, f.PayloadLen)

		ip := gopacketIPv4(&wire.IPv4Fields{TTL: 64, Protocol: wire.ProtocolTCP, Src: f.Src, Dst: f.Dst})
		tcp := &layers.TCP{SrcPort: layers.TCPPort(f.SrcPort), DstPort: layers.TCPPort(f.DstPort), Seq: uint32(f.Seq), Ack: uint32(f.Ack),
			FIN: f.Flags&wire.FIN != 0, SYN: f.Flags&wire.SYN != 0, RST: f.Flags&wire.RST != 0, PSH: f.Flags&wire.PSH != 0,
			ACK: f.Flags&wire.ACK != 0, URG: f.Flags&wire.URG != 0, ECE: f.Flags&wire.ECE != 0, CWR: f.Flags&wire.CWR != 0,
			Window: f.Window, Urgent: f.Urgent}
		for rest := options; len(rest) > 0; rest = rest[4:] {
			// To gopacket they are options of four bytes each.
			rest[0], rest[1] = 200, 4
			tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: 200, OptionLength: 4, OptionData: rest[2:4]})
		}
		require.NoError(t, tcp.SetNetworkLayerForChecksum(ip))
		want := serialize(t, tcp, gopacket.Payload(payload))

		got := append(make([]byte, wire.TCPLen), options...)
		got = append(got, make([]byte, len(payload))...)
		wire.PutTCP(got, &f, wire.CopySum(got[wire.TCPLen+f.OptionsLen:], payload, 0))
		require.Equal(t, want, got, "round %d", i)

		s, err := wire.ParseTCP(got)
		require.NoError(t, err)
		require.Equal(t, wire.ChecksumOK, s.ChecksumState(f.Src, f.Dst))
		require.Equal(t, wire.ChecksumBad, s.ChecksumState(f.Src+1, f.Dst))
		require.Equal(t, f, wire.TCPFields{Src: f.Src, Dst: f.Dst, SrcPort: s.SrcPort(), DstPort: s.DstPort(), Seq: s.Seq(), Ack: s.Ack(),
			Flags: s.Flags(), Window: s.Window(), Urgent: s.Urgent(), OptionsLen: len(s.Options()), PayloadLen: len(s.Payload())})
		require.True(t, bytes.Equal(options, s.Options()) && bytes.Equal(payload, s.Payload()))
	}
}

func TestTCPChecksumStates(t *testing.T) {
	b := segment(tcpFields, nil, "hello")
	s := wire.TCP(b)
	require.Equal(t, wire.ChecksumOK, s.ChecksumState(between.Src, between.Dst))
	for at := range b {
		b[at] ^= 0x10
		require.Equal(t, wire.ChecksumBad, s.ChecksumState(between.Src, between.Dst), "a flipped bit in byte %d", at)
		b[at] ^= 0x10
	}
	// What a kernel leaves for a card to complete.
	pseudo := wire.PseudoSum(between.Src, between.Dst, wire.ProtocolTCP, len(b))
	b[16], b[17] = byte(pseudo>>8), byte(pseudo)
	require.Equal(t, wire.ChecksumPartial, s.ChecksumState(between.Src, between.Dst))
	b[16], b[17] = 0, 0
	require.Equal(t, wire.ChecksumBad, s.ChecksumState(between.Src, between.Dst), "0 is a checksum like any other")
}

func TestCopySum2(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	for range 3000 {
		all := randomBytes(rng, rng.IntN(300))
		at, initial := rng.IntN(len(all)+1), uint16(rng.Uint32())
		dst := make([]byte, len(all)+1)
		require.Equal(t, naiveSum(all, initial), wire.CopySum2(dst, all[:at], all[at:], initial), "%d of %d", at, len(all))
		require.Equal(t, all, dst[:len(all)])
		require.Zero(t, dst[len(all)])
	}
}

func TestQuotedTCPHasItsSequenceNumber(t *testing.T) {
	whole := tcpBetween(tcpFields, nil, "hello")
	for n := wire.IPv4Len; n <= len(whole); n++ {
		q, err := wire.ParseQuoted(whole[:n])
		require.NoError(t, err)
		require.Equal(t, n >= 24, q.HasPorts)
		require.Equal(t, n >= 28, q.HasSeq)
		if q.HasSeq {
			require.Equal(t, wire.Seq(1000), q.TCPSeq)
		} else {
			require.Zero(t, q.TCPSeq)
		}
		require.False(t, q.HasEcho)
	}
	q, err := wire.ParseQuoted(udpBetween("hello"))
	require.NoError(t, err)
	require.False(t, q.HasSeq, "UDP has none")
	later := between
	later.Protocol, later.FragmentOffset = wire.ProtocolTCP, 8
	q, err = wire.ParseQuoted(datagram(later, nil, segment(tcpFields, nil, "")))
	require.NoError(t, err)
	require.False(t, q.HasSeq, "nor has a later fragment")
}

func TestDumpTCP(t *testing.T) {
	with := func(flags wire.TCPFlags) wire.TCPFields {
		f := tcpFields
		f.Flags, f.Urgent = flags, 3
		return f
	}
	syn, other := make([]byte, 40), make([]byte, 40)
	syn = syn[:wire.PutTCPOptions(syn, &wire.TCPOptions{MSS: 1460, WScale: 7, SACKPermitted: true, Timestamp: wire.TCPTimestamp{Has: true, Val: 1, Ecr: 2}}, true)]
	other = other[:wire.PutTCPOptions(other, &wire.TCPOptions{NSACK: 2, SACK: [4]wire.SACKBlock{{5, 9}, {20, 30}}, Timestamp: wire.TCPTimestamp{Has: true, Val: 1, Ecr: 2}}, false)]
	damaged := tcpBetween(tcpFields, nil, "hello")
	damaged[len(damaged)-1]++
	first := between
	first.Protocol, first.MF, first.ID = wire.ProtocolTCP, true, 9
	for want, b := range map[string][]byte{
		"Flags [P.], seq 1000:1005, ack 2000, win 502, length 5":                                                      tcpBetween(tcpFields, nil, "hello"),
		"Flags [.], ack 2000, win 502, length 0":                                                                      tcpBetween(with(wire.ACK), nil, ""),
		"Flags [none], win 502, length 0":                                                                             tcpBetween(with(0), nil, ""),
		"Flags [R], seq 1000, win 502, length 0":                                                                      tcpBetween(with(wire.RST), nil, ""),
		"Flags [F.U], seq 1000, ack 2000, win 502, urg 3, length 0":                                                   tcpBetween(with(wire.FIN|wire.ACK|wire.URG), nil, ""),
		"Flags [S], seq 1000, win 502, options [mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7], length 0":               tcpBetween(with(wire.SYN), syn, ""),
		"Flags [.], ack 2000, win 502, options [nop,nop,TS val 1 ecr 2,nop,nop,sack 2 {5:9}{20:30}], length 0":        tcpBetween(with(wire.ACK), other, ""),
		"Flags [.], ack 2000, win 502, options [mss 0,wscale 200,unknown-2 0x05,unknown-254,unknown-5,eol], length 0": tcpBetween(with(wire.ACK), []byte{2, 4, 0, 0, 3, 3, 200, 2, 3, 5, 254, 2, 5, 2, 0, 8}, ""),
		"Flags [.], ack 2000, win 502, options [nop,bad opt], length 0":                                               tcpBetween(with(wire.ACK), []byte{1, 2, 9, 9}, ""),
		"Flags [P.], seq 1000:1005, ack 2000, win 502, length 5 (bad tcp checksum)":                                   damaged,
		"Flags [P.], seq 1000:1013, ack 2000, win 502, length 13 (frag 9:33@0+)":                                      datagram(first, nil, segment(tcpFields, nil, "hello, hello.")),
	} {
		require.Equal(t, stations+"10.0.0.1.4000 > 10.0.0.2.7: "+want, wire.Dump(frame(wire.EtherTypeIPv4, b)))
	}
	require.Equal(t, stations+"10.0.0.1 > 10.0.0.2: icmp unreachable code 4 mtu 1400 [10.0.0.1.4000 > 10.0.0.2.7: tcp seq 1000]",
		wire.Dump(icmpError(wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: wire.CodeFragNeeded, Rest: 1400}, tcpBetween(tcpFields, nil, "hello")[:28])))
}
