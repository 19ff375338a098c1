package stack

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// quiet is a host whose script looks at nothing, for counting allocations, nanoseconds and instructions.
type quiet struct {
	*host
	link *linktest.Hose
	e    *Engine
}

func newQuiet(t testing.TB, changes ...func(*setup)) *quiet {
	h := newHost(t, changes...)
	h.keepPeer()
	q := &quiet{host: h, e: h.iface.engines[0]}
	q.link = linktest.NewHose(h.wires[0].End(0))
	q.e.link, q.e.ahead.link, h.hosed = q.link, q.link, true
	if q.e.offload != nil {
		q.e.offload = q.link
	}
	return q
}

// step lets the engine take n frames.
func (q *quiet) step(n int) {
	q.link.Left = n
	q.e.Step(q.now)
}

// wantNoAllocs runs f often, after it has run often enough for tables and rings to have their size.
func wantNoAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	for range 200 {
		f()
	}
	require.Zero(t, testing.AllocsPerRun(1000, f), what)
}

// Nothing allocates for a packet, whatever way it takes.
func TestNothingAllocates(t *testing.T) {
	ms := make([]Message, 32)
	for n := range ms {
		ms[n].Buf = make([]byte, 1500)
	}
	bound := func(t *testing.T, changes ...func(*setup)) (*quiet, *sock) {
		q := newQuiet(t, changes...)
		return q, q.bind("10.0.0.1:7")
	}
	receive := func(q *quiet, s *sock, frames ...[]byte) func() {
		q.link.Lend(0, frames...)
		return func() {
			q.step(32)
			n, err := s.Read(ms)
			require.NoError(t, err)
			require.NotZero(t, n)
		}
	}
	t.Run("receive", func(t *testing.T) {
		q, s := bound(t)
		wantNoAllocs(t, "unconnected", receive(q, s, packet{}.udp(9, 7, pattern(64)), packet{from: otherIP}.udp(10, 7, pattern(1400))))
		require.NoError(t, s.Connect(ap("10.0.0.2:9")))
		wantNoAllocs(t, "connected", receive(q, s, packet{}.udp(9, 7, pattern(64))))
	})
	t.Run("receive with options and tags", func(t *testing.T) {
		q, s := bound(t)
		p := packet{options: []byte{148, 4, 0, 0}, vlans: []wire.VLANTag{0x81000005}}
		wantNoAllocs(t, "receive", receive(q, s, p.udp(9, 7, pattern(64))))
	})
	t.Run("receive fragments", func(t *testing.T) {
		q, s := bound(t)
		wantNoAllocs(t, "reassembly", receive(q, s, pieces(1, pattern(3000), 1480)...))
	})
	t.Run("receive from another queue", func(t *testing.T) {
		q, s := bound(t, func(s *setup) { s.queues = 2 })
		frames := append(pieces(1, pattern(3000), 1480), pieces(2, pattern(3000), 1480)...)
		frames = append(frames, pieces(3, pattern(3000), 1480)...)
		q.link.Lend(0, frames...)
		wantNoAllocs(t, "forwarding", func() {
			q.step(9)
			q.iface.engines[1].Step(q.now)
			n, err := s.Read(ms)
			require.NoError(t, err)
			require.Equal(t, 3, n)
		})
		require.NotZero(t, q.Stats().Forwarded)
	})
	t.Run("many sockets", func(t *testing.T) {
		q, got := newBound(t, manySockets)
		q.link.Lend(0, packet{}.udp(9, 7, pattern(64)), packet{}.udp(9, manySockets, pattern(64)))
		wantNoAllocs(t, "looking ahead", func() {
			*got = (*got)[:0]
			q.step(100)
		})
		require.NotZero(t, q.e.ahead.n)
	})
	t.Run("handler", func(t *testing.T) {
		q := newQuiet(t)
		q.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
		q.handle("10.0.0.1:8", func(p *Packet) { p.Reply(copy(p.Room(), "an answer")) })
		answer := []byte(pattern(3000))
		q.handle("10.0.0.1:9", func(p *Packet) { p.ReplyWith(answer) })
		q.link.Lend(0, packet{}.udp(9, 7, pattern(64)), packet{}.udp(9, 8, pattern(64)), packet{}.udp(9, 9, "x"),
			packet{options: []byte{1, 1, 1, 1}}.udp(9, 8, pattern(64)), packet{to: bcastIP, toMAC: wire.HardwareBroadcast}.udp(9, 7, pattern(64)))
		wantNoAllocs(t, "handlers", func() { q.step(32) })
		require.Zero(t, q.Stats().TxDrops)
	})
	t.Run("send", func(t *testing.T) {
		q, s := bound(t)
		out := make([]Message, 32)
		for n := range out {
			out[n] = Message{Buf: []byte(pattern(64)), Addr: ap("10.0.0.2:9")}
		}
		send := func() {
			n, err := s.Write(out)
			require.NoError(t, err)
			require.Equal(t, 32, n)
			q.step(0)
		}
		wantNoAllocs(t, "unconnected", send)
		for n := range out {
			out[n].Addr = ap([]string{"10.0.0.2:9", "10.0.0.3:9", farIP + ":9"}[n%3])
		}
		q.iface.SetNeighbour(entry(otherIP, otherMAC, NeighbourPermanent))
		q.iface.SetNeighbour(entry(gatewayIP, otherMAC, NeighbourPermanent))
		wantNoAllocs(t, "to several", send)
		require.NoError(t, s.Connect(ap("10.0.0.2:9")))
		for n := range out {
			out[n] = Message{Buf: []byte(pattern(1472))}
		}
		wantNoAllocs(t, "connected", send)
		link := &bundleHose{Hose: q.link}
		q.e.bundle.link = link
		wantNoAllocs(t, "in bundles", send)
		require.NotZero(t, link.bundles)
		for n := range out {
			out[n].Buf = []byte(pattern(5000))
		}
		wantNoAllocs(t, "in fragments", send)
	})
	t.Run("leave checksums to the card", func(t *testing.T) {
		q, s := bound(t, func(s *setup) { s.offload, s.partial = true, true })
		q.handle("10.0.0.1:8", func(p *Packet) { p.Echo() })
		q.handle("10.0.0.1:9", func(p *Packet) { p.Reply(len(p.Room())) })
		q.link.Lend(0, packet{partial: true}.udp(9, 8, pattern(1400)), packet{}.udp(9, 9, "x"))
		out := []Message{{Buf: []byte(pattern(1400)), Addr: ap("10.0.0.2:9")}}
		wantNoAllocs(t, "answers and datagrams", func() {
			_, err := s.Write(out)
			require.NoError(t, err)
			q.step(32)
		})
		require.NotZero(t, q.link.Partial)
	})
	t.Run("wait for a neighbour", func(t *testing.T) {
		q, s := bound(t)
		out := []Message{{Buf: []byte(pattern(1000)), Addr: ap("10.0.0.77:9")}}
		wantNoAllocs(t, "in place of the oldest", func() {
			_, err := s.Write(out)
			require.NoError(t, err)
			q.step(0)
		})
		require.Equal(t, uint64(64), q.Stats().Waiting)
	})
	t.Run("ping", func(t *testing.T) {
		q := newQuiet(t)
		q.link.Lend(0, packet{}.ping(1, 1, pattern(56)), whoHas(hostIP))
		wantNoAllocs(t, "echo and ARP", func() { q.step(32) })
	})
	t.Run("drops", func(t *testing.T) {
		q := newQuiet(t)
		q.link.Lend(0, packet{}.udp(9, 9, "no port"), packet{to: otherIP}.udp(9, 9, "not ours"), packet{from: "127.0.0.1"}.udp(9, 9, "source"),
			packet{options: []byte{7, 0, 0, 0}}.udp(9, 9, "options"), packet{}.ip(47, nil), flipped(packet{}.udp(9, 9, "sum"), 44))
		wantNoAllocs(t, "drops and the errors about them", func() {
			q.now = q.now.Add(seconds(1))
			q.step(32)
		})
	})
	t.Run("timers", func(t *testing.T) {
		q := newQuiet(t)
		q.link.Lend(0, pieces(1, pattern(3000), 1480)[0])
		wantNoAllocs(t, "datagrams that time out", func() {
			q.step(1)
			q.now = q.now.Add(seconds(31))
			q.step(0)
		})
		require.NotZero(t, q.Stats().Drops[DropFragmentTimeout])
	})
	t.Run("loopback", func(t *testing.T) {
		q := newQuiet(t)
		q.handle("127.0.0.1:7", func(p *Packet) { p.Echo() })
		s := q.bind("127.0.0.1:9")
		out := []Message{{Buf: []byte(pattern(64)), Addr: ap("127.0.0.1:7")}}
		wantNoAllocs(t, "to a handler and back", func() {
			_, err := s.Write(out)
			require.NoError(t, err)
			q.Step(q.now)
			_, err = s.Read(ms)
			require.NoError(t, err)
		})
	})
	t.Run("tap", func(t *testing.T) {
		q, s := bound(t)
		seen := 0
		q.SetTap(func(_ *Interface, _ int, _ Direction, _ DropReason, _ clock.Time, frame []byte) { seen += len(frame) })
		wantNoAllocs(t, "with a tap", receive(q, s, packet{}.udp(9, 7, pattern(64))))
		require.NotZero(t, seen)
	})
}
