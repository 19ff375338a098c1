package socketapi_test

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

var streamRows = []row{
	{"Send", "bytes arrive whole and in order, both ways at once", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		ping, pong := strings.Repeat("ping", 100_000), strings.Repeat("pong!", 80_000)
		done := make(chan struct{}, 2)
		for _, end := range []struct {
			h    *host
			s    Token
			text string
		}{{w.near, client, ping}, {w.far, accepted, pong}} {
			go func() {
				defer func() { done <- struct{}{} }()
				end.h.says(end.s, end.text)
			}()
		}
		w.far.reads(accepted, ping)
		w.near.reads(client, pong)
		<-done
		<-done
	}},
	{"Send", "no bytes are none, and Recv of none waits for nothing", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.says(client, "")
		n, err := w.near.Recv(client, nil, 0)
		require.NoError(t, err)
		require.Zero(t, n)
		require.False(t, w.far.readable(accepted, 0))
	}},
	{"Send", "a non-blocking stream takes what has room, and is then EWOULDBLOCK", func(t *testing.T, w *world) {
		client, _ := w.pair()
		w.near.nonBlocking(client)
		long := make([]byte, 64<<20)
		n, err := w.near.Send(client, long, 0)
		require.NoError(t, err)
		require.Positive(t, n)
		require.Less(t, n, len(long))
		w.near.stuff(client)
	}},
	{"Send", "blocks until all is taken", func(t *testing.T, w *world) {
		client, accepted := w.narrow()
		n := w.near.stuff(client)
		text := strings.Repeat("x", 1<<20)
		done := make(chan int)
		go func() {
			n, _ := w.near.Send(client, []byte(text), 0)
			done <- n
		}()
		blocked(t, "Send", 1)
		w.far.reads(accepted, string(make([]byte, n))+text)
		require.Equal(t, len(text), <-done)
	}},
	{"Send", "SO_SNDTIMEO is EWOULDBLOCK when it is over, and not before", func(t *testing.T, w *world) {
		const limit = 20 * time.Millisecond
		client, _ := w.pair()
		w.cut()
		w.near.stuff(client)
		require.NoError(t, w.near.SetTimeout(client, SO_SNDTIMEO, limit))
		start := time.Now()
		_, err := w.near.Send(client, make([]byte, 512), 0)
		require.ErrorIs(t, err, EWOULDBLOCK)
		require.GreaterOrEqual(t, time.Since(start), limit)
	}},
	{"Send", "what was taken before the time was over is what it returns", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		require.NoError(t, w.near.SetTimeout(client, SO_SNDTIMEO, 20*time.Millisecond))
		n, err := w.near.Send(client, make([]byte, 64<<20), 0)
		require.NoError(t, err)
		require.Positive(t, n)
		require.Less(t, n, 64<<20)
		require.NoError(t, w.near.CloseSocket(client))
		w.far.reads(accepted, string(make([]byte, n)))
		w.far.ends(accepted)
	}},
	{"Send", "streams: a flag that it does not take is EOPNOTSUPP", func(t *testing.T, w *world) {
		client, _ := w.pair()
		_, err := w.near.Send(client, []byte("x"), 1)
		require.ErrorIs(t, err, EOPNOTSUPP)
		_, err = w.near.Recv(client, make([]byte, 1), MSG_TRUNC)
		require.ErrorIs(t, err, EOPNOTSUPP)
	}},
	{"Send", "streams: a close from another goroutine is EINTR", func(t *testing.T, w *world) {
		client, _ := w.pair()
		w.cut()
		w.near.stuff(client)
		interrupted(t, "Send", 3, func() error { _, err := w.near.Send(client, []byte("x"), 0); return err },
			func() error { return w.near.CloseSocket(client) })
	}},
	{"Recv", "returns what is there, and does not wait for more", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.says(client, "some")
		require.True(t, w.far.readable(accepted, patience))
		n, err := w.far.Recv(accepted, make([]byte, 1000), 0)
		require.NoError(t, err)
		require.Equal(t, 4, n)
	}},
	{"Recv", "bytes that do not fit wait for the next call", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.says(client, "0123456789")
		for _, part := range []string{"012", "3", "456789"} {
			w.far.reads(accepted, part)
		}
	}},
	{"Recv", "streams: without a byte it is EWOULDBLOCK with SO_NONBLOCK, MSG_DONTWAIT or SO_RCVTIMEO", func(t *testing.T, w *world) {
		const limit = 20 * time.Millisecond
		client, _ := w.pair()
		require.ErrorIs(t, would["Recv"](w.near, client, MSG_DONTWAIT), EWOULDBLOCK)
		w.near.nonBlocking(client)
		require.ErrorIs(t, would["Recv"](w.near, client, 0), EWOULDBLOCK)
		require.NoError(t, w.near.SetSockOptInt(client, SOL_SOCKET, SO_NONBLOCK, 0))
		require.NoError(t, w.near.SetTimeout(client, SO_RCVTIMEO, limit))
		start := time.Now()
		require.ErrorIs(t, would["Recv"](w.near, client, 0), EWOULDBLOCK)
		require.GreaterOrEqual(t, time.Since(start), limit)
	}},
	{"Recv", "streams: blocks until a byte comes", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		done := make(chan error)
		go func() { done <- would["Recv"](w.far, accepted, 0) }()
		blocked(t, "Recv", 1)
		w.near.says(client, "x")
		require.NoError(t, <-done)
	}},
	{"Recv", "streams: a close from another goroutine is EINTR for all who wait", func(t *testing.T, w *world) {
		client, _ := w.pair()
		w.interruptsReceive(t, "Recv", 4, client)
	}},
	{"Close", "streams: closing the program's Kit is EINTR for calls in progress", func(t *testing.T, w *world) {
		client, _ := w.pair()
		interrupted(t, "Recv", 2, func() error { return would["Recv"](w.near, client, 0) }, w.near.Close)
	}},
}

var streamEndRows = []row{
	{"CloseSocket", "a client's unsent data is still delivered, and then the end", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		n := w.near.stuff(client)
		require.NoError(t, w.near.CloseSocket(client))
		w.far.reads(accepted, string(make([]byte, n)))
		w.far.ends(accepted)
		_, err := w.far.GetPeerName(accepted)
		require.NoError(t, err)
	}},
	{"CloseSocket", "an accept socket's unsent data too", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		n := w.far.stuff(accepted)
		require.NoError(t, w.far.CloseSocket(accepted))
		w.near.reads(client, string(make([]byte, n)))
		w.near.ends(client)
	}},
	{"CloseSocket", "with bytes unread the peer is told that they are lost, by ECONNRESET", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.says(client, "unheard")
		require.True(t, w.far.readable(accepted, patience))
		require.NoError(t, w.far.CloseSocket(accepted))
		w.near.fails(client, ECONNRESET)
	}},
	{"Recv", "a peer's reset is ECONNRESET once, and the end from then on", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.far.resets(accepted)
		w.near.fails(client, ECONNRESET)
		w.near.ends(client)
		_, err := w.near.Send(client, []byte("x"), 0)
		require.ErrorIs(t, err, EPIPE)
	}},
	{"Recv", "bytes that came before a reset are read first", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.far.says(accepted, "last words")
		require.True(t, w.near.readable(client, patience))
		w.far.resets(accepted)
		except, limit := set(client), patience
		_, err := w.near.Select(math.MaxInt64, nil, nil, except, &limit)
		require.NoError(t, err)
		require.True(t, except.IsSet(client))
		w.near.reads(client, "last words")
		w.near.fails(client, ECONNRESET)
	}},
	{"Recv", "a reset ends the wait of all, and one of them is told why", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		errs := make(chan error)
		for range 3 {
			go func() { errs <- would["Recv"](w.near, client, 0) }()
		}
		blocked(t, "Recv", 3)
		w.far.resets(accepted)
		told := 0
		for range 3 {
			if err := <-errs; err != nil {
				require.ErrorIs(t, err, ECONNRESET)
				told++
			}
		}
		require.Equal(t, 1, told)
	}},
	{"Send", "a peer's reset is ECONNRESET once, and EPIPE from then on", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.far.resets(accepted)
		require.True(t, w.near.readable(client, patience))
		for _, want := range []error{ECONNRESET, EPIPE, EPIPE} {
			_, err := w.near.Send(client, []byte("x"), 0)
			require.ErrorIs(t, err, want)
		}
	}},
	{"Send", "a reset after a part was taken returns the part, and the error comes with the next call", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		done := make(chan int)
		go func() {
			n, err := w.near.Send(client, make([]byte, 64<<20), 0)
			if err != nil {
				n = -1
			}
			done <- n
		}()
		blocked(t, "Send", 1)
		w.far.resets(accepted)
		n := <-done
		require.Positive(t, n)
		require.Less(t, n, 64<<20)
		w.near.fails(client, ECONNRESET)
	}},
	{"Send", "a peer that is silent for too long is ETIMEDOUT", func(t *testing.T, w *world) {
		client, _ := w.pair()
		w.near.giveUp(client)
		w.cut()
		w.near.says(client, "anybody?")
		w.near.fails(client, ETIMEDOUT)
	}},
	{"Send", "a peer that has closed answers with a reset", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		require.NoError(t, w.far.CloseSocket(accepted))
		w.near.ends(client)
		w.near.says(client, "too late")
		except, limit := set(client), patience
		n, err := w.near.Select(math.MaxInt64, nil, nil, except, &limit)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, err = w.near.Send(client, []byte("x"), 0)
		require.Contains(t, []error{ECONNRESET, EPIPE}, err)
	}},
	{"Shutdown", "SHUT_WR sends what was written and then the end, and Recv goes on", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.says(client, "question")
		require.NoError(t, w.near.Shutdown(client, SHUT_WR))
		_, err := w.near.Send(client, []byte("x"), 0)
		require.ErrorIs(t, err, EPIPE)
		w.far.reads(accepted, "question")
		w.far.ends(accepted)
		w.far.says(accepted, "answer")
		w.near.reads(client, "answer")
		require.NoError(t, w.far.CloseSocket(accepted))
		w.near.ends(client)
	}},
	{"Shutdown", "SHUT_RD ends Recv once what has arrived is read, and Send goes on", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.far.says(accepted, "there")
		require.True(t, w.near.readable(client, patience))
		require.NoError(t, w.near.Shutdown(client, SHUT_RD))
		w.near.reads(client, "there")
		w.near.ends(client)
		w.near.says(client, "still")
		w.far.reads(accepted, "still")
	}},
	{"Shutdown", "SHUT_RDWR does both", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		require.NoError(t, w.near.Shutdown(client, SHUT_RDWR))
		w.near.ends(client)
		_, err := w.near.Send(client, []byte("x"), 0)
		require.ErrorIs(t, err, EPIPE)
		w.far.ends(accepted)
	}},
	{"Shutdown", "wakes a Recv that waits, and a Send", func(t *testing.T, w *world) {
		client, _ := w.pair()
		w.cut()
		w.near.stuff(client)
		errs := make(chan error, 1)
		go func() { errs <- would["Recv"](w.near, client, 0) }()
		blocked(t, "Recv", 1)
		require.NoError(t, w.near.Shutdown(client, SHUT_RD))
		require.NoError(t, <-errs)
		go func() { _, err := w.near.Send(client, []byte("x"), 0); errs <- err }()
		blocked(t, "Send", 1)
		require.NoError(t, w.near.Shutdown(client, SHUT_WR))
		require.ErrorIs(t, <-errs, EPIPE)
	}},
	{"Shutdown", "another way than the three is EINVAL, and a datagram socket EOPNOTSUPP", func(t *testing.T, w *world) {
		client, _ := w.pair()
		for _, how := range []int{-1, 3} {
			require.ErrorIs(t, w.near.Shutdown(client, how), EINVAL)
		}
		require.ErrorIs(t, w.near.Shutdown(w.near.udp(), SHUT_WR), EOPNOTSUPP)
	}},
	{"Shutdown", "a connection that has ended is ENOTCONN", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.far.resets(accepted)
		w.near.fails(client, ECONNRESET)
		require.ErrorIs(t, w.near.Shutdown(client, SHUT_WR), ENOTCONN)
	}},
}

var streamSelectRows = []row{
	{"Select", "a listener with a client is ready to read, one without is not", func(t *testing.T, w *world) {
		a, addr := w.far.listener(1)
		b, _ := w.far.listener(1)
		w.near.dial(addr)
		read, write := set(a, b), set(a, b)
		n, err := w.far.Select(math.MaxInt64, read, write, nil, nil)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, []bool{true, false}, []bool{read.IsSet(a), read.IsSet(b)})
		w.far.accepts(a)
		require.False(t, w.far.readable(a, 0))
	}},
	{"Select", "a stream with bytes, at its end, or shut for reading is ready to read", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		require.False(t, w.far.readable(accepted, 0))
		w.near.says(client, "x")
		require.True(t, w.far.readable(accepted, patience))
		w.far.reads(accepted, "x")
		require.False(t, w.far.readable(accepted, 0))
		require.NoError(t, w.far.Shutdown(accepted, SHUT_RD))
		require.True(t, w.far.readable(accepted, 0))
		require.NoError(t, w.far.CloseSocket(accepted))
		require.True(t, w.near.readable(client, patience))
		w.near.ends(client)
		require.True(t, w.near.readable(client, 0), "and stays so")
	}},
	{"Select", "a stream is ready to write when there is room, and waits for it", func(t *testing.T, w *world) {
		client, accepted := w.narrow()
		w.near.writable(client)
		n := w.near.stuff(client)
		ready := make(chan int)
		go func() {
			n, err := w.near.Select(math.MaxInt64, nil, set(client), nil, nil)
			if err != nil {
				n = -1
			}
			ready <- n
		}()
		blocked(t, "Select", 1)
		w.far.reads(accepted, string(make([]byte, n)))
		require.Equal(t, 1, <-ready)
	}},
	{"Select", "a stream that is not connected is ready, as its calls answer at once", func(t *testing.T, w *world) {
		s := w.near.tcp()
		n, err := w.near.Select(math.MaxInt64, set(s), set(s), set(s), atOnce)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.ErrorIs(t, w.near.Connect(s, netip.AddrPortFrom(w.far.cards[0], 9)), ECONNREFUSED)
		n, err = w.near.Select(math.MaxInt64, set(s), set(s), set(s), nil)
		require.NoError(t, err)
		require.Equal(t, 2, n)
	}},
	{"Select", "looks at streams, listeners and datagram sockets at once, in all three sets", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		reset, peer := w.pair()
		l, addr := w.near.listener(1)
		ear, earAddr := w.near.receiver()
		idle, _ := w.near.receiver()
		full, _ := w.narrow()
		w.near.stuff(full)
		all := func() *FdSet { return set(client, reset, l, ear, idle, full) }
		read, except := all(), all()
		none, err := w.near.Select(math.MaxInt64, read, nil, except, atOnce)
		require.NoError(t, err)
		require.Zero(t, none)

		ready := make(chan int)
		read = all()
		go func() {
			n, err := w.near.Select(math.MaxInt64, read, set(full), nil, nil)
			if err != nil {
				n = -1
			}
			ready <- n
		}()
		blocked(t, "Select", 1)
		w.far.says(accepted, "x")
		require.Equal(t, 1, <-ready)
		require.True(t, read.IsSet(client))
		require.Equal(t, 1, read.Len())

		w.far.resets(peer)
		w.far.dial(addr)
		w.far.sends(w.far.udp(), "x", earAddr)
		for _, s := range []Token{reset, l, ear} {
			require.True(t, w.near.readable(s, patience))
		}
		read, write, except := all(), all(), all()
		n, err := w.near.Select(math.MaxInt64, read, write, except, nil)
		require.NoError(t, err)
		want := map[string][]Token{"read": {client, reset, l, ear}, "write": {client, reset, ear, idle}, "except": {reset}}
		for name, f := range map[string]*FdSet{"read": read, "write": write, "except": except} {
			require.Equal(t, len(want[name]), f.Len(), name)
			n -= f.Len()
			for _, s := range want[name] {
				require.True(t, f.IsSet(s), "%s: %d", name, s)
			}
		}
		require.Zero(t, n)
	}},
	{"Select", "streams: returns 0 when the time is up, and not before", func(t *testing.T, w *world) {
		client, _ := w.pair()
		l, _ := w.near.listener(1)
		limit := 20 * time.Millisecond
		start := time.Now()
		n, err := w.near.Select(math.MaxInt64, set(client, l), set(l), set(client), &limit)
		require.NoError(t, err)
		require.Zero(t, n)
		require.GreaterOrEqual(t, time.Since(start), limit)
	}},
	{"Select", "a close of a stream or a listener from another goroutine is EINTR", func(t *testing.T, w *world) {
		client, _ := w.pair()
		l, _ := w.near.listener(1)
		interrupted(t, "Select", 2, func() error {
			_, err := w.near.Select(math.MaxInt64, set(client, l), nil, nil, nil)
			return err
		}, func() error { return w.near.CloseSocket(l) })
		interrupted(t, "Select", 2, func() error {
			_, err := w.near.Select(math.MaxInt64, nil, nil, set(client), nil)
			return err
		}, func() error { return w.near.CloseSocket(client) })
	}},
}
