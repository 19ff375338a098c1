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
	var names, folders []string
	for _, r := range results {
		names = append(names, r.name)
		if !slices.Contains(folders, r.folder()) {
			folders = append(folders, r.folder())
		}
	}
	fitting := fit(names)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "folder\tpassed\tfailed")
	for _, f := range folders {
		passed, failed := tally(results, func(r result) bool { return r.folder() == f })
		fmt.Fprintf(table, "%s\t%d\t%d\n", f, passed, failed)
	}
	passed, failed := tally(results, func(result) bool { return true })
	fmt.Fprintf(table, "all\t%d\t%d\n", passed, failed)
	table.Flush()
	for _, r := range results {
		if r.passed {
			continue
		}
		fmt.Fprintf(out, "\n%s\n  %s\n", r.name, r.why)
		switch why, excused := exceptions[r.name]; {
		case excused:
			fmt.Fprintf(out, "  an exception: %s\n", why)
		case fitting[r.name]:
			fmt.Fprintln(out, "  it is one of those that have to pass")
		case knownFor(r.name) != "":
			fmt.Fprintf(out, "  %s\n", knownFor(r.name))
		}
		if verbose {
			fmt.Fprintf(out, "  | %s\n", strings.ReplaceAll(strings.TrimSpace(r.said), "\n", "\n  | "))
		}
	}
	_, excused := tally(results, func(r result) bool { return fitting[r.name] && exceptions[r.name] != "" })
	_, broken := tally(results, func(r result) bool { return fitting[r.name] && exceptions[r.name] == "" })
	fmt.Fprintf(out, "\nOf %d scripts that fit kit %d passed, %d failed as documented and %d failed.\n",
		len(fitting), len(fitting)-excused-broken, excused, broken)
	return broken == 0
}

// tally counts the scripts that are chosen.
func tally(results []result, chosen func(result) bool) (passed, failed int) {
	for _, r := range results {
		switch {
		case !chosen(r):
		case r.passed:
			passed++
		default:
			failed++
		}
	}
	return passed, failed
}
