package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// echo does what an engine does for one datagram: read every header, check
// every sum, and write the answer. It returns the answer's length.
func echo(in, out []byte) int {
	var h wire.EthernetInfo
	if !h.Parse(in) || h.Type != wire.EtherTypeIPv4 {
		return 0
	}
	p, err := wire.ParseIPv4(in[h.HeaderLen:])
	if err != nil || !p.HeaderOK() || p.ScanOptions().SourceRoute {
		return 0
	}
	u, err := wire.ParseUDP(p.Payload())
	if err != nil || u.ChecksumState(p.Src(), p.Dst()) != wire.ChecksumOK {
		return 0
	}
	h.Dst, h.Src = h.Src, h.Dst
	n := wire.PutEthernet(out, &h)
	total := wire.IPv4Len + len(u)
	wire.PutIPv4(out[n:], &wire.IPv4Fields{TotalLength: total, TTL: 64, Protocol: wire.ProtocolUDP, Src: p.Dst(), Dst: p.Src()})
	payload := u.Payload()
	sum := wire.CopySum(out[n+wire.IPv4Len+wire.UDPLen:], payload, 0)
	wire.PutUDP(out[n+wire.IPv4Len:], &wire.UDPFields{Src: p.Dst(), Dst: p.Src(), SrcPort: u.DstPort(), DstPort: u.SrcPort(), PayloadLen: len(payload)}, sum)
	return n + total
}

func TestNothingAllocates(t *testing.T) {
	in, out := frame(wire.EtherTypeIPv4, udpBetween("hello")), make([]byte, 1514)
	require.Equal(t, len(in), echo(in, out))
	require.Zero(t, testing.AllocsPerRun(1000, func() { echo(in, out) }))

	arp := make([]byte, wire.ARPLen)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		wire.PutARP(arp, &wire.ARPFields{Op: wire.ARPReply, Sender: 1, Target: 2})
		if p, err := wire.ParseARP(arp); err != nil || p.Target() != 2 {
			t.Error("the packet did not come back")
		}
	}))

	quote, message := udpBetween("a datagram that nobody wants"), make([]byte, 600)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		n := wire.PutICMPError(message, wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: wire.CodePortUnreachable}, quote)
		m, err := wire.ParseICMP(message[:n])
		if err != nil || !m.ChecksumOK() {
			t.Error("the message did not come back")
		}
		if q, err := wire.ParseQuoted(m.Payload()); err != nil || !q.HasPorts {
			t.Error("the quote did not come back")
		}
	}))

	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_, err := wire.ParseIPv4(in)
		if err != wire.ErrVersion {
			t.Error("an error must be a constant")
		}
	}))
}

func BenchmarkParseUDPFrame(b *testing.B) {
	in := frame(wire.EtherTypeIPv4, udpBetween("hello"))
	var h wire.EthernetInfo
	for b.Loop() {
		h.Parse(in)
		p, _ := wire.ParseIPv4(in[h.HeaderLen:])
		if !p.HeaderOK() {
			b.Fatal("the header came out wrong")
		}
		if _, err := wire.ParseUDP(p.Payload()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEcho(b *testing.B) {
	in, out := frame(wire.EtherTypeIPv4, udpBetween("hello, this is a payload of some sixty-four bytes, more or less.")), make([]byte, 1514)
	for b.Loop() {
		echo(in, out)
	}
}

func BenchmarkParseEthernet(b *testing.B) {
	in := frame(wire.EtherTypeIPv4, udpBetween("hello"))
	var h wire.EthernetInfo
	for b.Loop() {
		h.Parse(in)
	}
}

func BenchmarkHeaderOK(b *testing.B) {
	p, err := wire.ParseIPv4(udpBetween("hello"))
	require.NoError(b, err)
	for b.Loop() {
		p.HeaderOK()
	}
}

func BenchmarkPutIPv4(b *testing.B) {
	out := make([]byte, wire.IPv4Len)
	f := between
	f.TotalLength = 100
	for b.Loop() {
		wire.PutIPv4(out, &f)
	}
}
