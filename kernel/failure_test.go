package kernel

import (
	"log/slog"
	"net/netip"
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
	require.Equal(t, 2, log.count("could not be followed"))
	ip(t, l.Left, "route add default via 10.77.0.2")
	eventually(t, func() bool { return log.count("could not be followed") == 3 }, func() string { return "the third is not told" })
	ip(t, l.Left, "neighbour add 10.77.0.50 lladdr 02:00:00:00:00:50 nud permanent dev left0")
	r.wantNeighbours(t, "10.77.0.50 02:00:00:00:00:50 permanent")
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
