package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
)

// Sink is told what the kernel knows; a *stack.Interface does all but LinkState. Calls come one at a time and should not
// take long: meanwhile the kernel's changes queue up, though none is lost for good.
type Sink interface {
	// SetAddresses replaces the interface's IPv4 addresses, each with the length of its network, the preferred one first.
	SetAddresses([]netip.Prefix) error
	// SetRoutes replaces all routes.
	SetRoutes([]stack.Route) error
	// AddRoute adds a route, in place of one with the same Dst, Metric, Gateway and Kind. There is one route for each Dst; a
	// new one is added before the old one is deleted.
	AddRoute(stack.Route) error
	// DeleteRoute deletes the route with the same Dst, Metric, Gateway and Kind, and reports whether there was one.
	DeleteRoute(stack.Route) bool
	// SetNeighbour tells the present state of a neighbour, also when it was asked for by Resolve and has not changed.
	SetNeighbour(stack.NeighbourEntry)
	// DeleteNeighbour tells that the kernel has forgotten a neighbour.
	DeleteNeighbour(netip.Addr)
	// LinkState tells whether the interface is up and has a carrier, its MTU, which is the longest IP packet in bytes, and its
	// Ethernet address, zero where it has none. An MTU of 0 says that the interface is gone; no more calls follow.
	LinkState(up bool, mtu int, hardware [6]byte)
}

// FollowerConfig describes a Follower.
type FollowerConfig struct {
	Interface string
	Logger    *slog.Logger // nil: silent
	// LinkOnly follows the link alone: of the Sink only LinkState is called. That is for addresses that the kernel does not have.
	LinkOnly bool
	// ReceiveBuffer is how many bytes of changes the kernel keeps for the follower; 0 is 4 MiB. When it does not suffice,
	// the follower reads everything anew.
	ReceiveBuffer int
}

// FollowerStats counts what a Follower did since it was made.
type FollowerStats struct {
	Changes  uint64 // messages from the kernel
	Overruns uint64 // times that the kernel dropped changes, so that everything was read anew
	Reads    uint64 // times that one or more of the kernel's tables were read
	Asked    uint64 // neighbours asked for
	Unasked  uint64 // neighbours not asked for because too many were wanted at a time
}

// A Follower keeps a Sink told of what the kernel knows of one interface. It also implements stack.Resolver.
type Follower struct {
	name     string
	log      *slog.Logger
	changes  *changes
	requests *requests
	initial  []netip.Prefix // addresses
	sink     Sink
	started  atomic.Bool
	closed   atomic.Bool
	done     chan struct{} // closed by Close, or when the interface is gone
	end      sync.Once
	running  sync.WaitGroup

	// What the loop knows.
	isGone     bool
	ignored    tables // never read
	link       link
	links      map[int]link // of the whole namespace, by index
	view       view
	routes     routes
	told       map[netip.Prefix]stack.Route
	changed    map[netip.Prefix]struct{} // destinations whose routes have changed since the sink was told
	untaken    map[netip.Prefix]error    // destinations whose routes the sink did not take
	untold     bool                      // the sink has not taken the addresses
	neighbours map[netip.Addr]neighbour
	services   bool // routes for a type of service have changed since they were counted
	settling   bool // the routes have been read, and changes from before that may still be in the queue
	doubtful   bool // and they can't be done again on what was read, see replaceRoutes
	lost       bool // changes were, since the routes were read
	overtaken  tables
	readAfter  time.Time // when overtaken tables may be read again

	unfollowed struct{ rules, services atomic.Int64 }
	troubles   troubles
	asker      asker
	tableFull  time.Time // when a full neighbour table was last logged
	stats      struct{ changes, overruns, reads, asked, unasked atomic.Uint64 }
}

// tables is a set of the kernel's tables.
type tables uint8

const (
	tableLinks tables = 1 << iota
	tableAddresses
	tableRoutes
	tableNeighbours
	tableRules

	tablesAll = tableLinks | tableAddresses | tableRoutes | tableNeighbours | tableRules
)

const (
	// readPause is the least time between two readings of the kernel's tables; it gathers bursts of changes.
	readPause = 20 * time.Millisecond
	// readShare is how many times as long as a reading took the next one is put off at least, when tables are large.
	readShare = 4
	// readRetry is when a failed reading is repeated.
	readRetry = time.Second
)

// NewFollower subscribes to the changes of an interface in the calling thread's network namespace. Nothing is told to
// anybody before Start.
func NewFollower(cfg FollowerConfig) (*Follower, error) {
	f := &Follower{
		name: cfg.Interface, log: cfg.Logger, done: make(chan struct{}),
		links: map[int]link{}, told: map[netip.Prefix]stack.Route{}, changed: map[netip.Prefix]struct{}{},
		untaken:    map[netip.Prefix]error{},
		neighbours: map[netip.Addr]neighbour{},
	}
	if cfg.LinkOnly {
		f.ignored = tablesAll &^ tableLinks
	}
	f.overtake(tablesAll)
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.log = f.log.With("interface", cfg.Interface)
	if err := f.open(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("follow the kernel's view of %s: %w", cfg.Interface, err), f.Close())
	}
	return f, nil
}

// open subscribes first and reads after, so that no change falls between.
func (f *Follower) open(cfg FollowerConfig) (err error) {
	size := cfg.ReceiveBuffer
	if size == 0 {
		size = receiveBuffer
	}
	if f.changes, err = subscribe(size, cfg.LinkOnly); err != nil {
		return err
	}
	if f.requests, err = openRequests(); err != nil {
		return err
	}
	if f.link, err = f.requests.link(cfg.Interface, 0); err != nil {
		return fmt.Errorf("%w; `ip link` lists the interfaces", err)
	}
	f.view.index = f.link.index
	f.asker.init(f)
	if cfg.LinkOnly {
		return nil
	}
	if err := f.link.check(); err != nil {
		return err
	}
	all, err := f.requests.addresses()
	if err != nil {
		return err
	}
	f.initial = sharedPrefixesOf(all, f.view.index)
	f.view.addresses, f.untold = f.initial, true
	return nil
}

// linkOnly is what FollowerConfig said.
func (f *Follower) linkOnly() bool { return f.ignored != 0 }

// overtake has tables read again.
func (f *Follower) overtake(t tables) { f.overtaken |= t &^ f.ignored }

// check refuses an interface whose routes are in a table that is not followed.
func (l link) check() error {
	if l.slave != "vrf" {
		return nil
	}
	return fmt.Errorf("it belongs to a VRF, whose routing table is not followed: %w; take it out with `ip link set %s nomaster`, "+
		"or give kit an address of its own", unix.EOPNOTSUPP, l.name)
}

// Addresses lists the interface's IPv4 addresses as they were when the follower was made; Start tells later changes.
// Addresses of 127.0.0.0/8 are left out: they are the stack's own.
func (f *Follower) Addresses() []netip.Prefix {
	return slices.Clone(f.initial)
}

// Start tells the sink all there is, then every change until Close. When it returns, the sink has been told all. It may be
// called once.
func (f *Follower) Start(sink Sink) error {
	if f.started.Swap(true) {
		return fmt.Errorf("follow the kernel's view of %s: it is followed already: %w", f.name, unix.EALREADY)
	}
	f.sink = sink
	sink.LinkState(f.link.up, f.link.mtu, f.link.hardware)
	if err := f.read(tablesAll &^ f.ignored); err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return fmt.Errorf("follow the kernel's view of %s: %w", f.name, err)
	}
	f.running.Go(f.loop)
	f.running.Go(f.asker.loop)
	return nil
}

// Close ends the following. No call of the sink is under way when it returns; the sink must not call it.
func (f *Follower) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	f.end.Do(func() { close(f.done) })
	var err error
	if f.changes != nil {
		err = f.changes.close()
	}
	if f.requests != nil {
		f.requests.close()
	}
	f.running.Wait()
	return err
}

// Stats returns the counters. Any goroutine may call it.
func (f *Follower) Stats() FollowerStats {
	s := &f.stats
	return FollowerStats{
		Changes: s.changes.Load(), Overruns: s.overruns.Load(), Reads: s.reads.Load(),
		Asked: s.asked.Load(), Unasked: s.unasked.Load(),
	}
}

// loop takes the changes and passes them on.
func (f *Follower) loop() {
	for !f.isGone {
		var deadline time.Time
		if f.overtaken != 0 {
			deadline = f.readAfter
		}
		err := f.take(deadline)
		if f.isGone || f.closed.Load() {
			return
		}
		f.troubles.set(troubleChanges, explainDeaf(err))
		if err != nil {
			f.deaf(err)
		}
		f.tellRoutes()
		if f.overtaken != 0 && !time.Now().Before(f.readAfter) {
			f.catchUp()
		}
	}
}

// takeMost bounds the reads of one take, so that routes are told and tables read in the middle of a flood as well.
const takeMost = 256

// take waits for changes until the deadline and deals with all that have come.
func (f *Follower) take(deadline time.Time) error {
	lost := false
	for n := 0; n < takeMost || lost; n++ {
		messages, err := f.changes.receive(n == 0, deadline)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// What is still queued is older than what will be read. The kernel queues nothing more until the queue is empty
			// (netlink_overrun in net/netlink/af_netlink.c), so it must be emptied first.
			lost = true
			f.stats.overruns.Add(1)
			f.overtake(tablesAll)
			f.lost = true
			continue
		case errors.Is(err, errNothing):
			f.settling, f.doubtful = false, false
			return nil
		case err != nil:
			return err
		}
		f.stats.changes.Add(uint64(len(messages)))
		if lost {
			continue
		}
		for i := range messages {
			if f.change(&messages[i]); f.isGone {
				return nil
			}
		}
	}
	return nil
}

// deaf waits after an error of the netlink socket that is not foreseen, and has everything read, for as long as it lasts.
func (f *Follower) deaf(err error) {
	f.log.Error("the kernel's changes could not be received", "error", err)
	f.overtake(tablesAll)
	f.lost = true
	select {
	case <-f.done:
	case <-time.After(readRetry):
	}
}

// change deals with one message.
func (f *Follower) change(m *syscall.NetlinkMessage) {
	switch m.Header.Type {
	case unix.NLMSG_ERROR:
		f.refused(m.Data)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if l, ok := decodeLink(m.Data); ok {
			f.linkChanged(l, m.Header.Type == unix.RTM_DELLINK)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, ok := decodeAddress(m.Data)
		if ok && a.index == f.view.index {
			f.overtake(tableAddresses)
		}
		if m.Header.Type == unix.RTM_DELADDR {
			f.overtake(tableRoutes) // older kernels do not tell which routes went with their source address
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if r, ok := decodeRoute(m.Data); ok && r.followed() {
			f.routeChanged(r, m.Header.Flags, m.Header.Type == unix.RTM_DELROUTE)
		}
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		f.overtake(tableRoutes)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		f.overtake(tableRules)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if n, ok := decodeNeighbour(m.Data); ok && n.index == f.view.index {
			f.neighbourChanged(n, m.Header.Type == unix.RTM_DELNEIGH)
		}
	}
}

// linkChanged deals with a change of any interface: when one goes down the kernel drops routes and does not tell which.
func (f *Follower) linkChanged(l link, gone bool) {
	if gone && l.index == f.view.index {
		f.gone()
		return
	}
	before, known := f.links[l.index]
	if gone {
		delete(f.links, l.index)
	} else {
		f.links[l.index] = l
	}
	if gone || !known || before.flags != l.flags || before.master != l.master {
		f.overtake(tableRoutes)
	}
	if l.index == f.view.index && !gone {
		f.setLink(l)
	}
}

// setLink takes the interface's present state.
func (f *Follower) setLink(l link) {
	if l.up != f.link.up || l.mtu != f.link.mtu || l.hardware != f.link.hardware {
		f.sink.LinkState(l.up, l.mtu, l.hardware)
	}
	if !f.linkOnly() {
		err := l.check()
		if err != nil && f.link.check() == nil {
			f.log.Warn("the interface can no longer be followed, so nothing beyond this host can be reached", "error", err)
		}
		f.troubles.set(troubleVRF, explain("the kernel's routes of the interface can't be followed", err))
	}
	f.link = l
}

// gone tells that the interface has left this namespace, and ends the following.
func (f *Follower) gone() {
	f.log.Info("the interface is gone from the kernel")
	if !f.linkOnly() {
		f.routes, f.view.addresses = nil, nil
		f.tellAllRoutes()
		f.tellAddresses()
	}
	f.sink.LinkState(false, 0, [6]byte{})
	f.isGone = true
	f.end.Do(func() { close(f.done) })
}

// routeChanged follows one change, and has all routes read anew where it can't be told what it did.
func (f *Follower) routeChanged(r kernelRoute, flags uint16, gone bool) {
	f.changed[r.dst] = struct{}{}
	f.services = f.services || r.tos != 0
	sure := !f.doubtful
	switch {
	case gone:
		sure = (f.routes.remove(r) || f.settling) && sure
	case r.unresolved():
		sure = false
	default:
		sure = (f.routes.add(r, flags) || !f.settling) && sure
	}
	if !sure {
		f.overtake(tableRoutes)
	}
}

// tellRoutes tells the sink what has changed for the destinations in changed.
func (f *Follower) tellRoutes() {
	for dst := range f.changed {
		now, ok := f.view.route(f.routes, dst)
		before, had := f.told[dst]
		switch {
		case ok && (!had || now != before):
			f.told[dst] = now
			f.refuse(dst, f.sink.AddRoute(now))
			if had && (now.Metric != before.Metric || now.Gateway != before.Gateway || now.Kind != before.Kind) {
				f.sink.DeleteRoute(before)
			}
		case !ok && had:
			delete(f.told, dst)
			f.sink.DeleteRoute(before)
			f.refuse(dst, nil)
		}
	}
	clear(f.changed)
	f.troubles.set(troubleRoutes, f.refusal())
	if f.services {
		f.services = false
		f.unfollowed.services.Store(f.routes.services())
	}
}

// refuse notes that the sink did not take the route to dst, or with a nil err that it did.
func (f *Follower) refuse(dst netip.Prefix, err error) {
	if err == nil {
		delete(f.untaken, dst)
		return
	}
	f.log.Warn("a route could not be taken over from the kernel", "route", dst, "error", err)
	f.untaken[dst] = err
}

// refusal says which routes the sink did not take, nil where it has them all.
func (f *Follower) refusal() error {
	for dst, err := range f.untaken {
		return fmt.Errorf("%d of the kernel's routes could not be taken over, %v among them: %w", len(f.untaken), dst, err)
	}
	return nil
}

func (f *Follower) neighbourChanged(n neighbour, gone bool) {
	if gone {
		if _, ok := f.neighbours[n.addr]; ok {
			delete(f.neighbours, n.addr)
			f.sink.DeleteNeighbour(n.addr)
		}
		return
	}
	entry := n.entry()
	if !n.known && entry.State != stack.NeighbourFailed && entry.State != stack.NeighbourIncomplete {
		return // reachable without an Ethernet address: not by Ethernet
	}
	f.neighbours[n.addr] = n
	f.sink.SetNeighbour(entry)
}

// entry says n in the stack's terms.
func (n *neighbour) entry() stack.NeighbourEntry {
	e := stack.NeighbourEntry{Addr: n.addr}
	if n.known {
		e.HardwareAddr = append(e.HardwareAddr, n.hardware[:]...)
	}
	switch {
	case n.state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0:
		e.State = stack.NeighbourPermanent
	case n.state&unix.NUD_REACHABLE != 0:
		e.State = stack.NeighbourReachable
	case n.state&unix.NUD_STALE != 0:
		e.State = stack.NeighbourStale
	case n.state&(unix.NUD_DELAY|unix.NUD_PROBE) != 0:
		e.State = stack.NeighbourProbe
	case n.state&unix.NUD_FAILED != 0:
		e.State = stack.NeighbourFailed
	default:
		e.State = stack.NeighbourIncomplete
	}
	return e
}
