// Package model says what kit's engines would do on more cores than a machine has, as far as one core can tell: it runs the engines
// of one stack one after the other, on one thread and on cards in memory, and takes the CPU time of each. With a core for each
// engine the busiest one would be the limit, so the model's throughput is all packets by the time of the busiest engine.
//
// It has in it what the software shares and spreads: flows that a hash spreads unevenly, tables that grow with the number of engines,
// frames that come to an engine that they are not for. It has not in it what only several cores show: cache lines that move between
// them, memory and caches that they share, and a card, driver and kernel. And it charges each engine for caches that it
// has to itself on a core of its own.
package model

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Traffic is what arrives, and who takes it.
type Traffic string

// The kinds of traffic. Datagrams have 64 bytes, segments are full.
const (
	Handler Traffic = "handler" // datagrams to a handler on the engines
	Ring    Traffic = "ring"    // datagrams to one socket's rings, which a user empties
	Stream  Traffic = "stream"  // TCP, many connections
)

// Case is what Run runs.
type Case struct {
	Traffic Traffic
	Engines int
	// Load is for how many engines the traffic is: so many flows, and so many packets at a time. What a packet costs depends on that,
	// on one core, more than on how many engines there are, so compare cases of one load.
	Load int
	// Astray lets each segment of a connection come to another engine than the connection's, of two engines or more. Datagrams
	// are at home on every engine.
	Astray bool
	// Packets is how many arrive for each of Load while it is measured.
	Packets int
	// Seed of the hash that spreads flows over engines.
	Seed uint64
}

// Result is what a Case took.
type Result struct {
	Packets   uint64          // datagrams or full segments that arrived
	Forwarded uint64          // frames that one engine passed on to another
	Busy      []time.Duration // the CPU time of each engine
}

// PerSecond is how many packets a second as many cores would take.
func (r *Result) PerSecond() float64 { return float64(r.Packets) / slices.Max(r.Busy).Seconds() }

// Cost is the mean CPU time of a packet.
func (r *Result) Cost() time.Duration { return r.sum() / time.Duration(r.Packets) }

// Balance is the mean engine's load in ratio to the busiest one's: 1 where all are as busy.
func (r *Result) Balance() float64 {
	return float64(r.sum()) / float64(len(r.Busy)) / float64(slices.Max(r.Busy))
}

func (r *Result) sum() (all time.Duration) {
	for _, b := range r.Busy {
		all += b
	}
	return all
}

const (
	// datagramFlows and connections are how many there are for each of Case.Load.
	datagramFlows = 256
	connections   = 32
	// datagramBatch and segmentBatch are how many packets then arrive between two steps.
	datagramBatch = 256
	segmentBatch  = 64
	port          = 7
	firstPort     = 1024 // of the client
	payload       = 64
	// roundTime is how long a round takes in the stacks' time.
	roundTime = 200 * time.Microsecond
)

var (
	serverAddr = netip.MustParseAddr("10.0.0.1")
	clientAddr = netip.MustParseAddr("10.0.0.2")
	serverMAC  = wire.HardwareAddr{2, 0, 0, 0, 0, 1}
	clientMAC  = wire.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// host is a stack with a card of several queues.
type host struct {
	*stack.Stack
	queues []*queue
	now    clock.Time
	meter  *meter
}

func newHost(addr netip.Addr, mac wire.HardwareAddr, engines, room int, m *meter) (*host, error) {
	h := &host{Stack: stack.New(stack.Config{Seed: 1}), now: clock.Now(), meter: m}
	cfg := stack.InterfaceConfig{Name: "model", Mode: stack.Owned, Addresses: []netip.Prefix{netip.PrefixFrom(addr, 24)}}
	for n := range engines {
		q := &queue{number: n, address: mac, meter: m, room: room, carry: func([]byte) {}}
		h.queues = append(h.queues, q)
		cfg.Links = append(cfg.Links, q)
	}
	_, err := h.AddInterface(cfg)
	return h, err
}

// step lets the engines do all that there is to do now.
func (h *host) step() {
	for {
		next := h.Step(h.now)
		if h.meter != nil {
			h.meter.enter(-1)
		}
		if next == clock.Never || next.After(h.now) {
			return
		}
	}
}

// Run runs a case on the calling goroutine.
func Run(c Case) (r Result, err error) {
	if c.Engines < 1 || c.Load < 1 || c.Packets < 1 || c.Astray && (c.Traffic != Stream || c.Engines < 2) {
		return r, fmt.Errorf("model: a case %+v can't be", c)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := newMeter(c.Engines)
	server, err := newHost(serverAddr, serverMAC, c.Engines, 4096, m)
	if err != nil {
		return r, err
	}
	defer server.Close()
	rng := rand.New(rand.NewPCG(c.Seed, 0))
	if c.Traffic == Stream {
		err = streams(&c, server, rng, &r)
	} else {
		err = datagrams(&c, server, rng, &r)
	}
	r.Busy = m.busy()
	return r, err
}

// begin ends the warm-up. It returns what end is to be given.
func (h *host) begin() stack.Stats {
	runtime.GC() // not later, in some engine's time
	h.meter.reset()
	return h.Stats()
}

// end fills in what the engines have counted since begin, and refuses that any frame was dropped.
func (h *host) end(before stack.Stats, r *Result) error {
	after := h.Stats()
	r.Forwarded = after.Forwarded - before.Forwarded
	for reason, n := range after.Drops {
		if n -= before.Drops[reason]; n > 0 {
			return fmt.Errorf("model: %d frames were dropped: %v", n, stack.DropReason(reason))
		}
	}
	return nil
}

func datagrams(c *Case, server *host, rng *rand.Rand, r *Result) error {
	socket := server.NewDatagram(wire.ProtocolUDP)
	if err := socket.Bind(netip.AddrPortFrom(serverAddr, port)); err != nil {
		return err
	}
	got := uint64(0)
	if c.Traffic == Handler {
		if err := socket.SetHandler(func(*stack.Packet) { got++ }); err != nil {
			return err
		}
	}
	home := make([]int, datagramFlows*c.Load)
	for flow := range home {
		home[flow] = rng.IntN(c.Engines)
	}
	messages := make([]stack.Message, 64)
	for i := range messages {
		messages[i].Buf = make([]byte, payload)
	}
	frame, coming := datagram(), make([][]uint16, c.Engines) // source ports
	for n, q := range server.queues {
		q.arrivals = func() {
			for _, port := range coming[n] {
				setSource(frame, port)
				q.arrive(frame)
			}
			coming[n] = coming[n][:0]
		}
	}
	round := func() error {
		for range datagramBatch * c.Load {
			flow := rng.IntN(len(home))
			coming[home[flow]] = append(coming[home[flow]], firstPort+uint16(flow))
		}
		server.now = server.now.Add(roundTime)
		server.step()
		for c.Traffic == Ring {
			n, err := socket.Read(messages)
			if errors.Is(err, syscall.EAGAIN) {
				break
			}
			if err != nil {
				return err
			}
			got += uint64(n)
		}
		return nil
	}
	rounds := max(1, c.Packets/datagramBatch)
	var before stack.Stats
	for n := -min(rounds, 8); n < rounds; n++ { // the first ones let tables and rings have their size
		if n == 0 {
			got = 0
			before = server.begin()
		}
		if err := round(); err != nil {
			return err
		}
	}
	r.Packets = got
	if want := uint64(rounds) * datagramBatch * uint64(c.Load); got != want {
		return fmt.Errorf("model: %d of %d datagrams were received", got, want)
	}
	return server.end(before, r)
}

// datagram is a frame from port 0 of the client.
func datagram() []byte {
	const length = wire.IPv4Len + wire.UDPLen + payload
	f := make([]byte, wire.EthernetLen+length)
	wire.PutEthernet(f, &wire.EthernetInfo{Dst: serverMAC, Src: clientMAC, Type: wire.EtherTypeIPv4})
	src, _ := wire.AddrFrom(clientAddr)
	dst, _ := wire.AddrFrom(serverAddr)
	ip := f[wire.EthernetLen:]
	wire.PutIPv4(ip, &wire.IPv4Fields{Src: src, Dst: dst, Protocol: wire.ProtocolUDP, TTL: 64, TotalLength: length})
	udp := ip[wire.IPv4Len:]
	udp[wire.UDPLen], udp[wire.UDPLen+1] = 0xff, 0xff
	wire.PutUDP(udp, &wire.UDPFields{Src: src, Dst: dst, DstPort: port, PayloadLen: payload}, wire.Sum(udp[wire.UDPLen:], 0))
	return f
}

// setSource gives the datagram a source port, which the payload's first word balances in the checksum.
func setSource(frame []byte, port uint16) {
	udp := frame[wire.EthernetLen+wire.IPv4Len:]
	udp[0], udp[1] = byte(port>>8), byte(port)
	udp[wire.UDPLen], udp[wire.UDPLen+1] = ^udp[0], ^udp[1]
}
