package tcp

// State is a connection's state (RFC 9293 section 3.3.2).
type State uint8

// The states, in the RFC's order.
const (
	Closed State = iota
	Listen
	SynSent
	SynReceived
	Established
	FinWait1
	FinWait2
	CloseWait
	Closing
	LastAck
	TimeWait
)

var stateNames = [...]string{"CLOSED", "LISTEN", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED",
	"FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"}

// String returns the RFC's spelling, "FIN-WAIT-1".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "no state"
}

// Synchronized reports whether both ends know each other's sequence numbers:
// ESTABLISHED and all states behind it (RFC 9293 section 3.5.1).
func (s State) Synchronized() bool { return s >= Established }

// canSend reports whether the user may still add data in this state.
func (s State) canSend() bool { return s == Established || s == CloseWait }

// canReceive reports whether data of the peer is still to come in this state.
func (s State) canReceive() bool { return s == Established || s == FinWait1 || s == FinWait2 }

// Error is why a connection ended, or what was reported about its path.
type Error uint8

// The errors. None is the answer of a connection that is well or was closed in
// order.
const (
	None Error = iota
	// ErrRefused: the peer answered the SYN with RST.
	ErrRefused
	// ErrReset: the peer sent RST.
	ErrReset
	// ErrTimeout: the peer did not answer for too long.
	ErrTimeout
	// ErrAborted: this end gave the connection up, by Abort or because data was
	// left unread or came after Close.
	ErrAborted
	// ErrNetUnreachable and ErrHostUnreachable: a router said so (RFC 1122
	// section 4.2.3.9).
	ErrNetUnreachable
	ErrHostUnreachable
	// ErrProtocol: the peer's host does not speak TCP.
	ErrProtocol
	// ErrMessageSize: the path's MTU is below what a segment needs.
	ErrMessageSize
)

var errorTexts = [...]string{
	None:               "no error",
	ErrRefused:         "tcp: the peer refused the connection",
	ErrReset:           "tcp: the peer reset the connection",
	ErrTimeout:         "tcp: the peer did not answer in time",
	ErrAborted:         "tcp: the connection was aborted at this end",
	ErrNetUnreachable:  "tcp: a router says that the network is unreachable",
	ErrHostUnreachable: "tcp: a router says that the host is unreachable",
	ErrProtocol:        "tcp: the host does not speak TCP",
	ErrMessageSize:     "tcp: the path's MTU is too small",
}

// Error returns a sentence without its full stop.
func (e Error) Error() string {
	if int(e) < len(errorTexts) {
		return errorTexts[e]
	}
	return "tcp: unknown error"
}

// Events says what happened to a connection since it was last asked.
type Events uint8

// The events, a bit each.
const (
	// Connected: the connection reached ESTABLISHED.
	Connected Events = 1 << iota
	// Readable: more bytes were committed to the receive stream.
	Readable
	// Writable: bytes were released from the send stream.
	Writable
	// EndOfStream: the peer's FIN was reached; nothing will be committed after
	// what is there.
	EndOfStream
	// Urgent: the peer sent an urgent pointer (RFC 9293 section 3.8.5, MUST-32).
	Urgent
	// Failed: Err returns why the connection ended.
	Failed
	// SoftError: Info's SoftError has something new to say about the path.
	SoftError
	// Gone: the state is CLOSED. An RST may still be due, so the caller calls Emit
	// until it has nothing more, and forgets the Conn then. No timer runs and no
	// segment changes anything meanwhile; what arrives is for Layer.Refuse.
	Gone
)

// Events returns what happened since the last call and forgets it.
func (c *Conn) Events() Events {
	e := c.events
	c.events = 0
	return e
}
