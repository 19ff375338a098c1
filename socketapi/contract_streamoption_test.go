package socketapi_test

import (
	"encoding/binary"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	. "kitnet.dev/kit/socketapi"
)

// linger is a struct linger as SetSockOpt takes it.
func linger(on, seconds int32) []byte { return append(int4(on), int4(seconds)...) }

// setOpt sets an integer option.
func (h *host) setOpt(s Token, level, opt, value int) {
	h.t.Helper()
	require.NoError(h.t, h.SetSockOptInt(s, level, opt, value))
}

// tcpInfo is TCP_INFO as <linux/tcp.h> lays it out.
func (h *host) tcpInfo(s Token) (i unix.TCPInfo) {
	h.t.Helper()
	b := make([]byte, 1024)
	n, err := h.GetSockOpt(s, IPPROTO_TCP, TCP_INFO, b)
	require.NoError(h.t, err)
	require.LessOrEqual(h.t, n, int(unsafe.Sizeof(i)))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&i)), unsafe.Sizeof(i)), b[:n])
	return i
}

// inflight waits until so many segments of s are on their way, and so many bytes not sent.
func (h *host) inflight(s Token, segments, unsent uint32) {
	h.t.Helper()
	var i unix.TCPInfo
	eventually(h.t, "segments leave", func() bool { i = h.tcpInfo(s); return i.Unacked >= segments })
	require.Equal(h.t, []uint32{segments, unsent}, []uint32{i.Unacked, i.Notsent_bytes})
}

// took is how long try takes.
func took(try func()) time.Duration {
	start := time.Now()
	try()
	return time.Since(start)
}

// fastest is the shortest of some tries.
func fastest(try func()) time.Duration { return min(took(try), took(try), took(try), took(try)) }

var streamOptionRows = []row{
	{"SetSockOpt", "streams: booleans are off or on", func(t *testing.T, w *world) {
		client, _ := w.pair()
		for _, s := range []Token{w.near.tcp(), client} {
			for _, o := range [][2]int{
				{SOL_SOCKET, SO_NONBLOCK}, {SOL_SOCKET, SO_DEBUG}, {SOL_SOCKET, SO_REUSEADDR}, {SOL_SOCKET, SO_KEEPALIVE},
				{IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_CORK}, {IPPROTO_TCP, TCP_QUICKACK},
			} {
				for _, want := range []int{0, 1, 0} {
					w.near.setOpt(s, o[0], o[1], want*7)
					v, err := w.near.GetSockOptInt(s, o[0], o[1])
					require.NoError(t, err)
					require.Equal(t, want, v, o)
				}
			}
		}
	}},
	{"SetSockOpt", "streams: integers keep their value, before the connection and during it", func(t *testing.T, w *world) {
		client, _ := w.pair()
		for _, s := range []Token{w.near.tcp(), client} {
			for _, o := range []struct{ level, opt, value int }{
				{SOL_SOCKET, SO_RCVBUF, 1 << 18}, {SOL_SOCKET, SO_SNDBUF, 1 << 18}, {IPPROTO_IP, IP_TTL, 3}, {IPPROTO_IP, IP_TOS, 0xB8},
				{IPPROTO_TCP, TCP_KEEPIDLE, 7}, {IPPROTO_TCP, TCP_KEEPINTVL, 8}, {IPPROTO_TCP, TCP_KEEPCNT, 9}, {IPPROTO_TCP, TCP_USER_TIMEOUT, 1234},
			} {
				require.NoError(t, w.near.SetSockOpt(s, o.level, o.opt, int4(int32(o.value))))
				v, err := w.near.GetSockOptInt(s, o.level, o.opt)
				require.NoError(t, err)
				require.Equal(t, o.value, v, o)
			}
		}
	}},
	{"SetSockOpt", "streams: numbers of keep-alive begin as the stack's", func(t *testing.T, w *world) {
		for opt, want := range map[int]int{TCP_KEEPIDLE: 7200, TCP_KEEPINTVL: 75, TCP_KEEPCNT: 9} {
			v, err := w.near.GetSockOptInt(w.near.tcp(), IPPROTO_TCP, opt)
			require.NoError(t, err)
			require.Equal(t, want, v)
		}
	}},
	{"SetSockOpt", "streams: values out of range are EINVAL", func(t *testing.T, w *world) {
		s := w.near.tcp()
		for _, o := range []struct{ level, opt, value int }{
			{IPPROTO_TCP, TCP_MAXSEG, 0}, {IPPROTO_TCP, TCP_MAXSEG, 47}, {IPPROTO_TCP, TCP_MAXSEG, 65496}, {IPPROTO_TCP, TCP_MAXSEG, -1},
			{IPPROTO_TCP, TCP_KEEPIDLE, 0}, {IPPROTO_TCP, TCP_KEEPIDLE, 32768}, {IPPROTO_TCP, TCP_KEEPINTVL, 0},
			{IPPROTO_TCP, TCP_KEEPINTVL, 32768}, {IPPROTO_TCP, TCP_KEEPCNT, 0}, {IPPROTO_TCP, TCP_KEEPCNT, 128},
			{IPPROTO_TCP, TCP_USER_TIMEOUT, -1}, {IPPROTO_IP, IP_TTL, 0}, {IPPROTO_IP, IP_TTL, 256}, {IPPROTO_IP, IP_TOS, 256},
		} {
			require.ErrorIs(t, w.near.SetSockOptInt(s, o.level, o.opt, o.value), EINVAL, o)
		}
		require.ErrorIs(t, w.near.SetSockOpt(s, SOL_SOCKET, SO_LINGER, int4(1)), EINVAL, "8 bytes are wanted")
		w.near.bind(s, any0)
		require.ErrorIs(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_REUSEPORT, 1), EINVAL, "the socket is bound")
	}},
	{"SetSockOpt", "an option of the other kind of socket is ENOPROTOOPT", func(t *testing.T, w *world) {
		require.ErrorIs(t, w.near.SetSockOptInt(w.near.tcp(), SOL_SOCKET, SO_BROADCAST, 1), ENOPROTOOPT)
		for _, opt := range []int{TCP_NODELAY, TCP_CORK, TCP_QUICKACK, TCP_MAXSEG, TCP_KEEPIDLE, TCP_CONGESTION, TCP_INFO} {
			require.ErrorIs(t, w.near.SetSockOpt(w.near.udp(), IPPROTO_TCP, opt, make([]byte, 256)), ENOPROTOOPT)
			_, err := w.near.GetSockOpt(w.near.udp(), IPPROTO_TCP, opt, make([]byte, 256))
			require.ErrorIs(t, err, ENOPROTOOPT)
		}
		require.ErrorIs(t, w.near.SetSockOpt(w.near.tcp(), IPPROTO_TCP, TCP_INFO, make([]byte, 256)), ENOPROTOOPT, "it can only be got")
	}},
	{"SetSockOpt", "TCP_NODELAY lets a small segment leave though another is not acknowledged", func(t *testing.T, w *world) {
		client, _ := w.pair()
		w.cut()
		w.near.says(client, "a")
		w.near.inflight(client, 1, 0)
		w.near.says(client, "b")
		w.near.inflight(client, 1, 1)
		w.near.setOpt(client, IPPROTO_TCP, TCP_NODELAY, 1)
		w.near.inflight(client, 2, 0)
	}},
	{"SetSockOpt", "TCP_NODELAY is set before the connection, and on a listener for its accept sockets", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		w.far.setOpt(l, IPPROTO_TCP, TCP_NODELAY, 1)
		s := w.near.tcp()
		w.near.setOpt(s, IPPROTO_TCP, TCP_NODELAY, 1)
		require.NoError(t, w.near.Connect(s, addr))
		accepted, _ := w.far.accepts(l)
		v, err := w.far.GetSockOptInt(accepted, IPPROTO_TCP, TCP_NODELAY)
		require.NoError(t, err)
		require.Equal(t, 1, v)
		w.cut()
		for _, end := range []struct {
			h *host
			s Token
		}{{w.near, s}, {w.far, accepted}} {
			end.h.says(end.s, "a")
			end.h.inflight(end.s, 1, 0)
			end.h.says(end.s, "b")
			end.h.inflight(end.s, 2, 0)
		}
	}},
	{"SetSockOpt", "TCP_CORK holds back what is not a full segment, for 200 ms or until it is off", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.setOpt(client, IPPROTO_TCP, TCP_CORK, 1)
		start := time.Now()
		w.near.says(client, "corked")
		w.far.reads(accepted, "corked")
		require.GreaterOrEqual(t, time.Since(start), 190*time.Millisecond)
		require.Less(t, fastest(func() {
			w.near.setOpt(client, IPPROTO_TCP, TCP_CORK, 1)
			w.near.says(client, "out")
			w.near.setOpt(client, IPPROTO_TCP, TCP_CORK, 0)
			w.far.reads(accepted, "out")
		}), 150*time.Millisecond)
	}},
	{"SetSockOpt", "TCP_QUICKACK acknowledges at once what else waits for 40 ms", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		for range 20 { // beyond the segments that a new connection acknowledges at once
			w.near.says(client, "x")
			w.far.reads(accepted, "x")
			w.far.says(accepted, "x")
			w.near.reads(client, "x")
		}
		// The second of two small segments waits for the first one's ACK (Nagle).
		twice := func() {
			w.near.says(client, "a")
			w.far.reads(accepted, "a")
			w.near.says(client, "b")
			w.far.reads(accepted, "b")
		}
		w.far.setOpt(accepted, IPPROTO_TCP, TCP_QUICKACK, 1)
		require.Less(t, fastest(twice), 30*time.Millisecond)
		w.far.setOpt(accepted, IPPROTO_TCP, TCP_QUICKACK, 0)
		eventually(t, "an ACK waits", func() bool { return took(twice) > 30*time.Millisecond })
	}},
	{"SetSockOpt", "TCP_MAXSEG bounds the segments of both ends", func(t *testing.T, w *world) {
		l, addr := w.far.listener(1)
		s := w.near.tcp()
		v, err := w.near.GetSockOptInt(s, IPPROTO_TCP, TCP_MAXSEG)
		require.NoError(t, err)
		require.Equal(t, 536, v, "before the connection, as on Linux")
		w.near.setOpt(s, IPPROTO_TCP, TCP_MAXSEG, 500)
		require.NoError(t, w.near.Connect(s, addr))
		accepted, _ := w.far.accepts(l)
		const timestamps = 12
		require.Equal(t, uint32(500-timestamps), w.near.tcpInfo(s).Snd_mss)
		require.Equal(t, uint32(500-timestamps), w.far.tcpInfo(accepted).Snd_mss)
		w.near.setOpt(s, IPPROTO_TCP, TCP_MAXSEG, 300)
		require.Equal(t, uint32(300-timestamps), w.near.tcpInfo(s).Snd_mss)
		_, addr = w.far.listener(1)
		other := w.near.dial(addr)
		require.Equal(t, uint32(1460-timestamps), w.near.tcpInfo(other).Snd_mss)
	}},
	{"SetSockOpt", "SO_KEEPALIVE finds out that a silent peer is gone", func(t *testing.T, w *world) {
		client, _ := w.pair()
		for _, opt := range []int{TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT} {
			w.near.setOpt(client, IPPROTO_TCP, opt, 1)
		}
		w.near.setOpt(client, SOL_SOCKET, SO_KEEPALIVE, 1)
		w.cut()
		w.near.fails(client, ETIMEDOUT)
	}},
	{"SetSockOpt", "SO_LINGER is a struct linger, and is off at first", func(t *testing.T, w *world) {
		s := w.near.tcp()
		for _, want := range [][]byte{linger(0, 0), linger(1, 0), linger(1, 7), linger(0, 0)} {
			require.NoError(t, w.near.SetSockOpt(s, SOL_SOCKET, SO_LINGER, want))
			got := make([]byte, 8)
			n, err := w.near.GetSockOpt(s, SOL_SOCKET, SO_LINGER, got)
			require.NoError(t, err)
			require.Equal(t, want, got[:n])
		}
		require.ErrorIs(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_LINGER, 1), EINVAL)
	}},
	{"SetSockOpt", "SO_LINGER without a time resets at once, and what was written is lost", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.stuff(client)
		w.near.resets(client)
		except, limit := set(accepted), patience
		n, err := w.far.Select(1<<62, nil, nil, except, &limit)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, int(ECONNRESET), w.far.soError(accepted))
	}},
	{"SetSockOpt", "SO_LINGER with a time makes CloseSocket wait until the peer has all", func(t *testing.T, w *world) {
		client, accepted := w.narrow()
		n := w.near.stuff(client)
		require.NoError(t, w.near.SetSockOpt(client, SOL_SOCKET, SO_LINGER, linger(1, 20)))
		closed := make(chan error, 1)
		go func() { closed <- w.near.CloseSocket(client) }()
		blocked(t, "CloseSocket", 1)
		wantEBADF(t, w.near, client)
		w.far.reads(accepted, string(make([]byte, n)))
		require.NoError(t, <-closed)
		w.far.ends(accepted)
	}},
	{"SetSockOpt", "SO_LINGER resets what is left when the time is over", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.stuff(client)
		require.NoError(t, w.near.SetSockOpt(client, SOL_SOCKET, SO_LINGER, linger(1, 1)))
		start := time.Now()
		require.NoError(t, w.near.CloseSocket(client))
		require.GreaterOrEqual(t, time.Since(start), time.Second)
		except, limit := set(accepted), patience
		n, err := w.far.Select(1<<62, nil, nil, except, &limit)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, int(ECONNRESET), w.far.soError(accepted))
	}},
	{"SetSockOpt", "SO_LINGER leaves calls that block on the socket nothing to wait for: EINTR", func(t *testing.T, w *world) {
		client, accepted := w.narrow()
		n := w.near.stuff(client)
		require.NoError(t, w.near.SetSockOpt(client, SOL_SOCKET, SO_LINGER, linger(1, 20)))
		closed, errs := make(chan error, 1), make(chan error, 1)
		go func() { errs <- would["Recv"](w.near, client, 0) }()
		blocked(t, "Recv", 1)
		go func() { closed <- w.near.CloseSocket(client) }()
		require.ErrorIs(t, <-errs, EINTR)
		require.Empty(t, closed, "it waits")
		w.far.reads(accepted, string(make([]byte, n)))
		require.NoError(t, <-closed)
	}},
	{"SetSockOpt", "SO_RCVBUF and SO_SNDBUF bound what waits on the way", func(t *testing.T, w *world) {
		const size = 16 << 10
		l, addr := w.far.listener(1)
		w.far.setOpt(l, SOL_SOCKET, SO_RCVBUF, size)
		s := w.near.tcp()
		w.near.setOpt(s, SOL_SOCKET, SO_SNDBUF, size)
		require.NoError(t, w.near.Connect(s, addr))
		accepted, _ := w.far.accepts(l)
		n := w.near.stuff(s)
		require.LessOrEqual(t, n, 2*size)
		require.Greater(t, n, size)
		require.Equal(t, []int{size, size}, []int{w.far.opt(accepted, SOL_SOCKET, SO_RCVBUF), w.near.opt(s, SOL_SOCKET, SO_SNDBUF)})
		w.near.setOpt(s, SOL_SOCKET, SO_SNDBUF, 4*size)
		require.Greater(t, w.near.stuff(s), 2*size, "more room, at once")
	}},
	{"SetSockOpt", "TCP_CONGESTION takes the name of a congestion control", func(t *testing.T, w *world) {
		client, _ := w.pair()
		for _, s := range []Token{w.near.tcp(), client} {
			name := make([]byte, 16)
			for _, c := range [][2]string{{"", "cubic"}, {"newreno", "newreno"}, {"cubic\x00rest", "cubic"}, {"reno", "newreno"}} {
				if c[0] != "" {
					require.NoError(t, w.near.SetSockOpt(s, IPPROTO_TCP, TCP_CONGESTION, []byte(c[0])))
				}
				n, err := w.near.GetSockOpt(s, IPPROTO_TCP, TCP_CONGESTION, name)
				require.NoError(t, err)
				require.Equal(t, c[1], unix.ByteSliceToString(name[:n]))
			}
			require.ErrorIs(t, w.near.SetSockOpt(s, IPPROTO_TCP, TCP_CONGESTION, []byte("vegas")), ENOENT)
			require.ErrorIs(t, w.near.SetSockOptInt(s, IPPROTO_TCP, TCP_CONGESTION, 1), EINVAL)
		}
	}},
	{"SetSockOpt", "IP_TOS keeps off the two bits that are TCP's", func(t *testing.T, w *world) {
		s := w.near.tcp()
		w.near.setOpt(s, IPPROTO_IP, IP_TOS, 0xBB)
		require.Equal(t, 0xB8, w.near.opt(s, IPPROTO_IP, IP_TOS))
	}},
	{"SetSockOpt", "SO_REUSEPORT lets two listeners share a port, and each client goes to one of them", func(t *testing.T, w *world) {
		a, b := w.far.tcp(), w.far.tcp()
		for _, s := range []Token{a, b} {
			w.far.setOpt(s, SOL_SOCKET, SO_REUSEPORT, 1)
		}
		addr := w.far.bind(a, any0)
		w.far.bind(b, addr)
		require.NoError(t, w.far.Listen(a, 100))
		require.NoError(t, w.far.Listen(b, 100))
		for range 60 {
			w.near.says(w.near.dial(addr), "x")
		}
		got := map[Token]int{}
		for got[a]+got[b] < 60 {
			read, limit := set(a, b), patience
			n, err := w.far.Select(read.Range(), read, nil, nil, &limit)
			require.NoError(t, err)
			require.Positive(t, n)
			for s := range read.All() {
				w.far.accepts(s)
				got[s]++
			}
		}
		require.Positive(t, got[a])
		require.Positive(t, got[b])
	}},
	{"GetSockOpt", "TCP_INFO has the layout of <linux/tcp.h>", func(t *testing.T, w *world) {
		client, accepted := w.pair()
		w.near.says(client, "question")
		w.far.reads(accepted, "question")
		w.far.says(accepted, "the answer")
		w.near.reads(client, "the answer")
		near, far := w.near.tcpInfo(client), w.far.tcpInfo(accepted)
		for _, i := range []unix.TCPInfo{near, far} {
			const established, timestamps, sack, scale = 1, 1, 2, 4
			require.EqualValues(t, established, i.State)
			require.EqualValues(t, timestamps|sack|scale, i.Options&7)
			require.EqualValues(t, 1448, i.Snd_mss)
			require.EqualValues(t, 1500, i.Pmtu)
			require.EqualValues(t, 10, i.Snd_cwnd&^1, "10, and the ACK of a segment made it 11")
			require.EqualValues(t, 1<<30, i.Snd_ssthresh)
			require.Zero(t, []uint32{i.Lost, i.Retrans, i.Total_retrans, i.Notsent_bytes}[0])
			require.Positive(t, i.Rtt)
			require.Less(t, i.Rtt, uint32(10_000_000))
			require.GreaterOrEqual(t, i.Rto, uint32(200_000))
			require.Less(t, i.Last_data_recv, uint32(20_000))
			require.GreaterOrEqual(t, i.Segs_out, uint32(2))
			require.GreaterOrEqual(t, i.Segs_in, uint32(2))
			require.Positive(t, i.Rcv_space)
			require.Positive(t, i.Snd_wnd)
			require.Equal(t, ^uint64(0), i.Max_pacing_rate)
		}
		require.EqualValues(t, len("the answer"), near.Bytes_received)
		require.EqualValues(t, len("question"), far.Bytes_received)
		require.EqualValues(t, len("question"), near.Bytes_acked)
		b := make([]byte, 1024)
		n, err := w.near.GetSockOpt(client, IPPROTO_TCP, TCP_INFO, b)
		require.NoError(t, err)
		const sndScale, rcvScale = 0xF, 4
		require.NotZero(t, b[6]&sndScale)
		require.NotZero(t, b[6]>>rcvScale)
		require.Equal(t, near.Snd_mss, binary.NativeEndian.Uint32(b[unsafe.Offsetof(near.Snd_mss):]))
		short := make([]byte, 104)
		m, err := w.near.GetSockOpt(client, IPPROTO_TCP, TCP_INFO, short)
		require.NoError(t, err)
		require.Equal(t, []int{232, 104}, []int{n, m}, "a program that knows less of it gets what it has room for")
		require.Equal(t, b[8:24], short[8:24])
	}},
	{"GetSockOpt", "TCP_INFO tells what is in flight and lost", func(t *testing.T, w *world) {
		client, _ := w.pair()
		w.cut()
		w.near.says(client, "lost")
		eventually(t, "it is sent again", func() bool {
			i := w.near.tcpInfo(client)
			const loss = 4
			return i.Total_retrans > 0 && i.Unacked == 1 && i.Ca_state == loss && i.Retransmits > 0 && i.Backoff > 0
		})
	}},
}

// opt is an integer option.
func (h *host) opt(s Token, level, opt int) int {
	h.t.Helper()
	v, err := h.GetSockOptInt(s, level, opt)
	require.NoError(h.t, err)
	return v
}
