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
// # Streams
//
// Listen takes an acceptance count: how many clients are held at a time, those that wait and those that were accepted and are not
// closed. One more is refused at once. Send returns when all bytes are in the send buffer; a part that was taken before an error
// is what it returns, and the error comes with the next call. Recv returns 0 at the end, and once why a connection ended
// otherwise: ECONNRESET, ETIMEDOUT. What was sent before CloseSocket is still delivered, and then the end.
//
// # What is left out
//
//	IPv6                        EAFNOSUPPORT
//	MSG_PEEK and other flags    EOPNOTSUPP: there are MSG_DONTWAIT and MSG_TRUNC
//	disconnecting               a second Connect is EISCONN
//	raw sockets                 ICMP datagram sockets stand in for them
//	multicast groups            can't be joined; a datagram to one is sent
//
// # Go's interfaces
//
// Net has the net package's functions for the same sockets, with real net.Conn, net.Listener and net.PacketConn:
//
//	n := k.Net()
//	l, err := n.Listen("tcp", ":80")
//	client := http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
//
// Dialer and ListenConfig are the net package's with the fields that mean something here. What they return has the methods of
// net.TCPConn, net.TCPListener and net.UDPConn but File, and behaves as those, down to the text of errors; golang.org/x/net/nettest
// is satisfied with them. UDPConn has ReadBatch and WriteBatch beside, in the form of golang.org/x/net/ipv4.
package socketapi
