package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Lengths of options as they stand aligned in a segment.
const (
	timestampLen = 12
	sackLen      = 4 // in front of the blocks
	sackBlockLen = 8
	maxOptions   = 40
)

// synOptions returns the options of a SYN or a SYN-ACK.
func (c *Conn) synOptions(now clock.Time) wire.TCPOptions {
	o := wire.NoTCPOptions()
	o.MSS = c.announcedMSS()
	o.SACKPermitted = c.opt.sack
	if c.ts.on {
		o.Timestamp = wire.TCPTimestamp{Has: true, Val: c.timestamp(now), Ecr: c.ts.recent}
	}
	if c.opt.windowScaling {
		o.WScale = int8(c.rcv.scale)
	}
	return o
}

// announcedMSS is the MSS option's value: the MTU less the fixed headers,
// whatever options there will be (RFC 6691 section 2, RFC 9293 section 3.7.1).
func (c *Conn) announcedMSS() uint16 {
	mss := min(int(c.snd.mtu)-ipTCPLen, c.layer.cfg.MSS)
	if c.opt.maxSegment != 0 {
		mss = min(mss, int(c.opt.maxSegment))
	}
	return uint16(mss)
}

// setMSS computes Eff.snd.MSS (RFC 9293 section 3.7.1): the least of what the
// peer takes, the path carries and the user wants, less the options that every
// segment has. Room for SACK blocks is taken off only those segments that
// have some.
func (c *Conn) setMSS() {
	mss := min(c.snd.peer, c.announcedMSS())
	if c.ts.on {
		mss -= min(mss-1, timestampLen)
	}
	c.snd.mss = mss
}

// SetNoDelay turns Nagle's algorithm off or on (RFC 9293 section 3.7.4,
// MUST-17). Off also lets what waits go at once, cork or not (tcp(7)).
func (c *Conn) SetNoDelay(on bool) {
	c.opt.noDelay = on
	c.due.override = c.due.override || on && c.unsent() > 0
}

// SetCork holds segments back that are not full, for at most
// Config.CorkTimeout. Taking the cork out lets what is there go.
func (c *Conn) SetCork(on bool) {
	if c.opt.cork && !on {
		c.due.override = c.unsent() > 0
	}
	c.opt.cork = on
}

// SetMore says that the user has more to write at once: SEND without PUSH
// (RFC 9293 section 3.9.1.2, MAY-15), the MSG_MORE of send(2). What does not fill a
// segment waits, for at most Config.CorkTimeout (MUST-60), and where it has to
// leave before the rest comes it has no PSH.
func (c *Conn) SetMore(on bool) { c.opt.more = on }

// SetQuickACK acknowledges every segment at once, or goes back to delayed ACKs.
func (c *Conn) SetQuickACK(on bool) {
	c.opt.quickACK = on
	if on && c.rcv.nxt != c.rcv.acked && c.state.Synchronized() {
		c.due.ack = true
	}
}

// SetMaxSegment limits the MSS announced and used (TCP_MAXSEG); 0 leaves it to
// the path. It is for the time before the handshake; later it only makes our
// own segments shorter.
func (c *Conn) SetMaxSegment(n int) {
	if n != 0 {
		n = max(c.layer.cfg.MinMSS, min(n, c.layer.cfg.MSS))
	}
	c.opt.maxSegment = uint16(n)
	if c.state != Closed {
		c.setMSS()
	}
}

// SetKeepAlive turns keep-alive probes on or off (RFC 9293 section 3.8.4). Zero
// numbers are the configuration's.
func (c *Conn) SetKeepAlive(now clock.Time, on bool, idle, interval time.Duration, probes int) {
	c.opt.keepAlive = on
	c.opt.keepIdle, c.opt.keepInterval = idle, interval
	c.opt.keepProbes = uint8(max(0, min(probes, 255)))
	c.armKeepAlive(now)
}

// SetUserTimeout says for how long what was sent may stay without an answer
// (RFC 9293 section 3.9.1.4, RFC 5482 section 3.1); 0 counts retransmissions
// instead.
func (c *Conn) SetUserTimeout(now clock.Time, d time.Duration) {
	c.opt.userTimeout = max(0, d)
	if c.timer.kind == timerRTO && c.timer.rexmtAt != clock.Never {
		c.timer.rexmtAt = c.clampToUser(c.timer.rexmtAt)
	}
}

// SetCongestion chooses congestion control by name and reports false where
// there is none of that name.
func (c *Conn) SetCongestion(name string) bool {
	algorithm, ok := algorithmByName(name)
	if !ok {
		return false
	}
	c.opt.congestion = algorithm
	c.cc.algorithm = algorithmState{}
	return true
}

// Congestion returns the name of the congestion control.
func (c *Conn) Congestion() string { return algorithms[c.opt.congestion].name }

// SetSendBuffer and SetReceiveBuffer fix a buffer's size in bytes and end its
// autotuning. A receive window that was announced is never taken back (RFC 9293
// section 3.8.6, SHLD-14).
func (c *Conn) SetSendBuffer(n int) {
	c.opt.fixedSend = true
	c.countBulk(false)
	c.tx.SetLimit(n)
}

// SetReceiveBuffer fixes the receive buffer's size; see SetSendBuffer.
func (c *Conn) SetReceiveBuffer(n int) {
	c.opt.fixedReceive = true
	if c.state != Closed && c.state != SynSent {
		n = max(n, int(c.rcvWnd())+c.rx.Used())
	}
	c.rx.SetLimit(n)
}
