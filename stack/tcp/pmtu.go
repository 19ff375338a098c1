package tcp

import "kitnet.dev/kit/stack/clock"

// PathErrorKind is what an ICMP error says.
type PathErrorKind uint8

// The kinds.
const (
	// FragNeeded: a datagram was too large for a link (RFC 1191).
	FragNeeded PathErrorKind = iota
	// NetUnreachable and HostUnreachable are soft (RFC 1122 section 4.2.3.9).
	NetUnreachable
	HostUnreachable
	// PortUnreachable and ProtocolUnreachable end an attempt to connect.
	PortUnreachable
	ProtocolUnreachable
	// TimeExceeded and ParameterProblem are soft.
	TimeExceeded
	ParameterProblem
)

// minMTU is the least MTU that an ICMP error is believed to mean: smaller ones
// serve attacks (RFC 1191 section 3 would go down to 68; Linux takes 552, and
// leaves DF clear from then on, which is the caller's to do).
const minMTU = 552

// PathError tells what an ICMP error quotes of this connection: the sequence
// number of the segment that caused it, and for FragNeeded the next hop's MTU
// (0 from routers before RFC 1191). An error about a number that is not in
// flight is forged or late and ignored (RFC 5927 section 4.1). It reports
// whether it was believed.
func (c *Conn) PathError(now clock.Time, kind PathErrorKind, mtu int, quoted Seq) bool {
	if c.state == Closed || c.state == TimeWait || quoted.Before(c.snd.una) || !quoted.Before(c.snd.nxt) {
		return false
	}
	switch kind {
	case FragNeeded:
		return c.fragNeeded(now, mtu)
	case PortUnreachable, ProtocolUnreachable:
		// Hard errors end an attempt and are soft later (RFC 5927 section
		// 5.2).
		e := ErrRefused
		if kind == ProtocolUnreachable {
			e = ErrProtocol
		}
		if c.state == SynSent || c.state == SynReceived && !c.opt.passive {
			c.layer.stats.AttemptFails++
			c.fail(e)
			return true
		}
		c.soft = e
	case NetUnreachable:
		c.soft = ErrNetUnreachable
	default:
		c.soft = ErrHostUnreachable
	}
	c.events |= SoftError
	return true
}

// plateaus are the MTUs of links, for routers that do not say theirs and for
// black holes (RFC 1191 section 7.1, RFC 4821 section 7.2).
var plateaus = [...]uint16{32000, 17914, 8166, 4352, 2002, 1492, 1280, 1006, minMTU}

// nextPlateau returns the next smaller MTU.
func nextPlateau(mtu uint16) uint16 {
	for _, p := range plateaus {
		if p < mtu {
			return p
		}
	}
	return mtu
}

// fragNeeded makes segments smaller and sends again what was too large (RFC 1191
// section 6.5): at once, and without taking it for congestion.
func (c *Conn) fragNeeded(now clock.Time, mtu int) bool {
	next := uint16(max(minMTU, min(mtu, 65535)))
	if mtu < 68 {
		next = nextPlateau(c.snd.mtu)
	}
	if next >= c.snd.mtu {
		return mtu < minMTU // segments stay as they are, and what is lost comes again
	}
	c.lowerMTU(now, next)
	if f := c.flight; f != nil {
		for i := f.first; i != f.first+f.n; i++ {
			if r := f.rec(i); int(r.end-r.seq) > int(c.snd.mss) {
				f.markLost(i)
			}
		}
		if f.lost > 0 && c.cc.state < caRecovery {
			c.resendForMTU()
		}
	}
	return true
}

// resendForMTU lets what was too large leave again with cwnd as it was: the
// state is that after a loss, and nothing is reduced.
func (c *Conn) resendForMTU() {
	cc := &c.cc
	cc.state = caLoss
	cc.highSeq = c.snd.nxt
	cc.ssthresh = cc.currentSsthresh()
	cc.priorSsthresh = 0
	cc.undoing = false
	cc.frto = false
}

// SetMTU tells the path's MTU, of IP packets in bytes, as the caller's routes
// know it. What is in flight stays as it is.
func (c *Conn) SetMTU(mtu int) {
	c.snd.mtu = c.clampMTU(mtu)
	c.snd.route = c.snd.mtu
	c.setMSS()
}

func (c *Conn) clampMTU(mtu int) uint16 {
	return uint16(max(ipTCPLen+c.layer.cfg.MinMSS, min(mtu, 65535)))
}

// lowerMTU takes a smaller MTU for the path's.
func (c *Conn) lowerMTU(now clock.Time, mtu uint16) {
	c.snd.mtu = mtu
	c.timer.mtuAt = now
	c.setMSS()
}

// restoreMTU tries the route's MTU again when a smaller one was found out long
// ago, for paths change (RFC 1191 section 6.3).
func (c *Conn) restoreMTU(now clock.Time) {
	if c.snd.mtu < c.snd.route && now.Sub(c.timer.mtuAt) >= c.layer.cfg.MTUInterval {
		c.snd.mtu = c.snd.route
		c.setMSS()
	}
}

// blackHole makes segments smaller when the path seems to swallow large ones:
// routers may drop them without a word.
func (c *Conn) blackHole(now clock.Time) {
	limit := c.layer.cfg.BlackHole
	if limit == 0 || int(c.timer.retries) < limit || c.snd.wnd == 0 || c.snd.mtu <= minMTU {
		return
	}
	if r := c.flight.rec(c.flight.first); int(r.end-r.seq) < int(c.snd.mss) {
		return
	}
	// Below what the peer's MSS allows, or it would change nothing.
	mtu := min(c.snd.mtu, max(c.snd.peer, c.snd.peer+ipTCPLen))
	next := nextPlateau(min(mtu, 1500))
	if next >= mtu {
		return
	}
	c.layer.stats.BlackHoles++
	c.lowerMTU(now, next)
}
