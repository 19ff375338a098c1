package stack

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// await calls try until it does not say EAGAIN, sleeping while st is not ready.
func await(st *Stream, want Events, try func() error) error {
	if err := try(); err != syscall.EAGAIN {
		return err
	}
	w := NewWaiter()
	st.Watch(w, want)
	defer st.Unwatch(w)
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		if err := try(); err != syscall.EAGAIN {
			return err
		}
		select {
		case <-w.C:
		case <-timeout.C:
			i, ok := st.Info()
			panic(fmt.Sprintf("nothing came of waiting for events %b: a wake was lost, or is it %v to %v with events %b, connection %v %+v", want,
				st.LocalAddr(), st.RemoteAddr(), st.Events(), ok, i))
		}
	}
}

func acceptOne(l *Stream) (c *Stream, err error) {
	err = await(l, Readable, func() (err error) {
		c, err = l.Accept()
		return err
	})
	return c, err
}

func connectTo(st *Stream, to netip.AddrPort) error {
	if err := st.Connect(to); err != syscall.EINPROGRESS {
		return err
	}
	return await(st, Writable, func() error {
		ev, connects := st.Events(), st.RemoteAddr().IsValid()
		if ev&Closed != 0 {
			return syscall.EBADF
		}
		if err := st.TakeError(); err != nil {
			return err
		}
		switch {
		case !connects:
			return syscall.ECONNABORTED
		case ev == 0 || ev&Errored != 0:
			return syscall.EAGAIN
		}
		return nil
	})
}

func writeAll(st *Stream, b []byte) error {
	for len(b) > 0 {
		err := await(st, Writable, func() error {
			n, err := st.Write(b)
			b = b[n:]
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readUpTo reads until b is full or the stream ends.
func readUpTo(st *Stream, b []byte) (got int, err error) {
	for got < len(b) {
		var n int
		err := await(st, Readable, func() (err error) {
			n, err = st.Read(b[got:])
			return err
		})
		if n == 0 || err != nil {
			return got, err
		}
		got += n
	}
	return got, nil
}

// echoServer echoes what comes until each stream ends. It returns when the listening socket is closed and all its clients are gone.
func echoServer(l *Stream) (end func()) {
	var clients sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := acceptOne(l)
			if err != nil {
				return
			}
			clients.Go(func() {
				defer c.Close()
				buf := make([]byte, 10_000)
				for {
					var n int
					err := await(c, Readable, func() (err error) {
						n, err = c.Read(buf)
						return err
					})
					if n == 0 || err != nil || writeAll(c, buf[:n]) != nil {
						return
					}
				}
			})
		}
	}()
	return func() {
		l.Close()
		<-done
		clients.Wait()
	}
}

func listenOn(t testing.TB, s *Stack, at string, cfg ListenConfig) *Stream {
	l := s.NewStream()
	require.NoError(t, l.Bind(ap(at)))
	require.NoError(t, l.Listen(cfg))
	return l
}

// One byte goes to and fro between two engines and two users that all sleep: one wake that is lost, and it stops for ever.
func TestStreamsLoseNoWake(t *testing.T) {
	for _, wait := range []WaitMode{Interrupt, Adaptive, Busy} {
		for _, path := range []struct{ name, client, server string }{
			{"over the wire", "10.0.0.1:0", "10.0.0.2:7"}, {"inside", "10.0.0.1:0", "10.0.0.1:7"},
			{"loopback", "127.0.0.1:0", "127.0.0.1:7"}, {"between interfaces", "10.0.0.1:0", "127.0.0.1:7"},
		} {
			t.Run(fmt.Sprint(wait, " ", path.name), func(t *testing.T) {
				a, b := running(t, 1, wait)
				if path.server != "10.0.0.2:7" {
					b = a
				}
				end := echoServer(listenOn(t, b, path.server, ListenConfig{Backlog: 10}))
				c := a.NewStream()
				require.NoError(t, c.Bind(ap(path.client)))
				require.NoError(t, connectTo(c, ap(path.server)))
				buf := make([]byte, 1)
				for n := range 1000 {
					require.NoError(t, writeAll(c, []byte{byte(n)}))
					got, err := readUpTo(c, buf)
					require.NoError(t, err)
					require.Equal(t, 1, got)
					require.Equal(t, byte(n), buf[0])
				}
				require.NoError(t, c.Close())
				end()
			})
		}
	}
}

// Megabytes both ways at once, with a reader and a writer of their own at each end, and small buffers: nobody sleeps for ever.
func TestStreamsCarryMuch(t *testing.T) {
	a, b := running(t, 2, Adaptive)
	end := echoServer(func() *Stream {
		l := listenOn(t, b, "10.0.0.2:7", ListenConfig{Count: 100})
		require.NoError(t, l.SetReceiveBuffer(20_000))
		require.NoError(t, l.SetSendBuffer(20_000))
		return l
	}())
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 1))
			data := make([]byte, 1<<20)
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			c := a.NewStream()
			if n%2 == 0 {
				c.SetReceiveBuffer(5000 * (n + 1))
				c.SetSendBuffer(4000 * (n + 1))
			}
			if err := connectTo(c, ap("10.0.0.2:7")); err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() {
				if err := errors.Join(writeAll(c, data), c.Shutdown(ShutWrite)); err != nil {
					t.Error(err)
				}
			})
			got := make([]byte, len(data)+1)
			m, err := readUpTo(c, got)
			if err != nil || !bytes.Equal(data, got[:m]) {
				t.Errorf("read %d of %d bytes, or others: %v", m, len(data), err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	end()
}

// runningAstray is running with two queues, where each frame arrives on any of the other end's.
func runningAstray(t *testing.T) (a, b *Stack) {
	wires := []*linktest.Wire{linktest.New(linktest.Config{RealTime: true, Ring: 4096}), linktest.New(linktest.Config{RealTime: true, Ring: 4096})}
	for side, to := range []**Stack{&a, &b} {
		s := New(Config{Seed: uint64(side) + 1})
		var links []Link
		for q := range wires {
			links = append(links, &straying{End: wires[q].End(side), wires: wires, side: side, pick: func() int { return rand.IntN(2) }})
		}
		_, err := s.AddInterface(InterfaceConfig{
			Name: "eth0", Mode: Owned, Links: links, Addresses: []netip.Prefix{prefix([]string{hostIP, peerIP}[side] + "/24")},
		})
		require.NoError(t, err)
		s.Start()
		t.Cleanup(func() {
			require.NoError(t, s.Close())
			wantSums(t, s)
		})
		*to = s
	}
	return a, b
}

// Everything at once on both ends: connections that come, talk, are shut, closed and aborted by several goroutines, while others look
// and change what they can. The race detector, the sums and what is left are the judges.
func TestStreamsEverythingAtOnce(t *testing.T) {
	a, b := runningAstray(t)
	listeners := []*Stream{
		listenOn(t, b, "10.0.0.2:7", ListenConfig{Backlog: 8}), listenOn(t, b, "10.0.0.2:8", ListenConfig{Count: 8}),
		listenOn(t, a, "127.0.0.1:7", ListenConfig{Backlog: 100}), listenOn(t, a, "10.0.0.1:7", ListenConfig{Count: 20}),
	}
	var ends []func()
	for _, l := range listeners {
		ends = append(ends, echoServer(l))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(f func(rng *rand.Rand)) {
		seed := rand.Uint64()
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1))
			for {
				select {
				case <-stop:
					return
				default:
					f(rng)
				}
			}
		})
	}
	var whole, failed atomic.Uint64
	var current [4]atomic.Pointer[Stream]
	for n := range 4 {
		loop(func(rng *rand.Rand) { // a client's short life
			c := a.NewStream()
			current[n].Store(c)
			setOptions(c, rng)
			to := []string{"10.0.0.2:7", "10.0.0.2:8", "127.0.0.1:7", "10.0.0.1:7", "10.0.0.2:9"}[rng.IntN(5)]
			data := make([]byte, rng.IntN(1<<uint(rng.IntN(17))))
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			if rng.IntN(20) == 0 {
				go c.Close() // at any time
			}
			err := connectTo(c, ap(to))
			if err == nil {
				err = writeAll(c, data)
			}
			if err == nil && rng.IntN(10) > 0 {
				err = c.Shutdown(ShutWrite)
				got := make([]byte, len(data)+1)
				m, rerr := readUpTo(c, got)
				if err == nil && rerr == nil && bytes.Equal(data, got[:m]) {
					whole.Add(1)
				} else {
					failed.Add(1)
					if !bytes.HasPrefix(data, got[:m]) && !bytes.HasPrefix([]byte("welcome"), got[:m]) {
						t.Error("what came back is not what was sent")
					}
				}
			}
			if rng.IntN(3) == 0 {
				c.Abort()
			}
			c.Close()
		})
	}
	loop(func(rng *rand.Rand) { // whoever has it too
		if c := current[rng.IntN(4)].Load(); c != nil {
			setOptions(c, rng)
			c.Info()
			c.Events()
			c.Connected()
			c.RemoteAddr()
			c.LocalAddr()
			c.MaxSegment()
			c.Unacknowledged()
			w := NewWaiter()
			c.Watch(w, Readable|Writable)
			c.Unwatch(w)
		}
	})
	loop(func(rng *rand.Rand) { // who changes his mind about how he listens
		l := listeners[rng.IntN(4)]
		setOptions(l, rng)
		l.SetTTL(uint8(1 + rng.IntN(255)))
		cfg := []ListenConfig{{Count: 1 + rng.IntN(10)}, {Backlog: 1 + rng.IntN(10)}}[rng.IntN(2)]
		l.Listen(cfg)
		time.Sleep(50 * time.Microsecond)
	})
	// A listener that comes and goes, and gives cookies. It waits for nobody: where segments overtake each other, the ACK that
	// brings a cookie back may come when the connection is over, and make another one to which nobody speaks.
	loop(func(rng *rand.Rand) {
		l := b.NewStream()
		l.SetReuseAddr(true)
		if l.Bind(ap("10.0.0.2:9")) != nil || l.Listen(ListenConfig{Backlog: 4, HalfOpen: 1}) != nil {
			t.Error("port 9 is its own")
		}
		time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
		if c, err := l.Accept(); err == nil {
			c.Write([]byte("welcome"))
			c.Close()
		}
		l.Close()
	})
	loop(func(*rand.Rand) { // whoever looks
		for _, s := range []*Stack{a, b} {
			s.Sockets()
			s.Stats()
			s.TCPStats()
		}
		time.Sleep(200 * time.Microsecond)
	})
	time.Sleep(2 * time.Second)
	close(stop)
	wg.Wait()
	for _, end := range ends {
		end()
	}
	require.Greater(t, whole.Load(), uint64(20), "and %d failed", failed.Load())
	for _, s := range []*Stack{a, b} {
		require.NoError(t, s.Close())
		wantNoStreams(t, s)
	}
}

func setOptions(st *Stream, rng *rand.Rand) {
	switch rng.IntN(8) {
	case 0:
		st.SetNoDelay(rng.IntN(2) == 0)
	case 1:
		st.SetSendBuffer(rng.IntN(100_000))
	case 2:
		st.SetReceiveBuffer(rng.IntN(100_000))
	case 3:
		st.SetKeepAlive(rng.IntN(2) == 0)
	case 4:
		st.SetTOS(uint8(rng.IntN(256)))
	case 5:
		st.SetQuickACK(rng.IntN(2) == 0)
	case 6:
		st.SetCongestion([]string{"cubic", "newreno"}[rng.IntN(2)])
	case 7:
		st.SetMaxSegment(100 + rng.IntN(1400))
	}
}

// Close of a socket, and of the stack, ends every wait on it at once.
func TestStreamsCloseEndsWaits(t *testing.T) {
	for name, end := range map[string]func(s *Stack, all ...*Stream){
		"the sockets": func(_ *Stack, all ...*Stream) {
			for _, st := range all {
				st.Close()
			}
		},
		"the stack": func(s *Stack, _ ...*Stream) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := running(t, 2, Interrupt)
			l := listenOn(t, b, "10.0.0.2:7", ListenConfig{Backlog: 1})
			quiet := listenOn(t, a, "10.0.0.1:7", ListenConfig{Backlog: 1})
			c := a.NewStream()
			require.NoError(t, connectTo(c, ap("10.0.0.2:7")))
			_, err := acceptOne(l)
			require.NoError(t, err)
			connecting := a.NewStream()
			errs := make(chan error, 4)
			go func() {
				_, err := acceptOne(quiet)
				errs <- err
			}()
			go func() {
				_, err := readUpTo(c, make([]byte, 1))
				errs <- err
			}()
			go func() { errs <- writeAll(c, make([]byte, 100<<20)) }()
			go func() { errs <- connectTo(connecting, ap("10.0.0.99:7")) }()
			for _, st := range []*Stream{quiet, c, connecting} {
				require.Eventually(t, func() bool {
					st.waiters.mu.Lock()
					defer st.waiters.mu.Unlock()
					return len(st.waiters.list) > 0
				}, patience, time.Millisecond)
			}
			end(a, quiet, c, connecting)
			for range 4 {
				require.Equal(t, syscall.EBADF, <-errs)
			}
		})
	}
}

// Stack.Close sends what was written and FIN, waits a while for those who answer, and resets those who do not.
func TestStackCloseEndsConnections(t *testing.T) {
	a, b := running(t, 1, Adaptive)
	l := listenOn(t, b, "10.0.0.2:7", ListenConfig{Backlog: 10})
	var near, far []*Stream
	for range 3 {
		c := a.NewStream()
		require.NoError(t, connectTo(c, ap("10.0.0.2:7")))
		s, err := acceptOne(l)
		require.NoError(t, err)
		near, far = append(near, c), append(far, s)
	}
	require.NoError(t, writeAll(near[0], []byte("the last words")))
	go func() { // answers, as soon as he sees the end
		buf := make([]byte, 100)
		n, err := readUpTo(far[0], buf)
		if err != nil || string(buf[:n]) != "the last words" {
			t.Errorf("read %q, %v", buf[:n], err)
		}
		far[0].Close()
	}()
	require.NoError(t, writeAll(far[1], []byte("never read")))
	require.Eventually(t, func() bool { return near[1].Events()&Readable != 0 }, patience, time.Millisecond)
	began := time.Now()
	require.NoError(t, a.Close())
	require.Less(t, time.Since(began), patience/2)
	_, err := readUpTo(far[1], make([]byte, 1))
	require.Equal(t, syscall.ECONNRESET, err, "bytes were left unread")
	_, err = readUpTo(far[2], make([]byte, 1))
	require.True(t, err == nil || err == syscall.ECONNRESET, "%v: FIN, and RST after it because nobody answered", err)
	require.Eventually(t, func() bool {
		far[2].Write([]byte("x"))
		return !far[2].Connected()
	}, patience, time.Millisecond)
	for _, c := range near {
		require.Equal(t, syscall.EBADF, c.Close())
	}
	wantNoStreams(t, a)
}

// A peer that never answers is reset after a second; the FIN went out before.
func TestStackCloseResetsTheSilent(t *testing.T) {
	w := linktest.New(linktest.Config{RealTime: true})
	s := New(Config{Seed: 1})
	i, err := s.AddInterface(InterfaceConfig{Name: "eth0", Mode: Owned, Links: []Link{w.End(0)}, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}})
	require.NoError(t, err)
	i.SetNeighbour(entry(peerIP, peerMAC, NeighbourPermanent))
	s.Start()
	l := listenOn(t, s, "10.0.0.1:80", ListenConfig{Backlog: 1})
	k := (&host{t: t}).talk(80, 4000)
	next := func() (f sent) {
		require.Eventually(t, func() bool {
			for f = w.End(1).Take(); f != nil && f.ethernet().Type != wire.EtherTypeIPv4; f = w.End(1).Take() {
			}
			return f != nil
		}, patience, time.Millisecond)
		return f
	}
	w.End(1).Inject(k.frame("S 0:0 mss 1460"))
	require.Equal(t, "S. 0:0 ack 1", k.describe(next(), ""))
	w.End(1).Inject(k.frame(". 1:1 ack 1"))
	c, err := acceptOne(l)
	require.NoError(t, err)
	require.NoError(t, writeAll(c, []byte(pattern(10))))
	require.Equal(t, "P. 1:11 ack 1", k.describe(next(), ""))
	began := time.Now()
	require.NoError(t, s.Close())
	require.GreaterOrEqual(t, time.Since(began), lingering)
	require.Equal(t, "F. 11:11 ack 1", k.describe(next(), ""))
	for {
		if f := next(); f.tcp().Flags()&wire.RST != 0 {
			require.Equal(t, "R. 12:12 ack 1", k.describe(f, ""))
			break
		}
	}
	wantNoStreams(t, s)
}

// A card that is deleted ends the connections of running engines, and every wait on them.
func TestRunningStreamsLoseTheirCard(t *testing.T) {
	for _, wait := range []WaitMode{Interrupt, Busy} {
		var links []Link
		wires := make([]*linktest.Wire, 2)
		for q := range wires {
			wires[q] = linktest.New(linktest.Config{RealTime: true})
			links = append(links, wires[q].End(0))
		}
		s := New(Config{Seed: 1})
		_, err := s.AddInterface(InterfaceConfig{Name: "eth0", Mode: Owned, Links: links, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}, Wait: wait})
		require.NoError(t, err)
		s.Start()
		l := listenOn(t, s, "10.0.0.1:80", ListenConfig{Backlog: 20})
		var all []*Stream
		for range 8 {
			c := s.NewStream()
			require.NoError(t, connectTo(c, ap("10.0.0.1:80")))
			a, err := acceptOne(l)
			require.NoError(t, err)
			all = append(all, c, a)
		}
		errs := make(chan error, 1+len(all))
		go func() {
			_, err := acceptOne(l)
			errs <- err
		}()
		for _, st := range all {
			go func() {
				_, err := readUpTo(st, make([]byte, 1))
				errs <- err
			}()
		}
		wires[1].End(0).Fail(syscall.ENODEV)
		for range cap(errs) {
			require.Equal(t, syscall.ENETDOWN, <-errs)
		}
		require.Equal(t, syscall.ENETDOWN, s.NewStream().Connect(ap("10.0.0.1:80")))
		for _, st := range append(all, l) {
			require.NoError(t, st.Close())
		}
		require.NoError(t, s.Close())
		wantNoStreams(t, s)
	}
}
