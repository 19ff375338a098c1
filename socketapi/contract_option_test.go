package socketapi_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

// int4 is an integer as SetSockOpt takes it.
func int4(v int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(v)) }

// timeval is a struct timeval as SetSockOpt takes it.
func timeval(sec, usec int64) []byte {
	return binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, uint64(sec)), uint64(usec))
}

var optionRows = []row{
	{"SetSockOpt", "SO_NONBLOCK takes one byte, zero or not", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		for _, data := range [][]byte{{1}, {0xFF}, int4(1), int4(1 << 24)} {
			require.NoError(t, w.near.SetSockOpt(s, SOL_SOCKET, SO_NONBLOCK, []byte{0}))
			require.NoError(t, w.near.SetSockOpt(s, SOL_SOCKET, SO_NONBLOCK, data))
			_, _, err := w.near.RecvFrom(s, nil, 0)
			require.ErrorIs(t, err, EWOULDBLOCK, data)
		}
		require.ErrorIs(t, w.near.SetSockOpt(s, SOL_SOCKET, SO_NONBLOCK, nil), EINVAL)
	}},
	{"SetSockOpt", "booleans are off or on, and SO_BROADCAST alone starts on", func(t *testing.T, w *world) {
		for _, opt := range []int{SO_NONBLOCK, SO_DEBUG, SO_REUSEADDR, SO_REUSEPORT, SO_BROADCAST} {
			s := w.near.udp()
			v, err := w.near.GetSockOptInt(s, SOL_SOCKET, opt)
			require.NoError(t, err)
			require.Equal(t, opt == SO_BROADCAST, v == 1)
			for _, want := range []int{1, 0} {
				require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, opt, want*7))
				v, err = w.near.GetSockOptInt(s, SOL_SOCKET, opt)
				require.NoError(t, err)
				require.Equal(t, want, v)
			}
		}
	}},
	{"SetSockOpt", "integers keep their value", func(t *testing.T, w *world) {
		for _, o := range []struct{ level, opt, value int }{
			{SOL_SOCKET, SO_RCVBUF, 1 << 18}, {SOL_SOCKET, SO_SNDBUF, 1 << 18}, {IPPROTO_IP, IP_TTL, 3}, {IPPROTO_IP, IP_TOS, 0xB8},
		} {
			s := w.near.udp()
			require.NoError(t, w.near.SetSockOpt(s, o.level, o.opt, int4(int32(o.value))))
			data := make([]byte, 8)
			n, err := w.near.GetSockOpt(s, o.level, o.opt, data)
			require.NoError(t, err)
			require.Equal(t, int4(int32(o.value)), data[:n])
			require.ErrorIs(t, w.near.SetSockOpt(s, o.level, o.opt, []byte{1, 0, 0}), EINVAL, "4 bytes are wanted")
		}
	}},
	{"SetSockOpt", "SO_RCVTIMEO and SO_SNDTIMEO take a struct timeval", func(t *testing.T, w *world) {
		s := w.near.udp()
		for _, opt := range []int{SO_RCVTIMEO, SO_SNDTIMEO} {
			require.NoError(t, w.near.SetSockOpt(s, SOL_SOCKET, opt, timeval(2, 500_000)))
			d, err := w.near.GetTimeout(s, opt)
			require.NoError(t, err)
			require.Equal(t, 2500*time.Millisecond, d)
			require.NoError(t, w.near.SetTimeout(s, opt, 1001*time.Nanosecond))
			data := make([]byte, 16)
			n, err := w.near.GetSockOpt(s, SOL_SOCKET, opt, data)
			require.NoError(t, err)
			require.Equal(t, timeval(0, 2), data[:n], "rounded up, as 0 means for ever")
			require.NoError(t, w.near.SetSockOpt(s, SOL_SOCKET, opt, timeval(1<<62, 0)), "as good as for ever")
			for _, bad := range [][]byte{timeval(-1, 0), timeval(0, -1), timeval(0, 1_000_000)} {
				require.ErrorIs(t, w.near.SetSockOpt(s, SOL_SOCKET, opt, bad), EDOM)
			}
			require.ErrorIs(t, w.near.SetSockOpt(s, SOL_SOCKET, opt, int4(1)), EINVAL)
			require.ErrorIs(t, w.near.SetTimeout(s, opt, -1), EDOM)
			require.ErrorIs(t, w.near.SetSockOptInt(s, SOL_SOCKET, opt, 1), EINVAL)
			_, err = w.near.GetSockOptInt(s, SOL_SOCKET, opt)
			require.ErrorIs(t, err, EINVAL)
			_, err = w.near.GetSockOpt(s, SOL_SOCKET, opt, data[:15])
			require.ErrorIs(t, err, EINVAL)
		}
	}},
	{"SetSockOpt", "a time-out of 0 is none", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, time.Nanosecond))
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, 0))
		done := make(chan error)
		go func() { done <- would["RecvFrom"](w.near, s, 0) }()
		blocked(t, "RecvFrom", 1)
		w.near.sends(w.near.udp(), "x", addr)
		require.NoError(t, <-done)
	}},
	{"SetSockOpt", "values out of range are EINVAL", func(t *testing.T, w *world) {
		s := w.near.udp()
		for _, v := range []int{0, -1, 256} {
			require.ErrorIs(t, w.near.SetSockOptInt(s, IPPROTO_IP, IP_TTL, v), EINVAL)
		}
		for _, v := range []int{-1, 256} {
			require.ErrorIs(t, w.near.SetSockOptInt(s, IPPROTO_IP, IP_TOS, v), EINVAL)
		}
	}},
	{"SetSockOpt", "an option that is not there is ENOPROTOOPT", func(t *testing.T, w *world) {
		s := w.near.udp()
		for _, o := range [][2]int{
			{SOL_SOCKET, 4711}, {SOL_SOCKET, SO_KEEPALIVE}, {SOL_SOCKET, SO_LINGER}, {IPPROTO_TCP, 1}, {IPPROTO_UDP, SO_DEBUG}, {4711, SO_DEBUG},
		} {
			require.ErrorIs(t, w.near.SetSockOpt(s, o[0], o[1], int4(1)), ENOPROTOOPT)
			require.ErrorIs(t, w.near.SetSockOptInt(s, o[0], o[1], 1), ENOPROTOOPT)
			_, err := w.near.GetSockOpt(s, o[0], o[1], make([]byte, 16))
			require.ErrorIs(t, err, ENOPROTOOPT)
			_, err = w.near.GetSockOptInt(s, o[0], o[1])
			require.ErrorIs(t, err, ENOPROTOOPT)
		}
		require.ErrorIs(t, w.near.SetTimeout(s, SO_RCVBUF, time.Second), ENOPROTOOPT)
		_, err := w.near.GetTimeout(s, SO_RCVBUF)
		require.ErrorIs(t, err, ENOPROTOOPT)
	}},
	{"SetSockOpt", "SO_ERROR can only be got, and getting clears it", func(t *testing.T, w *world) {
		_, closed := w.far.receiver()
		closed = closedPort(closed)
		s := w.near.refused(closed)
		require.ErrorIs(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_ERROR, 0), ENOPROTOOPT)
		require.ErrorIs(t, w.near.SetSockOpt(s, SOL_SOCKET, SO_ERROR, int4(0)), ENOPROTOOPT)
		for _, want := range []int{int(ECONNREFUSED), 0} {
			errno, err := w.near.GetSockOptInt(s, SOL_SOCKET, SO_ERROR)
			require.NoError(t, err)
			require.Equal(t, want, errno)
		}
	}},
	{"SetSockOpt", "IP_TTL and IP_TOS show in what is sent", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		s := w.near.udp()
		require.NoError(t, w.near.SetSockOptInt(s, IPPROTO_IP, IP_TTL, 3))
		require.NoError(t, w.near.SetSockOptInt(s, IPPROTO_IP, IP_TOS, 0xB8))
		w.near.sends(s, "x", addr)
		require.NoError(t, w.far.SetTimeout(far, SO_RCVTIMEO, patience))
		ms := messages(1)
		_, err := w.far.ReadBatch(far, ms, 0)
		require.NoError(t, err)
		require.Equal(t, [2]uint8{3, 0xB8}, [2]uint8{ms[0].TTL, ms[0].TOS})
	}},
	{"SetSockOpt", "IP_MTU_DISCOVER keeps a datagram whole or lets it be cut", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		s := w.near.udp()
		long := string(make([]byte, 3000))
		for _, o := range []struct{ set, get int }{
			{IP_PMTUDISC_DO, IP_PMTUDISC_DO}, {IP_PMTUDISC_PROBE, IP_PMTUDISC_PROBE}, {IP_PMTUDISC_WANT, IP_PMTUDISC_WANT},
			{IP_PMTUDISC_DONT, IP_PMTUDISC_WANT},
		} {
			require.NoError(t, w.near.SetSockOptInt(s, IPPROTO_IP, IP_MTU_DISCOVER, o.set))
			v, err := w.near.GetSockOptInt(s, IPPROTO_IP, IP_MTU_DISCOVER)
			require.NoError(t, err)
			require.Equal(t, o.get, v)
			w.near.sends(s, long, addr)
			w.near.sends(s, "short", addr)
			if o.get == IP_PMTUDISC_WANT {
				w.far.hears(far, long)
			}
			w.far.hears(far, "short")
		}
		for _, v := range []int{-1, 4} {
			require.ErrorIs(t, w.near.SetSockOptInt(s, IPPROTO_IP, IP_MTU_DISCOVER, v), EINVAL)
		}
		require.ErrorIs(t, w.near.SetSockOptInt(w.near.tcp(), IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO), ENOPROTOOPT)
	}},
	{"SetSockOpt", "SO_RCVBUF bounds what waits to be received", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_RCVBUF, 8192))
		sender := w.near.udp()
		for range 1000 {
			w.near.sends(sender, string(make([]byte, 1000)), addr)
		}
		marker, markerAddr := w.near.receiver()
		w.near.sends(sender, "all of it is through", markerAddr)
		w.near.hears(marker, "all of it is through")
		kept := 0
		for would["RecvFrom"](w.near, s, MSG_DONTWAIT) == nil {
			kept++
		}
		require.Positive(t, kept)
		require.Less(t, kept, 100)
	}},
}
