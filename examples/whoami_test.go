package examples

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

func TestWhoami(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	p := serve(t, lab, "whoami", "-listen", "0.0.0.0:3478")
	require.Equal(t, at(lab.Left, 4711)+"\n",
		shell(t, lab.Left, "echo | nc -u -w 1 -p 4711 "+lab.Right.Addr().String()+" 3478"))
	p.stop(t)
	p.wants(t, "datagrams to port 3478 that the kernel got beside kit: 0")
}
