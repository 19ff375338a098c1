package stack

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// FuzzStreams sends segments of any make to a host with listening sockets and connections in every state, whose users do anything:
// nothing panics, every packet has one end, all that leaves is well-formed, and when all is closed nothing is left.
func FuzzStreams(f *testing.F) {
	f.Add([]byte{0})
	rng := rand.New(rand.NewPCG(1, 1))
	for range 8 {
		f.Add(chance(rng, 400))
	}
	f.Fuzz(playSegments)
}

// Chance plays the same game, the same each time.
func TestSegmentsOfChance(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		playSegments(t, chance(rng, 3000))
	}
}

func chance(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// A segmentGame is one host of the fuzzer, and what its peer knows of it.
type segmentGame struct {
	*host
	tape      tape
	listeners []*Stream
	streams   []*Stream
	known     map[[2]uint16]*numbers // by the host's port and the peer's
}

// numbers are what the host's last segment said of its connection.
type numbers struct{ seq, ack wire.Seq }

func (n *numbers) heard(t wire.TCP) {
	if t.Flags()&wire.RST == 0 {
		n.seq = t.Seq().Add(t.Len())
		if t.Flags()&wire.ACK != 0 {
			n.ack = t.Ack()
		}
	}
}

func playSegments(t *testing.T, script []byte) {
	g := &segmentGame{tape: script, known: make(map[[2]uint16]*numbers)}
	mode := g.tape.byte()
	cfg := DefaultTCP()
	cfg.Timestamps, cfg.SACK, cfg.WindowScale = mode&8 == 0, mode&16 == 0, mode&32 == 0
	cfg.ReceiveBuffer = 8192
	g.host = newHost(t, func(s *setup) {
		s.queues = 1 + int(mode&1)
		s.partial, s.offload = mode&2 != 0, mode&64 != 0
		s.Config.TCP = &cfg
		if mode&4 != 0 {
			s.ring = 16
		}
	})
	g.keepPeer()
	for n, c := range []ListenConfig{{Count: 3}, {Backlog: 3, HalfOpen: 1}} {
		l := g.NewStream()
		require.NoError(t, l.Bind(ap([]string{hostIP + ":80", hostIP + ":81"}[n])))
		require.NoError(t, l.Listen(c))
		g.listeners = append(g.listeners, l)
	}
	for range 2 { // connections are made at once, so that short scripts come far too
		k := g.talk(80, uint16(4000+len(g.streams)))
		k.handshake()
		c, err := g.listeners[0].Accept()
		require.NoError(t, err)
		g.streams = append(g.streams, c)
		g.known[[2]uint16{80, k.peerPort}] = &numbers{k.hostISS + 1, k.peerISS + 1}
	}
	for len(g.tape) > 0 {
		switch g.tape.byte() & 7 {
		case 0:
			g.useStream()
		case 1:
			g.useListener()
		case 2:
			g.wait(time.Duration(g.tape.byte()) * time.Duration(1<<(g.tape.byte()&31)))
		case 3:
			g.sendsICMP()
		default:
			g.sendsSegment()
		}
		g.settle()
		g.look()
	}
	g.wantSums()
	for _, l := range g.listeners {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			g.streams = append(g.streams, c)
		}
		require.NoError(t, l.Close())
	}
	for _, s := range g.streams {
		_ = s.Close() // the script may have closed it
	}
	for range 60 {
		g.wait(time.Minute)
		g.look()
	}
	g.wantNoStreams()
	for _, s := range g.streams {
		require.Zero(t, s.tx.Memory())
		require.False(t, s.rx.Memory() > 0 && s.rx.Shrink(), "memory that nobody needs")
	}
	for _, l := range g.listeners {
		require.Zero(t, l.listen.Load().held.Load())
		require.Zero(t, l.listen.Load().halfOpen.Load())
	}
}

// look reads what the host has sent.
func (g *segmentGame) look() {
	for _, p := range g.peers {
		for f := sent(p.Take()); f != nil; f = sent(p.Take()) {
			wantWellFormed(g.t, f)
			require.LessOrEqual(g.t, len(f), 1514)
			if f.ethernet().Type != wire.EtherTypeIPv4 || f.ip().Protocol() != wire.ProtocolTCP {
				continue
			}
			t := f.tcp()
			key := [2]uint16{t.SrcPort(), t.DstPort()}
			if g.known[key] == nil {
				g.known[key] = new(numbers)
			}
			g.known[key].heard(t)
		}
	}
	for _, e := range g.iface.engines {
		require.LessOrEqual(g.t, e.conns.count, 200)
		require.Equal(g.t, len(e.active) > 0 && !g.stalled, false, "all was served")
	}
}

// ports picks a connection that may exist, now and then one that does not.
func (g *segmentGame) ports() (host, peer uint16) {
	b := g.tape.byte()
	if s := g.stream(); b&0x80 != 0 && s != nil && s.RemoteAddr().IsValid() {
		return s.LocalAddr().Port(), s.RemoteAddr().Port()
	}
	return 79 + uint16(b>>4&3), 4000 + uint16(b&7)
}

// near is a number close to n, or anywhere.
func (g *segmentGame) near(n wire.Seq) wire.Seq {
	switch b := g.tape.byte(); {
	case b < 160:
		return n
	case b < 200:
		return n.Add(int(b) - 180)
	case b < 240:
		return n.Add((int(b) - 220) * 700)
	}
	return wire.Seq(binary.BigEndian.Uint32(append(make([]byte, 4), g.tape.take(4)...)[:4]))
}

func (g *segmentGame) sendsSegment() {
	host, peer := g.ports()
	n := g.known[[2]uint16{host, peer}]
	if n == nil {
		n = &numbers{ack: 1_000_000}
	}
	s := segment{sport: peer, dport: host, seq: g.near(n.ack), ack: g.near(n.seq), win: 0xFFFF}
	b := g.tape.byte()
	s.flags = []wire.TCPFlags{
		wire.ACK, wire.ACK, wire.ACK | wire.PSH, wire.ACK | wire.FIN, wire.SYN, wire.RST, wire.SYN | wire.ACK, wire.RST | wire.ACK,
	}[b&7]
	if b&0xC0 == 0xC0 {
		s.flags = wire.TCPFlags(g.tape.byte())
	}
	if b&0x08 != 0 {
		s.payload = make([]byte, int(g.tape.byte())*6)
	}
	if b&0x10 != 0 {
		s.win = uint16(g.tape.byte()) << (g.tape.byte() & 15)
	}
	if b&0x20 != 0 {
		s.options = append([]byte{}, g.tape.take(int(g.tape.byte())%41)...)
		s.options = s.options[:min(len(s.options), 40)]
	} else if s.flags&wire.SYN != 0 {
		s.options = []byte{2, 4, 5, 180, 4, 2, 1, 1, 1, 3, 3, 2}
	}
	s.urg = uint16(b)
	p := packet{tos: b & 3, partial: b&0xE0 == 0x40}
	queue := int(g.tape.byte()) % len(g.peers)
	if f := p.tcp(s); b != 0xFF {
		g.peers[queue].Inject(f)
	} else { // in fragments
		for _, piece := range p.pieces(wire.ProtocolTCP, sent(f).ip().Payload(), 24) {
			g.peers[queue].Inject(piece)
		}
	}
}

// sendsICMP sends an error about what the host may have sent.
func (g *segmentGame) sendsICMP() {
	host, peer := g.ports()
	n := g.known[[2]uint16{host, peer}]
	if n == nil {
		n = new(numbers)
	}
	about := packet{from: hostIP, to: peerIP}.tcp(segment{sport: host, dport: peer, seq: g.near(n.seq.Add(-1)), flags: wire.ACK})
	typ := []wire.ICMPType{wire.ICMPUnreachable, wire.ICMPUnreachable, wire.ICMPTimeExceeded, wire.ICMPParameterProblem}[g.tape.byte()&3]
	f := packet{}.icmpAbout(about, typ, g.tape.byte()&15, uint32(g.tape.byte())<<3)
	g.peers[int(g.tape.byte())%len(g.peers)].Inject(f)
}

// stream picks one of the streams.
func (g *segmentGame) stream() *Stream {
	if len(g.streams) == 0 {
		return nil
	}
	return g.streams[int(g.tape.byte())%len(g.streams)]
}

// useStream has a user do something.
func (g *segmentGame) useStream() {
	what := g.tape.byte() & 15
	if what == 0 {
		if len(g.streams) < 30 {
			s := g.NewStream()
			g.streams = append(g.streams, s)
			_ = s.Connect(ap(peerIP + ":5000"))
		}
		return
	}
	s := g.stream()
	n := int(g.tape.byte())
	switch what {
	case 1, 2, 3:
		_, _ = s.Read(make([]byte, n*16))
	case 4, 5, 6:
		_, _ = s.Write(make([]byte, n*64))
	case 7:
		_ = s.Shutdown(n & 3)
	case 8:
		_ = s.Close()
	case 9:
		_ = s.Abort()
	case 10:
		_ = s.Connect(ap(peerIP + ":5001"))
	case 11:
		_ = s.SetReceiveBuffer(n * 100)
		_ = s.SetSendBuffer(n * 100)
	case 12:
		_ = s.SetNoDelay(n&1 != 0)
		_ = s.SetCork(n&2 != 0)
		_ = s.SetQuickACK(n&4 != 0)
	case 13:
		_ = s.SetMaxSegment(n * 8)
		_ = s.SetCongestion([]string{"cubic", "newreno"}[n&1])
	case 14:
		_ = s.SetKeepAliveTimes(time.Duration(n)*time.Second, time.Second, 2)
		_ = s.SetKeepAlive(n&1 != 0)
		_ = s.SetUserTimeout(time.Duration(n) * time.Second)
	case 15:
		s.Info()
		s.Events()
		_ = s.TakeError()
		g.Sockets()
	}
}

// useListener has a user accept, or listen otherwise.
func (g *segmentGame) useListener() {
	b := g.tape.byte()
	l := g.listeners[b&1]
	if b&0x30 == 0x30 {
		_ = l.Listen([]ListenConfig{{Count: 1 + int(b>>6)}, {Backlog: 1 + int(b>>6), HalfOpen: 1}}[b>>1&1])
	}
	if c, err := l.Accept(); err == nil {
		g.streams = append(g.streams, c)
	}
}
