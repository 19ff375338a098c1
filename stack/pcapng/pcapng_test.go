package pcapng_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/pcapng"
)

var stamp = time.Date(2024, 2, 29, 12, 34, 56, 123456789, time.UTC)

// capture writes packets to one interface with this snap length.
func capture(t *testing.T, snapLen int, packets ...pcapng.Packet) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := pcapng.NewWriter(&out, "kit test")
	require.NoError(t, err)
	id, err := w.AddInterface(pcapng.Interface{Name: "eth0", SnapLen: snapLen})
	require.NoError(t, err)
	require.Zero(t, id)
	for _, p := range packets {
		require.NoError(t, w.WritePacket(&p))
	}
	require.NoError(t, w.Err())
	return out.Bytes()
}

func open(t *testing.T, b []byte) *pcapgo.NgReader {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{})
	require.NoError(t, err)
	return r
}

func TestReadBackWithGopacket(t *testing.T) {
	var packets []pcapng.Packet
	for n := range 70 { // every length of padding
		packets = append(packets, pcapng.Packet{
			Time:      stamp.Add(time.Duration(n)),
			Data:      bytes.Repeat([]byte{byte(n)}, n),
			Direction: pcapng.Direction(n % 3),
			Comment:   strings.Repeat("x", n%7),
		})
	}
	r := open(t, capture(t, 0, packets...))
	require.Equal(t, layers.LinkTypeEthernet, r.LinkType())
	require.Equal(t, "kit test", r.SectionInfo().Application)
	for n, p := range packets {
		data, info, options, err := r.ReadPacketDataWithOptions()
		require.NoError(t, err)
		require.Equal(t, p.Data, data)
		require.Equal(t, n, info.Length)
		require.Equal(t, n, info.CaptureLength)
		require.Equal(t, p.Time, info.Timestamp.UTC(), "nanoseconds")
		if p.Comment == "" {
			require.Empty(t, options.Comments)
		} else {
			require.Equal(t, []string{p.Comment}, options.Comments)
		}
		if p.Direction == pcapng.DirectionUnknown {
			require.Nil(t, options.Flags)
			continue
		}
		want := map[pcapng.Direction]pcapgo.NgEpbFlag{
			pcapng.Inbound: pcapgo.NgEpbFlagDirectionInbound, pcapng.Outbound: pcapgo.NgEpbFlagDirectionOutbound,
		}[p.Direction]
		require.Equal(t, want, options.Flags.Direction)
	}
	_, _, err := r.ReadPacketData()
	require.ErrorIs(t, err, io.EOF)
	i, err := r.Interface(0)
	require.NoError(t, err)
	require.Equal(t, "eth0", i.Name)
	require.Equal(t, uint32(pcapng.MaxSnapLen), i.SnapLength)
	require.Equal(t, pcapgo.NgResolution(9), i.TimestampResolution)
}

func TestSnapLenCutsAndLengthStays(t *testing.T) {
	r := open(t, capture(t, 64,
		pcapng.Packet{Time: stamp, Data: make([]byte, 100)},
		pcapng.Packet{Time: stamp, Data: make([]byte, 50), Length: 1500},
		pcapng.Packet{Time: stamp, Data: make([]byte, 60), Length: 1}))
	for _, want := range []struct{ captured, length int }{{64, 100}, {50, 1500}, {60, 60}} {
		data, info, err := r.ReadPacketData()
		require.NoError(t, err)
		require.Len(t, data, want.captured)
		require.Equal(t, want.length, info.Length)
	}
}

func TestSeveralInterfaces(t *testing.T) {
	var out bytes.Buffer
	w, err := pcapng.NewWriter(&out, "")
	require.NoError(t, err)
	require.ErrorContains(t, w.WritePacket(&pcapng.Packet{}), "add the interface first")
	for i, name := range []string{"eth0", "eth1"} {
		id, err := w.AddInterface(pcapng.Interface{Name: name, SnapLen: 1 << 30})
		require.NoError(t, err)
		require.Equal(t, i, id)
	}
	require.Error(t, w.WritePacket(&pcapng.Packet{Interface: 2}))
	require.Error(t, w.WritePacket(&pcapng.Packet{Interface: -1}))
	require.NoError(t, w.WritePacket(&pcapng.Packet{Interface: 1, Data: []byte{1}, Time: stamp}))
	r := open(t, out.Bytes())
	_, info, err := r.ReadPacketData()
	require.NoError(t, err)
	require.Equal(t, 1, info.InterfaceIndex)
	i, err := r.Interface(1)
	require.NoError(t, err)
	require.Equal(t, "eth1", i.Name)
	require.Equal(t, uint32(pcapng.MaxSnapLen), i.SnapLength)
}

func TestLongCommentIsCut(t *testing.T) {
	r := open(t, capture(t, 0, pcapng.Packet{Time: stamp, Data: []byte{1}, Comment: strings.Repeat("c", 70_000)}))
	_, _, options, err := r.ReadPacketDataWithOptions()
	require.NoError(t, err)
	require.Len(t, options.Comments[0], 65_535)
}

// brittle takes a number of bytes and then fails, or takes too little.
type brittle struct {
	left int
	err  error
}

func (b *brittle) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return b.left, b.err
	}
	b.left -= len(p)
	return len(p), nil
}

func TestFailedWriteEndsTheCapture(t *testing.T) {
	full := errors.New("disk full")
	_, err := pcapng.NewWriter(&brittle{err: full}, "kit")
	require.ErrorIs(t, err, full)

	out := &brittle{left: 200, err: full}
	w, err := pcapng.NewWriter(out, "kit")
	require.NoError(t, err)
	id, err := w.AddInterface(pcapng.Interface{Name: "eth0"})
	require.NoError(t, err)
	big := &pcapng.Packet{Interface: id, Data: make([]byte, 500)}
	require.ErrorIs(t, w.WritePacket(big), full)
	require.ErrorIs(t, w.Err(), full)
	out.left = 1000
	require.ErrorIs(t, w.WritePacket(big), full, "no block behind half a block")
	require.Equal(t, 1000, out.left)
	_, err = w.AddInterface(pcapng.Interface{})
	require.ErrorIs(t, err, full)

	w, err = pcapng.NewWriter(&brittle{left: 40}, "")
	require.NoError(t, err)
	_, err = w.AddInterface(pcapng.Interface{Name: "eth0"})
	require.ErrorIs(t, err, io.ErrShortWrite)
}

// blocks counts writes and checks that each is one whole block.
type blocks struct {
	t *testing.T
	n int
}

func (b *blocks) Write(p []byte) (int, error) {
	length := int(p[4]) | int(p[5])<<8 | int(p[6])<<16
	require.Len(b.t, p, length)
	require.Equal(b.t, p[4:8], p[len(p)-4:])
	b.n++
	return len(p), nil
}

func TestEveryBlockIsOneWrite(t *testing.T) {
	out := &blocks{t: t}
	w, err := pcapng.NewWriter(out, "kit")
	require.NoError(t, err)
	_, err = w.AddInterface(pcapng.Interface{Name: "eth0"})
	require.NoError(t, err)
	require.NoError(t, w.WritePacket(&pcapng.Packet{Data: make([]byte, 61), Comment: "one"}))
	require.Equal(t, 3, out.n)
}

func TestWritePacketDoesNotAllocate(t *testing.T) {
	w, err := pcapng.NewWriter(io.Discard, "kit")
	require.NoError(t, err)
	_, err = w.AddInterface(pcapng.Interface{Name: "eth0"})
	require.NoError(t, err)
	p := &pcapng.Packet{Time: stamp, Data: make([]byte, 1514), Direction: pcapng.Outbound, Comment: "drop: no socket"}
	require.Zero(t, testing.AllocsPerRun(1000, func() { _ = w.WritePacket(p) }))
}

// FuzzWritePacket wants every packet back as it went in.
func FuzzWritePacket(f *testing.F) {
	f.Add([]byte("frame"), "drop: no socket", uint8(1), 0, int64(1))
	f.Add([]byte{}, "", uint8(0), 70, int64(-1))
	f.Fuzz(func(t *testing.T, data []byte, comment string, direction uint8, length int, nanos int64) {
		length = max(0, min(length, 1<<31))
		p := pcapng.Packet{Time: time.Unix(0, max(0, nanos)), Data: data, Comment: comment, Direction: pcapng.Direction(direction % 3), Length: length}
		r := open(t, capture(t, 0, p))
		got, info, options, err := r.ReadPacketDataWithOptions()
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		require.Equal(t, max(len(data), length), info.Length)
		require.Equal(t, p.Time.UnixNano(), info.Timestamp.UnixNano())
		if comment != "" {
			require.Equal(t, comment[:min(len(comment), 65_535)], options.Comments[0])
		}
	})
}

func BenchmarkWritePacket(b *testing.B) {
	w, err := pcapng.NewWriter(io.Discard, "kit")
	require.NoError(b, err)
	_, err = w.AddInterface(pcapng.Interface{Name: "eth0"})
	require.NoError(b, err)
	p := &pcapng.Packet{Time: stamp, Data: make([]byte, 64), Direction: pcapng.Outbound}
	for b.Loop() {
		_ = w.WritePacket(p)
	}
}
