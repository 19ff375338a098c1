package daemon

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/stack"
)

func TestEcho(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, nil)
	d := r.dial(4000)
	for _, text := range []string{"", "x", "hello kit", string(make([]byte, 1472))} {
		r.send(d, 7, text)
		require.Equal(t, text, r.receive(d))
	}
	r.orderly()
}

func TestDiscard(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7", "udp-discard=:9"}}, nil)
	d := r.dial(4000)
	r.send(d, 9, "gone")
	r.wantSilence(d, 7)
	require.NoError(t, d.TakeError(), "and no port unreachable came back")
	r.orderly()
}

// TestChargen: RFC 864, UDP: a datagram of 0 to 512 characters for each one
// received, whatever was in it.
func TestChargen(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-chargen=:19"}}, nil)
	require.Contains(t, r.log.String(), "udp-chargen answers a forged source")
	d := r.dial(4000)
	lengths := map[int]bool{}
	for range 50 {
		r.send(d, 19, "")
		answer := r.receive(d)
		require.LessOrEqual(t, len(answer), 512)
		for i, c := range []byte(answer) {
			printing := ' ' <= c && c <= '~'
			require.True(t, printing || c == '\r' || c == '\n', "byte %d is %q", i, c)
		}
		if len(answer) > 74 {
			require.Equal(t, "\r\n", answer[72:74])
			n := min(70, len(answer)-74)
			require.Equal(t, answer[1:1+n], answer[74:74+n], "each line begins one character later")
		}
		lengths[len(answer)] = true
	}
	require.Greater(t, len(lengths), 10, "lengths are random")
	r.orderly()
}

// TestNoLoops: a datagram from a port that answers is not answered.
func TestNoLoops(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7007", "udp-chargen=:1919", "udp-discard=:9"}}, nil)
	for _, port := range []uint16{7, 13, 17, 19, 37, 7007, 1919} {
		d := r.dial(port)
		r.send(d, 7007, "loop")
		r.send(d, 1919, "loop")
		r.wantSilence(d, 7007)
	}
	for _, port := range []uint16{9, 53, 123, 1024} {
		d := r.dial(port)
		r.send(d, 7007, "no loop")
		require.Equal(t, "no loop", r.receive(d), "port %d", port)
	}
	r.orderly()
}

// TestBroadcastsAreNotAnswered: else one datagram makes every host of a network
// answer.
func TestBroadcastsAreNotAnswered(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, nil)
	d := r.dial(4000)
	_, err := d.Write([]stack.Message{{Buf: []byte("everybody"), Addr: netip.MustParseAddrPort("10.0.0.255:7")}})
	require.NoError(t, err)
	r.wantSilence(d, 7)
	r.orderly()
}

func TestGuardPorts(t *testing.T) {
	var g guard
	g.set([]config.Service{{Name: "udp-echo", Port: 5000}, {Name: "udp-discard", Port: 5001}})
	set := g.refused.Load()
	for port, refused := range map[uint16]bool{0: true, 7: true, 13: true, 17: true, 19: true, 37: true, 5000: true,
		1: false, 9: false, 53: false, 5001: false, 65535: false} {
		require.Equal(t, refused, set.has(port), port)
	}
}

func TestChargenFillsAnyLength(t *testing.T) {
	for n := range maxChargen + 1 {
		b := make([]byte, n)
		require.Equal(t, n, chargen(b))
		if n > 0 {
			require.NotZero(t, b[n-1])
		}
	}
}

func TestHandlersAllocateNothing(t *testing.T) {
	b := make([]byte, maxChargen)
	require.Zero(t, testing.AllocsPerRun(100, func() { chargen(b) }))
}
