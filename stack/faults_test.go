package stack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// A pair is two stacks on the two ends of a wire with faults, and virtual time for both.
type pair struct {
	t    *testing.T
	wire *linktest.Wire
	a, b *Stack
	now  clock.Time
}

func newPair(t *testing.T, seed uint64, faults linktest.Faults) *pair {
	p := &pair{t: t, now: begin, wire: linktest.New(linktest.Config{Seed: seed, Ends: []linktest.EndConfig{{Faults: faults}, {Faults: faults}}})}
	p.a, p.b = p.host(0, hostIP), p.host(1, peerIP)
	p.run(4 * time.Second)
	return p
}

func (p *pair) host(end int, ip string) *Stack {
	s := New(Config{Seed: uint64(end + 1)})
	_, err := s.AddInterface(InterfaceConfig{
		Name: "eth0", Mode: Owned, Links: []Link{p.wire.End(end)}, Addresses: []netip.Prefix{prefix(ip + "/24")},
	})
	require.NoError(p.t, err)
	return s
}

// run moves the time on, a millisecond at a time.
func (p *pair) run(d time.Duration) {
	for until := p.now.Add(d); p.now < until; p.now = p.now.Add(time.Millisecond) {
		p.wire.Advance(p.now.Sub(begin))
		p.a.Step(p.now)
		p.b.Step(p.now)
	}
}

// faulty is a bad line: one frame in twenty meets each kind of trouble.
var faulty = linktest.Faults{
	Latency: 2 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.05, Duplicate: 0.05, Reorder: 0.05, ReorderDelay: 5 * time.Millisecond,
	Corrupt: 0.05, Truncate: 0.02,
}

// numbered is a datagram that says which one it is: its length and bytes follow from the number.
func numbered(n uint32) []byte {
	rng := rand.New(rand.NewPCG(uint64(n), 0))
	size := 4 + rng.IntN(1400)
	if n%8 == 0 {
		size = 4 + rng.IntN(20_000)
	}
	b := make([]byte, size)
	for i := 4; i < size; i++ {
		b[i] = byte(rng.Uint32())
	}
	binary.NativeEndian.PutUint32(b, n)
	return b
}

// Whatever a line does to frames, what arrives is what was sent, most of it does, and every packet has one end at both sides.
func TestFaultyLine(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := newPair(t, seed, faulty)
			server, client := p.b.NewDatagram(wire.ProtocolUDP), p.a.NewDatagram(wire.ProtocolUDP)
			require.NoError(t, server.Bind(ap("10.0.0.2:7")))
			require.NoError(t, client.Bind(ap("10.0.0.1:9")))
			echo := p.b.NewDatagram(wire.ProtocolUDP)
			require.NoError(t, echo.Bind(ap("10.0.0.2:8")))
			require.NoError(t, echo.SetHandler(func(p *Packet) { p.Echo() }))

			const count = 4000
			arrived, echoed := make(map[uint32]int), make(map[uint32]int)
			damaged := 0
			look := func(d *Datagram, from string, seen map[uint32]int) {
				ms := []Message{{Buf: make([]byte, 65535)}}
				for {
					if n, err := d.Read(ms); n == 0 {
						require.ErrorContains(t, err, "temporarily")
						return
					}
					require.Equal(t, ap(from), ms[0].Addr)
					n := binary.NativeEndian.Uint32(ms[0].Buf)
					if !bytes.Equal(numbered(n), ms[0].Buf[:ms[0].N]) {
						// One bit that is turned over is always found. Two in two fragments of one datagram may make up for
						// each other: the checksum is a sum.
						require.Greater(t, ms[0].N, 1472, "number %d is not what was sent", n)
						damaged++
					}
					seen[n]++
				}
			}
			for n := range uint32(count) {
				for _, to := range []string{"10.0.0.2:7", "10.0.0.2:8"} {
					_, err := client.Write([]Message{{Buf: numbered(n), Addr: ap(to)}})
					require.NoError(t, err)
				}
				p.run(time.Millisecond)
				look(server, "10.0.0.1:9", arrived)
				look(client, "10.0.0.2:8", echoed)
			}
			p.run(time.Second)
			look(server, "10.0.0.1:9", arrived)
			look(client, "10.0.0.2:8", echoed)
			require.Greater(t, len(arrived), count*7/10)
			require.Greater(t, len(echoed), count*5/10)
			twice := 0
			for _, n := range arrived {
				if n > 1 {
					twice++
				}
			}
			require.NotZero(t, twice, "the line duplicated, and UDP does not mind")
			require.LessOrEqual(t, damaged, 2)

			p.run(2 * time.Minute)
			for _, s := range []*Stack{p.a, p.b} {
				wantSums(t, s)
				st := s.Stats()
				require.Zero(t, st.Held)
				require.Zero(t, st.Waiting)
				require.NotZero(t, st.Drops[DropFragmentTimeout])
				require.NotZero(t, st.Drops[DropIPChecksum])
				require.NotZero(t, st.Drops[DropUDPChecksum])
				require.NotZero(t, st.Reassembled)
			}
			lost := p.wire.End(0).Stats()
			require.NotZero(t, lost.Lost+lost.Corrupted+lost.Truncated)
		})
	}
}

// The same seed is the same run, to the last counter.
func TestFaultyLineRepeats(t *testing.T) {
	run := func() (Stats, Stats) {
		p := newPair(t, 7, faulty)
		d := p.a.NewDatagram(wire.ProtocolUDP)
		for n := range uint32(500) {
			_, err := d.Write([]Message{{Buf: numbered(n), Addr: ap("10.0.0.2:7")}})
			require.NoError(t, err)
			p.run(time.Millisecond)
		}
		p.run(time.Minute)
		return p.a.Stats(), p.b.Stats()
	}
	a1, b1 := run()
	a2, b2 := run()
	require.Equal(t, a1, a2)
	require.Equal(t, b1, b2)
}

// A line that loses nearly everything: neighbours fail and come back, sockets are told, and nothing stays behind.
func TestDyingLine(t *testing.T) {
	p := newPair(t, 1, linktest.Faults{Loss: 0.9})
	d := p.a.NewDatagram(wire.ProtocolUDP)
	require.NoError(t, d.Connect(ap("10.0.0.2:7")))
	errors := make(map[string]int)
	for n := range uint32(2000) {
		if _, err := d.Write([]Message{{Buf: numbered(n)}}); err != nil {
			errors[err.Error()]++
		}
		p.run(50 * time.Millisecond)
	}
	require.NotZero(t, errors["no route to host"], "%v", errors)
	p.run(3 * time.Minute)
	for _, s := range []*Stack{p.a, p.b} {
		wantSums(t, s)
		require.Zero(t, s.Stats().Waiting)
		require.Zero(t, s.Stats().Held)
		require.Empty(t, s.Interfaces()[0].Neighbours())
	}
}
