package stack

import (
	"fmt"
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
