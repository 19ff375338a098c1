package kit_test

import (
	"net/netip"
	"testing"

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
