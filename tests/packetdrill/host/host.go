package host

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Blocked is the result of a call that waits. All other results are those of the system call, or -errno.
const Blocked = math.MinInt

// Host is the machine. Make one with New.
type Host struct {
	cfg     Config
	now     clock.Time
	next    clock.Time // when the stack wants to be stepped
	stack   *stack.Stack
	card    *stack.Interface
	cable   cable
	sockets map[int]*socket
	waiting *call // that is Blocked, or has ended and nobody asked
}

// call is a system call that may have to wait.
type call struct {
	try    func() (result int, done bool)
	until  clock.Time // when to try whatever happens
	result int
	done   bool
}

// New makes a host, an hour after its clock's epoch.
func New(cfg Config) *Host {
	return &Host{cfg: cfg, now: clock.Time(time.Hour), sockets: make(map[int]*socket)}
}

// boot makes the stack where there is none: the settings of the machine are known by now.
func (h *Host) boot() error {
	if h.stack != nil {
		return nil
	}
	numbers, err := h.cfg.tcpConfig()
	if err != nil {
		return err
	}
	h.cable = cable{mtu: h.cfg.MTU, now: &h.now}
	s := stack.New(stack.Config{Seed: 1, TCP: &numbers})
	card, err := s.AddInterface(stack.InterfaceConfig{
		Name: "tun0", Links: []stack.Link{&h.cable}, Mode: stack.Owned,
		Addresses: []netip.Prefix{h.cfg.Local}, Gateway: h.cfg.Gateway,
	})
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	card.SetNeighbour(stack.NeighbourEntry{
		Addr: h.cfg.Gateway, HardwareAddr: net.HardwareAddr(gatewayMAC[:]), State: stack.NeighbourPermanent,
	})
	h.stack, h.card = s, card
	h.step()
	return nil
}

// steps bounds how often the stack may want to be stepped without time passing.
const steps = 100_000

// step lets the stack do what there is to do now, and looks for the end of the call that waits.
func (h *Host) step() {
	if h.stack == nil {
		return
	}
	for range steps {
		h.next = h.stack.Step(h.now)
		if h.next != clock.Never && !h.next.After(h.now) {
			continue
		}
		if c := h.waiting; c == nil || c.done {
			return
		} else if c.result, c.done = c.try(); !c.done {
			return
		}
	}
	panic("host: the stack always has something to do at the same moment")
}

// Ended tells the result of the call that was Blocked, once, when it has one.
func (h *Host) Ended() (result int, ok bool) {
	if !h.ended() {
		return 0, false
	}
	result, h.waiting = h.waiting.result, nil
	return result, true
}

func (h *Host) ended() bool { return h.waiting != nil && h.waiting.done }

// wait does try at once; where that is not done and the call may block, it is tried again whenever something happens.
func (h *Host) wait(block bool, try func() (result int, done bool)) int {
	return h.waitUntil(clock.Never, block, try)
}

// waitUntil is wait with a moment at which it is tried again, too.
func (h *Host) waitUntil(until clock.Time, block bool, try func() (result int, done bool)) int {
	h.step()
	result, done := try()
	h.step() // what try asked for
	switch {
	case done, !block:
		return result
	case h.waiting != nil:
		return -int(syscall.EBUSY)
	}
	h.waiting = &call{try: try, until: until}
	return Blocked
}

// upcoming is when the next thing happens by itself, Never where nothing does.
func (h *Host) upcoming() clock.Time {
	if c := h.waiting; c != nil && !c.done {
		return clock.Earliest(h.next, c.until)
	}
	return h.next
}

// Now is the time in microseconds. It passes a little with every call, so that whoever only looks sees it pass.
func (h *Host) Now() int64 {
	h.now = h.now.Add(time.Microsecond)
	if at := h.upcoming(); at != clock.Never && !at.After(h.now) {
		h.step()
	}
	return micros(h.now)
}

func micros(t clock.Time) int64 { return int64(t) / int64(time.Microsecond) }

// Sleep lets time pass until, in microseconds. It reports false where it ended early because a call that waited has ended (see
// Ended), for its caller acts first.
func (h *Host) Sleep(until int64) (done bool) {
	end := clock.Time(until * int64(time.Microsecond))
	for !h.ended() {
		h.step()
		at := h.upcoming()
		if h.ended() || at == clock.Never || at.After(end) {
			break
		}
		h.now = max(h.now, at)
	}
	if h.ended() {
		return false
	}
	h.now = max(h.now, end)
	return true
}

// Inject lets an IP packet arrive.
func (h *Host) Inject(packet []byte) error {
	if err := h.boot(); err != nil {
		return err
	}
	h.cable.inject(packet)
	h.step()
	return nil
}

// patience is for how long Take waits for a packet. No timer of TCP is longer than that of keep-alive.
const patience = 3 * time.Hour

// Take writes the next packet that leaves to b and returns its length and when it left, in microseconds. Time passes until one
// does; 0 is that none will. A call that waited and has ended (see Ended) ends Take with ok false, for its caller acts first.
func (h *Host) Take(b []byte) (n int, at int64, ok bool) {
	for end := h.now.Add(patience); ; h.now = max(h.now, h.upcoming()) {
		h.step()
		if l, some := h.cable.take(); some {
			if err := checkSums(l.packet); err != nil {
				h.cfg.Logf("host: the stack sent a bad packet: %v", err)
				return 0, micros(l.at), true
			}
			return copy(b, l.packet), micros(l.at), true
		}
		if h.ended() {
			return 0, 0, false
		}
		if at := h.upcoming(); at == clock.Never || at.After(end) {
			return 0, micros(h.now), true
		}
	}
}

// checkSums verifies the checksums of TCP, which packetdrill does not look at.
func checkSums(packet []byte) error {
	p, err := wire.ParseIPv4(packet)
	if err != nil || p.Protocol() != wire.ProtocolTCP {
		return err
	}
	t, err := wire.ParseTCP(p.Payload())
	if err != nil {
		return err
	}
	if s := t.ChecksumState(p.Src(), p.Dst()); s != wire.ChecksumOK {
		return fmt.Errorf("TCP's checksum in %x is %v", packet, s)
	}
	return nil
}

// Outlast lets time pass until the call that waits has ended and returns its result: for a caller with nobody beside it that
// could end the call. -EDEADLK is that nothing ever will.
func (h *Host) Outlast() int {
	for end := h.now.Add(patience); ; h.now = max(h.now, h.upcoming()) {
		h.step()
		if result, ok := h.Ended(); ok {
			return result
		}
		if at := h.upcoming(); at == clock.Never || at.After(end) {
			h.waiting = nil
			return -int(syscall.EDEADLK)
		}
	}
}
