package stack

import (
	"math/bits"
	"sync"

	"kitnet.dev/kit/stack/tcp"
)

// A connTable finds the streams of one engine by the four numbers of their connection, at the same cost with one and with a
// million: linear hashing (Litwin, "Linear Hashing: A New Tool for File and Table Addressing", 1980) splits one bucket for
// each stream that comes, so that no packet waits for the whole table to be rehashed. The key is secret: a peer that
// chooses its ports can't aim at one bucket.
type connTable struct {
	buckets []*Stream // linked by Stream.chain
	mask    uint32    // the buckets when this round of splitting began, less one: 2^k-1
	split   uint32    // the next to be split
	count   int
	key     [2]uint64
}

// firstBuckets is a power of two.
const firstBuckets = 64

// Keys of hashes that spread connections and need no secret: any numbers with bits all over.
var (
	shardKey    = [2]uint64{0x9E3779B97F4A7C15, 0xD1B54A32D192ED03}
	queueKey    = [2]uint64{0xBF58476D1CE4E5B9, 0x94D049BB133111EB}
	listenerKey = [2]uint64{0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53}
)

func (t *connTable) init(key [2]uint64) {
	t.key = key
	t.buckets, t.mask = make([]*Stream, firstBuckets), firstBuckets-1
}

func hashID(id *tcp.ID, key *[2]uint64) uint32 {
	a := uint64(id.Local)<<32 | uint64(id.Remote)
	b := uint64(id.LocalPort)<<16 | uint64(id.RemotePort)
	hi, lo := bits.Mul64(a^key[0], b^key[1])
	return uint32(hi ^ lo ^ hi>>32 ^ lo>>32)
}

func (t *connTable) bucket(hash uint32) **Stream {
	i := hash & (t.mask<<1 | 1)
	if i >= uint32(len(t.buckets)) {
		i = hash & t.mask
	}
	return &t.buckets[i]
}

// get is nil where there is no such connection.
func (t *connTable) get(id *tcp.ID) *Stream {
	hash := hashID(id, &t.key)
	for s := *t.bucket(hash); s != nil; s = s.chain {
		if s.hash == hash && s.id == *id {
			return s
		}
	}
	return nil
}

func (t *connTable) insert(s *Stream) {
	if t.count >= len(t.buckets) {
		t.grow()
	}
	s.hash = hashID(&s.id, &t.key)
	b := t.bucket(s.hash)
	s.chain, *b = *b, s
	t.count++
}

// grow splits one bucket in two.
func (t *connTable) grow() {
	from := t.split
	s := t.buckets[from]
	t.buckets[from] = nil
	t.buckets = append(t.buckets, nil)
	if t.split++; t.split > t.mask {
		t.split, t.mask = 0, t.mask<<1|1
	}
	for s != nil {
		next := s.chain
		b := t.bucket(s.hash)
		s.chain, *b = *b, s
		s = next
	}
}

// remove reports whether s was there.
func (t *connTable) remove(s *Stream) bool {
	for p := t.bucket(s.hash); *p != nil; p = &(*p).chain {
		if *p == s {
			*p, s.chain = s.chain, nil
			t.count--
			return true
		}
	}
	return false
}

// each calls f for every stream; f may remove the one that it is given.
func (t *connTable) each(f func(*Stream)) {
	for i := range t.buckets {
		for s := t.buckets[i]; s != nil; {
			next := s.chain
			f(s)
			s = next
		}
	}
}

// flowTable says which engine of a card has a connection, for segments that the card brings to another one: after a change
// of its RSS table, or on veth, where the sender's kernel may choose another queue for a flow at any time. Only cards with
// several queues have one, and only a segment for which an engine has no connection looks here.
type flowTable struct {
	shards [64]struct {
		mu sync.Mutex
		m  map[tcp.ID]*Engine
		_  [cacheLine - 16]byte
	}
}

func (t *flowTable) shard(id *tcp.ID) (*sync.Mutex, *map[tcp.ID]*Engine) {
	s := &t.shards[hashID(id, &shardKey)%uint32(len(t.shards))]
	return &s.mu, &s.m
}

// leave takes a connection of e out.
func (t *flowTable) leave(id *tcp.ID, e *Engine) {
	if t == nil {
		return
	}
	mu, m := t.shard(id)
	mu.Lock()
	defer mu.Unlock()
	if (*m)[*id] == e {
		delete(*m, *id)
	}
}

// take enters a connection unless somebody has it, and reports whether it did. A nil table keeps nothing.
func (t *flowTable) take(id *tcp.ID, e *Engine) bool {
	if t == nil {
		return true
	}
	mu, m := t.shard(id)
	mu.Lock()
	defer mu.Unlock()
	if (*m)[*id] != nil {
		return false
	}
	if *m == nil {
		*m = make(map[tcp.ID]*Engine)
	}
	(*m)[*id] = e
	return true
}

// get is nil where no engine has the connection.
func (t *flowTable) get(id *tcp.ID) *Engine {
	if t == nil {
		return nil
	}
	mu, m := t.shard(id)
	mu.Lock()
	defer mu.Unlock()
	return (*m)[*id]
}
