package stack

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// record makes a tap that writes a line for each frame.
func (h *host) record() *[]string {
	lines := new([]string)
	h.SetTap(func(i *Interface, queue int, dir Direction, reason DropReason, at clock.Time, frame []byte) {
		require.Equal(h.t, h.now, at)
		line := fmt.Sprintf("%s %d %v ", i.Name(), queue, dir)
		if reason != NotDropped {
			line += reason.String() + " "
		}
		*lines = append(*lines, line+describeBoth(frame))
	})
	return lines
}

// describeBoth is wire.Dump without the Ethernet addresses.
func describeBoth(f []byte) string {
	s := wire.Dump(f)
	if len(s) > 38 && len(f) >= wire.EthernetLen {
		s = s[38:]
	}
	return s
}

// The tap sees what came, then what it caused, each as it was on the wire: an answer that is built in the frame that asked
// does not change what the tap saw come.
func TestTap(t *testing.T) {
	h := newHost(t)
	lines := h.record()
	s := h.bind("10.0.0.1:7")
	h.handle("10.0.0.1:8", func(p *Packet) { p.ReplyWith([]byte("first")); p.Reply(copy(p.Room(), "longer than it was")) })
	h.arrives("answered", packet{}.ping(1, 1, "x"))
	h.arrives("delivered", packet{}.udp(4000, 7, "hello"))
	h.arrives("delivered", packet{}.udp(4000, 8, "hello"))
	s.writes("hi", "10.0.0.2:9")
	h.arrives("udp-no-port", packet{}.udp(4000, 9, "hello"))
	h.arrives("answered", whoHas(hostIP))
	h.arrives("frame-too-short", make([]byte, 5))
	want := []string{
		"eth0 0 in 10.0.0.2 > 10.0.0.1: icmp echo request id 1 seq 1 length 9",
		"eth0 0 out 10.0.0.1 > 10.0.0.2: icmp echo reply id 1 seq 1 length 9",
		"eth0 0 in 10.0.0.2.4000 > 10.0.0.1.7: udp 5",
		"eth0 0 in 10.0.0.2.4000 > 10.0.0.1.8: udp 5",
		"eth0 0 out 10.0.0.1.8 > 10.0.0.2.4000: udp 5",
		"eth0 0 out 10.0.0.1.8 > 10.0.0.2.4000: udp 18",
		"eth0 0 in udp-no-port 10.0.0.2.4000 > 10.0.0.1.9: udp 5",
		"eth0 0 out 10.0.0.1 > 10.0.0.2: icmp unreachable code 3 [10.0.0.2.4000 > 10.0.0.1.9: udp]",
		"eth0 0 out 10.0.0.1.7 > 10.0.0.2.9: udp 2",
		"eth0 0 in arp who-has 10.0.0.1 tell 10.0.0.2",
		"eth0 0 out arp 10.0.0.1 is-at 02:00:00:00:00:01",
		"eth0 0 in frame-too-short ethernet of 5 bytes is cut short",
	}
	require.Equal(t, want, *lines)
	h.SetTap(nil)
	h.arrives("answered", packet{}.ping(1, 1, "x"))
	require.Len(t, *lines, len(want), "the tap is off")
	for h.take(0) != nil {
	}
}

// What never leaves the host is seen where it arrives.
func TestTapOfTheLoopback(t *testing.T) {
	h := newHost(t)
	lines := h.record()
	h.handle("127.0.0.1:7", func(p *Packet) { p.Reply(copy(p.Room(), "HELLO, CLIENT")) })
	s := h.bind("127.0.0.1:9")
	s.writes("hello", "127.0.0.1:7")
	s.wants("HELLO, CLIENT", "127.0.0.1:7")
	s.writes("x", "127.0.0.1:10")
	h.settle()
	require.Equal(t, []string{
		"lo 0 in 127.0.0.1.9 > 127.0.0.1.7: udp 5",
		"lo 0 in 127.0.0.1.7 > 127.0.0.1.9: udp 13",
		"lo 0 in udp-no-port 127.0.0.1.9 > 127.0.0.1.10: udp 1",
		"lo 0 in 127.0.0.1 > 127.0.0.1: icmp unreachable code 3 [127.0.0.1.9 > 127.0.0.1.10: udp]",
	}, *lines)
}

// Queues are told apart, and a fragment that the engine it was passed to drops is shown with its reason.
func TestTapOfQueues(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 2 })
	lines := h.record()
	h.arrivesOn(1, "answered", packet{}.ping(1, 1, "x"))
	h.wantOn(1, "10.0.0.1 > 10.0.0.2: icmp echo reply id 1 seq 1 length 9")
	require.Equal(t, []string{
		"eth0 1 in 10.0.0.2 > 10.0.0.1: icmp echo request id 1 seq 1 length 9",
		"eth0 1 out 10.0.0.1 > 10.0.0.2: icmp echo reply id 1 seq 1 length 9",
	}, *lines)
	// Of sixteen datagrams about half belong to the other engine.
	*lines = nil
	for id := range uint16(16) {
		h.peers[0].Inject(packet{id: id, mf: true}.ip(wire.ProtocolUDP, make([]byte, 7)))
	}
	h.settle()
	dropped := 0
	for _, line := range *lines {
		var queue int
		var rest string
		n, _ := fmt.Sscanf(line, "eth0 %d in fragment-malformed %s", &queue, &rest)
		if n == 2 {
			dropped++
		}
	}
	require.Equal(t, 16, dropped, "%q", *lines)
	require.Equal(t, 16+int(h.Stats().Forwarded), len(*lines))
	require.NotZero(t, h.Stats().Forwarded)
}

// What arrives on a queue that only receives is seen with its end, once, where it is looked at.
func TestTapOfAReceiveOnlyQueue(t *testing.T) {
	h := newHost(t, muteQueue1)
	lines := h.record()
	h.arrivesOn(1, "answered forwarded", packet{}.ping(1, 1, "x"))
	h.arrivesOn(1, "forwarded udp-port", packet{}.udp(4000, 0, "x"))
	require.Equal(t, []string{
		"eth0 0 in 10.0.0.2 > 10.0.0.1: icmp echo request id 1 seq 1 length 9",
		"eth0 0 out 10.0.0.1 > 10.0.0.2: icmp echo reply id 1 seq 1 length 9",
		"eth0 0 in udp-port 10.0.0.2.4000 > 10.0.0.1.0: udp 1",
	}, *lines)
	require.NotNil(t, h.take(0))
}

func TestDirectionNames(t *testing.T) {
	require.Equal(t, "in", Received.String())
	require.Equal(t, "out", Transmitted.String())
}
