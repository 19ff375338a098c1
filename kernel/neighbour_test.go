package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack"
)

func TestNeighboursAreSeenAndFollowed(t *testing.T) {
	l := twoCables(t)
	ip(t, l.Left,
		"neighbour add 10.77.0.50 lladdr 02:00:00:00:00:50 nud permanent dev left0",
		"neighbour add 10.77.0.51 lladdr 02:00:00:00:00:51 nud stale dev left0",
		"neighbour add 10.77.1.52 lladdr 02:00:00:00:00:52 nud permanent dev left1",
		"neighbour add proxy 10.77.0.53 dev left0",
	)
	_, r := follow(t, l.Left, FollowerConfig{})
	r.wantNeighbours(t, "10.77.0.50 02:00:00:00:00:50 permanent", "10.77.0.51 02:00:00:00:00:51 stale")
	ip(t, l.Left,
		"neighbour add 10.77.0.54 lladdr 02:00:00:00:00:54 nud reachable dev left0",
		"neighbour change 10.77.0.51 lladdr 02:00:00:00:00:61 nud noarp dev left0",
		"neighbour del 10.77.0.50 dev left0",
		"neighbour add 10.77.0.55 lladdr 02:00:00:00:00:55 nud permanent dev left0",
		"neighbour change 10.77.0.55 nud failed dev left0",
		"neighbour add 10.77.1.56 lladdr 02:00:00:00:00:56 nud permanent dev left1",
		"neighbour add proxy 10.77.0.57 dev left0",
	)
	r.wantNeighbours(t, "10.77.0.51 02:00:00:00:00:61 permanent", "10.77.0.54 02:00:00:00:00:54 reachable",
		"10.77.0.55  failed")
	ip(t, l.Left, "link set left0 down", "link set left0 up") // which flushes them
	r.wantNeighbours(t)
}

// The kernel drops changes when it has no room for them, says so once, and everything is read anew.
func TestManyChangesEndConsistent(t *testing.T) {
	l := lab(t)
	require.NoError(t, l.Left.Sysctl("net.ipv4.neigh.left0.gc_stale_time", "3600"))
	f, r := follow(t, l.Left, FollowerConfig{ReceiveBuffer: 16 << 10})
	const neighbours, rounds = 500, 20
	var lines []string
	for round := range rounds {
		for n := range neighbours {
			lines = append(lines, fmt.Sprintf("neighbour replace 10.77.%d.%d lladdr 02:00:00:00:%02x:%02x nud permanent dev left0",
				n/250, n%250+3, round, n%256))
		}
	}
	require.Len(t, lines, 10_000)
	for n := range 100 {
		lines = append(lines, fmt.Sprintf("neighbour del 10.77.0.%d dev left0", n+3))
	}
	lines = append(lines, "route add default via 10.77.0.2", "address add 10.77.0.2/24 dev left0", "link set left0 mtu 1400")

	r.hold.Lock() // a sink that takes its time
	ip(t, l.Left, lines...)
	r.hold.Unlock()

	_, fresh := follow(t, l.Left, FollowerConfig{})
	require.Len(t, fresh.neighbourLines(), neighbours-100)
	r.wantNeighbours(t, fresh.neighbourLines()...)
	r.wantRoutes(t, "unicast 0.0.0.0/0 via 10.77.0.2")
	r.wantAddresses(t, "10.77.0.1/24", "10.77.0.2/24")
	eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.mtu == 1400 }, func() string { return "the MTU is not followed" })
	require.NotZero(t, f.Stats().Overruns, "the small receive buffer overran")
	require.Less(t, f.Stats().Changes, uint64(10_000), "so some changes were never seen")

	// And what comes after is followed as before.
	ip(t, l.Left, "neighbour add 10.77.3.3 lladdr 02:00:00:00:03:03 nud permanent dev left0")
	eventually(t, func() bool {
		n, _ := r.neighbour(netip.MustParseAddr("10.77.3.3"))
		return n.State == stack.NeighbourPermanent
	},
		func() string { return "the change after the overrun is not followed" })
}

func TestResolveFindsANeighbour(t *testing.T) {
	l := lab(t)
	f, r := follow(t, l.Left, FollowerConfig{})
	f.Resolve(l.Right.Addr())
	r.wantNeighbours(t, fmt.Sprintf("10.77.0.2 %v reachable", l.Right.HardwareAddr()))
	require.EqualValues(t, 1, f.Stats().Asked)
}

// What Resolve is asked before Start is asked after it.
func TestResolveBeforeStart(t *testing.T) {
	l := lab(t)
	f := newFollower(t, l.Left, FollowerConfig{})
	f.Resolve(l.Right.Addr())
	r := newRecord()
	require.NoError(t, f.Start(r))
	r.wantNeighbours(t, fmt.Sprintf("10.77.0.2 %v reachable", l.Right.HardwareAddr()))
}

func TestResolveTellsAFailure(t *testing.T) {
	l := lab(t)
	require.NoError(t, l.Left.Sysctl("net.ipv4.neigh.left0.retrans_time_ms", "50"))
	f, r := follow(t, l.Left, FollowerConfig{})
	for range 2 { // a second time it is asked again
		_, before := r.neighbour(netip.MustParseAddr("10.77.0.99"))
		failedAgain := func() bool {
			f.Resolve(netip.MustParseAddr("10.77.0.99"))
			n, told := r.neighbour(netip.MustParseAddr("10.77.0.99"))
			return n.State == stack.NeighbourFailed && told > before
		}
		eventually(t, failedAgain, func() string { return fmt.Sprintf("no failure was told: %v", r.neighbourLines()) })
	}
}

// A stale neighbour is probed by the kernel when kit uses it, although the kernel sees none of kit's packets.
func TestResolveKeepsANeighbourFresh(t *testing.T) {
	l := lab(t)
	require.NoError(t, l.Left.Sysctl("net.ipv4.neigh.left0.delay_first_probe_time", "1"))
	ip(t, l.Left, fmt.Sprintf("neighbour add 10.77.0.2 lladdr %v nud stale dev left0", l.Right.HardwareAddr()))
	f, r := follow(t, l.Left, FollowerConfig{})
	r.wantNeighbours(t, fmt.Sprintf("10.77.0.2 %v stale", l.Right.HardwareAddr()))
	f.Resolve(l.Right.Addr())
	// Its state is told at once, so that the stack goes on using it while the kernel takes its time.
	eventually(t, func() bool { n, _ := r.neighbour(l.Right.Addr()); return n.State != stack.NeighbourStale },
		func() string { return "the present state is not told" })
	r.wantNeighbours(t, fmt.Sprintf("10.77.0.2 %v reachable", l.Right.HardwareAddr()))
}

// A neighbour that has not changed is told again: the stack that asks waits for an answer.
func TestResolveAnswersForAKnownNeighbour(t *testing.T) {
	l := lab(t)
	ip(t, l.Left, "neighbour add 10.77.0.50 lladdr 02:00:00:00:00:50 nud permanent dev left0")
	f, r := follow(t, l.Left, FollowerConfig{})
	f.Resolve(netip.MustParseAddr("10.77.0.50"))
	eventually(t, func() bool { _, told := r.neighbour(netip.MustParseAddr("10.77.0.50")); return told == 2 },
		func() string { return "the neighbour's state is not told" })
}

// An interface without IPv4, here for its MTU below the least of RFC 791, has no neighbours: the stack's packets need not wait
// for one.
func TestResolveTellsARefusal(t *testing.T) {
	l := lab(t)
	ip(t, l.Left, "link set lo mtu 60")
	f, r := follow(t, l.Left, FollowerConfig{Interface: "lo"})
	f.Resolve(l.Right.Addr())
	r.wantNeighbours(t, "10.77.0.2  failed")
}

func TestResolveIsPacedAndCostsNoMemory(t *testing.T) {
	l := lab(t)
	f, r := follow(t, l.Left, FollowerConfig{})
	addr := l.Right.Addr()
	began := time.Now()
	f.Resolve(addr)
	r.wantNeighbours(t, fmt.Sprintf("10.77.0.2 %v reachable", l.Right.HardwareAddr()))
	require.Zero(t, testing.AllocsPerRun(1000, func() { f.Resolve(addr) }))
	require.LessOrEqual(t, f.Stats().Asked, 1+uint64(time.Since(began)/askInterval), "it is asked for once an interval")
	f.Resolve(netip.MustParseAddr("fe80::1")) // not the kernel's ARP
	// When the interval is over, it is asked again.
	asked := f.Stats().Asked
	eventually(t, func() bool { f.Resolve(addr); return f.Stats().Asked > asked }, func() string { return "it is never asked again" })
}

// Far more addresses than fit: the rest is counted and nothing blocks. (They are not given to the kernel, whose table is one
// for all namespaces.)
func TestResolveOfTooMany(t *testing.T) {
	l := lab(t)
	f := newFollower(t, l.Left, FollowerConfig{})
	const many = 20_000
	for n := range many {
		f.Resolve(netip.AddrFrom4([4]byte{10, 77, byte(n >> 8), byte(n)}))
	}
	require.EqualValues(t, many-askQueue, f.Stats().Unasked)
}

// Of addresses that share a place in the filter each is asked for, and not more often for that.
func TestResolveOfCollidingAddresses(t *testing.T) {
	l := lab(t)
	f, r := follow(t, l.Left, FollowerConfig{})
	began := time.Now()
	addrs := []netip.Addr{l.Right.Addr()}
	slot := func(a netip.Addr) any { b := a.As4(); return f.asker.slot(binary.BigEndian.Uint32(b[:])) }
	for a := addrs[0].Next(); len(addrs) < 5; a = a.Next() {
		if slot(a) == slot(addrs[0]) {
			addrs = append(addrs, a)
		}
	}
	known := func() bool {
		for _, a := range addrs {
			f.Resolve(a)
		}
		n, _ := r.neighbour(l.Right.Addr())
		return n.State == stack.NeighbourReachable && f.Stats().Asked >= 5
	}
	eventually(t, known, func() string { return fmt.Sprintf("not all are asked for: %+v", f.Stats()) })
	require.LessOrEqual(t, f.Stats().Asked, 5*(1+uint64(time.Since(began)/askInterval)))
}

func BenchmarkResolve(b *testing.B) {
	l := netlab.Test(b, netlab.Options{})
	var f *Follower
	require.NoError(b, l.Left.Do(func() (err error) {
		f, err = NewFollower(FollowerConfig{Interface: l.Left.Interface()})
		return err
	}))
	defer f.Close()
	require.NoError(b, f.Start(newRecord()))
	addr := l.Right.Addr()
	for b.Loop() {
		f.Resolve(addr)
	}
}
