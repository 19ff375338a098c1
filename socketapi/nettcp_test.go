package socketapi_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

// A methodCall is a call of a method, and the operation that its error is about.
type methodCall struct {
	op   string
	call func() error
}

// tcpCalls are the methods of a connection that fail when it is closed, by name.
func tcpCalls(near *TCPConn) map[string]methodCall {
	return map[string]methodCall{
		"Read":               {"read", func() error { _, err := near.Read(make([]byte, 1)); return err }},
		"Write":              {"write", func() error { _, err := near.Write(make([]byte, 1)); return err }},
		"Close":              {"close", near.Close},
		"CloseRead":          {"close", near.CloseRead},
		"CloseWrite":         {"close", near.CloseWrite},
		"SetDeadline":        {"set", func() error { return near.SetDeadline(time.Time{}) }},
		"SetReadDeadline":    {"set", func() error { return near.SetReadDeadline(time.Time{}) }},
		"SetWriteDeadline":   {"set", func() error { return near.SetWriteDeadline(time.Time{}) }},
		"SetNoDelay":         {"set", func() error { return near.SetNoDelay(true) }},
		"SetLinger":          {"set", func() error { return near.SetLinger(1) }},
		"SetKeepAlive":       {"set", func() error { return near.SetKeepAlive(true) }},
		"SetKeepAlivePeriod": {"set", func() error { return near.SetKeepAlivePeriod(time.Second) }},
		"SetKeepAliveConfig": {"set", func() error { return near.SetKeepAliveConfig(net.KeepAliveConfig{}) }},
		"SetReadBuffer":      {"set", func() error { return near.SetReadBuffer(1 << 16) }},
		"SetWriteBuffer":     {"set", func() error { return near.SetWriteBuffer(1 << 16) }},
		"SyscallConn":        {"raw-conn", func() error { _, err := near.SyscallConn(); return err }},
	}
}

// What is closed is net.ErrClosed, in every method, and only then.
func TestTCPClosed(t *testing.T) {
	w := openStacks(t, true)
	near, _ := w.tcpPair()
	l := w.near.listens()
	require.NoError(t, near.Close())
	require.NoError(t, l.Close())
	calls := tcpCalls(near)
	for name, c := range map[string]methodCall{
		"listener Accept":   {"accept", func() error { _, err := l.Accept(); return err }},
		"listener Close":    {"close", l.Close},
		"listener deadline": {"set", func() error { return l.SetDeadline(time.Time{}) }},
		"listener raw":      {"raw-conn", func() error { _, err := l.SyscallConn(); return err }},
	} {
		calls[name] = c
	}
	for name, c := range calls {
		wantOpError(t, c.call(), c.op, "tcp", net.ErrClosed)
		require.ErrorContains(t, c.call(), "use of closed network connection", name)
	}
}

// A call that waits ends when the conn is closed, or its deadline is set to a moment that is over.
func TestTCPWaits(t *testing.T) {
	for _, end := range []string{"close", "deadline"} {
		w := openStacks(t, true)
		near, far := w.tcpPair()
		l := w.near.listens()
		for _, c := range []*TCPConn{near, far} {
			require.NoError(t, c.SetDeadline(time.Time{}))
		}
		errs := make(chan error, 3)
		go func() { _, err := near.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := near.Write(make([]byte, 64<<20)); errs <- err }()
		go func() { _, err := l.Accept(); errs <- err }()
		sleeping(t, "socketapi.(*TCPConn).readBlocked", 1)
		sleeping(t, "socketapi.(*TCPConn).writeBlocked", 1)
		sleeping(t, "socketapi.(*TCPListener).AcceptTCP", 1)
		if end == "close" {
			require.NoError(t, near.Close())
			require.NoError(t, l.Close())
		} else {
			require.NoError(t, near.SetDeadline(time.Unix(1, 0)))
			require.NoError(t, l.SetDeadline(time.Unix(1, 0)))
		}
		for range 3 {
			err := <-errs
			if end == "close" {
				require.ErrorIs(t, err, net.ErrClosed)
				continue
			}
			wantTimeout(t, err)
		}
		if end == "close" {
			continue
		}
		// A deadline that is moved lets go on.
		require.NoError(t, near.SetDeadline(time.Time{}))
		require.NoError(t, l.SetDeadline(time.Now().Add(patience)))
		_, err := far.Write([]byte("x"))
		require.NoError(t, err)
		_, err = near.Read(make([]byte, 1))
		require.NoError(t, err)
		c, err := w.near.goNet().Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		_, err = l.Accept()
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, l.SetDeadline(time.Now().Add(time.Millisecond)))
		_, err = l.Accept()
		wantTimeout(t, err)
	}
}

// A conn whose peer has reset or ended says so once, with the errno inside.
func TestTCPPeerEnds(t *testing.T) {
	w := openStacks(t, true)
	near, far := w.tcpPair()
	require.NoError(t, far.SetLinger(0))
	require.NoError(t, far.Close())
	n, err := near.Read(make([]byte, 9))
	require.Zero(t, n)
	o := wantOpError(t, err, "read", "tcp", ECONNRESET)
	require.Equal(t, []net.Addr{near.LocalAddr(), near.RemoteAddr()}, []net.Addr{o.Source, o.Addr})
	var call *os.SyscallError
	require.ErrorAs(t, err, &call)
	require.Equal(t, "read", call.Syscall)
	_, err = near.Write([]byte("x"))
	wantOpError(t, err, "write", "tcp", EPIPE)

	near, far = w.tcpPair()
	_, err = far.Write([]byte("last"))
	require.NoError(t, err)
	require.NoError(t, far.SetLinger(-1))
	require.NoError(t, far.Close())
	got, err := io.ReadAll(near)
	require.NoError(t, err)
	require.Equal(t, "last", string(got))
	_, err = near.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err, "bare")
	n, err = near.Read(nil)
	require.NoError(t, err, "nothing is wanted")
	require.Zero(t, n)
}

// One direction ends without the other.
func TestTCPHalfClose(t *testing.T) {
	w := openStacks(t, true)
	near, far := w.tcpPair()
	_, err := near.Write([]byte("question"))
	require.NoError(t, err)
	require.NoError(t, near.CloseWrite())
	_, err = near.Write([]byte("x"))
	wantOpError(t, err, "write", "tcp", EPIPE)
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.Equal(t, "question", string(got))
	require.NoError(t, far.CloseRead())
	_, err = far.Write([]byte("answer"))
	require.NoError(t, err)
	require.NoError(t, far.Close())
	got, err = io.ReadAll(near)
	require.NoError(t, err)
	require.Equal(t, "answer", string(got))
}

// io.Copy goes by ReadFrom and WriteTo, and both end as they should.
func TestTCPCopies(t *testing.T) {
	w := openStacks(t, true)
	near, far := w.tcpPair()
	text := bytes.Repeat([]byte("0123456789"), 100_000)
	done := make(chan error)
	go func() {
		n, err := near.ReadFrom(bytes.NewReader(text))
		if err == nil && n != int64(len(text)) {
			err = io.ErrShortWrite
		}
		if err == nil {
			err = near.CloseWrite()
		}
		done <- err
	}()
	var got bytes.Buffer
	n, err := far.WriteTo(&got)
	require.NoError(t, err)
	require.Equal(t, int64(len(text)), n)
	require.NoError(t, <-done)
	require.Equal(t, text, got.Bytes())
	var _ io.ReaderFrom = near
	var _ io.WriterTo = near
	_, err = near.ReadFrom(bytes.NewReader(text))
	wantOpError(t, err, "write", "tcp", EPIPE)
	require.NoError(t, near.SetReadDeadline(time.Unix(1, 0)))
	_, err = near.WriteTo(&got)
	wantTimeout(t, err)
}

// What is set reaches the socket, and what the net package sets by itself is set.
func TestTCPOptions(t *testing.T) {
	w := openStacks(t, true)
	near, far := w.tcpPair()
	for _, c := range []*TCPConn{near, far} {
		st := c.Stream()
		require.True(t, st.NoDelay())
		on, idle, interval, probes := st.KeepAlive()
		require.Equal(t, []any{true, 15 * time.Second, 15 * time.Second, 9}, []any{on, idle, interval, probes})
		_, lingers := st.Linger()
		require.False(t, lingers)
	}
	st := near.Stream()
	require.NoError(t, near.SetNoDelay(false))
	require.False(t, st.NoDelay())
	require.NoError(t, near.SetLinger(3))
	d, on := st.Linger()
	require.True(t, on)
	require.Equal(t, 3*time.Second, d)
	require.NoError(t, near.SetKeepAlivePeriod(1500*time.Millisecond))
	on, idle, interval, _ := st.KeepAlive()
	require.Equal(t, []any{true, 2 * time.Second, 15 * time.Second}, []any{on, idle, interval})
	require.ErrorIs(t, near.SetKeepAlivePeriod(0), EINVAL)
	require.NoError(t, near.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: -1, Count: 3}))
	on, idle, interval, probes := st.KeepAlive()
	require.Equal(t, []any{true, time.Minute, 15 * time.Second, 3}, []any{on, idle, interval, probes})
	require.NoError(t, near.SetKeepAlive(false))
	on, _, _, _ = st.KeepAlive()
	require.False(t, on)
	require.NoError(t, near.SetReadBuffer(1<<18))
	require.NoError(t, near.SetWriteBuffer(1<<17))
	require.Equal(t, []int{1 << 18, 1 << 17}, []int{st.ReceiveBuffer(), st.SendBuffer()})
	multipath, err := near.MultipathTCP()
	require.NoError(t, err)
	require.False(t, multipath)

	l := w.far.listens()
	for keep, want := range map[time.Duration][]any{
		-1: {false, time.Duration(0)}, 0: {true, 15 * time.Second}, time.Hour: {true, time.Hour},
	} {
		c, err := (&Dialer{Net: w.near.goNet(), KeepAlive: keep}).Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		on, idle, _, _ := c.(*TCPConn).Stream().KeepAlive()
		require.Equal(t, want, []any{on, idle})
	}
	given := net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: 2 * time.Second, Count: 4}
	c, err := (&Dialer{Net: w.near.goNet(), KeepAliveConfig: given}).Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	on, idle, interval, probes = c.(*TCPConn).Stream().KeepAlive()
	require.Equal(t, []any{true, time.Second, 2 * time.Second, 4}, []any{on, idle, interval, probes})
}
