package stack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// Stream is a TCP socket: a connection, or after Listen what takes connections. Its calls never block, any goroutine may make
// them, and every error is a syscall.Errno. Blocking, time-outs and tokens are socketapi's.
//
// A connection lives on one engine, which owns all of its state machine. Bytes pass between it and the user through two rings
// and no lock; what else the user wants is a bit in req, and the stream on the engine's dirty list.
type Stream struct {
	// What the path of a segment reads.
	id       tcp.ID
	hash     uint32
	chain    *Stream      // the next in the bucket (conns.go)
	held     bool         // an ACK waits for the next step
	touched  bool         // on the engine's list of streams to serve in this step
	visible  bool         // in an engine's table, or on its way to another's
	mtu      atomic.Int32 // of the route, as conn was told
	timeWait bool         // counted in the engine's timeWaits
	conn     tcp.Conn
	tx, rx   ring.Stream

	// What the engine and the user's side share.
	s       *Stack
	e       atomic.Pointer[Engine] // nil before Connect
	flags   atomic.Uint32
	req     atomic.Uint32
	errno   atomic.Uint32 // pending syscall.Errno
	readN   atomic.Uint32 // bytes read that the engine has not heard of
	ipOpt   atomic.Uint32 // TTL, and TOS<<8
	peer    atomic.Uint64 // RemoteAddr: the address, and in the low 16 bits the port. id may change when Connect is tried again.
	waiters waitQueue
	dirty   dirtyLink

	// The engine's.
	timer    timer
	timerAt  clock.Time // when timer fires, while it is armed
	shrinkAt clock.Time // when to look whether the rings can give their memory back
	parent   *listening // that a passive connection came from

	// Under Stack.mu.
	port     *bindEntry // that the socket holds, or its connection
	attached bool       // Connect gave it to an engine, which has not let it go
	heir     bool       // the socket is closed, and the connection holds the port

	// The user's, under mu.
	mu     sync.Mutex
	rmu    sync.Mutex // Read
	wmu    sync.Mutex // Write
	number uint64     // SocketInfo.ID
	iface  *Interface
	opt    atomic.Pointer[streamOptions] // nil: all defaults. The engines read it too.
	listen atomic.Pointer[listening]
}

// What a Stream's user sees, bits of flags.
const (
	isBound      uint32 = 1 << iota // has a local address
	isConnecting                    // Connect was called and has not ended
	isConnected                     // the handshake was done, whatever came later
	isEnded                         // the peer's FIN was reached
	isBroken                        // the connection is gone: nothing can be sent, nothing more comes
	isShutWrite                     // Shutdown
	isShutRead
	isClosed
	isSlot // holds a place in the acceptance count of parent
	isMore // the last write was WriteMore
)

// What a user wants of the engine, bits of req.
const (
	wantConnect uint32 = 1 << iota
	wantShutWrite
	wantShutRead
	wantClose
	wantAbort
	wantMore // look at isMore
)

// NewStream makes a TCP socket that is neither bound nor connected. That of a closed stack is closed.
func (s *Stack) NewStream() *Stream {
	st := &Stream{s: s, number: s.lastID.Add(1)}
	st.init()
	s.mu.Lock()
	if s.closed {
		st.flags.Store(isClosed)
	}
	s.mu.Unlock()
	return st
}

func (st *Stream) init() {
	st.ipOpt.Store(defaultTTL)
	st.timer.owner = st
	st.dirty.stream = st
}

func (st *Stream) has(flag uint32) bool { return st.flags.Load()&flag != 0 }

// LocalAddr is where the socket is bound; the zero AddrPort where it is not.
func (st *Stream) LocalAddr() netip.AddrPort {
	if !st.has(isBound) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(st.id.Local.Netip(), st.id.LocalPort)
}

// RemoteAddr is the peer, also while Connect is under way and after the connection's end; the zero AddrPort before Connect.
func (st *Stream) RemoteAddr() netip.AddrPort {
	if !st.has(isConnecting | isConnected) {
		return netip.AddrPort{}
	}
	p := st.peer.Load()
	return netip.AddrPortFrom(wire.Addr(p>>16).Netip(), uint16(p))
}

// setPeer keeps id's peer for RemoteAddr.
func (st *Stream) setPeer() { st.peer.Store(uint64(st.id.Remote)<<16 | uint64(st.id.RemotePort)) }

// Interface is the interface that the socket is bound to, nil where it is not bound.
func (st *Stream) Interface() *Interface {
	if !st.has(isBound) {
		return nil
	}
	return st.iface
}

// Connected reports whether the handshake is done and the connection not gone.
func (st *Stream) Connected() bool { return st.flags.Load()&(isConnected|isBroken) == isConnected }

// Bind gives the socket a local address and port, as Datagram.Bind does. A port that only connections of a closed socket still
// hold is EADDRINUSE unless SetReuseAddr was called.
func (st *Stream) Bind(addr netip.AddrPort) error {
	a, ok := wire.AddrFrom(addr.Addr())
	if !ok {
		return syscall.EAFNOSUPPORT
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.has(isClosed) {
		return syscall.EBADF
	}
	if st.has(isBound) {
		return syscall.EINVAL
	}
	return st.s.bindAnywhere(a, func(i *Interface, a wire.Addr) error { return st.bindOn(i, a, addr.Port()) })
}

// bindOn takes the port. Who calls it holds st.mu.
func (st *Stream) bindOn(i *Interface, a wire.Addr, port uint16) error {
	opt := st.opt.Load()
	port, entry, err := st.s.takePort(i, bindKey{wire.ProtocolTCP, a, port}, opt.reusePort(), opt.reuseAddr())
	if err != nil {
		return err
	}
	st.iface = i
	st.id.Local, st.id.LocalPort = a, port
	st.flags.Or(isBound)
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.port = entry
	st.s.streams[st] = struct{}{}
	return nil
}

// Connect begins a handshake and returns EINPROGRESS; Writable or Errored tells its end, and TakeError why it failed. After a
// failure it may be called again; a failure of which nobody was told is its answer then, as in Linux. An unbound socket is bound
// to the address that the route prefers. Errors: EALREADY it is under way; EISCONN; EINVAL port 0, a listening socket, or a
// destination beyond this machine from a loopback address; ENETUNREACH no way there, or a broadcast or multicast address;
// EHOSTUNREACH; EADDRINUSE no port is free; EADDRNOTAVAIL no address to come from, or this very connection exists; EACCES a
// route prohibits it; ENETDOWN; EAFNOSUPPORT; EBADF.
func (st *Stream) Connect(peer netip.AddrPort) error {
	dst, ok := wire.AddrFrom(peer.Addr())
	if !ok {
		return syscall.EAFNOSUPPORT
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if e := st.e.Load(); e != nil {
		e.do(func() {}) // the engine has done with an attempt whose failure it has told
	}
	f := st.flags.Load()
	switch {
	case f&isClosed != 0:
		return syscall.EBADF
	case st.listen.Load() != nil || peer.Port() == 0:
		return syscall.EINVAL
	case f&isConnecting != 0:
		return syscall.EALREADY
	case f&isConnected != 0:
		return syscall.EISCONN
	}
	if err := st.TakeError(); err != nil {
		return err
	}
	if dst == 0 {
		dst = wire.AddrLoopback
	}
	if dst.IsMulticast() || st.s.isBroadcast(dst) {
		return syscall.ENETUNREACH // RFC 9293 §3.9.2.3, MUST-57: no OPEN to such an address
	}
	e, err := st.route(dst, peer.Port())
	if err != nil {
		return err
	}
	if !e.iface.flows.take(&st.id, e) {
		return syscall.EADDRNOTAVAIL
	}
	st.e.Store(e)
	st.flags.Or(isConnecting)
	st.s.mu.Lock()
	st.attached = true
	st.s.mu.Unlock()
	st.ask(wantConnect)
	if e.iface.gone.Load() {
		e.post(e.abandonStreams) // the card may have gone since the route was found, and the engine with it
	}
	return syscall.EINPROGRESS
}

// route binds an unbound socket, and picks the engine for the connection: one of the interface that has our address, for it is
// there that the peer's segments arrive.
func (st *Stream) route(dst wire.Addr, port uint16) (*Engine, error) {
	if !st.has(isBound) {
		a, err := st.s.sourceTo(dst)
		if err != nil {
			return nil, err
		}
		i := st.s.ownerOf(a)
		if i == nil {
			return nil, syscall.EADDRNOTAVAIL // it went away this very moment
		}
		if err := st.bindOn(i, a, 0); err != nil {
			return nil, err
		}
	}
	out, err := st.s.egress(dst, st.iface)
	if err != nil {
		return nil, err
	}
	if out != st.iface && st.s.ownerOf(dst) == nil {
		// Another card has the better route. Ours must do, or the answers would come where nobody knows of the connection.
		if r, ok := st.iface.routes.lookup(dst, int(dst)); !ok || r.kind != RouteUnicast {
			return nil, syscall.ENETUNREACH
		}
	}
	st.id.Remote, st.id.RemotePort = dst, port
	st.setPeer()
	return st.iface.engine(hashID(&st.id, &queueKey)).via, nil
}

// ask tells the engine what the user wants.
func (st *Stream) ask(bits uint32) {
	st.req.Or(bits)
	st.e.Load().push(&st.dirty)
}

// PutError makes an error pending again that Read, Write or TakeError has told, unless there is another by now.
func (st *Stream) PutError(errno syscall.Errno) {
	if st.errno.CompareAndSwap(0, uint32(errno)) {
		st.waiters.notify(Errored | Readable | Writable)
	}
}

// TakeError returns the pending error and clears it; nil where there is none.
func (st *Stream) TakeError() error {
	if st.errno.Load() == 0 {
		return nil
	}
	if errno := st.errno.Swap(0); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// Read takes up to len(p) bytes and returns how many; 0 and nil is the end of the stream. Errors: EAGAIN nothing is there; ENOTCONN;
// EBADF closed; and, once, why the connection ended: ECONNRESET, ETIMEDOUT and their like. Bytes that came before that are read first.
func (st *Stream) Read(p []byte) (int, error) {
	st.rmu.Lock()
	defer st.rmu.Unlock()
	f := st.flags.Load() // before the ring: what the engine put there before it set a flag is seen
	if f&isClosed != 0 {
		return 0, syscall.EBADF
	}
	if n := st.rx.Read(p); n > 0 {
		st.tookBytes(n)
		return n, nil
	}
	if f&isEnded != 0 {
		return 0, nil // whatever came behind the end, as in Linux (tcp_recvmsg, net/ipv4/tcp.c)
	}
	if err := st.TakeError(); err != nil {
		return 0, err
	}
	switch {
	case f&(isEnded|isBroken|isShutRead) != 0 && f&isConnected != 0:
		return 0, nil
	case len(p) == 0 && f&isConnected != 0:
		return 0, nil
	case f&isConnecting != 0:
		return 0, syscall.EAGAIN
	case f&isConnected == 0:
		return 0, syscall.ENOTCONN
	}
	return 0, syscall.EAGAIN
}

// tookBytes lets the engine know of bytes that were read once they are enough to open the window by a good step. What is less is
// told with the next bytes that arrive, and a window that stays so little short of its buffer stops nobody. But where the buffer
// is not many segments long, less than half a buffer of window makes the peer wait whether it opens further (RFC 9293
// §3.8.6.2.1): then the engine hears of every time that all was read.
func (st *Stream) tookBytes(n int) {
	told, limit := int(st.readN.Add(uint32(n))), st.rx.Limit()
	if told >= limit/4 || limit < 4*int(st.mtu.Load()) && st.rx.Used() == 0 {
		st.e.Load().push(&st.dirty)
	}
}

// Write takes up to len(p) bytes for sending and returns how many. Errors: EAGAIN there is no room, or Connect is under way; EPIPE
// after Shutdown or the connection's end; ENOTCONN; EBADF closed; and, once, why the connection ended.
func (st *Stream) Write(p []byte) (int, error) { return st.write(p, false) }

// WriteMore is Write for a user who writes more at once (MSG_MORE of send(2)): what does not fill a segment waits for that, for
// 200 ms at most. It is SEND without PUSH (RFC 9293 §3.9.1.2, MAY-15).
func (st *Stream) WriteMore(p []byte) (int, error) { return st.write(p, true) }

func (st *Stream) write(p []byte, more bool) (int, error) {
	st.wmu.Lock()
	defer st.wmu.Unlock()
	f := st.flags.Load()
	if f&isClosed != 0 {
		return 0, syscall.EBADF
	}
	if err := st.TakeError(); err != nil {
		return 0, err
	}
	switch {
	case f&(isShutWrite|isBroken) != 0:
		return 0, syscall.EPIPE
	case f&isConnecting != 0:
		return 0, syscall.EAGAIN
	case f&isConnected == 0:
		return 0, syscall.ENOTCONN
	case len(p) == 0:
		return 0, nil
	}
	if more && st.tx.Free() > 0 { // before the bytes, so that the engine never sees those without it
		st.flags.Or(isMore)
		st.req.Or(wantMore)
	}
	n := st.tx.Write(p)
	if n == 0 {
		return 0, syscall.EAGAIN
	}
	if !more && f&isMore != 0 { // behind them
		st.flags.And(^isMore)
		st.req.Or(wantMore)
	}
	st.e.Load().push(&st.dirty)
	return n, nil
}

// A Direction of a connection can be shut on its own.
const (
	ShutRead  = 1 << iota // nothing more is read; what arrives after our FIN is answered with RST
	ShutWrite             // what was written is still sent, then FIN
)

// Shutdown ends one direction or both: ShutRead, ShutWrite, or the two of them. Errors: ENOTCONN; EINVAL how is neither; EBADF.
func (st *Stream) Shutdown(how int) error {
	if how <= 0 || how > ShutRead|ShutWrite {
		return syscall.EINVAL
	}
	st.wmu.Lock() // no byte is written behind the FIN
	defer st.wmu.Unlock()
	f := st.flags.Load()
	switch {
	case f&isClosed != 0:
		return syscall.EBADF
	case f&isConnected == 0 || f&isBroken != 0:
		return syscall.ENOTCONN
	}
	var want, flags uint32
	if how&ShutRead != 0 {
		want, flags = want|wantShutRead, flags|isShutRead
	}
	if how&ShutWrite != 0 {
		want, flags = want|wantShutWrite, flags|isShutWrite
	}
	st.flags.Or(flags)
	st.ask(want)
	st.waiters.notify(Readable | Writable)
	return nil
}

// Close ends the socket. A connection still delivers what Write took, then FIN; where bytes were left unread, or SetLinger asked
// for it, it is reset (RFC 2525 §2.17). A listening socket resets the connections that nobody accepted. A second Close is EBADF.
func (st *Stream) Close() error { return st.close(wantClose) }

// Abort is Close by a reset: the peer sees ECONNRESET. After Close it resets what Close still delivers, and is EBADF all the same.
func (st *Stream) Abort() error { return st.close(wantAbort) }

func (st *Stream) close(how uint32) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.wmu.Lock()
	was := st.flags.Or(isClosed)
	st.wmu.Unlock()
	if was&isClosed != 0 {
		if how == wantAbort && st.e.Load() != nil {
			st.ask(how)
		}
		return syscall.EBADF
	}
	st.leaveSlot()
	l := st.listen.Load()
	switch {
	case l != nil:
		l.close()
		st.releasePort()
	case st.e.Load() != nil:
		if st.opt.Load().resetsOnClose() {
			how = wantAbort
		}
		st.releasePort()
		st.ask(how)
	default:
		st.releasePort()
	}
	st.waiters.notify(Closed | Readable | Writable | Errored)
	return nil
}

// leaveSlot frees the place in the listener's acceptance count, once.
func (st *Stream) leaveSlot() {
	if st.has(isSlot) && st.flags.And(^isSlot)&isSlot != 0 {
		st.parent.held.Add(-1)
	}
}

// releasePort gives up the port that Bind or Connect took, and takes the closed socket off the list. A connection that goes on
// holds the port in the socket's place, as those do that a listening socket took.
func (st *Stream) releasePort() {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	if st.port == nil || st.parent != nil {
		return
	}
	st.port.users--
	if st.attached {
		st.heir = true
		st.port.conns.Add(1)
		return
	}
	s.releaseUnused(st.iface, st.bindKey(), st.port)
}

func (st *Stream) bindKey() bindKey { return bindKey{wire.ProtocolTCP, st.id.Local, st.id.LocalPort} }

// detached is told that an engine has let a connection go. Its socket is listed until it is closed.
func (s *Stack) detached(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.attached = false
	if st.heir || st.parent != nil {
		if st.port.conns.Add(-1) == 0 && s.binds[st.bindKey()] == st.port {
			s.releaseUnused(st.iface, st.bindKey(), st.port)
		}
	}
	if st.has(isConnected) && !st.has(isClosed) {
		s.streams[st] = struct{}{}
	}
}

// Events says what the socket is ready for at this moment. A listening socket is Readable while a connection waits; one that
// neither listens nor connects is ready, as Read and Write answer at once.
func (st *Stream) Events() Events {
	f := st.flags.Load()
	if f&isClosed != 0 {
		return Closed | Readable | Writable
	}
	if l := st.listen.Load(); l != nil {
		switch {
		case st.iface.gone.Load():
			return Errored | Readable
		case l.waiting() > 0:
			return Readable
		}
		return 0
	}
	var ev Events
	if st.errno.Load() != 0 {
		ev |= Errored | Readable | Writable
	}
	if f&(isConnecting|isConnected) == 0 {
		return ev | Readable | Writable
	}
	if f&(isEnded|isBroken|isShutRead) != 0 || st.rx.Used() > 0 {
		ev |= Readable
	}
	if f&(isBroken|isShutWrite) != 0 || f&isConnected != 0 && st.writable() {
		ev |= Writable
	}
	return ev
}

// writable reports whether a third of the send buffer is free: a writer that waits is not woken for each segment acknowledged.
func (st *Stream) writable() bool { return 3*st.tx.Free() >= st.tx.Limit() }

// Watch makes w be told when one of want may have come, as Datagram.Watch does.
func (st *Stream) Watch(w *Waiter, want Events) { st.waiters.add(w, want) }

// Unwatch ends Watch.
func (st *Stream) Unwatch(w *Waiter) { st.waiters.remove(w) }

// Unacknowledged is how many bytes that Write took the peer has not acknowledged.
func (st *Stream) Unacknowledged() int { return st.tx.Used() }
