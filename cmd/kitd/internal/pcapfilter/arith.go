package pcapfilter

import "strconv"

// value is a part of an arithmetic expression; all arithmetic is on unsigned
// 32-bit numbers, as in BPF. A verdict other than yes ends the relation.
type value interface {
	get(frame []byte) (uint32, verdict)
}

type constant uint32

func (c constant) get([]byte) (uint32, verdict) { return uint32(c), yes }

// frameLength is the word len.
type frameLength struct{}

func (frameLength) get(frame []byte) (uint32, verdict) { return uint32(len(frame)), yes }

// access is proto[at:size]: size bytes, big-endian, of a protocol's header.
type access struct {
	header header
	at     value
	size   int
}

// header is where a protocol's header begins.
type header struct {
	shift int
	// etherType is the type to look for; 0: the frame itself.
	etherType int
	// inside is the one protocol that follows IP, empty: the network header itself.
	inside []int
}

func (a access) get(frame []byte) (uint32, verdict) {
	base, v := a.header.find(frame)
	if v != yes {
		return 0, v
	}
	at, v := a.at.get(frame)
	if v != yes {
		return 0, v
	}
	from := uint64(base) + uint64(at)
	if from+uint64(a.size) > uint64(len(frame)) {
		return 0, outside
	}
	var n uint32
	for _, b := range frame[from : from+uint64(a.size)] {
		n = n<<8 | uint32(b)
	}
	return n, yes
}

func (h header) find(frame []byte) (int, verdict) {
	if h.etherType == 0 {
		return 0, yes
	}
	t, ok := load16(frame, etherType+h.shift)
	if !ok {
		return 0, outside
	}
	at := network + h.shift
	switch {
	case t != h.etherType:
		return 0, no
	case len(h.inside) == 0:
		return at, yes
	case t == typeIPv4:
		return transport4(frame, at, h.inside)
	}
	return transport(frame, h.shift, h.inside)
}

// headerOf finds the header of a protocol word. TCP, UDP and SCTP are looked
// for in IPv4 only, as libpcap does.
func headerOf(word string, shift int) header {
	h := header{shift: shift, etherType: etherTypes[word]}
	if p, inIP := ipProtocols[word]; inIP {
		h.etherType = typeIPv4
		if !p.ip4 {
			h.etherType = typeIPv6
		}
		h.inside = []int{p.proto}
	}
	return h
}

// operation is left op right.
type operation struct {
	op          string
	left, right value
}

func (o operation) get(frame []byte) (uint32, verdict) {
	a, v := o.left.get(frame)
	if v != yes {
		return 0, v
	}
	b, v := o.right.get(frame)
	if v != yes {
		return 0, v
	}
	switch o.op {
	case "+":
		return a + b, yes
	case "-":
		return a - b, yes
	case "*":
		return a * b, yes
	case "&":
		return a & b, yes
	case "|":
		return a | b, yes
	case "^":
		return a ^ b, yes
	case "<<":
		return a << b, yes
	case ">>":
		return a >> b, yes
	}
	if b == 0 { // a BPF program that divides by 0 returns 0
		return 0, outside
	}
	if o.op == "/" {
		return a / b, yes
	}
	return a % b, yes
}

// relationNode is left op right, a comparison.
type relationNode struct {
	op          string
	left, right value
}

func (r relationNode) eval(frame []byte) verdict {
	a, v := r.left.get(frame)
	if v != yes {
		return v
	}
	b, v := r.right.get(frame)
	if v != yes {
		return v
	}
	switch r.op {
	case "=", "==":
		return verdictOf(a == b)
	case "!=":
		return verdictOf(a != b)
	case "<":
		return verdictOf(a < b)
	case "<=":
		return verdictOf(a <= b)
	case ">":
		return verdictOf(a > b)
	}
	return verdictOf(a >= b)
}

var (
	relations = map[string]bool{"=": true, "==": true, "!=": true, "<": true, "<=": true, ">": true, ">=": true}
	// binding is how tightly an operator binds, as in libpcap's grammar.
	binding = map[string]int{"|": 1, "&": 1, "^": 1, "<<": 2, ">>": 2, "+": 3, "-": 3, "*": 4, "/": 4, "%": 4}
)

// names are the constants of pcap-filter(7): offsets, flags and ICMP types.
var names = map[string]uint32{
	"icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1, "tcpflags": 13,
	"tcp-fin": 0x01, "tcp-syn": 0x02, "tcp-rst": 0x04, "tcp-push": 0x08, "tcp-ack": 0x10, "tcp-urg": 0x20,
	"tcp-ece": 0x40, "tcp-cwr": 0x80,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
	"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13,
	"icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,
}

// startsRelation reports whether a comparison of numbers begins here, and not
// another test or an expression in parentheses.
func (p *parser) startsRelation() bool {
	t, after := p.peek(), p.peekAt(1).text
	switch {
	case t.text == "(":
		after = ""
		if t.match+1 < len(p.tokens) {
			after = p.tokens[t.match+1].text
		}
		return relations[after] || binding[after] > 0
	case t.text == "-" || t.text == "len" && !t.escaped:
		return true
	case t.word && after == "[":
		return isProtocolWord(t.text)
	case t.word:
		_, named := names[t.text]
		return (named || isNumber(t)) && (relations[after] || binding[after] > 0 && after != "/" || after == "/" && named)
	}
	return false
}

// relation: value op value.
func (p *parser) relation() (node, error) {
	left, err := p.value(1)
	if err != nil {
		return nil, err
	}
	op := p.next()
	if !relations[op.text] {
		return nil, p.refuse(op, "stands where a comparison such as = or > is due")
	}
	right, err := p.value(1)
	if err != nil {
		return nil, err
	}
	return relationNode{op.text, left, right}, nil
}

// value: operand { operator operand }, of operators that bind at least as
// tightly as least.
func (p *parser) value(least int) (value, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	left, err := p.operand()
	for err == nil {
		op := p.peek()
		b := binding[op.text]
		if b < least || b == 0 {
			return left, nil
		}
		p.next()
		var right value
		if right, err = p.value(b + 1); err != nil {
			return nil, err
		}
		if right == value(constant(0)) && (op.text == "/" || op.text == "%") {
			return nil, p.refuse(op, "divides by zero")
		}
		left = operation{op.text, left, right}
	}
	return nil, err
}

// operand: number, name, len, protocol[…], -operand or a value in parentheses.
func (p *parser) operand() (value, error) {
	t := p.next()
	switch {
	case t.text == "(":
		v, err := p.value(1)
		if err == nil && !p.accept(")") {
			err = p.refuse(p.peek(), "stands where a closing parenthesis is due")
		}
		return v, err
	case t.text == "-":
		if err := p.enter(); err != nil {
			return nil, err
		}
		defer p.leave()
		v, err := p.operand()
		return operation{"-", constant(0), v}, err
	case t.text == "len":
		return frameLength{}, nil
	case t.word && p.peek().text == "[" && isProtocolWord(t.text):
		return p.access(t.text)
	}
	if n, ok := names[t.text]; ok && t.word {
		return constant(n), nil
	}
	n, err := strconv.ParseUint(t.text, 0, 32)
	if !t.word || err != nil {
		return nil, p.refuse(t, "stands where a number, len or bytes such as udp[8:2] are due")
	}
	return constant(n), nil
}

// access: [at] or [at:size] behind a protocol.
func (p *parser) access(proto string) (value, error) {
	p.next()
	at, err := p.value(1)
	if err != nil {
		return nil, err
	}
	a := access{header: headerOf(proto, p.shift), at: at, size: 1}
	if p.accept(":") {
		t := p.peek()
		if a.size, err = p.number(4); err != nil {
			return nil, err
		}
		if a.size != 1 && a.size != 2 && a.size != 4 {
			return nil, p.refuse(t, "is no size: 1, 2 or 4 bytes can be read")
		}
	}
	if !p.accept("]") {
		return nil, p.refuse(p.peek(), "stands where a closing bracket is due")
	}
	return a, nil
}
