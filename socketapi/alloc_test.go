//go:build !race

package socketapi_test

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// The race detector makes sync.Pool lose what it holds, so that these counts mean something only without it.

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
