package stack

import (
	"net"
	"net/netip"
	"syscall"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// NeighbourState is what is known of a neighbour, in the terms of RFC 4861 §7.3.2 and of Linux (include/uapi/linux/neighbour.h).
type NeighbourState uint8

// The states of a neighbour.
const (
	NeighbourIncomplete NeighbourState = iota // asked for; packets wait
	NeighbourReachable                        // answered not long ago
	NeighbourStale                            // known, and to be asked again when it is used
	NeighbourProbe                            // used while stale: being asked
	NeighbourFailed                           // did not answer
	NeighbourPermanent                        // set by the operator: never asked for
)

// String is the state's name in ip-neighbour(8), in small letters.
func (s NeighbourState) String() string {
	return [...]string{"incomplete", "reachable", "stale", "probe", "failed", "permanent"}[min(s, NeighbourPermanent)]
}

// NeighbourEntry is one line of the neighbour table.
type NeighbourEntry struct {
	Addr         netip.Addr
	HardwareAddr net.HardwareAddr
	State        NeighbourState
	VLANs        []uint16      // tags of its frames, outermost first
	Queued       int           // packets that wait for its address
	Age          time.Duration // since it was last confirmed
}

// The times of RFC 1122 §2.3.2 and of Linux's defaults (net/ipv4/arp.c).
const (
	neighbourRetry     = time.Second      // between requests: RFC 1122 §2.3.2.1 allows one a second
	neighbourTries     = 3                // requests before it has failed
	neighbourReachable = 30 * time.Second // a confirmation holds
	neighbourUnused    = time.Minute      // a stale entry is kept
	neighbourFailed    = time.Second      // a failure is remembered
	neighbourLocked    = time.Second      // an answer is not replaced by another (arp.c: LOCKTIME)
	neighbourWaiting   = 4096             // packets that wait on one engine, for all neighbours
)

// A neighbour is an entry of an engine's table. Each engine has its own, so a packet reads it without a lock; ARP packets are
// passed on to the interface's other engines (forward.go).
type neighbour struct {
	e         *Engine
	addr      wire.Addr
	state     NeighbourState
	used      bool // since the timer last looked
	dead      bool // no longer in the table
	tries     uint8
	ntags     uint8
	tags      [wire.MaxTags]wire.VLANTag
	header    [wire.EthernetMaxLen]byte // of an IPv4 frame to it
	headerLen int
	confirmed clock.Time
	timer     timer
	waiting   [][]byte // IPv4 packets, the oldest first
}

// usable reports whether packets may be sent at once.
func (n *neighbour) usable() bool {
	return n.state != NeighbourIncomplete && n.state != NeighbourFailed
}

// fresh reports whether sending needs no further thought.
func (n *neighbour) fresh() bool {
	return n.state == NeighbourReachable || n.state == NeighbourPermanent
}

// neighbour finds the entry for addr or begins to resolve it. It returns nil when the table is full.
func (e *Engine) neighbour(addr wire.Addr) *neighbour {
	if n := e.neighbours[addr]; n != nil {
		return n
	}
	n := e.newNeighbour(addr)
	if n != nil {
		e.solicit(n)
	}
	return n
}

func (e *Engine) newNeighbour(addr wire.Addr) *neighbour {
	if len(e.neighbours) >= e.limits.Neighbours && !e.evictNeighbour() {
		return nil
	}
	n := &neighbour{e: e, addr: addr}
	n.timer.owner = n
	e.neighbours[addr] = n
	return n
}

// evictNeighbour makes room by removing an entry that nothing needs at the moment, or else one that has not answered yet: a
// flood of requests from invented hosts, or of packets for them, must not keep the real ones out.
func (e *Engine) evictNeighbour() bool {
	var unanswered *neighbour
	looked := 0
	for _, n := range e.neighbours {
		switch {
		case n.state == NeighbourStale, n.state == NeighbourFailed, n.state == NeighbourReachable && !n.used:
			e.removeNeighbour(n)
			return true
		case n.state == NeighbourIncomplete:
			unanswered = n
		}
		if looked++; looked == 64 {
			break
		}
	}
	if unanswered == nil {
		return false
	}
	e.removeNeighbour(unanswered)
	return true
}

func (e *Engine) removeNeighbour(n *neighbour) {
	e.wheel.stop(&n.timer)
	e.dropWaiting(n)
	n.dead = true
	delete(e.neighbours, n.addr)
}

// use is called when a packet goes to a neighbour that is not fresh.
func (e *Engine) use(n *neighbour) {
	if n.state == NeighbourStale {
		n.state = NeighbourProbe
		e.solicit(n)
	}
}

// solicit begins to ask for n: by ARP, or in shared mode by asking the kernel to.
func (e *Engine) solicit(n *neighbour) {
	n.tries = 0
	e.ask(n)
}

func (e *Engine) ask(n *neighbour) {
	n.tries++
	e.wheel.arm(&n.timer, e.now.Add(neighbourRetry))
	if r := e.iface.resolver; r != nil {
		r.Resolve(n.addr.Netip())
		return
	}
	e.sendARPRequest(n)
}

// expire moves a neighbour on when nothing was heard of it.
func (n *neighbour) expire(_ *timer, now clock.Time) {
	e := n.e
	switch n.state {
	case NeighbourReachable:
		n.state = NeighbourStale
		if n.used {
			n.used = false
			e.use(n)
			return
		}
		e.wheel.arm(&n.timer, now.Add(neighbourUnused))
	case NeighbourStale:
		e.removeNeighbour(n)
	case NeighbourIncomplete, NeighbourProbe:
		if n.tries < neighbourTries {
			e.ask(n)
			return
		}
		if n.state == NeighbourProbe && e.iface.resolver != nil {
			// Who resolves has not said that it failed: the kernel may be content with what it knows.
			n.state = NeighbourStale
			e.wheel.arm(&n.timer, now.Add(neighbourUnused))
			return
		}
		n.state = NeighbourFailed
		e.dropWaiting(n)
		e.wheel.arm(&n.timer, now.Add(neighbourFailed))
	case NeighbourFailed:
		e.removeNeighbour(n)
	}
}

// confirm records n's Ethernet address and sends what waited for it.
func (e *Engine) confirm(n *neighbour, hw wire.HardwareAddr, tags []wire.VLANTag, state NeighbourState) {
	n.state, n.confirmed, n.tries = state, e.now, 0
	if len(tags) != int(n.ntags) {
		e.gen++ // what is kept of destinations behind it has another MTU
	}
	n.ntags = uint8(copy(n.tags[:], tags))
	n.headerLen = wire.PutEthernet(n.header[:], &wire.EthernetInfo{
		Dst: hw, Src: e.hw, Type: wire.EtherTypeIPv4, Tags: n.tags, NTags: n.ntags,
	})
	switch state {
	case NeighbourReachable:
		e.wheel.arm(&n.timer, e.now.Add(neighbourReachable))
	case NeighbourStale:
		e.wheel.arm(&n.timer, e.now.Add(neighbourUnused))
	default:
		e.wheel.stop(&n.timer)
	}
	e.sendWaiting(n)
}

// readdress makes hw the Ethernet address that frames come from and answers go to.
func (e *Engine) readdress(hw wire.HardwareAddr) {
	if e.hw == hw {
		return
	}
	e.hw = hw
	for _, n := range e.neighbours {
		if n.headerLen > 0 {
			wire.PutEthernetAddrs(n.header[:], n.hardwareAddr(), hw)
		}
	}
}

func (n *neighbour) hardwareAddr() wire.HardwareAddr { return wire.HardwareAddr(n.header[:6]) }

// wait queues a copy-to-be of a packet of size bytes for n, in place of the oldest when too many wait: RFC 1122 §2.3.2.2
// wants the latest kept. It returns nil when this engine holds too many for all neighbours together.
func (e *Engine) wait(n *neighbour, size int) []byte {
	if len(n.waiting) >= e.limits.NeighbourQueue {
		e.freeWaiting(n.waiting[0])
		n.waiting = append(n.waiting[:0], n.waiting[1:]...)
		e.stats.Waiting--
		e.stats.TxDrops[DropNeighbourQueueFull]++
	}
	if e.stats.Waiting >= neighbourWaiting {
		return nil
	}
	var b []byte
	if last := len(e.spare) - 1; last >= 0 && cap(e.spare[last]) >= size {
		b, e.spare = e.spare[last][:size], e.spare[:last]
	} else {
		b = make([]byte, size, max(size, 2048))
	}
	n.waiting = append(n.waiting, b)
	e.stats.Waiting++
	return b
}

func (e *Engine) freeWaiting(b []byte) {
	if len(e.spare) < 64 {
		e.spare = append(e.spare, b[:0])
	}
}

// sendWaiting sends what waited for n.
func (e *Engine) sendWaiting(n *neighbour) {
	for _, p := range n.waiting {
		e.stats.Waiting--
		if r := e.sendWaited(n, p); r != NotDropped {
			e.stats.TxDrops[r]++
		}
		e.freeWaiting(p)
	}
	n.waiting = n.waiting[:0]
}

// sendWaited sends one packet that waited. Where n has turned out to be behind VLAN tags that leave it no room it is cut, as
// those are that come later.
func (e *Engine) sendWaited(n *neighbour, p wire.IPv4) DropReason {
	f := e.allocFrame()
	if f == nil {
		return DropTransmitFull
	}
	if room := min(e.mtuBehind(n.headerLen), len(f)-n.headerLen); len(p) > room {
		e.link.Free(f)
		return e.cutWaited(n, p, (room-wire.IPv4Len)&^7)
	}
	copy(f, n.header[:n.headerLen])
	e.sendFrame(f[:n.headerLen+copy(f[n.headerLen:], p)])
	e.stats.Sent++
	return NotDropped
}

// cutWaited sends a packet of ours, whole or a fragment, in fragments with room bytes of payload at most, RFC 791 §2.3. Each is
// a packet of its own in the counters, in place of p, unless the transmit ring has no room for all.
func (e *Engine) cutWaited(n *neighbour, p wire.IPv4, room int) DropReason {
	payload := p.Payload()
	h := wire.IPv4Fields{TOS: p.TOS(), ID: p.ID(), TTL: p.TTL(), Protocol: p.Protocol(), Src: p.Src(), Dst: p.Dst()}
	if !p.IsFragment() {
		h.ID = e.nextID(h.Src, h.Dst, h.Protocol)
	}
	for off := 0; off < len(payload); off += room {
		f := e.allocFrame()
		if f == nil {
			return DropTransmitFull
		}
		part := payload[off:min(off+room, len(payload))]
		h.TotalLength, h.FragmentOffset = wire.IPv4Len+len(part), p.FragmentOffset()+off
		h.MF = p.MF() || off+len(part) < len(payload)
		copy(f, n.header[:n.headerLen])
		wire.PutIPv4(f[n.headerLen:], &h)
		copy(f[n.headerLen+wire.IPv4Len:], part)
		e.sendFrame(f[:n.headerLen+h.TotalLength])
		e.stats.Output++
		e.stats.Sent++
	}
	e.stats.Output--
	if !p.IsFragment() {
		e.stats.Fragmented++
	}
	return NotDropped
}

// dropWaiting gives up on what waited for n and tells the sockets that sent it.
func (e *Engine) dropWaiting(n *neighbour) {
	for _, p := range n.waiting {
		e.stats.Waiting--
		e.stats.TxDrops[DropNeighbourFailed]++
		if q, err := wire.ParseQuoted(p); err == nil {
			e.sendFailed(&q, syscall.EHOSTUNREACH)
		}
		e.freeWaiting(p)
	}
	n.waiting = n.waiting[:0]
}

// setNeighbour is Interface.SetNeighbour on one engine.
func (e *Engine) setNeighbour(addr wire.Addr, hw wire.HardwareAddr, tags []wire.VLANTag, state NeighbourState) {
	n := e.neighbours[addr]
	if n == nil {
		if state == NeighbourFailed || state == NeighbourIncomplete {
			return // nobody here waits for it
		}
		if n = e.newNeighbour(addr); n == nil {
			return
		}
	}
	switch state {
	case NeighbourFailed, NeighbourIncomplete:
		if state == NeighbourFailed && (n.state == NeighbourIncomplete || n.usable()) {
			n.state = NeighbourFailed
			e.dropWaiting(n)
			e.wheel.arm(&n.timer, e.now.Add(neighbourFailed))
		}
	case NeighbourProbe:
		e.confirm(n, hw, tags, NeighbourStale)
	default:
		e.confirm(n, hw, tags, state)
	}
}

func (n *neighbour) public(now clock.Time) NeighbourEntry {
	p := NeighbourEntry{Addr: n.addr.Netip(), State: n.state, Queued: len(n.waiting)}
	if n.headerLen > 0 {
		hw := n.hardwareAddr()
		p.HardwareAddr = hw[:]
		p.Age = now.Sub(n.confirmed)
	}
	for _, t := range n.tags[:n.ntags] {
		p.VLANs = append(p.VLANs, t.ID())
	}
	return p
}
