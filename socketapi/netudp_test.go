package socketapi_test

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	. "kitnet.dev/kit/socketapi"
)

// hearing is a packet conn.
func (h *host) hearing(network, address string) *UDPConn {
	h.t.Helper()
	c, err := h.goNet().ListenPacket(network, address)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = c.Close() })
	u := c.(*UDPConn)
	require.NoError(h.t, u.SetReadDeadline(time.Now().Add(patience)))
	return u
}

// calling is a packet conn that is connected to a peer.
func (h *host) calling(to net.Addr) *UDPConn {
	h.t.Helper()
	c, err := h.goNet().Dial("udp", to.String())
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = c.Close() })
	require.NoError(h.t, c.SetReadDeadline(time.Now().Add(patience)))
	return c.(*UDPConn)
}

// readsFrom wants the next message to be text, and returns its sender.
func readsFrom(t testing.TB, c *UDPConn, text string) netip.AddrPort {
	t.Helper()
	buf := make([]byte, 1500)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	require.NoError(t, err)
	require.Equal(t, text, string(buf[:n]))
	return from
}

func portOf(a net.Addr) uint16 { return a.(*net.UDPAddr).AddrPort().Port() }

// A datagramPipe makes of connected datagrams the stream that nettest takes a conn for: an empty message is its end. Writes are
// apart, so that the receive buffer holds all that is sent in any of the tests, which write for a tenth of a second.
type datagramPipe struct {
	*UDPConn
	ended bool
}

const apart = 20 * time.Microsecond

func (p *datagramPipe) Write(b []byte) (int, error) {
	n, err := p.UDPConn.Write(b)
	time.Sleep(apart)
	return n, err
}

func (p *datagramPipe) Read(b []byte) (int, error) {
	if p.ended {
		return 0, io.EOF
	}
	n, err := p.UDPConn.Read(b)
	if n == 0 && err == nil {
		p.ended = true
		return 0, io.EOF
	}
	return n, err
}

func (p *datagramPipe) Close() error {
	_, _ = p.UDPConn.Write(nil)
	return p.UDPConn.Close()
}

// TestPacketConn holds connected datagrams to what the net package promises of a net.Conn.
func TestPacketConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		w := openStacks(t, true)
		near, far := netip.AddrPortFrom(w.near.cards[0], 7), netip.AddrPortFrom(w.far.cards[0], 7)
		u1, err := w.near.goNet().DialUDP("udp", net.UDPAddrFromAddrPort(near), net.UDPAddrFromAddrPort(far))
		if err != nil {
			return nil, nil, nil, err
		}
		u2, err := w.far.goNet().DialUDP("udp", net.UDPAddrFromAddrPort(far), net.UDPAddrFromAddrPort(near))
		if err != nil {
			return nil, nil, nil, err
		}
		for _, u := range []*UDPConn{u1, u2} {
			if err := u.SetReadBuffer(64 << 20); err != nil {
				return nil, nil, nil, err
			}
		}
		return &datagramPipe{UDPConn: u1}, &datagramPipe{UDPConn: u2}, func() { _ = u1.Close(); _ = u2.Close() }, nil
	})
}

// Messages keep their bounds and tell their sender, by every method.
func TestUDPMessages(t *testing.T) {
	w := openStacks(t, true)
	far := w.far.hearing("udp", w.far.at(0, "0"))
	near := w.near.hearing("udp4", w.near.at(0, "0"))
	require.Equal(t, "udp", near.LocalAddr().Network())
	require.Nil(t, near.RemoteAddr())
	to := far.LocalAddr().(*net.UDPAddr)
	buf := make([]byte, 4)
	for name, write := range map[string]func([]byte) (int, error){
		"WriteTo":            func(b []byte) (int, error) { return near.WriteTo(b, to) },
		"WriteToUDP":         func(b []byte) (int, error) { return near.WriteToUDP(b, to) },
		"WriteToUDPAddrPort": func(b []byte) (int, error) { return near.WriteToUDPAddrPort(b, to.AddrPort()) },
		"WriteMsgUDP":        func(b []byte) (int, error) { n, _, err := near.WriteMsgUDP(b, nil, to); return n, err },
		"WriteMsgUDPAddrPort": func(b []byte) (int, error) {
			n, _, err := near.WriteMsgUDPAddrPort(b, nil, to.AddrPort())
			return n, err
		},
	} {
		for how, read := range map[string]func() (int, net.Addr, error){
			"ReadFrom":    func() (int, net.Addr, error) { return far.ReadFrom(buf) },
			"ReadFromUDP": func() (int, net.Addr, error) { n, a, err := far.ReadFromUDP(buf); return n, a, err },
			"ReadFromUDPAddrPort": func() (int, net.Addr, error) {
				n, a, err := far.ReadFromUDPAddrPort(buf)
				return n, net.UDPAddrFromAddrPort(a), err
			},
			"ReadMsgUDP": func() (int, net.Addr, error) { n, _, _, a, err := far.ReadMsgUDP(buf, nil); return n, a, err },
		} {
			for _, text := range []string{"hi", "", "longer than buf"} {
				n, err := write([]byte(text))
				require.NoError(t, err, name)
				require.Equal(t, len(text), n)
				n, from, err := read()
				require.NoError(t, err, how)
				require.Equal(t, text[:min(len(text), len(buf))], string(buf[:n]), "%s %s: what does not fit is lost", name, how)
				require.Equal(t, near.LocalAddr(), from)
			}
		}
	}
	mapped := netip.AddrFrom16(to.AddrPort().Addr().As16())
	_, err := near.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(mapped, to.AddrPort().Port())))
	require.NoError(t, err, "an IPv4 address in sixteen bytes")
	_, err = far.Read(buf)
	require.NoError(t, err, "Read takes any peer's")
}

// A connected conn has one peer.
func TestUDPConnected(t *testing.T) {
	w := openStacks(t, true)
	far, other := w.far.hearing("udp", w.far.at(0, "0")), w.far.hearing("udp", w.far.at(0, "0"))
	near := w.near.calling(far.LocalAddr())
	require.Equal(t, far.LocalAddr(), near.RemoteAddr())
	require.Equal(t, w.near.cards[0], near.LocalAddr().(*net.UDPAddr).AddrPort().Addr())
	n, err := near.Write([]byte("hello"))
	require.NoError(t, err)
	require.Equal(t, 5, n)
	from := readsFrom(t, far, "hello")
	require.Equal(t, near.LocalAddr().String(), from.String())
	_, err = other.WriteToUDPAddrPort([]byte("stranger"), from)
	require.NoError(t, err)
	_, err = far.WriteToUDPAddrPort([]byte("friend"), from)
	require.NoError(t, err)
	readsFrom(t, near, "friend")
	for _, write := range []func() error{
		func() error { _, err := near.WriteTo([]byte("x"), far.LocalAddr()); return err },
		func() error { _, err := near.WriteToUDPAddrPort([]byte("x"), from); return err },
		func() error {
			_, _, err := near.WriteMsgUDP([]byte("x"), nil, far.LocalAddr().(*net.UDPAddr))
			return err
		},
		func() error { _, _, err := near.WriteMsgUDPAddrPort([]byte("x"), nil, from); return err },
	} {
		wantOpError(t, write(), "write", "udp", net.ErrWriteToConnected)
	}
	_, _, err = near.WriteMsgUDP([]byte("to the peer"), nil, nil)
	require.NoError(t, err)
	readsFrom(t, far, "to the peer")

	lonely := w.near.calling(net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.far.cards[0], 9)))
	_, err = lonely.Write([]byte("anybody?"))
	require.NoError(t, err)
	_, err = lonely.Read(make([]byte, 1))
	o := wantOpError(t, err, "read", "udp", ECONNREFUSED)
	require.Equal(t, []net.Addr{lonely.LocalAddr(), lonely.RemoteAddr()}, []net.Addr{o.Source, o.Addr})
}

// Sending that fails says so, and what a server hears of its clients' ends is nothing.
func TestUDPErrors(t *testing.T) {
	w := openStacks(t, true)
	c := w.near.hearing("udp", w.near.at(0, "0"))
	to := netip.AddrPortFrom(w.far.cards[0], 9)
	var address *net.AddrError
	for why, call := range map[string]struct {
		call func() error
		is   error
		as   any
	}{
		"no peer":          {func() error { _, err := c.Write([]byte("x")); return err }, EDESTADDRREQ, nil},
		"no address":       {func() error { _, err := c.WriteToUDP([]byte("x"), nil); return err }, nil, &address},
		"zero address":     {func() error { _, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPort{}); return err }, nil, &address},
		"another kind's":   {func() error { _, err := c.WriteTo([]byte("x"), &net.TCPAddr{}); return err }, EINVAL, nil},
		"message, no peer": {func() error { _, _, err := c.WriteMsgUDP([]byte("x"), nil, nil); return err }, nil, &address},
		"too long":         {func() error { _, err := c.WriteToUDPAddrPort(make([]byte, 65508), to); return err }, EMSGSIZE, nil},
		"no route":         {func() error { _, err := c.WriteToUDPAddrPort([]byte("x"), nowhere); return err }, ENETUNREACH, nil},
		"IPv6": {func() error {
			_, err := c.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort("[2001:db8::1]:9"))
			return err
		}, EAFNOSUPPORT, nil},
		"port 0": {func() error {
			_, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(to.Addr(), 0))
			return err
		}, EINVAL, nil},
	} {
		err := call.call()
		require.Error(t, err, why)
		wantOpError(t, err, "write", "udp", call.is)
		if call.as != nil {
			require.ErrorAs(t, err, call.as, why)
		}
	}
	_, err := c.WriteToUDPAddrPort([]byte("nobody listens"), to)
	require.NoError(t, err)
	w.far.sends(w.far.udp(), "after its ICMP error", netip.MustParseAddrPort(c.LocalAddr().String()))
	readsFrom(t, c, "after its ICMP error")
}

// What is closed is net.ErrClosed, in every method.
func TestUDPClosed(t *testing.T) {
	w := openStacks(t, true)
	for _, at := range []string{w.near.at(0, "0"), ":0"} {
		c := w.near.hearing("udp", at)
		peer := net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.far.cards[0], 9))
		require.NoError(t, c.Close())
		for name, m := range map[string]struct {
			op   string
			call func() error
		}{
			"Read":             {"read", func() error { _, err := c.Read(make([]byte, 1)); return err }},
			"ReadFrom":         {"read", func() error { _, _, err := c.ReadFrom(make([]byte, 1)); return err }},
			"ReadFromUDP":      {"read", func() error { _, _, err := c.ReadFromUDP(make([]byte, 1)); return err }},
			"ReadMsgUDP":       {"read", func() error { _, _, _, _, err := c.ReadMsgUDP(make([]byte, 1), nil); return err }},
			"ReadBatch":        {"read", func() error { _, err := c.ReadBatch(batchOf(1), 0); return err }},
			"Write":            {"write", func() error { _, err := c.Write(nil); return err }},
			"WriteTo":          {"write", func() error { _, err := c.WriteTo(nil, peer); return err }},
			"WriteMsgUDP":      {"write", func() error { _, _, err := c.WriteMsgUDP(nil, nil, peer); return err }},
			"Close":            {"close", c.Close},
			"SetDeadline":      {"set", func() error { return c.SetDeadline(time.Time{}) }},
			"SetWriteDeadline": {"set", func() error { return c.SetWriteDeadline(time.Time{}) }},
			"SetReadBuffer":    {"set", func() error { return c.SetReadBuffer(1 << 16) }},
			"SetWriteBuffer":   {"set", func() error { return c.SetWriteBuffer(1 << 16) }},
			"SyscallConn":      {"raw-conn", func() error { _, err := c.SyscallConn(); return err }},
		} {
			err := m.call()
			require.Error(t, err, name)
			wantOpError(t, err, m.op, "udp", net.ErrClosed)
		}
	}
}

// Calls that wait end when the conn is closed or a deadline passes, however many wait; moving the deadline lets go on.
func TestUDPWaits(t *testing.T) {
	for _, at := range []string{"10.0.0.1:0", ":0"} {
		for _, end := range []string{"close", "deadline", "the deadline that was set before"} {
			w := openStacks(t, true)
			c := w.near.hearing("udp", at)
			require.NoError(t, c.SetReadDeadline(time.Time{}))
			if end == "the deadline that was set before" {
				require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Millisecond)))
			}
			errs := make(chan error, 4)
			for range 4 {
				go func() { _, _, err := c.ReadFrom(make([]byte, 1)); errs <- err }()
			}
			if end != "the deadline that was set before" {
				sleeping(t, "socketapi.(*UDPConn).receiveBlocked", 1) // the others wait for their turn
			}
			switch end {
			case "close":
				require.NoError(t, c.Close())
			case "deadline":
				require.NoError(t, c.SetDeadline(time.Unix(1, 0)))
			}
			for range 4 {
				err := <-errs
				if end == "close" {
					require.ErrorIs(t, err, net.ErrClosed)
					continue
				}
				wantTimeout(t, err)
			}
			if end == "close" {
				continue
			}
			require.NoError(t, c.SetWriteDeadline(time.Unix(1, 0)))
			to := netip.AddrPortFrom(w.near.cards[0], portOf(c.LocalAddr()))
			_, err := c.WriteToUDPAddrPort([]byte("x"), to)
			wantTimeout(t, err)
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			_, err = c.WriteToUDPAddrPort([]byte("to itself"), to)
			require.NoError(t, err)
			readsFrom(t, c, "to itself")
		}
	}
}

// Writing waits for room in the send buffer, and for no longer than the deadline.
func TestUDPWriteWaits(t *testing.T) {
	w := openStacks(t, false)
	c := w.near.hearing("udp", w.near.at(0, "0"))
	ear, to := w.far.receiver()
	require.NoError(t, c.SetWriteBuffer(4096))
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
	sent := 0
	for {
		_, err := c.WriteToUDPAddrPort(make([]byte, 512), to)
		if err != nil {
			wantTimeout(t, err)
			break
		}
		sent++
	}
	require.Positive(t, sent)
	require.NoError(t, c.SetWriteDeadline(time.Time{}))
	errs := make(chan error)
	go func() { _, err := c.WriteToUDPAddrPort(make([]byte, 512), to); errs <- err }()
	sleeping(t, "socketapi.(*UDPConn).sendBlocked", 1)
	w.near.start()
	require.NoError(t, <-errs)
	for range sent + 1 {
		w.far.hears(ear, string(make([]byte, 512)))
	}
}

// A conn without a host hears every address of every interface, and answers from the one that was asked: which of two addresses on a
// card that is, no route can tell.
func TestUDPEverywhere(t *testing.T) {
	near := newStack(1)
	w := joinStacks(t, true, near, newStack(2))
	second := w.near.addAddress(near, "10.0.0.77/24")
	c := w.near.hearing("udp", ":0")
	require.Equal(t, netip.IPv4Unspecified(), c.LocalAddr().(*net.UDPAddr).AddrPort().Addr())
	port := portOf(c.LocalAddr())
	require.Len(t, c.Datagrams(), 4)
	ask := func(from *host, ip netip.Addr) {
		t.Helper()
		at := netip.AddrPortFrom(ip, port)
		s := from.udp()
		from.sends(s, "who?", at)
		peer := readsFrom(t, c, "who?")
		_, err := c.WriteToUDPAddrPort([]byte("I"), peer)
		require.NoError(t, err)
		require.Equal(t, at, from.hears(s, "I"))
		require.NoError(t, from.CloseSocket(s))
	}
	for range 3 {
		for _, ip := range append(w.near.cards, second) {
			ask(w.far, ip)
			ask(w.near, ip)
		}
		ask(w.near, INADDR_LOOPBACK)
	}
	// A peer that asks another address is answered from there.
	s := w.far.udp()
	for _, ip := range []netip.Addr{second, w.near.cards[0], second} {
		at := netip.AddrPortFrom(ip, port)
		w.far.sends(s, "who?", at)
		peer := readsFrom(t, c, "who?")
		_, err := c.WriteTo([]byte("I"), net.UDPAddrFromAddrPort(peer))
		require.NoError(t, err)
		require.Equal(t, at, w.far.hears(s, "I"))
	}
	// One that asked nothing hears what the route prefers.
	for card := range w.far.cards {
		ear := w.far.udp()
		to := w.far.bind(ear, netip.AddrPortFrom(w.far.cards[card], 0))
		for range 2 {
			_, err := c.WriteToUDPAddrPort([]byte("unasked"), to)
			require.NoError(t, err)
			require.Equal(t, netip.AddrPortFrom(w.near.cards[card], port), w.far.hears(ear, "unasked"))
		}
	}
}

// An address that comes later is heard too, by a call that waits already.
func TestUDPFollowsAddresses(t *testing.T) {
	near := newStack(1)
	w := joinStacks(t, true, near, newStack(2))
	c := w.near.hearing("udp", ":0")
	require.NoError(t, c.SetReadBuffer(1<<20))
	got := make(chan string)
	go func() {
		buf := make([]byte, 100)
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err == nil {
			_, err = c.WriteToUDPAddrPort([]byte("heard"), from)
		}
		got <- string(buf[:n]) + errText(err)
	}()
	sleeping(t, "socketapi.(*UDPConn).receiveBlocked", 1)
	later := netip.AddrPortFrom(w.near.addAddress(near, "10.0.0.78/24"), portOf(c.LocalAddr()))
	s := w.far.udp()
	eventually(t, "the new address is heard", func() bool {
		w.far.sends(s, "new here?", later)
		return w.far.readable(s, 10*time.Millisecond)
	})
	require.Equal(t, "new here?", <-got)
	require.Equal(t, later, w.far.hears(s, "heard"))
	ds := c.Datagrams()
	require.Len(t, ds, 4)
	require.Equal(t, 1<<20, ds[3].ReceiveBuffer(), "with the options of the others")
}

// A broadcast comes once, however many addresses a card has.
func TestUDPBroadcastOnce(t *testing.T) {
	near := newStack(1)
	w := joinStacks(t, true, near, newStack(2))
	w.near.addAddress(near, "10.0.0.77/24")
	c := w.near.hearing("udp", ":7")
	s := w.far.udp()
	w.far.sends(s, "all", netip.AddrPortFrom(netip.MustParseAddr("10.0.0.255"), 7))
	w.far.sends(s, "second", netip.MustParseAddrPort("10.0.0.77:7"))
	w.far.sends(s, "first", netip.AddrPortFrom(w.near.cards[0], 7))
	heard := map[string]int{}
	for range 3 {
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		require.NoError(t, err)
		heard[string(buf[:n])]++
	}
	require.Equal(t, map[string]int{"all": 1, "second": 1, "first": 1}, heard)
}

// A port of 0 is one that is free on every address.
func TestUDPAnyPort(t *testing.T) {
	w := openStacks(t, true)
	for range 20 {
		c := w.near.hearing("udp", ":0")
		for _, ip := range append(w.near.cards, INADDR_LOOPBACK) {
			addr := netip.AddrPortFrom(ip, portOf(c.LocalAddr()))
			require.ErrorIs(t, w.near.Bind(w.near.udp(), &addr), EADDRINUSE)
		}
	}
}
