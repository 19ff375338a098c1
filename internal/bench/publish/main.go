// publish draws a report of kitd bench: SVG charts, the report's whole table as text, and a block of the README that shows both.
//
//	publish -report docs/bench/report.json -readme README.md
//
// All is made from the JSON alone, beside which the files go, and a test holds the committed ones to it.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kitnet.dev/kit/internal/bench"
)

func main() {
	report := flag.String("report", "docs/bench/report.json", "what kitd bench -o json has written")
	readme := flag.String("readme", "README.md", "the document with the block")
	flag.Parse()
	if err := publish(*report, *readme); err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		os.Exit(1)
	}
}

// publish writes the files beside the report and the block into the document.
func publish(reportPath, readmePath string) error {
	r, err := load(reportPath)
	if err != nil {
		return err
	}
	folder := filepath.Dir(reportPath)
	link, err := filepath.Rel(filepath.Dir(readmePath), folder)
	if err != nil {
		return fmt.Errorf("say where %s is from %s: %w", folder, readmePath, err)
	}
	text, err := os.ReadFile(readmePath)
	if err != nil {
		return err
	}
	changed, err := replace(string(text), block(r, filepath.ToSlash(link)))
	if err != nil {
		return fmt.Errorf("%s: %w", readmePath, err)
	}
	made, err := files(r)
	if err != nil {
		return err
	}
	for name, content := range made {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			return err
		}
	}
	stale, err := left(folder, made)
	if err != nil {
		return err
	}
	for _, name := range stale {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return os.WriteFile(readmePath, []byte(changed), 0o644)
}

// load reads a report; nil where there is none.
func load(path string) (*bench.Report, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r bench.Report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != bench.Version {
		return nil, fmt.Errorf("%s has version %d, and this program is for %d: run make bench-report anew",
			path, r.Version, bench.Version)
	}
	return &r, nil
}

// tableFile is the report's table.
const tableFile = "report.txt"

// files are what is made of a report, by name.
func files(r *bench.Report) (map[string][]byte, error) {
	made := map[string][]byte{}
	if r == nil {
		return made, nil
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		return nil, err
	}
	made[tableFile] = table.Bytes()
	for i := range r.Workloads {
		w := &r.Workloads[i]
		made[w.Name+".svg"] = []byte(chart(w))
	}
	return made, nil
}

// left are the charts in the folder that are not made any more.
func left(folder string, made map[string][]byte) (names []string, err error) {
	charts, err := filepath.Glob(filepath.Join(folder, "*.svg"))
	for _, path := range charts {
		if name := filepath.Base(path); made[name] == nil {
			names = append(names, name)
		}
	}
	return names, err
}

// The lines between which the block stands.
const (
	beginMark = "<!-- make bench-report: begin -->\n"
	endMark   = "<!-- make bench-report: end -->\n"
)

// replace puts the block between its marks.
func replace(text, block string) (string, error) {
	before, rest, ok := strings.Cut(text, beginMark)
	if !ok {
		return "", fmt.Errorf("it has no line %q", strings.TrimSpace(beginMark))
	}
	_, after, ok := strings.Cut(rest, endMark)
	if !ok {
		return "", fmt.Errorf("no line %q follows the first mark", strings.TrimSpace(endMark))
	}
	return before + beginMark + block + endMark + after, nil
}
