package wire

// Kinds of TCP options (IANA's list) and their lengths.
const (
	kindEnd           = 0
	kindNop           = 1
	kindMSS           = 2 // RFC 9293 section 3.7.1
	kindWScale        = 3 // RFC 7323 section 2.2
	kindSACKPermitted = 4 // RFC 2018 section 2
	kindSACK          = 5 // RFC 2018 section 3
	kindTimestamp     = 8 // RFC 7323 section 3.2

	lenMSS           = 4
	lenWScale        = 3
	lenSACKPermitted = 2
	lenTimestamp     = 10
	lenSACKBlock     = 8
)

// MaxWScale is the largest shift of a window (RFC 7323 section 2.3).
const MaxWScale = 14

// MaxSACK is the most blocks that a segment has room for.
const MaxSACK = 4

// SACKBlock is a run of bytes that arrived: Left is the first, Right the one
// behind the last (RFC 2018 section 3).
type SACKBlock struct{ Left, Right Seq }

// TCPTimestamp is the timestamp option (RFC 7323 section 3.2).
type TCPTimestamp struct {
	Has      bool
	Val, Ecr uint32 // TSval, TSecr
}

// TCPOptions are the options of a segment that the stack knows. NoTCPOptions
// has none; the zero value has a window scale of 0.
type TCPOptions struct {
	MSS           uint16 // 0: none
	WScale        int8   // shift, 0 to 14; -1: none
	SACKPermitted bool
	NSACK         uint8 // of SACK, 0 to 4
	Timestamp     TCPTimestamp
	SACK          [MaxSACK]SACKBlock
}

// NoTCPOptions returns the options of a segment without any.
func NoTCPOptions() TCPOptions { return TCPOptions{WScale: -1} }

// ParseTCPOptions reads the options in b, see TCP.Options. They may be in any
// order and in any segment (RFC 9293 section 3.1, MUST-5). What is unknown is
// stepped over by its length (MUST-6), and so is what is known and has a length
// that is not its own; of two of a kind the later counts; nothing behind the
// end of the list does. A window scale above 14 counts as 14 (RFC 7323
// section 2.3). Left and Right of a SACK block are any numbers.
//
// The only error is ErrTCPOption, where a length is impossible or reaches out
// of the header (MUST-7); what stood in front of it is returned with it.
func ParseTCPOptions(b []byte) (o TCPOptions, err error) {
	err = o.Parse(b)
	return o, err
}

// Parse is ParseTCPOptions into a struct that is there already, some nanoseconds
// cheaper because nothing is copied. Blocks beyond NSACK keep what they held.
func (o *TCPOptions) Parse(b []byte) error {
	o.MSS, o.WScale, o.SACKPermitted, o.NSACK = 0, -1, false, 0
	// Nearly every segment between hosts with timestamps begins like this, and
	// most of them have nothing else.
	if len(b) >= 2+lenTimestamp && get32(b) == wordTimestamp {
		o.Timestamp = TCPTimestamp{Has: true, Val: get32(b[4:]), Ecr: get32(b[8:])}
		b = b[2+lenTimestamp:]
	} else {
		o.Timestamp = TCPTimestamp{}
	}
	for len(b) > 0 {
		kind, data, rest, err := nextTCPOption(b)
		if err != nil {
			return err
		}
		o.take(kind, data)
		b = rest
	}
	return nil
}

// nextTCPOption reads the option at the start of b, which is not empty: data is
// what follows its length byte, rest what is behind it, nothing behind the end
// of the list. The only error is ErrTCPOption.
func nextTCPOption(b []byte) (kind uint8, data, rest []byte, err error) {
	switch b[0] {
	case kindEnd:
		return kindEnd, nil, nil, nil
	case kindNop:
		return kindNop, nil, b[1:], nil
	}
	if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
		return b[0], nil, nil, ErrTCPOption
	}
	n := int(b[1])
	return b[0], b[2:n], b[n:], nil
}

// take keeps one option if its length is its own.
func (o *TCPOptions) take(kind uint8, data []byte) {
	switch n := len(data) + 2; {
	case kind == kindMSS && n == lenMSS:
		o.MSS = get16(data)
	case kind == kindWScale && n == lenWScale:
		o.WScale = int8(min(data[0], MaxWScale))
	case kind == kindSACKPermitted && n == lenSACKPermitted:
		o.SACKPermitted = true
	case kind == kindTimestamp && n == lenTimestamp:
		o.Timestamp = TCPTimestamp{Has: true, Val: get32(data), Ecr: get32(data[4:])}
	case kind == kindSACK && n > 2 && (n-2)%lenSACKBlock == 0 && n <= TCPMaxOptions:
		o.NSACK = uint8(len(data) / lenSACKBlock)
		for i := range o.NSACK {
			o.SACK[i] = SACKBlock{Seq(get32(data)), Seq(get32(data[4:]))}
			data = data[lenSACKBlock:]
		}
	}
}

// What stands in front of the numbers of each option, filled up to words.
const (
	wordMSS           = kindMSS<<24 | lenMSS<<16
	wordWScale        = kindNop<<24 | kindWScale<<16 | lenWScale<<8
	wordSACKPermitted = kindNop<<24 | kindNop<<16 | kindSACKPermitted<<8 | lenSACKPermitted
	wordTimestamp     = kindNop<<24 | kindNop<<16 | kindTimestamp<<8 | lenTimestamp
	// Linux lets these two share three words.
	wordSACKPermittedTimestamp = kindSACKPermitted<<24 | lenSACKPermitted<<16 | kindTimestamp<<8 | lenTimestamp
	wordSACK                   = kindNop<<24 | kindNop<<16 | kindSACK<<8 | 2
)

// Len returns what PutTCPOptions will: a multiple of 4, 0 to 40.
func (o *TCPOptions) Len(syn bool) (n int) {
	if o.Timestamp.Has {
		n += 2 + lenTimestamp
	}
	if syn {
		if o.MSS != 0 {
			n += lenMSS
		}
		if o.SACKPermitted && !o.Timestamp.Has {
			n += 2 + lenSACKPermitted
		}
		if o.WScale >= 0 {
			n += 1 + lenWScale
		}
		return n
	}
	if k := o.blocks(); k > 0 {
		n += 4 + k*lenSACKBlock
	}
	return n
}

// blocks returns how many SACK blocks have room.
func (o *TCPOptions) blocks() int {
	if o.Timestamp.Has {
		return int(min(o.NSACK, MaxSACK-1))
	}
	return int(min(o.NSACK, MaxSACK))
}

// PutTCPOptions writes options to the start of b and returns their length, a
// multiple of 4. A segment with SYN gets MSS, SACK permitted, timestamp and
// window scale, any other one timestamp and SACK, in the order and with the
// alignment of Linux (net/ipv4/tcp_output.c, tcp_options_write; RFC 7323
// appendix A). A dot stands between words of 4 bytes:
//
//	SYN, timestamps:    mss · sackOK TS · TSval · TSecr · nop wscale
//	SYN, no timestamps: mss · nop nop sackOK · nop wscale
//	others:             nop nop TS · TSval · TSecr · nop nop SACK · left · right · …
//
// and what is not there is left out. Beside a timestamp 3 SACK blocks have
// room, without one 4; those behind are left out.
func PutTCPOptions(b []byte, o *TCPOptions, syn bool) (n int) {
	if o.Timestamp.Has && !syn && o.NSACK == 0 && len(b) >= 2+lenTimestamp {
		putTimestamp((*[2 + lenTimestamp]byte)(b), &o.Timestamp)
		return 2 + lenTimestamp
	}
	return putTCPOptions(b, o, syn)
}

// putTimestamp writes all the options that most segments have.
func putTimestamp(b *[2 + lenTimestamp]byte, ts *TCPTimestamp) {
	put32(b[0:], wordTimestamp)
	put32(b[4:], ts.Val)
	put32(b[8:], ts.Ecr)
}

// putTCPOptions writes any options.
func putTCPOptions(b []byte, o *TCPOptions, syn bool) (n int) {
	put := func(v uint32) {
		put32(b[n:], v)
		n += 4
	}
	if syn && o.MSS != 0 {
		put(wordMSS | uint32(o.MSS))
	}
	if o.Timestamp.Has {
		if syn && o.SACKPermitted {
			put(wordSACKPermittedTimestamp)
		} else {
			put(wordTimestamp)
		}
		put(o.Timestamp.Val)
		put(o.Timestamp.Ecr)
	} else if syn && o.SACKPermitted {
		put(wordSACKPermitted)
	}
	if syn {
		if o.WScale >= 0 {
			put(wordWScale | uint32(min(o.WScale, MaxWScale)))
		}
		return n
	}
	if k := o.blocks(); k > 0 {
		put(wordSACK + uint32(k)*lenSACKBlock)
		for _, s := range o.SACK[:k] {
			put(uint32(s.Left))
			put(uint32(s.Right))
		}
	}
	return n
}
