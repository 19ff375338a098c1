package stack

import (
	"fmt"
	"sync"
	"testing"

	"kitnet.dev/kit/stack/linktest"
)

// BenchmarkEnginesAtOnce is what a packet of each engine takes where as many as are named run at once, each on a thread of its own:
// it should not depend on their number, as far as there are processors. All answer for one socket, or each fills the ring of a socket
// that its thread reads.
func BenchmarkEnginesAtOnce(b *testing.B) {
	for _, n := range []int{1, 2, 4} {
		b.Run(fmt.Sprint("answer/", n), func(b *testing.B) {
			h, hoses := newHoses(b, n)
			h.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
			for _, hose := range hoses {
				hose.Lend(0, packet{}.udp(4000, 7, pattern(64)))
			}
			atOnce(b, h, hoses, func(int) {})
		})
		b.Run(fmt.Sprint("read/", n), func(b *testing.B) {
			h, hoses := newHoses(b, n)
			sockets, messages := make([]*sock, n), make([][]Message, n)
			for i, hose := range hoses {
				sockets[i] = h.bind(fmt.Sprint("10.0.0.1:", 7+i))
				hose.Lend(0, packet{}.udp(4000, 7+i, pattern(64)))
				for range most {
					messages[i] = append(messages[i], Message{Buf: make([]byte, 2048)})
				}
			}
			atOnce(b, h, hoses, func(i int) {
				if got, _ := sockets[i].Read(messages[i]); got != most {
					b.Error(got, "datagrams")
				}
			})
		})
	}
}

// newHoses makes a host whose engines have a hose each, on cache lines of its own.
func newHoses(b *testing.B, n int) (*host, []*linktest.Hose) {
	q := newQuiet(b, func(s *setup) { s.queues = n })
	padded := make([]struct {
		linktest.Hose
		_ [2 * cacheLine]byte
	}, n)
	hoses := make([]*linktest.Hose, n)
	for i, e := range q.iface.engines {
		hoses[i] = &padded[i].Hose
		*hoses[i] = *linktest.NewHose(q.wires[i].End(0))
		e.link = hoses[i]
	}
	return q.host, hoses
}

// atOnce runs all engines at once; read is called on each one's thread after each step.
func atOnce(b *testing.B, h *host, hoses []*linktest.Hose, read func(engine int)) {
	var done sync.WaitGroup
	b.ResetTimer()
	for i, e := range h.iface.engines {
		done.Go(func() {
			for n := 0; n < b.N; n += most {
				hoses[i].Left = most
				e.Step(h.now)
				read(i)
			}
		})
	}
	done.Wait()
}
