package instructions

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

var update = flag.Bool("update-instructions", false, "write testdata/instructions.txt anew")

// A Table is the cases of one package. The package's benchmark is called BenchmarkEngine and its guard TestInstructions: the
// process that is counted finds the case by the latter, and the guard's file has the former on its lines.
type Table []Case

const (
	benchmark = "BenchmarkEngine"
	guard     = "TestInstructions"
)

// file is what the guard holds the counts to, as benchmarks write their results, so that benchstat reads it too.
var file = filepath.Join("testdata", "instructions.txt")

// Bench reports nanoseconds, instructions, allocated bytes and allocations for each unit of each case. What a round does outside
// of what is measured, such as making the frames of a peer, is in the last two.
func (tab Table) Bench(b *testing.B) {
	known := make(map[string]float64)
	for i := range tab {
		c := &tab[i]
		b.Run(c.Name, func(b *testing.B) {
			round := c.start(b)
			var m Meter
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			done := 0
			for b.Loop() {
				done += round(&m, batch)
			}
			runtime.ReadMemStats(&after)
			b.ReportMetric(0, "ns/op") // of a whole round, and with what is not to be measured: left out
			b.ReportMetric(float64(m.elapsed.Nanoseconds())/float64(done), "ns/"+c.unit())
			b.ReportMetric(float64(int(after.TotalAlloc-before.TotalAlloc)/done), "B/"+c.unit()) // whole ones, as B/op are
			b.ReportMetric(float64(int(after.Mallocs-before.Mallocs)/done), "allocs/"+c.unit())
			n, ok := known[c.Name]
			if !ok {
				var err error
				if n, err = c.count(); err != nil {
					b.Log("no instructions were counted: ", err)
					n = 0
				}
				known[c.Name] = n
			}
			if n > 0 {
				b.ReportMetric(n, "instructions/"+c.unit())
			}
		})
	}
}

// count is how many instructions a unit costs.
func (c *Case) count() (float64, error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	intervals, output, err := trace([]string{exe, "-test.run=^" + guard + "$"}, environment(c.Name))
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, output)
	}
	n, err := perUnit(intervals, output)
	if err != nil {
		return 0, fmt.Errorf("%s on the case %s: %w\n%s", guard, c.Name, err, output)
	}
	return n, nil
}

// perUnit makes the sum from the instructions of all intervals and from what Case.run said of them.
func perUnit(intervals []int, output string) (float64, error) {
	told := regexp.MustCompile(`(?m)^`+counted+` (\d+) (\d+)$`).FindAllStringSubmatch(output, -1)
	if len(told) != 3 {
		return 0, errors.New("it did not run")
	}
	var sums, units [3]int
	empty := 0
	for i, line := range told {
		n, _ := strconv.Atoi(line[1])
		units[i], _ = strconv.Atoi(line[2])
		if n > len(intervals) {
			return 0, errors.New("intervals are missing")
		}
		if i == 0 {
			empty = intervals[n-1]
		}
		for _, interval := range intervals[:n] {
			sums[i] += interval - empty
		}
		intervals = intervals[n:]
	}
	if len(intervals) > 0 || units[2] <= units[1] {
		return 0, fmt.Errorf("units of %v, and %d intervals too many", units, len(intervals))
	}
	return float64(sums[2]-sums[1]) / float64(units[2]-units[1]), nil
}

// Guard counts every case and compares with testdata/instructions.txt.
func (tab Table) Guard(t *testing.T) {
	if name, ok := os.LookupEnv(counted); ok {
		i := slices.IndexFunc(tab, func(c Case) bool { return c.Name == name })
		if i < 0 {
			t.Fatalf("there is no case %s", name)
		}
		tab[i].run(t)
		return
	}
	here := conditions()
	if *update {
		tab.write(t, here)
		return
	}
	then, want, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	if then != here {
		need(t, fmt.Sprintf("%s was counted under other conditions:\n%snot these:\n%s"+
			"count again on both sides of the change that made the difference: %s", file, then, here, how))
	}
	for i := range tab {
		c := &tab[i]
		t.Run(c.Name, func(t *testing.T) {
			got, err := c.count()
			switch {
			case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission):
				need(t, fmt.Sprintf("can't single-step here: %v", err))
			case err != nil:
				t.Fatal(err)
			}
			t.Logf("%.1f instructions a %s", got, c.unit())
			before, ok := want[c.Name]
			if !ok {
				t.Fatalf("%s has no such case, which has %.1f instructions a %s: %s", file, got, c.unit(), how)
			}
			if why := judge(before, got); why != "" {
				t.Errorf("%.1f instructions a %s, in %s %.1f: %s", got, c.unit(), file, before, why)
			}
			delete(want, c.Name)
		})
	}
	if flag.Lookup("test.run").Value.String() == "" && len(want) > 0 {
		t.Errorf("%s has cases that are no more: %v: %s", file, slices.Sorted(maps.Keys(want)), how)
	}
}

const how = "run make bench-engine-update"

// judge says what is wrong with a count, if anything. What is much cheaper than it was is wrong too, or else the gain could be
// lost again and nobody would be told.
func judge(before, got float64) string {
	switch {
	case got > before*1.05+5:
		return "dearer by more than 5 % and 5; if it is worth that, " + how
	case got < before*0.9-5:
		return "cheaper by more than 10 % and 5; for the guard to hold that, " + how
	}
	return ""
}

// need skips a test for want of something, or fails it where KIT_NO_SKIP=1 is set.
func need(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("KIT_NO_SKIP") == "1" {
		t.Fatalf("%s\n(KIT_NO_SKIP=1 allows no skip)", what)
	}
	t.Skip(what)
}

// conditions is what counts depend on, a line each.
func conditions() string {
	var b strings.Builder
	info, _ := debug.ReadBuildInfo()
	fmt.Fprintf(&b, "goversion: %s\n", info.GoVersion)
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "-asmflags", "-cover", "-gcflags", "-pgo", "-tags":
			fmt.Fprintf(&b, "%s: %s\n", strings.ToLower(strings.TrimPrefix(s.Key, "-")), s.Value)
		}
	}
	fmt.Fprintf(&b, "avx2: %t\n", cpu.X86.HasAVX2)
	return b.String()
}

// write counts all cases into the file.
func (tab Table) write(t *testing.T, conditions string) {
	var b strings.Builder
	b.WriteString(conditions)
	for i := range tab {
		c := &tab[i]
		n, err := c.count()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s/%s 1 %.1f instructions/%s\n", benchmark, c.Name, n, c.unit())
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// read returns what write wrote: the conditions, and the count of each case.
func read(name string) (conditions string, counts map[string]float64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %s", err, how)
	}
	defer f.Close()
	counts = make(map[string]float64)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, ok := strings.CutPrefix(lines.Text(), benchmark+"/")
		if !ok {
			conditions += lines.Text() + "\n"
			continue
		}
		words := strings.Fields(line)
		if len(words) != 4 {
			return "", nil, fmt.Errorf("%s: %q has not four words", name, line)
		}
		if counts[words[0]], err = strconv.ParseFloat(words[2], 64); err != nil {
			return "", nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return conditions, counts, lines.Err()
}
