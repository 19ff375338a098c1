package tcp

import (
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// SYN cookies (RFC 4987 section 3.6). The ISN of the SYN-ACK is the state:
//
//	hash1 + SEG.SEQ + minute<<24 + (hash2(minute) + MSS index) mod 2^24
//
// as Bernstein and Schenk made it in 1996. Where the peer has timestamps, the low 6 bits of
// TSval hold its other options, and come back in TSecr.
const (
	cookieBits   = 24
	cookieMask   = 1<<cookieBits - 1
	cookiePeriod = 64 * time.Second
	cookieLife   = 2 // periods

	tsOptions   = 0x3F // of TSval
	tsNoScale   = 0x0F
	tsSACK      = 0x10
	tsECN       = 0x20
	cookieScale = 7 // ours: a cookie has no room to remember a better one
)

// cookieMSS are the values that an MSS is rounded down to.
var cookieMSS = [...]uint16{536, 1024, 1220, 1360, 1400, 1440, 1460, 8960}

// cookieKeys are the secrets and when a cookie was last given.
type cookieKeys struct {
	a, b  sipKey
	given clock.Time
}

func (k *cookieKeys) init(key func() sipKey) { k.a, k.b = key(), key() }

// inUse reports whether a cookie may be out there. While none is, an ACK out of
// the blue is refused like any other.
func (k *cookieKeys) inUse(now clock.Time) bool {
	return k.given != clock.Never && now.Sub(k.given) < cookieLife*cookiePeriod
}

// period numbers the present.
func cookieMinute(now clock.Time) uint32 { return uint32(now / clock.Time(cookiePeriod)) }

func (k *cookieKeys) make(id ID, irs Seq, minute uint32, data uint32) Seq {
	h1 := uint32(k.a.id(id, 0))
	h2 := uint32(k.b.id(id, uint64(minute)<<32|uint64(irs)))
	return Seq(h1 + uint32(irs) + minute<<cookieBits + (h2+data)&cookieMask)
}

// open returns what make hid.
func (k *cookieKeys) open(id ID, irs, cookie Seq, now clock.Time) (data uint32, ok bool) {
	v := uint32(cookie) - uint32(k.a.id(id, 0)) - uint32(irs)
	minute := cookieMinute(now)
	age := (minute - v>>cookieBits) & (1<<(32-cookieBits) - 1)
	if age >= cookieLife {
		return 0, false
	}
	h2 := uint32(k.b.id(id, uint64(minute-age)<<32|uint64(irs)))
	data = (v - h2) & cookieMask
	return data, data < uint32(len(cookieMSS))
}

// answerCookie makes the SYN-ACK.
func (l *Layer) answerCookie(now clock.Time, id ID, syn *Segment, mtu int, answer *Segment) {
	l.cookies.given = now
	l.stats.CookiesSent++
	index := 0
	mss := max(syn.Options.MSS, cookieMSS[0])
	for i, m := range cookieMSS {
		if m <= mss {
			index = i
		}
	}
	*answer = Segment{
		Seq: l.cookies.make(id, syn.Seq, cookieMinute(now), uint32(index)), Ack: syn.Seq + 1,
		Flags: SYN | ACK, Window: uint16(min(l.cfg.ReceiveBuffer, 65535)), Options: wire.NoTCPOptions(),
	}
	o := &answer.Options
	o.MSS = uint16(min(mtu-ipTCPLen, l.cfg.MSS))
	if !l.cfg.Timestamps || !syn.Options.Timestamp.Has {
		return
	}
	low := uint32(tsNoScale)
	if l.cfg.WindowScale && syn.Options.WScale >= 0 {
		low = uint32(syn.Options.WScale)
		o.WScale = cookieScale
	}
	if l.cfg.SACK && syn.Options.SACKPermitted {
		low |= tsSACK
		o.SACKPermitted = true
	}
	if l.cfg.ECN != ECNOff && syn.has(ECE|CWR) {
		low |= tsECN
		answer.Flags |= ECE
	}
	ts := uint32(now/millisecond) + l.timestampOffset(id)
	v := ts&^tsOptions | low
	if int32(v-ts) > 0 {
		v -= tsOptions + 1 // the clock must not run ahead
	}
	o.Timestamp = wire.TCPTimestamp{Has: true, Val: v, Ecr: syn.Options.Timestamp.Val}
}

// cookieOptions is what a cookie remembers of a SYN.
type cookieOptions struct {
	mss  uint16
	bits uint32
	ts   bool
}

// checkCookie reads the cookie in an ACK that opens a connection.
func (l *Layer) checkCookie(now clock.Time, id ID, s *Segment) (o cookieOptions, ok bool) {
	index, ok := l.cookies.open(id, s.Seq-1, s.Ack-1, now)
	if !ok {
		return o, false
	}
	o.mss = cookieMSS[index]
	o.bits = tsNoScale
	if l.cfg.Timestamps && s.Options.Timestamp.Has {
		o.ts = true
		o.bits = s.Options.Timestamp.Ecr & tsOptions
	}
	return o, true
}

// AcceptCookie makes c, fresh from Init, a connection in ESTABLISHED from the ACK
// that brought a cookie back, one for which Layer.Listen said OpenCookie; it
// reports false where the cookie is not good after all. The segment's text and FIN
// are taken too.
func (c *Conn) AcceptCookie(now clock.Time, s *Segment) bool {
	l := c.layer
	o, ok := l.checkCookie(now, c.id, s)
	if !ok {
		return false
	}
	syn := Segment{Seq: s.Seq - 1, Flags: SYN, Window: s.Window, Options: wire.NoTCPOptions()}
	syn.Options.MSS = o.mss
	syn.Options.SACKPermitted = o.bits&tsSACK != 0
	if scale := o.bits & tsNoScale; scale <= wire.MaxWScale {
		syn.Options.WScale = int8(scale)
	}
	if o.bits&tsECN != 0 {
		syn.Flags |= ECE | CWR
	}
	syn.Options.Timestamp = s.Options.Timestamp
	syn.Options.Timestamp.Has = o.ts
	c.begin(now, s.Ack-1)
	c.opt.passive = true
	c.takeSYN(now, &syn)
	c.takeSYNOptions(now, &syn)
	if c.opt.windowScaling {
		c.rcv.scale = cookieScale
	}
	c.snd.nxt = s.Ack
	c.rcv.adv = c.rcv.nxt + Seq(c.synWindow())
	c.state = SynReceived
	l.stats.PassiveOpens++
	c.arrivesOtherwise(now, s)
	return true
}
