package kit_test

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
)

// What cannot be opened is refused in one sentence that says what to do, without root too.
func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  kit.Config
		want []string
	}{
		{"no interface", kit.Config{}, []string{"Config.Interface", "eth0"}},
		{"a gateway in shared mode", kit.Config{Interface: "lo", Gateway: netip.MustParseAddr("10.0.0.1")},
			[]string{"10.0.0.1", "shared mode", "Config.Addresses"}},
		{"a loopback address", kit.Config{Interface: "lo", Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
			[]string{"127.0.0.1", "single host"}},
		{"an address of many hosts", kit.Config{Interface: "lo", Addresses: []netip.Prefix{netip.MustParsePrefix("224.0.0.1/4")}},
			[]string{"224.0.0.1"}},
		{"a card without a name", kit.Config{Interface: "lo", Others: []kit.CardConfig{{}}}, []string{"card 2", "eth1"}},
		{"a card twice", kit.Config{Interface: "lo", Others: []kit.CardConfig{{Interface: "lo"}}}, []string{"lo is named twice"}},
		{"no such interface", kit.Config{Interface: "kit-not-there"}, []string{"kit-not-there"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := kit.Open(c.cfg)
			require.Nil(t, k)
			require.Error(t, err)
			for _, w := range c.want {
				require.ErrorContains(t, err, w)
			}
		})
	}
}

// The functions beside package net's say what to do where no Kit is the default.
func TestNoDefault(t *testing.T) {
	for name, call := range map[string]func() error{
		"Listen":       func() error { _, err := kit.Listen("tcp", ":0"); return err },
		"ListenPacket": func() error { _, err := kit.ListenPacket("udp", ":0"); return err },
		"ListenTCP":    func() error { _, err := kit.ListenTCP("tcp", nil); return err },
		"ListenUDP":    func() error { _, err := kit.ListenUDP("udp", nil); return err },
		"Dial":         func() error { _, err := kit.Dial("tcp", "10.0.0.1:9"); return err },
		"DialTimeout":  func() error { _, err := kit.DialTimeout("tcp", "10.0.0.1:9", time.Second); return err },
		"DialContext":  func() error { _, err := kit.DialContext(t.Context(), "udp", "10.0.0.1:9"); return err },
		"DialTCP":      func() error { _, err := kit.DialTCP("tcp", nil, &net.TCPAddr{Port: 9}); return err },
		"DialUDP":      func() error { _, err := kit.DialUDP("udp", nil, &net.UDPAddr{Port: 9}); return err },
	} {
		err := call()
		require.ErrorIs(t, err, syscall.ENETDOWN, name)
		require.ErrorContains(t, err, "kit.SetDefault", name)
		var o *net.OpError
		require.ErrorAs(t, err, &o, name)
	}
}
