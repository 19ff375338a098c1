package stack

import (
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

func via(dst, gateway string) Route {
	r := Route{Dst: prefix(dst)}
	if gateway != "" {
		r.Gateway = netip.MustParseAddr(gateway)
	}
	return r
}

// wantHop sends a datagram to dst and wants the ARP request for hop, which is not known.
func (h *host) wantHop(s *sock, dst, hop string) {
	h.t.Helper()
	s.writes("x", dst+":9")
	h.want(broadcastTo + "arp who-has " + hop + " tell 10.0.0.1")
	h.wantIdle("one request")
	h.iface.DeleteNeighbour(netip.MustParseAddr(hop))
}

// RFC 1812 §5.2.4.3: the longest prefix wins, among equals the best metric.
func TestRouteLongestPrefix(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.wantHop(s, farIP, gatewayIP)
	require.NoError(t, h.iface.AddRoute(via("192.0.2.0/24", "10.0.0.10")))
	require.NoError(t, h.iface.AddRoute(via("192.0.0.0/8", "10.0.0.11")))
	require.NoError(t, h.iface.AddRoute(via("192.0.2.9/32", "10.0.0.12")))
	h.wantHop(s, farIP, "10.0.0.12")
	h.wantHop(s, "192.0.2.8", "10.0.0.10")
	h.wantHop(s, "192.9.9.9", "10.0.0.11")
	h.wantHop(s, "193.0.0.1", gatewayIP)
	h.wantHop(s, "10.0.0.77", "10.0.0.77")

	require.True(t, h.iface.DeleteRoute(via("192.0.2.9/32", "10.0.0.12")))
	require.False(t, h.iface.DeleteRoute(via("192.0.2.9/32", "10.0.0.12")))
	h.wantHop(s, farIP, "10.0.0.10")
	better, worse := via("192.0.2.0/24", "10.0.0.13"), via("192.0.2.0/24", "10.0.0.14")
	better.Metric, worse.Metric = -1, 5
	require.NoError(t, h.iface.AddRoute(worse))
	h.wantHop(s, farIP, "10.0.0.10")
	require.NoError(t, h.iface.AddRoute(better))
	h.wantHop(s, farIP, "10.0.0.13")
	require.True(t, h.iface.DeleteRoute(better))
	h.wantHop(s, farIP, "10.0.0.10")
}

// A look-up agrees with a plain walk over all routes.
func TestRouteTableAgainstTheModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var table routeTable
	var model []route
	for range 3000 {
		r := route{prefix: wire.Prefix{Addr: wire.Addr(rng.Uint32() & 0xF0F0F0F0), Bits: uint8(rng.IntN(33))}.Masked(), metric: rng.IntN(3), gateway: wire.Addr(rng.IntN(3))}
		if rng.IntN(3) == 0 && len(model) > 0 {
			n := rng.IntN(len(model))
			require.True(t, table.remove(model[n]))
			model = append(model[:n], model[n+1:]...)
		} else {
			table.add(r)
			for n := range model {
				if model[n].same(r) {
					model = append(model[:n], model[n+1:]...)
					break
				}
			}
			model = append(model, r)
		}
		dst := wire.Addr(rng.Uint32() & 0xF0F0F0F0)
		got, ok := table.lookup(dst, rng.IntN(2*routeLocks))
		var want *route
		for n := range model {
			m := &model[n]
			if m.prefix.Contains(dst) && (want == nil || m.prefix.Bits > want.prefix.Bits || m.prefix.Bits == want.prefix.Bits && m.metric < want.metric) {
				want = m
			}
		}
		require.Equal(t, want != nil, ok)
		if ok {
			require.Equal(t, [2]int{int(want.prefix.Bits), want.metric}, [2]int{int(got.prefix.Bits), got.metric})
		}
	}
	require.Len(t, table.all(), len(model))
}

// What each kind of route does, told at once by Write and, where the route is the engine's only way to know, by the next Read.
func TestRouteKinds(t *testing.T) {
	for _, c := range []struct {
		kind  RouteKind
		name  string
		errno syscall.Errno
	}{
		{RouteBlackhole, "blackhole", syscall.EINVAL},
		{RouteUnreachable, "unreachable", syscall.EHOSTUNREACH},
		{RouteProhibit, "prohibit", syscall.EACCES},
		{RouteElsewhere, "elsewhere", syscall.ENETUNREACH},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.name, c.kind.String())
			h := newHost(t)
			s := h.bind("10.0.0.1:7")
			r := via("192.0.2.0/24", "")
			r.Kind = c.kind
			require.NoError(t, h.iface.AddRoute(r))
			require.Equal(t, c.errno, s.write([]byte("x"), farIP+":9"))
			require.Equal(t, c.errno, h.socket(wire.ProtocolUDP).Connect(ap(farIP+":9")))
			h.wantIdle("nothing leaves")
			// An answer of the engine's own has nobody to tell.
			h.arrives("udp-no-port", packet{from: farIP}.udp(9, 9, "x"))
			require.Equal(t, []string{"no-route*1"}, txEnds(new(Stats), ptr(h.Stats())))
			h.wantIdle("nor does an answer")
			require.True(t, h.iface.DeleteRoute(r))
			h.wantHop(s, farIP, gatewayIP)
		})
	}
	require.Equal(t, "unicast", RouteUnicast.String())
}

func ptr[T any](v T) *T { return &v }

// A route that goes away between Write and the engine's turn: the socket is told by its next call.
func TestRouteIsGoneWhenTheEngineLooks(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", farIP+":9")
	s.writes("x", "")
	require.NoError(t, h.iface.SetRoutes(nil))
	s.wantErrno(syscall.ENETUNREACH, "no route")
	s.wantRefused(syscall.ENETUNREACH)
	require.NoError(t, h.iface.SetRoutes([]Route{via("10.0.0.0/24", ""), {Dst: prefix("0.0.0.0/0"), Kind: RouteUnreachable}}))
	s.wantRefused(syscall.EHOSTUNREACH)
	require.NoError(t, h.iface.SetRoutes([]Route{via("0.0.0.0/0", "")}))
	s.writes("x", "")
	require.NoError(t, h.iface.SetRoutes([]Route{{Dst: prefix("0.0.0.0/0"), Kind: RouteUnreachable}}))
	s.wantErrno(syscall.EHOSTUNREACH, "refused")
	require.Equal(t, uint64(2), h.Stats().TxDrops[DropNoRoute])
	h.wantIdle("nothing left")
}

// wantRefused wants the next message to be refused.
func (s *sock) wantRefused(errno syscall.Errno) {
	s.h.t.Helper()
	require.Equal(s.h.t, errno, s.write([]byte("x"), ""))
}

// A change of routes counts from the next packet on, also for a destination that is cached everywhere.
func TestRouteChangesTakeEffectAtOnce(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", farIP+":9")
	h.arrives("consumed", isAt(peerMAC, "10.0.0.10"))
	h.arrives("consumed", isAt(otherMAC, "10.0.0.11"))
	for range 3 {
		require.NoError(t, h.iface.SetRoutes([]Route{via("0.0.0.0/0", "10.0.0.10"), via("10.0.0.0/24", "")}))
		s.writes("x", "")
		h.want("10.0.0.1.7 > 192.0.2.9.9: udp 1")
		require.NoError(t, h.iface.SetRoutes([]Route{via("0.0.0.0/0", "10.0.0.11"), via("10.0.0.0/24", "")}))
		s.writes("x", "")
		h.want("02:00:00:00:00:03 10.0.0.1.7 > 192.0.2.9.9: udp 1")
	}
}

// Owned addresses bring the routes to their networks, and take them away again.
func TestConnectedRoutes(t *testing.T) {
	h := newHost(t)
	require.Equal(t, []Route{
		{Dst: prefix("10.0.0.0/24"), Source: netip.MustParseAddr(hostIP)},
		{Dst: prefix("0.0.0.0/0"), Gateway: netip.MustParseAddr(gatewayIP), Source: netip.MustParseAddr(hostIP)},
	}, h.iface.Routes())
	require.NoError(t, h.iface.SetAddresses([]netip.Prefix{prefix("10.0.0.1/24"), prefix("10.5.0.1/16")}))
	require.Len(t, h.iface.Routes(), 3)
	require.NoError(t, h.iface.SetAddresses([]netip.Prefix{prefix("10.5.0.1/16")}))
	require.Equal(t, prefix("10.5.0.0/16"), h.iface.Routes()[0].Dst)
	require.Len(t, h.iface.Routes(), 2)
	require.Equal(t, []netip.Prefix{prefix("10.5.0.1/16")}, h.iface.Addresses())
}

// Of two addresses on one network the first is where packets come from, and the route stays until the last has gone.
func TestConnectedRoutePrefersTheFirst(t *testing.T) {
	h := newHost(t)
	network := func(addrs ...string) (source string) {
		var ps []netip.Prefix
		for _, a := range addrs {
			ps = append(ps, prefix(a))
		}
		require.NoError(t, h.iface.SetAddresses(ps))
		r := h.iface.Routes()[0]
		require.Equal(t, prefix("10.0.0.0/24"), r.Dst)
		return r.Source.String()
	}
	require.Equal(t, "10.0.0.1", network("10.0.0.1/24", "10.0.0.7/24"))
	require.Equal(t, "10.0.0.7", network("10.0.0.7/24", "10.0.0.8/24"), "the first has gone")
	require.Equal(t, "10.0.0.7", network("10.0.0.7/24"))
	require.NoError(t, h.iface.SetAddresses(nil))
	require.Len(t, h.iface.Routes(), 1, "the default route")
}

// In shared mode the routes are the kernel's: an address brings none.
func TestSharedAddressesBringNoRoutes(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	require.NoError(t, h.iface.SetRoutes(nil))
	require.NoError(t, h.iface.SetAddresses([]netip.Prefix{prefix("10.0.0.1/24"), prefix("10.5.0.1/16")}))
	require.Empty(t, h.iface.Routes())
	s := h.bind("10.5.0.1:7")
	require.Equal(t, syscall.ENETUNREACH, s.write([]byte("x"), "10.5.0.2:9"))
	h.wantIdle("no route")
}

// RFC 1122 §3.3.4.3: the source is the address that the route prefers, else the one on the next hop's network, else the first.
func TestSourceSelection(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Addresses = append(s.Addresses, prefix("10.5.0.1/16"), prefix("10.6.0.1/16")) })
	source := func(dst string) string {
		s := h.socket(wire.ProtocolUDP)
		require.NoError(t, s.Connect(ap(dst+":9")))
		defer s.Close()
		return s.LocalAddr().Addr().String()
	}
	require.Equal(t, "10.0.0.1", source("10.0.0.9"))
	require.Equal(t, "10.5.0.1", source("10.5.0.9"))
	require.Equal(t, "10.6.0.1", source("10.6.255.255"), "its broadcast")
	require.Equal(t, "10.0.0.1", source(farIP), "the gateway's network")
	require.Equal(t, "10.0.0.1", source("255.255.255.255"))
	require.Equal(t, "10.0.0.1", source("224.0.0.1"))
	require.NoError(t, h.iface.AddRoute(via("192.0.2.0/24", "10.6.0.9")))
	require.Equal(t, "10.6.0.1", source(farIP))
	preferred := via("192.0.2.9/32", "10.6.0.9")
	preferred.Source = netip.MustParseAddr("10.5.0.1")
	require.NoError(t, h.iface.AddRoute(preferred))
	require.Equal(t, "10.5.0.1", source(farIP))
	preferred.Source = netip.MustParseAddr("10.99.0.1")
	require.NoError(t, h.iface.AddRoute(preferred))
	require.Equal(t, "10.6.0.1", source(farIP), "a preferred source that is not ours does not count")
}

// With several cards the best route of all decides over which one a packet leaves; among equals it is the socket's own.
func TestSeveralCards(t *testing.T) {
	h := newHost(t)
	eth1 := addCard(h, "eth1", "172.16.0.1/16")
	first, second := h.Interfaces()[0], h.Interfaces()[1]
	require.Equal(t, "eth1", second.Name())
	s, s1 := h.bind("10.0.0.1:7"), h.bind("172.16.0.1:7")
	wantEth1 := func(description string) {
		t.Helper()
		h.settle()
		f := eth1.Take()
		require.NotNil(t, f, description)
		require.Equal(t, hostMAC.String()+" > "+description, wire.Dump(f))
		for eth1.Take() != nil {
		}
	}
	s.writes("x", "172.16.0.2:9")
	wantEth1("ff:ff:ff:ff:ff:ff arp who-has 172.16.0.2 tell 172.16.0.1")
	second.DeleteNeighbour(netip.MustParseAddr("172.16.0.2"))
	s1.writes("x", "10.0.0.2:9")
	h.want("172.16.0.1.7 > 10.0.0.2.9: udp 1")
	s1.writes("x", farIP+":9")
	h.want(broadcastTo + "arp who-has 10.0.0.254 tell 10.0.0.1")
	first.DeleteNeighbour(netip.MustParseAddr(gatewayIP))

	require.NoError(t, second.AddRoute(via("0.0.0.0/0", "172.16.0.254")))
	s1.writes("x", farIP+":9")
	wantEth1("ff:ff:ff:ff:ff:ff arp who-has 172.16.0.254 tell 172.16.0.1")
	s.writes("x", farIP+":9")
	h.want(broadcastTo + "arp who-has 10.0.0.254 tell 10.0.0.1")
	require.NoError(t, second.AddRoute(via("192.0.2.0/24", "")))
	s.writes("x", farIP+":9")
	wantEth1("ff:ff:ff:ff:ff:ff arp who-has 192.0.2.9 tell 172.16.0.1")
	u := h.socket(wire.ProtocolUDP)
	require.NoError(t, u.Connect(ap(farIP+":9")))
	require.Equal(t, "172.16.0.1", u.LocalAddr().Addr().String())
	s.writes("x", "172.16.255.255:9")
	wantEth1("ff:ff:ff:ff:ff:ff 10.0.0.1.7 > 172.16.255.255.9: udp 1")
	h.wantIdle("nothing more on the first card")
}

// What the kernel would send over another device is not ours to send.
func TestSharedRouteElsewhere(t *testing.T) {
	var kernel asked
	h := newShared(t, &kernel)
	require.NoError(t, h.iface.AddRoute(via("0.0.0.0/0", "10.0.0.254")))
	s := h.bind("10.0.0.1:7")
	s.writes("x", farIP+":9")
	h.settle()
	require.Equal(t, []string{gatewayIP}, kernel.take())
	require.NoError(t, h.iface.AddRoute(Route{Dst: prefix("192.0.2.0/24"), Kind: RouteElsewhere}))
	require.Equal(t, syscall.ENETUNREACH, s.write([]byte("x"), farIP+":9"))
	h.settle()
	require.Empty(t, kernel.take())
}

// Routes that cannot be are refused.
func TestRoutesThatCannotBe(t *testing.T) {
	h := newHost(t)
	before := h.iface.Routes()
	for _, r := range []Route{
		{},
		{Dst: prefix("2001:db8::/32")},
		{Dst: prefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("fe80::1")},
		{Dst: prefix("192.0.2.0/24"), Source: netip.MustParseAddr("fe80::1")},
	} {
		require.Error(t, h.iface.AddRoute(r))
		require.Error(t, h.iface.SetRoutes([]Route{r}))
		require.False(t, h.iface.DeleteRoute(r))
	}
	require.Equal(t, before, h.iface.Routes())
}

// RFC 1112 §6.4: a multicast datagram goes to the group's Ethernet address, without ARP and without a route.
func TestMulticastOutput(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.writes("x", "239.129.2.3:9")
	f := h.want("01:00:5e:01:02:03 10.0.0.1.7 > 239.129.2.3.9: udp 1")
	require.Equal(t, hostMAC, f.ethernet().Src)
	h.wantIdle("nobody is asked for")
}

// What AddInterface and SetAddresses refuse, and why.
func TestInterfaceErrors(t *testing.T) {
	h := newHost(t)
	for _, bad := range []string{
		"0.0.0.0/24", "10.0.0.0/24", "10.0.0.255/24", "127.0.0.1/8", "224.0.0.1/24", "255.255.255.255/32", "10.0.0.1/0", "2001:db8::1/64",
	} {
		require.Error(t, h.iface.SetAddresses([]netip.Prefix{prefix(bad)}), bad)
		require.Error(t, CheckAddress(prefix(bad)))
	}
	require.Error(t, h.iface.SetAddresses([]netip.Prefix{{}}))
	require.Equal(t, []netip.Prefix{prefix("10.0.0.1/24")}, h.iface.Addresses(), "none took effect")
	for _, good := range []string{"10.0.0.0/31", "10.0.0.1/31", "10.0.0.255/32", "10.0.0.0/32"} {
		require.NoError(t, h.iface.SetAddresses([]netip.Prefix{prefix(good)}), good)
	}

	link := newHost(t).iface.engines[0].link
	s := New(Config{})
	_, err := s.AddInterface(InterfaceConfig{Name: "eth0"})
	require.ErrorContains(t, err, "eth0")
	_, err = s.AddInterface(InterfaceConfig{Name: "eth0", Mode: Owned, Links: []Link{link}, Addresses: []netip.Prefix{prefix("10.0.0.0/24")}})
	require.ErrorContains(t, err, "10.0.0.0/24")
	for _, gateway := range []string{"192.0.2.1", "10.0.0.1", "fe80::1"} {
		_, err = s.AddInterface(InterfaceConfig{
			Name: "eth0", Mode: Owned, Links: []Link{link}, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}, Gateway: netip.MustParseAddr(gateway),
		})
		require.ErrorContains(t, err, gateway)
	}
	require.Len(t, s.Interfaces(), 1, "a card that was refused is not there")
	require.True(t, s.Interfaces()[0].Loopback())
	s.NewDatagram(wire.ProtocolUDP)
	_, err = s.AddInterface(InterfaceConfig{Name: "eth0", Links: []Link{link}})
	require.ErrorContains(t, err, "too late")
}
