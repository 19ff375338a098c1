package stack

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a packet costs without a card: the engine and the user's side on one goroutine, frames from a link that does nothing but
// copy them.

const batch = 64

var sizes = []int{64, 1400}

// BenchmarkReceive is from the frame to ReadBatch.
func BenchmarkReceive(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q := newQuiet(b)
			s := q.bind("10.0.0.1:7")
			q.link.lend(0, packet{}.udp(4000, 7, pattern(n)))
			ms := make([]Message, batch)
			for i := range ms {
				ms[i].Buf = make([]byte, 2048)
			}
			perPacket(b, func() int {
				q.step(batch)
				got, _ := s.Read(ms)
				return got
			})
		})
	}
}

// BenchmarkEcho is a handler's answer in place.
func BenchmarkEcho(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q := newQuiet(b)
			q.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
			q.link.lend(0, packet{}.udp(4000, 7, pattern(n)))
			sent := q.link.sent
			total := perPacket(b, func() int {
				q.step(batch)
				return batch
			})
			require.Equal(b, total, q.link.sent-sent)
		})
	}
}

// BenchmarkEnginesAtOnce is what a packet of each engine takes where as many as are named run at once, each on a thread of its own: it
// should not depend on their number, as far as there are processors. All answer for one socket, or each fills the ring of a socket
// that its thread reads.
func BenchmarkEnginesAtOnce(b *testing.B) {
	for _, n := range []int{1, 2, 4} {
		b.Run(fmt.Sprint("answer/", n), func(b *testing.B) {
			h, hoses := newHoses(b, n)
			h.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
			for i := range hoses {
				hoses[i].lend(0, packet{}.udp(4000, 7, pattern(64)))
			}
			atOnce(b, h, hoses, func(int) {})
		})
		b.Run(fmt.Sprint("read/", n), func(b *testing.B) {
			h, hoses := newHoses(b, n)
			sockets, messages := make([]*sock, n), make([][]Message, n)
			for i := range sockets {
				sockets[i] = h.bind(fmt.Sprint("10.0.0.1:", 7+i))
				hoses[i].lend(0, packet{}.udp(4000, 7+i, pattern(64)))
				for range batch {
					messages[i] = append(messages[i], Message{Buf: make([]byte, 2048)})
				}
			}
			atOnce(b, h, hoses, func(i int) {
				if got, _ := sockets[i].Read(messages[i]); got != batch {
					b.Error(got, "datagrams")
				}
			})
		})
	}
}

// A paddedHose is one that another thread's does not slow down.
type paddedHose struct {
	hose
	_ [2 * cacheLine]byte
}

// newHoses makes a host whose engines have a hose each.
func newHoses(b *testing.B, n int) (*host, []paddedHose) {
	q := newQuiet(b, func(s *setup) { s.queues = n })
	hoses := make([]paddedHose, n)
	for i, e := range q.iface.engines {
		hoses[i].hose = *q.link
		hoses[i].End = q.wires[i].End(0) // whose lock Flush takes
		hoses[i].lent = make([]byte, 2048)
		hoses[i].tx = slices.Clone(q.link.tx)
		e.link = &hoses[i]
	}
	return q.host, hoses
}

// atOnce runs all engines at once; read is called on each one's thread after each step.
func atOnce(b *testing.B, h *host, hoses []paddedHose, read func(engine int)) {
	var done sync.WaitGroup
	b.ResetTimer()
	for i, e := range h.iface.engines {
		done.Go(func() {
			for n := 0; n < b.N; n += batch {
				hoses[i].left = batch
				e.Step(h.now)
				read(i)
			}
		})
	}
	done.Wait()
}

// BenchmarkReply is a handler's answer with a changed payload, whose checksum is made anew.
func BenchmarkReply(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q := newQuiet(b)
			q.handle("10.0.0.1:7", func(p *Packet) { p.Reply(len(p.Payload)) })
			q.link.lend(0, packet{}.udp(4000, 7, pattern(n)))
			perPacket(b, func() int {
				q.step(batch)
				return batch
			})
		})
	}
}

// BenchmarkSend is from WriteBatch to the frame, by a connected socket and by one that is not.
func BenchmarkSend(b *testing.B) {
	for _, connected := range []bool{true, false} {
		for _, n := range sizes {
			name := fmt.Sprint("to ", n)
			if connected {
				name = fmt.Sprint("connected ", n)
			}
			b.Run(name, func(b *testing.B) {
				q := newQuiet(b)
				s := q.bind("10.0.0.1:7")
				ms := make([]Message, batch)
				for i := range ms {
					ms[i].Buf = []byte(pattern(n))
					if !connected {
						ms[i].Addr = ap("10.0.0.2:9")
					}
				}
				if connected {
					require.NoError(b, s.Connect(ap("10.0.0.2:9")))
				}
				sent := q.link.sent
				total := perPacket(b, func() int {
					n, _ := s.Write(ms)
					q.step(0)
					return n
				})
				require.Equal(b, total, q.link.sent-sent)
			})
		}
	}
}

// BenchmarkPing is an echo request and its reply.
func BenchmarkPing(b *testing.B) {
	q := newQuiet(b)
	q.link.lend(0, packet{}.ping(1, 1, pattern(56)))
	perPacket(b, func() int {
		q.step(batch)
		return batch
	})
}

// BenchmarkReassembly is a datagram of 3000 bytes in three fragments; the figure is for each fragment.
func BenchmarkReassembly(b *testing.B) {
	q := newQuiet(b)
	s := q.bind("10.0.0.1:7")
	q.link.lend(0, pieces(1, pattern(3000), 1480)...)
	ms := []Message{{Buf: make([]byte, 4096)}}
	perPacket(b, func() int {
		q.step(3)
		s.Read(ms)
		return 3
	})
}

// BenchmarkDrop is a packet that is not for us.
func BenchmarkDrop(b *testing.B) {
	q := newQuiet(b)
	q.link.lend(0, packet{to: otherIP}.udp(4000, 7, pattern(64)))
	perPacket(b, func() int {
		q.step(batch)
		return batch
	})
}

// BenchmarkIdle is a step with nothing to do.
func BenchmarkIdle(b *testing.B) {
	q := newQuiet(b)
	for b.Loop() {
		q.e.Step(q.now)
	}
}

// perPacket runs f, which says how many packets it moved, until b.N have been, and returns how many.
func perPacket(b *testing.B, f func() int) (total int) {
	for range 100 {
		total += f()
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		n := f()
		if n == 0 {
			b.Fatal("nothing moves")
		}
		done += n
		total += n
	}
	return total
}
