package stack

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// Engine is one queue's worth of stack: one goroutine owns all of its state. Others reach it by do, by the sockets' rings and
// by the inboxes. Nothing in Step allocates or reads the clock once tables and rings have their size, and it locks only where
// it runs calls, wakes somebody, or looks a destination up that it has not kept (dest.go).
type Engine struct {
	stack  *Stack
	iface  *Interface
	queue  int // within the interface
	number int // within the stack
	link   Link
	via    *Engine // the engine that sends for this one: itself, unless its link only receives
	loop   *loopback
	limits *Limits

	// What the path of a packet reads.
	now     clock.Time
	hw      wire.HardwareAddr
	mtu     int
	partial bool              // the link leaves partial checksums
	offload ChecksumOffloader // nil: all checksums are computed here
	gen     uint32
	tapping tapping
	locals  []localAddr
	rx      rx
	packet  Packet
	stats   Stats
	dests   [destCache]dest
	input   func([]byte) // receive, bound once
	inLocal func([]byte) // receiveLocal, bound once

	// What is being sent.
	out       []byte
	outSum    int // where in out the UDP or TCP header begins whose checksum is left to the card; 0: nowhere
	outLocal  bool
	outInside *Engine // the packet goes to another interface's
	outLen    int
	unflushed bool
	stuck     bool     // the last flush left frames behind
	full      bool     // this step flushed and the transmit ring stayed full
	passed    []*inbox // have records to publish
	unread    []*half  // have records to publish
	senders   []*half  // have records to send
	woke      bool     // this step woke somebody, or the steps since all streams were last served
	unserved  bool     // this step left streams unserved

	// Tables.
	tcpEngine
	wheel      wheel
	localTable localTable
	neighbours map[wire.Addr]*neighbour
	pmtu       map[wire.Addr]pathMTU
	locked     int // paths in pmtu
	portTables map[portKey]*portTable
	frags      reassembly
	icmpLimit  tokenBucket
	ids        [256]uint16
	inboxes    []atomic.Pointer[inbox] // by the sending engine's number
	loopAddr   localAddr
	ether      wire.EthernetInfo
	sockets    int
	steps      uint64
	ahead      ahead

	// Buffers.
	spare     [][]byte
	scratch   []byte
	answerBuf []byte
	broadcast []byte
	icmpBuf   [wire.ICMPLen + wire.ICMPMaxQuote]byte

	// What other goroutines touch.
	_        [64]byte
	dirty    atomic.Pointer[dirtyLink] // MPSC stack of what has something to send
	listed   atomic.Int32              // about how many are on it
	asleep   atomic.Bool               // about to sleep or sleeping: whoever has work must wake
	hasCalls atomic.Bool
	callMu   sync.Mutex
	calls    []call
	running  bool // under callMu; the engine's goroutine, which alone ends it, reads it without
	stopping atomic.Bool
	done     chan struct{}
}

// cacheLine is what processors write to memory and take from each other, in bytes. What an engine writes for each packet is on lines
// that no other engine reads or writes (layout_test.go): else they would slow each other down though they share nothing. It is seen to by
// lengths, as Go's allocator puts an object of such a length at a multiple of it.
const cacheLine = 64

// listRoom is how long an engine's lists of sockets are from the start, so that none begins as a few bytes beside another engine's.
const listRoom = 64

type call struct {
	f    func()
	done chan struct{}
}

const (
	// budget is how many frames one step takes from the link.
	budget = 256
	// ackBudget is how many, where they are TCP's acknowledgements: as many as the ring has by default.
	ackBudget = 16 * budget
	// newsBudget is how many, where they are segments of someActive to manyActive connections.
	newsBudget             = 8 * budget
	someActive, manyActive = 32, budget
)

func newEngine(s *Stack, i *Interface, queue int, l Link) *Engine {
	e := &Engine{
		stack: s, iface: i, queue: queue, number: len(s.engines), link: l, limits: &s.limits,
		hw: l.HardwareAddr(), mtu: max(l.MTU(), minMTU), partial: l.PartialChecksums(), gen: 1,
		neighbours: make(map[wire.Addr]*neighbour), pmtu: make(map[wire.Addr]pathMTU), portTables: make(map[portKey]*portTable),
		icmpLimit: newTokenBucket(s.limits.ICMPErrorsPerSecond),
	}
	if lo, ok := l.(*loopback); ok {
		e.loop = lo
	} else {
		e.loop = newLoopback()
	}
	for n := range e.ids {
		e.ids[n] = uint16(s.rand.Uint32())
	}
	e.frags.init()
	e.layer = s.newLayer()
	e.listeners = make(map[listenKey][]*listening)
	e.conns.init(s.connKey)
	e.input, e.inLocal = e.receive, e.receiveLocal
	e.via = e
	e.bundle.link, _ = l.(Bundler)
	e.ahead.link, _ = l.(Peeker)
	e.ahead.look = e.seeAhead
	if o, ok := l.(ChecksumOffloader); ok && o.TxChecksum() {
		e.offload = o
	}
	e.passed = make([]*inbox, 0, listRoom)
	e.unread, e.senders = make([]*half, 0, listRoom), make([]*half, 0, listRoom)
	e.active, e.serving = make([]*Stream, 0, listRoom), make([]*Stream, 0, listRoom)
	return e
}

// Step does what there is to do at now: takes calls and frames, fires timers, sends what sockets wrote, and tells what it
// delivered. It returns when it wants to be called again at the latest: now or earlier when work is left, clock.Never when
// only a frame or a wake can bring some.
func (e *Engine) Step(now clock.Time) clock.Time {
	next, _ := e.step(now)
	return next
}

func (e *Engine) step(now clock.Time) (next clock.Time, worked bool) {
	e.now = now
	e.steps++
	if !e.unserved {
		e.woke = false
	}
	e.full, e.acksTaken = false, 0
	if e.hasCalls.Load() {
		e.runCalls()
		worked = true
	}
	n := 0
	if e.link != Link(e.loop) {
		if n = e.pollLink(); n == budget {
			n = e.pollOn(n)
		}
	}
	n += e.takeForwarded(budget)
	e.publishPassed()
	e.wheel.advance(now)
	before := e.stats.Output
	more := e.emit()
	stuck := more && e.full && e.stats.Output == before
	n += e.loop.Poll(budget, e.inLocal)
	more = more || len(e.active) > 0 // what came by the loopback is answered in the next step
	e.publish()
	if e.unflushed {
		e.flush()
	}
	if more && !stuck || e.unflushed || e.loop.pending() || n >= budget {
		return now, true
	}
	next = e.wheel.deadline()
	if stuck {
		next = clock.Earliest(next, now.Add(stuckInterval))
	}
	return next, worked || n > 0 || e.stats.Output != before
}

// stuckInterval is when an engine tries to send again that found the transmit ring full and could move nothing: the card is
// down, say, and may stay so for long.
const stuckInterval = 100 * time.Microsecond

// A dirtyLink is what a half or a stream has on the engine's dirty list.
type dirtyLink struct {
	queued atomic.Bool
	next   *dirtyLink
	half   *half // or
	stream *Stream
}

// push puts what has something to send, or to ask of the engine, on the dirty list and wakes the engine if it sleeps.
func (e *Engine) push(l *dirtyLink) {
	if !l.queued.Swap(true) {
		for {
			head := e.dirty.Load()
			l.next = head
			if e.dirty.CompareAndSwap(head, l) {
				break
			}
		}
		e.listed.Add(1)
	}
	e.wakeIfAsleep()
}

// behindBy is how many sockets may have something to send before whoever writes more lets the engine run.
const behindBy = 64

// behind says that many sockets have something to send. Whoever goes on writing to others while the engine waits for a core, which
// it does where both share one, fills memory that the caches no longer hold when the engine comes to read it.
func (e *Engine) behind() bool { return e.listed.Load() >= behindBy }

// takeDirty empties the dirty list, the first that was pushed first.
func (e *Engine) takeDirty() *dirtyLink {
	if e.dirty.Load() == nil {
		return nil
	}
	e.listed.Store(0)
	var first *dirtyLink
	for l := e.dirty.Swap(nil); l != nil; {
		next := l.next
		l.next = first
		first, l = l, next
	}
	return first
}

func (e *Engine) wakeIfAsleep() {
	if e.asleep.Load() {
		e.link.Wake()
	}
}

// do runs f as the engine's owner and returns when it is done: on the engine's goroutine while that runs, else here. It must
// not be called on an engine.
func (e *Engine) do(f func()) {
	e.callMu.Lock()
	if !e.running {
		defer e.callMu.Unlock()
		f()
		return
	}
	c := call{f, make(chan struct{})}
	e.calls = append(e.calls, c)
	e.hasCalls.Store(true)
	e.callMu.Unlock()
	e.wakeIfAsleep()
	<-c.done
}

// post is do without waiting for the end.
func (e *Engine) post(f func()) {
	e.callMu.Lock()
	if !e.running {
		defer e.callMu.Unlock()
		f()
		return
	}
	e.calls = append(e.calls, call{f: f})
	e.hasCalls.Store(true)
	e.callMu.Unlock()
	e.wakeIfAsleep()
}

func (e *Engine) runCalls() {
	e.callMu.Lock()
	cs := e.calls
	e.calls = nil
	e.hasCalls.Store(false)
	e.callMu.Unlock()
	for _, c := range cs {
		c.f()
		if c.done != nil {
			close(c.done)
		}
	}
}

// idle reports whether there is nothing that a sleep would miss. It is asked after asleep was set: whoever brings work
// first puts it there and then looks at asleep, so that one of the two sees the other.
func (e *Engine) idle() bool {
	if e.hasCalls.Load() || e.dirty.Load() != nil || e.stopping.Load() {
		return false
	}
	for from := range e.inboxes {
		if in := e.inboxes[from].Load(); in != nil && in.r.Peek() != nil {
			return false
		}
	}
	return true
}

// lookInterval is how often an engine that does not sleep asks its link whether the device is still there.
const lookInterval = 100 * time.Millisecond

// run is the engine's goroutine. It is not locked to a thread: a user's goroutine that a step woke can then run at once on
// the same thread, which costs a fifth of a microsecond where a hand-over between threads costs several.
func (e *Engine) run() {
	defer close(e.done)
	spin, worked, slept := e.iface.spin, true, false
	lastWork := clock.Now() // when it was over: a step may take longer than an engine polls
	lastLook := lastWork
	for !e.stopping.Load() {
		now := clock.Now()
		if worked {
			lastWork = now
		}
		if now.Sub(lastLook) >= lookInterval {
			lastLook = now
			if err := e.link.Wait(0); err != nil {
				e.failed(err)
				return
			}
		}
		var next clock.Time
		if next, worked = e.step(now); worked {
			if slept {
				slept, spin = false, spinAfter(e.iface.spin, now.Sub(lastWork))
			}
			if e.woke && !e.unserved {
				runtime.Gosched()
			}
			continue
		}
		if e.iface.wait == Busy || e.iface.wait == Adaptive && now.Sub(lastWork) < spin {
			runtime.Gosched()
			continue
		}
		slept = true
		if err := e.sleep(now, next); err != nil {
			e.failed(err)
			return
		}
	}
}

// spinAfter is how long to poll before the next sleep when the last one ended this long after the last work: a sleep that polling
// somewhat longer would have saved is followed by polling that much longer, as in the kernel's haltpoll governor.
func spinAfter(spin, gap time.Duration) time.Duration {
	if gap <= maxSpin*spin {
		return maxSpin * spin
	}
	return spin
}

// sleep waits for work, until next at the latest.
func (e *Engine) sleep(now, next clock.Time) error {
	timeout := time.Duration(-1)
	if next != clock.Never {
		if timeout = next.Sub(now); timeout <= 0 {
			return nil
		}
	}
	e.asleep.Store(true)
	defer e.asleep.Store(false)
	if !e.idle() {
		return nil
	}
	return e.link.Wait(timeout)
}

// failed ends the engine: calls are still taken, so that sockets can be closed, and whoever uses one is told ENETDOWN.
func (e *Engine) failed(err error) {
	e.halt()
	e.iface.gone.Store(true)
	e.stack.log.Error("the link failed, its sockets answer ENETDOWN", "interface", e.iface.name, "queue", e.queue, "error", err)
	e.stack.interfaceGone(e.iface)
	if f := e.iface.onError; f != nil {
		f(err)
	}
}

// halt makes do run its calls itself from now on. The last ones that were left to the engine run under the lock, as those
// that come now do: the engine has one owner at a time.
func (e *Engine) halt() {
	e.callMu.Lock()
	defer e.callMu.Unlock()
	e.running = false
	cs := e.calls
	e.calls = nil
	for _, c := range cs {
		c.f()
		if c.done != nil {
			close(c.done)
		}
	}
}

func (e *Engine) start() {
	e.callMu.Lock()
	e.running = true
	e.now = clock.Now()
	e.done = make(chan struct{})
	e.callMu.Unlock()
	go e.run()
}

func (e *Engine) stop() {
	if e.done == nil {
		return
	}
	e.stopping.Store(true)
	e.link.Wake()
	<-e.done
	e.halt()
}

// scratchBuffer holds one IPv4 payload of any length, made on first use.
func (e *Engine) scratchBuffer() []byte {
	if e.scratch == nil {
		e.scratch = make([]byte, wire.IPv4MaxSize)
	}
	return e.scratch
}

// queueStats is called on the engine.
func (e *Engine) queueStats() QueueStats {
	return QueueStats{
		Queue: e.queue, Running: e.running && !e.stopping.Load(), Sleeping: e.asleep.Load(), Steps: e.steps, Sockets: e.sockets, Stats: e.stats,
	}
}
