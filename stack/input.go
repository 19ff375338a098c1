package stack

import (
	"kitnet.dev/kit/stack/wire"
)

// rx is what the input path knows of the packet that it is looking at.
type rx struct {
	link      Link // that lent the frame; an answer in place goes back to it
	frame     []byte
	src       wire.HardwareAddr
	l3        int                // where the IPv4 packet begins in frame
	group     bool               // the frame was broadcast or multicast
	forwarded bool               // the frame came over from another engine
	whole     bool               // the packet is not in frame: it was put together from fragments
	passed    bool               // the frame came over whole from an engine whose link only receives
	copied    bool               // no answer in the frame: the packet is not in it, has options, or is another interface's
	sum       wire.ChecksumState // of the UDP checksum
}

// receive takes a frame that the card's link lends.
func (e *Engine) receive(frame []byte) {
	e.stats.RxFrames++
	e.stats.RxBytes += uint64(len(frame))
	e.rx.link, e.rx.forwarded, e.rx.passed = e.link, false, false
	if e.tapping.tap != nil {
		e.tapping.hold(frame)
	}
	r := e.ethernet(frame)
	if r != NotDropped {
		e.stats.Drops[r]++
	}
	if e.tapping.holding {
		e.releaseTap(r)
	}
}

// receiveLocal takes a packet that the in-stack loopback lends, or another interface's engine. To an address of another
// interface an answer goes by that one's engine.
func (e *Engine) receiveLocal(frame []byte) {
	e.stats.RxLocal++
	e.rx = rx{link: e.loop, frame: frame, l3: wire.EthernetLen}
	e.rx.copied = e.local(wire.IPv4(frame[wire.EthernetLen:]).Src()) == nil
	if e.tapping.tap != nil {
		e.tapping.hold(frame)
	}
	r := e.ipv4(frame[wire.EthernetLen:])
	if r != NotDropped {
		e.stats.Drops[r]++
	}
	if e.tapping.holding {
		e.releaseTap(r)
	}
}

// ethernet looks at the frame's header. Nearly every frame is an untagged IPv4 one for our own address.
func (e *Engine) ethernet(frame []byte) DropReason {
	if len(frame) < wire.EthernetLen {
		return DropFrameTooShort
	}
	x := &e.rx
	x.frame, x.l3, x.group, x.whole, x.copied = frame, wire.EthernetLen, false, false, x.passed
	x.src = wire.HardwareAddr(frame[6:12])
	if wire.HardwareAddr(frame[0:6]) != e.hw {
		if x.group = frame[0]&1 != 0; !x.group {
			return DropOtherHost
		}
	}
	if frame[12] == byte(wire.EtherTypeIPv4>>8) && frame[13] == byte(wire.EtherTypeIPv4&0xFF) {
		return e.ipv4(frame[wire.EthernetLen:])
	}
	return e.ethernetOther(frame)
}

// ethernetOther looks through VLAN tags and takes ARP.
func (e *Engine) ethernetOther(frame []byte) DropReason {
	h := &e.ether
	if !h.Parse(frame) {
		return DropFrameTooShort
	}
	e.rx.l3 = int(h.HeaderLen)
	switch h.Type {
	case wire.EtherTypeIPv4:
		return e.ipv4(frame[h.HeaderLen:])
	case wire.EtherTypeARP:
		if !e.rx.forwarded {
			e.forwardToSiblings(frame)
		}
		return e.arp(h, frame[h.HeaderLen:])
	}
	return DropEtherType
}

// ipv4 takes a packet, RFC 791 and RFC 1122 §3.2.1.
func (e *Engine) ipv4(b []byte) DropReason {
	p, err := wire.ParseIPv4(b)
	if err != nil {
		return ipv4Malformed(err, b)
	}
	if !p.HeaderOK() {
		return DropIPChecksum
	}
	la := e.local(p.Dst())
	if la == nil {
		return DropIPNotOurs
	}
	if !e.sourceOK(p.Src()) {
		return DropIPSource
	}
	if e.rx.group && la.kind == localUnicast {
		return DropIPLinkBroadcast
	}
	if p.HasOptions() {
		e.rx.copied = true
		if r := e.ipv4Options(p); r != NotDropped {
			return r
		}
	}
	if p.IsFragment() {
		return e.fragment(p, la)
	}
	return e.deliver(p, la)
}

func ipv4Malformed(err error, b []byte) DropReason {
	switch {
	case len(b) < wire.IPv4Len:
		return DropIPTruncated
	case err == wire.ErrVersion:
		return DropIPVersion
	case err == wire.ErrHeaderLength, wire.IPv4(b).HeaderLen() > len(b):
		return DropIPHeaderLength
	}
	return DropIPTotalLength
}

// sourceOK refuses sources that cannot be answered, RFC 1122 §3.2.1.3: what is not from a single host, and, from a card,
// what only we ourselves may have sent.
func (e *Engine) sourceOK(src wire.Addr) bool {
	if src == 0 || src>>28 >= 0xE { // 0.0.0.0; 224.0.0.0/4 and 240.0.0.0/4 with the limited broadcast
		return false
	}
	if e.rx.link == Link(e.loop) {
		return true
	}
	if src.IsLoopback() {
		return false
	}
	return e.local(src) == nil // neither our own address nor our network's broadcast
}

// ipv4Options drops what a host must not act on: malformed options, answered with a parameter problem (RFC 1122 §3.2.2.5),
// and source routes (RFC 1122 §3.2.1.8 (c), RFC 7126 §4.3).
func (e *Engine) ipv4Options(p wire.IPv4) DropReason {
	s := p.ScanOptions()
	switch {
	case s.Malformed:
		e.sendICMPError(p, wire.ICMPErrorFields{Type: wire.ICMPParameterProblem, Rest: uint32(s.Pointer) << 24})
		return DropIPOptions
	case s.SourceRoute:
		e.sendICMPError(p, wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: wire.CodeSourceRouteFailed})
		return DropIPOptions
	}
	return NotDropped
}

// deliver hands a whole packet to its protocol.
func (e *Engine) deliver(p wire.IPv4, la *localAddr) DropReason {
	switch p.Protocol() {
	case wire.ProtocolUDP:
		return e.udp(p, la)
	case wire.ProtocolTCP:
		return e.tcp(p, la)
	case wire.ProtocolICMP:
		return e.icmp(p, la)
	}
	if la.kind == localUnicast {
		e.sendICMPError(p, wire.ICMPErrorFields{Type: wire.ICMPUnreachable, Code: wire.CodeProtocolUnreachable})
	}
	return DropIPProtocol
}
