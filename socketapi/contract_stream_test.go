package socketapi_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

// tcp makes a stream.
func (h *host) tcp() Token { return h.socket(SOCK_STREAM, IPPROTO_TCP) }

// listener is a stream that listens on a free port of the first card, for n clients at a time.
func (h *host) listener(n int) (Token, netip.AddrPort) {
	h.t.Helper()
	s := h.tcp()
	addr := h.bind(s, netip.AddrPortFrom(h.cards[0], 0))
	require.NoError(h.t, h.Listen(s, n))
	return s, addr
}

// dial is a stream that is connected to addr.
func (h *host) dial(addr netip.AddrPort) Token {
	h.t.Helper()
	s := h.tcp()
	require.NoError(h.t, h.Connect(s, addr))
	return s
}

// accepts waits for a client of s.
func (h *host) accepts(s Token) (Token, netip.AddrPort) {
	h.t.Helper()
	require.NoError(h.t, h.SetTimeout(s, SO_RCVTIMEO, patience))
	c, from, err := h.Accept(s)
	require.NoError(h.t, err)
	return c, from
}

// pair is a connection from near to far.
func (w *world) pair() (client, accepted Token) {
	w.near.t.Helper()
	l, addr := w.far.listener(1)
	client = w.near.dial(addr)
	accepted, _ = w.far.accepts(l)
	return client, accepted
}

// narrow is a connection whose buffers hold 32 KiB each, for good.
func (w *world) narrow() (client, accepted Token) {
	w.near.t.Helper()
	l, addr := w.far.listener(1)
	client = w.near.tcp()
	for _, opt := range []int{SO_RCVBUF, SO_SNDBUF} {
		require.NoError(w.near.t, w.near.SetSockOptInt(client, SOL_SOCKET, opt, 32<<10))
		require.NoError(w.near.t, w.far.SetSockOptInt(l, SOL_SOCKET, opt, 32<<10))
	}
	require.NoError(w.near.t, w.near.Connect(client, addr))
	accepted, _ = w.far.accepts(l)
	return client, accepted
}

// says sends all of text on a stream.
func (h *host) says(s Token, text string) {
	h.t.Helper()
	n, err := h.Send(s, []byte(text), 0)
	require.NoError(h.t, err)
	require.Equal(h.t, len(text), n)
}

// reads wants the next bytes of a stream to be text.
func (h *host) reads(s Token, text string) {
	h.t.Helper()
	require.NoError(h.t, h.SetTimeout(s, SO_RCVTIMEO, patience))
	buf := make([]byte, len(text))
	for got := 0; got < len(buf); {
		n, err := h.Recv(s, buf[got:], 0)
		require.NoError(h.t, err)
		require.Positive(h.t, n, "the stream ended after %d bytes of %d", got, len(buf))
		got += n
	}
	require.Equal(h.t, text, string(buf))
}

// ends wants the end of a stream, and then still the end.
func (h *host) ends(s Token) {
	h.t.Helper()
	require.NoError(h.t, h.SetTimeout(s, SO_RCVTIMEO, patience))
	for range 2 {
		n, err := h.Recv(s, make([]byte, 9), 0)
		require.NoError(h.t, err)
		require.Zero(h.t, n)
	}
}

// fails waits for a stream to end with an error, and wants it to be err.
func (h *host) fails(s Token, err error) {
	h.t.Helper()
	require.NoError(h.t, h.SetTimeout(s, SO_RCVTIMEO, patience))
	_, got := h.Recv(s, make([]byte, 9), 0)
	require.ErrorIs(h.t, got, err)
}

// resets makes s end with a reset at the peer (SO_LINGER with no time).
func (h *host) resets(s Token) {
	h.t.Helper()
	require.NoError(h.t, h.SetSockOpt(s, SOL_SOCKET, SO_LINGER, append(int4(1), int4(0)...)))
	require.NoError(h.t, h.CloseSocket(s))
}

// stuff sends without blocking until the send buffer is full, and returns how many bytes it took.
func (h *host) stuff(s Token) int {
	h.t.Helper()
	piece := make([]byte, 4096)
	for total := 0; ; {
		n, err := h.Send(s, piece, MSG_DONTWAIT)
		if err != nil {
			require.ErrorIs(h.t, err, EWOULDBLOCK)
			// It is full for good when the peer's buffer is, too.
			var write FdSet
			write.Set(s)
			soon := 50 * time.Millisecond
			ready, err := h.Select(write.Range(), nil, &write, nil, &soon)
			require.NoError(h.t, err)
			if ready == 0 {
				return total
			}
		}
		total += n
		require.Less(h.t, total, 1<<30, "the send buffer never fills")
	}
}

var streamSocketRows = []row{
	{"Socket", "protocol 0 picks TCP for a stream", func(t *testing.T, w *world) {
		addr := w.near.bind(w.near.socket(SOCK_STREAM, 0), any0)
		require.ErrorIs(t, w.near.Bind(w.near.tcp(), &addr), EADDRINUSE, "both are TCP, so they cannot share a port")
		w.near.bind(w.near.udp(), addr)
	}},
	{"tokens", "a closed stream's token is EBADF in every call, an accept socket's too", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		require.NoError(t, w.near.CloseSocket(client))
		wantEBADF(t, w.near, client)
		require.NoError(t, w.far.CloseSocket(accepted))
		wantEBADF(t, w.far, accepted)
	}},
	{"tokens", "an accept socket's token belongs to the program that accepted", func(t *testing.T, w *world) {
		other := w.far.again()
		_, accepted := w.pair()
		wantEBADF(t, other, accepted)
	}},
	{"SendTo", "a stream is EOPNOTSUPP, connected or not, and so are the other calls for messages", func(t *testing.T, w *world) {
		client, _ := w.pair()
		for _, s := range []Token{w.near.tcp(), client} {
			for _, name := range []string{"SendTo", "RecvFrom", "ReadBatch", "Handle"} {
				require.ErrorIs(t, everyCall[name](w.near, s), EOPNOTSUPP, name)
			}
			_, err := w.near.WriteBatch(s, messages(1), 0)
			require.ErrorIs(t, err, EOPNOTSUPP)
		}
	}},
	{"Send", "a stream that is not connected is ENOTCONN, bound or listening or neither", func(t *testing.T, w *world) {
		bound := w.near.tcp()
		w.near.bind(bound, any0)
		listener, _ := w.near.listener(1)
		for _, s := range []Token{w.near.tcp(), bound, listener} {
			_, err := w.near.Send(s, []byte("x"), 0)
			require.ErrorIs(t, err, ENOTCONN)
			_, err = w.near.Recv(s, make([]byte, 1), 0)
			require.ErrorIs(t, err, ENOTCONN)
			require.ErrorIs(t, w.near.Shutdown(s, SHUT_WR), ENOTCONN)
			_, err = w.near.GetPeerName(s)
			require.ErrorIs(t, err, ENOTCONN)
			_, err = w.near.GetSockOpt(s, IPPROTO_TCP, TCP_INFO, make([]byte, 256))
			require.ErrorIs(t, err, ENOTCONN)
		}
	}},
	{"GetSockName", "a stream that is not bound is EINVAL", func(t *testing.T, w *world) {
		_, err := w.near.GetSockName(w.near.tcp())
		require.ErrorIs(t, err, EINVAL)
	}},
	{"GetSockName", "and GetPeerName tell both ends of a connection", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		client := w.near.dial(addr)
		accepted, from := w.far.accepts(l)
		local, err := w.near.GetSockName(client)
		require.NoError(t, err)
		require.Equal(t, w.near.cards[0], local.Addr())
		require.Equal(t, local, from)
		for _, end := range []struct {
			h          *host
			s          Token
			name, peer netip.AddrPort
		}{{w.near, client, local, addr}, {w.far, accepted, addr, local}} {
			name, err := end.h.GetSockName(end.s)
			require.NoError(t, err)
			require.Equal(t, end.name, name)
			peer, err := end.h.GetPeerName(end.s)
			require.NoError(t, err)
			require.Equal(t, end.peer, peer)
		}
	}},
}

var listenRows = []row{
	{"Listen", "a stream that is not bound is EINVAL", func(t *testing.T, w *world) {
		require.ErrorIs(t, w.near.Listen(w.near.tcp(), 1), EINVAL)
	}},
	{"Listen", "a connected stream is EINVAL, at both ends", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		require.ErrorIs(t, w.near.Listen(client, 1), EINVAL)
		require.ErrorIs(t, w.far.Listen(accepted, 1), EINVAL)
	}},
	{"Listen", "a count that is not positive is EINVAL", func(t *testing.T, w *world) {
		s := w.near.tcp()
		w.near.bind(s, any0)
		for _, n := range []int{0, -1} {
			require.ErrorIs(t, w.near.Listen(s, n), EINVAL)
		}
		require.NoError(t, w.near.Listen(s, 1))
	}},
	{"Listen", "one client more than the count is refused at once, those that wait and those accepted counted together",
		func(t *testing.T, w *world) {
			l, addr := w.far.listener(3)
			for range 3 {
				w.near.dial(addr)
			}
			require.ErrorIs(t, w.near.Connect(w.near.tcp(), addr), ECONNREFUSED)
			w.far.accepts(l)
			w.far.accepts(l)
			require.ErrorIs(t, w.near.Connect(w.near.tcp(), addr), ECONNREFUSED, "accepting frees no place")
		}},
	{"Listen", "the refused client was not kept: it can try again and come in", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		w.near.dial(addr)
		s := w.near.tcp()
		require.ErrorIs(t, w.near.Connect(s, addr), ECONNREFUSED)
		accepted, _ := w.far.accepts(l)
		require.NoError(t, w.far.CloseSocket(accepted))
		require.NoError(t, w.near.Connect(s, addr))
		accepted, _ = w.far.accepts(l)
		w.near.says(s, "at last")
		w.far.reads(accepted, "at last")
	}},
	{"Listen", "CloseSocket on an accept socket frees its place, every time", func(t *testing.T, w *world) {
		l, addr := w.far.listener(2)
		w.near.dial(addr)
		w.far.accepts(l)
		for range 20 {
			s := w.near.dial(addr)
			accepted, _ := w.far.accepts(l)
			require.ErrorIs(t, w.near.Connect(w.near.tcp(), addr), ECONNREFUSED)
			require.NoError(t, w.far.CloseSocket(accepted))
			require.NoError(t, w.near.CloseSocket(s))
		}
		w.near.dial(addr)
	}},
	{"Listen", "a client that goes away keeps its place until its accept socket is closed", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		for _, leave := range []func(Token){func(s Token) { require.NoError(t, w.near.CloseSocket(s)) }, w.near.resets} {
			s := w.near.dial(addr)
			accepted, _ := w.far.accepts(l)
			leave(s)
			require.True(t, w.far.readable(accepted, patience))
			require.ErrorIs(t, w.near.Connect(w.near.tcp(), addr), ECONNREFUSED)
			require.NoError(t, w.far.CloseSocket(accepted))
		}
		w.near.dial(addr)
	}},
	{"Listen", "again changes the count", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		w.near.dial(addr)
		require.ErrorIs(t, w.near.Connect(w.near.tcp(), addr), ECONNREFUSED)
		require.NoError(t, w.far.Listen(l, 2))
		w.near.dial(addr)
		require.NoError(t, w.far.Listen(l, 1))
		accepted, _ := w.far.accepts(l)
		require.NoError(t, w.far.CloseSocket(accepted))
		require.ErrorIs(t, w.near.Connect(w.near.tcp(), addr), ECONNREFUSED, "one is held, and one is the count now")
	}},
	{"Listen", "a socket that listens does not connect, nor is it bound again", func(t *testing.T, w *world) {
		l, addr := w.near.listener(1)
		_, other := w.far.listener(1)
		require.ErrorIs(t, w.near.Connect(l, other), EINVAL)
		require.ErrorIs(t, w.near.Bind(l, &addr), EINVAL)
	}},
	{"CloseSocket", "a listener's clients that nobody accepted are reset", func(t *testing.T, w *world) {
		l, addr := w.far.listener(2)
		s := w.near.dial(addr)
		require.NoError(t, w.far.CloseSocket(l))
		w.near.fails(s, ECONNRESET)
		require.ErrorIs(t, w.near.Connect(w.near.tcp(), addr), ECONNREFUSED, "nobody listens")
	}},
	{"CloseSocket", "a listener's accept sockets live on without it", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		s := w.near.dial(addr)
		accepted, _ := w.far.accepts(l)
		require.NoError(t, w.far.CloseSocket(l))
		w.near.says(s, "still here")
		w.far.reads(accepted, "still here")
	}},
	{"CloseSocket", "an accept socket whose client was gone leaves its listener's port alone", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		s := w.near.dial(addr)
		accepted, _ := w.far.accepts(l)
		w.near.resets(s)
		w.far.fails(accepted, ECONNRESET)
		require.NoError(t, w.far.CloseSocket(accepted))
		ear, earAddr := w.far.receiver()
		w.near.sends(w.near.udp(), "the machine has done what it was told", earAddr)
		w.far.hears(ear, "the machine has done what it was told")
		require.ErrorIs(t, w.far.Bind(w.far.tcp(), &addr), EADDRINUSE)
		w.near.dial(addr)
	}},
	{"Bind", "an accept socket is EINVAL", func(t *testing.T, w *world) {
		_, accepted := w.pair()
		addr := any0
		require.ErrorIs(t, w.far.Bind(accepted, &addr), EINVAL)
	}},
	{"Bind", "SO_REUSEADDR takes a port that only accept sockets of a closed listener hold", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		w.near.dial(addr)
		w.far.accepts(l)
		require.NoError(t, w.far.CloseSocket(l))
		s := w.far.tcp()
		require.ErrorIs(t, w.far.Bind(s, &addr), EADDRINUSE)
		require.NoError(t, w.far.SetSockOptInt(s, SOL_SOCKET, SO_REUSEADDR, 1))
		require.NoError(t, w.far.Bind(s, &addr))
		require.NoError(t, w.far.Listen(s, 1))
		w.near.dial(addr)
	}},
}

var acceptRows = []row{
	{"Accept", "a stream that is not bound, not listening, or connected is EINVAL", func(t *testing.T, w *world) {
		bound := w.near.tcp()
		w.near.bind(bound, any0)
		client, _ := w.pair()
		for _, s := range []Token{w.near.tcp(), bound, client} {
			a, _, err := w.near.Accept(s)
			require.ErrorIs(t, err, EINVAL)
			require.Negative(t, a)
		}
	}},
	{"Accept", "a non-blocking socket without a client is EWOULDBLOCK", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		w.far.nonBlocking(l)
		_, _, err := w.far.Accept(l)
		require.ErrorIs(t, err, EWOULDBLOCK)
		w.near.dial(addr)
		require.True(t, w.far.readable(l, patience))
		_, _, err = w.far.Accept(l)
		require.NoError(t, err)
	}},
	{"Accept", "SO_RCVTIMEO is EWOULDBLOCK when it is over, and not before", func(t *testing.T, w *world) {
		const limit = 20 * time.Millisecond
		l, _ := w.far.listener(1)
		require.NoError(t, w.far.SetTimeout(l, SO_RCVTIMEO, limit))
		start := time.Now()
		_, _, err := w.far.Accept(l)
		require.ErrorIs(t, err, EWOULDBLOCK)
		require.GreaterOrEqual(t, time.Since(start), limit)
	}},
	{"Accept", "blocks until a client comes", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		from := make(chan netip.AddrPort)
		go func() {
			_, peer, _ := w.far.Accept(l)
			from <- peer
		}()
		blocked(t, "Accept", 1)
		s := w.near.dial(addr)
		name, err := w.near.GetSockName(s)
		require.NoError(t, err)
		require.Equal(t, name, <-from)
	}},
	{"Accept", "many goroutines wait on one socket, and each client goes to one of them", func(t *testing.T, w *world) {
		const many = 8
		l, addr := w.far.listener(many)
		got := make(chan Token, many)
		for range many {
			go func() {
				s, _, err := w.far.Accept(l)
				if err != nil {
					s = -1
				}
				got <- s
			}()
		}
		blocked(t, "Accept", many)
		for range many {
			w.near.dial(addr)
		}
		seen := map[Token]bool{}
		for range many {
			s := <-got
			require.GreaterOrEqual(t, s, Token(0))
			require.False(t, seen[s])
			seen[s] = true
		}
	}},
	{"Accept", "clients come out in the order they came in", func(t *testing.T, w *world) {
		l, addr := w.far.listener(10)
		var want, got []netip.AddrPort
		for range 10 {
			s := w.near.dial(addr)
			name, err := w.near.GetSockName(s)
			require.NoError(t, err)
			want = append(want, name)
		}
		for range 10 {
			_, from := w.far.accepts(l)
			got = append(got, from)
		}
		require.Equal(t, want, got)
	}},
	{"Accept", "a close from another goroutine is EINTR for all who wait", func(t *testing.T, w *world) {
		l, _ := w.far.listener(1)
		interrupted(t, "Accept", 3, func() error { _, _, err := w.far.Accept(l); return err },
			func() error { return w.far.CloseSocket(l) })
	}},
	{"Accept", "an accept socket blocks, whatever its listener does", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		w.far.nonBlocking(l)
		s := w.near.dial(addr)
		require.True(t, w.far.readable(l, patience))
		accepted, _, err := w.far.Accept(l)
		require.NoError(t, err)
		done := make(chan error)
		go func() { done <- would["Recv"](w.far, accepted, 0) }()
		blocked(t, "Recv", 1)
		w.near.says(s, "x")
		require.NoError(t, <-done)
	}},
	{"Accept", "the bytes of a client that has left already can be read", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		s := w.near.dial(addr)
		w.near.says(s, "good bye")
		require.NoError(t, w.near.CloseSocket(s))
		accepted, _ := w.far.accepts(l)
		w.far.reads(accepted, "good bye")
		w.far.ends(accepted)
	}},
	{"Accept", "works between sockets of one machine, by its address and by the loopback's", func(t *testing.T, w *world) {
		for _, ip := range []netip.Addr{w.near.cards[0], w.near.cards[1], INADDR_LOOPBACK, netip.MustParseAddr("127.9.9.9")} {
			l := w.near.tcp()
			addr := w.near.bind(l, netip.AddrPortFrom(ip, 0))
			require.NoError(t, w.near.Listen(l, 1))
			s := w.near.dial(addr)
			accepted, _ := w.near.accepts(l)
			require.ErrorIs(t, w.near.Connect(w.near.tcp(), addr), ECONNREFUSED, "the count holds here too")
			long := strings.Repeat("0123456789", 20000)
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.near.says(s, long)
			}()
			w.near.reads(accepted, long)
			<-done
			w.near.says(accepted, "thanks")
			w.near.reads(s, "thanks")
			require.NoError(t, w.near.CloseSocket(s))
			w.near.ends(accepted)
		}
	}},
}
