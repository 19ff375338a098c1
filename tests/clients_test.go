package tests

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// transferSize is how many bytes the clients of other makes transfer: KIT_TRANSFER where that is set, such as 1073741824.
func transferSize(t *testing.T, otherwise int) int {
	text := os.Getenv("KIT_TRANSFER")
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "KIT_TRANSFER is a number of bytes")
	return n
}

// Clients of other makes (nc, socat, curl) transfer files through kitd's TCP services, and the same bytes arrive, at 0, 1 and 5 %
// of loss each way.
func TestTCPClientsOfOtherMakes(t *testing.T) {
	netlab.NeedRoot(t)
	for _, loss := range []uint32{0, 100, 500} { // of 10,000
		size := transferSize(t, map[uint32]int{0: 64 << 20, 100: 8 << 20, 500: 2 << 20}[loss])
		content, sum := seeded(size, 5)
		want := hex.EncodeToString(sum[:])
		file := filepath.Join(t.TempDir(), "content")
		require.NoError(t, os.WriteFile(file, content, 0o600))
		at := ownedAddr.Addr().String()
		for name, script := range map[string]string{
			"nc":         fmt.Sprintf("nc -N %s 7 <%s | sha256sum", at, file),
			"socat":      fmt.Sprintf("socat -t 600 - TCP4:%s:7 <%s | sha256sum", at, file),
			"curl sends": fmt.Sprintf("curl -sSf -T %s -X POST -H 'Expect:' http://%s/sha256", file, at),
			"curl asks":  fmt.Sprintf("curl -sSf 'http://%s/bytes/%d?seed=9' | sha256sum; curl -sSf 'http://%s/sha256/%d?seed=9'", at, size, at, size),
		} {
			t.Run(fmt.Sprintf("%s, loss %v%%", name, float64(loss)/100), func(t *testing.T) {
				t.Parallel()
				lab := netlab.Test(t, netlab.Options{})
				runKitd(t, lab, "--address", ownedAddr.String(), "--serve", "tcp-echo=:7", "--serve", "http=:80")
				if loss > 0 {
					in, err := lab.Left.Loss(loss, 0, 1)
					require.NoError(t, err)
					defer func() { require.NoError(t, in.Close()) }()
					out, err := lab.Left.LossOut(loss, 0, 2)
					require.NoError(t, err)
					defer func() { require.NoError(t, out.Close()) }()
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience+time.Duration(size)*time.Microsecond)
				defer cancel()
				began := time.Now()
				out, err := lab.Left.Run(ctx, "bash", "-o", "pipefail", "-c", script)
				require.NoError(t, err, "%s", out)
				lines := strings.Fields(strings.ReplaceAll(string(out), "-", ""))
				if name == "curl asks" {
					require.Len(t, lines, 2)
					require.Equal(t, lines[1], lines[0])
				} else {
					require.Equal(t, []string{want}, lines)
				}
				t.Logf("%d bytes in %v, %.0f Mbit/s", size, time.Since(began), float64(size)*8/time.Since(began).Seconds()/1e6)
			})
		}
	}
}

// kitd connect is netcat over kit: over a running kitd's stack, and over a card that it holds itself.
func TestKitdConnect(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	l, err := lab.Left.Listen("tcp4", netip4(lab.Left.Addr(), 99))
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 100)
			n, _ := c.Read(b)
			_, _ = fmt.Fprintf(c, "%s from %s", b[:n], c.RemoteAddr())
			_ = c.Close()
		}
	}()
	run := func(args ...string) string {
		cmd := exec.Command(buildKitd(t), append([]string{"connect"}, args...)...)
		cmd.Stdin = strings.NewReader("hello")
		var out, complaints strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &complaints
		require.NoError(t, lab.Right.Start(cmd))
		require.NoError(t, cmd.Wait(), "%s", complaints.String())
		return out.String()
	}
	to := []string{lab.Left.Addr().String(), "99"}
	require.Contains(t, run(append([]string{"-i", lab.Right.Interface()}, to...)...), "hello from "+lab.Right.Addr().String()+":")
	require.Contains(t, run(append([]string{"-i", lab.Right.Interface(), "--address", ownedAddr.String()}, to...)...),
		"hello from "+ownedAddr.Addr().String()+":")
	kitd := runKitd(t, lab, "--address", ownedAddr.String())
	control := kitd.Args[len(kitd.Args)-3]
	require.Contains(t, run(append([]string{"--control", control}, to...)...), "hello from "+ownedAddr.Addr().String()+":")
}

// The stock iperf3 client accepts kitd's server in every way that it can run a test.
func TestStockIperf3(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	runKitd(t, lab, "--address", ownedAddr.String(), "--serve", "iperf3=:5201")
	for _, args := range []string{"", "-R", "-P 8", "-P 8 -R", "--bidir", "-u -b 0", "-u -b 0 -R", "-u -b 50M", "-u -b 20M -P 4 --bidir"} {
		t.Run(args, func(t *testing.T) {
			out, err := lab.Left.Run(t.Context(), "iperf3", append([]string{"-c", ownedAddr.Addr().String(), "-J", "-t", "1"}, strings.Fields(args)...)...)
			require.NoError(t, err, "%s", out)
			var report struct {
				Error string `json:"error"`
				End   struct {
					Sum, SumSent, SumReceived struct {
						Bytes float64 `json:"bytes"`
						Bits  float64 `json:"bits_per_second"`
					}
				} `json:"end"`
			}
			text := strings.NewReplacer(`"sum_sent"`, `"SumSent"`, `"sum_received"`, `"SumReceived"`).Replace(string(out))
			require.NoError(t, json.Unmarshal([]byte(text), &report), "%s", out)
			require.Empty(t, report.Error)
			if strings.Contains(args, "-u") {
				require.NotZero(t, report.End.Sum.Bytes)
				return
			}
			require.NotZero(t, report.End.SumReceived.Bytes)
			require.GreaterOrEqual(t, report.End.SumSent.Bytes, report.End.SumReceived.Bytes)
			t.Logf("%.0f Mbit/s", report.End.SumReceived.Bits/1e6)
		})
	}
}
