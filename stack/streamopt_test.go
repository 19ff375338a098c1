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

// What is set is read back: before a connection, while it is, after it was, and on what a listening socket takes.
func TestStreamOptions(t *testing.T) {
	change := func(s *Stream, n int) {
		t.Helper()
		on := n%2 == 0
		for _, err := range []error{
			s.SetNoDelay(on), s.SetCork(on), s.SetQuickACK(on), s.SetKeepAlive(on),
			s.SetKeepAliveTimes(time.Duration(10+n)*time.Second, time.Duration(20+n)*time.Second, 3+n),
			s.SetLinger(time.Duration(n) * time.Second), s.SetUserTimeout(time.Duration(n) * time.Minute),
			s.SetCongestion([]string{"reno", "cubic"}[n%2]), s.SetReceiveBuffer(200_000 + 1000*n), s.SetSendBuffer(10_000 + 1000*n),
			s.SetReuseAddr(on),
		} {
			require.NoError(t, err)
		}
	}
	check := func(s *Stream, n int) {
		t.Helper()
		on := n%2 == 0
		require.Equal(t, []bool{on, on, on, on}, []bool{s.NoDelay(), s.Cork(), s.QuickACK(), s.ReuseAddr()})
		ka, idle, interval, probes := s.KeepAlive()
		require.Equal(t, fmt.Sprint(on, 10+n, 20+n, 3+n), fmt.Sprint(ka, idle.Seconds(), interval.Seconds(), probes))
		d, lingers := s.Linger()
		require.True(t, lingers)
		require.Equal(t, time.Duration(n)*time.Second, d)
		require.Equal(t, time.Duration(n)*time.Minute, s.UserTimeout())
		require.Equal(t, []string{"newreno", "cubic"}[n%2], s.Congestion())
		require.Equal(t, 200_000+1000*n, s.ReceiveBuffer())
		require.Equal(t, 10_000+1000*n, s.SendBuffer())
	}
	h := newHost(t)
	k, s := h.dials(func(s *Stream) {
		check0(t, s)
		change(s, 1)
		check(s, 1)
	})
	k.gets("S 0:0")
	check(s.Stream, 1)
	change(s.Stream, 2)
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	check(s.Stream, 2)
	i, _ := s.Info()
	require.Equal(t, "newreno", i.Congestion)
	change(s.Stream, 3)
	check(s.Stream, 3)
	i, _ = s.Info()
	require.Equal(t, "cubic", i.Congestion)
	require.Equal(t, 13_000, i.SendBuffer)
	k.dies(1)
	change(s.Stream, 4)
	d, _ := s.Linger()
	require.Equal(t, 4*time.Second, d, "of what no connection has")

	k, a, l := h.accepted(func(l *Stream) { change(l, 5) })
	check(a.Stream, 5)
	change(l.Stream, 6)
	check(l.Stream, 6)
	check(a.Stream, 5)
	change(a.Stream, 7)
	check(a.Stream, 7)
	check(l.Stream, 6)
	k.ip = packet{}
	c := h.talk(80, 4001)
	c.handshake()
	check(l.accepts().Stream, 6)
}

// check0 wants the defaults.
func check0(t *testing.T, s *Stream) {
	t.Helper()
	require.Equal(t, make([]bool, 5), []bool{s.NoDelay(), s.Cork(), s.QuickACK(), s.ReuseAddr(), s.ReusePort()})
	on, idle, interval, probes := s.KeepAlive()
	require.Equal(t, "false 0s 0s 0", fmt.Sprint(on, idle, interval, probes))
	_, lingers := s.Linger()
	require.False(t, lingers)
	require.Zero(t, s.UserTimeout())
	require.Equal(t, "cubic", s.Congestion())
	require.Equal(t, 128<<10, s.ReceiveBuffer())
	require.Equal(t, 64<<10, s.SendBuffer())
	require.Equal(t, 536, s.MaxSegment())
	require.Equal(t, uint8(64), s.TTL())
	require.Zero(t, s.TOS())
}

// What cannot be set.
func TestStreamOptionErrors(t *testing.T) {
	h := newHost(t)
	s := h.NewStream()
	for _, n := range []int{-1, 1, 47, 65496} {
		require.Equal(t, syscall.EINVAL, s.SetMaxSegment(n))
	}
	require.Equal(t, syscall.EINVAL, s.SetUserTimeout(-1))
	require.Equal(t, syscall.ENOENT, s.SetCongestion("bbr"))
	const long = 32768 * time.Second
	for _, err := range []error{
		s.SetKeepAliveTimes(-1, 0, 0), s.SetKeepAliveTimes(0, -1, 0), s.SetKeepAliveTimes(0, 0, -1),
		s.SetKeepAliveTimes(long, 0, 0), s.SetKeepAliveTimes(0, long, 0), s.SetKeepAliveTimes(0, 0, 128),
	} {
		require.Equal(t, syscall.EINVAL, err)
	}
	require.NoError(t, s.SetReceiveBuffer(1))
	require.NoError(t, s.SetSendBuffer(1<<40))
	require.Equal(t, 2048, s.ReceiveBuffer())
	require.Equal(t, 256<<20, s.SendBuffer())
	check := *s.opt.Load()
	check.recvBuffer, check.sendBuffer = 0, 0
	require.Equal(t, streamOptions{}, check, "nothing else has changed")
}

// TCP_NODELAY and TCP_CORK, before the connection and in it.
func TestStreamNagleAndCork(t *testing.T) {
	h := newHost(t)
	k, s := h.connected(func(s *Stream) { require.NoError(t, s.SetNoDelay(true)) })
	s.writes(1)
	k.gets("P. 1:2 ack 1")
	s.writes(1)
	k.gets("P. 2:3 ack 1")
	require.NoError(t, s.SetNoDelay(false))
	s.writes(1)
	h.wantIdle("one small segment at a time is in flight")
	require.NoError(t, s.SetNoDelay(true))
	k.gets("P. 3:4 ack 1")
	k.sends(". 1:1 ack 4")

	require.NoError(t, s.SetCork(true))
	s.writes(1)
	h.wait(seconds(0.1))
	h.wantIdle("it is held back")
	require.NoError(t, s.SetCork(false))
	k.gets("P. 4:5 ack 1")
	k.sends(". 1:1 ack 5")
	require.NoError(t, s.SetCork(true))
	s.writes(1460)
	k.gets("P. 5:1465 ack 1")
	k.sends(". 1:1 ack 1465")
	s.writes(1)
	h.wantIdle("full ones go, others wait")
	h.wait(seconds(0.21))
	k.gets("P. 1465:1466 ack 1")
	k.sends(". 1:1 ack 1466")
	s.writes(1)
	require.NoError(t, s.Close())
	k.gets("FP. 1466:1467 ack 1")
	k.dies(1)
	h.wantIdle("all is said")
}

// TCP_QUICKACK.
func TestStreamQuickACK(t *testing.T) {
	h := newHost(t)
	k, s, _ := h.accepted()
	at := 1
	send := func() (acked bool) {
		k.sends(fmt.Sprintf("P. %d:%d ack 1", at, at+10))
		at += 10
		s.reads(10)
		if h.take(0) != nil {
			return true
		}
		h.wait(seconds(0.1))
		require.NotNil(t, h.take(0), "at the latest after 40 ms")
		return false
	}
	for send() {
		require.Less(t, at, 1000, "in the end ACKs wait for company")
	}
	require.NoError(t, s.SetQuickACK(true))
	for range 20 {
		require.True(t, send())
	}
}

// TCP_MAXSEG: announced, heeded, inherited.
func TestStreamMaxSegment(t *testing.T) {
	h := newHost(t)
	k, s := h.dials(func(s *Stream) { require.NoError(t, s.SetMaxSegment(500)) })
	require.Equal(t, 500, s.MaxSegment())
	k.gets("S 0:0 mss 500")
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	require.Equal(t, 500, s.MaxSegment(), "the one in use")
	s.writes(1000)
	k.gets(". 1:501 ack 1")
	k.gets("P. 501:1001 ack 1")
	k.sends(". 1:1 ack 1001")
	require.NoError(t, s.SetMaxSegment(0))
	s.writes(1460)
	k.gets("P. 1001:2461 ack 1")
	k2, a, _ := h.accepted(func(l *Stream) { require.NoError(t, l.SetMaxSegment(600)) })
	require.Equal(t, 600, a.MaxSegment())
	a.writes(600)
	k2.gets("P. 1:601 ack 1")
}

// SO_KEEPALIVE: a peer that is silent is probed, and reset when it stays so.
func TestStreamKeepAlive(t *testing.T) {
	for _, when := range []string{"before", "after", "inherited"} {
		t.Run(when, func(t *testing.T) {
			h := newHost(t)
			h.keepPeer()
			set := func(s *Stream) {
				require.NoError(t, s.SetKeepAliveTimes(10*time.Second, 2*time.Second, 3))
				require.NoError(t, s.SetKeepAlive(true))
			}
			var k *talk
			var s *stream
			switch when {
			case "before":
				k, s = h.connected(set)
			case "after":
				k, s = h.connected()
				set(s.Stream)
			case "inherited":
				k, s, _ = h.accepted(set)
			}
			h.wait(seconds(9.9))
			h.wantIdle("not yet")
			h.wait(seconds(0.2))
			k.gets(". 0:0 ack 1")
			k.sends(". 1:1 ack 1")
			h.wait(seconds(10.1))
			for range 3 {
				k.gets(". 0:0 ack 1")
				h.wait(seconds(2.01))
			}
			k.gets("R. 1:1 ack 1")
			s.wantErrno(syscall.ETIMEDOUT, "nobody is there")
			h.wantIdle("all is said")
		})
	}
}

// TCP_USER_TIMEOUT, also of the handshake.
func TestStreamUserTimeout(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	set := func(s *Stream) { require.NoError(t, s.SetUserTimeout(5*time.Second)) }
	k, s := h.connected(set)
	s.writes(10)
	h.wait(seconds(4.9))
	s.wantNothing("not yet")
	h.wait(seconds(1))
	k.drains()
	s.wantErrno(syscall.ETIMEDOUT, "5 s without an answer")
	k, s = h.dials(set)
	h.wait(seconds(6))
	k.drains()
	s.wantFailed(syscall.ETIMEDOUT, "5 s without an answer")
}

// SO_RCVBUF and SO_SNDBUF end autotuning, which else makes room for what the path carries.
func TestStreamBuffers(t *testing.T) {
	h := newHost(t)
	k, s := h.dials(func(s *Stream) {
		require.NoError(t, s.SetReceiveBuffer(4096))
		require.NoError(t, s.SetSendBuffer(4096))
	})
	k.gets("S 0:0 win 4096")
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1 win 4096")
	require.Equal(t, 4096, s.writesSome(100_000))
	require.NoError(t, s.SetSendBuffer(8192))
	require.Equal(t, 4096, s.writesSome(100_000))
	require.NoError(t, s.SetReceiveBuffer(8192))
	k.drains()
	k.sends("P. 1:11 ack 8193")
	k.gets(". 8193:8193 ack 11 win 8182")
	require.NoError(t, s.SetReceiveBuffer(2048))
	require.Equal(t, 8192, s.ReceiveBuffer(), "a window that was announced is not taken back")
}

// The numbers of TCP are the stack's to choose.
func TestStreamConfig(t *testing.T) {
	cfg := DefaultTCP()
	cfg.SYNRetries, cfg.Timestamps, cfg.WindowScale, cfg.SACK = 1, false, false, false
	h := newHost(t, func(s *setup) { s.Config.TCP = &cfg })
	h.keepPeer()
	require.Equal(t, 1, h.TCPConfig().SYNRetries)
	k, s := h.dials()
	f := k.gets("S 0:0 mss 1460 ws -1")
	o, err := wire.ParseTCPOptions(f.tcp().Options())
	require.NoError(t, err)
	require.False(t, o.SACKPermitted || o.Timestamp.Has)
	h.wait(seconds(4))
	k.gets("S 0:0")
	s.wantFailed(syscall.ETIMEDOUT, "after one more")
	require.Equal(t, uint64(1), h.TCPStats().ActiveOpens)
	require.Equal(t, uint64(2), h.TCPStats().OutSegments)

	bad := tcp.DefaultConfig()
	bad.Retries = 0
	require.Panics(t, func() { New(Config{TCP: &bad}) })
}
