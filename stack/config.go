package stack

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// Mode says how an interface holds its addresses.
type Mode uint8

const (
	// Shared: the addresses are the kernel's too; only bound ports come here, routes and neighbours are the kernel's.
	Shared Mode = iota
	// Owned: the addresses are the stack's alone; it answers ARP and ping itself.
	Owned
)

// String is "shared" or "owned".
func (m Mode) String() string {
	if m == Owned {
		return "owned"
	}
	return "shared"
}

// WaitMode says how an engine waits for work.
type WaitMode uint8

const (
	// Adaptive polls for InterfaceConfig.Spin after the last frame, then sleeps. While sleeps are so short that polling four times
	// as long saves them, it polls four times as long.
	Adaptive WaitMode = iota
	// Busy never sleeps: one core is always at 100 %.
	Busy
	// Interrupt sleeps as soon as there is nothing to do.
	Interrupt
)

// String is the name that ParseWaitMode takes.
func (w WaitMode) String() string {
	switch w {
	case Busy:
		return "busy"
	case Interrupt:
		return "interrupt"
	}
	return "adaptive"
}

// ParseWaitMode reads "adaptive", "busy" or "interrupt".
func ParseWaitMode(s string) (WaitMode, error) {
	for _, w := range []WaitMode{Adaptive, Busy, Interrupt} {
		if w.String() == s {
			return w, nil
		}
	}
	return 0, fmt.Errorf("wait mode %q is not known: use adaptive, busy or interrupt", s)
}

// Config of a Stack. The zero value works.
type Config struct {
	Logger *slog.Logger // nil: silent
	Seed   uint64       // 0: random. Fixes every random choice, for tests.
	Limits Limits
	TCP    *tcp.Config // nil: DefaultTCP. Its Random is the stack's. New panics where tcp.Config.Check finds fault with it.
}

// Limits bound what peers and users can make the stack hold. A zero field means its default.
type Limits struct {
	// ReassemblyBytes bounds the fragments that wait for the rest of their datagram, for each engine. Default 4 MiB.
	ReassemblyBytes int
	// ReassemblyTimeout is how long they wait. Default 30 s, as in Linux (net.ipv4.ipfrag_time); RFC 1122 §3.3.2.
	ReassemblyTimeout time.Duration
	// Neighbours bounds the neighbour table of each engine. Default 8192.
	Neighbours int
	// NeighbourQueue bounds the packets that wait for one neighbour's address. Default 64.
	NeighbourQueue int
	// ICMPErrorsPerSecond bounds the ICMP errors that each engine sends, RFC 1812 §4.3.2.8. Default 1000.
	ICMPErrorsPerSecond int
	// ReceiveBuffer is the default of a socket's receive buffer, in bytes. Default 1 MiB.
	ReceiveBuffer int
	// TimeWaits bounds the TCP connections in TIME-WAIT of each engine; one more is forgotten at once. Default 65,536.
	TimeWaits int
	// SendBuffer is the default of a socket's send buffer, in bytes. Default 512 KiB.
	SendBuffer int
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.ReassemblyBytes, 4<<20)
	def(&l.Neighbours, 8192)
	def(&l.NeighbourQueue, 64)
	def(&l.ICMPErrorsPerSecond, 1000)
	def(&l.ReceiveBuffer, 1<<20)
	def(&l.SendBuffer, 512<<10)
	def(&l.TimeWaits, 1<<16)
	if l.ReassemblyTimeout <= 0 {
		l.ReassemblyTimeout = 30 * time.Second
	}
	return l
}

// maxSpin is how many times InterfaceConfig.Spin an Adaptive engine polls at most.
const maxSpin = 4

// DefaultSpin is how long an Adaptive engine polls after the last frame before it sleeps.
const DefaultSpin = 50 * time.Microsecond

// InterfaceConfig describes a card to Stack.AddInterface.
type InterfaceConfig struct {
	Name      string
	Links     []Link         // one for each queue, at least one
	Mode      Mode           // Shared or Owned
	Addresses []netip.Prefix // IPv4. Owned: ours. Shared: the kernel's; Interface.SetAddresses keeps them current.
	Gateway   netip.Addr     // Owned: the default route's next hop; zero: there is none
	Ports     Ports          // nil: nobody outside has a say in who gets a port
	Resolver  Resolver       // nil: the engine speaks ARP itself
	Wait      WaitMode
	Spin      time.Duration // for Adaptive; 0: DefaultSpin
	// OnConflict is told when another host claims one of our addresses (RFC 5227 §2.4). It is called on an engine and
	// must not block.
	OnConflict func(addr netip.Addr, other net.HardwareAddr)
	// OnError is told when a link has failed for good, such as when its device was deleted. It must not block.
	OnError func(error)
}

// Ports reserves ports outside the stack and steers them to it. Its methods are called from any goroutine and may block.
type Ports interface {
	// Reserve takes port on addr, 0 for any free one, and returns the one it took. For ICMP the port is an identifier.
	// Errors are EADDRINUSE, EACCES, EADDRNOTAVAIL or the system's own.
	Reserve(proto wire.Protocol, addr netip.Addr, port uint16) (uint16, error)
	// Release gives back what Reserve took.
	Release(proto wire.Protocol, addr netip.Addr, port uint16)
}

// Resolver finds the Ethernet addresses of neighbours elsewhere, in Shared mode in the kernel. The answer comes by
// Interface.SetNeighbour.
type Resolver interface {
	// Resolve asks for addr. It is called on an engine and must not block.
	Resolve(addr netip.Addr)
}
