package socketapi_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// goNet is Go's way to a host's sockets.
func (h *host) goNet() *Net { return h.calls.(*Kit).Net() }

// at is "address:port" on one of a host's cards.
func (h *host) at(card int, port string) string {
	return net.JoinHostPort(h.cards[card].String(), port)
}

// listens is a listener on a free port of the first card.
func (h *host) listens() *TCPListener {
	h.t.Helper()
	l, err := h.goNet().Listen("tcp", h.at(0, "0"))
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = l.Close() })
	return l.(*TCPListener)
}

// tcpPair is a connection from near to far.
func (w *world) tcpPair() (near, far *TCPConn) {
	w.near.t.Helper()
	l := w.far.listens()
	c, err := w.near.goNet().Dial("tcp", l.Addr().String())
	require.NoError(w.near.t, err)
	far, err = l.AcceptTCP()
	require.NoError(w.near.t, err)
	near = c.(*TCPConn)
	for _, c := range []*TCPConn{near, far} {
		require.NoError(w.near.t, c.SetDeadline(time.Now().Add(patience)))
	}
	return near, far
}

// wantOpError wants err to be what the net package says: a *net.OpError about op, with cause inside.
func wantOpError(t testing.TB, err error, op, network string, cause error) *net.OpError {
	t.Helper()
	var o *net.OpError
	require.ErrorAs(t, err, &o)
	require.Equal(t, op, o.Op)
	require.Equal(t, network, o.Net)
	if cause != nil {
		require.ErrorIs(t, err, cause)
	}
	return o
}

// wantTimeout wants err to be a time-out in all the ways of saying so.
func wantTimeout(t testing.TB, err error) {
	t.Helper()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}

// TestNetConn holds TCP connections to what the net package promises of a net.Conn.
func TestNetConn(t *testing.T) {
	for where, listen := range map[string]func(w *world) (*Net, string){
		"wire":     func(w *world) (*Net, string) { return w.far.goNet(), w.far.at(0, "0") },
		"loopback": func(w *world) (*Net, string) { return w.near.goNet(), "127.0.0.1:0" },
	} {
		t.Run(where, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				w := openStacks(t, true)
				n, at := listen(w)
				l, err := n.Listen("tcp", at)
				if err != nil {
					return nil, nil, nil, err
				}
				c1, err = w.near.goNet().Dial("tcp", l.Addr().String())
				if err != nil {
					return nil, nil, nil, err
				}
				c2, err = l.Accept()
				if err != nil {
					return nil, nil, nil, err
				}
				return c1, c2, func() { c1.Close(); c2.Close(); l.Close() }, nil
			})
		})
	}
}

// A program of the net package needs no other change: here net/http, both ends.
func TestHTTP(t *testing.T) {
	w := openStacks(t, true)
	l, err := w.far.goNet().Listen("tcp", ":80")
	require.NoError(t, err)
	text := strings.Repeat("hello ", 100_000)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(rw, r.Body)
	})}
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	transport := &http.Transport{DialContext: w.near.goNet().DialContext}
	client := http.Client{Transport: transport}
	for card := range w.far.cards {
		r, err := client.Post("http://"+w.far.at(card, "80"), "text/plain", strings.NewReader(text))
		require.NoError(t, err)
		got, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		require.Equal(t, text, string(got))
	}
	transport.CloseIdleConnections()
	require.NoError(t, server.Shutdown(t.Context()))
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}

// Every function and method that fails says so as the net package does.
func TestNetErrors(t *testing.T) {
	w := openStacks(t, true)
	n := w.near.goNet()
	closed := w.far.at(0, "9")
	l := w.near.listens()
	taken := l.Addr().String()
	pc, err := n.ListenPacket("udp", w.near.at(0, "0"))
	require.NoError(t, err)
	canceledCtx, cancel := context.WithCancel(t.Context())
	cancel()
	tcpFrom := func(a string) *net.TCPAddr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a)) }
	dial := func(d Dialer, network, address string) func() error {
		d.Net = n
		return func() error { _, err := d.Dial(network, address); return err }
	}
	listen := func(network, address string) func() error {
		return func() error { _, err := n.Listen(network, address); return err }
	}
	packet := func(network, address string) func() error {
		return func() error { _, err := n.ListenPacket(network, address); return err }
	}
	var unknown net.UnknownNetworkError
	var address *net.AddrError
	var name *net.DNSError
	for _, c := range []struct {
		why  string
		call func() error
		op   string
		net  string
		is   error
		as   any
	}{
		{"nobody listens", dial(Dialer{}, "tcp", closed), "dial", "tcp", ECONNREFUSED, nil},
		{"nobody listens, by another name", dial(Dialer{}, "tcp4", closed), "dial", "tcp4", ECONNREFUSED, nil},
		{"no route", dial(Dialer{}, "tcp", nowhere.String()), "dial", "tcp", ENETUNREACH, nil},
		{"no route for datagrams", dial(Dialer{}, "udp", nowhere.String()), "dial", "udp", ENETUNREACH, nil},
		{"IPv6 by network", dial(Dialer{}, "tcp6", closed), "dial", "tcp6", EAFNOSUPPORT, nil},
		{"IPv6 by address", dial(Dialer{}, "udp", "[2001:db8::1]:9"), "dial", "udp", EAFNOSUPPORT, nil},
		{"another network", dial(Dialer{}, "unix", "/x"), "dial", "unix", nil, &unknown},
		{"no port", dial(Dialer{}, "tcp", "10.0.0.1"), "dial", "tcp", nil, &address},
		{"no such service", dial(Dialer{}, "tcp", "10.0.0.1:no-such-service"), "dial", "tcp", nil, &name},
		{"the other kind's address", dial(Dialer{LocalAddr: tcpFrom("10.0.0.1:9")}, "udp", closed), "dial", "udp", nil, &address},
		{"an address of another machine", dial(Dialer{LocalAddr: tcpFrom("10.0.0.2:0")}, "tcp", closed), "dial", "tcp", EADDRNOTAVAIL, nil},
		{"a port that is taken", dial(Dialer{LocalAddr: tcpFrom(taken)}, "tcp", closed), "dial", "tcp", EADDRINUSE, nil},
		{"a deadline long ago", dial(Dialer{Deadline: time.Unix(1, 0)}, "tcp", closed), "dial", "tcp", os.ErrDeadlineExceeded, nil},
		{"a deadline long ago for datagrams", dial(Dialer{Deadline: time.Unix(1, 0)}, "udp", closed), "dial", "udp",
			context.DeadlineExceeded, nil},
		{"a context that was cancelled", func() error { _, err := n.DialContext(canceledCtx, "tcp", closed); return err },
			"dial", "tcp", context.Canceled, nil},
		{"no peer", func() error { _, err := n.DialTCP("tcp", nil, nil); return err }, "dial", "tcp", nil, &address},
		{"no peer for datagrams", func() error { _, err := n.DialUDP("udp", nil, nil); return err }, "dial", "udp", nil, &address},
		{"the other kind", func() error { _, err := n.DialTCP("udp", nil, tcpFrom(closed)); return err }, "dial", "udp", nil, &unknown},
		{"a taken port", listen("tcp", taken), "listen", "tcp", EADDRINUSE, nil},
		{"a taken port on one of all addresses", listen("tcp4", ":"+taken[strings.LastIndex(taken, ":")+1:]), "listen", "tcp4",
			EADDRINUSE, nil},
		{"another machine's address", listen("tcp", w.far.at(0, "0")), "listen", "tcp", EADDRNOTAVAIL, nil},
		{"IPv6", listen("tcp", "[::]:0"), "listen", "tcp", EAFNOSUPPORT, nil},
		{"IPv6 network", listen("tcp6", ":0"), "listen", "tcp6", EAFNOSUPPORT, nil},
		{"datagrams", listen("udp", ":0"), "listen", "udp", nil, &unknown},
		{"the other kind", func() error { _, err := n.ListenTCP("udp", nil); return err }, "listen", "udp", nil, &unknown},
		{"a stream", packet("tcp", ":0"), "listen", "tcp", nil, &unknown},
		{"a taken port for datagrams", packet("udp", pc.LocalAddr().String()), "listen", "udp", EADDRINUSE, nil},
		{"another machine's address for datagrams", packet("udp", w.far.at(0, "0")), "listen", "udp", EADDRNOTAVAIL, nil},
		{"the other kind for datagrams", func() error { _, err := n.ListenUDP("tcp", nil); return err }, "listen", "tcp", nil, &unknown},
	} {
		t.Run(c.why, func(t *testing.T) {
			err := c.call()
			o := wantOpError(t, err, c.op, c.net, c.is)
			if c.as != nil {
				require.ErrorAs(t, err, c.as)
			}
			require.NotPanics(t, func() { _ = o.Error() })
		})
	}
	err = dial(Dialer{}, "tcp", closed)()
	require.EqualError(t, err, "dial tcp 10.0.0.2:9: connect: connection refused")
	err = listen("tcp", taken)()
	require.EqualError(t, err, "listen tcp "+taken+": bind: address already in use")
	require.Nil(t, wantOpError(t, err, "listen", "tcp", EADDRINUSE).Source)
}

// What is left out is what the net package leaves out: the host is this machine, or every address; the port any.
func TestNetNames(t *testing.T) {
	w := openStacks(t, true)
	n := w.near.goNet()
	for _, address := range []string{"", ":0", "127.0.0.1:0", "localhost:0"} {
		l, err := n.Listen("tcp", address)
		require.NoError(t, err)
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		require.NotZero(t, port)
		for _, to := range []string{"", "0.0.0.0", "127.0.0.1", "localhost"} {
			c, err := n.Dial("tcp", net.JoinHostPort(to, portText(port)))
			require.NoError(t, err, "from %q to %q", address, to)
			require.Equal(t, netip.AddrPortFrom(INADDR_LOOPBACK, port), c.RemoteAddr().(*net.TCPAddr).AddrPort())
			require.NoError(t, c.Close())
		}
		require.NoError(t, l.Close())
	}
	l, err := n.Listen("tcp", "127.0.0.1:http")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:80", l.Addr().String())
	require.Equal(t, "tcp", l.Addr().Network())
}

func portText(port uint16) string {
	_, text, _ := strings.Cut(netip.AddrPortFrom(INADDR_ANY, port).String(), ":")
	return text
}

// Dial ends in time, whatever gives it its time.
func TestDialTimeouts(t *testing.T) {
	w := openStacks(t, true)
	n := w.near.goNet()
	l := w.far.listens()
	c, err := n.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.Close())
	w.cut()
	to := l.Addr().String()
	const limit = 20 * time.Millisecond
	start := time.Now()
	_, err = n.DialTimeout("tcp", to, limit)
	require.GreaterOrEqual(t, time.Since(start), limit)
	wantTimeout(t, err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = (&Dialer{Net: n, Deadline: time.Now().Add(limit)}).Dial("tcp", to)
	wantTimeout(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	_, err = n.DialContext(ctx, "tcp", to)
	wantTimeout(t, err)
	cancel()
	ctx, cancel = context.WithCancel(t.Context())
	errs := make(chan error)
	go func() { _, err := n.DialContext(ctx, "tcp", to); errs <- err }()
	eventually(t, "the handshake begins", func() bool { return len(inState(n.Stack(), "SYN-SENT")) > 0 })
	cancel()
	err = <-errs
	require.ErrorIs(t, err, context.Canceled)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.False(t, timeout.Timeout())
	eventually(t, "nothing is left of it", func() bool { return len(inState(n.Stack(), "SYN-SENT")) == 0 })
}

// A local address is where a connection comes from; one without a host is what the route prefers.
func TestDialFrom(t *testing.T) {
	w := openStacks(t, true)
	l := w.far.listens()
	ear := w.far.hearing("udp", w.far.at(0, "0"))
	for _, from := range []string{"10.0.0.1:4711", "0.0.0.0:4713", "10.0.0.1:0"} {
		want := netip.MustParseAddrPort(from)
		wantAddr := want.Addr()
		if wantAddr.IsUnspecified() {
			wantAddr = w.near.cards[0]
		}
		for network, local := range map[string]net.Addr{"tcp": net.TCPAddrFromAddrPort(want), "udp": net.UDPAddrFromAddrPort(want)} {
			to := l.Addr()
			if network == "udp" {
				to = ear.LocalAddr()
			}
			c, err := (&Dialer{Net: w.near.goNet(), LocalAddr: local}).Dial(network, to.String())
			require.NoError(t, err)
			got := netip.MustParseAddrPort(c.LocalAddr().String())
			require.Equal(t, wantAddr, got.Addr())
			require.True(t, got.Port() == want.Port() || want.Port() == 0 && got.Port() != 0)
			require.Equal(t, to, c.RemoteAddr())
			require.NoError(t, c.Close())
		}
	}
}

// Dial tries one address of a name after the other, each for its share of the time.
func TestDialTriesEveryAddress(t *testing.T) {
	w := openStacks(t, true)
	l := w.far.listens()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	r := resolverOf(t, map[string][]netip.Addr{
		"two.test.":  {w.far.cards[1], w.far.cards[0]}, // nobody listens at the first
		"deaf.test.": {w.far.cards[0].Next().Next(), w.far.cards[0]},
		"none.test.": {w.far.cards[1]},
	})
	for name, err := range map[string]error{"two.test.": nil, "none.test.": ECONNREFUSED, "unknown.test.": &net.DNSError{}} {
		c, got := (&Dialer{Net: w.near.goNet(), Resolver: r}).Dial("tcp", net.JoinHostPort(name, portText(port)))
		switch {
		case err == nil:
			require.NoError(t, got)
			require.Equal(t, l.Addr(), c.RemoteAddr())
		case err == ECONNREFUSED:
			wantOpError(t, got, "dial", "tcp", ECONNREFUSED)
		default:
			var dns *net.DNSError
			require.ErrorAs(t, got, &dns)
			require.True(t, dns.IsNotFound)
		}
	}
	c, err := (&Dialer{Net: w.near.goNet(), Resolver: r, Timeout: patience}).Dial("tcp", net.JoinHostPort("deaf.test.", portText(port)))
	require.NoError(t, err, "no neighbour answers at the first address, and there was time for the second")
	require.Equal(t, l.Addr(), c.RemoteAddr())
}

// A listener without a host takes connections at every address, those that come later too.
func TestListenEverywhere(t *testing.T) {
	near := newStack(1)
	w := joinStacks(t, true, near, newStack(2))
	l, err := w.near.goNet().Listen("tcp", ":0")
	require.NoError(t, err)
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	require.True(t, addr.Addr().IsUnspecified())
	reach := func(from *host, ip netip.Addr) {
		t.Helper()
		errs := make(chan error, 1)
		go func() {
			c, err := from.goNet().DialTimeout("tcp", netip.AddrPortFrom(ip, addr.Port()).String(), patience)
			if err == nil {
				err = c.Close()
			}
			errs <- err
		}()
		require.NoError(t, <-errs)
		c, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, netip.AddrPortFrom(ip, addr.Port()).String(), c.LocalAddr().String())
		require.NoError(t, c.Close())
	}
	for _, ip := range w.near.cards {
		reach(w.far, ip)
		reach(w.near, ip)
	}
	reach(w.near, INADDR_LOOPBACK)

	waits := make(chan net.Conn)
	go func() {
		c, _ := l.Accept()
		waits <- c
	}()
	later := w.near.addAddress(near, "10.0.0.77/24")
	var c net.Conn
	eventually(t, "the new address takes connections", func() bool {
		c, err = w.far.goNet().DialTimeout("tcp", netip.AddrPortFrom(later, addr.Port()).String(), patience)
		return err == nil
	})
	accepted := <-waits
	require.NotNil(t, accepted)
	require.Equal(t, c.RemoteAddr(), accepted.LocalAddr())
	require.Len(t, l.(*TCPListener).Streams(), 4)

	port := addr.Port()
	require.NoError(t, l.Close())
	for _, ip := range append(w.near.cards, INADDR_LOOPBACK, later) {
		_, err := w.near.goNet().Dial("tcp", netip.AddrPortFrom(ip, port).String())
		require.ErrorIs(t, err, ECONNREFUSED)
	}
	require.Empty(t, inState(near, "LISTEN"))
}

// addAddress gives the first card one more address.
func (h *host) addAddress(s *stack.Stack, prefix string) netip.Addr {
	h.t.Helper()
	i, p := s.Interfaces()[0], netip.MustParsePrefix(prefix)
	require.NoError(h.t, i.SetAddresses(append(i.Addresses(), p)))
	return p.Addr()
}

// inState are the streams in a state.
func inState(s *stack.Stack, state string) (ls []stack.SocketInfo) {
	for _, i := range s.Sockets() {
		if i.State == state {
			ls = append(ls, i)
		}
	}
	return ls
}

// Two listeners with ReusePort share a port.
func TestListenReusePort(t *testing.T) {
	w := openStacks(t, true)
	shared := ListenConfig{Net: w.near.goNet(), ReusePort: true}
	for _, network := range []string{"tcp", "udp"} {
		listen := func(c ListenConfig) (io.Closer, error) {
			if network == "tcp" {
				return c.Listen(t.Context(), network, w.near.at(0, "99"))
			}
			return c.ListenPacket(t.Context(), network, w.near.at(0, "99"))
		}
		for range 2 {
			c, err := listen(shared)
			require.NoError(t, err)
			defer c.Close()
		}
		_, err := listen(ListenConfig{Net: w.near.goNet()})
		require.ErrorIs(t, err, EADDRINUSE)
	}
}

// Without a default the functions that need one say what to do.
func TestNoDefault(t *testing.T) {
	for _, call := range []func() error{
		func() error { _, err := new(Dialer).Dial("tcp", "10.0.0.1:9"); return err },
		func() error { _, err := new(Dialer).Dial("udp", "10.0.0.1:9"); return err },
		func() error { _, err := new(ListenConfig).Listen(t.Context(), "tcp", ":0"); return err },
		func() error { _, err := new(ListenConfig).ListenPacket(t.Context(), "udp", ":0"); return err },
	} {
		err := call()
		require.ErrorIs(t, err, ENETDOWN)
		require.ErrorContains(t, err, "SetDefault")
	}
	w := openStacks(t, true)
	SetDefault(w.near.goNet())
	UnsetDefault(w.far.goNet())
	l, err := new(ListenConfig).Listen(t.Context(), "tcp", ":0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	UnsetDefault(w.near.goNet())
	_, err = new(Dialer).Dial("tcp", "10.0.0.1:9")
	require.ErrorIs(t, err, ENETDOWN)
}
