package stack

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/linktest"
)

// BenchmarkStreamBulk is one segment from a stack's user to another stack's user, over both engines and the wire in memory:
// the costs of both ends together.
func BenchmarkStreamBulk(b *testing.B) {
	for _, wake := range []int{1, 64} {
		b.Run(fmt.Sprintf("writes of %d segments", wake), func(b *testing.B) {
			p := newDuo(b, linktest.Config{Ring: 4096})
			c, s := p.connected()
			chunk, got := make([]byte, 1448*wake), make([]byte, 1<<20)
			b.SetBytes(1448)
			b.ReportAllocs()
			segments := 0
			for b.Loop() {
				if segments--; segments > 0 {
					continue
				}
				segments = wake
				for n := 0; n < len(chunk); {
					if m, err := c.Write(chunk[n:]); err == nil {
						n += m
					}
					p.now = p.now.Add(1000)
					p.settle()
					for {
						if m, err := s.Read(got); err != nil || m == 0 {
							break
						}
					}
				}
			}
		})
	}
}

// BenchmarkStreamRoundTrip is a byte there and back.
func BenchmarkStreamRoundTrip(b *testing.B) {
	p := newDuo(b, linktest.Config{})
	c, s := p.connected()
	require.NoError(b, c.SetNoDelay(true))
	require.NoError(b, s.SetNoDelay(true))
	buf := make([]byte, 10)
	b.ReportAllocs()
	for b.Loop() {
		for _, ends := range [][2]*Stream{{c, s}, {s, c}} {
			_, err := ends[0].Write(buf[:1])
			require.NoError(b, err)
			p.now = p.now.Add(1000)
			p.settle()
			n, err := ends[1].Read(buf)
			require.NoError(b, err)
			require.Equal(b, 1, n)
		}
	}
}

// BenchmarkStreamConnect is a connection's whole life at both ends: connect, a byte each way, close.
func BenchmarkStreamConnect(b *testing.B) {
	p := newDuo(b, linktest.Config{}, func(s *setup) {
		c := DefaultTCP()
		c.TimeWait = 1e6
		s.TCP = &c
	})
	l := p.listen(p.b, peerIP+":80", ListenConfig{Backlog: 10})
	buf := make([]byte, 10)
	b.ReportAllocs()
	for b.Loop() {
		c := p.dial(p.a, peerIP+":80")
		p.settle()
		s, err := l.Accept()
		require.NoError(b, err)
		for _, ends := range [][2]*Stream{{c, s}, {s, c}} {
			_, err = ends[0].Write(buf[:1])
			require.NoError(b, err)
			p.settle()
			_, err = ends[1].Read(buf)
			require.NoError(b, err)
		}
		require.NoError(b, s.Close())
		p.settle()
		require.NoError(b, c.Close())
		p.now = p.now.Add(2e6)
		p.settle()
	}
}
