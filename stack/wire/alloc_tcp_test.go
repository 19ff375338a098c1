package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// acknowledge does what a connection does for a segment: read all of it, check its
// sum, and write the acknowledgment behind it. It returns its length.
func acknowledge(in, out []byte) int {
	s, err := wire.ParseTCP(in)
	if err != nil || s.ChecksumState(between.Src, between.Dst) != wire.ChecksumOK {
		return 0
	}
	var o wire.TCPOptions
	if o.Parse(s.Options()) != nil || !o.Timestamp.Has {
		return 0
	}
	o.Timestamp.Val, o.Timestamp.Ecr = o.Timestamp.Ecr+1, o.Timestamp.Val
	n := wire.PutTCPOptions(out[wire.TCPLen:], &o, false)
	wire.PutTCP(out, &wire.TCPFields{Src: between.Dst, Dst: between.Src, SrcPort: s.DstPort(), DstPort: s.SrcPort(),
		Seq: s.Ack(), Ack: s.Seq().Add(s.Len()), Flags: wire.ACK, Window: s.Window(), OptionsLen: n}, 0)
	return wire.TCPLen + n
}

var timestampOption = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}

func TestNothingAllocatesForASegment(t *testing.T) {
	in, out := segment(tcpFields, timestampOption, "hello"), make([]byte, 60)
	require.Equal(t, 32, acknowledge(in, out))
	s := wire.TCP(out[:32])
	require.Equal(t, wire.ChecksumOK, s.ChecksumState(between.Dst, between.Src))
	require.Equal(t, wire.Seq(1005), s.Ack())
	require.Zero(t, testing.AllocsPerRun(1000, func() { acknowledge(in, out) }))

	syn := []byte{2, 4, 5, 0xB4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		o, err := wire.ParseTCPOptions(syn)
		if err != nil || o.MSS != 1460 || wire.PutTCPOptions(out, &o, true) != len(syn) {
			t.Error("the options did not come back")
		}
		if _, err := wire.ParseTCPOptions(syn[:3]); err != wire.ErrTCPOption {
			t.Error("an error must be a constant")
		}
	}))
}

func BenchmarkAcknowledge(b *testing.B) {
	in, out := segment(tcpFields, timestampOption, "hello"), make([]byte, 60)
	for b.Loop() {
		acknowledge(in, out)
	}
}

func BenchmarkParseTCPOptions(b *testing.B) {
	for name, options := range map[string][]byte{
		"timestamp": timestampOption,
		"syn":       {2, 4, 5, 0xB4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7},
		"sack":      append(append([]byte{}, timestampOption...), 1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4),
	} {
		b.Run(name, func(b *testing.B) {
			var o wire.TCPOptions
			for b.Loop() {
				if err := o.Parse(options); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPutTCPOptions(b *testing.B) {
	o, out := wire.NoTCPOptions(), make([]byte, wire.TCPMaxOptions)
	o.Timestamp = stamp(1, 2)
	for b.Loop() {
		wire.PutTCPOptions(out, &o, false)
	}
}

func BenchmarkPutTCP(b *testing.B) {
	out := segment(tcpFields, timestampOption, "")
	f := tcpFields
	f.OptionsLen, f.PayloadLen = len(timestampOption), 1448
	for b.Loop() {
		wire.PutTCP(out, &f, 0x1234)
	}
}

func BenchmarkTCPChecksumState(b *testing.B) {
	s := wire.TCP(segment(tcpFields, timestampOption, string(make([]byte, 1448))))
	for b.Loop() {
		s.ChecksumState(between.Src, between.Dst)
	}
}
