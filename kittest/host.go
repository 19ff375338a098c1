package kittest

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// Where hosts and peers are, in memory and on a veth pair alike.
var (
	LeftAddr = netip.MustParsePrefix("10.77.0.1/24") // of the kernel at a Pair's left end
	HostAddr = netip.MustParsePrefix("10.77.0.2/24") // of a Host, and of a Pair's right end
	PeerAddr = netip.MustParseAddr("10.77.0.9")
)

// peerHardware is a peer's Ethernet address.
var peerHardware = wire.HardwareAddr{2, 0, 0, 0, 0, 9}

// Faults is what happens to frames in one direction: loss, latency, jitter, bandwidth, reordering, duplication and damage.
type Faults = linktest.Faults

// A Path is what happens to frames between the peer, or a Pair's left end, and the host, or the right end. The zero value delivers
// all at once.
type Path struct {
	Out, Back Faults // to the host or right end, and from there
	Seed      uint64 // says which frames are lost, and so on; the same frames meet the same fate
}

// HostConfig describes a Host. The zero value is good.
type HostConfig struct {
	MTU      int  // of the wire; 0: 1500
	Path     Path // between peer and host
	RealTime bool // engines run on goroutines and time is the machine's, for code whose calls block
}

// A Host is kit's stack on a wire in memory, with the address HostAddr, and its sockets: the embedded Kit has the calls that
// kit.Kit has, and Net, the net package's functions.
//
// In virtual time nothing happens but within the methods of the peer and within Wait: handlers and calls that do not block can be
// tried, to the nanosecond. Code that blocks needs HostConfig.RealTime.
type Host struct {
	*socketapi.Kit
	Peer *Peer

	t     testing.TB
	stack *stack.Stack
	wire  *linktest.Wire
	now   clock.Time // virtual
	came  [][]byte   // to the peer, and not taken yet
}

// begin is when virtual time begins.
const begin = clock.Time(time.Hour)

// NewHost makes a Host that has announced its address and knows nobody yet. It is closed when the test ends.
func NewHost(t testing.TB, cfg HostConfig) *Host {
	t.Helper()
	h := &Host{t: t, stack: stack.New(stack.Config{Seed: 1}), now: begin}
	h.wire = linktest.New(linktest.Config{Seed: cfg.Path.Seed, RealTime: cfg.RealTime, Ends: []linktest.EndConfig{
		{MTU: cfg.MTU, HardwareAddr: peerHardware}, {MTU: cfg.MTU, HardwareAddr: [6]byte{2, 0, 0, 0, 0, 2}},
	}})
	peer, own := h.wire.End(0), h.wire.End(1)
	if _, err := h.stack.AddInterface(stack.InterfaceConfig{
		Name: "memory0", Links: []stack.Link{own}, Mode: stack.Owned, Addresses: []netip.Prefix{HostAddr},
	}); err != nil {
		t.Fatalf("make a host: %v", err)
	}
	h.Kit = socketapi.New(h.stack)
	t.Cleanup(func() {
		if err := errors.Join(h.Kit.Close(), h.stack.Close()); err != nil {
			t.Errorf("close the host: %v", err)
		}
	})
	h.Peer = &Peer{t: t, Addr: PeerAddr, hardware: peerHardware, neighbour: own.HardwareAddr(), port: memory{h}}
	if cfg.RealTime {
		h.Peer.port = realMemory{peer}
		h.stack.Start()
	} else { // past probes and announcements (RFC 5227)
		h.Wait(5 * time.Second)
		h.Peer.WantsSilence("a new host")
	}
	peer.SetFaults(cfg.Path.Out)
	own.SetFaults(cfg.Path.Back)
	return h
}

// Stack is the stack below the calls, for figures.
func (h *Host) Stack() *stack.Stack { return h.stack }

// Wait moves virtual time on, and all happens that is due until then. In real time it sleeps.
func (h *Host) Wait(d time.Duration) { h.Peer.Waits(d) }

// settle does all that is due at this moment, and returns when there is more.
func (h *Host) settle() clock.Time {
	h.t.Helper()
	end := h.wire.End(0)
	for range 100_000 {
		h.wire.Advance(h.now.Sub(begin))
		next := h.stack.Step(h.now)
		for f := end.Take(); f != nil; f = end.Take() {
			if h.Peer.shows(f) {
				h.came = append(h.came, f)
			}
		}
		if at, some := h.wire.NextEvent(); some {
			next = clock.Earliest(next, begin.Add(at))
		}
		if next == clock.Never || next > h.now {
			return next
		}
	}
	h.t.Fatalf("the host never comes to rest: something answers itself without end")
	return clock.Never
}

// memory is a port in virtual time.
type memory struct{ h *Host }

var errFull = errors.New("it is full, or the frame is longer than the MTU")

func (m memory) send(frame []byte) error {
	if !m.h.wire.End(0).Inject(frame) {
		return errFull
	}
	return nil
}

// next returns a frame that is there; one that is on its way comes with wait.
func (m memory) next(time.Duration) (f []byte, err error) {
	m.h.settle()
	if len(m.h.came) > 0 {
		f, m.h.came = m.h.came[0], m.h.came[1:]
	}
	return f, nil
}

// wait stops wherever the stack or the wire has something to do.
func (m memory) wait(d time.Duration) {
	until := m.h.now.Add(d)
	for {
		next := m.h.settle()
		if next == clock.Never || next > until {
			break
		}
		m.h.now = next
	}
	m.h.now = until
	m.h.settle()
}

// realMemory is a port in real time.
type realMemory struct{ end *linktest.End }

func (m realMemory) send(frame []byte) error {
	if !m.end.Inject(frame) {
		return errFull
	}
	return nil
}

func (m realMemory) next(limit time.Duration) ([]byte, error) {
	for until := time.Now().Add(limit); ; {
		left := time.Until(until)
		if f := m.end.Take(); f != nil || left <= 0 {
			return f, nil
		}
		if err := m.end.Wait(left); err != nil {
			return nil, err
		}
	}
}

func (m realMemory) wait(d time.Duration) { time.Sleep(d) }
