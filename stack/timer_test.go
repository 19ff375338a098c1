package stack

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/instructions"
	"kitnet.dev/kit/stack/clock"
)

const tick = clock.Time(1) << tickShift

// A bell writes down when it rang, and may then do something.
type bell struct {
	timer timer
	due   clock.Time // when it was to ring; clock.Never: it is not armed
	rang  clock.Time
	then  func(now clock.Time)
}

func (b *bell) expire(_ *timer, now clock.Time) {
	b.rang, b.due = now, clock.Never
	if b.then != nil {
		b.then(now)
	}
}

func newBell() *bell {
	b := new(bell)
	b.timer.owner = b
	return b
}

// A timer fires at the first look after its deadline, at most one tick late, and never early, wherever in the wheel it stands.
func TestTimerIsNeverEarly(t *testing.T) {
	for _, start := range []clock.Time{0, 1, tick, begin, begin + 12345, 1 << 40, 1<<50 + 7} {
		for _, after := range []time.Duration{
			0, 1, time.Microsecond, time.Millisecond, 8 * time.Millisecond, 9 * time.Millisecond, time.Second, 10 * time.Minute,
			time.Hour, 24 * time.Hour, 300 * 24 * time.Hour, 30 * 365 * 24 * time.Hour,
		} {
			var w wheel
			w.advance(start)
			b := newBell()
			due := start.Add(after)
			w.arm(&b.timer, due)
			if after > 0 {
				w.advance(due - 1)
				require.Zero(t, b.rang, "%v after %d: early", after, start)
			}
			late := due + tick
			for w.deadline() != clock.Never && w.deadline() <= late {
				w.advance(w.deadline())
			}
			w.advance(late)
			require.NotZero(t, b.rang, "%v after %d: late", after, start)
			require.Zero(t, w.count)
			require.Equal(t, clock.Never, w.deadline())
		}
	}
}

// A leap over all of it fires everything, in order of the deadlines.
func TestTimersFireInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var w wheel
	w.advance(begin)
	var order []clock.Time
	for range 10_000 {
		due := begin.Add(time.Duration(rng.Int64N(int64(time.Hour))))
		b := newBell()
		b.then = func(clock.Time) { order = append(order, due) }
		w.arm(&b.timer, due)
	}
	w.advance(begin.Add(2 * time.Hour))
	require.Len(t, order, 10_000)
	for n := 1; n < len(order); n++ {
		require.Less(t, order[n-1], order[n]+tick, "to the tick")
	}
}

// One timer or a million: each fires once, in its tick.
func TestTimersOfAnyNumber(t *testing.T) {
	for _, n := range []int{1, 1000, 1_000_000} {
		rng := rand.New(rand.NewPCG(1, 1))
		var w wheel
		w.advance(begin)
		bells := make([]bell, n)
		for i := range bells {
			b := &bells[i]
			b.timer.owner = b
			b.due = begin.Add(time.Duration(rng.Int64N(int64(10 * time.Second))))
			due := b.due
			b.then = func(now clock.Time) {
				if now < due || now > due+tick+clock.Time(20*time.Millisecond) {
					t.Errorf("due at %d, fired at %d", due, now)
				}
			}
			w.arm(&b.timer, due)
		}
		require.Equal(t, n, w.count)
		for now := begin; now <= begin.Add(10*time.Second+20*time.Millisecond); now = now.Add(10 * time.Millisecond) {
			w.advance(now)
		}
		for i := range bells {
			if bells[i].rang == 0 {
				t.Fatalf("timer %d of %d never fired", i, n)
			}
		}
		require.Zero(t, w.count)
	}
}

// What fires may arm itself and others, and stop others, the next in its slot among them.
func TestTimersInTheirCallbacks(t *testing.T) {
	var w wheel
	w.advance(begin)
	a, b, c := newBell(), newBell(), newBell()
	rings := 0
	a.then = func(now clock.Time) {
		rings++
		w.stop(&b.timer)
		w.arm(&c.timer, now)
		if rings < 5 {
			w.arm(&a.timer, now.Add(time.Second))
		}
	}
	w.arm(&a.timer, begin.Add(time.Millisecond))
	w.arm(&b.timer, begin.Add(time.Millisecond))
	w.advance(begin.Add(2 * time.Millisecond))
	require.Equal(t, 1, rings)
	require.Zero(t, b.rang, "it was stopped in time")
	w.advance(begin.Add(3 * time.Millisecond))
	require.NotZero(t, c.rang, "armed for now, it fires at the next tick")
	w.advance(begin.Add(time.Hour))
	require.Equal(t, 2, rings, "a second after the look, not after the deadline")
	w.stop(&a.timer)
	w.stop(&a.timer)
	w.stop(&c.timer)
	require.Zero(t, w.count)
	require.False(t, a.timer.armed())
}

// A timer that always arms itself for now does not hold an advance up.
func TestTimerThatNeverRests(t *testing.T) {
	var w wheel
	w.advance(begin)
	b := newBell()
	rings := 0
	b.then = func(now clock.Time) { rings++; w.arm(&b.timer, now) }
	w.arm(&b.timer, begin)
	w.advance(begin + 1000*tick)
	require.LessOrEqual(t, rings, 2)
	w.advance(begin + 2000*tick)
	require.LessOrEqual(t, rings, 4)
}

// The deadline is when to look next: never behind the first timer, and looking then always gets on.
func TestTimerDeadline(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	var w wheel
	now := begin
	w.advance(now)
	for range 1000 {
		b := newBell()
		due := now.Add(time.Duration(rng.Int64N(1 << rng.IntN(50))))
		w.arm(&b.timer, due)
		looks := 0
		for b.rang == 0 {
			d := w.deadline()
			require.Greater(t, d, now)
			require.LessOrEqual(t, d, due+tick)
			now = d
			w.advance(now)
			looks++
		}
		require.LessOrEqual(t, looks, wheelLevels, "one look for each level")
	}
}

// FuzzWheel holds the wheel against a list. Each line of the script is 3 bytes: which timer and what to do, and by how much.
func FuzzWheel(f *testing.F) {
	f.Add([]byte{0x00, 1, 10, 0x01, 2, 10, 0x80, 0, 20, 0x80, 3, 255})
	f.Add([]byte{0x02, 5, 255, 0x42, 0, 0, 0x80, 5, 255})
	f.Fuzz(playWheel)
}

func TestWheelAgainstTheModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		script := make([]byte, 3*500)
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		playWheel(t, script)
	}
}

func playWheel(t *testing.T, script []byte) {
	var w wheel
	now := begin
	w.advance(now)
	bells := make([]*bell, 32)
	for n := range bells {
		bells[n] = newBell()
	}
	for ; len(script) >= 3; script = script[3:] {
		b := bells[script[0]&31]
		by := clock.Time(script[2]) << (script[1] & 31) << (script[1] >> 6 * 4)
		switch script[0] >> 6 {
		case 0, 3:
			w.arm(&b.timer, now+by)
			b.due = max(now+by, 1)
		case 1:
			w.stop(&b.timer)
			b.due = clock.Never
		case 2:
			due := make([]clock.Time, len(bells))
			for n, b := range bells {
				due[n] = b.due
				b.rang = 0
			}
			now += by
			w.advance(now)
			for n, b := range bells {
				switch {
				case due[n] == clock.Never, due[n] > now:
					require.Zero(t, b.rang, "timer %d fired early: due %d, now %d", n, due[n], now)
				case due[n]+2*tick <= now:
					require.NotZero(t, b.rang, "timer %d is late: due %d, now %d", n, due[n], now)
				}
			}
		}
		armed := 0
		first := clock.Never
		for _, b := range bells {
			if b.due != clock.Never {
				armed++
				first = clock.Earliest(first, b.due)
				require.True(t, b.timer.armed())
			}
		}
		require.Equal(t, armed, w.count)
		if d := w.deadline(); first == clock.Never {
			require.Equal(t, clock.Never, d)
		} else {
			require.Greater(t, d, now-tick)
			require.LessOrEqual(t, d, max(first, now)+2*tick)
		}
	}
}

// Arming, moving, stopping and firing a timer costs the same with ten timers and with a million.
func timerCases() (cases instructions.Table) {
	// What a round does is done with timers that are due at any moment of the next span.
	type prepare func(w *wheel, bells []bell, rng *rand.Rand) (round func(n int) int)
	of := func(what string, timers int, span time.Duration, count [2]int, f prepare) {
		cases = append(cases, instructions.Whole(fmt.Sprintf("timer/%s/armed=%d", what, timers), func(testing.TB) func(int) int {
			rng := rand.New(rand.NewPCG(1, 1))
			var w wheel
			w.advance(begin)
			bells := make([]bell, timers)
			for i := range bells {
				bells[i].timer.owner = &bells[i]
				w.arm(&bells[i].timer, begin.Add(time.Duration(rng.Int64N(int64(span)))))
			}
			return f(&w, bells, rng)
		}).In("timer", count[0], count[1]))
	}
	for _, timers := range []int{10, 1_000_000} {
		of("move", timers, time.Hour, [2]int{2, 6}, func(w *wheel, bells []bell, rng *rand.Rand) func(int) int {
			when := make([]clock.Time, 1024)
			for i := range when {
				when[i] = begin.Add(time.Duration(rng.Int64N(int64(time.Hour))))
			}
			i := 0
			return func(n int) int {
				for range n {
					w.arm(&bells[i%len(bells)].timer, when[i%len(when)])
					i++
				}
				return n
			}
		})
		of("arm-cancel", timers, time.Hour, [2]int{2, 6}, func(w *wheel, _ []bell, _ *rand.Rand) func(int) int {
			b := newBell()
			return func(n int) int {
				for i := range n {
					w.arm(&b.timer, begin.Add(time.Duration(i)*time.Second))
					w.stop(&b.timer)
				}
				return n
			}
		})
		// The moves down through the levels are in it. Each timer arms itself again.
		of("fire", timers, time.Second, [2]int{0, 10}, func(w *wheel, bells []bell, _ *rand.Rand) func(int) int {
			fired := 0
			for i := range bells {
				b := &bells[i]
				b.then = func(now clock.Time) {
					fired++
					w.arm(&b.timer, now.Add(time.Second))
				}
			}
			return func(n int) int {
				fired = 0
				for fired < n {
					w.advance(w.deadline())
				}
				return fired
			}
		})
	}
	return cases
}
