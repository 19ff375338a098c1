package tests

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// cards is a kit on the right namespace's two cards: the first to the left namespace, the second to a third one.
type cards struct {
	*kit.Kit
	lab       *netlab.Lab
	far       *netlab.Namespace
	here, end *netlab.End // of the second cable
	addrs     [2]netip.Addr
}

func openCards(t *testing.T, owned [2]bool) *cards {
	c := &cards{lab: netlab.Test(t, netlab.Options{})}
	var err error
	c.far, err = c.lab.AddNamespace("far")
	require.NoError(t, err)
	c.here, c.end, err = c.lab.Connect(c.lab.Right, c.far, netlab.Options{})
	require.NoError(t, err)
	c.addrs = [2]netip.Addr{c.lab.Right.Addr(), c.here.Addr()}
	second := kit.CardConfig{Interface: c.here.Interface}
	cfg := kit.Config{}
	if owned[0] {
		c.addrs[0] = ownedAddr.Addr()
		cfg.Addresses = []netip.Prefix{ownedAddr}
	}
	if owned[1] {
		c.addrs[1] = netip.MustParseAddr("10.77.1.5")
		second.Addresses = []netip.Prefix{netip.PrefixFrom(c.addrs[1], 24)}
	}
	cfg.Others = []kit.CardConfig{second}
	c.Kit = open(t, c.lab, cfg)
	return c
}

// Two cards in one kit: each address is heard by its own sockets only, routes choose the way out, and a listener on all addresses
// serves both; in every mix of modes.
func TestTwoCards(t *testing.T) {
	netlab.NeedRoot(t)
	for _, owned := range [][2]bool{{false, false}, {true, true}, {false, true}, {true, false}} {
		t.Run(fmt.Sprintf("owned %v", owned), func(t *testing.T) {
			c := openCards(t, owned)
			spaces := [2]*netlab.Namespace{c.lab.Left, c.far}
			require.Len(t, c.Cards(), 2)
			require.Equal(t, c.here.Interface, c.Cards()[1].Interface().Name())

			// INADDR_ANY takes one address after the other.
			var bound []netip.Addr
			for range 2 {
				s, err := c.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
				require.NoError(t, err)
				addr := netip.AddrPortFrom(kit.INADDR_ANY, 7)
				require.NoError(t, c.Bind(s, &addr))
				name := addr.Addr().String()
				require.NoError(t, c.Handle(s, func(p *kit.Packet) { p.Reply(copy(p.Room(), name)) }))
				bound = append(bound, addr.Addr())
			}
			require.ElementsMatch(t, c.addrs[:], bound)
			for i, ns := range spaces {
				require.Equal(t, c.addrs[i].String(), string(exchange(t, ns, netip.AddrPortFrom(c.addrs[i], 7).String(), []byte("who?"))))
			}

			// An unbound sender takes the card that the route names.
			for i, ns := range spaces {
				in, err := ns.ListenPacket("udp4", ":5353")
				require.NoError(t, err)
				s, err := c.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
				require.NoError(t, err)
				_, err = c.SendTo(s, []byte("hello"), 0, netip.AddrPortFrom(ns.Addr(), 5353))
				require.NoError(t, err)
				require.NoError(t, in.SetReadDeadline(time.Now().Add(5*time.Second)))
				b := make([]byte, 10)
				n, from, err := in.ReadFrom(b)
				require.NoError(t, err)
				require.Equal(t, "hello", string(b[:n]))
				require.Equal(t, c.addrs[i], from.(*net.UDPAddr).AddrPort().Addr().Unmap())
				require.NoError(t, in.Close())
				require.NoError(t, c.CloseSocket(s))
			}

			// One Go listener serves TCP from both sides, and dials reach both.
			l, err := c.Net().Listen("tcp", ":80")
			require.NoError(t, err)
			go serveUpper(l)
			for i, ns := range spaces {
				conn, err := ns.Dial(t.Context(), "tcp4", netip.AddrPortFrom(c.addrs[i], 80).String())
				require.NoError(t, err)
				requireUpper(t, conn)
				kernel, err := ns.Listen("tcp4", ":81")
				require.NoError(t, err)
				go serveUpper(kernel)
				conn, err = c.Net().Dial("tcp", netip.AddrPortFrom(ns.Addr(), 81).String())
				require.NoError(t, err)
				require.Equal(t, c.addrs[i], conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
				requireUpper(t, conn)
				require.NoError(t, kernel.Close())
			}

			// From one card's address to the other's, nothing leaves the stack.
			var left, inside atomic.Uint64
			c.Stack().SetTap(func(_ *stack.Interface, _ int, d stack.Direction, _ stack.DropReason, _ clock.Time, frame []byte) {
				p, err := wire.ParseIPv4(frame[min(len(frame), wire.EthernetLen):])
				switch {
				case err != nil || p.Src().Netip() != c.addrs[0] || p.Dst().Netip() != c.addrs[1]:
				case d == stack.Transmitted:
					left.Add(1)
				default:
					inside.Add(1)
				}
			})
			conn, err := c.Net().DialTCP("tcp", &net.TCPAddr{IP: c.addrs[0].AsSlice()}, &net.TCPAddr{IP: c.addrs[1].AsSlice(), Port: 80})
			require.NoError(t, err)
			requireUpper(t, conn)
			c.Stack().SetTap(nil)
			require.Zero(t, left.Load())
			require.NotZero(t, inside.Load())
			require.NoError(t, l.Close())
		})
	}
}

// serveUpper answers each connection's first 5 bytes in upper case.
func serveUpper(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			b := make([]byte, 5)
			if _, err := io.ReadFull(conn, b); err == nil {
				for i := range b {
					b[i] -= 'a' - 'A'
				}
				_, _ = conn.Write(b)
			}
		}()
	}
}

// requireUpper wants such an answer, and closes.
func requireUpper(t *testing.T, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err := conn.Write([]byte("hello"))
	require.NoError(t, err)
	b, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "HELLO", string(b))
}

// The ports of two shared cards are reserved on each address, and a card that can't be had closes the other one.
func TestTwoCardsShareTheKernelsPorts(t *testing.T) {
	netlab.NeedRoot(t)
	c := openCards(t, [2]bool{})
	for i, addr := range c.addrs {
		s, err := c.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
		require.NoError(t, err)
		at := netip.AddrPortFrom(addr, 9)
		require.NoError(t, c.Bind(s, &at))
		_, err = c.lab.Right.ListenPacket("udp4", at.String())
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		require.NoError(t, c.CloseSocket(s))
		in, err := c.lab.Right.ListenPacket("udp4", at.String())
		require.NoError(t, err)
		out, err := [2]*netlab.Namespace{c.lab.Left, c.far}[i].Dial(t.Context(), "udp4", at.String())
		require.NoError(t, err)
		_, err = out.Write([]byte("to the kernel"))
		require.NoError(t, err)
		require.NoError(t, in.SetReadDeadline(time.Now().Add(5*time.Second)))
		b := make([]byte, 20)
		n, _, err := in.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, "to the kernel", string(b[:n]))
		require.NoError(t, in.Close())
	}
	other := netlab.Test(t, netlab.Options{})
	require.ErrorContains(t, other.Right.Do(func() error {
		_, err := kit.Open(kit.Config{Interface: other.Right.Interface(), Others: []kit.CardConfig{{Interface: "nosuch0"}}})
		return err
	}), "nosuch0")
	again := open(t, other, kit.Config{})
	require.True(t, slices.Equal(again.Cards(), []*kit.Card{again.Card}))
}

// An address that a second card gets too stays with the sockets of the first, and their ports go back to the kernel with them.
func TestTwoCardsWithOneAddress(t *testing.T) {
	netlab.NeedRoot(t)
	c := openCards(t, [2]bool{})
	at := netip.AddrPortFrom(c.addrs[0], 7)
	s, err := c.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	require.NoError(t, c.Bind(s, &at))
	require.NoError(t, c.Handle(s, func(p *kit.Packet) { p.Reply(copy(p.Room(), "kit's")) }))
	out, err := c.lab.Right.Run(t.Context(), "ip", "address", "add", c.addrs[0].String()+"/32", "dev", c.here.Interface)
	require.NoError(t, err, "%s", out)
	second := c.Cards()[1].Interface()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(second.Addresses(), func(p netip.Prefix) bool { return p.Addr() == c.addrs[0] })
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, "kit's", string(exchange(t, c.lab.Left, at.String(), []byte("whose?"))))

	require.NoError(t, c.CloseSocket(s))
	kernelUDP(t, c.lab, at.Port())
}

// With Fallback, an address of the kernel's own is the kernel's, also where only an owned card's gateway would lead to it,
// whichever card is first.
func TestTwoCardsFallBackToTheKernelsAddress(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	far, err := lab.AddNamespace("far")
	require.NoError(t, err)
	here, _, err := lab.Connect(lab.Right, far, netlab.Options{})
	require.NoError(t, err)
	for _, args := range [][]string{{"address", "add", "10.88.0.1/32", "dev", "lo"}, {"link", "set", "lo", "up"}} {
		out, err := lab.Right.Run(t.Context(), "ip", args...)
		require.NoError(t, err, "%s", out)
	}
	k := open(t, lab, kit.Config{Others: []kit.CardConfig{{
		Interface: here.Interface, Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.1.5/24")}, Gateway: netip.MustParseAddr("10.77.1.2"),
	}}})
	l, err := lab.Right.Listen("tcp4", "10.88.0.1:81")
	require.NoError(t, err)
	defer l.Close()
	go serveUpper(l)
	conn, err := (&kit.Dialer{Net: k.Net(), Fallback: true, Timeout: 10 * time.Second}).Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accelerated, why := conn.(*kit.TCPConn).Accelerated()
	require.False(t, accelerated)
	require.Contains(t, why, "10.88.0.1 is the kernel's")
	requireUpper(t, conn)
}
