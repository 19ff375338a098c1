package stack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/instructions"
	"kitnet.dev/kit/stack/wire"
)

// Every port and identifier of every address finds its own socket, and no other's.
func TestDemuxOfAllPorts(t *testing.T) {
	h := newHost(t)
	var table portTable
	halves := make([]half, 1<<16)
	for port := range halves {
		table.insert(uint16(port), &halves[port])
	}
	require.Equal(t, 1<<16, table.count)
	for port := range halves {
		require.Same(t, &halves[port], table.get(uint16(port)))
	}
	for port := range halves {
		table.remove(uint16(port), &halves[port])
		table.remove(uint16(port), &halves[port])
		require.Nil(t, table.get(uint16(port)))
	}
	require.Zero(t, table.count)
	h.wantIdle("a table is no traffic")
}

// By construction a packet costs two loads, whatever is bound: the sockets of a port are the only chain there is, and with one
// socket on each port no chain is longer than one.
func TestDemuxHasNoChains(t *testing.T) {
	h := newHost(t)
	for port := 1; port <= 50_000; port++ {
		h.bind(fmt.Sprint("10.0.0.1:", port))
	}
	la := h.iface.engines[0].local(addr(hostIP))
	for port := 1; port <= 50_000; port++ {
		s := la.udp.get(uint16(port))
		require.Equal(t, uint16(port), s.localPort)
		require.Nil(t, s.peer)
		require.Same(t, s, s.find(addr(peerIP), 1), "the first look is the last")
	}
	require.Nil(t, la.udp.get(50_001))
	for _, port := range []int{1, 255, 256, 25_000, 50_000} {
		h.arrives("delivered", packet{}.udp(4000, port, "x"))
	}
	h.arrives("udp-no-port", packet{}.udp(4000, 50_001, "x"))
	require.NotNil(t, h.take(0))
}

// What is bound on addresses that come and go leaves nothing behind.
func TestDemuxTablesAreFreed(t *testing.T) {
	h := newHost(t)
	lo, card := h.Interfaces()[1].engines[0], h.iface.engines[0]
	before := len(lo.portTables)
	for n := range 1000 {
		s := h.bind(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}), 7).String())
		require.Len(t, lo.portTables, before+1)
		require.NoError(t, s.Close())
		require.Len(t, lo.portTables, before)
	}
	before = len(card.portTables)
	for n := range 200 {
		require.NoError(t, h.iface.SetAddresses([]netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n + 1)}), 24)}))
		require.Len(t, card.portTables, before)
	}
}

// Each of many addresses is found, the first of two that are alike, and none that went away.
func TestFindsEachOfManyAddresses(t *testing.T) {
	h := newHost(t)
	e := h.iface.engines[0]
	var prefixes []netip.Prefix
	for n := range 1000 { // some four in a place of the table
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte((n + 1) >> 8), byte(n + 1)}), 16))
	}
	twice := netip.PrefixFrom(prefixes[7].Addr(), 24)
	require.NoError(t, h.iface.SetAddresses(append(prefixes, twice)))
	for _, p := range prefixes {
		la := e.local(addr(p.Addr().String()))
		require.NotNil(t, la, p)
		require.Equal(t, p.Addr(), la.addr.Netip())
		require.EqualValues(t, 16, la.prefix.Bits)
	}
	require.EqualValues(t, localBroadcast, e.local(addr("10.1.255.255")).kind)
	require.Nil(t, e.local(addr("10.1.3.233")))
	require.NoError(t, h.iface.SetAddresses(prefixes[:1]))
	require.NotNil(t, e.local(addr("10.1.0.1")))
	require.Nil(t, e.local(addr("10.1.0.2")))
}

// A socket on an address that went away hears nothing, and hears again when it comes back, as in the kernel.
func TestAddressGoesAndComesBack(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	require.NoError(t, h.iface.SetAddresses([]netip.Prefix{prefix("10.0.0.4/24")}))
	h.arrives("ip-not-ours", packet{}.udp(4000, 7, "x"))
	require.NoError(t, h.iface.SetAddresses([]netip.Prefix{prefix("10.0.0.4/24"), prefix("10.0.0.1/24")}))
	h.arrives("delivered", packet{}.udp(4000, 7, "x"))
	s.wants("x", "10.0.0.2:4000")
	require.NoError(t, h.iface.SetAddresses([]netip.Prefix{prefix("10.0.0.4/24")}))
	require.NoError(t, s.Close())
	require.NoError(t, h.iface.SetAddresses([]netip.Prefix{prefix("10.0.0.1/24")}))
	h.arrives("udp-no-port", packet{}.udp(4000, 7, "x"))
}

// A packet costs the same with one socket and with a million, but for the misses of caches, which are no instructions. The packets
// of a round are for sockets all over.
func demuxCases() (cases instructions.Table) {
	for _, sockets := range []int{1, 100, 10_000, 1_000_000} {
		cases = append(cases, instructions.Whole(fmt.Sprintf("udp-receive/handler/sockets=%d", sockets),
			func(tb testing.TB) func(int) int {
				const ports = 50_000 // of an address
				addrs := (sockets + ports - 1) / ports
				q := newQuiet(tb, func(s *setup) {
					for n := 1; n < addrs; n++ {
						s.Addresses = append(s.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(n)}), 24))
					}
				})
				ips := q.iface.Addresses()
				at := func(n int) (netip.Addr, int) { return ips[n/ports].Addr(), 1 + n%ports }
				got := 0
				count := func(*Packet) { got++ }
				for n := range sockets {
					ip, port := at(n)
					d := q.NewDatagram(wire.ProtocolUDP)
					require.NoError(tb, d.Bind(netip.AddrPortFrom(ip, uint16(port))))
					require.NoError(tb, d.SetHandler(count))
				}
				rng := rand.New(rand.NewPCG(1, 1))
				frames := make([][]byte, 1024)
				for i := range frames {
					ip, port := at(rng.IntN(sockets))
					frames[i] = packet{to: ip.String()}.udp(4000, port, pattern(64))
				}
				q.link.Lend(0, frames...)
				return func(n int) int {
					got = 0
					q.step(n)
					return got
				}
			}))
	}
	return cases
}
