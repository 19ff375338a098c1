package config

import (
	"fmt"
	"math/bits"
	"net/netip"
)

// Bounds of what the loader takes; what depends on the card it checks itself.
const (
	minMTU      = 68    // RFC 791 section 3.2
	maxMTU      = 65535 // the longest IP packet
	minRing     = 64    // descriptors: one batch
	maxRing     = 16384
	maxFrames   = 32768 // the fill and completion rings hold all frames
	defaultRing = 4096
	maxPath     = 107 // bytes of sun_path without its end
)

// check looks at the values together and returns every problem, each a
// sentence.
func (c *Config) check() []error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Spin != 0 && c.Wait != "adaptive" {
		add("--spin is for --wait adaptive, and --wait is %s: leave one of them out", c.Wait)
	}
	if c.Control == "" || len(c.Control) > maxPath {
		add("control socket %q can't be a path: use 1 to %d bytes", c.Control, maxPath)
	}
	c.checkAddresses(add)
	c.checkServices(add)
	c.checkMemory(add)
	return problems
}

// RequireInterface is the check of commands that hold a card.
func (c *Config) RequireInterface() error {
	if c.Interface == "" {
		return fmt.Errorf("no network card is named: use -i IFACE, or interface in the file given by --config")
	}
	return nil
}

func (c *Config) checkAddresses(add func(string, ...any)) {
	seen := map[netip.Addr]bool{}
	for _, p := range c.Addresses {
		a := p.Addr()
		switch {
		case seen[a]:
			add("address %s is given twice: leave one out", a)
		case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			add("address %s can't be a host's: use a unicast address that is free in the network of the card", a)
		case p.Bits() == 0:
			add("address %s has prefix length 0, which makes the whole world a neighbour: use the network's, such as %s/24", p, a)
		case p.Bits() < 31 && a == p.Masked().Addr():
			add("address %s is its network's own: use one inside the network", p)
		case p.Bits() < 31 && a == lastAddr(p):
			add("address %s is its network's broadcast address: use one inside the network", p)
		}
		seen[a] = true
	}
	if !c.Gateway.IsValid() {
		return
	}
	onLink := false
	for _, p := range c.Addresses {
		onLink = onLink || p.Contains(c.Gateway)
	}
	switch {
	case !c.Owned():
		add("gateway %s needs an --address: without one kit uses the kernel's addresses and its routes", c.Gateway)
	case seen[c.Gateway]:
		add("gateway %s is one of the addresses given: use the router's", c.Gateway)
	case !onLink:
		add("gateway %s is in the network of no --address: use one that the card reaches directly", c.Gateway)
	}
}

// lastAddr is the directed broadcast address of a prefix (RFC 919).
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func (c *Config) checkServices(add func(string, ...any)) {
	for i, s := range c.Services {
		for _, other := range c.Services[:i] {
			if s.overlaps(other) {
				add("services %s and %s want the same port: give one of them another", other, s)
			}
		}
		if !c.Owned() || !s.Addr.IsValid() {
			continue
		}
		ours := false
		for _, p := range c.Addresses {
			ours = ours || p.Addr() == s.Addr
		}
		if !ours {
			add("service %s is at an address that kit does not own: add it as --address or use %s=:%d", s, s.Name, s.Port)
		}
	}
}

// checkMemory looks at the sizes of frames and rings.
func (c *Config) checkMemory(add func(string, ...any)) {
	if c.FrameSize != 0 && c.FrameSize != 2048 && c.FrameSize != 4096 {
		add("frame-size %d can't be registered with AF_XDP: use 2048 or 4096", c.FrameSize)
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		add("mtu %d is not from %d to %d bytes", c.MTU, minMTU, maxMTU)
	}
	ring := c.RingSize
	if ring == 0 {
		ring = defaultRing
	}
	switch {
	case bits.OnesCount(uint(ring)) != 1 || ring < minRing || ring > maxRing:
		add("ring-size %d is not a power of two from %d to %d", ring, minRing, maxRing)
	case c.Frames > maxFrames:
		add("frames %d is more than the %d that the rings hold: use less", c.Frames, maxFrames)
	case c.Frames != 0 && c.Frames < 2*ring:
		add("frames %d can't fill a receive and a transmit ring of %d each: use frames %d or more, or a smaller ring-size", c.Frames, ring, 2*ring)
	}
}
