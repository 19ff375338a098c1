package daemon

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/stack"
)

// loopPorts are the UDP services of RFC 862 to 868 that answer whatever they
// get: echo, daytime, qotd, chargen and time. Between two of them a single
// datagram with a forged source would go to and fro for ever.
var loopPorts = []uint16{7, 13, 17, 19, 37}

// portSet is a set of ports, one bit each.
type portSet [1 << 16 / 64]uint64

func (s *portSet) add(port uint16)      { s[port/64] |= 1 << (port % 64) }
func (s *portSet) has(port uint16) bool { return s[port/64]&(1<<(port%64)) != 0 }

// guard keeps answering services out of loops. It refuses datagrams whose source
// port is 0, which RFC 768 says is none, a port of loopPorts, or one on which
// this kitd itself answers: another kitd of the same configuration answers
// there. It may be changed while engines ask.
type guard struct {
	refused atomic.Pointer[portSet]
}

// set makes the services' own ports refused besides loopPorts.
func (g *guard) set(services []config.Service) {
	set := &portSet{}
	set.add(0)
	for _, port := range loopPorts {
		set.add(port)
	}
	for _, s := range services {
		if s.Name == "udp-echo" || s.Name == "udp-chargen" {
			set.add(s.Port)
		}
	}
	g.refused.Store(set)
}

// answers reports whether a datagram may be answered: it comes from a port that
// is not refused, and was sent to the address that the socket is bound to, so
// that one broadcast is not answered by everybody.
func (g *guard) answers(p *stack.Packet, local netip.Addr) bool {
	return !g.refused.Load().has(p.SrcPort()) && p.Dst().Addr() == local
}

// handler is what a service does with a datagram that comes to a local address.
func (g *guard) handler(service string, local netip.Addr) stack.Handler {
	switch service {
	case "udp-echo": // RFC 862
		return func(p *stack.Packet) {
			if g.answers(p, local) {
				p.Echo()
			}
		}
	case "udp-chargen": // RFC 864
		return func(p *stack.Packet) {
			if g.answers(p, local) {
				room := p.Room()
				p.Reply(chargen(room[:min(rand.IntN(maxChargen+1), len(room))]))
			}
		}
	}
	return func(*stack.Packet) {} // udp-discard, RFC 863
}

// maxChargen is the longest answer of RFC 864's UDP service, in bytes.
const maxChargen = 512

// Lines of RFC 864's popular pattern: 72 of the 95 printing characters, each line
// beginning one character later, and CR LF.
const (
	printing   = 95
	lineLength = 72
	fullLine   = lineLength + 2
)

var pattern = func() (p [printing * fullLine]byte) {
	for line := range printing {
		at := p[line*fullLine:]
		for column := range lineLength {
			at[column] = ' ' + byte((line+column)%printing)
		}
		at[lineLength], at[lineLength+1] = '\r', '\n'
	}
	return p
}()

// chargen fills b, of at most maxChargen bytes, with the pattern from the start
// of a random line, and returns its length.
func chargen(b []byte) int {
	line := rand.IntN(printing)
	n := copy(b, pattern[line*fullLine:])
	n += copy(b[n:], pattern[:])
	return n
}
