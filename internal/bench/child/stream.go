package child

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Bulk is how many bytes a subject or a client of TCP gives to one write and takes from one read at most.
const Bulk = 256 << 10

// Room is Bulk for so many connections at a time, of which it is less where there are many.
func Room(connections int) int {
	const least, all = 16 << 10, 32 << 20
	return max(least, min(Bulk, all/max(1, connections)))
}

// ServeStream serves TCP by a listener, whoever's, as the task's role says: a goroutine a connection, blocking calls. It
// returns when the listener fails.
func ServeStream(ln net.Listener, t Task, c *Counters, ready func()) error {
	serve, room := echoStream, 4<<10
	switch t.Role {
	case StreamReceive:
		serve, room = receiveStream, Bulk
	case StreamSend:
		serve, room = sendStream, Bulk
	case StreamsReceive:
		serve, room = receiveStream, Room(t.Workers)
	case StreamsSend:
		same := make([]byte, Room(t.Workers))
		serve, room = func(conn net.Conn, b []byte, c *Counters) error { return sendAsked(conn, b, same, c) }, 1
	case StreamEcho, StreamConnect, StreamRequest:
	default:
		return fmt.Errorf("%q is no role with TCP", t.Role)
	}
	buffers := sync.Pool{New: func() any { b := make([]byte, room); return &b }}
	ready()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return errors.Join(fmt.Errorf("accept: %w", err), ln.Close())
		}
		go func() {
			b := buffers.Get().(*[]byte)
			// A connection ends as its client wants, by a reset too; a client that is let down says so itself.
			_ = serve(conn, *b, c)
			_ = conn.Close()
			buffers.Put(b)
		}()
	}
}

func receiveStream(conn net.Conn, b []byte, c *Counters) error {
	for {
		n, err := conn.Read(b)
		c.Received.Add(uint64(n))
		if err != nil {
			return err
		}
	}
}

func sendStream(conn net.Conn, b []byte, c *Counters) error {
	for {
		n, err := conn.Write(b)
		c.Sent.Add(uint64(n))
		if err != nil {
			return err
		}
	}
}

// sendAsked is sendStream of the bytes that all connections send, once a byte came: then the client has them all.
func sendAsked(conn net.Conn, b, same []byte, c *Counters) error {
	if _, err := conn.Read(b); err != nil {
		return err
	}
	return sendStream(conn, same, c)
}

func echoStream(conn net.Conn, b []byte, c *Counters) error {
	for {
		n, err := conn.Read(b)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		c.Received.Add(uint64(n))
		n, err = conn.Write(b[:n])
		c.Sent.Add(uint64(n))
		if err != nil {
			return err
		}
	}
}
