package stack

import (
	"syscall"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// The way of a connection's segments to the wire: one by one in frames, or where the link is a Bundler, several in one piece.

// A segmentWriter is tcp.Output for one connection.
type segmentWriter struct {
	e      *Engine
	id     *tcp.ID
	dest   *dest // nil: to be looked up
	ipOpt  uint32
	failed syscall.Errno // why a segment went nowhere, where that is known at once
}

// Send implements tcp.Output.
func (w *segmentWriter) Send(s *tcp.Segment) bool {
	if b := &w.e.bundle; b.link != nil {
		switch w.gather(b, s) {
		case gathered:
			return true
		case gatherFull:
			return false
		}
	}
	return w.frame(s)
}

// frame sends a segment in a frame of its own.
func (w *segmentWriter) frame(s *tcp.Segment) bool {
	e := w.e
	if w.dest == nil {
		w.dest = e.dest(w.id.Remote)
	}
	syn := s.Flags&tcp.SYN != 0
	options := s.Options.Len(syn)
	header := wire.IPv4Len + wire.TCPLen + options
	n := header + len(s.Payload) + len(s.Wrapped)
	b, res := e.begin(w.dest, n)
	if res != outReady {
		return res == outDropped && w.dropped()
	}
	if options > 0 {
		wire.PutTCPOptions(b[wire.IPv4Len+wire.TCPLen:], &s.Options, syn)
	}
	sum := uint16(0)
	if n > header {
		sum = wire.CopySum2(b[header:], s.Payload, s.Wrapped, 0)
	}
	wire.PutTCP(b[wire.IPv4Len:], w.tcpFields(s, options, n-header), sum)
	w.putIPv4(b, s, n)
	e.commit()
	return true
}

func (w *segmentWriter) tcpFields(s *tcp.Segment, options, payload int) *wire.TCPFields {
	return &wire.TCPFields{
		Src: w.id.Local, Dst: w.id.Remote, SrcPort: w.id.LocalPort, DstPort: w.id.RemotePort,
		Seq: s.Seq, Ack: s.Ack, Flags: s.Flags, Window: s.Window, Urgent: s.Urgent, OptionsLen: options, PayloadLen: payload,
	}
}

// putIPv4 writes the IPv4 header of a packet of n bytes.
func (w *segmentWriter) putIPv4(b []byte, s *tcp.Segment, n int) {
	f := wire.IPv4Fields{
		TOS: uint8(w.ipOpt>>8)&^3 | uint8(s.ECN), TotalLength: n, DF: !w.dest.locked, TTL: uint8(w.ipOpt), Protocol: wire.ProtocolTCP,
		Src: w.id.Local, Dst: w.id.Remote,
	}
	if w.dest.locked {
		f.ID = w.e.nextID(f.Src, f.Dst, f.Protocol)
	}
	wire.PutIPv4(b, &f)
}

// dropped notes why, and lets the state machine take the segment for lost.
func (w *segmentWriter) dropped() bool {
	switch d := w.dest; {
	case d.kind == destNoRoute:
		w.failed = syscall.ENETUNREACH
	case d.kind == destUnreachable, d.kind == destNeighbour && d.neigh.state == NeighbourFailed:
		w.failed = syscall.EHOSTUNREACH
	}
	return true
}

const (
	// bundleLeast is the least payload in bytes of a segment that may begin a bundle: others come alone.
	bundleLeast = 512
	bundleParts = 64
)

// A bundle gathers the segments that a connection emits one behind the other, or a socket's datagrams (bundleudp.go), for a
// link that takes them in one piece. It is empty but while one emits: what it points to is the memory of the connection's or
// the socket's ring.
type bundle struct {
	link    Bundler // nil: the link is none
	refused uint64  // the step in which it had no room: for the rest of it there are frames
	limit   int     // bytes of an IPv4 packet
	spare   []byte  // a frame, so that a segment that stays alone has room
	first   tcp.Segment
	n       int // segments
	bytes   int // of payload
	segment int // bytes of payload of the first
	parts   [bundleParts][]byte
	nparts  int
	header  [wire.EthernetMaxLen + wire.IPv4Len + 60]byte
}

type gathering int

const (
	gatherNot  gathering = iota // not for a bundle
	gathered                    // taken
	gatherFull                  // no room
)

// gather takes s into the bundle, or sends what is in it and perhaps begins another with s.
func (w *segmentWriter) gather(b *bundle, s *tcp.Segment) gathering {
	if b.n > 0 {
		if b.continues(s) {
			b.add(s)
			if b.complete(s) {
				w.finish()
			}
			return gathered
		}
		w.finish()
	}
	if s.Flags != tcp.ACK || s.PayloadLen() < bundleLeast || s.Options.NSACK > 0 || w.dest == nil {
		return gatherNot
	}
	if b.limit = w.e.bundleLimit(w.dest, wire.ProtocolTCP); b.limit == 0 {
		return gatherNot
	}
	if b.spare == nil {
		if b.spare = w.e.allocFrame(); b.spare == nil {
			return gatherFull
		}
	}
	b.first = *s
	b.first.Payload, b.first.Wrapped = nil, nil // they are in parts
	b.segment = s.PayloadLen()
	b.add(s)
	return gathered
}

// bundleLimit is the longest packet of a bundle to d now, in bytes; 0 where there may be none. A tap is to see each segment.
func (e *Engine) bundleLimit(d *dest, protocol wire.Protocol) int {
	if e.tapping.tap != nil || e.stuck || e.bundle.refused == e.steps || d.kind != destNeighbour || !d.neigh.fresh() || d.locked {
		return 0
	}
	return e.bundle.link.BundleLimit(uint8(protocol))
}

// continues tells whether s is what the segments so far would be followed by.
func (b *bundle) continues(s *tcp.Segment) bool {
	f := &b.first
	n := s.PayloadLen()
	return s.Seq == f.Seq.Add(b.bytes) && n > 0 && n <= b.segment && b.nparts+2 <= bundleParts &&
		wire.IPv4Len+wire.TCPLen+f.Options.Len(false)+b.bytes+n <= b.limit &&
		s.Flags&^tcp.PSH == tcp.ACK && s.Ack == f.Ack && s.Window == f.Window && s.ECN == f.ECN &&
		s.Options.NSACK == 0 && s.Options.Timestamp == f.Options.Timestamp
}

// complete tells whether s, the last taken, ends the bundle: a shorter one does, and a PSH.
func (b *bundle) complete(s *tcp.Segment) bool {
	return s.PayloadLen() < b.segment || s.Flags&tcp.PSH != 0
}

func (b *bundle) add(s *tcp.Segment) {
	b.n++
	b.bytes += s.PayloadLen()
	b.first.Flags |= s.Flags
	b.addPart(s.Payload)
	b.addPart(s.Wrapped)
}

func (b *bundle) addPart(p []byte) {
	if len(p) > 0 {
		b.parts[b.nparts] = p
		b.nparts++
	}
}

// finish sends what was gathered. The frame kept for it goes back when the bundle is empty.
func (w *segmentWriter) finish() {
	b := &w.e.bundle
	if b.n > 1 && w.sendBundle(b) {
		b.empty()
	}
	for ; b.n > 0; b.n-- {
		w.cut(b)
	}
	b.empty()
	if b.spare != nil {
		w.e.link.Free(b.spare)
		b.spare = nil
	}
}

func (b *bundle) empty() {
	clear(b.parts[:b.nparts])
	b.n, b.bytes, b.nparts = 0, 0, 0
}

// begin puts the Ethernet header in front, and returns the n bytes of headers behind it, to be written.
func (b *bundle) begin(nb *neighbour, n int) []byte {
	nb.used = true
	*(*[wire.EthernetMaxLen]byte)(b.header[:]) = nb.header
	return b.header[nb.headerLen : nb.headerLen+n]
}

// sendBundle gives the link the bundle. It reports false when the link did not take it.
func (w *segmentWriter) sendBundle(b *bundle) bool {
	options := b.first.Options.Len(false)
	headers := wire.IPv4Len + wire.TCPLen + options
	ip := b.begin(w.dest.neigh, headers)
	segment := ip[wire.IPv4Len:]
	wire.PutTCPOptions(segment[wire.TCPLen:], &b.first.Options, false)
	wire.PutTCP(segment, w.tcpFields(&b.first, options, b.bytes), 0)
	wire.TCP(segment).PutPartialChecksum(w.id.Local, w.id.Remote, wire.TCPLen+options+b.bytes)
	w.putIPv4(ip, &b.first, headers+b.bytes)
	return w.e.giveBundle(w.dest.neigh.headerLen, headers)
}

// cut sends the first segment of the bundle in a frame.
func (w *segmentWriter) cut(b *bundle) {
	s := b.first
	if b.n > 1 {
		s.Flags &^= tcp.PSH
	}
	n := min(b.segment, b.bytes)
	s.Payload, n = b.take(n)
	if n > 0 {
		s.Wrapped, _ = b.take(n)
	}
	b.first.Seq = b.first.Seq.Add(s.PayloadLen())
	b.bytes -= s.PayloadLen()
	if b.spare != nil {
		w.e.handed, b.spare = b.spare, nil
	}
	if !w.frame(&s) {
		w.e.refuse(DropTransmitFull)
	}
	if w.e.handed != nil {
		b.spare, w.e.handed = w.e.handed, nil
	}
}

// take cuts up to n bytes off the parts, and says how many are missing.
func (b *bundle) take(n int) (p []byte, missing int) {
	first := &b.parts[0]
	p = *first
	if len(p) > n {
		*first, p = p[n:], p[:n]
	} else {
		b.nparts--
		copy(b.parts[:], b.parts[1:b.nparts+1])
		b.parts[b.nparts] = nil
	}
	return p, n - len(p)
}
