package stack

import (
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// Datagram is a UDP or ICMP socket. Its calls never block, any goroutine may make them, and every error is a syscall.Errno.
// Blocking, time-outs and tokens are socketapi's.
//
// On each engine that may serve it the socket has a half with two rings. A message is copied once into a ring by the engine
// and once out of it by Read, or the other way round; no lock is shared with the engine.
type Datagram struct {
	s       *Stack
	proto   wire.Protocol
	id      uint64
	waiters waitQueue
	err     atomic.Uint32 // pending syscall.Errno
	closed  atomic.Bool

	mu      sync.Mutex // Bind, Connect, Close, SetHandler
	handler Handler
	reuse   bool
	bound   atomic.Pointer[binding]
	halves  []atomic.Pointer[half] // by Engine.number

	ttl, tos    atomic.Uint32
	noBroadcast atomic.Bool
	whole       atomic.Bool // never in fragments
	probe       atomic.Bool // whatever ICMP told of the path
	reuseAddr   atomic.Bool
	rcvbuf      atomic.Int64
	sndbuf      atomic.Int64
	_           [24]byte // to cacheLine: the engines read what is above, and each Read or Write writes below

	rmu   sync.Mutex
	turn  uint32        // which of the interface's engines Read looks at first
	heard atomic.Uint32 // which one it last had something from; before that, one for each socket in turn

	wmu   sync.Mutex
	route sendRoute // of the last message, Write's memory
	_     [16]byte  // to cacheLine
}

// binding is where a socket is bound and connected to. It is replaced whole, never changed.
type binding struct {
	iface     *Interface
	local     wire.Addr
	port      uint16
	connected bool
	remote    wire.Addr
	rport     uint16
}

// sendRoute remembers which half takes messages for a destination.
type sendRoute struct {
	dst   wire.Addr
	gen   uint32
	heard uint32
	h     *half
}

// Message is a datagram on its way from or to a user.
type Message struct {
	Buf  []byte         // Read: room. Write: the payload; for ICMP the whole message.
	N    int            // Read: bytes stored in Buf
	Size int            // Read: length of the datagram; more than N where it was cut
	Addr netip.AddrPort // Read: the sender. Write: the destination; zero: the connected peer. For ICMP the port is 0.
	Dst  netip.Addr     // Read: the address it was sent to, ours or a broadcast address
	TTL  uint8          // Read: of the packet. Write: 0 means the socket's.
	TOS  uint8          // likewise
}

// NewDatagram makes a socket for wire.ProtocolUDP or wire.ProtocolICMP, neither bound nor connected. That of a closed stack is
// closed.
func (s *Stack) NewDatagram(proto wire.Protocol) *Datagram {
	d := &Datagram{s: s, proto: proto}
	d.ttl.Store(defaultTTL)
	d.rcvbuf.Store(int64(s.limits.ReceiveBuffer))
	d.sndbuf.Store(int64(s.limits.SendBuffer))
	d.halves = make([]atomic.Pointer[half], len(s.engines))
	d.id = s.lastID.Add(1)
	d.heard.Store(uint32(d.id))
	s.mu.Lock()
	if s.closed {
		d.closed.Store(true)
	} else {
		s.sockets[d] = struct{}{}
	}
	s.mu.Unlock()
	return d
}

// LocalAddr is where the socket is bound; the zero AddrPort where it is not. An ICMP socket's port is its identifier.
func (d *Datagram) LocalAddr() netip.AddrPort {
	b := d.bound.Load()
	if b == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(b.local.Netip(), b.port)
}

// RemoteAddr is the peer that Connect fixed; the zero AddrPort where there is none.
func (d *Datagram) RemoteAddr() netip.AddrPort {
	b := d.bound.Load()
	if b == nil || !b.connected {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(b.remote.Netip(), b.rport)
}

// Interface is the interface that the socket is bound to, nil where it is not bound.
func (d *Datagram) Interface() *Interface {
	if b := d.bound.Load(); b != nil {
		return b.iface
	}
	return nil
}

// fail makes errno the pending error. Any goroutine or engine may call it.
func (d *Datagram) fail(errno syscall.Errno) {
	d.err.Store(uint32(errno))
	d.waiters.notify(Errored | Readable | Writable)
}

// TakeError returns the pending error and clears it; nil where there is none.
func (d *Datagram) TakeError() error {
	if d.err.Load() == 0 {
		return nil
	}
	if errno := d.err.Swap(0); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// Read takes what has arrived, up to len(ms) messages, and returns how many. EAGAIN: nothing is there. A pending error comes
// first, once. EBADF: the socket is closed. ENETDOWN: the card is gone.
func (d *Datagram) Read(ms []Message) (int, error) {
	d.rmu.Lock()
	defer d.rmu.Unlock()
	if err := d.TakeError(); err != nil {
		return 0, err
	}
	if d.closed.Load() {
		return 0, syscall.EBADF
	}
	b := d.bound.Load()
	if b == nil {
		return 0, syscall.EAGAIN
	}
	n := 0
	for range b.iface.engines {
		e := b.iface.engine(d.turn)
		if h := d.halves[e.number].Load(); h != nil {
			got := h.read(ms[n:], b)
			if n += got; got > 0 {
				d.heard.Store(uint32(e.queue))
			}
		}
		if d.turn++; n == len(ms) {
			break
		}
	}
	if n > 0 || len(ms) == 0 {
		return n, nil
	}
	if err := b.iface.usable(); err != nil {
		return 0, err
	}
	return 0, syscall.EAGAIN
}

// read is Read on one engine's half.
func (h *half) read(ms []Message, b *binding) (n int) {
	r := h.rx.Reader()
	for n < len(ms) {
		rec := r.Peek()
		if rec == nil {
			break
		}
		var in incoming
		in.get(rec)
		payload := rec[inRecord:]
		// What came before Connect may be from others: the contract says that they are not heard.
		if !b.connected || in.src == b.remote && in.port == b.rport || h.d.proto == wire.ProtocolICMP {
			m := &ms[n]
			m.N, m.Size = copy(m.Buf, payload), len(payload)
			m.Addr = netip.AddrPortFrom(in.src.Netip(), in.port)
			m.Dst, m.TTL, m.TOS = in.dst.Netip(), in.ttl, in.tos
			n++
		}
		r.Advance()
	}
	r.Release()
	return n
}

// Write sends up to len(ms) messages and returns how many the socket took. Errors, for the first that it did not take when
// that is the first of all: EAGAIN the send buffer is full; EMSGSIZE; EDESTADDRREQ no destination; ENETUNREACH and
// EHOSTUNREACH no way there; EADDRNOTAVAIL no interface to bind to; EACCES a broadcast that SetBroadcast(false) forbids; EINVAL
// port 0, or a destination beyond this machine from a loopback address; ENETDOWN the card is gone; EBADF closed. A pending error comes first, once.
func (d *Datagram) Write(ms []Message) (int, error) {
	n, h, err := d.write(ms)
	if h != nil && h.e.behind() {
		runtime.Gosched()
	}
	return n, err
}

// write is Write. It returns the last half that it wrote to.
func (d *Datagram) write(ms []Message) (n int, open *half, err error) {
	d.wmu.Lock()
	defer d.wmu.Unlock()
	if err := d.TakeError(); err != nil {
		return 0, nil, err
	}
	for ; n < len(ms); n++ {
		if open, err = d.writeOne(&ms[n], open); err != nil {
			break
		}
	}
	if open != nil {
		open.kick()
	}
	if n > 0 {
		err = nil
	}
	return n, open, err
}

// kick shows the engine what was written.
func (h *half) kick() {
	h.tx.Writer().Publish()
	h.e.push(&h.dirty)
}

// writeOne puts one message into the ring of the half that it belongs to, and returns that half.
func (d *Datagram) writeOne(m *Message, open *half) (*half, error) {
	if d.closed.Load() {
		return open, syscall.EBADF
	}
	if len(m.Buf) > d.maxPayload() {
		return open, syscall.EMSGSIZE
	}
	dst, port, err := d.destination(m)
	if err != nil {
		return open, err
	}
	if dst.IsBroadcast() {
		return open, d.broadcast(m, port)
	}
	h := d.route.h
	if h == nil || d.route.dst != dst || d.route.gen != d.s.gen.Load() || d.route.heard != d.heard.Load() {
		if h, err = d.routeTo(dst); err != nil {
			return open, err
		}
	}
	if open != nil && open != h {
		open.kick()
	}
	if !h.put(m, h.local, dst, port) {
		return h, syscall.EAGAIN
	}
	return h, nil
}

func (d *Datagram) maxPayload() int {
	if d.proto == wire.ProtocolICMP {
		return wire.IPv4MaxSize - wire.IPv4Len
	}
	return maxUDPPayload
}

// destination checks where a message goes, and binds the socket on its first use.
func (d *Datagram) destination(m *Message) (dst wire.Addr, port uint16, err error) {
	b := d.bound.Load()
	if m.Addr.IsValid() {
		var ok bool
		if dst, ok = wire.AddrFrom(m.Addr.Addr()); !ok {
			return 0, 0, syscall.EAFNOSUPPORT
		}
		port = m.Addr.Port()
	} else {
		if b == nil || !b.connected {
			return 0, 0, syscall.EDESTADDRREQ
		}
		dst, port = b.remote, b.rport
	}
	switch {
	case d.proto == wire.ProtocolUDP && port == 0:
		return 0, 0, syscall.EINVAL
	case d.proto == wire.ProtocolICMP && (len(m.Buf) < wire.ICMPLen || wire.ICMPType(m.Buf[0]) != wire.ICMPEcho):
		return 0, 0, syscall.EINVAL // as a ping socket of the kernel: only echo requests (net/ipv4/ping.c)
	case dst == 0:
		dst = wire.AddrLoopback // RFC 1122 §3.2.1.3 forbids 0.0.0.0 as a destination; the kernel takes it for this host
	}
	if b == nil {
		if err := d.bindFor(dst); err != nil {
			return 0, 0, err
		}
	}
	if d.noBroadcast.Load() && d.s.isBroadcast(dst) {
		return 0, 0, syscall.EACCES
	}
	return dst, port, nil
}

// routeTo finds the half that sends to dst: on the interface that the way leads over, on the engine that the socket last
// heard from.
func (d *Datagram) routeTo(dst wire.Addr) (*half, error) {
	b := d.bound.Load()
	gen := d.s.gen.Load()
	out, err := d.s.egress(dst, b.iface)
	if err != nil {
		return nil, err
	}
	heard := d.heard.Load()
	h, err := d.halfOn(out.engine(heard).via)
	if err != nil {
		return nil, err
	}
	d.route = sendRoute{dst, gen, heard, h}
	return h, nil
}

// halfOn is the socket's half on e, made on first use where e belongs to another interface than the socket is bound to.
func (d *Datagram) halfOn(e *Engine) (*half, error) {
	if h := d.halves[e.number].Load(); h != nil {
		return h, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.bound.Load()
	if d.closed.Load() || b == nil {
		return nil, syscall.EBADF
	}
	return d.newHalf(e, b), nil
}

func (d *Datagram) newHalf(e *Engine, b *binding) *half {
	h := &half{
		d: d, rx: ring.NewChain(int(d.rcvbuf.Load())), handler: d.handler,
		remote: b.remote, remotePort: b.rport, connected: b.connected,
		halfRest: &halfRest{e: e, tx: ring.NewChain(int(d.sndbuf.Load())), local: b.local, localPort: b.port},
	}
	h.dirty.half = h
	h.idle.owner = h
	d.halves[e.number].Store(h)
	return h
}

// put copies a message into the ring; false: there is no room.
func (h *half) put(m *Message, src, dst wire.Addr, port uint16) bool {
	w := h.tx.Writer()
	b := w.Reserve(outRecord + len(m.Buf))
	if b == nil {
		return false
	}
	o := outgoing{src: src, dst: dst, port: port, ttl: m.TTL, tos: m.TOS}
	if o.ttl == 0 {
		o.ttl = uint8(h.d.ttl.Load())
	}
	if o.tos == 0 {
		o.tos = uint8(h.d.tos.Load())
	}
	o.put(b)
	copy(b[outRecord:], m.Buf)
	w.Commit(len(b))
	return true
}

// broadcast sends to 255.255.255.255 on every interface but the loopback. Where some take it and some are full, it is sent.
func (d *Datagram) broadcast(m *Message, port uint16) error {
	b := d.bound.Load()
	sent, full := false, false
	for _, i := range d.s.ifaces() {
		if i.loopback {
			continue
		}
		h, err := d.halfOn(i.engine(d.heard.Load()).via)
		if err != nil {
			return err
		}
		src := b.local
		if i != b.iface {
			src = 0
		}
		if !h.put(m, src, wire.AddrBroadcast, port) {
			full = true
			continue
		}
		sent = true
		h.kick()
	}
	switch {
	case sent:
		return nil
	case full:
		return syscall.EAGAIN
	}
	return syscall.EADDRNOTAVAIL
}

// Events says what the socket is ready for at this moment.
func (d *Datagram) Events() Events {
	var ev Events
	if d.closed.Load() {
		return Closed | Readable | Writable
	}
	if d.err.Load() != 0 {
		ev |= Errored | Readable | Writable
	}
	writable := true
	for i := range d.halves {
		h := d.halves[i].Load()
		if h == nil {
			continue
		}
		if h.rx.Used() > 0 {
			ev |= Readable
		}
		if h.tx.Used() > h.tx.Limit()/2 {
			writable = false
		}
	}
	if writable {
		ev |= Writable
	}
	return ev
}

// Watch makes w be told when one of want may have come; Errored and Closed are always wanted. Look again after Watch and
// before sleeping: what came before it is not told.
func (d *Datagram) Watch(w *Waiter, want Events) { d.waiters.add(w, want) }

// Unwatch ends Watch.
func (d *Datagram) Unwatch(w *Waiter) { d.waiters.remove(w) }

// info is all of SocketInfo but what the engines count.
func (d *Datagram) info() SocketInfo {
	i := SocketInfo{ID: d.id, Proto: d.proto, Local: d.LocalAddr(), Remote: d.RemoteAddr()}
	i.on(d.Interface())
	d.mu.Lock()
	i.Handler = d.handler != nil
	d.mu.Unlock()
	for n := range d.halves {
		if h := d.halves[n].Load(); h != nil {
			i.ReadQueue += h.rx.Used()
			i.WriteQueue += h.tx.Used()
		}
	}
	return i
}

// on enters the interface that a socket is bound to, nil for none.
func (i *SocketInfo) on(f *Interface) {
	if f == nil {
		return
	}
	i.Interface = f.name
	if f.Gone() {
		i.Unaccelerated = "the card " + f.name + " is gone"
	}
}

// count adds what one engine counted.
func (i *SocketInfo) count(h *half) {
	i.Received += h.received
	i.RxBytes += h.rxBytes
	i.Dropped += h.dropped
	i.Sent += h.sent
	i.TxBytes += h.txBytes
}

// SocketInfo is one line of the list of sockets.
type SocketInfo struct {
	ID                    uint64
	Proto                 wire.Protocol
	Local, Remote         netip.AddrPort
	Interface             string // that it is bound to
	Handler               bool   // its messages go to a handler on the engine
	ReadQueue, WriteQueue int    // bytes that wait, headers of the rings included
	Received, Sent        uint64 // datagrams
	Dropped               uint64 // datagrams that found the receive buffer full
	RxBytes, TxBytes      uint64 // payload
	Unaccelerated         string // why its packets do not go by the stack, a phrase; "": they do

	// Of streams. State is the RFC's name, such as "LISTEN" or "ESTABLISHED"; TCP is nil where there is no connection.
	State   string
	TCP     *tcp.Info
	Backlog int // LISTEN: how many connections may wait or, with an acceptance count, be held
}
