package tcp

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// throughput runs a transfer of total bytes one way over a bottleneck of 12.5
// MB/s and returns kilobytes a second of virtual time, and the sender's end.
func throughput(congestion string, loss float64, delay time.Duration, buffer, total int) (int, *end) {
	cfg := DefaultConfig()
	cfg.Congestion = congestion
	cfg.ReceiveBuffer, cfg.ReceiveBufferMax = min(buffer, cfg.ReceiveBuffer), buffer
	const rate = 12_500_000
	pipe := pipeConfig{delay: delay, rate: rate, loss: loss,
		queue: max(30_000, int(2*delay.Seconds()*rate))} // one bandwidth-delay product
	m := newSim(7, [2]Config{cfg, cfg}, [2]pipeConfig{pipe, pipe})
	a, b := m.ends[0], m.ends[1]
	a.total = total
	a.init()
	a.conn.Connect(m.now)
	begin := m.now
	if !m.run(time.Hour) || b.read != total {
		return -1, a
	}
	return int(float64(total) / 1000 / b.finished.Sub(begin).Seconds()), a
}

// A seeded table of throughput by loss, delay and buffer. A changed number is a
// conversation: go test ./stack/tcp -run TestThroughputTable -update
func TestThroughputTable(t *testing.T) {
	var b strings.Builder
	b.WriteString("# kB/s of virtual time for 4 MiB over a link of 12500 kB/s; columns are receive buffers\n")
	buffers := []int{8 << 10, 64 << 10, 512 << 10, 4 << 20}
	fmt.Fprintf(&b, "%-8s %6s %6s", "", "loss", "delay")
	for _, buffer := range buffers {
		fmt.Fprintf(&b, " %6dK", buffer>>10)
	}
	b.WriteString("\n")
	for _, congestion := range []string{"cubic", "newreno"} {
		for _, loss := range []float64{0, 0.001, 0.01, 0.05} {
			for _, delay := range []time.Duration{100 * time.Microsecond, 5 * time.Millisecond, 50 * time.Millisecond} {
				fmt.Fprintf(&b, "%-8s %5.1f%% %6v", congestion, loss*100, delay)
				for _, buffer := range buffers {
					kbs, _ := throughput(congestion, loss, delay, buffer, 4<<20)
					fmt.Fprintf(&b, " %7d", kbs)
				}
				b.WriteString("\n")
			}
		}
	}
	golden := filepath.Join("testdata", "throughput.golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "throughput changed; look at it, then run with -update")
}
