package socketapi

import (
	"math"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
)

// The sets of Select, and the bits of selected.want and selected.ready.
const (
	readSet = iota
	writeSet
	exceptSet
	numSets
)

// readiness are the events that make a socket ready, for each set.
var readiness = [numSets]stack.Events{readSet: stack.Readable, writeSet: stack.Writable, exceptSet: stack.Errored}

// selection is one call of Select. Selections are pooled.
type selection struct {
	list []selected
}

// selected is a socket of a selection. A token that is in several sets is here once.
type selected struct {
	s           *socket
	want, ready uint8 // a bit for each set
}

// Select waits until a socket is ready, and leaves in the sets only the tokens that are. A nil set is empty; the three
// must be different sets. A token is ready
//
//   - in read, when a message or an error waits, a stream has bytes or is at its end, or a client waits for Accept: so that Recv, or
//     Accept, would not block;
//   - in write, when the send buffer has room, or the handshake of a stream is over;
//   - in except, when an error waits: the next Send or Recv, or SO_ERROR, tells it.
//
// Tokens at or above rng are taken out of the sets unseen; FdSet.Range gives the rng that leaves none out, as does
// math.MaxInt64.
//
// A nil timeout blocks for as long as it takes, 0 looks and does not wait. Select returns how many tokens the sets hold
// now, so that one which is ready in two sets counts twice, and 0 when the time is up.
//
// Errors, which leave the sets as they were: EBADF, a token names no socket; EINTR, one of the sockets was closed
// meanwhile, or, where the sets are empty, the Kit was; EINVAL, timeout or rng is negative, or two sets are one.
func (k *Kit) Select(rng Token, read, write, except *FdSet, timeout *time.Duration) (int, error) {
	sets := [numSets]*FdSet{read, write, except}
	if rng < 0 || timeout != nil && *timeout < 0 || same(read, write) || same(write, except) || same(except, read) {
		return 0, syscall.EINVAL
	}
	sel := k.selections.Get().(*selection)
	defer k.selections.Put(sel)
	defer sel.clear()
	if !sel.gather(k, rng, &sets) {
		return 0, syscall.EBADF
	}
	ready, err := sel.look()
	if err == nil && ready == 0 && (timeout == nil || *timeout > 0) {
		ready, err = sel.wait(k, timeout)
	}
	if err != nil {
		return 0, err
	}
	sel.deliver(&sets)
	return ready, nil
}

func same(a, b *FdSet) bool { return a == b && a != nil }

// gather looks the tokens of sets below rng up. It reports false where one names no socket.
func (sel *selection) gather(k *Kit, rng Token, sets *[numSets]*FdSet) bool {
	var rest [numSets][]Token
	for i, f := range sets {
		if f != nil {
			rest[i] = f.tokens
		}
	}
	for {
		// The lists ascend, so the smallest of their heads is the next token.
		next := Token(math.MaxInt64)
		for _, tokens := range rest {
			if len(tokens) > 0 {
				next = min(next, tokens[0])
			}
		}
		if next >= rng {
			return true
		}
		e := selected{s: k.sockets.lookup(next)}
		if e.s == nil {
			return false
		}
		for i, tokens := range rest {
			if len(tokens) > 0 && tokens[0] == next {
				e.want |= 1 << i
				rest[i] = tokens[1:]
			}
		}
		sel.list = append(sel.list, e)
	}
}

// look finds out which sockets are ready, and returns how often. EINTR: one of them is closed.
func (sel *selection) look() (int, error) {
	n := 0
	for i := range sel.list {
		e := &sel.list[i]
		ev := e.s.Events()
		if ev&stack.Closed != 0 {
			return 0, e.s.overtaken(syscall.EBADF)
		}
		e.ready = 0
		for set, want := range readiness {
			if e.want&(1<<set) != 0 && ev&want != 0 {
				e.ready |= 1 << set
				n++
			}
		}
	}
	return n, nil
}

// wait sleeps until look has found a ready socket or an error, or timeout has passed. A nil timeout never passes.
func (sel *selection) wait(k *Kit, timeout *time.Duration) (int, error) {
	var limit time.Duration
	if timeout != nil {
		limit = *timeout
	}
	sl := k.sleeper(limit)
	defer k.release(sl)
	if len(sel.list) == 0 {
		if sl.sleep(k.done) {
			return 0, syscall.EINTR
		}
		return 0, nil
	}
	for i := range sel.list {
		e := &sel.list[i]
		var events stack.Events
		for set, want := range readiness {
			if e.want&(1<<set) != 0 {
				events |= want
			}
		}
		e.s.Watch(sl.waiter, events)
	}
	defer func() {
		for i := range sel.list {
			sel.list[i].s.Unwatch(sl.waiter)
		}
	}()
	for {
		if n, err := sel.look(); n > 0 || err != nil {
			return n, err
		}
		if !sl.sleep(nil) {
			return 0, nil
		}
	}
}

// deliver leaves in each set the tokens that are ready in it.
func (sel *selection) deliver(sets *[numSets]*FdSet) {
	for i, f := range sets {
		if f == nil {
			continue
		}
		f.Zero()
		for _, e := range sel.list {
			if e.ready&(1<<i) != 0 {
				f.tokens = append(f.tokens, e.s.token)
			}
		}
	}
}

// clear forgets the sockets, which may be closed by now, and keeps the room.
func (sel *selection) clear() {
	clear(sel.list)
	sel.list = sel.list[:0]
}
