package stack

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// RFC 9293 §3.6, case 1: the host closes first, and waits 2 MSL.
func TestStreamClosesFirst(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s, l := h.accepted()
	s.writes(10)
	require.NoError(t, s.Close())
	k.gets("FP. 1:11 ack 1")
	require.Equal(t, Closed|Readable|Writable, s.Events())
	s.wantState(tcp.FinWait1)
	k.sends(". 1:1 ack 12")
	s.wantState(tcp.FinWait2)
	require.Len(t, h.Sockets(), 2, "it is listed until it is over")
	k.sends("F. 1:1 ack 12")
	k.gets(". 12:12 ack 2")
	s.wantState(tcp.TimeWait)
	k.sends("F. 1:1 ack 12")
	k.gets(". 12:12 ack 2")
	h.wait(seconds(59))
	s.wantState(tcp.TimeWait)
	require.NoError(t, l.Close())
	require.Len(t, h.binds, 1, "the port is not free yet")
	h.wait(seconds(2))
	h.wantIdle("it ends without a word")
	wantNoMemory(t, s.Stream)
	h.wantNoStreams()
}

// RFC 9293 §3.6, case 2: the peer closes first.
func TestStreamPeerClosesFirst(t *testing.T) {
	h := newHost(t)
	k, s, l := h.accepted()
	k.sends("FP. 1:11 ack 1")
	k.gets(". 1:1 ack 12")
	require.Equal(t, Readable|Writable, s.Events())
	s.reads(10)
	require.Equal(t, Readable|Writable, s.Events(), "the end is to be read too")
	s.wantEnd("the peer has sent all")
	s.wantState(tcp.CloseWait)
	require.True(t, s.Connected(), "there is the other direction")
	s.writes(10)
	k.gets("P. 1:11 ack 12")
	require.NoError(t, s.Close())
	k.gets("F. 11:11 ack 12")
	s.wantState(tcp.LastAck)
	k.sends(". 12:12 ack 12")
	h.wantIdle("nobody waits")
	require.NoError(t, l.Close())
	h.wantNoStreams()
}

// RFC 9293 §3.6, case 3: both close at the same time.
func TestStreamBothClose(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s, l := h.accepted()
	require.NoError(t, l.Close())
	require.NoError(t, s.Close())
	k.gets("F. 1:1 ack 1")
	k.sends("F. 1:1 ack 1")
	k.gets(". 2:2 ack 2")
	s.wantState(tcp.Closing)
	k.sends(". 2:2 ack 2")
	s.wantState(tcp.TimeWait)
	h.wait(seconds(61))
	h.wantIdle("over")
	h.wantNoStreams()
}

// Shutdown ends one direction, and the other goes on.
func TestStreamShutdown(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	w := NewWaiter()
	s.Watch(w, Readable)
	for _, how := range []int{0, 4, -1} {
		require.Equal(t, syscall.EINVAL, s.Shutdown(how))
	}
	s.writes(10)
	require.NoError(t, s.Shutdown(ShutWrite))
	k.gets("FP. 1:11 ack 1")
	_, err := s.Write([]byte("x"))
	require.Equal(t, syscall.EPIPE, err)
	_, err = s.Write(nil)
	require.Equal(t, syscall.EPIPE, err)
	require.Equal(t, Writable, s.Events(), "a writer is not kept waiting")
	require.NoError(t, s.Shutdown(ShutWrite), "twice is once")
	h.wantIdle("one FIN")
	k.sends("P. 1:11 ack 12")
	k.gets(". 12:12 ack 11")
	require.NotEmpty(t, w.C)
	s.reads(10)
	require.NoError(t, s.Shutdown(ShutRead))
	s.wantEnd("nobody reads any more")
	require.Equal(t, Readable|Writable, s.Events())
	k.sends("F. 11:11 ack 12")
	k.gets(". 12:12 ack 12")
	require.NoError(t, s.Close())
	h.wantIdle("all is said")

	u := h.NewStream()
	require.Equal(t, syscall.ENOTCONN, u.Shutdown(ShutWrite))
	require.NoError(t, u.Close())
	require.Equal(t, syscall.EBADF, u.Shutdown(ShutWrite))
}

// What had arrived before Shutdown of reading is still there.
func TestStreamShutdownOfReading(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	k.sends("P. 1:11 ack 1")
	k.gets(". 1:1 ack 11")
	require.NoError(t, s.Shutdown(ShutRead))
	s.reads(10)
	s.wantEnd("and no more")
	s.writes(5)
	k.gets("P. 1:6 ack 11")
	k.sends(". 11:11 ack 6")
	require.NoError(t, s.Shutdown(ShutWrite))
	k.gets("F. 6:6 ack 11")
	k.sends("P. 11:21 ack 7")
	k.gets("R 7:7")
	h.wantIdle("RFC 2525 §2.17: data that nobody will read is answered with RST")
	s.wantErrno(syscall.ECONNABORTED, "and so it ended")
}

// RFC 9293 §3.6.1 and RFC 2525 §2.17: Close with bytes left unread tells the peer that they are lost.
func TestStreamClosesWithUnreadData(t *testing.T) {
	h := newHost(t)
	k, s, l := h.accepted()
	s.writes(10)
	k.gets("P. 1:11 ack 1")
	k.sends("P. 1:11 ack 11")
	k.gets(". 11:11 ack 11")
	s.reads(9)
	require.NoError(t, s.Close())
	k.gets("R. 11:11 ack 11")
	require.NoError(t, l.Close())
	h.wantIdle("over at once")
	h.wantNoStreams()
}

// SO_LINGER of 0, and Abort: the peer sees a reset, and what was not sent is forgotten.
func TestStreamAborts(t *testing.T) {
	for name, end := range map[string]func(s *stream) error{
		"linger": func(s *stream) error {
			require.NoError(s.h.t, s.SetLinger(0))
			return s.Close()
		},
		"abort": func(s *stream) error { return s.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			k, s, l := h.accepted()
			k.sends(". 1:1 ack 1 win 0")
			s.writes(10)
			h.settle()
			require.NoError(t, end(s))
			k.gets("R. 1:1 ack 1")
			h.wantIdle("over at once")
			wantNoMemory(t, s.Stream)
			k.ends("tcp-listen-ignored", "P. 1:11 ack 1")
			k.gets("R 1:1")
			require.NoError(t, l.Close())
			h.wantNoStreams()
		})
	}
}

// A longer SO_LINGER is socketapi's to wait for; here it closes in order.
func TestStreamLingers(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	require.NoError(t, s.SetLinger(time.Second))
	d, on := s.Linger()
	require.True(t, on)
	require.Equal(t, time.Second, d)
	require.NoError(t, s.SetLinger(-1))
	_, on = s.Linger()
	require.False(t, on)
	require.NoError(t, s.SetLinger(time.Second))
	s.writes(3)
	require.NoError(t, s.Close())
	k.gets("FP. 1:4 ack 1")
	k.dies(1)
	h.wantIdle("over")
}

// A closed socket's connection still delivers what was written, however long that takes, and then FIN.
func TestStreamOrphanDelivers(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s, l := h.accepted(func(l *Stream) { require.NoError(t, l.SetSendBuffer(1<<20)) })
	s.writes(100_000)
	require.NoError(t, s.Close())
	require.NoError(t, l.Close())
	require.Equal(t, syscall.EBADF, func() error { _, err := s.Write([]byte("x")); return err }())
	for end := 1; end < 100_002; {
		got := k.drains()
		require.Greater(t, got, end, "the next ones come")
		end = got
		k.sends(fmt.Sprintf(". 1:1 ack %d win 20000", end))
		h.wait(seconds(0.5))
	}
	s.wantState(tcp.FinWait2)
	h.wantIdle("all is there, and the FIN")
	h.wait(seconds(59))
	s.wantState(tcp.FinWait2)
	h.wait(seconds(2))
	h.wantIdle("a peer that does not close is not waited for for ever")
	wantNoMemory(t, s.Stream)
	h.wantNoStreams()
}

// RFC 9293 §3.6.1: data that comes for an orphan is lost, and the peer learns it.
func TestStreamOrphanGetsData(t *testing.T) {
	h := newHost(t)
	k, s, l := h.accepted()
	require.NoError(t, s.Close())
	require.NoError(t, l.Close())
	k.gets("F. 1:1 ack 1")
	k.sends("P. 1:11 ack 2")
	k.gets("R 2:2")
	h.wantIdle("over")
	h.wantNoStreams()
}

// An orphan gives up sooner on a peer that is silent.
func TestStreamOrphanIntoSilence(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s, l := h.accepted()
	s.writes(10)
	require.NoError(t, s.Close())
	require.NoError(t, l.Close())
	h.wait(seconds(30))
	require.NotEmpty(t, h.Sockets())
	h.wait(seconds(200))
	require.Equal(t, 12, k.drains())
	h.wantNoStreams()
}

// RFC 9293 §3.10.7.4, second, with RFC 5961 §3.2: a RST resets where it has the very next number.
func TestStreamIsReset(t *testing.T) {
	h := newHost(t)
	k, s, l := h.accepted()
	k.sends("P. 1:11 ack 1")
	k.gets(". 1:1 ack 11")
	s.writes(10)
	k.gets("P. 1:11 ack 11")
	k.sends("R 100:100")
	k.gets(". 11:11 ack 11")
	k.sends("R 100000:100000")
	k.sends("R 5:5")
	h.wantIdle("out of the window it is ignored")
	s.wantState(tcp.Established)
	w := NewWaiter()
	s.Watch(w, 0)
	k.dies(11)
	require.NotEmpty(t, w.C, "who watches is told, whatever he wants")
	require.Equal(t, Errored|Readable|Writable, s.Events())
	require.False(t, s.Connected())
	require.Equal(t, ap(peerIP+":4000"), s.RemoteAddr(), "known to the end")
	s.reads(10)
	s.wantErrno(syscall.ECONNRESET, "the bytes that came before are read first")
	s.wantEnd("told once")
	require.Equal(t, Readable|Writable, s.Events())
	_, err := s.Write([]byte("x"))
	require.Equal(t, syscall.EPIPE, err)
	require.Equal(t, syscall.ENOTCONN, s.Shutdown(ShutWrite))
	_, ok := s.Info()
	require.False(t, ok)
	infos := h.Sockets()
	require.Len(t, infos, 2)
	require.Equal(t, "CLOSED", infos[1].State)
	require.NoError(t, s.Close())
	require.Len(t, h.binds, 1, "the listening socket has its port still")
	require.NoError(t, l.Close())
	h.wantIdle("an RST has no answer")
	h.wantNoStreams()
}

// RFC 5961 §4.2: a SYN in the middle of a connection is challenged.
func TestStreamGetsASYN(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	k.sends("S 500:500")
	k.gets(". 1:1 ack 1")
	k.sends("S 501:501")
	h.wantIdle("one challenge in half a second")
	s.wantState(tcp.Established)
	h.wait(seconds(1))
	k.sends("P. 1:2 ack 90000")
	k.gets(". 1:1 ack 1")
	s.wantNothing("RFC 5961 §5.2: nor is an ACK of what was never sent")
	h.wantIdle("all is said")
}

// What a closed socket answers: EBADF, to all.
func TestStreamClosedAnswersEBADF(t *testing.T) {
	h := newHost(t)
	_, s, l := h.accepted()
	w := NewWaiter()
	s.Watch(w, 0)
	require.NoError(t, s.Close())
	require.NotEmpty(t, w.C)
	require.NoError(t, l.Close())
	for _, st := range []*stream{s, l} {
		_, err := st.Read(make([]byte, 1))
		require.Equal(t, syscall.EBADF, err)
		_, err = st.Write([]byte("x"))
		require.Equal(t, syscall.EBADF, err)
		_, err = st.Accept()
		require.Equal(t, syscall.EBADF, err)
		for name, err := range map[string]error{
			"Bind": st.Bind(ap(hostIP + ":0")), "Connect": st.Connect(ap(peerIP + ":80")), "Listen": st.Listen(ListenConfig{Count: 1}),
			"Shutdown": st.Shutdown(ShutRead), "Close": st.Close(), "Abort": st.Abort(), "SetNoDelay": st.SetNoDelay(true),
			"SetLinger": st.SetLinger(1), "SetReuseAddr": st.SetReuseAddr(true), "SetMaxSegment": st.SetMaxSegment(1000),
		} {
			require.Equal(t, syscall.EBADF, err, name)
		}
		require.Equal(t, Closed|Readable|Writable, st.Events())
	}
	h.settle()
	h.take(0)
}

// Closing it again and again in the middle of things changes nothing.
func TestStreamUnboundLife(t *testing.T) {
	h := newHost(t)
	s := &stream{Stream: h.NewStream(), h: h}
	require.False(t, s.LocalAddr().IsValid())
	require.False(t, s.RemoteAddr().IsValid())
	require.Nil(t, s.Interface())
	require.Equal(t, Readable|Writable, s.Events(), "Read and Write answer at once")
	s.wantErrno(syscall.ENOTCONN, "it is not connected")
	_, err := s.Accept()
	require.Equal(t, syscall.EINVAL, err)
	require.Equal(t, syscall.EINVAL, s.Listen(ListenConfig{Count: 1}), "it is not bound")
	require.Equal(t, syscall.EADDRNOTAVAIL, s.Bind(ap("192.0.2.1:80")))
	require.Equal(t, syscall.EAFNOSUPPORT, s.Bind(ap("[::1]:80")))
	require.NoError(t, s.Bind(ap("0.0.0.0:0")))
	require.Equal(t, syscall.EINVAL, s.Bind(ap("0.0.0.0:0")))
	require.Equal(t, addr(hostIP).Netip(), s.LocalAddr().Addr(), "the card comes first")
	for _, cfg := range []ListenConfig{{}, {Count: 1, Backlog: 1}, {Count: -1}, {Backlog: -1}} {
		require.Equal(t, syscall.EINVAL, s.Listen(cfg))
	}
	require.NoError(t, s.Close())
	h.wantIdle("nothing of this leaves")
	h.wantNoStreams()
}

// Stack.Close ends what there is, also what no user closed.
func TestStreamsEndWithTheStack(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	k, s, l := h.accepted()
	unaccepted := h.talk(80, 4001)
	unaccepted.handshake()
	half := h.talk(80, 4002)
	half.sends("S 0:0 mss 1460")
	half.gets("S. 0:0 ack 1")
	c, failed := h.dials()
	c.gets("S 0:0")
	c.sends("R. 0:0 ack 1")
	unbound := h.NewStream()
	c, connecting := h.dials()
	c.gets("S 0:0")
	reset := h.talk(80, 4003)
	reset.handshake()
	reset.dies(1)
	require.NoError(t, h.Stack.Close())
	ends := make(map[string]bool)
	for f := h.peers[0].Take(); f != nil; f = h.peers[0].Take() {
		require.NotZero(t, sent(f).tcp().Flags()&wire.RST, "engines that do not run have no time for more")
		ends[fmt.Sprint(sent(f).tcp().DstPort())] = true
	}
	require.Equal(t, map[string]bool{"4000": true, "4001": true, "4002": true}, ends)
	for _, st := range []*Stream{s.Stream, l.Stream, failed.Stream, connecting.Stream, h.NewStream()} {
		require.Equal(t, syscall.EBADF, st.Close())
	}
	require.Equal(t, syscall.EBADF, unbound.Connect(ap(peerIP+":80")))
	require.Equal(t, syscall.EBADF, unbound.Bind(ap(hostIP+":80")))
	require.NoError(t, unbound.Close())
	k.ends("tcp-no-port", "P. 1:11 ack 1")
	h.take(0)
	h.wantNoStreams()
}
