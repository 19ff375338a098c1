package tcp

import (
	"math/bits"

	"kitnet.dev/kit/stack/clock"
)

// Connect is the active OPEN (RFC 9293 section 3.10.1): the state becomes
// SYN-SENT, and Emit sends <SEQ=ISS><CTL=SYN>. In any state but CLOSED it does
// nothing.
func (c *Conn) Connect(now clock.Time) {
	if c.state != Closed || c.err != None {
		return
	}
	c.begin(now, c.layer.iss(now, c.id))
	c.opt.sack = c.layer.cfg.SACK
	c.ts.on = c.layer.cfg.Timestamps
	c.opt.windowScaling = c.layer.cfg.WindowScale
	c.opt.ecn = c.layer.cfg.ECN == ECNOn
	c.setState(SynSent)
	c.due.syn = true
	c.layer.stats.ActiveOpens++
}

// Accept is what LISTEN does with a SYN (RFC 9293 section 3.10.7.2, third): c,
// fresh from Init, becomes a connection in SYN-RECEIVED, and Emit sends
// <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>. The segment is one for which
// Layer.Listen said Open.
func (c *Conn) Accept(now clock.Time, syn *Segment) {
	c.begin(now, c.layer.iss(now, c.id))
	c.opt.passive = true
	c.takeSYN(now, syn)
	c.takeSYNOptions(now, syn)
	c.setState(SynReceived)
	c.due.syn = true
	c.layer.stats.PassiveOpens++
}

// begin sets up what active and passive opens have in common.
func (c *Conn) begin(now clock.Time, iss Seq) {
	cfg := &c.layer.cfg
	c.snd.iss, c.snd.una, c.snd.nxt = iss, iss, iss
	c.snd.up = iss
	c.snd.small = iss
	c.snd.peer = defaultMSS
	c.ts.offset = c.layer.timestampOffset(c.id)
	c.rtt.init(cfg)
	c.timer.progressAt = now
	c.rcv.scale = windowScaleFor(max(cfg.ReceiveBufferMax, c.rx.Limit()), cfg.WindowScale)
	// What a sender's first window brings is no reason for a larger buffer.
	c.rcv.space = uint32(min(c.rx.Limit(), cfg.InitialWindow*int(c.announcedMSS())))
	c.ack.quick = uint8(cfg.QuickACKs)
	c.setMSS()
}

// defaultMSS is the MSS of a peer that announces none (RFC 9293 section 3.7.1,
// MUST-15).
const defaultMSS = 536

// windowScaleFor returns the shift with which a buffer of this size can be
// announced.
func windowScaleFor(buffer int, enabled bool) uint8 {
	if !enabled {
		return 0
	}
	return uint8(max(0, min(bits.Len(uint(buffer))-16, 14)))
}

// takeSYN notes the peer's sequence number.
func (c *Conn) takeSYN(now clock.Time, s *Segment) {
	c.rcv.irs = s.Seq
	c.rcv.nxt = s.Seq + 1
	c.rcv.adv = c.rcv.nxt
	c.rcv.acked = c.rcv.nxt
	c.rcv.up = c.rcv.nxt
	c.rcv.mss = min(defaultMSS, c.announcedMSS())
	c.rcv.tunedAt = now
	c.ack.lastData = now
}

// takeSYNOptions agrees on the options of a SYN or a SYN-ACK: what we offered
// or may offer in answer, and the peer has, is on (RFC 7323 sections 1.3 and 3.2,
// RFC 2018 section 2).
func (c *Conn) takeSYNOptions(now clock.Time, s *Segment) {
	cfg := &c.layer.cfg
	if s.Options.MSS != 0 {
		c.snd.peer = max(s.Options.MSS, uint16(cfg.MinMSS))
	}
	c.opt.sack = cfg.SACK && s.Options.SACKPermitted
	c.ts.on = cfg.Timestamps && s.Options.Timestamp.Has
	if c.ts.on {
		c.ts.recent, c.ts.recentAt = s.Options.Timestamp.Val, now
	}
	c.opt.windowScaling = cfg.WindowScale && s.Options.WScale >= 0
	if c.opt.windowScaling {
		c.snd.scale = uint8(s.Options.WScale)
	} else {
		c.rcv.scale = 0
	}
	c.agreeECN(s)
	// A window in a SYN is never scaled (RFC 7323 section 2.2).
	c.snd.wnd = uint32(s.Window)
	c.snd.maxWnd = c.snd.wnd
	c.setMSS()
}
