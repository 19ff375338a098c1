package stack

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/tcp"
)

var (
	simSeed  = flag.Uint64("stream.seed", 0, "run this seed of the simulator of streams alone, with a trace")
	simSeeds = flag.Int("stream.seeds", 300, "how many seeds the simulator of streams runs")
)

// TestStreamSimulator: two stacks, bad lines and users who do anything at any time. What is read is what was written, from the
// first byte on without a gap; where both users behave, all of it arrives; and when all is over nothing is left of anything.
func TestStreamSimulator(t *testing.T) {
	if *simSeed != 0 {
		if err := playStreams(*simSeed, t.Logf); err != nil {
			t.Fatal(err)
		}
		return
	}
	var sum simCounts
	seeds := *simSeeds
	if raced {
		seeds /= 4
	}
	began := time.Now()
	for seed := uint64(1); seed <= uint64(seeds); seed++ {
		s, err := newStreamSim(seed, nil)
		if err == nil {
			err = s.play()
		}
		if err != nil {
			t.Fatalf("seed %d: %v\n\tgo test ./stack -run TestStreamSimulator -stream.seed=%d -v", seed, err, seed)
		}
		sum.add(s.counts)
	}
	t.Logf("%.0f seeds a second: %+v", float64(seeds)/time.Since(began).Seconds(), sum)
	if seeds >= 30 { // it tests something
		for name, n := range map[string]int{
			"connections": sum.connected, "orderly ends": sum.orderly, "errors": sum.errors, "bytes": sum.bytes, "refusals": sum.refused,
			"forwarded": sum.forwarded,
		} {
			if n < seeds {
				t.Errorf("only %d %s", n, name)
			}
		}
	}
}

func playStreams(seed uint64, trace func(string, ...any)) error {
	s, err := newStreamSim(seed, trace)
	if err != nil {
		return err
	}
	return s.play()
}

// simCounts say what happened.
type simCounts struct{ connected, orderly, errors, bytes, refused, forwarded int }

func (c *simCounts) add(o simCounts) {
	c.connected += o.connected
	c.orderly += o.orderly
	c.errors += o.errors
	c.bytes += o.bytes
	c.refused += o.refused
	c.forwarded += o.forwarded
}

// A streamSim is one world.
type streamSim struct {
	seed      uint64
	rng       *rand.Rand
	trace     func(string, ...any)
	now       clock.Time
	wires     []*linktest.Wire
	stacks    [2]*Stack
	listeners []*simListener
	conns     map[netip.AddrPort]*simConn // by the client's address
	users     []*simUser
	dialing   int
	counts    simCounts
	streams   []*Stream // all there ever were
	buffer    [1 << 17]byte
}

type simListener struct {
	*Stream
	stack   int
	closed  bool
	cookies bool // a few half-open connections are enough for them
}

// A simConn is a connection as its two users see it.
type simConn struct {
	n      int
	ends   [2]*simUser // the client, and the server once it was accepted
	strict bool        // both behave: all arrives
}

// A simUser is one user of one connection.
type simUser struct {
	sim  *streamSim
	conn *simConn
	side int // 0: the client
	st   *Stream
	plan simPlan
	at   clock.Time // of the next action

	connected, shut, deaf, done, aborted bool
	written, read                        int
	err                                  error
}

// A simPlan is what a user means to do.
type simPlan struct {
	total    int // bytes to write
	chunk    int
	pause    time.Duration // between two actions, on average
	violence float64       // probability of something rude, for each action
	lazy     bool          // closes when it has written, and lets the rest be read by whoever wants
}

// content is byte i of what a side of a connection writes.
func (c *simConn) content(side, i int) byte {
	return byte(i) ^ byte(i>>8)*31 ^ byte(i>>16)*7 ^ byte(side*85) ^ byte(c.n*29)
}

func newStreamSim(seed uint64, trace func(string, ...any)) (*streamSim, error) {
	s := &streamSim{seed: seed, rng: rand.New(rand.NewPCG(seed, 77)), trace: trace, now: begin, conns: make(map[netip.AddrPort]*simConn)}
	queues := 1 + s.rng.IntN(3)
	ring := []int{1024, 1024, 64, 8}[s.rng.IntN(4)]
	mtu := []int{1500, 1500, 1500, 576, 9000}[s.rng.IntN(5)]
	faults := [2]linktest.Faults{s.drawFaults(), s.drawFaults()}
	bundles := []int{0, 65535, 3 * mtu}[s.rng.IntN(3)]
	if ring == 8 {
		bundles = min(bundles, 3*mtu)
	}
	for q := range queues {
		s.wires = append(s.wires, linktest.New(linktest.Config{Seed: seed*8 + uint64(q), Ring: ring, Ends: []linktest.EndConfig{
			{HardwareAddr: hostMAC, MTU: mtu, Bundles: bundles, Faults: faults[0]}, {HardwareAddr: peerMAC, MTU: mtu, Bundles: bundles, Faults: faults[1]},
		}}))
	}
	for i := range s.stacks {
		cfg := s.drawConfig()
		st := New(Config{Seed: seed*2 + uint64(i) + 1, TCP: &cfg})
		var links []Link
		for q := range queues {
			links = append(links, &straying{End: s.wires[q].End(i), wires: s.wires, side: i, pick: func() int {
				if s.odds(0.7) {
					return q
				}
				return s.rng.IntN(queues)
			}})
		}
		ip, other, mac := hostIP, peerIP, peerMAC
		if i == 1 {
			ip, other, mac = peerIP, hostIP, hostMAC
		}
		iface, err := st.AddInterface(InterfaceConfig{Name: "eth0", Mode: Owned, Links: links, Addresses: []netip.Prefix{prefix(ip + "/24")}})
		if err != nil {
			return nil, err
		}
		iface.SetNeighbour(entry(other, mac, NeighbourPermanent)) // ARP has no checksum
		s.stacks[i] = st
		if trace != nil { // what crosses, by the sender
			st.SetTap(func(_ *Interface, queue int, d Direction, r DropReason, now clock.Time, f []byte) {
				trace("%v stack %d queue %d %v %v: %s", now.Sub(begin), i, queue, d, r, describe(f))
			})
		}
	}
	for i := range s.stacks {
		for range 1 + s.rng.IntN(2) {
			s.listen(i)
		}
	}
	s.dialing = 4 + s.rng.IntN(12)
	s.tell("%d queues of %d frames, MTU %d, bundles of %d, faults %+v", queues, ring, mtu, bundles, faults)
	return s, nil
}

func (s *streamSim) tell(format string, args ...any) {
	if s.trace != nil {
		s.trace("%v "+format, append([]any{s.now.Sub(begin)}, args...)...)
	}
}

func (s *streamSim) odds(p float64) bool { return s.rng.Float64() < p }

func (s *streamSim) drawFaults() linktest.Faults {
	some := func(most float64) float64 {
		if s.odds(0.5) {
			return 0
		}
		return s.rng.Float64() * most
	}
	f := linktest.Faults{
		Latency: time.Duration(s.rng.IntN(20_000)) * time.Microsecond, Loss: some(0.1), Duplicate: some(0.1), Reorder: some(0.2),
		ReorderDelay: time.Duration(s.rng.IntN(20_000)) * time.Microsecond, Corrupt: some(0.05), Truncate: some(0.02),
	}
	if s.odds(0.3) {
		f.Jitter = time.Duration(1 + s.rng.IntN(20_000_000))
	}
	if s.odds(0.3) {
		f.Bandwidth, f.Queue = int64(2_000_000+s.rng.IntN(50_000_000)), 5000+s.rng.IntN(100_000)
	}
	return f
}

func (s *streamSim) drawConfig() tcp.Config {
	cfg := DefaultTCP()
	cfg.SACK, cfg.Timestamps, cfg.WindowScale = !s.odds(0.2), !s.odds(0.3), !s.odds(0.2)
	if s.odds(0.3) {
		cfg.Congestion = "newreno"
	}
	if s.odds(0.3) {
		cfg.ReceiveBuffer = 512 + s.rng.IntN(8000)
		cfg.ReceiveBufferMax = cfg.ReceiveBuffer + s.rng.IntN(8000)
	}
	if s.odds(0.3) {
		cfg.SendBuffer = 512 + s.rng.IntN(8000)
	}
	if s.odds(0.2) {
		cfg.ECN = tcp.ECNOn
	}
	return cfg
}

// straying is a link whose frames leave by any of its card's queues: at the other end a flow comes on another queue each time.
type straying struct {
	*linktest.End
	wires []*linktest.Wire // by queue
	side  int
	pick  func() int // the queue for the next frame
	lent  []byte
}

func (l *straying) Poll(budget int, input func([]byte)) int {
	return l.End.Poll(budget, func(f []byte) {
		l.lent = f
		input(f)
		l.lent = nil
	})
}

func (l *straying) Send(f []byte) bool {
	if len(l.lent) == 0 || &f[0] != &l.lent[0] {
		if to := l.wires[l.pick()].End(l.side); to != l.End && to.Inject(f) {
			l.End.Free(f[:cap(f)])
			return true
		}
	}
	return l.End.Send(f)
}

func (s *streamSim) listen(stack int) {
	l := s.stacks[stack].NewStream()
	s.setSome(l)
	_ = l.SetReuseAddr(true)
	if l.Bind(netip.AddrPortFrom(netip.MustParseAddr([]string{hostIP, peerIP}[stack]), uint16(80+len(s.listeners)))) != nil {
		return
	}
	cfg := ListenConfig{Backlog: 1 + s.rng.IntN(8), HalfOpen: max(0, s.rng.IntN(5)-2)}
	if s.odds(0.4) {
		cfg = ListenConfig{Count: 1 + s.rng.IntN(8)}
	}
	if err := l.Listen(cfg); err != nil {
		panic(err)
	}
	s.listeners = append(s.listeners, &simListener{Stream: l, stack: stack, cookies: cfg.HalfOpen > 0 && cfg.Backlog > 0})
	s.streams = append(s.streams, l)
}

// setSome sets a few options.
func (s *streamSim) setSome(st *Stream) {
	if s.odds(0.3) {
		_ = st.SetReceiveBuffer(2048 + s.rng.IntN(30_000))
	}
	if s.odds(0.3) {
		_ = st.SetSendBuffer(2048 + s.rng.IntN(30_000))
	}
	_ = st.SetNoDelay(s.odds(0.5))
	_ = st.SetQuickACK(s.odds(0.2))
	_ = st.SetCork(s.odds(0.05))
	if s.odds(0.1) {
		_ = st.SetMaxSegment(48 + s.rng.IntN(1000))
	}
	if s.odds(0.1) {
		_ = st.SetKeepAliveTimes(time.Minute, 10*time.Second, 5)
		_ = st.SetKeepAlive(true)
	}
}

func (s *streamSim) drawPlan(strict bool) simPlan {
	p := simPlan{
		total: s.rng.IntN(1 << uint(3+s.rng.IntN(14))), chunk: 1 + s.rng.IntN(1<<uint(4+s.rng.IntN(13))),
		pause: time.Duration(1 + s.rng.IntN(30_000_000)), lazy: s.odds(0.5),
	}
	if !strict {
		p.violence = []float64{0, 0.01, 0.1, 0.3}[s.rng.IntN(4)]
	}
	return p
}

// dial begins a connection, to the other stack or inside.
func (s *streamSim) dial() {
	s.dialing--
	l := s.listeners[s.rng.IntN(len(s.listeners))]
	from := 1 - l.stack
	if s.odds(0.1) {
		from = l.stack
	}
	st := s.stacks[from].NewStream()
	s.streams = append(s.streams, st)
	s.setSome(st)
	if err := st.Connect(l.LocalAddr()); err != syscall.EINPROGRESS {
		if !l.closed {
			panic(fmt.Sprintf("Connect: %v", err))
		}
		_ = st.Close()
		return
	}
	// Who gets a cookie, and whose ACK is then overtaken by data that is not the first, is reset: to that the cookie is no key.
	c := &simConn{n: len(s.conns), strict: s.odds(0.5) && !l.cookies}
	u := &simUser{sim: s, conn: c, side: 0, st: st, plan: s.drawPlan(c.strict), at: s.now}
	c.ends[0] = u
	s.conns[st.LocalAddr()] = c
	s.users = append(s.users, u)
	s.tell("connection %d: %v to %v, strict %v, %+v", c.n, st.LocalAddr(), st.RemoteAddr(), c.strict, u.plan)
}

// accept takes who waits at one of the listeners.
func (s *streamSim) accept(l *simListener) {
	for {
		st, err := l.Accept()
		if err != nil {
			return
		}
		s.streams = append(s.streams, st)
		c := s.conns[st.RemoteAddr()]
		if c != nil && c.ends[1] != nil && (c.ends[1].done || !c.ends[1].st.Connected()) && l.cookies {
			// A copy of the ACK that brought a cookie came when the connection was over, and nobody can tell it from the first.
			s.tell("connection %d: a ghost", c.n)
			_ = st.Abort()
			continue
		}
		if c == nil || c.ends[1] != nil {
			panic(fmt.Sprintf("%v accepted what nobody dialled, or dialled once: %v", l.LocalAddr(), st.RemoteAddr()))
		}
		u := &simUser{sim: s, conn: c, side: 1, st: st, plan: s.drawPlan(c.strict), at: s.now, connected: true}
		c.ends[1] = u
		s.users = append(s.users, u)
		s.tell("connection %d: accepted, %+v", c.n, u.plan)
	}
}

// play runs the world to its end.
func (s *streamSim) play() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("at %v: %v", s.now.Sub(begin), v)
		}
	}()
	end := begin.Add(2 * time.Hour)
	for s.now < end {
		next := s.settle()
		at, busy := s.act()
		if !busy {
			break
		}
		s.now = max(min(clock.Earliest(next, at), end), s.now+1)
	}
	for _, u := range s.users {
		if !u.done {
			if u.conn.strict {
				i, _ := u.st.Info()
				return fmt.Errorf("connection %d side %d is not done: %+v, %+v", u.conn.n, u.side, *u, i)
			}
			u.finish(u.st.Abort)
		}
	}
	for _, l := range s.listeners {
		if !l.closed {
			_ = l.Close()
		}
	}
	for until := s.now.Add(40 * time.Minute); ; {
		next := s.settle()
		if next == clock.Never || next > until {
			break
		}
		s.now = next
	}
	return s.check()
}

// settle steps until nothing is left to do at this moment.
func (s *streamSim) settle() clock.Time {
	for range 100_000 {
		next := clock.Never
		for _, w := range s.wires {
			w.Advance(s.now.Sub(begin))
		}
		for _, st := range s.stacks {
			next = clock.Earliest(next, st.Step(s.now))
		}
		for _, w := range s.wires {
			if at, ok := w.NextEvent(); ok {
				next = clock.Earliest(next, begin.Add(at))
			}
		}
		if next == clock.Never || next > s.now {
			return next
		}
	}
	panic("the engines never come to rest")
}

// act lets the users act whose time has come. It returns when the next one's does, and false when all are done.
func (s *streamSim) act() (next clock.Time, busy bool) {
	if s.dialing > 0 && s.odds(0.3) {
		s.dial()
	}
	for _, l := range s.listeners {
		if l.closed {
			continue
		}
		s.accept(l)
		if s.odds(0.0005) {
			s.tell("%v closes", l.LocalAddr())
			_ = l.Close()
			l.closed = true
		}
	}
	busy = s.dialing > 0
	if busy {
		next = s.now.Add(time.Millisecond)
	}
	for i := 0; i < len(s.users); i++ {
		u := s.users[i]
		if u.done {
			continue
		}
		busy = true
		if u.at <= s.now {
			u.act()
			u.at = s.now.Add(1 + time.Duration(s.rng.Int64N(int64(2*u.plan.pause))))
		}
		next = clock.Earliest(next, u.at)
	}
	return next, busy
}

func (u *simUser) other() *simUser { return u.conn.ends[1-u.side] }

// finish closes the socket and forgets it.
func (u *simUser) finish(how func() error) {
	u.sim.tell("connection %d side %d ends, wrote %d, read %d", u.conn.n, u.side, u.written, u.read)
	if err := how(); err != nil {
		panic(fmt.Sprintf("connection %d side %d: closing: %v", u.conn.n, u.side, err))
	}
	u.done = true
}

// failed notes an error of the connection.
func (u *simUser) failed(err error) {
	c := u.conn
	u.sim.tell("connection %d side %d: %v", c.n, u.side, err)
	u.err = err
	u.sim.counts.errors++
	refused := u.side == 0 && (err == syscall.ECONNREFUSED || c.ends[1] == nil) // full, or closed before it was accepted
	if refused {
		u.sim.counts.refused++
	} else if c.strict {
		panic(fmt.Sprintf("connection %d side %d: %v, though both behave", c.n, u.side, err))
	}
	u.finish(u.st.Close)
}

func (u *simUser) act() {
	s := u.sim
	if !u.connected {
		if err := u.st.TakeError(); err != nil {
			u.failed(err)
			return
		}
		if !u.st.Connected() {
			if u.st.Events() != 0 { // it was connected, and is gone without an error to tell
				panic(fmt.Sprintf("connection %d: Events %v of a connection that did not come to be", u.conn.n, u.st.Events()))
			}
			if s.odds(u.plan.violence / 10) {
				u.shut = true // the SYN-ACK may be here already
				u.finish(u.st.Close)
			}
			return
		}
		u.connected = true
		s.counts.connected++
	}
	if s.odds(u.plan.violence) {
		u.beRude()
		if u.done {
			return
		}
	}
	if s.odds(0.02) {
		s.setSome(u.st)
		u.st.Info()
	}
	if u.write(); !u.done {
		u.readSome()
	}
}

// beRude does what a user may do and an orderly one does not.
func (u *simUser) beRude() {
	switch s := u.sim; s.rng.IntN(6) {
	case 0:
		u.aborted = true
		u.finish(u.st.Abort)
	case 1:
		_ = u.st.SetLinger(0)
		u.aborted = true
		u.finish(u.st.Close)
	case 2:
		u.shut = true
		u.finish(u.st.Close)
	case 3:
		if u.st.Shutdown(ShutRead) == nil {
			u.deaf = true
		}
	case 4:
		if u.st.Shutdown(ShutWrite) == nil {
			u.shut = true
		}
	case 5:
		u.at = s.now.Add(time.Duration(s.rng.IntN(20)) * time.Second)
	}
}

func (u *simUser) write() {
	if u.shut {
		return
	}
	left := u.plan.total - u.written
	n := min(left, 1+u.sim.rng.IntN(max(u.plan.chunk, left/100)))
	if n > 0 {
		b := u.sim.buffer[:n]
		for i := range b {
			b[i] = u.conn.content(u.side, u.written+i)
		}
		m, err := u.st.Write(b)
		u.written += m
		if err != nil && err != syscall.EAGAIN && u.err == nil {
			u.failed(err)
			return
		}
	}
	if u.written < u.plan.total {
		return
	}
	if err := u.st.Shutdown(ShutWrite); err != nil {
		if err != syscall.ENOTCONN {
			panic(fmt.Sprintf("connection %d side %d: Shutdown: %v", u.conn.n, u.side, err))
		}
		return // Read tells why
	}
	u.shut = true
}

func (u *simUser) readSome() {
	o, waits := u.other(), 0
	if o != nil {
		waits = o.written - u.read
	}
	b := u.sim.buffer[:1+u.sim.rng.IntN(max(u.plan.chunk, waits/100))]
	n, err := u.st.Read(b)
	for i := range n {
		if b[i] != u.conn.content(1-u.side, u.read+i) {
			panic(fmt.Sprintf("connection %d side %d: byte %d is not what was written", u.conn.n, u.side, u.read+i))
		}
	}
	u.read += n
	u.sim.counts.bytes += n
	if o != nil && u.read > o.written {
		panic(fmt.Sprintf("connection %d side %d read %d of %d bytes", u.conn.n, u.side, u.read, o.written))
	}
	switch {
	case n > 0 || err == syscall.EAGAIN:
	case err != nil:
		u.failed(err)
	case u.deaf:
		if u.shut && u.sim.odds(0.1) {
			u.finish(u.st.Close)
		}
	default:
		if o == nil || !o.shut || u.read != o.written {
			panic(fmt.Sprintf("connection %d side %d: the end after %d bytes: %+v", u.conn.n, u.side, u.read, o))
		}
		if u.shut {
			u.sim.counts.orderly++
			u.finish(u.st.Close)
		}
	}
}

// check wants nothing to be left.
func (s *streamSim) check() error {
	for i, st := range s.stacks {
		if list := st.Sockets(); len(list) > 0 {
			return fmt.Errorf("stack %d has sockets left: %+v %+v", i, list[0], list[0].TCP)
		}
		if len(st.binds) > 0 || len(st.streams) > 0 {
			return fmt.Errorf("stack %d has ports left: %v, and streams: %v", i, st.binds, st.streams)
		}
		for _, e := range st.engines {
			if e.conns.count != 0 || len(e.listeners) > 0 || len(e.active) > 0 || e.sockets != 0 || e.wheel.count != 0 {
				return fmt.Errorf("engine %d of stack %d has left: %d connections, %d listeners, %d active, %d sockets, %d timers",
					e.number, i, e.conns.count, len(e.listeners), len(e.active), e.sockets, e.wheel.count)
			}
			s.counts.forwarded += int(e.stats.Forwarded)
		}
		if f := st.ifaces()[0].flows; f != nil {
			for n := range f.shards {
				if len(f.shards[n].m) > 0 {
					return fmt.Errorf("stack %d has flows left: %v", i, f.shards[n].m)
				}
			}
		}
		for _, e := range st.engines {
			if err := sumsOf(&e.stats); err != nil {
				return fmt.Errorf("engine %d of stack %d: %w", e.number, i, err)
			}
		}
	}
	for _, l := range s.listeners {
		if l := l.listen.Load(); l.held.Load() != 0 || l.halfOpen.Load() != 0 {
			return fmt.Errorf("a listening socket has %d places taken and %d half-open", l.held.Load(), l.halfOpen.Load())
		}
	}
	for _, st := range s.streams {
		if n := st.tx.Memory(); n > 0 {
			return fmt.Errorf("%v to %v has %d bytes of send buffer left", st.id.Local, st.id.Remote, n)
		}
		if n := st.rx.Memory(); n > 0 && st.rx.Shrink() {
			return fmt.Errorf("%v to %v has %d bytes of receive buffer left, for nothing", st.id.Local, st.id.Remote, n)
		}
	}
	return nil
}

// sumsOf holds the sums that Stats promises.
func sumsOf(st *Stats) error {
	var drops, txDrops uint64
	for r := range st.Drops {
		drops += st.Drops[r]
		txDrops += st.TxDrops[r]
	}
	in, ends := st.RxFrames+st.RxLocal+st.RxForwarded, st.Delivered+st.Answered+st.Consumed+st.Forwarded+st.Held+drops
	if in != ends || st.Output != st.Sent+st.Waiting+txDrops {
		return fmt.Errorf("the sums do not agree: %d came and %d ended, %d were made and %d ended", in, ends, st.Output, st.Sent+st.Waiting+txDrops)
	}
	return nil
}
