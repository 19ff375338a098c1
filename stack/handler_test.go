package stack

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// A case is a way in which a request can come to a handler: what is possible for the answer depends on it.
type handlerCase struct {
	name    string
	request func(h *host, payload string) [][]byte
	setup   func(*setup)
	inPlace bool
}

var handlerCases = []handlerCase{
	{"in place", func(h *host, payload string) [][]byte { return [][]byte{packet{}.udp(4000, 7, payload)} }, nil, true},
	{"behind VLAN tags", func(h *host, payload string) [][]byte {
		return [][]byte{packet{vlans: []wire.VLANTag{0x88A80007, 0x81000005}}.udp(4000, 7, payload)}
	}, nil, true},
	{"partial checksum", func(h *host, payload string) [][]byte {
		return [][]byte{packet{partial: true}.udp(4000, 7, payload)}
	}, func(s *setup) { s.partial = true }, true},
	{"partial checksum, to a card that sums", func(h *host, payload string) [][]byte {
		return [][]byte{packet{partial: true}.udp(4000, 7, payload)}
	}, func(s *setup) { s.partial, s.offload = true, true }, true},
	{"behind VLAN tags, to a card that sums", func(h *host, payload string) [][]byte {
		return [][]byte{packet{vlans: []wire.VLANTag{0x88A80007, 0x81000005}}.udp(4000, 7, payload)}
	}, func(s *setup) { s.offload = true }, true},
	{"no checksum", func(h *host, payload string) [][]byte {
		return [][]byte{packet{noChecksum: true}.udp(4000, 7, payload)}
	}, nil, true},
	{"options", func(h *host, payload string) [][]byte {
		return [][]byte{packet{options: []byte{148, 4, 0, 0}}.udp(4000, 7, payload)}
	}, nil, false},
	{"fragments", func(h *host, payload string) [][]byte { return pieces(5, payload, 8) }, nil, false},
	{"fragments over two queues", func(h *host, payload string) [][]byte { return pieces(5, payload, 8) }, func(s *setup) { s.queues = 2 }, false},
	{"broadcast", func(h *host, payload string) [][]byte {
		return [][]byte{packet{to: bcastIP, toMAC: wire.HardwareBroadcast}.udp(4000, 7, payload)}
	}, nil, false},
}

// forEachCase runs a script with a handler for every way in which the request can come.
func forEachCase(t *testing.T, handler Handler, script func(h *host, c handlerCase)) {
	for _, c := range handlerCases {
		t.Run(c.name, func(t *testing.T) {
			var changes []func(*setup)
			if c.setup != nil {
				changes = append(changes, c.setup)
			}
			h := newHost(t, changes...)
			h.handlerSocket = h.handle("10.0.0.1:7", handler)
			script(h, c)
			require.Zero(t, h.Stats().Held)
		})
	}
}

// ask sends the request and takes the answer, from whichever queue it leaves on.
func (h *host) ask(c handlerCase, payload string) sent {
	for n, f := range c.request(h, payload) {
		require.True(h.t, h.peers[n%len(h.peers)].Inject(f))
	}
	h.settle()
	for q := range h.peers {
		if f := h.take(q); f != nil {
			return f
		}
	}
	return nil
}

func wantAnswer(t *testing.T, f sent, payload string) {
	t.Helper()
	require.NotNil(t, f)
	p := f.ip()
	require.Equal(t, peerMAC, f.ethernet().Dst)
	require.Equal(t, addr(hostIP), p.Src(), "from the socket's address")
	require.Equal(t, addr(peerIP), p.Dst())
	require.False(t, p.HasOptions())
	require.Equal(t, uint8(64), p.TTL())
	require.Equal(t, uint16(7), f.udp().SrcPort())
	require.Equal(t, uint16(4000), f.udp().DstPort())
	require.Equal(t, payload, string(f.udp().Payload()))
}

// Echo answers with the payload, as it came or as the handler left it.
func TestHandlerEcho(t *testing.T) {
	forEachCase(t, func(p *Packet) { p.Echo() }, func(h *host, c handlerCase) {
		for _, payload := range []string{"", "x", "hello", pattern(1000)} {
			wantAnswer(h.t.(*testing.T), h.ask(c, payload), payload)
			h.wantIdle("one answer")
		}
	})
}

// What the handler writes into the payload needs a new checksum: Reply makes it.
func TestHandlerReplyWithChangedPayload(t *testing.T) {
	forEachCase(t, func(p *Packet) {
		copy(p.Payload, bytes.ToUpper(p.Payload))
		p.Reply(len(p.Payload))
	}, func(h *host, c handlerCase) {
		wantAnswer(h.t.(*testing.T), h.ask(c, "hello, host"), "HELLO, HOST")
		h.wantIdle("one answer")
	})
}

// Reply takes any part of Room: none of it, less or more than the payload.
func TestHandlerReplyOfOtherLength(t *testing.T) {
	for _, n := range []int{0, 3, 500, 1472} {
		forEachCase(t, func(p *Packet) {
			room := p.Room()
			require.True(t, bytes.HasPrefix(room, p.Payload), "Room begins with the payload")
			require.Equal(t, "hello, host", string(p.Payload))
			copy(room, pattern(n))
			p.Reply(n)
		}, func(h *host, c handlerCase) {
			wantAnswer(h.t.(*testing.T), h.ask(c, "hello, host"), pattern(n))
			h.wantIdle("one answer")
		})
	}
}

// Room ends where the longest answer does: at the MTU in the frame that asked, at 65,507 bytes elsewhere. Reply beyond it is cut.
func TestHandlerRoom(t *testing.T) {
	var room int
	forEachCase(t, func(p *Packet) {
		r := p.Room()
		room = len(r)
		copy(r, pattern(room))
		p.Reply(1 << 20)
	}, func(h *host, c handlerCase) {
		t := h.t.(*testing.T)
		f := h.ask(c, "hello, host")
		if c.inPlace {
			require.Equal(t, 1472, room)
			wantAnswer(t, f, pattern(1472))
			h.wantIdle("one answer")
			return
		}
		require.Equal(t, 65507, room)
		var q int
		for f.ip().MF() {
			next := h.take(q)
			if next == nil {
				q++
				continue
			}
			f = next
		}
		require.Equal(t, 65515, f.ip().FragmentOffset()+len(f.ip().Payload()))
	})
}

// ReplyWith answers with a copy, more than once, and in fragments where it is long.
func TestHandlerReplyWith(t *testing.T) {
	forEachCase(t, func(p *Packet) {
		p.ReplyWith([]byte("one"))
		p.ReplyWith(nil)
		p.ReplyWith(make([]byte, 65508)) // too long for a datagram
		p.Echo()
		p.ReplyWith([]byte("after the frame is gone"))
	}, func(h *host, c handlerCase) {
		t := h.t.(*testing.T)
		wantAnswer(t, h.ask(c, "hello, host"), "one")
		var rest []string
		for q := range h.peers {
			for f := h.take(q); f != nil; f = h.take(q) {
				rest = append(rest, string(f.udp().Payload()))
			}
		}
		want := []string{"", "hello, host"}
		if !c.inPlace {
			want = append(want, "after the frame is gone")
		}
		require.Equal(t, want, rest)
	})
}

func TestHandlerReplyWithFragments(t *testing.T) {
	h := newHost(t)
	h.handle("10.0.0.1:7", func(p *Packet) { p.ReplyWith([]byte(pattern(3000))) })
	h.arrives("delivered", packet{}.udp(9, 7, "x"))
	h.wantFragmented(3000, 1480, 1480, 48)
	h.wantIdle("three fragments")
}

// One answer in place is all that a frame holds: what comes after it does nothing.
func TestHandlerAnswersInPlaceOnce(t *testing.T) {
	h := newHost(t)
	h.handle("10.0.0.1:7", func(p *Packet) {
		p.Echo()
		p.Echo()
		p.Reply(3)
		p.ReplyWith([]byte("x"))
	})
	h.arrives("delivered", packet{}.udp(4000, 7, "hello"))
	h.want("10.0.0.1.7 > 10.0.0.2.4000: udp 5")
	h.wantIdle("once")
}

// What a handler can know of a packet.
func TestHandlerSeesThePacket(t *testing.T) {
	h := newHost(t)
	called := 0
	h.handle("10.0.0.1:7", func(p *Packet) {
		called++
		require.Equal(t, ap("10.0.0.2:4000"), p.Src())
		require.Equal(t, uint16(4000), p.SrcPort())
		require.Equal(t, ap("10.0.0.1:7"), p.Dst())
		require.Equal(t, uint8(9), p.TTL())
		require.Equal(t, uint8(0x28), p.TOS())
		require.Equal(t, h.now, p.Now())
		require.Equal(t, "hello", string(p.Payload))
	})
	h.arrives("delivered", packet{ttl: 9, tos: 0x28}.udp(4000, 7, "hello"))
	require.Equal(t, 1, called)
	h.wantIdle("a handler may be silent")
	i := h.Sockets()[0]
	require.True(t, i.Handler)
	require.Equal(t, uint64(1), i.Received)
	require.Equal(t, uint64(5), i.RxBytes)
	require.Zero(t, i.Sent)
	s := h.handle("10.0.0.1:8", func(p *Packet) { p.ReplyWith([]byte("one")); p.ReplyWith([]byte(pattern(2000))); p.Echo() })
	h.arrives("delivered", packet{}.udp(4000, 8, "hello"))
	for h.take(0) != nil {
	}
	i = h.Sockets()[1]
	require.Equal(t, s.LocalAddr(), i.Local)
	require.Equal(t, [4]uint64{1, 5, 3, 2008}, [4]uint64{i.Received, i.RxBytes, i.Sent, i.TxBytes})
}

// RFC 768: a source port of 0 says that no answer is wanted.
func TestHandlerDoesNotAnswerPortZero(t *testing.T) {
	forEachCase(t, func(p *Packet) { copy(p.Room(), "x"); p.ReplyWith([]byte("x")); p.Reply(1); p.Echo() }, func(h *host, c handlerCase) {
		for _, f := range c.request(h, "hello, host") {
			ip := f[len(f)-len(sent(f).ip()):]
			if sent(f).ip().FragmentOffset() == 0 {
				u := ip[sent(f).ip().HeaderLen():]
				u[0], u[1], u[6], u[7] = 0, 0, 0, 0
			}
			h.peers[0].Inject(f)
		}
		h.wantIdle("no answer is wanted")
		require.Equal(h.t, uint64(1), h.Stats().Delivered)
	})
}

// The socket's TTL and TOS are those of the answers; without a TOS of its own it takes the question's.
func TestHandlerAnswersWithTheSocketsOptions(t *testing.T) {
	forEachCase(t, func(p *Packet) { p.ReplyWith([]byte("one")); p.Echo() }, func(h *host, c handlerCase) {
		h.ask(c, "hello, host")
		h.takeAny()
		s := h.handlerSocket
		s.SetTOS(0x28)
		require.NoError(h.t, s.SetTTL(5))
		for f := h.ask(c, "hello, host"); f != nil; f = h.takeAny() {
			require.Equal(h.t, uint8(0x28), f.ip().TOS())
			require.Equal(h.t, uint8(5), f.ip().TTL())
		}
	})
}

// Whatever a handler does to its Packet, what leaves is well-formed.
func TestHandlerThatIsCareless(t *testing.T) {
	for name, handler := range map[string]Handler{
		"Payload cut, then Echo":       func(p *Packet) { p.Payload = p.Payload[4:]; p.Echo() },
		"Payload cut, then Reply":      func(p *Packet) { p.Payload = p.Payload[4:]; p.Reply(len(p.Room())) },
		"Payload nil, then Echo":       func(p *Packet) { p.Payload = nil; p.Echo() },
		"Payload longer, then Echo":    func(p *Packet) { p.Payload = make([]byte, 5000); p.Echo() },
		"Reply of less than nothing":   func(p *Packet) { p.Reply(-100) },
		"Room, and then nothing":       func(p *Packet) { clear(p.Room()) },
		"Room, Payload nil, then Echo": func(p *Packet) { p.Room(); p.Payload = nil; p.Echo() },
		"Room when it has answered":    func(p *Packet) { p.Echo(); clear(p.Room()[:1]); p.Reply(5) },
	} {
		t.Run(name, func(t *testing.T) {
			forEachCase(t, handler, func(h *host, c handlerCase) {
				for f := h.ask(c, "hello, host"); f != nil; f = h.takeAny() {
					if !f.ip().IsFragment() && len(f.udp().Payload()) == 11 {
						require.Equal(h.t, "hello, host", string(f.udp().Payload()))
					}
				}
			})
		})
	}
}

// SetHandler switches between the handler and Read from one datagram to the next.
func TestHandlerIsSetAndTakenBack(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{}.udp(4000, 7, "one"))
	require.NoError(t, s.SetHandler(func(p *Packet) { p.Echo() }))
	h.arrives("delivered", packet{}.udp(4000, 7, "two!"))
	h.want("10.0.0.1.7 > 10.0.0.2.4000: udp 4")
	require.NoError(t, s.SetHandler(nil))
	h.arrives("delivered", packet{}.udp(4000, 7, "three"))
	s.wants("one", "10.0.0.2:4000")
	s.wants("three", "10.0.0.2:4000")
	h.wantIdle("the handler is off")
	require.NoError(t, s.SetHandler(func(p *Packet) { p.Echo() }))
	require.NoError(t, s.Close())
	h.arrives("udp-no-port", packet{}.udp(4000, 7, "four"))
	h.want("10.0.0.1 > 10.0.0.2: icmp unreachable code 3 [10.0.0.2.4000 > 10.0.0.1.7: udp]")
	require.Error(t, s.SetHandler(nil))
}

// A handler on an unbound socket waits for Bind.
func TestHandlerBeforeBind(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 2 })
	s := h.socket(wire.ProtocolUDP)
	require.NoError(t, s.SetHandler(func(p *Packet) { p.Echo() }))
	require.NoError(t, s.Bind(ap("10.0.0.1:7")))
	for q := range 2 {
		h.arrivesOn(q, "delivered", packet{}.udp(4000, 7, "hello"))
		h.wantOn(q, "10.0.0.1.7 > 10.0.0.2.4000: udp 5")
	}
}

// An answer in place that finds the ring full is lost, and counted as what it is.
func TestHandlerWithoutRoom(t *testing.T) {
	h, room := newScarce(t)
	h.stalled = false
	h.handle("10.0.0.1:7", func(p *Packet) { p.Echo(); p.Echo() })
	h.handle("10.0.0.1:8", func(p *Packet) { p.ReplyWith([]byte("x")); p.Reply(1) })
	h.handle("10.0.0.1:9", func(p *Packet) { p.ReplyWith([]byte(pattern(3000))) })
	*room = 0
	h.arrives("delivered", packet{}.udp(4000, 7, "hello"))
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropTransmitFull])
	h.arrives("delivered", packet{}.udp(4000, 8, "hello"))
	require.Equal(t, uint64(3), h.Stats().TxDrops[DropTransmitFull])
	*room = 2
	h.arrives("delivered", packet{}.udp(4000, 9, "hello"))
	require.Equal(t, uint64(4), h.Stats().TxDrops[DropTransmitFull], "the rest of the fragments, once")
	require.Zero(t, h.Sockets()[0].Sent)
	require.NotNil(t, h.take(0))
	require.NotNil(t, h.take(0))
	h.wantIdle("two of three fragments")
}

// An answer never goes to a group, wherever the question says that it came from.
func TestHandlerDoesNotAnswerAGroup(t *testing.T) {
	h := newHost(t)
	h.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
	h.arrives("delivered", packet{fromMAC: wire.HardwareAddr{1, 0, 0x5E, 0, 0, 1}}.udp(4000, 7, "hello"))
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropIPSource])
	h.wantIdle("one question must not bring answers to many")
}

// An answer that would be longer than the link carries leaves in fragments, as where a frame came that is longer than the MTU.
func TestHandlerAnswersALongFrame(t *testing.T) {
	h := newHost(t)
	h.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
	h.handle("10.0.0.1:8", func(p *Packet) { p.Reply(len(p.Payload)) })
	h.arrives("delivered", packet{}.udp(4000, 7, pattern(3000)))
	require.Equal(t, pattern(3000), string(h.wantFragments(1480, 1480, 48)[8:]))
	h.arrives("delivered", packet{}.udp(4000, 8, pattern(3000)))
	require.Equal(t, pattern(3000), string(h.wantFragments(1480, 1480, 48)[8:]))
	h.arrives("answered", packet{}.ping(1, 1, pattern(3000)))
	require.Equal(t, pattern(3000), string(h.wantFragments(1480, 1480, 48)[8:]))
}
