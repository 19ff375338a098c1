package tests

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// runKitd runs the real command on the right end of the laboratory's cable until the test ends, and returns when it says that
// it is ready.
func runKitd(t *testing.T, lab *netlab.Lab, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(buildKitd(t), append([]string{"run", "-i", lab.Right.Interface(), "--control", filepath.Join(t.TempDir(), "kitd.sock")}, args...)...)
	out, in, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stderr = in
	require.NoError(t, lab.Right.Start(cmd))
	require.NoError(t, in.Close())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = out.Close()
	})
	ready := make(chan string)
	go func() {
		defer close(ready)
		var said strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if lines.Text() == "kitd: ready" {
				ready <- ""
				_, _ = io.Copy(io.Discard, out)
				return
			}
		}
		ready <- "kitd ended: " + said.String()
	}()
	select {
	case complaint := <-ready:
		require.Empty(t, complaint)
	case <-time.After(time.Minute):
		require.Fail(t, "kitd is not ready after a minute")
	}
	return cmd
}

var gunSummary = regexp.MustCompile(`(?s)total queries:\s+(\d+).*total replies:\s+(\d+)`)

// A raw client of another make, kxdpgun of Debian's knot-dnsutils, asks 100,000 times a second and misses no answer.
func TestKxdpgunLosesNothing(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	runKitd(t, lab, "--address", ownedAddr.String(), "--serve", "udp-echo=:7")
	ping(t, lab.Left, "-c", "1", "-q", ownedAddr.Addr().String())
	queries := filepath.Join(t.TempDir(), "queries")
	require.NoError(t, os.WriteFile(queries, []byte("kitnet.dev A\n"), 0o600))
	out, err := lab.Left.Run(t.Context(), "kxdpgun", "-t", "3", "-Q", "100000", "-p", "7", "-i", queries,
		"-I", lab.Left.Interface(), "-F", "0", ownedAddr.Addr().String())
	require.NoError(t, err, "%s", out)
	m := gunSummary.FindStringSubmatch(string(out))
	require.NotNil(t, m, "kxdpgun's summary is missing: %s", out)
	asked, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	require.NotZero(t, asked)
	require.Equal(t, m[1], m[2], "queries and replies: %s", out)
}

// A kitd that is killed leaves nothing steered: the kernel answers on the port again.
func TestKilledKitdGivesBack(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	kitd := runKitd(t, lab, "--serve", "udp-echo=:7")
	to := netip.AddrPortFrom(lab.Right.Addr(), 7).String()
	require.Equal(t, "kit", string(exchange(t, lab.Left, to, []byte("kit"))))
	_, err := lab.Right.ListenPacket("udp4", to)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.NoError(t, kitd.Process.Kill())
	_ = kitd.Wait()
	kernelUDP(t, lab, 7)
}
