package stack

import (
	"fmt"
	"math/rand/v2"
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
	f := &flow{quiet: newQuiet(t), t: t, nxt: 1_000_000, buf: make([]byte, 2*batch*flowMSS)}
	for range batch {
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

// receives is a batch of full segments that the user reads at once, with the ACKs that are sent for them.
func (f *flow) receives(m *instructions.Meter) int {
	f.later()
	for i := range batch {
		f.makes(i, wire.ACK, flowMSS)
	}
	m.Start()
	f.takes(batch)
	n, _ := f.s.Read(f.buf)
	f.step(0)
	m.Stop()
	require.Equal(f.t, batch*flowMSS, n)
	f.hears()
	return batch
}

// sends has the user write a batch of full segments, and the peer acknowledge two of them at a time.
func (f *flow) sends(write, ack *instructions.Meter) (segments, acks int) {
	f.later()
	before := f.link.Sent
	write.Start()
	n, err := f.s.Write(f.buf[:batch*flowMSS])
	f.step(0)
	write.Stop()
	require.NoError(f.t, err)
	require.Equal(f.t, batch*flowMSS, n)
	segments = f.link.Sent - before
	f.hears()
	last := f.ack
	for left := segments; left > 0; left -= 2 {
		f.ack = last - wire.Seq(max(left-2, 0)*flowMSS)
		f.makes(acks, wire.ACK, 0)
		acks++
	}
	f.later()
	ack.Start()
	f.takes(acks)
	ack.Stop()
	return segments, acks
}

// answers is a request of 100 bytes and its answer of as many. The ACK of the answer comes with the next request.
func (f *flow) answers(m *instructions.Meter) int {
	f.later()
	f.makes(0, wire.ACK|wire.PSH, 100)
	before := f.link.Sent
	m.Start()
	f.takes(1)
	n, _ := f.s.Read(f.buf)
	_, _ = f.s.Write(f.buf[:n])
	f.step(0)
	m.Stop()
	require.Equal(f.t, 100, n)
	require.NotEqual(f.t, before, f.link.Sent)
	f.hears()
	return 1
}

func tcpCases() (cases instructions.Table) {
	on := func(name, unit string, rounds int, round func(f *flow, m *instructions.Meter) int) {
		cases = append(cases, instructions.Case{
			Name: name, Unit: unit, Rounds: rounds,
			Setup: func(tb testing.TB) func(*instructions.Meter) int {
				f := newFlow(tb)
				return func(m *instructions.Meter) int { return round(f, m) }
			},
		})
	}
	on("tcp-receive", "segment", 2, (*flow).receives)
	on("tcp-send", "segment", 2, func(f *flow, m *instructions.Meter) int {
		segments, _ := f.sends(m, m)
		return segments
	})
	on("tcp-ack", "segment", 2, func(f *flow, m *instructions.Meter) int {
		_, acks := f.sends(nil, m)
		return acks
	})
	on("tcp-request", "request", 4, (*flow).answers)
	for _, life := range []struct{ name, of string }{
		{"accept", "accepted, closed by the client"}, {"accept-close", "accepted"}, {"connect", "begun here"},
	} {
		cases = append(cases, instructions.Case{
			Name: "tcp-life/" + life.name, Unit: "connection",
			Setup: func(tb testing.TB) func(*instructions.Meter) int {
				c := newLife(tb)
				return func(m *instructions.Meter) int {
					c.meter = m
					lives[life.of](c)
					c.meter = nil
					c.over()
					return 1
				}
			},
		})
	}
	for _, n := range []int{1, 100, 10_000} {
		cases = append(cases, tcpDemuxCase(n))
	}
	return cases
}

// tcpDemuxCase is a pure ACK, which says nothing new, for any of so many connections.
func tcpDemuxCase(connections int) instructions.Case {
	return instructions.Case{
		Name: fmt.Sprintf("tcp-demux/connections=%d", connections), Unit: "segment",
		Setup: func(tb testing.TB) func(*instructions.Meter) int {
			c := newCrowd(tb)
			c.grow(connections)
			rng := rand.New(rand.NewPCG(1, 1))
			frames := make([][]byte, 1024)
			for i := range frames {
				c.sends(rng.IntN(connections), wire.ACK, nil)
				frames[i] = append([]byte(nil), c.lends[0]...)
			}
			c.link.Lend(0, frames...)
			return func(m *instructions.Meter) int {
				m.Start()
				c.step(batch)
				m.Stop()
				return batch
			}
		},
	}
}
