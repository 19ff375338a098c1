package wire_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

func FuzzTCP(f *testing.F) {
	f.Add(segment(tcpFields, nil, "hello"), uint32(0x0A000001), uint32(0x0A000002))
	f.Add(segment(tcpFields, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, "hello"), uint32(0x0A000001), uint32(0x0A000002))
	f.Add(bytes.Repeat([]byte{0xF1}, 64), uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, from, to uint32) {
		s, err := wire.ParseTCP(b)
		if err != nil {
			return
		}
		src, dst := wire.Addr(from), wire.Addr(to)
		require.Len(t, s, len(b))
		require.Equal(t, len(b), wire.TCPLen+len(s.Options())+len(s.Payload()))
		state := s.ChecksumState(src, dst)
		require.NotEqual(t, wire.ChecksumNone, state)

		var tcp layers.TCP
		if tcp.DecodeFromBytes(b, gopacket.NilDecodeFeedback) == nil {
			require.Equal(t, uint16(tcp.SrcPort), s.SrcPort())
			require.Equal(t, uint16(tcp.DstPort), s.DstPort())
			require.Equal(t, wire.Seq(tcp.Seq), s.Seq())
			require.Equal(t, wire.Seq(tcp.Ack), s.Ack())
			require.Equal(t, tcp.Window, s.Window())
			require.Equal(t, tcp.Checksum, s.Checksum())
			require.Equal(t, tcp.Urgent, s.Urgent())
			require.Equal(t, int(tcp.DataOffset)*4, s.HeaderLen())
			var flags wire.TCPFlags
			for i, set := range []bool{tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK, tcp.URG, tcp.ECE, tcp.CWR} {
				if set {
					flags |= 1 << i
				}
			}
			require.Equal(t, flags, s.Flags())
			require.True(t, bytes.Equal(tcp.Payload, s.Payload()))
		}

		again := append([]byte{}, b...)
		wire.PutTCP(again, &wire.TCPFields{Src: src, Dst: dst, SrcPort: s.SrcPort(), DstPort: s.DstPort(), Seq: s.Seq(), Ack: s.Ack(), Flags: s.Flags(),
			Window: s.Window(), Urgent: s.Urgent(), OptionsLen: len(s.Options()), PayloadLen: len(s.Payload())}, wire.Sum(s.Payload(), 0))
		require.Equal(t, wire.ChecksumOK, wire.TCP(again).ChecksumState(src, dst))
		// A sum has two names for zero; only one of them is ever computed.
		if b[12]&0xF == 0 && s.Checksum() != 0xFFFF {
			require.Equal(t, state == wire.ChecksumOK, bytes.Equal(again, b))
		}
	})
}

// plainTCPOptions is RFC 9293 section 3.1, RFC 7323 and RFC 2018, byte by byte.
func plainTCPOptions(b []byte) (o wire.TCPOptions, ok bool) {
	o.WScale = -1
	be := binary.BigEndian
	for at := 0; at < len(b); {
		if b[at] == 0 {
			break
		}
		if b[at] == 1 {
			at++
			continue
		}
		if at+1 == len(b) || b[at+1] < 2 || at+int(b[at+1]) > len(b) {
			return o, false
		}
		option := b[at : at+int(b[at+1])]
		at += len(option)
		switch [2]int{int(option[0]), len(option)} {
		case [2]int{2, 4}:
			o.MSS = be.Uint16(option[2:])
		case [2]int{3, 3}:
			o.WScale = 14
			if option[2] < 14 {
				o.WScale = int8(option[2])
			}
		case [2]int{4, 2}:
			o.SACKPermitted = true
		case [2]int{8, 10}:
			o.Timestamp = wire.TCPTimestamp{Has: true, Val: be.Uint32(option[2:]), Ecr: be.Uint32(option[6:])}
		case [2]int{5, 10}, [2]int{5, 18}, [2]int{5, 26}, [2]int{5, 34}:
			o.NSACK = uint8(len(option) / 8)
			for i := range int(o.NSACK) {
				o.SACK[i] = wire.SACKBlock{Left: wire.Seq(be.Uint32(option[2+8*i:])), Right: wire.Seq(be.Uint32(option[6+8*i:]))}
			}
		}
	}
	return o, true
}

// upTo is how many SACK blocks count.
func upTo(o wire.TCPOptions) wire.TCPOptions {
	clear(o.SACK[min(int(o.NSACK), len(o.SACK)):])
	return o
}

func FuzzTCPOptions(f *testing.F) {
	f.Add([]byte{2, 4, 5, 0xB4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7}, true)
	f.Add([]byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}, false)
	f.Add([]byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, false)
	f.Add([]byte{5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 5, 2, 254, 4, 1, 1, 3, 3, 15, 0, 2}, false)
	f.Add([]byte{2, 4, 5, 0xB4, 8}, true)
	f.Fuzz(func(t *testing.T, b []byte, syn bool) {
		b = b[:min(len(b), wire.TCPMaxOptions)]
		o, err := wire.ParseTCPOptions(b)
		want, ok := plainTCPOptions(b)
		require.Equal(t, ok, err == nil)
		require.Equal(t, upTo(want), upTo(o))
		used := wire.TCPOptions{MSS: 7, WScale: 7, SACKPermitted: true, NSACK: 3, Timestamp: stamp(7, 7), SACK: o.SACK}
		require.Equal(t, err, used.Parse(b))
		require.Equal(t, o, used, "what was there before does not count")

		// gopacket takes the same options out of the segment, one by one.
		padded := append(append([]byte{}, b...), make([]byte, -len(b)&3)...)
		var tcp layers.TCP
		if tcp.DecodeFromBytes(segment(tcpFields, padded, "x"), gopacket.NilDecodeFeedback) == nil && ok {
			var mss uint16
			for _, option := range tcp.Options {
				if option.OptionType == layers.TCPOptionKindMSS && len(option.OptionData) == 2 {
					mss = binary.BigEndian.Uint16(option.OptionData)
				}
			}
			require.Equal(t, mss, o.MSS)
		}

		// What was read can be written, within the room that there is, and read
		// again.
		out := make([]byte, wire.TCPMaxOptions)
		n := wire.PutTCPOptions(out, &o, syn)
		require.Equal(t, n, o.Len(syn))
		back, err := wire.ParseTCPOptions(out[:n])
		require.NoError(t, err)
		require.Equal(t, o.Timestamp, back.Timestamp)
		if syn {
			require.Equal(t, o.MSS, back.MSS)
			require.Equal(t, o.WScale, back.WScale)
			require.Equal(t, o.SACKPermitted, back.SACKPermitted)
		} else {
			require.Equal(t, o.SACK[:back.NSACK], back.SACK[:back.NSACK])
		}
	})
}
