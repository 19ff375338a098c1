package wire_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// options changes the options of a segment without any.
func options(change func(*wire.TCPOptions)) wire.TCPOptions {
	o := wire.NoTCPOptions()
	change(&o)
	return o
}

func stamp(val, ecr uint32) wire.TCPTimestamp {
	return wire.TCPTimestamp{Has: true, Val: val, Ecr: ecr}
}

func TestParseTCPOptions(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want func(*wire.TCPOptions)
	}{
		"none": {nil, func(*wire.TCPOptions) {}},
		// RFC 9293 section 3.2 (MUST-4): the three basic ones.
		"end, no-operation and mss": {[]byte{1, 2, 4, 5, 0xB4, 0, 9, 9}, func(o *wire.TCPOptions) { o.MSS = 1460 }},
		"behind the end":            {[]byte{0, 2, 4, 5, 0xB4}, func(*wire.TCPOptions) {}},
		"a SYN of Linux": {[]byte{2, 4, 5, 0xB4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7}, func(o *wire.TCPOptions) {
			o.MSS, o.SACKPermitted, o.Timestamp, o.WScale = 1460, true, stamp(1, 2), 7
		}},
		"a SYN of Windows": {[]byte{2, 4, 5, 0xB4, 1, 3, 3, 8, 1, 1, 4, 2}, func(o *wire.TCPOptions) {
			o.MSS, o.SACKPermitted, o.WScale = 1460, true, 8
		}},
		"a timestamp alone":     {[]byte{1, 1, 8, 10, 0, 0, 1, 0, 0xFF, 0, 0, 0}, func(o *wire.TCPOptions) { o.Timestamp = stamp(256, 0xFF000000) }},
		"a timestamp unaligned": {[]byte{8, 10, 0, 0, 1, 0, 0xFF, 0, 0, 0, 1, 1}, func(o *wire.TCPOptions) { o.Timestamp = stamp(256, 0xFF000000) }},
		"one SACK block": {[]byte{1, 1, 5, 10, 0, 0, 0, 5, 0, 0, 0, 9}, func(o *wire.TCPOptions) {
			o.NSACK, o.SACK[0] = 1, wire.SACKBlock{Left: 5, Right: 9}
		}},
		"four SACK blocks": {append([]byte{5, 34}, make([]byte, 32)...), func(o *wire.TCPOptions) { o.NSACK = 4 }},
		// RFC 9293 section 3.1 (MUST-6): unknown options are ignored by their length.
		"unknown ones": {[]byte{30, 2, 99, 5, 1, 2, 3, 2, 4, 2, 0, 254, 3, 7}, func(o *wire.TCPOptions) { o.MSS = 512 }},
		"known ones of other lengths": {[]byte{2, 3, 5, 3, 4, 7, 7, 4, 3, 0, 8, 9, 1, 1, 1, 1, 1, 1, 1, 5, 9, 1, 1, 1, 1, 1, 1, 1, 5, 2},
			func(*wire.TCPOptions) {}},
		"the later of two": {[]byte{2, 4, 1, 0, 2, 4, 2, 0}, func(o *wire.TCPOptions) { o.MSS = 512 }},
		// RFC 7323 section 2.3: a shift above 14 is used as 14.
		"a shift of 14":  {[]byte{3, 3, 14}, func(o *wire.TCPOptions) { o.WScale = 14 }},
		"a shift of 15":  {[]byte{3, 3, 15}, func(o *wire.TCPOptions) { o.WScale = 14 }},
		"a shift of 255": {[]byte{3, 3, 255}, func(o *wire.TCPOptions) { o.WScale = 14 }},
		"a shift of 0":   {[]byte{3, 3, 0}, func(o *wire.TCPOptions) { o.WScale = 0 }},
	} {
		o, err := wire.ParseTCPOptions(c.b)
		require.NoError(t, err, name)
		require.Equal(t, options(c.want), o, name)
	}
}

// RFC 9293 section 3.1 (MUST-7): an illegal option length is handled.
func TestParseTCPOptionsOfImpossibleLength(t *testing.T) {
	for name, tail := range map[string][]byte{
		"no length byte":          {8},
		"length 0":                {8, 0, 0, 0},
		"length 1":                {8, 1, 0, 0},
		"length over the end":     {8, 10, 0, 0},
		"unknown, over the end":   {99, 5, 0, 0},
		"length 255":              {99, 255, 0, 0},
		"SACK that is cut":        {5, 18, 0, 0, 0, 1, 0, 0, 0, 2},
		"SACK with 256 in length": append([]byte{5, 0}, make([]byte, 30)...),
	} {
		o, err := wire.ParseTCPOptions(append([]byte{2, 4, 2, 0}, tail...))
		require.Equal(t, wire.ErrTCPOption, err, name)
		require.Equal(t, options(func(o *wire.TCPOptions) { o.MSS = 512 }), o, "%s: what stood in front is there", name)
	}
}

// The bytes are those of Linux 6.x with tcp_timestamps and tcp_sack on and off.
func TestPutTCPOptionsLikeLinux(t *testing.T) {
	mss := func(o *wire.TCPOptions) { o.MSS = 1460 }
	sackOK := func(o *wire.TCPOptions) { o.SACKPermitted = true }
	wscale := func(o *wire.TCPOptions) { o.WScale = 7 }
	ts := func(o *wire.TCPOptions) { o.Timestamp = stamp(0x01020304, 0x05060708) }
	sack := func(n uint8) func(o *wire.TCPOptions) {
		return func(o *wire.TCPOptions) {
			o.NSACK = n
			for i := range o.SACK {
				o.SACK[i] = wire.SACKBlock{Left: wire.Seq(i), Right: wire.Seq(i + 16)}
			}
		}
	}
	blocks := []byte{0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 17, 0, 0, 0, 2, 0, 0, 0, 18, 0, 0, 0, 3, 0, 0, 0, 19}
	all := func(o *wire.TCPOptions) { mss(o); sackOK(o); wscale(o); ts(o); sack(4)(o) }
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for _, c := range []struct {
		name string
		syn  bool
		set  []func(*wire.TCPOptions)
		want []byte
	}{
		{"SYN with all", true, []func(*wire.TCPOptions){all}, []byte{2, 4, 5, 0xB4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7}},
		{"SYN without timestamps", true, []func(*wire.TCPOptions){mss, sackOK, wscale}, []byte{2, 4, 5, 0xB4, 1, 1, 4, 2, 1, 3, 3, 7}},
		{"SYN without SACK", true, []func(*wire.TCPOptions){mss, ts, wscale}, []byte{2, 4, 5, 0xB4, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7}},
		{"SYN with an mss alone", true, []func(*wire.TCPOptions){mss}, []byte{2, 4, 5, 0xB4}},
		{"SYN with a shift alone", true, []func(*wire.TCPOptions){wscale}, []byte{1, 3, 3, 7}},
		{"SYN with nothing", true, nil, nil},
		{"SYN with a shift too large", true, []func(*wire.TCPOptions){func(o *wire.TCPOptions) { o.WScale = 127 }}, []byte{1, 3, 3, 14}},
		{"others with nothing", false, []func(*wire.TCPOptions){mss, sackOK, wscale}, nil},
		{"others with a timestamp", false, []func(*wire.TCPOptions){ts, mss, sackOK, wscale}, []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}},
		{"others with all", false, []func(*wire.TCPOptions){all}, join([]byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 5, 26}, blocks[:24])},
		{"others with SACK", false, []func(*wire.TCPOptions){sack(4)}, join([]byte{1, 1, 5, 34}, blocks)},
		{"others with one block", false, []func(*wire.TCPOptions){ts, sack(1)}, join([]byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 5, 10}, blocks[:8])},
		{"more blocks than there can be", false, []func(*wire.TCPOptions){sack(200)}, join([]byte{1, 1, 5, 34}, blocks)},
	} {
		o := options(func(o *wire.TCPOptions) {
			for _, set := range c.set {
				set(o)
			}
		})
		b := make([]byte, len(c.want)) // no room for a byte more
		require.Equal(t, len(c.want), o.Len(c.syn), c.name)
		require.Equal(t, len(c.want), wire.PutTCPOptions(b, &o, c.syn), c.name)
		require.Equal(t, append([]byte{}, c.want...), b, c.name)
	}
}

func randomTCPOptions(rng *rand.Rand) wire.TCPOptions {
	return options(func(o *wire.TCPOptions) {
		if rng.IntN(2) == 0 {
			o.MSS = uint16(rng.Uint32())
		}
		if rng.IntN(2) == 0 {
			o.WScale = int8(rng.IntN(wire.MaxWScale + 1))
		}
		o.SACKPermitted = rng.IntN(2) == 0
		if rng.IntN(2) == 0 {
			o.Timestamp = stamp(rng.Uint32(), rng.Uint32())
		}
		o.NSACK = uint8(rng.IntN(wire.MaxSACK + 1))
		for i := range o.NSACK {
			o.SACK[i] = wire.SACKBlock{Left: wire.Seq(rng.Uint32()), Right: wire.Seq(rng.Uint32())}
		}
	})
}

func TestTCPOptionsComeBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		o, syn := randomTCPOptions(rng), rng.IntN(2) == 0
		b := make([]byte, wire.TCPMaxOptions)
		n := wire.PutTCPOptions(b, &o, syn)
		require.Zero(t, n%4)
		require.Equal(t, n, o.Len(syn))
		back, err := wire.ParseTCPOptions(b[:n])
		require.NoError(t, err)
		if syn {
			o.NSACK, o.SACK = 0, [4]wire.SACKBlock{}
		} else {
			o.MSS, o.WScale, o.SACKPermitted = 0, -1, false
			if o.Timestamp.Has && o.NSACK == 4 {
				o.NSACK, o.SACK[3] = 3, wire.SACKBlock{}
			}
		}
		require.Equal(t, o, back)
	}
}
