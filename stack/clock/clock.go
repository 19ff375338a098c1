// Package clock holds the one notion of time inside the stack: a number of
// nanoseconds on a monotonic clock.
//
// Only the loop that drives an engine calls Now; everything below it gets the
// time as an argument, so that a test can say what time it is.
package clock

import "time"

// Time is a moment, in nanoseconds on a monotonic clock since an arbitrary
// epoch of this process. Its zero value is Never. Two processes must not
// compare theirs.
type Time int64

// Never is the unset moment: a timer that does not run, a deadline that does
// not exist.
const Never Time = 0

// epoch lies an hour before the process began, so that Now minus any time-out
// in use is still a moment and not Never.
var epoch = time.Now().Add(-time.Hour)

// Now reads the clock. It is never Never and never goes back.
func Now() Time { return Time(time.Since(epoch)) }

// Add returns the moment d later. The caller makes sure that t is not Never:
// a time-out added to it would be a moment near the epoch.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns how long after u the moment t is; negative when it is before.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Before reports whether t comes before u. Never comes before every moment; use
// Earliest to order deadlines.
func (t Time) Before(u Time) bool { return t < u }

// After reports whether t comes after u.
func (t Time) After(u Time) bool { return t > u }

// Earliest returns the earlier of two deadlines, where Never is none: it is
// the result only when both are Never.
func Earliest(a, b Time) Time {
	if a == Never || (b != Never && b < a) {
		return b
	}
	return a
}
