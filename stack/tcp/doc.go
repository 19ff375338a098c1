// Package tcp is the TCP state machine of RFC 9293 as a library: moments and
// segments go in, segments and one deadline come out. It knows nothing of
// sockets, links, engines or clocks.
//
// # A connection's life
//
//	          user calls                       the wire
//	Connect, Close, Abort,                 Arrives, PathError
//	ReceiveRead, Set…          │                │
//	                           ▼                ▼
//	                          ┌──────────────────┐
//	  Timeout ◄── Deadline ◄──│       Conn       │──► Events, Err, Info
//	                          └──────────────────┘
//	                                   │ Emit
//	                                   ▼
//	                                 Output
//
// Calls only change the transmission control block. Whatever they make
// necessary leaves at the next Emit, so that segments arriving in one step are
// served by one ACK decision, and data written in one step leaves in full
// segments. The caller's step is: Arrives for each segment, the user's calls,
// Timeout if Deadline has passed, Emit once, then Deadline and Events.
//
// Emit comes before Events also in the step that ends the connection: Abort, a
// Close that leaves bytes unread, text for a user who has gone, and keep-alive
// that gave up all leave an RST to be sent from CLOSED. Where Emit reports that it
// had no room for it, the Conn is kept until it had.
//
// # The short way
//
// Header prediction (predict.go) takes nearly all segments that arrive: the next text
// in order, and ACKs of what is in flight while nothing is thought to be lost. It is the
// way through RFC 9293 section 3.10.7.4 with the steps left out that do nothing for
// such segments, and never has another result. Emit in turn makes the header of new
// segments once for all of them, so their ACK, window and timestamp are the same.
//
// # Layout
//
// Files follow RFC 9293 section 3.10 (open, send, receive, close, abort,
// arrives, timeouts), then one concept each: rtt.go is RFC 6298, rack.go RFC
// 8985, and so on. Names are the RFCs': SND.UNA is snd.una. The RFC's section
// stands above the code that obeys it.
//
// # Who owns what
//
// A Layer belongs to one engine and is used by one goroutine at a time, as are
// all its connections. The bytes of a connection lie in two streams that the
// caller gives, one a direction; the user's goroutine works on their other
// ends. A segment's payload is copied during Arrives, and a Segment handed to
// Output is valid during the call only.
//
// A connection in which nothing is in flight and nothing is missing holds no
// memory but its Conn; the scoreboard of what is in flight (see flight) and the
// list of ranges received out of order come from the Layer when needed and go
// back to it.
package tcp
