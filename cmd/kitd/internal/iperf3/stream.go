package iperf3

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// stream is one direction of data. Its goroutine, or for UDP streams that are received the socket's, writes the counters; the
// test reads them.
type stream struct {
	id    int
	sends bool
	conn  net.Conn // TCP
	peer  netip.AddrPort

	bytes    atomic.Int64
	packets  atomic.Int64 // UDP. Sent; or the highest sequence number that came
	lost     atomic.Int64 // UDP
	disorder atomic.Int64 // UDP, came after one with a higher sequence number
	jitter   atomic.Int64 // UDP, ns

	goal   atomic.Int64 // bytes, for UDP packets, at which receiving is complete
	last   atomic.Int64 // when something came, once there is a goal; ns since the test's start
	failed atomic.Pointer[error]

	base counters // at the end of the omitted time
	mark counters // at the last report
	path path     // UDP, the receiver's own
}

// counters is what a stream has done at some moment.
type counters struct {
	bytes, packets, lost, disorder int64

	retransmits int64         // 0 where they are not known, as the next two
	rtt         time.Duration // at that moment
	cwnd        int           // likewise, bytes
}

func newStream(index int, sends bool) *stream {
	s := &stream{id: 1, sends: sends}
	if index > 0 {
		s.id = index + 2 // see the package's comment
	}
	s.goal.Store(math.MaxInt64)
	return s
}

// counters reads them all.
func (s *stream) counters() counters {
	c := counters{bytes: s.bytes.Load(), packets: s.packets.Load(), lost: s.lost.Load(), disorder: s.disorder.Load()}
	if i, ok := s.conn.(Info); ok && s.sends {
		n, rtt, cwnd, _ := i.TCPInfo()
		c.retransmits, c.rtt, c.cwnd = int64(n), rtt, cwnd
	}
	return c
}

// since is what was done after an earlier moment.
func (c counters) since(b counters) counters {
	c.bytes -= b.bytes
	c.packets -= b.packets
	c.lost -= b.lost
	c.disorder -= b.disorder
	c.retransmits -= b.retransmits
	return c
}

// knowsRetransmits reports whether the stream's counters have them.
func (s *stream) knowsRetransmits() bool {
	_, ok := s.conn.(Info)
	return ok && s.sends
}

// fail notes why the stream ended on its own. A deadline is how the test ends it.
func (s *stream) fail(err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		s.failed.Store(&err)
	}
}

// receive counts what comes on a TCP stream until its goal, its end, or a deadline.
func (s *stream) receive(buf []byte, start time.Time) {
	for {
		n, err := s.conn.Read(buf)
		total := s.bytes.Add(int64(n))
		if goal := s.goal.Load(); goal != math.MaxInt64 {
			if n > 0 {
				s.last.Store(int64(time.Since(start)))
			}
			if total >= goal {
				return
			}
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// transmit writes block after block to a TCP stream until it is stopped. budget is what all streams together may still send,
// in bytes; nil: no end. Blocks are always whole: clients from 3.16 on wait for the rest of one.
func (s *stream) transmit(block []byte, pace *pacer, budget *atomic.Int64) {
	for {
		for range pace.wait(int(pace.burst)) {
			if budget != nil && budget.Add(-int64(len(block))) <= -int64(len(block)) {
				return
			}
			n, err := s.conn.Write(block)
			s.bytes.Add(int64(n))
			if err != nil {
				s.fail(err)
				return
			}
		}
		if pace.stopped() {
			return
		}
	}
}

// tune sets what the client asked for and the connection can do.
func (s *stream) tune(p *params, warn func(string, error)) error {
	if err := buffers(s.conn, p.window); err != nil {
		return err
	}
	if c, ok := s.conn.(noDelayer); ok {
		if err := c.SetNoDelay(p.noDelay); err != nil {
			return faultf(codeSetNoDelay, "set TCP_NODELAY: %w", err)
		}
	}
	if c, ok := s.conn.(segmenter); ok && p.mss > 0 {
		if err := c.SetMaxSegment(p.mss); err != nil {
			return faultf(codeSetMSS, "set the maximum segment to %d: %w", p.mss, err)
		}
	}
	if c, ok := s.conn.(classifier); ok && p.tos > 0 {
		if err := c.SetTOS(p.tos); err != nil {
			return faultf(codeSetTOS, "set TOS to %d: %w", p.tos, err)
		}
	}
	if c, ok := s.conn.(Congestion); ok && p.congestion != "" {
		err := c.SetCongestion(p.congestion)
		if errors.Is(err, syscall.ENOENT) {
			warn("no such congestion control here, the test goes on without", err)
		} else if err != nil {
			return faultf(codeSetCongestion, "set congestion control %s: %w", p.congestion, err)
		}
	}
	return nil
}

// buffers sets a socket's buffers; 0 leaves them.
func buffers(c any, bytes int) error {
	if bytes == 0 {
		return nil
	}
	if c, ok := c.(bufferer); ok {
		if err := c.SetReadBuffer(bytes); err != nil {
			return faultf(codeSetBuffer, "set a receive buffer of %d bytes: %w", bytes, err)
		}
	}
	if c, ok := c.(outBufferer); ok {
		if err := c.SetWriteBuffer(bytes); err != nil {
			return faultf(codeSetBuffer, "set a send buffer of %d bytes: %w", bytes, err)
		}
	}
	return nil
}
