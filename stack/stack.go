package stack

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// Stack is a host's IPv4: interfaces with their engines, and sockets.
type Stack struct {
	limits  Limits
	log     *slog.Logger
	engines []*Engine
	gen     atomic.Uint32 // grows when routes or addresses change: sockets look their ways up again
	owners  atomic.Pointer[map[wire.Addr]owner]
	list    atomic.Pointer[[]*Interface] // cards in the order added, the loopback last
	_       [cacheLine]byte              // what packets read is above, what sockets that come and go write is below

	addressWaiters waitQueue // WatchAddresses

	mu      sync.Mutex
	rand    *rand.Rand
	binds   map[bindKey]*bindEntry
	sockets map[*Datagram]struct{}
	streams map[*Stream]struct{} // bound, and not closed; connections that a peer opened only when they have ended
	outside map[Outside]uint64   // their IDs
	lastID  atomic.Uint64
	tcp     tcp.Config
	secret  [32]byte  // of the layers of all engines, so that one knows another's cookies
	connKey [2]uint64 // of the tables of connections
	started bool
	closed  bool
}

// owner says whose an address is.
type owner struct {
	iface *Interface
	kind  localKind
}

// New makes a stack with the loopback interface and no card.
func New(cfg Config) *Stack {
	s := &Stack{
		limits: cfg.Limits.withDefaults(), log: cfg.Logger,
		binds: make(map[bindKey]*bindEntry), sockets: make(map[*Datagram]struct{}), streams: make(map[*Stream]struct{}),
		outside: make(map[Outside]uint64),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	seed := cfg.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	s.rand = rand.New(rand.NewPCG(seed, seed^0x9E3779B97F4A7C15))
	s.initTCP(cfg)
	s.list.Store(&[]*Interface{})
	lo := &Interface{stack: s, name: "lo", mode: Owned, loopback: true, wait: Interrupt, idKey: s.rand.Uint64()}
	lo.mtu.Store(loopbackMTU)
	lo.addrs.Store(&[]wire.Prefix{})
	lo.hw.Store(new(wire.HardwareAddr))
	lo.engines = []*Engine{newEngine(s, lo, 0, newLoopback())}
	s.engines = append(s.engines, lo.engines...)
	s.list.Store(&[]*Interface{lo})
	lo.routes.add(route{prefix: loopbackPrefix.Masked(), source: wire.AddrLoopback})
	if err := lo.SetAddresses([]netip.Prefix{loopbackPrefix.Netip()}); err != nil {
		panic(err) // a constant
	}
	return s
}

// AddInterface adds a card. It must come before Start and before the first socket.
func (s *Stack) AddInterface(cfg InterfaceConfig) (*Interface, error) {
	switch {
	case len(cfg.Links) == 0:
		return nil, fmt.Errorf("interface %q has no links: a card needs one for each queue", cfg.Name)
	case s.started || len(s.sockets) > 0:
		return nil, fmt.Errorf("interface %q comes too late: add it before Start and before the first socket", cfg.Name)
	}
	i := &Interface{
		stack: s, name: cfg.Name, mode: cfg.Mode,
		ports: cfg.Ports, resolver: cfg.Resolver, wait: cfg.Wait, spin: cmp.Or(cfg.Spin, DefaultSpin),
		onConflict: cfg.OnConflict, onError: cfg.OnError, idKey: s.rand.Uint64(),
	}
	i.mtu.Store(int64(cfg.Links[0].MTU()))
	hw := wire.HardwareAddr(cfg.Links[0].HardwareAddr())
	i.hw.Store(&hw)
	i.addrs.Store(&[]wire.Prefix{})
	for _, p := range cfg.Addresses {
		if _, err := checkAddress(p, i.mode, i.loopback); err != nil {
			return nil, err
		}
	}
	gateway, err := gatewayRoute(&cfg)
	if err != nil {
		return nil, err
	}
	for q, l := range cfg.Links {
		e := newEngine(s, i, q, l)
		i.engines = append(i.engines, e)
		s.engines = append(s.engines, e)
	}
	pairSenders(i.engines)
	if len(i.engines) > 1 {
		i.flows = new(flowTable)
	}
	const lineful = cacheLine / 8 // pointers
	for _, e := range s.engines {
		inboxes := make([]atomic.Pointer[inbox], len(s.engines), (len(s.engines)+lineful-1)/lineful*lineful)
		for from := range e.inboxes {
			inboxes[from].Store(e.inboxes[from].Load())
		}
		e.inboxes = inboxes
	}
	list := slices.Clone(s.ifaces())
	list = slices.Insert(list, len(list)-1, i)
	s.list.Store(&list)
	if err := i.SetAddresses(cfg.Addresses); err != nil {
		return nil, err
	}
	if gateway != nil {
		return i, i.AddRoute(*gateway)
	}
	return i, nil
}

var errGateway = errors.New("it is not on the network of any of the interface's addresses, so no ARP request reaches it")

// gatewayRoute is the default route by the gateway, nil where there is none.
func gatewayRoute(cfg *InterfaceConfig) (*Route, error) {
	g := cfg.Gateway.Unmap()
	if !cfg.Gateway.IsValid() {
		return nil, nil
	}
	for _, p := range cfg.Addresses {
		if p.Contains(g) && p.Addr() != g {
			return &Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: g, Source: p.Addr()}, nil
		}
	}
	return nil, fmt.Errorf("gateway %v of %s: %w", cfg.Gateway, cfg.Name, errGateway)
}

// Start runs every engine on a goroutine of its own. Without it a test calls Step.
func (s *Stack) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.closed {
		return
	}
	s.started = true
	for _, e := range s.engines {
		e.start()
	}
}

// Close closes every socket, lets what they wrote go out, and stops the engines. Links are their owner's to close.
func (s *Stack) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	open := make([]*Datagram, 0, len(s.sockets))
	for d := range s.sockets {
		open = append(open, d)
	}
	outside := maps.Clone(s.outside)
	s.mu.Unlock()
	for _, d := range open {
		d.Close()
	}
	for o := range outside {
		_ = o.Close() // its only error is that it is closed already
	}
	s.closeStreams()
	for _, e := range s.engines {
		e.drain()
		e.stop()
	}
	return nil
}

// drain gives what sockets wrote a last chance to go out.
func (e *Engine) drain() {
	for range 100 {
		left := false
		e.do(func() { left = e.emit(); e.publish(); e.flush() })
		if !left {
			return
		}
	}
}

// Step steps every engine once, in order, and returns the earliest time at which one wants to be stepped again.
func (s *Stack) Step(now clock.Time) clock.Time {
	next := clock.Never
	for _, e := range s.engines {
		next = clock.Earliest(next, e.Step(now))
	}
	for _, e := range s.engines {
		if !e.idle() { // one that was stepped later had something for it
			return now
		}
	}
	return next
}

// Interfaces lists the cards in the order they were added, then the loopback.
func (s *Stack) Interfaces() []*Interface { return slices.Clone(s.ifaces()) }

func (s *Stack) ifaces() []*Interface { return *s.list.Load() }

// Stats sums the counters of all engines.
func (s *Stack) Stats() Stats {
	var sum Stats
	for _, e := range s.engines {
		e.do(func() { sum.add(&e.stats) })
	}
	return sum
}

// interfaceGone tells those who wait on sockets of i.
func (s *Stack) interfaceGone(i *Interface) {
	s.gen.Add(1)
	s.mu.Lock()
	for d := range s.sockets {
		if d.Interface() == i {
			d.fail(syscall.ENETDOWN)
		}
	}
	for st := range s.streams {
		if st.Interface() == i && !st.attached {
			st.waiters.notify(Errored | Readable | Writable) // who waits in Accept looks again
		}
	}
	s.mu.Unlock()
	for _, e := range i.engines {
		e.post(e.abandonStreams)
	}
}

// Sockets lists the sockets, the oldest first.
func (s *Stack) Sockets() []SocketInfo {
	s.mu.Lock()
	ds := make([]*Datagram, 0, len(s.sockets))
	for d := range s.sockets {
		ds = append(ds, d)
	}
	streams, outside := maps.Clone(s.streams), maps.Clone(s.outside)
	s.mu.Unlock()
	out := make([]SocketInfo, len(ds))
	for n, d := range ds {
		out[n] = d.info()
	}
	for _, e := range s.engines {
		e.do(func() {
			for n, d := range ds {
				if h := d.halves[e.number].Load(); h != nil {
					out[n].count(h)
				}
			}
			e.conns.each(func(st *Stream) {
				delete(streams, st)
				out = append(out, st.info(e.now))
			})
		})
	}
	for st := range streams {
		out = append(out, st.idleInfo())
	}
	for o, id := range outside {
		i := o.Info()
		i.ID = id
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b SocketInfo) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// SetTap makes t see every frame; nil ends that, and when SetTap returns no call of the old one is under way.
func (s *Stack) SetTap(t Tap) {
	for _, e := range s.engines {
		e.do(func() { e.tapping.tap = t })
	}
}

// addressesChanged rebuilds the map of who has which address.
func (s *Stack) addressesChanged() {
	m := make(map[wire.Addr]owner)
	for _, i := range s.ifaces() {
		for _, p := range i.prefixes() {
			m[p.Addr] = owner{i, localUnicast}
			if b, ok := p.Broadcast(); ok && !i.loopback {
				if _, taken := m[b]; !taken {
					m[b] = owner{i, localBroadcast}
				}
			}
		}
	}
	s.owners.Store(&m)
	s.gen.Add(1)
	for _, e := range s.engines {
		e.post(func() { e.gen++ })
	}
	s.addressWaiters.notify(Closed)
}

// ownerOf is the interface that has the address, nil when it is not ours.
func (s *Stack) ownerOf(a wire.Addr) *Interface {
	if o, ok := (*s.owners.Load())[a]; ok && o.kind == localUnicast {
		return o.iface
	}
	if a.IsLoopback() {
		ifs := s.ifaces()
		return ifs[len(ifs)-1]
	}
	return nil
}

func (s *Stack) isBroadcast(a wire.Addr) bool {
	if a.IsBroadcast() {
		return true
	}
	o, ok := (*s.owners.Load())[a]
	return ok && o.kind == localBroadcast
}

// egress is the interface over which packets for dst leave, for a socket bound on from.
func (s *Stack) egress(dst wire.Addr, from *Interface) (*Interface, error) {
	if err := from.usable(); err != nil {
		return nil, err
	}
	if i := s.ownerOf(dst); i != nil {
		return i, i.usable() // the in-stack loopback of the owner's engines
	}
	if from.loopback {
		return nil, syscall.EINVAL // RFC 1122 §3.2.1.3 (g): a loopback address never leaves the host
	}
	if o, ok := (*s.owners.Load())[dst]; ok {
		return o.iface, o.iface.usable()
	}
	if dst.IsMulticast() {
		return from, from.usable()
	}
	i, r := s.lookup(dst, from)
	switch {
	case i == nil:
		return nil, syscall.ENETUNREACH
	case r.kind == RouteUnreachable:
		return nil, syscall.EHOSTUNREACH
	case r.kind == RouteProhibit:
		return nil, syscall.EACCES
	case r.kind == RouteBlackhole:
		return nil, syscall.EINVAL // as Linux answers a blackhole route (net/ipv4/fib_semantics.c)
	}
	return i, i.usable()
}

// usable is ENETDOWN once the card is gone.
func (i *Interface) usable() error {
	if i.gone.Load() {
		return syscall.ENETDOWN
	}
	return nil
}

// lookup finds the best route of all cards, the socket's own card first among equals.
func (s *Stack) lookup(dst wire.Addr, from *Interface) (best *Interface, found route) {
	for _, i := range s.ifaces() {
		if i.loopback {
			continue
		}
		r, ok := i.routes.lookup(dst, int(dst))
		if !ok || r.kind == RouteElsewhere {
			continue
		}
		longer := int(r.prefix.Bits) - int(found.prefix.Bits)
		if best == nil || longer > 0 || longer == 0 && (r.metric < found.metric || r.metric == found.metric && i == from) {
			best, found = i, r
		}
	}
	return best, found
}

// sourceTo is the local address that packets for dst should come from.
func (s *Stack) sourceTo(dst wire.Addr) (wire.Addr, error) {
	if i := s.ownerOf(dst); i != nil {
		if i.loopback {
			return wire.AddrLoopback, nil
		}
		return dst, nil
	}
	ifs := s.ifaces()
	card := ifs[0]
	if card.loopback {
		if dst.IsBroadcast() {
			return 0, syscall.EADDRNOTAVAIL // no interface to send it on
		}
		return 0, syscall.ENETUNREACH
	}
	var hop, source wire.Addr
	switch o, ok := (*s.owners.Load())[dst]; {
	case ok:
		card, hop = o.iface, dst
	case dst.IsBroadcast() || dst.IsMulticast():
		hop = dst
	default:
		i, err := s.egress(dst, card)
		if err != nil {
			return 0, err
		}
		r, _ := i.routes.lookup(dst, int(dst))
		card, hop, source = i, cmp.Or(r.gateway, dst), r.source
	}
	if source != 0 && s.ownerOf(source) != nil {
		return source, nil
	}
	for _, p := range card.prefixes() {
		if p.Contains(hop) {
			return p.Addr, nil
		}
	}
	if ps := card.prefixes(); len(ps) > 0 {
		return ps[0].Addr, nil
	}
	return 0, syscall.EADDRNOTAVAIL
}

func sortNeighbours(ns []NeighbourEntry) {
	slices.SortFunc(ns, func(a, b NeighbourEntry) int { return a.Addr.Compare(b.Addr) })
}
