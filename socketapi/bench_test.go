package socketapi_test

import (
	"math"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// BenchmarkRoundTrip sends one message to an echo handler and blocks until the answer is there.
func BenchmarkRoundTrip(b *testing.B) {
	for _, c := range []struct {
		name string
		wait func(*Kit, Token, []byte) error
	}{
		{"RecvFrom", func(k *Kit, s Token, buf []byte) error {
			_, _, err := k.RecvFrom(s, buf, 0)
			return err
		}},
		{"Select", func(k *Kit, s Token, buf []byte) error {
			var read FdSet
			read.Set(s)
			if _, err := k.Select(math.MaxInt64, &read, nil, nil, nil); err != nil {
				return err
			}
			_, _, err := k.RecvFrom(s, buf, MSG_DONTWAIT)
			return err
		}},
	} {
		for _, where := range []string{"loopback", "wire"} {
			b.Run(c.name+"/"+where, func(b *testing.B) {
				w := openStacks(b, true)
				server, ip := w.near, INADDR_LOOPBACK
				if where == "wire" {
					server, ip = w.far, w.far.cards[0]
				}
				echo := server.udp()
				addr := server.bind(echo, netip.AddrPortFrom(ip, 0))
				require.NoError(b, server.Handle(echo, func(p *stack.Packet) { p.Echo() }))
				k, s, buf := w.near.calls.(*Kit), w.near.udp(), make([]byte, 64)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := k.SendTo(s, buf, 0, addr); err != nil {
						b.Fatal(err)
					}
					if err := c.wait(k, s, buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkBatch sends and receives over the loopback, so many messages a call; the time is for one message.
func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			w := openStacks(b, true)
			k, s := w.near.calls.(*Kit), w.near.udp()
			addr := w.near.bind(s, netip.AddrPortFrom(INADDR_LOOPBACK, 0))
			out, in := messages(n), messages(n)
			for i := range out {
				out[i].Addr = addr
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.WriteBatch(s, out, 0); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < n; {
					m, err := k.ReadBatch(s, in, 0)
					if err != nil {
						b.Fatal(err)
					}
					got += m
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
		})
	}
}

// BenchmarkUDPConn sends a message over the loopback and receives it, by Go's conn on one address and on all.
func BenchmarkUDPConn(b *testing.B) {
	for _, at := range []string{"127.0.0.1:0", ":0"} {
		b.Run(at, func(b *testing.B) {
			w := openStacks(b, true)
			c, buf := w.near.hearing("udp", at), make([]byte, 64)
			self := netip.AddrPortFrom(INADDR_LOOPBACK, portOf(c.LocalAddr()))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.WriteToUDPAddrPort(buf, self); err != nil {
					b.Fatal(err)
				}
				if _, _, err := c.ReadFromUDPAddrPort(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
