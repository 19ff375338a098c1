// Package linktest is a network card in memory, for tests of what drives one.
//
// A Wire has two or more ends. Each End is a link: it has the methods that the
// engine wants of a queue of a real card, and the same rules about who owns a
// frame. Breaking a rule (sending a frame twice, or after Poll took it back)
// panics, and a frame that was given back is overwritten, so that a kept slice
// shows.
//
//	Alloc → filled → Send → Flush → travels → Poll lends it ─┬─→ free
//	                  ▲                                      │
//	                  └──────── answered in place ◄──────────┘
//
// What a wire does to frames on their way is set for each direction: latency,
// bandwidth with a queue, loss, duplication, reordering, jitter, flipped bits,
// truncation. All of it follows from a seed: the same frames sent at the same
// times meet the same fate, and one fault's probability does not change what
// another does.
//
// Time is virtual unless Config.RealTime is set: nothing arrives before
// Wire.Advance, Wire.NextEvent says how far to go, and Wait returns at once. On
// a real-time wire Wait sleeps, for tests whose engines run on goroutines.
//
// Fault gives any other link the same faults, and Capture shows what passes.
package linktest
