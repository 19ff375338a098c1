package tcp

import (
	"encoding/binary"
	"math/bits"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// CLOSED

// RFC 9293 §3.10.7.1: "An incoming segment not containing a RST causes a RST to
// be sent in response", <SEQ=SEG.ACK><CTL=RST> if it has an ACK, otherwise
// <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>.
func TestClosedRefuses(t *testing.T) {
	p := closed(t)
	var a Segment
	require.Equal(t, Ignore, p.layer.Refuse(&Segment{Flags: RST}, &a))
	require.Equal(t, Answer, p.layer.Refuse(&Segment{Seq: 5, Ack: 77, Flags: ACK}, &a))
	require.Equal(t, Segment{Seq: 77, Flags: RST, Options: wire.NoTCPOptions()}, a)
	require.Equal(t, Answer, p.layer.Refuse(&Segment{Seq: 5, Flags: SYN | FIN, Payload: []byte("abc")}, &a))
	require.Equal(t, Segment{Ack: 10, Flags: RST | ACK, Options: wire.NoTCPOptions()}, a)
}

// LISTEN

// RFC 9293 §3.10.7.2, first to fourth: RST is ignored, ACK gets an RST, SYN
// opens, anything else is dropped.
func TestListen(t *testing.T) {
	p := closed(t)
	listen := func(flags wire.TCPFlags) (Verdict, Segment) {
		var answer Segment
		s := Segment{Seq: 10, Ack: 20, Flags: flags, Options: wire.NoTCPOptions()}
		return p.layer.Listen(p.now, p.c.ID(), &s, false, 1500, &answer), answer
	}
	for flags := range 64 {
		f := wire.TCPFlags(flags)
		v, answer := listen(f)
		switch {
		case f&RST != 0:
			require.Equal(t, Ignore, v, "%v", f)
		case f&ACK != 0:
			require.Equal(t, Answer, v, "%v", f)
			require.Equal(t, RST, answer.Flags)
			require.Equal(t, Seq(20), answer.Seq)
		case f&(SYN|FIN) == SYN:
			require.Equal(t, Open, v, "%v", f)
		default:
			require.Equal(t, Ignore, v, "%v", f)
		}
	}
}

// SYN-SENT

// RFC 9293 §3.5, figure 6: the three-way handshake, with the options in a SYN as
// Linux has them.
func TestSynSentHandshake(t *testing.T) {
	p, syn := synSent(t, withTimestamps, with(func(c *Config) { c.WindowScale = true }), peer(func(s *Segment) { s.Options.WScale = 3 }))
	p.now = p.now.Add(rtt)
	p.c.Arrives(p.now, syn)
	p.emit()
	p.wants(ACK, seq(p.snd(0)), ack(p.rcv(0)))
	p.wantIdle("one ACK ends the handshake")
	p.wantState(Established)
	i := p.c.Info(p.now)
	require.True(t, i.SACK && i.Timestamps && i.WindowScale)
	require.Equal(t, uint8(3), i.SendScale)
	require.Equal(t, uint8(7), i.ReceiveScale)
	require.Equal(t, testMSS-12, i.SendMSS, "RFC 6691 §2: timestamps are taken off")
	require.Equal(t, rtt, i.SRTT)
	require.Equal(t, rtt+max(200*time.Millisecond, 4*rtt/2), i.RTO)
	require.Equal(t, Connected, p.c.Events()&Connected)
}

// RFC 9293 §3.10.7.3: options that we did not offer stay off.
func TestSynSentOptionsNotOffered(t *testing.T) {
	p, syn := synSent(t, noSACK)
	syn.Options.WScale = 5
	syn.Options.Timestamp = wire.TCPTimestamp{Has: true, Val: 1}
	p.c.Arrives(p.now, syn)
	p.emit()
	p.wants(ACK)
	i := p.c.Info(p.now)
	require.False(t, i.SACK || i.Timestamps || i.WindowScale)
	require.Zero(t, i.SendScale)
}

// RFC 6298 §2.1 and §5.5, RFC 9293 §3.8.3: a SYN is repeated after 1 s, 2 s, 4 s and
// so on, and the attempt ends.
func TestSynSentRetransmits(t *testing.T) {
	p, _ := synSent(t)
	for i := range 6 {
		p.near(time.Second<<i, p.waitFor(time.Hour))
		p.wants(SYN, seq(p.iss))
	}
	p.wait(65 * time.Second)
	p.wantIdle("R2 was reached")
	p.wantErr(ErrTimeout)
}

// RFC 9293 §3.10.7.3, first: an ACK outside of what was sent gets
// <SEQ=SEG.ACK><CTL=RST>, and the attempt goes on.
func TestSynSentBadACK(t *testing.T) {
	p, syn := synSent(t)
	for _, bad := range []Seq{p.iss, p.iss + 2, p.iss - 100, p.iss + 1<<31} {
		p.arrives(SYN|ACK, ack(bad))
		p.wants(RST, seq(bad))
		p.arrives(RST|ACK, ack(bad))
		p.wantIdle("an RST is never answered")
		p.wantState(SynSent)
	}
	p.c.Arrives(p.now, syn)
	p.emit()
	p.wants(ACK)
	p.wantState(Established)
}

// RFC 9293 §3.5, figure 7: simultaneous open.
func TestSynSentSimultaneousOpen(t *testing.T) {
	p, syn := synSent(t)
	syn.Flags = SYN
	p.c.Arrives(p.now, syn)
	p.emit()
	p.wants(SYN|ACK, seq(p.iss), ack(p.rcv(0)))
	p.wantState(SynReceived)
	// Figure 7, line 6: the peer's SYN-ACK has the number of its SYN.
	p.arrives(SYN|ACK, seq(p.irs), ack(p.snd(0)))
	p.wantState(Established)
	p.wants(ACK, seq(p.snd(0)), ack(p.rcv(0)))
	p.wantIdle("both ends are there")
}

// RFC 9293 §3.10.7.4, second: an RST in SYN-RECEIVED after an active open means
// that the connection was refused.
func TestSynSentSimultaneousOpenRefused(t *testing.T) {
	p, syn := synSent(t)
	syn.Flags = SYN
	p.c.Arrives(p.now, syn)
	p.emit()
	p.wants(SYN | ACK)
	p.arrives(RST)
	p.wantErr(ErrRefused)
}

// RFC 9293 §3.10.7.3, fourth: "if there are other controls or text in the segment,
// then continue processing at the sixth step".
func TestSynSentTextAndFINInSYNACK(t *testing.T) {
	p, syn := synSent(t)
	syn.Flags |= FIN
	syn.Payload = []byte("hello")
	p.c.Arrives(p.now, syn)
	p.emit()
	p.wants(ACK, ack(p.rcv(6)))
	p.wantState(CloseWait)
	require.Equal(t, "hello", string(p.read(5)))
}

// RFC 9293 §3.10.2: data written before ESTABLISHED is queued, and leaves then.
func TestSynSentQueuesData(t *testing.T) {
	p, syn := synSent(t)
	p.write(1500)
	p.wantIdle("not established")
	p.c.Arrives(p.now, syn)
	p.emit()
	p.wants(ACK, seq(p.snd(0)), text(1000))
	p.wants(PSH|ACK, seq(p.snd(1000)), text(500))
	p.wantIdle("the data carried the ACK")
}

// RFC 1122 §4.2.3.9, RFC 5927 §5.2: port unreachable for a SYN ends the attempt;
// host unreachable does not, but is what is reported in the end.
func TestSynSentICMP(t *testing.T) {
	p, _ := synSent(t)
	require.False(t, p.c.PathError(p.now, PortUnreachable, 0, p.iss+1), "quotes what was not sent")
	require.True(t, p.c.PathError(p.now, HostUnreachable, 0, p.iss))
	p.wantState(SynSent)
	require.ErrorIs(t, p.c.Info(p.now).SoftError, ErrHostUnreachable)
	p.wait(3 * time.Minute)
	p.wantErr(ErrHostUnreachable)

	p, _ = synSent(t)
	require.True(t, p.c.PathError(p.now, PortUnreachable, 0, p.iss))
	p.wantErr(ErrRefused)
}

// SYN-RECEIVED

// A SYN that is repeated, because our SYN-ACK was lost, gets the SYN-ACK again.
func TestSynReceivedSYNAgain(t *testing.T) {
	p := synReceived(t)
	p.arrives(SYN, seq(p.irs))
	p.wants(SYN|ACK, seq(p.iss), ack(p.rcv(0)))
	p.wantState(SynReceived)
}

// RFC 9293 §3.8.3: the SYN-ACK is repeated, and the half-open connection ends
// without a word to the user.
func TestSynReceivedRetransmits(t *testing.T) {
	p := synReceived(t)
	for i := range 5 {
		p.near(time.Second<<i, p.waitFor(time.Hour))
		p.wants(SYN|ACK, seq(p.iss), ack(p.rcv(0)))
	}
	p.wait(33 * time.Second)
	p.wantState(Closed)
	require.NoError(t, p.c.Err())
	p.wantIdle("nobody is told")
}

// RFC 9293 §3.10.4: CLOSE in SYN-RECEIVED is queued until ESTABLISHED.
func TestSynReceivedClose(t *testing.T) {
	p := synReceived(t)
	p.c.Shutdown(p.now)
	p.wantIdle("queued")
	p.arrives(ACK)
	p.wants(FIN|ACK, seq(p.snd(0)))
	p.wantState(FinWait1)
}

// RFC 9293 §3.10.7.4, fifth: the ACK that ends the handshake may carry text.
func TestSynReceivedACKWithText(t *testing.T) {
	p := synReceived(t)
	p.arrives(ACK, bytes("GET /"))
	p.wants(ACK, ack(p.rcv(5)))
	p.wantState(Established)
	require.Equal(t, "GET /", string(p.read(5)))
}

// RFC 4987 §3.6: under flood a SYN is answered with a cookie and forgotten, and
// the ACK that brings it back makes the connection, with the options that the
// timestamp kept.
func TestCookie(t *testing.T) {
	for _, timestamps := range []bool{true, false} {
		p, syn := newScript(t, []setup{with(func(c *Config) { c.WindowScale, c.Timestamps, c.ECN = true, true, ECNPassive })})
		syn.Options.MSS = 1400
		syn.Options.WScale = 9
		syn.Flags |= ECE | CWR
		syn.Options.Timestamp = wire.TCPTimestamp{Has: timestamps, Val: 123}
		id := p.c.ID()
		var a Segment
		require.Equal(t, Answer, p.layer.Listen(p.now, id, syn, true, 1500, &a))
		require.Equal(t, syn.Seq+1, a.Ack)
		require.Equal(t, timestamps, a.Options.Timestamp.Has)

		back := Segment{Seq: syn.Seq + 1, Ack: a.Seq + 1, Flags: ACK | PSH, Window: 500, Options: wire.NoTCPOptions(), Payload: []byte("hi")}
		back.Options.Timestamp = wire.TCPTimestamp{Has: timestamps, Val: 125, Ecr: a.Options.Timestamp.Val}
		p.now = p.now.Add(time.Second)
		require.Equal(t, OpenCookie, p.layer.Listen(p.now, id, &back, false, 1500, &a))
		require.True(t, p.c.AcceptCookie(p.now, &back))
		p.emit()
		p.wantState(Established)
		p.irs = syn.Seq
		p.wants(ACK, ack(p.rcv(2)))
		require.Equal(t, "hi", string(p.read(2)))
		i := p.c.Info(p.now)
		require.Equal(t, timestamps, i.SACK && i.WindowScale && i.ECN && i.Timestamps)
		if timestamps {
			require.Equal(t, uint8(9), i.SendScale)
			require.Equal(t, 1400-12, i.SendMSS)
			require.Equal(t, uint32(500<<9), i.SendWindow)
		} else {
			require.Equal(t, uint32(500), i.SendWindow)
		}
		// A cookie is not forged by changing it, and dies of age.
		back.Ack += 1 << 24
		require.Equal(t, Answer, p.layer.Listen(p.now, id, &back, false, 1500, &a))
		require.Equal(t, RST, a.Flags)
		back.Ack -= 1 << 24
		other := id
		other.RemotePort++
		require.Equal(t, Answer, p.layer.Listen(p.now, other, &back, false, 1500, &a), "another connection's")
		p.now = p.now.Add(3 * cookiePeriod)
		require.Equal(t, Answer, p.layer.Listen(p.now, id, &back, false, 1500, &a), "too old")
	}
}

// RFC 6528 §3, RFC 9293 §3.4.1: initial sequence numbers of one name grow by
// 250,000 a second, and those of two names have nothing to do with each other.
func TestInitialSequenceNumbers(t *testing.T) {
	p := closed(t)
	id := p.c.ID()
	a := p.layer.iss(p.now, id)
	require.InDelta(t, 250_000, p.layer.iss(p.now.Add(time.Second), id).Sub(a), 1)
	id.LocalPort++
	require.Greater(t, max(p.layer.iss(p.now, id).Sub(a), a.Sub(p.layer.iss(p.now, id))), int32(1000))
}

// sipHash is SipHash-2-4 of any message, written from the paper's section 2.
func sipHash(k0, k1 uint64, message []byte) uint64 {
	v := [4]uint64{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	rounds := func(n int) {
		for range n {
			for _, step := range [][4]int{{0, 1, 13, 1}, {2, 3, 16, 0}, {0, 3, 21, 0}, {2, 1, 17, 1}} {
				v[step[0]] += v[step[1]]
				v[step[1]] = bits.RotateLeft64(v[step[1]], step[2]) ^ v[step[0]]
				if step[3] == 1 {
					v[step[0]] = bits.RotateLeft64(v[step[0]], 32)
				}
			}
		}
	}
	last := uint64(len(message)) << 56
	for ; len(message) >= 8; message = message[8:] {
		m := binary.LittleEndian.Uint64(message)
		v[3] ^= m
		rounds(2)
		v[0] ^= m
	}
	for i, b := range message {
		last |= uint64(b) << (8 * i)
	}
	v[3] ^= last
	rounds(2)
	v[0] ^= last
	v[2] ^= 0xFF
	rounds(4)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

// The test vector of the paper's appendix A is a message of 15 bytes; ours have
// 24, so a second version of the function stands between.
func TestSipHash(t *testing.T) {
	const k0, k1 = 0x0706050403020100, 0x0f0e0d0c0b0a0908
	message := make([]byte, 24)
	for i := range message {
		message[i] = byte(i)
	}
	require.Equal(t, uint64(0xa129ca6149be45e5), sipHash(k0, k1, message[:15]))
	require.Equal(t, sipHash(k0, k1, message), sipKey{k0, k1}.sum(k0, k1, 0x1716151413121110))
}

// RFC 6056 §3.3.4: ports begin at a secret place, go on from the last one, and
// come to every one.
func TestPorts(t *testing.T) {
	p := closed(t)
	var counter uint32
	used := map[uint16]bool{}
	for range 100 {
		port, ok := p.layer.Ports(p.c.ID(), &counter, 50000, 50099, func(port uint16) bool { return used[port] })
		require.True(t, ok)
		require.False(t, used[port])
		require.True(t, port >= 50000 && port <= 50099)
		used[port] = true
	}
	_, ok := p.layer.Ports(p.c.ID(), &counter, 50000, 50099, func(port uint16) bool { return used[port] })
	require.False(t, ok, "all are taken")
	_, ok = p.layer.Ports(p.c.ID(), &counter, 2, 1, func(uint16) bool { return false })
	require.False(t, ok)
}

// A configuration that cannot be is refused with a sentence that says which
// number.
func TestConfigIsChecked(t *testing.T) {
	for _, change := range []func(c *Config){
		func(c *Config) { c.Congestion = "vegas" }, func(c *Config) { c.MinRTO = 0 }, func(c *Config) { c.InitialWindow = 0 },
		func(c *Config) { c.MaxDelayedACK = time.Second }, func(c *Config) { c.MSS = 10 }, func(c *Config) { c.ReceiveBuffer = 0 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		_, err := NewLayer(cfg)
		require.Error(t, err)
		require.Contains(t, err.Error(), "tcp: ")
	}
}

// RFC 7323 §2.2: the window of the SYN-ACK that ends a simultaneous open is not
// scaled.
func TestSynSentSimultaneousOpenWindow(t *testing.T) {
	p, syn := synSent(t, with(func(c *Config) { c.WindowScale = true }), peer(func(syn *Segment) { syn.Options.WScale = 7 }))
	syn.Flags = SYN
	p.c.Arrives(p.now, syn)
	p.emit()
	p.wants(SYN | ACK)
	p.arrives(SYN|ACK, seq(p.irs), ack(p.snd(0)), win(1100))
	p.wants(ACK)
	p.write(5000)
	p.wants(ACK, text(testMSS))
	p.wantIdle("the window has room for one segment")
}
