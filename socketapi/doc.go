// Package socketapi is the Network Kit's socket calls on a stack of this process.
//
// A Kit hands out tokens, small numbers that stand for sockets, and takes them back in every call:
//
//	k := socketapi.New(s) // s is a *stack.Stack; kit.Open wires all of it to a card
//	t, err := k.Socket(socketapi.AF_INET, socketapi.SOCK_DGRAM, 0)
//	addr := netip.AddrPortFrom(socketapi.INADDR_ANY, 7)
//	err = k.Bind(t, &addr) // addr is now the real address
//	n, from, err := k.RecvFrom(t, buf, 0)
//
// There are three ways to receive datagrams, from the easiest to the fastest: Recv and RecvFrom, one message a call;
// ReadBatch, many messages a call, with WriteBatch for the way out; and Handle, a function that runs on the engine with
// the frame as it came, and may answer in place.
//
// # Errors
//
// Every error of a call on a token is a bare syscall.Errno, so that both errors.Is and == find it, and none costs an
// allocation. EBADF says that the token named no socket when the call began, EINTR that another goroutine closed the
// socket during the call, ENETDOWN that the stack below was closed.
//
// # Blocking
//
// A call blocks unless its socket has SO_NONBLOCK or its flags have MSG_DONTWAIT; it then answers EWOULDBLOCK (EAGAIN is
// the same number), as it does when SO_RCVTIMEO or SO_SNDTIMEO is over. Any number of goroutines may block on one socket.
// Closing the socket ends all these calls with EINTR, Select included. Neither sending nor receiving allocates, whether
// it blocks or not.
//
// # What holds already
//
//	Socket, CloseSocket                     UDP and ICMP; a stream is EPROTONOSUPPORT
//	Bind, GetSockName                       whole
//	Connect, GetPeerName                    datagrams
//	Send, Recv, SendTo, RecvFrom            datagrams; no MSG_PEEK
//	ReadBatch, WriteBatch, Handle           whole
//	Select                                  whole: read, write and except, any number of tokens
//	SetSockOpt, GetSockOpt                  the options of datagrams, see SetSockOpt
//	Listen, Accept                          EINVAL, as the contract wants it of a socket that is not a stream
//	Shutdown, and the options of streams    come with streams
package socketapi
