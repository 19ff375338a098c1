package kit

import (
	"net/netip"

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

// sink passes on what the kernel says of a shared card: to the stack, and addresses to the XDP program too. Its methods are
// called one at a time.
type sink struct {
	*stack.Interface
	k       *Kit
	steered map[netip.Addr]bpf.Kind
}

// steer makes the program take frames for the addresses and their networks' broadcasts, and for no others.
func (s *sink) steer(ps []netip.Prefix) error {
	kind := bpf.Shared
	if s.Mode() == stack.Owned {
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
	for a := range s.steered {
		if _, ok := next[a]; !ok {
			if err := s.k.tables.RemoveAddress(a); err != nil {
				return err
			}
			delete(s.steered, a)
		}
	}
	for a, kind := range next {
		if s.steered[a] == kind {
			continue
		}
		if err := s.k.tables.SetAddress(a, kind); err != nil {
			return err
		}
		s.steered[a] = kind
	}
	return nil
}

// SetAddresses implements kernel.Sink. Sockets on an address that comes back hear their ports again.
func (s *sink) SetAddresses(ps []netip.Prefix) error {
	if err := s.steer(ps); err != nil {
		return err
	}
	s.k.resteer()
	return s.Interface.SetAddresses(ps)
}

// resteer steers the ports of all sockets again: an address that was away has lost them.
func (k *Kit) resteer() {
	for _, i := range k.stack.Sockets() {
		if i.Local.IsValid() && i.Interface == k.iface.Name() {
			if err := (steering{k.tables}).BindPort(uint8(i.Proto), i.Local.Addr(), i.Local.Port()); err != nil {
				k.log.Warn("a socket's port is not steered", "local", i.Local, "error", err)
			}
		}
	}
}

// LinkState implements kernel.Sink.
func (s *sink) LinkState(up bool, mtu int, hardware [6]byte) {
	s.k.log.Info("the card changed", "interface", s.Name(), "up", up, "mtu", mtu, "address", wire.HardwareAddr(hardware).String())
	if mtu != 0 {
		s.k.device.Info() // reads the MTU and the Ethernet address anew
		s.Interface.LinkChanged()
	}
}
