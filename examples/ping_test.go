package examples

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// The kernel at the other end answers, and counts what it was asked (RFC 2011, icmpInEchos).
func TestPing(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	echos := func() string {
		lines := regexp.MustCompile(`(?m)^Icmp: (.*)$`).FindAllStringSubmatch(client(t, lab.Left, "cat", "/proc/net/snmp"), -1)
		require.Len(t, lines, 2)
		for i, name := range strings.Fields(lines[0][1]) {
			if name == "InEchos" {
				return strings.Fields(lines[1][1])[i]
			}
		}
		require.Fail(t, "the kernel does not count echo requests")
		return ""
	}
	require.Equal(t, "0", echos())
	p := start(t, lab.Right, "ping", "-i", lab.Right.Interface(), "-c", "5", "-interval", "100ms", lab.Left.Addr().String())
	<-p.done
	require.NoError(t, p.Wait(), "%s", p.text())
	require.Contains(t, p.text(), "5 requests, 5 answers")
	require.Equal(t, "5", echos())
	t.Log(p.text())

	p = start(t, lab.Right, "ping", "-i", lab.Right.Interface(), "-c", "1", "-interval", "5s", "10.77.0.99")
	<-p.done
	require.Error(t, p.Wait())
	require.Contains(t, p.text(), "request 1: no route to host", "a neighbour that does not answer ARP")
	require.Contains(t, p.text(), "no answer")
}
