package iperf3

import (
	"encoding/binary"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func datagram(seq int64, sent time.Duration, wide bool, length int) []byte {
	b := make([]byte, length)
	head(b, time.Unix(1e9, 0).Add(sent), seq, wide)
	return b
}

func TestHead(t *testing.T) {
	b := datagram(0x0102030405, 2500*time.Microsecond, true, 16)
	require.Equal(t, uint32(1e9), binary.BigEndian.Uint32(b))
	require.Equal(t, uint32(2500), binary.BigEndian.Uint32(b[4:]))
	require.Equal(t, uint64(0x0102030405), binary.BigEndian.Uint64(b[8:]))
	require.Equal(t, uint32(0x02030405), binary.BigEndian.Uint32(datagram(0x0102030405, 0, false, 12)[8:]))
}

// Lost and late are told from the sequence numbers.
func TestPathCounts(t *testing.T) {
	for _, wide := range []bool{false, true} {
		for _, c := range []struct {
			name                    string
			seqs                    []int64
			packets, lost, disorder int64
		}{
			{"in order", []int64{1, 2, 3}, 3, 0, 0},
			{"a gap", []int64{1, 2, 5}, 5, 2, 0},
			{"the first is lost", []int64{2}, 2, 1, 0},
			{"late ones are not lost", []int64{1, 4, 2, 3, 5}, 5, 0, 2},
			{"twice the same", []int64{1, 2, 2, 3}, 3, 0, 1},
		} {
			var p path
			for _, seq := range c.seqs {
				p.arrive(datagram(seq, 0, wide, 100), 0, wide)
			}
			require.Equal(t, [4]int64{c.packets, c.lost, c.disorder, int64(100 * len(c.seqs))},
				[4]int64{p.packets, p.lost, p.disorder, p.bytes}, c.name)
		}
	}
}

// RFC 3550 6.4.1: J = J + (|D| - J)/16, where D is how much longer a datagram took than the one before.
func TestPathJitter(t *testing.T) {
	var p path
	ms := int64(time.Millisecond)
	p.arrive(datagram(1, 0, false, 12), 100*ms, false)
	require.Zero(t, p.jitter)
	p.arrive(datagram(2, 10*time.Millisecond, false, 12), 110*ms, false)
	require.Zero(t, p.jitter, "the same transit")
	p.arrive(datagram(3, 20*time.Millisecond, false, 12), 136*ms, false)
	require.Equal(t, ms, p.jitter, "16 ms longer")
	p.arrive(datagram(4, 30*time.Millisecond, false, 12), 130*ms, false)
	require.Equal(t, ms+15*ms/16, p.jitter, "16 ms shorter")
	p.begin()
	require.Zero(t, p.jitter)
	p.arrive(datagram(5, 40*time.Millisecond, false, 12), 500*ms, false)
	require.Zero(t, p.jitter, "the first of the counted time has none before")
}

func TestPathIgnoresJunk(t *testing.T) {
	var p path
	p.arrive(nil, 0, false)
	p.arrive(make([]byte, 11), 0, false)
	p.arrive(make([]byte, 100), 0, false) // sequence number 0
	p.arrive(make([]byte, 15), 0, true)
	p.arrive(datagram(math.MaxInt64, 0, true, 100), 0, true)
	p.arrive(datagram(-1, 0, true, 100), 0, true)
	require.Equal(t, path{}, p)
}

// No datagrams, however false, make figures that cannot be.
func FuzzPath(f *testing.F) {
	f.Add(append(datagram(1, 0, true, 16), datagram(9, time.Hour, true, 16)...), true)
	f.Add(append(datagram(1, 0, false, 12), datagram(9, time.Hour, false, 12)...), false)
	f.Fuzz(func(t *testing.T, b []byte, wide bool) {
		var p path
		length := map[bool]int{true: 16, false: 12}[wide]
		count, now := int64(0), int64(0)
		for ; len(b) >= length; b = b[length:] {
			p.arrive(b[:length], now, wide)
			count++
			now += int64(time.Minute)
			if p.lost < 0 || p.lost > p.packets || p.jitter < 0 || p.disorder > count || p.bytes > count*int64(length) {
				t.Fatalf("after %d datagrams: %+v", count, p)
			}
		}
	})
}

// The two numbers are in the byte order of the client, and old clients have others.
func TestGreetings(t *testing.T) {
	for ask, answer := range map[string]string{
		"9876": "6789", "6789": "9876", "\x15\xcd\x5b\x07": "\xb1\x68\xde\x3a", "\x07\x5b\xcd\x15": "\x3a\xde\x68\xb1",
	} {
		got, ok := greetings[[4]byte([]byte(ask))]
		require.True(t, ok, "%q", ask)
		require.Equal(t, answer, string(got[:]), "%q", ask)
	}
	require.Len(t, greetings, 4)
}

// Receiving costs no allocation a datagram.
func TestDeliverDoesNotAllocate(t *testing.T) {
	u := newUDP(nil, &params{udp: true, parallel: 2, length: 1400}, netip.MustParseAddr("127.0.0.1"), time.Now())
	ms := make([]Message, 64)
	for i := range ms {
		from := netip.AddrPortFrom(u.client, uint16(1000+i%2))
		if i < 2 {
			s := newStream(i, false)
			s.peer = from
			u.byPeer[from] = s
			u.streams = append(u.streams, s)
		}
		ms[i] = Message{Buf: datagram(int64(i/2+1), 0, false, 1400), N: 1400, Addr: from}
	}
	u.counting.Store(true)
	require.Zero(t, testing.AllocsPerRun(100, func() { u.deliver(ms, 0) }))
	require.Equal(t, int64(101*32*1400), u.streams[0].bytes.Load())
	require.Equal(t, int64(32), u.streams[1].packets.Load())
}
