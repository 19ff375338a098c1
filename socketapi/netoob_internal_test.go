package socketapi

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack"
)

// Out-of-band data is a program's bytes: whatever they are, they are read within their bounds, and what is received can be sent.
func FuzzControl(f *testing.F) {
	s := newUDPSocket(nil, local{addr: netip.MustParseAddr("10.0.0.1")})
	s.index = func() int { return 3 }
	oob := make([]byte, 80)
	n, _ := s.putControl(oob, &stack.Message{Dst: s.addr, TTL: 64, TOS: 2})
	f.Add(oob[:n])
	f.Add(oob[:32])
	f.Add([]byte{16})
	f.Fuzz(func(t *testing.T, data []byte) {
		at := bytes.Clone(data)
		c, err := parseControl(at[:len(at):len(at)])
		require.Equal(t, data, at, "it is only read")
		if err == nil && c.from.IsValid() {
			require.True(t, c.from.Is4())
			require.False(t, c.from.IsUnspecified())
		}
	})
}

// What is received beside a message is what must be sent for the answer to go back the same way.
func TestControlRoundTrip(t *testing.T) {
	s := newUDPSocket(nil, local{addr: netip.MustParseAddr("10.0.0.1")})
	s.index = func() int { return 3 }
	oob := make([]byte, 80)
	n, flags := s.putControl(oob, &stack.Message{Dst: netip.MustParseAddr("10.0.0.255"), TTL: 7, TOS: 0xB9})
	require.Equal(t, []int{80, 0}, []int{n, flags})
	c, err := parseControl(oob[:n])
	require.NoError(t, err)
	require.Equal(t, control{from: s.addr, tos: 0xB9, ttl: 7}, c)
}
