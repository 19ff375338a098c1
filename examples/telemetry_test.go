package examples

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// pushes has Python send so many datagrams, as fast as it can, in bursts that a receive ring holds.
const pushes = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(int(sys.argv[2])):
    s.sendto(b"bytes:%d|c\nrequests:1|c\ntime:5|ms\n" % i, (sys.argv[1], 8125))
    if i % 200 == 199: time.sleep(0.002)
`

func TestTelemetry(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	p := serve(t, lab, "telemetry", "-listen", "0.0.0.0:8125", "-every", "1s")
	to := lab.Right.Addr().String()
	shell(t, lab.Left, "printf 'hello:7|c\\nnonsense\\n:1|c\\n' | nc -u -w 1 "+to+" 8125")
	p.wants(t, "1 datagrams by ")
	p.wants(t, "hello 7\n")
	const n = 20000
	client(t, lab.Left, "python3", "-c", pushes, to, strconv.Itoa(n))
	p.wants(t, fmt.Sprintf("bytes %d\nhello 7\nrequests %d\n", n*(n-1)/2, n))
	p.stop(t)
	last := regexp.MustCompile(`(\d+) datagrams by (\d+) calls`).FindAllStringSubmatch(p.text(), -1)
	require.Equal(t, strconv.Itoa(n+1), last[len(last)-1][1])
	t.Log(last[len(last)-1][0])
	require.NotContains(t, p.text(), "nonsense")
	require.NotContains(t, p.text(), "time")
}
