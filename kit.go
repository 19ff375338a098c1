package kit

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
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
	// TxChecksum is whether UDP and TCP checksums are left to the card: auto, on or off. loader.QueueInfo says what is in use.
	TxChecksum loader.ChecksumMode

	Wait   stack.WaitMode // how the engines wait: stack.Adaptive, stack.Busy or stack.Interrupt
	Spin   time.Duration  // how long an adaptive engine polls before it sleeps, see stack.Adaptive; 0: stack.DefaultSpin
	Limits stack.Limits   // of what peers and users can make the stack hold
	Logger *slog.Logger   // nil: silent

	// Others are further cards of the same stack. Routes choose the card by which a packet leaves; a socket bound to one
	// address hears that one only; what is sent to an address of another card of ours never leaves the stack. An address that the
	// kernel moves from one shared card to another is deaf to sockets that were bound before.
	Others []CardConfig

	// OnConflict is told when another host claims an owned address; OnError when the card is gone for good. They are called
	// on engines: they must not block, nor call the Kit, whose Close for one waits for the engines. Tell a goroutine instead.
	OnConflict func(addr netip.Addr, other net.HardwareAddr)
	OnError    func(error)
}

// Kit is one or several open cards with a stack on them. The Network Kit's calls are its methods, by way of socketapi.Kit, and so
// are those of the first card.
type Kit struct {
	*socketapi.Kit
	*Card   // the first
	cards   []*Card
	stack   *stack.Stack
	ports   *kernel.Ports   // of cards in shared mode
	sockets *kernel.Sockets // where there is none
	log     *slog.Logger
	// steerings are ports' Steer, under ports' lock.
	steerings *steerings

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
	configs := append([]CardConfig{cfg.first()}, cfg.Others...)
	for i := range configs {
		if err := configs[i].check(configs[:i]); err != nil {
			return err
		}
	}
	k.stack = stack.New(stack.Config{Logger: cfg.Logger, Limits: cfg.Limits})
	for i := range configs {
		c := &Card{kit: k, steered: make(map[netip.Addr]bpf.Kind)}
		k.cards = append(k.cards, c)
		if err := c.open(&configs[i], &cfg); err != nil {
			return err
		}
	}
	k.Card = k.cards[0]
	var err error
	if k.ports == nil {
		if k.sockets, err = kernel.NewSockets(); err != nil {
			k.log.Info("Fallback opens the kernel's sockets in the namespace of whichever thread asks", "reason", err)
		}
	}
	k.stack.Start()
	k.Kit = socketapi.New(k.stack)
	if k.ports != nil {
		k.Net().SetKernel(k.ports)
	} else if k.sockets != nil {
		k.Net().SetKernel(k.sockets)
	}
	for _, c := range k.cards {
		if err := c.start(); err != nil {
			return err
		}
	}
	return nil
}

// sharedPorts are the ports of the kernel's addresses, for all cards.
func (k *Kit) sharedPorts() (*kernel.Ports, error) {
	if k.ports == nil {
		var err error
		k.steerings = &steerings{kit: k, at: make(map[steered]*Card)}
		if k.ports, err = kernel.NewPorts(kernel.PortsConfig{Steer: k.steerings, Logger: k.log}); err != nil {
			return nil, err
		}
	}
	return k.ports, nil
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
	for _, c := range k.cards {
		if c.follower != nil {
			errs = append(errs, c.follower.Close())
		}
	}
	if k.stack != nil {
		errs = append(errs, k.stack.Close())
	}
	for _, c := range k.cards {
		if c.tables != nil {
			errs = append(errs, c.tables.SetEnabled(false))
		}
	}
	if k.ports != nil {
		errs = append(errs, k.ports.Close())
	}
	if k.sockets != nil {
		errs = append(errs, k.sockets.Close())
	}
	for _, c := range k.cards {
		if c.device != nil {
			errs = append(errs, c.device.Close())
		}
	}
	return errors.Join(errs...)
}

// Stack is the stack below the calls, for figures and for what they do not offer.
func (k *Kit) Stack() *stack.Stack { return k.stack }

// Cards are the cards, in the order of the configuration.
func (k *Kit) Cards() []*Card { return slices.Clone(k.cards) }
