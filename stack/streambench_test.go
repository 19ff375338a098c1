package stack

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/instructions"
	"kitnet.dev/kit/stack/wire"
)

// A flow is a quiet host and one TCP connection of it, with all options that a kernel's would have. The peer's segments are made
// ahead of each round, outside of what is measured.
type flow struct {
	*quiet
	t       testing.TB
	s       *Stream
	nxt     wire.Seq // the peer's next
	ack     wire.Seq // of what the peer has
	echoes  uint32   // the timestamp that the peer got last
	options wire.TCPOptions
	frames  [][]byte
	buf     []byte
}

const flowMSS = 1448

func newFlow(t testing.TB) *flow {
	f := &flow{quiet: newQuiet(t), t: t, nxt: 1_000_000, buf: make([]byte, 2*most*flowMSS)}
	for range most {
		f.frames = append(f.frames, make([]byte, 1522))
	}
	l := f.NewStream()
	require.NoError(t, l.Bind(ap(hostIP+":80")))
	require.NoError(t, l.Listen(ListenConfig{Backlog: 10}))
	f.options = wire.TCPOptions{MSS: flowMSS + 12, WScale: 7, SACKPermitted: true}
	f.makes(0, wire.SYN, 0)
	f.takes(1)
	f.nxt++
	f.hears()
	f.options = wire.NoTCPOptions()
	f.makes(0, wire.ACK, 0)
	f.takes(1)
	var err error
	f.s, err = l.Accept()
	require.NoError(t, err)
	require.NoError(t, f.s.SetNoDelay(true))
	return f
}

// makes makes the peer's next segment, as the i-th to arrive.
func (f *flow) makes(i int, flags wire.TCPFlags, payload int) {
	b := f.frames[i][:cap(f.frames[i])]
	f.options.Timestamp = wire.TCPTimestamp{Has: true, Val: uint32(f.now / 1e6), Ecr: f.echoes}
	seg := b[wire.EthernetLen+wire.IPv4Len:]
	options := wire.PutTCPOptions(seg[wire.TCPLen:], &f.options, flags&wire.SYN != 0)
	n := wire.TCPLen + options + payload
	wire.PutEthernet(b, &wire.EthernetInfo{Dst: hostMAC, Src: peerMAC, Type: wire.EtherTypeIPv4})
	src, dst := wire.Addr(0x0A000002), wire.Addr(0x0A000001)
	wire.PutIPv4(b[wire.EthernetLen:], &wire.IPv4Fields{
		TotalLength: wire.IPv4Len + n, DF: true, TTL: 64, Protocol: wire.ProtocolTCP, Src: src, Dst: dst,
	})
	wire.PutTCP(seg, &wire.TCPFields{
		Src: src, Dst: dst, SrcPort: 4000, DstPort: 80, Seq: f.nxt, Ack: f.ack, Flags: flags, Window: 65535,
		OptionsLen: options, PayloadLen: payload,
	}, wire.Sum(seg[n-payload:n], 0))
	f.nxt += wire.Seq(payload)
	f.frames[i] = b[:wire.EthernetLen+wire.IPv4Len+n]
}

// takes has the host take n of the peer's segments.
func (f *flow) takes(n int) {
	f.link.Lend(0, f.frames[:n]...)
	f.step(n)
}

// hears has the peer see what the host sent last.
func (f *flow) hears() {
	t := sent(f.link.Last).tcp()
	f.ack = t.Seq().Add(t.Len())
	o, err := wire.ParseTCPOptions(t.Options())
	require.NoError(f.t, err)
	f.echoes = o.Timestamp.Val
}

// later lets time pass between two rounds.
func (f *flow) later() { f.now = f.now.Add(100 * time.Microsecond) }

// receives is n full segments in one step, which the user reads at once, with the ACKs that are sent for them.
func (f *flow) receives(m *instructions.Meter, n int) int {
	f.later()
	for i := range n {
		f.makes(i, wire.ACK, flowMSS)
	}
	m.Start()
	f.takes(n)
	got, _ := f.s.Read(f.buf)
	f.step(0)
	m.Stop()
	f.hears()
	return got / flowMSS
}

// sends is n full segments that the user writes at once, in a step, and ACKs of two of them each, in another.
func (f *flow) sends(write, ack *instructions.Meter, n int) (segments, acks int) {
	f.later()
	before := f.link.Sent
	write.Start()
	_, err := f.s.Write(f.buf[:n*flowMSS])
	f.step(0)
	write.Stop()
	require.NoError(f.t, err)
	for now := f.link.Sent - before; now > 0; now = f.link.Sent - before - segments {
		segments += now
		f.later()
		f.hears()
		last, n := f.ack, 0
		for left := now; left > 0; left -= 2 {
			f.ack = last - wire.Seq(max(left-2, 0)*flowMSS)
			f.makes(n, wire.ACK, 0)
			n++
		}
		acks += n
		ack.Start()
		f.takes(n) // which makes room in the congestion window, when the flow is young
		ack.Stop()
	}
	return segments, acks
}

// answers is a request of 100 bytes and its answer of as many, n times. An answer's ACK comes with the next request.
func (f *flow) answers(m *instructions.Meter, n int) int {
	before := f.link.Sent
	for range n {
		f.later()
		f.makes(0, wire.ACK|wire.PSH, 100)
		m.Start()
		f.takes(1)
		got, _ := f.s.Read(f.buf)
		_, _ = f.s.Write(f.buf[:got])
		f.step(0)
		m.Stop()
		f.hears()
	}
	return f.link.Sent - before
}

func tcpCases() (cases instructions.Table) {
	on := func(name string, round func(f *flow, m *instructions.Meter, n int) int) instructions.Case {
		return instructions.Case{Name: name, Unit: "segment", Setup: func(tb testing.TB) instructions.Round {
			f := newFlow(tb)
			return func(m *instructions.Meter, n int) int { return round(f, m, n) }
		}}
	}
	cases = append(cases,
		on("tcp-receive", (*flow).receives),
		// Segments with the ACKs that come for them.
		on("tcp-send", func(f *flow, m *instructions.Meter, n int) int {
			segments, _ := f.sends(m, m, n)
			return segments
		}),
		// ACKs alone, each of two segments.
		on("tcp-ack", func(f *flow, m *instructions.Meter, n int) int {
			_, acks := f.sends(nil, m, 2*min(n, most/2))
			return acks
		}),
		// A segment in and a segment out, in a step of their own.
		on("tcp-request", (*flow).answers).In("request", 0, 2),
	)
	for _, life := range []struct{ name, of string }{{"accept", "accepted, closed by the client"}, {"connect", "begun here"}} {
		cases = append(cases, instructions.Case{
			Name: "tcp-life/" + life.name, Unit: "connection", Count: [2]int{0, 1},
			Setup: func(tb testing.TB) instructions.Round {
				c := newLife(tb)
				return func(m *instructions.Meter, n int) int {
					for range n {
						c.meter = m
						lives[life.of](c)
						c.meter = nil
						c.over()
					}
					return n
				}
			},
		})
	}
	for _, n := range []int{1, 100, 10_000} {
		cases = append(cases, tcpDemuxCase(n))
	}
	return cases
}

// tcpDemuxCase is a pure ACK, which says nothing new, for any of so many connections. With more than one, each of those that a
// step has a segment for is served at its end.
func tcpDemuxCase(connections int) instructions.Case {
	return instructions.Whole(fmt.Sprintf("tcp-demux/connections=%d", connections), func(tb testing.TB) func(int) int {
		c := newCrowd(tb)
		c.grow(connections)
		rng := rand.New(rand.NewPCG(1, 1))
		frames := make([][]byte, 1024)
		for i := range frames {
			c.sends(rng.IntN(connections), wire.ACK, nil)
			frames[i] = slices.Clone(c.lends[0])
		}
		c.link.Lend(0, frames...)
		return func(n int) int {
			c.step(n)
			return n
		}
	}).In("segment", 2, 6)
}
