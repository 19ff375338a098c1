package bench

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTwoEnginesAndTheModelOfMore(t *testing.T) {
	o := quickOptions(scaling, engines)
	if o.oneCore() {
		o.Workloads = []string{engines}
	}
	report := run(t, o)
	if w := report.Workload(scaling); w != nil {
		requireAll(t, Report{Subjects: report.Subjects, Workloads: []Workload{*w}}, []Role{Scaling}, rawXDP)
		for _, r := range w.Results {
			require.InEpsilon(t, r.Median[twoEnginesKey]/r.Median[oneEngineKey], r.Median[scalingKey], 1e-9, r.Subject)
		}
		require.Contains(t, report.Notes, scalingNote)
	}
	w := report.Workload(engines)
	requireAll(t, Report{Subjects: report.Subjects, Workloads: []Workload{*w}}, []Role{Engines})
	for _, r := range w.Results {
		require.Contains(t, r.Median, speedupKey(2))
		require.Greater(t, r.Median[speedupKey(16)], r.Median[speedupKey(2)], r.Subject)
		require.NotContains(t, r.Median, speedupKey(4), "a smoke run leaves it out")
	}
	require.Contains(t, w.Result(kitTCP).Median, astrayKey(16))
	require.NotContains(t, w.Result(kitBatch).Median, astrayKey(16), "datagrams are at home everywhere")
	require.Contains(t, report.Notes, enginesNote)
}

// Where there is one core, scaling is left out, and the report says so.
func TestScalingNeedsTwoCores(t *testing.T) {
	r := &runner{opts: DefaultOptions(false, "self")}
	r.opts.GeneratorCPU, r.opts.SubjectCPU = 0, 0
	for _, w := range r.workloads() {
		require.NotEqual(t, scaling, w.name)
	}
	require.Contains(t, strings.Join(r.notes(), "\n"), "scaling: not measured")
}

// Each core's frames come to a queue of their own.
func TestQueuesForCores(t *testing.T) {
	require.Equal(t, 4, queuesFor([]int{0, 1}))
	require.Equal(t, 4, queuesFor([]int{3, 6}))
	require.Equal(t, 5, queuesFor([]int{0, 4}))
	require.Equal(t, 7, queuesFor([]int{0, 60}))
}

func TestModelRefusesOtherSubjects(t *testing.T) {
	require.ErrorContains(t, modelMain(task{Subject: goNet}), "no model")
}
