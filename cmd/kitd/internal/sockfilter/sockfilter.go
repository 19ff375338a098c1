// Package sockfilter compiles the socket filters that ss takes, and evaluates
// them over kit's sockets.
//
// The language is the part of ss(8)'s that means something here:
//
//	src ADDRESS, dst ADDRESS      10.0.0.1, 10.0.0.0/8, 10.0.0.1:7, :7, *:7
//	sport OP PORT, dport OP PORT  :7, 7 or a name of /etc/services
//	state STATE                   established (connected), unconnected (closed), all
//	dev = NAME                    the interface
//	udp, icmp, tcp                the protocol
//
// OP is = == eq, != ne neq, < lt, <= le, > gt, >= ge; = may be left out before
// an address. Tests are joined by and (&, &&, or nothing), or (|, ||), not (!)
// and parentheses; and binds tighter than or, as in ss.
package sockfilter

import (
	"fmt"
	"net/netip"
)

// Limits of a filter's text, so that a text from a stranger costs little.
const (
	maxText  = 4096 // bytes
	maxDepth = 64
)

// Socket is what a filter looks at.
type Socket struct {
	Proto     string         // udp, icmp, tcp
	State     string         // established, unconnected
	Local     netip.AddrPort // an ICMP socket's port is its identifier
	Remote    netip.AddrPort // zero: none
	Interface string
}

// Filter decides which sockets are wanted. Its zero value, and the filter of an
// empty text, want every socket.
type Filter struct {
	root test
}

// test is a part of a filter.
type test func(*Socket) bool

// Compile reads a filter. Errors are of type *Error.
func Compile(text string) (*Filter, error) {
	if len(text) > maxText {
		return nil, &Error{Text: text[:40] + "…", Why: fmt.Sprintf("is longer than %d bytes", maxText)}
	}
	p := parser{text: text, words: split(text)}
	if len(p.words) == 0 {
		return &Filter{}, nil
	}
	root, err := p.any()
	if err != nil {
		return nil, err
	}
	if p.pos < len(p.words) {
		return nil, p.refuse("is not expected here")
	}
	return &Filter{root}, nil
}

// Match reports whether the socket is wanted.
func (f *Filter) Match(s *Socket) bool { return f.root == nil || f.root(s) }

// Error says why a text is not a filter.
type Error struct {
	Text string // the whole filter
	Word string // the word that is wrong; empty at the end of the text
	Why  string // what is wrong with it
}

// Error is one sentence.
func (e *Error) Error() string {
	if e.Word == "" {
		return fmt.Sprintf("socket filter %q %s", e.Text, e.Why)
	}
	return fmt.Sprintf("socket filter %q: %q %s", e.Text, e.Word, e.Why)
}
