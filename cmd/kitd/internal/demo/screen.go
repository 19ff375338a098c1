package demo

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"kitnet.dev/kit/cmd/kitd/internal/control"
)

// screen writes lines that stay and, on a terminal, lines that are written over.
type screen struct {
	out      io.Writer
	terminal bool
	passing  int // lines at the bottom that the next one replaces
}

func newScreen(out io.Writer, terminal bool) *screen { return &screen{out: out, terminal: terminal} }

// line writes one that stays.
func (s *screen) line(format string, args ...any) { s.write(fmt.Sprintf(format, args...) + "\n") }

// done writes what has been shown to be so.
func (s *screen) done(format string, args ...any) { s.line("  ✓ "+format, args...) }

func (s *screen) write(text string) {
	if s.passing > 0 {
		text = fmt.Sprintf("\x1b[%dA\x1b[J", s.passing) + text
		s.passing = 0
	}
	_, _ = io.WriteString(s.out, text) // who looks on may have gone
}

// live writes lines over those of the last call; where that can't be, the first
// of them stays.
func (s *screen) live(lines []string) {
	if !s.terminal {
		s.line("%s", lines[0])
		return
	}
	s.write(strings.Join(lines, "\n") + "\n")
	s.passing = len(lines)
}

// watch shows a load while it runs.
func (s *show) watch(ctx context.Context, title string, p *progress, d *kitd) {
	period := time.Second
	if s.options.Terminal {
		period = 500 * time.Millisecond
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	last, lastAt := uint64(0), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			replies := p.replies.Load()
			rate := float64(replies-last) / now.Sub(lastAt).Seconds()
			last, lastAt = replies, now
			lines := []string{fmt.Sprintf("    %-20s %9s replies/s  %s lost %d", title, grouped(uint64(rate)), bar(rate), p.lost.Load())}
			if d != nil && s.options.Terminal {
				lines = append(lines, s.inside(ctx, d)...)
			}
			s.screen.live(lines)
		}
	}
}

// barUnit is the rate that one character of a bar stands for.
const barUnit = 10000

func bar(rate float64) string { return strings.Repeat("▇", min(int(rate/barUnit+0.5), 40)) }

// inside is what kitd says of itself, and one packet of those that pass.
func (s *show) inside(ctx context.Context, d *kitd) []string {
	stats, err := ask[control.Stats](ctx, d, "stats")
	if err != nil {
		return nil
	}
	sum := map[string]uint64{}
	for _, c := range stats.Counters {
		sum[c.Group+" "+c.Name] += c.Value
		if c.Group == "drop" || c.Group == "drop-tx" {
			sum["drops"] += c.Value
		}
		if c.Group == "xdp" && strings.HasPrefix(c.Name, "pass") {
			sum["passed"] += c.Value
		}
	}
	lines := []string{fmt.Sprintf("      XDP: %s to kit, %s to the kernel   engine: %s delivered, %s sent, %d dropped",
		grouped(sum["xdp xsk_udp"]), grouped(sum["passed"]), grouped(sum["engine delivered"]), grouped(sum["engine tx_frames"]), sum["drops"])}
	var packet strings.Builder
	request := control.CaptureRequest{Format: control.FormatText, Filter: "udp", Count: 1}
	if _, err := d.client.Capture(ctx, request, &packet, func() {}); err == nil && packet.Len() > 0 {
		lines = append(lines, "      "+strings.TrimSpace(packet.String()))
	}
	return lines
}

// summarize prints the table: all rounds together.
func (s *show) summarize() error {
	for _, f := range []*figures{&s.kit, &s.kernel} {
		slices.Sort(f.many.times)
		slices.Sort(f.one.times)
	}
	rows := [][]string{{"", "kit", "kernel", "kit / kernel"}}
	rate := func(title string, kit, kernel *sample) {
		rows = append(rows, []string{title, grouped(uint64(kit.rate())), grouped(uint64(kernel.rate())), ratio(kit.rate(), kernel.rate())})
	}
	round := func(title string, q float64, kit, kernel *sample) {
		a, b := kit.quantile(q), kernel.quantile(q)
		rows = append(rows, []string{title, micros(a), micros(b), ratio(float64(a), float64(b))})
	}
	rate(fmt.Sprintf("UDP echo, %d at a time, replies/s", window), &s.kit.many, &s.kernel.many)
	round("  round trip p50", 0.5, &s.kit.many, &s.kernel.many)
	round("  round trip p99", 0.99, &s.kit.many, &s.kernel.many)
	rate("UDP echo, one at a time, replies/s", &s.kit.one, &s.kernel.one)
	round("  round trip p50", 0.5, &s.kit.one, &s.kernel.one)
	round("  round trip p99", 0.99, &s.kit.one, &s.kernel.one)
	rows = append(rows, []string{"lost", grouped(s.kit.many.lost + s.kit.one.lost), grouped(s.kernel.many.lost + s.kernel.one.lost), ""})
	s.screen.line("")
	for _, row := range rows {
		s.screen.line("  %-38s %12s %12s %14s", row[0], row[1], row[2], row[3])
	}
	s.screen.line("")
	s.screen.line("  One veth pair, the same clients on the kernel's sockets, %d-byte payload, %d turns each of %v and %v.", payload, rounds, loadTime, oneTime)
	s.screen.line("  The clients take as much of this machine as the servers do: 'kitd bench' measures with more care.")
	return nil
}

// ratio of two figures.
func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return strconv.FormatFloat(a/b, 'f', 2, 64)
}

// micros writes a time in microseconds.
func micros(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', 1, 64) + " µs"
}

// grouped writes a number with commas.
func grouped(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
