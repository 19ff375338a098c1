package stack

import (
	"math/rand/v2"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/tcp"
)

// DefaultTCP are the numbers of TCP that a stack has where Config.TCP says nothing: those of tcp.DefaultConfig, but that an
// attempt to connect ends after a minute (network-kit.md), not two.
func DefaultTCP() tcp.Config {
	c := tcp.DefaultConfig()
	c.SYNRetries = 5 // 1+2+4+8+16+32 s
	return c
}

// initTCP prepares what the engines' layers have in common.
func (s *Stack) initTCP(cfg Config) {
	s.tcp = DefaultTCP()
	if cfg.TCP != nil {
		s.tcp = *cfg.TCP
	}
	for i := range s.secret {
		s.secret[i] = byte(s.rand.Uint32())
	}
	s.connKey = [2]uint64{s.rand.Uint64(), s.rand.Uint64()}
}

// newLayer is an engine's state machine, with the same secrets as every other engine's: what one gave away in a cookie another
// can read. The sequence numbers that it chooses follow from the secrets, the four numbers of a connection, and time (RFC 6528).
func (s *Stack) newLayer() *tcp.Layer {
	cfg := s.tcp
	cfg.Random = rand.NewChaCha8(s.secret).Uint64
	l, err := tcp.NewLayer(cfg)
	if err != nil {
		panic(err) // Config.TCP says so
	}
	return l
}

// TCPStats sums what the engines' state machines have counted.
func (s *Stack) TCPStats() (sum tcp.Stats) {
	for _, e := range s.engines {
		e.do(func() {
			l := e.layer.Stats()
			sum.Add(&l)
		})
	}
	return sum
}

// lingering is how long Close waits for connections to end in order before it resets them.
const lingering = time.Second

// closeStreams closes every connection by the rules: what was written is sent, then FIN, and whoever has not answered after a
// while gets RST, as nobody will be there to speak for the connection.
func (s *Stack) closeStreams() {
	s.mu.Lock()
	open := make([]*Stream, 0, len(s.streams))
	for st := range s.streams {
		open = append(open, st)
	}
	s.mu.Unlock()
	for _, st := range open {
		_ = st.Close() // its only error is that it is closed already
	}
	open = open[:0]
	s.eachStream(func(_ *Engine, st *Stream) { open = append(open, st) }) // accepted, or still half-open
	for _, st := range open {
		_ = st.Close()
	}
	for deadline := clock.Now().Add(lingering); s.unfinished() > 0 && clock.Now() < deadline; {
		if !s.running() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.eachStream(func(e *Engine, st *Stream) {
		st.conn.Abort(e.now) // no RST leaves in TIME-WAIT
		e.touch(st)
	})
}

// finished reports whether a closed connection's peer has acknowledged all, the end included.
func finished(s tcp.State) bool { return s == tcp.TimeWait || s == tcp.FinWait2 || s == tcp.Closed }

func (s *Stack) eachStream(f func(*Engine, *Stream)) {
	for _, e := range s.engines {
		e.do(func() { e.conns.each(func(st *Stream) { f(e, st) }) })
	}
}

// unfinished counts the connections whose peer has not heard of the end.
func (s *Stack) unfinished() (n int) {
	s.eachStream(func(_ *Engine, st *Stream) {
		if !finished(st.conn.State()) {
			n++
		}
	})
	return n
}

func (s *Stack) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// TCPConfig are the numbers of TCP in use.
func (s *Stack) TCPConfig() tcp.Config { return s.tcp }
