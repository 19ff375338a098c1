package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a condition may take to come true on a busy machine.
const deadline = 20 * time.Second

// A record is a Sink that remembers, with the rules that Sink states.
type record struct {
	mu         sync.Mutex
	addresses  []netip.Prefix
	routes     map[routeKey]stack.Route
	neighbours map[netip.Addr]stack.NeighbourEntry
	told       map[netip.Addr]int // calls of SetNeighbour
	up         bool
	mtu        int
	hardware   [6]byte
	gone       bool
	others     int // calls that were not of LinkState
	after      int // calls after the interface was gone
	twice      int // calls that found more than two routes for a destination
	hold       sync.Mutex
}

type routeKey struct {
	dst     netip.Prefix
	metric  int
	gateway netip.Addr
	kind    stack.RouteKind
}

func keyOf(r stack.Route) routeKey { return routeKey{r.Dst, r.Metric, r.Gateway, r.Kind} }

func newRecord() *record {
	return &record{
		routes: map[routeKey]stack.Route{}, neighbours: map[netip.Addr]stack.NeighbourEntry{}, told: map[netip.Addr]int{},
	}
}

// with runs f with the record, one call at a time; while a test holds r.hold, calls of the sink wait.
func (r *record) with(f func()) {
	r.hold.Lock()
	defer r.hold.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		r.after++
	}
	r.others++
	f()
}

func (r *record) SetAddresses(ps []netip.Prefix) error {
	r.with(func() { r.addresses = slices.Clone(ps) })
	return nil
}

func (r *record) SetRoutes(rs []stack.Route) error {
	r.with(func() {
		clear(r.routes)
		for _, x := range rs {
			r.routes[keyOf(x)] = x
		}
	})
	return nil
}

func (r *record) AddRoute(x stack.Route) error {
	r.with(func() {
		r.routes[keyOf(x)] = x
		if same := slices.Collect(maps.Values(r.routes)); len(slices.DeleteFunc(same, func(o stack.Route) bool { return o.Dst != x.Dst })) > 2 {
			r.twice++
		}
	})
	return nil
}

func (r *record) DeleteRoute(x stack.Route) (ok bool) {
	r.with(func() {
		_, ok = r.routes[keyOf(x)]
		delete(r.routes, keyOf(x))
	})
	return ok
}

func (r *record) SetNeighbour(n stack.NeighbourEntry) {
	r.with(func() {
		r.neighbours[n.Addr] = n
		r.told[n.Addr]++
	})
}

func (r *record) DeleteNeighbour(a netip.Addr) { r.with(func() { delete(r.neighbours, a) }) }

func (r *record) LinkState(up bool, mtu int, hardware [6]byte) {
	r.with(func() { r.others--; r.up, r.mtu, r.hardware, r.gone = up, mtu, hardware, mtu == 0 })
}

// routeLines lists the routes as text, sorted, those to the laboratory's own networks (10.77.0.0/16) left out.
func (r *record) routeLines() (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.routes {
		if !netip.MustParsePrefix("10.77.0.0/16").Contains(x.Dst.Addr()) {
			lines = append(lines, routeLine(x))
		}
	}
	slices.Sort(lines)
	return lines
}

func routeLine(r stack.Route) string {
	s := fmt.Sprintf("%v %v", r.Kind, r.Dst)
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	if r.Source.IsValid() {
		s += " src " + r.Source.String()
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	if r.MTU != 0 {
		s += fmt.Sprintf(" mtu %d", r.MTU)
	}
	return s
}

func (r *record) wantRoutes(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, func() bool { return slices.Equal(r.routeLines(), want) }, func() string {
		return fmt.Sprintf("want routes\n\t%s\nhave\n\t%s", strings.Join(want, "\n\t"), strings.Join(r.routeLines(), "\n\t"))
	})
}

// neighbourLines lists the neighbours as text, sorted.
func (r *record) neighbourLines() (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range slices.SortedFunc(maps.Keys(r.neighbours), netip.Addr.Compare) {
		n := r.neighbours[a]
		lines = append(lines, fmt.Sprintf("%v %v %v", a, n.HardwareAddr, n.State))
	}
	return lines
}

func (r *record) wantNeighbours(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() bool { return slices.Equal(r.neighbourLines(), want) }, func() string {
		return fmt.Sprintf("want neighbours\n\t%s\nhave\n\t%s", strings.Join(want, "\n\t"), strings.Join(r.neighbourLines(), "\n\t"))
	})
}

func (r *record) neighbour(a netip.Addr) (n stack.NeighbourEntry, told int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.neighbours[a], r.told[a]
}

func (r *record) wantAddresses(t *testing.T, want ...string) {
	t.Helper()
	have := func() (lines []string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range r.addresses {
			lines = append(lines, p.String())
		}
		return lines
	}
	eventually(t, func() bool { return slices.Equal(have(), want) }, func() string {
		return fmt.Sprintf("want addresses %v, have %v", want, have())
	})
}

// eventually polls until ok, and fails with what want says.
func eventually(t *testing.T, ok func() bool, want func() string) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(want())
		}
	}
}

// ip runs ip(8) with each line of words inside a namespace, in one process, so that thousands of lines take little time.
func ip(t *testing.T, n *netlab.Namespace, lines ...string) {
	t.Helper()
	batch := filepath.Join(t.TempDir(), "batch")
	require.NoError(t, os.WriteFile(batch, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	_, err := n.Run(ctx, "ip", "-batch", batch)
	require.NoError(t, err)
}

// lab makes a laboratory with the neighbours known on neither side.
func lab(t *testing.T) *netlab.Lab {
	t.Helper()
	return netlab.Test(t, netlab.Options{})
}

// follow makes a follower of the namespace's first interface, and starts it with a record.
func follow(t *testing.T, n *netlab.Namespace, cfg FollowerConfig) (*Follower, *record) {
	t.Helper()
	f := newFollower(t, n, cfg)
	r := newRecord()
	require.NoError(t, f.Start(r))
	return f, r
}

func newFollower(t *testing.T, n *netlab.Namespace, cfg FollowerConfig) *Follower {
	t.Helper()
	cfg.Interface = cmp.Or(cfg.Interface, n.Interface())
	var f *Follower
	require.NoError(t, n.Do(func() (err error) {
		f, err = NewFollower(cfg)
		return err
	}))
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// logged is a logger and what it has written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func (l *logged) want(t *testing.T, s string) {
	t.Helper()
	eventually(t, func() bool { return l.count(s) > 0 }, func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		return fmt.Sprintf("want %q in the log, have\n%s", s, l.text.String())
	})
}

// ipForce is ip for lines of which some may fail.
func ipForce(t *testing.T, n *netlab.Namespace, lines ...string) {
	t.Helper()
	batch := filepath.Join(t.TempDir(), "batch")
	require.NoError(t, os.WriteFile(batch, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	_, err := n.Run(ctx, "ip", "-force", "-batch", batch)
	var exit *exec.ExitError
	require.True(t, err == nil || errors.As(err, &exit), "%v", err)
}
