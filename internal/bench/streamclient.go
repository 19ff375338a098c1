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
// both ways, the client's first. Where they stay, all are there before the first of them that counts is asked, and each is asked
// again as soon as it has answered.
type connector struct {
	to      *unix.SockaddrInet4
	epoll   int
	events  []unix.EpollEvent
	workers []worker
	stay    bool
	quiet   bool    // of connections that stay: they carry nothing until all are there
	waiting int     // connections that stay, and wait for the others
	times   []int64 // of connections that were made or, where they stay, of requests, ns
	failed  int
}

// worker is one connection of a connector.
type worker struct {
	fd       int
	stage    stage
	question byte
	start    time.Time // of the connection or, where it stays, of its request
}

// stage is what a connection waits for.
type stage int

const (
	connecting stage = iota // to be established
	asking                  // for the answer
	closing                 // for the subject's FIN
	resting                 // for the other connections to be there
)

const (
	// connectorBatch is how many events are taken at a time.
	connectorBatch = 128
	// openAtOnce is how many connections that stay are made at a time, few enough for any queue and backlog.
	openAtOnce = 64
	// openPatience is how long they may all take to get on; the kernel tries anew after 1, 2 and 4 s.
	openPatience = 10 * time.Second
)

// connectMain keeps as many connections under way as the task has workers.
func connectMain(t task) error {
	c, err := startConnector(t)
	if err != nil {
		return err
	}
	return c.measure(t.Duration)
}

// requestMain keeps a request under way on each of as many connections as the task has workers.
func requestMain(t task) error {
	c, err := openConnector(t)
	if err != nil {
		return err
	}
	return c.measure(t.Duration)
}

// measure runs for a while after a warm-up, and writes the result.
func (c *connector) measure(d time.Duration) error {
	if err := c.run(time.Now().Add(warmUp)); err != nil {
		return err
	}
	c.times, c.failed = c.times[:0], 0
	before, err := c.resent()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := c.run(begin.Add(d)); err != nil {
		return err
	}
	result := asked{Lost: c.failed + c.hanging(), Took: int64(time.Since(begin))}
	after, err := c.resent()
	if err != nil {
		return err
	}
	result.Resent = after - before
	return errors.Join(tell(c.times, result), c.close())
}

func emptyConnector(t task) (*connector, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("bench: make the client's epoll: %w", err)
	}
	return &connector{
		to: sockaddr(t), epoll: epoll, events: make([]unix.EpollEvent, connectorBatch),
		workers: make([]worker, 0, t.Workers), times: make([]int64, 0, askMost),
	}, nil
}

// startConnector begins the first connection of each worker.
func startConnector(t task) (*connector, error) {
	c, err := emptyConnector(t)
	if err != nil {
		return nil, err
	}
	for range t.Workers {
		if err := c.begin(); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// openConnector makes connections that stay, as many as there are workers, lets each carry a byte there and back, so that the
// subject has it for sure, and asks them all.
func openConnector(t task) (*connector, error) {
	c, err := emptyConnector(t)
	if err != nil {
		return nil, err
	}
	c.stay = true
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *connector) open() error {
	if err := c.establish(); err != nil {
		return err
	}
	// Asked all at once, most of many would be lost before the subject, and be sent again all at once.
	now := time.Now()
	for i := range c.workers {
		err := c.workers[i].again(now)
		if err == nil && i%openAtOnce == openAtOnce-1 {
			now, err = c.turn(openPatience)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// establish makes the connections that stay.
func (c *connector) establish() error {
	for c.waiting < cap(c.workers) {
		for len(c.workers) < min(c.waiting+openAtOnce, cap(c.workers)) {
			if err := c.begin(); err != nil {
				return err
			}
		}
		if _, err := c.turn(openPatience); err != nil {
			return fmt.Errorf("%w, with %d of %d there", err, c.waiting, cap(c.workers))
		}
	}
	return nil
}

// begin begins the first connection of one more worker.
func (c *connector) begin() error {
	c.workers = append(c.workers, worker{question: byte(len(c.workers))})
	return c.connect(len(c.workers) - 1)
}

// hanging is how many connections have taken longer than one, or a request, may.
func (c *connector) hanging() (n int) {
	for _, w := range c.workers {
		if time.Since(w.start) > askPatience {
			n++
		}
	}
	return n
}

// resent is how many segments have been sent again on all connections that stay.
func (c *connector) resent() (n int, err error) {
	if !c.stay {
		return 0, nil
	}
	for _, w := range c.workers {
		info, err := unix.GetsockoptTCPInfo(w.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, fmt.Errorf("bench: ask a connection how it is: %w", err)
		}
		n += int(info.Total_retrans)
	}
	return n, nil
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
	for len(c.times) < askMost {
		now, err := c.turn(askPatience)
		if err != nil {
			return err
		}
		if now.After(until) {
			break
		}
	}
	return nil
}

// turn takes what has happened to connections, and waits for it.
func (c *connector) turn(patience time.Duration) (now time.Time, err error) {
	n, err := unix.EpollWait(c.epoll, c.events, int(patience.Milliseconds()))
	now = time.Now()
	switch {
	case err == unix.EINTR:
		return now, nil
	case err != nil:
		return now, fmt.Errorf("bench: the client's epoll: %w", err)
	case n == 0:
		return now, fmt.Errorf("bench: no connection got on for %v", patience)
	}
	for _, e := range c.events[:n] {
		if err := c.step(int(e.Fd), now); err != nil {
			return now, err
		}
	}
	return now, nil
}

// ask sends the worker's question; it is EAGAIN where the connection is not there yet.
func (w *worker) ask() unix.Errno {
	b := [1]byte{w.question}
	_, e := rawIO(unix.SYS_WRITE, w.fd, b[:])
	if e == 0 {
		w.stage = asking
	}
	return e
}

// again asks on a connection that stays.
func (w *worker) again(now time.Time) error {
	w.start = now
	w.question++
	if e := w.ask(); e != 0 {
		return fmt.Errorf("bench: the client's send: %w", e)
	}
	return nil
}

// answered takes the answer on a connection that stays.
func (c *connector) answered(w *worker, now time.Time) error {
	if c.waiting < cap(c.workers) {
		w.stage = resting
		c.waiting++
		return nil
	}
	c.times = append(c.times, int64(now.Sub(w.start)))
	return w.again(now)
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

// connected looks at a connection that is there or has failed, and carries nothing yet.
func (c *connector) connected(w *worker) error {
	failed, err := unix.GetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && failed != 0 {
		err = unix.Errno(failed)
	}
	if err != nil {
		return fmt.Errorf("bench: connect the client: %w", err)
	}
	w.stage = resting
	c.waiting++
	return nil
}

// step gets a worker's connection on as far as goes without waiting; at its end, good or bad, the next begins.
func (c *connector) step(i int, now time.Time) error {
	w := &c.workers[i]
	var b [2]byte
	var n int
	var e unix.Errno
	switch w.stage {
	case resting:
		return nil
	case connecting:
		if c.quiet {
			return c.connected(w)
		}
		if e = w.ask(); e == 0 || e == unix.EAGAIN {
			return nil
		}
		c.failed++
	case asking:
		n, e = rawIO(unix.SYS_READ, w.fd, b[:])
		right := n == 1 && b[0] == w.question
		switch {
		case e == unix.EAGAIN:
			return nil
		case right && c.stay:
			return c.answered(w, now)
		case right && unix.Shutdown(w.fd, unix.SHUT_WR) == nil:
			w.stage = closing
			return nil
		}
		c.failed++
	case closing:
		n, e = rawIO(unix.SYS_READ, w.fd, b[:])
		if e == unix.EAGAIN {
			return nil
		}
		if n == 0 && e == 0 {
			c.times = append(c.times, int64(now.Sub(w.start)))
		} else {
			c.failed++
		}
	}
	switch {
	case c.stay && e != 0:
		return fmt.Errorf("bench: a connection that should stay fails: %w", e)
	case c.stay && n == 0:
		return errors.New("bench: the subject closed a connection that should stay")
	case c.stay:
		return fmt.Errorf("bench: the answer to %x is %x", []byte{w.question}, b[:n])
	}
	if err := unix.Close(w.fd); err != nil {
		return fmt.Errorf("bench: close the client's socket: %w", err)
	}
	return c.connect(i)
}
