package stack

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// heap is how many bytes are reachable.
func heap() int {
	for range 3 { // what a pool keeps goes with the second
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// memory reports whether the rings of the socket on the first queue have some.
func (s *sock) memory() (rx, tx bool) {
	h := s.halves[s.h.iface.engines[0].number].Load()
	return h.rx.Trim(), h.tx.Trim()
}

// Sockets that were busy once and are idle now keep next to nothing, and the engine has nothing left to do for them.
func TestIdleSocketsGiveTheirMemoryBack(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	const sockets, datagrams, size = 100, 60, 1400
	socks := make([]*sock, sockets)
	for i := range socks {
		socks[i] = h.bind(netip.AddrPortFrom(netip.MustParseAddr(hostIP), uint16(1000+i)).String())
	}
	before := heap()
	buf := []Message{{Buf: make([]byte, size)}}
	for i, s := range socks {
		for range datagrams {
			require.True(t, h.peers[0].Inject(packet{}.udp(9, 1000+i, pattern(size))))
			s.writes(pattern(size), "10.0.0.2:9")
		}
		h.settle()
		for range datagrams {
			n, err := s.Read(buf)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.NotNil(t, h.peers[0].Take())
		}
	}
	grown := heap() - before
	require.Greater(t, grown, sockets*datagrams*size)
	h.wait(2*trimInterval + time.Second)
	require.Less(t, heap()-before, grown/10)
	require.Equal(t, clock.Never, h.settle(), "an idle socket is not looked at again")
	for i, s := range socks {
		h.arrives("delivered", packet{}.udp(9, 1000+i, "and it goes on"))
		s.wants("and it goes on", "10.0.0.2:9")
	}
}

// What nobody has read yet stays, for however long.
func TestUnreadDatagramsAreKept(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{}.udp(9, 7, "wait for me"))
	h.wait(10 * time.Minute)
	s.wants("wait for me", "10.0.0.2:9")
	h.wait(2*trimInterval + time.Second)
	require.Equal(t, clock.Never, h.settle())
	rx, tx := s.memory()
	require.False(t, rx || tx)
}

// The engine waits for no user: a socket that is being read or written is looked at another time.
func TestASocketInUseIsTrimmedLater(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{}.udp(9, 7, "x"))
	s.wants("x", "10.0.0.2:9")
	s.writes("y", "10.0.0.2:9")
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
	s.rmu.Lock()
	s.wmu.Lock()
	h.wait(time.Minute)
	s.rmu.Unlock()
	s.wmu.Unlock()
	require.NotEqual(t, clock.Never, h.settle())
	h.wait(2*trimInterval + time.Second)
	require.Equal(t, clock.Never, h.settle())
	rx, tx := s.memory()
	require.False(t, rx || tx)
}

// A closed socket is not kept by its timer, even when it still has something to send.
func TestAClosedSocketIsForgotten(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	for range 10 {
		s := h.bind("10.0.0.1:7")
		h.arrives("delivered", packet{}.udp(9, 7, "never read"))
		s.writes("the last", "10.0.0.2:9")
		require.NoError(t, s.Close())
		h.want("10.0.0.1.7 > 10.0.0.2.9: udp 8")
	}
	require.Zero(t, h.iface.engines[0].wheel.count)
}

// Handlers and the sockets' users go on while their rings shrink and grow.
func TestTrimmingBesideUsers(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	s := h.socket(wire.ProtocolUDP)
	require.NoError(t, s.Bind(ap("10.0.0.1:7")))
	for round := range 50 {
		for n := range 1 + round*7%60 {
			require.True(t, h.peers[0].Inject(packet{}.udp(9, 7, pattern(100+n*20))))
		}
		h.settle()
		for n := range 1 + round*7%60 {
			if n == round%5 { // in the middle of reading
				h.wait(trimInterval)
			}
			s.wants(pattern(100+n*20), "10.0.0.2:9")
		}
		h.wait(time.Duration(round%3) * trimInterval)
	}
}
