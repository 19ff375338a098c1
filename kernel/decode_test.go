package kernel

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// attr is one attribute with its padding.
func attr(kind uint16, parts ...[]byte) []byte {
	var value []byte
	for _, p := range parts {
		value = append(value, p...)
	}
	b := putAttr(nil, kind, value)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func word(n uint32) []byte { return native.AppendUint32(nil, n) }

// linkMessage is the body of an RTM_NEWLINK.
func linkMessage(family uint8, index int, flags uint32, attrs ...[]byte) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0] = family
	native.PutUint32(b[4:], uint32(index))
	native.PutUint32(b[8:], flags)
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

func TestDecodeLinkOfAVRF(t *testing.T) {
	l, ok := decodeLink(linkMessage(unix.AF_UNSPEC, 7, unix.IFF_UP|unix.IFF_RUNNING|unix.IFF_BROADCAST,
		attr(unix.IFLA_IFNAME, []byte("eth0\x00")), attr(unix.IFLA_MTU, word(1500)), attr(unix.IFLA_MASTER, word(9)),
		attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, attr(unix.IFLA_INFO_KIND, []byte("veth\x00")), attr(unix.IFLA_INFO_SLAVE_KIND, []byte("vrf\x00")))))
	require.True(t, ok)
	require.Equal(t, link{index: 7, name: "eth0", up: true, flags: unix.IFF_UP | unix.IFF_RUNNING, mtu: 1500, master: 9, slave: "vrf"}, l)
}

// The kernel also tells parts of an interface's state by RTM_NEWLINK.
func TestDecodeLinkOfAPart(t *testing.T) {
	_, ok := decodeLink(linkMessage(unix.AF_BRIDGE, 7, unix.IFF_UP, attr(unix.IFLA_MTU, word(1500))))
	require.False(t, ok, "its place in a bridge")
	_, ok = decodeLink(linkMessage(unix.AF_UNSPEC, 7, unix.IFF_UP, attr(unix.IFLA_IFNAME, []byte("wlan0\x00"))))
	require.False(t, ok, "a wireless event has no MTU")
}

func TestDecodeEncapsulatedRoute(t *testing.T) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[4], b[7] = unix.AF_INET, 8, unix.RT_TABLE_MAIN, unix.RTN_UNICAST
	b = append(b, attr(unix.RTA_DST, []byte{10, 0, 0, 0})...)
	b = append(b, attr(unix.RTA_OIF, word(7))...)
	b = append(b, attr(unix.RTA_ENCAP, attr(1, word(100)))...)
	r, ok := decodeRoute(b)
	require.True(t, ok)
	require.Equal(t, kernelRoute{
		table: unix.RT_TABLE_MAIN, dst: netip.MustParsePrefix("10.0.0.0/8"), kind: unix.RTN_UNICAST, hops: []hop{{index: 7, foreign: true}},
	}, r)
}

func TestSharedPrefixes(t *testing.T) {
	var all []address
	for _, s := range []string{"10.0.0.1/24", "0.0.0.0/32", "127.0.0.1/8", "224.0.0.1/24", "240.0.0.1/24", "10.0.0.1/0", "10.0.0.0/24"} {
		all = append(all, address{7, netip.MustParsePrefix(s)})
	}
	all = append(all, address{8, netip.MustParsePrefix("10.0.0.2/24")})
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.0/24")}, sharedPrefixesOf(all, 7))
}

// Whatever a message holds, decoding it ends and stays inside it.
func FuzzDecode(f *testing.F) {
	f.Add(linkMessage(unix.AF_UNSPEC, 7, unix.IFF_UP, attr(unix.IFLA_MTU, word(1500)),
		attr(unix.IFLA_LINKINFO, attr(unix.IFLA_INFO_SLAVE_KIND, []byte("vrf\x00")))))
	route := append(make([]byte, unix.SizeofRtMsg), attr(unix.RTA_MULTIPATH, word(8), word(7), word(8), word(9))...)
	route[0] = unix.AF_INET
	f.Add(append(route, attr(unix.RTA_METRICS, attr(unix.RTAX_MTU, word(1400)))...))
	f.Add(append([]byte{unix.AF_INET, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}, attr(unix.NDA_LLADDR, []byte{2, 0, 0, 0, 0, 1})...))
	f.Add(append(make([]byte, unix.SizeofNhmsg), attr(unix.NHA_GROUP, word(1), word(0), word(2), word(0))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := decodeLink(b); ok {
			require.Positive(t, l.mtu)
		}
		if a, ok := decodeAddress(b); ok {
			require.True(t, a.prefix.IsValid() && a.prefix.Addr().Is4())
			sharedPrefixesOf([]address{a}, a.index)
		}
		if n, ok := decodeNeighbour(b); ok {
			require.True(t, n.addr.Is4())
			n.entry()
		}
		if r, ok := decodeRoute(b); ok {
			require.True(t, r.dst.IsValid() && r.dst.Addr().Is4())
			v := view{index: 7}
			v.translate(&r)
		}
		decodeRule(b)
		decodeNexthop(b)
	})
}
