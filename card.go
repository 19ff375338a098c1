package kit

import (
	"fmt"
	"net/netip"
	"time"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/kernel"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
)

// CardConfig says how to use a card. Its fields are those of the same names of Config, which has the first card's.
type CardConfig struct {
	Interface string
	Addresses []netip.Prefix
	Gateway   netip.Addr

	Attach     loader.AttachMode
	Copy       loader.CopyMode
	TxChecksum loader.ChecksumMode
	Queues     []int
	FrameSize  int
	Frames     int
	RingSize   int
	MTU        int
	BusyPoll   bool
	HugePages  bool

	Wait stack.WaitMode
	Spin time.Duration
}

// first is the first card's part.
func (c *Config) first() CardConfig {
	return CardConfig{
		Interface: c.Interface, Addresses: c.Addresses, Gateway: c.Gateway,
		Attach: c.Attach, Copy: c.Copy, TxChecksum: c.TxChecksum, Queues: c.Queues,
		FrameSize: c.FrameSize, Frames: c.Frames, RingSize: c.RingSize, MTU: c.MTU,
		BusyPoll: c.BusyPoll, HugePages: c.HugePages, Wait: c.Wait, Spin: c.Spin,
	}
}

// check looks at what needs no card to be wrong. before are the cards in front of it.
func (c *CardConfig) check(before []CardConfig) error {
	if c.Interface == "" {
		return fmt.Errorf("card %d has no interface: set its Interface to the card's name, such as \"eth1\"", len(before)+1)
	}
	for i := range before {
		if before[i].Interface == c.Interface {
			return fmt.Errorf("%s is named twice, as cards %d and %d: name each card once, with all its addresses", c.Interface, i+1, len(before)+1)
		}
	}
	if c.Gateway.IsValid() && len(c.Addresses) == 0 {
		return fmt.Errorf("gateway %v without an owned address: in shared mode the kernel's routes are used, so leave it out or add Config.Addresses", c.Gateway)
	}
	for _, p := range c.Addresses {
		if err := stack.CheckAddress(p); err != nil {
			return err
		}
		if err := kernel.CheckOwned(p.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// A Card is an open card of a Kit.
type Card struct {
	kit      *Kit
	iface    *stack.Interface
	device   *loader.Device
	tables   *bpf.Tables
	follower *kernel.Follower
	steered  map[netip.Addr]bpf.Kind
}

// open attaches to the card and gives it to the stack. Nothing is received yet.
func (c *Card) open(cfg *CardConfig, all *Config) (err error) {
	if c.device, err = loader.Open(loader.Config{
		Interface: cfg.Interface, Attach: cfg.Attach, Copy: cfg.Copy, TxChecksum: cfg.TxChecksum, Queues: cfg.Queues,
		FrameSize: cfg.FrameSize, Frames: cfg.Frames, RingSize: cfg.RingSize, MTU: cfg.MTU, BusyPoll: cfg.BusyPoll, HugePages: cfg.HugePages, Logger: all.Logger,
	}); err != nil {
		return err
	}
	c.tables = c.device.Tables()
	card := stack.InterfaceConfig{
		Name: cfg.Interface, Addresses: cfg.Addresses, Gateway: cfg.Gateway, Wait: cfg.Wait, Spin: cfg.Spin,
		OnConflict: all.OnConflict, OnError: all.OnError,
	}
	for _, l := range c.device.Links() {
		card.Links = append(card.Links, l)
	}
	owned := len(cfg.Addresses) > 0
	if c.follower, err = kernel.NewFollower(kernel.FollowerConfig{Interface: card.Name, LinkOnly: owned, Logger: c.kit.log}); err != nil {
		return err
	}
	if owned {
		card.Mode, card.Ports = stack.Owned, kernel.NewOwnedPorts(steering{c.tables})
	} else if err := c.shared(&card); err != nil {
		return err
	}
	if c.iface, err = c.kit.stack.AddInterface(card); err != nil {
		return err
	}
	return c.steer(card.Addresses)
}

// shared prepares the kernel's own addresses.
func (c *Card) shared(card *stack.InterfaceConfig) error {
	ports, err := c.kit.sharedPorts()
	if err != nil {
		return err
	}
	card.Mode, card.Ports, card.Resolver = stack.Shared, ports, c.follower
	if card.Addresses = c.follower.Addresses(); len(card.Addresses) == 0 {
		return fmt.Errorf("%s has no IPv4 address to share: give it one ('ip address add 10.0.0.5/24 dev %s'), or own one with Config.Addresses (kitd --address)",
			card.Name, card.Name)
	}
	return nil
}

// start lets frames in.
func (c *Card) start() error {
	if err := c.follower.Start(&sink{c.iface, c}); err != nil {
		return err
	}
	return c.tables.SetEnabled(true)
}

// Interface is the card in the stack's terms.
func (c *Card) Interface() *stack.Interface { return c.iface }

// Device is the card in the loader's terms: modes, queues, and the figures of XDP and AF_XDP.
func (c *Card) Device() *loader.Device { return c.device }

// LinkCounters are the counters of each queue's link, in the order of Device().Links().
func (c *Card) LinkCounters() []loader.Counters {
	links := c.device.Links()
	counters := make([]loader.Counters, len(links))
	c.iface.EachLink(func(queue int, _ stack.Link) { counters[queue] = links[queue].Counters() })
	return counters
}

// FollowerStats are the figures of what follows the kernel: in owned mode only its link.
func (c *Card) FollowerStats() kernel.FollowerStats { return c.follower.Stats() }

// FollowerTroubles is what of the kernel's view can't be followed at the moment, a sentence each with what to do; none when
// all is well.
func (c *Card) FollowerTroubles() []error { return c.follower.Troubles() }

// Unfollowed says by what else the kernel routes than kit does, a sentence each.
func (c *Card) Unfollowed() []string { return c.follower.Unfollowed() }
