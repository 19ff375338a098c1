package stack

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// What Bind answers, and where the socket then is.
func TestBind(t *testing.T) {
	h := newHost(t)
	udp := func() *sock { return h.socket(wire.ProtocolUDP) }
	require.Equal(t, syscall.EAFNOSUPPORT, udp().Bind(ap("[::1]:7")))
	require.Equal(t, syscall.EADDRNOTAVAIL, udp().Bind(ap("10.0.0.9:7")), "no address of ours")
	require.Equal(t, syscall.EADDRNOTAVAIL, udp().Bind(ap("10.0.0.255:7")), "a broadcast address")
	s := udp()
	require.Equal(t, netip.AddrPort{}, s.LocalAddr())
	require.Nil(t, s.Interface())
	require.NoError(t, s.Bind(netip.AddrPortFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 7)))
	require.Equal(t, ap("10.0.0.1:7"), s.LocalAddr())
	require.Equal(t, h.iface, s.Interface())
	require.Equal(t, syscall.EINVAL, s.Bind(ap("10.0.0.1:8")), "bound already")
	require.Equal(t, syscall.EADDRINUSE, udp().Bind(ap("10.0.0.1:7")))
	require.NoError(t, udp().Bind(ap("127.0.0.1:7")), "another address is another matter")
	require.NoError(t, s.Close())
	require.NoError(t, udp().Bind(ap("10.0.0.1:7")), "the port is free again")
	require.Equal(t, syscall.EBADF, s.Bind(ap("10.0.0.1:9")))
	require.Equal(t, syscall.EBADF, s.Close())
}

// The address 0 takes the first address on which the port is free, cards before the loopback: a loop of sockets covers them all
// and then fails.
func TestBindToAnyAddress(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Addresses = append(s.Addresses, prefix("10.0.0.4/24")) })
	for _, want := range []string{"10.0.0.1:7", "10.0.0.4:7", "127.0.0.1:7"} {
		s := h.socket(wire.ProtocolUDP)
		require.NoError(t, s.Bind(ap("0.0.0.0:7")))
		require.Equal(t, ap(want), s.LocalAddr())
	}
	require.Equal(t, syscall.EADDRINUSE, h.socket(wire.ProtocolUDP).Bind(ap("0.0.0.0:7")))
	s := New(Config{Seed: 1})
	d := s.NewDatagram(wire.ProtocolUDP)
	require.NoError(t, d.Bind(ap("0.0.0.0:7")))
	require.Equal(t, ap("127.0.0.1:7"), d.LocalAddr(), "without a card the loopback is the first")
}

// RFC 6335 §6: ports for whoever wants any are 49152 to 65535. RFC 6056 §3.3.1: they are picked by chance.
func TestBindToAnyPort(t *testing.T) {
	h := newHost(t)
	seen := make(map[uint16]bool)
	ascending := 0
	var last uint16
	for range lastEphemeral - firstEphemeral + 1 {
		s := h.socket(wire.ProtocolUDP)
		require.NoError(t, s.Bind(ap("10.0.0.1:0")))
		p := s.LocalAddr().Port()
		require.GreaterOrEqual(t, int(p), firstEphemeral)
		require.False(t, seen[p])
		seen[p] = true
		if p == last+1 {
			ascending++
		}
		last = p
	}
	require.Less(t, ascending, len(seen)/2)
	require.Equal(t, syscall.EADDRINUSE, h.socket(wire.ProtocolUDP).Bind(ap("10.0.0.1:0")), "all are taken")
	require.NoError(t, h.socket(wire.ProtocolICMP).Bind(ap("10.0.0.1:0")))
}

// ledger is a Ports that writes down what it is asked.
type ledger struct {
	next  uint16
	taken map[string]bool
	err   error
}

func (l *ledger) Reserve(proto wire.Protocol, addr netip.Addr, port uint16) (uint16, error) {
	if l.err != nil {
		return 0, l.err
	}
	if port == 0 {
		l.next++
		port = l.next
	}
	key := fmt.Sprint(proto, " ", netip.AddrPortFrom(addr, port))
	if l.taken[key] {
		return 0, syscall.EADDRINUSE
	}
	l.taken[key] = true
	return port, nil
}

func (l *ledger) Release(proto wire.Protocol, addr netip.Addr, port uint16) {
	key := fmt.Sprint(proto, " ", netip.AddrPortFrom(addr, port))
	if !l.taken[key] {
		panic(key + " was not taken")
	}
	delete(l.taken, key)
}

// Whoever has a say outside is asked for every port of the card, once for all sockets that share it, and told when it is free.
func TestBindReservesOutside(t *testing.T) {
	l := &ledger{next: 1000, taken: make(map[string]bool)}
	h := newHost(t, func(s *setup) { s.Ports = l })
	a := h.bind("10.0.0.1:0")
	require.Equal(t, ap("10.0.0.1:1001"), a.LocalAddr(), "the port that it says is free")
	h.bind("127.0.0.1:7")
	require.Equal(t, map[string]bool{"udp 10.0.0.1:1001": true}, l.taken, "the loopback is ours alone")
	p := h.pinger("10.0.0.1:77")
	require.True(t, l.taken["icmp 10.0.0.1:77"])
	require.NoError(t, a.Close())
	require.NoError(t, p.Close())
	require.Empty(t, l.taken)

	l.taken["udp 10.0.0.1:7"] = true
	require.Equal(t, syscall.EADDRINUSE, h.socket(wire.ProtocolUDP).Bind(ap("10.0.0.1:7")), "somebody else has it")
	shared := []*sock{h.socket(wire.ProtocolUDP), h.socket(wire.ProtocolUDP)}
	for _, s := range shared {
		require.NoError(t, s.SetReusePort(true))
		require.NoError(t, s.Bind(ap("10.0.0.1:8")))
	}
	require.NoError(t, shared[0].Close())
	require.True(t, l.taken["udp 10.0.0.1:8"])
	require.NoError(t, shared[1].Close())
	require.False(t, l.taken["udp 10.0.0.1:8"])

	for err, want := range map[error]syscall.Errno{
		syscall.EACCES: syscall.EACCES,
		fmt.Errorf("bind: %w", os.NewSyscallError("bind", syscall.ENOBUFS)): syscall.ENOBUFS,
		errors.New("something else"):                                        syscall.EIO,
	} {
		l.err = err
		require.Equal(t, want, h.socket(wire.ProtocolUDP).Bind(ap("10.0.0.1:9")))
	}
	l.err = nil
	h.bind("10.0.0.1:9")
}

// What Connect answers.
func TestConnect(t *testing.T) {
	h := newHost(t)
	udp := func() *sock { return h.socket(wire.ProtocolUDP) }
	require.Equal(t, syscall.EAFNOSUPPORT, udp().Connect(ap("[::1]:7")))
	require.Equal(t, syscall.EINVAL, udp().Connect(ap("10.0.0.2:0")))
	s := udp()
	require.NoError(t, s.Connect(ap("10.0.0.2:9")))
	require.Equal(t, netip.MustParseAddr(hostIP), s.LocalAddr().Addr(), "bound by the route")
	require.Equal(t, ap("10.0.0.2:9"), s.RemoteAddr())
	require.Equal(t, syscall.EISCONN, s.Connect(ap("10.0.0.3:9")))
	require.NoError(t, s.Close())
	require.Error(t, s.Connect(ap("10.0.0.2:9")))

	l := udp()
	require.NoError(t, l.Connect(ap("127.0.0.5:9")))
	require.Equal(t, netip.MustParseAddr("127.0.0.1"), l.LocalAddr().Addr())
	l = udp()
	require.NoError(t, l.Connect(ap("0.0.0.0:9")))
	require.Equal(t, ap("127.0.0.1:9"), l.RemoteAddr(), "RFC 1122 §3.2.1.3 (a): 0 is this host")
	l = udp()
	require.NoError(t, l.Connect(ap("10.0.0.1:9")))
	require.Equal(t, netip.MustParseAddr(hostIP), l.LocalAddr().Addr(), "to our own address from the same")

	b := udp()
	b.SetBroadcast(false)
	require.Equal(t, syscall.EACCES, b.Connect(ap("10.0.0.255:9")))
	require.Equal(t, syscall.EACCES, b.Connect(ap("255.255.255.255:9")))

	alone := newHost(t, func(s *setup) { s.Gateway = netip.Addr{} })
	require.Equal(t, syscall.ENETUNREACH, alone.socket(wire.ProtocolUDP).Connect(ap("192.0.2.9:9")))
}

// What Write answers.
func TestWriteErrors(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	for want, err := range map[error]error{
		syscall.EDESTADDRREQ: s.write([]byte("x"), ""),
		syscall.EINVAL:       s.write([]byte("x"), "10.0.0.2:0"),
		syscall.EAFNOSUPPORT: s.write([]byte("x"), "[::1]:9"),
		syscall.EMSGSIZE:     s.write(make([]byte, 65508), "10.0.0.2:9"),
	} {
		require.Equal(t, want, err)
	}
	s.SetBroadcast(false)
	require.False(t, s.Broadcast())
	require.Equal(t, syscall.EACCES, s.write([]byte("x"), "10.0.0.255:9"))
	require.Equal(t, syscall.EACCES, s.write([]byte("x"), "255.255.255.255:9"))
	s.SetBroadcast(true)
	s.writes("x", "10.0.0.255:9")
	h.want(broadcastTo + "10.0.0.1.7 > 10.0.0.255.9: udp 1")

	lo := h.bind("127.0.0.1:7")
	require.Equal(t, syscall.EINVAL, lo.write([]byte("x"), "10.0.0.2:9"), "RFC 1122 §3.2.1.3 (g): a loopback address never leaves")
	require.Equal(t, syscall.EINVAL, lo.write([]byte("x"), "10.0.0.255:9"))

	u := h.socket(wire.ProtocolUDP)
	require.Equal(t, syscall.EDESTADDRREQ, u.write([]byte("x"), ""))
	u.writes("x", "10.0.0.2:9")
	require.Equal(t, netip.MustParseAddr(hostIP), u.LocalAddr().Addr(), "the first message binds")
	require.Equal(t, u.LocalAddr().Port(), h.take(0).udp().SrcPort())
	u.writes("y", "10.0.0.3:9")
	h.want(broadcastTo + "arp who-has 10.0.0.3 tell 10.0.0.1")
	n, err := u.Write([]Message{{Buf: []byte("1"), Addr: ap("10.0.0.2:9")}, {Buf: []byte("2"), Addr: ap("10.0.0.2:0")}, {Buf: []byte("3"), Addr: ap("10.0.0.2:9")}})
	require.NoError(t, err)
	require.Equal(t, 1, n, "up to the first that is refused")
	h.want("10.0.0.1." + fmt.Sprint(u.LocalAddr().Port()) + " > 10.0.0.2.9: udp 1")
	require.NoError(t, u.Close())
	require.Equal(t, syscall.EBADF, u.write([]byte("x"), "10.0.0.2:9"))
	_, err = u.read()
	require.Equal(t, syscall.EBADF, err)
	require.Equal(t, Closed|Readable|Writable, u.Events())
	h.wantIdle("no more")
}

// A connected socket may send elsewhere too, as SendTo and Send may be mixed.
func TestWriteElsewhereWhileConnected(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	s.writes("a", "10.0.0.2:10")
	s.writes("b", "")
	h.want("10.0.0.1.7 > 10.0.0.2.10: udp 1")
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 1")
}

// INADDR_BROADCAST goes out on every card, from an address of that card.
func TestWriteToEveryCard(t *testing.T) {
	h := newHost(t)
	second := addCard(h, "eth1", "172.16.0.1/16")
	s := h.bind("10.0.0.1:7")
	s.writes("all", "255.255.255.255:9")
	h.want(broadcastTo + "10.0.0.1.7 > 255.255.255.255.9: udp 3")
	require.Equal(t, "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff 172.16.0.1.7 > 255.255.255.255.9: udp 3", wire.Dump(second.Take()))
	h.wantIdle("once on each")
	require.Equal(t, syscall.EADDRNOTAVAIL, New(Config{}).NewDatagram(wire.ProtocolUDP).Connect(ap("255.255.255.255:9")))
}

// A broadcast that finds no room on any card answers EAGAIN; where one card has room it is sent there.
func TestWriteToEveryCardWithoutRoom(t *testing.T) {
	h := newHost(t)
	second := addCard(h, "eth1", "172.16.0.1/16")
	s := h.bind("10.0.0.1:7")
	s.SetSendBuffer(0)
	fill := func(to string) {
		for s.write(nil, to) == nil {
		}
	}
	fill("10.0.0.2:9")
	s.writes("one card", "255.255.255.255:9")
	fill("172.16.255.255:9")
	require.Equal(t, syscall.EAGAIN, s.write([]byte("no card"), "255.255.255.255:9"))
	h.settle()
	broadcasts := 0
	for f := second.Take(); f != nil; f = second.Take() {
		if string(sent(f).udp().Payload()) == "one card" {
			broadcasts++
		}
	}
	require.Equal(t, 1, broadcasts)
	for f := h.take(0); f != nil; f = h.take(0) {
		require.Equal(t, "10.0.0.1.7 > 10.0.0.2.9: udp 0", describe(f))
	}
}

// A send buffer that is full answers EAGAIN; the engine makes room and says so.
func TestWriteBufferFull(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.SetSendBuffer(4096)
	require.Equal(t, 4096, s.SendBuffer())
	w := NewWaiter()
	s.Watch(w, Writable)
	ms := make([]Message, 10)
	for n := range ms {
		ms[n] = Message{Buf: []byte(pattern(1000)), Addr: ap("10.0.0.2:9")}
	}
	n, err := s.Write(ms)
	require.NoError(t, err)
	require.InDelta(t, 4, n, 1)
	_, err = s.Write(ms)
	require.Equal(t, syscall.EAGAIN, err)
	require.Zero(t, s.Events()&Writable)
	require.NotZero(t, h.Sockets()[0].WriteQueue)
	h.settle()
	require.Len(t, w.C, 1, "the waiter is told")
	require.Equal(t, Writable, s.Events())
	for range n {
		h.take(0)
	}
	h.wantIdle("what Write took")
	s.Unwatch(w)
	<-w.C
	s.writes("x", "10.0.0.2:9")
	h.take(0)
	require.Empty(t, w.C, "Unwatch ends it")
}

// Any datagram gets through, whatever the buffers are: one of any size has room in an empty one, as with SO_SNDBUF.
func TestSmallBuffersTakeALongDatagram(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.SetSendBuffer(0)
	s.SetReceiveBuffer(0)
	require.Equal(t, 2048, s.SendBuffer())
	s.writes(pattern(65507), "10.0.0.2:9")
	h.wantRest(0)
	for _, f := range pieces(1, pattern(65507), 1480) {
		h.peers[0].Inject(f)
	}
	s.wants(pattern(65507), "10.0.0.2:4000")
	s.SetReceiveBuffer(1 << 40)
	require.Equal(t, maxSocketBuffer, s.ReceiveBuffer())
}

// What Write took still goes out after Close, of the socket or of the stack.
func TestCloseSendsWhatWasWritten(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.writes("one", "10.0.0.2:9")
	require.NoError(t, s.Close())
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 3")
	s = h.bind("10.0.0.1:7")
	for range 600 {
		s.writes("two!", "10.0.0.2:9")
	}
	require.NoError(t, h.Close())
	for range 600 {
		require.Equal(t, "10.0.0.1.7 > 10.0.0.2.9: udp 4", describe(h.peers[0].Take()))
	}
	require.Equal(t, syscall.EBADF, s.write([]byte("x"), "10.0.0.2:9"))
	require.NoError(t, h.Close(), "twice is once")
	require.Empty(t, h.Sockets())
}

// Waiters: each is told of what it wants, errors and the end always.
func TestWaiters(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	r, w, both := NewWaiter(), NewWaiter(), NewWaiter()
	s.Watch(r, Readable)
	s.Watch(w, Writable)
	s.Watch(both, Readable|Writable)
	told := func(want ...bool) {
		t.Helper()
		for n, w := range []*Waiter{r, w, both} {
			got := false
			select {
			case <-w.C:
				got = true
			default:
			}
			require.Equal(t, want[n], got, "waiter %d", n)
		}
	}
	h.arrives("delivered", packet{}.udp(9, 7, "x"))
	told(true, false, true)
	s.writes("x", "")
	f := h.take(0)
	told(false, true, true)
	h.arrives("consumed", packet{}.icmpAbout(f, wire.ICMPUnreachable, 3, 0))
	told(true, true, true)
	s.Unwatch(both)
	require.NoError(t, s.Close())
	told(true, true, false)
}

// The options that a socket has, and what they answer.
func TestDatagramOptions(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Limits.ReceiveBuffer, s.Limits.SendBuffer = 12345, 54321 })
	s := h.socket(wire.ProtocolUDP)
	require.Equal(t, 12345, s.ReceiveBuffer())
	require.Equal(t, 54321, s.SendBuffer())
	require.Equal(t, uint8(64), s.TTL())
	require.Equal(t, syscall.EINVAL, s.SetTTL(0))
	require.NoError(t, s.SetTTL(255))
	require.Equal(t, uint8(255), s.TTL())
	s.SetTOS(3)
	require.Equal(t, uint8(3), s.TOS())
	require.True(t, s.Broadcast())
	require.False(t, s.ReusePort())
	require.NoError(t, s.SetReusePort(true))
	require.True(t, s.ReusePort())
	require.False(t, s.ReuseAddr())
	s.SetReuseAddr(true)
	require.True(t, s.ReuseAddr())
	require.Equal(t, wire.ProtocolUDP, s.Protocol())
}

// The list of sockets has what `kitd sockets` shows.
func TestSockets(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	h.socket(wire.ProtocolICMP)
	h.arrives("delivered", packet{}.udp(9, 7, "hello"))
	s.writes("hi", "")
	h.take(0)
	s.writes("waiting", "")
	list := h.Sockets()
	require.Len(t, list, 2)
	require.Equal(t, SocketInfo{
		ID: 1, Proto: wire.ProtocolUDP, Local: ap("10.0.0.1:7"), Remote: ap("10.0.0.2:9"), Interface: "eth0",
		ReadQueue: 32, WriteQueue: 32, Received: 1, RxBytes: 5, Sent: 1, TxBytes: 2,
	}, list[0])
	require.Equal(t, SocketInfo{ID: 2, Proto: wire.ProtocolICMP}, list[1])
}
