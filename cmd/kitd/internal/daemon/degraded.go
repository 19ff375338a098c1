package daemon

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
)

// conflictMemory is how long a claim of another host to an address of ours is
// worth telling.
const conflictMemory = time.Minute

// troubles are what went wrong while kitd runs, a sentence each, by what they
// are about.
type troubles struct {
	mu   sync.Mutex
	list map[string]trouble
}

type trouble struct {
	sentence string
	until    time.Time // zero: until it is cleared
}

func (t *troubles) set(about, sentence string, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.list == nil {
		t.list = map[string]trouble{}
	}
	t.list[about] = trouble{sentence, until}
}

func (t *troubles) clear(about string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.list, about)
}

// sentences lists those that still hold.
func (t *troubles) sentences() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for _, about := range slices.Sorted(maps.Keys(t.list)) {
		if e := t.list[about]; e.until.IsZero() || time.Now().Before(e.until) {
			list = append(list, e.sentence)
		}
	}
	return list
}

// conflict is told on an engine that another host claims an address. The log,
// which may be a pipe that nobody empties, is written elsewhere.
func (d *Daemon) conflict(addr netip.Addr, other net.HardwareAddr) {
	sentence := fmt.Sprintf("address %s is claimed by %s too: give one of the two hosts another", addr, other)
	d.troubles.set("conflict "+addr.String(), sentence, time.Now().Add(conflictMemory))
	select {
	case d.conflicts <- sentence:
	default: // the log is slow, and status tells it too
	}
}

// degraded says what is not as it was asked for, or as it should be.
func (d *Daemon) degraded(info *loader.Info) []string {
	list := []string{}
	if d.config.Load().Attach == "auto" && info.Attach == loader.AttachGeneric {
		list = append(list, fmt.Sprintf("XDP is generic because %s has no native XDP: every frame costs more; accept it with --attach generic",
			driver(info)))
	}
	switch {
	case !info.Present:
		list = append(list, fmt.Sprintf("%s is gone: start kitd again when it is back", info.Interface))
	case !info.Up:
		list = append(list, fmt.Sprintf("%s is down: 'ip link set %s up'", info.Interface, info.Interface))
	case !info.Running:
		list = append(list, fmt.Sprintf("%s has no carrier: look at the cable, or the other end", info.Interface))
	}
	for _, q := range info.Queues {
		if !q.CanSend {
			list = append(list, fmt.Sprintf("queue %d of %s receives but can't send: leave it out with --queues, or use fewer queues (ethtool -L %s)",
				q.Queue, info.Interface, info.Interface))
		}
	}
	if card := d.card.Interface(); card.Mode() == stack.Shared && len(card.Addresses()) == 0 {
		list = append(list, fmt.Sprintf("%s has no IPv4 address left to share: give it one", card.Name()))
	}
	for _, err := range d.card.FollowerTroubles() {
		list = append(list, err.Error())
	}
	if !d.Alive() {
		list = append(list, "an engine has not answered for seconds: restart kitd")
	}
	_, wrong := d.services.list()
	return append(append(list, wrong...), d.troubles.sentences()...)
}

func driver(info *loader.Info) string {
	if info.Driver == "" {
		return "its driver"
	}
	return "driver " + info.Driver
}
