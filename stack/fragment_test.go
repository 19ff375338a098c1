package stack

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// wantFragments takes the fragments of one datagram and puts them together: in order, of the given payload lengths, with one
// identification and without DF.
func (h *host) wantFragments(lengths ...int) (body []byte) {
	h.t.Helper()
	var id uint16
	for n, length := range lengths {
		f := h.take(0)
		require.NotNil(h.t, f, "fragment %d of %d", n, len(lengths))
		p := f.ip()
		if n == 0 {
			id = p.ID()
		}
		require.Equal(h.t, id, p.ID())
		require.Equal(h.t, len(body), p.FragmentOffset())
		require.Len(h.t, p.Payload(), length)
		require.Equal(h.t, n < len(lengths)-1, p.MF())
		require.False(h.t, p.DF())
		body = append(body, p.Payload()...)
	}
	return body
}

// RFC 791 §2.3, §3.2: every fragment but the last carries a multiple of 8 bytes, as many as the MTU allows.
func TestFragmentationBoundaries(t *testing.T) {
	for _, c := range []struct {
		mtu, payload int
		lengths      []int // of the fragments' payloads; nil: one packet
	}{
		{1500, 1472, nil},
		{1500, 1473, []int{1480, 1}},
		{1500, 2952, []int{1480, 1480}},
		{1500, 2953, []int{1480, 1480, 1}},
		{1499, 1471, nil},
		{1499, 1472, []int{1472, 8}}, // 1479 is no multiple of 8
		{1501, 1473, nil},
		{1501, 1474, []int{1480, 2}},
		{68, 40, nil},
		{68, 41, []int{48, 1}},
		{9000, 8972, nil},
		{9000, 8973, []int{8976, 5}}, // 8980 is no multiple of 8
	} {
		t.Run(fmt.Sprintf("%d bytes over %d", c.payload, c.mtu), func(t *testing.T) {
			h := newHost(t, func(s *setup) { s.mtu = c.mtu })
			h.bind("10.0.0.1:7").writes(pattern(c.payload), "10.0.0.2:9")
			if c.lengths == nil {
				f := h.take(0)
				require.True(t, f.ip().DF())
				require.Equal(t, pattern(c.payload), string(f.udp().Payload()))
			} else {
				h.wantFragmented(c.payload, c.lengths...)
			}
			h.wantIdle("and nothing more")
		})
	}
}

// RFC 8899 §3: who looks for the path's MTU wants to lose what is longer, whether the link or an error has told the MTU.
func TestWholeOrNotAtAll(t *testing.T) {
	h := newHost(t, func(s *setup) { s.mtu = 1400 })
	d := h.bind("10.0.0.1:7")
	require.True(t, d.Fragment())
	d.SetFragment(false)
	require.False(t, d.Fragment())
	d.writes(pattern(1373), "10.0.0.2:9")
	h.wantIdle("one byte more than the link carries")
	d.writes(pattern(1372), "10.0.0.2:9")
	f := h.take(0)
	require.NotNil(t, f)
	require.True(t, f.ip().DF())
	h.arrives("consumed", fragNeeded(f, 1000))
	d.writes(pattern(973), "10.0.0.2:9")
	h.wantIdle("one byte more than the path carries")
	d.writes(pattern(972), "10.0.0.2:9")
	require.NotNil(t, h.take(0))
	require.EqualValues(t, 2, h.Stats().TxDrops[DropTooLong])
	d.SetFragment(true)
	d.writes(pattern(1373), "10.0.0.2:9")
	h.wantFragments(976, 405)
}

// wantFragmented takes the fragments of pattern(payload) from 10.0.0.1 to 10.0.0.2.
func (h *host) wantFragmented(payload int, lengths ...int) {
	h.t.Helper()
	body := h.wantFragments(lengths...)
	u, err := wire.ParseUDP(body)
	require.NoError(h.t, err)
	require.Equal(h.t, wire.ChecksumOK, u.ChecksumState(addr(hostIP), addr(peerIP)))
	require.Equal(h.t, pattern(payload), string(u.Payload()))
}

// RFC 768: the length field counts to 65,535, with the IPv4 header and its own a payload of 65,507.
func TestLongestDatagram(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	require.Equal(t, syscall.EMSGSIZE, s.write(make([]byte, 65508), "10.0.0.2:9"))
	h.wantIdle("it does not fit")
	s.writes(pattern(65507), "10.0.0.2:9")
	lengths := make([]int, 45)
	for i := range lengths {
		lengths[i] = 1480
	}
	lengths[44] = 65515 - 44*1480
	h.wantFragmented(65507, lengths...)
	require.Equal(t, uint64(1), h.Stats().Fragmented)
	h.wantIdle("that was all")
}

// RFC 6864 §4.2: a source does not repeat the identification of fragmented datagrams between the same addresses and for the same
// protocol while old ones may be about. The engines of a card count apart and never meet.
func TestFragmentIDsAreUnique(t *testing.T) {
	for queues := 1; queues <= 5; queues++ {
		h := newHost(t, func(s *setup) { s.queues = queues })
		seen := make(map[uint16]bool)
		each := 1 << 16
		for e := 1; e < queues; e *= 2 {
			each /= 2
		}
		for _, e := range h.iface.engines {
			for range each {
				id := e.nextID(addr(hostIP), addr(peerIP), wire.ProtocolUDP)
				require.False(t, seen[id], "%d queues: %d came twice", queues, id)
				seen[id] = true
			}
		}
	}
}

// RFC 7739 §5.3: identifications of flows to others tell nothing about those to a victim: they begin elsewhere.
func TestFragmentIDsDifferByDestination(t *testing.T) {
	h := newHost(t)
	e := h.iface.engines[0]
	same := 0
	last := e.nextID(addr(hostIP), addr(peerIP), wire.ProtocolUDP)
	for n := range 1000 {
		id := e.nextID(addr(hostIP), wire.Addr(0x0A000100+n), wire.ProtocolUDP)
		if id-last < 4 {
			same++
		}
		last = id
	}
	require.Less(t, same, 10)
}

// fragNeeded is the peer's router's "fragmentation needed and DF set" about a frame that the host sent.
func fragNeeded(f sent, mtu int) []byte {
	return packet{}.icmpAbout(f, wire.ICMPUnreachable, wire.CodeFragNeeded, uint32(mtu))
}

// RFC 1191 §3: "When a host receives a Datagram Too Big message, it MUST reduce its estimate of the PMTU for the relevant path,
// based on the value of the Next-Hop MTU field in the message".
func TestPathMTU(t *testing.T) {
	h := newHost(t)
	s := h.connect("10.0.0.1:7", "10.0.0.2:9")
	other := h.bind("10.0.0.1:8")
	s.writes(pattern(1472), "")
	f := h.take(0)
	h.arrives("consumed", fragNeeded(f, 1400))
	s.wantNothing("the next datagram fits: that is no error of the socket")

	s.writes(pattern(1472), "")
	h.wantFragmented(1472, 1376, 104)
	s.writes(pattern(1372), "")
	require.True(t, h.take(0).ip().DF(), "1400 bytes fit")

	h.arrives("consumed", isAt(otherMAC, otherIP))
	other.writes(pattern(1472), "10.0.0.3:9")
	require.Equal(t, 1500, h.take(0).ip().TotalLength(), "another path is another matter")
	h.wantIdle("nothing else")
}

// RFC 1191 §3: "A host MUST never increase its estimate of the Path MTU in response to the contents of a Datagram Too Big
// message." §6.3: an estimate that is old is raised again.
func TestPathMTUIsOnlyLoweredAndExpires(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.keepPeer()
	send := func() sent {
		s.writes(pattern(1472), "10.0.0.2:9")
		f := h.take(0)
		for h.take(0) != nil {
		}
		return f
	}
	first := send()
	h.arrives("consumed", fragNeeded(first, 1300))
	require.Equal(t, 1300, send().ip().TotalLength(), "1280 is a multiple of 8")
	h.arrives("consumed", fragNeeded(first, 1400))
	h.arrives("consumed", fragNeeded(first, 1500))
	h.arrives("consumed", fragNeeded(first, 60000))
	require.Equal(t, 1300, send().ip().TotalLength(), "never raised")
	h.arrives("consumed", fragNeeded(first, 1000))
	require.Equal(t, 996, send().ip().TotalLength(), "lowered")
	h.wait(9 * time.Minute)
	require.Equal(t, 996, send().ip().TotalLength())
	h.wait(time.Minute + seconds(1))
	require.Equal(t, 1500, send().ip().TotalLength(), "after ten minutes the whole is tried again")
	h.arrives("consumed", fragNeeded(first, 1400))
	require.Equal(t, 1396, send().ip().TotalLength(), "what has expired is no bound")
}

// A path MTU below 552 is the truth, a lie or an attack (net.ipv4.route.min_pmtu): 552 is used instead, and DF is left clear,
// so that the truth costs no more than fragments of fragments (fnhe_mtu_locked of net/ipv4/route.c).
func TestPathMTUHasAFloor(t *testing.T) {
	for _, mtu := range []int{1, 68, 551, 552} {
		h := newHost(t)
		h.keepPeer()
		s := h.bind("10.0.0.1:7")
		s.writes(pattern(1472), "10.0.0.2:9")
		first := h.take(0)
		h.arrives("consumed", fragNeeded(first, mtu))
		seen := map[uint16]bool{}
		wants := func(size int, why string) {
			t.Helper()
			p := h.take(0).ip()
			require.Equal(t, size, p.TotalLength(), "%s, MTU %d", why, mtu)
			require.Equal(t, mtu == 552, p.DF(), "%s, MTU %d", why, mtu)
			if !p.DF() { // RFC 6864 §4.2
				require.False(t, seen[p.ID()], "%s: identification %d comes twice", why, p.ID())
				seen[p.ID()] = true
			}
		}
		whole := func(why string, times int) {
			t.Helper()
			for range times {
				s.writes(pattern(500), "10.0.0.2:9")
				wants(528, why)
			}
		}
		s.writes(pattern(1472), "10.0.0.2:9")
		h.wantFragmented(1472, 528, 528, 424)
		whole("a datagram that fits into 552", 3)
		h.arrives("consumed", fragNeeded(first, 1400))
		whole("afterwards somebody tells of more", 1)
		s.writes("x", "10.0.0.2:9")
		wants(29, "the shortest too")
		require.NoError(t, h.pinger("10.0.0.1:100").write(request(1, pattern(500)), "10.0.0.2:0"))
		wants(528, "a ping")
		h.arrives("answered", packet{}.ping(1, 1, pattern(500)))
		wants(528, "the answer to a ping")
		h.handle("10.0.0.1:8", func(p *Packet) { p.Echo() })
		h.arrives("delivered", packet{}.udp(9, 8, pattern(500)))
		wants(528, "a handler's echo")
		h.handle("10.0.0.1:9", func(p *Packet) { p.Reply(copy(p.Room(), pattern(500))) })
		h.arrives("delivered", packet{}.udp(9, 9, "?"))
		wants(528, "a handler's answer")
		h.arrives("udp-no-port", packet{}.udp(9, 10, "nobody"))
		wants(20+8+28+6, "an ICMP error")

		h.arrives("answered", packet{from: otherIP}.ping(1, 1, pattern(500)))
		require.True(t, h.take(0).ip().DF(), "another path is another matter")
		h.wait(10*time.Minute + seconds(1))
		s.writes(pattern(500), "10.0.0.2:9")
		require.True(t, h.take(0).ip().DF(), "after ten minutes the path is tried again")
		h.arrives("answered", packet{}.ping(1, 1, pattern(500)))
		require.True(t, h.take(0).ip().DF())
		require.Zero(t, h.iface.engines[0].locked)
		h.wantIdle("nothing else")
	}
}

// A card whose own MTU is below 552: less than that is told, and no more than that is sent, with DF clear.
func TestPathMTUBelowASmallCards(t *testing.T) {
	h := newHost(t, func(s *setup) { s.mtu = 400 })
	s := h.bind("10.0.0.1:7")
	s.writes(pattern(372), "10.0.0.2:9")
	f := h.take(0)
	require.True(t, f.ip().DF())
	h.arrives("consumed", fragNeeded(f, 300))
	s.writes(pattern(372), "10.0.0.2:9")
	p := h.take(0).ip()
	require.Equal(t, 400, p.TotalLength())
	require.False(t, p.DF())
	s.writes(pattern(373), "10.0.0.2:9")
	h.wantFragmented(373, 376, 5)
}

// RFC 1191 §5, §7.1: a router that does not tell its MTU gives 0; the host tries the next plateau below what was refused.
func TestPathMTUPlateaus(t *testing.T) {
	for _, c := range []struct{ mtu, refused, next int }{
		{1500, 1500, 1492}, {1500, 1493, 1492}, {1500, 1492, 1006}, {1500, 1006, 576}, {1500, 1007, 1006}, {1500, 577, 576},
		{9000, 9000, 8166}, {9000, 8166, 4352}, {9000, 4352, 2002}, {9000, 2002, 1492},
	} {
		h := newHost(t, func(s *setup) { s.mtu = c.mtu })
		s := h.bind("10.0.0.1:7")
		s.writes(pattern(c.refused-28), "10.0.0.2:9")
		h.arrives("consumed", fragNeeded(h.take(0), 0))
		s.writes(pattern(c.mtu-28), "10.0.0.2:9")
		require.Equal(t, 20+(c.next-20)&^7, h.take(0).ip().TotalLength(), "refused %d", c.refused)
		for h.take(0) != nil {
		}
	}
}

// Only an error about what a socket here sent is believed.
func TestPathMTUIsNotTakenFromStrangers(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.writes(pattern(1472), "10.0.0.2:9")
	f := h.take(0)
	s.Close()
	h.arrives("icmp-quote", fragNeeded(f, 1000))
	require.Empty(t, h.iface.engines[0].pmtu)
}

// The table of path MTUs is bounded.
func TestPathMTUTableIsBounded(t *testing.T) {
	h := newHost(t)
	e := h.iface.engines[0]
	e.now = h.now
	for n := range 3 * maxPMTU {
		e.learnPMTU(wire.Addr(0x0B000000+n), 1000, 1500)
		require.LessOrEqual(t, len(e.pmtu), maxPMTU)
	}
	require.Equal(t, maxPMTU, len(e.pmtu))
	require.Contains(t, e.pmtu, wire.Addr(0x0B000000+3*maxPMTU-1), "the newest is in")
	for n := range 3 * maxPMTU {
		e.learnPMTU(wire.Addr(0x0C000000+n), 500*(n%2)+300, 1500)
	}
	require.Equal(t, maxPMTU, len(e.pmtu))
	locked := 0
	for _, p := range e.pmtu {
		if p.locked {
			locked++
		}
	}
	require.Equal(t, locked, e.locked)
	require.NotZero(t, locked)
}

// RFC 791 §3.2: "Every internet module must be able to forward a datagram of 68 octets": no route has less.
func TestRouteMTU(t *testing.T) {
	for _, c := range []struct{ mtu, total int }{{1400, 1396}, {100, 100}, {67, 68}, {1, 68}, {-5, 68}, {9000, 1500}, {0, 1500}} {
		h := newHost(t)
		require.NoError(t, h.iface.AddRoute(Route{Dst: netip.MustParsePrefix("10.0.0.2/32"), MTU: c.mtu}))
		h.bind("10.0.0.1:7").writes(pattern(1472), "10.0.0.2:9")
		require.Equal(t, c.total, h.take(0).ip().TotalLength(), "MTU %d", c.mtu)
		for h.take(0) != nil {
		}
	}
}

// A datagram that finds the transmit ring full in the middle of its fragments goes on from there.
func TestFragmentsWaitForTheRing(t *testing.T) {
	h, room := newScarce(t)
	s := h.bind("10.0.0.1:7")
	*room = 4
	s.writes(pattern(14000), "10.0.0.2:9")
	s.writes(pattern(3), "10.0.0.2:9")
	h.settle()
	*room, h.stalled = 100, false
	u, err := wire.ParseUDP(h.wantRest(0))
	require.NoError(t, err)
	require.Equal(t, wire.ChecksumOK, u.ChecksumState(addr(hostIP), addr(peerIP)))
	require.Equal(t, pattern(14000), string(u.Payload()))
	h.want("10.0.0.1.7 > 10.0.0.2.9: udp 3")
	h.wantIdle("in order, and nothing lost")
	require.Zero(t, h.Stats().TxDrops[DropTransmitFull])
}

// A scarceLink has room for so many frames more.
type scarceLink struct {
	Link
	room *int
	open *byte // the frame from Alloc
}

func (l *scarceLink) Alloc() []byte {
	if *l.room == 0 {
		return nil
	}
	*l.room--
	f := l.Link.Alloc()
	l.open = &f[0]
	return f
}

func (l *scarceLink) Send(frame []byte) bool {
	if l.open == &frame[0] {
		l.open = nil
		return l.Link.Send(frame)
	}
	if *l.room == 0 {
		return false
	}
	*l.room--
	return l.Link.Send(frame)
}

func (l *scarceLink) Free(frame []byte) {
	*l.room++
	l.Link.Free(frame)
}

// newScarce makes a host whose card has as much room for sending as the script says, and may never come to rest.
func newScarce(t testing.TB, changes ...func(*setup)) (h *host, room *int) {
	room = new(int)
	*room = 1000
	h = newHost(t, append(changes, func(s *setup) { s.wrap = func(l Link) Link { return &scarceLink{Link: l, room: room} } })...)
	h.stalled = true
	return h, room
}

// wantRest takes fragments up to the last, beginning at off.
func (h *host) wantRest(off int) (body []byte) {
	for {
		p := h.take(0).ip()
		require.Equal(h.t, off+len(body), p.FragmentOffset())
		body = append(body, p.Payload()...)
		if !p.MF() {
			return body
		}
	}
}

// RFC 1191 §3: an answer in the frame that asked heeds the path's MTU too.
func TestAnswersHeedThePathMTU(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	s.writes(pattern(1472), "10.0.0.2:9")
	h.arrives("consumed", fragNeeded(h.take(0), 1000))
	h.handle("10.0.0.1:8", func(p *Packet) { p.Echo() })
	h.handle("10.0.0.1:9", func(p *Packet) { p.Reply(copy(p.Room(), pattern(1472))) })

	h.arrives("answered", packet{}.ping(1, 1, pattern(1472)))
	require.Equal(t, pattern(1472), string(h.wantFragments(976, 504)[8:]))
	h.arrives("answered", packet{}.ping(1, 1, pattern(900)))
	require.True(t, h.take(0).ip().DF())
	for _, port := range []int{8, 9} {
		h.arrives("delivered", packet{}.udp(9, port, pattern(1472)))
		require.Equal(t, pattern(1472), string(h.wantFragments(976, 504)[8:]))
	}
	h.arrives("delivered", packet{}.udp(9, 9, "short question, long answer"))
	require.Equal(t, pattern(1472), string(h.wantFragments(976, 504)[8:]))
	h.wantIdle("each in pieces that get through")
}

// The interface's MTU is lowered while the engine runs: answers and datagrams fit the new one.
func TestLinkMTUIsLowered(t *testing.T) {
	mtu := 1500
	h := newHost(t, func(s *setup) { s.wrap = func(l Link) Link { return &changingLink{Link: l, mtu: &mtu} } })
	s := h.bind("10.0.0.1:7")
	mtu = 600
	h.iface.LinkChanged()
	require.Equal(t, 600, h.iface.MTU())
	s.writes(pattern(1000), "10.0.0.2:9")
	h.wantFragmented(1000, 576, 432)
	h.arrives("answered", packet{}.ping(1, 1, pattern(1000)))
	require.Equal(t, pattern(1000), string(h.wantFragments(576, 432)[8:]))
	mtu = 10
	h.iface.LinkChanged()
	s.writes(pattern(50), "10.0.0.2:9")
	h.wantFragmented(50, 48, 10)
}

// changingLink is a link whose device is changed under it.
type changingLink struct {
	Link
	mtu *int               // nil: as it is
	hw  *wire.HardwareAddr // nil: as it is
}

func (l *changingLink) MTU() int {
	if l.mtu == nil {
		return l.Link.MTU()
	}
	return *l.mtu
}

func (l *changingLink) HardwareAddr() [6]byte {
	if l.hw == nil {
		return l.Link.HardwareAddr()
	}
	return *l.hw
}
