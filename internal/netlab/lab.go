package netlab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Offload is a set of the work that a veth end leaves to "the card".
type Offload uint8

// The offloads that an Option may keep.
const (
	// TxChecksum leaves UDP and TCP checksums of local senders unfinished (only the pseudo-header sum is in the field).
	TxChecksum Offload = 1 << iota
	// TSO lets the kernel's TCP send segments above the MTU. It needs TxChecksum.
	TSO
	// GSO lets the kernel send other bundles, UDP_SEGMENT's too, above the MTU. It needs TxChecksum.
	GSO
	// GRO bundles what arrives; on veth it also turns NAPI on, without which live frames are not received.
	GRO
)

// offloadOf tells which offload a feature belongs to, by the kernel's name for it (net/ethtool/common.c,
// netdev_features_strings), and 0 for none.
func offloadOf(feature string) Offload {
	switch {
	case strings.HasPrefix(feature, "tx-checksum-"):
		return TxChecksum
	case strings.HasPrefix(feature, "tx-tcp") && strings.HasSuffix(feature, "-segmentation"):
		return TSO
	case feature == "tx-generic-segmentation", feature == "tx-udp-segmentation", feature == "tx-gso-list":
		return GSO
	case feature == "rx-gro":
		return GRO
	}
	return 0
}

// Side describes one end of a cable.
type Side struct {
	// Addresses of the end; the first is the one that its helpers name. nil means the laboratory's own, 10.77.N.1/24 at
	// the left and 10.77.N.2/24 at the right, N counting the cables; empty and not nil means none.
	Addresses []netip.Prefix
	// Offloads that stay on. The others are switched off.
	Offloads Offload
}

// Options describe a cable and its two ends. The zero value is good.
type Options struct {
	// MTU of both ends in bytes; 0 is 1500.
	MTU int
	// Queues, receiving and transmitting, of both ends; 0 is 1.
	Queues int
	// Left and Right are the ends.
	Left, Right Side
	// Neighbors writes each end's address into the other's neighbour table for good, so that no ARP is spoken.
	Neighbors bool
}

// Lab is a set of namespaces and the cables between them.
type Lab struct {
	// Left and Right are the two namespaces that New makes.
	Left, Right *Namespace

	stem   string // what all names of this laboratory begin with
	mu     sync.Mutex
	spaces []*Namespace
	cables int
	closed bool
}

// serial tells the laboratories of one process apart.
var serial atomic.Uint32

// New makes a laboratory: two namespaces and a cable, up at both ends. On failure nothing stays behind. It first removes
// what dead processes left.
func New(opts Options) (*Lab, error) {
	// What another process left must not fail this one; Reap itself is there for whoever wants to know.
	_ = Reap()
	stem, err := newStem()
	if err != nil {
		return nil, err
	}
	l := &Lab{stem: stem}
	if err := l.build(opts); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(opts Options) (err error) {
	if l.Left, err = l.AddNamespace("left"); err != nil {
		return err
	}
	if l.Right, err = l.AddNamespace("right"); err != nil {
		return err
	}
	_, _, err = l.Connect(l.Left, l.Right, opts)
	return err
}

// newStem returns the beginning of this laboratory's names, unique to it.
func newStem() (string, error) {
	pid := os.Getpid()
	start, _, err := processStart(pid)
	if err != nil {
		return "", fmt.Errorf("netlab: own start time: %w", err)
	}
	return fmt.Sprintf("%s%d-%d-%d-%04x", prefix, pid, start, serial.Add(1), rand.N(1<<16)), nil
}

// labels are the names that AddNamespace takes: an interface's name has 15 bytes, and a count follows.
var labels = regexp.MustCompile(`^[a-z][a-z0-9]{0,9}$`)

// AddNamespace makes one more namespace; label ends its name and begins its interfaces' names: at most 10 small letters
// and digits, unique in the laboratory.
func (l *Lab) AddNamespace(label string) (*Namespace, error) {
	if !labels.MatchString(label) {
		return nil, fmt.Errorf("netlab: namespace label %q: want 1 to 10 small letters and digits, a letter first", label)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("netlab: add namespace %q: the laboratory is closed", label)
	}
	n, err := newNamespace(l.stem+"-"+label, label)
	if err != nil {
		return nil, err
	}
	l.spaces = append(l.spaces, n)
	return n, nil
}

// Connect lays a cable between two namespaces of the laboratory and brings it up. The ends are called by the namespaces'
// labels and a count: left0, left1, … On failure no cable stays behind.
func (l *Lab) Connect(left, right *Namespace, opts Options) (leftEnd, rightEnd *End, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, fmt.Errorf("netlab: connect %s and %s: the laboratory is closed", left.label, right.label)
	}
	if left == right {
		return nil, nil, fmt.Errorf("netlab: connect %s to itself: a cable needs two namespaces", left.label)
	}
	opts = opts.withDefaults(l.cables)
	a, b := left.newEnd(opts.Left), right.newEnd(opts.Right)
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{
			Name: a.Interface, MTU: opts.MTU, NumTxQueues: opts.Queues, NumRxQueues: opts.Queues, TxQLen: -1,
		},
		PeerName:        b.Interface,
		PeerMTU:         uint32(opts.MTU),
		PeerNumTxQueues: uint32(opts.Queues),
		PeerNumRxQueues: uint32(opts.Queues),
		PeerTxQLen:      -1,
		PeerNamespace:   netlink.NsFd(right.fd),
	}
	if err := left.links.LinkAdd(pair); err != nil {
		return nil, nil, fmt.Errorf("netlab: make veth pair %s and %s: %w", a.Interface, b.Interface, err)
	}
	if err := join(a, b, opts.Neighbors); err != nil {
		return nil, nil, errors.Join(err, left.links.LinkDel(pair))
	}
	left.Ends, right.Ends = append(left.Ends, a), append(right.Ends, b)
	l.cables++
	return a, b, nil
}

// withDefaults fills what the caller left out, for the cable of the given number.
func (o Options) withDefaults(number int) Options {
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Queues == 0 {
		o.Queues = 1
	}
	own := func(host byte) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(number), host}), 24)}
	}
	if o.Left.Addresses == nil {
		o.Left.Addresses = own(1)
	}
	if o.Right.Addresses == nil {
		o.Right.Addresses = own(2)
	}
	return o
}

// join configures both ends, brings them up and waits until both have a carrier; before that the kernel drops what is
// sent.
func join(a, b *End, neighbors bool) error {
	if err := errors.Join(a.configure(), b.configure()); err != nil {
		return err
	}
	for _, e := range []*End{a, b} {
		if err := e.ns.links.LinkSetUp(e.link()); err != nil {
			return fmt.Errorf("netlab: set %s up: %w", e.Interface, err)
		}
	}
	if neighbors {
		if err := errors.Join(a.learn(b), b.learn(a)); err != nil {
			return err
		}
	}
	return errors.Join(a.waitUp(), b.waitUp())
}

// waitUp returns when the end has a carrier.
func (e *End) waitUp() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := e.ns.links.LinkByIndex(e.Index)
		if err != nil {
			return fmt.Errorf("netlab: read state of %s: %w", e.Interface, err)
		}
		state := link.Attrs().OperState
		if state == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("netlab: %s has no carrier after 10 s, its state is %s", e.Interface, state)
		}
	}
}

// Close ends the processes that still run in the namespaces and removes cables and namespaces. It may be called again and
// then does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, n := range l.spaces {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// End is one end of a cable: an interface in a namespace.
type End struct {
	// Interface is the name in its namespace.
	Interface string
	// Index is the interface index in its namespace.
	Index int
	// HardwareAddr is the Ethernet address, 6 bytes.
	HardwareAddr net.HardwareAddr
	// Addresses as configured, the first is Addr's.
	Addresses []netip.Prefix

	ns       *Namespace
	offloads Offload
}

// Addr returns the end's first address, the zero Addr where it has none.
func (e *End) Addr() netip.Addr {
	if len(e.Addresses) == 0 {
		return netip.Addr{}
	}
	return e.Addresses[0].Addr()
}

func (e *End) link() netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: e.Interface, Index: e.Index}}
}

// configure learns the end's index and hardware address, then sets its offloads and addresses.
func (e *End) configure() error {
	link, err := e.ns.links.LinkByName(e.Interface)
	if err != nil {
		return fmt.Errorf("netlab: find %s: %w", e.Interface, err)
	}
	e.Index, e.HardwareAddr = link.Attrs().Index, link.Attrs().HardwareAddr
	if err := e.SetOffloads(e.offloads); err != nil {
		return err
	}
	for _, p := range e.Addresses {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if err := e.ns.links.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("netlab: give %s the address %s: %w", e.Interface, p, err)
		}
	}
	return nil
}

// SetOffloads switches the given offloads on and the others off.
func (e *End) SetOffloads(keep Offload) error {
	return e.ns.Do(func() error {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return fmt.Errorf("netlab: offloads of %s: %w", e.Interface, err)
		}
		defer tool.Close()
		have, err := tool.FeaturesWithState(e.Interface)
		if err != nil {
			return fmt.Errorf("netlab: offloads of %s: %w", e.Interface, err)
		}
		want := map[string]bool{}
		for feature, state := range have {
			if offload := offloadOf(feature); offload != 0 && state.Available {
				want[feature] = keep&offload != 0
			}
		}
		if err := tool.Change(e.Interface, want); err != nil {
			return fmt.Errorf("netlab: set offloads of %s: %w", e.Interface, err)
		}
		e.offloads = keep
		return nil
	})
}

// learn writes the other end's addresses into this namespace's neighbour table, permanently.
func (e *End) learn(other *End) error {
	for _, p := range other.Addresses {
		err := e.ns.links.NeighSet(&netlink.Neigh{
			LinkIndex: e.Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
			IP: p.Addr().AsSlice(), HardwareAddr: other.HardwareAddr,
		})
		if err != nil {
			return fmt.Errorf("netlab: write neighbour %s of %s: %w", p.Addr(), e.Interface, err)
		}
	}
	return nil
}
