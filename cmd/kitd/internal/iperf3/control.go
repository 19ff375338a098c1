package iperf3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// event is something that the client said: a state, a JSON text, or that it says no more.
type event struct {
	state state
	frame []byte
	err   error
}

// errTerminated is a client that gave its test up.
var errTerminated = errors.New("the client has terminated the test")

// control is the control connection. One goroutine reads it and knows what may come when; the session writes.
type control struct {
	conn    net.Conn
	ctx     context.Context
	timeout time.Duration
	events  chan event
	quit    chan struct{} // nobody takes events any more
	ended   chan struct{} // the reader has
}

func newControl(ctx context.Context, conn net.Conn, timeout time.Duration) *control {
	return &control{conn: conn, ctx: ctx, timeout: timeout,
		events: make(chan event), quit: make(chan struct{}), ended: make(chan struct{})}
}

// read reads in the order in which a client speaks: parameters, TEST_END, results, IPERF_DONE. What is out of order it
// leaves to the session.
func (c *control) read() {
	defer close(c.ended)
	if !c.frame(maxParams, codeReceiveParams) {
		return
	}
	var b [1]byte
	for {
		_, err := io.ReadFull(c.conn, b[:])
		at := state(b[0])
		if !c.put(event{state: at, err: err}) || at == clientTerminate || at == iperfDone {
			return
		}
		if at == testEnd && !c.frame(maxResults, codeReceiveResults) {
			return
		}
	}
}

func (c *control) frame(limit int, long code) bool {
	b, err := readFrame(c.conn, limit, long)
	return c.put(event{frame: b, err: err})
}

// put hands an event to the session; false: there are no more.
func (c *control) put(e event) bool {
	select {
	case c.events <- e:
		return e.err == nil
	case <-c.quit:
		return false
	}
}

// send writes to the client, within the time-out, or within lastWords when the server stops.
func (c *control) send(what string, b []byte) error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.timeout))
	defer context.AfterFunc(c.ctx, c.hurry)()
	if _, err := c.conn.Write(b); err != nil {
		return fmt.Errorf("send %s: %w", what, err)
	}
	return nil
}

func (c *control) hurry() { _ = c.conn.SetWriteDeadline(time.Now().Add(lastWords)) }

func (c *control) say(s state) error { return c.send(s.String(), []byte{s.wire()}) }

// next waits for what the client says next, within the time-out.
func (c *control) next(what string) (event, error) {
	late := time.NewTimer(c.timeout)
	defer late.Stop()
	select {
	case e := <-c.events:
		return e, e.problem()
	case <-late.C:
		return event{}, faultf(codeNoMessage, "it did not send %s within %v", what, c.timeout)
	case <-c.ctx.Done():
		return event{}, c.ctx.Err()
	}
}

// problem is an error if the event ends the test.
func (e event) problem() error {
	switch {
	case errors.Is(e.err, io.EOF):
		return errors.New("it closed the control connection before the test was over")
	case e.err != nil:
		return fmt.Errorf("read the control connection: %w", e.err)
	case e.state == clientTerminate:
		return errTerminated
	}
	return nil
}

// unexpected is the error about an event that has no place where it came.
func (e event) unexpected() error {
	if e.frame != nil {
		return faultf(codeMessage, "it sent a JSON text out of turn")
	}
	return faultf(codeMessage, "it sent %v out of turn", e.state)
}

// close ends the connection. Where the client has more to say than anybody wants to hear, as after a fault, it takes that in
// for a moment: closing over unread data would take back what was written last.
func (c *control) close(hear bool) {
	close(c.quit)
	_ = c.conn.SetReadDeadline(longAgo)
	<-c.ended
	if w, ok := c.conn.(closeWriter); ok && hear {
		_ = c.conn.SetReadDeadline(time.Now().Add(lastWords))
		if w.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, c.conn, maxResults)
		}
	}
	_ = c.conn.Close()
}
