package stack

import (
	"cmp"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// streamOptions are what a user has set on a stream. They are never changed in place: connections that a listening socket takes
// share its own. A nil one has all defaults.
type streamOptions struct {
	reuse, again            bool // SO_REUSEPORT, SO_REUSEADDR
	noDelay, cork, quickACK bool
	linger                  time.Duration // how long Close waits, at socketapi; 0 resets
	lingers                 bool
	keepAlive               bool
	keepIdle, keepInterval  time.Duration
	keepProbes              int
	userTimeout             time.Duration
	maxSegment              int
	congestion              string
	sendBuffer, recvBuffer  int // 0: by autotuning
}

func (o *streamOptions) reusePort() bool { return o != nil && o.reuse }
func (o *streamOptions) reuseAddr() bool { return o != nil && o.again }

// resetsOnClose is SO_LINGER with no time.
func (o *streamOptions) resetsOnClose() bool { return o != nil && o.lingers && o.linger == 0 }

// apply gives a connection fresh from Init what was set before.
func (o *streamOptions) apply(c *tcp.Conn, now clock.Time) {
	if o == nil {
		return
	}
	if o.congestion != "" {
		c.SetCongestion(o.congestion)
	}
	if o.sendBuffer > 0 {
		c.SetSendBuffer(o.sendBuffer)
	}
	if o.recvBuffer > 0 {
		c.SetReceiveBuffer(o.recvBuffer)
	}
	c.SetNoDelay(o.noDelay)
	c.SetCork(o.cork)
	c.SetQuickACK(o.quickACK)
	c.SetMaxSegment(o.maxSegment)
	c.SetUserTimeout(now, o.userTimeout)
	if o.keepAlive {
		c.SetKeepAlive(now, true, o.keepIdle, o.keepInterval, o.keepProbes)
	}
}

// set changes an option: by keep for what is not connected yet, and by change on the engine for what is. EBADF: closed.
func (st *Stream) set(keep func(*streamOptions), change func(*tcp.Conn, clock.Time)) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.has(isClosed) {
		return syscall.EBADF
	}
	o := new(streamOptions)
	if old := st.opt.Load(); old != nil {
		*o = *old
	}
	keep(o)
	e := st.e.Load()
	if e == nil || change == nil {
		st.opt.Store(o)
		return nil
	}
	e.do(func() {
		st.opt.Store(o)
		if st.visible {
			change(&st.conn, e.now)
			e.touch(st)
		}
	})
	return nil
}

// option reads an option.
func option[T any](st *Stream, get func(*streamOptions) T, otherwise T) T {
	if o := st.opt.Load(); o != nil {
		return get(o)
	}
	return otherwise
}

// SetNoDelay switches Nagle's algorithm off (TCP_NODELAY, RFC 9293 §3.7.4). It is on from the start.
func (st *Stream) SetNoDelay(on bool) error {
	return st.set(func(o *streamOptions) { o.noDelay = on }, func(c *tcp.Conn, _ clock.Time) { c.SetNoDelay(on) })
}

// NoDelay is what SetNoDelay set.
func (st *Stream) NoDelay() bool {
	return option(st, func(o *streamOptions) bool { return o.noDelay }, false)
}

// SetCork holds segments back that are not full, for 200 ms at most (TCP_CORK); false lets them go.
func (st *Stream) SetCork(on bool) error {
	return st.set(func(o *streamOptions) { o.cork = on }, func(c *tcp.Conn, _ clock.Time) { c.SetCork(on) })
}

// Cork is what SetCork set.
func (st *Stream) Cork() bool {
	return option(st, func(o *streamOptions) bool { return o.cork }, false)
}

// SetQuickACK acknowledges every segment at once (TCP_QUICKACK).
func (st *Stream) SetQuickACK(on bool) error {
	return st.set(func(o *streamOptions) { o.quickACK = on }, func(c *tcp.Conn, _ clock.Time) { c.SetQuickACK(on) })
}

// QuickACK is what SetQuickACK set.
func (st *Stream) QuickACK() bool {
	return option(st, func(o *streamOptions) bool { return o.quickACK }, false)
}

// SetKeepAlive probes a silent peer (SO_KEEPALIVE, RFC 9293 §3.8.4).
func (st *Stream) SetKeepAlive(on bool) error {
	return st.setKeepAlive(func(o *streamOptions) { o.keepAlive = on })
}

// SetKeepAliveTimes says after how long a peer is silent, how far apart the probes are and how many (TCP_KEEPIDLE, TCP_KEEPINTVL,
// TCP_KEEPCNT); 0 leaves the stack's number. EINVAL: one is negative or beyond what Linux takes, 32767 s and 127.
func (st *Stream) SetKeepAliveTimes(idle, interval time.Duration, probes int) error {
	const longest = 32767 * time.Second
	if idle < 0 || interval < 0 || idle > longest || interval > longest || probes < 0 || probes > 127 {
		return syscall.EINVAL
	}
	return st.setKeepAlive(func(o *streamOptions) { o.keepIdle, o.keepInterval, o.keepProbes = idle, interval, probes })
}

func (st *Stream) setKeepAlive(keep func(*streamOptions)) error {
	return st.set(keep, func(c *tcp.Conn, now clock.Time) {
		o := st.opt.Load()
		c.SetKeepAlive(now, o.keepAlive, o.keepIdle, o.keepInterval, o.keepProbes)
	})
}

// KeepAlive is what SetKeepAlive and SetKeepAliveTimes set.
func (st *Stream) KeepAlive() (on bool, idle, interval time.Duration, probes int) {
	o := option(st, func(o *streamOptions) streamOptions { return *o }, streamOptions{})
	return o.keepAlive, o.keepIdle, o.keepInterval, o.keepProbes
}

// SetLinger says what Close does with bytes that the peer has not acknowledged (SO_LINGER): by itself it sends them behind the
// user's back; with a time of 0 it resets the connection; with a longer one it is socketapi that waits. A negative time ends it.
func (st *Stream) SetLinger(d time.Duration) error {
	return st.set(func(o *streamOptions) { o.lingers, o.linger = d >= 0, max(d, 0) }, nil)
}

// Linger is what SetLinger set, and whether it did.
func (st *Stream) Linger() (time.Duration, bool) {
	o := option(st, func(o *streamOptions) streamOptions { return *o }, streamOptions{})
	return o.linger, o.lingers
}

// SetUserTimeout bounds how long what was sent may stay without an answer (TCP_USER_TIMEOUT, RFC 5482); 0: by
// retransmissions. EINVAL: it is negative.
func (st *Stream) SetUserTimeout(d time.Duration) error {
	if d < 0 {
		return syscall.EINVAL
	}
	return st.set(func(o *streamOptions) { o.userTimeout = d },
		func(c *tcp.Conn, now clock.Time) { c.SetUserTimeout(now, d) })
}

// UserTimeout is what SetUserTimeout set.
func (st *Stream) UserTimeout() time.Duration {
	return option(st, func(o *streamOptions) time.Duration { return o.userTimeout }, 0)
}

// SetMaxSegment limits the MSS (TCP_MAXSEG), in bytes; before Connect or Listen also the one that is announced. EINVAL: it is
// not from 48 to 65495; 0 leaves it to the path.
func (st *Stream) SetMaxSegment(n int) error {
	if n != 0 && (n < st.s.tcp.MinMSS || n > st.s.tcp.MSS) {
		return syscall.EINVAL
	}
	return st.set(func(o *streamOptions) { o.maxSegment = n }, func(c *tcp.Conn, _ clock.Time) { c.SetMaxSegment(n) })
}

// MaxSegment is the MSS in use, or before the connection what SetMaxSegment set, else 536 as in Linux.
func (st *Stream) MaxSegment() int {
	if i, ok := st.Info(); ok {
		return i.SendMSS
	}
	return option(st, func(o *streamOptions) int { return o.maxSegment }, 536)
}

// SetCongestion chooses the congestion control (TCP_CONGESTION): "cubic" or "newreno"; "reno" is Linux's name of the latter.
// ENOENT: there is none of that name.
func (st *Stream) SetCongestion(name string) error {
	if name == "reno" {
		name = "newreno"
	}
	if !slices.Contains(tcp.CongestionNames(), name) {
		return syscall.ENOENT
	}
	return st.set(func(o *streamOptions) { o.congestion = name }, func(c *tcp.Conn, _ clock.Time) { c.SetCongestion(name) })
}

// Congestion is the congestion control in use.
func (st *Stream) Congestion() string {
	name := option(st, func(o *streamOptions) string { return o.congestion }, "")
	if name == "" {
		return st.s.tcp.Congestion
	}
	return name
}

// SetReceiveBuffer fixes the receive buffer's size in bytes and ends its autotuning (SO_RCVBUF), between 2 KiB and 256 MiB.
func (st *Stream) SetReceiveBuffer(n int) error {
	n = int(clampBuffer(n))
	return st.set(func(o *streamOptions) { o.recvBuffer = n }, func(c *tcp.Conn, _ clock.Time) { c.SetReceiveBuffer(n) })
}

// ReceiveBuffer is the size of the receive buffer at this moment.
func (st *Stream) ReceiveBuffer() int {
	if st.e.Load() != nil {
		return st.rx.Limit()
	}
	return cmp.Or(option(st, func(o *streamOptions) int { return o.recvBuffer }, 0), st.s.tcp.ReceiveBuffer)
}

// SetSendBuffer fixes the send buffer's size in bytes (SO_SNDBUF), as SetReceiveBuffer does.
func (st *Stream) SetSendBuffer(n int) error {
	n = int(clampBuffer(n))
	return st.set(func(o *streamOptions) { o.sendBuffer = n }, func(c *tcp.Conn, _ clock.Time) { c.SetSendBuffer(n) })
}

// SendBuffer is the size of the send buffer at this moment.
func (st *Stream) SendBuffer() int {
	if st.e.Load() != nil {
		return st.tx.Limit()
	}
	return cmp.Or(option(st, func(o *streamOptions) int { return o.sendBuffer }, 0), st.s.tcp.SendBuffer)
}

// SetReuseAddr lets Bind take a port that only connections of a closed listening socket still hold (SO_REUSEADDR).
func (st *Stream) SetReuseAddr(on bool) error {
	return st.set(func(o *streamOptions) { o.again = on }, nil)
}

// ReuseAddr is what SetReuseAddr set.
func (st *Stream) ReuseAddr() bool { return option(st, (*streamOptions).reuseAddr, false) }

// SetReusePort lets listening sockets that all asked for it before Bind share an address and port: each connection goes to
// one of them (SO_REUSEPORT). A bound socket answers EINVAL.
func (st *Stream) SetReusePort(on bool) error {
	if st.has(isBound) {
		return syscall.EINVAL
	}
	return st.set(func(o *streamOptions) { o.reuse = on }, nil)
}

// ReusePort is what SetReusePort set.
func (st *Stream) ReusePort() bool { return option(st, (*streamOptions).reusePort, false) }

// SetTTL sets the time to live of what is sent (IP_TTL); 0 is EINVAL.
func (st *Stream) SetTTL(ttl uint8) error {
	if ttl == 0 {
		return syscall.EINVAL
	}
	st.setIPOpt(0xFF, uint32(ttl))
	return nil
}

// TTL is what SetTTL set, 64 from the start.
func (st *Stream) TTL() uint8 { return uint8(st.ipOpt.Load()) }

// SetTOS sets the type-of-service byte of what is sent (IP_TOS), its two bits for ECN excepted, which are TCP's.
func (st *Stream) SetTOS(tos uint8) { st.setIPOpt(0xFF00, uint32(tos&^3)<<8) }

// TOS is what SetTOS set.
func (st *Stream) TOS() uint8 { return uint8(st.ipOpt.Load() >> 8) }

func (st *Stream) setIPOpt(mask, value uint32) {
	for {
		old := st.ipOpt.Load()
		if st.ipOpt.CompareAndSwap(old, old&^mask|value) {
			return
		}
	}
}

// Info is what the state machine knows of the connection at this moment (TCP_INFO); false where there is none.
func (st *Stream) Info() (i tcp.Info, ok bool) {
	e := st.e.Load()
	if e == nil {
		return i, false
	}
	e.do(func() {
		if ok = st.visible; ok {
			i = st.conn.Info(e.now)
		}
	})
	return i, ok
}

// info is a connection's line in the list of sockets. It is called on the engine.
func (st *Stream) info(now clock.Time) SocketInfo {
	t := st.conn.Info(now)
	i := SocketInfo{
		ID: st.number, Proto: wire.ProtocolTCP, Local: st.LocalAddr(),
		Remote:    netip.AddrPortFrom(st.id.Remote.Netip(), st.id.RemotePort),
		ReadQueue: st.rx.Used(), WriteQueue: st.tx.Used(), RxBytes: t.Received, TxBytes: t.Delivered,
		Received: uint64(t.SegmentsIn), Sent: uint64(t.SegmentsOut), State: t.State.String(), TCP: &t,
	}
	i.on(st.iface)
	return i
}

// idleInfo is the line of a stream that no engine serves: bound, listening, or with a connection that has ended.
func (st *Stream) idleInfo() SocketInfo {
	i := SocketInfo{
		ID: st.number, Proto: wire.ProtocolTCP, Local: st.LocalAddr(), Remote: st.RemoteAddr(), State: tcp.Closed.String(),
		ReadQueue: st.rx.Used(),
	}
	i.on(st.Interface())
	if l := st.listen.Load(); l != nil {
		i.State, i.ReadQueue, i.Backlog = tcp.Listen.String(), l.waiting(), int(l.backlog.Load())
	}
	return i
}
