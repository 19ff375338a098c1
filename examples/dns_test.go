package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

var (
	perfSent   = regexp.MustCompile(`Queries sent: +(\d+)`)
	perfDone   = regexp.MustCompile(`Queries completed: +(\d+)`)
	gunSummary = regexp.MustCompile(`(?s)total queries:\s+(\d+).*total replies:\s+(\d+)`)
)

// Both name servers, asked by the tools of three makes.
func TestDNS(t *testing.T) {
	queries := filepath.Join(t.TempDir(), "queries")
	require.NoError(t, os.WriteFile(queries, []byte("kit.example A\nwww.kit.example A\n"), 0o600))
	for _, name := range []string{"dns", "dns-handler"} {
		t.Run(name, func(t *testing.T) {
			lab := netlab.Test(t, netlab.Options{})
			server := lab.Right.Addr().String()
			serve(t, lab, name, "-listen", "0.0.0.0:53", "-answer", "192.0.2.7")

			require.Equal(t, "192.0.2.7\n", client(t, lab.Left, "dig", "@"+server, "kit.example", "A", "+short"))
			require.Empty(t, client(t, lab.Left, "dig", "@"+server, "kit.example", "MX", "+short"))
			all := client(t, lab.Left, "dig", "@"+server, "www.kit.example")
			require.Contains(t, all, "status: NOERROR")
			require.Regexp(t, `flags: qr aa rd[ ;]`, all)
			require.NotContains(t, all, "Warning")
			if name == "dns" {
				require.Equal(t, "192.0.2.7\n", client(t, lab.Left, "dig", "@"+server, "kit.example", "+tcp", "+short"))
			}

			out := client(t, lab.Left, "dnsperf", "-s", server, "-d", queries, "-l", "2", "-q", "50")
			sent, done := perfSent.FindStringSubmatch(out), perfDone.FindStringSubmatch(out)
			require.NotNil(t, sent, out)
			require.NotNil(t, done, out)
			require.Equal(t, sent[1], done[1], "dnsperf has 50 questions open at a time, and none is lost: %s", out)
			t.Log(regexp.MustCompile(`Queries per second:.*`).FindString(out))

			// A stall of a shared machine for longer than the rings are deep loses frames whatever kit does, so one run of several must
			// be whole.
			for attempt := 1; ; attempt++ {
				out = client(t, lab.Left, "kxdpgun", "-t", "1", "-Q", "20000", "-i", queries, "-I", lab.Left.Interface(), "-F", "0", server)
				m := gunSummary.FindStringSubmatch(out)
				require.NotNil(t, m, "kxdpgun's summary is missing: %s", out)
				asked, err := strconv.Atoi(m[1])
				require.NoError(t, err)
				require.NotZero(t, asked)
				if m[1] == m[2] {
					break
				}
				require.Less(t, attempt, 20, "queries and replies: %s", out)
			}
		})
	}
}
