package tests

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack"
)

// twoCards gives the right kernel a second card, and returns its address 10.88.0.1.
func twoCards(t *testing.T, lab *netlab.Lab) netip.Addr {
	t.Helper()
	for _, args := range []string{"link add other type veth peer name otherend", "link set otherend up", "address add 10.88.0.1/24 dev other", "link set other up", "link set lo up"} {
		out, err := lab.Right.Run(t.Context(), "ip", strings.Fields(args)...)
		require.NoError(t, err, "%s", out)
	}
	require.NoError(t, lab.Right.Sysctl("net.ipv6.conf.lo.disable_ipv6", "0")) // gives it ::1
	return netip.MustParseAddr("10.88.0.1")
}

// unaccelerated lists why the kernel has what it has.
func unaccelerated(k *kit.Kit) (whys []string) {
	for _, i := range k.Stack().Sockets() {
		if i.Unaccelerated != "" {
			whys = append(whys, i.Unaccelerated)
		}
	}
	return whys
}

// A Dialer that may falls back to the kernel of kit's own network namespace for what is not on the card: the kernel's loopback, its
// address that kit shares or has beside its own, and another card. What is on the card goes by kit.
func TestFallbackDial(t *testing.T) {
	for name, cfg := range map[string]kit.Config{"shared": {}, "owned": {Addresses: []netip.Prefix{ownedAddr}}} {
		t.Run(name, func(t *testing.T) {
			lab := netlab.Test(t, netlab.Options{})
			other := twoCards(t, lab)
			k := open(t, lab, cfg)
			dialer := kit.Dialer{Net: k.Net(), Fallback: true, Timeout: patience}
			const kernels, routed = "destination %s is the kernel's", "no route of kit leads to %s"
			for _, c := range []struct {
				in       *netlab.Namespace
				at       string
				why, own string // in shared and in owned mode
			}{
				{lab.Left, lab.Left.Addr().String(), "", ""},
				{lab.Right, "127.0.0.1", kernels, kernels},
				{lab.Right, lab.Right.Addr().String(), kernels, kernels},
				{lab.Right, other.String(), routed, routed},
				{lab.Right, "::1", "kit has no IPv6", "kit has no IPv6"},
			} {
				want := c.why
				if name == "owned" {
					want = c.own
				}
				if strings.Contains(want, "%s") {
					want = fmt.Sprintf(want, c.at)
				}
				l, err := c.in.Listen("tcp", net.JoinHostPort(c.at, "0"))
				require.NoError(t, err)
				conn, err := dialer.Dial("tcp", l.Addr().String())
				require.NoError(t, err, c.at)
				_, why := conn.(*kit.TCPConn).Accelerated()
				require.Equal(t, want, why, c.at)
				peer, err := l.Accept()
				require.NoError(t, err)
				exchangeStreams(t, peer, conn, 1<<20)
				require.NoError(t, peer.Close())
				require.NoError(t, conn.Close())
				require.NoError(t, l.Close())

				server, err := c.in.ListenPacket("udp", net.JoinHostPort(c.at, "0"))
				require.NoError(t, err)
				conn, err = dialer.Dial("udp", server.LocalAddr().String())
				require.NoError(t, err)
				_, why = conn.(*kit.UDPConn).Accelerated()
				require.Equal(t, want, why, c.at)
				_, err = conn.Write([]byte("hello"))
				require.NoError(t, err)
				buf := make([]byte, 10)
				n, from, err := server.ReadFrom(buf)
				require.NoError(t, err)
				_, err = server.WriteTo(buf[:n], from)
				require.NoError(t, err)
				require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
				n, err = conn.Read(buf)
				require.NoError(t, err)
				require.Equal(t, "hello", string(buf[:n]))
				require.NoError(t, conn.Close())
				require.NoError(t, server.Close())
			}
			require.Empty(t, unaccelerated(k))
		})
	}
}

// A listener that may is kit's for the card and the kernel's for the rest: no other program gets its port, kit's connections keep it
// when the listener is gone, and a listener that comes again may have it.
func TestFallbackListen(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	other := twoCards(t, lab)
	k := open(t, lab, kit.Config{})
	config := kit.ListenConfig{Net: k.Net(), Fallback: true}
	for round := range 3 {
		port := ":8080"
		if round == 2 {
			port = ":0"
		}
		l, err := config.Listen(t.Context(), "tcp", port)
		require.NoError(t, err)
		port = portOf(l.Addr())
		meets := func(in *netlab.Namespace, ip netip.Addr, why string) (peer net.Conn, own *kit.TCPConn) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			peer, err := in.Dial(ctx, "tcp", net.JoinHostPort(ip.String(), port[1:]))
			require.NoError(t, err)
			c, err := l.Accept()
			require.NoError(t, err)
			own = c.(*kit.TCPConn)
			_, got := own.Accelerated()
			require.Equal(t, why, got)
			return peer, own
		}
		for _, ip := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), lab.Right.Addr(), other, netip.IPv6Loopback()} {
			peer, own := meets(lab.Right, ip, "the kernel took it at "+ip.String())
			exchangeStreams(t, peer, own, 1<<16)
			require.NoError(t, peer.Close())
			require.NoError(t, own.Close())
		}
		later := netip.AddrFrom4([4]byte{10, 77, 0, byte(100 + round)})
		out, err := lab.Right.Run(t.Context(), "ip", "address", "add", later.String()+"/24", "dev", lab.Right.Interface())
		require.NoError(t, err, "%s", out)
		require.Eventually(t, func() bool { return len(k.Interface().Addresses()) == 2+round }, patience, time.Millisecond)
		require.NoError(t, l.(*kit.TCPListener).SetDeadline(time.Now().Add(time.Millisecond)))
		_, err = l.Accept() // looks at the addresses
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, l.(*kit.TCPListener).SetDeadline(time.Time{}))
		peer, own := meets(lab.Left, later, "")
		require.NoError(t, peer.Close())
		require.NoError(t, own.Close())
		peer, own = meets(lab.Left, lab.Right.Addr(), "")
		wantKept := func() {
			t.Helper()
			for _, at := range []string{lab.Right.Addr().String() + port, "0.0.0.0" + port} {
				require.ErrorIs(t, lab.Right.Do(func() error {
					got, err := net.Listen("tcp4", at)
					if err == nil {
						_ = got.Close()
					}
					return err
				}), syscall.EADDRINUSE, at)
			}
		}
		wantKept()
		require.NoError(t, l.Close())
		wantKept() // for the connection
		_, err = own.Write([]byte("still here"))
		require.NoError(t, err)
		_, err = io.ReadFull(peer, make([]byte, 10))
		require.NoError(t, err)
		require.ErrorIs(t, dialRight(t, lab, "127.0.0.1"+port), syscall.ECONNREFUSED)
		if round == 1 { // and again in its presence
			again, err := config.Listen(t.Context(), "tcp", port)
			require.NoError(t, err)
			wantKept()
			require.NoError(t, dialRight(t, lab, "127.0.0.1"+port))
			require.NoError(t, again.Close())
		}
		require.NoError(t, own.SetLinger(0)) // no TIME-WAIT
		require.NoError(t, own.Close())
		require.NoError(t, peer.Close())
		require.Eventually(t, func() bool {
			return lab.Right.Do(func() error {
				l, err := net.Listen("tcp4", "0.0.0.0"+port)
				if err == nil {
					err = l.Close()
				}
				return err
			}) == nil
		}, patience, 10*time.Millisecond, "the port is the kernel's again")
	}
}

func portOf(a net.Addr) string {
	text := a.String()
	return text[strings.LastIndex(text, ":"):]
}

// dialRight is what becomes of a connection within the right kernel.
func dialRight(t *testing.T, lab *netlab.Lab, at string) error {
	c, err := lab.Right.Dial(t.Context(), "tcp", at)
	if err == nil {
		err = c.Close()
	}
	return err
}

// A packet conn that may hears the card by kit and the rest by the kernel, the shared address from the kernel's own programs
// included, and answers each from where it was asked.
func TestFallbackPacket(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	other := twoCards(t, lab)
	k := open(t, lab, kit.Config{})
	config := kit.ListenConfig{Net: k.Net(), Fallback: true}
	for range 2 {
		c, err := config.ListenPacket(t.Context(), "udp", ":5353")
		require.NoError(t, err)
		served := echoes(c)
		local := lab.Right.Addr().String()
		require.Equal(t, "card", string(exchange(t, lab.Left, local+":5353", []byte("card"))))
		for _, ip := range []string{"127.0.0.1", local, other.String(), "[::1]"} {
			require.Equal(t, ip, string(exchange(t, lab.Right, ip+":5353", []byte(ip))))
		}
		for _, at := range []string{local + ":5353", "0.0.0.0:5353"} {
			_, err := lab.Right.ListenPacket("udp4", at)
			require.ErrorIs(t, err, syscall.EADDRINUSE)
		}
		require.Equal(t, []string{"for the addresses that are not kit's"}, unaccelerated(k))
		require.NoError(t, c.Close())
		<-served
	}
	server, err := lab.Right.ListenPacket("udp4", "0.0.0.0:5353")
	require.NoError(t, err, "the port is the kernel's again")
	require.NoError(t, server.Close())

	// Where the port is another program's, in the kernel alone, nobody gets it twice.
	server, err = lab.Right.ListenPacket("udp4", "127.0.0.1:5353")
	require.NoError(t, err)
	_, err = config.ListenPacket(t.Context(), "udp", ":5353")
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.NoError(t, server.Close())
	require.Equal(t, stack.Shared, k.Interface().Mode())
}
