package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Conn is a connection: the transmission control block of RFC 9293 section
// 3.3.1. Its zero value is of no use before Init. It is not to be copied, and
// its caller may embed it.
//
// Its fields, and those of its parts, stand in the order of how often they are
// needed: with many connections it is lines of the cache that a segment costs.
type Conn struct {
	layer  *Layer
	tx     SendStream
	rx     ReceiveStream
	flight *flight // what is in flight; nil while nothing is
	holes  *holes  // what arrived out of order; nil while nothing is missing

	state  State
	events Events
	err    Error
	soft   Error

	snd   sendSequence
	due   due
	rcv   receiveSequence
	ts    timestamps
	ack   acknowledging
	timer timers
	opt   settings
	rtt   roundTrip
	cc    control
	count counters
	rst   reset
	id    ID
}

// sendSequence is the send sequence variables (RFC 9293 section 3.3.1, figure
// 2), and what depends on the peer's window.
type sendSequence struct {
	una    Seq    // oldest number not acknowledged
	nxt    Seq    // next number to send
	wnd    uint32 // window, in bytes
	wl1    Seq    // SEG.SEQ of the last window update
	wl2    Seq    // SEG.ACK of the last window update
	iss    Seq    // number of the SYN
	up     Seq    // urgent pointer: behind the last urgent byte
	fin    Seq    // number of the FIN, once finSent
	small  Seq    // end of the last segment sent that was not full (Nagle), or una
	maxWnd uint32 // largest window seen
	mtu    uint16 // of the path, of whole IP packets
	route  uint16 // the same before anything was found out about the path
	mss    uint16 // bytes of payload in a full segment, without timestamps' room
	peer   uint16 // MSS that the peer announced
	scale  uint8  // Snd.Wind.Shift (RFC 7323 section 2.2)

	finWanted bool // Close was called
	finSent   bool
	bulk      bool // the user fills the send buffer: counted in the layer
	finAcked  bool
	urgent    bool // up counts
}

// receiveSequence is the receive sequence variables (RFC 9293 section 3.3.1,
// figure 3).
type receiveSequence struct {
	nxt   Seq // next number expected
	adv   Seq // right edge of the window announced: RCV.NXT+RCV.WND
	irs   Seq // number of the peer's SYN
	up    Seq // urgent pointer
	fin   Seq // number of the peer's FIN, if finSeen
	acked Seq // Last.ACK.sent (RFC 7323 section 4.3)
	// read is how many bytes the user took since the last time the buffer was
	// tuned, tuned when that was (see autotune).
	read    uint32
	space   uint32
	tunedAt clock.Time
	rttAt   clock.Time // when rttSeq was set
	rttSeq  Seq
	rtt     uint32 // µs, as the receiver sees it
	mss     uint16 // largest payload seen, the peer's full segment
	scale   uint8  // Rcv.Wind.Shift

	finSeen bool // a FIN arrived, perhaps before data in front of it
	finDone bool // it was reached
	urgent  bool // up counts
	shut    bool // nobody will read
}

// timestamps is the state of RFC 7323's option.
type timestamps struct {
	recentAt clock.Time // when recent was set
	recent   uint32     // TS.Recent
	offset   uint32     // of our clock
	on       bool       // Snd.TS.OK
}

// settings are what the user may choose for one connection. They stand before
// Connect and Accept, too.
type settings struct {
	userTimeout   time.Duration // 0: by retransmissions (Config.Retries)
	congestion    algorithm
	keepProbes    uint8  // 0: Config's
	maxSegment    uint16 // 0: what the path allows
	keepAlive     bool
	noDelay       bool
	cork          bool
	more          bool // the last SEND had no PUSH
	quickACK      bool
	fixedSend     bool // the buffer's size is the user's
	fixedReceive  bool
	orphan        bool          // nobody holds the connection
	sack          bool          // agreed (RFC 2018)
	ecn           bool          // agreed (RFC 3168)
	passive       bool          // opened by a SYN of the peer
	windowScaling bool          // agreed (RFC 7323)
	keepIdle      time.Duration // 0: Config's
	keepInterval  time.Duration
}

// due is what the next Emit has to send beside data.
type due struct {
	syn      bool // SYN or SYN-ACK
	rst      bool // reset
	ack      bool // an ACK at once
	probe    bool // window or keep-alive probe
	tail     bool // tail loss probe (RFC 8985 section 7)
	override bool // send what silly window avoidance and cork hold back
	frto     bool // new data instead of retransmissions (RFC 5682)
	extra    uint8
}

// reset is the RST that is due: <SEQ=seq><ACK=ack><CTL=flags>.
type reset struct {
	seq, ack Seq
	flags    wire.TCPFlags
}

// counters are figures for Info.
type counters struct {
	delivered     uint64 // bytes acknowledged
	received      uint64 // bytes taken in order
	segsOut       uint32
	segsIn        uint32
	retransmitted uint32 // segments
	lost          uint32
	duplicates    uint32 // DSACKs
	reorderings   uint32
}

// Init prepares c, in state CLOSED, for a connection of this name over a path
// with this MTU (of IP packets, in bytes), whose bytes lie in tx and rx. Settings may
// follow, then Connect, Accept or AcceptCookie.
func (c *Conn) Init(l *Layer, id ID, mtu int, tx SendStream, rx ReceiveStream) {
	*c = Conn{layer: l, id: id, tx: tx, rx: rx}
	c.opt.congestion = l.congestion
	c.snd.mtu = c.clampMTU(mtu)
	c.snd.route = c.snd.mtu
	tx.SetLimit(l.cfg.SendBuffer)
	rx.SetLimit(l.cfg.ReceiveBuffer)
}

// ipTCPLen is the length of IPv4's and TCP's headers without options.
const ipTCPLen = 40

// State returns the state.
func (c *Conn) State() State { return c.state }

// ID returns the connection's name.
func (c *Conn) ID() ID { return c.id }

// Err returns why the connection ended, nil while it did not or ended in order.
func (c *Conn) Err() error {
	if c.err == None {
		return nil
	}
	return c.err
}

// setState moves to a state; what its entry brings stands here.
func (c *Conn) setState(s State) {
	if c.state == s {
		return
	}
	c.state = s
	switch s {
	case Established:
		c.events |= Connected
	case FinWait2, TimeWait:
		c.countBulk(false) // all that was sent is acknowledged, and no more comes
	case Closed:
		c.events |= Gone
		c.free()
	}
}

// fail ends the connection with an error, the state being CLOSED afterwards.
func (c *Conn) fail(e Error) {
	if c.err == None {
		c.err = e
	}
	c.events |= Failed | Readable | Writable
	c.setState(Closed)
}

// free gives back what the connection borrowed and stops its timers: "delete
// the TCB". The streams are the caller's.
func (c *Conn) free() {
	c.dropFlight()
	c.dropHoles()
	c.countBulk(false)
	c.timer = timers{}
	c.due = due{rst: c.due.rst}
}

func (c *Conn) dropFlight() {
	if c.flight != nil {
		c.layer.returnFlight(c.flight)
		c.flight = nil
	}
}

func (c *Conn) dropHoles() {
	if c.holes != nil {
		c.layer.returnHoles(c.holes)
		c.holes = nil
	}
}

// first returns the sequence number of the first byte in the send stream: the
// stream holds what is not acknowledged, and no SYN. (SND.UNA alone does not
// tell: after 4 GiB it comes by ISS again.)
func (c *Conn) first() Seq {
	if c.state == SynSent || c.state == SynReceived {
		return c.snd.iss + 1
	}
	return c.snd.una
}

// position returns how many bytes in all lie in front of a number near SND.UNA.
// Unlike a number it may be kept for as long as one wants, because it does not
// come round.
func (c *Conn) position(seq Seq) uint64 {
	return c.count.delivered + uint64(int64(seq.Sub(c.snd.una)))
}

// unsent returns how many bytes the user wrote that were never sent.
func (c *Conn) unsent() int {
	if c.snd.finSent {
		return 0
	}
	n := c.tx.Used() - int(c.snd.nxt-c.first())
	return max(0, n)
}

// rcvWnd is RCV.WND, what is left of the window announced.
func (c *Conn) rcvWnd() uint32 { return uint32(max(0, c.rcv.adv.Sub(c.rcv.nxt))) }
