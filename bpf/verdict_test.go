package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

func TestNamedFrames(t *testing.T) {
	eachProgram(t, func(t *testing.T, program Program) {
		r := newRig(t, program)
		m := populate(t, r.tables)
		for _, n := range namedFrames() {
			for _, frame := range n.before {
				_, got := r.run(frame)
				require.Equal(t, m.judge(frame).String(), got.String(), "before %s", n.name)
			}
			r.wants(n.reason, n.frame, n.name)
			require.Equal(t, n.reason.String(), m.judge(n.frame).String(), "the model on %s", n.name)
			r.forget()
			clear(m.fragments)
		}
	})
}

// Every reason but those that depend on no frame has a named frame.
func TestNamedFramesReachEveryReason(t *testing.T) {
	reached := map[Reason]bool{PassDisabled: true, PassNoXSK: true}
	for _, n := range namedFrames() {
		reached[n.reason] = true
	}
	for r := range Reason(Reasons) {
		require.True(t, reached[r], "no named frame reaches %s", r)
	}
}

func TestDisabledPassesEverything(t *testing.T) {
	eachProgram(t, func(t *testing.T, program Program) {
		r := newRig(t, program)
		populate(t, r.tables)
		require.NoError(t, r.tables.SetEnabled(false))
		for _, n := range namedFrames() {
			r.wants(PassDisabled, n.frame, n.name)
		}
		require.NoError(t, r.tables.SetEnabled(true))
		r.wants(XSKUDP, ip(udpTo(shared1, udpPort)))
	})
}

func TestQueueWithoutSocketPasses(t *testing.T) {
	eachProgram(t, func(t *testing.T, program Program) {
		r := newRig(t, program)
		m := populate(t, r.tables)
		require.NoError(t, r.coll.Maps[XSKMap].Delete(uint32(0)))
		m.noXSK = true
		for _, n := range namedFrames() {
			for _, frame := range append(n.before, n.frame) {
				r.wants(m.judge(frame), frame, n.name)
			}
		}
		require.Empty(t, m.fragments, "a datagram that the kernel got was remembered")
	})
}

// A cut frame is judged as the model says, and is never steered before its last byte is there.
func TestEveryTruncation(t *testing.T) {
	eachProgram(t, func(t *testing.T, program Program) {
		r := newRig(t, program)
		m := populate(t, r.tables)
		for _, n := range namedFrames() {
			for length := 14; length <= len(n.frame); length++ {
				for _, frame := range n.before {
					r.wants(m.judge(frame), frame, n.name)
				}
				cut := n.frame[:length]
				want := m.judge(cut)
				r.wants(want, cut, "%s, cut to %d bytes", n.name, length)
				require.False(t, want.Steered() && length < needed(n.frame), "%s, cut to %d bytes, was steered", n.name, length)
				r.forget()
				clear(m.fragments)
			}
		}
	})
}

// needed is how long a frame without padding is, by its own IPv4 or ARP header.
func needed(frame []byte) int {
	offset := 14
	for slices.Contains([]uint16{dot1Q, dot1AD}, binary.BigEndian.Uint16(frame[offset-2:])) && offset+4 <= len(frame) {
		offset += 4
	}
	switch binary.BigEndian.Uint16(frame[offset-2:]) {
	case 0x0806:
		return offset + 28
	case 0x0800:
		if offset+4 <= len(frame) {
			return offset + int(binary.BigEndian.Uint16(frame[offset+2:]))
		}
	}
	return len(frame)
}

// A frame of several buffers is judged by its headers in the first, its length by all.
func TestMultiBuffer(t *testing.T) {
	needsKernel(t, 5, 18, "a frame of several buffers")
	require.Contains(t, programs(t), Frags)
	r := newRig(t, Frags)
	m := populate(t, r.tables)
	for _, size := range []int{3000, 4000, 8042, 9000} {
		whole := ip(header{dst: shared1, protocol: 17}.packet(join(udp(4000, udpPort), make([]byte, size))))
		for _, frame := range [][]byte{whole, whole[:len(whole)-1], join(whole, []byte{0})} {
			r.wants(m.judge(frame), frame, "%d bytes", len(frame))
		}
		r.wants(XSKUDP, whole)
		r.wants(PassShort, whole[:len(whole)-1])
		r.wants(XSKOwned, ip(header{dst: owned1, protocol: 17}.packet(make([]byte, size))))
	}
}

// Every number of each space is steered exactly when its own bit is set.
func TestAllNumbers(t *testing.T) {
	program := programs(t)[0]
	spaces := []struct {
		name   string
		set    func(*Tables, uint16, bool) error
		packet func(n uint16) []byte
		reason Reason
	}{
		{"UDP", func(t *Tables, n uint16, on bool) error { return t.setPort(UDP, shared1, n, on) },
			func(n uint16) []byte { return udpTo(shared1, n) }, XSKUDP},
		{"TCP", func(t *Tables, n uint16, on bool) error { return t.setPort(TCP, shared1, n, on) },
			func(n uint16) []byte { return tcpTo(shared1, n) }, XSKTCP},
		{"echo", func(t *Tables, n uint16, on bool) error { return t.setBound(spaceEcho, shared1, n, on) },
			func(n uint16) []byte { return icmpTo(shared1, icmp(0, n, nil)) }, XSKEcho},
	}
	for _, space := range spaces {
		t.Run(space.name, func(t *testing.T) {
			r := newRig(t, program)
			require.NoError(t, r.tables.SetAddress(shared1, Shared))
			random := rand.New(rand.NewPCG(1, 2))
			half := make([]bool, 65536)
			for n := range half {
				half[n] = random.IntN(2) == 0
			}
			passes := []func(n int) bool{
				func(int) bool { return false },
				func(n int) bool { return half[n] },
				func(n int) bool { return !half[n] },
				func(int) bool { return true },
			}
			for _, bound := range passes {
				steered := uint64(0)
				for n := range 65536 {
					require.NoError(t, space.set(r.tables, uint16(n), bound(n)))
				}
				before, err := r.tables.Stats()
				require.NoError(t, err)
				for n := range 65536 {
					action, err := r.program.Run(&ebpf.RunOptions{Data: ip(space.packet(uint16(n)))})
					require.NoError(t, err)
					if (action == xdpRedirect) != bound(n) {
						t.Fatalf("number %d: action %d, bound %v", n, action, bound(n))
					}
					if bound(n) {
						steered++
					}
				}
				after, err := r.tables.Stats()
				require.NoError(t, err)
				require.Equal(t, steered, after[space.reason]-before[space.reason])
				require.EqualValues(t, 65536, after.Steered()+after.Passed()-before.Steered()-before.Passed())
			}
		})
	}
}

// The memory of fragments forgets the oldest, never the newest, and takes any number.
func TestFragmentMemoryIsBounded(t *testing.T) {
	r := newRig(t, programs(t)[0])
	populate(t, r.tables)
	const remembered, datagrams, newest = 4096, 5 * 4096, 32
	require.EqualValues(t, remembered, r.coll.Maps[bpfMapFragments].MaxEntries())
	for id := range datagrams {
		_, err := r.program.Run(&ebpf.RunOptions{Data: fragmentOf(shared1, uint16(id), 0, true, udp(4000, udpPort))})
		require.NoError(t, err)
	}
	known := 0
	for id := datagrams - 1; id >= 0; id-- {
		action, err := r.program.Run(&ebpf.RunOptions{Data: fragmentOf(shared1, uint16(id), 2, false, nil)})
		require.NoError(t, err)
		if action == xdpRedirect {
			known++
		} else {
			require.Less(t, id, datagrams-newest, "a datagram was forgotten before older ones")
		}
	}
	require.LessOrEqual(t, known, remembered)
	require.Greater(t, known, remembered/4, "hardly any datagram is remembered")
}

// What the fuzzer does, on a known set of frames: named ones with bytes changed, cut and put together.
func TestRandomFrames(t *testing.T) {
	eachProgram(t, func(t *testing.T, program Program) {
		r := newRig(t, program)
		m := populate(t, r.tables)
		random := rand.New(rand.NewPCG(3, 4))
		frames := namedFrames()
		for range 20000 {
			frame := slices.Clone(frames[random.IntN(len(frames))].frame)
			for range random.IntN(4) {
				frame[12+random.IntN(len(frame)-12)] = byte(random.Uint32() >> random.IntN(8))
			}
			if random.IntN(4) == 0 {
				frame = frame[:14+random.IntN(len(frame)-13)]
			}
			r.wants(m.judge(frame), frame, "%x", frame)
		}
	})
}

// FuzzVerdict gives a chain of frames, each behind its length in two bytes, to the program and to the model. Run it with
// -fuzzminimizetime 10x: what the kernel does is not counted as coverage, and minimising for it takes a minute each time.
func FuzzVerdict(f *testing.F) {
	for _, n := range namedFrames() {
		var chain []byte
		for _, frame := range append(n.before, n.frame) {
			chain = join(chain, be16(uint16(len(frame))), frame)
		}
		f.Add(chain)
	}
	r := newRig(f, programs(f)[0])
	m := populate(f, r.tables)
	f.Fuzz(func(t *testing.T, chain []byte) {
		r.t = t
		for len(chain) >= 2 {
			length := int(binary.BigEndian.Uint16(chain))
			frame := chain[2:]
			frame = frame[:min(length, len(frame), 1500)]
			chain = chain[2+len(frame):]
			if len(frame) < 14 {
				continue // a test run wants an Ethernet header
			}
			r.wants(m.judge(frame), frame, "%x", frame)
		}
		r.forget()
		clear(m.fragments)
	})
}
