package demo

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo starts the kernel's echo service on the loopback and returns a client's
// socket to it.
func echo(t *testing.T) *net.UDPConn {
	t.Helper()
	free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	at := free.LocalAddr().(*net.UDPAddr)
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(ServeKernelEcho(at.String(), w)) }() // until the process ends
	require.NoError(t, free.Close(), "it waits until the port is free")
	line, err := bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	conn, err := net.DialUDP("udp4", nil, at)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestLoads(t *testing.T) {
	conn := echo(t)
	for name, load := range map[string]func(context.Context, *net.UDPConn, *progress) (sample, error){"flood": flood, "one": pingPong} {
		var p progress
		s, err := load(t.Context(), conn, &p)
		require.NoError(t, err, name)
		require.Positive(t, s.replies, name)
		require.Len(t, s.times, int(s.replies), name)
		require.Equal(t, s.replies, p.replies.Load(), name)
		require.Positive(t, slices.Min(s.times), name)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := flood(ended, conn, new(progress))
	require.ErrorIs(t, err, context.Canceled)
}

// TestLossIsCounted: of a server that answers every second datagram only.
func TestLossIsCounted(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer server.Close()
	go func() {
		b := make([]byte, 100)
		for i := 0; ; i++ {
			n, from, err := server.ReadFromUDP(b)
			if err != nil {
				return
			}
			if i%2 == 0 {
				_, _ = server.WriteToUDP(b[:n], from)
			}
		}
	}()
	conn, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer conn.Close()
	s, err := flood(t.Context(), conn, new(progress))
	require.NoError(t, err)
	require.Positive(t, s.lost)
	require.Positive(t, s.replies)
}

func TestSample(t *testing.T) {
	s := sample{replies: 3, lost: 1, elapsed: time.Second, times: []time.Duration{1, 2, 3}}
	s.merge(sample{replies: 1, elapsed: time.Second, times: []time.Duration{4}})
	require.EqualValues(t, 4, s.replies)
	require.InDelta(t, 2, s.rate(), 1e-9)
	require.Equal(t, time.Duration(3), s.quantile(0.5))
	require.Equal(t, time.Duration(4), s.quantile(0.99))
	require.Zero(t, new(sample).quantile(0.5))
}

func TestWords(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, grouped(n))
	}
	require.Equal(t, "12.5 µs", micros(12500*time.Nanosecond))
	require.Equal(t, "1.50", ratio(3, 2))
	require.Equal(t, "-", ratio(3, 0))
	require.Equal(t, "▇▇", bar(20000))
	require.Len(t, []rune(bar(1e9)), 40)
	require.Equal(t, ", 0.064 ms on average", average("rtt min/avg/max/mdev = 0.030/0.064/0.274/0.107 ms\n"))
	require.Empty(t, average("nothing of the kind"))
}

func TestScreen(t *testing.T) {
	var out strings.Builder
	s := newScreen(&out, true)
	s.live([]string{"a", "b"})
	s.live([]string{"c"})
	s.done("stays %d", 1)
	s.line("too")
	require.Equal(t, "a\nb\n\x1b[2A\x1b[Jc\n\x1b[1A\x1b[J  ✓ stays 1\ntoo\n", out.String())
	out.Reset()
	s = newScreen(&out, false)
	s.live([]string{"a", "b"})
	s.line("z")
	require.Equal(t, "a\nz\n", out.String())
}

func TestReapDirectories(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	const dead = 1 << 30 // beyond the kernel's largest pid
	mine := filepath.Join(os.TempDir(), directoryPrefix+strconv.Itoa(os.Getpid())+"-1")
	theirs := filepath.Join(os.TempDir(), directoryPrefix+strconv.Itoa(dead)+"-1")
	for _, d := range []string{mine, theirs} {
		require.NoError(t, os.Mkdir(d, 0o700))
	}
	reapDirectories()
	require.DirExists(t, mine)
	require.NoDirExists(t, theirs)
}

func TestListenPatientlyGivesUpOnWhatIsNoBusyPort(t *testing.T) {
	_, err := listenPatiently("192.0.2.1:7")
	require.Error(t, err)
	require.False(t, errors.Is(err, context.DeadlineExceeded))
	require.Error(t, ServeKernelEcho("nonsense", io.Discard))
}
