package socketapi_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

// pending is a non-blocking stream whose handshake goes on and on: the wires are cut before the SYN.
func (w *world) pending(t *testing.T) (s Token, addr netip.AddrPort) {
	t.Helper()
	_, addr = w.far.listener(1)
	require.NoError(t, w.near.CloseSocket(w.near.dial(addr))) // each knows the other's Ethernet address
	w.cut()
	s = w.near.tcp()
	w.near.nonBlocking(s)
	require.ErrorIs(t, w.near.Connect(s, addr), EWOULDBLOCK)
	return s, addr
}

// giveUp makes s give its peer up after a short time (TCP_USER_TIMEOUT, milliseconds).
func (h *host) giveUp(s Token) {
	h.t.Helper()
	require.NoError(h.t, h.SetSockOptInt(s, IPPROTO_TCP, TCP_USER_TIMEOUT, 100))
}

// writable waits until Select finds s ready to write.
func (h *host) writable(s Token) {
	h.t.Helper()
	write, limit := set(s), patience
	n, err := h.Select(write.Range(), nil, write, nil, &limit)
	require.NoError(h.t, err)
	require.Equal(h.t, 1, n)
}

// soError is SO_ERROR, which it clears.
func (h *host) soError(s Token) int {
	h.t.Helper()
	errno, err := h.GetSockOptInt(s, SOL_SOCKET, SO_ERROR)
	require.NoError(h.t, err)
	return errno
}

var streamConnectRows = []row{
	{"Connect", "a stream is bound to the address that the route prefers", func(t *testing.T, w *world) {
		for i, ip := range w.near.cards {
			l := w.far.tcp()
			addr := w.far.bind(l, netip.AddrPortFrom(w.far.cards[i], 0))
			require.NoError(t, w.far.Listen(l, 1))
			name, err := w.near.GetSockName(w.near.dial(addr))
			require.NoError(t, err)
			require.Equal(t, ip, name.Addr())
			require.NotZero(t, name.Port())
		}
	}},
	{"Connect", "a bound stream keeps its address", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		s := w.near.tcp()
		local := w.near.bind(s, netip.AddrPortFrom(w.near.cards[0], 4711))
		require.NoError(t, w.near.Connect(s, addr))
		_, from := w.far.accepts(l)
		require.Equal(t, local, from)
	}},
	{"Connect", "nobody who listens there is ECONNREFUSED", func(t *testing.T, w *world) {
		s := w.near.tcp()
		require.ErrorIs(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[0], 9)), ECONNREFUSED)
		require.Zero(t, w.near.soError(s), "it was told")
		_, err := w.near.GetPeerName(s)
		require.ErrorIs(t, err, ENOTCONN)
		_, err = w.near.Send(s, []byte("x"), 0)
		require.ErrorIs(t, err, ENOTCONN)
		_, addr := w.far.listener(1)
		require.NoError(t, w.near.Connect(s, addr), "it can try elsewhere")
	}},
	{"Connect", "nobody who listens on this machine is ECONNREFUSED", func(t *testing.T, w *world) {
		require.ErrorIs(t, w.near.Connect(w.near.tcp(), netip.AddrPortFrom(INADDR_LOOPBACK, 9)), ECONNREFUSED)
	}},
	{"Connect", "blocks until the handshake is over", func(t *testing.T, w *world) {
		_, addr := w.far.listener(1)
		s := w.near.dial(addr)
		_, err := w.near.GetPeerName(s)
		require.NoError(t, err)
		w.near.says(s, "x")
	}},
	{"Connect", "a connected stream is EISCONN, at both ends", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		_, addr := w.far.listener(1)
		require.ErrorIs(t, w.near.Connect(client, addr), EISCONN)
		require.ErrorIs(t, w.far.Connect(accepted, addr), EISCONN)
		w.near.says(client, "x")
		w.far.reads(accepted, "x")
	}},
	{"Connect", "a non-blocking stream is EWOULDBLOCK, and is ready to write when it is connected", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		s := w.near.tcp()
		w.near.nonBlocking(s)
		require.ErrorIs(t, w.near.Connect(s, addr), EWOULDBLOCK)
		w.near.writable(s)
		require.Zero(t, w.near.soError(s))
		require.ErrorIs(t, w.near.Connect(s, addr), EISCONN)
		w.near.says(s, "x")
		accepted, _ := w.far.accepts(l)
		w.far.reads(accepted, "x")
	}},
	{"Connect", "a second call is EWOULDBLOCK meanwhile, as are Send and Recv", func(t *testing.T, w *world) {
		s, addr := w.pending(t)
		require.ErrorIs(t, w.near.Connect(s, addr), EWOULDBLOCK)
		_, err := w.near.Send(s, []byte("x"), 0)
		require.ErrorIs(t, err, EWOULDBLOCK)
		_, err = w.near.Recv(s, make([]byte, 1), 0)
		require.ErrorIs(t, err, EWOULDBLOCK)
		write, soon := set(s), 10*time.Millisecond
		n, err := w.near.Select(write.Range(), set(s), write, nil, &soon)
		require.NoError(t, err)
		require.Zero(t, n)
	}},
	{"Connect", "a second call waits, where the stream blocks", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		s := w.near.tcp()
		w.near.nonBlocking(s)
		require.ErrorIs(t, w.near.Connect(s, addr), EWOULDBLOCK)
		require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_NONBLOCK, 0))
		if err := w.near.Connect(s, addr); err != nil {
			require.ErrorIs(t, err, EISCONN, "it was so fast")
		}
		w.near.says(s, "x")
		w.far.accepts(l)
	}},
	{"Connect", "a non-blocking stream that is refused is ready to read and to write and in except, and SO_ERROR tells",
		func(t *testing.T, w *world) {
			s := w.near.tcp()
			w.near.nonBlocking(s)
			require.ErrorIs(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[0], 9)), EWOULDBLOCK)
			w.near.writable(s)
			read, write, except := set(s), set(s), set(s)
			n, err := w.near.Select(read.Range(), read, write, except, nil)
			require.NoError(t, err)
			require.Equal(t, 3, n)
			require.Equal(t, int(ECONNREFUSED), w.near.soError(s))
			require.Zero(t, w.near.soError(s))
		}},
	{"Connect", "a peer that is silent is ETIMEDOUT", func(t *testing.T, w *world) {
		_, addr := w.pending(t)
		s := w.near.tcp()
		w.near.giveUp(s)
		require.ErrorIs(t, w.near.Connect(s, addr), ETIMEDOUT)
	}},
	{"Connect", "SO_SNDTIMEO is EWOULDBLOCK when it is over, and the handshake goes on", func(t *testing.T, w *world) {
		const limit = 20 * time.Millisecond
		_, addr := w.pending(t)
		s := w.near.tcp()
		require.NoError(t, w.near.SetTimeout(s, SO_SNDTIMEO, limit))
		for range 2 {
			start := time.Now()
			require.ErrorIs(t, w.near.Connect(s, addr), EWOULDBLOCK)
			require.GreaterOrEqual(t, time.Since(start), limit)
		}
	}},
	{"Connect", "a neighbour that does not answer is EHOSTUNREACH", func(t *testing.T, w *world) {
		nobody := netip.AddrPortFrom(w.far.cards[0].Next().Next(), 9)
		quiet := w.near.tcp()
		w.near.nonBlocking(quiet)
		require.ErrorIs(t, w.near.Connect(quiet, nobody), EWOULDBLOCK)
		require.ErrorIs(t, w.near.Connect(w.near.tcp(), nobody), EHOSTUNREACH)
		w.near.writable(quiet)
		require.Equal(t, int(EHOSTUNREACH), w.near.soError(quiet))
	}},
	{"Connect", "no route is ENETUNREACH, and neither a broadcast nor a group has a stream", func(t *testing.T, w *world) {
		broadcast := netip.AddrFrom4([4]byte{10, 0, 0, 255})
		for _, ip := range []netip.Addr{nowhere.Addr(), INADDR_BROADCAST, broadcast, netip.MustParseAddr("224.0.0.1")} {
			s := w.near.tcp()
			require.ErrorIs(t, w.near.Connect(s, netip.AddrPortFrom(ip, 9)), ENETUNREACH, ip)
			_, err := w.near.GetPeerName(s)
			require.ErrorIs(t, err, ENOTCONN)
			w.near.bind(s, any0)
		}
	}},
	{"Connect", "streams: addresses that are none", func(t *testing.T, w *world) {
		s := w.near.tcp()
		require.ErrorIs(t, w.near.Connect(s, netip.AddrPort{}), EDESTADDRREQ)
		require.ErrorIs(t, w.near.Connect(s, netip.MustParseAddrPort("[::1]:7")), EAFNOSUPPORT)
		require.ErrorIs(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[0], 0)), EINVAL)
	}},
	{"Connect", "from a loopback address beyond this machine is EINVAL", func(t *testing.T, w *world) {
		_, addr := w.far.listener(1)
		s := w.near.tcp()
		w.near.bind(s, netip.AddrPortFrom(INADDR_LOOPBACK, 0))
		require.ErrorIs(t, w.near.Connect(s, addr), EINVAL)
	}},
	{"Connect", "a connection that exists is EADDRNOTAVAIL", func(t *testing.T, w *world) {
		_, addr := w.far.listener(2)
		var local netip.AddrPort
		for _, want := range []error{nil, EADDRNOTAVAIL} {
			s := w.near.tcp()
			require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_REUSEPORT, 1))
			if !local.IsValid() {
				local = w.near.bind(s, netip.AddrPortFrom(w.near.cards[0], 0))
			} else {
				w.near.bind(s, local)
			}
			require.Equal(t, want, w.near.Connect(s, addr))
		}
	}},
	{"Connect", "a close from another goroutine is EINTR", func(t *testing.T, w *world) {
		_, addr := w.pending(t)
		s := w.near.tcp()
		interrupted(t, "Connect", 2, func() error { return w.near.Connect(s, addr) },
			func() error { return w.near.CloseSocket(s) })
	}},
	{"Connect", "a stream that is closed meanwhile leaves nothing at the listener", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		w.far.nonBlocking(l)
		for range 50 {
			s := w.near.tcp()
			w.near.nonBlocking(s)
			require.ErrorIs(t, w.near.Connect(s, addr), EWOULDBLOCK)
			require.NoError(t, w.near.CloseSocket(s))
		}
		eventually(t, "a place is free", func() bool {
			s, _, err := w.far.Accept(l)
			if err == nil {
				require.NoError(t, w.far.CloseSocket(s))
			}
			c := w.near.tcp()
			if w.near.Connect(c, addr) == nil {
				return true
			}
			require.NoError(t, w.near.CloseSocket(c))
			return false
		})
	}},
}
