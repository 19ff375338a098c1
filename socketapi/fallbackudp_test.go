package socketapi_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack/wire"
)

// fallbackPacket is a packet conn that is in the stack and in the kernel.
func (h *host) fallbackPacket(network, address string) *UDPConn {
	h.t.Helper()
	_, config := h.fallbacks()
	c, err := config.ListenPacket(h.t.Context(), network, address)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = c.Close() })
	require.NoError(h.t, c.SetReadDeadline(time.Now().Add(patience)))
	return c.(*UDPConn)
}

// kernelPacket is a packet conn of the kernel's.
func kernelPacket(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	return c.(*net.UDPConn)
}

// A packet conn without a host hears the card, the stack's loopback and the kernel's addresses, and answers each by the way it came
// and from the address that was asked; what it sends unasked goes by the one that reaches it.
func TestFallbackPacketEverywhere(t *testing.T) {
	w := openStacks(t, true)
	c := w.near.fallbackPacket("udp", ":0")
	port := portOfText(c.LocalAddr())
	require.Equal(t, "[::]"+port, c.LocalAddr().String())
	yes, why := c.Accelerated()
	require.Equal(t, []any{true, "for the addresses that are not kit's"}, []any{yes, why})
	for range 3 {
		for _, ip := range append(w.near.cards, INADDR_LOOPBACK) {
			from := w.far
			if ip == INADDR_LOOPBACK {
				from = w.near
			}
			s := from.udp()
			at := netip.AddrPortFrom(ip, portOf(c.LocalAddr()))
			from.sends(s, "who?", at)
			_, err := c.WriteToUDPAddrPort([]byte("I"), readsFrom(t, c, "who?"))
			require.NoError(t, err)
			require.Equal(t, at, from.hears(s, "I"))
			require.NoError(t, from.CloseSocket(s))
		}
		for _, to := range []string{"127.0.0.1", "127.0.0.2", "[::1]"} {
			d, err := net.Dial("udp", to+port) // connected, so that it hears nothing from another address
			require.NoError(t, err)
			_, err = d.Write([]byte("who?"))
			require.NoError(t, err)
			buf, oob := make([]byte, 100), make([]byte, 256)
			n, oobn, _, from, err := c.ReadMsgUDP(buf, oob)
			require.NoError(t, err)
			require.Equal(t, d.LocalAddr().String(), from.String())
			require.Equal(t, "who?", string(buf[:n]))
			// As servers do that have several addresses: the answer's source is the question's destination.
			var source []byte
			if from.IP.To4() != nil {
				var cm ipv4.ControlMessage
				require.NoError(t, cm.Parse(oob[:oobn]))
				require.Equal(t, to, cm.Dst.String())
				source = (&ipv4.ControlMessage{Src: cm.Dst}).Marshal()
			} else {
				var cm ipv6.ControlMessage
				require.NoError(t, cm.Parse(oob[:oobn]))
				require.Equal(t, to, "["+cm.Dst.String()+"]")
				source = (&ipv6.ControlMessage{Src: cm.Dst}).Marshal()
			}
			_, _, err = c.WriteMsgUDP([]byte("I"), source, from)
			require.NoError(t, err)
			require.NoError(t, d.SetReadDeadline(time.Now().Add(patience)))
			n, err = d.Read(buf)
			require.NoError(t, err)
			require.Equal(t, "I", string(buf[:n]))
			require.NoError(t, d.Close())
		}
	}
	// Unasked.
	ear := w.far.udp()
	_, err := c.WriteToUDPAddrPort([]byte("news"), w.far.bind(ear, netip.AddrPortFrom(w.far.cards[1], 0)))
	require.NoError(t, err)
	w.far.hears(ear, "news")
	within := w.near.udp()
	_, err = c.WriteToUDPAddrPort([]byte("news"), w.near.bind(within, netip.AddrPortFrom(INADDR_LOOPBACK, 0)))
	require.NoError(t, err)
	w.near.hears(within, "news")
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		k := kernelPacket(t, at)
		_, err := c.WriteTo([]byte("news"), k.LocalAddr())
		require.NoError(t, err)
		buf := make([]byte, 100)
		n, _, err := k.ReadFrom(buf)
		require.NoError(t, err)
		require.Equal(t, "news", string(buf[:n]))
	}
	infos := outsiders(w.near)
	require.Len(t, infos, 1)
	require.Equal(t, []any{wire.ProtocolUDP, c.LocalAddr().String(), uint64(9), uint64(11)},
		[]any{infos[0].Proto, infos[0].Local.String(), infos[0].Received, infos[0].Sent})
	require.NoError(t, c.Close())
	require.Empty(t, outsiders(w.near))
	kernelPacket(t, port) // the port is free
}

// Calls that wait are woken by the kernel, by a deadline and by Close, whether the conn is in the stack, too, or not.
func TestFallbackPacketWaits(t *testing.T) {
	for _, at := range []string{":0", "127.0.0.1:0", "[::1]:0"} {
		w := openStacks(t, true)
		c := w.near.fallbackPacket("udp", at)
		to := "127.0.0.1" + portOfText(c.LocalAddr())
		if at == "[::1]:0" {
			to = c.LocalAddr().String()
		}
		d, err := net.Dial("udp", to)
		require.NoError(t, err)
		defer d.Close()
		got := make(chan error)
		read := func() { _, _, err := c.ReadFrom(make([]byte, 100)); got <- err }
		waits := func() {
			if at != "[::1]:0" { // else it waits in Go's poller
				sleeping(t, "socketapi.(*UDPConn).receiveBlocked", 1)
			}
		}
		for range 100 {
			go read()
			waits()
			_, err := d.Write([]byte("wake"))
			require.NoError(t, err)
			require.NoError(t, <-got)
		}
		go read()
		waits()
		require.NoError(t, c.SetReadDeadline(time.Now()))
		wantTimeout(t, <-got)
		require.NoError(t, c.SetReadDeadline(time.Time{}))
		go read()
		waits()
		require.NoError(t, c.Close())
		wantOpError(t, <-got, "read", "udp", net.ErrClosed)
	}
}

// In every method what is closed is net.ErrClosed, a deadline that has passed a time-out.
func TestFallbackUDPClosed(t *testing.T) {
	for _, at := range []string{":0", "[::1]:0"} {
		w := openStacks(t, true)
		c := w.near.fallbackPacket("udp", at)
		peer := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[::1]:9"))
		calls := map[string]struct {
			op   string
			call func() error
		}{
			"Read":        {"read", func() error { _, err := c.Read(make([]byte, 1)); return err }},
			"ReadMsgUDP":  {"read", func() error { _, _, _, _, err := c.ReadMsgUDP(make([]byte, 1), nil); return err }},
			"ReadBatch":   {"read", func() error { _, err := c.ReadBatch(batchOf(1), 0); return err }},
			"WriteTo":     {"write", func() error { _, err := c.WriteTo(nil, peer); return err }},
			"WriteMsgUDP": {"write", func() error { _, _, err := c.WriteMsgUDP(nil, nil, peer); return err }},
			"WriteBatch": {"write", func() error {
				_, err := c.WriteBatch([]ipv4.Message{{Buffers: [][]byte{nil}, Addr: peer}}, 0)
				return err
			}},
		}
		require.NoError(t, c.SetDeadline(time.Unix(1, 0)))
		for name, m := range calls {
			err := m.call()
			require.Error(t, err, name)
			wantOpError(t, err, m.op, "udp", nil)
			wantTimeout(t, err)
		}
		require.NoError(t, c.SetDeadline(time.Time{}))
		require.NoError(t, c.SetReadBuffer(1<<16))
		require.NoError(t, c.SetWriteBuffer(1<<16))
		require.NoError(t, c.Close())
		for name, m := range calls {
			err := m.call()
			require.Error(t, err, name)
			wantOpError(t, err, m.op, "udp", net.ErrClosed)
		}
		for _, call := range []func() error{
			c.Close, func() error { return c.SetDeadline(time.Time{}) }, func() error { return c.SetReadBuffer(1) },
			func() error { _, err := c.SyscallConn(); return err },
		} {
			require.ErrorIs(t, call(), net.ErrClosed)
		}
	}
}

// Batches hold what comes by the card and by the kernel, and send by both.
func TestFallbackBatches(t *testing.T) {
	w := openStacks(t, true)
	c := w.near.fallbackPacket("udp4", ":0")
	k, ear := kernelPacket(t, "127.0.0.1:0"), w.far.udp()
	far := net.UDPAddrFromAddrPort(w.far.bind(ear, netip.AddrPortFrom(w.far.cards[0], 0)))
	ms := []ipv4.Message{
		{Buffers: [][]byte{[]byte("1")}, Addr: k.LocalAddr()},
		{Buffers: [][]byte{[]byte("2")}, Addr: far},
		{Buffers: [][]byte{[]byte("3a"), []byte("3b")}, Addr: k.LocalAddr()},
		{Buffers: [][]byte{[]byte("4")}, Addr: far},
		{Buffers: [][]byte{[]byte("5566")}, Addr: k.LocalAddr(), OOB: cmsg(unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2, 0)},
	}
	n, err := c.WriteBatch(ms, 0)
	require.NoError(t, err)
	require.Equal(t, len(ms), n)
	buf := make([]byte, 100)
	for _, want := range []string{"1", "3a3b", "55", "66"} {
		n, _, err := k.ReadFrom(buf)
		require.NoError(t, err)
		require.Equal(t, want, string(buf[:n]))
	}
	w.far.hears(ear, "2")
	w.far.hears(ear, "4")

	at := netip.AddrPortFrom(INADDR_LOOPBACK, portOf(c.LocalAddr()))
	tos := cmsg(unix.IPPROTO_IP, unix.IP_TOS, 2)
	for _, text := range []string{"a", "bb", "a longer one"} {
		_, _, err := k.WriteMsgUDPAddrPort([]byte(text), tos, at)
		require.NoError(t, err)
	}
	in := batchOf(4)
	for i := range in {
		in[i].Buffers[0] = make([]byte, 5)
	}
	got := 0
	for got < 3 {
		n, err := c.ReadBatch(in[got:], 0)
		require.NoError(t, err)
		got += n
	}
	require.Equal(t, "bb", string(in[1].Buffers[0][:in[1].N]))
	require.Equal(t, []int{5, unix.MSG_TRUNC}, []int{in[2].N, in[2].Flags})
	require.Equal(t, k.LocalAddr().String(), in[0].Addr.String())
	require.Equal(t, []byte{2}, controls(t, in[0].OOB[:in[0].NN])[unix.IP_TOS], "ECN")
	_, err = c.ReadBatch(in, MSG_DONTWAIT)
	wantOpError(t, err, "read", "udp4", EWOULDBLOCK)
	// Also where all of it is the kernel's.
	alone := w.near.fallbackPacket("udp", "[::1]:0")
	_, err = alone.ReadBatch(in, MSG_DONTWAIT)
	wantOpError(t, err, "read", "udp", EWOULDBLOCK)
}

// An answer that a connected conn of the kernel's gets is an error, too.
func TestFallbackUDPConnected(t *testing.T) {
	w := openStacks(t, true)
	dialer, _ := w.near.fallbacks()
	k := kernelPacket(t, "127.0.0.1:0")
	got, err := dialer.Dial("udp", k.LocalAddr().String())
	require.NoError(t, err)
	c := got.(*UDPConn)
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	yes, why := c.Accelerated()
	require.Equal(t, []any{false, "destination 127.0.0.1 is the kernel's"}, []any{yes, why})
	require.Equal(t, k.LocalAddr().String(), c.RemoteAddr().String())
	_, err = c.Write([]byte("hello"))
	require.NoError(t, err)
	buf := make([]byte, 100)
	n, from, err := k.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, "hello", string(buf[:n]))
	require.Equal(t, c.LocalAddr().String(), from.String())
	_, err = k.WriteTo([]byte("answer"), from)
	require.NoError(t, err)
	readsFrom(t, c, "answer")
	_, err = c.WriteTo([]byte("x"), k.LocalAddr())
	wantOpError(t, err, "write", "udp", net.ErrWriteToConnected)
	require.Empty(t, c.Datagrams())
	require.NoError(t, k.Close())
	_, err = c.Write([]byte("anybody?"))
	require.NoError(t, err)
	_, err = c.Read(buf)
	wantOpError(t, err, "read", "udp", ECONNREFUSED)
	var size int
	require.NoError(t, raw(t, c).Control(func(fd uintptr) { size, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) }))
	require.NoError(t, c.SetReadBuffer(size/4))
	require.NoError(t, raw(t, c).Control(func(fd uintptr) {
		v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		require.NoError(t, err)
		require.Equal(t, size/2, v)
	}))
}
