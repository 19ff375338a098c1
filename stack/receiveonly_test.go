package stack

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A mute link receives and never sends, as the queues that some drivers have too many of once XDP is attached.
type mute struct{ Link }

func (mute) CanSend() bool    { return false }
func (mute) Alloc() []byte    { return nil }
func (mute) Send([]byte) bool { return false }

// muteQueue makes one of two queues receive only.
func muteQueue(which int) func(*setup) {
	return func(s *setup) {
		s.queues = 2
		n := -1
		s.wrap = func(l Link) Link {
			if n++; n == which {
				return mute{l}
			}
			return l
		}
	}
}

var muteQueue1 = muteQueue(1)

// What arrives where nothing can be sent is answered by a queue that can.
func TestReceiveOnlyQueue(t *testing.T) {
	h := newHost(t, muteQueue1)
	h.arrivesOn(1, "answered forwarded", packet{}.ping(1, 1, "hello"))
	require.Equal(t, "hello", string(h.take(0).icmp().Payload()))
	h.arrivesOn(1, "answered forwarded", whoHas(hostIP))
	require.Equal(t, addr(hostIP), h.take(0).arp().Sender())
	h.wantIdle("each was answered once")

	s := h.bind("10.0.0.1:7")
	h.arrivesOn(1, "delivered forwarded", packet{}.udp(9, 7, "question"))
	s.wants("question", "10.0.0.2:9")
	s.writes("answer", "10.0.0.2:9")
	require.Equal(t, "answer", string(h.take(0).udp().Payload()))

	h.handle("10.0.0.1:8", func(p *Packet) { p.Reply(copy(p.Room(), "an answer that is longer than what was asked")) })
	h.arrivesOn(1, "delivered forwarded", packet{}.udp(9, 8, "?"))
	require.Equal(t, "an answer that is longer than what was asked", string(h.take(0).udp().Payload()))

	h.arrivesOn(1, "forwarded udp-no-port", packet{}.udp(9, 99, "nobody"))
	require.NotNil(t, h.take(0), "port unreachable")
	h.wantIdle("nothing else")
}
