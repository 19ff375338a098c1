package stack

import (
	"fmt"
	"net/netip"
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
	return instructions.Case{Name: name, Setup: func(tb testing.TB) instructions.Round {
		round := prepare(newQuiet(tb))
		return func(m *instructions.Meter, n int) int {
			m.Start()
			n = round(n)
			m.Stop()
			return n
		}
	}}
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

func udpCases() (cases instructions.Table) {
	payload := func(name string, n int) string { return fmt.Sprintf("%s/payload=%d", name, n) }
	buffers := func(n int) []Message {
		ms := make([]Message, most)
		for i := range ms {
			ms[i].Buf = make([]byte, n)
		}
		return ms
	}
	for _, n := range []int{64, 1400} {
		frame := packet{}.udp(4000, 7, pattern(n))
		to := make([]Message, most)
		for i := range to {
			to[i] = Message{Buf: []byte(pattern(n)), Addr: ap("10.0.0.2:9")}
		}
		send := func(s *sock, q *quiet, ms []Message) func(int) int {
			return func(n int) int {
				before := q.link.Sent
				_, _ = s.Write(ms[:n])
				q.step(0)
				return q.link.Sent - before
			}
		}
		cases = append(cases,
			onHost(payload("udp-receive/handler", n), func(q *quiet) func(int) int {
				got := 0
				q.handle("10.0.0.1:7", func(*Packet) { got++ })
				q.link.Lend(0, frame)
				return func(n int) int {
					got = 0
					q.step(n)
					return got
				}
			}),
			onHost(payload("udp-receive/batch", n), func(q *quiet) func(int) int {
				s, ms := q.bind("10.0.0.1:7"), buffers(2048)
				q.link.Lend(0, frame)
				return func(n int) int {
					q.step(n)
					got, _ := s.Read(ms)
					return got
				}
			}),
			onHost(payload("udp-receive/one", n), func(q *quiet) func(int) int {
				s, ms := q.bind("10.0.0.1:7"), buffers(2048)[:1]
				q.link.Lend(0, frame)
				return func(n int) (got int) {
					q.step(n)
					for range n {
						m, _ := s.Read(ms)
						got += m
					}
					return got
				}
			}),
			onHost(payload("udp-send/connected", n), func(q *quiet) func(int) int {
				s, ms := q.bind("10.0.0.1:7"), slices.Clone(to)
				for i := range ms {
					ms[i].Addr = netip.AddrPort{}
				}
				require.NoError(q.t, s.Connect(ap("10.0.0.2:9")))
				return send(s, q, ms)
			}),
			onHost(payload("udp-send/to", n), func(q *quiet) func(int) int { return send(q.bind("10.0.0.1:7"), q, to) }),
			// An answer in place, whose checksum stays.
			answering(payload("udp-echo", n), func(q *quiet) {
				q.handle("10.0.0.1:7", func(p *Packet) { p.Echo() })
				q.link.Lend(0, frame)
			}),
			// An answer whose payload is another, and so its checksum.
			answering(payload("udp-reply", n), func(q *quiet) {
				q.handle("10.0.0.1:7", func(p *Packet) { p.Reply(len(p.Payload)) })
				q.link.Lend(0, frame)
			}),
		)
	}
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
