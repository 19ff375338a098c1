package stack

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// begin is when every script begins.
const begin = clock.Time(time.Hour)

// A host is the stack under test with one card. Each of the card's queues is one end of a wire; at the other end the script
// plays the peer: it sends frames, says what it wants to get, and moves the time.
type host struct {
	*Stack
	t     testing.TB
	iface *Interface
	wires []*linktest.Wire
	peers []*linktest.End // by queue
	now   clock.Time

	handlerSocket *sock // of forEachCase
	hosed         bool  // a hose is in the wire's place
	stalled       bool  // the card completes nothing: the engines never come to rest
}

// A setup is what a script may want to be other than usual.
type setup struct {
	Config
	InterfaceConfig
	queues  int
	mtu     int
	ring    int
	partial bool // the link leaves partial checksums
	offload bool // the link finishes checksums
	loud    bool // the ARP announcements of the start are left to the script
	strange bool // the peer's address is not in the neighbour table yet
	wrap    func(Link) Link
}

// newHost makes a host that owns 10.0.0.1/24, has announced it, and knows the peer 10.0.0.2.
func newHost(t testing.TB, changes ...func(*setup)) *host {
	s := setup{queues: 1, mtu: 1500, ring: 1024}
	s.Seed = 1
	s.Name, s.Mode = "eth0", Owned
	s.Addresses = []netip.Prefix{netip.MustParsePrefix(hostIP + "/24")}
	s.Gateway = netip.MustParseAddr(gatewayIP)
	for _, c := range changes {
		c(&s)
	}
	h := &host{t: t, now: begin, Stack: New(s.Config)}
	for range s.queues {
		w := linktest.New(linktest.Config{Ring: s.ring, Ends: []linktest.EndConfig{
			{MTU: s.mtu, HardwareAddr: hostMAC, PartialChecksums: s.partial, TxChecksum: s.offload}, {MTU: 9000, HardwareAddr: peerMAC},
		}})
		h.wires = append(h.wires, w)
		h.peers = append(h.peers, w.End(1))
		var l Link = w.End(0)
		if s.wrap != nil {
			l = s.wrap(l)
		}
		s.Links = append(s.Links, l)
	}
	var err error
	h.iface, err = h.AddInterface(s.InterfaceConfig)
	require.NoError(t, err)
	t.Cleanup(func() { h.wantSums(); h.wantFrames() })
	if !s.loud {
		h.settle()
		h.wait(3 * time.Second)
		for _, p := range h.peers {
			for p.Take() != nil {
			}
		}
	}
	if !s.strange && s.Mode == Owned {
		require.True(t, h.peers[0].Inject(isAt(peerMAC, peerIP)))
		h.wantIdle("an ARP reply has no answer")
	}
	return h
}

// newShared makes a host that shares 10.0.0.1/24 with a kernel, which routes as usual and knows no neighbour yet.
func newShared(t testing.TB, r Resolver, changes ...func(*setup)) *host {
	h := newHost(t, append([]func(*setup){func(s *setup) {
		s.Mode, s.Gateway, s.Resolver = Shared, netip.Addr{}, r
	}}, changes...)...)
	require.NoError(t, h.iface.SetRoutes([]Route{{Dst: netip.MustParsePrefix("10.0.0.0/24")}}))
	return h
}

// settle steps until nothing is left to do at this moment, and returns when there is.
func (h *host) settle() clock.Time {
	for n := range 100_000 {
		for _, w := range h.wires {
			w.Advance(h.now.Sub(begin))
		}
		next := h.Step(h.now)
		if next == clock.Never || next > h.now || h.stalled && n > 4 {
			return next
		}
	}
	require.FailNow(h.t, "the engines never come to rest")
	return clock.Never
}

// addCard gives the host another card, with an address that is announced, and returns the other end of its wire.
func addCard(h *host, name, address string, changes ...func(*InterfaceConfig)) *linktest.End {
	w := linktest.New(linktest.Config{})
	c := InterfaceConfig{Name: name, Mode: Owned, Addresses: []netip.Prefix{prefix(address)}, Links: []Link{w.End(0)}}
	for _, change := range changes {
		change(&c)
	}
	_, err := h.AddInterface(c)
	require.NoError(h.t, err)
	h.wires = append(h.wires, w)
	w.Advance(h.now.Sub(begin))
	h.wait(3 * time.Second)
	for w.End(1).Take() != nil {
	}
	return w.End(1)
}

// keepPeer makes the peer's Ethernet address known for good.
func (h *host) keepPeer() { h.iface.SetNeighbour(entry(peerIP, peerMAC, NeighbourPermanent)) }

// stall stops the transmit side of the card, and lets it go on.
func (h *host) stall(stalled bool) {
	h.stalled = stalled
	for _, w := range h.wires {
		w.End(0).SetStalled(stalled)
	}
}

// wait moves the time on, stopping wherever an engine wants to be stepped.
func (h *host) wait(d time.Duration) {
	until := h.now.Add(d)
	for {
		next := h.settle()
		if next == clock.Never || next > until {
			break
		}
		h.now = next
	}
	h.now = until
	h.settle()
}

// arrives has the peer send a frame, and wants it to end as told: "delivered", "answered", "consumed", "held", "forwarded",
// or the name of a drop reason.
func (h *host) arrives(end string, frame []byte, why ...any) {
	h.t.Helper()
	h.arrivesOn(0, end, frame, why...)
}

func (h *host) arrivesOn(queue int, end string, frame []byte, why ...any) {
	h.t.Helper()
	before := h.Stats()
	require.True(h.t, h.peers[queue].Inject(frame), "the wire takes the frame")
	h.settle()
	after := h.Stats()
	require.Equal(h.t, end, strings.Join(ends(&before, &after), " "), append([]any{"%v: %s", why, wire.Dump(frame)}, why[:0]...)...)
}

// ends names what became of packets between two looks at the counters.
func ends(before, after *Stats) (names []string) {
	add := func(name string, a, b uint64) {
		switch {
		case b == a+1:
			names = append(names, name)
		case b != a:
			names = append(names, fmt.Sprintf("%s*%d", name, int64(b-a)))
		}
	}
	add("delivered", before.Delivered, after.Delivered)
	add("answered", before.Answered, after.Answered)
	add("consumed", before.Consumed, after.Consumed)
	add("held", before.Held, after.Held)
	add("forwarded", before.Forwarded, after.Forwarded)
	for r := range before.Drops {
		add(DropReason(r).String(), before.Drops[r], after.Drops[r])
	}
	return names
}

// txEnds names the drops of what was sent between two looks.
func txEnds(before, after *Stats) (names []string) {
	for r := range before.TxDrops {
		if n := after.TxDrops[r] - before.TxDrops[r]; n != 0 {
			names = append(names, fmt.Sprintf("%s*%d", DropReason(r), n))
		}
	}
	return names
}

// take is the next frame that the host sent, nil where there is none.
func (h *host) take(queue int) sent {
	h.t.Helper()
	h.settle()
	f := h.peers[queue].Take()
	if f != nil {
		wantWellFormed(h.t, f)
	}
	return f
}

// want takes the next frame that the host sent and compares it with wire.Dump's description: without the host's own Ethernet
// address, and without the peer's where it went to the peer.
func (h *host) want(description string) sent {
	h.t.Helper()
	return h.wantOn(0, description)
}

func (h *host) wantOn(queue int, description string) sent {
	h.t.Helper()
	f := h.take(queue)
	require.NotNil(h.t, f, "nothing was sent in place of %s", description)
	require.Equal(h.t, description, describe(f))
	return f
}

func describe(f []byte) string {
	s := strings.TrimPrefix(wire.Dump(f), hostMAC.String()+" > ")
	return strings.TrimPrefix(s, peerMAC.String()+" ")
}

// wantIdle wants nothing to be on the wire.
func (h *host) wantIdle(why string) {
	h.t.Helper()
	h.settle()
	for q, p := range h.peers {
		if f := p.Take(); f != nil {
			require.FailNow(h.t, why, "queue %d sent %s", q, wire.Dump(f))
		}
	}
}

// wantSums holds the sums that Stats promises, for each engine and the stack.
func (h *host) wantSums() {
	h.t.Helper()
	wantSums(h.t, h.Stack)
}

// wantFrames wants the counters of frames to be what the cards saw.
func (h *host) wantFrames() {
	h.t.Helper()
	var in, out uint64
	for _, w := range h.wires {
		s := w.End(0).Stats()
		in += s.Received
		out += s.Sent + s.Unsendable
	}
	if s := h.Stats(); in > 0 && !h.stalled && !h.hosed {
		require.Equal(h.t, in, s.RxFrames)
		require.Equal(h.t, out, s.TxFrames)
		require.GreaterOrEqual(h.t, s.RxBytes, in, "a frame has a byte at least")
	}
}

func wantSums(t testing.TB, s *Stack) {
	t.Helper()
	check := func(name string, s Stats) {
		t.Helper()
		var drops, txDrops uint64
		for r := range s.Drops {
			drops += s.Drops[r]
			txDrops += s.TxDrops[r]
		}
		require.Equal(t, s.RxFrames+s.RxLocal+s.RxForwarded, s.Delivered+s.Answered+s.Consumed+s.Forwarded+s.Held+drops,
			"every packet that came to %s has one end: %+v", name, s)
		require.Equal(t, s.Output, s.Sent+s.Waiting+txDrops, "every packet made by %s has one end: %+v", name, s)
	}
	check("the stack", s.Stats())
	for _, i := range s.Interfaces() {
		for _, q := range i.Queues() {
			check(fmt.Sprintf("queue %d of %s", q.Queue, i.Name()), q.Stats)
		}
	}
}

// A sock is a socket of the host, and the script at its user's side.
type sock struct {
	*Datagram
	h *host
}

// socket makes an unbound socket.
func (h *host) socket(proto wire.Protocol) *sock {
	return &sock{h.NewDatagram(proto), h}
}

// bind makes a UDP socket bound to "10.0.0.1:7".
func (h *host) bind(local string) *sock {
	h.t.Helper()
	s := h.socket(wire.ProtocolUDP)
	require.NoError(h.t, s.Bind(ap(local)))
	return s
}

// connect makes a bound UDP socket that is connected as well.
func (h *host) connect(local, remote string) *sock {
	h.t.Helper()
	s := h.bind(local)
	require.NoError(h.t, s.Connect(ap(remote)))
	return s
}

// handle makes a UDP socket with a handler.
func (h *host) handle(local string, f Handler) *sock {
	h.t.Helper()
	s := h.bind(local)
	require.NoError(h.t, s.SetHandler(f))
	return s
}

// writes sends one message, to the connected peer where to is "".
func (s *sock) writes(payload, to string) {
	s.h.t.Helper()
	require.NoError(s.h.t, s.write([]byte(payload), to))
}

func (s *sock) write(payload []byte, to string) error {
	m := Message{Buf: payload}
	if to != "" {
		m.Addr = ap(to)
	}
	n, err := s.Write([]Message{m})
	if err == nil && n != 1 {
		return fmt.Errorf("Write took %d messages and said nothing", n)
	}
	return err
}

// read takes one message.
func (s *sock) read() (Message, error) {
	ms := []Message{{Buf: make([]byte, 1<<16)}}
	n, err := s.Read(ms)
	if n == 0 {
		return Message{}, err
	}
	m := ms[0]
	m.Buf = m.Buf[:m.N]
	return m, err
}

// wants reads one message and compares payload and sender.
func (s *sock) wants(payload, from string) Message {
	s.h.t.Helper()
	s.h.settle()
	m, err := s.read()
	require.NoError(s.h.t, err)
	require.Equal(s.h.t, payload, string(m.Buf))
	require.Equal(s.h.t, ap(from), m.Addr)
	return m
}

// wantErrno wants an error of Read.
func (s *sock) wantErrno(errno syscall.Errno, why string) {
	s.h.t.Helper()
	s.h.settle()
	_, err := s.read()
	require.Equal(s.h.t, errno, err, why)
}

// wantNothing wants no message and no error to be there.
func (s *sock) wantNothing(why string) {
	s.h.t.Helper()
	s.wantErrno(syscall.EAGAIN, why)
}

// seconds is a number of seconds, for sentences about time.
func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// pattern is n bytes that tell their place.
func pattern(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13)
	}
	return string(b)
}
