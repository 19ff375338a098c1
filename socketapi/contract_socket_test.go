package socketapi_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// wantSocket wants Socket to answer err.
func wantSocket(err error, args ...[3]int) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		for _, a := range args {
			s, got := w.near.Socket(a[0], a[1], a[2])
			require.ErrorIs(t, got, err, "Socket(%d, %d, %d)", a[0], a[1], a[2])
			require.Negative(t, s)
		}
	}
}

var socketRows = []row{
	{"Socket", "protocol 0 picks UDP for a datagram", func(t *testing.T, w *world) {
		addr := w.near.bind(w.near.socket(SOCK_DGRAM, 0), any0)
		require.ErrorIs(t, w.near.Bind(w.near.udp(), &addr), EADDRINUSE, "both are UDP, so they cannot share a port")
		w.near.bind(w.near.icmp(), addr)
	}},
	{"Socket", "ICMP goes with a datagram", func(t *testing.T, w *world) { w.near.icmp() }},
	{"Socket", "a family other than AF_INET is EAFNOSUPPORT",
		wantSocket(EAFNOSUPPORT, [3]int{10, SOCK_DGRAM, 0}, [3]int{0, SOCK_DGRAM, 0}, [3]int{-1, 77, 77})},
	{"Socket", "type and protocol that do not go together are EPROTOTYPE",
		wantSocket(EPROTOTYPE, [3]int{AF_INET, SOCK_STREAM, IPPROTO_UDP}, [3]int{AF_INET, SOCK_STREAM, IPPROTO_ICMP},
			[3]int{AF_INET, SOCK_DGRAM, IPPROTO_TCP})},
	{"Socket", "an unknown type is EPROTONOSUPPORT",
		wantSocket(EPROTONOSUPPORT, [3]int{AF_INET, 3, 0}, [3]int{AF_INET, 0, IPPROTO_UDP}, [3]int{AF_INET, -1, 0})},
	{"Socket", "an unknown protocol is EPROTONOSUPPORT",
		wantSocket(EPROTONOSUPPORT, [3]int{AF_INET, SOCK_DGRAM, 132}, [3]int{AF_INET, SOCK_STREAM, -1})},
	{"Listen", "a datagram socket is EINVAL", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		require.ErrorIs(t, w.near.Listen(s, 1), EINVAL)
	}},
	{"Accept", "a datagram socket is EINVAL", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		_, _, err := w.near.Accept(s)
		require.ErrorIs(t, err, EINVAL)
	}},
}

// everyCall lists the calls that take a token, each with arguments that are right for a bound datagram socket.
var everyCall = map[string]func(calls, Token) error{
	"CloseSocket": func(k calls, s Token) error { return k.CloseSocket(s) },
	"Bind":        func(k calls, s Token) error { a := any0; return k.Bind(s, &a) },
	"Connect":     func(k calls, s Token) error { return k.Connect(s, netip.AddrPortFrom(INADDR_LOOPBACK, 9)) },
	"Listen":      func(k calls, s Token) error { return k.Listen(s, 1) },
	"Accept":      func(k calls, s Token) error { _, _, err := k.Accept(s); return err },
	"GetSockName": func(k calls, s Token) error { _, err := k.GetSockName(s); return err },
	"GetPeerName": func(k calls, s Token) error { _, err := k.GetPeerName(s); return err },
	"Send":        func(k calls, s Token) error { _, err := k.Send(s, nil, 0); return err },
	"Recv":        func(k calls, s Token) error { _, err := k.Recv(s, nil, 0); return err },
	"SendTo": func(k calls, s Token) error {
		_, err := k.SendTo(s, nil, 0, netip.AddrPortFrom(INADDR_LOOPBACK, 9))
		return err
	},
	"RecvFrom": func(k calls, s Token) error { _, _, err := k.RecvFrom(s, nil, 0); return err },
	"Select": func(k calls, s Token) error {
		var f FdSet
		f.Set(s)
		_, err := k.Select(1<<62, &f, nil, nil, nil)
		return err
	},
	"SetSockOpt": func(k calls, s Token) error { return k.SetSockOpt(s, SOL_SOCKET, SO_NONBLOCK, []byte{1}) },
	"GetSockOpt": func(k calls, s Token) error {
		_, err := k.GetSockOpt(s, SOL_SOCKET, SO_DEBUG, make([]byte, 4))
		return err
	},
	"SetSockOptInt": func(k calls, s Token) error { return k.SetSockOptInt(s, SOL_SOCKET, SO_NONBLOCK, 1) },
	"GetSockOptInt": func(k calls, s Token) error { _, err := k.GetSockOptInt(s, SOL_SOCKET, SO_DEBUG); return err },
	"SetTimeout":    func(k calls, s Token) error { return k.SetTimeout(s, SO_RCVTIMEO, time.Second) },
	"GetTimeout":    func(k calls, s Token) error { _, err := k.GetTimeout(s, SO_RCVTIMEO); return err },
	"ReadBatch":     func(k calls, s Token) error { _, err := k.ReadBatch(s, make([]stack.Message, 1), 0); return err },
	"WriteBatch":    func(k calls, s Token) error { _, err := k.WriteBatch(s, nil, 0); return err },
	"Handle":        func(k calls, s Token) error { return k.Handle(s, nil) },
	"Shutdown":      func(k calls, s Token) error { return k.Shutdown(s, SHUT_WR) },
}

// wantEBADF wants every call to refuse the token.
func wantEBADF(t *testing.T, k calls, s Token) {
	t.Helper()
	for name, call := range everyCall {
		require.ErrorIs(t, call(k, s), EBADF, "%s(%d)", name, s)
	}
}

var tokenRows = []row{
	{"tokens", "the first token is 0 and it is valid", func(t *testing.T, w *world) {
		s := w.near.udp()
		require.Zero(t, s)
		w.near.bind(s, any0)
	}},
	{"tokens", "a token that was never given out is EBADF", func(t *testing.T, w *world) {
		w.near.udp()
		for _, s := range []Token{-1, 1, 31, 1 << 20, 1<<24 - 1, 1 << 24, 1 << 40, 1 << 61, -1 << 63} {
			wantEBADF(t, w.near, s)
		}
	}},
	{"tokens", "a closed token is EBADF in every call", func(t *testing.T, w *world) {
		s := w.near.udp()
		require.NoError(t, w.near.CloseSocket(s))
		wantEBADF(t, w.near, s)
	}},
	{"tokens", "a reused slot never answers to an old token", func(t *testing.T, w *world) {
		stale := make([]Token, 100)
		for i := range stale {
			stale[i] = w.near.udp()
			require.NoError(t, w.near.CloseSocket(stale[i]))
		}
		live := w.near.udp()
		for _, s := range stale {
			require.NotEqual(t, live, s)
			wantEBADF(t, w.near, s)
		}
		w.near.bind(live, any0)
	}},
	{"tokens", "a token belongs to the program that made it", func(t *testing.T, w *world) {
		other := w.near.again()
		w.near.udp()
		s, err := other.Socket(AF_INET, SOCK_DGRAM, 0)
		require.NoError(t, err)
		require.Zero(t, s)
		s2 := w.near.udp()
		wantEBADF(t, other, s2)
		require.NoError(t, w.near.CloseSocket(s2))
		_, err = other.Socket(AF_INET, SOCK_DGRAM, 0)
		require.NoError(t, err)
		wantEBADF(t, w.near, s2)
	}},
	{"CloseSocket", "the port is free again", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		require.NoError(t, w.near.CloseSocket(s))
		w.near.bind(w.near.udp(), addr)
	}},
	{"CloseSocket", "what was sent still goes out", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		s := w.near.udp()
		w.near.sends(s, "last words", addr)
		require.NoError(t, w.near.CloseSocket(s))
		w.far.hears(far, "last words")
	}},
	{"CloseSocket", "of two closers one gets EBADF", func(t *testing.T, w *world) {
		for range 200 {
			s := w.near.udp()
			errs := make(chan error)
			for range 2 {
				go func() { errs <- w.near.CloseSocket(s) }()
			}
			a, b := <-errs, <-errs
			if a == nil {
				a, b = b, a
			}
			require.ErrorIs(t, a, EBADF)
			require.NoError(t, b)
		}
	}},
	{"Close", "closes every socket of the program, and of no other", func(t *testing.T, w *world) {
		other := &host{calls: w.near.again(), t: t}
		kept := other.udp()
		var mine []Token
		for range 300 {
			mine = append(mine, w.near.udp())
		}
		_, addr := w.near.receiver()
		require.NoError(t, w.near.Close())
		for _, s := range mine {
			_, err := w.near.GetSockOptInt(s, SOL_SOCKET, SO_DEBUG)
			require.ErrorIs(t, err, EBADF)
		}
		other.bind(kept, addr)
	}},
	{"Close", "Socket is ENETDOWN afterwards, and a second Close is nothing", func(t *testing.T, w *world) {
		require.NoError(t, w.near.Close())
		require.NoError(t, w.near.Close())
		_, err := w.near.Socket(AF_INET, SOCK_DGRAM, 0)
		require.ErrorIs(t, err, ENETDOWN)
	}},
}
