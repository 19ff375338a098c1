package socketapi

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"syscall"
)

// Token names a socket of one Kit. It is never negative, 0 is a valid token, and it is not a file descriptor. A token
// is used once: after CloseSocket it is EBADF for ever.
type Token int64

// A token is a slot's number in its low bits and the slot's generation above them. Slots are reused, generations are
// not: a slot whose generations are used up is retired.
const (
	slotBits       = 24
	slotMask       = 1<<slotBits - 1
	lastGeneration = 1<<32 - 1

	// The slots stand in chunks that double in size, so that the table grows without ever moving a slot.
	firstChunkBits = 6
	firstChunk     = 1 << firstChunkBits
	chunks         = slotBits - firstChunkBits
	maxSlots       = 1<<slotBits - firstChunk

	noSlot = ^uint32(0)
)

// slot holds one socket at a time. Look-ups read only sock; the rest belongs to the holder of table.mu.
type slot struct {
	sock       atomic.Pointer[socket]
	generation uint32 // of the socket that is here or comes next
	next       uint32 // of the free list
}

// table finds a socket by its token. Look-ups take no lock.
type table struct {
	chunks [chunks + 1]atomic.Pointer[[]slot] // the last is always nil: it takes the numbers past maxSlots

	mu     sync.Mutex
	free   uint32 // head of the list of free slots
	used   uint32 // slots ever handed out
	closed bool
}

// locate returns the chunk of slot i and its place there.
func locate(i uint32) (chunk int, at uint32) {
	i += firstChunk
	chunk = bits.Len32(i) - 1 - firstChunkBits
	return chunk, i - firstChunk<<chunk
}

// slot returns slot i, which may be any number below 1<<slotBits, or nil where there is none yet.
func (t *table) slot(i uint32) *slot {
	chunk, at := locate(i)
	c := t.chunks[chunk].Load()
	if c == nil {
		return nil
	}
	return &(*c)[at]
}

// lookup returns the socket that tok names, or nil.
func (t *table) lookup(tok Token) *socket {
	sl := t.slot(uint32(tok & slotMask))
	if sl == nil {
		return nil
	}
	s := sl.sock.Load()
	if s == nil || s.token != tok {
		return nil
	}
	return s
}

// insert gives s a token. Errors are EMFILE, all slots are taken, and ENETDOWN, the table is closed.
func (t *table) insert(s *socket) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return syscall.ENETDOWN
	}
	i := t.free
	if i != noSlot {
		t.free = t.slot(i).next
	} else {
		if i = t.used; i == maxSlots {
			return syscall.EMFILE
		}
		if chunk, at := locate(i); at == 0 {
			c := make([]slot, firstChunk<<chunk)
			t.chunks[chunk].Store(&c)
		}
		t.used++
	}
	sl := t.slot(i)
	s.token = Token(sl.generation)<<slotBits | Token(i)
	sl.sock.Store(s)
	return nil
}

// remove takes the socket that tok names out of the table and returns it, or nil. Of several callers one gets it.
func (t *table) remove(tok Token) *socket {
	s := t.lookup(tok)
	if s == nil {
		return nil
	}
	i := uint32(tok & slotMask)
	sl := t.slot(i)
	if !sl.sock.CompareAndSwap(s, nil) {
		return nil
	}
	t.mu.Lock()
	if sl.generation != lastGeneration {
		sl.generation++
		sl.next = t.free
		t.free = i
	}
	t.mu.Unlock()
	return s
}

// close makes every later insert fail and removes the sockets that are there, each one through release. It reports
// false where the table was closed before.
func (t *table) close(release func(*socket)) bool {
	t.mu.Lock()
	was, used := t.closed, t.used
	t.closed = true
	t.mu.Unlock()
	if was {
		return false
	}
	for i := range used {
		if s := t.slot(i).sock.Load(); s != nil && t.remove(s.token) == s {
			release(s)
		}
	}
	return true
}
