package bench

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sampleReport has every kind of value, a subject that failed, and a column that only one subject has.
func sampleReport() Report {
	r := Report{
		Version: Version,
		Machine: Machine{Kernel: "6.18.0", CPU: "Some CPU", CPUs: 2, Go: "go1.26.0"},
		Subjects: []Subject{
			{Name: kitHandler, About: "a handler"}, {Name: rawXDP, About: "no stack"},
			{Name: recvmmsg, About: "the kernel"}, {Name: "broken", About: "fails"},
		},
		Notes: []string{"A veth pair.", "Two cores."},
		Workloads: []Workload{
			{
				Name: echo, Title: "answers", Columns: []Column{
					{Key: "answered_per_s", Title: "answered", Unit: PerSecond},
					{Key: "kept_2", Title: "kept", Unit: Share},
				},
				Results: []Result{
					{Subject: kitHandler, Samples: []Sample{
						{"answered_per_s": 600_000, "kept_2": 0.95}, {"answered_per_s": 700_000, "kept_2": 1},
						{"answered_per_s": 620_000, "kept_2": 0.5},
					}},
					{Subject: rawXDP, Samples: []Sample{
						{"answered_per_s": 650_000, "kept_2": 1}, {"answered_per_s": 640_000, "kept_2": 1},
						{"answered_per_s": 620_000, "kept_2": 1},
					}},
					{Subject: recvmmsg, Samples: []Sample{
						{"answered_per_s": 300_000}, {"answered_per_s": 200_000}, {"answered_per_s": 248_000},
					}},
					{Subject: "broken", Error: "bench: it broke"},
				},
			},
			{
				Name: roundtrip, Title: "one at a time", Columns: []Column{
					{Key: "p50_ns", Title: "p50", Unit: Nanoseconds, LowerIsBetter: true},
					{Key: "lost", Title: "lost", Unit: Count, LowerIsBetter: true},
				},
				Results: []Result{
					{Subject: kitHandler, Samples: []Sample{{"p50_ns": 950, "lost": 0}}},
					{Subject: goNet, Samples: []Sample{{"p50_ns": 1900, "lost": 3}}},
				},
			},
		},
	}
	for i := range r.Workloads {
		r.Workloads[i].summarize()
	}
	r.Goals = r.goals()
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestReportTable(t *testing.T) {
	r := sampleReport()
	var b bytes.Buffer
	require.NoError(t, r.WriteTable(&b))
	golden(t, "report.txt", b.Bytes())
}

func TestReportJSON(t *testing.T) {
	r := sampleReport()
	var b bytes.Buffer
	require.NoError(t, r.WriteJSON(&b))
	golden(t, "report.json", b.Bytes())
	var back Report
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Equal(t, r.Workloads, back.Workloads)
	require.Equal(t, 1, back.Version)
}

func TestRatiosAreWithinARepetition(t *testing.T) {
	r := sampleReport()
	kit := r.Workload(echo).Result(kitHandler)
	require.Equal(t, 2.5, kit.Ratios[recvmmsg], "the median of 2, 3.5 and 2.5, not the ratio of the medians")
	require.Equal(t, 620_000.0, kit.Median["answered_per_s"])
	require.Equal(t, 600_000.0, kit.Min["answered_per_s"])
	require.Equal(t, 700_000.0, kit.Max["answered_per_s"])
	require.NotContains(t, r.Workload(echo).Result(recvmmsg).Median, "kept_2", "what was not measured has no median")
	require.Empty(t, r.Workload(echo).Result("broken").Ratios)
	require.Nil(t, r.Workload("none"))
	require.Nil(t, r.Workload(echo).Result("none"))
}

func TestGoals(t *testing.T) {
	r := sampleReport()
	require.Len(t, r.Goals, 3, "the others were not measured")
	for i, met := range []bool{false, true, true} {
		require.Equal(t, met, r.Goals[i].Met, r.Goals[i].String())
	}
	r.Workload(echo).Result(kitHandler).Ratios[recvmmsg] = 3
	r.Workload(roundtrip).Result(kitHandler).Ratios[goNet] = 1.01
	r.Workload(echo).Result(kitHandler).Ratios[rawXDP] = 0.89
	goals := r.goals()
	require.True(t, goals[0].Met)
	require.False(t, goals[1].Met)
	require.False(t, goals[2].Met, "of a time, more is worse")
	require.Equal(t, "round trip, p50, ratio to Go net: 1.01, wanted at most 1.00: MISSED", goals[2].String())
	require.Empty(t, (&Report{}).goals())
}

func TestCheck(t *testing.T) {
	r := sampleReport()
	require.EqualError(t, r.Check(), "echo of broken: bench: it broke")
	r.Workloads[0].Results = r.Workloads[0].Results[:3]
	require.NoError(t, r.Check())
	r.Workload(echo).Result(kitHandler).Ratios[recvmmsg] = 0.1
	require.ErrorContains(t, r.Check(), "echo: kit handler is 0.10 times recvmmsg")
	r.Workload(echo).Placement = &Placement{Comparable: true}
	require.Error(t, r.Check())
	r.Workload(echo).Placement = &Placement{}
	require.NoError(t, r.Check(), "the cores moved in each round")
}

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		unit  Unit
		value float64
		want  string
	}{
		{PerSecond, 12, "12.0 /s"}, {PerSecond, 1234, "1.23 k/s"}, {PerSecond, 45_600_000, "45.6 M/s"},
		{Nanoseconds, 0, "0.00 ns"}, {Nanoseconds, 999, "999 ns"}, {Nanoseconds, 4900, "4.90 µs"}, {Nanoseconds, 2.5e6, "2.50 ms"},
		{Share, 0.955, "96 %"}, {Share, 0.0034, "0.34 %"}, {Factor, 1.3, "1.30 ×"},
		{Bytes, 1000, "1000 B"}, {Bytes, 1500, "1.46 KiB"}, {Bytes, 34 << 20, "34.0 MiB"}, {Count, 3, "3"},
	} {
		require.Equal(t, c.want, c.unit.Format(c.value))
	}
}

func TestMeasuredColumns(t *testing.T) {
	a, b, c := Column{Key: "a"}, Column{Key: "b"}, Column{Key: "c"}
	require.Equal(t, []Column{b, c}, measured([]Column{a, b, c}, Sample{"c": 1}, Sample{"b": 0}))
}
