package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/stack"
)

// captured runs a capture while the peer talks, until it has its count.
func (r *running) captured(request control.CaptureRequest, talk func()) (string, control.CaptureResult) {
	r.t.Helper()
	var out bytes.Buffer
	started, done := make(chan struct{}), make(chan error, 1)
	var result control.CaptureResult
	go func() {
		var err error
		result, err = r.client.Capture(r.t.Context(), request, &out, func() { close(started) })
		done <- err
	}()
	<-started
	talk()
	require.NoError(r.t, <-done)
	return out.String(), result
}

func TestCaptureText(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, nil)
	d := r.dial(4000)
	out, result := r.captured(control.CaptureRequest{Format: control.FormatText, Filter: "udp port 7", Count: 2}, func() {
		r.send(d, 6, "filtered out")
		r.send(d, 7, "hello")
	})
	require.Equal(t, control.CaptureResult{Captured: 2}, result)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 2)
	// A frame that is answered in place has its end, and is shown, after the answer was made.
	require.Regexp(t, `^\d\d:\d\d:\d\d\.\d{6} mem0/3 (in |out) 02:00:00:00:00:0. > 02:00:00:00:00:0. 10\.0\.0\.\d\.\d+ > 10\.0\.0\.\d\.\d+: udp 5$`, lines[0])
	require.Contains(t, out, "mem0/3 in  02:00:00:00:00:02 > 02:00:00:00:00:01 10.0.0.9.4000 > 10.0.0.5.7: udp 5")
	require.Contains(t, out, "mem0/3 out 02:00:00:00:00:01 > 02:00:00:00:00:02 10.0.0.5.7 > 10.0.0.9.4000: udp 5")
	r.orderly()
}

func TestCaptureDrops(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, nil)
	d := r.dial(4000)
	out, _ := r.captured(control.CaptureRequest{Format: control.FormatText, Drops: true, Filter: "udp", Count: 1}, func() {
		r.send(d, 7, "answered")
		r.send(d, 6, "nobody there")
	})
	require.Contains(t, out, "10.0.0.9.4000 > 10.0.0.5.6: udp 12  [drop: udp-no-port]")
	r.orderly()
}

func TestCapturePcapng(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, nil)
	d := r.dial(4000)
	before := time.Now().Add(-time.Second)
	out, _ := r.captured(control.CaptureRequest{Format: control.FormatPcapng, Filter: "udp", Count: 2}, func() { r.send(d, 7, "hello") })
	reader, err := pcapgo.NewNgReader(strings.NewReader(out), pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	require.Equal(t, "kitd v0-test", reader.SectionInfo().Application)
	ports := map[layers.UDPPort]bool{}
	for range 2 {
		data, info, err := reader.ReadPacketData()
		require.NoError(t, err)
		require.WithinRange(t, info.Timestamp, before, time.Now())
		packet := gopacket.NewPacket(data, layers.LinkTypeEthernet, gopacket.Default)
		require.Nil(t, packet.ErrorLayer())
		ports[packet.Layer(layers.LayerTypeUDP).(*layers.UDP).DstPort] = true
		require.Equal(t, "hello", string(packet.ApplicationLayer().Payload()))
	}
	_, _, err = reader.ReadPacketData()
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, map[layers.UDPPort]bool{7: true, 4000: true}, ports, "both directions")
	require.GreaterOrEqual(t, reader.NInterfaces(), 1)
	i, err := reader.Interface(0)
	require.NoError(t, err)
	require.Equal(t, "mem0", i.Name)
	r.orderly()
}

func TestCaptureOfABadFilterIsRefused(t *testing.T) {
	r := start(t, map[string][]string{}, nil)
	_, err := r.client.Capture(t.Context(), control.CaptureRequest{Format: control.FormatText, Filter: "mpls"}, io.Discard, func() {})
	require.EqualError(t, err, `filter "mpls": "mpls" at byte 1 is not supported by kit's filters`)
	r.orderly()
}

// TestSlowReaderLosesPacketsNotTime: what finds the batch full is counted.
func TestSlowReaderLosesPacketsNotTime(t *testing.T) {
	s := newSession(nil, control.CaptureRequest{})
	frame := make([]byte, 64)
	for range captureFrames + 10 {
		s.put(captured{length: len(frame)}, frame)
	}
	full, lost := s.take(newBatch(0))
	require.Len(t, full.frames, captureFrames)
	require.EqualValues(t, 10, lost)
	long := make([]byte, 60<<10)
	for range captureBytes/len(long) + 1 {
		s.put(captured{length: len(long)}, long)
	}
	_, lost = s.take(full)
	require.EqualValues(t, 11, lost)
	require.Zero(t, testing.AllocsPerRun(100, func() { s.put(captured{length: len(frame)}, frame) }))
}

// TestCaptureOfACountWantsNoMore: what comes after it is not lost, and a small
// one takes little memory.
func TestCaptureOfACountWantsNoMore(t *testing.T) {
	s := newSession(nil, control.CaptureRequest{Count: 2})
	frame := make([]byte, 9000)
	for range 10 {
		s.put(captured{length: len(frame)}, frame)
	}
	full, lost := s.take(newBatch(2))
	require.Len(t, full.frames, 2)
	require.Zero(t, lost)
	require.Less(t, cap(full.bytes), captureBytes)
	s.put(captured{length: len(frame)}, frame)
	full, lost = s.take(full)
	require.Empty(t, full.frames)
	require.Zero(t, lost)
}

// broken is a writer that fails after some writes.
type broken struct{ left int }

func (b *broken) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		return 0, errors.New("the reader has gone")
	}
	return len(p), nil
}

func TestCaptureEndsWithItsReader(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, nil)
	for _, format := range []string{control.FormatText, control.FormatPcapng} {
		for writes := range 2 {
			run, err := (&tap{stack: r.card.stack, number: func(*stack.Interface, int) int { return 0 }}).prepare(
				control.CaptureRequest{Format: format}, "test")
			require.NoError(t, err)
			done := make(chan struct{})
			go func() { run(t.Context(), &broken{left: writes}, func() {}); close(done) }()
			d := r.dial(0)
			require.Eventually(t, func() bool {
				select {
				case <-done:
					return true
				default:
					r.send(d, 7, "x")
					return false
				}
			}, 10*time.Second, time.Millisecond)
		}
	}
	r.orderly()
}

func TestCaptureEndsWithTheDaemon(t *testing.T) {
	r := start(t, map[string][]string{}, nil)
	started, done := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := r.client.Capture(context.Background(), control.CaptureRequest{Format: control.FormatPcapng}, io.Discard, func() { close(started) })
		done <- err
	}()
	<-started
	r.orderly()
	if err := <-done; err != nil {
		require.ErrorIs(t, err, net.ErrClosed)
	}
}
