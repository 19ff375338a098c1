package control

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestConnect: bytes go both ways, and each way ends on its own.
func TestConnect(t *testing.T) {
	path, _ := serve(t, source{})
	c, err := NewClient(path).Connect(t.Context(), "10.0.0.9:7", false)
	require.NoError(t, err)
	defer c.Close()
	text := strings.Repeat("kit ", 1<<18)
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, text)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	require.Equal(t, text, string(got))
}

func TestConnectRefused(t *testing.T) {
	path, _ := serve(t, source{})
	_, err := NewClient(path).Connect(t.Context(), "nowhere:1", false)
	var refusal *Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, Refusal{http.StatusBadGateway, "nobody is there"}, *refusal)

	_, err = NewClient(path).Connect(t.Context(), "10.0.0.9:7", true)
	require.ErrorContains(t, err, "the kernel does not reach 10.0.0.9:7")

	ended, end := context.WithCancel(t.Context())
	end()
	_, err = NewClient(path).Connect(ended, "10.0.0.9:7", false)
	require.ErrorIs(t, err, context.Canceled)
}

// TestConnectNeedsUpgrade: a plain POST is told so.
func TestConnectNeedsUpgrade(t *testing.T) {
	path, _ := serve(t, source{})
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /v1/connect?to=10.0.0.9:7 HTTP/1.1\r\nHost: kitd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)
	body, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(body), "426 Upgrade Required")
	require.Contains(t, string(body), "ask with Upgrade: kit-stream")
}

// TestConnectEndsWithServer: a connection does not outlive the server.
func TestConnectEndsWithServer(t *testing.T) {
	path, server := serve(t, source{})
	c, err := NewClient(path).Connect(t.Context(), "10.0.0.9:7", false)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, server.Close())
	_, err = io.Copy(io.Discard, c)
	require.NoError(t, err)
}
