package stack

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/instructions"
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// No segment allocates, in either direction.
func TestStreamsDoNotAllocate(t *testing.T) {
	full, buf := []byte(pattern(1460)), make([]byte, 1<<16)
	read := func(s *Stream, want int) {
		if n, err := s.Read(buf); n != want || err != nil {
			t.Fatal(n, err)
		}
	}
	write := func(s *Stream, b []byte) {
		if n, err := s.Write(b); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
	}
	start := func() (*crowd, *Stream) {
		c := newCrowd(t)
		c.grow(1)
		return c, c.streams[0]
	}
	t.Run("receive", func(t *testing.T) {
		c, s := start()
		wantNoAllocs(t, "segments", func() {
			for range 10 {
				c.sends(0, wire.ACK, full)
			}
			read(s, 14600)
			c.step(0)
		})
	})
	t.Run("receive out of order", func(t *testing.T) {
		c, s := start()
		k := &c.clients[0]
		wantNoAllocs(t, "segments", func() {
			k.nxt += 1460
			c.sends(0, wire.ACK, full)
			k.nxt -= 2920
			c.sends(0, wire.ACK, full)
			k.nxt += 1460
			read(s, 2920)
			c.step(0)
		})
	})
	t.Run("send", func(t *testing.T) {
		c, s := start()
		wantNoAllocs(t, "segments and their ACKs", func() {
			write(s, full)
			write(s, full)
			c.step(0)
			c.sends(0, wire.ACK, nil)
		})
	})
	t.Run("send in bundles", func(t *testing.T) {
		c, s := start()
		link := &bundleHose{Hose: c.link}
		c.e.bundle.link = link
		many := []byte(pattern(5 * 536))
		wantNoAllocs(t, "bundles and their ACKs", func() {
			write(s, many)
			c.step(0)
			c.clients[0].rcv = c.clients[0].rcv.Add(len(many))
			c.sends(0, wire.ACK, nil)
		})
		require.NotZero(t, link.bundles)
		require.Zero(t, c.TCPStats().RetransmittedSegments)
	})
	t.Run("request and response", func(t *testing.T) {
		c, s := start()
		w := NewWaiter()
		s.Watch(w, Readable|Writable)
		wantNoAllocs(t, "one of each", func() {
			c.sends(0, wire.ACK|wire.PSH, full[:100])
			read(s, 100)
			write(s, full[:100])
			c.step(0)
			c.now = c.now.Add(100 * time.Microsecond)
			<-w.C
		})
	})
	t.Run("request and response with pauses", func(t *testing.T) {
		c, s := start()
		wantNoAllocs(t, "the rings give their memory back and take it again", func() {
			c.sends(0, wire.ACK|wire.PSH, full[:100])
			read(s, 100)
			write(s, full[:100])
			c.step(0)
			c.sends(0, wire.ACK, nil)
			c.rest()
		})
		wantNoMemory(t, s)
	})
	t.Run("lost and sent again", func(t *testing.T) {
		c, s := start()
		wantNoAllocs(t, "time-outs", func() {
			write(s, full[:100])
			c.step(0)
			for before := c.link.Sent; c.link.Sent == before; c.step(0) {
				c.now = c.now.Add(50 * time.Millisecond)
			}
			c.sends(0, wire.ACK, nil)
		})
	})
	t.Run("refused and ignored", func(t *testing.T) {
		c, _ := start()
		stray := client{addr: addr("192.0.2.250"), port: 9}
		c.clients = append(c.clients, stray)
		wantNoAllocs(t, "what has no connection", func() {
			c.sends(1, wire.ACK, full)
			c.sends(1, wire.RST, nil)
			c.sends(1, wire.FIN, nil)
		})
	})
	t.Run("cookies", func(t *testing.T) {
		c, _ := start()
		require.NoError(t, c.l.Listen(ListenConfig{Backlog: 10, HalfOpen: 1}))
		c.clients = append(c.clients, client{addr: addr("192.0.2.250"), port: 9}, client{addr: addr("192.0.2.250"), port: 10})
		c.sends(1, wire.SYN, nil)
		wantNoAllocs(t, "a flood", func() {
			c.sends(2, wire.SYN, nil)
			c.clients[2].port++
		})
		require.NotZero(t, c.TCPStats().CookiesSent)
	})
}

// lives are whole lives of a connection: its handshake, bytes both ways, and its end.
var lives = map[string]func(c *crowd){
	"accepted": func(c *crowd) {
		s := c.accepts()
		c.exchanges(s)
		c.measured(func() {
			instructions.Must(c.t, s.Close())
			c.step(0)
		})
		c.sends(0, wire.FIN|wire.ACK, nil)
	},
	"accepted, closed by the client": func(c *crowd) {
		s := c.accepts()
		c.exchanges(s)
		c.sends(0, wire.FIN|wire.ACK, nil)
		c.measured(func() {
			instructions.Must(c.t, s.Close())
			c.step(0)
		})
		c.sends(0, wire.ACK, nil)
	},
	"begun here": func(c *crowd) {
		k := &c.clients[0]
		var s *Stream
		var err error
		peer := ap("192.0.2.1:80")
		c.measured(func() {
			s = c.NewStream()
			err = s.Connect(peer)
		})
		require.Equal(c.t, syscall.EINPROGRESS, err)
		k.addr, k.port = addr("192.0.2.1"), 80
		c.to = s.LocalAddr().Port()
		c.measured(func() { c.step(0) })
		c.sends(0, wire.SYN|wire.ACK, nil)
		require.True(c.t, s.Connected())
		c.exchanges(s)
		c.measured(func() {
			instructions.Must(c.t, s.Close())
			c.step(0)
		})
		c.sends(0, wire.FIN|wire.ACK, nil)
		c.to = 80
	},
}

// accepts is a handshake that the client begins.
func (c *crowd) accepts() (s *Stream) {
	c.sends(0, wire.SYN, nil)
	c.sends(0, wire.ACK, nil)
	c.measured(func() {
		var err error
		s, err = c.l.Accept()
		instructions.Must(c.t, err)
	})
	return s
}

// exchanges is 100 bytes from the client and as many back.
func (c *crowd) exchanges(s *Stream) {
	buf := c.buf[:]
	c.sends(0, wire.ACK|wire.PSH, buf)
	c.measured(func() {
		n, err := s.Read(buf)
		instructions.Must(c.t, err)
		_, err = s.Write(buf[:n])
		instructions.Must(c.t, err)
		c.step(0)
	})
}

// over waits for the end of a life's TIME-WAIT.
func (c *crowd) over() {
	c.clients[0].nxt += 1000
	for until := c.now.Add(61 * time.Second); ; c.now = c.now.Add(time.Second) {
		if next := c.e.Step(c.now); next == clock.Never || c.now > until {
			break
		}
	}
	c.now = c.now.Add(time.Second)
	require.Zero(c.t, c.e.conns.count, "it is over")
}

// newLife is a crowd with a client whose lives can be led.
func newLife(t testing.TB) *crowd {
	c := newCrowd(t)
	c.clients = append(c.clients, client{addr: addr("192.0.2.9"), port: 4000})
	return c
}

// The whole life of a connection costs few allocations: its handshake, bytes both ways, its end and TIME-WAIT.
func TestStreamLivesAllocateLittle(t *testing.T) {
	for name, live := range lives {
		t.Run(name, func(t *testing.T) {
			c := newLife(t)
			run := func() {
				live(c)
				c.over()
			}
			for range 100 {
				run()
			}
			n := testing.AllocsPerRun(300, run)
			t.Logf("%.1f allocations", n)
			require.LessOrEqual(t, n, 4.0)
		})
	}
}
