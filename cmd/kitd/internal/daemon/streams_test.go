package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/socketapi"
)

// dialStream connects the peer to a port of the daemon.
func (r *running) dialStream(port uint16) *socketapi.TCPConn {
	r.t.Helper()
	c, err := socketapi.NewNet(r.peer.stack).Dial("tcp", to(port).String())
	require.NoError(r.t, err)
	return c.(*socketapi.TCPConn)
}

// TestStreamEcho: RFC 862.
func TestStreamEcho(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"tcp-echo=:7", "udp-echo=:7"}}, nil)
	c := r.dialStream(7)
	text := strings.Repeat("hello kit ", 50_000)
	go func() {
		_, _ = io.WriteString(c, text)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
	sockets := get[control.Sockets](r, "sockets")
	states := map[string]int{}
	for _, s := range sockets.Sockets {
		states[s.Proto+" "+s.State]++
	}
	delete(states, "tcp last-ack") // if the last ACK has not come yet
	require.Equal(t, map[string]int{"tcp listening": 1, "udp unconnected": 1}, states)
	r.orderly()
}

// TestStreamDiscard: RFC 863.
func TestStreamDiscard(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"tcp-discard=:9"}}, nil)
	c := r.dialStream(9)
	_, err := io.WriteString(c, strings.Repeat("x", 1<<20))
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	require.Equal(t, io.EOF, err)
	r.orderly()
}

// TestStreamChargen: RFC 864: lines of 72 characters without end, each beginning one character later.
func TestStreamChargen(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"tcp-chargen=:19"}}, nil)
	c := r.dialStream(19)
	b := make([]byte, 100*fullLine)
	_, err := io.ReadFull(c, b)
	require.NoError(t, err)
	for i, line := range strings.SplitAfter(string(b), "\r\n")[:100] {
		require.Len(t, line, fullLine)
		require.Equal(t, ' '+byte(i%printing), line[0])
	}
	require.NoError(t, c.Close())
	r.orderly()
}

// TestWeb: the service http gives the bytes that it says, and their sum.
func TestWeb(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"http=:80"}}, nil)
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return r.dialStream(80), nil }}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	ask := func(method, path string, body io.Reader) (int, []byte) {
		request, err := http.NewRequest(method, "http://kitd"+path, body)
		require.NoError(t, err)
		response, err := client.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, b
	}
	status, hello := ask("GET", "/", nil)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, string(hello), "kitd at 10.0.0.5:80, asked by 10.0.0.9:")
	const n = 3_000_000
	status, b := ask("GET", "/bytes/"+strconv.Itoa(n)+"?seed=7", nil)
	require.Equal(t, http.StatusOK, status)
	require.Len(t, b, n)
	sum := sha256.Sum256(b)
	_, told := ask("GET", "/sha256/"+strconv.Itoa(n)+"?seed=7", nil)
	require.Equal(t, hex.EncodeToString(sum[:])+"\n", string(told))
	_, told = ask("POST", "/sha256", strings.NewReader(string(b)))
	require.Equal(t, hex.EncodeToString(sum[:])+"\n", string(told))
	for _, bad := range []string{"/bytes/x", "/bytes/-1", "/bytes/9999999999999", "/bytes/1?seed=x"} {
		status, _ = ask("GET", bad, nil)
		require.Equal(t, http.StatusBadRequest, status, bad)
	}
	r.orderly()
}

// TestStreamsEndWithTheService: a client is told that the service has gone.
func TestStreamsEndWithTheService(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"tcp-echo=:7"}}, nil)
	c := r.dialStream(7)
	_, err := io.WriteString(c, "x")
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.NoError(t, err)
	r.orderly()
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err, "an orderly stop closes connections by the rules")
}

// TestConnectThroughKitd: a client of the control socket speaks over the daemon's stack.
func TestConnectThroughKitd(t *testing.T) {
	r := start(t, map[string][]string{}, nil)
	l, err := socketapi.NewNet(r.peer.stack).Listen("tcp", "10.0.0.9:99")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	c, err := r.client.Connect(t.Context(), "10.0.0.9:99", false)
	require.NoError(t, err)
	_, err = io.WriteString(c, "over kit")
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "over kit", string(got))
	require.NoError(t, c.Close())
	_, err = r.client.Connect(t.Context(), "10.0.0.9:98", true)
	require.ErrorContains(t, err, `kitd can't connect to "10.0.0.9:98"`)
	require.ErrorContains(t, err, "connection refused")
	r.orderly()
}

// TestConnectFallsBack: what the stack does not reach is the kernel's if the client says so, and the list of sockets says why.
func TestConnectFallsBack(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"tcp-echo=:99"}}, nil)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	at := l.Addr().String()
	_, err = r.client.Connect(t.Context(), at, false)
	require.ErrorContains(t, err, "connection refused", "nobody listens on the stack's own loopback")
	c, err := r.client.Connect(t.Context(), at, true)
	require.NoError(t, err)
	peer, err := l.Accept()
	require.NoError(t, err)
	_, err = io.WriteString(c, "by the kernel")
	require.NoError(t, err)
	_, err = io.ReadFull(peer, make([]byte, len("by the kernel")))
	require.NoError(t, err)
	raw, err := r.client.Get(t.Context(), "sockets", nil)
	require.NoError(t, err)
	var list control.Sockets
	require.NoError(t, json.Unmarshal(raw, &list))
	reasons := map[string]string{}
	for _, s := range list.Sockets {
		require.Equal(t, s.Reason == "", s.Accelerated)
		reasons[s.State+" "+s.Local+s.Remote] = s.Reason
	}
	require.Equal(t, map[string]string{
		"listening 10.0.0.5:99":                          "",
		"established " + peer.RemoteAddr().String() + at: "destination 127.0.0.1 is the kernel's",
	}, reasons)
	require.NoError(t, c.Close())
	require.NoError(t, peer.Close())
	r.orderly()
}
