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
func (w *segmentWriter) Send(s *tcp.Segment) bool { return w.frame(s) }

// SendRun implements tcp.Output: in bundles where the link takes them now, else in frames.
func (w *segmentWriter) SendRun(s *tcp.Segment, mss int) (sent int) {
	rest := s.PayloadLen()
	if mss >= bundleLeast && s.Flags&^tcp.PSH == tcp.ACK {
		room := min(w.e.bundleLimit(w.dest, wire.ProtocolTCP)-w.headers(s), bundleSegments*mss)
		for part := room / mss * mss; part > mss && rest > mss; rest -= part {
			if part = min(part, rest); !w.bundle(s, part, mss) {
				break
			}
			sent += part
		}
	}
	if rest > 0 {
		sent += s.Cut(mss, w.frame)
	}
	return sent
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
	if e.offload != nil && e.leaveSum(n-header, n) {
		copy(b[header+copy(b[header:], s.Payload):], s.Wrapped)
	} else if n > header {
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
	// bundleLeast is the least payload in bytes of a segment for a bundle: shorter ones come one by one.
	bundleLeast = 512
	// bundleSegments is how many a bundle has at most: what a write of 256 KiB gives over Ethernet. The ring of a veth with an XDP
	// program takes 256 in one go (VETH_RING_SIZE, drivers/net/veth.c), which shorter segments would overflow.
	bundleSegments = 182
	bundleParts    = 64
)

// A bundle is what of a connection's segments, or of a socket's datagrams (bundleudp.go), goes to the link in one piece. It is
// empty but while one is made: what it points to is the memory of the connection's or the socket's ring.
type bundle struct {
	link    Bundler // nil: the link is none
	refused uint64  // the step in which it had no room: for the rest of it there are frames
	n       int     // segments
	bytes   int     // of payload
	segment int     // bytes of payload of the first
	parts   [bundleParts][]byte
	nparts  int
	header  [wire.EthernetMaxLen + wire.IPv4Len + 60]byte
}

// bundleLimit is the longest packet of a bundle to d now, in bytes; 0 where there may be none. A tap is to see each segment.
func (e *Engine) bundleLimit(d *dest, protocol wire.Protocol) int {
	if e.bundle.link == nil || e.tapping.tap != nil || e.stuck || e.bundle.refused == e.steps ||
		d.kind != destNeighbour || !d.neigh.fresh() || d.locked {
		return 0
	}
	return e.bundle.link.BundleLimit(uint8(protocol))
}

func (b *bundle) addPart(p []byte) {
	if len(p) > 0 {
		b.parts[b.nparts] = p
		b.nparts++
	}
}

func (b *bundle) empty() {
	clear(b.parts[:b.nparts])
	b.n, b.bytes, b.nparts = 0, 0, 0
}

// begin puts the Ethernet header in front, and returns the n bytes of headers behind it, to be written.
func (b *bundle) begin(nb *neighbour, n int) []byte {
	if !nb.used {
		nb.used = true
	}
	*(*[wire.EthernetMaxLen]byte)(b.header[:]) = nb.header
	return b.header[nb.headerLen : nb.headerLen+n]
}

// bundle sends the first n bytes of a run's text in one piece, and takes them from s. It reports false when the link did not
// take them, and has changed nothing then.
func (w *segmentWriter) bundle(s *tcp.Segment, n, mss int) bool {
	b := &w.e.bundle
	flags, options, headers := s.Flags, s.Options.Len(false), w.headers(s)
	wrapped := max(0, n-len(s.Payload))
	b.addPart(s.Payload[:n-wrapped])
	b.addPart(s.Wrapped[:wrapped])
	b.n, b.bytes, b.segment = (n+mss-1)/mss, n, mss
	if n < s.PayloadLen() {
		s.Flags &^= tcp.PSH
	}
	ip := b.begin(w.dest.neigh, headers)
	segment := ip[wire.IPv4Len:]
	wire.PutTCPOptions(segment[wire.TCPLen:], &s.Options, false)
	wire.PutTCP(segment, w.tcpFields(s, options, n), 0)
	wire.TCP(segment).PutPartialChecksum(w.id.Local, w.id.Remote, wire.TCPLen+options+n)
	total := headers + n
	if total > wire.IPv4MaxSize {
		total = 0
	}
	w.putIPv4(ip, s, total)
	s.Flags = flags
	ok := w.e.giveBundle(w.dest.neigh.headerLen, headers)
	b.empty()
	if ok {
		s.Drop(n)
	}
	return ok
}

// headers is how many bytes of headers a segment like s has from IPv4 on.
func (w *segmentWriter) headers(s *tcp.Segment) int {
	return wire.IPv4Len + wire.TCPLen + s.Options.Len(false)
}
