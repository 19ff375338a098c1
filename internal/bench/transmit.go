package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"time"

	"kitnet.dev/kit"
	"kitnet.dev/kit/loader"
)

// In transmit the subject sends datagrams of one payload to one peer, all that it can. What counts is what an XDP program at the
// peer's end counts and drops: no receiver takes part, so that the sender is the limit. The program runs on the sender's core, in
// the softirq that veth's transmission raises, the same for every subject.

// transmitPort is the port that is sent to: discard's (RFC 863).
const transmitPort = 9

// transmitNote says what could mislead a reader of transmit's table.
const transmitNote = "transmit: batches go out on connected sockets, 64 datagrams a call; Go's net and kit's SendTo name the peer " +
	"with each datagram. Raw AF_XDP fills its ring before each call. A sendmmsg GSO message holds up to 64 datagrams, or as many as " +
	"fit 64 kB: the kernel walks its stack once for all of them, and cuts above the card, since the card's own UDP segmentation is off."

func measureTransmit(ctx context.Context, r *runner, s Subject) (sample Sample, err error) {
	return r.transmitted(ctx, s, task{Role: Transmit})
}

// transmitted measures a task that transmits, from one socket or many.
func (r *runner) transmitted(ctx context.Context, s Subject, t task) (sample Sample, err error) {
	sink, err := newSinkOf(r.lab.Left, r.sentBy(s, t))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	p, err := r.startTask(ctx, s, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := pause(ctx, warmUp); err != nil {
		return nil, err
	}
	arrived, err := startMeter(sink.Count)
	if err != nil {
		return nil, err
	}
	did, softirq, err := r.watch(ctx, p)
	if err != nil {
		return nil, err
	}
	count, rate, err := arrived.read()
	if err != nil {
		return nil, err
	}
	if count == 0 {
		return nil, fmt.Errorf("bench: none of %d datagrams sent arrived", did.Sent)
	}
	sample = Sample{"arrived_per_s": rate, "sent_per_s": float64(did.Sent) / did.At.Seconds()}
	costs(sample, did, softirq, float64(count))
	return sample, nil
}

// watch returns what the subject did in a window, and the time spent in softirqs meanwhile.
func (r *runner) watch(ctx context.Context, p *process) (did reading, softirq time.Duration, err error) {
	return watch(ctx, p, r.opts.Window)
}

func watch(ctx context.Context, p *process, window time.Duration) (did reading, softirq time.Duration, err error) {
	softirq = softirqTime()
	first, err := p.read(ctx)
	if err != nil {
		return did, 0, err
	}
	if err := pause(ctx, window); err != nil {
		return did, 0, err
	}
	last, err := p.read(ctx)
	return last.since(first), softirqTime() - softirq, err
}

// costColumns are the CPU time a packet, which costs fills in.
func costColumns() []Column {
	return []Column{
		{Key: "user_ns", Title: "user a packet", Unit: Nanoseconds, LowerIsBetter: true},
		{Key: "system_ns", Title: "system a packet", Unit: Nanoseconds, LowerIsBetter: true},
		{Key: "softirq_ns", Title: "softirq a packet", Unit: Nanoseconds, LowerIsBetter: true},
	}
}

func costs(sample Sample, did reading, softirq time.Duration, packets float64) {
	sample["user_ns"] = float64(did.User) / packets
	sample["system_ns"] = float64(did.System) / packets
	sample["softirq_ns"] = float64(softirq) / packets
}

// turnOf is how many datagrams the task sends with one call.
func turnOf(t task) int {
	if t.Role == SocketsTransmit {
		return socketTurn
	}
	return kernelBatch
}

// transmitMessages are a batch to the connected peer.
func transmitMessages(t task) []kit.Message {
	messages := make([]kit.Message, turnOf(t))
	for i := range messages {
		messages[i].Buf = make([]byte, t.Payload)
	}
	return messages
}

func transmitKitBatch(k *kit.Kit, s kit.Token, t task, c *counters, ready func()) error {
	if err := k.Connect(s, t.Peer); err != nil {
		return fmt.Errorf("connect to %s: %w", t.Peer, err)
	}
	messages := transmitMessages(t)
	ready()
	for {
		n, err := k.WriteBatch(s, messages, 0)
		c.Sent.Add(uint64(n))
		if err != nil {
			return err
		}
	}
}

func transmitKitCalls(k *kit.Kit, s kit.Token, t task, c *counters, ready func()) error {
	b := make([]byte, t.Payload)
	ready()
	for {
		if _, err := k.SendTo(s, b, 0, t.Peer); err != nil {
			return err
		}
		c.Sent.Add(1)
	}
}

func transmitGoNet(conn *net.UDPConn, t task, c *counters, ready func()) error {
	b := make([]byte, t.Payload)
	ready()
	for {
		if _, err := conn.WriteToUDPAddrPort(b, t.Peer); err != nil {
			return err
		}
		c.Sent.Add(1)
	}
}

// transmitRaw copies one ready frame into each that it sends: no header is built, no checksum computed. It tells the kernel only
// when there is no room for more, which is fastest: 2.4 M/s of 64 bytes, in place of 2.0 by 256 at a time and 1.7 by 64.
func transmitRaw(link *loader.Link, t task, c *counters, ready func()) error {
	own := link.HardwareAddr()
	template := udpFrame(own[:], t.PeerMAC, t.Address, t.Peer, make([]byte, t.Payload))
	runtime.LockOSThread()
	ready()
	for {
		sent := uint64(0)
		for {
			frame := link.Alloc()
			if frame == nil {
				break
			}
			if !link.Send(frame[:copy(frame, template)]) {
				return fmt.Errorf("a frame of %d bytes is refused", len(template))
			}
			sent++
		}
		link.Flush()
		c.Sent.Add(sent)
	}
}

// sendmmsgArgs are the arguments of the C subject that transmits.
func sendmmsgArgs(t task) []string {
	cut := "plain"
	if t.Subject == sendmmsgGSO {
		cut = "gso"
	}
	numbers := []string{strconv.Itoa(t.Payload), strconv.Itoa(t.CPU), strconv.Itoa(max(t.Sockets, 1)), strconv.Itoa(turnOf(t))}
	return slices.Concat([]string{cut}, hostPort(nthAddress(t, 0)), hostPort(t.Peer), numbers)
}

func hostPort(at netip.AddrPort) []string {
	return []string{at.Addr().String(), strconv.Itoa(int(at.Port()))}
}
