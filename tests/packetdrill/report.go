package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// report prints a table by folder, why scripts failed, and a summary. It reports whether all that have to pass did.
func report(out io.Writer, results []result, verbose bool) bool {
	var folders []string
	for _, r := range results {
		if !slices.Contains(folders, r.folder()) {
			folders = append(folders, r.folder())
		}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "folder\tpassed\tfailed\tof")
	total := 0
	for _, f := range folders {
		passed, all := 0, 0
		for _, r := range results {
			if r.folder() == f {
				all++
				passed += count(r.passed)
			}
		}
		total += passed
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\n", f, passed, all-passed, all)
	}
	table.Flush()
	for _, r := range results {
		if !r.passed {
			fmt.Fprintf(out, "\n%s%s\n  %s\n", r.name, mark(r.name), r.why)
			if verbose {
				fmt.Fprintf(out, "  | %s\n", strings.ReplaceAll(strings.TrimSpace(r.said), "\n", "\n  | "))
			}
		}
	}
	fit, broken, excused := judge(results)
	fmt.Fprintf(out, "\n%d of %d scripts passed; of the %d that fit kit %d failed, %d of them as documented.\n",
		total, len(results), fit, broken+excused, excused)
	return broken == 0
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// mark says in a word what a failure means.
func mark(name string) string {
	switch {
	case exceptions[name] != "":
		return " (an exception: " + exceptions[name] + ")"
	case fits(name):
		return " (FITS KIT)"
	}
	return ""
}

// judge counts the scripts that fit, those of them that failed and have to pass, and those that are excused.
func judge(results []result) (fit, broken, excused int) {
	for _, r := range results {
		if !fits(r.name) {
			continue
		}
		fit++
		switch {
		case r.passed:
		case exceptions[r.name] != "":
			excused++
		default:
			broken++
		}
	}
	return fit, broken, excused
}
