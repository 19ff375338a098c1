package pcapfilter

import (
	"fmt"
	"slices"
)

// parser reads tokens by recursive descent. Its methods follow the grammar of
// pcap-filter(7): terms joined by and and or, from left to right.
type parser struct {
	text   string
	tokens []token
	pos    int
	depth  int
	// shift is by how many bytes the vlan words read so far move what follows.
	shift int
	// last are the qualifiers of the latest primitive, which an address or number
	// behind and or or inherits: "port 80 or 443". Nil where there is none.
	last *qualifiers
}

// end stands for the token behind the last.
var end = token{}

func (p *parser) done() bool { return p.pos >= len(p.tokens) }

func (p *parser) peek() token { return p.peekAt(0) }

// peekAt looks ahead by n tokens.
func (p *parser) peekAt(n int) token {
	if p.pos+n >= len(p.tokens) {
		return end
	}
	return p.tokens[p.pos+n]
}

func (p *parser) next() token {
	t := p.peek()
	p.pos++
	return t
}

// accept steps over the next token if it is one of the texts.
func (p *parser) accept(texts ...string) bool {
	t := p.peek()
	if p.done() || t.escaped || !slices.Contains(texts, t.text) {
		return false
	}
	p.pos++
	return true
}

func (p *parser) refuse(t token, format string, args ...any) error {
	why := fmt.Sprintf(format, args...)
	if t == end {
		return &Error{Text: p.text, At: len(p.text), Why: "ends too early: the end " + why}
	}
	return &Error{Text: p.text, Word: t.text, At: t.at, Why: why}
}

// enter counts the nesting of what is being read.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.refuse(p.peek(), "is nested more than %d deep", maxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// expression: term { and|or term }. Both bind alike.
func (p *parser) expression() (node, error) { return p.joined(p.term) }

// joined reads operands joined by and and or.
func (p *parser) joined(operand func() (node, error)) (node, error) {
	left, err := operand()
	for err == nil {
		var right node
		switch {
		case p.accept("and", "&&"):
			if right, err = operand(); err == nil {
				left = andNode{left, right}
			}
		case p.accept("or", "||"):
			if right, err = operand(); err == nil {
				left = orNode{left, right}
			}
		default:
			return left, nil
		}
	}
	return nil, err
}

// negated reads an operand behind any number of nots.
func (p *parser) negated(operand func() (node, error)) (node, error) {
	if !p.accept("not", "!") {
		return operand()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	n, err := p.negated(operand)
	if err != nil {
		return nil, err
	}
	return notNode{n}, nil
}

// term: [not] primitive.
func (p *parser) term() (node, error) { return p.negated(p.primitive) }

// grouped reads what stands in parentheses, the opening one being next.
func (p *parser) grouped(inside func() (node, error)) (node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	p.next()
	n, err := inside()
	if err != nil {
		return nil, err
	}
	if !p.accept(")") {
		return nil, p.refuse(p.peek(), "stands where a closing parenthesis is due")
	}
	return n, nil
}

// primitive is one test, or an expression in parentheses.
func (p *parser) primitive() (node, error) {
	t := p.peek()
	switch {
	case p.startsRelation():
		p.last = nil
		return p.relation()
	case t.text == "(":
		return p.grouped(p.expression)
	case !t.word:
		return nil, p.refuse(t, "stands where a test such as host, port or udp is due")
	case t.escaped:
		return p.identifier()
	}
	switch t.text {
	case "vlan":
		return p.vlan()
	case "less", "greater":
		return p.lengthTest()
	case "broadcast", "multicast":
		return p.etherCast()
	}
	if isQualifier(t.text) {
		return p.qualified()
	}
	return p.identifier()
}

// vlan [id]: what stands behind it, wherever, is looked for one tag further in.
func (p *parser) vlan() (node, error) {
	p.next()
	p.last = nil
	n := vlanNode{shift: p.shift, id: -1}
	if isNumber(p.peek()) && !p.startsRelation() {
		id, err := p.number(0x0FFF)
		if err != nil {
			return nil, err
		}
		n.id = id
	}
	p.shift += 4
	return n, nil
}

// lengthTest: less N, greater N.
func (p *parser) lengthTest() (node, error) {
	word := p.next().text
	p.last = nil
	length, err := p.number(1 << 20)
	if err != nil {
		return nil, err
	}
	if word == "less" {
		return lengthNode{max: length}, nil
	}
	return lengthNode{min: length, max: 1<<63 - 1}, nil
}

// etherCast: broadcast and multicast, of the frame.
func (p *parser) etherCast() (node, error) {
	p.last = nil
	if p.next().text == "multicast" {
		return etherMulticast{}, nil
	}
	return etherNode{dir: destination, addr: [6]byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}}, nil
}
