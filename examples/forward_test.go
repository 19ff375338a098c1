package examples

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// Clients of other makes reach servers of other makes, which are a network away, through two cards and no kernel's forwarding.
func TestForward(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	far, err := lab.AddNamespace("far")
	require.NoError(t, err)
	inner, outer, err := lab.Connect(lab.Right, far, netlab.Options{})
	require.NoError(t, err)

	size := transferSize(t, 32<<20)
	folder := files(t, size)
	background(t, far, "nghttpd", "--no-tls", "-d", folder, "8082")
	background(t, far, "socat", "TCP4-LISTEN:7,fork,reuseaddr", "SYSTEM:sha256sum")
	for _, port := range []uint16{8082, 7} {
		answers(t, far, netip.AddrPortFrom(outer.Addr(), port))
	}
	forward := func(port string) *program {
		return serve(t, lab, "forward", "-listen", at(lab.Right, 8080), "-o", inner.Interface, "-to", outer.Addr().String()+":"+port)
	}
	via := lab.Right.Addr().String()

	p := forward("8082")
	began := time.Now()
	got := shell(t, lab.Left, fmt.Sprintf("curl -sSf --http2-prior-knowledge http://%s:8080/large | sha256sum", via))
	require.Equal(t, bytesSum(t, size)+"  -\n", got)
	t.Logf("%d bytes, %.0f Mbit/s", size, float64(size)*8/time.Since(began).Seconds()/1e6)
	out := client(t, lab.Left, "h2load", "-n", "5000", "-c", "50", "http://"+via+":8080/small")
	require.Contains(t, out, "5000 succeeded, 0 failed, 0 errored, 0 timeout", "%s", out)

	p.stop(t)
	p = forward("7")
	// The server says the sum when the client has ended its half.
	require.Equal(t, bytesSum(t, size)+"  -\n", shell(t, lab.Left, fmt.Sprintf("nc -N %s 8080 <%s", via, filepath.Join(folder, "large"))))
	p.stop(t)

	forward("9")
	_, err = lab.Left.Run(t.Context(), "curl", "-sS", "http://"+via+":8080/")
	require.ErrorContains(t, err, "reset", "nobody listens behind it")
}
