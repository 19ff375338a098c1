package socketapi_test

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"

	. "kitnet.dev/kit/socketapi"
)

// TestNetConn holds the connections of Net to what the net package promises of a net.Conn.
func TestNetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		w := openStacks(t, true)
		near, far := w.near.calls.(*Kit).Net(), w.far.calls.(*Kit).Net()
		l, err := far.Listen("tcp", net.JoinHostPort(w.far.cards[0].String(), "0"))
		if err != nil {
			return nil, nil, nil, err
		}
		c1, err = near.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, nil, nil, err
		}
		c2, err = l.Accept()
		if err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close(); l.Close() }, nil
	})
}
