package stack

import (
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// ListenConfig says how many connections a listening socket takes. Exactly one of its first two fields is set.
type ListenConfig struct {
	// Count is the Network Kit's acceptance count: how many clients may be held at a time, those in their handshake, those waiting
	// for Accept, and those accepted whose sockets are not closed. One more is refused with RST.
	Count int
	// Backlog is how many connections may wait for Accept, as in listen(2). While so many wait a further SYN is dropped, so
	// that its sender tries again; a flood of half-open connections is met with SYN cookies (RFC 4987).
	Backlog int
	// HalfOpen is how many connections may be in their handshake before cookies are used; 0: 1024. Only with Backlog.
	HalfOpen int
}

// defaultHalfOpen is ListenConfig.HalfOpen.
const defaultHalfOpen = 1024

// listening is a listening socket, shared by the engines of its interface.
type listening struct {
	st       *Stream
	port     *bindEntry
	count    atomic.Int32 // acceptance count; 0: a backlog
	backlog  atomic.Int32 // of connections that wait, in either case
	maxHalf  atomic.Int32 // half-open connections without cookies
	held     atomic.Int32 // of count: the places taken
	halfOpen atomic.Int32

	mu     sync.Mutex
	queue  []*Stream // that wait, the first from head on
	head   int
	closed bool
}

// Listen makes a bound socket take connections. Calling it again changes the numbers. Errors: EINVAL it is not bound, is
// connected or connecting, or a number is not positive; EBADF closed.
func (st *Stream) Listen(cfg ListenConfig) error {
	if cfg.Count < 0 || cfg.Backlog < 0 || (cfg.Count > 0) == (cfg.Backlog > 0) {
		return syscall.EINVAL
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	f := st.flags.Load()
	switch {
	case f&isClosed != 0:
		return syscall.EBADF
	case f&isBound == 0 || f&(isConnecting|isConnected) != 0:
		return syscall.EINVAL
	}
	l := st.listen.Load()
	if l != nil {
		l.configure(cfg)
		return nil
	}
	l = &listening{st: st, port: st.port}
	l.configure(cfg)
	st.listen.Store(l)
	key := listenKey{st.id.Local, st.id.LocalPort}
	st.iface.each(func(e *Engine) {
		e.listeners[key] = append(e.listeners[key], l)
		e.sockets++
	})
	return nil
}

func (l *listening) configure(cfg ListenConfig) {
	half := cfg.HalfOpen
	if half <= 0 {
		half = defaultHalfOpen
	}
	number := func(n int) int32 { return int32(min(n, math.MaxInt32)) }
	l.count.Store(number(cfg.Count))
	l.backlog.Store(number(max(cfg.Count, cfg.Backlog)))
	l.maxHalf.Store(number(half))
}

// Accept takes a connection that waits. Errors: EAGAIN there is none; EINVAL the socket does not listen; ENETDOWN there is none
// and the interface is gone; EBADF closed.
func (st *Stream) Accept() (*Stream, error) {
	if st.has(isClosed) {
		return nil, syscall.EBADF
	}
	l := st.listen.Load()
	if l == nil {
		return nil, syscall.EINVAL
	}
	if c := l.next(); c != nil {
		return c, nil
	}
	if err := st.iface.usable(); err != nil {
		return nil, err
	}
	return nil, syscall.EAGAIN
}

// next is the connection that waits for longest, nil where there is none.
func (l *listening) next() *Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head == len(l.queue) {
		return nil
	}
	c := l.queue[l.head]
	l.queue[l.head] = nil
	if l.head++; l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
	return c
}

func (l *listening) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) - l.head
}

// add makes a connection wait for Accept, and reports false where nobody will accept it any more.
func (l *listening) add(c *Stream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.head > 32 && l.head*2 > len(l.queue) { // a queue that is never empty does not grow for ever
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.queue = append(l.queue, c)
	return true
}

// close takes the socket off the engines, and resets what nobody accepted.
func (l *listening) close() {
	key := listenKey{l.st.id.Local, l.st.id.LocalPort}
	l.st.iface.each(func(e *Engine) { e.removeListener(key, l) })
	l.mu.Lock()
	l.closed = true
	left := l.queue[l.head:]
	l.queue, l.head = nil, 0
	l.mu.Unlock()
	for _, c := range left {
		_ = c.Abort() // its only error is that it is closed already
	}
}

// cookieMemory is for how long a layer believes in SYN cookies after it gave one (package tcp, cookieLife).
const cookieMemory = 128 * time.Second

func remembered(at, now clock.Time) bool { return at != clock.Never && now.Sub(at) < cookieMemory }

// cookieGiver says which engine of an interface gave a SYN cookie last, and so knows one when it sees it: the ACK that brings it
// back may come to another engine.
type cookieGiver struct {
	e  atomic.Pointer[Engine]
	at atomic.Int64 // clock.Time
}

func (g *cookieGiver) gave(e *Engine) {
	e.cookieAt = e.now
	g.e.Store(e)
	g.at.Store(int64(e.now))
}

// recent is nil where no cookie is about.
func (g *cookieGiver) recent(now clock.Time) *Engine {
	if remembered(clock.Time(g.at.Load()), now) {
		return g.e.Load()
	}
	return nil
}

// listenKey is where a socket listens.
type listenKey struct {
	addr wire.Addr
	port uint16
}

func (e *Engine) removeListener(key listenKey, l *listening) {
	ls := e.listeners[key]
	for i := range ls {
		if ls[i] == l {
			e.listeners[key] = append(ls[:i:i], ls[i+1:]...)
			e.sockets--
			break
		}
	}
	if len(e.listeners[key]) == 0 {
		delete(e.listeners, key)
	}
}

// listener finds who listens where a segment goes to; of several (SO_REUSEPORT) a hash of the connection picks one.
func (e *Engine) listener(id *tcp.ID) *listening {
	ls := e.listeners[listenKey{id.Local, id.LocalPort}]
	switch len(ls) {
	case 0:
		return nil
	case 1:
		return ls[0]
	}
	return ls[hashID(id, &listenerKey)%uint32(len(ls))]
}

// admission is what a listener says to a SYN.
type admission uint8

const (
	admit  admission = iota
	cookie           // only with a cookie
	refuse           // RST
	ignore           // let the peer try again
)

// admission takes a place for a new connection where it says admit.
func (l *listening) admission() admission {
	if count := l.count.Load(); count > 0 {
		if l.held.Add(1) > count {
			l.held.Add(-1)
			return refuse
		}
		l.halfOpen.Add(1)
		return admit
	}
	if l.full() {
		return ignore
	}
	if l.halfOpen.Load() >= l.maxHalf.Load() {
		return cookie
	}
	l.halfOpen.Add(1)
	return admit
}

// full reports whether as many wait for Accept as may.
func (l *listening) full() bool { return l.waiting() >= int(l.backlog.Load()) }
