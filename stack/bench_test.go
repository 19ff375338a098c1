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

// BenchmarkEngine is the table in nanoseconds and instructions.
func BenchmarkEngine(b *testing.B) { engine.Bench(b) }

// batch is how many packets a step takes.
const batch = 32

// A wrench is how a case begins: with a quiet host.
type wrench func(q *quiet) func() (packets int)

// onHost is a case in which a round is all of what f returns.
func onHost(name string, f wrench, changes ...func(*setup)) instructions.Case {
	return instructions.Case{Name: name, Setup: func(tb testing.TB) func(*instructions.Meter) int {
		round := f(newQuiet(tb, changes...))
		return func(m *instructions.Meter) int {
			m.Start()
			n := round()
			m.Stop()
			return n
		}
	}}
}

// answering is a case in which each frame of a batch is answered.
func answering(name string, prepare func(q *quiet)) instructions.Case {
	return onHost(name, func(q *quiet) func() int {
		prepare(q)
		return func() int {
			before := q.link.Sent
			q.step(batch)
			return q.link.Sent - before
		}
	})
}

func udpCases() (cases instructions.Table) {
	payload := func(name string, n int) string { return fmt.Sprintf("%s/payload=%d", name, n) }
	buffers := func(n int) []Message {
		ms := make([]Message, batch)
		for i := range ms {
			ms[i].Buf = make([]byte, n)
		}
		return ms
	}
	for _, n := range []int{64, 1400} {
		frame := packet{}.udp(4000, 7, pattern(n))
		to := make([]Message, batch)
		for i := range to {
			to[i] = Message{Buf: []byte(pattern(n)), Addr: ap("10.0.0.2:9")}
		}
		send := func(s *sock, q *quiet, ms []Message) func() int {
			return func() int {
				before := q.link.Sent
				_, _ = s.Write(ms)
				q.step(0)
				return q.link.Sent - before
			}
		}
		cases = append(cases,
			onHost(payload("udp-receive/handler", n), func(q *quiet) func() int {
				got := 0
				q.handle("10.0.0.1:7", func(*Packet) { got++ })
				q.link.Lend(0, frame)
				return func() int {
					got = 0
					q.step(batch)
					return got
				}
			}),
			onHost(payload("udp-receive/batch", n), func(q *quiet) func() int {
				s, ms := q.bind("10.0.0.1:7"), buffers(2048)
				q.link.Lend(0, frame)
				return func() int {
					q.step(batch)
					got, _ := s.Read(ms)
					return got
				}
			}),
			onHost(payload("udp-receive/one", n), func(q *quiet) func() int {
				s, ms := q.bind("10.0.0.1:7"), buffers(2048)[:1]
				q.link.Lend(0, frame)
				return func() (got int) {
					q.step(batch)
					for range batch {
						n, _ := s.Read(ms)
						got += n
					}
					return got
				}
			}),
			onHost(payload("udp-send/connected", n), func(q *quiet) func() int {
				s, ms := q.bind("10.0.0.1:7"), slices.Clone(to)
				for i := range ms {
					ms[i].Addr = netip.AddrPort{}
				}
				require.NoError(q.t, s.Connect(ap("10.0.0.2:9")))
				return send(s, q, ms)
			}),
			onHost(payload("udp-send/to", n), func(q *quiet) func() int { return send(q.bind("10.0.0.1:7"), q, to) }),
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
		onHost("reassembly", func(q *quiet) func() int {
			s, ms := q.bind("10.0.0.1:7"), []Message{{Buf: make([]byte, 4096)}}
			q.link.Lend(0, pieces(1, pattern(3000), 1480)...)
			return func() int {
				q.step(3)
				n, _ := s.Read(ms)
				return 3 * n
			}
		}),
		// A packet that is not for us.
		onHost("drop", func(q *quiet) func() int {
			q.link.Lend(0, packet{to: otherIP}.udp(4000, 7, pattern(64)))
			return func() int {
				q.step(batch)
				return batch
			}
		}),
		idleCase(),
	)
}

// idleCase is a step with nothing to do.
func idleCase() instructions.Case {
	c := onHost("idle", func(q *quiet) func() int {
		return func() int {
			for range batch {
				q.e.Step(q.now)
			}
			return batch
		}
	})
	c.Unit = "step"
	return c
}
