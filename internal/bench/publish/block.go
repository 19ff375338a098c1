package main

import (
	"fmt"
	"slices"
	"strings"

	"kitnet.dev/kit/internal/bench"
)

// unfolded are the workloads that a reader sees without asking for them.
var unfolded = []string{"receive", "transmit", "echo", "roundtrip", "tcp-receive", "tcp-send"}

// block is what stands in the document: where it was measured, the goals, a table and a chart of each workload. link is the
// folder of the files as the document sees it.
func block(r *bench.Report, link string) string {
	if r == nil {
		return "No figures are published yet: `make bench-report` measures, and writes them here.\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s, %d cores, Linux %s, %s. The whole table, and what could mislead, is in [%s](%s/%s).\n",
		r.Machine.CPU, r.Machine.CPUs, r.Machine.Kernel, r.Machine.Go, tableFile, link, tableFile)
	if len(r.Goals) > 0 {
		b.WriteString("\n| goal | wanted | got | |\n| --- | --- | --- | --- |\n")
		for _, g := range r.Goals {
			bound, verdict := "at least", "met"
			if g.LowerIsBetter {
				bound = "at most"
			}
			if !g.Met {
				verdict = "**missed**"
			}
			fmt.Fprintf(&b, "| %s | %s %.2f | %.2f | %s |\n", g.Name, bound, g.Want, g.Got, verdict)
		}
	}
	for i := range r.Workloads {
		w := &r.Workloads[i]
		open := ""
		if slices.Contains(unfolded, w.Name) {
			open = " open"
		}
		fmt.Fprintf(&b, "\n<details%s><summary><b>%s</b>: %s</summary>\n\n", open, w.Name, w.Title)
		fmt.Fprintf(&b, "![%s](%s/%s.svg)\n\n", w.Name, link, w.Name)
		writeTable(&b, w)
		b.WriteString("\n</details>\n")
	}
	return b.String()
}

// writeTable writes a workload's medians, ratios first.
func writeTable(b *strings.Builder, w *bench.Workload) {
	var to []string
	for _, name := range w.References() {
		to = append(to, "× "+name)
	}
	head := append([]string{""}, to...)
	for _, c := range w.Columns {
		head = append(head, c.Title)
	}
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	for i := range w.Results {
		r := &w.Results[i]
		if r.Error != "" {
			fmt.Fprintf(b, "| %s | not measured |\n", r.Subject)
			continue
		}
		row := []string{r.Subject}
		for _, name := range w.References() {
			row = append(row, ratio(r, name))
		}
		for _, c := range w.Columns {
			row = append(row, value(r, c))
		}
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
}

func ratio(r *bench.Result, to string) string {
	if v, ok := r.Ratios[to]; ok {
		return fmt.Sprintf("%.2f", v)
	}
	return "-"
}

func value(r *bench.Result, c bench.Column) string {
	if v, ok := r.Median[c.Key]; ok {
		return c.Unit.Format(v)
	}
	return "-"
}
