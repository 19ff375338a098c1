package bench

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
)

// streamSocket connects to the subject.
func streamSocket(t task) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("bench: make the client's socket: %w", err)
	}
	patience := unix.NsecToTimeval(int64(askPatience))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion),
		unix.Connect(fd, sockaddr(t)),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bench: connect the client to %s: %w", t.Address, err)
	}
	return fd, nil
}

// askStream sends a question and reads its answer, which must be the same.
func (c *asker) askStream() (time.Duration, error) {
	for i := range c.out {
		c.out[i] = byte(c.number) + byte(i)
	}
	start := time.Now()
	if n, e := rawIO(unix.SYS_WRITE, c.fd, c.out); e != 0 || n != len(c.out) {
		return 0, fmt.Errorf("bench: the client sent %d bytes of %d: %w", n, len(c.out), e)
	}
	for got := 0; got < len(c.in); {
		n, e := rawIO(unix.SYS_READ, c.fd, c.in[got:])
		switch {
		case e == unix.EINTR || e == unix.EAGAIN:
			if time.Since(start) > askPatience {
				return 0, fmt.Errorf("bench: no answer came for %v", askPatience)
			}
		case e != 0:
			return 0, fmt.Errorf("bench: the client's receive: %w", e)
		case n == 0:
			return 0, errors.New("bench: the subject closed the connection")
		default:
			got += n
		}
	}
	took := time.Since(start)
	if string(c.in) != string(c.out) {
		return 0, fmt.Errorf("bench: the answer to %x is %x", c.out, c.in)
	}
	return took, nil
}

// moveBytes writes all that it can, or reads and throws away, and is served as a subject is.
func moveBytes(t task, c *counters, ready func()) error {
	fd, err := streamSocket(t)
	if err != nil {
		return err
	}
	move, count := unix.Write, &c.Sent
	if t.Role == child.StreamSend {
		move, count = unix.Read, &c.Received
	}
	b := make([]byte, child.Bulk)
	ready()
	for {
		n, err := move(fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return fmt.Errorf("no byte came for %v", askPatience)
		case err != nil:
			return err
		case n == 0:
			return errors.New("the subject closed the connection")
		}
		count.Add(uint64(n))
	}
}

// A connector makes connections to the subject, each of which carries a byte there and the same back and is closed by FINs
// both ways, the client's first.
type connector struct {
	to      *unix.SockaddrInet4
	epoll   int
	workers []worker
	times   []int64 // of connections that were made, ns
	failed  int
}

// worker is one connection of a connector.
type worker struct {
	fd    int
	stage stage
	start time.Time
}

// stage is what a connection waits for.
type stage int

const (
	connecting stage = iota // to be established
	asking                  // for the answer
	closing                 // for the subject's FIN
)

// connectMain keeps as many connections under way as the task has workers.
func connectMain(t task) error {
	c, err := startConnector(t)
	if err != nil {
		return err
	}
	if err := c.run(time.Now().Add(warmUp)); err != nil {
		return err
	}
	c.times, c.failed = c.times[:0], 0
	begin := time.Now()
	if err := c.run(begin.Add(t.Duration)); err != nil {
		return err
	}
	took := time.Since(begin)
	return errors.Join(tell(c.times, c.failed+c.hanging(), took), c.close())
}

// startConnector begins the first connection of each worker.
func startConnector(t task) (*connector, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("bench: make the client's epoll: %w", err)
	}
	c := &connector{to: sockaddr(t), epoll: epoll, times: make([]int64, 0, askMost)}
	for i := range t.Workers {
		c.workers = append(c.workers, worker{})
		if err := c.connect(i); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// hanging is how many connections have taken longer than one may.
func (c *connector) hanging() (n int) {
	for _, w := range c.workers {
		if time.Since(w.start) > askPatience {
			n++
		}
	}
	return n
}

func (c *connector) close() error {
	err := unix.Close(c.epoll)
	for _, w := range c.workers {
		err = errors.Join(err, unix.Close(w.fd))
	}
	return err
}

// run takes what happens to connections until a moment.
func (c *connector) run(until time.Time) error {
	events := make([]unix.EpollEvent, len(c.workers))
	for len(c.times) < askMost {
		n, err := unix.EpollWait(c.epoll, events, int(askPatience.Milliseconds()))
		now := time.Now()
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("bench: the client's epoll: %w", err)
		case n == 0:
			return fmt.Errorf("bench: no connection got on for %v", askPatience)
		}
		for _, e := range events[:n] {
			if err := c.step(int(e.Fd), now); err != nil {
				return err
			}
		}
		if now.After(until) {
			break
		}
	}
	return nil
}

// connect begins a worker's next connection.
func (c *connector) connect(i int) error {
	w := &c.workers[i]
	var err error
	w.stage, w.start = connecting, time.Now()
	if w.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("bench: make the client's socket: %w", err)
	}
	if err := unix.Connect(w.fd, c.to); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("bench: connect the client: %w", err) // out of ports, for one
	}
	// Edges: one is seen when the connection is there, one for each byte and FIN.
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET, Fd: int32(i)}
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, w.fd, &e); err != nil {
		return fmt.Errorf("bench: the client's epoll: %w", err)
	}
	return nil
}

// step gets a worker's connection on as far as goes without waiting; at its end, good or bad, the next begins.
func (c *connector) step(i int, now time.Time) error {
	w := &c.workers[i]
	var b [2]byte
	switch w.stage {
	case connecting:
		b[0] = byte(i)
		if n, err := unix.Write(w.fd, b[:1]); n == 1 {
			w.stage = asking
			return nil
		} else if err == unix.EAGAIN {
			return nil
		}
		c.failed++
	case asking:
		n, err := unix.Read(w.fd, b[:])
		if err == unix.EAGAIN {
			return nil
		}
		if n == 1 && b[0] == byte(i) && unix.Shutdown(w.fd, unix.SHUT_WR) == nil {
			w.stage = closing
			return nil
		}
		c.failed++
	case closing:
		n, err := unix.Read(w.fd, b[:])
		if err == unix.EAGAIN {
			return nil
		}
		if n == 0 && err == nil {
			c.times = append(c.times, int64(now.Sub(w.start)))
		} else {
			c.failed++
		}
	}
	if err := unix.Close(w.fd); err != nil {
		return fmt.Errorf("bench: close the client's socket: %w", err)
	}
	return c.connect(i)
}
