package socketapi_test

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// kernel stands for whoever has a say in ports outside the stack.
type kernel struct {
	mu    sync.Mutex
	taken map[uint16]error
}

func (k *kernel) Reserve(_ wire.Protocol, addr netip.Addr, port uint16) (uint16, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if port == 0 {
		for port = 1024; k.taken[port] != nil; port++ {
		}
	}
	if err := k.taken[port]; err != nil {
		return 0, fmt.Errorf("reserve %v:%d: %w", addr, port, err)
	}
	k.taken[port] = EADDRINUSE
	return port, nil
}

func (k *kernel) Release(_ wire.Protocol, _ netip.Addr, port uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.taken, port)
}

// Bind asks whoever shares the address, and tells the caller what it answered.
func TestBindAsksTheKernel(t *testing.T) {
	s := stack.New(stack.Config{})
	addr := netip.MustParsePrefix("10.0.0.1/24")
	ports := &kernel{taken: map[uint16]error{53: EADDRINUSE, 80: EACCES}}
	_, err := s.AddInterface(stack.InterfaceConfig{
		Name: "shared0", Links: []stack.Link{linktest.New(linktest.Config{}).End(0)}, Addresses: []netip.Prefix{addr}, Ports: ports,
	})
	require.NoError(t, err)
	h := &host{calls: New(s), t: t}
	at := func(port uint16) *netip.AddrPort {
		a := netip.AddrPortFrom(addr.Addr(), port)
		return &a
	}
	for _, create := range []func() Token{h.udp, h.tcp} {
		require.ErrorIs(t, h.Bind(create(), at(53)), EADDRINUSE, "taken in the kernel")
		require.ErrorIs(t, h.Bind(create(), at(80)), EACCES, "not allowed to this user")
		require.Equal(t, netip.AddrPortFrom(INADDR_LOOPBACK, 53), h.bind(create(), netip.AddrPortFrom(INADDR_ANY, 53)),
			"address 0 goes on to the next interface")
		bound := create()
		got := h.bind(bound, *at(0))
		require.Equal(t, EADDRINUSE, ports.taken[got.Port()])
		require.NoError(t, h.CloseSocket(bound))
		require.NotContains(t, ports.taken, got.Port(), "a close gives the port back")
	}
	require.NoError(t, h.Close())
}

// An error about what an ICMP socket sent comes as the message it is: here a router says that an echo request ran out of
// hops (RFC 792, "Time Exceeded Message").
func TestICMPErrorReachesItsSocket(t *testing.T) {
	s := stack.New(stack.Config{})
	w := linktest.New(linktest.Config{RealTime: true})
	ours := netip.MustParsePrefix("10.0.0.1/24")
	_, err := s.AddInterface(stack.InterfaceConfig{
		Name: "card0", Links: []stack.Link{w.End(0)}, Mode: stack.Owned, Addresses: []netip.Prefix{ours},
	})
	require.NoError(t, err)
	s.Start()
	h := &host{calls: New(s), t: t}
	socket := h.icmp()
	h.bind(socket, netip.AddrPortFrom(ours.Addr(), 4711))

	local, _ := wire.AddrFrom(ours.Addr())
	router, distant := local+1, wire.Addr(0xC6336401)
	echo := wire.ICMP(echoRequest(1, ""))
	echo.SetID(4711)
	echo.SetChecksum()
	sent := packet(wire.ProtocolICMP, local, distant, echo)
	exceeded := make([]byte, 100)
	exceeded = exceeded[:wire.PutICMPError(exceeded, wire.ICMPErrorFields{Type: wire.ICMPTimeExceeded}, sent)]
	frame := make([]byte, wire.EthernetLen)
	wire.PutEthernet(frame, &wire.EthernetInfo{Dst: w.End(0).HardwareAddr(), Src: w.End(1).HardwareAddr(), Type: wire.EtherTypeIPv4})
	require.True(t, w.End(1).Inject(append(frame, packet(wire.ProtocolICMP, router, local, exceeded)...)))

	m, from := h.hearsICMP(socket)
	require.Equal(t, exceeded, m)
	require.Equal(t, router.Netip(), from.Addr())
	require.NoError(t, h.Close())
	require.NoError(t, s.Close())
}

// packet is an IPv4 packet.
func packet(proto wire.Protocol, src, dst wire.Addr, payload []byte) []byte {
	b := append(make([]byte, wire.IPv4Len), payload...)
	wire.PutIPv4(b, &wire.IPv4Fields{TotalLength: len(b), TTL: 64, Protocol: proto, Src: src, Dst: dst})
	return b
}

// An attempt to connect ends by the stack's own numbers, which by default make a minute.
func TestConnectTimesOut(t *testing.T) {
	total := time.Duration(0)
	c := stack.DefaultTCP()
	for i := range c.SYNRetries + 1 {
		total += c.InitialRTO << i
	}
	require.InDelta(t, time.Minute.Seconds(), total.Seconds(), 5)

	c.InitialRTO, c.SYNRetries = 20*time.Millisecond, 2
	s := stack.New(stack.Config{TCP: &c})
	card, err := s.AddInterface(stack.InterfaceConfig{
		Name: "card0", Links: []stack.Link{linktest.New(linktest.Config{RealTime: true}).End(0)}, Mode: stack.Owned,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")},
	})
	require.NoError(t, err)
	silent := netip.MustParseAddrPort("10.0.0.2:80")
	card.SetNeighbour(stack.NeighbourEntry{
		Addr: silent.Addr(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}, State: stack.NeighbourPermanent,
	})
	s.Start()
	h := &host{calls: New(s), t: t}
	start := time.Now()
	require.ErrorIs(t, h.Connect(h.tcp(), silent), ETIMEDOUT)
	require.GreaterOrEqual(t, time.Since(start), (20+40+80)*time.Millisecond)
	require.NoError(t, h.Close())
	require.NoError(t, s.Close())
}

// A machine without a card has nowhere to send a broadcast to.
func TestBroadcastWithoutInterface(t *testing.T) {
	h := &host{calls: New(stack.New(stack.Config{})), t: t}
	s := h.udp()
	h.bind(s, any0)
	_, err := h.SendTo(s, nil, 0, netip.AddrPortFrom(INADDR_BROADCAST, 7))
	require.ErrorIs(t, err, EADDRNOTAVAIL)
	require.NoError(t, h.Close())
}

// When the stack below is closed, its sockets' tokens are still good, but nothing can be done with them.
func TestStackClosed(t *testing.T) {
	s := stack.New(stack.Config{})
	s.Start()
	h := &host{calls: New(s), t: t}
	idle := h.udp()
	waiting := h.udp()
	errs := make(chan error)
	go func() {
		_, _, err := h.RecvFrom(waiting, nil, 0)
		errs <- err
	}()
	go func() {
		_, err := h.Select(math.MaxInt64, set(idle), nil, nil, nil)
		errs <- err
	}()
	blocked(t, "RecvFrom", 1)
	blocked(t, "Select", 1)
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-errs, ENETDOWN)
	require.ErrorIs(t, <-errs, ENETDOWN)
	addr := any0
	require.ErrorIs(t, h.Bind(idle, &addr), ENETDOWN)
	require.NoError(t, h.CloseSocket(idle))
	require.ErrorIs(t, h.CloseSocket(idle), EBADF)
	require.NoError(t, h.Close())
}

// Streams and Go's conns end with the stack, too: with ENETDOWN, and as if they were closed.
func TestStackClosedUnderStreams(t *testing.T) {
	s := stack.New(stack.Config{})
	s.Start()
	h := &host{calls: New(s), t: t}
	l := h.tcp()
	addr := h.bind(l, netip.AddrPortFrom(INADDR_LOOPBACK, 0))
	require.NoError(t, h.Listen(l, 2))
	client := h.dial(addr)
	h.accepts(l)
	require.NoError(t, h.SetTimeout(l, SO_RCVTIMEO, 0))
	n := h.goNet()
	gol, err := n.ListenTCP("tcp", nil)
	require.NoError(t, err)
	goc, err := n.Dial("tcp", gol.Addr().String())
	require.NoError(t, err)
	udp, err := n.ListenUDP("udp", nil)
	require.NoError(t, err)
	downs, closeds := make(chan error), make(chan error)
	go func() { _, _, err := h.Accept(l); downs <- err }()
	go func() { downs <- would["Recv"](h, client, 0) }()
	go func() { _, err := h.Select(math.MaxInt64, set(l), nil, nil, nil); downs <- err }()
	go func() { _, err := goc.Read(make([]byte, 1)); closeds <- err }()
	go func() { _, _ = gol.Accept(); _, err := gol.Accept(); closeds <- err }()
	go func() { _, _, err := udp.ReadFrom(make([]byte, 1)); closeds <- err }()
	blocked(t, "Accept", 1)
	blocked(t, "Recv", 1)
	blocked(t, "Select", 1)
	sleeping(t, "socketapi.(*TCPConn).readBlocked", 1)
	sleeping(t, "socketapi.(*TCPListener).AcceptTCP", 1)
	sleeping(t, "socketapi.(*UDPConn).receiveBlocked", 1)
	require.NoError(t, s.Close())
	for range 3 {
		require.ErrorIs(t, <-downs, ENETDOWN)
		require.ErrorIs(t, <-closeds, net.ErrClosed)
	}
	require.ErrorIs(t, h.Connect(h.tcp(), addr), ENETDOWN)
	for _, open := range []func() error{
		func() error { _, err := n.Dial("tcp", addr.String()); return err },
		func() error { _, err := n.Dial("udp", addr.String()); return err },
		func() error { _, err := n.Listen("tcp", ":0"); return err },
		func() error { _, err := n.ListenPacket("udp", ":0"); return err },
	} {
		require.ErrorIs(t, open(), ENETDOWN)
	}
	require.NoError(t, h.Close())
}

// TCPInfo is TCP_INFO in Go's own types.
func TestTCPInfo(t *testing.T) {
	w := openStacks(t, true)
	k := w.near.calls.(*Kit)
	client, accepted := w.pair()
	w.near.says(client, "question")
	w.far.reads(accepted, "question")
	eventually(t, "it is acknowledged", func() bool {
		i, err := k.TCPInfo(client)
		require.NoError(t, err)
		return i.Delivered == uint64(len("question"))
	})
	i, err := k.TCPInfo(client)
	require.NoError(t, err)
	require.Equal(t, []string{"ESTABLISHED", "cubic"}, []string{i.State.String(), i.Congestion})
	_, err = k.TCPInfo(w.near.tcp())
	require.ErrorIs(t, err, ENOTCONN)
	_, err = k.TCPInfo(w.near.udp())
	require.ErrorIs(t, err, EOPNOTSUPP)
	_, err = k.TCPInfo(4711)
	require.ErrorIs(t, err, EBADF)
}
