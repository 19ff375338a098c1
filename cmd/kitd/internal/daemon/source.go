package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/cmd/kitd/internal/sockfilter"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/tcp"
)

var _ control.Source = (*Daemon)(nil)

// Status implements control.Source.
func (d *Daemon) Status() control.Status {
	info, card, config := d.card.Info(), d.card.Interface(), d.config.Load()
	services, _ := d.services.list()
	s := control.Status{
		Version: control.Version, Kitd: d.options.Version, PID: os.Getpid(),
		Interface: card.Name(), HardwareAddr: card.HardwareAddr().String(), MTU: card.MTU(), Mode: card.Mode().String(),
		Addresses: []string{}, Gateway: text(config.Gateway),
		Attach:     control.Choice{Asked: config.Attach, InUse: info.Attach.String()},
		Copy:       control.Choice{Asked: config.Copy, InUse: copyInUse(info.Queues)},
		TxChecksum: control.Choice{Asked: config.TxChecksum, InUse: checksumInUse(info.Queues)},
		Wait:       card.WaitMode().String(), Queues: []int{}, Services: services,
		Started: d.started, UptimeSeconds: time.Since(d.started).Seconds(), Rates: *d.rates.Load(),
		Capabilities: d.caps.Permitted.Names(), NoNewPrivs: d.caps.NoNewPrivs,
		Degraded: d.degraded(&info), Notes: d.notes(),
	}
	for _, p := range card.Addresses() {
		s.Addresses = append(s.Addresses, p.String())
	}
	for _, q := range info.Queues {
		s.Queues = append(s.Queues, q.Queue)
	}
	return s
}

// notes are what is right and may still surprise.
func (d *Daemon) notes() []string { return append([]string{}, d.card.Unfollowed()...) }

// copyInUse is how frames move: zerocopy, copy, or mixed where queues differ.
func copyInUse(queues []loader.QueueInfo) string {
	return inUse(queues, "zerocopy", "copy", func(q *loader.QueueInfo) bool { return q.Copy == loader.CopyZero })
}

// checksumInUse is whether checksums are left to the card: on, off, or mixed.
func checksumInUse(queues []loader.QueueInfo) string {
	return inUse(queues, "on", "off", func(q *loader.QueueInfo) bool { return q.TxChecksum })
}

// inUse is the word for what is true of all queues or of none, or mixed.
func inUse(queues []loader.QueueInfo, yes, no string, is func(*loader.QueueInfo) bool) (use string) {
	for i := range queues {
		word := no
		if is(&queues[i]) {
			word = yes
		}
		if use != "" && use != word {
			return "mixed"
		}
		use = word
	}
	return use
}

// text is an address's, "" for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func portText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// Connect implements control.Source.
func (d *Daemon) Connect(ctx context.Context, address string, fallback bool) (control.Stream, error) {
	network := "tcp4"
	if fallback {
		network = "tcp"
	}
	stream, err := (&socketapi.Dialer{Net: d.card.Net(), Fallback: fallback}).DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("kitd can't connect to %q: %w", address, err)
	}
	return stream.(*socketapi.TCPConn), nil
}

// Sockets implements control.Source.
func (d *Daemon) Sockets(filter string) (control.Sockets, error) {
	wanted, err := sockfilter.Compile(filter)
	if err != nil {
		return control.Sockets{}, err
	}
	list := control.Sockets{Version: control.Version, Sockets: []control.Socket{}}
	for _, s := range d.card.Stack().Sockets() {
		state := socketState(&s)
		if !wanted.Match(&sockfilter.Socket{
			Proto: s.Proto.String(), State: state, Local: s.Local, Remote: s.Remote, Interface: s.Interface,
		}) {
			continue
		}
		list.Sockets = append(list.Sockets, control.Socket{
			ID: s.ID, Proto: s.Proto.String(), State: state, Local: portText(s.Local), Remote: portText(s.Remote),
			Interface: s.Interface, Handler: s.Handler, ReadQueue: s.ReadQueue, WriteQueue: s.WriteQueue,
			Received: s.Received, RxBytes: s.RxBytes, Sent: s.Sent, TxBytes: s.TxBytes, Dropped: s.Dropped,
			TCP: tcpFigures(s.TCP), Accelerated: s.Unaccelerated == "", Reason: s.Unaccelerated,
		})
		if state == "listening" {
			list.Sockets[len(list.Sockets)-1].WriteQueue = s.Backlog
		}
	}
	return list, nil
}

// socketState is ss's name for what a socket is.
func socketState(s *stack.SocketInfo) string {
	switch s.State {
	case "LISTEN":
		return "listening"
	case "SYN-RECEIVED":
		return "syn-recv"
	case "CLOSED":
	case "":
		if s.Remote.IsValid() {
			return "established"
		}
	default:
		return strings.ToLower(s.State)
	}
	return "unconnected"
}

func tcpFigures(i *tcp.Info) *control.TCP {
	if i == nil {
		return nil
	}
	t := &control.TCP{
		Congestion: i.Congestion, CongestionState: i.CongestionState,
		SRTTMicros: i.SRTT.Microseconds(), RTTVarMicros: i.RTTVar.Microseconds(), MinRTTMicros: i.MinRTT.Microseconds(),
		RTOMicros: i.RTO.Microseconds(), MSS: i.SendMSS, PMTU: i.MTU, Cwnd: i.Cwnd, InFlight: i.InFlight,
		Retransmitted: i.Retransmitted, Lost: i.TotalLost, Timeouts: i.Retransmits, Delivered: i.Delivered, Received: i.Received,
		Unsent: i.Unsent, PacingRate: i.PacingRate, SendWindow: i.SendWindow, ReceiveWindow: i.ReceiveWindow, SACK: i.SACK,
		Timestamps: i.Timestamps, ECN: i.ECN, SendScale: i.SendScale, ReceiveScale: i.ReceiveScale,
	}
	if i.Ssthresh < 1<<30 {
		t.Ssthresh = i.Ssthresh
	}
	return t
}

// Neighbors implements control.Source.
func (d *Daemon) Neighbors() control.Neighbors {
	list := control.Neighbors{Version: control.Version, Neighbors: []control.Neighbor{}}
	for _, i := range d.card.Stack().Interfaces() {
		for _, n := range i.Neighbours() {
			entry := control.Neighbor{
				Interface: i.Name(), Addr: n.Addr.String(), State: n.State.String(), Queued: n.Queued, AgeSeconds: n.Age.Seconds(),
			}
			if len(n.HardwareAddr) > 0 && slices.Max(n.HardwareAddr) > 0 {
				entry.HardwareAddr = n.HardwareAddr.String()
			}
			list.Neighbors = append(list.Neighbors, entry)
		}
	}
	return list
}

// Routes implements control.Source.
func (d *Daemon) Routes() control.Routes {
	list := control.Routes{Version: control.Version, Routes: []control.Route{}, Notes: d.notes()}
	for _, i := range d.card.Stack().Interfaces() {
		for _, r := range i.Routes() {
			list.Routes = append(list.Routes, control.Route{
				Interface: i.Name(), Dst: r.Dst.String(), Gateway: text(r.Gateway), Source: text(r.Source),
				Metric: r.Metric, MTU: r.MTU, Kind: r.Kind.String(),
			})
		}
	}
	return list
}

// Queues implements control.Source.
func (d *Daemon) Queues() control.Queues {
	list := control.Queues{Version: control.Version, Queues: []control.Queue{}}
	card := d.card.Interface()
	for _, q := range card.Queues() {
		entry := control.Queue{
			Interface: card.Name(), Queue: d.queueNumber(card, q.Queue), Running: q.Running, Sleeping: q.Sleeping,
			Steps: q.Steps, Sockets: q.Sockets, RxFrames: q.RxFrames, RxBytes: q.RxBytes, TxFrames: q.TxFrames,
			TxBytes: q.TxBytes, Delivered: q.Delivered, Answered: q.Answered, Drops: drops(&q.Stats),
		}
		list.Queues = append(list.Queues, entry)
	}
	return list
}

// drops sums what was dropped, received or made.
func drops(s *stack.Stats) (n uint64) {
	for r := range s.Drops {
		n += s.Drops[r] + s.TxDrops[r]
	}
	return n
}

// Capture implements control.Source.
func (d *Daemon) Capture(r control.CaptureRequest) (control.CaptureRun, error) {
	return d.tap.prepare(r, "kitd "+d.options.Version)
}

// queueNumber is the card's queue that an engine serves, which is not the
// engine's own number when only some queues are held.
func (d *Daemon) queueNumber(i *stack.Interface, engine int) int {
	if i.Loopback() || engine >= len(d.queues) {
		return engine
	}
	return d.queues[engine]
}
