package stack

import (
	"syscall"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// The engine's side of TCP: segments to the state machine of package tcp, and what it emits to the wire.

// tcpEngine is what an engine keeps for TCP.
type tcpEngine struct {
	layer     *tcp.Layer
	conns     connTable
	listeners map[listenKey][]*listening
	cookieAt  clock.Time // when this engine gave the last SYN cookie
	active    []*Stream  // touched in this step, or kept because the transmit ring was full
	serving   []*Stream  // the memory of active's last list
	tcpIn     tcp.Segment
	acksTaken int    // in this step, segments that do nothing but acknowledge
	tcpID     tcp.ID // of tcpIn
	tcpAnswer tcp.Segment
	tcpOut    segmentWriter
	bundle    bundle
	timeWaits int // connections in TIME-WAIT
}

// tcp takes a segment: RFC 9293 §3.10.7 begins here, with the connection that it belongs to.
func (e *Engine) tcp(p wire.IPv4, la *localAddr) DropReason {
	b := p.Payload()
	t, err := wire.ParseTCP(b)
	if err != nil {
		return DropTCPHeader
	}
	switch t.ChecksumState(p.Src(), p.Dst()) {
	case wire.ChecksumBad:
		return DropTCPChecksum
	case wire.ChecksumPartial:
		if !e.partial {
			return DropTCPChecksum
		}
		e.stats.PartialChecksums++
	}
	if la.kind != localUnicast {
		return DropTCPBroadcast // RFC 9293 §3.9.2.3, MUST-57
	}
	s := &e.tcpIn
	if err := s.Parse(t, tcp.ECN(p.ECN())); err != nil {
		return DropTCPOptions
	}
	id := &e.tcpID
	*id = tcp.ID{Local: p.Dst(), Remote: p.Src(), LocalPort: t.DstPort(), RemotePort: t.SrcPort()}
	st := e.conns.get(id)
	if st == nil {
		return e.tcpUnknown(id, p, s)
	}
	if s.Len() == 0 {
		e.acksTaken++
	}
	if st.conn.State() == tcp.TimeWait && st.conn.Reusable(s) {
		if l := e.listener(id); l != nil {
			return e.tcpListen(l, id, s, st) // RFC 6191: the SYN begins a new connection in place of the old one
		}
	}
	st.conn.Arrives(e.now, s)
	e.touch(st)
	e.stats.Delivered++
	return NotDropped
}

// tcpUnknown takes a segment for which this engine has no connection: another engine's, a listener's, or nobody's.
func (e *Engine) tcpUnknown(id *tcp.ID, p wire.IPv4, s *tcp.Segment) DropReason {
	several := e.iface.flows != nil && !e.rx.forwarded
	if several {
		if owner := e.iface.flows.get(id); owner != nil && owner != e {
			return e.forwardPacket(owner, p)
		}
	}
	if id.LocalPort == 0 || id.RemotePort == 0 {
		return DropTCPPort
	}
	l := e.listener(id)
	if l == nil {
		return e.tcpRefuse(id, s, DropTCPNoPort)
	}
	if several && s.Flags&(tcp.SYN|tcp.ACK|tcp.RST) == tcp.ACK {
		// A layer believes in cookies only for a while after it gave one.
		if giver := e.iface.cookies.recent(e.now); giver != nil && giver != e && !remembered(e.cookieAt, e.now) {
			return e.forwardPacket(giver, p)
		}
	}
	return e.tcpListen(l, id, s, nil)
}

// tcpRefuse answers with RST where the state machine says so.
func (e *Engine) tcpRefuse(id *tcp.ID, s *tcp.Segment, r DropReason) DropReason {
	if e.layer.Refuse(s, &e.tcpAnswer) == tcp.Answer {
		e.sendSegment(id, &e.tcpAnswer, answerIPOpt)
	}
	return r
}

// answerIPOpt is the TTL and TOS of what no socket sends.
const answerIPOpt = defaultTTL

// tcpListen is state LISTEN. old is a connection in TIME-WAIT that the new one takes the place of, or nil.
func (e *Engine) tcpListen(l *listening, id *tcp.ID, s *tcp.Segment, old *Stream) DropReason {
	isSYN := s.Flags&(tcp.SYN|tcp.ACK|tcp.RST|tcp.FIN) == tcp.SYN
	how := admit
	if isSYN {
		switch how = l.admission(); how {
		case refuse:
			return e.tcpRefuse(id, s, DropListenRefused)
		case ignore:
			return DropListenOverflow
		}
	}
	mtu := e.dest(id.Remote).mtu
	switch e.layer.Listen(e.now, *id, s, how == cookie, mtu, &e.tcpAnswer) {
	case tcp.Answer:
		if how != cookie {
			e.sendSegment(id, &e.tcpAnswer, answerIPOpt) // RST
			return DropTCPListenIgnored
		}
		if old != nil {
			e.leave(old) // what comes for it from now on is the new connection's
		}
		e.iface.cookies.gave(e)
		e.sendSegment(id, &e.tcpAnswer, answerIPOpt)
		e.stats.Answered++
		return NotDropped
	case tcp.OpenCookie:
		switch l.admission() {
		case refuse:
			return e.tcpRefuse(id, s, DropListenRefused)
		case ignore:
			return DropListenOverflow
		case cookie:
			l.halfOpen.Add(1) // for the time until it is established, which is in this step
		}
		st := e.newPassive(l, id, mtu)
		if st == nil || !st.conn.AcceptCookie(e.now, s) {
			e.forgetPassive(l, st)
			return DropTCPListenIgnored
		}
		e.enter(st)
	case tcp.Open:
		if old != nil {
			e.leave(old)
		}
		st := e.newPassive(l, id, mtu)
		switch {
		case st == nil:
			e.forgetPassive(l, nil)
			return DropTCPListenIgnored
		case old != nil:
			st.conn.AcceptAfter(e.now, s, &old.conn)
		default:
			st.conn.Accept(e.now, s)
		}
		e.enter(st)
	default:
		return DropTCPListenIgnored
	}
	e.stats.Delivered++
	return NotDropped
}

// newPassive makes the stream for a connection that a peer opens, to which l.admission gave a place. It has one allocation. It is
// nil where another engine has just taken a copy of the same segment.
func (e *Engine) newPassive(l *listening, id *tcp.ID, mtu int) *Stream {
	if !e.iface.flows.take(id, e) {
		return nil
	}
	st := &Stream{s: e.stack, id: *id, parent: l, iface: l.st.iface, port: l.port}
	st.init()
	st.setPeer()
	st.number = e.stack.lastID.Add(1)
	st.opt.Store(l.st.opt.Load())
	st.ipOpt.Store(l.st.ipOpt.Load())
	st.flags.Store(isBound)
	if l.count.Load() > 0 {
		st.flags.Or(isSlot)
	}
	st.port.conns.Add(1)
	st.e.Store(e)
	e.initConn(st, mtu)
	return st
}

// forgetPassive takes newPassive back, and the place.
func (e *Engine) forgetPassive(l *listening, st *Stream) {
	l.halfOpen.Add(-1)
	if st == nil {
		if l.count.Load() > 0 {
			l.held.Add(-1)
		}
		return
	}
	st.leaveSlot()
	st.port.conns.Add(-1)
	e.iface.flows.leave(&st.id, e)
}

func (e *Engine) initConn(st *Stream, mtu int) {
	st.conn.Init(e.layer, st.id, mtu, &st.tx, &st.rx)
	st.mtu.Store(int32(mtu))
	st.opt.Load().apply(&st.conn, e.now)
}

// enter makes the engine serve a connection, which is in the table of flows already.
func (e *Engine) enter(st *Stream) {
	e.conns.insert(st)
	st.visible = true
	e.sockets++
	e.touch(st)
}

// leave ends that. The port is given back when the last connection on it has left.
func (e *Engine) leave(st *Stream) {
	if !st.visible {
		return
	}
	st.visible = false
	e.conns.remove(st)
	e.iface.flows.leave(&st.id, e)
	e.wheel.stop(&st.timer)
	e.sockets--
	if st.timeWait {
		e.timeWaits--
	}
	if st.has(isConnected) {
		st.flags.Or(isBroken)
	}
	st.freeRings()
	e.stack.detached(st)
}

// touch makes this step serve st once more when all has arrived.
func (e *Engine) touch(st *Stream) {
	if !st.touched {
		st.touched = true
		e.active = append(e.active, st)
	}
}

// expire implements expirer.
func (st *Stream) expire(_ *timer, _ clock.Time) { st.e.Load().touch(st) }

// segmentBudget is how many segments the streams send in one step, but that one stream sends all that it may. What they bring back is
// looked at before the others' turn.
const segmentBudget = ackBudget

// emitStreams serves the streams that something happened to. It reports whether some have more to send than the transmit ring
// takes.
func (e *Engine) emitStreams() (more bool) {
	list := e.active
	e.active = e.serving[:0]
	served, limit := 0, e.layer.OutSegments()+segmentBudget
	for i, st := range list {
		if e.layer.OutSegments() >= limit {
			break
		}
		st.touched = false
		list[i] = nil
		served++
		if e.serve(st) {
			e.touch(st)
		}
	}
	e.serving = list
	if e.unserved = served < len(list); e.unserved { // their turn is in the next step, before those that have more
		again := e.active
		e.active = append(list[:copy(list, list[served:])], again...)
		clear(list[min(len(e.active), len(list)):])
		clear(again)
		e.serving = again
		return true
	}
	if left := e.active; len(left) > 1 { // as in emit: a full ring is for all in turn
		first := left[0]
		left[copy(left, left[1:])] = first
	}
	return len(e.active) > 0
}

// serve does for a stream what its user asked for, what its timer brought, and sends. It reports whether it has more to send.
func (e *Engine) serve(st *Stream) (more bool) {
	c := &st.conn
	if st.req.Load() != 0 {
		e.requested(st, st.req.Swap(0))
	}
	if !st.visible {
		st.freeRings()
		return false
	}
	if n := st.readN.Load(); n > 0 {
		c.ReceiveRead(e.now, int(st.readN.Swap(0)))
	}
	if d := c.Deadline(); d != clock.Never && d <= e.now {
		c.Timeout(e.now)
	}
	var d *dest
	if c.State() != tcp.Closed { // which has an RST at most: nobody looks for a neighbour on its account
		d = e.dest(st.id.Remote)
		if int32(d.mtu) != st.mtu.Load() {
			st.mtu.Store(int32(d.mtu))
			c.SetMTU(d.mtu)
		}
	}
	if !st.held && c.ACKCanWait() {
		if ev := c.Events(); ev != 0 && e.happened(st, ev) {
			st.held = true // its user runs before the next step, and mostly answers
			return true
		}
	}
	st.held = false
	e.tcpOut = segmentWriter{e: e, id: &st.id, dest: d, ipOpt: st.ipOpt.Load()}
	more = c.Emit(e.now, &e.tcpOut)
	if e.tcpOut.failed != 0 {
		e.sendingFailed(st, e.tcpOut.failed)
	}
	if more && c.State() == tcp.Closed {
		return true // its RST has still to go
	}
	if ev := c.Events(); ev != 0 {
		e.happened(st, ev)
	}
	if c.State() == tcp.TimeWait && !st.timeWait && st.visible {
		e.enterTimeWait(st)
	}
	if !st.visible {
		return false
	}
	e.schedule(st)
	return more || c.State() == tcp.Closed // what happened was no use to anybody: see established
}

// enterTimeWait counts a connection in TIME-WAIT, and ends it at once where there are too many, as Linux does
// (net.ipv4.tcp_max_tw_buckets): what they guard against is rare, and memory is finite.
func (e *Engine) enterTimeWait(st *Stream) {
	st.timeWait = true
	if e.timeWaits++; e.timeWaits > e.limits.TimeWaits {
		st.conn.Abort(e.now) // no RST leaves in this state
		e.happened(st, st.conn.Events())
	}
}

// freeRings gives back the memory of a connection that is gone: with what was not sent, or written too late, and without what is
// still to be read. That goes with the Stream.
func (st *Stream) freeRings() {
	st.tx.Release(st.tx.Used())
	st.tx.Shrink()
	st.rx.Shrink()
}

// requested does what a user asked for.
func (e *Engine) requested(st *Stream, req uint32) {
	c := &st.conn
	if req&wantConnect != 0 {
		e.initConn(st, e.dest(st.id.Remote).mtu)
		if e.conns.get(&st.id) != nil {
			st.errno.Store(uint32(syscall.EADDRNOTAVAIL))
			st.flags.And(^isConnecting)
			e.stack.detached(st)
			st.waiters.notify(Errored | Readable | Writable)
			return
		}
		e.enter(st)
		c.Connect(e.now)
	}
	if req&wantMore != 0 {
		c.SetMore(st.has(isMore))
	}
	if req&wantShutRead != 0 {
		c.ShutdownRead()
	}
	if req&wantShutWrite != 0 {
		c.Shutdown(e.now)
	}
	switch {
	case req&wantAbort != 0:
		c.Abort(e.now)
	case req&wantClose != 0:
		c.Close(e.now)
	}
}

// abandonStreams ends the connections of an engine whose card is gone, and those that were to begin.
func (e *Engine) abandonStreams() {
	for l := e.takeDirty(); l != nil; {
		next := l.next
		l.next = nil
		l.queued.Store(false)
		if st := l.stream; st != nil {
			e.requested(st, st.req.Swap(0))
		}
		l = next
	}
	e.conns.each(func(st *Stream) {
		if !st.has(isClosed) {
			st.errno.CompareAndSwap(0, uint32(syscall.ENETDOWN))
		}
		st.conn.Abort(e.now)
		e.gone(st)
		st.waiters.notify(Errored | Readable | Writable)
	})
}

// happened tells the user what became of the connection. It reports whether somebody waited for that.
func (e *Engine) happened(st *Stream, ev tcp.Events) (woke bool) {
	var tell Events
	if ev&tcp.Connected != 0 {
		tell |= Writable
		st.flags.Or(isConnected)
		st.flags.And(^isConnecting)
		if st.parent != nil {
			e.established(st)
		}
	}
	if ev&tcp.Readable != 0 {
		tell |= Readable
	}
	if ev&tcp.EndOfStream != 0 {
		st.flags.Or(isEnded)
		tell |= Readable
	}
	if ev&tcp.Writable != 0 && st.writable() {
		tell |= Writable
	}
	if ev&tcp.Failed != 0 {
		if errno := errnoOfTCP(st.conn.Err()); errno != 0 && !st.has(isClosed) {
			st.errno.CompareAndSwap(0, uint32(errno))
		}
		tell |= Errored | Readable | Writable
	}
	if ev&tcp.Gone != 0 {
		tell |= Errored | Readable | Writable
		e.gone(st)
	}
	if tell != 0 && st.waiters.notify(tell) {
		e.woke, woke = true, true
	}
	return woke
}

// established gives a connection that a peer opened to its listener.
func (e *Engine) established(st *Stream) {
	l := st.parent
	l.halfOpen.Add(-1)
	if !l.add(st) {
		st.flags.Or(isClosed)
		st.leaveSlot()
		st.conn.Abort(e.now) // serve comes again for its RST
		return
	}
	if l.st.waiters.notify(Readable) {
		e.woke = true
	}
}

// gone forgets a connection in state CLOSED.
func (e *Engine) gone(st *Stream) {
	if st.parent != nil && !st.has(isConnected) { // its handshake never ended
		st.parent.halfOpen.Add(-1)
		st.leaveSlot()
	}
	e.leave(st)
	st.flags.And(^isConnecting)
}

// errnoOfTCP is what recv(2) says of a connection's end; 0 for one that ended in order or by ourselves.
func errnoOfTCP(err error) syscall.Errno {
	e, _ := err.(tcp.Error)
	switch e {
	case tcp.ErrRefused:
		return syscall.ECONNREFUSED
	case tcp.ErrReset:
		return syscall.ECONNRESET
	case tcp.ErrTimeout:
		return syscall.ETIMEDOUT
	case tcp.ErrNetUnreachable:
		return syscall.ENETUNREACH
	case tcp.ErrHostUnreachable:
		return syscall.EHOSTUNREACH
	case tcp.ErrProtocol:
		return syscall.ENOPROTOOPT
	case tcp.ErrMessageSize:
		return syscall.EMSGSIZE
	case tcp.ErrAborted:
		return syscall.ECONNABORTED
	}
	return 0
}

// shrinkInterval is how long the rings of a connection keep their memory when nothing is in them.
const shrinkInterval = 2 * time.Second

// schedule sets the timer. One that fires too early costs less than one that is moved with every segment, so it is only ever
// moved to an earlier moment.
func (e *Engine) schedule(st *Stream) {
	if st.tx.Memory()+st.rx.Memory() == 0 {
		st.shrinkAt = clock.Never
	} else if st.shrinkAt == clock.Never {
		st.shrinkAt = e.now.Add(shrinkInterval)
	} else if e.now >= st.shrinkAt {
		st.shrinkAt = e.now.Add(shrinkInterval)
		rests := st.tx.Shrink()
		if rests {
			st.conn.SendRests()
		}
		if st.rx.Shrink() && rests {
			st.shrinkAt = clock.Never
		}
	}
	at := clock.Earliest(st.conn.Deadline(), st.shrinkAt)
	switch {
	case at == clock.Never:
		e.wheel.stop(&st.timer)
	case !st.timer.armed() || at < st.timerAt:
		e.wheel.arm(&st.timer, at)
		st.timerAt = at
	}
}

// sendSegment sends a segment that no connection does.
func (e *Engine) sendSegment(id *tcp.ID, s *tcp.Segment, ipOpt uint32) {
	w := segmentWriter{e: e, id: id, ipOpt: ipOpt}
	if !w.Send(s) {
		e.refuse(DropTransmitFull)
	}
}

// sendingFailed ends an attempt to connect that cannot succeed. For a connection it is no more than advice, as routes and
// neighbours come back (RFC 1122 §4.2.3.9).
func (e *Engine) sendingFailed(st *Stream, errno syscall.Errno) {
	switch st.conn.State() {
	case tcp.SynSent:
		if !st.has(isClosed) {
			st.errno.CompareAndSwap(0, uint32(errno))
		}
		st.conn.Abort(e.now)
	case tcp.Closed:
	default:
		kind := tcp.HostUnreachable
		if errno == syscall.ENETUNREACH {
			kind = tcp.NetUnreachable
		}
		st.conn.PathTrouble(kind)
	}
}

// tcpError takes an ICMP error about a segment of ours.
func (e *Engine) tcpError(q *wire.Quoted, p wire.IPv4, m wire.ICMP) DropReason {
	id := tcp.ID{Local: q.Src, Remote: q.Dst, LocalPort: q.SrcPort, RemotePort: q.DstPort}
	st := e.conns.get(&id)
	if st == nil {
		if f := e.iface.flows; f != nil && !e.rx.forwarded {
			if owner := f.get(&id); owner != nil && owner != e {
				return e.forwardPacket(owner, p)
			}
		}
		return DropICMPQuote
	}
	kind, ok := pathErrorKind(m)
	if !ok || !q.HasSeq {
		return DropICMPQuote
	}
	if !st.conn.PathError(e.now, kind, m.MTU(), q.TCPSeq) {
		return DropICMPQuote // about nothing that is in flight: late, or forged (RFC 5927 §4.1)
	}
	if kind == tcp.FragNeeded {
		dst, mtu, refused := q.Dst, m.MTU(), q.TotalLength
		for _, sibling := range e.iface.engines { // not by the frame: only this engine can tell that it is no forgery
			if sibling != e {
				sibling.post(func() { sibling.learnPMTU(dst, mtu, refused) })
			}
		}
		e.learnPMTU(dst, mtu, refused)
	}
	e.touch(st)
	return e.consumed()
}

// pathErrorKind is what an ICMP error says to TCP, RFC 1122 §4.2.3.9.
func pathErrorKind(m wire.ICMP) (tcp.PathErrorKind, bool) {
	switch m.Type() {
	case wire.ICMPUnreachable:
		switch m.Code() {
		case wire.CodeFragNeeded:
			return tcp.FragNeeded, true
		case wire.CodePortUnreachable:
			return tcp.PortUnreachable, true
		case wire.CodeProtocolUnreachable:
			return tcp.ProtocolUnreachable, true
		case wire.CodeNetUnreachable, wire.CodeNetUnknown, wire.CodeNetProhibited, wire.CodeNetTOS:
			return tcp.NetUnreachable, true
		}
		return tcp.HostUnreachable, true
	case wire.ICMPTimeExceeded:
		return tcp.TimeExceeded, true
	case wire.ICMPParameterProblem:
		return tcp.ParameterProblem, true
	}
	return 0, false
}
