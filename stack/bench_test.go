package stack

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/instructions"
)

// What a packet costs without a card: the engine and the user's side on one goroutine, frames from a link that does nothing but
// copy them.
var engine = slices.Concat(udpCases(), demuxCases(), tcpCases(), timerCases())

// most is the largest round there is.
const most = 32

// BenchmarkEngine is the table in nanoseconds and instructions.
func BenchmarkEngine(b *testing.B) { engine.Bench(b) }

// onHost is a case with a quiet host in which all that a round does is measured.
func onHost(name string, prepare func(q *quiet) (round func(packets int) (moved int))) instructions.Case {
	return instructions.Whole(name, func(tb testing.TB) func(int) int { return prepare(newQuiet(tb)) })
}

// answering is a case in which each frame is answered.
func answering(name string, prepare func(q *quiet)) instructions.Case {
	return onHost(name, func(q *quiet) func(int) int {
		prepare(q)
		return func(n int) int {
			before := q.link.Sent
			q.step(n)
			return q.link.Sent - before
		}
	})
}

func withPayload(name string, n int) string { return fmt.Sprintf("%s/payload=%d", name, n) }

// receives is a case of a socket that is read by messages of one call of Read.
func receives(name string, payload, messages int) instructions.Case {
	return onHost(withPayload(name, payload), func(q *quiet) func(int) int {
		s, ms := q.bind("10.0.0.1:7"), make([]Message, messages)
		for i := range ms {
			ms[i].Buf = make([]byte, 2048)
		}
		q.link.Lend(0, packet{}.udp(4000, 7, pattern(payload)))
		return func(n int) (got int) {
			q.step(n)
			for got < n {
				m, err := s.Read(ms)
				instructions.Must(q.t, err)
				got += m
			}
			return got
		}
	})
}

// handling is a case of a socket with a handler.
func handling(name string, payload int, handler Handler) instructions.Case {
	return answering(withPayload(name, payload), func(q *quiet) {
		q.handle("10.0.0.1:7", handler)
		q.link.Lend(0, packet{}.udp(4000, 7, pattern(payload)))
	})
}

// sends is a case of a socket that is written to, by one call.
func sends(name string, payload int, connected bool) instructions.Case {
	return onHost(withPayload(name, payload), func(q *quiet) func(int) int {
		s, ms := q.bind("10.0.0.1:7"), make([]Message, most)
		for i := range ms {
			ms[i].Buf = []byte(pattern(payload))
			if !connected {
				ms[i].Addr = ap("10.0.0.2:9")
			}
		}
		if connected {
			require.NoError(q.t, s.Connect(ap("10.0.0.2:9")))
		}
		return func(n int) int {
			before := q.link.Sent
			_, err := s.Write(ms[:n])
			instructions.Must(q.t, err)
			q.step(0)
			return q.link.Sent - before
		}
	})
}

func udpCases() (cases instructions.Table) {
	for _, n := range []int{64, 1400} {
		cases = append(cases,
			receives("udp-receive/batch", n, most),
			sends("udp-send/connected", n, true),
			// An answer in place, whose checksum stays.
			handling("udp-echo", n, func(p *Packet) { p.Echo() }),
			// An answer whose payload is another, and so its checksum.
			handling("udp-reply", n, func(p *Packet) { p.Reply(len(p.Payload)) }),
		)
	}
	cases = append(cases, receives("udp-receive/one", 64, 1), sends("udp-send/to", 64, false))
	return append(cases,
		answering("ping", func(q *quiet) { q.link.Lend(0, packet{}.ping(1, 1, pattern(56))) }),
		// A datagram of 3000 bytes in three fragments; the figure is for each fragment.
		onHost("reassembly", func(q *quiet) func(int) int {
			s, ms := q.bind("10.0.0.1:7"), []Message{{Buf: make([]byte, 4096)}}
			q.link.Lend(0, pieces(1, pattern(3000), 1480)...)
			return func(n int) (got int) {
				for range n {
					q.step(3)
					m, _ := s.Read(ms)
					got += 3 * m
				}
				return got
			}
		}).In("fragment", 0, 1),
		// A packet that is not for us.
		onHost("drop", func(q *quiet) func(int) int {
			q.link.Lend(0, packet{to: otherIP}.udp(4000, 7, pattern(64)))
			return func(n int) int {
				q.step(n)
				return n
			}
		}),
		// A step with nothing to do.
		onHost("idle", func(q *quiet) func(int) int {
			return func(n int) int {
				for range n {
					q.e.Step(q.now)
				}
				return n
			}
		}).In("step", 2, 6),
	)
}
