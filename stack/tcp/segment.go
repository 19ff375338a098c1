package tcp

import (
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Seq is a sequence number.
type Seq = wire.Seq

// The control bits, by the names of RFC 9293 section 3.1.
const (
	FIN = wire.FIN
	SYN = wire.SYN
	RST = wire.RST
	PSH = wire.PSH
	ACK = wire.ACK
	URG = wire.URG
	ECE = wire.ECE
	CWR = wire.CWR
)

// ECN is the ECN field of an IP header (RFC 3168 section 5).
type ECN uint8

// The codepoints.
const (
	NotECT ECN = 0
	ECT1   ECN = 1
	ECT0   ECN = 2
	CE     ECN = 3
)

// Segment is a segment in either direction, with the numbers that the state
// machine looks at: SEG.SEQ, SEG.ACK, SEG.WND and so on.
type Segment struct {
	Seq, Ack Seq
	Flags    wire.TCPFlags
	ECN      ECN    // of the IP header
	Window   uint16 // as on the wire, not scaled
	Urgent   uint16
	Options  wire.TCPOptions
	// Payload and, where the send stream wraps, Wrapped behind it.
	Payload, Wrapped []byte
}

// Parse fills s from a segment that arrived in an IP packet with this ECN
// field. Its payload stays where it is. Malformed options are an error, and s is then
// not to be used.
func (s *Segment) Parse(t wire.TCP, ecn ECN) error {
	_ = t[wire.TCPLen-1]
	s.Seq, s.Ack, s.Flags, s.ECN = t.Seq(), t.Ack(), t.Flags(), ecn
	s.Window, s.Urgent = t.Window(), t.Urgent()
	s.Payload, s.Wrapped = t.Payload(), nil
	return s.Options.Parse(t.Options())
}

// PayloadLen returns how many bytes of text the segment has.
func (s *Segment) PayloadLen() int { return len(s.Payload) + len(s.Wrapped) }

// Len is SEG.LEN: the sequence numbers that the segment takes, SYN and FIN
// included (RFC 9293 section 3.4).
func (s *Segment) Len() int {
	n := s.PayloadLen()
	if s.Flags&SYN != 0 {
		n++
	}
	if s.Flags&FIN != 0 {
		n++
	}
	return n
}

// end returns the sequence number behind the segment.
func (s *Segment) end() Seq { return s.Seq.Add(s.Len()) }

// has reports whether all these control bits are set.
func (s *Segment) has(flags wire.TCPFlags) bool { return s.Flags&flags == flags }

// Output takes what Emit sends.
type Output interface {
	// Send transmits s and reports true, or false where there is no room: then
	// nothing was sent, and Emit ends. The caller writes the header from s and
	// what it knows of the connection, the options by wire.PutTCPOptions and the
	// payload from the stream's own bytes, in one copy. s is valid during the call
	// only and not to be changed, and no connection of the layer may be told to Emit
	// meanwhile: the next segment is made from this one.
	Send(s *Segment) bool
	// SendRun is Send for segments that follow one another: s's payload is that of
	// all, mss bytes each but for the last, which may be shorter, and which alone
	// has s's PSH. It returns how many bytes of it were sent: whole segments, the
	// first ones, or 0. It may change Seq, Flags, Payload and Wrapped of s; Cut
	// does that for one that sends them one by one.
	SendRun(s *Segment, mss int) int
}

// Cut sends a run segment by segment by send, as Output.SendRun has it.
func (s *Segment) Cut(mss int, send func(*Segment) bool) (sent int) {
	push := s.Flags & PSH
	s.Flags &^= PSH
	for {
		payload, wrapped := s.Payload, s.Wrapped
		n := min(mss, len(payload)+len(wrapped))
		s.take(n)
		if len(payload)+len(wrapped) == n {
			s.Flags |= push
		}
		if !send(s) {
			return sent
		}
		sent += n
		s.Payload, s.Wrapped = payload, wrapped
		if s.Drop(n); s.PayloadLen() == 0 {
			return sent
		}
	}
}

// take leaves s the first n bytes of its payload.
func (s *Segment) take(n int) {
	if n <= len(s.Payload) {
		s.Payload, s.Wrapped = s.Payload[:n], nil
	} else {
		s.Wrapped = s.Wrapped[:n-len(s.Payload)]
	}
}

// Drop takes the first n bytes of the payload from s, and moves it on.
func (s *Segment) Drop(n int) {
	s.Seq = s.Seq.Add(n)
	if n < len(s.Payload) {
		s.Payload = s.Payload[n:]
	} else {
		s.Payload, s.Wrapped = s.Wrapped[n-len(s.Payload):], nil
	}
}

// SendStream is the engine's end of the bytes that the user writes; *ring.Stream
// is one. Offsets count from the last byte released.
type SendStream interface {
	Used() int
	Peek(off, n int) (a, b []byte)
	Release(n int)
	Limit() int
	SetLimit(n int)
}

// ReceiveStream is the engine's end of the bytes that the user reads;
// *ring.Stream is one. Offsets count from the last byte committed.
type ReceiveStream interface {
	Used() int
	Put(off int, p []byte) int
	Commit(n int)
	Limit() int
	SetLimit(n int)
}

// ID names a connection by its two ends.
type ID struct {
	Local, Remote         wire.Addr
	LocalPort, RemotePort uint16
}

// timestamp returns the value of the timestamp clock.
func (c *Conn) timestamp(now clock.Time) uint32 { return c.ts.clock(now) }

// clock is the timestamp clock, which ticks each millisecond from an offset of the
// connection's own (RFC 7323 section 5.4).
func (ts *timestamps) clock(now clock.Time) uint32 { return uint32(now/millisecond) + ts.offset }

const millisecond = 1_000_000
