package main

import (
	"encoding/xml"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/bench"
)

var update = flag.Bool("update", false, "write the golden files anew")

// root is the module's folder, seen from this package's.
const root = "../../.."

// What the README shows is what the report gives that lies in the repository, and the files beside it are too.
func TestReadmeIsWhatTheReportGives(t *testing.T) {
	folder := filepath.Join(root, "docs", "bench")
	r, err := load(filepath.Join(folder, "report.json"))
	require.NoError(t, err)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	want, err := replace(string(readme), block(r, "docs/bench"))
	require.NoError(t, err)
	require.Equal(t, want, string(readme),
		"run make bench-report, or go run ./internal/bench/publish after a change of this program")
	made, err := files(r)
	require.NoError(t, err)
	for name, content := range made {
		got, err := os.ReadFile(filepath.Join(folder, name))
		require.NoError(t, err)
		require.Equal(t, string(content), string(got), name)
	}
	stale, err := left(folder, made)
	require.NoError(t, err)
	require.Empty(t, stale)
}

// sampleReport is that of package bench's tests, with a workload of several steps.
func sampleReport(t *testing.T) *bench.Report {
	r, err := load("../testdata/report.json")
	require.NoError(t, err)
	steps := bench.Steps()[0]
	w := bench.Workload{Name: steps.Workload, Title: "many <sockets>"}
	values, other := map[string]float64{}, map[string]float64{}
	for i, key := range steps.Keys {
		w.Columns = append(w.Columns, bench.Column{Key: key, Title: steps.At[i], Unit: bench.PerSecond})
		values[key] = 4e6 / float64(i+1)
		if i < 2 {
			other[key] = 1e6
		}
	}
	w.Results = []bench.Result{
		{Subject: "kit handler", Median: values}, {Subject: "recvmmsg", Median: other}, {Subject: "Go net", Error: "no"},
	}
	r.Workloads = append(r.Workloads, w)
	return r
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestBlockAndCharts(t *testing.T) {
	r := sampleReport(t)
	golden(t, "block.md", block(r, "docs/bench"))
	made, err := files(r)
	require.NoError(t, err)
	require.Len(t, made, 1+len(r.Workloads))
	golden(t, "bars.svg", string(made["echo.svg"]))
	golden(t, "lines.svg", string(made["receive-sockets.svg"]))
	for name, content := range made {
		if name == tableFile {
			require.Contains(t, string(content), "What could mislead:")
			continue
		}
		well(t, string(content))
		require.Contains(t, string(content), "prefers-color-scheme:dark", "for a dark page too")
	}
}

// well wants a text to be XML.
func well(t *testing.T, text string) {
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		_, err := d.Token()
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
	}
}

func TestBarsAreToScale(t *testing.T) {
	r := sampleReport(t)
	svg := chart(r.Workload("echo"))
	// The most is 700,000, a kit handler's; its median is 620,000, recvmmsg's 248,000.
	require.Contains(t, svg, `<rect class="kit" x="170" y="70" width="301.1" height="14"/>`)
	require.Contains(t, svg, `<rect class="kernel" x="170" y="122" width="120.5" height="14"/>`)
	require.Contains(t, svg, "not measured")
}

func TestPublish(t *testing.T) {
	folder := t.TempDir()
	at := func(names ...string) string { return filepath.Join(append([]string{folder}, names...)...) }
	report, err := os.ReadFile("../testdata/report.json")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(at("docs"), 0o755))
	for name, text := range map[string]string{
		"docs/report.json": string(report), "docs/gone.svg": "of a workload that is no more",
		"README.md": "before\n" + beginMark + "old\n" + endMark + "after\n",
	} {
		require.NoError(t, os.WriteFile(at(name), []byte(text), 0o644))
	}
	for range 2 { // the second time nothing changes
		require.NoError(t, publish(at("docs", "report.json"), at("README.md")))
		readme, err := os.ReadFile(at("README.md"))
		require.NoError(t, err)
		r, err := load(at("docs", "report.json"))
		require.NoError(t, err)
		require.Equal(t, "before\n"+beginMark+block(r, "docs")+endMark+"after\n", string(readme))
		require.FileExists(t, at("docs", "echo.svg"))
		require.FileExists(t, at("docs", tableFile))
		require.NoFileExists(t, at("docs", "gone.svg"))
	}

	require.NoError(t, os.WriteFile(at("README.md"), []byte("no marks"), 0o644))
	require.ErrorContains(t, publish(at("docs", "report.json"), at("README.md")), "README.md: it has no line")
	require.NoError(t, os.WriteFile(at("README.md"), []byte(beginMark), 0o644))
	require.ErrorContains(t, publish(at("docs", "report.json"), at("README.md")), "follows the first mark")
	require.NoError(t, os.WriteFile(at("docs", "report.json"), []byte(`{"version":2}`), 0o644))
	require.ErrorContains(t, publish(at("docs", "report.json"), at("README.md")), "has version 2")
}
