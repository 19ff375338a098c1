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
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// UnitSockets is where the control sockets of kitd@.service are.
const UnitSockets = "/run/kitd/*.sock"

// Client asks the kitd behind a control socket.
type Client struct {
	path string
}

// ErrNotRunning is what an error of a Client wraps when no kitd is there.
var ErrNotRunning = errors.New("no kitd answers")

// NewClient makes a client; nothing is opened before the first question.
func NewClient(path string) *Client { return &Client{path: path} }

// documentTimeout bounds a question that is answered with one document.
const documentTimeout = 10 * time.Second

// Get asks for a noun and returns its JSON document as it came.
func (c *Client) Get(ctx context.Context, noun string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, documentTimeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	response, err := c.ask(ctx, conn, noun, query)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("kitd on %s broke off its answer: %w", c.path, err)
	}
	return body, nil
}

// farewell is how long a kitd has to end a capture.
const farewell = 2 * time.Second

// Capture copies a capture's stream to w as it comes, until it has Count
// packets, ctx ends or w fails. The end of ctx is no error. started is called
// when the capture has begun.
func (c *Client) Capture(ctx context.Context, r CaptureRequest, w io.Writer, started func()) (CaptureResult, error) {
	query := url.Values{"format": {r.Format}}
	if r.Filter != "" {
		query.Set("filter", r.Filter)
	}
	if r.Count > 0 {
		query.Set("count", strconv.FormatUint(r.Count, 10))
	}
	if r.Drops {
		query.Set("drops", "1")
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return CaptureResult{}, err
	}
	defer conn.Close()
	response, err := c.ask(context.Background(), conn, "capture", query)
	if err != nil {
		return CaptureResult{}, err
	}
	defer response.Body.Close()
	// A half-closed connection ends the capture at kitd's side, which then says in
	// its trailers what it came to.
	defer context.AfterFunc(ctx, func() {
		_ = conn.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(farewell))
	})()
	started()
	if _, err := io.Copy(w, response.Body); err != nil {
		return CaptureResult{}, fmt.Errorf("the capture from %s broke off: %w", c.path, err)
	}
	var result CaptureResult
	result.Captured, _ = strconv.ParseUint(response.Trailer.Get(trailerCaptured), 10, 64)
	result.Lost, _ = strconv.ParseUint(response.Trailer.Get(trailerLost), 10, 64)
	return result, nil
}

func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, c.explain(err)
	}
	return conn.(*net.UnixConn), nil
}

// ask sends a request over a connection and returns a response that is a 200.
func (c *Client) ask(ctx context.Context, conn net.Conn, noun string, query url.Values) (*http.Response, error) {
	address := url.URL{Scheme: "http", Host: "kitd", Path: "/v1/" + noun, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%q can't be asked for: %w", noun, err)
	}
	transport := http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true,
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var problem Error
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if json.Unmarshal(body, &problem) != nil || problem.Message == "" {
		return nil, fmt.Errorf("what listens on %s is no kitd: it answered %s", c.path, response.Status)
	}
	return nil, &Refusal{Status: response.StatusCode, Message: problem.Message}
}

// Refusal is kitd's own no to a request.
type Refusal struct {
	Status  int // of HTTP
	Message string
}

// Error is kitd's sentence.
func (r *Refusal) Error() string { return r.Message }

// explain says what to do about a socket that does not answer.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint := "start it with kitd run -i IFACE, or give --control"
		if others, _ := filepath.Glob(UnitSockets); len(others) > 0 {
			hint = "there is " + strings.Join(others, ", ") + ": give it with --control"
		}
		return fmt.Errorf("%w on %s: %s", ErrNotRunning, c.path, hint)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w on %s: the one that made the socket is gone; start it with kitd run -i IFACE", ErrNotRunning, c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("kitd on %s does not let you in: %w; run as root, or as a member of the socket's group", c.path, unix.EACCES)
	}
	return fmt.Errorf("kitd on %s does not answer: %w", c.path, err)
}
