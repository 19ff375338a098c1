package model

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestZ(t *testing.T) {
	for _, tr := range []Traffic{Handler, Ring, Stream} {
		for _, astray := range []bool{false, true} {
			for _, e := range []int{1, 2, 4, 8, 16} {
				c := Case{Traffic: tr, Engines: e, Load: e, Astray: astray, Packets: 20000}
				if astray && (tr != Stream || e < 2) {
					continue
				}
				r, err := Run(c)
				require.NoError(t, err)
				c.Engines, c.Astray = 1, false
				one, err := Run(c)
				require.NoError(t, err)
				t.Logf("speedup %.2f", r.PerSecond()/one.PerSecond())
				t.Logf("%s %v %d: %.2f M/s cost %v balance %.2f fwd %.2f", tr, astray, e, r.PerSecond()/1e6, r.Cost(), r.Balance(), float64(r.Forwarded)/float64(r.Packets))
			}
		}
	}
}
