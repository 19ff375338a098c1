package tcp

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/wire"
)

// A simulation is two connections and two pipes between them in virtual time.
// Segments cross as bytes, so that headers, options and checksums take part.

// pipeConfig is one direction of a path.
type pipeConfig struct {
	delay, jitter              time.Duration
	rate                       int // bytes a second; 0: any
	queue                      int // bytes that wait for the rate; 0: any number
	loss, dup, reorder, garble float64
	markAt                     int // bytes in the queue from which on packets get CE; 0: never
}

// packet is a segment under way.
type packet struct {
	at   clock.Time
	n    uint64 // order among those of one moment
	to   int
	data []byte
	ecn  ECN
}

type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at < p[j].at || p[i].at == p[j].at && p[i].n < p[j].n
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	old := *p
	x := old[len(old)-1]
	*p = old[:len(old)-1]
	return x
}

// end is one host: a layer, a connection, its streams, and a user.
type end struct {
	sim    *sim
	side   int
	layer  *Layer
	conn   Conn
	tx, rx ring.Stream
	opened bool
	iss    Seq // the first sequence number; 0: any
	dead   bool
	frames int // segments sent

	// The user.
	total    int // bytes to write
	written  int
	read     int
	chunk    int        // a read or a write takes at most this
	pauseTo  clock.Time // no read before
	pause    time.Duration
	eof      bool
	shutAt   bool // Shutdown was called
	closed   bool
	err      error
	finished clock.Time
	busyFor  clock.Time // when the pipe from here is free
	budget   int        // segments that the output takes in a step; 0: any
	habits   habits
	run      func() // is told of each run, if not nil
}

type sim struct {
	rng     *rand.Rand
	now     clock.Time
	n       uint64
	flying  packets
	ends    [2]*end
	pipes   [2]pipeConfig // from end i
	steps   int
	trace   func(format string, args ...any)
	buffers [][]byte
	free    func(now clock.Time) bool // tells whether segments cross at all
	sum     uint32                    // of all that was sent, and when
}

// content is byte i of what a side writes.
func content(side, i int) byte { return byte(i) ^ byte(i>>8)*31 ^ byte(i>>16)*7 ^ byte(side)*85 }

func newSim(seed uint64, cfgs [2]Config, pipes [2]pipeConfig) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 1)), now: clock.Time(time.Hour), pipes: pipes}
	for i := range s.ends {
		cfg := cfgs[i]
		cfg.Random = s.rng.Uint64
		layer, err := NewLayer(cfg)
		if err != nil {
			panic(err)
		}
		s.ends[i] = &end{sim: s, side: i, layer: layer, chunk: 1 << 20}
	}
	return s
}

func (e *end) id() ID {
	if e.side == 0 {
		return ID{Local: 0x0A000001, Remote: 0x0A000002, LocalPort: 40000, RemotePort: 80}
	}
	return ID{Local: 0x0A000002, Remote: 0x0A000001, LocalPort: 80, RemotePort: 40000}
}

const simMTU = 1500

// renumber gives a connection that sent nothing yet the initial sequence number
// that the test wants.
func (e *end) renumber() {
	if iss := e.iss; iss != 0 {
		s := &e.conn.snd
		s.iss, s.una, s.nxt, s.up, s.small = iss, iss, iss, iss, iss
	}
}

func (e *end) init() {
	e.conn.Init(e.layer, e.id(), simMTU, &e.tx, &e.rx)
	e.opened = true
}

// Send is Output: the segment becomes bytes and enters the pipe.
func (e *end) Send(s *Segment) bool {
	if e.budget > 0 && e.frames%e.budget == e.budget-1 {
		e.frames++
		return false
	}
	e.transmit(s)
	return true
}

func (e *end) SendRun(s *Segment, mss int) int {
	if e.run != nil {
		e.run()
	}
	return s.Cut(mss, e.Send)
}

func (e *end) transmit(s *Segment) {
	e.frames++
	m := e.sim
	var b []byte
	if k := len(m.buffers); k > 0 {
		b, m.buffers = m.buffers[k-1], m.buffers[:k-1]
	} else {
		b = make([]byte, 2048)
	}
	id := e.id()
	options := wire.PutTCPOptions(b[wire.TCPLen:2048], &s.Options, s.has(SYN))
	at := wire.TCPLen + options
	n := copy(b[at:2048], s.Payload)
	n += copy(b[at+n:2048], s.Wrapped)
	if n != s.PayloadLen() || at+n+20 > simMTU {
		panic(fmt.Sprintf("a segment of %d bytes with %d of options does not fit the MTU", s.PayloadLen(), options))
	}
	wire.PutTCP(b, &wire.TCPFields{Src: id.Local, Dst: id.Remote, SrcPort: id.LocalPort, DstPort: id.RemotePort,
		Seq: s.Seq, Ack: s.Ack, Flags: s.Flags, Window: s.Window, Urgent: s.Urgent, OptionsLen: options, PayloadLen: n},
		wire.Sum(b[at:at+n], 0))
	if m.trace != nil {
		m.trace("%v %d> %v seq %d:%d ack %d win %d %v", time.Duration(m.now), e.side, s.Flags, s.Seq, s.end(), s.Ack, s.Window, s.Options.SACK[:s.Options.NSACK])
	}
	var moment [8]byte
	binary.LittleEndian.PutUint64(moment[:], uint64(m.now))
	m.sum = crc32.Update(crc32.Update(m.sum, crc32.IEEETable, moment[:]), crc32.IEEETable, b[:at+n])
	m.cross(e, b[:at+n], s.ECN)
}

// cross puts a packet into the pipe that begins at e.
func (m *sim) cross(e *end, b []byte, ecn ECN) {
	p := &m.pipes[e.side]
	other := m.ends[1-e.side]
	drop := other.dead || m.free != nil && !m.free(m.now) || p.loss > 0 && m.rng.Float64() < p.loss
	leaves := m.now
	if p.rate > 0 {
		leaves = max(leaves, e.busyFor)
		waiting := int(leaves.Sub(m.now).Seconds() * float64(p.rate))
		if p.queue > 0 && waiting+len(b) > p.queue {
			drop = true
		}
		if p.markAt > 0 && waiting > p.markAt && ecn == ECT0 {
			ecn = CE
		}
		if !drop {
			leaves = leaves.Add(time.Duration(float64(len(b)+34) / float64(p.rate) * 1e9))
			e.busyFor = leaves
		}
	}
	if drop {
		m.buffers = append(m.buffers, b[:cap(b)])
		return
	}
	copies := [][]byte{b}
	if p.dup > 0 && m.rng.Float64() < p.dup {
		copies = append(copies, append(make([]byte, 0, 2048), b...))
	}
	for _, data := range copies {
		at := leaves.Add(p.delay)
		if p.jitter > 0 {
			at = at.Add(time.Duration(m.rng.Int64N(int64(p.jitter))))
		}
		if p.reorder > 0 && m.rng.Float64() < p.reorder {
			at = at.Add(p.delay/2 + time.Millisecond)
		}
		if p.garble > 0 && m.rng.Float64() < p.garble {
			i := m.rng.IntN(len(data) * 8)
			data[i/8] ^= 1 << (i % 8)
		}
		m.n++
		heap.Push(&m.flying, packet{at: at, n: m.n, to: 1 - e.side, data: data, ecn: ecn})
	}
}

// input hands a packet to its end.
func (e *end) input(p packet) {
	m := e.sim
	defer func() { m.buffers = append(m.buffers, p.data[:cap(p.data)]) }()
	id := e.id()
	t, err := wire.ParseTCP(p.data)
	if err != nil || t.ChecksumState(id.Remote, id.Local) != wire.ChecksumOK {
		return
	}
	var s, answer Segment
	if s.Parse(t, p.ecn) != nil {
		return
	}
	if e.opened && e.conn.State() != Closed {
		e.conn.Arrives(m.now, &s)
		return
	}
	if e.opened || e.side == 0 {
		if e.layer.Refuse(&s, &answer) == Answer {
			e.transmit(&answer)
		}
		return
	}
	switch e.layer.Listen(m.now, id, &s, false, simMTU, &answer) {
	case Answer:
		e.transmit(&answer)
	case Open:
		e.init()
		e.conn.Accept(m.now, &s)
		e.renumber()
	}
}

// user reads, writes and closes as the end's user would.
func (e *end) user() {
	m := e.sim
	if !e.opened || e.closed {
		return
	}
	if m.now >= e.pauseTo {
		e.readSome()
	}
	state := e.conn.State()
	if (state.canSend() || state == SynSent || state == SynReceived) && e.written < e.total {
		var buf [4096]byte
		room := min(e.total-e.written, e.tx.Limit()-e.tx.Used(), e.chunk)
		for room > 0 {
			n := min(room, len(buf))
			for i := range n {
				buf[i] = content(e.side, e.written+i)
			}
			k := e.tx.Write(buf[:n])
			e.written += k
			room -= k
			e.behave()
			if k < n {
				break
			}
		}
	}
	if e.written == e.total && !e.shutAt && state.Synchronized() {
		e.shutAt = true
		e.conn.Shutdown(m.now)
	}
	if err := e.conn.Err(); err != nil && e.err == nil {
		e.err = err
		e.closed = true
	}
	if state == Closed && e.conn.opt.passive && e.conn.cc.cwnd == 0 {
		e.closed = true // it was never accepted
	}
	if e.shutAt && e.eof && !e.closed {
		e.closed = true
		e.finished = m.now
		e.conn.Close(m.now)
	}
}

// habits are what a user does beside writing, by a number that is drawn.
type habits uint32

// behave is called after a write.
func (e *end) behave() {
	h := e.habits
	if h == 0 {
		return
	}
	nth := habits(e.written) * 2654435761 >> 20
	e.conn.SetNoDelay(h&1 != 0)
	e.conn.SetMore(h&2 != 0 && nth&1 != 0 && e.written < e.total)
	e.conn.SetCork(h&4 != 0 && nth&2 != 0 && e.written < e.total)
	if h&8 != 0 && nth&12 == 0 {
		e.conn.SetUrgent()
	}
}

func (e *end) readSome() {
	var buf [4096]byte
	for total := 0; total < e.chunk; {
		n := e.rx.Read(buf[:min(len(buf), e.chunk-total)])
		if n == 0 {
			break
		}
		for i, b := range buf[:n] {
			if b != content(1-e.side, e.read+i) {
				panic(fmt.Sprintf("side %d got byte %d wrong", e.side, e.read+i))
			}
		}
		e.read += n
		total += n
		e.conn.ReceiveRead(e.sim.now, n)
		if e.pause > 0 {
			e.pauseTo = e.sim.now.Add(time.Duration(e.sim.rng.Int64N(int64(e.pause))))
		}
	}
	if e.conn.Events()&EndOfStream != 0 || e.conn.rcv.finDone {
		e.eof = e.rx.Used() == 0
	}
}

// run goes on until both ends are done or the time is up, and reports which.
func (m *sim) run(limit time.Duration) bool {
	end := m.now.Add(limit)
	for m.now < end {
		m.steps++
		if m.steps > 20_000_000 {
			panic("the simulation does not end")
		}
		next := clock.Never
		for _, e := range m.ends {
			if e.dead {
				continue
			}
			e.user()
			if e.opened {
				spins := 0
				for e.conn.Emit(m.now, e) {
					if spins++; spins > 10_000 {
						panic("Emit does not end")
					}
				}
				e.check()
				d := e.conn.Deadline()
				if d != clock.Never && d <= m.now && m.steps > 1 {
					panic(fmt.Sprintf("side %d: a deadline stays in the past", e.side))
				}
				next = clock.Earliest(next, d)
				if e.rx.Used() > 0 && !e.closed { // the user will come back
					next = clock.Earliest(next, max(e.pauseTo, m.now.Add(time.Millisecond)))
				}
			}
		}
		if m.done() {
			return true
		}
		if len(m.flying) > 0 {
			next = clock.Earliest(next, m.flying[0].at)
		}
		if next == clock.Never {
			return false
		}
		m.now = max(m.now, next)
		for len(m.flying) > 0 && m.flying[0].at <= m.now {
			p := heap.Pop(&m.flying).(packet)
			if e := m.ends[p.to]; !e.dead {
				e.input(p)
				e.check()
			}
		}
		for _, e := range m.ends {
			if e.opened && !e.dead {
				e.conn.Timeout(m.now)
			}
		}
	}
	return false
}

// done reports whether both users have finished and nothing is left to say.
func (m *sim) done() bool {
	for _, e := range m.ends {
		if e.dead {
			continue
		}
		if !e.closed || e.conn.State() != Closed && e.conn.State() != TimeWait {
			return false
		}
	}
	return true
}

// check looks at what has to hold always.
func (e *end) check() {
	if !e.opened {
		return
	}
	if why := e.conn.inconsistent(); why != "" {
		panic(fmt.Sprintf("side %d in %v: %s", e.side, e.conn.State(), why))
	}
}

// inconsistent says what in the control block contradicts itself.
func (c *Conn) inconsistent() string {
	if c.state == Closed || c.state == Listen {
		if c.flight != nil || c.holes != nil || c.Deadline() != clock.Never {
			return "a closed connection holds memory or a timer"
		}
		return ""
	}
	if c.snd.una.After(c.snd.nxt) {
		return "SND.UNA is behind SND.NXT"
	}
	if f := c.flight; f != nil {
		if f.n == 0 {
			return "an empty scoreboard is kept"
		}
		var n flight
		at := c.snd.una
		for i := range f.n {
			r := f.rec(f.first + i)
			if r.seq != at || !r.end.After(r.seq) {
				return fmt.Sprintf("record %d is %d:%d and should begin at %d", i, r.seq, r.end, at)
			}
			at = r.end
			n.count(r.mark)
			for k := range r.run {
				if i+k >= f.n || f.rec(f.first+i+k).mark&sacked == 0 {
					return "a run of sacked records has one that is not"
				}
			}
			if r.mark&sacked != 0 && r.mark&(lost|rexmt) != 0 || r.mark&(lost|rexmt) == rexmt && r.mark&everRexmt == 0 {
				return "marks exclude each other"
			}
		}
		if at != c.snd.nxt {
			return fmt.Sprintf("the scoreboard ends at %d, SND.NXT is %d", at, c.snd.nxt)
		}
		if n.sacked != f.sacked || n.lost != f.lost || n.rexmt != f.rexmt {
			return "the numbers of marks are wrong"
		}
		if c.timer.rexmtAt == clock.Never && !c.due.tail {
			return "data is in flight and no timer runs"
		}
	} else if c.state.Synchronized() && c.state != TimeWait && c.snd.una != c.snd.nxt {
		return "data is in flight without a scoreboard"
	}
	if h := c.holes; h != nil {
		last := c.rcv.nxt
		for _, r := range h.ranges {
			if !r.left.After(last) || !r.right.After(r.left) {
				return "the ranges out of order are not sorted or touch"
			}
			last = r.right
		}
		if len(h.ranges) == 0 {
			return "an empty list of ranges is kept"
		}
	}
	if c.cc.cwnd == 0 && c.state.Synchronized() {
		return "cwnd is 0"
	}
	return ""
}
