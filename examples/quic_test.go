package examples

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// quicGet asks by HTTP/3 from the kernel's side, and returns what the client says.
func quicGet(t *testing.T, lab *netlab.Lab, n int64) string {
	t.Helper()
	c := start(t, lab.Left, "quic-client", fmt.Sprintf("https://%s/bytes/%d", at(lab.Right, 4433), n))
	<-c.done
	require.NoError(t, c.Wait(), "%s", c.text())
	return c.text()
}

// The client's UDP is the kernel's; the server, on kit, has nothing to complain about.
func TestQUIC(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	p := serve(t, lab, "quic-server", "-listen", ":4433")

	// tcpdump ends when it has seen so many packets of the server's that are marked ECT(0).
	marked := watch(t, lab.Left, "tcpdump", "-i", lab.Left.Interface(), "-c", "100", "-w", "/dev/null", "udp src port 4433 and ip[1] & 3 == 2")
	marked.wants(t, "listening on")
	size := transferSize(t, 100<<20)
	out := quicGet(t, lab, size)
	require.Contains(t, out, fmt.Sprintf("HTTP/3.0 200 OK, %d bytes", size))
	require.Contains(t, out, "sha256 "+bytesSum(t, size))
	t.Log(out)
	marked.wants(t, "100 packets captured")
	require.Equal(t, 1, strings.Count(p.text(), "\n"), "the server said that it serves, and warned of nothing: %s", p.text())
}

// A client of another make, ngtcp2's.
func TestQUICForAnotherMake(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	serve(t, lab, "quic-server", "-listen", ":4433")
	folder := t.TempDir()
	client(t, lab.Left, "gtlsclient", "-q", "--exit-on-all-streams-close", "--download="+folder,
		lab.Right.Addr().String(), "4433", "https://kit.example/bytes/10000000")
	got, err := os.ReadFile(filepath.Join(folder, "10000000"))
	require.NoError(t, err)
	require.Equal(t, bytesSum(t, 10_000_000), fmt.Sprintf("%x", sha256.Sum256(got)))
}

// quic-go finds everything that it looks for in a conn: large buffers, DF, ECN both ways and packet info.
func TestQUICFindsWhatItWants(t *testing.T) {
	t.Setenv("QUIC_GO_LOG_LEVEL", "debug")
	lab := netlab.Test(t, netlab.Options{})
	p := serve(t, lab, "quic-server", "-listen", ":4433")
	require.Contains(t, quicGet(t, lab, 1<<20), "ECN capability confirmed", "the client's marks came back in the server's ACKs")
	p.wants(t, "ECN capability confirmed")
	for _, want := range []string{
		"Increased receive buffer size to", "Increased send buffer size to", "Setting DF for IPv4", "Activating reading of ECN bits for IPv4",
		"Activating reading of packet info bits for IPv4",
	} {
		require.Contains(t, p.text(), want)
	}
	for _, unwanted := range []string{"Disabling", "failed to", "failed validation", "not supported"} {
		require.NotContains(t, p.text(), unwanted)
	}
}
