package tcp

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/wire"
)

// ESTABLISHED: receiving

// RFC 9293 §3.10.7.4, seventh: text in order reaches the user, and RCV.NXT moves.
func TestReceiveInOrder(t *testing.T) {
	p := established(t)
	p.arrives(ACK|PSH, bytes("hello "))
	p.wants(ACK, ack(p.rcv(6)))
	p.arrives(ACK|PSH, bytes("world"))
	p.wants(ACK, ack(p.rcv(11)))
	require.Equal(t, "hello world", string(p.read(11)))
	p.wantIdle("the window needs no update")
}

// RFC 5681 §4.2, RFC 2018 §4: text behind a gap is kept at its place and gets a
// duplicate ACK at once, whose first block is the newest.
func TestReceiveOutOfOrder(t *testing.T) {
	p := established(t)
	p.arrives(ACK, seq(p.rcv(10)), bytes("kl"))
	p.wants(ACK, ack(p.rcv(0)), sack(p.rcv(10), p.rcv(12)))
	p.arrives(ACK, seq(p.rcv(4)), bytes("ef"))
	p.wants(ACK, ack(p.rcv(0)), sack(p.rcv(4), p.rcv(6), p.rcv(10), p.rcv(12)))
	p.arrives(ACK, seq(p.rcv(12)), bytes("m"))
	p.wants(ACK, ack(p.rcv(0)), sack(p.rcv(10), p.rcv(13), p.rcv(4), p.rcv(6)))
	p.arrives(ACK, seq(p.rcv(6)), bytes("ghij"))
	p.wants(ACK, ack(p.rcv(0)), sack(p.rcv(4), p.rcv(13)))
	p.arrives(ACK, bytes("abcd"))
	p.wants(ACK, ack(p.rcv(13)), sack())
	require.Equal(t, "abcdefghijklm", string(p.read(13)))
	require.Nil(t, p.c.holes, "the list went back")
}

// RFC 2018 §3: with timestamps 3 blocks have room, without 4.
func TestReceiveManyHoles(t *testing.T) {
	for _, timestamps := range []bool{false, true} {
		setups := []setup{}
		want := 4
		if timestamps {
			setups, want = append(setups, withTimestamps), 3
		}
		p := established(t, setups...)
		for i := range 6 {
			p.arrives(ACK, seq(p.rcv(10+10*i)), text(5))
			s := p.wants(ACK, ack(p.rcv(0)))
			require.Equal(t, min(i+1, want), int(s.Options.NSACK))
			for k, b := range s.Options.SACK[:s.Options.NSACK] {
				require.Equal(t, p.rcv(10+10*(i-k)), b.Left, "the newest first")
			}
		}
	}
}

// RFC 2883 §4.1: a duplicate is reported in the first block, in front of SEG.ACK or
// inside of a range.
func TestReceiveDuplicates(t *testing.T) {
	p := established(t)
	p.arrives(ACK, text(100))
	p.wants(ACK, ack(p.rcv(100)))
	p.arrives(ACK, seq(p.rcv(0)), text(100))
	p.wants(ACK, ack(p.rcv(100)), sack(p.rcv(0), p.rcv(100)))
	p.arrives(ACK, seq(p.rcv(50)), text(100))
	p.wants(ACK, ack(p.rcv(150)), sack(p.rcv(50), p.rcv(100)))
	p.arrives(ACK, seq(p.rcv(200)), text(50))
	p.wants(ACK, sack(p.rcv(200), p.rcv(250)))
	p.arrives(ACK, seq(p.rcv(210)), text(10))
	p.wants(ACK, sack(p.rcv(210), p.rcv(220), p.rcv(200), p.rcv(250)))
}

// Without SACK each segment behind a gap has its own duplicate ACK, in a batch
// too, because the sender counts them (RFC 5681 §4.2).
func TestReceiveDuplicateACKsAreCounted(t *testing.T) {
	p := established(t, noSACK)
	p.batch(p.segment(ACK, []field{seq(p.rcv(10)), text(5)}), p.segment(ACK, []field{seq(p.rcv(20)), text(5)}),
		p.segment(ACK, []field{seq(p.rcv(30)), text(5)}))
	for range 3 {
		p.wants(ACK, ack(p.rcv(0)), sack())
	}
	p.wantIdle("one for each")
}

// RFC 9293 §3.8.6.3, MUST-58: one ACK serves a batch of segments.
func TestReceiveBatchOneACK(t *testing.T) {
	p := established(t, noQuick)
	var batch []*Segment
	for i := range 10 {
		batch = append(batch, p.segment(ACK, []field{seq(p.rcv(i * 1000)), text(1000)}))
	}
	p.batch(batch...)
	p.wants(ACK, ack(p.rcv(10000)))
	p.wantIdle("one ACK")
}

// RFC 9293 §3.8.6.3: an ACK waits for a second segment, for 40 ms.
func TestDelayedACK(t *testing.T) {
	p := established(t, noQuick)
	p.arrives(ACK, text(1000))
	p.wantIdle("the ACK waits")
	p.near(40*time.Millisecond, p.waitFor(time.Second))
	p.wants(ACK, ack(p.rcv(1000)))
	p.arrives(ACK, text(1000))
	p.wantIdle("again")
	p.arrives(ACK, text(1000))
	p.wants(ACK, ack(p.rcv(3000)))
	p.arrives(ACK, text(10))
	p.write(5)
	p.wants(ACK, seq(p.snd(0)), ack(p.rcv(3010)), text(5))
	p.wait(time.Millisecond)
	p.wantIdle("data carried it")
}

// Quick ACKs help the peer's slow start; a conversation ends them.
func TestQuickACKs(t *testing.T) {
	p := established(t)
	for i := range 5 {
		p.arrives(ACK, text(100))
		p.wants(ACK, ack(p.rcv(100*(i+1))))
	}
	p.write(10)
	p.wants(ACK)
	p.arrives(ACK, text(100))
	p.wantIdle("an answer will carry it")
	p.c.SetQuickACK(true)
	p.emit()
	p.wants(ACK, ack(p.rcv(600)))
	p.arrives(ACK, text(100))
	p.wants(ACK, ack(p.rcv(700)))
}

// RFC 9293 §3.10.7.4, table 6: all four cases of the acceptability test, at the
// edges of the window.
func TestAcceptability(t *testing.T) {
	const window = 1000
	for _, c := range []struct {
		name        string
		closed      bool // the window is
		at          int  // of RCV.NXT
		n           int
		in, accepts bool
	}{
		{"no text, no window, at RCV.NXT", true, 0, 0, true, true},
		{"no text, no window, elsewhere", true, 1, 0, false, false},
		{"no text, at the left edge", false, 0, 0, true, true},
		{"no text, before it", false, -1, 0, false, false},
		{"no text, last in the window", false, window - 1, 0, true, true},
		{"no text, behind it", false, window, 0, false, false},
		{"text, no window", true, 0, 1, false, false},
		{"text, first byte last in the window", false, window - 1, 5, true, true},
		{"text, behind it", false, window, 5, false, false},
		{"text, last byte first in the window", false, -4, 5, true, true},
		{"text, all before it", false, -5, 5, false, false},
		{"text, around the window", false, -5, window + 10, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := established(t, with(func(cfg *Config) { cfg.ReceiveBuffer, cfg.ReceiveBufferMax = window, window }))
			p.arrives(ACK, text(8))
			p.out = nil
			p.read(8)
			p.out = nil
			if c.closed {
				p.arrives(ACK, text(int(p.c.rcvWnd())))
				require.Zero(t, p.c.rcvWnd())
			} else {
				p.c.rcv.adv = p.c.rcv.nxt + window
			}
			s := p.segment(ACK, []field{seq(p.c.rcv.nxt.Add(c.at)), text(c.n)})
			require.Equal(t, c.in, s.acceptable(p.c.rcv.nxt, p.c.rcvWnd()), "table 6, and what is around the window")
			before := p.layer.Stats().OutOfWindow
			p.c.Arrives(p.now, s)
			rejected := p.layer.Stats().OutOfWindow != before
			if c.closed && c.at == 0 {
				require.False(t, rejected, "its ACK is good")
				return
			}
			require.Equal(t, c.accepts, !rejected)
		})
	}
}

// RFC 9293 §3.10.7.4: "special allowance should be made to accept valid ACKs" while the
// window is closed, and the text is not taken.
func TestClosedWindowTakesACKs(t *testing.T) {
	p := established(t, with(func(cfg *Config) { cfg.ReceiveBuffer, cfg.ReceiveBufferMax = 1000, 1000 }))
	p.arrives(ACK, text(1000))
	p.wants(ACK, ack(p.rcv(1000)), win(0))
	p.write(100)
	p.wants(ACK, text(100))
	p.arrives(ACK, text(1))
	p.wants(ACK, ack(p.rcv(1000)), win(0))
	require.Zero(t, p.c.Info(p.now).InFlight, "the ACK was taken")
	// RFC 9293 §3.8.6.2.2: the window opens by a good step.
	p.read(100)
	p.wantIdle("too little")
	p.read(500)
	p.wants(ACK, win(600))
}

// RFC 9293 §3.8.6, SHLD-14: the right edge of the window never goes back.
func TestWindowNeverShrinks(t *testing.T) {
	p := established(t, with(func(cfg *Config) { cfg.ReceiveBuffer, cfg.ReceiveBufferMax = 10000, 10000 }))
	edge := p.c.rcv.adv
	for i := range 50 {
		p.arrives(ACK, text(137))
		if i%7 == 6 {
			p.read(500)
		}
		require.False(t, p.c.rcv.adv.Before(edge))
		edge = p.c.rcv.adv
		p.out = nil
	}
	p.c.SetReceiveBuffer(100)
	p.arrives(ACK, text(10))
	require.False(t, p.c.rcv.adv.Before(edge))
}

// RFC 7323 §5.3, R1: a segment with an older timestamp is not taken, and
// answered; §3.2: one without a timestamp is dropped; an RST passes both.
func TestPAWS(t *testing.T) {
	p := established(t, withTimestamps)
	p.arrives(ACK, text(10), tsval(6000))
	p.wants(ACK, ack(p.rcv(10)), tsecr(6000))
	p.arrives(ACK, text(10), tsval(5999))
	p.wants(ACK, ack(p.rcv(10)), tsecr(6000))
	p.arrives(ACK, field{set: func(s *Segment) { s.Options.Timestamp.Has = false; s.Payload = make([]byte, 5) }})
	p.wantIdle("dropped in silence")
	require.Equal(t, uint64(1), p.layer.Stats().PAWSRejected)
	// §5.5: after 24 days the old value says nothing.
	p.now = p.now.Add(25 * 24 * time.Hour)
	p.arrives(ACK, text(10), tsval(1))
	p.wants(ACK, ack(p.rcv(20)), tsecr(1))
	p.arrives(RST, tsval(0))
	p.wantErr(ErrReset)
}

// RFC 7323 §4.3 takes the timestamp of a segment that is acceptable, and RFC 5961 §5.2 is a test of that: an ACK of
// what was never sent is answered and its timestamp forgotten, or PAWS would reject all that is genuine from then on.
func TestTimestampOfForgedACK(t *testing.T) {
	p := established(t, withTimestamps)
	recent := p.c.ts.recent
	p.arrives(FIN|ACK, ack(p.snd(9999)), tsval(recent+200_000))
	p.wants(ACK, ack(p.rcv(0)), tsecr(recent))
	p.arrives(ACK, text(1000), tsval(recent+1))
	p.wants(ACK, ack(p.rcv(1000)), tsecr(recent+1))
	p.wantIdle("the genuine segment is taken")
}

// RFC 7323 §4.3: TS.Recent is that of the first segment of a delayed ACK.
func TestTimestampEcho(t *testing.T) {
	p := established(t, withTimestamps, noQuick)
	p.arrives(ACK, text(988), tsval(6000))
	p.wantIdle("the ACK waits")
	p.arrives(ACK, text(988), tsval(6001))
	p.wants(ACK, tsecr(6000))
	// And not that of a segment behind a gap.
	p.arrives(ACK, seq(p.c.rcv.nxt+5), text(5), tsval(7000))
	p.wants(ACK, tsecr(6000))
}

// RFC 9293 §3.8.5, MUST-30 to MUST-32: the user hears of urgent data once, and of where
// it ends; the bytes are in line.
func TestUrgent(t *testing.T) {
	p := established(t)
	p.arrives(ACK|URG, bytes("ab"), urgent(5))
	require.NotZero(t, p.c.Events()&Urgent)
	n, ok := p.c.UrgentPending()
	require.True(t, ok)
	require.Equal(t, 3, n)
	p.arrives(ACK|URG, bytes("cd"), urgent(3))
	require.Zero(t, p.c.Events()&Urgent)
	p.arrives(ACK, bytes("ef"))
	_, ok = p.c.UrgentPending()
	require.False(t, ok)
	p.out = nil
	p.tx.Write([]byte("urgent"))
	p.c.SetUrgent()
	p.write(4)
	p.wants(ACK|URG, text(10), urgent(6))
}

// RFC 5961 §3.2, §4.2, §5.2 and §7: challenge ACKs are limited, for a connection and
// for the layer.
func TestChallengeACKsAreLimited(t *testing.T) {
	p := established(t)
	for range 10 {
		p.arrives(RST, seq(p.c.rcv.nxt+5))
	}
	p.wants(ACK, seq(p.snd(0)), ack(p.rcv(0)))
	p.wantIdle("one in half a second")
	p.wait(500 * time.Millisecond)
	p.arrives(SYN, seq(p.c.rcv.nxt+5))
	p.wants(ACK)
	require.Equal(t, uint64(2), p.layer.Stats().ChallengeACKs)
	require.Equal(t, uint64(9), p.layer.Stats().ChallengesSuppressed)

	p = established(t, with(func(c *Config) { c.ChallengeACKs = 4; c.InvalidInterval = 0 }))
	for range 50 {
		p.arrives(RST, seq(p.c.rcv.nxt+5))
	}
	require.True(t, len(p.out) >= 2 && len(p.out) <= 6, "%d left", len(p.out))
}

// Two ends that disagree must not answer each other for ever: what has no text
// and is not acceptable is answered twice a second.
func TestNoACKLoop(t *testing.T) {
	p := established(t)
	for range 20 {
		p.arrives(ACK, seq(p.rcv(-100)))
	}
	p.wants(ACK)
	p.wantIdle("limited")
	for range 3 {
		p.arrives(ACK, seq(p.rcv(-100)), text(10))
		p.wants(ACK, ack(p.rcv(0)))
	}
}

// ESTABLISHED: sending

// Full segments, PSH at the end of what was written (RFC 9293 §3.9.1.2, MUST-61).
func TestSendSegments(t *testing.T) {
	p := established(t)
	p.write(2500)
	require.Zero(t, p.wants(ACK, seq(p.snd(0)), text(1000)).Flags&PSH)
	p.wants(ACK, seq(p.snd(1000)), text(1000))
	p.wants(ACK|PSH, seq(p.snd(2000)), text(500))
	p.c.SetSendBuffer(1 << 20)
	p.arrives(ACK)
	p.write(20000)
	for range p.c.Info(p.now).Cwnd {
		p.wants(ACK, text(1000))
	}
	p.wantIdle("cwnd is full")
}

// RFC 9293 §3.9.1.2: PSH where nothing follows in the buffer, and at the end of each burst of several segments, by default of two
// where the round trip is long.
func TestPushEndsBursts(t *testing.T) {
	pushes := func(p *script) (at []int) {
		for i, s := range p.out {
			if s.Flags&PSH != 0 {
				at = append(at, i+1)
			}
		}
		p.out = nil
		return at
	}
	p := established(t)
	p.write(20000)
	require.Equal(t, []int{2, 4, 6, 8, 10}, pushes(p), "cwnd is 10")
	p.arrives(ACK, ack(p.snd(1000)))
	require.Equal(t, []int{2}, pushes(p), "slow start")
	p = established(t)
	p.write(7000)
	require.Equal(t, []int{2, 4, 6, 7}, pushes(p), "the last is the end of what was written")
	p = established(t, with(func(cfg *Config) { cfg.MinBurst = 8 }))
	p.write(20000)
	require.Equal(t, []int{5, 10}, pushes(p), "no burst is more than half of cwnd")
	p.arrives(ACK, ack(p.snd(3000)))
	require.Equal(t, []int{6}, pushes(p), "six may leave")
	p = established(t)
	p.c.cc.cwnd = 3
	p.write(5000)
	require.Empty(t, pushes(p), "one segment is no burst")
	p = established(t)
	p.c.rtt.min = 100 * time.Microsecond
	p.write(20000)
	require.Equal(t, []int{5, 10}, pushes(p), "a short round trip makes bursts long")
}

// RFC 6691 §2: SACK blocks shorten the segment that carries them, and no other.
func TestSendWithSACKBlocks(t *testing.T) {
	p := established(t)
	p.c.Arrives(p.now, p.segment(ACK, []field{seq(p.rcv(10)), text(10)}))
	p.write(3000)
	p.wants(ACK, text(1000-12), sack(p.rcv(10), p.rcv(20)))
	p.wants(ACK, text(1000), sack())
}

// RFC 9293 §3.7.4, SHLD-7: Nagle holds a small segment back while another is in
// flight; MUST-17: it can be turned off.
func TestNagle(t *testing.T) {
	p := established(t)
	p.write(10)
	p.wants(ACK, text(10))
	p.write(10)
	p.write(10)
	p.wantIdle("a small segment is in flight")
	p.write(1000)
	p.wants(ACK, text(1000))
	p.arrives(ACK, ack(p.snd(10)))
	p.wants(ACK, text(20))
	p.write(5)
	p.wantIdle("held")
	p.c.SetNoDelay(true)
	p.emit()
	p.wants(ACK, text(5))
	p.write(5)
	p.wants(ACK, text(5))
}

// RFC 9293 §3.9.1.2, MAY-15: what was sent without PUSH waits for the rest; MUST-60: not for long; MUST-61: PSH is on the last
// of what was buffered.
func TestMore(t *testing.T) {
	p := established(t)
	p.c.SetNoDelay(true)
	p.c.SetMore(true)
	p.write(40)
	p.write(1000)
	require.Zero(t, p.wants(ACK, text(1000)).Flags&PSH)
	p.wantIdle("40 bytes wait for the rest")
	p.c.SetMore(false)
	p.write(60)
	p.wants(ACK|PSH, text(100))
	p.arrives(ACK)

	p.c.SetMore(true)
	p.write(40)
	p.c.SetNoDelay(true)
	p.emit()
	require.Zero(t, p.wants(ACK, text(40)).Flags&PSH, "made to leave before the rest came")
	p.arrives(ACK)

	p.write(40)
	p.near(200*time.Millisecond, p.waitFor(time.Second))
	p.wants(ACK|PSH, text(40))
	p.arrives(ACK)

	p.c.SetMore(true)
	p.write(40)
	p.wantIdle("it waits")
	p.c.Shutdown(p.now)
	p.emit()
	p.wants(FIN|ACK|PSH, text(40))
}

// TCP_CORK holds what is not full, for 200 ms at most, or until it is taken out.
func TestCork(t *testing.T) {
	p := established(t)
	p.c.SetCork(true)
	p.c.SetNoDelay(true)
	p.emit()
	p.write(1300)
	p.wants(ACK, text(1000))
	p.wantIdle("corked")
	p.c.SetNoDelay(true)
	p.emit()
	p.wants(ACK|PSH, text(300)) // tcp(7): the option flushes even so
	p.write(1300)
	p.wants(ACK, text(1000))
	p.wantIdle("corked again")
	p.arrives(ACK)
	p.wantIdle("corked")
	p.near(200*time.Millisecond, p.waitFor(time.Second))
	p.wants(ACK, text(300))
	p.arrives(ACK)
	p.write(200)
	p.wantIdle("corked")
	p.c.SetCork(false)
	p.emit()
	p.wants(ACK|PSH, text(200))
}

// RFC 9293 §3.8.6.2.1, MUST-38: a window that cuts the text to less than half of
// what it ever was is waited for.
func TestSenderSillyWindow(t *testing.T) {
	p := established(t, peer(func(s *Segment) { s.Window = 2000 }))
	p.arrives(ACK, win(2000))
	p.write(5000)
	p.wants(ACK, text(1000))
	p.wants(ACK, text(1000))
	p.arrives(ACK, win(300))
	p.wantIdle("a silly window")
	p.near(200*time.Millisecond, p.waitFor(time.Second))
	p.wants(ACK, text(300))
	p.arrives(ACK, win(1500))
	p.wants(ACK, text(1000))
	p.wantIdle("500 wait")
}

// RFC 9293 §3.8.6.1: a closed window is probed after an RTO, then with back-off,
// for as long as the peer answers (MUST-37).
func TestZeroWindow(t *testing.T) {
	p := established(t)
	p.write(1000)
	p.wants(ACK, text(1000))
	p.arrives(ACK, win(0))
	p.write(500)
	p.wantIdle("the window is closed")
	rto := p.c.Info(p.now).RTO
	p.near(rto, p.waitFor(time.Second))
	for i := range 40 {
		p.wants(ACK, seq(p.snd(999)), text(0))
		p.arrives(ACK, win(0))
		took := p.waitFor(time.Hour)
		p.near(min(rto<<(i+1), 120*time.Second), took)
		if rto<<(i+1) > 120*time.Second {
			break
		}
	}
	p.wants(ACK, seq(p.snd(999)), text(0))
	p.wait(time.Minute)
	p.arrives(ACK, win(5000))
	p.wants(ACK, seq(p.snd(1000)), text(500))
}

// A peer that does not answer window probes is gone after R2.
func TestZeroWindowPeerGone(t *testing.T) {
	p := established(t)
	p.write(1000)
	p.arrives(ACK, win(0))
	p.write(500)
	p.out = nil
	p.wait(2 * time.Hour)
	p.wantErr(ErrTimeout)
}

// RFC 9293 §3.10.7.4, fifth: SND.WL1 and SND.WL2 keep an old segment from
// changing the window.
func TestOldWindowUpdate(t *testing.T) {
	p := established(t)
	p.arrives(ACK, text(10), win(3000))
	p.arrives(ACK, seq(p.rcv(0)), text(10), win(1))
	require.Equal(t, uint32(3000), p.c.Info(p.now).SendWindow)
	p.arrives(ACK, win(4000))
	require.Equal(t, uint32(4000), p.c.Info(p.now).SendWindow)
}

// RFC 9293 §3.8.4: keep-alive probes after the idle time, and the end after those
// without an answer; off by default (MUST-25).
func TestKeepAlive(t *testing.T) {
	p := established(t)
	p.wait(24 * time.Hour)
	p.wantIdle("off")
	p.c.SetKeepAlive(p.now, true, time.Minute, 10*time.Second, 3)
	p.near(0, p.waitFor(time.Second))
	p.wants(ACK, seq(p.snd(-1)), text(0))
	p.arrives(ACK)
	p.near(time.Minute, p.waitFor(time.Hour))
	p.wants(ACK, seq(p.snd(-1)))
	for range 2 {
		p.near(10*time.Second, p.waitFor(time.Hour))
		p.wants(ACK, seq(p.snd(-1)))
	}
	p.near(10*time.Second, p.waitFor(time.Hour))
	p.wants(RST | ACK)
	p.wantErr(ErrTimeout)
}

// RFC 5482 §3, RFC 9293 §3.9.1.4: the user's time-out ends a connection that gets no
// answer, at its moment and not at the next retransmission.
func TestUserTimeout(t *testing.T) {
	p := established(t)
	p.c.SetUserTimeout(p.now, 3*time.Second)
	p.write(24)
	begin := p.now
	for p.c.State() == Established {
		p.now = p.c.Deadline()
		p.c.Timeout(p.now)
		p.emit()
	}
	p.near(3*time.Second, p.now.Sub(begin))
	p.wantErr(ErrTimeout)
}

// A user's time-out ends a peer with a closed window, too.
func TestUserTimeoutZeroWindow(t *testing.T) {
	p := established(t)
	p.c.SetUserTimeout(p.now, 3*time.Second)
	p.write(24)
	p.arrives(ACK, win(0))
	p.write(24)
	begin := p.now
	for p.c.State() == Established && p.now.Sub(begin) < time.Hour {
		p.now = p.c.Deadline()
		p.c.Timeout(p.now)
		p.emit()
		if len(p.out) > 0 {
			p.out = nil
			p.arrives(ACK, win(0))
		}
	}
	p.near(3*time.Second, p.now.Sub(begin))
	p.wantErr(ErrTimeout)
}

// An output without room loses nothing: what did not leave leaves later.
func TestOutputFull(t *testing.T) {
	p := established(t)
	p.full = true
	p.write(3000)
	p.arrives(ACK, text(10))
	require.Empty(t, p.out)
	require.True(t, p.c.Emit(p.now, p))
	p.full = false
	p.emit()
	p.wants(ACK, seq(p.snd(0)), ack(p.rcv(10)), text(1000))
	p.wants(ACK, text(1000))
	p.wants(ACK, text(1000))
	p.wantIdle("all left")
}

// RFC 9293 §3.4: sequence numbers wrap, and pass 2^31, in the middle of a
// connection, in both directions, with loss.
func TestSequenceNumbersWrap(t *testing.T) {
	for _, edge := range []Seq{0, 1 << 31} {
		for _, before := range []int{1, 2, 500, 1000, 1001, 2500} {
			p := established(t, numbered(edge-Seq(before), edge-Seq(before)))
			p.write(5000)
			p.wantSegments(0, 5)
			p.now = p.now.Add(rtt)
			p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)))
			p.wantSegments(0, 1)
			p.arrives(ACK, ack(p.seg(5)))
			require.Zero(t, p.c.Info(p.now).InFlight)
			p.arrives(ACK, seq(p.rcv(1000)), text(4000))
			p.wants(ACK, ack(p.rcv(0)), sack(p.rcv(1000), p.rcv(5000)))
			p.arrives(ACK, seq(p.rcv(0)), text(1000))
			p.wants(ACK, ack(p.rcv(5000)))
			p.read(5000)
			p.c.Shutdown(p.now)
			p.emit()
			p.wants(FIN|ACK, seq(p.snd(5000)))
			p.arrives(FIN | ACK)
			p.wants(ACK, ack(p.rcv(5001)))
			p.wantState(TimeWait)
		}
	}
}

// State's, an error's and a verdict's names are the RFC's.
func TestNames(t *testing.T) {
	require.Equal(t, "FIN-WAIT-1", FinWait1.String())
	require.Equal(t, "no state", State(99).String())
	for e := None; e <= ErrMessageSize; e++ {
		require.False(t, strings.HasSuffix(e.Error(), "."))
		require.NotEqual(t, Error(99).Error(), e.Error())
	}
	require.Equal(t, wire.FIN, FIN)
}

// cheat is a stream whose user takes back what is in it, as one in shared memory
// may.
type cheat struct {
	*ring.Stream
	left int // bytes
}

func (s *cheat) Peek(off, n int) (a, b []byte) { return s.Stream.Peek(off, min(n, max(0, s.left-off))) }

// A send stream that holds less than it said sends less, and no empty segments
// without end.
func TestSendStreamLies(t *testing.T) {
	p := established(t)
	p.c.tx = &cheat{&p.tx, 2 * testMSS}
	p.write(5 * testMSS)
	p.wants(ACK, seq(p.snd(0)), text(testMSS))
	p.wants(ACK, seq(p.snd(testMSS)), text(testMSS))
	p.wantIdle("there is no more")
	p.waitFor(time.Minute)
	p.out = nil
	p.c.Shutdown(p.now)
	p.emit()
	p.out = nil
	for range 50 {
		at := p.c.Deadline()
		if at == clock.Never {
			break
		}
		p.now = max(p.now, at)
		p.c.Timeout(p.now)
		p.emit()
	}
	p.wantErr(ErrTimeout)
}

// The send buffer follows cwnd, on a near path as far as one could need it, and on one that has become long further again.
func TestSendBufferOfANearPath(t *testing.T) {
	p := established(t)
	grown := func(least, smoothed time.Duration) int {
		p.c.rtt.min, p.c.rtt.srtt, p.c.cc.cwnd = least, smoothed, 10_000
		p.c.tuneSend(0)
		return p.c.tx.Limit()
	}
	require.Equal(t, 64<<10, grown(50*time.Microsecond, time.Millisecond), "its user has not filled what it has")
	p.tx.Write(make([]byte, 33<<10))
	require.Equal(t, nearBuffer, grown(50*time.Microsecond, time.Millisecond))
	require.Equal(t, 2*fastestPath*200_000, grown(200*time.Microsecond, time.Millisecond))
	require.Equal(t, p.c.layer.cfg.SendBufferMax, grown(50*time.Microsecond, 50*time.Millisecond))
}

// Connections that send in bulk share what a path could need, but for as much each as 0.5 Gbit/s takes, and but for what each has
// from the beginning.
func TestSendBuffersOfManyAreShared(t *testing.T) {
	p := established(t)
	p.tx.Write(make([]byte, 33<<10))
	shared := func(least time.Duration, among int) int {
		p.c.rtt.min, p.c.rtt.srtt, p.c.cc.cwnd = least, least, 10_000
		if p.c.snd.bulk {
			p.c.layer.bulk = among
		} else {
			p.c.layer.bulk = among - 1
		}
		p.c.tuneSend(0)
		return p.c.tx.Limit()
	}
	require.Equal(t, nearBuffer, shared(50*time.Microsecond, 1))
	require.Equal(t, nearBuffer/4, shared(50*time.Microsecond, 4), "what was given is taken back")
	require.Equal(t, 64<<10, shared(50*time.Microsecond, 10_000))
	require.Equal(t, 2*fastestPath*10_000_000/50, shared(10*time.Millisecond, 50))
	require.Equal(t, 2*10_000_000/fairPath, shared(10*time.Millisecond, 10_000))
	require.Equal(t, p.c.layer.cfg.SendBufferMax, shared(50*time.Millisecond, 10_000))
	p.c.layer.bulk = 1
	p.c.SendRests()
	require.Zero(t, p.c.layer.bulk)
	require.Equal(t, 64<<10, p.c.tx.Limit())
	p.c.SendRests()
	require.Zero(t, p.c.layer.bulk, "it rests already")
	p.c.tuneSend(0)
	require.Equal(t, 1, p.c.layer.bulk)
	p.c.Abort(p.now)
	p.emit()
	require.Zero(t, p.c.layer.bulk, "it is gone")
}

// Who has nothing more to send, or can't for its peer's sake, or whose user has said how long the buffer is, has no share.
func TestWhoHasNoShareOfTheSendBuffers(t *testing.T) {
	bulk := func(t *testing.T) *script {
		p := established(t)
		p.tx.Write(make([]byte, 33<<10))
		p.c.tuneSend(0)
		require.Equal(t, 1, p.c.layer.bulk)
		return p
	}
	t.Run("FIN-WAIT-2 and TIME-WAIT", func(t *testing.T) {
		for _, s := range []State{FinWait2, TimeWait} {
			p := bulk(t)
			p.c.setState(s)
			require.Zero(t, p.c.layer.bulk)
		}
	})
	t.Run("a closed window", func(t *testing.T) {
		p := bulk(t)
		p.c.armPersist(p.now)
		require.Zero(t, p.c.layer.bulk)
		p.c.tuneSend(0)
		require.Equal(t, 1, p.c.layer.bulk, "its peer takes something again")
	})
	t.Run("a fixed buffer", func(t *testing.T) {
		p := bulk(t)
		p.c.SetSendBuffer(100_000)
		require.Zero(t, p.c.layer.bulk)
		p.c.tuneSend(0)
		p.c.SendRests()
		require.Zero(t, p.c.layer.bulk)
		require.Equal(t, 100_000, p.c.tx.Limit())
	})
}
