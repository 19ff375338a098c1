package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// Info is figures of one connection, much as Linux' struct tcp_info has them.
// Windows that congestion control keeps are in segments, all others in bytes.
type Info struct {
	State           State
	CongestionState string // open, disorder, cwr, recovery or loss
	Congestion      string // cubic or newreno
	SoftError       error  // last thing a router said about the path

	SACK, Timestamps, ECN bool
	WindowScale           bool
	SendScale             uint8 // Snd.Wind.Shift (RFC 7323 section 2.2)
	ReceiveScale          uint8 // Rcv.Wind.Shift

	RTO, SRTT, RTTVar, MinRTT time.Duration
	DelayedACK                time.Duration
	SendMSS, ReceiveMSS       int
	AnnouncedMSS              int // as a SYN has it now
	MTU                       int

	Cwnd, Ssthresh     uint32 // Ssthresh 1<<30 before the first loss
	InFlight           uint32 // segments not acknowledged
	Pipe               uint32 // segments thought to be in the network
	Sacked, Lost       uint32 // of those in flight
	Retransmitting     uint32
	Retransmits        uint8 // time-outs in a row
	Probes             uint8 // probes without an answer
	Backoff            uint8
	Retransmitted      uint32 // segments since the beginning
	TotalLost          uint32 // segments taken for lost
	Duplicates         uint32 // DSACKs sent and received
	Reorderings        uint32
	ReorderingExtent   uint32 // of the latest segment, how many before the last that had arrived it began
	SegmentsIn         uint32
	SegmentsOut        uint32
	Delivered          uint64 // bytes that the peer acknowledged
	Received           uint64 // bytes that came in order
	PacingRate         uint64 // bytes a second; 0 without pacing
	SendWindow         uint32
	ReceiveWindow      uint32
	SendBuffer         int
	ReceiveBuffer      int
	Unsent, Unread     int
	OutOfOrderRanges   int
	LastSent           time.Duration // how long ago; 0 for never
	LastHeard          time.Duration
	LastReceived       time.Duration // data, or the peer's SYN
	ReorderingSeen     bool
	UrgentBytesPending int
}

// Info returns the figures at this moment.
func (c *Conn) Info(now clock.Time) Info {
	cc := &c.cc
	i := Info{
		State: c.state, CongestionState: cc.state.String(), Congestion: c.Congestion(),
		SACK: c.opt.sack, Timestamps: c.ts.on, ECN: c.opt.ecn,
		SendScale: c.snd.scale, ReceiveScale: c.rcv.scale, WindowScale: c.opt.windowScaling,
		RTO: c.rtt.backedOff(c.timer.retries, &c.layer.cfg), SRTT: c.rtt.srtt, RTTVar: c.rtt.rttvar, MinRTT: c.rtt.min,
		DelayedACK: c.ack.ato, SendMSS: int(c.snd.mss), ReceiveMSS: int(c.rcv.mss), AnnouncedMSS: int(c.announcedMSS()), MTU: int(c.snd.mtu),
		Cwnd: cc.cwnd, Ssthresh: cc.ssthresh, InFlight: c.inFlight(), Pipe: c.pipe(),
		Retransmits: c.timer.retries, Probes: max(c.timer.probes, c.timer.keepSent),
		Backoff:       max(c.timer.retries, c.timer.backoff),
		Retransmitted: c.count.retransmitted, TotalLost: c.count.lost, Duplicates: c.count.duplicates,
		Reorderings: c.count.reorderings, ReorderingExtent: cc.rack.extent, SegmentsIn: c.count.segsIn, SegmentsOut: c.count.segsOut,
		Delivered: c.count.delivered, Received: c.count.received, PacingRate: c.pacingRate(),
		SendWindow: c.snd.wnd, ReceiveWindow: c.rcvWnd(),
		SendBuffer: c.tx.Limit(), ReceiveBuffer: c.rx.Limit(), Unsent: c.unsent(), Unread: c.rx.Used(),
		LastSent: since(now, cc.sentAt), LastHeard: since(now, c.timer.heardAt), LastReceived: since(now, c.ack.lastData),
		ReorderingSeen: cc.rack.seen,
	}
	if c.soft != None {
		i.SoftError = c.soft
	}
	if f := c.flight; f != nil {
		i.Sacked, i.Lost, i.Retransmitting = f.sacked+f.reno, f.lost, f.rexmt
	}
	if c.holes != nil {
		i.OutOfOrderRanges = len(c.holes.ranges)
	}
	if n, ok := c.UrgentPending(); ok {
		i.UrgentBytesPending = n
	}
	return i
}

// since returns how long ago at was, 0 for Never.
func since(now, at clock.Time) time.Duration {
	if at == clock.Never {
		return 0
	}
	return now.Sub(at)
}
