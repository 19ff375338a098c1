// Package instructions counts what the cases of a benchmark cost, in nanoseconds for whoever measures and in instructions for a
// guard: the time of a packet differs from machine to machine and from minute to minute, the instructions that it executes do not.
//
// A package has one Table of cases, which its benchmark and its guard share:
//
//	func BenchmarkEngine(b *testing.B)   { engine.Bench(b) }
//	func TestInstructions(t *testing.T)  { engine.Guard(t) }
//
// Counting is exact, and needs neither root nor a processor with counters, which most virtual machines hide: the test binary
// starts itself again under ptrace(2), with one case to run, and the thread that runs it is single-stepped between Meter.Start and
// Meter.Stop while all others stand still. An instruction with a repeat prefix counts once, as processors count it, and so does a
// system call. A step takes microseconds, 50 of them on some virtual machines, so that a case counts a few packets in place of a
// million.
//
// The counts follow from the Go version, from GOAMD64 and from whether there is AVX2. What else the runtime chooses by the
// processor, copying and clearing by repeat prefix, is switched off where instructions are counted.
package instructions
