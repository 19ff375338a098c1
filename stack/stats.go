package stack

// Stats counts what became of packets. Its sums agree, for an engine as for the whole stack:
//
//	RxFrames + RxLocal + RxForwarded ==
//	    Delivered + Answered + Consumed + Forwarded + Held + sum(Drops)
//	Output == Sent + Waiting + sum(TxDrops)
//
// Held and Waiting are gauges; all else only grows.
type Stats struct {
	RxFrames    uint64 // frames that the links lent
	RxBytes     uint64 // their bytes, Ethernet header included
	RxLocal     uint64 // packets from the in-stack loopback
	RxForwarded uint64 // frames that came over from another engine

	Delivered uint64 // packets that reached a socket or a handler; with ones that complete a datagram
	Answered  uint64 // packets that the stack answered itself: ARP requests, echo requests, SYNs with a cookie
	Consumed  uint64 // packets that did their work inside: ARP replies, ICMP errors, fragments of finished datagrams
	Forwarded uint64 // frames handed to another engine
	Copied    uint64 // ARP packets and path MTUs shown to another engine as well; no end of a packet
	Held      uint64 // fragments that wait for the rest of their datagram
	Drops     [NumDropReasons]uint64

	TxFrames uint64 // frames given to the links
	TxBytes  uint64

	Output  uint64 // IPv4 packets made here, each fragment one; answers built in the frame that asked are not among them
	Sent    uint64 // of these, given to a link or the in-stack loopback
	Waiting uint64 // of these, waiting for a neighbour's Ethernet address
	TxDrops [NumDropReasons]uint64

	PartialChecksums uint64 // packets with a checksum that the sender's kernel had left to a card
	Reassembled      uint64 // datagrams put together from fragments
	Fragmented       uint64 // datagrams sent in fragments
	ICMPErrorsSent   uint64
	ICMPErrorsHeld   uint64 // ICMP errors not sent: the rate limit of RFC 1812 §4.3.2.8
	ARPRequests      uint64 // sent
	ARPConflicts     uint64 // claims of other hosts to our addresses
}

// add makes s the sum of both.
func (s *Stats) add(o *Stats) {
	for _, f := range []struct {
		to   *uint64
		from uint64
	}{
		{&s.RxFrames, o.RxFrames}, {&s.RxBytes, o.RxBytes}, {&s.RxLocal, o.RxLocal}, {&s.RxForwarded, o.RxForwarded},
		{&s.Delivered, o.Delivered}, {&s.Answered, o.Answered}, {&s.Consumed, o.Consumed},
		{&s.Forwarded, o.Forwarded}, {&s.Copied, o.Copied}, {&s.Held, o.Held},
		{&s.TxFrames, o.TxFrames}, {&s.TxBytes, o.TxBytes},
		{&s.Output, o.Output}, {&s.Sent, o.Sent}, {&s.Waiting, o.Waiting},
		{&s.PartialChecksums, o.PartialChecksums}, {&s.Reassembled, o.Reassembled}, {&s.Fragmented, o.Fragmented},
		{&s.ICMPErrorsSent, o.ICMPErrorsSent}, {&s.ICMPErrorsHeld, o.ICMPErrorsHeld},
		{&s.ARPRequests, o.ARPRequests}, {&s.ARPConflicts, o.ARPConflicts},
	} {
		*f.to += f.from
	}
	for r := range s.Drops {
		s.Drops[r] += o.Drops[r]
		s.TxDrops[r] += o.TxDrops[r]
	}
}

// QueueStats are the figures of one engine.
type QueueStats struct {
	Queue    int
	Running  bool   // its goroutine runs
	Sleeping bool   // it waits for work at this moment
	Steps    uint64 // turns of its loop
	Sockets  int    // sockets that it serves
	Stats
}

// Direction of a frame, seen from the stack.
type Direction uint8

// The directions.
const (
	Received Direction = iota
	Transmitted
)

// String is "in" or "out".
func (d Direction) String() string {
	if d == Transmitted {
		return "out"
	}
	return "in"
}
