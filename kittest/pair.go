package kittest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// PairConfig describes a Pair. The zero value is good.
type PairConfig struct {
	MTU    int  // of both ends; 0: 1500
	Queues int  // receiving and transmitting, of both ends; 0: 1
	Path   Path // between the ends, if any; frames then pass through this process, at some 100,000 a second
}

// A Pair is two network namespaces of a test's own and a veth pair between them, with the kernel's addresses LeftAddr and HostAddr.
// Offloads are off, so that frames look as on a real wire, and IPv6 is off, so that there are none that nobody asked for.
//
// The namespaces have names that no other run has, and go when the test ends, with the processes that were started there. What a
// killed run left is removed by the next one.
type Pair struct {
	Left, Right *Namespace

	t    testing.TB
	wire *linktest.Wire // of a Path
}

// NewPair makes a Pair for a test. It needs root: without, the test is skipped, or fails where the environment has KIT_NO_SKIP=1.
func NewPair(t testing.TB, cfg PairConfig) *Pair {
	t.Helper()
	ends := netlab.Options{MTU: cfg.MTU, Queues: cfg.Queues}
	ends.Left.Addresses = []netip.Prefix{LeftAddr}
	ends.Right.Addresses = []netip.Prefix{HostAddr}
	p := &Pair{t: t}
	if cfg.Path == (Path{}) {
		lab := netlab.Test(t, ends)
		p.Left, p.Right = &Namespace{t: t, n: lab.Left}, &Namespace{t: t, n: lab.Right}
		return p
	}
	// Two cables, and a relay in the namespace where they meet.
	near, far := ends, ends
	near.Right.Addresses, far.Left.Addresses = []netip.Prefix{}, []netip.Prefix{}
	lab := netlab.Test(t, near)
	right, err := lab.AddNamespace("far")
	if err == nil {
		_, _, err = lab.Connect(lab.Right, right, far)
	}
	if err == nil {
		p.wire, err = relay(t, lab.Right, cfg)
	}
	if err != nil {
		t.Fatalf("make a pair with a path: %v", err)
	}
	p.Left, p.Right = &Namespace{t: t, n: lab.Left}, &Namespace{t: t, n: right}
	return p
}

// SetPath changes what happens between the ends, where the Pair was made with a Path that does something.
func (p *Pair) SetPath(out, back Faults) {
	p.t.Helper()
	if p.wire == nil {
		p.t.Fatalf("the pair has no path: make it with one")
	}
	p.wire.End(0).SetFaults(out)
	p.wire.End(1).SetFaults(back)
}

// PathStats counts what happened to frames on a Path, to the right end and back.
func (p *Pair) PathStats() (out, back linktest.FaultStats) {
	p.t.Helper()
	if p.wire == nil {
		p.t.Fatalf("the pair has no path: make it with one")
	}
	return p.wire.End(0).Stats().FaultStats, p.wire.End(1).Stats().FaultStats
}

// Peer makes a Peer at the left end, with the address PeerAddr beside the kernel's, for whoever is at the right end.
func (p *Pair) Peer() *Peer {
	p.t.Helper()
	s, err := openRaw(p.Left.n, p.Left.n.Ends[0])
	if err != nil {
		p.t.Fatalf("make a peer: %v", err)
	}
	p.t.Cleanup(func() { _ = s.Close() })
	return &Peer{
		t: p.t, Addr: PeerAddr, hardware: peerHardware, neighbour: wire.HardwareAddr(p.Right.n.HardwareAddr()), port: s,
	}
}

// A Namespace is one side of a Pair.
type Namespace struct {
	t testing.TB
	n *netlab.Namespace
}

// Name is the namespace's, for 'ip netns exec'.
func (n *Namespace) Name() string { return n.n.Name }

// Interface is the name of its end of the cable.
func (n *Namespace) Interface() string { return n.n.Interface() }

// Addr is the kernel's address there.
func (n *Namespace) Addr() netip.Addr { return n.n.Addr() }

// HardwareAddr is the Ethernet address of its end, 6 bytes.
func (n *Namespace) HardwareAddr() net.HardwareAddr { return n.n.HardwareAddr() }

// Open opens a Kit on the end, which is closed when the test ends. The configuration's Interface is filled in.
func (n *Namespace) Open(cfg kit.Config) *kit.Kit {
	n.t.Helper()
	cfg.Interface = n.Interface()
	var k *kit.Kit
	if err := n.n.Do(func() (err error) {
		k, err = kit.Open(cfg)
		return err
	}); err != nil {
		n.t.Fatalf("open a kit on %s: %v", cfg.Interface, err)
	}
	n.t.Cleanup(func() {
		if err := k.Close(); err != nil {
			n.t.Errorf("close the kit: %v", err)
		}
	})
	return k
}

// Do runs f in the namespace, to load and attach BPF programs, or to make sockets, which stay there wherever they are used
// later. Goroutines that f starts run outside. An error of f fails the test.
func (n *Namespace) Do(f func() error) {
	n.t.Helper()
	if err := n.n.Do(f); err != nil {
		n.t.Fatalf("in %s: %v", n.n.Name, err)
	}
}

// Run runs a program to its end and returns what it writes to standard output. A status that is not 0 fails the test.
func (n *Namespace) Run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.n.Run(n.t.Context(), name, args...)
	if err != nil {
		n.t.Fatalf("%s%v", out, err)
	}
	return string(out)
}

// Start starts a program, which is killed when the test ends; the caller waits for it as usual.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.n.Start(cmd) }

// Dial is net.Dialer.DialContext over the namespace's kernel; the address is a literal.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.n.Dial(ctx, network, address)
}

// Listen is net.Listen on the namespace's kernel.
func (n *Namespace) Listen(network, address string) (net.Listener, error) {
	return n.n.Listen(network, address)
}

// ListenPacket is net.ListenPacket on the namespace's kernel.
func (n *Namespace) ListenPacket(network, address string) (net.PacketConn, error) {
	return n.n.ListenPacket(network, address)
}

// errClosed ends a relay.
var errClosed = errors.New("the path has ended")
