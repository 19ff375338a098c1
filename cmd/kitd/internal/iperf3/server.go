package iperf3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a server needs. All but Network may be zero.
type Config struct {
	Network Network
	Logger  *slog.Logger // nil: nothing is logged
	// Timeout is how long the server waits for each next step of a client, and how much longer than it said a test may last.
	// 0: 30 seconds.
	Timeout time.Duration
	// IdleTimeout is how long a running test may go without a byte of data. 0: 2 minutes.
	IdleTimeout time.Duration
}

// Server runs one test at a time, whatever the number of addresses that it serves.
type Server struct {
	cfg     Config
	arrived atomic.Int64 // connections accepted
	waiting atomic.Int64 // of those, that have not sent their cookie

	mu     sync.Mutex
	active *session
}

const (
	// maxWaiting is how many connections may be without a cookie at a time; one more is closed at once.
	maxWaiting = 2*maxStreams + 64
	// lastWords is how long a client has to take what it is told at the end.
	lastWords = time.Second
	// keepAlive is how often a silent client is asked whether it lives, where the connection can ask.
	keepAlive = 15 * time.Second
)

// longAgo is a deadline that ends what goes on.
var longAgo = time.Unix(1, 0)

// New makes a server.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 2 * time.Minute
	}
	return &Server{cfg: cfg}
}

// Serve listens on addr and serves clients until ctx ends; then it tells a client whose test runs, closes everything, and
// returns nil. It returns an error when it cannot listen or the listener fails for good.
func (s *Server) Serve(ctx context.Context, addr netip.AddrPort) error {
	l, err := s.cfg.Network.Listen(addr)
	if err != nil {
		return fmt.Errorf("iperf3: listen on %s: %w", addr, err)
	}
	return s.ServeOn(ctx, l)
}

// ServeOn is Serve on a listener of the Network, which it closes.
func (s *Server) ServeOn(ctx context.Context, l net.Listener) error {
	addr := l.Addr()
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer func() { _ = l.Close() }()
	for failures := 0; ; {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("iperf3: accept on %s: %w", addr, err)
		case err != nil:
			if failures++; failures == 1 {
				s.cfg.Logger.Error("iperf3 cannot accept a connection, and goes on trying", "at", addr, "error", err)
			}
			select {
			case <-time.After(min(time.Duration(failures)*10*time.Millisecond, time.Second)):
			case <-ctx.Done():
			}
			continue
		}
		failures = 0
		if s.waiting.Add(1) > maxWaiting {
			s.waiting.Add(-1)
			_ = c.Close()
			continue
		}
		order := s.arrived.Add(1)
		conns.Go(func() { s.handle(ctx, c, order) })
	}
}

// handle takes a connection to where its cookie belongs: to the test of that name, as a stream; to a test of its own; or,
// while another runs, away.
func (s *Server) handle(ctx context.Context, c net.Conn, order int64) {
	log := s.cfg.Logger.With("client", c.RemoteAddr())
	_ = c.SetDeadline(time.Now().Add(s.cfg.Timeout))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(longAgo) })
	name, err := readCookie(c)
	s.waiting.Add(-1)
	if !stop() || err != nil {
		if ctx.Err() == nil && !errors.Is(err, io.EOF) { // nothing said: somebody looked whether the port is open
			log.Warn("iperf3 client refused", "error", err)
		}
		_ = c.Close()
		return
	}
	t := newSession(ctx, s, c, name)
	s.mu.Lock()
	running := s.active
	if running == nil {
		s.active = t
	}
	s.mu.Unlock()
	switch {
	case running == nil:
		t.run()
		s.mu.Lock()
		s.active = nil
		s.mu.Unlock()
	case running.join(c, name, order):
	default:
		log.Info("iperf3 client refused: another test runs")
		_, _ = c.Write([]byte{accessDenied.wire()})
		_ = c.Close()
	}
}
