package stack

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// network-kit.md: the acceptance count is how many clients are held, from their SYN to the close of their accept socket. One more is
// refused.
func TestAcceptanceCount(t *testing.T) {
	h := newHost(t)
	l := h.listens(hostIP+":80", ListenConfig{Count: 2})
	refused := func(port uint16) {
		t.Helper()
		k := h.talk(80, port)
		k.knows = true
		k.ends("listen-refused", "S 0:0 mss 1460")
		k.gets("R. 0:0 ack 1")
	}
	a, b := h.talk(80, 1), h.talk(80, 2)
	a.handshake()
	b.sends("S 0:0 mss 1460")
	b.gets("S. 0:0 ack 1")
	refused(3)
	b.sends("S 0:0 mss 1460")
	b.gets("S. 0:0 ack 1")
	refused(3) // a SYN that is repeated is no second client
	b.sends(". 1:1 ack 1")
	refused(3)
	first, second := l.accepts(), l.accepts()
	require.Equal(t, uint16(1), first.RemoteAddr().Port(), "in the order of arrival")
	refused(3)
	require.NoError(t, first.Close())
	a.gets("F. 1:1 ack 1")
	c := h.talk(80, 3)
	c.handshake()
	refused(4) // closing frees one place, whatever becomes of the connection
	b.dies(1)
	second.wantErrno(syscall.ECONNRESET, "the client is gone")
	refused(4) // but its accept socket is not closed
	require.NoError(t, second.Close())
	require.Equal(t, syscall.EBADF, second.Close())
	d := h.talk(80, 4)
	d.handshake()
	refused(5) // closed twice is one place
	require.NoError(t, l.Listen(ListenConfig{Count: 3}))
	require.Equal(t, 3, h.Sockets()[0].Backlog)
	require.Equal(t, 2, h.Sockets()[0].ReadQueue, "two wait")
	e := h.talk(80, 5)
	e.handshake()
	refused(6)
	require.Equal(t, int32(3), l.listen.Load().held.Load())
	h.wantIdle("all is said")
}

// A client that dies before its handshake is done leaves its place.
func TestAcceptanceCountOfHalfOpen(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	l := h.listens(hostIP+":80", ListenConfig{Count: 1})
	k := h.talk(80, 1)
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	k.dies(1)
	h.wantIdle("the listening socket goes on")
	require.Zero(t, l.listen.Load().halfOpen.Load())
	k = h.talk(80, 2)
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	k.sends("S 5:5 mss 1460")
	h.wantIdle("RFC 9293 §3.10.7.4, fourth: back to LISTEN; the peer tries again")
	k.sends("S 5:5 mss 1460")
	require.NotZero(t, h.take(0).tcp().Flags()&wire.SYN)
	h.wait(seconds(64))
	k.drains()
	require.Empty(t, h.Sockets()[1:], "a SYN-ACK that nobody answers is given up after a minute")
	k = h.talk(80, 3)
	k.handshake()
	l.accepts()
	require.Zero(t, l.listen.Load().halfOpen.Load())
	h.wantIdle("all is said")
}

// listen(2): while as many wait as the backlog says, the SYN of one more is dropped, so that he tries again.
func TestBacklog(t *testing.T) {
	h := newHost(t)
	l := h.listens(hostIP+":80", ListenConfig{Backlog: 2})
	w := NewWaiter()
	l.Watch(w, Readable)
	for port := range uint16(2) {
		h.talk(80, port+1).handshake()
	}
	require.NotEmpty(t, w.C)
	k := h.talk(80, 3)
	k.ends("listen-overflow", "S 0:0 mss 1460")
	h.wantIdle("he will try again")
	l.accepts()
	k.handshake()
	h.talk(80, 4).ends("listen-overflow", "S 0:0 mss 1460")
	for range 2 {
		l.accepts()
	}
	l.wantNone("two and one")
	for n := range uint16(200) { // a queue that is never empty
		h.talk(80, 100+n).handshake()
		if n > 0 {
			require.Equal(t, 99+n, l.accepts().RemoteAddr().Port(), "in the order of arrival")
		}
	}
	require.LessOrEqual(t, cap(l.listen.Load().queue), 256, "does not grow for ever")
	h.wantIdle("all is said")
}

// RFC 4987 §3.6: a flood of half-open connections is met with cookies, and who answers has a connection all the same.
func TestSYNCookies(t *testing.T) {
	for name, options := range map[string]string{"with timestamps": " sack ok ws 3 ts 700:0", "without": ""} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			l := h.listens(hostIP+":80", ListenConfig{Backlog: 3, HalfOpen: 2})
			stray := h.talk(80, 9)
			stray.ends("tcp-listen-ignored", ". 1:1 ack 5")
			stray.knows = true
			stray.gets("R 5:5")
			for port := range uint16(2) {
				k := h.talk(80, 1+port)
				k.sends("S 0:0 mss 1460")
				k.gets("S. 0:0 ack 1")
			}
			k := h.talk(80, 3)
			k.ends("answered", "S 0:0 mss 1400"+options)
			f := k.gets("S. 0:0 ack 1 mss 1460")
			require.Len(t, h.Sockets(), 3, "nothing is kept")
			ack := ". 1:1 ack 1"
			if options != "" {
				o, err := wire.ParseTCPOptions(f.tcp().Options())
				require.NoError(t, err)
				ack += fmt.Sprintf(" ts 701:%d", o.Timestamp.Val)
			}
			k.ends("tcp-listen-ignored", strings.Replace(ack, "ack 1", "ack 99", 1)) // one that was not given
			k.gets("R 99:99")
			k.sends(ack)
			s := l.accepts()
			require.Equal(t, ap(peerIP+":3"), s.RemoteAddr())
			i, _ := s.Info()
			require.Equal(t, options != "", i.SACK)
			if options != "" {
				require.Equal(t, uint8(3), i.SendScale)
				require.Equal(t, 1388, i.SendMSS)
			} else {
				require.Equal(t, 1400, i.SendMSS)
				k.sends("P. 1:11 ack 1")
				k.gets(". 1:1 ack 11")
				s.reads(10)
			}
			require.Equal(t, int32(2), l.listen.Load().halfOpen.Load())

			// With its first data lost, the connection begins with the data that comes.
			k = h.talk(80, 4)
			k.ends("answered", "S 0:0 mss 1460")
			k.gets("S. 0:0 ack 1")
			k.sends("FP. 1:11 ack 1")
			k.gets(". 1:1 ack 12")
			s = l.accepts()
			s.reads(10)
			s.wantEnd("a short visit")

			// Those who wait for Accept are counted.
			for port := range uint16(3) {
				k = h.talk(80, 5+port)
				k.ends("answered", "S 0:0 mss 1460")
				k.gets("S. 0:0 ack 1")
			}
			for port := range uint16(2) {
				h.talk(80, 20+port).ends("answered", "S 0:0 mss 1460")
				h.take(0)
			}
			late := h.talk(80, 30)
			late.ends("answered", "S 0:0 mss 1460")
			late.gets("S. 0:0 ack 1")
			for port := range uint16(3) {
				c := h.talk(80, 40+port)
				c.ends("answered", "S 0:0 mss 1460")
				c.gets("S. 0:0 ack 1")
				c.sends(". 1:1 ack 1")
			}
			late.ends("listen-overflow", ". 1:1 ack 1")
			h.wantIdle("his data will bring the cookie again")
			l.accepts()
			late.sends("P. 1:11 ack 1")
			late.gets(". 1:1 ack 11")
			require.Equal(t, uint64(0), h.Stats().Drops[DropTCPNoPort])
		})
	}
}

// A socket that listens with an acceptance count instead, meanwhile, counts also who comes with a cookie.
func TestSYNCookiesAndTheCount(t *testing.T) {
	h := newHost(t)
	l := h.listens(hostIP+":80", ListenConfig{Backlog: 5, HalfOpen: 1})
	h.talk(80, 1).sends("S 0:0 mss 1460")
	h.take(0)
	a, b := h.talk(80, 2), h.talk(80, 3)
	for _, k := range []*talk{a, b} {
		k.ends("answered", "S 0:0 mss 1460")
		k.gets("S. 0:0 ack 1")
	}
	require.NoError(t, l.Listen(ListenConfig{Count: 1}))
	a.sends(". 1:1 ack 1")
	b.ends("listen-refused", ". 1:1 ack 1")
	b.gets("R 1:1")
	s := l.accepts()
	require.NoError(t, s.Close())
	require.Zero(t, l.listen.Load().held.Load())
	a.gets("F. 1:1 ack 1")
	h.wantIdle("all is said")
}

// Close of a listening socket resets who waits, and later who was half-open.
func TestListenerCloses(t *testing.T) {
	for name, cfg := range map[string]ListenConfig{"count": {Count: 5}, "backlog": {Backlog: 5}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			l := h.listens(hostIP+":80", cfg)
			w := NewWaiter()
			l.Watch(w, 0)
			waits, half, taken := h.talk(80, 1), h.talk(80, 2), h.talk(80, 3)
			taken.handshake()
			s := l.accepts()
			waits.handshake()
			half.sends("S 0:0 mss 1460")
			half.gets("S. 0:0 ack 1")
			require.NoError(t, l.Close())
			require.NotEmpty(t, w.C)
			require.Equal(t, Closed|Readable|Writable, l.Events())
			waits.gets("R. 1:1 ack 1")
			h.wantIdle("who is half-open has nothing to lose yet")
			half.sends("P. 1:11 ack 1")
			half.gets("R. 1:1 ack 11")
			h.talk(80, 4).ends("tcp-no-port", "S 0:0 mss 1460")
			require.NotZero(t, h.take(0).tcp().Flags()&wire.RST)
			s.writes(3)
			taken.gets("P. 1:4 ack 1")
			taken.dies(1)
			require.NoError(t, s.Close())
			h.wantIdle("who was accepted went on")
			h.wantNoStreams()
		})
	}
}

// A listener that is closed and a half-open connection that nobody continues: its SYN-ACKs end after a minute.
func TestListenerClosesUnderHalfOpen(t *testing.T) {
	h := newHost(t)
	h.keepPeer()
	l := h.listens(hostIP+":80", ListenConfig{Count: 5})
	k := h.talk(80, 2)
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	require.NoError(t, l.Close())
	require.Len(t, h.binds, 1)
	h.wait(seconds(64))
	k.drains()
	h.wantNoStreams()
}

// What may come behind the handshake in the same step: data, FIN, RST.
func TestAcceptedWithMore(t *testing.T) {
	h := newHost(t)
	l := h.listens(hostIP+":80", ListenConfig{Count: 5})
	k := h.talk(80, 1)
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	for _, d := range []string{". 1:1 ack 1", "P. 1:11 ack 1", "F. 11:11 ack 1"} {
		require.True(t, h.peers[0].Inject(k.frame(d)))
	}
	s := l.accepts()
	s.reads(10)
	s.wantEnd("all in one step")
	k.gets(". 1:1 ack 12")

	k = h.talk(80, 2)
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	for _, d := range []string{"P. 1:11 ack 1", "R 11:11"} {
		require.True(t, h.peers[0].Inject(k.frame(d)))
	}
	s = l.accepts()
	s.reads(10)
	s.wantErrno(syscall.ECONNRESET, "it came, and went")
	h.wantIdle("all is said")
	require.Equal(t, int32(2), l.listen.Load().held.Load())
	require.Zero(t, l.listen.Load().halfOpen.Load())
	require.NoError(t, s.Close())
	require.Equal(t, int32(1), l.listen.Load().held.Load())
}

// timeWait makes a connection that the host closed first.
func timeWait(h *host, changes ...func(*Stream)) (k *talk, s, l *stream) {
	h.t.Helper()
	k, s, l = h.accepted(changes...)
	k.sends("P. 1:11 ack 1")
	k.gets(". 1:1 ack 11")
	s.reads(10)
	require.NoError(h.t, s.Close())
	k.gets("F. 1:1 ack 11")
	k.sends("F. 11:11 ack 2")
	k.gets(". 2:2 ack 12")
	s.wantState(tcp.TimeWait)
	return k, s, l
}

// RFC 9293 §3.6.1, MAY-2, and RFC 6191: a newer SYN begins a new connection in place of one in TIME-WAIT.
func TestTimeWaitIsReused(t *testing.T) {
	h := newHost(t)
	k, old, l := timeWait(h)
	require.NotZero(t, old.rx.Memory())
	k.sends("S 0:0 mss 1460")
	k.gets(". 2:2 ack 12")
	old.wantState(tcp.TimeWait)
	last := k.hostISS + 2
	again := h.talk(80, 4000)
	again.peerISS = k.peerISS + 100
	again.handshake()
	require.True(t, again.hostISS.After(last), "numbers go on behind those of the old one")
	s := l.accepts()
	require.NotSame(t, old.Stream, s.Stream)
	_, ok := old.Info()
	require.False(t, ok, "the old one is no more")
	wantNoMemory(t, old.Stream)
	s.writes(10)
	again.gets("P. 1:11 ack 1")
	require.Len(t, h.Sockets(), 2)
	require.NoError(t, l.Close())
	require.NoError(t, s.Abort())
	again.gets("R. 11:11 ack 1")
	h.wantNoStreams()
}

// Where the new connection gets only a cookie, or no place, or nobody listens.
func TestTimeWaitIsReusedWithinLimits(t *testing.T) {
	h := newHost(t)
	k, _, l := timeWait(h)
	require.NoError(t, l.Listen(ListenConfig{Backlog: 1, HalfOpen: 1}))
	half := h.talk(80, 2)
	half.sends("S 0:0 mss 1460")
	half.gets("S. 0:0 ack 1")
	again := h.talk(80, 4000)
	again.peerISS = k.peerISS + 100
	again.ends("answered", "S 0:0 mss 1460")
	again.gets("S. 0:0 ack 1")
	again.sends(". 1:1 ack 1")
	s := l.accepts()
	require.NoError(t, s.Close())
	again.gets("F. 1:1 ack 1")
	again.sends("F. 1:1 ack 2")
	again.gets(". 2:2 ack 2")

	half.sends(". 1:1 ack 1")
	third := h.talk(80, 4000)
	third.peerISS = again.peerISS + 100
	third.ends("listen-overflow", "S 0:0 mss 1460")
	s.wantState(tcp.TimeWait)
	require.NoError(t, l.Listen(ListenConfig{Count: 1}))
	h.talk(80, 5).handshake()
	third.ends("listen-refused", "S 0:0 mss 1460")
	third.knows = true
	third.gets("R. 0:0 ack 1")
	s.wantState(tcp.TimeWait)
	require.NoError(t, l.Close())
	for h.take(0) != nil {
	}
	third.sends("S 0:0 mss 1460")
	again.gets(". 2:2 ack 2")
	h.wantIdle("nobody listens: no more than a challenge")
	s.wantState(tcp.TimeWait)
}

// TIME-WAIT of a socket that its user has not closed yet is reused as well.
func TestTimeWaitIsReusedUnderItsUser(t *testing.T) {
	h := newHost(t)
	k, s, l := h.accepted()
	require.NoError(t, s.Shutdown(ShutWrite))
	k.gets("F. 1:1 ack 1")
	k.sends("FP. 1:11 ack 2")
	k.gets(". 2:2 ack 12")
	again := h.talk(80, 4000)
	again.peerISS = k.peerISS + 100
	again.handshake()
	c := l.accepts()
	s.reads(10)
	s.wantEnd("all was there")
	require.Len(t, h.Sockets(), 3)
	require.NoError(t, s.Close())
	c.writes(3)
	again.gets("P. 1:4 ack 1")
	again.dies(1)
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())
	h.wantIdle("the old one's end is not the new one's")
	h.wantNoStreams()
}

// SO_REUSEPORT: listening sockets share a port, each connection goes to one, and all to those that are left.
func TestListenersShareAPort(t *testing.T) {
	h := newHost(t)
	listen := func() *stream {
		l := &stream{Stream: h.NewStream(), h: h}
		require.NoError(t, l.SetReusePort(true))
		require.NoError(t, l.Bind(ap(hostIP+":80")))
		require.Equal(t, syscall.EINVAL, l.SetReusePort(false), "it is bound")
		require.True(t, l.ReusePort())
		require.NoError(t, l.Listen(ListenConfig{Backlog: 1000}))
		return l
	}
	ls := []*stream{listen(), listen(), listen()}
	require.Equal(t, syscall.EADDRINUSE, h.NewStream().Bind(ap(hostIP+":80")), "one that did not ask")
	count := func(first uint16) (counts []int) {
		for port := range uint16(120) {
			h.talk(80, first+port).handshake()
		}
		for _, l := range ls {
			n := 0
			for {
				c, err := l.Accept()
				if err != nil {
					break
				}
				require.NoError(t, c.Abort())
				n++
			}
			counts = append(counts, n)
		}
		h.settle()
		for h.peers[0].Take() != nil {
		}
		return counts
	}
	for _, n := range count(1000) {
		require.Greater(t, n, 20, "a fair share")
	}
	require.NoError(t, ls[1].Close())
	counts := count(2000)
	require.Zero(t, counts[1])
	require.Equal(t, 120, counts[0]+counts[2])
	require.NoError(t, ls[0].Close())
	require.Len(t, h.binds, 1)
	require.NoError(t, ls[2].Close())
	h.wantNoStreams()
}

// SO_REUSEADDR: a port that only connections still hold can be had again; one that a socket has can't.
func TestPortOfConnections(t *testing.T) {
	bind := func(h *host, reuse bool) (*stream, error) {
		s := &stream{Stream: h.NewStream(), h: h}
		require.NoError(h.t, s.SetReuseAddr(reuse))
		require.Equal(h.t, reuse, s.ReuseAddr())
		return s, s.Bind(ap(hostIP + ":80"))
	}
	h := newHost(t)
	k, s, l := h.accepted()
	_, err := bind(h, true)
	require.Equal(t, syscall.EADDRINUSE, err, "it is listened on")
	require.NoError(t, l.Close())
	_, err = bind(h, false)
	require.Equal(t, syscall.EADDRINUSE, err, "a connection lives")
	again, err := bind(h, true)
	require.NoError(t, err)
	require.NoError(t, again.Listen(ListenConfig{Count: 1}))
	_, err = bind(h, true)
	require.Equal(t, syscall.EADDRINUSE, err, "it is listened on again")
	h.talk(80, 1).handshake()
	again.accepts()
	s.writes(1)
	k.gets("P. 1:2 ack 1")
	require.NoError(t, s.Abort())
	k.gets("R. 2:2 ack 1")
	require.Len(t, h.binds, 1)

	// The same of a connection that the host began.
	h = newHost(t)
	c := &stream{Stream: h.NewStream(), h: h}
	require.NoError(t, c.Bind(ap(hostIP+":80")))
	require.Equal(t, syscall.EINPROGRESS, c.Connect(ap(peerIP+":4000")))
	k = h.talk(80, 4000)
	k.gets("S 0:0")
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	_, err = bind(h, true)
	require.Equal(t, syscall.EADDRINUSE, err, "a socket has it")
	require.NoError(t, c.Close())
	k.gets("F. 1:1 ack 1")
	_, err = bind(h, false)
	require.Equal(t, syscall.EADDRINUSE, err, "a connection lives")
	l, err = bind(h, true)
	require.NoError(t, err)
	k.dies(1)
	require.NoError(t, l.Close())
	h.wantIdle("all is said")
	h.wantNoStreams()
}

// In shared mode the port is reserved outside, and given back when the last connection on it has ended.
func TestPortIsReservedForItsConnections(t *testing.T) {
	outside := &ledger{next: 1000, taken: make(map[string]bool)}
	h := newHost(t, func(s *setup) { s.Ports = outside })
	h.keepPeer()
	has := func(ports ...string) {
		t.Helper()
		want := make(map[string]bool)
		for _, p := range ports {
			want["tcp 10.0.0.1:"+p] = true
		}
		require.Equal(t, want, outside.taken)
	}
	k, s, l := h.accepted()
	k2 := h.talk(80, 4001)
	k2.handshake()
	s2 := l.accepts()
	has("80")
	require.NoError(t, l.Close())
	require.NoError(t, s2.Abort())
	k2.gets("R. 1:1 ack 1")
	has("80")
	require.NoError(t, s.Close())
	k.gets("F. 1:1 ack 1")
	k.sends("F. 1:1 ack 2")
	k.gets(". 2:2 ack 2")
	has("80")
	h.wait(seconds(59))
	has("80")
	h.wait(seconds(2))
	has()

	// A connection that the host began holds its own.
	c, s := h.connected()
	has("1001")
	require.NoError(t, s.Close())
	has("1001")
	c.gets("F. 1:1 ack 1")
	c.sends(". 1:1 ack 2")
	has("1001")
	c.dies(1)
	has()
	// Of one that ended before, the socket does.
	c, s = h.connected()
	c.dies(1)
	has("1002")
	require.NoError(t, s.Close())
	has()
	// And of one that never began.
	_, s = h.dials()
	has("1003")
	require.NoError(t, s.Close())
	h.settle()
	has()

	outside.err = syscall.EACCES
	require.Equal(t, syscall.EACCES, h.NewStream().Connect(ap(peerIP+":80")))
	require.Equal(t, syscall.EACCES, h.NewStream().Bind(ap(hostIP+":80")))
	h.wantIdle("all is said")
	h.wantNoStreams()
}
