package stack

import (
	"math/bits"

	"kitnet.dev/kit/stack/clock"
)

// A wheel is a hierarchical timing wheel: adding, moving and stopping a timer cost the same with ten timers and with a
// million (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987, scheme 7). A timer fires at the first
// advance past its deadline, at most one tick late and never early.
type wheel struct {
	elapsed  uint64 // every tick up to this one has fired
	occupied [wheelLevels]uint64
	slots    [wheelLevels][wheelSlots]timer // list heads
	count    int
}

const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelLevels = 8  // 48 bits of ticks, more than clock.Time has
	tickShift   = 17 // a tick is 131 µs
)

// A timer belongs to one owner, which embeds it or points to it, and to at most one wheel at a time.
type timer struct {
	next, prev *timer
	tick       uint64
	owner      expirer
	level      uint8
	slot       uint8
}

// An expirer is told when its timer's deadline has passed. It may arm any timer, its own included.
type expirer interface {
	expire(t *timer, now clock.Time)
}

func (t *timer) armed() bool { return t.next != nil }

// arm makes t fire at when, in place of when it was to fire before.
func (w *wheel) arm(t *timer, when clock.Time) {
	w.stop(t)
	tick := (uint64(when) + 1<<tickShift - 1) >> tickShift
	t.tick = max(tick, w.elapsed+1)
	w.insert(t)
	w.count++
}

// stop is harmless on a timer that is not armed.
func (w *wheel) stop(t *timer) {
	if !t.armed() {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	w.count--
	if head := &w.slots[t.level][t.slot]; head.next == head {
		w.occupied[t.level] &^= 1 << t.slot
	}
}

// insert puts t where the highest digit in which its tick differs from elapsed says: the level is that digit's place.
func (w *wheel) insert(t *timer) {
	level := (bits.Len64((w.elapsed^t.tick)|(wheelSlots-1)) - 1) / wheelBits
	slot := (t.tick >> (wheelBits * level)) & (wheelSlots - 1)
	t.level, t.slot = uint8(level), uint8(slot)
	head := &w.slots[level][slot]
	if head.next == nil {
		head.next, head.prev = head, head
	}
	t.prev, t.next = head.prev, head
	head.prev.next, head.prev = t, t
	w.occupied[level] |= 1 << slot
}

// soonest finds the occupied slot that comes first, and the tick at which it begins. A lower level always comes first.
func (w *wheel) soonest() (level int, slot uint, tick uint64, ok bool) {
	for level = range wheelLevels {
		if w.occupied[level] == 0 {
			continue
		}
		shift := wheelBits * level
		at := uint(w.elapsed>>shift) & (wheelSlots - 1)
		slot = (uint(bits.TrailingZeros64(bits.RotateLeft64(w.occupied[level], -int(at)))) + at) & (wheelSlots - 1)
		base := w.elapsed >> (shift + wheelBits) << (shift + wheelBits)
		return level, slot, base + uint64(slot)<<shift, true
	}
	return 0, 0, 0, false
}

// deadline is the time of the next advance that can have something to do, 0 when no timer is armed.
func (w *wheel) deadline() clock.Time {
	if w.count == 0 {
		return 0
	}
	_, _, tick, _ := w.soonest()
	return clock.Time(tick << tickShift)
}

// advance fires every timer whose deadline is not after now.
func (w *wheel) advance(now clock.Time) {
	limit := uint64(now) >> tickShift
	for w.count > 0 {
		level, slot, tick, _ := w.soonest()
		if tick > limit {
			break
		}
		w.elapsed = max(w.elapsed, tick)
		w.empty(level, slot, now)
	}
	w.elapsed = max(w.elapsed, limit)
}

// empty fires the timers of a slot that has come, or moves them to where they belong now.
func (w *wheel) empty(level int, slot uint, now clock.Time) {
	head := &w.slots[level][slot]
	for head.next != head {
		t := head.next
		w.stop(t)
		if t.tick > w.elapsed {
			w.insert(t)
			w.count++
			continue
		}
		t.owner.expire(t, now)
	}
}
