package kernel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

func TestAddressesAreSeenAndFollowed(t *testing.T) {
	l := lab(t)
	f, r := follow(t, l.Left, FollowerConfig{})
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}, f.Addresses())
	r.wantAddresses(t, "10.77.0.1/24")

	ip(t, l.Left,
		"address add 10.77.0.9/24 dev left0",
		"address add 10.1.2.3/16 dev left0",
		"address add 10.9.0.1 peer 10.9.0.2/24 dev left0",
		"address add 127.5.0.1/24 dev left0", // the stack has a loopback of its own
		"address add 10.7.0.1/24 dev lo",
	)
	r.wantAddresses(t, "10.77.0.1/24", "10.1.2.3/16", "10.9.0.1/32", "10.77.0.9/24")
	ip(t, l.Left, "address del 10.1.2.3/16 dev left0")
	r.wantAddresses(t, "10.77.0.1/24", "10.9.0.1/32", "10.77.0.9/24")
	ip(t, l.Left, "address flush dev left0")
	r.wantAddresses(t)
}

func TestAddressesAndHasAddress(t *testing.T) {
	l := lab(t)
	ip(t, l.Left, "address add 10.8.0.5/24 dev lo", "address add 10.77.0.9/24 dev left0")
	require.NoError(t, l.Left.Do(func() error {
		list, err := Addresses("left0")
		require.NoError(t, err)
		require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("10.77.0.9/24")}, list)
		_, err = Addresses("left9")
		require.ErrorIs(t, err, unix.ENODEV)
		_, err = Addresses("an interface name of more than 15 bytes")
		require.ErrorIs(t, err, unix.ENODEV)

		name, prefix, ok, err := HasAddress(netip.MustParseAddr("::ffff:10.8.0.5"))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "lo", name)
		require.Equal(t, netip.MustParsePrefix("10.8.0.5/24"), prefix)
		_, _, ok, err = HasAddress(netip.MustParseAddr("10.8.0.6"))
		require.NoError(t, err)
		require.False(t, ok)

		require.NoError(t, CheckOwned(netip.MustParseAddr("10.77.0.5")))
		err = CheckOwned(netip.MustParseAddr("10.77.0.9"))
		require.ErrorIs(t, err, unix.EADDRINUSE)
		require.ErrorContains(t, err, "ip address del 10.77.0.9/24 dev left0")
		return nil
	}))
}

// routeWords give every kind of route that there is, as `ip route add` takes them, with what the stack is told of each.
var routeWords = []struct{ words, want string }{
	{"default via 10.77.0.2", "unicast 0.0.0.0/0 via 10.77.0.2"},
	{"10.1.0.0/16 via 10.77.0.2 metric 7 mtu 1300 src 10.77.0.1", "unicast 10.1.0.0/16 via 10.77.0.2 src 10.77.0.1 metric 7 mtu 1300"},
	{"10.1.0.0/16 via 10.77.0.3 metric 9", ""}, // the lower metric counts
	{"10.2.0.0/16 dev left0", "unicast 10.2.0.0/16"},
	{"blackhole 10.3.0.0/16", "blackhole 10.3.0.0/16"},
	{"unreachable 10.4.0.0/16 metric 3", "unreachable 10.4.0.0/16 metric 3"},
	{"prohibit 10.5.0.0/16", "prohibit 10.5.0.0/16"},
	{"throw 10.6.0.0/16", "elsewhere 10.6.0.0/16"},
	{"10.7.0.0/16 dev left1", "elsewhere 10.7.0.0/16"},
	{"10.8.0.0/16 nexthop via 10.77.1.2 nexthop via 10.77.0.3 nexthop via 10.77.0.4", "unicast 10.8.0.0/16 via 10.77.0.3"},
	{"10.9.0.0/16 nexthop via 10.77.1.2 nexthop via 10.77.1.3", "elsewhere 10.9.0.0/16"},
	{"local 10.10.0.0/16 dev left0", "elsewhere 10.10.0.0/16"}, // the kernel takes it itself
	{"10.11.0.0/16 via inet6 fe80::1 dev left0", "elsewhere 10.11.0.0/16"},
	{"10.12.0.0/16 via 10.77.0.2 tos 0x10", ""}, // for some packets only
	{"10.13.0.0/16 via 10.77.0.2 table 77", ""},
	{"10.14.0.0/16 via 10.77.0.2 src 10.77.1.1", "unicast 10.14.0.0/16 via 10.77.0.2"}, // answers to it would not come to kit
	{"broadcast 10.15.255.255 dev left1", "elsewhere 10.15.255.255/32"},
	{"broadcast 10.16.255.255 dev left0", ""},
	{"multicast 10.17.0.0/16 dev left0", ""},
}

// twoCables gives the left side a second interface, left1 with 10.77.1.1/24, and lets left0 have IPv6 gateways.
func twoCables(t *testing.T) *netlab.Lab {
	l := lab(t)
	_, _, err := l.Connect(l.Left, l.Right, netlab.Options{})
	require.NoError(t, err)
	require.NoError(t, l.Left.Sysctl("net.ipv6.conf.left0.disable_ipv6", "0"))
	return l
}

func routeCommands(verb string) (lines, want []string) {
	for _, w := range routeWords {
		lines = append(lines, "route "+verb+" "+w.words)
		if w.want != "" {
			want = append(want, w.want)
		}
	}
	return lines, want
}

func TestRoutesAreSeenAtStart(t *testing.T) {
	l := twoCables(t)
	add, want := routeCommands("add")
	ip(t, l.Left, add...)
	_, r := follow(t, l.Left, FollowerConfig{})
	r.wantRoutes(t, want...)
	require.Contains(t, allRoutes(r), "unicast 10.77.0.0/24 src 10.77.0.1")
	require.Contains(t, allRoutes(r), "elsewhere 10.77.1.0/24")
	require.Contains(t, allRoutes(r), "elsewhere 10.77.1.1/32", "a packet to another of the kernel's addresses is the kernel's")
	require.NotContains(t, allRoutes(r), "elsewhere 10.77.0.1/32", "the stack knows its own addresses")
}

func allRoutes(r *record) (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.routes {
		lines = append(lines, routeLine(x))
	}
	return lines
}

func TestRoutesAreFollowed(t *testing.T) {
	l := twoCables(t)
	_, r := follow(t, l.Left, FollowerConfig{})
	r.wantRoutes(t)
	add, want := routeCommands("add")
	ip(t, l.Left, add...)
	r.wantRoutes(t, want...)
	del, _ := routeCommands("del")
	ip(t, l.Left, del...)
	r.wantRoutes(t)
}

func TestTheNextBestRouteTakesOver(t *testing.T) {
	l := lab(t)
	_, r := follow(t, l.Left, FollowerConfig{})
	ip(t, l.Left, "route add default via 10.77.0.2 metric 10", "route add default via 10.77.0.3 metric 20")
	r.wantRoutes(t, "unicast 0.0.0.0/0 via 10.77.0.2 metric 10")
	ip(t, l.Left, "route add default via 10.77.0.4 metric 5")
	r.wantRoutes(t, "unicast 0.0.0.0/0 via 10.77.0.4 metric 5")
	ip(t, l.Left, "route del default metric 5", "route del default metric 10")
	r.wantRoutes(t, "unicast 0.0.0.0/0 via 10.77.0.3 metric 20")
	ip(t, l.Left, "route change default via 10.77.0.3 metric 20 mtu 1400")
	r.wantRoutes(t, "unicast 0.0.0.0/0 via 10.77.0.3 metric 20 mtu 1400")
	require.Zero(t, r.twice, "a new route comes before the old one goes, and there are never more than these two")
}

// fib_sync_down_dev in net/ipv4/fib_semantics.c: the kernel drops the routes over a device that goes down and tells nobody.
func TestRoutesThatVanishWithALink(t *testing.T) {
	l := twoCables(t)
	_, r := follow(t, l.Left, FollowerConfig{})
	for range 20 {
		ip(t, l.Left, "route add 10.1.0.0/16 via 10.77.0.2", "route add 10.2.0.0/16 via 10.77.1.2",
			"route add 10.3.0.0/16 nexthop via 10.77.1.2 nexthop via 10.77.0.2")
		r.wantRoutes(t, "unicast 10.1.0.0/16 via 10.77.0.2", "elsewhere 10.2.0.0/16", "unicast 10.3.0.0/16 via 10.77.0.2")
		ip(t, l.Left, "link set left0 down")
		r.wantRoutes(t, "elsewhere 10.2.0.0/16", "elsewhere 10.3.0.0/16")
		ip(t, l.Left, "link set left1 down")
		r.wantRoutes(t)
		ip(t, l.Left, "link set left0 up", "link set left1 up")
	}
}

func TestRoutesThatVanishWithTheirSourceAddress(t *testing.T) {
	l := lab(t)
	_, r := follow(t, l.Left, FollowerConfig{})
	ip(t, l.Left, "address add 10.77.0.9/24 dev left0", "route add 10.1.0.0/16 via 10.77.0.2 src 10.77.0.9")
	r.wantRoutes(t, "unicast 10.1.0.0/16 via 10.77.0.2 src 10.77.0.9")
	ip(t, l.Left, "address del 10.77.0.9/24 dev left0")
	r.wantRoutes(t)
}

func TestNexthopObjects(t *testing.T) {
	for _, compat := range []string{"1", "0"} {
		t.Run("nexthop_compat_mode "+compat, func(t *testing.T) {
			l := twoCables(t)
			require.NoError(t, l.Left.Sysctl("net.ipv4.nexthop_compat_mode", compat))
			ip(t, l.Left, "nexthop add id 1 via 10.77.0.2 dev left0", "nexthop add id 2 via 10.77.1.2 dev left1",
				"nexthop add id 3 group 2/1", "nexthop add id 4 blackhole", "route add 10.1.0.0/16 nhid 1")
			_, r := follow(t, l.Left, FollowerConfig{})
			r.wantRoutes(t, "unicast 10.1.0.0/16 via 10.77.0.2")
			ip(t, l.Left, "route add 10.2.0.0/16 nhid 2", "route add 10.3.0.0/16 nhid 3", "route add 10.4.0.0/16 nhid 4")
			r.wantRoutes(t, "unicast 10.1.0.0/16 via 10.77.0.2", "elsewhere 10.2.0.0/16", "unicast 10.3.0.0/16 via 10.77.0.2",
				"blackhole 10.4.0.0/16")
			ip(t, l.Left, "nexthop replace id 1 via 10.77.0.3 dev left0")
			r.wantRoutes(t, "unicast 10.1.0.0/16 via 10.77.0.3", "elsewhere 10.2.0.0/16", "unicast 10.3.0.0/16 via 10.77.0.3",
				"blackhole 10.4.0.0/16")
			ip(t, l.Left, "nexthop del id 1", "nexthop del id 2", "nexthop del id 4")
			r.wantRoutes(t)
		})
	}
}

// After any sequence of changes, what was followed is what one who comes later reads.
func TestFollowedRoutesAreWhatIsThere(t *testing.T) {
	l := twoCables(t)
	_, r := follow(t, l.Left, FollowerConfig{})
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 20 {
		var lines []string
		for range 40 {
			verb := []string{"add", "append", "prepend", "replace", "del"}[random.IntN(5)]
			lines = append(lines, fmt.Sprintf("route %s 10.%d.0.0/16 via 10.77.%d.%d metric %d", verb,
				random.IntN(3)+1, random.IntN(2), random.IntN(4)+2, random.IntN(2)))
		}
		ipForce(t, l.Left, lines...)
		_, fresh := follow(t, l.Left, FollowerConfig{})
		t.Logf("round %d", round)
		r.wantRoutes(t, fresh.routeLines()...)
	}
}

func TestLinkIsFollowed(t *testing.T) {
	l := lab(t)
	_, r := follow(t, l.Left, FollowerConfig{})
	want := func(up bool, mtu int) {
		t.Helper()
		eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.up == up && r.mtu == mtu }, func() string {
			return fmt.Sprintf("want up %v and MTU %d, have %v and %d", up, mtu, r.up, r.mtu)
		})
	}
	want(true, 1500)
	ip(t, l.Left, "link set left0 mtu 1400")
	want(true, 1400)
	ip(t, l.Right, "link set right0 down")
	want(false, 1400) // no carrier
	ip(t, l.Right, "link set right0 up")
	want(true, 1400)
	ip(t, l.Left, "link set left0 down")
	want(false, 1400)
	ip(t, l.Left, "link set left0 up")
	want(true, 1400)

	want(true, 1400)
	hardware := func(want [6]byte) {
		t.Helper()
		eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.hardware == want }, func() string {
			return fmt.Sprintf("want % x, have % x", want, r.hardware)
		})
	}
	hardware([6]byte(l.Left.HardwareAddr()))
	ip(t, l.Left, "link set left0 address 02:00:00:00:77:01")
	hardware([6]byte{2, 0, 0, 0, 0x77, 1})

	// Into a bridge and out of it again is not the end of it.
	ip(t, l.Left, "link add br0 type bridge", "link set left0 master br0", "link set left0 nomaster", "link set left0 mtu 1300")
	want(true, 1300)

	ip(t, l.Left, "link del left0")
	want(false, 0)
	r.wantAddresses(t)
	r.wantRoutes(t)
	require.Zero(t, r.after, "no call follows the one that says that the interface is gone")
}

// Where the addresses are not the kernel's, only the link is of interest.
func TestOnlyTheLinkIsFollowed(t *testing.T) {
	l := lab(t)
	f, r := follow(t, l.Left, FollowerConfig{LinkOnly: true})
	require.Empty(t, f.Addresses())
	ip(t, l.Left, "address add 10.77.0.9/24 dev left0", "route add default via 10.77.0.2", "rule add from 10.9.0.0/16 table 7",
		"neighbour add 10.77.0.50 lladdr 02:00:00:00:00:50 nud permanent dev left0", "link set left0 mtu 1400")
	eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.up && r.mtu == 1400 }, func() string { return "the MTU is not told" })
	ip(t, l.Left, "link del left0")
	eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.gone }, func() string { return "the end is not told" })
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Zero(t, r.others, "calls about anything else")
	require.LessOrEqual(t, f.Stats().Changes, uint64(10), "changes of links, and of nothing else")
}

func TestFollowerOfNoInterface(t *testing.T) {
	l := lab(t)
	require.NoError(t, l.Left.Do(func() error {
		_, err := NewFollower(FollowerConfig{Interface: "left9"})
		require.ErrorIs(t, err, unix.ENODEV)
		require.ErrorContains(t, err, "left9")
		return nil
	}))
	f, _ := follow(t, l.Left, FollowerConfig{})
	require.ErrorIs(t, f.Start(newRecord()), unix.EALREADY)
}

func TestCloseBeforeStartAndTwice(t *testing.T) {
	l := lab(t)
	f := newFollower(t, l.Left, FollowerConfig{})
	f.Resolve(l.Right.Addr())
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
}

func TestPolicyRoutingIsTold(t *testing.T) {
	l := lab(t)
	var log logged
	f, r := follow(t, l.Left, FollowerConfig{Logger: log.logger()})
	unfollowed := func(want ...string) {
		t.Helper()
		eventually(t, func() bool {
			return slices.EqualFunc(want, f.Unfollowed(), func(a, b string) bool { return strings.Contains(b, a) })
		},
			func() string { return fmt.Sprintf("want %q, have %q", want, f.Unfollowed()) })
	}
	r.wantRoutes(t)
	require.Zero(t, log.count("policy routing"), "the kernel's own three rules are none")
	unfollowed()
	ip(t, l.Left, "rule add from 10.77.0.1 lookup 77")
	log.want(t, "policy routing")
	ip(t, l.Left, "rule add from 10.77.0.2 lookup 77", "route add 10.1.0.0/16 via 10.77.0.2")
	r.wantRoutes(t, "unicast 10.1.0.0/16 via 10.77.0.2")
	require.Equal(t, 1, log.count("policy routing"), "it is told once")
	unfollowed("policy routing is in use, and its rules are not followed: what kit sends is routed by the tables local and main alone; see 'ip rule' " +
		"(beyond the usual three: 2)")
	ip(t, l.Left, "route add 10.2.0.0/16 tos 0x10 via 10.77.0.2", "route add 10.2.0.0/16 tos 0x08 via 10.77.0.2")
	unfollowed("2)", "routes for one type of service alone are not followed")
	unfollowed("2)", "(such routes: 2)")
	again, _ := follow(t, l.Left, FollowerConfig{})
	require.Equal(t, f.Unfollowed(), again.Unfollowed(), "what was there at the start counts as what came later")
	ip(t, l.Left, "route del 10.2.0.0/16 tos 0x10", "route del 10.2.0.0/16 tos 0x08", "rule del from 10.77.0.1 lookup 77", "rule del from 10.77.0.2 lookup 77")
	unfollowed()
	require.Empty(t, f.Troubles())
}
