// Package check looks at whether this machine can run kit as it is asked to:
// what the loader finds of kernel and card, and around it other kitds,
// addresses, ports and neighbours.
package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/kernel"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
)

// Run looks at the machine and, where c names one, at a card, in the network
// namespace of the calling thread. It changes nothing; it sends ARP requests. An
// error means that the looking failed.
func Run(ctx context.Context, c *config.Config) ([]loader.Finding, error) {
	asked, err := settings(c)
	if err != nil {
		return nil, err
	}
	facts, err := loader.Probe(c.Interface)
	if err != nil {
		return nil, fmt.Errorf("the machine can't be looked at: %w", err)
	}
	list := append(facts.Findings(asked), running(ctx, c))
	if c.Metrics != "" {
		list = append(list, metrics(c.Metrics))
	}
	if c.Interface == "" {
		return list, nil
	}
	card, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return list, nil // the loader's findings say so
	}
	list = append(list, waiting(c, facts))
	addresses, err := kernel.Addresses(c.Interface)
	if err != nil {
		return nil, err
	}
	if c.Owned() {
		list = append(list, owned(ctx, c, card)...)
	} else {
		list = append(list, shared(c, addresses)...)
	}
	return append(list, gateway(ctx, c, card, addresses)), nil
}

// settings are what the loader would be asked for.
func settings(c *config.Config) (loader.Config, error) {
	s := loader.Config{
		Interface: c.Interface, Queues: c.Queues, FrameSize: c.FrameSize, Frames: c.Frames, RingSize: c.RingSize, MTU: c.MTU,
	}
	if err := s.Attach.UnmarshalText([]byte(c.Attach)); err != nil {
		return s, err
	}
	if err := s.Copy.UnmarshalText([]byte(c.Copy)); err != nil {
		return s, err
	}
	return s, s.TxChecksum.UnmarshalText([]byte(c.TxChecksum))
}

func ok(topic, format string, args ...any) loader.Finding {
	return loader.Finding{Topic: topic, Severity: loader.OK, What: fmt.Sprintf(format, args...)}
}

func warn(topic, fix, format string, args ...any) loader.Finding {
	return loader.Finding{Topic: topic, Severity: loader.Warn, What: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(topic, fix, format string, args ...any) loader.Finding {
	return loader.Finding{Topic: topic, Severity: loader.Fail, What: fmt.Sprintf(format, args...), Fix: fix}
}

// running looks for a kitd on the control socket that a new one would use.
func running(ctx context.Context, c *config.Config) loader.Finding {
	const topic = "other kitd"
	raw, err := control.NewClient(c.Control).Get(ctx, "status", nil)
	var s control.Status
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return ok(topic, "none on %s", c.Control)
	case err != nil:
		return warn(topic, "see what that is, or use another --control", "%v", err)
	case s.Interface == c.Interface:
		return fail(topic, fmt.Sprintf("kill %d, or ask it with kitd status", s.PID), "kitd, pid %d, holds %s already", s.PID, s.Interface)
	}
	return warn(topic, "give the new one another --control", "kitd, pid %d, holds %s and has %s", s.PID, s.Interface, c.Control)
}

// waiting looks whether engines that never sleep leave a processor to others.
func waiting(c *config.Config, f *loader.Facts) loader.Finding {
	const topic = "wait"
	engines := len(c.Queues)
	if c.Queues == nil {
		engines = f.Card.RxQueues
	}
	switch {
	case c.Wait == "busy" && engines >= f.CPUs:
		return warn(topic, "--wait adaptive, or fewer --queues", "busy: engines that never sleep, one for each queue, take %d of %d processors",
			engines, f.CPUs)
	case c.Wait == "busy":
		return ok(topic, "busy: %d of %d processors are the engines' alone", engines, f.CPUs)
	case c.Wait == "interrupt":
		return ok(topic, "interrupt: engines sleep between frames")
	case c.Spin == 0:
		return ok(topic, "adaptive: engines poll for %v after the last frame", stack.DefaultSpin)
	}
	return ok(topic, "adaptive: engines poll for %v after the last frame", c.Spin)
}

// metrics tries to listen where Prometheus is to be answered.
func metrics(at string) loader.Finding {
	const topic = "metrics"
	l, err := net.Listen("tcp", at)
	if err != nil {
		return fail(topic, "another --metrics", "%s can't be listened on: %v", at, err)
	}
	l.Close()
	return ok(topic, "%s is free", at)
}

// shared looks at the kernel's addresses of the card, and at who has the ports.
func shared(c *config.Config, addresses []netip.Prefix) []loader.Finding {
	if len(addresses) == 0 {
		return []loader.Finding{fail("address", fmt.Sprintf("ip address add 10.0.0.5/24 dev %s, or own one with --address", c.Interface),
			"%s has no IPv4 address to share", c.Interface)}
	}
	list := []loader.Finding{ok("address", "shares %v", addresses)}
	for _, s := range c.Services {
		places := []netip.Addr{s.Addr}
		if !s.Addr.IsValid() {
			places = nil
			for _, p := range addresses {
				places = append(places, p.Addr())
			}
		}
		for _, a := range places {
			list = append(list, port(s, netip.AddrPortFrom(a, s.Port)))
		}
	}
	return list
}

// port tries what kit would do first: take the port in the kernel.
func port(s config.Service, at netip.AddrPort) loader.Finding {
	topic := fmt.Sprintf("port %d", at.Port())
	err := take(s, at)
	switch {
	case err == nil:
		return ok(topic, "%s is free at %s", s.Name, at)
	case errors.Is(err, syscall.EADDRINUSE):
		return fail(topic, fmt.Sprintf("ss -ltunp 'sport = :%d' shows who has it", at.Port()), "another program has %s, where %s is to be", at, s.Name)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fail(topic, fmt.Sprintf("--serve %s=:%d is every address of the card", s.Name, s.Port), "%s is no address of this machine", at.Addr())
	case errors.Is(err, syscall.EACCES):
		return fail(topic, "run as root, or give CAP_NET_BIND_SERVICE", "ports below 1024 are not for this user")
	}
	return fail(topic, "use another port", "%s can't be taken: %v", at, err)
}

// take takes the port of each of the service's protocols for a moment.
func take(s config.Service, at netip.AddrPort) error {
	tcp, udp := s.Protocols()
	if udp {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		conn.Close()
	}
	if tcp {
		l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

// owned looks whether somebody has the addresses that kit is to own.
func owned(ctx context.Context, c *config.Config, card *net.Interface) []loader.Finding {
	var list []loader.Finding
	for _, p := range c.Addresses {
		topic := "address " + p.Addr().String()
		if err := kernel.CheckOwned(p.Addr()); err != nil {
			list = append(list, fail(topic, "leave --address out to share it, or use one that is free", "%v", err))
			continue
		}
		switch who, err := whoHas(ctx, card, netip.IPv4Unspecified(), p.Addr()); {
		case err == nil:
			list = append(list, fail(topic, "use an address that is free", "%s has it", who))
		case errors.Is(err, errSilence):
			list = append(list, ok(topic, "nobody answers for it"))
		default:
			list = append(list, warn(topic, "run as root", "whether it is free can't be asked: %v", err))
		}
	}
	return list
}

// gateway looks whether the next hop of the default route answers.
func gateway(ctx context.Context, c *config.Config, card *net.Interface, addresses []netip.Prefix) loader.Finding {
	const topic = "gateway"
	next := c.Gateway
	if !c.Owned() {
		var err error
		if next, err = defaultGateway(card); err != nil {
			return warn(topic, "ip route show", "the routes can't be read: %v", err)
		}
	}
	if !next.IsValid() {
		return ok(topic, "there is none over %s: only its networks are reached", card.Name)
	}
	from := netip.IPv4Unspecified()
	for _, p := range addresses {
		if p.Contains(next) {
			from = p.Addr()
		}
	}
	switch who, err := whoHas(ctx, card, from, next); {
	case err == nil:
		return ok(topic, "%s answers, %s", next, who)
	case errors.Is(err, errSilence):
		return warn(topic, "look at the cable, the VLAN and the address", "%s does not answer ARP on %s", next, card.Name)
	default:
		return warn(topic, "run as root", "%s can't be asked: %v", next, err)
	}
}

// defaultGateway is the next hop of the kernel's default route over a card, zero
// where there is none.
func defaultGateway(card *net.Interface) (netip.Addr, error) {
	filter := &netlink.Route{LinkIndex: card.Index, Table: unix.RT_TABLE_MAIN}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if next, ok := netip.AddrFromSlice(r.Gw.To4()); ok {
			return next, nil
		}
	}
	return netip.Addr{}, nil
}

// How often and how long an address is asked for, as arping does.
const (
	arpTries = 3
	arpWait  = 500 * time.Millisecond
)
