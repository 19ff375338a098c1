package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"kitnet.dev/kit/internal/bench/child"
	"kitnet.dev/kit/internal/netlab"
)

// kxdpgun (Debian package knot-dnsutils) is a DNS load generator of another make that sends and receives by AF_XDP. It
// counts as a reply whatever comes back from the port that it asks and is long enough for a DNS header, so an echo of its
// queries will do.

const (
	// kxdpgunFull is a rate of queries that no machine reaches.
	kxdpgunFull = 50_000_000
	// kxdpgunBatch is the batch of queries with which it is fastest.
	kxdpgunBatch = 64
	// kxdpgunLongest is the longest query that queryOf makes, bytes.
	kxdpgunLongest = 81
)

// kxdpgunSummary is what kxdpgun says at its end.
type kxdpgunSummary struct {
	Queries, Replies uint64
	Duration         time.Duration
}

// kxdpgun asks the address as fast as it can for that long (whole seconds), from the given core.
func kxdpgun(ctx context.Context, dir string, from *netlab.Namespace, to netip.AddrPort, payload, cpu int,
	d time.Duration) (summary kxdpgunSummary, err error) {
	query, err := queryOf(payload)
	if err != nil {
		return kxdpgunSummary{}, err
	}
	file := filepath.Join(dir, "queries")
	if err := os.WriteFile(file, []byte(query), 0o600); err != nil {
		return kxdpgunSummary{}, fmt.Errorf("bench: write kxdpgun's queries: %w", err)
	}
	defer func() { err = errors.Join(err, detachXDP(from)) }()
	out, err := from.Run(ctx, "nice", "-n", strconv.Itoa(child.Ahead), "kxdpgun",
		"-t", strconv.Itoa(int(d/time.Second)), "-Q", strconv.Itoa(kxdpgunFull), "-b", strconv.Itoa(kxdpgunBatch), "-i", file,
		"-I", from.Interface(), "-F", strconv.Itoa(cpu), "-p", strconv.Itoa(int(to.Port())), to.Addr().String())
	if err != nil {
		return kxdpgunSummary{}, fmt.Errorf("bench: %w", err)
	}
	return parseKxdpgun(string(out))
}

// detachXDP takes the XDP program off the namespace's first end: kxdpgun leaves its own there.
func detachXDP(ns *netlab.Namespace) error {
	err := ns.Do(func() error {
		link, err := netlink.LinkByIndex(ns.Index())
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFd(link, -1)
	})
	if err != nil {
		return fmt.Errorf("bench: take kxdpgun's XDP program off %s: %w", ns.Interface(), err)
	}
	return nil
}

// queryOf is a line of kxdpgun's input that makes a query of so many bytes: a header of 12, the name with a length before
// its label and a zero at its end, type and class (RFC 1035 section 4.1).
func queryOf(payload int) (string, error) {
	const fixed = 12 + 1 + 1 + 4
	label := payload - fixed
	if label < 1 || label > 63 {
		return "", fmt.Errorf("bench: kxdpgun can't send %d bytes of payload: want %d to %d", payload, fixed+1, fixed+63)
	}
	return strings.Repeat("k", label) + " A\n", nil
}

// kxdpgunLines are the lines of kxdpgun 3's summary: queries, replies, seconds.
var kxdpgunLines = [3]*regexp.Regexp{
	regexp.MustCompile(`(?m)^total queries:\s+(\d+)\b`),
	regexp.MustCompile(`(?m)^total replies:\s+(\d+)\b`),
	regexp.MustCompile(`(?m)^duration:\s+([0-9.]+) s\b`),
}

// parseKxdpgun reads the summary.
func parseKxdpgun(out string) (s kxdpgunSummary, err error) {
	var fields [3]string
	for i, line := range kxdpgunLines {
		m := line.FindStringSubmatch(out)
		if m == nil {
			return s, fmt.Errorf("bench: kxdpgun's summary has no line like %s: %q", line, out)
		}
		fields[i] = m[1]
	}
	if s.Queries, err = strconv.ParseUint(fields[0], 10, 64); err != nil {
		return s, fmt.Errorf("bench: kxdpgun's queries: %w", err)
	}
	if s.Replies, err = strconv.ParseUint(fields[1], 10, 64); err != nil {
		return s, fmt.Errorf("bench: kxdpgun's replies: %w", err)
	}
	seconds, err := strconv.ParseFloat(fields[2], 64)
	if err != nil || seconds <= 0 {
		return s, fmt.Errorf("bench: kxdpgun's duration is %q", fields[2])
	}
	s.Duration = time.Duration(seconds * float64(time.Second))
	return s, nil
}
