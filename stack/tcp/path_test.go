package tcp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// RFC 1191 §6.5: what was too large leaves again at once, in smaller segments, and
// cwnd is not reduced.
func TestFragNeeded(t *testing.T) {
	p := sending(t, 4)
	require.True(t, p.c.PathError(p.now, FragNeeded, 640, p.seg(0)))
	p.emit()
	require.Equal(t, 600, p.c.Info(p.now).SendMSS)
	at := 0
	for at < 4*testMSS && len(p.out) > 0 {
		s := p.wants(ACK, seq(p.snd(at)))
		require.LessOrEqual(t, s.PayloadLen(), 600)
		at += s.PayloadLen()
	}
	require.Equal(t, uint32(10), p.c.Info(p.now).Cwnd)
	require.GreaterOrEqual(t, at, 2*testMSS)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.snd(at)))
	for len(p.out) > 0 {
		s := p.wants(ACK, seq(p.snd(at)))
		at += s.PayloadLen()
	}
	require.Equal(t, 4*testMSS, at)
	p.arrives(ACK)
	require.Equal(t, "open", p.c.Info(p.now).CongestionState)
	require.Zero(t, p.c.Info(p.now).InFlight)
}

// RFC 5927 §4.1: an ICMP error about a number that is not in flight is forged.
// RFC 1191 §3: an MTU below the least is not believed, and one that is no smaller neither.
func TestFragNeededForged(t *testing.T) {
	p := sending(t, 2)
	require.False(t, p.c.PathError(p.now, FragNeeded, 640, p.snd(-1)))
	require.False(t, p.c.PathError(p.now, FragNeeded, 640, p.seg(2)))
	require.False(t, p.c.PathError(p.now, FragNeeded, 1500, p.seg(0)))
	require.False(t, p.c.PathError(p.now, HostUnreachable, 0, p.seg(2)))
	p.wantIdle("ignored")
	require.True(t, p.c.PathError(p.now, FragNeeded, 100, p.seg(0)))
	require.Equal(t, minMTU, p.c.Info(p.now).MTU)
}

// RFC 1191 §7.1: a router that does not say its MTU means the next plateau.
func TestFragNeededOldRouter(t *testing.T) {
	p := sending(t, 2)
	require.True(t, p.c.PathError(p.now, FragNeeded, 0, p.seg(0)))
	require.Equal(t, 1492, p.c.Info(p.now).MTU)
}

// RFC 1122 §4.2.3.9: an unreachable host or port does not end a connection, and is
// what the user hears if it ends for silence.
func TestUnreachableIsSoft(t *testing.T) {
	p := sending(t, 1)
	require.True(t, p.c.PathError(p.now, PortUnreachable, 0, p.seg(0)))
	p.wantState(Established)
	require.True(t, p.c.PathError(p.now, NetUnreachable, 0, p.seg(0)))
	require.NotZero(t, p.c.Events()&SoftError)
	p.wait(30 * time.Minute)
	p.wantErr(ErrNetUnreachable)
}

// RFC 4821 §7.6.2: full segments that time out again and again, without a word from
// any router, are made smaller.
func TestBlackHole(t *testing.T) {
	p := established(t, peer(func(s *Segment) { s.Options.MSS = 1460 }))
	p.write(1460)
	p.wants(ACK, text(1460))
	lengths := map[int]bool{}
	p.wait(3 * time.Minute)
	for i := range p.out {
		lengths[p.out[i].PayloadLen()] = true
	}
	require.True(t, lengths[1452] && lengths[1240] && lengths[966], "%v", lengths)
	require.NotZero(t, p.layer.Stats().BlackHoles)
	p.out = nil
	p.arrives(ACK)
	require.Zero(t, p.c.Info(p.now).InFlight)
}

// RFC 3168 §6.1.1: ECN is asked for, agreed to, and a SYN without an answer is repeated
// without it.
func TestECNHandshake(t *testing.T) {
	on := with(func(c *Config) { c.ECN = ECNOn })
	p, _ := newScript(t, []setup{on})
	p.c.Connect(p.now)
	p.emit()
	p.wants(SYN | ECE | CWR)
	p.waitFor(time.Minute)
	p.wants(SYN)

	p = synReceivedECN(t, ECNPassive)
	p.wants(SYN | ACK | ECE)
	p = synReceivedECN(t, ECNOff)
	p.wants(SYN | ACK)
}

func synReceivedECN(t *testing.T, mode ECNMode) *script {
	p, syn := newScript(t, []setup{with(func(c *Config) { c.ECN = mode })})
	syn.Flags |= ECE | CWR
	p.c.Accept(p.now, syn)
	p.renumber()
	p.emit()
	return p
}

// RFC 3168 §6.1.2: ECE reduces cwnd once a round trip; CWR goes on the next new segment, ECT
// on new text and on nothing else.
func TestECNSender(t *testing.T) {
	p := synReceivedECN(t, ECNPassive)
	p.wants(SYN|ACK|ECE, ecn(NotECT))
	p.now = p.now.Add(rtt)
	p.arrives(ACK)
	p.c.SetSendBuffer(1 << 20)
	p.write(30 * testMSS)
	for range 10 {
		p.wants(ACK, ecn(ECT0))
	}
	p.now = p.now.Add(rtt)
	p.arrives(ACK|ECE, ack(p.seg(1)))
	require.Equal(t, uint32(5), p.c.Info(p.now).Ssthresh)
	p.arrives(ACK|ECE, ack(p.seg(3)))
	p.arrives(ACK|ECE, ack(p.seg(10)))
	require.Equal(t, uint32(5), p.c.Info(p.now).Ssthresh, "once")
	require.NotEmpty(t, p.out)
	first := p.wants(ACK | CWR)
	require.Equal(t, ECT0, first.ECN)
	for len(p.out) > 0 {
		p.wants(ACK)
	}
}

// RFC 3168 §6.1.3: a CE mark is echoed on every ACK until CWR.
func TestECNReceiver(t *testing.T) {
	p := synReceivedECN(t, ECNPassive)
	p.wants(SYN | ACK | ECE)
	p.arrives(ACK)
	p.arrives(ACK, text(10), ecn(ECT0))
	p.wants(ACK)
	p.arrives(ACK, text(10), ecn(CE))
	p.wants(ACK | ECE)
	p.arrives(ACK, text(10), ecn(ECT0))
	p.wants(ACK | ECE)
	p.arrives(ACK|CWR, text(10), ecn(ECT0))
	p.wants(ACK)
}

// Info tells what a user of TCP_INFO asks for.
func TestInfo(t *testing.T) {
	p := sending(t, 10)
	p.now = p.now.Add(rtt)
	p.arrives(ACK, ack(p.seg(2)), sack(p.seg(3), p.seg(6)))
	p.wants(ACK, seq(p.seg(2)))
	i := p.c.Info(p.now)
	require.Equal(t, Established, i.State)
	require.Equal(t, "recovery", i.CongestionState)
	require.Equal(t, [4]uint32{8, 3, 1, 1}, [4]uint32{i.InFlight, i.Sacked, i.Lost, i.Retransmitting})
	require.Equal(t, uint32(1), i.Retransmitted)
	require.Equal(t, uint32(1), i.TotalLost)
	require.False(t, i.ReorderingSeen, "what one ACK covers was not reordered")
	require.Equal(t, uint64(2000), i.Delivered)
	require.Equal(t, rtt, i.SRTT)
	require.Equal(t, rtt, i.LastSent)
	require.Equal(t, [2]int{testMSS, 1460}, [2]int{i.SendMSS, i.AnnouncedMSS})
	require.Equal(t, 2*rtt, i.LastReceived, "nothing since the handshake began")
	require.Equal(t, 8*testMSS, p.tx.Used())
}

// RFC 1191 §6.3: a smaller MTU is believed for ten minutes; what the routes say counts
// at once.
func TestMTUIsTriedAgain(t *testing.T) {
	p := established(t, peer(func(s *Segment) { s.Options.MSS = 1460 }))
	p.write(2920)
	require.True(t, p.c.PathError(p.now, FragNeeded, 1040, p.snd(0)))
	p.emit()
	p.out = nil
	p.arrives(ACK)
	p.wait(9 * time.Minute)
	p.write(2000)
	p.wants(ACK, text(1000))
	p.wants(ACK, text(1000))
	p.arrives(ACK)
	p.wait(time.Minute)
	p.write(2000)
	p.wants(ACK, text(1460))
	p.arrives(ACK)
	p.c.SetMTU(640)
	p.out = nil
	p.write(1000)
	p.wants(ACK, text(600))
}

// TCP_MAXSEG limits the MSS announced, and what is sent (RFC 9293 §3.7.1).
func TestSetMaxSegment(t *testing.T) {
	p, _ := newScript(t, nil)
	p.c.SetMaxSegment(700)
	p.c.Connect(p.now)
	p.emit()
	require.Equal(t, uint16(700), p.wants(SYN).Options.MSS)
	p = established(t)
	p.c.SetMaxSegment(1)
	p.write(100)
	p.wants(ACK, text(DefaultConfig().MinMSS))
	p.c.SetMaxSegment(0)
	require.Equal(t, testMSS, p.c.Info(p.now).SendMSS)
}

// A segment with malformed options is not used (RFC 9293 §3.1, MUST-7).
func TestParse(t *testing.T) {
	b := []byte{0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x60, 0x10, 0, 5, 0, 0, 0, 0, 2, 40, 0, 0}
	view, err := wire.ParseTCP(b)
	require.NoError(t, err)
	var s Segment
	require.ErrorIs(t, s.Parse(view, CE), wire.ErrTCPOption)
	b[20], b[21] = 1, 0
	require.NoError(t, s.Parse(view, CE))
	require.Equal(t, Segment{Seq: 3, Ack: 4, Flags: ACK, Window: 5, ECN: CE, Options: wire.NoTCPOptions(), Payload: []byte{}}, s)
}
