// Package ring passes records from one goroutine or process to another through
// memory that the caller gives: one writer, one reader, no lock.
//
// A Writer and a Reader share a piece of memory that Format prepared. A Chain
// has two such ends over memory that it allocates by need, inside one process.
//
// # Who owns what
//
//	Writer.Reserve → the writer fills it → Commit → Publish ─┐
//	      ▲                                                  ▼
//	    room ◄─ Release ◄─ Advance ◄─ the reader reads it ◄─ Peek
//
// Bytes from Reserve are the writer's until Publish; bytes from Peek are the
// reader's until Release. Each end keeps to one goroutine at a time; Used,
// Closed and Close may be called from any.
//
// # Layout
//
// Numbers are the machine's own order, because both ends are on it. There are
// no pointers, so each process may map the memory where it likes.
//
//	  0  magic, capacity, wake requests and closed flags: seldom written
//	128  producer index, written by the writer only
//	256  consumer index, written by the reader only
//	384  data, capacity bytes, a power of two
//
// Indices count bytes since Format and never wrap in practice (64 bits); an
// index and capacity-1 is an offset into the data. A record is a word of 8 bytes, the
// length of its payload and a kind, and the payload, filled up to 8 bytes. It
// never wraps: where the rest up to the end is too short a padding record fills
// it. Reader and writer sit on cache lines 128 bytes apart, as processors fetch
// lines in pairs.
//
// # The other end is not trusted
//
// Capacity and an end's own index are private copies; nothing that the other end can
// write is used before it is checked. Its index is read once, into a local. An
// index or a length that cannot be puts the end into a state of error: it gives
// out nothing more, Err says ErrCorrupt, and the ring is closed. What a lying
// peer can still do is to change a record's bytes while the reader looks at
// them: read each byte once, or copy first and check the copy.
package ring
