package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/cmd/kitd/internal/pcapfilter"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/pcapng"
	"kitnet.dev/kit/stack/wire"
)

// Room of a capture between the engines and its writer, and how much of it one
// takes that wants few frames.
const (
	captureBytes  = 4 << 20
	captureFrames = 16384
	longestFrame  = 70 << 10
)

// tap shows the stack's frames to all captures that run. While there is none,
// engines look at a nil pointer.
type tap struct {
	stack  *stack.Stack
	number func(i *stack.Interface, engine int) int // an engine's queue of the card

	mu sync.Mutex
	// sessions is replaced, never changed: engines read it without the lock.
	sessions atomic.Pointer[[]*session]
}

func (t *tap) add(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append(slices.Clone(t.list()), s)
	t.sessions.Store(&all)
	if len(all) == 1 {
		t.stack.SetTap(t.show)
	}
}

func (t *tap) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(t.list()), func(o *session) bool { return o == s })
	t.sessions.Store(&all)
	if len(all) == 0 {
		t.stack.SetTap(nil)
	}
}

func (t *tap) list() []*session {
	if all := t.sessions.Load(); all != nil {
		return *all
	}
	return nil
}

// show is called on the engines.
func (t *tap) show(i *stack.Interface, queue int, dir stack.Direction, reason stack.DropReason, at clock.Time, frame []byte) {
	for _, s := range t.list() {
		if s.drops && reason == stack.NotDropped || !s.filter.Match(frame) {
			continue
		}
		s.put(captured{iface: i, queue: t.number(i, queue), dir: dir, reason: reason, at: at, length: len(frame)}, frame)
	}
}

// captured is a frame in a batch.
type captured struct {
	iface  *stack.Interface
	queue  int
	dir    stack.Direction
	reason stack.DropReason
	at     clock.Time
	length int // bytes
}

// batch holds frames, one behind the other, in room that does not grow.
type batch struct {
	frames []captured
	bytes  []byte
}

// newBatch makes a batch for a capture of count frames, 0: no end.
func newBatch(count uint64) *batch {
	frames, bytes := captureFrames, captureBytes
	if count > 0 && count < captureFrames {
		frames, bytes = int(count), min(captureBytes, int(count)*longestFrame)
	}
	return &batch{frames: make([]captured, 0, frames), bytes: make([]byte, 0, bytes)}
}

// session is one capture. Engines fill one batch while its writer empties the
// other; what finds the batch full is lost and counted, so that a slow reader
// never holds up an engine.
type session struct {
	filter *pcapfilter.Filter
	drops  bool
	count  uint64 // of frames wanted; 0: no end

	mu      sync.Mutex
	filling *batch
	got     uint64 // frames that found room
	lost    uint64
	ready   chan struct{} // capacity 1: there is something in filling
}

func newSession(filter *pcapfilter.Filter, r control.CaptureRequest) *session {
	return &session{filter: filter, drops: r.Drops, count: r.Count, filling: newBatch(r.Count), ready: make(chan struct{}, 1)}
}

func (s *session) put(c captured, frame []byte) {
	s.mu.Lock()
	b := s.filling
	switch {
	case s.count > 0 && s.got == s.count: // the writer is about to end
	case len(b.frames) == cap(b.frames) || len(b.bytes)+len(frame) > cap(b.bytes):
		s.lost++
	default:
		b.frames = append(b.frames, c)
		b.bytes = append(b.bytes, frame...)
		s.got++
	}
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// take gives the engines an empty batch for the one they filled.
func (s *session) take(empty *batch) (full *batch, lost uint64) {
	empty.frames, empty.bytes = empty.frames[:0], empty.bytes[:0]
	s.mu.Lock()
	defer s.mu.Unlock()
	full, s.filling = s.filling, empty
	return full, s.lost
}

// prepare checks a request and returns the function that captures.
func (t *tap) prepare(r control.CaptureRequest, application string) (control.CaptureRun, error) {
	filter, err := pcapfilter.Compile(r.Filter)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w io.Writer, started func()) control.CaptureResult {
		s := newSession(filter, r)
		out := sink(&textSink{out: bufio.NewWriterSize(w, 64<<10)})
		if r.Format == control.FormatPcapng {
			out = newPcapngSink(w, t.stack.Interfaces(), application)
		}
		t.add(s)
		defer t.remove(s)
		started()
		return s.run(ctx, out)
	}, nil
}

// run writes what the engines put until there are count frames, ctx ends or the
// sink fails.
func (s *session) run(ctx context.Context, out sink) (result control.CaptureResult) {
	epoch := wallClock()
	b := newBatch(s.count)
	if out.flush() != nil {
		return result
	}
	for {
		select {
		case <-ctx.Done():
			return result
		case <-s.ready:
		}
		b, result.Lost = s.take(b)
		bytes := b.bytes
		for i := range b.frames {
			c := &b.frames[i]
			if out.write(c, epoch.Add(time.Duration(c.at)), bytes[:c.length]) != nil {
				return result
			}
			bytes = bytes[c.length:]
			if result.Captured++; result.Captured == s.count {
				_ = out.flush()
				return result
			}
		}
		if out.flush() != nil {
			return result
		}
	}
}

// wallClock is the time of day at which the stack's clock was 0.
func wallClock() time.Time { return time.Now().Add(-time.Duration(clock.Now())) }

// sink writes a capture in one format.
type sink interface {
	write(c *captured, at time.Time, frame []byte) error
	flush() error
}

// verdict is the frame's end in words, "" where it was not dropped.
func (c *captured) verdict() string {
	if c.reason == stack.NotDropped {
		return ""
	}
	return "drop: " + c.reason.String()
}

// textSink writes a line a frame.
type textSink struct{ out *bufio.Writer }

func (s *textSink) write(c *captured, at time.Time, frame []byte) error {
	_, err := fmt.Fprintf(s.out, "%s %s/%d %-3s %s", at.Format("15:04:05.000000"), c.iface.Name(), c.queue, c.dir, wire.Dump(frame))
	if v := c.verdict(); v != "" && err == nil {
		_, err = s.out.WriteString("  [" + v + "]")
	}
	if err == nil {
		err = s.out.WriteByte('\n')
	}
	return err
}

func (s *textSink) flush() error { return s.out.Flush() }

// pcapngSink writes pcapng: one interface for each of the stack's, the direction
// in the packet's flags, queue and drop reason in its comment.
type pcapngSink struct {
	out *bufio.Writer
	w   *pcapng.Writer
	ids map[*stack.Interface]int
	err error
}

func newPcapngSink(w io.Writer, interfaces []*stack.Interface, application string) *pcapngSink {
	s := &pcapngSink{out: bufio.NewWriterSize(w, 64<<10), ids: map[*stack.Interface]int{}}
	if s.w, s.err = pcapng.NewWriter(s.out, application); s.err != nil {
		return s
	}
	for _, i := range interfaces {
		if s.ids[i], s.err = s.w.AddInterface(pcapng.Interface{Name: i.Name()}); s.err != nil {
			return s
		}
	}
	return s
}

func (s *pcapngSink) write(c *captured, at time.Time, frame []byte) error {
	if s.err != nil {
		return s.err
	}
	comment := "queue " + strconv.Itoa(c.queue)
	if v := c.verdict(); v != "" {
		comment += ", " + v
	}
	direction := pcapng.Inbound
	if c.dir == stack.Transmitted {
		direction = pcapng.Outbound
	}
	return s.w.WritePacket(&pcapng.Packet{Interface: s.ids[c.iface], Time: at, Data: frame, Direction: direction, Comment: comment})
}

func (s *pcapngSink) flush() error {
	if s.err != nil {
		return s.err
	}
	return s.out.Flush()
}
