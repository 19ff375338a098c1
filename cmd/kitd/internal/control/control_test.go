package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a kitd that is not there: its captures write "packet N\n" until
// they have their count.
type source struct {
	running chan struct{} // told when a capture runs
}

func (source) Status() Status {
	return Status{Version: Version, Interface: "eth0", Degraded: []string{"nothing works"}}
}
func (source) Stats() Stats {
	return Stats{Version: Version, Counters: []Counter{{Group: "engine", Name: "rx_frames", Value: 5, Help: "Frames."}}}
}
func (source) Sockets(filter string) (Sockets, error) {
	if filter != "" {
		return Sockets{}, fmt.Errorf("filter %q is bad", filter)
	}
	return Sockets{Version: Version, Sockets: []Socket{{ID: 1, Proto: "udp"}}}, nil
}
func (source) Neighbors() Neighbors { return Neighbors{Version: Version} }
func (source) Routes() Routes       { return Routes{Version: Version} }
func (source) Queues() Queues       { return Queues{Version: Version} }

// Connect reaches a peer that echoes, at any address but one.
func (source) Connect(_ context.Context, address string, fallback bool) (Stream, error) {
	if fallback {
		return nil, errors.New("the kernel does not reach " + address)
	}
	if address == "nowhere:1" {
		return nil, errors.New("nobody is there")
	}
	peer, err := net.Listen("unix", "")
	if err != nil {
		return nil, err
	}
	go func() {
		defer peer.Close()
		c, err := peer.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	c, err := net.Dial("unix", peer.Addr().String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func (s source) Capture(r CaptureRequest) (CaptureRun, error) {
	if r.Filter == "bad" {
		return nil, errors.New("that filter is bad")
	}
	return func(ctx context.Context, w io.Writer, started func()) CaptureResult {
		started()
		if s.running != nil {
			s.running <- struct{}{}
		}
		var n uint64
		for ; n < r.Count; n++ {
			_, _ = fmt.Fprintf(w, "packet %d %s %v\n", n, r.Format, r.Drops)
		}
		if r.Count == 0 {
			_, _ = io.WriteString(w, "first\n")
			<-ctx.Done()
			n = 1
		}
		return CaptureResult{Captured: n, Lost: 7}
	}, nil
}

// serve runs a server on a socket of its own until the test ends.
func serve(t *testing.T, s Source) (path string, server *Server) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kitd.sock")
	l, err := Listen(path)
	require.NoError(t, err)
	server = NewServer(s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.NoError(t, <-done)
		require.NoFileExists(t, path)
		require.NoFileExists(t, path+".lock")
	})
	return path, server
}

func TestNouns(t *testing.T) {
	path, _ := serve(t, source{})
	c := NewClient(path)
	for _, noun := range []string{"status", "stats", "sockets", "neighbors", "routes", "queues"} {
		body, err := c.Get(t.Context(), noun, nil)
		require.NoError(t, err, noun)
		var document struct {
			Version int `json:"version"`
		}
		require.NoError(t, json.Unmarshal(body, &document), "%s", body)
		require.Equal(t, 1, document.Version, noun)
	}
	var status Status
	body, err := c.Get(t.Context(), "status", nil)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(body, &status))
	require.Equal(t, source{}.Status(), status)
}

func TestBadRequests(t *testing.T) {
	path, _ := serve(t, source{})
	for request, want := range map[string]string{
		"GET /v1/nonsense HTTP/1.1\r\nHost: kitd\r\n\r\n":           `404 Not Found|nothing is called "/v1/nonsense" here`,
		"GET / HTTP/1.1\r\nHost: kitd\r\n\r\n":                      `404 Not Found|"version":1`,
		"POST /v1/status HTTP/1.1\r\nHost: kitd\r\n\r\n":            `405 Method Not Allowed|method "POST" is not known here`,
		"DELETE /v1/sockets HTTP/1.1\r\nHost: kitd\r\n\r\n":         `405 Method Not Allowed|everything but connect is read with GET`,
		"GET /v1/sockets?filter=x HTTP/1.1\r\nHost: kitd\r\n\r\n":   `400 Bad Request|filter \"x\" is bad`,
		"GET /v1/capture?filter=bad HTTP/1.1\r\nHost: k\r\n\r\n":    `400 Bad Request|that filter is bad`,
		"GET /v1/capture?format=pcap HTTP/1.1\r\nHost: k\r\n\r\n":   `400 Bad Request|capture format \"pcap\" is not known: use pcapng or text`,
		"GET /v1/capture?count=-1 HTTP/1.1\r\nHost: k\r\n\r\n":      `400 Bad Request|capture count \"-1\" is not a positive number`,
		"GET /v1/capture?count=0 HTTP/1.1\r\nHost: k\r\n\r\n":       `400 Bad Request|is not a positive number`,
		"GET /v1/capture?drops=maybe HTTP/1.1\r\nHost: k\r\n\r\n":   `400 Bad Request|capture drops \"maybe\" is neither 1 nor 0`,
		"\x00\x01\x02garbage\r\n\r\n":                               `400 Bad Request|`,
		"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: k\r\n\r\n":      `307 Temporary Redirect|`,
		"GET /v1/status HTTP/1.1\r\n\r\n":                           `400 Bad Request|missing required Host header`,
		"GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\n\r\n": `431 Request Header Fields Too Large|`,
	} {
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, _ = io.WriteString(conn, request)
		require.NoError(t, conn.(*net.UnixConn).CloseWrite())
		body, _ := io.ReadAll(conn)
		conn.Close()
		status, text, _ := strings.Cut(want, "|")
		require.Contains(t, string(body), status, "%.60q", request)
		require.Contains(t, strings.ReplaceAll(string(body), `\"`, `"`), strings.ReplaceAll(text, `\"`, `"`), "%.60q", request)
	}
}

func TestRefusalIsKitdsOwnSentence(t *testing.T) {
	path, _ := serve(t, source{})
	_, err := NewClient(path).Get(t.Context(), "sockets", url.Values{"filter": {"x"}})
	var refusal *Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, http.StatusBadRequest, refusal.Status)
	require.EqualError(t, err, `filter "x" is bad`)
}

func TestCaptureEndsByItself(t *testing.T) {
	path, _ := serve(t, source{})
	var out strings.Builder
	started := 0
	result, err := NewClient(path).Capture(t.Context(), CaptureRequest{Format: FormatText, Count: 3, Drops: true}, &out, func() { started++ })
	require.NoError(t, err)
	require.Equal(t, CaptureResult{Captured: 3, Lost: 7}, result)
	require.Equal(t, "packet 0 text true\npacket 1 text true\npacket 2 text true\n", out.String())
	require.Equal(t, 1, started)
}

// until ends a context when something was written.
type until struct {
	cancel context.CancelFunc
	strings.Builder
}

func (u *until) Write(b []byte) (int, error) {
	u.cancel()
	return u.Builder.Write(b)
}

func TestCaptureThatIsInterruptedStillSaysWhatItCameTo(t *testing.T) {
	path, _ := serve(t, source{})
	ctx, cancel := context.WithCancel(t.Context())
	out := &until{cancel: cancel}
	result, err := NewClient(path).Capture(ctx, CaptureRequest{Format: FormatPcapng}, out, func() {})
	require.NoError(t, err)
	require.Equal(t, CaptureResult{Captured: 1, Lost: 7}, result)
	require.Equal(t, "first\n", out.String())
}

func TestCloseEndsCaptures(t *testing.T) {
	s := source{running: make(chan struct{}, 1)}
	path, server := serve(t, s)
	done := make(chan error, 1)
	go func() {
		_, err := NewClient(path).Capture(t.Context(), CaptureRequest{Format: FormatPcapng}, io.Discard, func() {})
		done <- err
	}()
	<-s.running
	require.NoError(t, server.Close())
	require.NoError(t, <-done)
}

func TestCapturesAreBounded(t *testing.T) {
	s := source{running: make(chan struct{}, maxCaptures)}
	path, _ := serve(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, maxCaptures)
	for range maxCaptures {
		go func() {
			_, err := NewClient(path).Capture(ctx, CaptureRequest{Format: FormatPcapng}, io.Discard, func() {})
			done <- err
		}()
	}
	for range maxCaptures {
		<-s.running
	}
	_, err := NewClient(path).Capture(t.Context(), CaptureRequest{Format: FormatPcapng}, io.Discard, func() {})
	require.EqualError(t, err, "capture refused: 8 are running; end one of them")
	cancel()
	for range maxCaptures {
		require.NoError(t, <-done)
	}
}

func TestClientSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kitd.sock")
	_, err := NewClient(path).Get(t.Context(), "status", nil)
	require.ErrorIs(t, err, ErrNotRunning)
	require.ErrorContains(t, err, path+": start it with kitd run -i IFACE")

	stale(t, path)
	_, err = NewClient(path).Get(t.Context(), "status", nil)
	require.ErrorIs(t, err, ErrNotRunning)
	require.ErrorContains(t, err, "the one that made the socket is gone")

	other := filepath.Join(t.TempDir(), "other.sock")
	l, err := net.Listen("unix", other)
	require.NoError(t, err)
	web := http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = web.Serve(l) }()
	defer web.Close()
	_, err = NewClient(other).Get(t.Context(), "status", nil)
	require.EqualError(t, err, "what listens on "+other+" is no kitd: it answered 404 Not Found")
}

// stale leaves the socket of a process that died.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kitd.sock")
	stale(t, path)
	require.NoError(t, os.WriteFile(path+".lock", nil, 0o600))
	l, err := Listen(path)
	require.NoError(t, err, "what a dead kitd left is replaced")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.ModeSocket|0o660, info.Mode())

	_, err = Listen(path)
	require.EqualError(t, err, "control socket "+path+" belongs to a kitd that runs: stop it, or use another --control")
	require.FileExists(t, path+".lock")

	require.NoError(t, l.Close())
	require.NoFileExists(t, path)
	require.NoFileExists(t, path+".lock")
	require.ErrorIs(t, l.Close(), net.ErrClosed)

	l, err = Listen(path)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestListenLeavesOthersAlone(t *testing.T) {
	directory := t.TempDir()
	file := filepath.Join(directory, "file")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	_, err := Listen(file)
	require.ErrorContains(t, err, "something that is no socket has that name")
	require.FileExists(t, file)
	require.NoFileExists(t, file+".lock")

	path := filepath.Join(directory, "other.sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer l.Close()
	_, err = Listen(path)
	require.ErrorContains(t, err, "is answered by another program")

	_, err = Listen(filepath.Join(directory, "nowhere", "kitd.sock"))
	require.ErrorContains(t, err, "can't be made: no such file or directory; use --control with a directory that can be written")
}
