package examples

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// bytesSum is the SHA-256 of what http-server gives for /bytes/n.
func bytesSum(t *testing.T, n int64) string {
	sum := sha256.New()
	_, err := io.CopyN(sum, rand.NewChaCha8([32]byte{}), n)
	require.NoError(t, err)
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// files is a folder for servers: "large" is what http-server gives for so many bytes, "small" says so.
func files(t *testing.T, size int64) string {
	folder := t.TempDir()
	f, err := os.Create(filepath.Join(folder, "large"))
	require.NoError(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), size)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(filepath.Join(folder, "small"), []byte("small"), 0o600))
	return folder
}

func TestHTTPServer(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	serve(t, lab, "http-server", "-listen", ":8080")
	url := "http://" + at(lab.Right, 8080)
	require.Equal(t, "hello over HTTP/1.1\n", client(t, lab.Left, "curl", "-sSf", url+"/"))
	require.Equal(t, "hello over HTTP/2.0\n", client(t, lab.Left, "curl", "-sSf", "--http2-prior-knowledge", url+"/"))

	size := transferSize(t, 64<<20)
	want := bytesSum(t, size)
	for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
		t.Run("download "+version, func(t *testing.T) {
			began := time.Now()
			got := shell(t, lab.Left, fmt.Sprintf("curl -sSf %s %s/bytes/%d | sha256sum", version, url, size))
			require.Equal(t, want+"  -\n", got)
			t.Logf("%d bytes, %.0f Mbit/s", size, float64(size)*8/time.Since(began).Seconds()/1e6)
		})
	}

	// h2load sends an exact number of requests, and says how each ended.
	for name, args := range map[string][]string{
		"HTTP/1.1": {"--h1", "-c", "1"}, "HTTP/1.1, 10 clients": {"--h1", "-c", "10"},
		"HTTP/2": {"-c", "1"}, "HTTP/2, 10 clients of 10 streams": {"-c", "10", "-m", "10"},
	} {
		t.Run("10,000 requests, "+name, func(t *testing.T) {
			out := client(t, lab.Left, "h2load", append(args, "-n", "10000", url+"/")...)
			require.Contains(t, out, "10000 succeeded, 0 failed, 0 errored, 0 timeout", "%s", out)
			t.Log(regexp.MustCompile(`finished in .*`).FindString(out))
		})
	}
	t.Run("wrk", func(t *testing.T) {
		out := client(t, lab.Left, "wrk", "-c", "100", "-d", "2s", "-t", "1", url+"/")
		require.Regexp(t, `[1-9]\d* requests in`, out)
		require.NotContains(t, out, "Socket errors")
		require.NotContains(t, out, "Non-2xx")
		t.Log(regexp.MustCompile(`Requests/sec: .*`).FindString(out))
	})
}

func TestHTTPClient(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	size := transferSize(t, 16<<20)
	folder := files(t, size)

	background(t, lab.Left, "python3", "-m", "http.server", "8081", "--protocol", "HTTP/1.1", "-d", folder)
	background(t, lab.Left, "nghttpd", "--no-tls", "-d", folder, "8082")
	for _, port := range []uint16{8081, 8082} {
		answers(t, lab.Left, netip.AddrPortFrom(lab.Left.Addr(), port))
	}
	ask := func(args ...string) string {
		p := start(t, lab.Right, "http-client", append([]string{"-i", lab.Right.Interface()}, args...)...)
		<-p.done
		require.NoError(t, p.Wait(), "%s", p.text())
		t.Log(p.text())
		return p.text()
	}
	for _, c := range []struct {
		url, version string
		args         []string
		requests     int
	}{
		// Python writes header and body apart, so that with Nagle's algorithm each answer waits for a delayed ACK, the kernel's too.
		{"http://" + at(lab.Left, 8081), "HTTP/1.1", nil, 20},
		{"http://" + at(lab.Left, 8082), "HTTP/2.0", []string{"-h2"}, 10000},
	} {
		require.Contains(t, ask(append(c.args, c.url+"/large")...), c.version+" 200 OK, sha256 "+bytesSum(t, size))
		out := ask(append(c.args, "-n", strconv.Itoa(c.requests), c.url+"/small")...)
		require.Contains(t, out, fmt.Sprintf("%d requests, 1 connections, %d bytes", c.requests, 5*c.requests))
		require.Contains(t, out, fmt.Sprintf("%s 200 OK, sha256 %x", c.version, sha256.Sum256([]byte("small"))))
	}
}
