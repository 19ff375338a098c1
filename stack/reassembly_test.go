package stack

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// pieces is a UDP datagram to port 7 in fragments of size payload bytes.
func pieces(id uint16, payload string, size int) [][]byte {
	p := packet{id: id}
	return p.pieces(wire.ProtocolUDP, p.udpBody(4000, 7, []byte(payload)), size)
}

// RFC 791 §3.2: fragments are put together whatever order they come in.
func TestReassemblyInEveryOrder(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	frames := pieces(0, pattern(100), 24)
	require.Len(t, frames, 5)
	id := uint16(0)
	permutations(len(frames), func(order []int) {
		id++
		frames := pieces(id, pattern(100), 24)
		for n, i := range order {
			end := "held"
			if n == len(order)-1 {
				end = "delivered consumed*4 held*-4"
			}
			h.arrives(end, frames[i], order)
		}
		s.wants(pattern(100), "10.0.0.2:4000")
	})
	require.Equal(t, uint64(120), h.Stats().Reassembled)
	require.Zero(t, h.Stats().Held)
	h.wait(seconds(60))
	h.wantIdle("nothing is left to time out")
}

// permutations visits all orders of n things.
func permutations(n int, visit func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var rec func(k int)
	rec = func(k int) {
		if k == n {
			visit(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			rec(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	rec(0)
}

// RFC 791 §3.2: the header of the whole is the first fragment's, without its options.
func TestReassemblyTakesTheFirstHeader(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	p := packet{id: 5, ttl: 33, tos: 0x44, options: []byte{7, 7, 4, 0, 0, 0, 0, 0}}
	frames := p.pieces(wire.ProtocolUDP, p.udpBody(4000, 7, []byte(pattern(40))), 24)
	q := packet{id: 5, ttl: 60, tos: 0x10, off: 24}
	h.arrives("held", q.ip(wire.ProtocolUDP, p.udpBody(4000, 7, []byte(pattern(40)))[24:]), "the second, with another TTL and without options")
	h.arrives("delivered consumed held*-1", frames[0])
	m := s.wants(pattern(40), "10.0.0.2:4000")
	require.Equal(t, uint8(33), m.TTL)
	require.Equal(t, uint8(0x44), m.TOS)
}

// The longest datagram, in the longest and the shortest fragments.
func TestReassemblyOfTheLongest(t *testing.T) {
	for _, size := range []int{1480, 8} {
		h := newHost(t, func(s *setup) { s.ring = 16384 })
		s := h.bind("10.0.0.1:7")
		payload := pattern(65507)
		frames := pieces(1, payload, size)
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
		for n, f := range frames {
			h.peers[0].Inject(f)
			if n%64 == 0 {
				h.settle()
			}
		}
		s.wants(payload, "10.0.0.2:4000")
		require.Zero(t, h.Stats().Held)
		require.Equal(t, uint64(len(frames)-1), h.Stats().Consumed-1, "and the peer's ARP reply")
	}
}

// Datagrams whose fragments mix are told apart by identification, source, destination and protocol: RFC 791 §3.2.
func TestReassemblyOfMixedDatagrams(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Addresses = append(s.Addresses, prefix("10.0.0.4/24")) })
	s, other := h.bind("10.0.0.1:7"), h.bind("10.0.0.4:7")
	first := func(p packet, payload string) []byte {
		return p.pieces(wire.ProtocolUDP, p.udpBody(4000, 7, []byte(payload)), 16)[0]
	}
	second := func(p packet, payload string) []byte {
		return p.pieces(wire.ProtocolUDP, p.udpBody(4000, 7, []byte(payload)), 16)[1]
	}
	all := []packet{{id: 1}, {id: 2}, {id: 1, from: otherIP}, {id: 1, to: "10.0.0.4"}}
	for n, p := range all {
		h.arrives("held", first(p, fmt.Sprintf("datagram number %d", n)))
	}
	h.arrives("held", packet{id: 1, off: 16}.ip(wire.ProtocolICMP, make([]byte, 8)), "another protocol")
	for n, p := range all {
		h.arrives("delivered consumed held*-1", second(p, fmt.Sprintf("datagram number %d", n)))
	}
	s.wants("datagram number 0", "10.0.0.2:4000")
	s.wants("datagram number 1", "10.0.0.2:4000")
	s.wants("datagram number 2", "10.0.0.3:4000")
	other.wants("datagram number 3", "10.0.0.2:4000")
	h.wait(seconds(31))
	require.Equal(t, uint64(1), h.Stats().Drops[DropFragmentTimeout], "the one without a first fragment")
	h.wantIdle("of which nobody is told")
}

// An exact copy of a fragment is ignored, as in Linux (net/ipv4/inet_fragment.c, IPFRAG_DUP).
func TestReassemblyIgnoresCopies(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	frames := pieces(1, pattern(60), 24)
	h.arrives("held", frames[0])
	h.arrives("consumed", frames[0])
	h.arrives("held", frames[2])
	h.arrives("consumed", frames[2], "the last, whose length is no multiple of 8")
	h.arrives("consumed", pieces(1, pattern(60), 8)[2], "a part of what has come")
	h.arrives("delivered consumed*2 held*-2", frames[1])
	s.wants(pattern(60), "10.0.0.2:4000")
	h.arrives("held", frames[1], "a copy that comes later begins anew")
}

// RFC 5722 §4, for IPv6, and Linux for both: "if one or more its constituent fragments is determined to be an overlapping fragment, the entire datagram (and any constituent fragments, including those not yet received) MUST be silently
// discarded."
func TestReassemblyRefusesOverlap(t *testing.T) {
	at := func(off, n int, mf bool) []byte {
		return packet{id: 1, off: off, mf: mf}.ip(wire.ProtocolUDP, []byte(pattern(200))[off:off+n])
	}
	for name, c := range map[string]struct{ first, second []byte }{
		"the same place, other bytes": {at(0, 24, true), packet{id: 1, mf: true}.ip(wire.ProtocolUDP, make([]byte, 24))},
		"within, other bytes":         {at(0, 48, true), packet{id: 1, off: 16, mf: true}.ip(wire.ProtocolUDP, make([]byte, 16))},
		"around":                      {at(16, 16, true), at(0, 48, true)},
		"over the end":                {at(0, 24, true), at(16, 24, true)},
		"over the beginning":          {at(16, 24, true), at(0, 24, true)},
		"longer at the same place":    {at(0, 16, true), at(0, 24, true)},
		"behind the end":              {at(24, 5, false), at(32, 8, true)},
		"up to behind the end":        {at(24, 5, false), at(16, 16, true)},
		"an end before what has come": {at(32, 8, true), at(24, 3, false)},
		"an end inside what has come": {at(24, 16, true), at(24, 13, false)},
		"a second end behind":         {at(24, 5, false), at(24, 8, false)},
		"a second end in front":       {at(24, 8, false), at(24, 5, false)},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.arrives("held", c.first)
			h.arrives("held*-1 fragment-overlap*2", c.second)
			h.arrives("fragment-overlap", c.first, "what comes later is refused too")
			h.arrives("fragment-overlap", at(64, 8, true), "even what overlaps nothing")
			h.wait(seconds(31))
			h.wantIdle(`RFC 5722 §4: "silently"`)
			h.arrives("held", c.first, "after the time-out its name is free")
		})
	}
}

// RFC 791 §3.1: offsets count 8 bytes; all but the last fragment are a multiple of that long. None is empty.
func TestReassemblyMalformed(t *testing.T) {
	h := newHost(t)
	h.arrives("fragment-malformed", packet{id: 1, mf: true}.ip(wire.ProtocolUDP, make([]byte, 7)))
	h.arrives("fragment-malformed", packet{id: 1, mf: true}.ip(wire.ProtocolUDP, make([]byte, 1001)))
	h.arrives("fragment-malformed", packet{id: 1, mf: true}.ip(wire.ProtocolUDP, nil))
	h.arrives("fragment-malformed", packet{id: 1, off: 8}.ip(wire.ProtocolUDP, nil), "the last, without a byte")
	require.Zero(t, h.Stats().Held)
	require.Empty(t, h.iface.engines[0].frags.table)
}

// RFC 791 §3.1: "the total length … maximum 65,535": the "ping of death".
func TestReassemblyTooLong(t *testing.T) {
	h := newHost(t)
	h.arrives("fragment-too-long", packet{id: 1, off: 65528}.ip(wire.ProtocolUDP, make([]byte, 1000)))
	h.arrives("fragment-too-long", packet{id: 1, off: 65512}.ip(wire.ProtocolUDP, make([]byte, 4)))
	h.arrives("fragment-too-long", packet{id: 1, off: 65528, mf: true}.ip(wire.ProtocolUDP, make([]byte, 8)))
	h.arrives("held", packet{id: 1, off: 65512}.ip(wire.ProtocolUDP, make([]byte, 3)), "65,515 bytes behind a header of 20")
}

// RFC 1122 §3.3.2: "If this timeout expires, the partially-reassembled datagram MUST be discarded and an ICMP Time Exceeded
// message sent to the source host (if fragment zero has been received)."
func TestReassemblyTimeout(t *testing.T) {
	t.Run("with the first fragment", func(t *testing.T) {
		h := newHost(t)
		h.keepPeer()
		h.arrives("held", pieces(1, pattern(60), 24)[1])
		h.wait(seconds(10))
		h.arrives("held", pieces(1, pattern(60), 24)[0])
		h.wait(seconds(19.9))
		h.wantIdle("thirty seconds from what came first")
		h.wait(seconds(0.2))
		h.want("10.0.0.1 > 10.0.0.2: icmp time exceeded code 1 [10.0.0.2.4000 > 10.0.0.1.7: udp]")
		require.Equal(t, uint64(2), h.Stats().Drops[DropFragmentTimeout])
		require.Zero(t, h.Stats().Held)
		h.wantIdle("one error")
	})
	t.Run("without the first fragment", func(t *testing.T) {
		h := newHost(t)
		h.arrives("held", pieces(1, pattern(60), 24)[1])
		h.wait(seconds(31))
		require.Equal(t, uint64(1), h.Stats().Drops[DropFragmentTimeout])
		h.wantIdle("nobody is told")
	})
	t.Run("of a broadcast", func(t *testing.T) {
		h := newHost(t)
		p := packet{id: 1, to: bcastIP, toMAC: wire.HardwareBroadcast}
		h.arrives("held", p.pieces(wire.ProtocolUDP, p.udpBody(4000, 7, []byte(pattern(60))), 24)[0])
		h.wait(seconds(31))
		h.wantIdle("nobody is told about a broadcast")
	})
	t.Run("of a ping", func(t *testing.T) {
		h := newHost(t)
		h.keepPeer()
		h.arrives("held", packet{id: 1}.pieces(wire.ProtocolICMP, icmpBody(wire.ICMPEcho, 0, 1<<16, []byte(pattern(60))), 24)[0])
		h.wait(seconds(31))
		h.want("10.0.0.1 > 10.0.0.2: icmp time exceeded code 1 [10.0.0.2 > 10.0.0.1: icmp]")
	})
	t.Run("of an ICMP error", func(t *testing.T) { // RFC 1122 §3.2.2: never about an error
		h := newHost(t)
		h.arrives("held", packet{id: 1}.pieces(wire.ProtocolICMP, icmpBody(wire.ICMPUnreachable, 1, 0, []byte(pattern(60))), 24)[0])
		h.wait(seconds(31))
		h.wantIdle("no error about an error")
	})
	t.Run("of another length", func(t *testing.T) {
		h := newHost(t, func(s *setup) { s.Limits.ReassemblyTimeout = seconds(5) })
		h.arrives("held", pieces(1, pattern(60), 24)[1])
		h.wait(seconds(5.1))
		require.Zero(t, h.Stats().Held)
	})
}

// Limits.ReassemblyBytes is kept whatever comes: the oldest datagrams make room.
func TestReassemblyMemoryLimit(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Limits.ReassemblyBytes = 40_000 })
	s := h.bind("10.0.0.1:7")
	e := h.iface.engines[0]
	for id := range uint16(9) {
		h.arrives("held", pieces(id, pattern(60), 24)[0])
	}
	h.arrives("fragment-memory", pieces(9, pattern(60), 24)[0], "the tenth: one drop, one more held")
	require.Equal(t, uint64(9), h.Stats().Held)
	require.LessOrEqual(t, e.frags.bytes, 40_000)
	h.arrives("fragment-memory", pieces(0, pattern(60), 24)[1], "of the first datagram nothing is left: the second goes too")
	h.arrives("held", pieces(9, pattern(60), 24)[1])
	h.arrives("delivered consumed*2 held*-2", pieces(9, pattern(60), 24)[2], "the newest is whole")
	s.wants(pattern(60), "10.0.0.2:4000")
}

// A long datagram takes more memory when a later fragment comes; others are given up for it, and in the end it itself.
func TestReassemblyGrowsWithinTheLimit(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Limits.ReassemblyBytes = 40_000 })
	e := h.iface.engines[0]
	at := func(id uint16, off int) []byte {
		return packet{id: id, off: off, mf: true}.ip(wire.ProtocolUDP, make([]byte, 8))
	}
	for id := range uint16(5) {
		h.arrives("held", at(id, 0))
	}
	h.arrives("held", at(9, 0))
	h.arrives("held", at(9, 8000), "16,384 bytes beside five times 4096")
	require.Equal(t, 5*4096+16384, e.frags.bytes)
	h.arrives("held*-7 fragment-memory*8", at(9, 20_000), "all that there is does not hold the next size")
	require.Zero(t, e.frags.bytes)
	require.Empty(t, e.frags.table)
	h.arrives("held", at(1, 0))
	require.Equal(t, 4096, e.frags.bytes)
}

// A refused datagram still counts against the limit, so that a flood of them is bounded too.
func TestReassemblyLimitHoldsForRefused(t *testing.T) {
	h := newHost(t, func(s *setup) { s.Limits.ReassemblyBytes = 40_960 })
	e := h.iface.engines[0]
	for id := range uint16(1000) {
		for range 2 {
			h.peers[0].Inject(packet{id: id, mf: true}.ip(wire.ProtocolUDP, []byte(pattern(8+int(id)%2*8))))
			h.peers[0].Inject(packet{id: id, off: 8, mf: true}.ip(wire.ProtocolUDP, []byte(pattern(16))))
			h.peers[0].Inject(packet{id: id, off: 16, mf: true}.ip(wire.ProtocolUDP, []byte(pattern(16))))
		}
		h.settle()
		require.LessOrEqual(t, len(e.frags.table), 10)
		require.LessOrEqual(t, e.frags.bytes, 40_960)
	}
	h.wait(seconds(31))
	require.Zero(t, h.Stats().Held)
	require.Empty(t, e.frags.table)
	require.LessOrEqual(t, len(e.frags.free), 64)
}

// A card spreads the fragments of a datagram over its queues: one engine gets them all.
func TestReassemblyAcrossQueues(t *testing.T) {
	for _, queues := range []int{2, 4} {
		t.Run(fmt.Sprint(queues, " queues"), func(t *testing.T) {
			h := newHost(t, func(s *setup) { s.queues = queues })
			s := h.bind("10.0.0.1:7")
			rng := rand.New(rand.NewPCG(1, uint64(queues)))
			for id := range uint16(200) {
				frames := pieces(id, pattern(1000+int(id)), 480)
				rng.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
				for _, f := range frames {
					require.True(t, h.peers[rng.IntN(queues)].Inject(f))
				}
				s.wants(pattern(1000+int(id)), "10.0.0.2:4000")
			}
			st := h.Stats()
			require.Zero(t, st.Held)
			require.Equal(t, uint64(200), st.Reassembled)
			require.NotZero(t, st.Forwarded)
			require.Equal(t, st.Forwarded+st.Copied, st.RxForwarded)
		})
	}
}

// A fragment that finds the ring to the other engine full is dropped, and counted.
func TestReassemblyForwardRingFull(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 2; s.ring = 4096 })
	e := h.iface.engines[0]
	frames := 0
	for id := range uint16(2000) {
		h.peers[0].Inject(packet{id: id, mf: true}.ip(wire.ProtocolUDP, make([]byte, 1400)))
		frames++
	}
	for h.Stats().RxFrames < uint64(frames) {
		e.Step(h.now) // the other engine is not stepped
	}
	require.NotZero(t, h.Stats().Drops[DropForwardFull])
	h.settle()
	h.wait(seconds(31))
	require.Zero(t, h.Stats().Held)
}

// FuzzReassembly holds the engine against a model that knows only a map from offset to byte. Whole datagrams are of a protocol
// that nothing here speaks: the error about them quotes what was put together.
func FuzzReassembly(f *testing.F) {
	f.Add([]byte{0, 0, 2, 1, 0, 0, 2, 2, 0, 0, 0, 4, 1, 0, 0})
	f.Add([]byte{0, 0, 2, 1, 0, 1, 0, 2, 1, 0, 0, 1, 2, 1, 0, 3, 0, 0, 0, 0, 0, 2, 1, 0, 5})
	f.Fuzz(reassemble)
}

// Chance plays the same game, the same each time.
func TestReassemblyAgainstTheModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		script := make([]byte, 5*(1+rng.IntN(60)))
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		for i := 0; i < len(script); i += 5 {
			script[i] &= 0x1B // two datagrams or four, and the time now and then
			script[i+4] &= 0x1F
			if rng.IntN(4) > 0 {
				script[i] &^= 0x18
				script[i+1] &= 7
				script[i+3] &^= 2
			}
		}
		reassemble(t, script)
	}
}

// reassemble plays a script of 5 bytes a line: datagram, offset, length, flags, odd bytes.
func reassemble(t *testing.T, script []byte) {
	h := newHost(t, func(s *setup) { s.Limits.ICMPErrorsPerSecond = 1 << 30 })
	h.keepPeer()
	model := make(map[uint16]*naive)
	for ; len(script) >= 5; script = script[5:] {
		id, off, n := uint16(script[0]&3), int(script[1]&31)*8, int(script[2]&7)*8+int(script[4]>>5)
		mf := script[3]&1 != 0
		if script[0]&0xF8 == 0x18 {
			h.wait(seconds(40))
			for _, m := range model {
				if m.timesOut() {
					h.want("10.0.0.1 > 10.0.0.2: icmp time exceeded code 1 [10.0.0.2 > 10.0.0.1: proto 200]")
				}
			}
			clear(model)
			require.Zero(t, h.Stats().Held)
			h.wantIdle("one error for each")
			continue
		}
		body := []byte(pattern(off + n))[off:]
		if script[3]&2 != 0 && n > 0 {
			body[n-1] ^= 0x55
		}
		if !mf && off == 0 {
			continue // not a fragment
		}
		frame := packet{id: id, off: off, mf: mf}.ip(200, body)
		if n == 0 || mf && n%8 != 0 {
			h.arrives("fragment-malformed", frame)
			continue
		}
		if model[id] == nil {
			model[id] = &naive{bytes: make(map[int]byte), end: -1}
		}
		end, whole := model[id].take(off, mf, body)
		h.arrives(end, frame)
		if whole != nil {
			delete(model, id)
			sent := h.take(0)
			require.Equal(t, wire.CodeProtocolUnreachable, sent.icmp().Code())
			require.Equal(t, whole, []byte(sent.icmp().Payload()[wire.IPv4Len:]))
		}
	}
	h.wait(seconds(40))
	require.Zero(t, h.Stats().Held)
	require.Empty(t, h.iface.engines[0].frags.table)
	require.Zero(t, h.iface.engines[0].frags.bytes)
}

// A naive is the model of one datagram.
type naive struct {
	bytes   map[int]byte
	end     int
	held    int
	refused bool
}

func (m *naive) timesOut() bool {
	_, first := m.bytes[0]
	return first && !m.refused
}

// take is what should become of a fragment, and the whole payload where it was the last that was missing.
func (m *naive) take(off int, mf bool, body []byte) (end string, whole []byte) {
	have, equal, beyond := 0, 0, 0
	for at, b := range m.bytes {
		if at >= off && at < off+len(body) {
			have++
			if body[at-off] == b {
				equal++
			}
		}
		if at >= off+len(body) {
			beyond++
		}
	}
	switch {
	case m.refused:
		return "fragment-overlap", nil
	case !mf && (m.end >= 0 && m.end != off+len(body) || beyond > 0), m.end >= 0 && off+len(body) > m.end, have != 0 && equal != len(body):
		m.refused = true
		s := fmt.Sprintf("held*-%d fragment-overlap*%d", m.held, m.held+1)
		if m.held == 1 {
			s = "held*-1 fragment-overlap*2"
		}
		return s, nil
	case equal == len(body):
		return "consumed", nil
	}
	for i, b := range body {
		m.bytes[off+i] = b
	}
	if !mf {
		m.end = off + len(body)
	}
	if len(m.bytes) != m.end {
		m.held++
		return "held", nil
	}
	whole = make([]byte, m.end)
	for at, b := range m.bytes {
		whole[at] = b
	}
	switch m.held {
	case 1:
		return "consumed held*-1 ip-protocol", whole
	}
	return fmt.Sprintf("consumed*%d held*-%d ip-protocol", m.held, m.held), whole
}
