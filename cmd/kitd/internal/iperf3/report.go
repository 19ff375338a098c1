package iperf3

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// maxReport is where the intervals in a report end, in bytes; the totals are always there.
const maxReport = 256 << 10

// report is the text that a client gets with --get-server-output: the look of iperf3's own, with stream identifiers where
// that has descriptors. A nil report writes nothing.
type report struct {
	b    strings.Builder
	p    *params
	full bool
}

func (r *report) printf(format string, args ...any) {
	if r != nil {
		fmt.Fprintf(&r.b, format, args...)
	}
}

// text is the report so far.
func (r *report) text() string {
	if r == nil {
		return ""
	}
	return r.b.String()
}

// begin writes who takes part.
func (r *report) begin(streams []*stream, client, local netip.AddrPort) {
	if r == nil {
		return
	}
	r.printf("Accepted connection from %s, port %d\n", client.Addr(), client.Port())
	for _, s := range streams {
		peer := unmap(s.peer)
		if s.conn != nil {
			peer, _ = addrPort(s.conn.RemoteAddr())
		}
		r.printf("[%3d] local %s port %d connected to %s port %d\n", s.id, local.Addr(), local.Port(), peer.Addr(), peer.Port())
	}
	r.columns()
}

// columns is the line above a table.
func (r *report) columns() {
	last := "Retr  Cwnd"
	if r != nil && r.p.udp {
		last = "Jitter    Lost/Total Datagrams"
	}
	r.printf("[ ID] Interval           Transfer     Bitrate         %s\n", last)
}

// interval writes a line a stream for the time from one moment to another, since the counted part began or, where omitted,
// since the test did. One that is hardly any time has none.
func (r *report) interval(streams []*stream, from, to time.Duration, omitted bool) {
	if r == nil || r.full || to-from < interval/100 {
		return
	}
	if r.b.Len() > maxReport {
		r.full = true
		r.printf("further intervals are left out\n")
		return
	}
	mark := ""
	if omitted {
		mark = "(omitted)"
	}
	for _, s := range streams {
		c := s.counters()
		r.line(s, c.since(s.mark), from, to, mark)
		s.mark = c
	}
	if len(streams) > 1 {
		r.printf("- - - - - - - - - - - - -\n")
	}
}

// line writes what a stream did in some time.
func (r *report) line(s *stream, c counters, from, to time.Duration, mark string) {
	if r == nil {
		return
	}
	r.printf("[%3d] %6.2f-%-6.2f sec  %7sBytes  %7sbits/sec", s.id, from.Seconds(), to.Seconds(),
		scaled(float64(c.bytes), 1024), scaled(bitRate(c.bytes, to-from), 1000))
	switch {
	case r.p.udp && s.sends:
		r.printf("  %12s  %d", "", c.packets)
	case r.p.udp:
		jitter := float64(s.jitter.Load()) / float64(time.Millisecond)
		r.printf("  %6.3f ms  %d/%d (%.2g%%)", jitter, c.lost, c.packets, percent(c.lost, c.packets))
		if c.disorder > 0 {
			r.printf("  %d out of order", c.disorder)
		}
	case s.knowsRetransmits():
		r.printf("  %4d  %sBytes  rtt %v", c.retransmits, scaled(float64(c.cwnd), 1024), c.rtt.Round(time.Microsecond))
	}
	if mark != "" {
		r.printf("  %s", mark)
	}
	r.printf("\n")
}

// totals writes what each stream did in the counted part, and all together.
func (r *report) totals(streams []*stream, end []counters, took []time.Duration) {
	if r == nil {
		return
	}
	r.printf("- - - - - - - - - - - - - - - - - - - - - - - - -\n")
	r.columns()
	who := map[bool]string{true: "sender", false: "receiver"}
	for i, s := range streams {
		r.line(s, end[i].since(s.base), 0, took[i], who[s.sends])
	}
	for _, sends := range []bool{false, true} {
		var bytes int64
		var longest time.Duration
		n := 0
		for i, s := range streams {
			if s.sends == sends {
				n++
				bytes += end[i].since(s.base).bytes
				longest = max(longest, took[i])
			}
		}
		if n > 1 {
			r.printf("[SUM] %6.2f-%-6.2f sec  %7sBytes  %7sbits/sec  %s\n", 0.0, longest.Seconds(),
				scaled(float64(bytes), 1024), scaled(bitRate(bytes, longest), 1000), who[sends])
		}
	}
}
