package wire

import (
	"fmt"
	"strconv"
)

// Dump describes an Ethernet frame in one line, much as tcpdump -e does, for
// logs and test failures. It takes any bytes and says what is wrong with them.
//
//	02:00:00:00:00:01 > 02:00:00:00:00:02 10.0.0.1.4000 > 10.0.0.2.7: udp 5
func Dump(frame []byte) string {
	h, ok := ParseEthernet(frame)
	if !ok {
		return fmt.Sprintf("ethernet of %d bytes is cut short", len(frame))
	}
	b := h.Src.AppendTo(make([]byte, 0, 128))
	b = h.Dst.AppendTo(append(b, " > "...))
	for _, tag := range h.Tags[:h.NTags] {
		b = fmt.Appendf(b, " %v %d", tag.TPID(), tag.ID())
	}
	b = append(b, ' ')
	payload := frame[h.HeaderLen:]
	switch h.Type {
	case EtherTypeIPv4:
		return string(appendIPv4(b, payload))
	case EtherTypeARP:
		return string(appendARP(b, payload))
	}
	return string(fmt.Appendf(b, "%v length %d", h.Type, len(payload)))
}

func appendARP(b, payload []byte) []byte {
	p, err := ParseARP(payload)
	if err != nil {
		return fmt.Appendf(b, "arp: %v", err)
	}
	switch p.Op() {
	case ARPRequest:
		return fmt.Appendf(b, "arp who-has %v tell %v", p.Target(), p.Sender())
	case ARPReply:
		return fmt.Appendf(b, "arp %v is-at %v", p.Sender(), p.SenderHardware())
	}
	return fmt.Appendf(b, "arp op %d %v > %v", p.Op(), p.Sender(), p.Target())
}

func appendIPv4(b, payload []byte) []byte {
	p, err := ParseIPv4(payload)
	if err != nil {
		return fmt.Appendf(b, "ipv4: %v", err)
	}
	if p.FragmentOffset() != 0 {
		b = appendEnds(b, p, nil)
		b = fmt.Appendf(b, ": %v", p.Protocol())
	} else {
		b = appendTransport(b, p)
	}
	if p.IsFragment() {
		more := ""
		if p.MF() {
			more = "+"
		}
		b = fmt.Appendf(b, " (frag %d:%d@%d%s)", p.ID(), len(p.Payload()), p.FragmentOffset(), more)
	}
	if p.HasOptions() {
		b = fmt.Appendf(b, " (options %x)", p.Options())
	}
	if !p.HeaderOK() {
		b = append(b, " (bad ip checksum)"...)
	}
	return b
}

// appendEnds appends "src > dst", with ports where there are any.
func appendEnds(b []byte, p IPv4, ports []byte) []byte {
	b = p.Src().AppendTo(b)
	if ports != nil {
		b = strconv.AppendUint(append(b, '.'), uint64(get16(ports)), 10)
	}
	b = p.Dst().AppendTo(append(b, " > "...))
	if ports != nil {
		b = strconv.AppendUint(append(b, '.'), uint64(get16(ports[2:])), 10)
	}
	return b
}

func appendTransport(b []byte, p IPv4) []byte {
	t := p.Payload()
	switch p.Protocol() {
	case ProtocolICMP:
		return appendICMP(appendEnds(b, p, nil), p, t)
	case ProtocolUDP:
		return appendUDP(b, p, t)
	case ProtocolTCP:
		return appendTCP(b, p, t)
	}
	return fmt.Appendf(appendEnds(b, p, nil), ": %v %d", p.Protocol(), len(t))
}

func appendUDP(b []byte, p IPv4, t []byte) []byte {
	u, err := ParseUDP(t)
	if err != nil && p.MF() && len(t) >= UDPLen {
		// A first fragment holds less than the length says.
		return fmt.Appendf(appendEnds(b, p, t), ": udp %d", int(get16(t[4:]))-UDPLen)
	}
	if err != nil {
		return fmt.Appendf(appendEnds(b, p, nil), ": udp: %v", err)
	}
	b = fmt.Appendf(appendEnds(b, p, t), ": udp %d", len(u.Payload()))
	if s := u.ChecksumState(p.Src(), p.Dst()); s != ChecksumOK {
		b = fmt.Appendf(b, " (%v udp checksum)", s)
	}
	return b
}

func appendICMP(b []byte, p IPv4, t []byte) []byte {
	m, err := ParseICMP(t)
	if err != nil {
		return fmt.Appendf(b, ": icmp: %v", err)
	}
	b = append(b, ": icmp "...)
	switch typ := m.Type(); {
	case typ == ICMPEcho:
		b = fmt.Appendf(b, "echo request id %d seq %d length %d", m.ID(), m.Seq(), len(m))
	case typ == ICMPEchoReply:
		b = fmt.Appendf(b, "echo reply id %d seq %d length %d", m.ID(), m.Seq(), len(m))
	case typ.IsError():
		b = appendICMPError(b, m)
	default:
		b = fmt.Appendf(b, "type %d code %d length %d", typ, m.Code(), len(m))
	}
	if !p.IsFragment() && !m.ChecksumOK() {
		b = append(b, " (bad icmp checksum)"...)
	}
	return b
}

func appendICMPError(b []byte, m ICMP) []byte {
	switch m.Type() {
	case ICMPUnreachable:
		b = fmt.Appendf(b, "unreachable code %d", m.Code())
		if m.Code() == CodeFragNeeded {
			b = fmt.Appendf(b, " mtu %d", m.MTU())
		}
	case ICMPTimeExceeded:
		b = fmt.Appendf(b, "time exceeded code %d", m.Code())
	case ICMPParameterProblem:
		b = fmt.Appendf(b, "parameter problem at %d", m.Pointer())
	case ICMPRedirect:
		b = fmt.Appendf(b, "redirect to %v", m.Gateway())
	default:
		b = fmt.Appendf(b, "type %d code %d", m.Type(), m.Code())
	}
	q, err := ParseQuoted(m.Payload())
	if err != nil {
		return fmt.Appendf(b, " [%v]", err)
	}
	b = append(b, " ["...)
	if q.HasPorts {
		b = fmt.Appendf(b, "%v.%d > %v.%d", q.Src, q.SrcPort, q.Dst, q.DstPort)
	} else {
		b = fmt.Appendf(b, "%v > %v", q.Src, q.Dst)
	}
	b = fmt.Appendf(b, ": %v", q.Protocol)
	if q.HasSeq {
		b = fmt.Appendf(b, " seq %d", q.TCPSeq)
	}
	return append(b, ']')
}
