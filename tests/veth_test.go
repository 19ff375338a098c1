package tests

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack"
)

// ownedAddr is an address of the laboratory's network that no kernel has.
var ownedAddr = netip.MustParsePrefix("10.77.0.5/24")

// open opens a kit on the right end of the laboratory's cable. What the stack counted must add up at the end.
func open(t *testing.T, lab *netlab.Lab, cfg kit.Config) *kit.Kit {
	t.Helper()
	cfg.Interface = lab.Right.Interface()
	var k *kit.Kit
	require.NoError(t, lab.Right.Do(func() (err error) {
		k, err = kit.Open(cfg)
		return err
	}))
	t.Cleanup(func() {
		s := k.Stack().Stats()
		require.NoError(t, k.Close())
		requireSums(t, s)
	})
	return k
}

// requireSums checks that every packet had one end.
func requireSums(t *testing.T, s stack.Stats) {
	t.Helper()
	drops, txDrops := uint64(0), uint64(0)
	for r := range s.Drops {
		drops += s.Drops[r]
		txDrops += s.TxDrops[r]
	}
	require.Equal(t, s.RxFrames+s.RxLocal+s.RxForwarded, s.Delivered+s.Answered+s.Consumed+s.Forwarded+s.Held+drops, "received packets: %+v", s)
	require.Equal(t, s.Output, s.Sent+s.Waiting+txDrops, "sent packets: %+v", s)
}

// echo makes a socket on port 7 of the kit's first address that answers on the engine.
func echo(t *testing.T, k *kit.Kit) netip.AddrPort {
	t.Helper()
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	addr := netip.AddrPortFrom(kit.INADDR_ANY, 7)
	require.NoError(t, k.Bind(s, &addr))
	require.NoError(t, k.Handle(s, func(p *kit.Packet) { p.Echo() }))
	return addr
}

var pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// ping runs iputils' ping in a namespace and wants every reply.
func ping(t *testing.T, n *netlab.Namespace, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := n.Run(ctx, "ping", args...)
	require.NoError(t, err, "%s", out)
	m := pingSummary.FindStringSubmatch(string(out))
	require.NotNil(t, m, "ping's summary is missing: %s", out)
	require.Equal(t, m[1], m[2], "lost replies: %s", out)
}

// exchange sends payload from a kernel's UDP socket and returns what comes back.
func exchange(t *testing.T, n *netlab.Namespace, to string, payload []byte) []byte {
	t.Helper()
	c, err := n.Dial(t.Context(), "udp", to)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = c.Write(payload)
	require.NoError(t, err)
	b := make([]byte, 65536)
	m, err := c.Read(b)
	require.NoError(t, err)
	return b[:m]
}

// An owned address answers ARP and ping of every size as a host does.
func TestOwnedPing(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	addr := ownedAddr.Addr().String()
	for _, args := range []string{"-c 100 -i 0.01", "-c 20 -i 0.01 -s 1472", "-c 20 -i 0.01 -s 1473", "-c 20 -i 0.01 -s 4000", "-c 20 -i 0.01 -s 60000"} {
		t.Run(args, func(t *testing.T) {
			ping(t, lab.Left, append(strings.Fields(args), "-q", addr)...)
		})
	}
	t.Run("arping", func(t *testing.T) {
		out, err := lab.Left.Run(t.Context(), "arping", "-c", "3", "-I", lab.Left.Interface(), addr)
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "Received 3 response(s)")
		require.Contains(t, strings.ToLower(string(out)), lab.Right.HardwareAddr().String())
	})
	t.Run("the kernel's own address still answers", func(t *testing.T) {
		ping(t, lab.Left, "-c", "10", "-i", "0.01", "-q", lab.Right.Addr().String())
	})
	require.NotZero(t, k.Stack().Stats().Reassembled)
	links := k.LinkCounters()
	require.Len(t, links, 1)
	require.Equal(t, k.Stack().Stats().TxFrames, links[0].TxFrames)
	require.NotZero(t, links[0].Kicks)
}

// UDP datagrams of every length pass both ways, in fragments where they are long.
func TestOwnedUDPLengths(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	addr := echo(t, k)
	require.Equal(t, netip.AddrPortFrom(ownedAddr.Addr(), 7), addr)
	for _, n := range []int{0, 1, 1471, 1472, 1473, 2960, 8192, 65507} {
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		require.Equal(t, payload, exchange(t, lab.Left, addr.String(), payload), "%d bytes", n)
	}
}

// In shared mode only the bound port is kit's: the kernel's services on the same address go on, the kernel keeps the port
// from others, and gets it back.
func TestSharedMode(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{})
	addr := echo(t, k)
	require.Equal(t, netip.AddrPortFrom(lab.Right.Addr(), 7), addr)
	require.Equal(t, []byte("kit"), exchange(t, lab.Left, addr.String(), []byte("kit")))
	require.NotZero(t, k.Stack().Stats().Delivered)

	t.Run("kernel TCP", func(t *testing.T) { kernelTCP(t, lab) })
	t.Run("kernel UDP", func(t *testing.T) { kernelUDP(t, lab, 8) })
	t.Run("kernel ping", func(t *testing.T) {
		ping(t, lab.Left, "-c", "20", "-i", "0.01", "-q", lab.Right.Addr().String())
		ping(t, lab.Right, "-c", "20", "-i", "0.01", "-q", lab.Left.Addr().String())
	})
	t.Run("the port is taken for the kernel too", func(t *testing.T) {
		for _, at := range []string{addr.String(), ":7"} {
			_, err := lab.Right.ListenPacket("udp4", at)
			require.ErrorIs(t, err, syscall.EADDRINUSE, at)
		}
	})
	t.Run("a port of the kernel's is taken for kit", func(t *testing.T) {
		c, err := lab.Right.ListenPacket("udp4", netip.AddrPortFrom(lab.Right.Addr(), 9).String())
		require.NoError(t, err)
		defer c.Close()
		s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
		require.NoError(t, err)
		nine := netip.AddrPortFrom(lab.Right.Addr(), 9)
		require.ErrorIs(t, k.Bind(s, &nine), syscall.EADDRINUSE)
	})
	t.Run("a long datagram whose first fragment comes first", func(t *testing.T) {
		payload := make([]byte, 9000)
		require.Equal(t, payload, exchange(t, lab.Left, addr.String(), payload))
	})
	t.Run("sockets of kit reach the kernel's neighbours", func(t *testing.T) { clientOf(t, lab, k) })
	t.Run("given back", func(t *testing.T) {
		before := k.Stack().Stats()
		require.NoError(t, k.Close())
		requireSums(t, before)
		kernelUDP(t, lab, 7)
	})
}

// kernelTCP passes some data through a TCP service of the kernel on the shared address.
func kernelTCP(t *testing.T, lab *netlab.Lab) {
	l, err := lab.Right.Listen("tcp4", net.JoinHostPort(lab.Right.Addr().String(), "22"))
	require.NoError(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	c, err := lab.Left.Dial(t.Context(), "tcp4", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	sent := make([]byte, 1<<20)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Len(t, got, len(sent))
}

// kernelUDP passes a datagram through a UDP service of the kernel on the shared address.
func kernelUDP(t *testing.T, lab *netlab.Lab, port uint16) {
	c, err := lab.Right.ListenPacket("udp4", netip.AddrPortFrom(lab.Right.Addr(), port).String())
	require.NoError(t, err)
	defer c.Close()
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append([]byte("kernel "), b[:n]...), from)
		}
	}()
	require.Equal(t, "kernel hello", string(exchange(t, lab.Left, c.LocalAddr().String(), []byte("hello"))))
}

// clientOf makes a socket of kit ask a kernel's service on the other side, over the kernel's routes and neighbours.
func clientOf(t *testing.T, lab *netlab.Lab, k *kit.Kit) {
	server, err := lab.Left.ListenPacket("udp4", netip.AddrPortFrom(lab.Left.Addr(), 5353).String())
	require.NoError(t, err)
	defer server.Close()
	go func() {
		b := make([]byte, 2048)
		n, from, err := server.ReadFrom(b)
		if err == nil {
			_, _ = server.WriteTo([]byte(strconv.Itoa(n)), from)
		}
	}()
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	require.NoError(t, k.Connect(s, netip.AddrPortFrom(lab.Left.Addr(), 5353)))
	_, err = k.Send(s, []byte("12345"), 0)
	require.NoError(t, err)
	b := make([]byte, 16)
	n, err := k.Recv(s, b, 0)
	require.NoError(t, err)
	require.Equal(t, "5", string(b[:n]))
	require.NoError(t, k.CloseSocket(s))
}

// A port that nobody is bound to is refused, as by the kernel; a connected socket of kit hears of a refusal.
func TestPortUnreachable(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	c, err := lab.Left.Dial(t.Context(), "udp4", netip.AddrPortFrom(ownedAddr.Addr(), 99).String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = c.Write([]byte("anybody?"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 16))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)

	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	require.NoError(t, k.Connect(s, netip.AddrPortFrom(lab.Left.Addr(), 99)))
	_, err = k.Send(s, []byte("anybody?"), 0)
	require.NoError(t, err)
	_, err = k.Recv(s, make([]byte, 16), 0)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// Each queue of a card has its engine; a socket hears what comes to any of them, fragments on different queues included.
func TestQueues(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{Queues: 4})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	require.Len(t, k.Interface().Queues(), 4)
	addr := echo(t, k)
	for i := range 64 {
		payload := []byte(fmt.Sprintf("flow %d", i))
		require.Equal(t, payload, exchange(t, lab.Left, addr.String(), payload))
	}
	used := 0
	for _, q := range k.Interface().Queues() {
		if q.Delivered > 0 {
			used++
		}
	}
	require.Greater(t, used, 1, "64 flows met more than one queue")
	long := make([]byte, 20000)
	require.Equal(t, long, exchange(t, lab.Left, addr.String(), long))
	ping(t, lab.Left, "-c", "20", "-i", "0.01", "-s", "30000", "-q", ownedAddr.Addr().String())
}

// Broadcasts reach a bound port; SendTo to the broadcast address reaches the network.
func TestBroadcast(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	addr := netip.AddrPortFrom(ownedAddr.Addr(), 6700)
	require.NoError(t, k.Bind(s, &addr))
	c, err := lab.Left.ListenPacket("udp4", ":6700")
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))

	_, err = c.WriteTo([]byte("all"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.77.0.255:6700")))
	require.NoError(t, err)
	b := make([]byte, 16)
	n, from, err := k.RecvFrom(s, b, 0)
	require.NoError(t, err)
	require.Equal(t, "all", string(b[:n]))
	require.Equal(t, lab.Left.Addr(), from.Addr())

	_, err = k.SendTo(s, []byte("answer"), 0, netip.AddrPortFrom(kit.INADDR_BROADCAST, 6700))
	require.NoError(t, err)
	for { // the kernel hears its own broadcast too
		n, who, err := c.ReadFrom(b)
		require.NoError(t, err)
		if string(b[:n]) == "answer" {
			require.Equal(t, addr.String(), who.String())
			return
		}
	}
}

// Shared mode follows the kernel: an address that is taken away is the kernel's business, and one that comes back is kit's
// again with what is bound there.
func TestSharedModeFollowsAddresses(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{})
	addr := echo(t, k)
	link, err := lab.Right.Links().LinkByName(lab.Right.Interface())
	require.NoError(t, err)
	mine, err := netlink.ParseAddr("10.77.0.2/24")
	require.NoError(t, err)
	require.NoError(t, lab.Right.Links().AddrDel(link, mine))
	require.Eventually(t, func() bool { return len(k.Interface().Addresses()) == 0 }, 10*time.Second, time.Millisecond)
	require.NoError(t, lab.Right.Links().AddrAdd(link, mine))
	require.Eventually(t, func() bool { return len(k.Interface().Addresses()) == 1 }, 10*time.Second, time.Millisecond)
	require.Equal(t, "back", string(exchange(t, lab.Left, addr.String(), []byte("back"))))
	require.NotZero(t, k.Stack().Stats().Delivered)

	other, err := netlink.ParseAddr("10.77.0.9/24")
	require.NoError(t, err)
	require.NoError(t, lab.Right.Links().AddrAdd(link, other))
	require.Eventually(t, func() bool { return len(k.Interface().Addresses()) == 2 }, 10*time.Second, time.Millisecond)
	second := echo(t, k) // the first address has port 7 taken
	require.Equal(t, "10.77.0.9:7", second.String())
	require.Equal(t, "new", string(exchange(t, lab.Left, second.String(), []byte("new"))))
}

// A card that is deleted while calls wait on it ends them.
func TestCardDeleted(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	gone := make(chan error, 1)
	k := open(t, lab, kit.Config{OnError: func(err error) { gone <- err }})
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	addr := netip.AddrPortFrom(kit.INADDR_ANY, 7)
	require.NoError(t, k.Bind(s, &addr))
	answer := make(chan error, 1)
	go func() {
		_, _, err := k.RecvFrom(s, make([]byte, 16), 0)
		answer <- err
	}()
	link, err := lab.Right.Links().LinkByName(lab.Right.Interface())
	require.NoError(t, err)
	require.NoError(t, lab.Right.Links().LinkDel(link))
	for _, c := range []chan error{gone, answer} {
		select {
		case err := <-c:
			require.ErrorIs(t, err, syscall.ENETDOWN)
		case <-time.After(20 * time.Second):
			require.Fail(t, "nobody was told that the card is gone")
		}
	}
	_, err = k.SendTo(s, []byte("x"), 0, netip.AddrPortFrom(lab.Left.Addr(), 9))
	require.ErrorIs(t, err, syscall.ENETDOWN)
	_, _, err = k.RecvFrom(s, make([]byte, 16), kit.MSG_DONTWAIT)
	require.ErrorIs(t, err, syscall.ENETDOWN)
}

// While a card is down, what waits to be sent is tried now and then and no more; when the card is up again it goes out.
func TestCardDown(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	server, err := lab.Left.ListenPacket("udp4", netip.AddrPortFrom(lab.Left.Addr(), 9).String())
	require.NoError(t, err)
	defer server.Close()
	s := socketAt(t, k, netip.AddrPortFrom(ownedAddr.Addr(), 9))
	to := netip.AddrPortFrom(lab.Left.Addr(), 9)
	passes := func(text string) { // again and again, as the server's buffer may be full of others
		b := make([]byte, 64)
		require.Eventually(t, func() bool {
			if _, err := k.SendTo(s, []byte(text), 0, to); err != nil {
				return false
			}
			for {
				if err := server.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
					return false
				}
				n, _, err := server.ReadFrom(b)
				if err != nil || string(b[:n]) == text {
					return err == nil
				}
			}
		}, 10*time.Second, time.Millisecond, text)
	}
	passes("up")

	card, err := lab.Right.Links().LinkByName(lab.Right.Interface())
	require.NoError(t, err)
	require.NoError(t, lab.Right.Links().LinkSetDown(card))
	for err == nil { // until transmit ring and send buffer are full
		_, err = k.SendTo(s, []byte("down"), kit.MSG_DONTWAIT, to)
	}
	require.ErrorIs(t, err, syscall.EWOULDBLOCK)
	steps, start := k.Interface().Queues()[0].Steps, time.Now()
	require.Eventually(t, func() bool { return k.LinkCounters()[0].KickDown > 100 }, 10*time.Second, 10*time.Millisecond)
	steps = k.Interface().Queues()[0].Steps - steps
	require.Less(t, time.Duration(steps)*50*time.Microsecond, time.Since(start)+100*time.Millisecond, "%d steps", steps)

	require.NoError(t, lab.Right.Links().LinkSetUp(card))
	passes("up again")
}

// The card's Ethernet address is changed while everything runs: whoever asked before still gets through.
func TestTheCardIsGivenAnotherEthernetAddress(t *testing.T) {
	next := net.HardwareAddr{2, 0, 0, 0, 0x77, 1}
	for name, cfg := range map[string]kit.Config{"shared": {}, "owned": {Addresses: []netip.Prefix{ownedAddr}}} {
		t.Run(name, func(t *testing.T) {
			lab := netlab.Test(t, netlab.Options{})
			k := open(t, lab, cfg)
			addr := echo(t, k)
			require.Equal(t, []byte("before"), exchange(t, lab.Left, addr.String(), []byte("before")))
			link, err := lab.Right.Links().LinkByName(lab.Right.Interface())
			require.NoError(t, err)
			require.NoError(t, lab.Right.Links().LinkSetHardwareAddr(link, next))
			require.Eventually(t, func() bool { return k.Interface().HardwareAddr().String() == next.String() }, 10*time.Second, time.Millisecond)
			if name == "shared" { // the kernel announces nothing by default (arp_notify): the neighbour is told as by any other means
				_, err := lab.Left.Run(t.Context(), "ip", "neighbour", "replace", addr.Addr().String(), "lladdr", next.String(), "dev", lab.Left.Interface())
				require.NoError(t, err)
			} else {
				require.Eventually(t, func() bool {
					out, err := lab.Left.Run(t.Context(), "ip", "neighbour", "show", addr.Addr().String())
					return err == nil && strings.Contains(string(out), next.String())
				}, 10*time.Second, time.Millisecond, "the announcement arrives")
			}
			require.Equal(t, []byte("after"), exchange(t, lab.Left, addr.String(), []byte("after")))
		})
	}
}

// An owned address follows the card's MTU as well: what is sent after a change fits.
func TestOwnedModeFollowsTheMTU(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	addr := echo(t, k)
	for _, n := range []*netlab.Namespace{lab.Left, lab.Right} {
		link, err := n.Links().LinkByName(n.Interface())
		require.NoError(t, err)
		require.NoError(t, n.Links().LinkSetMTU(link, 1300))
	}
	require.Eventually(t, func() bool { return k.Interface().MTU() == 1300 }, 10*time.Second, time.Millisecond)
	payload := make([]byte, 4000)
	require.Equal(t, payload, exchange(t, lab.Left, addr.String(), payload))
}
