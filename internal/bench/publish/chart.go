package main

import (
	"encoding/xml"
	"fmt"
	"strings"

	"kitnet.dev/kit/internal/bench"
)

// The measures of charts, in SVG's pixels.
const (
	chartWidth = 760
	margin     = 20
	topHeight  = 64  // of title and subtitle
	rowHeight  = 26  // of a bar
	barHeight  = 14  // of its ink
	barLeft    = 170 // where bars begin
	barRoom    = 340 // of the longest
	plotHeight = 220 // of lines
	plotRoom   = 600
)

// style has the colours, for a light and for a dark page; the card behind a chart has its own, so that a page whose colours are
// not those that the reader's system asks for leaves it readable too.
const style = `<style>
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.small{fill:#59636e}
.card{fill:#fff;stroke:#d1d9e0}.axis{stroke:#d1d9e0}.spread{stroke:#1f2328}
.kit{fill:#0969da;stroke:#0969da}.floor{fill:#818b98;stroke:#818b98}
.kernel{fill:#bf8700;stroke:#bf8700}.gvisor{fill:#8250df;stroke:#8250df}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}.card{fill:#0d1117;stroke:#3d444d}.axis{stroke:#3d444d}
.spread{stroke:#f0f6fc}.kit{fill:#4493f8;stroke:#4493f8}.floor{fill:#9198a1;stroke:#9198a1}.kernel{fill:#d29922;stroke:#d29922}
.gvisor{fill:#ab7df8;stroke:#ab7df8}}
polyline{stroke-width:2.5}
</style>`

// chart draws a workload: lines where its columns are steps of one thing, bars of the first column else.
func chart(w *bench.Workload) string {
	if s := stepsOf(w); s != nil {
		return lines(w, s)
	}
	return bars(w)
}

// kind is the class of a subject's colour.
func kind(subject string) string {
	switch {
	case strings.HasPrefix(subject, "kit"):
		return "kit"
	case strings.HasPrefix(subject, "gVisor"):
		return "gvisor"
	case strings.Contains(subject, "XDP"):
		return "floor"
	}
	return "kernel"
}

// begin opens a chart with its title.
func begin(b *strings.Builder, w *bench.Workload, height int, says string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" `+
		`role="img" aria-label="%s">`+"\n%s\n",
		chartWidth, height, chartWidth, height, text(w.Name+": "+w.Title), style)
	fmt.Fprintf(b, `<rect class="card" x="0.5" y="0.5" width="%d" height="%d" rx="6"/>`+"\n", chartWidth-1, height-1)
	fmt.Fprintf(b, `<text class="title" x="%d" y="28">%s</text>`+"\n", margin, text(w.Name))
	fmt.Fprintf(b, `<text class="small" x="%d" y="48">%s</text>`+"\n", margin, text(says))
}

// text is a text in XML.
func text(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes all
	return b.String()
}

// bars draws the first column: a bar of each subject's median, over it a line from the least to the most.
func bars(w *bench.Workload) string {
	c := w.Columns[0]
	most := 0.0
	for i := range w.Results {
		most = max(most, w.Results[i].Max[c.Key], w.Results[i].Median[c.Key])
	}
	better := "longer is better"
	if c.LowerIsBetter {
		better = "shorter is better"
	}
	var b strings.Builder
	begin(&b, w, topHeight+rowHeight*len(w.Results)+margin, fmt.Sprintf("%s, median and least … most; %s", c.Title, better))
	length := func(v float64) float64 { return barRoom * v / max(most, 1e-9) }
	for i := range w.Results {
		r := &w.Results[i]
		y := topHeight + rowHeight*i
		middle, base := y+rowHeight/2, y+rowHeight/2+5
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", barLeft-10, base, text(r.Subject))
		v, ok := r.Median[c.Key]
		if !ok {
			fmt.Fprintf(&b, `<text class="small" x="%d" y="%d">not measured</text>`+"\n", barLeft, base)
			continue
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>`+"\n",
			kind(r.Subject), barLeft, middle-barHeight/2, length(v), barHeight)
		fmt.Fprintf(&b, `<line class="spread" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`+"\n",
			barLeft+length(r.Min[c.Key]), barLeft+length(r.Max[c.Key]), middle, middle)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s%s</text>`+"\n",
			barLeft+max(length(v), length(r.Max[c.Key]))+8, base, text(c.Unit.Format(v)), text(compared(w, r)))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// compared says a subject's ratio to the workload's first reference, "" of that itself.
func compared(w *bench.Workload, r *bench.Result) string {
	names := w.References()
	if len(names) == 0 || names[0] == r.Subject {
		return ""
	}
	v, ok := r.Ratios[names[0]]
	if !ok {
		return ""
	}
	return fmt.Sprintf("  (%.2f × %s)", v, names[0])
}

// steps are columns that are one thing at several steps.
type steps struct {
	what string
	at   []string       // in words
	of   []bench.Column // as many
}

// stepsOf finds the steps of a workload, nil where it has none.
func stepsOf(w *bench.Workload) *steps {
	for _, of := range bench.Steps() {
		if of.Workload != w.Name {
			continue
		}
		s := &steps{what: of.What}
		for i, key := range of.Keys {
			for _, c := range w.Columns {
				if c.Key == key {
					s.at, s.of = append(s.at, of.At[i]), append(s.of, c)
				}
			}
		}
		if len(s.of) > 1 {
			return s
		}
	}
	return nil
}

// lines draws one line of each subject over the steps.
func lines(w *bench.Workload, s *steps) string {
	most := 0.0
	for i := range w.Results {
		for _, c := range s.of {
			most = max(most, w.Results[i].Median[c.Key])
		}
	}
	var b strings.Builder
	legend := topHeight + plotHeight + 60
	begin(&b, w, legend+rowHeight*len(w.Results)+margin, s.what+", median")
	const left, top = 90, topHeight + 12
	x := func(step int) float64 { return left + plotRoom*float64(step)/float64(len(s.of)-1) }
	y := func(v float64) float64 { return top + plotHeight*(1-v/max(most, 1e-9)) }
	for _, part := range []float64{0, 0.5, 1} {
		at := y(most * part)
		fmt.Fprintf(&b, `<line class="axis" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`+"\n", left, left+plotRoom, at, at)
		fmt.Fprintf(&b, `<text class="small" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left-8, at+5, text(s.of[0].Unit.Format(most*part)))
	}
	for step, at := range s.at {
		fmt.Fprintf(&b, `<text class="small" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(step), top+plotHeight+22, text(at))
	}
	for i := range w.Results {
		r := &w.Results[i]
		var points []string
		var values []string
		for step, c := range s.of {
			if v, ok := r.Median[c.Key]; ok {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(step), y(v)))
				values = append(values, c.Unit.Format(v))
				fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%.1f" r="3.5"/>`+"\n", kind(r.Subject), x(step), y(v))
			}
		}
		// Subjects of one colour differ by how the line is broken.
		fmt.Fprintf(&b, `<polyline class="%s" style="fill:none" stroke-dasharray="%s" points="%s"/>`+"\n",
			kind(r.Subject), dashes(w, i), strings.Join(points, " "))
		at := legend + rowHeight*i
		fmt.Fprintf(&b, `<polyline class="%s" style="fill:none" stroke-dasharray="%s" points="%d,%d %d,%d"/>`+"\n",
			kind(r.Subject), dashes(w, i), margin, at, margin+40, at)
		if len(values) == 0 {
			values = []string{"not measured"}
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s: %s</text>`+"\n", margin+50, at+5, text(r.Subject), text(strings.Join(values, ", ")))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// dashes break the line of the ith subject, by how many of its colour come before it.
func dashes(w *bench.Workload, i int) string {
	before := 0
	for _, r := range w.Results[:i] {
		if kind(r.Subject) == kind(w.Results[i].Subject) {
			before++
		}
	}
	return []string{"none", "8 4", "3 3", "10 3 2 3", "1 4"}[before%5]
}
