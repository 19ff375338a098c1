package bench

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
)

// bytePatience is how long no byte may move on all of many connections: longer than 10,000 users take to write what their send buffers
// hold at first, where all of that memory is new.
const bytePatience = 3 * time.Second

// mover moves bytes on many connections, each in its turn.
type mover struct {
	*connector
	receives bool // what the subject sends
	b        []byte
	moved    *counters
	before   []uint64 // bytes that each connection had carried when the counters were last read
	segments [2]int   // that all had sent by then, and that were sent again
}

// moveOnMany makes connections, and when all are there writes all that it can on each, or reads and throws away. It is served as
// a subject is; its further counters are what unevenness returns of the bytes since they were last read, and the share of segments
// that were sent again.
func moveOnMany(t task, c *counters, ready func()) error {
	connections, err := emptyConnector(t)
	if err != nil {
		return err
	}
	connections.stay, connections.quiet = true, true
	m := &mover{
		connector: connections, receives: t.Role == child.StreamsSend, b: make([]byte, child.Room(t.Workers)), moved: c,
		before: make([]uint64, t.Workers),
	}
	if err := m.establish(); err != nil {
		return err
	}
	if err := m.start(); err != nil {
		return err
	}
	failed := make(chan error, 1)
	c.Update = func() {
		if err := m.update(); err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	}
	ready()
	for {
		select {
		case err := <-failed:
			return err
		default:
		}
		if err := m.round(); err != nil {
			return err
		}
	}
}

// start has epoll tell, from now on, which connections may move bytes, and tells the subject that all are there.
func (m *mover) start() error {
	e := unix.EpollEvent{Events: unix.EPOLLOUT}
	if m.receives {
		e.Events = unix.EPOLLIN
	}
	for i := range m.workers {
		fd := m.workers[i].fd
		e.Fd = int32(i)
		// Reset at the end of the process: nothing of them is left to the subject that comes next.
		err := errors.Join(
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion),
			unix.EpollCtl(m.epoll, unix.EPOLL_CTL_MOD, fd, &e),
		)
		if err == nil && m.receives {
			_, err = unix.Write(fd, m.b[:1])
		}
		if err != nil {
			return fmt.Errorf("bench: begin on a connection: %w", err)
		}
	}
	return nil
}

// round gives each connection that may move bytes its turn.
func (m *mover) round() error {
	n, err := unix.EpollWait(m.epoll, m.events, int(bytePatience.Milliseconds()))
	switch {
	case err == unix.EINTR:
		return nil
	case err != nil:
		return fmt.Errorf("bench: the client's epoll: %w", err)
	case n == 0:
		return fmt.Errorf("bench: no byte moved for %v", bytePatience)
	}
	for _, e := range m.events[:n] {
		if err := m.move(m.workers[e.Fd].fd); err != nil {
			return err
		}
	}
	return nil
}

func (m *mover) move(fd int) error {
	how, count := unix.Write, &m.moved.Sent
	if m.receives {
		how, count = unix.Read, &m.moved.Received
	}
	n, err := how(fd, m.b)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return fmt.Errorf("bench: a connection that should stay fails: %w", err)
	case n == 0:
		return errors.New("bench: the subject closed a connection that should stay")
	}
	count.Add(uint64(n))
	return nil
}

// update asks the kernel what each connection has carried.
func (m *mover) update() error {
	carried := make([]uint64, len(m.workers))
	var segments [2]int
	for i := range m.workers {
		info, err := unix.GetsockoptTCPInfo(m.workers[i].fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return fmt.Errorf("bench: ask a connection how it is: %w", err)
		}
		total := info.Bytes_acked
		if m.receives {
			total = info.Bytes_received
		}
		carried[i], m.before[i] = total-m.before[i], total
		segments[0] += int(info.Data_segs_out)
		segments[1] += int(info.Total_retrans)
	}
	sent, again := segments[0]-m.segments[0], segments[1]-m.segments[1]
	m.segments = segments
	fairness, idle := unevenness(carried)
	m.moved.More = []float64{fairness, idle, float64(again) / float64(max(1, sent))}
	return nil
}

// unevenness returns Jain's index of how evenly connections were served, from 1 / their number to 1 where all carried as much
// (Jain, Chiu and Hawe, DEC-TR-301, 1984), and the share of those that carried nothing.
func unevenness(carried []uint64) (fairness, idle float64) {
	var sum, squares float64
	for _, n := range carried {
		sum += float64(n)
		squares += float64(n) * float64(n)
		if n == 0 {
			idle++
		}
	}
	if sum == 0 {
		return 0, 1
	}
	count := float64(len(carried))
	return sum * sum / (count * squares), idle / count
}
