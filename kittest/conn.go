package kittest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"kitnet.dev/kit/stack/wire"
)

// A Conn is a TCP connection of the peer's, played by the script, segment by segment. A line says, as packetdrill does, the flags
// (F, S, R, P, and . for ACK), the sequence numbers from the first byte to the one behind the last, what is acknowledged, and what
// else is of interest, the payload last:
//
//	S 0:0 win 65535 mss 1460
//	P. 1:6 ack 1 "hello"
//
// Numbers count from the SYN of whoever sends them.
type Conn struct {
	peer                *Peer
	local, remote       netip.AddrPort
	iss, remoteISS      wire.Seq
	knows               bool // remoteISS, from the other side's SYN on
	localAt, remoteAddr wire.Addr
}

// Conn begins a connection between the peer's port and a port of the other side: "10.77.0.2:80". No segment is sent yet.
func (p *Peer) Conn(port uint16, to string) *Conn {
	p.t.Helper()
	remote, err := netip.ParseAddrPort(to)
	if err != nil || !remote.Addr().Is4() {
		p.t.Fatalf("%q is no IPv4 address and port", to)
	}
	p.conns++
	c := &Conn{peer: p, local: netip.AddrPortFrom(p.Addr, port), remote: remote, iss: wire.Seq(p.conns * 1_000_000)}
	c.localAt, _ = wire.AddrFrom(p.Addr)
	c.remoteAddr, _ = wire.AddrFrom(remote.Addr())
	return c
}

// Play is Peer.Play with lines about this connection.
func (c *Conn) Play(script string) {
	c.peer.t.Helper()
	play(c.peer.t, c.peer, script, c.Sends, c.Wants)
}

// Opens is the handshake that the peer begins, without options but its MSS of 1460.
func (c *Conn) Opens() {
	c.peer.t.Helper()
	c.Play(`
		> S 0:0 mss 1460
		< S. 0:0 ack 1
		> . 1:1 ack 1
	`)
}

// segment is what a line says.
type segment struct {
	flags    wire.TCPFlags
	from, to int
	words    map[string]int // "ack" and what else is named
	payload  []byte
}

func parseSegment(line string) (s segment, err error) {
	if q := quoted.FindString(line); q != "" {
		if s.payload, err = payloadOf(q); err != nil {
			return s, err
		}
		line = strings.TrimSuffix(line, q)
	}
	words := strings.Fields(line)
	if len(words) < 2 || len(words)%2 != 0 {
		return s, fmt.Errorf("want flags, numbers and pairs of a word and its number, such as 'P. 1:6 ack 1'")
	}
	for _, l := range words[0] {
		i := strings.IndexRune("FSRP.UEW", l)
		if i < 0 {
			return s, fmt.Errorf("%q is no flag: there are F, S, R, P, '.', U, E, W", l)
		}
		s.flags |= 1 << i
	}
	from, to, _ := strings.Cut(words[1], ":")
	if s.from, err = strconv.Atoi(from); err != nil {
		return s, err
	}
	if s.to, err = strconv.Atoi(to); err != nil {
		return s, err
	}
	s.words = make(map[string]int)
	for i := 2; i < len(words); i += 2 {
		if s.words[words[i]], err = strconv.Atoi(words[i+1]); err != nil {
			return s, err
		}
		if !strings.Contains(" ack win mss ws ", " "+words[i]+" ") {
			return s, fmt.Errorf("%q is not known: there are ack, win, mss, ws", words[i])
		}
	}
	return s, nil
}

// Sends sends a segment. Its window is 65535 where the line does not say. Its bytes are the text in quotes, or else a pattern.
func (c *Conn) Sends(line string) {
	c.peer.t.Helper()
	s, err := parseSegment(line)
	if err == nil && s.payload == nil && s.to > s.from {
		s.payload, err = payloadOf(strconv.Itoa(s.to - s.from))
	}
	if err == nil && len(s.payload) != s.to-s.from {
		err = fmt.Errorf("it has %d bytes", len(s.payload))
	}
	if err != nil {
		c.peer.t.Fatalf("send %s: %v", line, err)
	}
	o := wire.NoTCPOptions()
	o.MSS = uint16(s.words["mss"])
	if ws, ok := s.words["ws"]; ok {
		o.WScale = int8(ws)
	}
	f := wire.TCPFields{
		Src: c.localAt, Dst: c.remoteAddr, SrcPort: c.local.Port(), DstPort: c.remote.Port(),
		Seq: c.iss.Add(s.from), Flags: s.flags, Window: 65535, PayloadLen: len(s.payload),
	}
	if s.flags&wire.ACK != 0 {
		f.Ack = c.remoteISS.Add(s.words["ack"])
	}
	if win, ok := s.words["win"]; ok {
		f.Window = uint16(win)
	}
	f.OptionsLen = o.Len(s.flags&wire.SYN != 0)
	b, body := ip(c.localAt, c.remoteAddr, wire.ProtocolTCP, wire.TCPLen+f.OptionsLen+len(s.payload))
	wire.PutTCPOptions(body[wire.TCPLen:], &o, s.flags&wire.SYN != 0)
	wire.PutTCP(body, &f, wire.CopySum(body[wire.TCPLen+f.OptionsLen:], s.payload, 0))
	c.peer.sendTo(c.peer.neighbour, wire.EtherTypeIPv4, b)
}

// Wants wants the next frame to be this segment. Of window, options and payload only those are compared that the line names.
func (c *Conn) Wants(line string) {
	c.peer.t.Helper()
	if _, err := parseSegment(line); err != nil {
		c.peer.t.Fatalf("want %s: %v", line, err)
	}
	f := c.peer.take(patience)
	if f == nil {
		c.peer.t.Fatalf("nothing came in place of %s", line)
	}
	if got := c.describe(f, line); got != line {
		c.peer.t.Fatalf("there came\n\t%s\nin place of\n\t%s", got, line)
	}
}

// describe says what Wants compares: of another connection's frames all.
func (c *Conn) describe(f []byte, like string) string {
	h, _ := wire.ParseEthernet(f)
	p, err := wire.ParseIPv4(f[min(int(h.HeaderLen), len(f)):])
	if err != nil || h.Type != wire.EtherTypeIPv4 || p.Protocol() != wire.ProtocolTCP {
		return describe(f, like)
	}
	t, err := wire.ParseTCP(p.Payload())
	if err != nil || p.Src() != c.remoteAddr || p.Dst() != c.localAt || t.SrcPort() != c.remote.Port() || t.DstPort() != c.local.Port() ||
		t.ChecksumState(p.Src(), p.Dst()) == wire.ChecksumBad {
		return describe(f, like)
	}
	if t.Flags()&wire.SYN != 0 && !c.knows {
		c.remoteISS, c.knows = t.Seq(), true
	}
	from := int(t.Seq().Sub(c.remoteISS))
	s := fmt.Sprintf("%v %d:%d", t.Flags(), from, from+len(t.Payload()))
	if t.Flags()&wire.ACK != 0 {
		s += fmt.Sprintf(" ack %d", t.Ack().Sub(c.iss))
	}
	o, _ := wire.ParseTCPOptions(t.Options())
	for _, w := range []struct {
		name  string
		value int
	}{{"win", int(t.Window())}, {"mss", int(o.MSS)}, {"ws", int(o.WScale)}} {
		if strings.Contains(like, " "+w.name+" ") {
			s += fmt.Sprintf(" %s %d", w.name, w.value)
		}
	}
	if quoted.MatchString(like) {
		s += " " + strconv.Quote(string(t.Payload()))
	}
	return s
}
