package sockfilter

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// signs are the characters of operators; they need no space around them.
const signs = "()!=<>&|"

// split cuts the text into words and operators.
func split(text string) []string {
	var words []string
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if text == "" {
			return words
		}
		length := strings.IndexAny(text, signs+" \t\r\n")
		switch {
		case length < 0:
			length = len(text)
		case length == 0:
			length = 1
			for _, op := range []string{"==", "!=", "<=", ">=", "&&", "||"} {
				if strings.HasPrefix(text, op) {
					length = 2
				}
			}
		}
		words = append(words, text[:length])
		text = text[length:]
	}
}

type parser struct {
	text  string
	words []string
	pos   int
	depth int
}

// peek returns the next word, "" behind the last.
func (p *parser) peek() string {
	if p.pos < len(p.words) {
		return p.words[p.pos]
	}
	return ""
}

func (p *parser) accept(words ...string) bool {
	if p.peek() == "" || !slices.Contains(words, p.peek()) {
		return false
	}
	p.pos++
	return true
}

// refuse complains about the next word.
func (p *parser) refuse(why string) error {
	if p.peek() == "" {
		return &Error{Text: p.text, Why: "ends too early: the end " + why}
	}
	return &Error{Text: p.text, Word: p.peek(), Why: why}
}

// any: all { or all }.
func (p *parser) any() (test, error) {
	left, err := p.all()
	for err == nil && p.accept("or", "|", "||") {
		var right test
		if right, err = p.all(); err != nil {
			break
		}
		a, b := left, right
		left = func(s *Socket) bool { return a(s) || b(s) }
	}
	return left, err
}

// all: one { [and] one }.
func (p *parser) all() (test, error) {
	left, err := p.one()
	for err == nil {
		joined := p.accept("and", "&", "&&")
		if !joined && (p.peek() == "" || slices.Contains([]string{")", "or", "|", "||"}, p.peek())) {
			return left, nil
		}
		var right test
		if right, err = p.one(); err != nil {
			break
		}
		a, b := left, right
		left = func(s *Socket) bool { return a(s) && b(s) }
	}
	return nil, err
}

// one is a test, its negation, or a filter in parentheses.
func (p *parser) one() (test, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.refuse("is nested too deep")
	}
	defer func() { p.depth-- }()
	word := p.peek()
	switch word {
	case "not", "!":
		p.pos++
		of, err := p.one()
		return func(s *Socket) bool { return !of(s) }, err
	case "(":
		p.pos++
		inside, err := p.any()
		if err == nil && !p.accept(")") {
			err = p.refuse("stands where a closing parenthesis is due")
		}
		return inside, err
	case "udp", "icmp", "tcp":
		p.pos++
		return func(s *Socket) bool { return s.Proto == word }, nil
	case "src", "dst", "sport", "dport", "state", "dev":
		p.pos++
		return p.about(word)
	}
	return nil, p.refuse("stands where a test is due: src, dst, sport, dport, state, dev, udp, icmp or tcp")
}

// about reads the rest of a test behind its first word.
func (p *parser) about(word string) (test, error) {
	switch word {
	case "state":
		return p.state()
	case "dev":
		equal, err := p.equality()
		if err != nil {
			return nil, err
		}
		if p.peek() == "" {
			return nil, p.refuse("stands where an interface is due")
		}
		name := p.peek()
		p.pos++
		return func(s *Socket) bool { return (s.Interface == name) == equal }, nil
	}
	end := func(s *Socket) netip.AddrPort { return s.Local }
	if word == "dst" || word == "dport" {
		end = func(s *Socket) netip.AddrPort { return s.Remote }
	}
	if word == "src" || word == "dst" {
		return p.address(end)
	}
	return p.port(end)
}

// states are the names that ss has for what a socket of kit can be.
var states = map[string]string{
	"established": "established", "connected": "established",
	"unconnected": "unconnected", "unconn": "unconnected", "closed": "unconnected",
	"listening": "listening", "listen": "listening",
	"syn-sent": "syn-sent", "syn-recv": "syn-recv", "fin-wait-1": "fin-wait-1", "fin-wait-2": "fin-wait-2",
	"close-wait": "close-wait", "closing": "closing", "last-ack": "last-ack", "time-wait": "time-wait",
	"all": "",
}

func (p *parser) state() (test, error) {
	name, ok := states[strings.ToLower(p.peek())]
	if !ok {
		return nil, p.refuse("is no state that a socket can have: established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, close-wait, closing, last-ack, time-wait, listening, unconnected or all")
	}
	p.pos++
	return func(s *Socket) bool { return name == "" || s.State == name }, nil
}

// equality reads = or !=; nothing means =.
func (p *parser) equality() (equal bool, err error) {
	switch {
	case p.accept("!=", "ne", "neq"):
		return false, nil
	case slices.Contains([]string{"<", "<=", ">", ">=", "lt", "le", "gt", "ge"}, p.peek()):
		return false, p.refuse("can't compare here: only = and != can")
	}
	p.accept("=", "==", "eq")
	return true, nil
}

// address: ADDRESS, ADDRESS/BITS, either with :PORT, or :PORT alone.
func (p *parser) address(end func(*Socket) netip.AddrPort) (test, error) {
	equal, err := p.equality()
	if err != nil {
		return nil, err
	}
	address, port, hasPort := strings.Cut(p.peek(), ":")
	number, okPort := portOf(port)
	prefix, okPrefix := prefixOf(address)
	if p.peek() == "" || hasPort && !okPort || !okPrefix {
		return nil, p.refuse("is no address such as 10.0.0.1, 10.0.0.0/8, 10.0.0.1:7 or :7")
	}
	p.pos++
	return func(s *Socket) bool {
		e := end(s)
		return (prefix.Contains(e.Addr()) && (!hasPort || e.IsValid() && e.Port() == number)) == equal
	}, nil
}

// prefixOf reads an address or network; "" and * are all of them.
func prefixOf(text string) (netip.Prefix, bool) {
	if text == "" || text == "*" {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix.Masked(), prefix.Addr().Is4()
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, 32), true
}

// comparisons by ss's operators.
var comparisons = map[string]func(a, b uint16) bool{
	"<":  func(a, b uint16) bool { return a < b },
	"<=": func(a, b uint16) bool { return a <= b },
	">":  func(a, b uint16) bool { return a > b },
	">=": func(a, b uint16) bool { return a >= b },
	"=":  func(a, b uint16) bool { return a == b },
	"!=": func(a, b uint16) bool { return a != b },
}

var spelledOut = map[string]string{
	"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "==": "=", "ne": "!=", "neq": "!=",
}

// port: OP PORT. A socket without that end has no port and matches != only.
func (p *parser) port(end func(*Socket) netip.AddrPort) (test, error) {
	op := p.peek()
	if sign, ok := spelledOut[op]; ok {
		op = sign
	}
	compare, ok := comparisons[op]
	if !ok {
		return nil, p.refuse("stands where a comparison such as = or < is due")
	}
	p.pos++
	number, ok := portOf(strings.TrimPrefix(p.peek(), ":"))
	if !ok {
		return nil, p.refuse("is no port: a number, :number or a name of /etc/services")
	}
	p.pos++
	return func(s *Socket) bool {
		e := end(s)
		if !e.IsValid() {
			return op == "!="
		}
		return compare(e.Port(), number)
	}, nil
}

// portOf reads a port's number, or its name in /etc/services.
func portOf(text string) (uint16, bool) {
	if number, err := strconv.ParseUint(text, 10, 16); err == nil {
		return uint16(number), true
	}
	if text == "" || '0' <= text[0] && text[0] <= '9' {
		return 0, false
	}
	var resolver net.Resolver
	for _, proto := range []string{"udp", "tcp"} {
		if number, err := resolver.LookupPort(context.Background(), proto, text); err == nil {
			return uint16(number), true
		}
	}
	return 0, false
}
