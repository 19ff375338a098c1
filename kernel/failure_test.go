package kernel

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
)

// stubbornSink takes nothing.
type stubbornSink struct{ *record }

func (stubbornSink) SetAddresses([]netip.Prefix) error { return unix.EINVAL }
func (stubbornSink) SetRoutes([]stack.Route) error     { return unix.EINVAL }
func (stubbornSink) AddRoute(stack.Route) error        { return unix.EINVAL }

func TestASinkThatRefuses(t *testing.T) {
	l := lab(t)
	var log logged
	f := newFollower(t, l.Left, FollowerConfig{Logger: log.logger()})
	r := newRecord()
	require.NoError(t, f.Start(stubbornSink{r}))
	require.Equal(t, 1, log.count("addresses could not be taken over"))
	require.Equal(t, 1, log.count("a route could not be taken over"), "that to the interface's network")
	wantTroubles(t, f, "addresses of the interface could not be taken over, those of before are in use: invalid argument",
		"1 of the kernel's routes could not be taken over, 10.77.0.0/24 among them: invalid argument")
	ip(t, l.Left, "route add default via 10.77.0.2")
	wantTroubles(t, f, "addresses", "2 of the kernel's routes")
	ip(t, l.Left, "route del default")
	wantTroubles(t, f, "addresses", "1 of the kernel's routes")
	ip(t, l.Left, "neighbour add 10.77.0.50 lladdr 02:00:00:00:00:50 nud permanent dev left0")
	r.wantNeighbours(t, "10.77.0.50 02:00:00:00:00:50 permanent")
}

// wantTroubles waits for these troubles, of which some words are given, in the order in which they are told.
func wantTroubles(t *testing.T, f *Follower, want ...string) {
	t.Helper()
	eventually(t, func() bool {
		have := f.Troubles()
		return slices.EqualFunc(want, have, func(words string, err error) bool { return strings.Contains(err.Error(), words) })
	}, func() string { return fmt.Sprintf("want %q, have %q", want, f.Troubles()) })
}

// narrowSink takes one address and routes one by one, and no route to 10.5.0.0/16.
type narrowSink struct{ *record }

func (s narrowSink) SetAddresses(ps []netip.Prefix) error {
	if len(ps) > 1 {
		return unix.ENOSPC
	}
	return s.record.SetAddresses(ps)
}

func (s narrowSink) SetRoutes([]stack.Route) error { return unix.EINVAL }

func (s narrowSink) AddRoute(r stack.Route) error {
	if r.Dst.String() == "10.5.0.0/16" {
		return unix.EINVAL
	}
	return s.record.AddRoute(r)
}

// What the sink does not take is trouble for as long as the kernel has it, and costs nothing else.
func TestTroublesEnd(t *testing.T) {
	l := lab(t)
	ip(t, l.Left, "route add 10.5.0.0/16 via 10.77.0.2", "route add 10.6.0.0/16 via 10.77.0.2", "address add 10.77.0.9/24 dev left0")
	f := newFollower(t, l.Left, FollowerConfig{})
	r := newRecord()
	require.NoError(t, f.Start(narrowSink{r}))
	wantTroubles(t, f, "addresses", "1 of the kernel's routes could not be taken over, 10.5.0.0/16 among them")
	r.wantRoutes(t, "unicast 10.6.0.0/16 via 10.77.0.2")
	ip(t, l.Left, "address del 10.77.0.9/24 dev left0")
	wantTroubles(t, f, "1 of the kernel's routes")
	r.wantAddresses(t, "10.77.0.1/24")
	ip(t, l.Left, "route del 10.5.0.0/16")
	wantTroubles(t, f)
}

// A netlink socket that gives errors which nobody has foreseen is as good as none: everything is read once a second, until it
// works again.
func TestTheChangesCanNotBeReceived(t *testing.T) {
	l := lab(t)
	var log logged
	f, r := follow(t, l.Left, FollowerConfig{Logger: log.logger()})
	wantTroubles(t, f)
	other, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	require.NoError(t, err)
	defer unix.Close(other)
	var saved int
	swap := func(by func(fd int) error) {
		t.Helper()
		require.NoError(t, f.changes.raw.Control(func(fd uintptr) { err = by(int(fd)) }))
		require.NoError(t, err)
	}
	swap(func(fd int) (err error) {
		if saved, err = unix.Dup(fd); err != nil {
			return err
		}
		return unix.Dup3(other, fd, 0)
	})
	ip(t, l.Left, "route add default via 10.77.0.2", "address add 10.77.0.9/24 dev left0")
	wantTroubles(t, f, "the kernel's changes can't be received, so its tables are read every second instead: socket operation on non-socket; restart")
	r.wantRoutes(t, "unicast 0.0.0.0/0 via 10.77.0.2")
	r.wantAddresses(t, "10.77.0.1/24", "10.77.0.9/24")
	swap(func(fd int) error { return unix.Dup3(saved, fd, 0) })
	require.NoError(t, unix.Close(saved))
	wantTroubles(t, f)
	ip(t, l.Left, "route del default")
	r.wantRoutes(t)
	require.NotZero(t, log.count("could not be received"))
}

// When the kernel's tables can't be read, it is said, and tried again.
func TestReadingFails(t *testing.T) {
	l := lab(t)
	var log logged
	f, r := follow(t, l.Left, FollowerConfig{Logger: log.logger()})
	f.requests.close()
	ip(t, l.Left, "address add 10.77.0.9/24 dev left0")
	eventually(t, func() bool { return log.count("will be tried again") >= 2 }, func() string { return "it is not tried again" })
	r.wantAddresses(t, "10.77.0.1/24")
	wantTroubles(t, f, "the kernel's tables can't be read")
	ip(t, l.Left, "neighbour add 10.77.0.50 lladdr 02:00:00:00:00:50 nud permanent dev left0")
	r.wantNeighbours(t, "10.77.0.50 02:00:00:00:00:50 permanent")
}

// There may be no VRF in this kernel to try it with.
func TestAnInterfaceOfAVRF(t *testing.T) {
	vrf := link{index: 7, name: "eth0", mtu: 1500, slave: "vrf"}
	err := vrf.check()
	require.ErrorIs(t, err, unix.EOPNOTSUPP)
	require.ErrorContains(t, err, "ip link set eth0 nomaster")
	require.NoError(t, link{slave: "bridge"}.check())

	for ignored, want := range map[tables]int{0: 1, tableRoutes: 0} { // its routes do not matter to an owned address
		var log logged
		f := Follower{log: log.logger(), sink: newRecord(), link: link{index: 7, mtu: 1500}, ignored: ignored}
		f.setLink(vrf)
		f.setLink(vrf)
		require.Equal(t, want, log.count("VRF"))
		require.Len(t, f.Troubles(), want)
		f.setLink(link{index: 7, mtu: 1500})
		require.Empty(t, f.Troubles())
	}
}

func TestAFullNeighbourTable(t *testing.T) {
	var log logged
	r := newRecord()
	f := Follower{log: log.logger(), sink: r}
	addr := netip.MustParseAddr("10.77.0.2")
	refusal := func(request uint16) []byte {
		b := native.AppendUint32(nil, uint32(0xffffffff-unix.ENOBUFS+1)) // -ENOBUFS
		b = native.AppendUint32(b, 0)
		b = native.AppendUint16(b, request)
		b = append(b, make([]byte, 10)...)
		return append(b, neighbourRequest(7, addr, unix.NTF_USE)...)
	}
	f.refused(refusal(unix.RTM_GETNEIGH))
	require.Empty(t, r.neighbourLines())
	for range 3 {
		f.refused(refusal(unix.RTM_NEWNEIGH))
	}
	require.Equal(t, []string{"10.77.0.2  failed"}, r.neighbourLines())
	require.Equal(t, 1, log.count("gc_thresh3"), "it is told once a minute")
	whole := refusal(unix.RTM_NEWNEIGH)
	for n := range whole {
		f.refused(whole[:n])
	}
	_, told := r.neighbour(addr)
	require.Equal(t, 3, told, "a message cut short is none")
}

// More addresses in an interval than are asked for: the next may be handed over again at once.
func TestTheAskerHasABound(t *testing.T) {
	f := &Follower{log: slog.New(slog.DiscardHandler)}
	f.asker.init(f)
	f.asker.order = make([]asked, askMost)
	f.Resolve(netip.MustParseAddr("10.77.0.2"))
	n := <-f.asker.queue
	f.asker.take(n, time.Now())
	require.EqualValues(t, 1, f.Stats().Unasked)
	require.Zero(t, f.asker.slot(n).Load())
	require.Zero(t, f.Stats().Asked)
}
