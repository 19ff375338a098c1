package tcp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RFC 6928 §2, RFC 5681 §3.1: ten segments at first, and in slow start cwnd grows
// by what is acknowledged.
func TestSlowStart(t *testing.T) {
	for _, per := range []int{1, 2} {
		p := established(t)
		p.c.SetSendBuffer(1 << 20)
		p.write(60 * testMSS)
		p.wantSegments(0, 10)
		p.wantIdle("IW10")
		next := 10
		p.now = p.now.Add(rtt)
		for i := per; i <= 10; i += per {
			p.arrives(ACK, ack(p.seg(i)))
			p.wantSegments(next, next+2*per)
			next += 2 * per
		}
		require.Equal(t, uint32(20), p.c.Info(p.now).Cwnd)
	}
}

// RFC 5681 §3.1, RFC 7661 §4: cwnd does not grow where it was not the limit.
func TestApplicationLimited(t *testing.T) {
	p := established(t)
	for i := range 20 {
		p.write(testMSS)
		p.wantSegments(i, i+1)
		p.now = p.now.Add(rtt)
		p.arrives(ACK)
	}
	require.Equal(t, uint32(10), p.c.Info(p.now).Cwnd)
}

// RFC 5681 §4.1: after a pause longer than the RTO slow start begins anew.
func TestIdleRestart(t *testing.T) {
	p := established(t)
	p.c.SetSendBuffer(1 << 20)
	p.write(40 * testMSS)
	for range 3 {
		p.now = p.now.Add(rtt)
		p.arrives(ACK)
	}
	require.GreaterOrEqual(t, p.c.Info(p.now).Cwnd, uint32(20))
	p.out = nil
	p.wait(time.Minute)
	p.write(40 * testMSS)
	require.Len(t, p.out, 10, "the restart window is IW")
}

// RFC 5681 §3.1: NewReno in congestion avoidance adds a segment each round trip.
func TestNewRenoAvoidance(t *testing.T) {
	p := sending(t, 10)
	p.c.cc.ssthresh = 10
	p.write(50 * testMSS)
	for round := range 3 {
		p.now = p.now.Add(rtt)
		p.arrives(ACK)
		require.Equal(t, uint32(11+round), p.c.Info(p.now).Cwnd)
		p.out = nil
	}
}

// RFC 9438 §4.6, §4.2: cwnd falls to 0.7, and returns to where it was after K seconds.
func TestCubicReturns(t *testing.T) {
	s := cubicState{wMax: 1000}
	at := established(t).now
	s.begin(at, 700)
	require.InDelta(t, 9.085, s.k, 0.001, "cbrt(300/0.4)")
	require.InDelta(t, 700, s.target(700, 0), 1)
	require.InDelta(t, 1000, s.target(900, time.Duration(s.k*float64(time.Second))), 0.1)
	require.Equal(t, 900.0, s.target(900, time.Second), "never below cwnd")
	require.Equal(t, 1.5*700, s.target(700, time.Minute), "nor above half as much again")
}

// RFC 9438 §4.7: fast convergence gives way where the last maximum was not reached.
func TestCubicReduction(t *testing.T) {
	p := established(t, with(func(c *Config) { c.Congestion = "cubic" }))
	cc := &p.c.cc
	cc.cwnd = 100
	require.Equal(t, uint32(70), cubic{}.reduced(&p.c))
	require.Equal(t, 100.0, cc.algorithm.cubic.wMax)
	cc.cwnd = 80
	require.Equal(t, uint32(56), cubic{}.reduced(&p.c))
	require.InDelta(t, 68, cc.algorithm.cubic.wMax, 1e-9)
	cubic{}.undone(&p.c)
	require.Equal(t, 100.0, cc.algorithm.cubic.wMax)
	cc.cwnd = 2
	require.Equal(t, uint32(2), cubic{}.reduced(&p.c), "RFC 5681 §3.1: at least 2")
}

// RFC 9438 §4.8: after a time-out W_max is the cwnd with which congestion avoidance begins and K is 0; §4.9: not where the
// time-out was in vain.
func TestCubicAfterTimeout(t *testing.T) {
	p := sending(t, 10, with(func(c *Config) { c.Congestion, c.TLP, c.FRTO = "cubic", false, false }))
	s := &p.c.cc.algorithm.cubic
	s.wMax = 20
	p.waitFor(time.Second)
	p.wantSegments(0, 1)
	require.Equal(t, uint32(7), p.c.Info(p.now).Ssthresh)
	p.now = p.now.Add(rtt)
	p.arrives(ACK)
	for p.c.Info(p.now).Cwnd < 7 {
		p.write(testMSS)
		p.out = nil
		p.now = p.now.Add(rtt)
		p.arrives(ACK)
	}
	p.write(7 * testMSS)
	p.now = p.now.Add(rtt)
	p.arrives(ACK)
	require.Equal(t, [2]float64{7, 0}, [2]float64{s.wMax, s.k})

	p = established(t, with(func(c *Config) { c.Congestion, c.TLP = "cubic", false }), withTimestamps)
	p.write(5 * testMSS)
	p.out = nil
	s = &p.c.cc.algorithm.cubic
	s.wMax = 20
	before := p.c.timestamp(p.now)
	p.waitFor(time.Second)
	require.Zero(t, s.wMax)
	p.arrives(ACK, ack(p.snd(988)), tsecr(before))
	require.Equal(t, uint64(1), p.layer.Stats().SpuriousTimeouts)
	require.Equal(t, 20.0, s.wMax)
}

// RFC 9406 §4.2: slow start gives way to conservative slow start when round trips
// grow, and ends after five such rounds; a shorter round trip shows that it was no
// queue.
func TestHyStart(t *testing.T) {
	var h hystartState
	round := func(rtt time.Duration) {
		h.nextRound(0)
		for range hystartSamples {
			if h.current == 0 || rtt < h.current {
				h.current = rtt
			}
			h.samples++
			h.judge()
		}
	}
	round(40 * time.Millisecond)
	round(44 * time.Millisecond)
	require.False(t, h.inCSS, "below the threshold of 5 ms")
	round(49 * time.Millisecond)
	require.False(t, h.inCSS, "44 + 5.5")
	round(56 * time.Millisecond)
	require.True(t, h.inCSS)
	round(57 * time.Millisecond)
	require.True(t, h.inCSS)
	round(40 * time.Millisecond)
	require.False(t, h.inCSS)
}

// RFC 9406 §4.2: in conservative slow start cwnd grows a quarter as fast, and
// after CSS_ROUNDS ssthresh is where it stands.
func TestHyStartEnds(t *testing.T) {
	p := established(t, with(func(c *Config) { c.HyStart = true }))
	h, cc := &p.c.cc.algorithm.hystart, &p.c.cc
	*h = hystartState{started: true, inCSS: true, baseline: rtt, windowEnd: 1}
	require.Equal(t, uint32(0), p.c.hystart(8, 2*rtt))
	require.Equal(t, uint32(12), cc.cwnd)
	h.windowEnd, h.rounds = 0, hystartRounds-1
	require.Equal(t, uint32(8), p.c.hystart(8, 2*rtt))
	require.Equal(t, cc.cwnd, cc.ssthresh)
}

// RFC 5681 §4.1 has cwnd restart when transmission begins: not while the window is closed, but when it opens.
func TestRestartWhenWindowOpens(t *testing.T) {
	p := sending(t, 10)
	p.write(80 * testMSS)
	p.now = p.now.Add(rtt)
	p.arrives(ACK)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, win(0))
	p.wait(2 * time.Second)
	require.Equal(t, uint32(40), p.c.Info(p.now).Cwnd)
	require.InDelta(t, 2.1, p.c.Info(p.now).LastSent.Seconds(), 0.001)
	p.out = nil
	p.arrives(ACK)
	p.wantSegments(30, 40)
	p.wantIdle("the restart window is IW")
}

// Pacing spreads a window over its round trip in bursts of a few segments.
func TestPacing(t *testing.T) {
	p := established(t, with(func(c *Config) { c.Pacing = true }))
	p.c.SetSendBuffer(1 << 20)
	begin := p.now
	p.write(10 * testMSS)
	require.Len(t, p.out, 2, "one burst")
	for len(p.out) < 10 {
		p.now = p.c.Deadline()
		p.c.Timeout(p.now)
		p.emit()
	}
	took := p.now.Sub(begin)
	require.True(t, took > rtt/4 && took < rtt, "10 segments took %v of %v", took, rtt)
	require.NotZero(t, p.c.Info(p.now).PacingRate)
}

// RFC 6298 §2: the first sample, those after it, and the bounds of the RTO.
func TestRoundTrip(t *testing.T) {
	cfg := DefaultConfig()
	var r roundTrip
	r.init(&cfg)
	require.Equal(t, time.Second, r.rto)
	r.sample(1, 100*time.Millisecond, 1, &cfg)
	require.Equal(t, [2]time.Duration{100 * time.Millisecond, 50 * time.Millisecond}, [2]time.Duration{r.srtt, r.rttvar})
	require.Equal(t, 300*time.Millisecond, r.rto)
	r.sample(2, 180*time.Millisecond, 1, &cfg)
	require.Equal(t, 110*time.Millisecond, r.srtt)
	require.Equal(t, 57500*time.Microsecond, r.rttvar)
	require.Equal(t, 340*time.Millisecond, r.rto)
	for range 100 {
		r.sample(3, time.Millisecond, 1, &cfg)
	}
	require.InDelta(t, 201, r.rto.Milliseconds(), 1, "RTO = SRTT + MinRTO at least")
	require.Equal(t, cfg.MaxRTO, r.backedOff(200, &cfg))
	require.Equal(t, time.Millisecond, r.min)
	r.sample(3+1+6*60*1e9, time.Second, 1, &cfg)
	require.Equal(t, time.Second, r.min, "the least of the last five minutes")
}

// RFC 6298 §3, Karn: a segment that was sent again measures nothing.
func TestKarn(t *testing.T) {
	p := sending(t, 1, with(func(c *Config) { c.TLP = false }))
	srtt := p.c.Info(p.now).SRTT
	p.waitFor(time.Minute)
	p.wantSegments(0, 1)
	p.now = p.now.Add(time.Millisecond)
	p.arrives(ACK)
	require.Equal(t, srtt, p.c.Info(p.now).SRTT)
}

// The send and the receive buffer grow with what a round trip carries, up to
// their limit, unless the user fixed them.
func TestAutotuning(t *testing.T) {
	p := established(t, with(func(c *Config) { c.SendBuffer = 16 << 10 }))
	p.arrives(ACK)
	require.Equal(t, 16<<10, p.c.Info(p.now).SendBuffer, "nobody needs more")
	p.write(10 * testMSS)
	p.arrives(ACK)
	require.Equal(t, 2*20*testMSS, p.c.Info(p.now).SendBuffer)
	require.Equal(t, 2*20*testMSS, p.c.Info(p.now).SendBuffer)
	p.out = nil
	before := p.c.Info(p.now).ReceiveBuffer
	for range 5 {
		for i := 0; i < 60; i++ {
			p.now = p.now.Add(rtt / 60)
			p.arrives(ACK, text(1000))
		}
		p.read(60 * 1000)
	}
	grown := p.c.Info(p.now).ReceiveBuffer
	require.Greater(t, grown, before)
	require.LessOrEqual(t, grown, DefaultConfig().ReceiveBufferMax)
	p.c.SetSendBuffer(5000)
	p.c.SetReceiveBuffer(grown + 1)
	p.arrives(ACK)
	require.Equal(t, 5000, p.c.Info(p.now).SendBuffer)
	require.Equal(t, grown+1, p.c.Info(p.now).ReceiveBuffer)
}

// Congestion control is chosen by name.
func TestSetCongestion(t *testing.T) {
	p := established(t)
	require.Equal(t, "newreno", p.c.Congestion())
	require.True(t, p.c.SetCongestion("cubic"))
	require.False(t, p.c.SetCongestion("vegas"))
	require.Equal(t, "cubic", p.c.Congestion())
}
