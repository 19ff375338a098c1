package bench

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseKxdpgun(t *testing.T) {
	const summary = `using interface left0, XDP threads 1, UDP, native mode
thread#00: sent 291190, received 87727
total queries:     291190 (291190 pps)
total replies:     87727 (87727 pps) (30%)
average DNS reply size: 29 B
average Ethernet reply rate: 49828936 bps (49.83 Mbps)
responded NOERROR:   87727
duration: 1 s
`
	got, err := parseKxdpgun(summary)
	require.NoError(t, err)
	require.Equal(t, kxdpgunSummary{Queries: 291190, Replies: 87727, Duration: time.Second}, got)

	got, err = parseKxdpgun("total queries: 10 (4 pps)\ntotal replies: 0 (0 pps) (0%)\nduration: 2.5 s\n")
	require.NoError(t, err)
	require.Equal(t, kxdpgunSummary{Queries: 10, Duration: 2500 * time.Millisecond}, got)

	for name, bad := range map[string]string{
		"replies": "total queries:     43104 (21552 pps)\nduration: 2 s\n",
		"queries": "error: failed\n",
		"0":       "total queries: 1\ntotal replies: 1\nduration: 0 s\n",
		"range":   "total queries: 99999999999999999999\ntotal replies: 1\nduration: 1 s\n",
	} {
		_, err := parseKxdpgun(bad)
		require.ErrorContains(t, err, name)
	}
}

func TestQueryOf(t *testing.T) {
	for _, payload := range []int{19, 64, 81} {
		line, err := queryOf(payload)
		require.NoError(t, err)
		// A header, the label with its length, the root, type and class; the line ends in " A" and a newline.
		require.Equal(t, payload, 12+1+(len(line)-3)+1+4)
	}
	for _, payload := range []int{18, 82} {
		_, err := queryOf(payload)
		require.ErrorContains(t, err, "want 19 to 81")
	}
}
