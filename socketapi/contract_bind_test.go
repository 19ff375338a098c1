package socketapi_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

// bindRows are for a kind of socket that create makes.
func bindRows(kind string, create func(*host) Token) []row {
	// bound is a socket on a free port of the first card.
	bound := func(h *host) (Token, netip.AddrPort) {
		s := create(h)
		return s, h.bind(s, netip.AddrPortFrom(h.cards[0], 0))
	}
	return []row{
		{"Bind", kind + ": rewrites addr with the real address and port", func(t *testing.T, w *world) {
			s, addr := create(w.near), any0
			require.NoError(t, w.near.Bind(s, &addr))
			require.Equal(t, w.near.cards[0], addr.Addr())
			require.NotZero(t, addr.Port())
			name, err := w.near.GetSockName(s)
			require.NoError(t, err)
			require.Equal(t, addr, name)
		}},
		{"Bind", kind + ": port 0 picks a free port, each time another", func(t *testing.T, w *world) {
			seen := map[uint16]bool{}
			for range 50 {
				_, addr := bound(w.near)
				require.False(t, seen[addr.Port()], "port %d was given twice", addr.Port())
				seen[addr.Port()] = true
			}
		}},
		{"Bind", kind + ": address 0 takes one interface after another, the loopback last, and then fails", func(t *testing.T, w *world) {
			want := append(append([]netip.Addr(nil), w.near.cards...), INADDR_LOOPBACK)
			for _, ip := range want {
				got := w.near.bind(create(w.near), netip.AddrPortFrom(INADDR_ANY, 7))
				require.Equal(t, netip.AddrPortFrom(ip, 7), got)
			}
			addr := netip.AddrPortFrom(INADDR_ANY, 7)
			require.ErrorIs(t, w.near.Bind(create(w.near), &addr), EADDRINUSE)
			require.Equal(t, netip.AddrPortFrom(INADDR_ANY, 7), addr, "an error leaves addr alone")
		}},
		{"Bind", kind + ": address 0 skips an interface on which the port is taken", func(t *testing.T, w *world) {
			w.near.bind(create(w.near), netip.AddrPortFrom(w.near.cards[0], 7))
			got := w.near.bind(create(w.near), netip.AddrPortFrom(INADDR_ANY, 7))
			require.Equal(t, w.near.cards[1], got.Addr())
		}},
		{"Bind", kind + ": the zero address is INADDR_ANY", func(t *testing.T, w *world) {
			require.Equal(t, w.near.cards[0], w.near.bind(create(w.near), netip.AddrPort{}).Addr())
		}},
		{"Bind", kind + ": the loopback has all of 127.0.0.0/8", func(t *testing.T, w *world) {
			addr := netip.MustParseAddrPort("127.3.2.1:7")
			require.Equal(t, addr, w.near.bind(create(w.near), addr))
		}},
		{"Bind", kind + ": an IPv4 address mapped into IPv6 is the IPv4 address", func(t *testing.T, w *world) {
			mapped := netip.AddrFrom16(w.near.cards[0].As16())
			require.Equal(t, netip.AddrPortFrom(w.near.cards[0], 7), w.near.bind(create(w.near), netip.AddrPortFrom(mapped, 7)))
		}},
		{"Bind", kind + ": a bound socket is EINVAL", func(t *testing.T, w *world) {
			s, addr := bound(w.near)
			require.ErrorIs(t, w.near.Bind(s, &addr), EINVAL)
			other := any0
			require.ErrorIs(t, w.near.Bind(s, &other), EINVAL)
		}},
		{"Bind", kind + ": no address to rewrite is EINVAL", func(t *testing.T, w *world) {
			require.ErrorIs(t, w.near.Bind(create(w.near), nil), EINVAL)
		}},
		{"Bind", kind + ": a taken port is EADDRINUSE, for every program of the machine", func(t *testing.T, w *world) {
			_, addr := bound(w.near)
			require.ErrorIs(t, w.near.Bind(create(w.near), &addr), EADDRINUSE)
			other := &host{calls: w.near.again(), t: t}
			require.ErrorIs(t, other.Bind(create(other), &addr), EADDRINUSE)
		}},
		{"Bind", kind + ": after an error the socket can still be bound", func(t *testing.T, w *world) {
			_, taken := bound(w.near)
			s := create(w.near)
			require.ErrorIs(t, w.near.Bind(s, &taken), EADDRINUSE)
			w.near.bind(s, any0)
		}},
		{"Bind", kind + ": the same port on another address is free", func(t *testing.T, w *world) {
			_, addr := bound(w.near)
			w.near.bind(create(w.near), netip.AddrPortFrom(w.near.cards[1], addr.Port()))
		}},
		{"Bind", kind + ": an address of another machine is EADDRNOTAVAIL", func(t *testing.T, w *world) {
			for _, ip := range []netip.Addr{w.far.cards[0], nowhere.Addr(), INADDR_BROADCAST} {
				addr := netip.AddrPortFrom(ip, 7)
				require.ErrorIs(t, w.near.Bind(create(w.near), &addr), EADDRNOTAVAIL, ip)
			}
		}},
		{"Bind", kind + ": an IPv6 address is EAFNOSUPPORT", func(t *testing.T, w *world) {
			addr := netip.MustParseAddrPort("[::1]:7")
			require.ErrorIs(t, w.near.Bind(create(w.near), &addr), EAFNOSUPPORT)
		}},
		{"Bind", kind + ": two sockets share a port if both asked for it with SO_REUSEPORT", func(t *testing.T, w *world) {
			a, b := create(w.near), create(w.near)
			for _, s := range []Token{a, b} {
				require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_REUSEPORT, 1))
			}
			addr := w.near.bind(a, any0)
			require.Equal(t, addr, w.near.bind(b, addr))
			require.ErrorIs(t, w.near.Bind(create(w.near), &addr), EADDRINUSE)
		}},
	}
}

var implicitBindRows = []row{
	{"Bind", "a socket that a send has bound is EINVAL", func(t *testing.T, w *world) {
		_, addr := w.far.receiver()
		s := w.near.udp()
		w.near.sends(s, "x", addr)
		a := any0
		require.ErrorIs(t, w.near.Bind(s, &a), EINVAL)
	}},
}

var connectRows = []row{
	{"Connect", "fixes the peer of Send", func(t *testing.T, w *world) {
		far, peer := w.far.receiver()
		s, local := w.near.connected(peer)
		n, err := w.near.Send(s, []byte("hello"), 0)
		require.NoError(t, err)
		require.Equal(t, 5, n)
		require.Equal(t, local, w.far.hears(far, "hello"))
	}},
	{"Connect", "binds an unbound socket to the address that the route prefers", func(t *testing.T, w *world) {
		for i, ip := range w.near.cards {
			_, local := w.near.connected(netip.AddrPortFrom(w.far.cards[i], 9))
			require.Equal(t, ip, local.Addr())
			require.NotZero(t, local.Port())
		}
		_, local := w.near.connected(netip.AddrPortFrom(INADDR_LOOPBACK, 9))
		require.Equal(t, INADDR_LOOPBACK, local.Addr())
	}},
	{"Connect", "keeps the address of a bound socket", func(t *testing.T, w *world) {
		s, local := w.near.receiver()
		_, peer := w.far.receiver()
		require.NoError(t, w.near.Connect(s, peer))
		name, err := w.near.GetSockName(s)
		require.NoError(t, err)
		require.Equal(t, local, name)
	}},
	{"Connect", "only the peer's messages are received from then on", func(t *testing.T, w *world) {
		peer, peerAddr := w.far.receiver()
		stranger, _ := w.far.receiver()
		s, local := w.near.connected(peerAddr)
		w.far.sends(stranger, "stranger", local)
		w.far.sends(peer, "peer", local)
		w.near.hears(s, "peer")
		w.near.silent(s, "the stranger came first and must not be heard")
	}},
	{"Connect", "a connected socket is EISCONN", func(t *testing.T, w *world) {
		s, _ := w.near.connected(netip.AddrPortFrom(w.far.cards[0], 9))
		require.ErrorIs(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[0], 9)), EISCONN)
		require.ErrorIs(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[1], 9)), EISCONN)
	}},
	{"Connect", "there is no disconnect", func(t *testing.T, w *world) {
		peer := netip.AddrPortFrom(w.far.cards[0], 9)
		s, _ := w.near.connected(peer)
		require.Error(t, w.near.Connect(s, netip.AddrPort{}))
		name, err := w.near.GetPeerName(s)
		require.NoError(t, err)
		require.Equal(t, peer, name)
	}},
	{"Connect", "no address is EDESTADDRREQ", func(t *testing.T, w *world) {
		require.ErrorIs(t, w.near.Connect(w.near.udp(), netip.AddrPort{}), EDESTADDRREQ)
	}},
	{"Connect", "an IPv6 address is EAFNOSUPPORT", func(t *testing.T, w *world) {
		require.ErrorIs(t, w.near.Connect(w.near.udp(), netip.MustParseAddrPort("[::1]:7")), EAFNOSUPPORT)
	}},
	{"Connect", "no route is ENETUNREACH, and the socket stays as it was", func(t *testing.T, w *world) {
		s := w.near.udp()
		require.ErrorIs(t, w.near.Connect(s, nowhere), ENETUNREACH)
		_, err := w.near.GetPeerName(s)
		require.ErrorIs(t, err, ENOTCONN)
		w.near.bind(s, any0)
	}},
	{"Connect", "a peer that refuses is ECONNREFUSED in the next Recv, once", func(t *testing.T, w *world) {
		s, _ := w.near.connected(netip.AddrPortFrom(w.far.cards[0], 9))
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, patience))
		_, err := w.near.Send(s, []byte("anybody?"), 0)
		require.NoError(t, err)
		_, err = w.near.Recv(s, make([]byte, 1), 0)
		require.ErrorIs(t, err, ECONNREFUSED)
		w.near.silent(s, "the error was told")
	}},
	{"Connect", "a non-blocking socket connects at once: a datagram has no handshake", func(t *testing.T, w *world) {
		s := w.near.udp()
		w.near.nonBlocking(s)
		require.NoError(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[0], 9)))
	}},
}

var nameRows = []row{
	{"GetSockName", "a socket that is not bound is EINVAL", func(t *testing.T, w *world) {
		_, err := w.near.GetSockName(w.near.udp())
		require.ErrorIs(t, err, EINVAL)
	}},
	{"GetSockName", "tells the address that Bind chose", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		name, err := w.near.GetSockName(s)
		require.NoError(t, err)
		require.Equal(t, addr, name)
	}},
	{"GetPeerName", "a socket that is not connected is ENOTCONN", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		_, err := w.near.GetPeerName(s)
		require.ErrorIs(t, err, ENOTCONN)
	}},
	{"GetPeerName", "tells the peer that Connect fixed", func(t *testing.T, w *world) {
		peer := netip.AddrPortFrom(w.far.cards[0], 9)
		s, _ := w.near.connected(peer)
		name, err := w.near.GetPeerName(s)
		require.NoError(t, err)
		require.Equal(t, peer, name)
	}},
}
