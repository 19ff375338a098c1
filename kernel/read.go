package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack"
)

// catchUp reads the tables whose changes were lost or not told one by one.
func (f *Follower) catchUp() {
	began := time.Now()
	wanted := f.overtaken
	f.overtaken = 0
	err := f.read(wanted)
	took := time.Since(began)
	f.readAfter = time.Now().Add(max(readPause, readShare*took))
	if !failed(err) {
		f.troubles.set(troubleReading, nil)
	}
	if err == nil {
		return
	}
	f.overtaken |= wanted
	f.readAfter = time.Now().Add(readRetry)
	if f.closed.Load() {
		return
	}
	f.log.Warn("the kernel's tables could not be read and will be tried again", "error", err)
	if failed(err) {
		f.troubles.set(troubleReading, fmt.Errorf("the kernel's tables can't be read, and what kit knows of them may be old: %w; "+
			"it is tried again every second: restart kit if it stays so", err))
	}
}

// read reads the wanted tables, one after the other, and tells the sink what is new. What has changed since the reading of
// a table is still in the queue of changes. After nl.ErrDumpInterrupted, entries may be missing.
func (f *Follower) read(wanted tables) error {
	f.stats.reads.Add(1)
	// First of all, because the answer waits for the end of the change that made us read (requests.link).
	l, err := f.requests.link("", f.view.index)
	if errors.Is(err, unix.ENODEV) {
		f.gone()
		return nil
	}
	if err != nil {
		return err
	}
	f.setLink(l)
	var errs []error
	for _, t := range []struct {
		table tables
		read  func() error
	}{
		{tableLinks, f.readLinks},
		{tableAddresses, f.readAddresses},
		{tableRoutes, f.readRoutes},
		{tableNeighbours, f.readNeighbours},
		{tableRules, f.readRules},
	} {
		if wanted&t.table != 0 {
			errs = append(errs, t.read())
		}
	}
	return errors.Join(errs...)
}

// failed reports whether err leaves nothing to work with.
func failed(err error) bool { return err != nil && !errors.Is(err, nl.ErrDumpInterrupted) }

func (f *Follower) readLinks() error {
	all, err := f.requests.links()
	if failed(err) {
		return err
	}
	clear(f.links)
	for _, l := range all {
		f.links[l.index] = l
	}
	return err
}

func (f *Follower) readAddresses() error {
	all, err := f.requests.addresses()
	if failed(err) {
		return err
	}
	now := sharedPrefixesOf(all, f.view.index)
	if slices.Equal(now, f.view.addresses) && !f.untold {
		return err
	}
	f.view.addresses = now
	f.tellAddresses()
	for dst := range f.routes { // their source addresses may be others now
		f.changed[dst] = struct{}{}
	}
	f.tellRoutes()
	return err
}

func (f *Follower) readRoutes() error {
	all, err := f.requests.routes()
	if failed(err) {
		return err
	}
	first := f.routes == nil
	f.replaceRoutes(all)
	if first {
		f.tellAllRoutes()
		f.tellRoutes()
		return err
	}
	for dst := range all {
		f.changed[dst] = struct{}{}
	}
	for dst := range f.told {
		f.changed[dst] = struct{}{}
	}
	f.tellRoutes()
	return err
}

// replaceRoutes takes what was read. Changes that came before or during the reading follow in the queue, and are done again on
// what was read, most of it from after them. That ends well where each place had one route at most all the time, as the last
// change of a place then says what is there (routes.add). Where that is not so, or not known, such a change makes us read
// again.
func (f *Follower) replaceRoutes(all routes) {
	f.settling = true
	f.doubtful = f.routes == nil || f.lost || f.routes.crowded() || all.crowded()
	f.lost = false
	f.routes, f.services = all, true
}

// tellAllRoutes tells them in one step; where the sink does not take that, all are among the changed ones afterwards.
func (f *Follower) tellAllRoutes() {
	list := make([]stack.Route, 0, len(f.routes))
	for dst := range f.routes {
		if r, ok := f.view.route(f.routes, dst); ok {
			f.told[dst] = r
			list = append(list, r)
		}
	}
	if err := f.sink.SetRoutes(list); err != nil {
		clear(f.told)
		for dst := range f.routes {
			f.changed[dst] = struct{}{}
		}
	}
}

// tellAddresses tells the sink the interface's addresses. What it does not take it may take when they change, or when
// they are read the next time for another reason.
func (f *Follower) tellAddresses() {
	err := f.sink.SetAddresses(f.view.addresses)
	if f.untold = err != nil; f.untold {
		f.log.Warn("the interface's addresses could not be taken over from the kernel", "error", err)
	}
	f.troubles.set(troubleAddresses, explain("the kernel's addresses of the interface could not be taken over, those of before are in use", err))
}

func (f *Follower) readNeighbours() error {
	all, err := f.requests.neighbours(f.view.index)
	if failed(err) {
		return err
	}
	gone := f.neighbours
	f.neighbours = make(map[netip.Addr]neighbour, len(all))
	for _, n := range all {
		before, known := gone[n.addr]
		delete(gone, n.addr)
		if known && before == n {
			f.neighbours[n.addr] = n
		} else {
			f.neighbourChanged(n, false)
		}
	}
	for addr := range gone {
		f.sink.DeleteNeighbour(addr)
	}
	return err
}

const policyRouting = "policy routing is in use, and its rules are not followed: what kit sends is routed by the tables local and main " +
	"alone; see 'ip rule'"

// readRules tells the operator once when packets are routed by rules that kit does not follow.
func (f *Follower) readRules() error {
	others, err := f.requests.rules()
	if failed(err) {
		return err
	}
	if f.unfollowed.rules.Swap(int64(others)) == 0 && others > 0 {
		f.log.Warn(policyRouting, "rules", others)
	}
	return err
}
