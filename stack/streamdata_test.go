package stack

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// Bytes go both ways, and each end hears that they came.
func TestStreamData(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	k.sends("P. 1:11 ack 1")
	k.gets(". 1:1 ack 11")
	require.Equal(t, Readable|Writable, s.Events())
	s.reads(4)
	s.reads(6)
	s.wantNothing("all is read")
	require.Equal(t, Writable, s.Events())
	s.writes(7)
	require.Equal(t, 7, s.Unacknowledged())
	k.gets("P. 1:8 ack 11")
	k.sends(". 11:11 ack 8")
	require.Zero(t, s.Unacknowledged())
	s.writes(3000)
	k.gets(". 8:1468 ack 11")
	k.gets(". 1468:2928 ack 11")
	k.gets("P. 2928:3008 ack 11")
	s.writes(10)
	h.wantIdle("one small segment at a time is in flight (RFC 9293 §3.7.4)")
	k.sends(". 11:11 ack 3008")
	k.gets("P. 3008:3018 ack 11")
	k.sends("P. 11:31 ack 3018")
	h.wantIdle("an answer may soon carry the ACK (RFC 9293 §3.8.6.3)")
	h.wait(seconds(0.2))
	k.gets(". 3018:3018 ack 31")
	s.reads(20)
	n, err := s.Read(nil)
	require.NoError(t, err)
	require.Zero(t, n, "nothing is asked for, and nothing told of it")
	h.wantIdle("all is said")
}

// RFC 9293 §3.10.7.4 and RFC 2018: what comes out of order waits in its place, and the gap is told.
func TestStreamDataOutOfOrder(t *testing.T) {
	h := newHost(t)
	l := h.listens(hostIP+":80", ListenConfig{Backlog: 10})
	k := h.talk(80, 4000)
	k.sends("S 0:0 mss 1460 sack ok")
	k.gets("S. 0:0 ack 1")
	k.sends(". 1:1 ack 1")
	s := l.accepts()
	k.sends("P. 11:21 ack 1")
	f := k.gets(". 1:1 ack 1")
	o, err := wire.ParseTCPOptions(f.tcp().Options())
	require.NoError(t, err)
	require.Equal(t, wire.SACKBlock{Left: k.peerISS + 11, Right: k.peerISS + 21}, o.SACK[0])
	s.wantNothing("the first ten are missing")
	k.sends("P. 1:16 ack 1")
	k.gets(". 1:1 ack 21")
	s.reads(20)
	k.sends("P. 1:11 ack 1")
	k.gets(". 1:1 ack 21")
	s.wantNothing("what comes twice is read once")
	h.wantIdle("all is said")
}

// RFC 6298 and RFC 8985: what is lost is sent again.
func TestStreamDataLost(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	s.writes(10)
	k.gets("P. 1:11 ack 1")
	h.wait(seconds(1.5))
	require.Equal(t, 11, k.drains(), "a probe, or a time-out")
	k.sends(". 1:1 ack 11")
	h.wait(seconds(10))
	h.wantIdle("it arrived")
	i, _ := s.Info()
	require.NotZero(t, i.Retransmitted)
	require.Equal(t, uint64(10), i.Delivered)
}

// A peer that never answers again is ETIMEDOUT, after a quarter of an hour.
func TestStreamDataIntoSilence(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s, l := h.accepted()
	s.writes(10)
	h.wait(seconds(800))
	s.wantNothing("it may come back")
	h.wait(seconds(400))
	require.NotZero(t, k.drains())
	require.Equal(t, Errored|Readable|Writable, s.Events())
	_, err := s.Write([]byte("x"))
	require.Equal(t, syscall.ETIMEDOUT, err)
	_, err = s.Write([]byte("x"))
	require.Equal(t, syscall.EPIPE, err)
	s.wantEnd("nothing more comes")
	wantNoMemory(t, s.Stream)
	require.NoError(t, s.Close())
	require.NoError(t, l.Close())
	h.wantIdle("nobody is told")
	h.wantNoStreams()
}

// RFC 9293 §3.8.6: a reader who is away closes the window, and opens it when he comes back.
func TestStreamWindowCloses(t *testing.T) {
	for _, buffer := range []int{2048, 1 << 15} {
		t.Run(fmt.Sprint(buffer), func(t *testing.T) {
			h := newHost(t)
			k, s, _ := h.accepted(func(l *Stream) { require.NoError(t, l.SetReceiveBuffer(buffer)) })
			const full = 1024
			for at := 1; at <= buffer; at += full {
				k.sends(fmt.Sprintf("P. %d:%d ack 1", at, at+full))
			}
			h.wait(seconds(0.2))
			for {
				f := h.take(0)
				require.NotNil(t, f, "the window closes")
				if f.tcp().Window() == 0 {
					require.Equal(t, k.peerISS+1+wire.Seq(buffer), f.tcp().Ack())
					break
				}
			}
			k.sends(fmt.Sprintf("P. %d:%d ack 1", 1+buffer, 2+buffer))
			k.gets(fmt.Sprintf(". 1:1 ack %d win 0", 1+buffer))
			s.reads(10)
			h.wantIdle("so little is no reason to send again (MUST-39)")
			s.reads(buffer/2 - 10)
			k.gets(fmt.Sprintf(". 1:1 ack %d win %d", 1+buffer, buffer/2))
			s.reads(buffer / 2)
			k.drains()
			k.sends(fmt.Sprintf("P. %d:%d ack 1", 1+buffer, 2+buffer))
			h.wait(seconds(0.2))
			k.gets(fmt.Sprintf(". 1:1 ack %d win %d", 2+buffer, buffer-1))
			s.reads(1)
			h.wantIdle("all is said")
		})
	}
}

// RFC 9293 §3.8.6.1: a window that the peer closed is probed, for as long as he answers.
func TestStreamPeerClosesTheWindow(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s, _ := h.accepted()
	s.writes(10)
	k.gets("P. 1:11 ack 1")
	k.sends(". 1:1 ack 11 win 0")
	s.writes(10)
	h.wantIdle("the window is closed")
	for range 5 {
		h.wait(seconds(130))
		f := h.take(0)
		require.NotNil(t, f, "a probe")
		require.Empty(t, f.tcp().Payload(), "without a byte, which the peer would throw away")
		k.drains()
		k.sends(". 1:1 ack 11 win 0")
	}
	k.sends(". 1:1 ack 11 win 100")
	k.gets("P. 11:21 ack 1")
	k.sends(". 1:1 ack 21")
	h.wantIdle("all is said")
}

// A write takes what has room; Writable comes when a third of the buffer is free.
func TestStreamSendBuffer(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted(func(l *Stream) { require.NoError(t, l.SetSendBuffer(3000)) })
	w := NewWaiter()
	s.Watch(w, Writable)
	require.Equal(t, Writable, s.Events())
	require.Equal(t, 3000, s.writesSome(5000))
	require.Zero(t, s.writesSome(1))
	require.Zero(t, s.Events())
	require.Empty(t, w.C)
	require.Equal(t, 3001, k.drains())
	k.sends(". 1:1 ack 901")
	require.Empty(t, w.C, "900 of 3000 are free: too little to wake anybody")
	require.Zero(t, s.Events())
	require.Equal(t, 900, s.writesSome(1000), "but to be had")
	k.sends(". 1:1 ack 2461")
	require.NotEmpty(t, w.C)
	require.Equal(t, Writable, s.Events())
	h.wantIdle("900 are a small segment, and one is in flight")
	s.Unwatch(w)
	<-w.C
	k.sends(". 1:1 ack 3001")
	k.gets("P. 3001:3901 ack 1")
	k.sends(". 1:1 ack 3901")
	require.Empty(t, w.C, "nobody watches")
	h.wantIdle("all is said")
}

// Segments that find the transmit ring full leave later, all of them, in order.
func TestStreamTransmitRingFull(t *testing.T) {
	h, room := newScarce(t)
	k, s, l := h.accepted()
	*room = 0
	s.writes(14600)
	h.settle()
	require.Nil(t, h.peers[0].Take(), "no room")
	at := 1
	for n := range 10 {
		*room = 1
		h.settle()
		k.gets(fmt.Sprintf("%s %d:%d ack 1", map[bool]string{false: ".", true: "P."}[n == 9], at, at+1460))
		require.Nil(t, h.peers[0].Take(), "one at a time")
		at += 1460
	}
	*room = 0
	k.sends("P. 1:11 ack 14601")
	require.Nil(t, h.peers[0].Take(), "an ACK needs room too")
	s.reads(10)
	require.NoError(t, s.Close())
	h.settle()
	require.Nil(t, h.peers[0].Take())
	*room = 100
	k.gets("F. 14601:14601 ack 11")
	k.sends("R 11:11")
	h.wantIdle("all is said")
	require.Zero(t, h.Stats().TxDrops[DropTransmitFull], "nothing was lost")

	*room = 0
	k2 := h.talk(80, 4001)
	k2.sends("S 0:0 mss 1460")
	require.Nil(t, h.peers[0].Take())
	*room = 100
	k2.gets("S. 0:0 ack 1")
	k2.sends(". 1:1 ack 1")
	*room = 0
	a := l.accepts()
	require.NoError(t, a.Abort())
	h.settle()
	require.Nil(t, h.peers[0].Take())
	a.wantState(tcp.Closed)
	*room = 1
	k2.gets("R. 1:1 ack 1")
	*room = 0
	h.arrives("tcp-no-port", syn(1, 81))
	*room = 100
	h.wantIdle("an answer that no connection sends is not kept")
	require.Equal(t, uint64(1), h.Stats().TxDrops[DropTransmitFull])
}

// A kernel that leaves checksums to the card puts the pseudo-header's sum into the field: a link that brings such segments says so.
func TestStreamPartialChecksums(t *testing.T) {
	h := newHost(t)
	h.listens(hostIP+":80", ListenConfig{Count: 1})
	k := h.talk(80, 4000)
	k.ip.partial = true
	k.ends("tcp-checksum", "S 0:0 mss 1460")
	h = newHost(t, func(s *setup) { s.partial = true })
	l := h.listens(hostIP+":80", ListenConfig{Count: 1})
	k = h.talk(80, 4000)
	k.ip.partial = true
	k.handshake()
	k.sends("P. 1:11 ack 1")
	k.gets(". 1:1 ack 11")
	l.accepts().reads(10)
	require.Equal(t, uint64(3), h.Stats().PartialChecksums)
}

// RFC 9293 §3.8.5: urgent bytes stay in line.
func TestStreamUrgentData(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	k.sends("PU. 1:11 ack 1 urg 10")
	k.gets(". 1:1 ack 11")
	s.reads(10)
	h.wantIdle("all is said")
}

// An ACK waits for the next step when somebody was woken, who may have an answer to carry it; so a request costs one packet, and a FIN
// that is answered by close as well.
func TestStreamACKWaitsForTheAnswer(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	step := func(segment string) {
		require.True(t, h.peers[0].Inject(k.frame(segment)))
		h.wires[0].Advance(h.now.Sub(begin))
		require.LessOrEqual(t, h.Step(h.now), h.now, "the next step is at once")
		require.Nil(t, h.peers[0].Take())
	}
	w := NewWaiter()
	s.Watch(w, Readable)
	step("P. 1:11 ack 1")
	require.NotEmpty(t, w.C)
	k.gets(". 1:1 ack 11")
	h.wantIdle("there was no answer")

	<-w.C
	step("P. 11:21 ack 1")
	s.writes(7)
	k.gets("P. 1:8 ack 21")
	h.wantIdle("that was the ACK")
	k.sends(". 21:21 ack 8")

	<-w.C
	step("F. 21:21 ack 8")
	n, err := s.Read(make([]byte, 30))
	require.NoError(t, err)
	require.Equal(t, 20, n)
	require.NoError(t, s.Close())
	k.gets("F. 8:8 ack 22")
	k.sends(". 22:22 ack 9")
	h.wantIdle("both ends are closed")
}

// Nobody waits, so neither does the ACK.
func TestStreamACKOfWhatNobodyWaitsFor(t *testing.T) {
	h := newHost(t)
	k, _, _ := h.accepted()
	require.True(t, h.peers[0].Inject(k.frame("P. 1:11 ack 1")))
	h.wires[0].Advance(h.now.Sub(begin))
	h.Step(h.now)
	k.gets(". 1:1 ack 11")
}
