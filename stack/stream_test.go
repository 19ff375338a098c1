package stack

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
)

// A duo is two stacks with a wire between them: a has 10.0.0.1, b has 10.0.0.2.
type duo struct {
	t    testing.TB
	a, b *Stack
	wire *linktest.Wire
	now  clock.Time
}

func newDuo(t testing.TB, wire linktest.Config, changes ...func(*setup)) *duo {
	p := &duo{t: t, now: begin}
	if wire.Ends == nil {
		wire.Ends = []linktest.EndConfig{{MTU: 1500, HardwareAddr: hostMAC}, {MTU: 1500, HardwareAddr: peerMAC}}
	}
	p.wire = linktest.New(wire)
	for i, to := range []**Stack{&p.a, &p.b} {
		s := setup{}
		s.Seed = uint64(i) + 1
		s.Name, s.Mode = "eth0", Owned
		s.Addresses = []netip.Prefix{netip.MustParsePrefix([]string{hostIP, peerIP}[i] + "/24")}
		for _, c := range changes {
			c(&s)
		}
		s.Links = []Link{p.wire.End(i)}
		*to = New(s.Config)
		_, err := (*to).AddInterface(s.InterfaceConfig)
		require.NoError(t, err)
	}
	p.wait(3 * time.Second)
	t.Cleanup(func() { wantSums(t, p.a); wantSums(t, p.b) })
	return p
}

// settle steps both until nothing is left to do at this moment, and returns when there is.
func (p *duo) settle() clock.Time {
	for range 1_000_000 {
		p.wire.Advance(p.now.Sub(begin))
		next := clock.Earliest(p.a.Step(p.now), p.b.Step(p.now))
		if at, ok := p.wire.NextEvent(); ok {
			next = clock.Earliest(next, begin.Add(at))
		}
		if next == clock.Never || next > p.now {
			return next
		}
	}
	require.FailNow(p.t, "the engines never come to rest")
	return clock.Never
}

// wait moves the time on, stopping wherever something happens.
func (p *duo) wait(d time.Duration) {
	until := p.now.Add(d)
	for {
		next := p.settle()
		if next == clock.Never || next > until {
			break
		}
		p.now = next
	}
	p.now = until
	p.settle()
}

// until waits for something to become true, for a minute at most.
func (p *duo) until(what string, true func() bool) {
	p.t.Helper()
	for end := p.now.Add(time.Minute); !true(); {
		next := p.settle()
		if true() {
			return
		}
		require.False(p.t, next == clock.Never || next > end, "it did not come to pass that %s", what)
		p.now = next
	}
}

func (p *duo) listen(s *Stack, at string, cfg ListenConfig) *Stream {
	p.t.Helper()
	l := s.NewStream()
	require.NoError(p.t, l.Bind(ap(at)))
	require.NoError(p.t, l.Listen(cfg))
	return l
}

func (p *duo) dial(s *Stack, to string) *Stream {
	p.t.Helper()
	c := s.NewStream()
	require.Equal(p.t, syscall.EINPROGRESS, c.Connect(ap(to)))
	return c
}

// connected makes a connection from a to b.
func (p *duo) connected() (c, accepted *Stream) {
	p.t.Helper()
	l := p.listen(p.b, peerIP+":80", ListenConfig{Backlog: 10})
	c = p.dial(p.a, peerIP+":80")
	p.until("the connection is made", func() bool { return c.Connected() && l.Events()&Readable != 0 })
	accepted, err := l.Accept()
	require.NoError(p.t, err)
	require.Equal(p.t, c.LocalAddr(), accepted.RemoteAddr())
	require.Equal(p.t, c.RemoteAddr(), accepted.LocalAddr())
	require.NoError(p.t, l.Close())
	return c, accepted
}

// transfer sends bytes in writes of these sizes in turn, and checks what arrives.
func (p *duo) transfer(from, to *Stream, sent []byte, writes ...int) {
	p.t.Helper()
	left, got, buf := sent, make([]byte, 0, len(sent)), make([]byte, 1<<16)
	for i := 0; len(got) < len(sent); {
		n, err := from.Write(left[:min(len(left), writes[i%len(writes)])])
		if err == nil {
			i++
			left = left[n:]
		} else if len(left) > 0 {
			require.Equal(p.t, syscall.EAGAIN, err)
		}
		p.settle()
		n, err = to.Read(buf)
		if err == syscall.EAGAIN {
			p.until("bytes arrive", func() bool { return to.Events()&Readable != 0 || len(left) > 0 && from.Events()&Writable != 0 })
			continue
		}
		require.NoError(p.t, err)
		got = append(got, buf[:n]...)
	}
	require.Equal(p.t, sent, got)
}

// TestStreamCarriesBytes: what is written arrives, whole, in order, in both directions, and then the end.
func TestStreamCarriesBytes(t *testing.T) {
	p := newDuo(t, linktest.Config{})
	c, s := p.connected()
	sent := []byte(pattern(1 << 20))
	p.transfer(c, s, sent, 1<<20)
	p.transfer(s, c, sent, 1<<20)
	require.NoError(t, c.Shutdown(ShutWrite))
	p.until("the end arrives", func() bool { return s.Events()&Readable != 0 })
	n, err := s.Read(make([]byte, 1))
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, s.Close())
	p.until("the other end arrives", func() bool { return c.Events()&Readable != 0 })
	require.NoError(t, c.Close())
	p.wait(2 * time.Minute)
	require.Empty(t, p.a.Sockets())
	require.Empty(t, p.b.Sockets())
	require.Empty(t, p.a.binds)
	require.Empty(t, p.b.binds)
}

// TestStreamRefused: nobody listens there.
func TestStreamRefused(t *testing.T) {
	p := newDuo(t, linktest.Config{})
	c := p.dial(p.a, peerIP+":80")
	p.until("it is refused", func() bool { return c.Events()&Errored != 0 })
	require.Equal(t, syscall.ECONNREFUSED, c.TakeError())
	require.False(t, c.Connected())
	require.NoError(t, c.Close())
	p.settle()
	require.Empty(t, p.a.binds)
}

// TestStreamToSilence: a neighbour that does not answer is EHOSTUNREACH.
func TestStreamToSilence(t *testing.T) {
	p := newDuo(t, linktest.Config{})
	c := p.dial(p.a, "10.0.0.99:80")
	p.until("it fails", func() bool { return c.Events()&Errored != 0 })
	require.Equal(t, syscall.EHOSTUNREACH, c.TakeError())
}

// TestStreamInside: a connection to an address of our own never sees the card.
func TestStreamInside(t *testing.T) {
	for _, at := range []string{peerIP + ":80", "127.0.0.1:80"} {
		p := newDuo(t, linktest.Config{})
		before := p.b.Stats().TxFrames
		l := p.listen(p.b, at, ListenConfig{Count: 1})
		c := p.dial(p.b, at)
		p.until("the connection is made", func() bool { return c.Connected() && l.Events()&Readable != 0 })
		s, err := l.Accept()
		require.NoError(t, err)
		_, err = c.Write([]byte("hello"))
		require.NoError(t, err)
		p.until("bytes arrive", func() bool { return s.Events()&Readable != 0 })
		b := make([]byte, 10)
		n, err := s.Read(b)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b[:n]))

		second := p.dial(p.b, at)
		p.until("one more is refused", func() bool { return second.Events()&Errored != 0 })
		require.Equal(t, syscall.ECONNREFUSED, second.TakeError())
		require.NoError(t, s.Close())
		third := p.dial(p.b, at)
		p.until("a place is free again", third.Connected)
		require.Equal(t, before, p.b.Stats().TxFrames)
	}
}

// A path whose MTU is below 552 is locked for TCP too: segments become no smaller than that, and go with DF clear.
func TestStreamOverALockedPath(t *testing.T) {
	for _, told := range [][]int{{300}, {0, 552, 300}, {552, 0}} {
		p := newDuo(t, linktest.Config{})
		c, s := p.connected()
		p.settle()
		var segments []sent
		p.a.SetTap(func(_ *Interface, _ int, d Direction, _ DropReason, _ clock.Time, f []byte) {
			if d == Transmitted {
				segments = append(segments, slices.Clone(f))
			}
		})
		step := func() {
			p.a.Step(p.now)
			p.a.Step(p.now)
		}
		text := pattern(2000)
		_, err := c.Write([]byte(text))
		require.NoError(t, err)
		step() // and the other end gets none of it
		for p.wire.End(1).Take() != nil {
		}
		for _, mtu := range told {
			largest := slices.MaxFunc(segments, func(a, b sent) int { return a.ip().TotalLength() - b.ip().TotalLength() })
			require.True(t, largest.ip().DF())
			segments = nil
			before := p.a.Stats().Consumed
			require.True(t, p.wire.End(1).Inject(fragNeeded(largest, mtu)))
			step()
			require.Equal(t, before+1, p.a.Stats().Consumed, "%v: %d is believed", told, mtu)
			for p.wire.End(1).Take() != nil {
			}
			if len(segments) == 0 { // nothing is too long any more: the rest comes by the timer
				p.now = p.now.Add(time.Second)
				step()
			}
		}
		ids := map[uint16]bool{}
		require.NotEmpty(t, segments)
		for _, f := range segments {
			require.LessOrEqual(t, f.ip().TotalLength(), 552, "%v", told)
			require.False(t, f.ip().DF(), "%v", told)
			require.False(t, ids[f.ip().ID()], "%v: an identification comes twice", told)
			ids[f.ip().ID()] = true
		}
		p.a.SetTap(nil)
		got := ""
		p.until("all of it arrives", func() bool {
			b := make([]byte, 4096)
			n, _ := s.Read(b)
			got += string(b[:n])
			return len(got) == len(text)
		})
		require.Equal(t, text, got)
	}
}

// Limits.TimeWaits bounds what connections that are over can hold.
func TestStreamTimeWaitsAreBounded(t *testing.T) {
	p := newDuo(t, linktest.Config{}, func(s *setup) { s.Limits.TimeWaits = 3 })
	for range 5 {
		c, s := p.connected()
		require.NoError(t, c.Shutdown(ShutWrite))
		p.settle()
		require.NoError(t, s.Close())
		p.settle()
		require.NoError(t, c.Close())
		p.settle()
	}
	require.Len(t, p.a.Sockets(), 3)
	require.Empty(t, p.b.Sockets())
	p.wait(2 * time.Minute)
	require.Empty(t, p.a.Sockets())
	require.Empty(t, p.a.binds)
	require.Zero(t, p.a.engines[1].timeWaits)
}
