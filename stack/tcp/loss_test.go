package tcp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sending is an established connection with n full segments just sent.
func sending(t *testing.T, n int, setups ...setup) *script {
	t.Helper()
	p := established(t, setups...)
	p.c.SetSendBuffer(1 << 20)
	p.write(n * testMSS)
	p.wantSegments(0, n)
	return p
}

// wantSegments wants full segments from i to j exclusive, counted from the
// stream's beginning.
func (p *script) wantSegments(i, j int) {
	p.t.Helper()
	for ; i < j; i++ {
		p.wants(ACK, seq(p.snd(i*testMSS)), text(testMSS))
	}
}

// byte k of segment i.
func (p *script) seg(i int) Seq { return p.snd(i * testMSS) }

// RFC 6675 §5, RFC 8985 §6.2: the third SACKed segment proves the first lost,
// which leaves again at once.
func TestRecoverySACK(t *testing.T) {
	p := sending(t, 4)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(2)))
	p.wantIdle("one segment may be reordered")
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(3)))
	p.wantIdle("two too")
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)))
	p.wantSegments(0, 1)
	p.wantIdle("only that one is lost")
	require.Equal(t, "recovery", p.c.Info(p.now).CongestionState)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(4)))
	require.Equal(t, "open", p.c.Info(p.now).CongestionState)
	i := p.c.Info(p.now)
	require.Equal(t, i.Ssthresh, i.Cwnd, "RFC 6937 §3.1: cwnd ends at ssthresh")
	require.Equal(t, uint32(5), i.Ssthresh, "RFC 5681 §3.1: half of cwnd")
}

// RFC 6582 §3.2: without SACK three duplicate ACKs do it, and a partial ACK
// sends the next.
func TestRecoveryNewReno(t *testing.T) {
	p := sending(t, 10, noSACK)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)))
	p.arrives(ACK, ack(p.seg(0)))
	p.wantIdle("two duplicates prove nothing")
	p.arrives(ACK, ack(p.seg(0)))
	p.wantSegments(0, 1)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(4)))
	p.wantSegments(4, 5)
	require.Equal(t, "recovery", p.c.Info(p.now).CongestionState)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(10)))
	p.wantIdle("all arrived")
}

// RFC 3042 §2: each of the first two duplicate ACKs lets a new segment leave,
// and cwnd stays.
func TestLimitedTransmit(t *testing.T) {
	for name, without := range map[string]setup{"sack": func(*script, *Config, *Segment) {}, "newreno": noSACK} {
		t.Run(name, func(t *testing.T) {
			p := sending(t, 10, without)
			p.write(10 * testMSS)
			p.wantIdle("cwnd is full")
			p.now = p.now.Add(rtt)
			for i := range 2 {
				if name == "sack" {
					p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(2+i)))
				} else {
					p.arrives(ACK, ack(p.seg(0)))
				}
				p.wantSegments(10+i, 11+i)
				require.Equal(t, uint32(10), p.c.Info(p.now).Cwnd)
			}
		})
	}
}

// RFC 6937 §3.1 and §4: with more in flight than ssthresh, one segment leaves for two
// that arrive; below, PRR-SSRB sends what arrives.
func TestPRR(t *testing.T) {
	p := sending(t, 10)
	p.write(20 * testMSS)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)))
	p.wantSegments(0, 1)
	left := 0
	for i := 5; i <= 10; i++ {
		p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(i)))
		left += len(p.out)
		p.out = nil
	}
	require.InDelta(t, 4, left+1, 1, "about half of the 9 that arrived")
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(10)))
	i := p.c.Info(p.now)
	require.LessOrEqual(t, i.Pipe, i.Ssthresh+1)
}

// RFC 8985 §6.2: where nothing was reordered yet, fewer than three SACKed
// segments wait a quarter of the least round trip, no longer.
func TestRACKReorderingWindow(t *testing.T) {
	p := sending(t, 3)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(2)))
	p.wantIdle("it may only be late")
	p.near(rtt/4, p.waitFor(time.Second))
	p.wantSegments(0, 1)
}

// RFC 8985 §6.2, step 3: a segment that arrives late without having been sent again is
// reordering, and three SACKed segments are no proof any more.
func TestRACKLearnsReordering(t *testing.T) {
	p := sending(t, 6)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(2), p.seg(3)))
	p.arrives(ACK, ack(p.seg(3)))
	p.arrives(ACK, ack(p.seg(3)), sack(p.seg(5), p.seg(6)))
	p.arrives(ACK, ack(p.seg(3)), sack(p.seg(4), p.seg(6)))
	i := p.c.Info(p.now)
	require.True(t, i.ReorderingSeen)
	require.Equal(t, [2]uint32{3, 3}, [2]uint32{i.Reorderings, i.ReorderingExtent}, "0, 1 and 4 came late, 0 behind the end of 2")
	p.arrives(ACK, ack(p.seg(6)))
	p.write(8 * testMSS)
	p.wantSegments(6, 14)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(6)), sack(p.seg(7), p.seg(11)))
	p.wantIdle("four SACKed segments, and yet it waits")
	p.waitFor(time.Second)
	p.wantSegments(6, 7)
}

// RFC 8985 §6.2: a retransmission that is lost too is found by time.
func TestRACKLostRetransmission(t *testing.T) {
	p := sending(t, 10)
	p.write(10 * testMSS)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)))
	p.wantSegments(0, 1)
	for i := 5; i <= 10; i++ {
		p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(i)))
	}
	newest := len(p.out)
	require.NotZero(t, newest)
	p.out = nil
	// What was sent behind the retransmission arrives, the retransmission did
	// not.
	p.now = p.now.Add(rtt + rtt/2)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(10+newest)))
	p.wants(ACK, seq(p.seg(0)), text(testMSS))
}

// RFC 8985 §7.2 and §7.3: a tail without an answer is probed after two round
// trips, by new data if there is some, else by the last segment again.
func TestTLP(t *testing.T) {
	p := sending(t, 5)
	p.near(2*rtt+2*time.Millisecond, p.waitFor(time.Second))
	p.wants(PSH|ACK, seq(p.seg(4)), text(testMSS))
	p.wantIdle("one probe")
	// §7.4.2: the probe repaired a loss that only the peer's next ACK behind it
	// shows, and cwnd is reduced once.
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(5)))
	p.write(testMSS)
	p.wantSegments(5, 6)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(6)))
	i := p.c.Info(p.now)
	require.Equal(t, uint32(5), i.Cwnd)
	require.Equal(t, "open", i.CongestionState)
}

// RFC 8985 §7.4.2: a DSACK for the probe means that nothing was lost.
func TestTLPSpurious(t *testing.T) {
	p := sending(t, 5)
	p.waitFor(time.Second)
	p.wants(ACK, seq(p.seg(4)))
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(5)))
	p.arrives(ACK, ack(p.seg(5)), sack(p.seg(4), p.seg(5)))
	p.write(testMSS)
	p.wantSegments(5, 6)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(6)))
	require.Equal(t, uint32(10), p.c.Info(p.now).Cwnd)
}

// RFC 8985 §7.2: the probe of one segment waits for the peer's delayed ACK too.
func TestTLPOneSegment(t *testing.T) {
	p := sending(t, 1)
	p.near(300*time.Millisecond, p.waitFor(time.Second)) // the RTO comes no later
	p.wants(PSH|ACK, seq(p.seg(0)), text(testMSS))
}

// RFC 6298 §5.5: the RTO doubles; §5.4: the earliest segment is sent, and in slow start
// the others follow (RFC 5681 §3.1).
func TestRTO(t *testing.T) {
	p := sending(t, 4, noSACK, with(func(c *Config) { c.FRTO = false }))
	rto := p.c.Info(p.now).RTO
	p.near(300*time.Millisecond, rto)
	p.near(rto, p.waitFor(time.Second))
	p.wantSegments(0, 1)
	p.wantIdle("one segment, RFC 5681 §3.1")
	require.Equal(t, uint32(1), p.c.Info(p.now).Cwnd)
	require.Equal(t, uint32(5), p.c.Info(p.now).Ssthresh)
	p.near(2*rto, p.waitFor(time.Second))
	p.wantSegments(0, 1)
	p.near(4*rto, p.waitFor(2*time.Second))
	p.wantSegments(0, 1)
	require.Equal(t, uint8(3), p.c.Info(p.now).Retransmits)
	p.arrives(ACK, ack(p.seg(1)))
	p.wantSegments(1, 3)
	p.arrives(ACK, ack(p.seg(4)))
	p.wantIdle("all arrived")
	require.Zero(t, p.c.Info(p.now).InFlight)
}

// RFC 9293 §3.8.3, R2: after 15 retransmissions the connection fails.
func TestRTOGivesUp(t *testing.T) {
	p := sending(t, 1)
	for p.c.State() == Established {
		p.wait(time.Minute)
	}
	p.wantErr(ErrTimeout)
	require.Equal(t, 16, len(p.out), "a probe and 15 time-outs")
}

// RFC 5682 §3.1, step 3b: after a time-out the ACK of data that was not sent
// again shows that it was spurious, and cwnd is restored.
func TestFRTOSpurious(t *testing.T) {
	p := sending(t, 6, with(func(c *Config) { c.TLP = false }))
	p.write(6 * testMSS)
	p.out = nil
	p.waitFor(time.Second)
	p.wantSegments(0, 1)
	require.Equal(t, "loss", p.c.Info(p.now).CongestionState)
	p.arrives(ACK, ack(p.seg(1)))
	require.NotEmpty(t, p.out, "step 2b: new data, not retransmissions")
	for i := range p.out {
		require.True(t, !p.out[i].Seq.Before(p.seg(10)), "segment %v", p.show(&p.out[i]))
	}
	p.out = nil
	p.arrives(ACK, ack(p.seg(3)))
	i := p.c.Info(p.now)
	require.Equal(t, "open", i.CongestionState)
	require.GreaterOrEqual(t, i.Cwnd, uint32(10))
	require.NotZero(t, p.layer.Stats().SpuriousTimeouts)
}

// RFC 5682 §3.1, step 3a: a duplicate ACK instead means that the loss was real.
func TestFRTOReal(t *testing.T) {
	p := sending(t, 10, with(func(c *Config) { c.TLP = false }))
	p.write(6 * testMSS)
	p.out = nil
	p.waitFor(time.Second)
	p.wantSegments(0, 1)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(1)))
	require.NotEmpty(t, p.out)
	p.out = nil
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(1)), sack(p.seg(10), p.seg(11)))
	p.wants(ACK, seq(p.seg(1)), text(testMSS))
	require.Equal(t, "loss", p.c.Info(p.now).CongestionState)
}

// RFC 3522 §3.2, RFC 4015: the timestamp in the ACK is older than the
// retransmission, so the first copy arrived.
func TestEifelUndo(t *testing.T) {
	p := sending(t, 10, withTimestamps, peer(func(s *Segment) { s.Options.MSS = testMSS + 12 }))
	sent := p.c.timestamp(p.now)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)), tsecr(sent))
	p.wantSegments(0, 1)
	require.Equal(t, "recovery", p.c.Info(p.now).CongestionState)
	p.now = p.now.Add(5 * time.Millisecond)
	p.arrives(ACK, ack(p.seg(10)), tsecr(sent))
	i := p.c.Info(p.now)
	require.Equal(t, "open", i.CongestionState)
	require.GreaterOrEqual(t, i.Cwnd, uint32(10))
}

// RFC 2883 §4, RFC 3708: a DSACK for every retransmission takes the reduction back.
func TestDSACKUndo(t *testing.T) {
	p := sending(t, 10)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)))
	p.wantSegments(0, 1)
	p.now = p.now.Add(5 * time.Millisecond)
	p.arrives(ACK, ack(p.seg(10)))
	require.InDelta(t, 5, p.c.Info(p.now).Cwnd, 1)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(10)), sack(p.seg(0), p.seg(1)))
	require.GreaterOrEqual(t, p.c.Info(p.now).Cwnd, uint32(10))
	require.Equal(t, uint32(1), p.c.Info(p.now).Duplicates)
}

// RFC 2018 §8: a peer may throw away what it SACKed; after a time-out it is
// sent again.
func TestReneging(t *testing.T) {
	p := sending(t, 4, with(func(c *Config) { c.TLP = false }))
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)))
	p.wantSegments(0, 1)
	p.arrives(ACK, ack(p.seg(1)))
	p.waitFor(time.Minute)
	p.wantSegments(1, 2)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(2)))
	p.wantSegments(2, 4)
}

// RFC 2018 §5: SACK blocks that cannot be are ignored.
func TestSACKNonsense(t *testing.T) {
	p := sending(t, 4)
	for _, b := range [][2]Seq{
		{p.seg(4), p.seg(5)}, {p.seg(2), p.seg(2)}, {p.seg(3), p.seg(1)}, {p.seg(1), p.seg(0) + 1<<31}, {p.snd(-20), p.snd(-10)}, {0, 0},
	} {
		p.arrives(ACK, ack(p.seg(0)), sack(b[0], b[1]))
		require.Zero(t, p.c.Info(p.now).Sacked)
	}
	p.wantIdle("nothing was learnt")
}

// RFC 6675 §4, IsLost, where RACK is off.
func TestRecoveryWithoutRACK(t *testing.T) {
	p := sending(t, 8, with(func(c *Config) { c.RACK = false }))
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(2), p.seg(4)))
	p.wantIdle("DupThresh is 3")
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(2), p.seg(5)))
	p.wantSegments(0, 1)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(2), p.seg(6)))
	p.wantSegments(1, 2)
}

// RFC 8985 §6.2, step 5: new data leaves while a segment may only be late, and
// the timer that waits for it goes on.
func TestRACKTimerOutlivesNewData(t *testing.T) {
	p := sending(t, 6)
	p.c.cc.rack.seen = true
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)))
	p.wantIdle("it may only be late")
	at := p.c.Deadline()
	require.Equal(t, p.now.Add(rtt/4), at)
	p.write(2 * testMSS)
	p.wantSegments(6, 8)
	require.Equal(t, at, p.c.Deadline())
	p.near(rtt/4, p.waitFor(time.Second))
	p.wants(ACK, seq(p.seg(0)), text(testMSS))
}

// RFC 2018 §5: a block that cannot be is no block, and does not hide the good one
// inside of it that follows.
func TestSACKBogusBlockHidesNothing(t *testing.T) {
	p := sending(t, 10)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(50)))
	require.Zero(t, p.c.Info(p.now).Sacked)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(3)))
	require.Equal(t, uint32(2), p.c.Info(p.now).Sacked)
}
