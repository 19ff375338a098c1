package socketapi_test

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// messages makes n messages with 64 bytes of room each.
func messages(n int) []stack.Message {
	ms := make([]stack.Message, n)
	for i := range ms {
		ms[i].Buf = make([]byte, 64)
	}
	return ms
}

var batchRows = []row{
	{"WriteBatch", "each message goes to its own address, or to the peer where it has none", func(t *testing.T, w *world) {
		peer, peerAddr := w.far.receiver()
		third, thirdAddr := w.far.receiver()
		s, local := w.near.connected(peerAddr)
		n, err := w.near.WriteBatch(s, []stack.Message{
			{Buf: []byte("one")}, {Buf: []byte("aside"), Addr: thirdAddr}, {Buf: []byte("two")},
		}, 0)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		w.far.hears(peer, "one")
		w.far.hears(peer, "two")
		require.Equal(t, local, w.far.hears(third, "aside"))
	}},
	{"WriteBatch", "stops at the first message that cannot be sent, and says why", func(t *testing.T, w *world) {
		far, addr := w.far.receiver()
		s := w.near.udp()
		n, err := w.near.WriteBatch(s, []stack.Message{
			{Buf: []byte("one"), Addr: addr}, {Buf: make([]byte, 65508), Addr: addr}, {Buf: []byte("three"), Addr: addr},
		}, 0)
		require.ErrorIs(t, err, EMSGSIZE)
		require.Equal(t, 1, n)
		w.far.hears(far, "one")
		w.far.silent(far, "nothing after the failed one is sent")
	}},
	{"WriteBatch", "no address on a socket without a peer is EDESTADDRREQ", func(t *testing.T, w *world) {
		_, err := w.near.WriteBatch(w.near.udp(), messages(1), 0)
		require.ErrorIs(t, err, EDESTADDRREQ)
	}},
	{"WriteBatch", "an IPv6 address is EAFNOSUPPORT", func(t *testing.T, w *world) {
		ms := messages(1)
		ms[0].Addr = netip.MustParseAddrPort("[2001:db8::1]:7")
		_, err := w.near.WriteBatch(w.near.udp(), ms, 0)
		require.ErrorIs(t, err, EAFNOSUPPORT)
	}},
	{"WriteBatch", "no messages are nothing to send", func(t *testing.T, w *world) {
		n, err := w.near.WriteBatch(w.near.udp(), nil, 0)
		require.NoError(t, err)
		require.Zero(t, n)
	}},
	{"ReadBatch", "takes what is there, in order, and tells all about it", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		sender, from := w.far.receiver()
		for i := range 10 {
			w.far.sends(sender, strconv.Itoa(i), addr)
		}
		ms := messages(4)
		for got := 0; got < 10; {
			n, err := w.near.ReadBatch(s, ms, 0)
			require.NoError(t, err)
			require.Positive(t, n)
			for _, m := range ms[:n] {
				require.Equal(t, strconv.Itoa(got), string(m.Buf[:m.N]))
				require.Equal(t, from, m.Addr)
				require.Equal(t, addr.Addr(), m.Dst)
				require.Equal(t, uint8(64), m.TTL)
				got++
			}
		}
		w.near.silent(s, "all were taken")
	}},
	{"ReadBatch", "tells the address of a broadcast", func(t *testing.T, w *world) {
		s := w.near.udp()
		w.near.bind(s, netip.AddrPortFrom(w.near.cards[0], 7))
		w.far.sends(w.far.udp(), "x", netip.AddrPortFrom(INADDR_BROADCAST, 7))
		ms := messages(1)
		n, err := w.near.ReadBatch(s, ms, 0)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, INADDR_BROADCAST, ms[0].Dst)
	}},
	{"ReadBatch", "a message longer than its buffer is cut, and Size tells", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		w.near.sends(w.near.udp(), string(make([]byte, 100)), addr)
		ms := messages(2)
		n, err := w.near.ReadBatch(s, ms, 0)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, [2]int{64, 100}, [2]int{ms[0].N, ms[0].Size})
	}},
	{"ReadBatch", "an empty message is one message", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		w.near.sends(w.near.udp(), "", addr)
		ms := messages(2)
		n, err := w.near.ReadBatch(s, ms, 0)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Zero(t, ms[0].Size)
	}},
	{"ReadBatch", "no room is nothing to read", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		n, err := w.near.ReadBatch(s, nil, 0)
		require.NoError(t, err)
		require.Zero(t, n)
	}},
	{"ReadBatch", "a flag that it does not take is EOPNOTSUPP", func(t *testing.T, w *world) {
		s, _ := w.near.receiver()
		_, err := w.near.ReadBatch(s, messages(1), MSG_TRUNC)
		require.ErrorIs(t, err, EOPNOTSUPP)
		_, err = w.near.WriteBatch(s, messages(1), MSG_TRUNC)
		require.ErrorIs(t, err, EOPNOTSUPP)
	}},
}

var handlerRows = []row{
	{"Handle", "answers on the engine, in place of Recv", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		require.NoError(t, w.near.Handle(s, func(p *stack.Packet) {
			room := p.Room()
			n := copy(room, append([]byte("heard "), p.Payload...))
			p.Reply(n)
		}))
		client := w.far.udp()
		w.far.sends(client, "you", addr)
		require.Equal(t, addr, w.far.hears(client, "heard you"))
		w.near.silent(s, "the handler had it")
	}},
	{"Handle", "nil gives the messages back to Recv", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		require.NoError(t, w.near.Handle(s, func(*stack.Packet) {}))
		client := w.far.udp()
		w.far.sends(client, "lost", addr)
		require.NoError(t, w.near.Handle(s, nil))
		w.far.sends(client, "kept", addr)
		eventually(t, "the message after the handler must come", func() bool {
			buf := make([]byte, 10)
			n, _, err := w.near.RecvFrom(s, buf, MSG_DONTWAIT)
			return err == nil && string(buf[:n]) == "kept"
		})
	}},
	{"Handle", "may be set before the socket is bound", func(t *testing.T, w *world) {
		s := w.near.udp()
		require.NoError(t, w.near.Handle(s, func(p *stack.Packet) { p.Reply(len(p.Payload)) }))
		addr := w.near.bind(s, any0)
		client := w.far.udp()
		w.far.sends(client, "echo", addr)
		w.far.hears(client, "echo")
	}},
	{"Handle", "the handler sees sender and destination", func(t *testing.T, w *world) {
		s, addr := w.near.receiver()
		seen := make(chan [2]netip.AddrPort, 1)
		require.NoError(t, w.near.Handle(s, func(p *stack.Packet) { seen <- [2]netip.AddrPort{p.Src(), p.Dst()} }))
		client, from := w.far.receiver()
		w.far.sends(client, "x", addr)
		require.Equal(t, [2]netip.AddrPort{from, addr}, <-seen)
	}},
	{"Handle", "an ICMP socket is EOPNOTSUPP", func(t *testing.T, w *world) {
		require.ErrorIs(t, w.near.Handle(w.near.icmp(), func(*stack.Packet) {}), EOPNOTSUPP)
	}},
}
