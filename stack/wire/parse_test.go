package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// datagram builds an IPv4 datagram, with options of a multiple of 4 bytes.
func datagram(f wire.IPv4Fields, options, payload []byte) []byte {
	n := wire.IPv4Len + len(options)
	b := make([]byte, n+len(payload))
	f.TotalLength = len(b)
	wire.PutIPv4(b, &f)
	copy(b[wire.IPv4Len:], options)
	copy(b[n:], payload)
	b[0] = 0x40 | byte(n/4)
	b[10], b[11] = 0, 0
	sum := wire.Checksum(b[:n], 0)
	b[10], b[11] = byte(sum>>8), byte(sum)
	return b
}

// frame puts an Ethernet header in front.
func frame(typ wire.EtherType, payload []byte) []byte {
	b := make([]byte, wire.EthernetLen, wire.EthernetLen+len(payload))
	wire.PutEthernet(b, &wire.EthernetInfo{Dst: wire.HardwareAddr{2, 0, 0, 0, 0, 2}, Src: wire.HardwareAddr{2, 0, 0, 0, 0, 1}, Type: typ})
	return append(b, payload...)
}

var between = wire.IPv4Fields{TTL: 64, Src: addr("10.0.0.1"), Dst: addr("10.0.0.2")}

func udpBetween(payload string) []byte {
	b := append(make([]byte, wire.UDPLen), payload...)
	wire.PutUDP(b, &wire.UDPFields{Src: between.Src, Dst: between.Dst, SrcPort: 4000, DstPort: 7, PayloadLen: len(payload)},
		wire.Sum([]byte(payload), 0))
	f := between
	f.Protocol = wire.ProtocolUDP
	return datagram(f, nil, b)
}

func TestEthernetCutAnywhere(t *testing.T) {
	whole := make([]byte, wire.EthernetMaxLen)
	copy(whole[12:], "\x88\xa8\x00\x07\x81\x00\x00\x09\x08\x00")
	for n := range len(whole) {
		_, ok := wire.ParseEthernet(whole[:n])
		require.False(t, ok, "%d bytes", n)
	}
	h, ok := wire.ParseEthernet(whole)
	require.True(t, ok)
	require.Equal(t, wire.EtherTypeIPv4, h.Type)
	require.Equal(t, uint8(22), h.HeaderLen)
	require.Equal(t, [2]wire.VLANTag{0x88A80007, 0x81000009}, h.Tags)
}

func TestThirdTagIsNotLookedThrough(t *testing.T) {
	b := make([]byte, 26)
	copy(b[12:], "\x81\x00\x00\x01\x81\x00\x00\x02\x81\x00\x00\x03\x08\x00")
	h, ok := wire.ParseEthernet(b)
	require.True(t, ok)
	require.Equal(t, wire.EtherTypeVLAN, h.Type)
	require.Equal(t, uint8(22), h.HeaderLen)
}

func TestParseARPErrors(t *testing.T) {
	whole := make([]byte, 46) // padded to a whole frame
	wire.PutARP(whole, &wire.ARPFields{Op: wire.ARPReply, Sender: 1, Target: 2})
	p, err := wire.ParseARP(whole)
	require.NoError(t, err)
	require.Len(t, p, wire.ARPLen)
	require.Equal(t, wire.ARPReply, p.Op())
	for n := range wire.ARPLen {
		_, err := wire.ParseARP(whole[:n])
		require.ErrorIs(t, err, wire.ErrTruncated)
	}
	for at, want := range map[int]error{
		0: wire.ErrHardware, 1: wire.ErrHardware, 2: wire.ErrProtocolAddress, 3: wire.ErrProtocolAddress,
		4: wire.ErrHardware, 5: wire.ErrProtocolAddress,
	} {
		b := append([]byte{}, whole...)
		b[at] ^= 0x40
		_, err := wire.ParseARP(b)
		require.Equal(t, want, err, "byte %d", at)
	}
}

func TestParseIPv4Errors(t *testing.T) {
	whole := datagram(between, []byte{1, 1, 1, 0, 1, 1, 1, 0}, []byte("payload"))
	change := func(at int, v byte) []byte {
		b := append([]byte{}, whole...)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                       {nil, wire.ErrTruncated},
		"19 bytes":                      {whole[:19], wire.ErrTruncated},
		"less than its options":         {whole[:24], wire.ErrTruncated},
		"less than its total length":    {whole[:34], wire.ErrTruncated},
		"version 6":                     {change(0, 0x67), wire.ErrVersion},
		"version 6, header of 20":       {change(0, 0x65), wire.ErrVersion},
		"header of 16":                  {change(0, 0x44), wire.ErrHeaderLength},
		"header of 0":                   {change(0, 0x40), wire.ErrHeaderLength},
		"header of 60":                  {change(0, 0x4F), wire.ErrTruncated},
		"total length below the header": {change(3, 27), wire.ErrTotalLength},
		"total length below 20":         {append([]byte{0x45, 0, 0, 19}, whole[4:]...), wire.ErrTotalLength},
		"total length of 0":             {append([]byte{0x45, 0, 0, 0}, whole[4:]...), wire.ErrTotalLength},
		"total length far off":          {change(2, 0xFF), wire.ErrTruncated},
	} {
		_, err := wire.ParseIPv4(c.b)
		require.Equal(t, c.want, err, name)
	}
	p, err := wire.ParseIPv4(append(append([]byte{}, whole...), "padding"...))
	require.NoError(t, err)
	require.Len(t, p, len(whole), "padding is cut off")
	require.Greater(t, cap(p), len(whole)+6, "the capacity stays")
	require.Equal(t, "payload", string(p.Payload()))
	require.True(t, p.HasOptions())
	require.True(t, p.HeaderOK())
	for at := range 28 {
		p[at] ^= 0x04
		if p[0] == whole[0] {
			require.False(t, p.HeaderOK(), "a flipped bit in byte %d", at)
		}
		p[at] ^= 0x04
	}
}

func TestHeaderOKWithoutOptions(t *testing.T) {
	p, err := wire.ParseIPv4(datagram(between, nil, nil))
	require.NoError(t, err)
	require.True(t, p.HeaderOK())
	require.NotZero(t, p.HeaderChecksum())
	for at := 1; at < 20; at++ {
		p[at] ^= 0x80
		require.False(t, p.HeaderOK(), "a flipped bit in byte %d", at)
		p[at] ^= 0x80
	}
}

func TestECNCodepoints(t *testing.T) {
	for tos, want := range map[uint8]wire.ECN{0xFC: wire.ECNNotECT, 0xFD: wire.ECNECT1, 0xFE: wire.ECNECT0, 0xFF: wire.ECNCE} {
		f := between
		f.TOS = tos
		p := wire.IPv4(datagram(f, nil, nil))
		require.Equal(t, want, p.ECN())
		require.Equal(t, uint8(0x3F), p.DSCP())
	}
}

func TestWalkOfOptions(t *testing.T) {
	// RFC 791 section 3.1: a record route of two slots between no-operations.
	rest := []byte{1, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 148, 4, 0, 0, 0, 99, 99}
	var got []wire.IPv4Option
	for len(rest) > 0 {
		var o wire.IPv4Option
		var err error
		o, rest, err = wire.NextIPv4Option(rest)
		require.NoError(t, err)
		got = append(got, o)
	}
	require.Equal(t, []wire.IPv4Option{
		{Type: wire.OptionNop},
		{Type: wire.OptionRecordRoute, Data: []byte{4, 0, 0, 0, 0, 0, 0, 0, 0}},
		{Type: wire.OptionNop},
		{Type: wire.OptionRouterAlert, Data: []byte{0, 0}},
		{Type: wire.OptionEnd},
	}, got, "what is behind the end does not count")

	for name, b := range map[string][]byte{
		"no length byte":      {7},
		"length 0":            {7, 0, 0, 0},
		"length 1":            {7, 1, 0, 0},
		"length over the end": {7, 5, 4, 0},
	} {
		_, rest, err := wire.NextIPv4Option(b)
		require.Equal(t, wire.ErrOption, err, name)
		require.Empty(t, rest, name)
	}
	o, rest, err := wire.NextIPv4Option(nil)
	require.NoError(t, err)
	require.Equal(t, wire.OptionEnd, o.Type)
	require.Empty(t, rest)
}

func TestScanOptions(t *testing.T) {
	for name, c := range map[string]struct {
		options []byte
		want    wire.IPv4OptionScan
	}{
		"none":                        {nil, wire.IPv4OptionScan{}},
		"padding":                     {[]byte{1, 1, 0, 7}, wire.IPv4OptionScan{}},
		"record route":                {[]byte{7, 7, 4, 0, 0, 0, 0, 0}, wire.IPv4OptionScan{}},
		"full record route":           {[]byte{7, 7, 8, 0, 0, 0, 0, 0}, wire.IPv4OptionScan{}},
		"unknown option":              {[]byte{30, 4, 0, 0}, wire.IPv4OptionScan{}},
		"timestamp":                   {[]byte{68, 8, 5, 0, 0, 0, 0, 0}, wire.IPv4OptionScan{}},
		"loose source route":          {[]byte{1, 131, 7, 4, 10, 0, 0, 9}, wire.IPv4OptionScan{SourceRoute: true}},
		"strict source route":         {[]byte{137, 7, 4, 10, 0, 0, 9, 0}, wire.IPv4OptionScan{SourceRoute: true}},
		"length over the end":         {[]byte{1, 7, 9, 4}, wire.IPv4OptionScan{Malformed: true, Pointer: 22}},
		"length of 0":                 {[]byte{7, 0, 0, 0}, wire.IPv4OptionScan{Malformed: true, Pointer: 21}},
		"no length":                   {[]byte{1, 1, 1, 7}, wire.IPv4OptionScan{Malformed: true, Pointer: 23}},
		"route without pointer":       {[]byte{131, 2, 0, 0}, wire.IPv4OptionScan{SourceRoute: true, Malformed: true, Pointer: 21}},
		"pointer into the header":     {[]byte{7, 7, 3, 0, 0, 0, 0, 0}, wire.IPv4OptionScan{Malformed: true, Pointer: 22}},
		"malformed behind a route":    {[]byte{131, 3, 4, 7}, wire.IPv4OptionScan{SourceRoute: true, Malformed: true, Pointer: 23}},
		"source route behind the end": {[]byte{0, 131, 3, 4}, wire.IPv4OptionScan{}},
	} {
		p, err := wire.ParseIPv4(datagram(between, c.options, []byte("x")))
		require.NoError(t, err)
		require.Equal(t, c.want, p.ScanOptions(), name)
	}
}

func TestParseUDPErrors(t *testing.T) {
	b := wire.IPv4(udpBetween("hello")).Payload()
	for n := range len(b) {
		_, err := wire.ParseUDP(b[:n])
		require.Equal(t, wire.ErrTruncated, err, "%d bytes", n)
	}
	padded := append(append([]byte{}, b...), 0, 0, 0)
	u, err := wire.ParseUDP(padded)
	require.NoError(t, err)
	require.Equal(t, "hello", string(u.Payload()))
	require.Equal(t, 13, u.Length())
	require.Equal(t, cap(padded), cap(u), "the capacity stays")
	for length := range 8 {
		padded[5] = byte(length)
		_, err := wire.ParseUDP(padded)
		require.Equal(t, wire.ErrUDPLength, err)
	}
	padded[5] = 8
	u, err = wire.ParseUDP(padded)
	require.NoError(t, err)
	require.Empty(t, u.Payload())
}

func TestUDPChecksumStates(t *testing.T) {
	src, dst := between.Src, between.Dst
	u := wire.UDP(wire.IPv4(udpBetween("hello")).Payload())
	set := func(v uint16) { u[6], u[7] = byte(v>>8), byte(v) }
	require.Equal(t, wire.ChecksumOK, u.ChecksumState(src, dst))
	require.Equal(t, wire.ChecksumBad, u.ChecksumState(src, dst+1))
	right := u.Checksum()
	set(right + 1)
	require.Equal(t, wire.ChecksumBad, u.ChecksumState(src, dst))
	set(0)
	require.Equal(t, wire.ChecksumNone, u.ChecksumState(src, dst), "RFC 768: the sender made none")
	set(wire.PseudoSum(src, dst, wire.ProtocolUDP, len(u)))
	require.Equal(t, wire.ChecksumPartial, u.ChecksumState(src, dst), "what a kernel leaves to the card")
	require.Equal(t, wire.ChecksumBad, u.ChecksumState(src, dst+1))
	u.SetChecksum(src, dst)
	require.Equal(t, right, u.Checksum(), "a partial one is made whole")
}

func TestParseICMPErrors(t *testing.T) {
	for n := range wire.ICMPLen {
		_, err := wire.ParseICMP(make([]byte, n))
		require.Equal(t, wire.ErrTruncated, err)
	}
	m, err := wire.ParseICMP(make([]byte, 8))
	require.NoError(t, err)
	require.Empty(t, m.Payload())
	require.False(t, m.ChecksumOK())
}

// RFC 1122 section 3.2.2 lists the messages that no error may be about.
func TestICMPErrorTypes(t *testing.T) {
	for typ := range 256 {
		want := typ == 3 || typ == 4 || typ == 5 || typ == 11 || typ == 12
		require.Equal(t, want, wire.ICMPType(typ).IsError(), "type %d", typ)
	}
}

func TestParseQuoted(t *testing.T) {
	udp := udpBetween("a payload that is not all quoted")
	q, err := wire.ParseQuoted(udp[:28])
	require.NoError(t, err)
	require.Equal(t, wire.Quoted{Src: between.Src, Dst: between.Dst, Protocol: wire.ProtocolUDP, TotalLength: len(udp),
		HasPorts: true, SrcPort: 4000, DstPort: 7, Transport: udp[20:28]}, q)

	q, err = wire.ParseQuoted(udp[:24])
	require.NoError(t, err)
	require.True(t, q.HasPorts, "4 bytes are enough for ports")
	q, err = wire.ParseQuoted(udp[:23])
	require.NoError(t, err)
	require.False(t, q.HasPorts)
	for n := range 20 {
		_, err = wire.ParseQuoted(udp[:n])
		require.Equal(t, wire.ErrTruncated, err)
	}

	tcp := between
	tcp.Protocol = wire.ProtocolTCP
	q, err = wire.ParseQuoted(datagram(tcp, []byte{1, 1, 1, 1}, []byte{0x12, 0x34, 0x00, 0x50, 1, 2, 3, 4}))
	require.NoError(t, err)
	require.True(t, q.HasPorts, "behind options")
	require.Equal(t, uint16(0x1234), q.SrcPort)
	require.Equal(t, uint16(80), q.DstPort)
	require.Equal(t, []byte{1, 2, 3, 4}, q.Transport[4:])
}

func TestParseQuotedEcho(t *testing.T) {
	icmp := between
	icmp.Protocol = wire.ProtocolICMP
	echo := make([]byte, 16)
	putEcho(echo, wire.ICMPEcho, 0x1234, 5)
	q, err := wire.ParseQuoted(datagram(icmp, nil, echo))
	require.NoError(t, err)
	require.True(t, q.HasEcho)
	require.Equal(t, wire.ICMPEcho, q.EchoType)
	require.Equal(t, uint16(0x1234), q.ID)
	require.Equal(t, uint16(5), q.Seq)

	q, err = wire.ParseQuoted(datagram(icmp, nil, echo[:7]))
	require.NoError(t, err)
	require.False(t, q.HasEcho, "cut inside the header")
	echo[0] = byte(wire.ICMPTimestamp)
	q, err = wire.ParseQuoted(datagram(icmp, nil, echo))
	require.NoError(t, err)
	require.False(t, q.HasEcho)
}

func TestParseQuotedLaterFragment(t *testing.T) {
	f := between
	f.Protocol, f.FragmentOffset = wire.ProtocolUDP, 1480
	q, err := wire.ParseQuoted(datagram(f, nil, make([]byte, 8)))
	require.NoError(t, err)
	require.Equal(t, 1480, q.FragmentOffset)
	require.False(t, q.HasPorts, "only the first fragment has ports")
}

func TestParseQuotedErrors(t *testing.T) {
	b := udpBetween("x")
	for first, want := range map[byte]error{0x65: wire.ErrVersion, 0x44: wire.ErrHeaderLength, 0x4F: wire.ErrTruncated} {
		b[0] = first
		_, err := wire.ParseQuoted(b)
		require.Equal(t, want, err)
	}
}
