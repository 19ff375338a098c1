package kit

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/kernel"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// Config says which card to use and how. Only Interface must be set; every zero value means the default.
type Config struct {
	// Interface is the card's name in the network namespace of the calling thread, such as "eth0".
	Interface string
	// Addresses are owned: kit alone has them, and answers ARP and ping for them. They must not be the kernel's. Without
	// any, kit shares the card's kernel addresses and takes only the ports that are bound.
	Addresses []netip.Prefix
	// Gateway is the next hop of owned addresses beyond their networks; in shared mode the kernel's routes are used.
	Gateway netip.Addr

	Attach    loader.AttachMode // auto, native or generic XDP
	Copy      loader.CopyMode   // auto, zero-copy or copy
	Queues    []int             // nil: all of the card's
	FrameSize int               // bytes of a frame's memory, 2048 or 4096; 0: what fits the MTU
	Frames    int               // of each queue
	RingSize  int               // of each queue's rings
	MTU       int               // longest IPv4 packet to send, in bytes; 0: the card's
	BusyPoll  bool              // let system calls do the driver's work (SO_PREFER_BUSY_POLL)
	HugePages bool              // for the packet memory, where the machine has some

	Wait   stack.WaitMode // how the engines wait: stack.Adaptive, stack.Busy or stack.Interrupt
	Spin   time.Duration  // how long an adaptive engine polls before it sleeps, see stack.Adaptive; 0: stack.DefaultSpin
	Limits stack.Limits   // of what peers and users can make the stack hold
	Logger *slog.Logger   // nil: silent

	// OnConflict is told when another host claims an owned address; OnError when the card is gone for good. They are called
	// on engines: they must not block, nor call the Kit, whose Close for one waits for the engines. Tell a goroutine instead.
	OnConflict func(addr netip.Addr, other net.HardwareAddr)
	OnError    func(error)
}

// Kit is an open card with a stack on it. The Network Kit's calls are its methods, by way of socketapi.Kit.
type Kit struct {
	*socketapi.Kit
	stack    *stack.Stack
	iface    *stack.Interface
	device   *loader.Device
	tables   *bpf.Tables
	follower *kernel.Follower
	ports    *kernel.Ports   // shared mode
	sockets  *kernel.Sockets // owned mode
	log      *slog.Logger

	closeOnce sync.Once
	closeErr  error
}

// Open attaches to a card and starts an engine for each of its queues. What is bound comes to kit, all else on the card
// stays with the kernel; Close, or the end of the process however it comes, gives everything back.
//
// It needs root; or CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON, with CAP_IPC_LOCK or a memlock limit that the
// packet memory fits in (16 MiB a queue), and in shared mode CAP_NET_BIND_SERVICE for ports below 1024. Errors say what to do.
func Open(cfg Config) (*Kit, error) {
	if cfg.Interface == "" {
		return nil, errors.New("kit: no interface was named: set Config.Interface to the card's name, such as \"eth0\"")
	}
	k := &Kit{log: cfg.Logger}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if err := k.open(cfg); err != nil {
		k.Close()
		return nil, fmt.Errorf("kit: %w", err)
	}
	return k, nil
}

func (k *Kit) open(cfg Config) error {
	owned := len(cfg.Addresses) > 0
	if cfg.Gateway.IsValid() && !owned {
		return fmt.Errorf("gateway %v without an owned address: in shared mode the kernel's routes are used, so leave it out or add Config.Addresses", cfg.Gateway)
	}
	for _, p := range cfg.Addresses {
		if err := stack.CheckAddress(p); err != nil {
			return err
		}
		if err := kernel.CheckOwned(p.Addr()); err != nil {
			return err
		}
	}
	var err error
	if k.device, err = loader.Open(loader.Config{
		Interface: cfg.Interface, Attach: cfg.Attach, Copy: cfg.Copy, Queues: cfg.Queues, FrameSize: cfg.FrameSize,
		Frames: cfg.Frames, RingSize: cfg.RingSize, MTU: cfg.MTU, BusyPoll: cfg.BusyPoll, HugePages: cfg.HugePages, Logger: cfg.Logger,
	}); err != nil {
		return err
	}
	k.tables = k.device.Tables()
	k.stack = stack.New(stack.Config{Logger: cfg.Logger, Limits: cfg.Limits})
	card := stack.InterfaceConfig{
		Name: cfg.Interface, Addresses: cfg.Addresses, Gateway: cfg.Gateway, Wait: cfg.Wait, Spin: cfg.Spin,
		OnConflict: cfg.OnConflict, OnError: cfg.OnError,
	}
	for _, l := range k.device.Links() {
		card.Links = append(card.Links, l)
	}
	if k.follower, err = kernel.NewFollower(kernel.FollowerConfig{Interface: card.Name, LinkOnly: owned, Logger: k.log}); err != nil {
		return err
	}
	if owned {
		card.Mode, card.Ports = stack.Owned, kernel.NewOwnedPorts(steering{k.tables})
		k.sockets, err = kernel.NewSockets()
	} else {
		err = k.shared(&card)
	}
	if err != nil {
		return err
	}
	return k.start(card)
}

// shared prepares the kernel's own addresses.
func (k *Kit) shared(card *stack.InterfaceConfig) error {
	card.Mode = stack.Shared
	var err error
	if k.ports, err = kernel.NewPorts(kernel.PortsConfig{Steer: steering{k.tables}, Logger: k.log}); err != nil {
		return err
	}
	card.Ports = k.ports
	card.Resolver = k.follower
	if card.Addresses = k.follower.Addresses(); len(card.Addresses) == 0 {
		return fmt.Errorf("%s has no IPv4 address to share: give it one ('ip address add 10.0.0.5/24 dev %s'), or own one with Config.Addresses (kitd --address)",
			card.Name, card.Name)
	}
	return nil
}

// start runs the engines, then lets frames in.
func (k *Kit) start(card stack.InterfaceConfig) error {
	var err error
	if k.iface, err = k.stack.AddInterface(card); err != nil {
		return err
	}
	s := &sink{Interface: k.iface, k: k, steered: make(map[netip.Addr]bpf.Kind)}
	if err := s.steer(card.Addresses); err != nil {
		return err
	}
	k.stack.Start()
	k.Kit = socketapi.New(k.stack)
	if k.ports != nil {
		k.Net().SetKernel(k.ports)
	} else {
		k.Net().SetKernel(k.sockets)
	}
	if err := k.follower.Start(s); err != nil {
		return err
	}
	return k.tables.SetEnabled(true)
}

// Close closes the sockets, lets what they wrote go out and gives TCP connections a second to end in order, and gives the card
// back: then the kernel sees all traffic again. Calls that block are told EINTR.
func (k *Kit) Close() error {
	k.closeOnce.Do(func() { k.closeErr = k.close() })
	return k.closeErr
}

func (k *Kit) close() error {
	var errs []error
	if k.Kit != nil {
		socketapi.UnsetDefault(k.Net())
		errs = append(errs, k.Kit.Close())
	}
	if k.follower != nil {
		errs = append(errs, k.follower.Close())
	}
	if k.stack != nil {
		errs = append(errs, k.stack.Close())
	}
	if k.tables != nil {
		errs = append(errs, k.tables.SetEnabled(false))
	}
	if k.ports != nil {
		errs = append(errs, k.ports.Close())
	}
	if k.sockets != nil {
		errs = append(errs, k.sockets.Close())
	}
	if k.device != nil {
		errs = append(errs, k.device.Close())
	}
	return errors.Join(errs...)
}

// Stack is the stack below the calls, for figures and for what they do not offer.
func (k *Kit) Stack() *stack.Stack { return k.stack }

// Interface is the card in the stack's terms.
func (k *Kit) Interface() *stack.Interface { return k.iface }

// Device is the card in the loader's terms: modes, queues, and the figures of XDP and AF_XDP.
func (k *Kit) Device() *loader.Device { return k.device }

// LinkCounters are the counters of each queue's link, in the order of Device().Links().
func (k *Kit) LinkCounters() []loader.Counters {
	links := k.device.Links()
	counters := make([]loader.Counters, len(links))
	k.iface.EachLink(func(queue int, _ stack.Link) { counters[queue] = links[queue].Counters() })
	return counters
}

// FollowerStats are the figures of what follows the kernel: in owned mode only its link.
func (k *Kit) FollowerStats() kernel.FollowerStats { return k.follower.Stats() }

// FollowerTroubles is what of the kernel's view can't be followed at the moment, a sentence each with what to do; none when
// all is well.
func (k *Kit) FollowerTroubles() []error { return k.follower.Troubles() }

// Unfollowed says by what else the kernel routes than kit does, a sentence each.
func (k *Kit) Unfollowed() []string { return k.follower.Unfollowed() }
