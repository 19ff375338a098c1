package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// streamService is a service over TCP at one address.
type streamService struct {
	listener net.Listener
	serve    func(net.Conn)
	log      *slog.Logger

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	done   sync.WaitGroup
}

// streamServers are what the services do with a connection. It is closed when they return.
var streamServers = map[string]func(net.Conn){
	"tcp-echo":    echoStream,
	"tcp-discard": discardStream,
	"tcp-chargen": chargenStream,
	"http":        serveHTTP,
}

// maxClients bounds the connections of one service at one address; more are closed as soon as they come.
const maxClients = 10_000

// openStream opens a service at an address.
func openStream(s *stack.Stack, name string, at netip.AddrPort, log *slog.Logger) (*streamService, error) {
	l, err := socketapi.NewNet(s).Listen("tcp4", at.String())
	if err != nil {
		return nil, err
	}
	v := &streamService{listener: l, serve: streamServers[name], log: log.With("service", name, "at", at), conns: map[net.Conn]struct{}{}}
	v.done.Go(v.accept)
	return v, nil
}

func (v *streamService) accept() {
	for {
		c, err := v.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				v.log.Error("the service takes no more connections", "error", err)
			}
			return
		}
		if !v.begin(c) {
			_ = c.Close()
			continue
		}
		v.done.Go(func() {
			defer v.end(c)
			v.serve(c)
		})
	}
}

// begin enters a connection, so that Close reaches it.
func (v *streamService) begin(c net.Conn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed || len(v.conns) >= maxClients {
		return false
	}
	v.conns[c] = struct{}{}
	return true
}

func (v *streamService) end(c net.Conn) {
	_ = c.Close() // its only error is that it is closed already
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.conns, c)
}

// Close ends the service and its connections, and returns when all of it has ended.
func (v *streamService) Close() error {
	err := v.listener.Close()
	v.mu.Lock()
	v.closed = true
	for c := range v.conns {
		_ = c.Close()
	}
	v.mu.Unlock()
	v.done.Wait()
	return err
}

// streamBuffers are for what services read and write.
var streamBuffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// echoStream is RFC 862's TCP service.
func echoStream(c net.Conn) {
	b := streamBuffers.Get().(*[]byte)
	defer streamBuffers.Put(b)
	for {
		n, err := c.Read(*b)
		if n > 0 {
			if _, err := c.Write((*b)[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// discardStream is RFC 863's.
func discardStream(c net.Conn) {
	b := streamBuffers.Get().(*[]byte)
	defer streamBuffers.Put(b)
	for {
		if _, err := c.Read(*b); err != nil {
			return
		}
	}
}

// chargenStream is RFC 864's: it sends lines until the client closes, and throws away what the client sends.
func chargenStream(c net.Conn) {
	var reading sync.WaitGroup
	reading.Go(func() {
		discardStream(c)
		_ = c.Close() // ends the writing below
	})
	defer reading.Wait()
	defer c.Close()
	for {
		if _, err := c.Write(pattern[:]); err != nil {
			return
		}
	}
}

// serveHTTP serves one connection of the service http.
func serveHTTP(c net.Conn) {
	l := &oneListener{conn: c, closed: make(chan struct{})}
	server := newWebServer()
	server.ConnState = l.state
	_ = server.Serve(l) // it ends when the connection does
	_ = server.Shutdown(context.Background())
}

// oneListener is a net.Listener of one connection.
type oneListener struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept returns the connection, and io.EOF when that has ended.
func (l *oneListener) Accept() (c net.Conn, err error) {
	err = io.EOF
	l.once.Do(func() { c, err = l.conn, nil })
	if err != nil {
		<-l.closed
	}
	return c, err
}

func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return l.conn.LocalAddr() }
