package wire

// OptionType is the first byte of an IPv4 option: a copied flag, a class and a
// number (RFC 791 section 3.1).
type OptionType uint8

// The options that RFC 791, RFC 2113 and the list of IANA give a meaning.
const (
	OptionEnd          OptionType = 0
	OptionNop          OptionType = 1
	OptionRecordRoute  OptionType = 7
	OptionTimestamp    OptionType = 68
	OptionLooseRoute   OptionType = 131
	OptionStrictRoute  OptionType = 137
	OptionRouterAlert  OptionType = 148
	optionPointerStart            = 4 // first slot of a route (RFC 791: "smallest legal value")
)

// IPv4Option is one option of a header.
type IPv4Option struct {
	Type OptionType
	// Data is what follows the length byte: nil for End and Nop.
	Data []byte
}

// NextIPv4Option reads the option at the start of b, which is what is left of
// IPv4.Options, and returns what is behind it: nothing behind OptionEnd and
// behind an error. An empty b gives OptionEnd. Walk with
//
//	for rest := p.Options(); len(rest) > 0; {
//		var o wire.IPv4Option
//		if o, rest, err = wire.NextIPv4Option(rest); err != nil { … }
//	}
//
// The only error is ErrOption.
func NextIPv4Option(b []byte) (o IPv4Option, rest []byte, err error) {
	if len(b) == 0 {
		return o, nil, nil
	}
	o.Type = OptionType(b[0])
	switch o.Type {
	case OptionEnd:
		return o, nil, nil
	case OptionNop:
		return o, b[1:], nil
	}
	if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
		return o, nil, ErrOption
	}
	n := int(b[1])
	o.Data = b[2:n:n]
	return o, b[n:], nil
}

// IPv4OptionScan is what a look through all options found.
type IPv4OptionScan struct {
	// SourceRoute: a loose or strict source route is there (RFC 791), which a
	// host may refuse (RFC 1122 section 3.2.1.8 (c)).
	SourceRoute bool
	// Malformed: the options cannot be read.
	Malformed bool
	// Pointer is the byte of the header that is at fault where Malformed is
	// set: the number that a parameter problem carries (RFC 792).
	Pointer uint8
}

// ScanOptions reads all options of the header and checks their lengths and
// pointers. It is cheap where there are none.
func (p IPv4) ScanOptions() (s IPv4OptionScan) {
	rest := p.Options()
	for len(rest) > 0 {
		at := p.HeaderLen() - len(rest)
		o, next, err := NextIPv4Option(rest)
		if err != nil {
			// At fault is the length byte, or the type where nothing follows it.
			return IPv4OptionScan{SourceRoute: s.SourceRoute, Malformed: true, Pointer: uint8(at + min(1, len(rest)-1))}
		}
		switch o.Type {
		case OptionLooseRoute, OptionStrictRoute:
			s.SourceRoute = true
			fallthrough
		case OptionRecordRoute:
			if len(o.Data) < 1 || o.Data[0] < optionPointerStart {
				s.Malformed, s.Pointer = true, uint8(at+min(2, len(o.Data)+1))
				return s
			}
		}
		rest = next
	}
	return s
}
