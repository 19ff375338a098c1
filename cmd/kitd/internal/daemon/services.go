package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/cmd/kitd/internal/iperf3"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// services are the built-in services on a card. One that is at every address
// follows the card's addresses.
type services struct {
	stack *stack.Stack
	card  *stack.Interface
	log   *slog.Logger
	guard guard
	iperf *iperf3.Server

	mu    sync.Mutex
	asked []config.Service
	open  map[place]io.Closer
	// failed are the places that could not be opened, so that each is logged once.
	failed map[place]error
}

// place is a service at one address.
type place struct {
	name string
	at   netip.AddrPort
}

func newServices(s *stack.Stack, card *stack.Interface, log *slog.Logger) *services {
	v := &services{stack: s, card: card, log: log, open: map[place]io.Closer{}, failed: map[place]error{}}
	v.guard.set(nil)
	v.iperf = newIperf(s, log)
	return v
}

// set makes these the services; those that stay are not touched. The error joins
// a sentence for each place where one can't be opened.
func (v *services) set(asked []config.Service) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range asked {
		if s.Name == "udp-chargen" && !slices.Contains(v.asked, s) {
			v.log.Warn("udp-chargen answers a forged source with up to 512 bytes: keep strangers out, or it amplifies attacks",
				"service", s.String())
		}
	}
	v.asked = slices.Clone(asked)
	v.failed = map[place]error{}
	v.guard.set(asked)
	return v.reconcile()
}

// follow opens and closes sockets as the card's addresses have come and gone.
func (v *services) follow() {
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.reconcile() // logged, and seen in degraded
}

// reconcile opens what is asked for and not open, and closes the rest.
func (v *services) reconcile() error {
	wanted := map[place]config.Service{}
	for _, s := range v.asked {
		for _, at := range v.places(s) {
			wanted[place{s.Name, at}] = s
		}
	}
	for p, socket := range v.open {
		if _, ok := wanted[p]; !ok {
			_ = socket.Close() // its only error is that it is closed already
			delete(v.open, p)
			v.log.Info("service closed", "service", p.name, "at", p.at)
		}
	}
	var problems []error
	for p, s := range wanted {
		if v.open[p] != nil {
			continue
		}
		if err := v.openAt(p); err != nil {
			err = fmt.Errorf("service %s can't be opened at %s: %w", s, p.at, err)
			if v.failed[p] == nil {
				v.log.Error(err.Error())
			}
			v.failed[p] = err
			problems = append(problems, err)
			continue
		}
		delete(v.failed, p)
		v.log.Info("service open", "service", p.name, "at", p.at)
	}
	return errors.Join(problems...)
}

// places are where a service is to be at this time.
func (v *services) places(s config.Service) []netip.AddrPort {
	if s.Addr.IsValid() {
		return []netip.AddrPort{netip.AddrPortFrom(s.Addr, s.Port)}
	}
	var at []netip.AddrPort
	for _, p := range v.card.Addresses() {
		at = append(at, netip.AddrPortFrom(p.Addr(), s.Port))
	}
	return at
}

func (v *services) openAt(p place) error {
	if p.name == "iperf3" {
		server, err := openIperf(v.iperf, v.stack, p.at, v.log)
		if err != nil {
			return v.explain(p, err)
		}
		v.open[p] = server
		return nil
	}
	if streamServers[p.name] != nil {
		stream, err := openStream(v.stack, p.name, p.at, v.log)
		if err != nil {
			return v.explain(p, err)
		}
		v.open[p] = stream
		return nil
	}
	socket := v.stack.NewDatagram(wire.ProtocolUDP)
	err := socket.SetHandler(v.guard.handler(p.name, p.at.Addr()))
	if err == nil {
		err = socket.Bind(p.at)
	}
	if err != nil {
		_ = socket.Close()
		return v.explain(p, err)
	}
	v.open[p] = socket
	return nil
}

// explain says what to do about a failed bind.
func (v *services) explain(p place, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w; see who has it with 'ss -ltunp sport = :%d', and stop that or use another port", err, p.at.Port())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w; %s has %v, or leave the address out for all of them", err, v.card.Name(), v.card.Addresses())
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w; ports below 1024 need CAP_NET_BIND_SERVICE", err)
	}
	return err
}

// close closes all sockets.
func (v *services) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = nil
	_ = v.reconcile() // nothing is wanted
}

// list says where each service is, and what is wrong, a sentence each.
func (v *services) list() (list []control.Service, wrong []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	list = []control.Service{}
	for _, s := range v.asked {
		entry := control.Service{Name: s.Name, Asked: s.String(), Addresses: []string{}}
		for _, at := range v.places(s) {
			if v.open[place{s.Name, at}] != nil {
				entry.Addresses = append(entry.Addresses, at.String())
			}
		}
		if len(entry.Addresses) == 0 && !s.Addr.IsValid() && len(v.card.Addresses()) == 0 {
			wrong = append(wrong, fmt.Sprintf("service %s answers nowhere: %s has no address; give it one", s, v.card.Name()))
		}
		list = append(list, entry)
	}
	for _, err := range v.failed {
		wrong = append(wrong, err.Error())
	}
	slices.Sort(wrong)
	return list, wrong
}
