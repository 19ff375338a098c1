package bench

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

func TestFootprint(t *testing.T) {
	o := quickOptions(footprint)
	o.Kitd = []string{"/proc/self/exe", kitdStandIn}
	report := run(t, o)
	requireAll(t, report, []Role{Footprint}, goNet)
	w := report.Workload(footprint)
	for _, c := range w.Columns {
		if c.Key == idleShareKey {
			require.Less(t, w.Result(kitd).Median[c.Key], 0.5) // the stand-in sleeps
			continue
		}
		require.Positive(t, w.Result(kitd).Median[c.Key], c.Key)
	}
	for _, kind := range footprintKinds {
		// The kernel's objects of one socket are 2.4 to 3.4 kB; that a socket of kit's has memory at all is what is proved.
		require.InDelta(t, 4000, w.Result(goNet).Median[kind.key], 2500, kind.key)
		require.Less(t, w.Result(kitd).Median[kind.key], 20_000.0, kind.key)
	}
	require.NotContains(t, w.Result(goNet).Median, idleShareKey)
	require.Len(t, report.Goals, 1)
	require.Contains(t, report.Goals[0].String(), "CPU time of an idle kitd, percent of a core: ")
}

func TestKitdThatDoesNotStart(t *testing.T) {
	netlab.NeedRoot(t)
	o := quickOptions(footprint)
	o.Subjects, o.Kitd = []string{kitd}, []string{"sh", "-c", "echo no such card >&2; exit 1"}
	report, err := Run(context.Background(), o, &bytes.Buffer{})
	require.NoError(t, err)
	require.EqualError(t, report.Err(), "footprint of kitd: bench: kitd: exit status 1: no such card")
}

func TestCPUTime(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	require.NoError(t, err)
	for start := time.Now(); time.Since(start) < 20*time.Millisecond; { // at work
	}
	after, err := cpuTime(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before)
	over := exec.Command("true")
	require.NoError(t, over.Run())
	_, err = cpuTime(over.Process.Pid)
	require.Error(t, err, "there is no such process")
}
