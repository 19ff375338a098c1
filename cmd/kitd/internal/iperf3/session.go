package iperf3

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// interval is how often a running test is looked at, and what a line in the report covers.
	interval = time.Second
	// drainTCP and drainUDP are how long the server waits, once it knows what the client sent, for the rest to arrive. UDP's
	// may be lost, and then it waits for nothing.
	drainTCP = 2 * time.Second
	drainUDP = 250 * time.Millisecond
	// maxReceive is the room for reading of all TCP streams together, where the client's blocks are large.
	maxReceive = 32 << 20
)

// session is one test, from the client's cookie to its end.
type session struct {
	srv    *Server
	log    *slog.Logger
	ctl    *control
	name   cookie
	client netip.AddrPort
	local  netip.AddrPort
	p      *params
	epoch  time.Time // receivers' moments are ns since then

	mu      sync.Mutex
	joining bool
	joined  []joiner
	full    chan struct{} // closed when all TCP streams are there

	streams   []*stream
	udp       *udp
	stop      chan struct{} // closed when the server is to send no more
	senders   sync.WaitGroup
	receivers sync.WaitGroup

	counted time.Time // when counting began: the start, later the end of the omitted time
	cpu     cpuClock
	report  *report
}

// joiner is a TCP stream's connection, with its place in the order of all that were accepted.
type joiner struct {
	conn  net.Conn
	order int64
}

func newSession(ctx context.Context, s *Server, c net.Conn, name cookie) *session {
	return &session{
		srv: s, log: s.cfg.Logger.With("client", c.RemoteAddr()), ctl: newControl(ctx, c, s.cfg.Timeout), name: name,
		epoch: time.Now(), full: make(chan struct{}), stop: make(chan struct{}),
	}
}

// run plays the server's part to the end, and ends everything that the test began.
func (t *session) run() {
	_ = t.ctl.conn.SetDeadline(time.Time{})
	if k, ok := t.ctl.conn.(keepAliver); ok {
		_ = k.SetKeepAlive(true) // else a dead client is found by the time-outs alone
		_ = k.SetKeepAlivePeriod(keepAlive)
	}
	go t.ctl.read()
	err := t.play()
	t.halt()
	var f *fault
	switch {
	case err == nil:
	case t.ctl.ctx.Err() != nil:
		t.log.Info("iperf3 test ended: the server stops")
		_ = t.ctl.say(serverTerminate)
	case errors.Is(err, errTerminated):
		t.log.Info("iperf3 test ended", "error", err)
	case errors.As(err, &f):
		t.log.Warn("iperf3 test failed", "error", err)
		_ = t.ctl.send(serverError.String(), f.message())
	default:
		t.log.Warn("iperf3 test failed", "error", err)
	}
	t.ctl.close(err != nil)
}

func (t *session) play() error {
	var err error
	if t.client, err = addrPort(t.ctl.conn.RemoteAddr()); err != nil {
		return err
	}
	if t.local, err = addrPort(t.ctl.conn.LocalAddr()); err != nil {
		return err
	}
	if err = t.agree(); err != nil {
		return err
	}
	if t.p.udp {
		err = t.openUDP()
	} else {
		err = t.openTCP()
	}
	if err != nil {
		return err
	}
	if err = t.transfer(); err != nil {
		return err
	}
	return t.finish()
}

// agree gets the parameters.
func (t *session) agree() error {
	if err := t.ctl.say(paramExchange); err != nil {
		return err
	}
	e, err := t.ctl.next("its parameters")
	if err != nil {
		return err
	}
	t.p, err = parseParams(e.frame)
	if err == nil && t.p.serverOutput {
		t.report = &report{p: t.p}
	}
	return err
}

// join takes a connection as one of the test's TCP streams, if it is waiting for one of this name.
func (t *session) join(c net.Conn, name cookie, order int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.joining || name != t.name || len(t.joined) == t.p.streams() {
		return false
	}
	_ = c.SetDeadline(time.Time{})
	t.joined = append(t.joined, joiner{c, order})
	if len(t.joined) == t.p.streams() {
		close(t.full)
	}
	return true
}

// openTCP waits for the streams.
func (t *session) openTCP() error {
	t.mu.Lock()
	t.joining = true
	t.mu.Unlock()
	if err := t.ctl.say(createStreams); err != nil {
		return err
	}
	if err := t.await(t.full, nil); err != nil {
		return err
	}
	t.mu.Lock()
	// The client numbers its streams as it opens them, and their cookies may overtake each other.
	slices.SortFunc(t.joined, func(a, b joiner) int { return cmp.Compare(a.order, b.order) })
	for i, j := range t.joined {
		s := newStream(i, t.p.reverse || i >= t.p.parallel)
		s.conn = j.conn
		t.streams = append(t.streams, s)
	}
	t.mu.Unlock()
	for _, s := range t.streams {
		if err := s.tune(t.p, func(what string, err error) { t.log.Warn("iperf3: "+what, "error", err) }); err != nil {
			return err
		}
	}
	return nil
}

// openUDP makes the socket and waits for the streams.
func (t *session) openUDP() error {
	c, err := t.srv.cfg.Network.ListenPacket(t.local)
	if err != nil {
		return faultf(codeStreamListen, "open UDP %s: %w", t.local, err)
	}
	t.udp = newUDP(c, t.p, t.client.Addr(), t.epoch)
	go t.udp.read()
	if err := t.udp.room(); err != nil {
		return err
	}
	if k, ok := c.(classifier); ok && t.p.tos > 0 {
		if err := k.SetTOS(t.p.tos); err != nil {
			return faultf(codeSetTOS, "set TOS to %d: %w", t.p.tos, err)
		}
	}
	if err := t.ctl.say(createStreams); err != nil {
		return err
	}
	if err := t.await(t.udp.opened, t.udp.done); err != nil {
		return err
	}
	t.streams = t.udp.streams
	return nil
}

// await waits until all streams are open, or until that has failed.
func (t *session) await(opened, failed <-chan struct{}) error {
	late := time.NewTimer(t.srv.cfg.Timeout)
	defer late.Stop()
	select {
	case <-opened:
		return nil
	case <-failed:
		return faultf(codeStreamAccept, "the UDP socket %s failed before its streams were open", t.local)
	case e := <-t.ctl.events:
		return cmp.Or(e.problem(), e.unexpected())
	case <-late.C:
		return faultf(codeStreamAccept, "it did not open its %d streams within %v", t.p.streams(), t.srv.cfg.Timeout)
	case <-t.ctl.ctx.Done():
		return t.ctl.ctx.Err()
	}
}

// transfer runs the test until the client says that it has ended.
func (t *session) transfer() error {
	if err := t.ctl.say(testStart); err != nil {
		return err
	}
	t.log.Info("iperf3 test begins", "protocol", t.p.protocol(), "direction", t.p.direction(), "streams", len(t.streams),
		"version", t.p.version)
	t.report.begin(t.streams, t.client, t.local)
	t.counted = time.Now()
	t.cpu = readCPU()
	t.receive()
	if err := t.ctl.say(testRunning); err != nil {
		return err
	}
	t.transmit()
	return t.watch()
}

// receive begins counting what comes.
func (t *session) receive() {
	if t.udp != nil {
		t.udp.counting.Store(true)
		return
	}
	room := max(defaultBlock, min(t.p.length, maxReceive/len(t.streams)))
	for _, s := range t.streams {
		if !s.sends {
			t.receivers.Go(func() { s.receive(make([]byte, room), t.epoch) })
		}
	}
}

// transmit begins sending. All streams send the same bytes, which do not compress.
func (t *session) transmit() {
	if !t.p.sends() {
		return
	}
	filling := make([]byte, t.p.length)
	_, _ = rand.NewChaCha8([32]byte(t.name[:32])).Read(filling)
	budget := t.budget()
	for _, s := range t.streams {
		if !s.sends {
			continue
		}
		pace := newPacer(t.p, t.counted, t.stop)
		t.senders.Go(func() {
			if t.udp != nil {
				t.udp.transmit(s, filling, pace)
			} else {
				s.transmit(filling, pace, budget)
			}
		})
	}
}

// budget is what the TCP streams together are to send, where the client counts bytes or blocks; nil: no end. UDP has none,
// because what is lost would be missing to the client for ever; nor has a test whose omitted time is over at different
// moments for the two ends.
func (t *session) budget() *atomic.Int64 {
	bytes := t.p.bytes
	if t.p.blocks > 0 {
		bytes = t.p.blocks * int64(t.p.length)
		if bytes/int64(t.p.length) != t.p.blocks {
			bytes = math.MaxInt64
		}
	}
	if bytes == 0 || t.udp != nil || t.p.omit > 0 {
		return nil
	}
	left := &atomic.Int64{}
	left.Store(bytes)
	return left
}

// watch waits for TEST_END.
func (t *session) watch() error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var omitted <-chan time.Time
	if t.p.omit > 0 {
		timer := time.NewTimer(t.p.omit)
		defer timer.Stop()
		omitted = timer.C
	}
	longest := t.p.omit + cmp.Or(t.p.duration, maxTime*time.Second) + t.srv.cfg.Timeout
	expired := time.NewTimer(longest)
	defer expired.Stop()
	from, moved := t.counted, progress{at: t.counted}
	for {
		select {
		case e := <-t.ctl.events:
			if err := e.problem(); err != nil {
				return err
			}
			if e.state != testEnd {
				return e.unexpected()
			}
			t.report.interval(t.streams, from.Sub(t.counted), time.Since(t.counted), omitted != nil)
			return nil
		case now := <-ticker.C:
			t.report.interval(t.streams, from.Sub(t.counted), now.Sub(t.counted), omitted != nil)
			from = now
			if err := moved.check(t.streams, now, t.srv.cfg.IdleTimeout); err != nil {
				return err
			}
		case now := <-omitted:
			t.report.interval(t.streams, from.Sub(t.counted), now.Sub(t.counted), true)
			omitted = nil
			from, t.counted = now, now
			ticker.Reset(interval)
			for _, s := range t.streams {
				s.base = s.counters()
				s.mark = s.base
			}
			if t.udp != nil {
				t.udp.fresh.Store(true)
			}
			t.log.Debug("iperf3 test counts from now on")
		case <-expired.C:
			return faultf(codeExpired, "it did not end its test within %v", longest)
		case <-t.ctl.ctx.Done():
			return t.ctl.ctx.Err()
		}
	}
}

// progress is what makes a test one that still runs.
type progress struct {
	bytes  int64
	at     time.Time // when they were fewer
	failed error     // a stream's, at the last look
}

// check fails a test in which nothing moves, and one whose stream has failed while the control connection did not say why
// until now.
func (p *progress) check(streams []*stream, now time.Time, idle time.Duration) error {
	if p.failed != nil {
		return p.failed
	}
	var bytes int64
	for _, s := range streams {
		bytes += s.bytes.Load()
		if err := s.failed.Load(); err != nil {
			c := codeStreamRead
			if s.sends {
				c = codeStreamWrite
			}
			p.failed = faultf(c, "stream %d: %w", s.id, *err)
		}
	}
	if bytes != p.bytes {
		p.bytes, p.at = bytes, now
	} else if p.failed == nil && now.Sub(p.at) >= idle {
		return faultf(codeNoMessage, "no data moved for %v", now.Sub(p.at).Round(time.Second))
	}
	return nil
}

// finish exchanges the results.
func (t *session) finish() error {
	t.silence()
	end := time.Now()
	var r results
	r.CPUTotal, r.CPUUser, r.CPUSystem = readCPU().since(t.cpu)
	at := make([]counters, len(t.streams))
	for i, s := range t.streams {
		s.goal.Store(math.MaxInt64 - 1) // from now on the time of what comes is noted
		at[i] = s.counters()
		if c, ok := s.conn.(Congestion); ok {
			r.CongestionUsed = c.Congestion()
		}
		if s.sends && s.conn != nil {
			_ = s.conn.Close() // the client may be waiting for the rest of a block, and not listen meanwhile
		}
	}
	if err := t.ctl.say(exchangeResults); err != nil {
		return err
	}
	e, err := t.ctl.next("its results")
	if err != nil {
		return err
	}
	theirs, err := parseResults(e.frame)
	if err != nil {
		return err
	}
	t.drain(theirs)
	took := make([]time.Duration, len(t.streams))
	for i, s := range t.streams {
		took[i] = end.Sub(t.counted)
		if s.sends || t.udp == nil && t.p.omit > 0 {
			continue // with omitted bytes, what came after the end cannot be told from what is still missing
		}
		if c := s.counters(); c.bytes > at[i].bytes {
			at[i] = c
			took[i] = max(took[i], t.epoch.Add(time.Duration(s.last.Load())).Sub(t.counted))
		}
	}
	t.report.totals(t.streams, at, took)
	t.fill(&r, at, took)
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	t.halt()
	if err := t.ctl.send("the results", append(appendFrame(nil, body), displayResults.wire())); err != nil {
		return err
	}
	t.logEnd(at, took)
	if e, err := t.ctl.next("IPERF_DONE"); err == nil && e.state != iperfDone {
		return e.unexpected()
	}
	return nil // a client that hangs up without the last word has its results
}

// drain waits for what the client has sent and the network still holds, not for long, and ends the receivers.
func (t *session) drain(theirs map[int]clientStream) {
	if t.udp != nil {
		soon := time.Now().Add(drainUDP)
		for _, s := range t.streams {
			s.goal.Store(int64(theirs[s.id].Packets))
		}
		t.udp.ending.Store(true)
		if t.udp.complete() {
			soon = longAgo
		}
		_ = t.udp.conn.SetReadDeadline(soon)
		<-t.udp.done
		return
	}
	for _, s := range t.streams {
		if s.sends {
			continue
		}
		s.goal.Store(int64(theirs[s.id].Bytes))
		deadline := time.Now().Add(drainTCP)
		if s.bytes.Load() >= s.goal.Load() {
			deadline = longAgo
		}
		_ = s.conn.SetReadDeadline(deadline)
	}
	t.receivers.Wait()
}

// fill writes the results.
func (t *session) fill(r *results, at []counters, took []time.Duration) {
	r.HasRetransmits = -1
	if t.p.sends() {
		r.HasRetransmits = 0
	}
	for i, s := range t.streams {
		r.Streams = append(r.Streams, s.result(at[i], took[i]))
		if s.knowsRetransmits() {
			r.HasRetransmits = 1
		}
	}
	r.ServerOutput = t.report.text()
}

func (t *session) logEnd(at []counters, took []time.Duration) {
	var sent, received, lost, disorder int64
	var longest time.Duration
	for i, s := range t.streams {
		c := at[i].since(s.base)
		longest = max(longest, took[i])
		lost += c.lost
		disorder += c.disorder
		if s.sends {
			sent += c.bytes
		} else {
			received += c.bytes
		}
	}
	t.log.Info("iperf3 test ended", "seconds", longest.Seconds(), "sent", sent, "received", received, "lost", lost,
		"out of order", disorder, "rate", scaled(bitRate(sent+received, longest), 1000)+"bit/s")
}

// silence ends the senders.
func (t *session) silence() {
	select {
	case <-t.stop:
		return
	default:
		close(t.stop)
	}
	for _, s := range t.streams {
		if s.sends && s.conn != nil {
			_ = s.conn.SetWriteDeadline(longAgo)
		}
	}
	if t.udp != nil {
		_ = t.udp.conn.SetWriteDeadline(longAgo)
	}
	t.senders.Wait()
}

// halt ends all streams. It may be called again.
func (t *session) halt() {
	t.silence()
	t.mu.Lock()
	t.joining = false
	joined := t.joined
	t.mu.Unlock()
	for _, j := range joined {
		_ = j.conn.Close()
	}
	t.receivers.Wait()
	if t.udp != nil {
		_ = t.udp.conn.Close()
		<-t.udp.done
	}
}
