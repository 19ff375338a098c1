package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/linktest"
)

// RFC 9293 §3.8.6: however the user reads, and however small the buffer is, the window opens again before the peer has to wait
// for it longer than a round trip.
func TestStreamWindowOpensInTime(t *testing.T) {
	const total = 60_000
	line := linktest.Faults{Latency: time.Millisecond}
	p := newDuo(t, linktest.Config{Ends: []linktest.EndConfig{{HardwareAddr: hostMAC, Faults: line}, {HardwareAddr: peerMAC, Faults: line}}})
	for _, inside := range []bool{false, true} {
		for _, buffer := range []int{2048, 3072, 4096, 8192, 1 << 17} {
			l := p.b.NewStream()
			require.NoError(t, errors.Join(l.SetReceiveBuffer(buffer), l.SetReuseAddr(true)))
			require.NoError(t, l.Bind(ap(peerIP+":80")))
			require.NoError(t, l.Listen(ListenConfig{Backlog: 1}))
			for _, chunk := range []int{101, 600, 1000, 1400, 5000, 65536} {
				from := p.a
				if inside {
					from = p.b
				}
				c := p.dial(from, peerIP+":80")
				p.until("it is connected", func() bool { return l.Events() != 0 })
				s, err := l.Accept()
				require.NoError(t, err)
				took := carry(p, c, s, total, chunk)
				most := time.Duration(total/buffer+10) * 2 * 2 * time.Millisecond
				require.LessOrEqual(t, took, most, "inside %v, buffer %d, reads of up to %d", inside, buffer, chunk)
				require.NoError(t, c.Abort())
				require.NoError(t, s.Close())
				p.settle()
			}
			require.NoError(t, l.Close())
		}
	}
	p.wait(time.Minute)
	wantNoStreams(t, p.a)
	wantNoStreams(t, p.b)
}

// carry writes to c as much as has room and reads from s in pieces of random lengths, the engines running between each two.
func carry(p *duo, c, s *Stream, total, chunk int) time.Duration {
	rng := rand.New(rand.NewPCG(uint64(chunk), 1))
	began, left := p.now, total
	in, out := make([]byte, chunk), make([]byte, total)
	for got := 0; got < total; p.settle() {
		if n, err := c.Write(out[:left]); err == nil {
			left -= n
		}
		n, err := s.Read(in[:1+rng.IntN(chunk)])
		got += n
		if err == syscall.EAGAIN {
			p.until(fmt.Sprint("bytes come behind ", got), func() bool { return s.Events()&Readable != 0 || left > 0 && c.Events()&Writable != 0 })
		}
	}
	return p.now.Sub(began)
}
