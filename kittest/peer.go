package kittest

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"kitnet.dev/kit/stack/wire"
)

// patience is how long a Peer waits in real time for what it wants, and quiet how long for what it does not.
const (
	patience = 5 * time.Second
	quiet    = 100 * time.Millisecond
)

// A port is where a Peer's frames come and go.
type port interface {
	send(frame []byte) error
	// next returns the next frame, nil where none comes: in real time within the limit, in virtual time at this moment.
	next(limit time.Duration) ([]byte, error)
	// wait lets time pass, and in virtual time all happen that is due then.
	wait(d time.Duration)
}

// A Peer is the other end of the wire, and a script plays it. It has an address of its own and answers ARP for that; all else
// is the script's. Its methods fail the test where something else comes than they want.
type Peer struct {
	// Addr is the address that it answers ARP for.
	Addr netip.Addr
	// ShowARP lets the script see ARP, and answer it.
	ShowARP bool

	t         testing.TB
	hardware  wire.HardwareAddr
	neighbour wire.HardwareAddr // to whom it sends
	port      port
	conns     int
}

// Play plays a script, a line for each step:
//
//	> LINE       Sends(LINE)
//	< LINE       Wants(LINE)
//	silence      WantsSilence
//	+250ms       Waits
//
// What follows # is a comment.
func (p *Peer) Play(script string) {
	p.t.Helper()
	play(p.t, p, script, p.Sends, p.Wants)
}

func play(t testing.TB, p *Peer, script string, sends, wants func(string)) {
	t.Helper()
	number := 0
	for line := range strings.Lines(script) {
		number++
		line = uncommented(line)
		switch {
		case line == "":
		case line == "silence":
			p.WantsSilence("line %d of the script: silence", number)
		case strings.HasPrefix(line, "> "):
			sends(line[2:])
		case strings.HasPrefix(line, "< "):
			wants(line[2:])
		default:
			d, err := time.ParseDuration(line)
			if err != nil || line[0] != '+' {
				t.Fatalf("line %d of the script: %q begins neither with '> ' nor '< ', and is neither 'silence' nor a time such as '+1s'", number, line)
			}
			p.Waits(d)
		}
	}
}

// uncommented is a line without its comment, which begins outside quotes.
func uncommented(line string) string {
	inside := false
	for i, c := range line {
		switch {
		case c == '"' && (i == 0 || line[i-1] != '\\'):
			inside = !inside
		case c == '#' && !inside:
			return strings.TrimSpace(line[:i])
		}
	}
	return strings.TrimSpace(line)
}

// Sends sends what a line describes, in the words of tcpdump:
//
//	10.77.0.9.4000 > 10.77.0.2.7: udp "text"
//	10.77.0.9 > 10.77.0.2: icmp echo request id 1 seq 2 "text"
//	arp who-has 10.77.0.2 tell 10.77.0.9
//
// A number in place of the text is how many bytes, of a pattern; behind length it is that of the whole ICMP message.
func (p *Peer) Sends(line string) {
	p.t.Helper()
	t, body, err := frame(line)
	if err != nil {
		p.t.Fatalf("send %s: %v", line, err)
	}
	if t == wire.EtherTypeARP && wire.ARP(body).Op() == wire.ARPRequest {
		p.ask(body)
		return
	}
	p.sendTo(p.neighbour, t, body)
}

// ask sends an ARP request in the peer's name.
func (p *Peer) ask(body []byte) {
	p.t.Helper()
	a := wire.ARP(body)
	wire.PutARP(body, &wire.ARPFields{Op: a.Op(), SenderHardware: p.hardware, Sender: a.Sender(), Target: a.Target()})
	p.sendTo(wire.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, wire.EtherTypeARP, body)
}

func (p *Peer) sendTo(to wire.HardwareAddr, t wire.EtherType, body []byte) {
	p.t.Helper()
	b := make([]byte, wire.EthernetLen, wire.EthernetLen+len(body))
	wire.PutEthernet(b, &wire.EthernetInfo{Dst: to, Src: p.hardware, Type: t})
	p.SendsFrame(append(b, body...))
}

// SendsFrame sends a frame from its Ethernet header on, however wrong it is.
func (p *Peer) SendsFrame(frame []byte) {
	p.t.Helper()
	if err := p.port.send(frame); err != nil {
		p.t.Fatalf("the wire does not take %s: %v", wire.Dump(frame), err)
	}
	p.port.wait(0)
}

// Wants wants the next frame to be what the line describes, in the same words as Sends; without quotes the payload's length alone
// counts.
func (p *Peer) Wants(line string) {
	p.t.Helper()
	f := p.take(patience)
	if f == nil {
		p.t.Fatalf("nothing came in place of %s", line)
	}
	if got := describe(f, line); got != line {
		p.t.Fatalf("there came\n\t%s\nin place of\n\t%s", got, line)
	}
}

// Takes returns the next frame, from its Ethernet header on, nil where none comes.
func (p *Peer) Takes() []byte {
	p.t.Helper()
	return p.take(patience)
}

// WantsSilence wants nothing more to come: at this moment in virtual time, and for 100 ms in real time. Format and args say why,
// or nothing.
func (p *Peer) WantsSilence(format string, args ...any) {
	p.t.Helper()
	if f := p.take(quiet); f != nil {
		p.t.Fatalf("there came %s: "+format, append([]any{describe(f, `""`)}, args...)...)
	}
}

// Waits lets time pass, virtual where it is.
func (p *Peer) Waits(d time.Duration) { p.port.wait(d) }

// take is the next frame that the script is to see.
func (p *Peer) take(limit time.Duration) []byte {
	p.t.Helper()
	for {
		f, err := p.port.next(limit)
		if err != nil {
			p.t.Fatalf("the wire failed: %v", err)
		}
		if f == nil || p.shows(f) {
			return f
		}
	}
}

// shows reports whether the script is to see a frame. ARP is answered here.
func (p *Peer) shows(f []byte) bool {
	h, ok := wire.ParseEthernet(f)
	if ok && h.Dst != p.hardware && !h.Dst.IsMulticast() {
		return false // another's
	}
	if !ok || h.Type != wire.EtherTypeARP || p.ShowARP {
		return true
	}
	own, _ := wire.AddrFrom(p.Addr)
	if a, err := wire.ParseARP(f[h.HeaderLen:]); err == nil && a.Op() == wire.ARPRequest && a.Target() == own {
		b := make([]byte, wire.EthernetLen+wire.ARPLen)
		wire.PutEthernet(b, &wire.EthernetInfo{Dst: a.SenderHardware(), Src: p.hardware, Type: wire.EtherTypeARP})
		wire.PutARP(b[wire.EthernetLen:], &wire.ARPFields{
			Op: wire.ARPReply, SenderHardware: p.hardware, Sender: own, TargetHardware: a.SenderHardware(), Target: a.Sender(),
		})
		_ = p.port.send(b) // where it is lost, the question comes again
	}
	return false
}
