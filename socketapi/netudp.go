package socketapi

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// UDPConn is net.UDPConn on a stack, with ReadBatch and WriteBatch beside it in the form of golang.org/x/net/ipv4.PacketConn; with
// Fallback also the kernel's behind the same methods. ReadFromUDPAddrPort and WriteToUDPAddrPort, and Read and Write, allocate
// nothing on the stack.
type UDPConn struct {
	n       *Net
	network string
	local   netip.AddrPort // where it was asked to listen, with the real port
	every   bool           // on every address
	reuse   bool
	remote  netip.AddrPort // of a connected one
	peer    net.Addr       // the same, nil for one that is not

	rmu           sync.Mutex // one receiving call at a time
	turn, taken   int        // whose turn it is, and for how long it was
	waiter        *stack.Waiter
	readDeadline  deadline
	writeDeadline deadline
	asked         *askedTable // of one with several sockets
	route         atomic.Uint64

	kernel     *kernelUDP // nil: it is the stack's alone
	sockets    atomic.Pointer[[]udpSocket]
	generation atomic.Uint32 // of the addresses that have one
	mu         sync.Mutex    // listens on more addresses, Close
	closed     bool
	raw        sync.Mutex // SyscallConn
}

// udpSocket is a UDPConn on one address.
type udpSocket struct {
	d     *stack.Datagram
	index func() int // of its interface in the kernel, by name; 0 where the kernel has none of that name
	local
}

func newUDPSocket(d *stack.Datagram, at local) udpSocket {
	return udpSocket{d, sync.OnceValue(func() int {
		i, err := net.InterfaceByName(at.iface.Name())
		if err != nil {
			return 0
		}
		return i.Index
	}), at}
}

func newUDPConn(n *Net, network string, at netip.AddrPort) *UDPConn {
	c := &UDPConn{n: n, network: network, local: at, waiter: stack.NewWaiter()}
	c.readDeadline.init()
	c.writeDeadline.init()
	return c
}

func (c *ListenConfig) listenPacket(network string, at netip.AddrPort) (*UDPConn, error) {
	n, err := c.Net.orDefault()
	if err != nil {
		return nil, opError("listen", network, nil, addrOf("udp", at), err)
	}
	if c.Fallback {
		at = bothFamilies(network, at)
	}
	u := newUDPConn(n, network, at)
	u.reuse = c.ReusePort
	u.every = at.Addr().Unmap() == INADDR_ANY
	u.generation.Store(n.stack.Generation())
	undo := func() {
		u.kernel.close()
		u.kernel = nil
	}
	err = n.onEvery(at, c.Fallback, u.listenKernel, undo, func(addrs []local, port uint16) error {
		sockets := make([]udpSocket, 0, len(addrs))
		for _, a := range addrs {
			s, err := u.open(a, port)
			if err != nil {
				for _, s := range sockets {
					_ = s.d.Close()
				}
				return err
			}
			sockets = append(sockets, s)
			port = s.d.LocalAddr().Port() // where it was 0: the one that the first got
		}
		u.local = netip.AddrPortFrom(at.Addr().Unmap(), port)
		u.sockets.Store(&sockets)
		return nil
	})
	if err != nil {
		return nil, opError("listen", network, nil, addrOf("udp", at), err)
	}
	if err := u.begin(); err != nil {
		return nil, opError("listen", network, nil, addrOf("udp", at), err)
	}
	return u, nil
}

// begin makes a conn of several sockets one.
func (c *UDPConn) begin() error {
	mixed := c.kernel != nil && len(*c.sockets.Load()) > 0
	if c.every || mixed {
		c.asked = new(askedTable)
	}
	if mixed {
		c.kernel.done.Go(func() { c.kernel.watch(c.waiter) })
	}
	if c.kernel == nil {
		return nil
	}
	if c.every && isWide(c.network) {
		c.local = netip.AddrPortFrom(netip.IPv6Unspecified(), c.local.Port()) // as the net package says it
	}
	err := c.n.stack.Adopt(c)
	if err != nil {
		_ = c.Close() // its only error is that it is closed already
	}
	return openError("listen", err)
}

// open listens on one address.
func (c *UDPConn) open(a local, port uint16) (udpSocket, error) {
	d := c.n.stack.NewDatagram(wire.ProtocolUDP)
	err := openError("setsockopt", d.SetReusePort(c.reuse))
	if err == nil {
		err = openError("bind", d.Bind(netip.AddrPortFrom(a.addr, port)))
	}
	if err != nil {
		_ = d.Close()
		return udpSocket{}, err
	}
	a.iface = d.Interface()
	return newUDPSocket(d, a), nil
}

// follow listens on the addresses that have come since, with the options of the first socket. An address whose port is taken is
// left out until addresses change again.
func (c *UDPConn) follow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.generation.Store(c.n.stack.Generation())
	sockets := *c.sockets.Load()
	had := len(sockets)
	like := sockets[0].d
next:
	for _, a := range c.n.addresses() {
		for _, s := range sockets {
			if s.addr == a.addr {
				continue next
			}
		}
		s, err := c.open(a, c.local.Port())
		if err != nil {
			continue
		}
		s.d.SetReceiveBuffer(like.ReceiveBuffer())
		s.d.SetSendBuffer(like.SendBuffer())
		_ = s.d.SetTTL(like.TTL()) // what another socket has is no error
		s.d.SetTOS(like.TOS())
		s.d.SetFragment(like.Fragment())
		s.d.SetProbe(like.Probe())
		sockets = append(sockets[:len(sockets):len(sockets)], s)
	}
	if len(sockets) > had {
		c.sockets.Store(&sockets)
	}
}

// wrap is an error of a call; addr is the peer that it was about, nil for the connected one.
func (c *UDPConn) wrap(op, call string, addr net.Addr, err error) error {
	if err == nil {
		return nil
	}
	if addr == nil {
		addr = c.peer
	}
	return opError(op, c.network, c.LocalAddr(), addr, callError(call, err))
}

// receive fills ms, at least one message of it, and says which socket it was that heard them: all came to the same. nil: they are the
// kernel's, with what belongs to them in cs, where that is not nil.
func (c *UDPConn) receive(ms []stack.Message, cs []outOfBand, wait bool) (int, *udpSocket, error) {
	if wait {
		c.rmu.Lock()
	} else if !c.rmu.TryLock() {
		return 0, nil, syscall.EAGAIN // another call is at it, and may wait
	}
	defer c.rmu.Unlock()
	if c.readDeadline.isPassed() {
		return 0, nil, os.ErrDeadlineExceeded
	}
	if c.kernel != nil && c.asked == nil {
		n, err := c.kernel.read(ms, cs, wait)
		return n, nil, err
	}
	n, s, err := c.take(ms, cs)
	if err == syscall.EAGAIN && wait {
		return c.receiveBlocked(ms, cs)
	}
	return n, s, err
}

func (c *UDPConn) receiveBlocked(ms []stack.Message, cs []outOfBand) (int, *udpSocket, error) {
	watched := *c.sockets.Load()
	for _, s := range watched {
		s.d.Watch(c.waiter, stack.Readable)
	}
	if c.every {
		c.n.stack.WatchAddresses(c.waiter)
		defer c.n.stack.UnwatchAddresses(c.waiter)
	}
	defer func() {
		for _, s := range watched {
			s.d.Unwatch(c.waiter)
		}
	}()
	for {
		n, s, err := c.take(ms, cs)
		if err != syscall.EAGAIN {
			return n, s, err
		}
		if c.kernel != nil {
			c.kernel.drained()
		}
		if all := *c.sockets.Load(); len(all) > len(watched) {
			for _, s := range all[len(watched):] {
				s.d.Watch(c.waiter, stack.Readable)
			}
			watched = all
			continue // what came to the new ones before that
		}
		select {
		case <-c.waiter.C:
		case <-c.readDeadline.passed():
		}
		if c.readDeadline.isPassed() {
			return 0, nil, os.ErrDeadlineExceeded
		}
	}
}

// take is receive without waiting.
func (c *UDPConn) take(ms []stack.Message, cs []outOfBand) (int, *udpSocket, error) {
	if c.asked == nil {
		s := &(*c.sockets.Load())[0]
		n, err := s.d.Read(ms)
		return n, s, err
	}
	if c.every && c.generation.Load() != c.n.stack.Generation() {
		c.follow()
	}
	return c.takeAny(ms, cs)
}

// inARow is how many messages come from one socket before the others are looked at.
const inARow = 64

// kernelPlace is the kernel's place among the sockets, in what is remembered of them.
const kernelPlace = 1<<16 - 2

// takeAny takes from the sockets in turn, the kernel's behind the others. One whose card is gone has its say when all the others
// are, too.
func (c *UDPConn) takeAny(ms []stack.Message, cs []outOfBand) (int, *udpSocket, error) {
	sockets := *c.sockets.Load()
	places := len(sockets)
	if c.kernel != nil {
		places++
	}
	if c.taken >= inARow {
		c.turn, c.taken = c.turn+1, 0
	}
	quiet := false
	var failed error
	for range places {
		i := c.turn % places
		var s *udpSocket
		var n int
		var err error
		if i < len(sockets) {
			s = &sockets[i]
			n, err = s.read(ms)
		} else {
			i = kernelPlace
			n, err = c.kernel.read(ms, cs, false)
		}
		switch err {
		case nil:
			for k := range ms[:n] {
				c.asked.note(ms[k].Addr, i)
			}
			c.taken += n
			return n, s, nil
		case syscall.EAGAIN:
			quiet = true
		default:
			failed = err
		}
		c.turn, c.taken = c.turn+1, 0
	}
	if quiet {
		return 0, nil, syscall.EAGAIN
	}
	return 0, nil, failed
}

// read is Datagram.Read for one socket of several. A broadcast comes to all that an interface has, and is the first one's.
func (s *udpSocket) read(ms []stack.Message) (int, error) {
	if s.first {
		return s.d.Read(ms)
	}
	n := 0
	for n < len(ms) {
		_, err := s.d.Read(ms[n : n+1])
		if err != nil {
			if n > 0 && err == syscall.EAGAIN {
				break
			}
			return n, err
		}
		if ms[n].Dst == s.addr {
			n++
		}
	}
	return n, nil
}

// send sends ms by a socket, nil for the kernel's, and returns how many it took: fewer than all only with the error that stopped it.
func (c *UDPConn) send(s *udpSocket, ms []stack.Message, wait bool) (int, error) {
	if c.writeDeadline.isPassed() {
		return 0, os.ErrDeadlineExceeded
	}
	if s == nil {
		return c.kernel.writeAll(ms, wait)
	}
	sent, err := writeAll(s.d, ms)
	if err != syscall.EAGAIN || !wait {
		return sent, err
	}
	n, err := c.sendBlocked(s.d, ms[sent:])
	return sent + n, err
}

// waiters are for calls of which any number may wait at once.
var waiters = sync.Pool{New: func() any { return stack.NewWaiter() }}

func (c *UDPConn) sendBlocked(d *stack.Datagram, ms []stack.Message) (int, error) {
	w := waiters.Get().(*stack.Waiter)
	d.Watch(w, stack.Writable)
	defer func() {
		d.Unwatch(w)
		select {
		case <-w.C: // told after the last look
		default:
		}
		waiters.Put(w)
	}()
	sent := 0
	for {
		n, err := writeAll(d, ms[sent:])
		sent += n
		if err != syscall.EAGAIN {
			return sent, err
		}
		select {
		case <-w.C:
		case <-c.writeDeadline.passed():
		}
		if c.writeDeadline.isPassed() {
			return sent, os.ErrDeadlineExceeded
		}
	}
}

// sender is the socket for what goes to a peer: the one that the peer asked, or the one that the route prefers. nil: it is the
// kernel's.
func (c *UDPConn) sender(to netip.AddrPort) *udpSocket {
	sockets := *c.sockets.Load()
	place := 0
	switch {
	case c.asked == nil:
		if c.kernel != nil {
			return nil
		}
	case c.kernel != nil && !to.Addr().Unmap().Is4():
		return nil
	case c.kernel == nil && len(sockets) == 1:
	default:
		var ok bool
		if place, ok = c.asked.find(to); !ok {
			place = c.routeTo(to, sockets)
		}
	}
	if place == kernelPlace {
		return nil
	}
	return &sockets[place]
}

// routeTo is the place of the socket that the route to a peer prefers. It remembers the last peer's, in a word: address, place,
// and the low bits of the generation.
func (c *UDPConn) routeTo(to netip.AddrPort, sockets []udpSocket) int {
	gen := uint64(uint16(c.n.stack.Generation()))
	key := addrKey(to.Addr()) << 32
	if r := c.route.Load(); r>>32 == key>>32 && r&0xFFFF == gen && r != 0 {
		return int(r >> 16 & 0xFFFF)
	}
	if c.kernel != nil && c.n.whyKernel(wire.ProtocolUDP, netip.Addr{}, to) != "" {
		if c.n.stack.Owner(to.Addr()) == nil { // else it is another matter for another port
			c.route.Store(key | kernelPlace<<16 | gen)
		}
		return kernelPlace
	}
	source, err := c.n.stack.SourceTo(to.Addr())
	if err != nil {
		return 0 // its send says why
	}
	for i := range sockets {
		if sockets[i].addr == source || source.IsLoopback() && sockets[i].addr.IsLoopback() {
			if c.kernel == nil || c.n.stack.Owner(to.Addr()) == nil {
				c.route.Store(key | uint64(i)<<16 | gen)
			}
			return i
		}
	}
	return 0
}

// Read is net.UDPConn.Read: the next message of the connected peer, or of any where there is none. What does not fit is lost.
func (c *UDPConn) Read(b []byte) (int, error) {
	n, _, err := c.readOne(b)
	return n, c.wrap("read", "read", nil, err)
}

// ReadFrom is net.UDPConn.ReadFrom; addr is a *net.UDPAddr.
func (c *UDPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	return n, addrOf("udp", from), err
}

// ReadFromUDP is ReadFrom with a type that says more.
func (c *UDPConn) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// ReadFromUDPAddrPort is ReadFrom without allocation.
func (c *UDPConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := c.readOne(b)
	return n, from, c.wrap("read", "recvfrom", nil, err)
}

func (c *UDPConn) readOne(b []byte) (int, netip.AddrPort, error) {
	ms := [1]stack.Message{{Buf: b}}
	if _, _, err := c.receive(ms[:], nil, true); err != nil {
		return 0, netip.AddrPort{}, err
	}
	return ms[0].N, ms[0].Addr, nil
}

// Write sends b as one message to the connected peer.
func (c *UDPConn) Write(b []byte) (int, error) {
	n, err := c.writeOne(b, netip.AddrPort{})
	return n, c.wrap("write", "write", nil, err)
}

// WriteTo is net.UDPConn.WriteTo; addr is a *net.UDPAddr.
func (c *UDPConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	a, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, c.wrap("write", "sendto", addr, syscall.EINVAL)
	}
	return c.WriteToUDP(b, a)
}

// WriteToUDP is WriteTo with a type that says more.
func (c *UDPConn) WriteToUDP(b []byte, addr *net.UDPAddr) (int, error) {
	n, err := c.writeTo(b, addr.AddrPort())
	return n, c.wrap("write", "sendto", udpOrNil(addr), err)
}

// WriteToUDPAddrPort is WriteTo without allocation.
func (c *UDPConn) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	n, err := c.writeTo(b, addr)
	if err != nil {
		return n, c.wrap("write", "sendto", addrOf("udp", addr), err)
	}
	return n, nil
}

// errMissingAddress is a destination that is none.
var errMissingAddress = &net.AddrError{Err: "missing address"}

func (c *UDPConn) writeTo(b []byte, to netip.AddrPort) (int, error) {
	switch {
	case c.remote.IsValid():
		return 0, net.ErrWriteToConnected
	case !to.IsValid():
		return 0, errMissingAddress
	}
	return c.writeOne(b, to)
}

// writeOne sends to the connected peer where to is zero.
func (c *UDPConn) writeOne(b []byte, to netip.AddrPort) (int, error) {
	ms := [1]stack.Message{{Buf: b, Addr: to}}
	if _, err := c.send(c.sender(to), ms[:], true); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close ends the socket: what was sent still goes out, and who waits is told net.ErrClosed.
func (c *UDPConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.wrap("close", "close", nil, net.ErrClosed)
	}
	c.closed = true
	for _, s := range *c.sockets.Load() {
		_ = s.d.Close() // its only error is that the stack has closed it
	}
	if c.kernel != nil {
		c.n.stack.Disown(c)
		c.kernel.close()
		c.waiter.Tell() // who looked when only the others were closed
	}
	return nil
}

// LocalAddr is a *net.UDPAddr. Its address is 0.0.0.0 where ListenPacket was given none.
func (c *UDPConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// RemoteAddr is a *net.UDPAddr, nil for a socket that is not connected.
func (c *UDPConn) RemoteAddr() net.Addr { return c.peer }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *UDPConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds how long receiving calls wait, those that wait already included; the zero time: for ever.
func (c *UDPConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readDeadline, t) }

// SetWriteDeadline does so for the sending ones.
func (c *UDPConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeDeadline, t) }

func (c *UDPConn) setDeadline(d *deadline, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError("set", c.network, nil, c.LocalAddr(), net.ErrClosed)
	}
	d.set(t)
	switch {
	case c.kernel == nil:
	case d == &c.writeDeadline:
		return kernelError(c.network, c.kernel.conn.SetWriteDeadline(t))
	case c.asked == nil: // else reading waits for several
		return kernelError(c.network, c.kernel.conn.SetReadDeadline(t))
	}
	return nil
}

// SetReadBuffer bounds the bytes that wait to be received, on each address and queue of the card.
func (c *UDPConn) SetReadBuffer(n int) error {
	return c.each(func(d *stack.Datagram) { d.SetReceiveBuffer(n) }, func(k *net.UDPConn) error { return k.SetReadBuffer(n) })
}

// SetWriteBuffer bounds the bytes that wait to be sent.
func (c *UDPConn) SetWriteBuffer(n int) error {
	return c.each(func(d *stack.Datagram) { d.SetSendBuffer(n) }, func(k *net.UDPConn) error { return k.SetWriteBuffer(n) })
}

// each sets something on every socket, and on the kernel's.
func (c *UDPConn) each(set func(*stack.Datagram), kernels func(*net.UDPConn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError("set", c.network, nil, c.LocalAddr(), net.ErrClosed)
	}
	for _, s := range *c.sockets.Load() {
		set(s.d)
	}
	if c.kernel != nil {
		return kernelError(c.network, kernels(c.kernel.conn))
	}
	return nil
}

// Datagrams are the stack's sockets below, one for each address, for what net.UDPConn has no words for: TTL, figures, a handler on the
// engine.
func (c *UDPConn) Datagrams() []*stack.Datagram {
	var ds []*stack.Datagram
	for _, s := range *c.sockets.Load() {
		ds = append(ds, s.d)
	}
	return ds
}

// SyscallConn gives access to the kernel's socket that holds the port, or where the kernel holds none, as for an owned address or
// the loopback, to one that is made for the call. Only Control can be used, as what is sent and received does not pass that
// socket; Read and Write are EOPNOTSUPP. Control shows the conn's options there, and takes over what is changed of SO_KEEPALIVE,
// SO_BROADCAST, SO_RCVBUF, SO_SNDBUF, IP_TOS, IP_TTL, IP_MTU_DISCOVER, TCP_NODELAY, TCP_CORK, TCP_MAXSEG, TCP_KEEPIDLE,
// TCP_KEEPINTVL, TCP_KEEPCNT and TCP_USER_TIMEOUT; another option stays that socket's alone. That of a conn that is all the kernel's
// (Fallback) is the net package's.
func (c *UDPConn) SyscallConn() (syscall.RawConn, error) {
	wrap := func(op string, err error) error { return c.wrap(op, op, nil, err) }
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, wrap("raw-conn", net.ErrClosed)
	}
	var kernel syscall.RawConn
	if c.kernel != nil {
		if kernel = c.kernel.raw; c.asked == nil {
			return kernel, nil
		}
	}
	var sockets []*socket
	for _, s := range *c.sockets.Load() {
		sockets = append(sockets, c.n.optionsOf(s.d, nil))
	}
	return newRawConn(c.n, sockets, kernel, true, &c.raw, wrap), nil
}
