package socketapi_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

// closedPort is an address that nobody listens on: port 9 of the same machine.
func closedPort(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 9) }

// hearsICMP waits for an ICMP message and returns it with its sender.
func (h *host) hearsICMP(s Token) ([]byte, netip.AddrPort) {
	h.t.Helper()
	require.NoError(h.t, h.SetTimeout(s, SO_RCVTIMEO, patience))
	buf := make([]byte, 65536)
	n, from, err := h.RecvFrom(s, buf, 0)
	require.NoError(h.t, err)
	require.GreaterOrEqual(h.t, n, 8)
	return buf[:n], from
}

var icmpRows = []row{
	{"ICMP", "an echo request gets its reply, under the identifier that is bound", func(t *testing.T, w *world) {
		for _, to := range []netip.Addr{w.far.cards[0], w.near.cards[0], INADDR_LOOPBACK} {
			s := w.near.icmp()
			require.NoError(t, w.near.Connect(s, netip.AddrPortFrom(to, 0)))
			name, err := w.near.GetSockName(s)
			require.NoError(t, err)
			id := name.Port()
			require.NotZero(t, id)
			w.near.sends(s, string(echoRequest(1, "ping")), netip.AddrPortFrom(to, 0))
			m, from := w.near.hearsICMP(s)
			require.Equal(t, to, from.Addr())
			require.Equal(t, []byte{0, 0}, m[:2], "an echo reply")
			require.Equal(t, id, binary.BigEndian.Uint16(m[4:]))
			require.Equal(t, uint16(1), binary.BigEndian.Uint16(m[6:]))
			require.Equal(t, "ping", string(m[8:]))
		}
	}},
	{"ICMP", "a reply comes to a bound socket", func(t *testing.T, w *world) {
		s := w.near.icmp()
		addr := w.near.bind(s, netip.AddrPortFrom(w.near.cards[1], 4711))
		require.Equal(t, uint16(4711), addr.Port())
		w.near.sends(s, string(echoRequest(1, "")), netip.AddrPortFrom(w.far.cards[1], 0))
		m, _ := w.near.hearsICMP(s)
		require.Equal(t, uint16(4711), binary.BigEndian.Uint16(m[4:]))
	}},
	{"ICMP", "a socket that is bound to a card hears the machine's own reply", func(t *testing.T, w *world) {
		for _, to := range append(slices.Clone(w.near.cards), INADDR_LOOPBACK) {
			s := w.near.icmp()
			w.near.bind(s, netip.AddrPortFrom(w.near.cards[0], 0))
			w.near.sends(s, string(echoRequest(1, "")), netip.AddrPortFrom(to, 0))
			_, from := w.near.hearsICMP(s)
			require.Equal(t, to, from.Addr())
		}
	}},
	{"ICMP", "a connected socket hears the replies whatever port the peer was given with", func(t *testing.T, w *world) {
		s := w.near.icmp()
		require.NoError(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[0], 7)))
		w.near.sends(s, string(echoRequest(1, "")), netip.AddrPortFrom(w.far.cards[0], 7))
		w.near.hearsICMP(s)
	}},
	{"ICMP", "an unbound socket is bound to an identifier on first use", func(t *testing.T, w *world) {
		s := w.near.icmp()
		w.near.sends(s, string(echoRequest(1, "")), netip.AddrPortFrom(w.far.cards[0], 0))
		m, _ := w.near.hearsICMP(s)
		name, err := w.near.GetSockName(s)
		require.NoError(t, err)
		require.Equal(t, netip.AddrPortFrom(w.near.cards[0], binary.BigEndian.Uint16(m[4:])), name)
	}},
	{"ICMP", "a socket hears the replies to its own requests only", func(t *testing.T, w *world) {
		a, b := w.near.icmp(), w.near.icmp()
		w.near.bind(a, any0)
		w.near.bind(b, any0)
		w.near.sends(a, string(echoRequest(1, "a")), netip.AddrPortFrom(w.far.cards[0], 0))
		w.near.hearsICMP(a)
		w.near.silent(b, "the reply was a's")
	}},
	{"ICMP", "a connected socket sends with Send and receives with Recv", func(t *testing.T, w *world) {
		s := w.near.icmp()
		require.NoError(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[0], 0)))
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, patience))
		_, err := w.near.Send(s, echoRequest(7, ""), 0)
		require.NoError(t, err)
		m := make([]byte, 100)
		n, err := w.near.Recv(s, m, 0)
		require.NoError(t, err)
		require.Equal(t, 8, n)
		require.Equal(t, uint16(7), binary.BigEndian.Uint16(m[6:]))
	}},
	{"ICMP", "a long echo comes back whole", func(t *testing.T, w *world) {
		s := w.near.icmp()
		w.near.sends(s, string(echoRequest(1, string(make([]byte, 4000)))), netip.AddrPortFrom(w.far.cards[0], 0))
		m, _ := w.near.hearsICMP(s)
		require.Len(t, m, 4008)
	}},
	{"ICMP", "two sockets cannot have one identifier", func(t *testing.T, w *world) {
		addr := w.near.bind(w.near.icmp(), any0)
		require.ErrorIs(t, w.near.Bind(w.near.icmp(), &addr), EADDRINUSE)
	}},
	{"ICMP", "a message shorter than a header, and one that is no echo request, are EINVAL", func(t *testing.T, w *world) {
		s := w.near.icmp()
		for _, m := range [][]byte{nil, {8, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}} {
			_, err := w.near.SendTo(s, m, 0, netip.AddrPortFrom(w.far.cards[0], 0))
			require.ErrorIs(t, err, EINVAL, m)
		}
	}},
	{"ICMP", "Select finds a reply", func(t *testing.T, w *world) {
		s := w.near.icmp()
		w.near.sends(s, string(echoRequest(1, "")), netip.AddrPortFrom(w.far.cards[0], 0))
		require.True(t, w.near.readable(s, patience))
	}},
	{"ICMP", "a neighbour that does not answer is EHOSTUNREACH on a connected socket", func(t *testing.T, w *world) {
		// The network's own last host, which the other machine does not have.
		b := w.far.cards[0].As4()
		b[3] = 250
		s := w.near.icmp()
		require.NoError(t, w.near.Connect(s, netip.AddrPortFrom(netip.AddrFrom4(b), 0)))
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, patience))
		_, err := w.near.Send(s, echoRequest(1, ""), 0)
		require.NoError(t, err)
		_, err = w.near.Recv(s, make([]byte, 100), 0)
		require.ErrorIs(t, err, EHOSTUNREACH)
	}},
}
