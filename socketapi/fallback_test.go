package socketapi_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// These tests use the loopback of the machine's kernel, beside stacks in memory.

// fallbacks is a Dialer and a ListenConfig of a host's that may use the kernel.
func (h *host) fallbacks() (*Dialer, *ListenConfig) {
	n := h.goNet()
	return &Dialer{Net: n, Fallback: true, Timeout: patience}, &ListenConfig{Net: n, Fallback: true}
}

// kernelListens is a listener of the kernel's.
func kernelListens(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// kernelPair is a TCPConn of the kernel's and its peer, whoever dialled.
func (w *world) kernelPair(kitDials bool) (*TCPConn, *net.TCPConn) {
	t := w.near.t
	t.Helper()
	dialer, config := w.near.fallbacks()
	var l net.Listener
	var peer net.Conn
	var err error
	if kitDials {
		l = kernelListens(t, "127.0.0.1:0")
		peer, err = dialer.Dial("tcp", l.Addr().String())
	} else {
		l, err = config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		peer, err = net.Dial("tcp", l.Addr().String())
	}
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	t.Cleanup(func() { _ = accepted.Close(); _ = peer.Close() })
	if kitDials {
		return peer.(*TCPConn), accepted.(*net.TCPConn)
	}
	return accepted.(*TCPConn), peer.(*net.TCPConn)
}

// Connections of the kernel's are held to what the net package promises of a net.Conn, as those of the stack are.
func TestFallbackNetConn(t *testing.T) {
	for name, kitDials := range map[string]bool{"dialled": true, "accepted": false} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				near, far := openStacks(t, true).kernelPair(kitDials)
				return near, far, func() { _ = near.Close(); _ = far.Close() }, nil
			})
		})
	}
}

// Likewise connected datagrams.
func TestFallbackPacketConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		w := openStacks(t, true)
		dialer, _ := w.near.fallbacks()
		var at [2]netip.AddrPort
		for i := range at {
			held, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				return nil, nil, nil, err
			}
			at[i] = held.LocalAddr().(*net.UDPAddr).AddrPort()
			if err := held.Close(); err != nil {
				return nil, nil, nil, err
			}
		}
		var us [2]*UDPConn
		for i := range us {
			if us[i], err = dialer.DialUDP(t.Context(), "udp", at[i], at[1-i]); err != nil {
				return nil, nil, nil, err
			}
			raw, err := us[i].SyscallConn()
			if err != nil {
				return nil, nil, nil, err
			}
			if err := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
			}); err != nil {
				return nil, nil, nil, err
			}
		}
		t.Cleanup(func() { _ = us[0].Close(); _ = us[1].Close() })
		return &datagramPipe{UDPConn: us[0]}, &datagramPipe{UDPConn: us[1]}, func() {}, nil // each side closes its own
	})
}

// What the stack reaches is the stack's, and the rest is the kernel's, which says why.
func TestFallbackDials(t *testing.T) {
	w := openStacks(t, true)
	dialer, _ := w.near.fallbacks()
	kernels, kernels6 := kernelListens(t, "127.0.0.1:0"), kernelListens(t, "[::1]:0")
	within, err := w.near.goNet().Listen("tcp", ":0")
	require.NoError(t, err)
	port := portText(within.Addr().(*net.TCPAddr).AddrPort().Port())
	names := resolverOf(t, map[string][]netip.Addr{
		"both.test.": {w.far.cards[1], INADDR_LOOPBACK}, // where nobody listens, and the kernel
	})
	for _, c := range []struct{ why, network, to, want string }{
		{"another host's address", "tcp", w.far.listens().Addr().String(), ""},
		{"one of the stack's own", "tcp", w.near.at(1, port), ""},
		{"the stack's loopback, where the stack has the port", "tcp", "127.0.0.1:" + port, ""},
		{"no host, where the stack has the port", "tcp4", ":" + port, ""},
		{"the kernel's loopback", "tcp", kernels.Addr().String(), "destination 127.0.0.1 is the kernel's"},
		{"no host, where the kernel has the port", "tcp", portOfText(kernels.Addr()), "destination 127.0.0.1 is the kernel's"},
		{"IPv6", "tcp", kernels6.Addr().String(), "kit has no IPv6"},
		{"IPv6 by network", "tcp6", portOfText(kernels6.Addr()), "kit has no IPv6"},
		{"a name whose second address is the kernel's", "tcp", "both.test." + portOfText(kernels.Addr()), "destination 127.0.0.1 is the kernel's"},
	} {
		dialer.Resolver = names
		got, err := dialer.Dial(c.network, c.to)
		require.NoError(t, err, c.why)
		conn := got.(*TCPConn)
		yes, why := conn.Accelerated()
		require.Equal(t, []any{c.want == "", c.want}, []any{yes, why}, c.why)
		require.Equal(t, yes, conn.Stream() != nil)
		require.NoError(t, conn.Close())
	}
	for _, c := range []struct{ why, network, to, want string }{
		{"another host's address", "udp", w.far.at(0, "9"), ""},
		{"no route of kit's", "udp", nowhere.String(), "no route of kit leads to " + nowhere.Addr().String()},
		{"IPv6", "udp", "[::1]:9", "kit has no IPv6"},
	} {
		got, err := dialer.Dial(c.network, c.to)
		if c.want != "" && err != nil { // the kernel of this machine has no route there either
			wantOpError(t, err, "dial", "udp", ENETUNREACH)
			continue
		}
		require.NoError(t, err, c.why)
		yes, why := got.(*UDPConn).Accelerated()
		require.Equal(t, []any{c.want == "", c.want}, []any{yes, why}, c.why)
		require.NoError(t, got.Close())
	}
	// A local address decides, too: one of the kernel's alone, and one that it does not have.
	at := kernels.Addr().(*net.TCPAddr).AddrPort()
	c, err := dialer.DialTCP(t.Context(), "tcp", netip.AddrPortFrom(INADDR_LOOPBACK, 0), at)
	require.NoError(t, err)
	require.Equal(t, INADDR_LOOPBACK, c.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
	require.NoError(t, c.Close())
	_, err = dialer.DialTCP(t.Context(), "tcp", netip.AddrPortFrom(w.near.cards[0], 0), at)
	wantOpError(t, err, "dial", "tcp", nil)
	require.Empty(t, outsiders(w.near), "all are closed")
}

// portOfText is ":port" of an address.
func portOfText(a net.Addr) string {
	text := a.String()
	return text[strings.LastIndex(text, ":"):]
}

// outsiders are the sockets of a host that are the kernel's.
func outsiders(h *host) (infos []stack.SocketInfo) {
	for _, i := range h.goNet().Stack().Sockets() {
		if i.Unaccelerated != "" {
			infos = append(infos, i)
		}
	}
	return infos
}

// What fails by way of the kernel says so as the net package does.
func TestFallbackErrors(t *testing.T) {
	w := openStacks(t, true)
	dialer, config := w.near.fallbacks()
	taken := kernelListens(t, "127.0.0.1:0")
	l := kernelListens(t, "127.0.0.1:0")
	refused := l.Addr().String()
	require.NoError(t, l.Close())
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	var address *net.AddrError
	for _, c := range []struct {
		why  string
		call func() error
		op   string
		net  string
		is   error
		as   any
	}{
		{"nobody listens", func() error { _, err := dialer.Dial("tcp4", refused); return err }, "dial", "tcp4", ECONNREFUSED, nil},
		{"a cancelled context", func() error { _, err := dialer.DialContext(canceled, "tcp", refused); return err }, "dial", "tcp",
			context.Canceled, nil},
		{"a deadline long ago", func() error {
			d := *dialer
			d.Deadline = time.Unix(1, 0)
			_, err := d.Dial("tcp", refused)
			return err
		}, "dial", "tcp", os.ErrDeadlineExceeded, nil},
		{"IPv4 for IPv6", func() error { _, err := dialer.Dial("tcp6", refused); return err }, "dial", "tcp6", nil, &address},
		{"IPv6 for IPv4", func() error { _, err := dialer.Dial("udp4", "[::1]:9"); return err }, "dial", "udp4", nil, &address},
		{"a local address of the other family", func() error {
			_, err := dialer.DialTCP(t.Context(), "tcp", netip.MustParseAddrPort("[::1]:0"), netip.MustParseAddrPort(refused))
			return err
		}, "dial", "tcp", nil, &address},
		{"a local port that is taken", func() error {
			_, err := dialer.DialTCP(t.Context(), "tcp", netip.MustParseAddrPort(taken.Addr().String()), netip.MustParseAddrPort(refused))
			return err
		}, "dial", "tcp", EADDRINUSE, nil},
		{"a port that the kernel has", func() error {
			_, err := config.Listen(t.Context(), "tcp", taken.Addr().String())
			return err
		}, "listen", "tcp", EADDRINUSE, nil},
		{"the same on every address", func() error {
			_, err := config.Listen(t.Context(), "tcp", portOfText(taken.Addr()))
			return err
		}, "listen", "tcp", EADDRINUSE, nil},
		{"nobody's address", func() error { _, err := config.Listen(t.Context(), "tcp", nowhere.String()); return err }, "listen", "tcp",
			EADDRNOTAVAIL, nil},
		{"nobody's address for datagrams", func() error {
			_, err := config.ListenPacket(t.Context(), "udp", nowhere.String())
			return err
		}, "listen", "udp", EADDRNOTAVAIL, nil},
	} {
		err := c.call()
		require.Error(t, err, c.why)
		o := wantOpError(t, err, c.op, c.net, c.is)
		if c.as != nil {
			require.ErrorAs(t, err, c.as, c.why)
		}
		require.NotPanics(t, func() { _ = o.Error() })
	}
	_, err := dialer.Dial("tcp", refused)
	require.EqualError(t, err, "dial tcp "+refused+": connect: connection refused")
	require.Empty(t, outsiders(w.near))
	require.Empty(t, inState(w.near.goNet().Stack(), "LISTEN"), "nothing is left of what failed")
}

// A port that is taken in the stack is not listened at in the kernel either.
func TestFallbackListensAllOrNothing(t *testing.T) {
	w := openStacks(t, true)
	_, config := w.near.fallbacks()
	held := kernelListens(t, "127.0.0.1:0") // a port that is free again, for all the test can tell
	port := portOfText(held.Addr())
	require.NoError(t, held.Close())
	_, err := w.near.goNet().Listen("tcp", w.near.cards[1].String()+port)
	require.NoError(t, err)
	_, err = w.near.goNet().ListenPacket("udp", w.near.cards[1].String()+port)
	require.NoError(t, err)
	_, err = config.Listen(t.Context(), "tcp", port)
	require.ErrorIs(t, err, EADDRINUSE)
	_, err = config.ListenPacket(t.Context(), "udp", port)
	require.ErrorIs(t, err, EADDRINUSE)
	require.Empty(t, outsiders(w.near))
	kernelListens(t, port)
}

// A listener without a host takes connections of the card, of the stack's loopback, and of the kernel's addresses, IPv6 included.
func TestFallbackListensEverywhere(t *testing.T) {
	w := openStacks(t, true)
	dialer, config := w.near.fallbacks()
	got, err := config.Listen(t.Context(), "tcp", ":0")
	require.NoError(t, err)
	l := got.(*TCPListener)
	port := portOfText(l.Addr())
	require.Equal(t, "[::]"+port, l.Addr().String())
	require.Len(t, l.Streams(), 3)
	for range 3 {
		for _, from := range []struct {
			to, why string
			dial    func(network, address string) (net.Conn, error)
		}{
			{w.near.cards[0].String(), "", w.far.goNet().Dial},
			{w.near.cards[1].String(), "", w.far.goNet().Dial},
			{w.near.cards[0].String(), "", dialer.Dial},
			{"127.0.0.1", "", dialer.Dial},
			{"127.0.0.1", "the kernel took it at 127.0.0.1", net.Dial},
			{"[::1]", "the kernel took it at ::1", net.Dial},
		} {
			peer, err := from.dial("tcp", from.to+port)
			require.NoError(t, err)
			c, err := l.AcceptTCP()
			require.NoError(t, err)
			yes, why := c.Accelerated()
			require.Equal(t, []any{from.why == "", from.why}, []any{yes, why})
			require.Equal(t, peer.LocalAddr().String(), c.RemoteAddr().String())
			require.Equal(t, peer.RemoteAddr().String(), c.LocalAddr().String())
			_, err = c.Write([]byte("hello"))
			require.NoError(t, err)
			buf := make([]byte, 5)
			_, err = io.ReadFull(peer, buf)
			require.NoError(t, err)
			require.NoError(t, c.Close())
			require.NoError(t, peer.Close())
		}
	}
	infos := outsiders(w.near)
	require.Len(t, infos, 1)
	require.Equal(t, []any{wire.ProtocolTCP, "LISTEN", l.Addr().String(), "for the addresses that are not kit's"},
		[]any{infos[0].Proto, infos[0].State, infos[0].Local.String(), infos[0].Unaccelerated})

	// Who waits is woken by the kernel, by a deadline and by Close; what nobody accepted ends.
	accepts := make(chan error)
	accept := func() { _, err := l.Accept(); accepts <- err }
	go accept()
	sleeping(t, "socketapi.(*TCPListener).AcceptTCP", 1)
	_, err = net.Dial("tcp", "127.0.0.1"+port)
	require.NoError(t, err)
	require.NoError(t, <-accepts)
	require.NoError(t, l.SetDeadline(time.Now().Add(time.Millisecond)))
	_, err = l.Accept()
	wantTimeout(t, err)
	require.NoError(t, l.SetDeadline(time.Time{}))
	go accept()
	sleeping(t, "socketapi.(*TCPListener).AcceptTCP", 1)
	require.NoError(t, l.Close())
	wantOpError(t, <-accepts, "accept", "tcp", net.ErrClosed)
	wantOpError(t, l.Close(), "close", "tcp", net.ErrClosed)
	for _, to := range []string{"127.0.0.1", "[::1]"} {
		_, err = net.Dial("tcp", to+port)
		require.ErrorIs(t, err, ECONNREFUSED)
	}
}

// A listener that is all the kernel's waits and ends like the others, and a connection that nobody accepted is reset with it.
func TestFallbackListensInTheKernelAlone(t *testing.T) {
	w := openStacks(t, true)
	_, config := w.near.fallbacks()
	for _, network := range []string{"tcp", "tcp6"} {
		l, err := config.Listen(t.Context(), network, "[::1]:0")
		require.NoError(t, err)
		require.Empty(t, l.(*TCPListener).Streams())
		errs := make(chan error)
		go func() { _, err := l.Accept(); errs <- err }()
		sleeping(t, "socketapi.(*TCPListener).AcceptTCP", 1)
		require.NoError(t, l.Close())
		wantOpError(t, <-errs, "accept", network, net.ErrClosed)

		l, err = config.Listen(t.Context(), network, "[::1]:0")
		require.NoError(t, err)
		peer, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, l.Close())
		_, err = peer.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	}
}

// Where a descriptor is missing, Accept says so, as something that passes, and goes on when there are some again.
func TestFallbackAcceptWithoutDescriptors(t *testing.T) {
	w := openStacks(t, true)
	_, config := w.near.fallbacks()
	l, err := config.Listen(t.Context(), "tcp", ":0")
	require.NoError(t, err)
	defer l.Close()
	port := portOfText(l.Addr())
	first, err := net.Dial("tcp", "127.0.0.1"+port)
	require.NoError(t, err)
	_, err = l.Accept()
	require.NoError(t, err)
	raw, err := first.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { // a socket that is there already is what the kernel hands over
		var was unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(client)
		none := was
		none.Cur = 0
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
		defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) }()
		at := netip.MustParseAddrPort("127.0.0.1" + port)
		require.NoError(t, unix.Connect(client, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}))
		_, err = l.Accept()
		wantOpError(t, err, "accept", "tcp", unix.EMFILE)
		var passes interface{ Temporary() bool }
		require.ErrorAs(t, err, &passes)
		require.True(t, passes.Temporary(), "net/http asks for that, waits and tries again")
		// Connections of the stack take no descriptor. The kernel's turn comes before or after it.
		c, err := w.far.goNet().Dial("tcp", w.near.cards[0].String()+port)
		require.NoError(t, err)
		eventually(t, "the stack's is accepted", func() bool {
			a, err := l.Accept()
			return err == nil && a.RemoteAddr().String() == c.LocalAddr().String()
		})
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
		eventually(t, "the kernel's is accepted", func() bool { _, err := l.Accept(); return err == nil })
	}))
}

// What is closed is net.ErrClosed, in every method of a connection of the kernel's as well.
func TestFallbackTCPClosed(t *testing.T) {
	near, _ := openStacks(t, true).kernelPair(true)
	require.NoError(t, near.Close())
	calls := tcpCalls(near)
	calls["ReadFrom"] = methodCall{"readfrom", func() error { _, err := near.ReadFrom(strings.NewReader("x")); return err }}
	calls["WriteTo"] = methodCall{"writeto", func() error { _, err := near.WriteTo(io.Discard); return err }}
	calls["File"] = methodCall{"file", func() error { _, err := near.File(); return err }}
	delete(calls, "SyscallConn") // the net package's says so when it is used
	for name, c := range calls {
		err := c.call()
		require.Error(t, err, name)
		wantOpError(t, err, c.op, "tcp", net.ErrClosed)
	}
}

// What is set reaches the kernel's socket, and what the net package sets by itself is set; the list of sockets has its figures.
func TestFallbackTCPOptions(t *testing.T) {
	for _, kitDials := range []bool{true, false} {
		w := openStacks(t, true)
		near, far := w.kernelPair(kitDials)
		get := func(level, name int) (v int) {
			t.Helper()
			require.NoError(t, raw(t, near).Control(func(fd uintptr) {
				var err error
				v, err = unix.GetsockoptInt(int(fd), level, name)
				require.NoError(t, err)
			}))
			return v
		}
		require.Equal(t, 1, get(unix.IPPROTO_TCP, unix.TCP_NODELAY))
		require.Equal(t, 1, get(unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		require.Equal(t, 15, get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
		require.NoError(t, near.SetNoDelay(false))
		require.NoError(t, near.SetKeepAlivePeriod(time.Minute))
		require.NoError(t, near.SetKeepAlive(false))
		require.Equal(t, []int{0, 60, 0}, []int{get(unix.IPPROTO_TCP, unix.TCP_NODELAY), get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
			get(unix.SOL_SOCKET, unix.SO_KEEPALIVE)})

		_, err := far.Write([]byte("unread"))
		require.NoError(t, err)
		_, err = near.Write([]byte("said"))
		require.NoError(t, err)
		_, err = io.ReadFull(far, make([]byte, 4))
		require.NoError(t, err)
		eventually(t, "the list says so", func() bool {
			infos := outsiders(w.near)
			require.Len(t, infos, 1)
			i := infos[0]
			require.Equal(t, []string{near.LocalAddr().String(), near.RemoteAddr().String(), "ESTABLISHED"},
				[]string{i.Local.String(), i.Remote.String(), i.State})
			require.NotNil(t, i.TCP)
			require.NotEmpty(t, i.TCP.Congestion)
			require.Equal(t, "open", i.TCP.CongestionState)
			require.Positive(t, i.TCP.RTO)
			return i.ReadQueue == len("unread") && i.TxBytes-uint64(len("said")) <= 1 // Linux counts the SYN of who dials
		})
		require.NoError(t, near.CloseWrite())
		_, err = far.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		require.NoError(t, near.Close())
		require.Empty(t, outsiders(w.near))
	}
}

// A socket of the stack has no file, and says why; one of the kernel's has one.
func TestFile(t *testing.T) {
	w := openStacks(t, true)
	type filer interface{ File() (*os.File, error) }
	near, _ := w.tcpPair()
	_, config := w.near.fallbacks()
	mixed, err := config.Listen(t.Context(), "tcp", ":0")
	require.NoError(t, err)
	mixedUDP, err := config.ListenPacket(t.Context(), "udp", ":0")
	require.NoError(t, err)
	for name, f := range map[string]filer{
		"TCPConn": near, "TCPListener": w.near.listens(), "UDPConn": w.near.hearing("udp", ":0"),
		"a listener of both": mixed.(*TCPListener), "a conn of both": mixedUDP.(*UDPConn),
	} {
		_, err := f.File()
		var o *net.OpError
		require.ErrorAs(t, err, &o, name)
		require.Equal(t, "file", o.Op)
		require.ErrorIs(t, err, EOPNOTSUPP)
		require.ErrorContains(t, err, "has no file descriptor")
	}
	conn, _ := w.kernelPair(true)
	l, err := config.Listen(t.Context(), "tcp", "[::1]:0")
	require.NoError(t, err)
	udp, err := config.ListenPacket(t.Context(), "udp", "[::1]:0")
	require.NoError(t, err)
	for _, f := range []filer{conn, l.(*TCPListener), udp.(*UDPConn)} {
		file, err := f.File()
		require.NoError(t, err)
		require.NoError(t, file.Close())
	}
}

// The kernel's sockets end with their stack, like the others.
func TestFallbackEndsWithTheStack(t *testing.T) {
	s := stack.New(stack.Config{})
	s.Start()
	h := &host{calls: New(s), t: t}
	dialer, config := h.fallbacks()
	served := kernelListens(t, "127.0.0.1:0")
	c, err := dialer.Dial("tcp", served.Addr().String())
	require.NoError(t, err)
	l, err := config.Listen(t.Context(), "tcp", ":0")
	require.NoError(t, err)
	alone, err := config.ListenPacket(t.Context(), "udp", "[::1]:0")
	require.NoError(t, err)
	both, err := config.ListenPacket(t.Context(), "udp", ":0")
	require.NoError(t, err)
	require.Len(t, outsiders(h), 4)
	errs := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := l.Accept(); errs <- err }()
	for _, u := range []net.PacketConn{alone, both} {
		go func() { _, _, err := u.ReadFrom(make([]byte, 1)); errs <- err }()
	}
	sleeping(t, "socketapi.(*TCPListener).AcceptTCP", 1)
	sleeping(t, "socketapi.(*UDPConn).receiveBlocked", 1)
	require.NoError(t, s.Close())
	for range 4 {
		require.ErrorIs(t, <-errs, net.ErrClosed)
	}
	for _, open := range []func() error{
		func() error { _, err := dialer.Dial("tcp", served.Addr().String()); return err },
		func() error { _, err := dialer.Dial("udp", "[::1]:9"); return err },
		func() error { _, err := config.Listen(t.Context(), "tcp", "[::1]:0"); return err },
		func() error { _, err := config.ListenPacket(t.Context(), "udp", "[::1]:0"); return err },
	} {
		require.ErrorIs(t, open(), ENETDOWN)
	}
	require.NoError(t, h.Close())
}
