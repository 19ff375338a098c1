package stack

import (
	"syscall"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// ICMP, RFC 792 with RFC 1122 §3.2.2.

// defaultTTL is Linux's and RFC 1340's.
const defaultTTL = 64

func (e *Engine) icmp(p wire.IPv4, la *localAddr) DropReason {
	m, err := wire.ParseICMP(p.Payload())
	if err != nil {
		return DropICMPTruncated
	}
	if !m.ChecksumOK() {
		return DropICMPChecksum
	}
	switch t := m.Type(); {
	case t == wire.ICMPEcho:
		if la.kind != localUnicast {
			return DropICMPBroadcast
		}
		return e.echo(p, m)
	case t == wire.ICMPEchoReply:
		h := la.ids.get(m.ID())
		if h != nil {
			h = h.find(p.Src(), 0)
		}
		if h == nil {
			return DropICMPNoSocket
		}
		return e.deliverTo(h, p, 0, m)
	case t.IsError():
		return e.icmpError(p, m, la)
	}
	return DropICMPType
}

// echo answers a ping, in place where the request's frame can hold the reply.
func (e *Engine) echo(p wire.IPv4, m wire.ICMP) DropReason {
	if e.rx.copied || !e.fitsPath(p.Src(), len(p)) {
		return e.echoCopied(p, m)
	}
	makeEchoReply(m)
	e.replyHeader(p, defaultTTL, p.TOS()&^3)
	return e.answer(e.rx.l3+len(p), e.rx.src)
}

// makeEchoReply turns a request into its reply. Where nothing is left but zeros the updated checksum comes out as 0, and only
// the other zero of one's complement arithmetic is right: RFC 1624 §3 supposes that something is not zero.
func makeEchoReply(m wire.ICMP) {
	if m.MakeEchoReply(); m.Checksum() == 0 {
		m.SetChecksum()
	}
}

// replyHeader turns the header of a packet without options into its answer's, all but the length.
func (e *Engine) replyHeader(p wire.IPv4, ttl, tos uint8) {
	wire.PutIPv4(p, &wire.IPv4Fields{
		TOS: tos, TotalLength: len(p), DF: true, TTL: ttl, Protocol: p.Protocol(), Src: p.Dst(), Dst: p.Src(),
	})
}

// echoCopied answers a ping that came in fragments or with options, or whose way back is narrower, by the routing table.
func (e *Engine) echoCopied(p wire.IPv4, m wire.ICMP) DropReason {
	makeEchoReply(m)
	f := wire.IPv4Fields{TOS: p.TOS() &^ 3, TTL: defaultTTL, Protocol: wire.ProtocolICMP, Src: p.Dst(), Dst: p.Src()}
	if e.sendPacket(e.dest(f.Dst), &f, m, new(cut)) == outFull {
		return DropTransmitFull
	}
	e.stats.Answered++
	return NotDropped
}

// icmpError takes an error about a packet of ours: to the socket that sent it, if the quote names one.
func (e *Engine) icmpError(p wire.IPv4, m wire.ICMP, la *localAddr) DropReason {
	q, err := wire.ParseQuoted(m.Payload())
	if err != nil || q.FragmentOffset != 0 {
		return DropICMPQuote
	}
	from := e.local(q.Src)
	if from == nil || from.kind != localUnicast || la.kind != localUnicast {
		return DropICMPQuote
	}
	if q.Protocol == wire.ProtocolTCP && q.HasPorts {
		return e.tcpError(&q, p, m)
	}
	h := from.quoted(&q)
	if h == nil {
		return DropICMPQuote
	}
	if m.Type() == wire.ICMPUnreachable && m.Code() == wire.CodeFragNeeded {
		e.learnPMTU(q.Dst, m.MTU(), q.TotalLength)
		if e.rx.forwarded {
			return e.consumed()
		}
		e.forwardToSiblings(e.rx.frame)
	}
	if h.d.proto == wire.ProtocolICMP {
		return e.deliverTo(h, p, 0, m) // an ICMP socket reads the message itself
	}
	if errno := icmpErrno(m); errno != 0 && h.connected {
		h.d.fail(errno)
	}
	return e.consumed()
}

// quoted finds the socket that sent the packet that an error quotes.
func (la *localAddr) quoted(q *wire.Quoted) *half {
	switch {
	case q.Protocol == wire.ProtocolUDP && q.HasPorts:
		return la.udp.sender(q.SrcPort, q.Dst, q.DstPort)
	case q.Protocol == wire.ProtocolICMP && q.HasEcho && q.EchoType == wire.ICMPEcho:
		return la.ids.sender(q.ID, q.Dst, 0)
	}
	return nil
}

// sender finds the socket on port that could have sent to dst: one that is connected there, or one that is not connected.
func (t *portTable) sender(port uint16, dst wire.Addr, dport uint16) *half {
	h := t.get(port)
	if h == nil {
		return nil
	}
	return h.find(dst, dport)
}

// icmpErrno is what an error means to a connected socket, RFC 1122 §4.1.3.3 and icmp_err_convert of net/ipv4/icmp.c; 0
// for one that is only advice.
func icmpErrno(m wire.ICMP) syscall.Errno {
	switch m.Type() {
	case wire.ICMPUnreachable:
		switch m.Code() {
		case wire.CodeNetUnreachable, wire.CodeNetUnknown, wire.CodeNetProhibited, wire.CodeNetTOS:
			return syscall.ENETUNREACH
		case wire.CodeProtocolUnreachable:
			return syscall.ENOPROTOOPT
		case wire.CodePortUnreachable:
			return syscall.ECONNREFUSED
		case wire.CodeFragNeeded:
			return 0 // the next datagram is cut to fit
		case wire.CodeSourceRouteFailed:
			return syscall.EOPNOTSUPP
		}
		return syscall.EHOSTUNREACH
	case wire.ICMPParameterProblem:
		return syscall.EPROTO
	case wire.ICMPTimeExceeded:
		return syscall.EHOSTUNREACH
	}
	return 0
}

// sendFailed tells the socket that sent a packet why it went nowhere.
func (e *Engine) sendFailed(q *wire.Quoted, errno syscall.Errno) {
	la := e.local(q.Src)
	if la == nil || q.FragmentOffset != 0 {
		return
	}
	if q.Protocol == wire.ProtocolTCP {
		if st := e.conns.get(&tcp.ID{Local: q.Src, Remote: q.Dst, LocalPort: q.SrcPort, RemotePort: q.DstPort}); st != nil {
			e.sendingFailed(st, errno)
			e.touch(st)
		}
		return
	}
	if h := la.quoted(q); h != nil && h.connected {
		h.d.fail(errno)
	}
}

// sendICMPError sends an error about p back to its source, unless RFC 1122 §3.2.2 forbids it: about an ICMP error, a
// broadcast of the link or of IP, a fragment but the first, or a source that is no single host (sourceOK saw to that).
func (e *Engine) sendICMPError(p wire.IPv4, f wire.ICMPErrorFields) {
	if e.rx.group || p.FragmentOffset() != 0 {
		return
	}
	if la := e.local(p.Dst()); la == nil || la.kind != localUnicast {
		return
	}
	if p.Protocol() == wire.ProtocolICMP {
		// An ICMP message of which not even the type is known counts as an error.
		if b := p.Payload(); len(b) == 0 || wire.ICMPType(b[0]).IsError() {
			return
		}
	}
	if !e.icmpLimit.take(e.now) {
		e.stats.ICMPErrorsHeld++
		return
	}
	n := wire.PutICMPError(e.icmpBuf[:], f, p)
	// RFC 1812 §4.3.2.5: precedence 6 (internetwork control) for errors.
	out := wire.IPv4Fields{TOS: 0xC0, TTL: defaultTTL, Protocol: wire.ProtocolICMP, Src: p.Dst(), Dst: p.Src()}
	switch e.sendPacket(e.dest(out.Dst), &out, e.icmpBuf[:n], new(cut)) {
	case outReady:
		e.stats.ICMPErrorsSent++
	case outFull:
		e.refuse(DropTransmitFull)
	}
}

// A tokenBucket allows rate events a second, and a burst of as many as a twentieth of a second makes.
type tokenBucket struct {
	interval time.Duration // between two tokens
	burst    time.Duration
	next     clock.Time // when the bucket will be full again
}

func newTokenBucket(rate int) tokenBucket {
	interval := time.Second / time.Duration(rate)
	return tokenBucket{interval: interval, burst: max(50*time.Millisecond, interval)}
}

func (b *tokenBucket) take(now clock.Time) bool {
	if b.next < now {
		b.next = now
	}
	if b.next.Sub(now) >= b.burst {
		return false
	}
	b.next = b.next.Add(b.interval)
	return true
}
