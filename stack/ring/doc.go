// Package ring passes records or bytes from one goroutine or process to another
// through memory: one writer, one reader, no lock.
//
//	                                records         bytes
//	between processes, given memory Writer, Reader  BytesWriter, BytesReader
//	inside one, memory by need      Chain           Stream
//
// Records keep their bounds, as datagrams do. Bytes are a stream: the writer
// may put them out of order before it commits them, the reader may look at them
// again before it releases them, as TCP needs it at either end.
//
// # Who owns what
//
//	Writer.Reserve → the writer fills it → Commit → Publish ─┐
//	      ▲                                                  ▼
//	    room ◄─ Release ◄─ Advance ◄─ the reader reads it ◄─ Peek
//
// Bytes from Reserve are the writer's until Publish; bytes from Peek are the
// reader's until Release. In a ring of bytes Put and Commit take the place of the
// first three, and there is no Advance: Peek has an offset. Each end keeps to one
// goroutine at a time; Used of records, Closed and Close may be called from any.
//
// # Layout
//
// Numbers are the machine's own order, because both ends are on it. There are
// no pointers, so each process may map the memory where it likes.
//
//	  0  magic, capacity, wake requests, closed flags, limit: seldom written
//	128  producer index, written by the writer only
//	256  consumer index, written by the reader only
//	384  data, capacity bytes, a power of two
//
// Indices count bytes since Format and never wrap in practice (64 bits); an
// index and capacity-1 is an offset into the data. Bytes wrap. A record is a word
// of 8 bytes, the length of its payload and a kind, and the payload, filled up to
// 8 bytes. It never wraps: where the rest up to the end is too short a padding
// record fills it. Reader and writer sit on cache lines 128 bytes apart, as
// processors fetch lines in pairs.
//
// # The other end is not trusted
//
// Capacity and an end's own index are private copies; nothing that the other end
// can write is used before it is checked. Its index is read once, into a local. An
// index or a length that cannot be puts the end into a state of error: it gives
// out nothing more, Err says ErrCorrupt, and the ring is closed. What a lying
// peer can still do is to change bytes while the reader looks at them: read each
// byte once, or copy first and check the copy.
package ring
