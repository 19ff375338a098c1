package iperf3

import "time"

// pacer keeps a stream's average rate since it began, as iperf3 does: what a stall kept back is sent as fast as can be.
type pacer struct {
	perSecond float64 // blocks; 0: no rate
	burst     int64   // blocks that go together
	tick      time.Duration
	start     time.Time
	sent      int64
	timer     *time.Timer
	stop      <-chan struct{}
}

// newPacer begins a rate at this moment. stop ends every wait.
func newPacer(p *params, start time.Time, stop <-chan struct{}) *pacer {
	a := &pacer{burst: 1, tick: p.pacing, start: start, stop: stop}
	if p.rate > 0 {
		a.burst = int64(p.burst)
		a.perSecond = float64(p.rate) / 8 / float64(p.length)
		a.timer = time.NewTimer(0)
	}
	return a
}

// due is how many blocks of a burst or more are to be sent at this moment, at most limit; none: how long to wait. The first
// is due at the start.
func (a *pacer) due(now time.Time, limit int) (blocks int, wait time.Duration) {
	if a.perSecond == 0 {
		return limit, 0
	}
	allowed := int64(now.Sub(a.start).Seconds()*a.perSecond) + 1
	if bursts := (allowed - a.sent + a.burst - 1) / a.burst; bursts > 0 {
		return int(min(bursts*a.burst, int64(limit))), 0
	}
	seconds := float64(a.sent)/a.perSecond - now.Sub(a.start).Seconds()
	return 0, max(time.Duration(min(seconds, 3600)*float64(time.Second)), a.tick)
}

// wait returns how many blocks, at most limit, are to be sent now, after as long as it takes for there to be any; 0 when the
// stream is stopped. It counts them as sent.
func (a *pacer) wait(limit int) int {
	for {
		if a.stopped() {
			return 0
		}
		if a.perSecond == 0 {
			return limit
		}
		n, d := a.due(time.Now(), limit)
		if n > 0 {
			a.sent += int64(n)
			return n
		}
		a.timer.Reset(d)
		select {
		case <-a.timer.C:
		case <-a.stop:
			a.timer.Stop()
			return 0
		}
	}
}

func (a *pacer) stopped() bool {
	select {
	case <-a.stop:
		return true
	default:
		return false
	}
}

// unsent takes blocks back that wait counted and that were not sent.
func (a *pacer) unsent(blocks int) { a.sent -= int64(blocks) }

// pause waits for a tick, after a block that found no room. It reports false when the stream is stopped.
func (a *pacer) pause() bool {
	t := time.NewTimer(a.tick)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.stop:
		return false
	}
}
