package stack

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// RFC 1122 §3.2.1.3 (g): addresses of 127.0.0.0/8 "MUST NOT appear outside a host": what goes to one never sees a card, nor does
// what goes to an address of our own.
func TestLoopback(t *testing.T) {
	for _, c := range []struct{ server, client string }{
		{"127.0.0.1", "127.0.0.1"}, {"127.1.2.3", "127.0.0.1"}, {"127.0.0.1", "127.9.9.9"}, {"127.255.255.255", "127.0.0.1"},
		{"10.0.0.1", "10.0.0.1"},
		{"127.0.0.1", "10.0.0.1"}, {"10.0.0.1", "127.0.0.1"}, {"10.0.0.1", "127.3.3.3"}, // from one interface to another
		{"10.9.0.1", "10.0.0.1"}, {"10.0.0.1", "10.9.0.1"}, {"127.0.0.1", "10.9.0.1"},
	} {
		t.Run(c.client+" to "+c.server, func(t *testing.T) {
			h := newHost(t)
			card := addCard(h, "eth1", "10.9.0.1/24")
			server, client := h.bind(c.server+":7"), h.bind(c.client+":9")
			client.writes("hello", c.server+":7")
			m := server.wants("hello", c.client+":9")
			require.Equal(t, uint8(64), m.TTL)
			server.writes("hi", c.client+":9")
			client.wants("hi", c.server+":7")
			h.wantIdle("no card sees it")
			require.Nil(t, card.Take())
		})
	}
}

// A handler's answers and the engine's own find their way as well: an echo, a reply from elsewhere, a port that nobody has.
func TestLoopbackAnswers(t *testing.T) {
	for _, c := range []struct{ server, client string }{
		{"127.0.0.1", "127.0.0.1"}, {"127.1.2.3", "127.0.0.1"}, {"10.0.0.1", "10.0.0.1"},
		{"127.0.0.1", "10.0.0.1"}, {"10.0.0.1", "127.0.0.1"}, {"10.0.0.1", "127.7.7.7"}, {"10.9.0.1", "10.0.0.1"}, {"127.4.4.4", "10.9.0.1"},
	} {
		t.Run(c.client+" to "+c.server, func(t *testing.T) {
			h := newHost(t)
			card := addCard(h, "eth1", "10.9.0.1/24")
			h.handle(c.server+":7", func(p *Packet) { p.Echo() })
			h.handle(c.server+":8", func(p *Packet) { p.Reply(copy(p.Room(), pattern(60000))) })
			h.handle(c.server+":9", func(p *Packet) { p.ReplyWith([]byte("one")); p.ReplyWith([]byte(pattern(65507))) })
			client := h.bind(c.client + ":1000")
			for _, n := range []int{0, 5, 1472, 65507} {
				client.writes(pattern(n), c.server+":7")
				client.wants(pattern(n), c.server+":7")
			}
			client.writes("x", c.server+":8")
			client.wants(pattern(60000), c.server+":8")
			client.writes("x", c.server+":9")
			client.wants("one", c.server+":9")
			client.wants(pattern(65507), c.server+":9")

			refused := h.connect(c.client+":1001", c.server+":10")
			refused.writes("x", "")
			refused.wantErrno(syscall.ECONNREFUSED, "nobody is there")

			ping := h.pinger(c.client + ":100")
			require.NoError(t, ping.write(request(3, "ping"), c.server+":0"))
			h.settle()
			m, err := ping.read()
			require.NoError(t, err)
			require.Equal(t, ap(c.server+":0"), m.Addr)
			require.Equal(t, wire.ICMPEchoReply, wire.ICMP(m.Buf).Type())
			require.Zero(t, h.Stats().TxDrops)
			require.Zero(t, h.Stats().Drops[DropTransmitFull])
			h.wantIdle("no card sees it")
			require.Nil(t, card.Take())
		})
	}
}

// With several queues each engine has its own way inside.
func TestLoopbackOverQueues(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 4 })
	h.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
	h.handle("127.0.0.1:7", func(p *Packet) { p.Echo() })
	client := h.bind("10.0.0.1:9")
	for q := range 4 {
		h.arrivesOn(q, "delivered", packet{}.udp(9, 9, "from here"))
		client.wants("from here", "10.0.0.2:9")
		for _, to := range []string{"10.0.0.1:7", "127.0.0.1:7"} {
			client.writes("hello", to)
			client.wants("hello", to)
		}
	}
	h.wantIdle("no card sees it")
}

// What a socket wrote waits while the way inside is full, and nothing is lost.
func TestLoopbackKeepsEverything(t *testing.T) {
	h := newHost(t)
	for _, c := range [][2]string{{"127.0.0.1:7", "127.0.0.1:9"}, {"127.0.0.1:8", "10.0.0.1:9"}} {
		server, client := h.bind(c[0]), h.bind(c[1])
		server.SetReceiveBuffer(1 << 28)
		client.SetSendBuffer(1 << 28)
		for n := range 5000 {
			client.writes(fmt.Sprint(n, " ", pattern(3000)), c[0])
		}
		for n := range 5000 {
			server.wants(fmt.Sprint(n, " ", pattern(3000)), c[1])
		}
		server.wantNothing("5000 messages")
	}
}

// Two handlers that answer each other for ever: a step ends all the same, and the engine does the rest of its work.
func TestLoopbackEndsItsTurn(t *testing.T) {
	h := newHost(t)
	h.handle("127.0.0.1:7", func(p *Packet) { p.Echo() })
	s := h.bind("127.0.0.1:8")
	s.writes("x", "127.0.0.1:7")
	require.NoError(t, s.SetHandler(func(p *Packet) { p.Echo() }))
	a, b := h.bind("127.0.0.1:1"), h.bind("127.0.0.1:2")
	for range 100 {
		before := h.Stats().RxLocal
		a.writes("hello", "127.0.0.1:2")
		require.Equal(t, h.now, h.Step(h.now), "there is more to do")
		h.Step(h.now)
		m, err := b.read()
		require.NoError(t, err)
		require.Equal(t, "hello", string(m.Buf))
		require.LessOrEqual(t, h.Stats().RxLocal-before, uint64(2*budget))
	}
}
