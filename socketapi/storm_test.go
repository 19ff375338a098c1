package socketapi_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// Goroutines that open, close, send, receive and select the same few sockets meet only the errors that such a race can
// have, and none is left asleep.
func TestStorm(t *testing.T) {
	const workers, sockets, rounds = 8, 6, 400
	w := openStacks(t, true)
	var tokens [sockets]atomic.Int64
	var addrs [sockets]atomic.Pointer[netip.AddrPort]
	open := func(i int) {
		s, addr := w.near.receiver()
		require.NoError(t, w.near.SetTimeout(s, SO_RCVTIMEO, time.Millisecond))
		tokens[i].Store(int64(s))
		addrs[i].Store(&addr)
	}
	for i := range sockets {
		open(i)
	}
	allowed := map[error]bool{nil: true, EBADF: true, EINTR: true, EWOULDBLOCK: true, ECONNREFUSED: true}
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(worker), 9))
			var err error
			buf := make([]byte, 64)
			for range rounds {
				i := rnd.IntN(sockets)
				s := Token(tokens[i].Load())
				switch rnd.IntN(5) {
				case 0:
					if err = w.near.CloseSocket(s); err == nil {
						open(i)
					}
				case 1, 2:
					_, err = w.near.SendTo(s, buf, 0, *addrs[rnd.IntN(sockets)].Load())
				case 3:
					_, _, err = w.near.RecvFrom(s, buf, 0)
				case 4:
					limit := time.Millisecond
					read := set(s, Token(tokens[rnd.IntN(sockets)].Load()))
					_, err = w.near.Select(read.Range(), read, set(), set(s), &limit)
				}
				if !allowed[err] {
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A streamStorm is goroutines on two machines that do to the same few streams whatever comes to their mind.
type streamStorm struct {
	t         *testing.T
	hosts     [2]*host
	listeners [4]slot // two of each machine
	streams   [12]slot
}

// slot holds a socket that any goroutine may replace.
type slot struct {
	h     *host
	token atomic.Int64
	addr  atomic.Pointer[netip.AddrPort] // of a listener
}

// open puts a new socket into a slot and closes the old one, if nobody has done that by now.
func (s *streamStorm) open(l *slot, listens bool) error {
	token, err := l.h.Socket(AF_INET, SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := l.hurries(token); err != nil {
		return err
	}
	if listens {
		addr := netip.AddrPortFrom(INADDR_ANY, 0)
		if err := l.h.Bind(token, &addr); err != nil {
			return err
		}
		if err := l.h.Listen(token, 5); err != nil {
			return err
		}
		l.addr.Store(&addr)
	}
	return l.replace(token)
}

// hurries makes calls on a socket block for a short time only.
func (l *slot) hurries(token Token) error {
	for _, opt := range []int{SO_RCVTIMEO, SO_SNDTIMEO} {
		if err := l.h.SetTimeout(token, opt, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// replace closes what was in the slot.
func (l *slot) replace(token Token) error {
	if err := l.h.CloseSocket(Token(l.token.Swap(int64(token)))); err != EBADF {
		return err
	}
	return nil
}

// step does one thing.
func (s *streamStorm) step(rnd *rand.Rand, buf []byte) error {
	l := &s.listeners[rnd.IntN(len(s.listeners))]
	c := &s.streams[rnd.IntN(len(s.streams))]
	token := Token(c.token.Load())
	switch rnd.IntN(14) {
	case 0:
		if rnd.IntN(8) == 0 {
			return s.open(l, true)
		}
		return s.open(c, false)
	case 1:
		return c.h.CloseSocket(token)
	case 2, 3, 4:
		if err := s.open(c, false); err != nil {
			return err
		}
		return c.h.Connect(Token(c.token.Load()), *l.addr.Load())
	case 5, 6:
		a, _, err := l.h.Accept(Token(l.token.Load()))
		if err != nil {
			return err
		}
		if err := l.hurries(a); err != nil {
			return err
		}
		for i := range s.streams {
			if o := &s.streams[(int(a)+i)%len(s.streams)]; o.h == l.h {
				return o.replace(a)
			}
		}
	case 7, 8:
		_, err := c.h.Send(token, buf[:rnd.IntN(len(buf))], rnd.IntN(2)*MSG_DONTWAIT)
		return err
	case 9, 10:
		_, err := c.h.Recv(token, buf, rnd.IntN(2)*MSG_DONTWAIT)
		return err
	case 11:
		return c.h.Shutdown(token, rnd.IntN(3))
	case 12:
		linger := append(int4(rnd.Int32N(2)), int4(0)...)
		return c.h.SetSockOpt(token, SOL_SOCKET, SO_LINGER, linger)
	default:
		limit := time.Millisecond
		read, write, except := set(token), set(token), set(token)
		if l.h == c.h {
			read.Set(Token(l.token.Load()))
		}
		_, err := c.h.Select(read.Range(), read, write, except, &limit)
		return err
	}
	return nil
}

// Streams that are opened, closed, connected, accepted, written, read, shut and selected by many goroutines at once meet only the
// errors that such a race can have; none is left asleep, and when all tokens are closed nothing is left in either stack.
func TestStreamStorm(t *testing.T) {
	const workers, rounds = 8, 1500
	c := stack.DefaultTCP()
	c.TimeWait, c.FinWait2 = 10*time.Millisecond, 10*time.Millisecond
	c.InitialRTO = 50 * time.Millisecond
	near, far := stack.New(stack.Config{Seed: 1, TCP: &c}), stack.New(stack.Config{Seed: 2, TCP: &c})
	w := joinStacks(t, true, near, far)
	s := &streamStorm{t: t, hosts: [2]*host{w.near, w.far}}
	for i := range s.listeners {
		s.listeners[i].h = s.hosts[i%2]
		s.listeners[i].token.Store(-1)
		require.NoError(t, s.open(&s.listeners[i], true))
	}
	for i := range s.streams {
		s.streams[i].h = s.hosts[i%2]
		s.streams[i].token.Store(-1)
		require.NoError(t, s.open(&s.streams[i], false))
	}
	allowed := map[error]bool{
		nil: true, EBADF: true, EINTR: true, EWOULDBLOCK: true, ECONNREFUSED: true, ECONNRESET: true, EPIPE: true, ENOTCONN: true,
		EISCONN: true, ECONNABORTED: true,
	}
	var met sync.Map
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			rnd, buf := rand.New(rand.NewPCG(uint64(worker), 9)), make([]byte, 20_000)
			for range rounds {
				err := s.step(rnd, buf)
				met.Store(err, true)
				if !allowed[err] {
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for err := range allowed {
		if _, ok := met.Load(err); !ok {
			t.Logf("it never met %v", err)
		}
	}
	for i := range s.listeners {
		require.NoError(t, s.listeners[i].replace(-1))
	}
	for i := range s.streams {
		require.NoError(t, s.streams[i].replace(-1))
	}
	eventually(t, "nothing is left", func() bool { return len(near.Sockets())+len(far.Sockets()) == 0 })
}

// Conns on every address are read, written, moved in time and closed by many goroutines while addresses come, and meet only the
// errors that such a race can have.
func TestPacketConnStorm(t *testing.T) {
	const workers, rounds = 6, 300
	near := newStack(1)
	w := joinStacks(t, true, near, newStack(2))
	var conn atomic.Pointer[UDPConn]
	open := func() {
		c, err := w.near.goNet().ListenUDP("udp", nil)
		require.NoError(t, err)
		conn.Store(c)
	}
	open()
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			rnd, buf, oob := rand.New(rand.NewPCG(uint64(worker), 3)), make([]byte, 64), make([]byte, 80)
			for range rounds {
				c := conn.Load()
				to := netip.AddrPortFrom(w.near.cards[rnd.IntN(2)], portOf(c.LocalAddr()))
				var err error
				switch rnd.IntN(6) {
				case 0:
					if rnd.IntN(20) == 0 && c.Close() == nil {
						open()
					}
				case 1:
					err = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				case 2, 3:
					_, err = c.WriteToUDPAddrPort(buf, to)
				default:
					_, _, _, _, err = c.ReadMsgUDPAddrPort(buf, oob)
				}
				if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	stop := make(chan struct{})
	var hurry sync.WaitGroup
	hurry.Go(func() { // no reader is left waiting when the others are done
		for n := byte(100); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if n < 120 {
				w.near.addAddress(near, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 24).String())
			}
			_ = conn.Load().SetReadDeadline(time.Now().Add(time.Millisecond))
			time.Sleep(time.Millisecond)
		}
	})
	wg.Wait()
	close(stop)
	hurry.Wait()
	require.NoError(t, conn.Load().Close())
	require.Empty(t, near.Sockets())
}
