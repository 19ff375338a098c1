package kittest_test

import (
	"net/netip"
	"testing"

	"kitnet.dev/kit"
	"kitnet.dev/kit/kittest"
)

// A handler of one's own, tried without root.
func ExampleNewHost() {
	_ = func(t *testing.T) { // TestEcho
		h := kittest.NewHost(t, kittest.HostConfig{})
		s, err := h.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		at := netip.AddrPortFrom(kit.INADDR_ANY, 7)
		if err := h.Bind(s, &at); err != nil {
			t.Fatal(err)
		}
		if err := h.Handle(s, func(p *kit.Packet) { p.Echo() }); err != nil {
			t.Fatal(err)
		}
		h.Peer.Play(`
			> 10.77.0.9.4000 > 10.77.0.2.7: udp "ping"
			< 10.77.0.2.7 > 10.77.0.9.4000: udp "ping"
			silence
		`)
	}
}

// A program of one's own on a veth pair, against the kernel's ping at the other end.
func ExampleNewPair() {
	_ = func(t *testing.T) { // TestPing
		pair := kittest.NewPair(t, kittest.PairConfig{})
		pair.Right.Open(kit.Config{Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.5/24")}})
		t.Log(pair.Left.Run("ping", "-c", "3", "10.77.0.5"))
	}
}
