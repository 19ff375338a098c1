package stack

import (
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
	"go.uber.org/goleak"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// No goroutine outlives its stack.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long something may take that takes no time: longer means that a wake was lost.
const patience = 30 * time.Second

// running makes two stacks with their engines on goroutines, one queue for each wire.
func running(t *testing.T, queues int, wait WaitMode) (a, b *Stack) {
	var as, bs []Link
	for range queues {
		w := linktest.New(linktest.Config{RealTime: true, Ring: 4096})
		as, bs = append(as, w.End(0)), append(bs, w.End(1))
	}
	start := func(seed uint64, ip string, links []Link) *Stack {
		s := New(Config{Seed: seed})
		_, err := s.AddInterface(InterfaceConfig{
			Name: "eth0", Mode: Owned, Links: links, Addresses: []netip.Prefix{prefix(ip + "/24")}, Wait: wait, Spin: 20 * time.Microsecond,
		})
		require.NoError(t, err)
		s.Start()
		s.Start() // twice is once
		t.Cleanup(func() {
			require.NoError(t, s.Close())
			wantSums(t, s)
		})
		return s
	}
	return start(1, hostIP, as), start(2, peerIP, bs)
}

// receive waits for one message.
func receive(d *Datagram, w *Waiter, buf []byte) (Message, error) {
	ms := []Message{{Buf: buf}}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	d.Watch(w, Readable)
	defer d.Unwatch(w)
	for {
		n, err := d.Read(ms)
		if n == 1 || err != syscall.EAGAIN {
			return ms[0], err
		}
		select {
		case <-w.C:
		case <-timeout.C:
			return Message{}, errors.New("nothing came: a wake was lost")
		}
	}
}

func bound(t testing.TB, s *Stack, local string) *Datagram {
	d := s.NewDatagram(wire.ProtocolUDP)
	require.NoError(t, d.Bind(ap(local)))
	return d
}

// One datagram goes to and fro between two engines and two users that all sleep: one wake that is lost, and it stops for ever.
func TestNoWakeIsLost(t *testing.T) {
	for _, wait := range []WaitMode{Interrupt, Adaptive, Busy} {
		for _, path := range []struct{ name, client, server string }{
			{"over the wire", "10.0.0.1:9", "10.0.0.2:7"}, {"inside", "10.0.0.1:9", "10.0.0.1:7"},
			{"loopback", "127.0.0.1:9", "127.0.0.1:7"}, {"between interfaces", "10.0.0.1:9", "127.0.0.1:7"},
		} {
			t.Run(fmt.Sprint(wait, " ", path.name), func(t *testing.T) {
				a, b := running(t, 1, wait)
				if path.server != "10.0.0.2:7" {
					b = a
				}
				rounds := 3000
				client, server := bound(t, a, path.client), bound(t, b, path.server)
				done := make(chan error, 1)
				go func() {
					w, buf := NewWaiter(), make([]byte, 100)
					for range rounds {
						m, err := receive(server, w, buf)
						if err == nil {
							_, err = server.Write([]Message{{Buf: m.Buf[:m.N], Addr: m.Addr}})
						}
						if err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
				w, buf := NewWaiter(), make([]byte, 100)
				for n := range rounds {
					_, err := client.Write([]Message{{Buf: fmt.Append(nil, n), Addr: ap(path.server)}})
					require.NoError(t, err)
					m, err := receive(client, w, buf)
					require.NoError(t, err, "round %d", n)
					require.Equal(t, fmt.Sprint(n), string(m.Buf[:m.N]))
				}
				require.NoError(t, <-done)
			})
		}
	}
}

// Writers that find the send buffer full sleep until there is room, and are woken each time.
func TestNoWriterIsForgotten(t *testing.T) {
	a, b := running(t, 1, Interrupt)
	server := bound(t, b, "10.0.0.2:7")
	require.NoError(t, server.SetHandler(func(*Packet) {}))
	var wg sync.WaitGroup
	for n := range 4 {
		d := bound(t, a, fmt.Sprint("10.0.0.1:", 100+n))
		d.SetSendBuffer(2048)
		wg.Go(func() {
			w := NewWaiter()
			d.Watch(w, Writable)
			defer d.Unwatch(w)
			timeout := time.NewTimer(patience)
			defer timeout.Stop()
			ms := []Message{{Buf: make([]byte, 700), Addr: ap("10.0.0.2:7")}}
			for sent := 0; sent < 3000; {
				n, err := d.Write(ms)
				sent += n
				if err == nil {
					continue
				}
				if err != syscall.EAGAIN {
					t.Error(err)
					return
				}
				select {
				case <-w.C:
				case <-timeout.C:
					t.Error("no room came: a wake was lost")
					return
				}
			}
		})
	}
	wg.Wait()
}

// Everything at once: users that bind, send, read and close, handlers that come and go, routes, addresses, neighbours and taps
// that change, and everybody who looks. The race detector and the sums are the judges.
func TestEverythingAtOnce(t *testing.T) {
	a, b := running(t, 2, Adaptive)
	echo := bound(t, b, "10.0.0.2:7")
	require.NoError(t, echo.SetHandler(func(p *Packet) { p.Echo() }))
	require.NoError(t, func() error {
		d := bound(t, a, "127.0.0.1:7")
		return d.SetHandler(func(p *Packet) { p.Reply(copy(p.Room(), "from inside")) })
	}())
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
	var received atomic.Uint64
	for range 4 {
		loop(func(rng *rand.Rand) { // a user's short life
			d := a.NewDatagram(wire.ProtocolUDP)
			if rng.IntN(2) == 0 {
				d.Bind(ap("0.0.0.0:0"))
			}
			to := []string{"10.0.0.2:7", "10.0.0.2:7", "127.0.0.1:7", "10.0.0.2:8", "10.0.0.99:7", "255.255.255.255:7"}[rng.IntN(6)]
			if rng.IntN(2) == 0 {
				d.Connect(ap(to))
			}
			ms := make([]Message, 1+rng.IntN(8))
			for n := range ms {
				ms[n] = Message{Buf: make([]byte, rng.IntN(3000)), Addr: ap(to)}
			}
			d.Write(ms)
			for n := range ms {
				ms[n] = Message{Buf: make([]byte, 3000)}
			}
			for range rng.IntN(50) {
				n, _ := d.Read(ms)
				received.Add(uint64(n))
				time.Sleep(10 * time.Microsecond)
			}
			d.Close()
			d.Close()
		})
	}
	d := bound(t, a, "10.0.0.1:50")
	loop(func(rng *rand.Rand) { // one socket, used from here and there
		d.Write([]Message{{Buf: make([]byte, rng.IntN(100)), Addr: ap("10.0.0.2:7")}})
		d.SetReceiveBuffer(rng.IntN(1 << 20))
		d.SetTTL(uint8(1 + rng.IntN(255)))
		d.Events()
	})
	loop(func(rng *rand.Rand) {
		if rng.IntN(2) == 0 {
			d.SetHandler(func(p *Packet) {})
		} else {
			d.SetHandler(nil)
		}
		w := NewWaiter()
		d.Watch(w, Readable|Writable)
		d.Read([]Message{{Buf: make([]byte, 100)}})
		d.Unwatch(w)
		d.TakeError()
	})
	eth := a.Interfaces()[0]
	loop(func(rng *rand.Rand) { // whoever follows the kernel
		eth.AddRoute(via("192.0.2.0/24", "10.0.0.2"))
		eth.SetNeighbour(entry("10.0.0.77", peerMAC, NeighbourState(rng.IntN(6))))
		eth.DeleteRoute(via("192.0.2.0/24", "10.0.0.2"))
		eth.DeleteNeighbour(netip.MustParseAddr("10.0.0.77"))
		eth.SetAddresses([]netip.Prefix{prefix("10.0.0.1/24"), prefix("10.0.0.3/24")}[:1+rng.IntN(2)])
		eth.LinkChanged()
		time.Sleep(100 * time.Microsecond)
	})
	loop(func(rng *rand.Rand) { // whoever looks
		a.Stats()
		a.Sockets()
		eth.Neighbours()
		eth.Queues()
		eth.Routes()
		var frames atomic.Uint64
		a.SetTap(func(_ *Interface, _ int, _ Direction, _ DropReason, _ clock.Time, f []byte) { frames.Add(1) })
		time.Sleep(100 * time.Microsecond)
		a.SetTap(nil)
	})
	time.Sleep(2 * time.Second)
	close(stop)
	wg.Wait()
	require.NotZero(t, received.Load())
	require.NoError(t, d.Close())
	require.NoError(t, a.Close())
	require.Empty(t, a.Sockets())
	for _, e := range a.engines {
		require.Zero(t, e.sockets)
	}
}

// When SetHandler returns, the old handler is not running and will not run.
func TestSetHandlerWaitsForTheOldOne(t *testing.T) {
	a, b := running(t, 1, Adaptive)
	server, client := bound(t, b, "10.0.0.2:7"), bound(t, a, "10.0.0.1:9")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				client.Write([]Message{{Buf: []byte("x"), Addr: ap("10.0.0.2:7")}})
			}
		}
	})
	for range 300 {
		calls := 0 // not atomic: the race detector sees whether SetHandler(nil) orders it
		require.NoError(t, server.SetHandler(func(*Packet) { calls++ }))
		require.NoError(t, server.SetHandler(nil))
		calls++
	}
	close(stop)
	wg.Wait()
}

// Closing the socket or the stack ends every wait at once.
func TestCloseEndsWaits(t *testing.T) {
	for name, end := range map[string]func(s *Stack, d *Datagram){
		"the socket": func(_ *Stack, d *Datagram) { d.Close() },
		"the stack":  func(s *Stack, _ *Datagram) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := running(t, 2, Interrupt)
			d := bound(t, a, "10.0.0.1:7")
			errs := make(chan error)
			for range 3 {
				go func() {
					_, err := receive(d, NewWaiter(), make([]byte, 10))
					errs <- err
				}()
			}
			require.Eventually(t, func() bool {
				d.waiters.mu.Lock()
				defer d.waiters.mu.Unlock()
				return len(d.waiters.list) == 3
			}, patience, time.Millisecond)
			end(a, d)
			for range 3 {
				require.Equal(t, syscall.EBADF, <-errs)
			}
		})
	}
}

// A card that is deleted is told to OnError once; who waits hears ENETDOWN, and closing all still works.
func TestLinkFails(t *testing.T) {
	for _, wait := range []WaitMode{Interrupt, Adaptive, Busy} {
		t.Run(wait.String(), func(t *testing.T) {
			w := linktest.New(linktest.Config{RealTime: true})
			s := New(Config{Seed: 1})
			gone := fmt.Errorf("eth0: %w", syscall.ENODEV)
			told := make(chan error, 10)
			i, err := s.AddInterface(InterfaceConfig{
				Name: "eth0", Mode: Owned, Links: []Link{w.End(0)}, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}, Wait: wait,
				OnError: func(err error) { told <- err },
			})
			require.NoError(t, err)
			s.Start()
			d, lo := bound(t, s, "10.0.0.1:7"), bound(t, s, "127.0.0.1:7")
			errs := make(chan error)
			go func() {
				_, err := receive(d, NewWaiter(), make([]byte, 10))
				errs <- err
			}()
			sender := bound(t, s, "10.0.0.1:8")
			_, err = sender.Write([]Message{{Addr: ap("10.0.0.2:7")}})
			require.NoError(t, err)
			w.End(0).Fail(gone)
			require.ErrorIs(t, <-told, syscall.ENODEV)
			require.Equal(t, syscall.ENETDOWN, <-errs)
			require.True(t, i.Gone())
			_, err = d.Read([]Message{{}})
			require.Equal(t, syscall.ENETDOWN, err)
			_, err = d.Write([]Message{{Addr: ap("10.0.0.2:7")}})
			require.Equal(t, syscall.ENETDOWN, err)
			require.Equal(t, syscall.ENETDOWN, sender.TakeError())
			_, err = sender.Write([]Message{{Addr: ap("10.0.0.2:7")}})
			require.Equal(t, syscall.ENETDOWN, err, "also who has sent there before")
			_, err = lo.Write([]Message{{Buf: []byte("x"), Addr: ap("127.0.0.1:7")}})
			require.NoError(t, err)
			_, err = receive(lo, NewWaiter(), make([]byte, 10))
			require.NoError(t, err, "the loopback goes on")
			for _, info := range s.Sockets() {
				require.Equal(t, map[string]string{"eth0": "the card eth0 is gone", "lo": ""}[info.Interface], info.Unaccelerated)
			}
			require.NoError(t, d.Close())
			require.NoError(t, s.Close())
			require.Empty(t, told)
			require.False(t, i.Queues()[0].Running)
		})
	}
}

// An engine that sleeps wakes by itself for its timers: a datagram of which the rest does not come times out.
func TestSleepingEnginesKeepTime(t *testing.T) {
	for _, wait := range []WaitMode{Interrupt, Adaptive, Busy} {
		w := linktest.New(linktest.Config{RealTime: true})
		s := New(Config{Seed: 1, Limits: Limits{ReassemblyTimeout: 50 * time.Millisecond}})
		i, err := s.AddInterface(InterfaceConfig{
			Name: "eth0", Mode: Owned, Links: []Link{w.End(0)}, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}, Wait: wait,
		})
		require.NoError(t, err)
		i.SetNeighbour(entry(peerIP, peerMAC, NeighbourPermanent))
		s.Start()
		w.End(1).Inject(pieces(1, pattern(60), 24)[0])
		require.Eventually(t, func() bool { // looks at the wire only: a look at the stack would wake it
			f := w.End(1).Take()
			return f != nil && describe(f) == "10.0.0.1 > 10.0.0.2: icmp time exceeded code 1 [10.0.0.2.4000 > 10.0.0.1.7: udp]"
		}, patience, time.Millisecond)
		require.NoError(t, s.Close())
		require.Zero(t, s.Stats().Held)
	}
}

// An engine with nothing to do sleeps, in every mode but one, also after it was called.
func TestIdleEnginesSleep(t *testing.T) {
	for _, wait := range []WaitMode{Interrupt, Adaptive, Busy} {
		link := &bedroom{Link: linktest.New(linktest.Config{RealTime: true}).End(0)}
		s := New(Config{Seed: 1})
		i, err := s.AddInterface(InterfaceConfig{
			Name: "eth0", Mode: Owned, Links: []Link{link}, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}, Wait: wait,
		})
		require.NoError(t, err)
		s.Start()
		for range 3 {
			before := i.Queues()[0]
			require.True(t, before.Running)
			if wait == Busy {
				require.Eventually(t, func() bool { return i.Queues()[0].Steps > before.Steps+100 }, patience, time.Millisecond)
				require.False(t, link.asleep.Load())
			} else {
				require.Eventually(t, link.asleep.Load, patience, time.Millisecond)
			}
		}
		require.NoError(t, s.Close())
	}
}

// A bedroom is a link that knows whether its engine sleeps.
type bedroom struct {
	Link
	asleep atomic.Bool
}

func (l *bedroom) Wait(timeout time.Duration) error {
	if timeout != 0 {
		l.asleep.Store(true)
		defer l.asleep.Store(false)
	}
	return l.Link.Wait(timeout)
}

func TestSpinAfter(t *testing.T) {
	const spin = 50 * time.Microsecond
	for gap, want := range map[time.Duration]time.Duration{
		60 * time.Microsecond: 4 * spin, 200 * time.Microsecond: 4 * spin, 201 * time.Microsecond: spin, time.Hour: spin,
	} {
		require.Equal(t, want, spinAfter(spin, gap), gap)
	}
}
