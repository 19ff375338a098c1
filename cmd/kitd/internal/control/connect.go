package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// A connection through kitd: POST /v1/connect?to=HOST:PORT is answered with 101 when kitd's stack is connected there, or with
// &fallback=1 the kernel where the stack does not reach, and from then on the bytes of the control connection are those of the stream, each direction ending on its own.

// streamProtocol is the name in the Upgrade header.
const streamProtocol = "kit-stream"

// connectTimeout bounds how long kitd tries; kit itself gives up after about a minute.
const connectTimeout = 75 * time.Second

// Stream is a connection whose directions end on their own.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// connect is the server's side.
func (s *Server) connect(stopped context.Context, w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != streamProtocol {
		refuse(w, http.StatusUpgradeRequired, "connect goes on with another protocol than HTTP: ask with Upgrade: "+streamProtocol)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), connectTimeout)
	defer cancel()
	query := r.URL.Query()
	stream, err := s.source.Connect(ctx, query.Get("to"), query.Get("fallback") == "1")
	if err != nil {
		refuse(w, http.StatusBadGateway, err.Error())
		return
	}
	defer stream.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, http.StatusInternalServerError, "the control connection can't be turned over: "+err.Error())
		return
	}
	defer conn.Close()
	client, ok := conn.(Stream)
	if !ok {
		return // a Listener of this package has no other
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", streamProtocol)
	if err != nil {
		return
	}
	defer context.AfterFunc(stopped, func() { _ = client.Close() })()
	Splice(client, buffered.Reader, stream)
}

// Splice copies both ways until both have ended: what ahead has, and then a's bytes, to b, and b's to a. A direction that ends in
// order ends the other connection's, one that fails closes both.
func Splice(a Stream, ahead io.Reader, b Stream) {
	var both sync.WaitGroup
	pipe := func(to Stream, from io.Reader) {
		defer both.Done()
		if _, err := io.Copy(to, from); err != nil || to.CloseWrite() != nil {
			_ = a.Close()
			_ = b.Close()
		}
	}
	both.Add(2)
	go pipe(b, ahead)
	go pipe(a, b)
	both.Wait()
}

// Connect makes kitd connect its stack to HOST:PORT, or with fallback the kernel where the stack does not reach, and returns the
// connection.
func (c *Client) Connect(ctx context.Context, address string, fallback bool) (Stream, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	stream, err := c.upgrade(conn, address, fallback)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return stream, nil
}

// upgrade asks for the connection.
func (c *Client) upgrade(conn *net.UnixConn, address string, fallback bool) (Stream, error) {
	query := url.Values{"to": {address}}
	if fallback {
		query.Set("fallback", "1")
	}
	at := url.URL{Scheme: "http", Host: "kitd", Path: "/v1/connect", RawQuery: query.Encode()}
	request, err := http.NewRequest(http.MethodPost, at.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%q can't be asked for: %w", address, err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", streamProtocol)
	if err := request.Write(conn); err != nil {
		return nil, c.explain(err)
	}
	ahead := bufio.NewReader(conn)
	response, err := http.ReadResponse(ahead, request)
	if err != nil {
		return nil, fmt.Errorf("kitd on %s broke off: %w", c.path, err)
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		return &aheadConn{conn, ahead}, nil
	}
	defer response.Body.Close()
	var problem Error
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if json.Unmarshal(body, &problem) != nil || problem.Message == "" {
		return nil, errors.New("kitd on " + c.path + " answered " + strconv.Quote(response.Status) + "; are kitd and this command of one version?")
	}
	return nil, &Refusal{Status: response.StatusCode, Message: problem.Message}
}

// aheadConn is a connection of which some was read ahead.
type aheadConn struct {
	*net.UnixConn
	ahead *bufio.Reader
}

// Read reads what was read ahead first.
func (c *aheadConn) Read(b []byte) (int, error) { return c.ahead.Read(b) }
