package kit

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

// steering tells the XDP program which ports are bound.
type steering struct{ t *bpf.Tables }

func (s steering) BindPort(proto uint8, addr netip.Addr, port uint16) error {
	if wire.Protocol(proto) == wire.ProtocolICMP {
		return s.t.BindICMPID(addr, port)
	}
	return s.t.BindPort(bpf.Protocol(proto), addr, port)
}

func (s steering) UnbindPort(proto uint8, addr netip.Addr, port uint16) error {
	if wire.Protocol(proto) == wire.ProtocolICMP {
		return s.t.UnbindICMPID(addr, port)
	}
	return s.t.UnbindPort(bpf.Protocol(proto), addr, port)
}

// steerings tells the program of the card that has the address. kernel.Ports calls it under its lock.
type steerings struct {
	kit *Kit
	at  map[steered]*Card
}

type steered struct {
	proto uint8
	at    netip.AddrPort
}

func (s *steerings) BindPort(proto uint8, addr netip.Addr, port uint16) error {
	for _, c := range s.kit.cards {
		if c.iface != nil && slices.ContainsFunc(c.iface.Addresses(), func(p netip.Prefix) bool { return p.Addr() == addr }) {
			s.at[steered{proto, netip.AddrPortFrom(addr, port)}] = c
			return steering{c.tables}.BindPort(proto, addr, port)
		}
	}
	return fmt.Errorf("no card has %v: %w", addr, syscall.EADDRNOTAVAIL)
}

// resteer steers a port of this card's sockets once more. kernel.Ports calls it under its lock.
func (c *Card) resteer(proto uint8, addr netip.Addr, port uint16) error {
	if c.kit.steerings.at[steered{proto, netip.AddrPortFrom(addr, port)}] != c {
		return nil // another card has the address too, and the sockets
	}
	return steering{c.tables}.BindPort(proto, addr, port)
}

func (s *steerings) UnbindPort(proto uint8, addr netip.Addr, port uint16) error {
	key := steered{proto, netip.AddrPortFrom(addr, port)}
	c := s.at[key]
	if c == nil {
		return nil
	}
	delete(s.at, key)
	return steering{c.tables}.UnbindPort(proto, addr, port)
}

// steer makes the program take frames for the addresses and their networks' broadcasts, and for no others.
func (c *Card) steer(ps []netip.Prefix) error {
	kind := bpf.Shared
	if c.iface.Mode() == stack.Owned {
		kind = bpf.Owned
	}
	next := map[netip.Addr]bpf.Kind{wire.AddrBroadcast.Netip(): bpf.Broadcast}
	for _, p := range ps {
		if w, ok := wire.PrefixFrom(p); ok {
			if b, ok := w.Broadcast(); ok {
				next[b.Netip()] = bpf.Broadcast
			}
		}
	}
	for _, p := range ps {
		next[p.Addr()] = kind
	}
	for a := range c.steered {
		if _, ok := next[a]; !ok {
			if err := c.tables.RemoveAddress(a); err != nil {
				return err
			}
			delete(c.steered, a)
		}
	}
	for a, kind := range next {
		if c.steered[a] == kind {
			continue
		}
		if err := c.tables.SetAddress(a, kind); err != nil {
			return err
		}
		c.steered[a] = kind
	}
	return nil
}

// sink passes on what the kernel says of a card: to the stack, and addresses to the XDP program too. Its methods are called one
// at a time.
type sink struct {
	*stack.Interface
	card *Card
}

// SetAddresses implements kernel.Sink. Sockets on an address that comes back hear their ports again.
func (s *sink) SetAddresses(ps []netip.Prefix) error {
	if err := s.card.steer(ps); err != nil {
		return err
	}
	s.card.kit.ports.Resteer(ps, s.card.resteer)
	return s.Interface.SetAddresses(ps)
}

// LinkState implements kernel.Sink.
func (s *sink) LinkState(up bool, mtu int, hardware [6]byte) {
	s.card.kit.log.Info("the card changed", "interface", s.Name(), "up", up, "mtu", mtu, "address", wire.HardwareAddr(hardware).String())
	if mtu != 0 {
		s.card.device.Info() // reads the MTU and the Ethernet address anew
		s.Interface.LinkChanged()
	}
}
