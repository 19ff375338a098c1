package tcp

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Sequence numbers compare rightly up to 2^31 apart and come round after 2^32
// (RFC 9293 section 3.4), so nothing that stays behind may be compared for ever.

// sent moves a connection that has nothing in flight on as if n bytes had been
// sent and acknowledged.
func (p *script) sent(n uint64) {
	s := &p.c.snd
	s.una += Seq(n)
	s.nxt += Seq(n)
	p.c.count.delivered += n
}

// SND.UNA comes back to ISS after 4 GiB, and the byte there is no SYN.
func TestSendSequenceComesRoundToISS(t *testing.T) {
	p := established(t)
	p.sent(1<<32 - 1 - testMSS)
	p.write(testMSS)
	p.wants(ACK, seq(p.iss-testMSS), text(testMSS))
	p.arrives(ACK, ack(p.iss))
	require.Equal(t, p.iss, p.c.snd.una)
	p.tx.Write([]byte("round"))
	p.emit()
	p.wants(ACK|PSH, seq(p.iss), bytes("round"))
	p.arrives(ACK, ack(p.iss))
	p.waitFor(rtt * 10)
	p.wants(ACK|PSH, seq(p.iss), bytes("round"))
	p.arrives(ACK, ack(p.iss+5))
	require.Zero(t, p.tx.Used())
}

// RFC 9293 §3.7.4: the small segment that holds another back is one that is in
// flight, not one from 2 GiB ago.
func TestNagleForgetsOldSmallSegments(t *testing.T) {
	p := established(t)
	p.write(1)
	p.wants(ACK, text(1))
	p.arrives(ACK)
	p.sent(1<<31 - 2*testMSS)
	for range 4 {
		p.write(testMSS)
		p.wants(ACK, text(testMSS))
		p.arrives(ACK)
	}
	p.write(1)
	p.wants(ACK, text(1))
}

// RFC 8985 §6.2, step 4: a DSACK widens the reordering window once a round trip,
// also where the last one was more than 2 GiB ago.
func TestRACKWidensAfterLong(t *testing.T) {
	p := sending(t, 3)
	p.arrives(ACK, ack(p.seg(2)), sack(p.seg(0), p.seg(1)))
	p.arrives(ACK, ack(p.seg(2)), sack(p.seg(1), p.seg(2)))
	require.Equal(t, uint8(2), p.c.cc.rack.mult, "two in one round trip count once")
	p.arrives(ACK)
	p.sent(1<<31 + 100)
	una := p.c.snd.una
	p.arrives(ACK, sack(una-2, una-1))
	require.Equal(t, uint8(3), p.c.cc.rack.mult)
}

// RFC 9406 §4.2: a round of slow start ends with what was in flight when it began,
// however much was sent without it.
func TestHyStartRoundAfterLong(t *testing.T) {
	p := established(t, with(func(c *Config) { c.HyStart = true }))
	p.write(testMSS * 10)
	p.out = nil
	p.arrives(ACK)
	h := &p.c.cc.algorithm.hystart
	require.True(t, h.started)
	end := h.windowEnd
	p.sent(1<<31 + 1<<20)
	p.write(testMSS * 10)
	p.out = nil
	p.arrives(ACK)
	require.NotEqual(t, end, h.windowEnd, "another round began")
}

// RFC 3708 §3: DSACKs count from where the reduction began, however long ago.
func TestUndoMarkerAfterLong(t *testing.T) {
	p := sending(t, 10)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(0)), sack(p.seg(1), p.seg(4)))
	p.wantSegments(0, 1)
	p.arrives(ACK, ack(p.seg(10)))
	require.Equal(t, int32(1), p.c.cc.undoRexmt)
	p.sent(1<<31 + 1<<20)
	una := p.c.snd.una
	p.arrives(ACK, sack(una-2, una-1))
	require.Equal(t, int32(0), p.c.cc.undoRexmt, "a duplicate behind the marker")
}
