package socketapi_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

var sendRows = []row{
	{"Send", "a socket that is not connected is ENOTCONN", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		_, err := w.near.Send(s, []byte("x"), 0)
		require.ErrorIs(t, err, ENOTCONN)
	}},
	{"SendTo", "a message arrives whole, with its sender", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		s, local := w.near.receiver()
		w.near.sends(s, "hello", addr)
		require.Equal(t, local, w.far.hears(far, "hello"))
	}},
	{"SendTo", "an empty message arrives too", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		w.near.sends(w.near.udp(), "", addr)
		w.far.hears(far, "")
	}},
	{"SendTo", "a message longer than a frame arrives whole", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		long := strings.Repeat("0123456789", 6000)
		w.near.sends(w.near.udp(), long, addr)
		w.far.hears(far, long)
	}},
	{"SendTo", "an unbound sender is bound on first use", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		s := w.near.udp()
		w.near.sends(s, "x", addr)
		name, err := w.near.GetSockName(s)
		require.NoError(t, err)
		require.Equal(t, w.near.cards[0], name.Addr())
		require.Equal(t, name, w.far.hears(far, "x"))
		w.far.sends(far, "back", name)
		require.Equal(t, addr, w.near.hears(s, "back"))
	}},
	{"SendTo", "may be mixed with Send on a connected socket", func(t *testing.T, w *world) {
		peer, peerAddr := w.far.receiver()
		third, thirdAddr := w.far.receiver()
		s, _ := w.near.connected(peerAddr)
		w.near.sends(s, "aside", thirdAddr)
		_, err := w.near.Send(s, []byte("to the peer"), 0)
		require.NoError(t, err)
		w.far.hears(third, "aside")
		w.far.hears(peer, "to the peer")
	}},
	{"SendTo", "INADDR_BROADCAST goes out on every interface", func(t *testing.T, w *world) {
		var ears []Token
		for _, ip := range w.far.cards {
			ear := w.far.udp()
			w.far.bind(ear, netip.AddrPortFrom(ip, 7))
			ears = append(ears, ear)
		}
		s := w.near.udp()
		w.near.sends(s, "all", netip.AddrPortFrom(INADDR_BROADCAST, 7))
		for i, ear := range ears {
			from := w.far.hears(ear, "all")
			require.Equal(t, w.near.cards[i], from.Addr(), "the source is the address of the card that it went out on")
		}
	}},
	{"SendTo", "INADDR_BROADCAST goes out on every interface from a bound socket too", func(t *testing.T, w *world) {
		ear := w.far.udp()
		w.far.bind(ear, netip.AddrPortFrom(w.far.cards[1], 7))
		s, _ := w.near.receiver()
		w.near.sends(s, "all", netip.AddrPortFrom(INADDR_BROADCAST, 7))
		w.far.hears(ear, "all")
	}},
	{"SendTo", "a broadcast after SO_BROADCAST was switched off is EACCES", func(t *testing.T, w *world) {
		s := w.near.udp()
		require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_BROADCAST, 0))
		_, err := w.near.SendTo(s, []byte("x"), 0, netip.AddrPortFrom(INADDR_BROADCAST, 7))
		require.ErrorIs(t, err, EACCES)
	}},
	{"SendTo", "a message longer than a packet can be is EMSGSIZE", func(t *testing.T, w *world) {
		_, addr := w.far.receiver()
		s := w.near.udp()
		_, err := w.near.SendTo(s, make([]byte, 65508), 0, addr)
		require.ErrorIs(t, err, EMSGSIZE)
		require.NoError(t, w.near.Connect(s, addr))
		_, err = w.near.Send(s, make([]byte, 65508), 0)
		require.ErrorIs(t, err, EMSGSIZE)
	}},
	{"SendTo", "the longest message arrives", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		longest := strings.Repeat("x", 65507)
		w.near.sends(w.near.udp(), longest, addr)
		w.far.hears(far, longest)
	}},
	{"SendTo", "no route is ENETUNREACH", func(t *testing.T, w *world) {
		_, err := w.near.SendTo(w.near.udp(), []byte("x"), 0, nowhere)
		require.ErrorIs(t, err, ENETUNREACH)
	}},
	{"SendTo", "no address is EDESTADDRREQ", func(t *testing.T, w *world) {
		_, err := w.near.SendTo(w.near.udp(), []byte("x"), 0, netip.AddrPort{})
		require.ErrorIs(t, err, EDESTADDRREQ)
	}},
	{"SendTo", "an IPv6 address is EAFNOSUPPORT", func(t *testing.T, w *world) {
		_, err := w.near.SendTo(w.near.udp(), []byte("x"), 0, netip.MustParseAddrPort("[::1]:7"))
		require.ErrorIs(t, err, EAFNOSUPPORT)
	}},
	{"SendTo", "an IPv4 address mapped into IPv6 is the IPv4 address", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		w.near.sends(w.near.udp(), "x", netip.AddrPortFrom(netip.AddrFrom16(addr.Addr().As16()), addr.Port()))
		w.far.hears(far, "x")
	}},
	{"SendTo", "reaches the sender's own machine, by its address and by the loopback's", func(t *testing.T, w *world) {
		for _, ip := range []netip.Addr{w.near.cards[0], INADDR_LOOPBACK} {
			ear := w.near.udp()
			addr := w.near.bind(ear, netip.AddrPortFrom(ip, 0))
			w.near.sends(w.near.udp(), "self", addr)
			w.near.hears(ear, "self")
		}
	}},
	{"Send", "a flag that it does not take is EOPNOTSUPP", func(t *testing.T, w *world) {
		s, _ := w.near.connected(netip.AddrPortFrom(w.far.cards[0], 9))
		_, err := w.near.Send(s, nil, MSG_TRUNC)
		require.ErrorIs(t, err, EOPNOTSUPP)
		_, err = w.near.SendTo(s, nil, 1, netip.AddrPortFrom(w.far.cards[0], 9))
		require.ErrorIs(t, err, EOPNOTSUPP)
	}},
}

var receiveRows = []row{
	{"Recv", "a socket that is not connected is ENOTCONN", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		_, err := w.near.Recv(s, make([]byte, 1), MSG_DONTWAIT)
		require.ErrorIs(t, err, ENOTCONN)
	}},
	{"Recv", "messages keep their bounds and their order", func(t *testing.T, w *world) {
		far, peer := w.far.receiver()
		s, local := w.near.connected(peer)
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, patience))
		texts := []string{"one", "", "three"}
		for _, text := range texts {
			w.far.sends(far, text, local)
		}
		buf := make([]byte, 100)
		for _, text := range texts {
			n, err := w.near.Recv(s, buf, 0)
			require.NoError(t, err)
			require.Equal(t, text, string(buf[:n]))
		}
	}},
	{"Recv", "may be mixed with RecvFrom on a connected socket", func(t *testing.T, w *world) {
		far, peer := w.far.receiver()
		s, local := w.near.connected(peer)
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, patience))
		w.far.sends(far, "one", local)
		w.far.sends(far, "two", local)
		require.Equal(t, peer, w.near.hears(s, "one"))
		buf := make([]byte, 100)
		n, err := w.near.Recv(s, buf, 0)
		require.NoError(t, err)
		require.Equal(t, "two", string(buf[:n]))
	}},
	{"RecvFrom", "what does not fit into buf is gone", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		sender := w.near.udp()
		w.near.sends(sender, "0123456789", addr)
		w.near.sends(sender, "next", addr)
		buf := bytes.Repeat([]byte{'-'}, 6)
		n, _, err := w.near.RecvFrom(s, buf[:4], 0)
		require.NoError(t, err)
		require.Equal(t, 4, n)
		require.Equal(t, "0123--", string(buf))
		w.near.hears(s, "next")
	}},
	{"RecvFrom", "MSG_TRUNC returns the length of the whole message", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		w.near.sends(w.near.udp(), "0123456789", addr)
		buf := make([]byte, 4)
		n, _, err := w.near.RecvFrom(s, buf, MSG_TRUNC)
		require.NoError(t, err)
		require.Equal(t, 10, n)
		require.Equal(t, "0123", string(buf))
	}},
	{"RecvFrom", "no buffer takes the message and drops it", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		w.near.sends(w.near.udp(), "x", addr)
		n, from, err := w.near.RecvFrom(s, nil, 0)
		require.NoError(t, err)
		require.Zero(t, n)
		require.True(t, from.IsValid())
		w.near.silent(s, "it was taken")
	}},
	{"RecvFrom", "a flag that it does not take is EOPNOTSUPP", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		_, _, err := w.near.RecvFrom(s, nil, 1)
		require.ErrorIs(t, err, EOPNOTSUPP)
	}},
}

// would are the calls that block on a socket without messages.
var would = map[string]func(k calls, s Token, flags int) error{
	"Recv": func(k calls, s Token, flags int) error { _, err := k.Recv(s, make([]byte, 9), flags); return err },
	"RecvFrom": func(k calls, s Token, flags int) error {
		_, _, err := k.RecvFrom(s, make([]byte, 9), flags)
		return err
	},
	"ReadBatch": func(k calls, s Token, flags int) error { _, err := k.ReadBatch(s, messages(3), flags); return err },
}

var blockRows = []row{
	{"Recv", "a non-blocking socket without a message is EWOULDBLOCK", func(t *testing.T, w *world) {
		s, _ := w.near.connected(netip.AddrPortFrom(w.far.cards[0], 9))
		w.near.nonBlocking(s)
		for name, call := range would {
			require.ErrorIs(t, call(w.near, s, 0), EWOULDBLOCK, name)
		}
		require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_NONBLOCK, 0))
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, time.Millisecond))
		start := time.Now()
		require.ErrorIs(t, would["Recv"](w.near, s, 0), EWOULDBLOCK)
		require.GreaterOrEqual(t, time.Since(start), time.Millisecond, "it blocks again")
	}},
	{"Recv", "MSG_DONTWAIT is EWOULDBLOCK for that call alone", func(t *testing.T, w *world) {
		far, peer := w.far.receiver()
		s, local := w.near.connected(peer)
		for name, call := range would {
			require.ErrorIs(t, call(w.near, s, MSG_DONTWAIT), EWOULDBLOCK, name)
		}
		done := make(chan error)
		go func() { done <- would["Recv"](w.near, s, 0) }()
		blocked(t, "Recv", 1)
		w.far.sends(far, "x", local)
		require.NoError(t, <-done)
	}},
	{"Recv", "SO_RCVTIMEO is EWOULDBLOCK when it is over, and not before", func(t *testing.T, w *world) {
		s, _ := w.near.connected(netip.AddrPortFrom(w.far.cards[0], 9))
		const limit = 20 * time.Millisecond
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, limit))
		for name, call := range would {
			start := time.Now()
			require.ErrorIs(t, call(w.near, s, 0), EWOULDBLOCK, name)
			require.GreaterOrEqual(t, time.Since(start), limit, name)
		}
	}},
	{"RecvFrom", "blocks until a message comes", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		got := make(chan string)
		go func() {
			buf := make([]byte, 100)
			n, _, err := w.near.RecvFrom(s, buf, 0)
			got <- string(buf[:n]) + errText(err)
		}()
		blocked(t, "RecvFrom", 1)
		w.far.sends(w.far.udp(), "at last", addr)
		require.Equal(t, "at last", <-got)
	}},
	{"RecvFrom", "blocks on a socket that is not bound yet, too", func(t *testing.T, w *world) {
		s := w.near.udp()
		got := make(chan string)
		go func() {
			buf := make([]byte, 100)
			n, _, err := w.near.RecvFrom(s, buf, 0)
			got <- string(buf[:n]) + errText(err)
		}()
		blocked(t, "RecvFrom", 1)
		w.far.sends(w.far.udp(), "at last", w.near.bind(s, any0))
		require.Equal(t, "at last", <-got)
	}},
	{"RecvFrom", "many goroutines wait on one socket, and each message goes to one of them", func(t *testing.T, w *world) {
		const readers = 16
		s, addr := w.near.receiver()
		got := make(chan string)
		for range readers {
			go func() {
				buf := make([]byte, 100)
				n, _, err := w.near.RecvFrom(s, buf, 0)
				got <- string(buf[:n]) + errText(err)
			}()
		}
		blocked(t, "RecvFrom", readers)
		sender := w.far.udp()
		want := map[string]int{}
		for i := range readers {
			text := strings.Repeat("x", i)
			want[text]++
			w.far.sends(sender, text, addr)
		}
		for range readers {
			want[<-got]--
		}
		for text, n := range want {
			require.Zero(t, n, "%q", text)
		}
		w.near.silent(s, "all were taken")
	}},
	{"Recv", "an error that comes meanwhile ends the wait", func(t *testing.T, w *world) {
		s, _ := w.near.connected(netip.AddrPortFrom(w.far.cards[0], 9))
		done := make(chan error)
		go func() { done <- would["Recv"](w.near, s, 0) }()
		blocked(t, "Recv", 1)
		_, err := w.near.Send(s, []byte("anybody?"), 0)
		require.NoError(t, err)
		require.ErrorIs(t, <-done, ECONNREFUSED)
	}},
}

func errText(err error) string {
	if err != nil {
		return " " + err.Error()
	}
	return ""
}

// interrupted wants unblock to end a call, which n goroutines make, with EINTR.
func interrupted(t *testing.T, name string, n int, call, unblock func() error) {
	t.Helper()
	errs := make(chan error)
	for range n {
		go func() { errs <- call() }()
	}
	blocked(t, name, n)
	require.NoError(t, unblock())
	for range n {
		require.ErrorIs(t, <-errs, EINTR)
	}
	require.ErrorIs(t, call(), EBADF, "the next call finds no socket")
}

// interruptsReceive wants a close of s to end n receiving calls with EINTR.
func (w *world) interruptsReceive(t *testing.T, name string, n int, s Token) {
	t.Helper()
	interrupted(t, name, n,
		func() error { return would[name](w.near, s, 0) },
		func() error { return w.near.CloseSocket(s) })
}

var interruptRows = []row{
	{"Recv", "a close from another goroutine is EINTR", func(t *testing.T, w *world) {
		s, _ := w.near.connected(netip.AddrPortFrom(w.far.cards[0], 9))
		w.interruptsReceive(t, "Recv", 1, s)
	}},
	{"RecvFrom", "a close from another goroutine is EINTR for all who wait", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		w.interruptsReceive(t, "RecvFrom", 8, s)
	}},
	{"RecvFrom", "a close is EINTR before the time is up", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, time.Hour))
		w.interruptsReceive(t, "RecvFrom", 1, s)
	}},
	{"RecvFrom", "a close is EINTR on a socket that was never bound", func(t *testing.T, w *world) {
		w.interruptsReceive(t, "RecvFrom", 1, w.near.udp())
	}},
	{"ReadBatch", "a close from another goroutine is EINTR", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		w.interruptsReceive(t, "ReadBatch", 1, s)
	}},
	{"Close", "closing the program's Kit is EINTR for calls in progress", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		interrupted(t, "RecvFrom", 2, func() error { return would["RecvFrom"](w.near, s, 0) }, w.near.Close)
	}},
	{"Recv", "a new socket in the old one's slot is not disturbed", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		w.interruptsReceive(t, "RecvFrom", 1, s)
		again, addr := w.near.receiver()
		w.near.sends(w.near.udp(), "x", addr)
		w.near.hears(again, "x")
	}},
}

// fill writes to addr without blocking until the send buffer is full, and returns how many messages it took.
func (h *host) fill(s Token, addr netip.AddrPort) int {
	h.t.Helper()
	require.NoError(h.t, h.SetSockOptInt(s, SOL_SOCKET, SO_SNDBUF, 4096))
	for n := 0; ; n++ {
		_, err := h.SendTo(s, make([]byte, 512), MSG_DONTWAIT, addr)
		if err != nil {
			require.ErrorIs(h.t, err, EWOULDBLOCK)
			return n
		}
		require.Less(h.t, n, 10000, "the send buffer never fills")
	}
}

// stillRows run in a world where near sends nothing before near.start, so that its send buffers fill.
var stillRows = []row{
	{"SendTo", "a full send buffer is EWOULDBLOCK on a non-blocking socket and with MSG_DONTWAIT", func(t *testing.T, w *world) {
		_, addr := w.far.receiver()
		s := w.near.udp()
		require.Positive(t, w.near.fill(s, addr))
		w.near.nonBlocking(s)
		_, err := w.near.SendTo(s, make([]byte, 512), 0, addr)
		require.ErrorIs(t, err, EWOULDBLOCK)
	}},
	{"SendTo", "blocks until there is room, and then all arrives", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		s := w.near.udp()
		n := w.near.fill(s, addr)
		done := make(chan error)
		go func() {
			_, err := w.near.SendTo(s, make([]byte, 512), 0, addr)
			done <- err
		}()
		blocked(t, "SendTo", 1)
		w.near.start()
		require.NoError(t, <-done)
		for range n + 1 {
			w.far.hears(far, string(make([]byte, 512)))
		}
	}},
	{"SendTo", "SO_SNDTIMEO is EWOULDBLOCK when it is over, and not before", func(t *testing.T, w *world) {
		_, addr := w.far.receiver()
		s := w.near.udp()
		w.near.fill(s, addr)
		const limit = 20 * time.Millisecond
		require.NoError(t, w.near.SetTimeout(s, SO_SNDTIMEO, limit))
		start := time.Now()
		_, err := w.near.SendTo(s, make([]byte, 512), 0, addr)
		require.ErrorIs(t, err, EWOULDBLOCK)
		require.GreaterOrEqual(t, time.Since(start), limit)
	}},
	{"SendTo", "a close from another goroutine is EINTR", func(t *testing.T, w *world) {
		_, addr := w.far.receiver()
		s := w.near.udp()
		w.near.fill(s, addr)
		interrupted(t, "SendTo", 3, func() error {
			_, err := w.near.SendTo(s, make([]byte, 512), 0, addr)
			return err
		}, func() error { return w.near.CloseSocket(s) })
	}},
	{"Select", "write waits for room", func(t *testing.T, w *world) {
		_, addr := w.far.receiver()
		s := w.near.udp()
		var write FdSet
		write.Set(s)
		n, err := w.near.Select(write.Range(), nil, &write, nil, nil)
		require.NoError(t, err)
		require.Equal(t, 1, n, "an empty send buffer has room")
		w.near.fill(s, addr)
		none := time.Duration(0)
		n, err = w.near.Select(write.Range(), nil, &write, nil, &none)
		require.NoError(t, err)
		require.Zero(t, n)
		require.False(t, write.IsSet(s))
		write.Set(s)
		ready := make(chan int)
		go func() {
			n, err := w.near.Select(write.Range(), nil, &write, nil, nil)
			if err != nil {
				n = -1
			}
			ready <- n
		}()
		blocked(t, "Select", 1)
		w.near.start()
		require.Equal(t, 1, <-ready)
		require.True(t, write.IsSet(s))
	}},
	{"WriteBatch", "sends what has room, and says that the next would block", func(t *testing.T, w *world) {
		_, addr := w.far.receiver()
		s := w.near.udp()
		require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_SNDBUF, 4096))
		ms := messages(10000)
		for i := range ms {
			ms[i].Addr = addr
		}
		n, err := w.near.WriteBatch(s, ms, MSG_DONTWAIT)
		require.ErrorIs(t, err, EWOULDBLOCK)
		require.Positive(t, n)
		require.Less(t, n, len(ms))
	}},
	{"WriteBatch", "blocks until all are sent", func(t *testing.T, w *world) {
		// To the machine itself: a neighbour that has yet to answer ARP would not have all of them kept.
		ear := w.near.udp()
		addr := w.near.bind(ear, netip.AddrPortFrom(INADDR_LOOPBACK, 0))
		s := w.near.udp()
		require.NoError(t, w.near.SetSockOptInt(s, SOL_SOCKET, SO_SNDBUF, 4096))
		ms := messages(500)
		for i := range ms {
			ms[i].Addr = addr
		}
		done := make(chan int)
		go func() {
			n, _ := w.near.WriteBatch(s, ms, 0)
			done <- n
		}()
		blocked(t, "WriteBatch", 1)
		w.near.start()
		require.Equal(t, len(ms), <-done)
		for range ms {
			w.near.hears(ear, string(ms[0].Buf))
		}
	}},
}
