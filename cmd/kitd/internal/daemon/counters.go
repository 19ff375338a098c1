package daemon

import (
	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/kernel"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/tcp"
)

// Groups of counters.
const (
	groupXDP    = "xdp"     // verdicts of the XDP program
	groupSocket = "socket"  // the kernel's side of the AF_XDP sockets
	groupLink   = "link"    // kitd's side of the AF_XDP sockets
	groupEngine = "engine"  // the stack's engines
	groupDrop   = "drop"    // received packets that were dropped, by reason
	groupDropTx = "drop-tx" // made packets that were dropped, by reason
	groupTCP    = "tcp"     // the state machine of TCP
	groupKernel = "kernel"  // what is followed in the kernel, in shared mode
)

// figure is a counter of a T.
type figure[T any] struct {
	name  string
	help  string
	gauge bool
	get   func(*T) uint64
}

var engineFigures = []figure[stack.QueueStats]{
	{"rx_frames", "Frames that came from the card.", false, func(q *stack.QueueStats) uint64 { return q.RxFrames }},
	{"rx_bytes", "Bytes of the frames that came from the card.", false, func(q *stack.QueueStats) uint64 { return q.RxBytes }},
	{"rx_local", "Packets from the stack to itself.", false, func(q *stack.QueueStats) uint64 { return q.RxLocal }},
	{"rx_forwarded", "Frames that came over from another queue's engine.", false, func(q *stack.QueueStats) uint64 { return q.RxForwarded }},
	{"delivered", "Packets that reached a socket or a service.", false, func(q *stack.QueueStats) uint64 { return q.Delivered }},
	{"answered", "ARP and echo requests that the stack answered itself.", false, func(q *stack.QueueStats) uint64 { return q.Answered }},
	{"consumed", "Packets that did their work inside: ARP replies, ICMP errors, fragments.", false, func(q *stack.QueueStats) uint64 { return q.Consumed }},
	{"forwarded", "Frames handed to another queue's engine.", false, func(q *stack.QueueStats) uint64 { return q.Forwarded }},
	{"copied", "ARP packets shown to another queue's engine as well.", false, func(q *stack.QueueStats) uint64 { return q.Copied }},
	{"held", "Fragments that wait for the rest of their datagram.", true, func(q *stack.QueueStats) uint64 { return q.Held }},
	{"tx_frames", "Frames given to the card.", false, func(q *stack.QueueStats) uint64 { return q.TxFrames }},
	{"tx_bytes", "Bytes of the frames given to the card.", false, func(q *stack.QueueStats) uint64 { return q.TxBytes }},
	{"output", "IPv4 packets made here, answers in place not counted.", false, func(q *stack.QueueStats) uint64 { return q.Output }},
	{"sent", "Packets made here that were given to the card or the stack itself.", false, func(q *stack.QueueStats) uint64 { return q.Sent }},
	{"waiting", "Packets that wait for a neighbour's Ethernet address.", true, func(q *stack.QueueStats) uint64 { return q.Waiting }},
	{"partial_checksums", "Packets whose checksum the sending kernel had left to a card.", false, func(q *stack.QueueStats) uint64 { return q.PartialChecksums }},
	{"reassembled", "Datagrams put together from fragments.", false, func(q *stack.QueueStats) uint64 { return q.Reassembled }},
	{"fragmented", "Datagrams sent in fragments.", false, func(q *stack.QueueStats) uint64 { return q.Fragmented }},
	{"icmp_errors_sent", "ICMP errors sent.", false, func(q *stack.QueueStats) uint64 { return q.ICMPErrorsSent }},
	{"icmp_errors_held", "ICMP errors not sent because of their rate limit.", false, func(q *stack.QueueStats) uint64 { return q.ICMPErrorsHeld }},
	{"arp_requests", "ARP requests sent.", false, func(q *stack.QueueStats) uint64 { return q.ARPRequests }},
	{"arp_conflicts", "Claims of other hosts to our addresses.", false, func(q *stack.QueueStats) uint64 { return q.ARPConflicts }},
	{"steps", "Turns of the engine's loop.", false, func(q *stack.QueueStats) uint64 { return q.Steps }},
	{"sockets", "Sockets that the engine serves.", true, func(q *stack.QueueStats) uint64 { return uint64(q.Sockets) }},
}

var tcpCounters = []figure[tcp.Stats]{
	{"active_opens", "Connections begun from here.", false, func(t *tcp.Stats) uint64 { return t.ActiveOpens }},
	{"passive_opens", "Connections begun by peers.", false, func(t *tcp.Stats) uint64 { return t.PassiveOpens }},
	{"attempt_fails", "Connections that ended before their handshake did.", false, func(t *tcp.Stats) uint64 { return t.AttemptFails }},
	{"estab_resets", "Connections that a peer reset.", false, func(t *tcp.Stats) uint64 { return t.EstabResets }},
	{"in_segments", "Segments that reached a connection.", false, func(t *tcp.Stats) uint64 { return t.InSegments }},
	{"out_segments", "Segments that connections sent.", false, func(t *tcp.Stats) uint64 { return t.OutSegments }},
	{"retransmitted_segments", "Of these, sent before.", false, func(t *tcp.Stats) uint64 { return t.RetransmittedSegments }},
	{"resets_sent", "Segments with RST.", false, func(t *tcp.Stats) uint64 { return t.ResetsSent }},
	{"timeouts", "Retransmission time-outs.", false, func(t *tcp.Stats) uint64 { return t.Timeouts }},
	{"spurious_timeouts", "Of these, found to have been in vain.", false, func(t *tcp.Stats) uint64 { return t.SpuriousTimeouts }},
	{"loss_probes", "Tail loss probes sent.", false, func(t *tcp.Stats) uint64 { return t.LossProbes }},
	{"recoveries", "Fast recoveries.", false, func(t *tcp.Stats) uint64 { return t.Recoveries }},
	{"undone", "Reductions taken back because nothing was lost.", false, func(t *tcp.Stats) uint64 { return t.Undone }},
	{"cookies_sent", "SYN cookies given.", false, func(t *tcp.Stats) uint64 { return t.CookiesSent }},
	{"cookies_good", "SYN cookies that came back.", false, func(t *tcp.Stats) uint64 { return t.CookiesGood }},
	{"cookies_bad", "ACKs without a connection that were no cookie.", false, func(t *tcp.Stats) uint64 { return t.CookiesBad }},
	{"challenge_acks", "Challenge ACKs sent (RFC 5961).", false, func(t *tcp.Stats) uint64 { return t.ChallengeACKs }},
	{"challenges_suppressed", "Challenge ACKs not sent because of their rate limit.", false, func(t *tcp.Stats) uint64 { return t.ChallengesSuppressed }},
	{"paws_rejected", "Segments with an old timestamp.", false, func(t *tcp.Stats) uint64 { return t.PAWSRejected }},
	{"out_of_window", "Segments outside of the window.", false, func(t *tcp.Stats) uint64 { return t.OutOfWindow }},
	{"out_of_order", "Segments with something missing before them.", false, func(t *tcp.Stats) uint64 { return t.OutOfOrder }},
	{"out_of_order_drops", "Of these, thrown away for want of room.", false, func(t *tcp.Stats) uint64 { return t.OutOfOrderDrops }},
	{"black_holes", "Paths that swallow full segments.", false, func(t *tcp.Stats) uint64 { return t.BlackHoles }},
}

var socketFigures = []figure[loader.QueueStats]{
	{"rx_dropped", "Frames that the kernel dropped because they were too long, or for other reasons.", false, func(q *loader.QueueStats) uint64 { return q.RxDropped }},
	{"rx_invalid", "Bad addresses that the kernel found on the fill ring.", false, func(q *loader.QueueStats) uint64 { return q.RxInvalid }},
	{"tx_invalid", "Bad descriptors that the kernel found on the transmit ring.", false, func(q *loader.QueueStats) uint64 { return q.TxInvalid }},
	{"rx_ring_full", "Frames dropped because the engine was too slow.", false, func(q *loader.QueueStats) uint64 { return q.RxRingFull }},
	{"rx_fill_ring_empty", "Frames dropped because no frame buffer was free.", false, func(q *loader.QueueStats) uint64 { return q.RxFillRingEmpty }},
	{"tx_ring_empty", "Times that the kernel looked at an empty transmit ring.", false, func(q *loader.QueueStats) uint64 { return q.TxRingEmpty }},
}

var linkFigures = []figure[loader.Counters]{
	{"rx_joined", "Frames that came in several buffers.", false, func(l *loader.Counters) uint64 { return l.RxJoined }},
	{"rx_too_long", "Frames in several buffers dropped because they were longer than 68 KiB.", false, func(l *loader.Counters) uint64 { return l.RxTooLong }},
	{"rx_bad_descriptor", "Received descriptors that point outside the packet memory.", false, func(l *loader.Counters) uint64 { return l.RxInvalid }},
	{"tx_partial", "Frames sent whose UDP or TCP checksum was left to the card.", false, func(l *loader.Counters) uint64 { return l.TxPartial }},
	{"tx_full", "Times that no room was free to send.", false, func(l *loader.Counters) uint64 { return l.TxFull }},
	{"tx_refused", "Frames that the link refused to send: too short, too long, not its own, or with a checksum that the card can't reach.", false, func(l *loader.Counters) uint64 { return l.TxInvalid }},
	{"completions", "Frame buffers that came back after sending.", false, func(l *loader.Counters) uint64 { return l.Completions }},
	{"bad_completions", "Completions of what was not sent.", false, func(l *loader.Counters) uint64 { return l.CompletionInvalid }},
	{"kicks", "System calls that made the kernel send.", false, func(l *loader.Counters) uint64 { return l.Kicks }},
	{"kick_again", "Of these, answered EAGAIN: the rest is sent by another.", false, func(l *loader.Counters) uint64 { return l.KickAgain }},
	{"kick_no_buffers", "Of these, answered ENOBUFS: the kernel had no memory.", false, func(l *loader.Counters) uint64 { return l.KickNoBuffers }},
	{"kick_dropped", "Of these, answered EBUSY: the driver or the other end dropped a frame.", false, func(l *loader.Counters) uint64 { return l.KickDropped }},
	{"kick_down", "Of these, answered ENETDOWN: the card is down and the frames wait.", false, func(l *loader.Counters) uint64 { return l.KickDown }},
	{"kick_failed", "Of these, answered any other error.", false, func(l *loader.Counters) uint64 { return l.KickFailed }},
	{"fill_kicks", "System calls that made the driver look at the fill ring, or polled the card.", false, func(l *loader.Counters) uint64 { return l.FillKicks }},
	{"bundles", "Runs of TCP segments or UDP datagrams that the kernel or the card cut apart; these count as tx_frames, without completions.", false, func(l *loader.Counters) uint64 { return l.Bundles }},
	{"bundle_again", "Bundles that found no room, so that their segments were sent one by one.", false, func(l *loader.Counters) uint64 { return l.BundleAgain }},
	{"bundle_failed", "Bundles that failed for good: all segments are sent one by one since.", false, func(l *loader.Counters) uint64 { return l.BundleFailed }},
	{"sleeps", "Waits that went to sleep.", false, func(l *loader.Counters) uint64 { return l.Sleeps }},
	{"ring_insane", "Impossible ring indices of the kernel's side, refused.", false, func(l *loader.Counters) uint64 { return l.RingInsane }},
}

var followerFigures = []figure[kernel.FollowerStats]{
	{"changes", "Changes of addresses, routes, neighbours and links that the kernel told.", false, func(f *kernel.FollowerStats) uint64 { return f.Changes }},
	{"overruns", "Times that changes were lost, so that everything was read anew.", false, func(f *kernel.FollowerStats) uint64 { return f.Overruns }},
	{"reads", "Times that one of the kernel's tables was read.", false, func(f *kernel.FollowerStats) uint64 { return f.Reads }},
	{"asked", "Neighbours that the kernel was asked for.", false, func(f *kernel.FollowerStats) uint64 { return f.Asked }},
	{"unasked", "Neighbours not asked for because too many were wanted at a time.", false, func(f *kernel.FollowerStats) uint64 { return f.Unasked }},
}

// values appends the figures of v.
func values[T any](list []control.Counter, figures []figure[T], v *T, c control.Counter) []control.Counter {
	for i := range figures {
		f := &figures[i]
		c.Name, c.Help, c.Gauge, c.Value = f.name, f.help, f.gauge, f.get(v)
		list = append(list, c)
	}
	return list
}

// Stats implements control.Source. Each engine is asked once.
func (d *Daemon) Stats() control.Stats {
	list := []control.Counter{}
	if verdicts, err := d.card.XDPStats(); err == nil {
		list = xdpCounters(list, &verdicts)
	} else {
		d.log.Warn("the XDP program's counters can't be read", "error", err)
	}
	if queues, err := d.card.SocketStats(); err == nil {
		links := d.card.LinkCounters()
		for i := range queues {
			c := control.Counter{Group: groupSocket, Interface: d.card.Interface().Name(), Queue: &queues[i].Queue}
			list = values(list, socketFigures, &queues[i], c)
			c.Group = groupLink
			list = values(list, linkFigures, &links[i], c)
		}
	} else {
		d.log.Warn("the AF_XDP sockets' counters can't be read", "error", err)
	}
	var rx, tx [stack.NumDropReasons]uint64
	for _, i := range d.card.Stack().Interfaces() {
		for _, q := range i.Queues() {
			number := d.queueNumber(i, q.Queue)
			list = values(list, engineFigures, &q, control.Counter{Group: groupEngine, Interface: i.Name(), Queue: &number})
			for r := range q.Drops {
				rx[r] += q.Drops[r]
				tx[r] += q.TxDrops[r]
			}
		}
	}
	t := d.card.Stack().TCPStats()
	list = values(list, tcpCounters, &t, control.Counter{Group: groupTCP})
	if d.card.Interface().Mode() == stack.Shared {
		f := d.card.FollowerStats()
		list = values(list, followerFigures, &f, control.Counter{Group: groupKernel})
	}
	for _, r := range stack.DropReasons() {
		list = append(list, control.Counter{Group: groupDrop, Name: r.String(), Value: rx[r], Help: r.Doc()})
	}
	for _, r := range stack.DropReasons() {
		list = append(list, control.Counter{Group: groupDropTx, Name: r.String(), Value: tx[r], Help: r.Doc()})
	}
	return control.Stats{Version: control.Version, Counters: list}
}

func xdpCounters(list []control.Counter, verdicts *bpf.Stats) []control.Counter {
	for r := range bpf.Reason(bpf.Reasons) {
		list = append(list, control.Counter{Group: groupXDP, Name: r.String(), Value: verdicts[r], Help: sentence(r.Help())})
	}
	return list
}

// sentence makes a phrase one: "neither IPv4 nor ARP" becomes "Frames: neither
// IPv4 nor ARP."
func sentence(phrase string) string { return "Frames: " + phrase + "." }
