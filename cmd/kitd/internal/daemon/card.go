// Package daemon is a running kitd: a card held by kit, the built-in services on
// it, and what answers the command line and Prometheus.
package daemon

import (
	"log/slog"
	"net"
	"net/netip"

	"kitnet.dev/kit"
	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/kernel"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// Card is an open card with the stack on it. *kit.Kit is one by way of OpenKit;
// tests put a stack on a wire in memory.
type Card interface {
	Stack() *stack.Stack
	// Net is Go's own way to the stack's sockets, and for Fallback to the kernel's.
	Net() *socketapi.Net
	// Interface is the card in the stack's terms.
	Interface() *stack.Interface
	// Info is the card in the loader's terms.
	Info() loader.Info
	// XDPStats are the verdicts of the XDP program.
	XDPStats() (bpf.Stats, error)
	// SocketStats are the kernel's counters of each queue's AF_XDP socket.
	SocketStats() ([]loader.QueueStats, error)
	// LinkCounters are what each queue's link counted itself, in the order of SocketStats.
	LinkCounters() []loader.Counters
	// FollowerStats are the counters of what follows the kernel, in shared mode.
	FollowerStats() kernel.FollowerStats
	// FollowerTroubles is what of the kernel's view can't be followed now, a sentence each.
	FollowerTroubles() []error
	// Unfollowed is by what else the kernel routes than the stack does, a sentence each.
	Unfollowed() []string
	// Close gives the card back to the kernel.
	Close() error
}

// Events are told by an open card, on its engines: they must not block.
type Events struct {
	// Conflict: another host claims an owned address.
	Conflict func(addr netip.Addr, other net.HardwareAddr)
	// Gone: the card will never carry a frame again.
	Gone func(error)
}

// OpenKit opens the card that c names.
func OpenKit(c *config.Config, log *slog.Logger, e Events) (Card, error) {
	settings := kit.Config{
		Interface: c.Interface, Addresses: c.Addresses, Gateway: c.Gateway,
		Queues: c.Queues, FrameSize: c.FrameSize, Frames: c.Frames, RingSize: c.RingSize, MTU: c.MTU,
		Spin: c.Spin, Logger: log, OnConflict: e.Conflict, OnError: e.Gone,
	}
	if err := settings.Attach.UnmarshalText([]byte(c.Attach)); err != nil {
		return nil, err
	}
	if err := settings.Copy.UnmarshalText([]byte(c.Copy)); err != nil {
		return nil, err
	}
	if err := settings.TxChecksum.UnmarshalText([]byte(c.TxChecksum)); err != nil {
		return nil, err
	}
	var err error
	if settings.Wait, err = stack.ParseWaitMode(c.Wait); err != nil {
		return nil, err
	}
	k, err := kit.Open(settings)
	if err != nil {
		return nil, err
	}
	return kitCard{k}, nil
}

// kitCard is a Card made of a kit.Kit.
type kitCard struct{ *kit.Kit }

func (k kitCard) Info() loader.Info                         { return k.Device().Info() }
func (k kitCard) XDPStats() (bpf.Stats, error)              { return k.Device().Tables().Stats() }
func (k kitCard) SocketStats() ([]loader.QueueStats, error) { return k.Device().Stats() }
