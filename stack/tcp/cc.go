package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
)

// infinite is ssthresh before the first loss: "arbitrarily high" (RFC 5681
// section 3.1).
const infinite = 1 << 30

// minCwnd is the least ssthresh, in segments (RFC 5681 section 3.1, equation 4).
const minCwnd = 2

// congestion is a congestion control algorithm. It holds no state of its own:
// a connection's is in its control. All windows are in segments.
type congestion interface {
	// acked grows cwnd upon an ACK for new data outside of recovery: n segments
	// arrived, and the last of them took rtt, 0 where that is not known.
	acked(c *Conn, now clock.Time, n uint32, rtt time.Duration)
	// reduced returns ssthresh after congestion.
	reduced(c *Conn) uint32
	// timedOut tells, behind reduced, that an RTO was the reason.
	timedOut(c *Conn)
	// undone takes back what reduced remembered.
	undone(c *Conn)
	// idled tells that nothing was sent for this long.
	idled(c *Conn, d time.Duration)
}

// algorithm is a congestion control algorithm by its place in algorithms.
type algorithm uint8

var algorithms = [...]struct {
	name string
	congestion
}{
	{"cubic", cubic{}},
	{"newreno", newReno{}},
}

// algorithmByName reports false where there is none of that name.
func algorithmByName(name string) (algorithm, bool) {
	for i := range algorithms {
		if algorithms[i].name == name {
			return algorithm(i), true
		}
	}
	return 0, false
}

// congestion returns the connection's algorithm.
func (c *Conn) congestion() congestion { return algorithms[c.opt.congestion].congestion }

// control is the state of loss recovery and congestion control.
type control struct {
	cwnd, ssthresh uint32
	count          uint32 // segments acknowledged towards the next increment

	state      caState
	limited    bool
	limitedNow bool // as it was before the ACK being handled
	undoing    bool
	hasStamp   bool
	frto       bool
	echoCE     bool // ECE goes on every ACK (RFC 3168 section 6.1.3)
	cwrDue     bool // CWR goes on the next new segment

	tlp struct {
		end     Seq  // TLP.end_seq
		active  bool // a probe is out
		isRexmt bool // TLP.is_retrans
	}
	prr    reduction
	sentAt clock.Time // when new data was last sent

	// Validation of cwnd (RFC 2861, RFC 7661 section 4): whether it was what
	// held the sender back in the last flight, maxOut segments large, which ends
	// at usage.
	maxOut uint32
	usage  Seq
	used   uint32
	usedAt clock.Time

	algorithm algorithmState

	priorCwnd, priorSsthresh uint32 // before the reduction; priorSsthresh 0: not to be undone
	highSeq                  Seq    // SND.NXT when the state began
	undoRexmt                int32  // retransmissions not known to be in vain
	undoMarker               uint64 // position of SND.UNA when the reduction began
	rexmtStamp               uint32 // timestamp clock at the first of them
	rack                     rackState
}

// algorithmState is what one of the algorithms keeps.
type algorithmState struct {
	cubic   cubicState
	hystart hystartState
}

// start begins with the initial window (RFC 6928 section 2), or one segment
// where the SYN was lost more than once (RFC 5681 section 3.1).
func (cc *control) start(cfg *Config, retries uint8) {
	cc.cwnd, cc.ssthresh = uint32(cfg.InitialWindow), infinite
	if retries > 1 {
		cc.cwnd = 1
	}
}

// currentSsthresh is what a later undo restores.
func (cc *control) currentSsthresh() uint32 {
	if cc.state == caCWR || cc.state == caRecovery {
		return cc.ssthresh
	}
	return max(cc.ssthresh, cc.cwnd/2+cc.cwnd/4)
}

// slowStart reports whether cwnd grows by what is acknowledged (RFC 5681 section
// 3.1).
func (cc *control) slowStart() bool { return cc.cwnd < cc.ssthresh }

// isLimited reports whether cwnd held the sender back: in slow start also where
// half of it was used, because it may double.
func (cc *control) isLimited() bool {
	return cc.limited || cc.slowStart() && cc.cwnd < 2*cc.maxOut
}

// growSlow grows cwnd in slow start and returns how many segments are left
// where it ended.
func (cc *control) growSlow(acked uint32) uint32 {
	to := min(cc.cwnd+acked, cc.ssthresh)
	left := acked - (to - cc.cwnd)
	cc.cwnd = to
	return left
}

// growBy adds a segment to cwnd for each per segments acknowledged.
func (cc *control) growBy(per, acked uint32) {
	per = max(per, 1)
	cc.count += acked
	if cc.count >= per {
		n := cc.count / per
		cc.count -= n * per
		cc.cwnd += n
	}
	cc.cwnd = min(cc.cwnd, infinite)
}

// validateWindow notes after sending whether cwnd was the limit, and shrinks it
// where it was not for an RTO (RFC 2861 section 3).
func (c *Conn) validateWindow(now clock.Time) {
	cc := &c.cc
	out := c.inFlight()
	limited := c.pipe() >= cc.cwnd
	if !c.snd.una.Before(cc.usage) || limited || !cc.limited && out > cc.maxOut {
		cc.limited, cc.maxOut, cc.usage = limited, out, c.snd.nxt
	}
	if cc.isLimited() {
		cc.used, cc.usedAt = 0, now
		return
	}
	cc.used = max(cc.used, out)
	if c.layer.cfg.SlowStartAfterIdle && now.Sub(cc.usedAt) >= c.rtt.rto {
		c.applicationLimited(now)
	}
}

// applicationLimited takes back the part of cwnd that was not used and so not
// tested.
func (c *Conn) applicationLimited(now clock.Time) {
	cc := &c.cc
	if cc.state == caOpen && c.snd.wnd > uint32(c.inFlight())*uint32(c.snd.mss) {
		used := max(cc.used, uint32(c.layer.cfg.InitialWindow))
		if used < cc.cwnd {
			cc.ssthresh = cc.currentSsthresh()
			cc.cwnd = (cc.cwnd + used) / 2
		}
		cc.used = 0
	}
	cc.usedAt = now
}

// restartAfterIdle shrinks cwnd where nothing was sent for longer than an RTO
// (RFC 5681 section 4.1): by half for each RTO, down to the restart window, as RFC 2861
// section 3.2 refines it.
func (c *Conn) restartAfterIdle(now clock.Time) {
	cc := &c.cc
	if !c.layer.cfg.SlowStartAfterIdle || c.inFlight() != 0 || cc.sentAt == clock.Never || c.usable() == 0 {
		return // "begins transmission" is what section 4.1 speaks of, and a closed window lets nothing begin
	}
	idle := now.Sub(cc.sentAt)
	if idle <= c.rtt.rto {
		return
	}
	c.congestion().idled(c, idle)
	restart := min(uint32(c.layer.cfg.InitialWindow), cc.cwnd)
	cc.ssthresh = cc.currentSsthresh()
	for ; idle > c.rtt.rto && cc.cwnd > restart; idle -= c.rtt.rto {
		cc.cwnd /= 2
	}
	cc.cwnd = max(cc.cwnd, restart)
	cc.sentAt, cc.usedAt, cc.used = now, now, 0
}
