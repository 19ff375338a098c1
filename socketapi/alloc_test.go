//go:build !race

package socketapi_test

import (
	"io"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// The race detector makes sync.Pool lose what it holds, so that these counts mean something only without it.

// Go's conns allocate nothing either, neither for a message nor for a stream's bytes, on one address or on all, and whether they
// block or not.
func TestNetAllocs(t *testing.T) {
	w := openStacks(t, true)
	n := w.near.goNet()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	echo := w.near.udp()
	echoAddr := w.near.bind(echo, netip.AddrPortFrom(INADDR_LOOPBACK, 0))
	require.NoError(t, w.near.Handle(echo, func(p *stack.Packet) { p.Echo() }))
	calls := map[string]func(){}
	for _, at := range []string{"127.0.0.1:0", ":0"} {
		c := w.near.hearing("udp", at)
		buf, oob := make([]byte, 64), make([]byte, 128)
		self := netip.AddrPortFrom(INADDR_LOOPBACK, portOf(c.LocalAddr()))
		calls["WriteToUDPAddrPort and ReadFromUDPAddrPort at "+at] = func() {
			_, err := c.WriteToUDPAddrPort(buf, self)
			must(err)
			_, _, err = c.ReadFromUDPAddrPort(buf)
			must(err)
		}
		calls["an echo, which blocks, at "+at] = func() {
			_, err := c.WriteToUDPAddrPort(buf, echoAddr)
			must(err)
			_, from, err := c.ReadFromUDPAddrPort(buf)
			must(err)
			if from != echoAddr {
				t.Fatal(from)
			}
		}
		calls["messages with out-of-band data at "+at] = func() {
			_, _, err := c.WriteMsgUDPAddrPort(buf, nil, self)
			must(err)
			_, n, _, _, err := c.ReadMsgUDPAddrPort(buf, oob)
			must(err)
			_, _, err = c.WriteMsgUDPAddrPort(buf, oob[:n], self)
			must(err)
			_, _, err = c.ReadFromUDPAddrPort(buf)
			must(err)
		}
	}
	u := w.near.calling(net.UDPAddrFromAddrPort(echoAddr))
	buf := make([]byte, 64)
	calls["Write and Read of datagrams"] = func() {
		_, err := u.Write(buf)
		must(err)
		_, err = u.Read(buf)
		must(err)
	}
	l, err := n.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(INADDR_LOOPBACK, 0)))
	require.NoError(t, err)
	near, err := n.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	require.NoError(t, err)
	far, err := l.AcceptTCP()
	require.NoError(t, err)
	require.NoError(t, near.SetDeadline(time.Now().Add(time.Hour)))
	go func() { _, _ = far.WriteTo(far) }()
	defer far.Close()
	calls["Write and Read of a stream, which block"] = func() {
		_, err := near.Write(buf)
		must(err)
		_, err = io.ReadFull(near, buf)
		must(err)
	}
	for name, f := range calls {
		for range 100 {
			f()
		}
		require.Zero(t, testing.AllocsPerRun(500, f), name)
	}
}

// Nothing allocates per message, neither when a call finds what it wants nor when it blocks first.
func TestAllocs(t *testing.T) {
	w := openStacks(t, true)
	h := w.near
	s := h.udp()
	addr := h.bind(s, netip.AddrPortFrom(INADDR_LOOPBACK, 0))
	echo := h.udp()
	echoAddr := h.bind(echo, netip.AddrPortFrom(INADDR_LOOPBACK, 0))
	require.NoError(t, h.Handle(echo, func(p *stack.Packet) { p.Echo() }))
	buf, out, in := make([]byte, 64), messages(16), messages(16)
	for i := range out {
		out[i].Addr = addr
	}
	limit, short := patience, time.Microsecond
	var read, write, all FdSet
	all.Set(s)
	all.Set(echo)
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"SendTo and RecvFrom", func() {
			_, err := h.SendTo(s, buf, 0, addr)
			must(err)
			_, _, err = h.RecvFrom(s, buf, 0)
			must(err)
		}},
		{"an echo, which blocks", func() {
			_, err := h.SendTo(s, buf, 0, echoAddr)
			must(err)
			_, _, err = h.RecvFrom(s, buf, 0)
			must(err)
		}},
		{"WriteBatch and ReadBatch", func() {
			_, err := h.WriteBatch(s, out, 0)
			must(err)
			for n := 0; n < len(out); {
				got, err := h.ReadBatch(s, in, 0)
				must(err)
				n += got
			}
		}},
		{"Select, which blocks", func() {
			_, err := h.SendTo(s, buf, 0, echoAddr)
			must(err)
			read.Copy(&all)
			write.Zero()
			n, err := h.Select(math.MaxInt64, &read, &write, nil, &limit)
			must(err)
			if n != 1 || !read.IsSet(s) {
				t.Fatal("the echo is not ready to read")
			}
			_, _, err = h.RecvFrom(s, buf, 0)
			must(err)
		}},
		{"Select, which is over in time", func() {
			read.Copy(&all)
			n, err := h.Select(math.MaxInt64, &read, nil, nil, &short)
			must(err)
			if n != 0 {
				t.Fatal("nothing can be ready")
			}
		}},
		{"RecvFrom, which is over in time", func() {
			must(h.SetTimeout(s, SO_RCVTIMEO, time.Microsecond))
			if _, _, err := h.RecvFrom(s, buf, 0); err != EWOULDBLOCK {
				t.Fatal(err)
			}
			must(h.SetTimeout(s, SO_RCVTIMEO, 0))
		}},
		{"an error", func() {
			if _, _, err := h.RecvFrom(s, buf, MSG_DONTWAIT); err != EWOULDBLOCK {
				t.Fatal(err)
			}
			if _, err := h.Send(-1, buf, 0); err != EBADF {
				t.Fatal(err)
			}
		}},
	} {
		for range 100 {
			c.f()
		}
		require.Zero(t, testing.AllocsPerRun(500, c.f), c.name)
	}
}
