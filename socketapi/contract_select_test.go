package socketapi_test

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

var atOnce = new(time.Duration)

// set is an FdSet of tokens.
func set(tokens ...Token) *FdSet {
	f := new(FdSet)
	for _, s := range tokens {
		f.Set(s)
	}
	return f
}

// refused makes an error wait on a connected socket.
func (h *host) refused(closed netip.AddrPort) Token {
	h.t.Helper()
	s, _ := h.connected(closed)
	_, err := h.Send(s, []byte("anybody?"), 0)
	require.NoError(h.t, err)
	limit := patience
	n, err := h.Select(math.MaxInt64, nil, nil, set(s), &limit)
	require.NoError(h.t, err)
	require.Equal(h.t, 1, n)
	return s
}

var selectRows = []row{
	{"Select", "a socket with a message is ready to read, one without is not", func(t *testing.T, w *world) {
		a, addr := w.near.receiver()
		b, _ := w.near.receiver()
		w.far.sends(w.far.udp(), "x", addr)
		read := set(a, b)
		n, err := w.near.Select(read.Range(), read, nil, nil, nil)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.True(t, read.IsSet(a))
		require.False(t, read.IsSet(b))
		w.near.hears(a, "x")
		require.False(t, w.near.readable(a, 0))
	}},
	{"Select", "an empty message counts", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		w.far.sends(w.far.udp(), "", addr)
		require.True(t, w.near.readable(s, patience))
	}},
	{"Select", "returns 0 and empty sets when the time is up, and not before", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		limit := 20 * time.Millisecond
		read, except := set(s), set(s)
		start := time.Now()
		n, err := w.near.Select(read.Range(), read, nil, except, &limit)
		require.NoError(t, err)
		require.Zero(t, n)
		require.GreaterOrEqual(t, time.Since(start), limit)
		require.Zero(t, read.Len())
		require.Zero(t, except.Len())
	}},
	{"Select", "timeout 0 looks and does not wait", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		require.False(t, w.near.readable(s, 0))
		w.near.sends(w.near.udp(), "x", addr)
		require.True(t, w.near.readable(s, patience))
		require.True(t, w.near.readable(s, 0))
	}},
	{"Select", "a nil timeout blocks", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		ready := make(chan int)
		read := set(s)
		go func() {
			n, err := w.near.Select(read.Range(), read, nil, nil, nil)
			if err != nil {
				n = -1
			}
			ready <- n
		}()
		blocked(t, "Select", 1)
		w.far.sends(w.far.udp(), "x", addr)
		require.Equal(t, 1, <-ready)
		require.True(t, read.IsSet(s))
	}},
	{"Select", "has no limit of 32", func(t *testing.T, w *world) {
		const many = 1000
		read := new(FdSet)
		var tokens []Token
		var addrs []netip.AddrPort
		for range many {
			s, addr := w.near.receiver()
			tokens, addrs = append(tokens, s), append(addrs, addr)
		}
		sender := w.near.udp()
		want := set()
		for i := 0; i < many; i += 37 {
			want.Set(tokens[i])
			w.near.sends(sender, "x", addrs[i])
			w.near.readable(tokens[i], patience)
		}
		for i := range tokens {
			read.Set(tokens[len(tokens)-1-i])
		}
		n, err := w.near.Select(read.Range(), read, nil, nil, nil)
		require.NoError(t, err)
		require.Equal(t, want.Len(), n)
		for _, s := range tokens {
			require.Equal(t, want.IsSet(s), read.IsSet(s), "token %d", s)
		}
	}},
	{"Select", "a socket is ready to write when there is room", func(t *testing.T, w *world) {
		s := w.near.udp()
		write := set(s)
		n, err := w.near.Select(write.Range(), nil, write, nil, nil)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.True(t, write.IsSet(s))
	}},
	{"Select", "a socket with an error is in except, and ready to read", func(t *testing.T, w *world) {
		s := w.near.refused(netip.AddrPortFrom(w.far.cards[0], 9))
		read, except := set(s), set(s)
		n, err := w.near.Select(read.Range(), read, nil, except, nil)
		require.NoError(t, err)
		require.Equal(t, 2, n, "a token that is ready in two sets counts twice")
		require.True(t, read.IsSet(s))
		require.True(t, except.IsSet(s))
		errno, err := w.near.GetSockOptInt(s, SOL_SOCKET, SO_ERROR)
		require.NoError(t, err)
		require.Equal(t, int(ECONNREFUSED), errno)
		n, err = w.near.Select(math.MaxInt64, set(s), nil, set(s), atOnce)
		require.NoError(t, err)
		require.Zero(t, n, "the error was told")
	}},
	{"Select", "looks at all three sets at once", func(t *testing.T, w *world) {
		refused := w.near.refused(netip.AddrPortFrom(w.far.cards[0], 9))
		ear, addr := w.near.receiver()
		idle, _ := w.near.receiver()
		w.near.sends(w.near.udp(), "x", addr)
		require.True(t, w.near.readable(ear, patience))
		read, write, except := set(ear, idle), set(idle), set(refused, ear)
		n, err := w.near.Select(math.MaxInt64, read, write, except, nil)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, []bool{true, false}, []bool{read.IsSet(ear), read.IsSet(idle)})
		require.True(t, write.IsSet(idle))
		require.Equal(t, []bool{true, false}, []bool{except.IsSet(refused), except.IsSet(ear)})
	}},
	{"Select", "tokens at or above range are taken out unseen", func(t *testing.T, w *world) {
		a, addrA := w.near.receiver()
		b, addrB := w.near.receiver()
		sender := w.near.udp()
		for _, to := range []netip.AddrPort{addrA, addrB} {
			w.near.sends(sender, "x", to)
		}
		require.True(t, w.near.readable(a, patience))
		require.True(t, w.near.readable(b, patience))
		read := set(a, b, 12345)
		n, err := w.near.Select(b, read, nil, nil, nil)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, []bool{true, false, false}, []bool{read.IsSet(a), read.IsSet(b), read.IsSet(12345)})
	}},
	{"Select", "a token that names no socket is EBADF, in each of the sets, and the sets stay", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		w.near.sends(w.near.udp(), "x", addr)
		require.True(t, w.near.readable(s, patience))
		for i := range 3 {
			sets := [3]*FdSet{set(s), set(s), set(s)}
			sets[i].Set(4711)
			_, err := w.near.Select(math.MaxInt64, sets[0], sets[1], sets[2], nil)
			require.ErrorIs(t, err, EBADF)
			require.True(t, sets[i].IsSet(4711))
			require.True(t, sets[0].IsSet(s))
		}
		_, err := w.near.Select(math.MaxInt64, set(-1, s), nil, nil, nil)
		require.ErrorIs(t, err, EBADF)
	}},
	{"Select", "a close from another goroutine is EINTR", func(t *testing.T, w *world) {
		a, _ := w.near.receiver()
		b, _ := w.near.receiver()
		interrupted(t, "Select", 3, func() error {
			_, err := w.near.Select(math.MaxInt64, set(a, b), nil, nil, nil)
			return err
		}, func() error { return w.near.CloseSocket(b) })
	}},
	{"Select", "a close is EINTR for a token of the write or except set alone", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		interrupted(t, "Select", 1, func() error {
			_, err := w.near.Select(math.MaxInt64, nil, nil, set(s), nil)
			return err
		}, func() error { return w.near.CloseSocket(s) })
	}},
	{"Select", "no sets and a timeout is a sleep", func(t *testing.T, w *world) {
		limit := 5 * time.Millisecond
		start := time.Now()
		n, err := w.near.Select(0, nil, nil, nil, &limit)
		require.NoError(t, err)
		require.Zero(t, n)
		require.GreaterOrEqual(t, time.Since(start), limit)
	}},
	{"Select", "no sets and no timeout is EINTR when the program's Kit is closed", func(t *testing.T, w *world) {
		done := make(chan error)
		go func() {
			_, err := w.near.Select(0, nil, nil, nil, nil)
			done <- err
		}()
		blocked(t, "Select", 1)
		require.NoError(t, w.near.Close())
		require.ErrorIs(t, <-done, EINTR)
	}},
	{"Select", "a negative timeout or range, and a set given twice, are EINVAL", func(t *testing.T, w *world) {
		negative := time.Duration(-1)
		_, err := w.near.Select(0, nil, nil, nil, &negative)
		require.ErrorIs(t, err, EINVAL)
		_, err = w.near.Select(-1, nil, nil, nil, atOnce)
		require.ErrorIs(t, err, EINVAL)
		f := set()
		_, err = w.near.Select(0, f, f, nil, atOnce)
		require.ErrorIs(t, err, EINVAL)
	}},
}
