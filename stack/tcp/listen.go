package tcp

import (
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Verdict is what to do with a segment for which there is no connection.
type Verdict uint8

// The verdicts.
const (
	// Ignore: nothing.
	Ignore Verdict = iota
	// Answer: send the segment that was filled in.
	Answer
	// Open: make a connection with Init and Accept.
	Open
	// OpenCookie: make one with Init and AcceptCookie, from the same segment.
	OpenCookie
)

// Refuse is what state CLOSED answers (RFC 9293 section 3.10.7.1): an RST, but
// never to an RST. id is the name that a connection would have.
func (l *Layer) Refuse(s *Segment, answer *Segment) Verdict {
	if s.has(RST) {
		return Ignore
	}
	l.stats.ResetsSent++
	*answer = Segment{Flags: RST, Options: wire.NoTCPOptions()}
	if s.has(ACK) {
		answer.Seq = s.Ack
	} else {
		answer.Flags |= ACK
		answer.Ack = s.end()
	}
	return Answer
}

// Listen is SEGMENT ARRIVES in state LISTEN (RFC 9293 section 3.10.7.2), for a
// segment that belongs to no connection. flood says that there is no room
// for another half-open connection, so that a SYN is answered with a cookie (RFC
// 4987 section 3.6) and nothing is kept; where the verdict is Answer, answer is to be sent, an
// RST or such a SYN-ACK. mtu is the path's.
func (l *Layer) Listen(now clock.Time, id ID, s *Segment, flood bool, mtu int, answer *Segment) Verdict {
	// First, an RST is ignored.
	if s.has(RST) {
		return Ignore
	}
	// Second, an ACK is bad in LISTEN, unless it is a cookie's.
	if s.has(ACK) {
		if !s.has(SYN) && l.cookies.inUse(now) {
			if _, ok := l.checkCookie(now, id, s); ok {
				l.stats.CookiesGood++
				return OpenCookie
			}
			l.stats.CookiesBad++
		}
		return l.Refuse(s, answer)
	}
	// Third, a SYN. Fourth, anything else is dropped; so is a SYN with a FIN, which
	// no TCP sends.
	if !s.has(SYN) || s.has(FIN) {
		return Ignore
	}
	if !flood {
		return Open
	}
	l.answerCookie(now, id, s, mtu, answer)
	return Answer
}
