package wire_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

func addr(s string) wire.Addr {
	a, ok := wire.AddrFrom(netip.MustParseAddr(s))
	if !ok {
		panic(s + " is not IPv4")
	}
	return a
}

func prefix(s string) wire.Prefix {
	p, ok := wire.PrefixFrom(netip.MustParsePrefix(s))
	if !ok {
		panic(s + " is not IPv4")
	}
	return p
}

func TestAddrConversions(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "10.0.0.1", "127.0.0.1", "192.168.100.200", "255.255.255.255"} {
		a := addr(s)
		require.Equal(t, s, a.String())
		require.Equal(t, netip.MustParseAddr(s), a.Netip())
		b := make([]byte, 4)
		wire.PutAddr(b, a)
		require.Equal(t, a, wire.GetAddr(b))
	}
	require.Equal(t, wire.Addr(0x0A000001), addr("10.0.0.1"))
	require.Equal(t, wire.AddrLoopback, addr("127.0.0.1"))
	require.Equal(t, addr("10.0.0.1"), addr("::ffff:10.0.0.1"), "mapped into IPv6")
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("::1")} {
		_, ok := wire.AddrFrom(a)
		require.False(t, ok, "%v", a)
	}
}

func TestAddrClasses(t *testing.T) {
	for s, want := range map[string]struct{ unspecified, loopback, multicast, broadcast bool }{
		"0.0.0.0":         {unspecified: true},
		"0.0.0.1":         {},
		"126.255.255.255": {},
		"127.0.0.0":       {loopback: true},
		"127.255.255.255": {loopback: true},
		"128.0.0.0":       {},
		"223.255.255.255": {},
		"224.0.0.0":       {multicast: true},
		"239.255.255.255": {multicast: true},
		"240.0.0.0":       {},
		"255.255.255.254": {},
		"255.255.255.255": {broadcast: true},
	} {
		a := addr(s)
		require.Equal(t, want.unspecified, a.IsUnspecified(), s)
		require.Equal(t, want.loopback, a.IsLoopback(), s)
		require.Equal(t, want.multicast, a.IsMulticast(), s)
		require.Equal(t, want.broadcast, a.IsBroadcast(), s)
	}
}

// RFC 1112 section 6.4: the low 23 bits follow 01-00-5E.
func TestMulticastHardwareAddr(t *testing.T) {
	require.Equal(t, "01:00:5e:00:00:01", addr("224.0.0.1").MulticastHardwareAddr().String())
	require.Equal(t, "01:00:5e:7f:ff:fa", addr("239.255.255.250").MulticastHardwareAddr().String())
	require.True(t, addr("224.0.0.1").MulticastHardwareAddr().IsMulticast())
}

func TestPrefix(t *testing.T) {
	for _, c := range []struct{ prefix, mask, masked, broadcast string }{
		{"10.1.2.3/0", "0.0.0.0", "0.0.0.0/0", "255.255.255.255"},
		{"10.1.2.3/8", "255.0.0.0", "10.0.0.0/8", "10.255.255.255"},
		{"10.1.2.3/24", "255.255.255.0", "10.1.2.0/24", "10.1.2.255"},
		{"10.1.2.3/30", "255.255.255.252", "10.1.2.0/30", "10.1.2.3"},
		{"10.1.2.3/31", "255.255.255.254", "10.1.2.2/31", ""},
		{"10.1.2.3/32", "255.255.255.255", "10.1.2.3/32", ""},
	} {
		p := prefix(c.prefix)
		require.Equal(t, c.prefix, p.String())
		require.Equal(t, netip.MustParsePrefix(c.prefix), p.Netip())
		require.Equal(t, addr(c.mask), p.Mask(), c.prefix)
		require.Equal(t, c.masked, p.Masked().String())
		b, ok := p.Broadcast()
		require.Equal(t, c.broadcast != "", ok, c.prefix)
		if ok {
			require.Equal(t, c.broadcast, b.String())
			require.True(t, p.IsBroadcast(b))
		}
		require.Equal(t, c.prefix == "10.1.2.3/30", p.IsBroadcast(p.Addr), c.prefix)
	}
	for _, p := range []netip.Prefix{{}, netip.MustParsePrefix("fe80::/64"), netip.MustParsePrefix("::ffff:10.0.0.0/104")} {
		_, ok := wire.PrefixFrom(p)
		require.False(t, ok, "%v", p)
	}
}

func TestPrefixContainsAgreesWithNetip(t *testing.T) {
	addrs := []string{"0.0.0.0", "10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.3.3", "11.1.2.3", "138.1.2.3", "255.255.255.255"}
	for n := range uint8(33) {
		p := wire.Prefix{Addr: addr("10.1.2.3"), Bits: n}
		for _, s := range addrs {
			require.Equal(t, p.Netip().Contains(netip.MustParseAddr(s)), p.Contains(addr(s)), "%v in %v", s, p)
		}
	}
}

func TestHardwareAddr(t *testing.T) {
	h := wire.HardwareAddr{0x02, 0xab, 0, 0, 0, 0x1f}
	require.Equal(t, "02:ab:00:00:00:1f", h.String())
	require.False(t, h.IsZero() || h.IsMulticast() || h.IsBroadcast())
	require.True(t, wire.HardwareAddr{}.IsZero())
	require.True(t, wire.HardwareAddr{0x01, 0, 0x5e}.IsMulticast())
	require.True(t, wire.HardwareBroadcast.IsMulticast())
	require.True(t, wire.HardwareBroadcast.IsBroadcast())
}

func TestNamesOfNumbers(t *testing.T) {
	require.Equal(t, "icmp", wire.ProtocolICMP.String())
	require.Equal(t, "tcp", wire.ProtocolTCP.String())
	require.Equal(t, "udp", wire.ProtocolUDP.String())
	require.Equal(t, "proto 89", wire.Protocol(89).String())
	require.Equal(t, "ipv4", wire.EtherTypeIPv4.String())
	require.Equal(t, "arp", wire.EtherTypeARP.String())
	require.Equal(t, "ipv6", wire.EtherTypeIPv6.String())
	require.Equal(t, "vlan", wire.EtherTypeVLAN.String())
	require.Equal(t, "qinq", wire.EtherTypeQinQ.String())
	require.Equal(t, "ethertype 0x88cc", wire.EtherType(0x88CC).String())
	for state, want := range map[wire.ChecksumState]string{
		wire.ChecksumOK: "ok", wire.ChecksumNone: "none", wire.ChecksumPartial: "partial", wire.ChecksumBad: "bad",
	} {
		require.Equal(t, want, state.String())
	}
	seen := map[string]bool{}
	for e := wire.ErrTruncated; e <= wire.ErrOption; e++ {
		require.NotEmpty(t, e.Error())
		require.False(t, seen[e.Error()], "each error has its own text: %v", e)
		seen[e.Error()] = true
	}
	require.Equal(t, "the packet is malformed", wire.ParseError(0).Error())
	require.Equal(t, "the packet is malformed", wire.ParseError(200).Error())
}
