package linktest

import "time"

// buffer holds one frame.
type buffer struct {
	data  []byte // whole
	n     int    // length of the frame in it
	state state
	owner *End
}

// state says who may touch a buffer.
type state uint8

const (
	free      state = iota
	allocated       // its owner's, from Alloc until Send or Free
	queued          // sent, waiting for Flush
	travelling
	waiting // in the receive ring of its owner
	lent    // its owner's, for one call of Poll's input
)

func (b *buffer) frame() []byte { return b.data[:b.n] }

// pool keeps buffers of one size for reuse.
type pool struct {
	size int
	free []*buffer
	made int
}

func (p *pool) get() *buffer {
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b
	}
	p.made++
	return &buffer{data: make([]byte, p.size)}
}

// put takes a buffer back and overwrites its frame: whoever kept a slice of it
// reads nonsense from now on.
func (p *pool) put(b *buffer) {
	for rest := b.frame(); len(rest) > 0; {
		rest = rest[copy(rest, nonsense[:]):]
	}
	b.state, b.owner = free, nil
	p.free = append(p.free, b)
}

var nonsense = func() (a [256]byte) {
	for i := range a {
		a[i] = 0xDB
	}
	return a
}()

// arrival is a frame on its way.
type arrival struct {
	at  time.Duration
	seq uint64 // frames that arrive at the same time keep their order
	b   *buffer
}

func (a arrival) before(c arrival) bool { return a.at < c.at || a.at == c.at && a.seq < c.seq }

// schedule is a heap of arrivals, the earliest first.
type schedule []arrival

func (s *schedule) push(a arrival) {
	h := append(*s, a)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].before(h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
	*s = h
}

// due takes the earliest arrival if its time has come, else it returns nil.
func (s *schedule) due(now time.Duration) *buffer {
	h := *s
	if len(h) == 0 || h[0].at > now {
		return nil
	}
	b := h[0].b
	last := len(h) - 1
	h[0], h[last] = h[last], arrival{}
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(h[i]) {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	*s = h
	return b
}

// next returns when the earliest one arrives.
func (s schedule) next() (time.Duration, bool) {
	if len(s) == 0 {
		return 0, false
	}
	return s[0].at, true
}
