package wire

import (
	"fmt"
	"strconv"
)

// appendTCP describes a segment as tcpdump does, with absolute numbers:
//
//	10.0.0.1.4000 > 10.0.0.2.7: Flags [P.], seq 100:105, ack 7, win 502, options [nop,nop,TS val 1 ecr 2], length 5
func appendTCP(b []byte, p IPv4, t []byte) []byte {
	s, err := ParseTCP(t)
	if err != nil {
		if len(t) < 4 {
			t = nil
		}
		return fmt.Appendf(appendEnds(b, p, t), ": tcp: %v", err)
	}
	flags, n := s.Flags(), len(s.Payload())
	b = flags.AppendTo(append(appendEnds(b, p, t), ": Flags ["...))
	b = append(b, ']')
	// An acknowledgment alone has no number of its own to tell.
	if n > 0 || flags&(SYN|FIN|RST) != 0 {
		b = strconv.AppendUint(append(b, ", seq "...), uint64(s.Seq()), 10)
	}
	if n > 0 {
		b = strconv.AppendUint(append(b, ':'), uint64(s.Seq().Add(n)), 10)
	}
	if flags&ACK != 0 {
		b = strconv.AppendUint(append(b, ", ack "...), uint64(s.Ack()), 10)
	}
	b = strconv.AppendUint(append(b, ", win "...), uint64(s.Window()), 10)
	if flags&URG != 0 {
		b = strconv.AppendUint(append(b, ", urg "...), uint64(s.Urgent()), 10)
	}
	if options := s.Options(); len(options) > 0 {
		b = append(appendTCPOptions(append(b, ", options ["...), options), ']')
	}
	b = strconv.AppendInt(append(b, ", length "...), int64(n), 10)
	if !p.IsFragment() {
		if c := s.ChecksumState(p.Src(), p.Dst()); c != ChecksumOK {
			b = fmt.Appendf(b, " (%v tcp checksum)", c)
		}
	}
	return b
}

// appendTCPOptions lists all options in their order.
func appendTCPOptions(b, options []byte) []byte {
	for first := true; len(options) > 0; first = false {
		kind, data, rest, err := nextTCPOption(options)
		if !first {
			b = append(b, ',')
		}
		if err != nil {
			return append(b, "bad opt"...)
		}
		b = appendTCPOption(b, kind, data)
		options = rest
	}
	return b
}

func appendTCPOption(b []byte, kind uint8, data []byte) []byte {
	o := NoTCPOptions()
	o.take(kind, data)
	switch {
	case kind == kindEnd:
		return append(b, "eol"...)
	case kind == kindNop:
		return append(b, "nop"...)
	case kind == kindMSS && len(data) == lenMSS-2:
		return fmt.Appendf(b, "mss %d", o.MSS)
	case o.WScale >= 0:
		return fmt.Appendf(b, "wscale %d", data[0]) // as it was sent
	case o.SACKPermitted:
		return append(b, "sackOK"...)
	case o.Timestamp.Has:
		return fmt.Appendf(b, "TS val %d ecr %d", o.Timestamp.Val, o.Timestamp.Ecr)
	case o.NSACK > 0:
		b = fmt.Appendf(b, "sack %d ", o.NSACK)
		for _, s := range o.SACK[:o.NSACK] {
			b = fmt.Appendf(b, "{%d:%d}", s.Left, s.Right)
		}
		return b
	}
	b = fmt.Appendf(b, "unknown-%d", kind)
	if len(data) > 0 {
		b = fmt.Appendf(b, " 0x%x", data)
	}
	return b
}
