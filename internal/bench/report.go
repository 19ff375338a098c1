package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Version is the "version" of the report's JSON; fields are only ever added.
const Version = 1

// Report is what a run found.
type Report struct {
	Version int     `json:"version"`
	Machine Machine `json:"machine"`
	// Subjects are those that were compared, in the order of the tables.
	Subjects []Subject `json:"subjects"`
	// Goals are what kit is to reach, as far as it was measured.
	Goals []Goal `json:"goals"`
	// Notes say what could mislead a reader.
	Notes     []string   `json:"notes"`
	Workloads []Workload `json:"workloads"`
}

// Machine is where the run took place.
type Machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
}

// Workload is one workload's results.
type Workload struct {
	// Name, such as "receive", and Title, a sentence that says what was measured.
	Name  string `json:"name"`
	Title string `json:"title"`
	// Columns are the values that any repetition gave, of which a smoke run leaves some out; the first is the one that ratios
	// compare.
	Columns []Column `json:"columns"`
	Results []Result `json:"results"`
	// Placement says how far apart the cores were; nil where there is one core or nothing could be measured.
	Placement *Placement `json:"placement,omitempty"`
}

// Column describes one measured value.
type Column struct {
	Key   string `json:"key"`
	Title string `json:"title"`
	Unit  Unit   `json:"unit"`
	// LowerIsBetter tells how to read a ratio.
	LowerIsBetter bool `json:"lower_is_better"`
}

// Unit says how a value is written in the table; the JSON has it in the unit itself.
type Unit string

// The units of values.
const (
	PerSecond            Unit = "packets/s"
	ConnectionsPerSecond Unit = "connections/s"
	RequestsPerSecond    Unit = "requests/s"
	BitsPerSecond        Unit = "bit/s"
	Nanoseconds          Unit = "ns"
	Share                Unit = "share" // 1 is all
	Count                Unit = "count"
	Factor               Unit = "factor"
	Bytes                Unit = "B"
)

// Result is what one subject did.
type Result struct {
	Subject string `json:"subject"`
	// Ratios of the first column to that of other subjects, or of the best of some, by their names: the median of the
	// ratios within each repetition.
	Ratios map[string]float64 `json:"ratios"`
	// Median, Min and Max of each column over the repetitions, by its key.
	Median map[string]float64 `json:"median"`
	Min    map[string]float64 `json:"min"`
	Max    map[string]float64 `json:"max"`
	// Samples are the repetitions that count, in order, and LeftOut those in rounds that do not (see Placement).
	Samples []Sample `json:"samples"`
	LeftOut []Sample `json:"left_out,omitempty"`
	// Error says why the subject could not be measured; then the rest is empty.
	Error string `json:"error,omitempty"`
}

// Sample is one repetition: a value for each column's key, and how long a cache line took from core to core, in ns,
// "core_to_core_before_ns" and "core_to_core_after_ns".
type Sample map[string]float64

// summarize fills in the medians and the ratios to the references.
func (w *Workload) summarize() {
	key := w.Columns[0].Key
	for i := range w.Results {
		r := &w.Results[i]
		r.Median, r.Min, r.Max = map[string]float64{}, map[string]float64{}, map[string]float64{}
		r.Ratios = map[string]float64{}
		for _, c := range w.Columns {
			values := r.column(c.Key)
			if len(values) == 0 {
				continue
			}
			r.Median[c.Key], r.Min[c.Key], r.Max[c.Key] = median(values), slices.Min(values), slices.Max(values)
		}
	}
	for _, reference := range references {
		other := w.best(reference.of)
		if other == nil {
			continue
		}
		for i := range w.Results {
			r := &w.Results[i]
			var ratios []float64
			for n := range min(len(r.Samples), len(other.Samples)) {
				if base := other.Samples[n][key]; base > 0 {
					ratios = append(ratios, r.Samples[n][key]/base)
				}
			}
			if len(ratios) > 0 {
				r.Ratios[reference.name] = median(ratios)
			}
		}
	}
}

// best returns the result of those subjects whose median of the first column is the best, nil where none was measured.
func (w *Workload) best(subjects []string) (best *Result) {
	first := w.Columns[0]
	for _, name := range subjects {
		r := w.Result(name)
		if r == nil || len(r.Samples) == 0 {
			continue
		}
		if best == nil || (r.Median[first.Key] < best.Median[first.Key]) == first.LowerIsBetter {
			best = r
		}
	}
	return best
}

// Workload returns the workload of that name, nil where it was not run.
func (r *Report) Workload(name string) *Workload {
	for i := range r.Workloads {
		if r.Workloads[i].Name == name {
			return &r.Workloads[i]
		}
	}
	return nil
}

// Result returns the subject's result, nil where it took no part.
func (w *Workload) Result(subject string) *Result {
	for i := range w.Results {
		if w.Results[i].Subject == subject {
			return &w.Results[i]
		}
	}
	return nil
}

// column returns the repetitions' values of one column; a smoke run leaves some out.
func (r *Result) column(key string) (values []float64) {
	for _, s := range r.Samples {
		if v, ok := s[key]; ok {
			values = append(values, v)
		}
	}
	return values
}

// measured are the columns that any of the samples has a value of.
func measured(columns []Column, samples ...Sample) []Column {
	return slices.DeleteFunc(slices.Clone(columns), func(c Column) bool {
		return !slices.ContainsFunc(samples, func(s Sample) bool { _, ok := s[c.Key]; return ok })
	})
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteTable writes the report for people: for each workload the ratios first, then medians, then what could mislead.
func (r *Report) WriteTable(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %d CPUs (%s)\n", r.Machine.Go, r.Machine.Kernel, r.Machine.CPUs, r.Machine.CPU)
	b.WriteString("\nSubjects:\n")
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, s := range r.Subjects {
		fmt.Fprintf(t, "  %s\t%s", s.Name, s.About)
		if s.Missing != "" {
			fmt.Fprintf(t, "; missing: %s", s.Missing)
		}
		fmt.Fprintln(t)
	}
	t.Flush() // a strings.Builder takes all
	for i := range r.Workloads {
		r.Workloads[i].write(&b)
	}
	if len(r.Goals) > 0 {
		b.WriteString("\nGoals:\n")
		for _, g := range r.Goals {
			fmt.Fprintf(&b, "  %s\n", g)
		}
	}
	if len(r.Notes) > 0 {
		b.WriteString("\nWhat could mislead:\n")
		for _, n := range r.Notes {
			fmt.Fprintf(&b, "  - %s\n", n)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// write appends the workload's table.
func (w *Workload) write(b *strings.Builder) {
	better := "higher"
	if w.Columns[0].LowerIsBetter {
		better = "lower"
	}
	fmt.Fprintf(b, "\n%s: %s\nRatios are of the first value; %s is better.\n", w.Name, w.Title, better)
	references := w.References()
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "  subject")
	for _, name := range references {
		fmt.Fprintf(t, "\t× %s", name)
	}
	for i, c := range w.Columns {
		fmt.Fprintf(t, "\t%s", c.Title)
		if i == 0 {
			fmt.Fprint(t, "\tmin … max")
		}
	}
	if w.Placement != nil {
		fmt.Fprint(t, "\tcore to core")
	}
	fmt.Fprintln(t)
	for _, r := range w.Results {
		fmt.Fprintf(t, "  %s", r.Subject)
		if r.Error != "" {
			fmt.Fprintf(t, "\tnot measured: %s\n", r.Error)
			continue
		}
		for _, name := range references {
			if ratio, ok := r.Ratios[name]; ok {
				fmt.Fprintf(t, "\t%.2f", ratio)
			} else {
				fmt.Fprint(t, "\t-")
			}
		}
		for i, c := range w.Columns {
			if v, ok := r.Median[c.Key]; ok {
				fmt.Fprintf(t, "\t%s", c.Unit.Format(v))
			} else {
				fmt.Fprint(t, "\t-")
			}
			if i == 0 {
				fmt.Fprintf(t, "\t%s … %s", c.Unit.Format(r.Min[c.Key]), c.Unit.Format(r.Max[c.Key]))
			}
		}
		if w.Placement != nil {
			fmt.Fprintf(t, "\t%s", r.span())
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

// References are the names of those that any result has a ratio to, in the order of the list of references.
func (w *Workload) References() []string {
	var names []string
	for _, reference := range references {
		if slices.ContainsFunc(w.Results, func(r Result) bool { _, ok := r.Ratios[reference.name]; return ok }) {
			names = append(names, reference.name)
		}
	}
	return names
}

// Format writes a value with three digits and a unit.
func (u Unit) Format(v float64) string {
	switch {
	case u == Share && v < 0.1:
		return fmt.Sprintf("%.2f %%", v*100)
	case u == Share:
		return fmt.Sprintf("%.0f %%", v*100)
	case u == Count:
		return fmt.Sprintf("%.0f", v)
	case u == Bytes && v >= 1<<20:
		return digits(v/(1<<20)) + " MiB"
	case u == Bytes && v >= 1<<10:
		return digits(v/(1<<10)) + " KiB"
	case u == Bytes:
		return digits(v) + " B"
	case u == Factor:
		return fmt.Sprintf("%.2f ×", v)
	case u == Nanoseconds && v >= 1e6:
		return digits(v/1e6) + " ms"
	case u == Nanoseconds && v >= 1e3:
		return digits(v/1e3) + " µs"
	case u == Nanoseconds:
		return digits(v) + " ns"
	case u == BitsPerSecond && v >= 1e9:
		return digits(v/1e9) + " Gbit/s"
	case u == BitsPerSecond && v >= 1e6:
		return digits(v/1e6) + " Mbit/s"
	case u == BitsPerSecond:
		return digits(v/1e3) + " kbit/s"
	case v >= 1e6:
		return digits(v/1e6) + " M/s"
	case v >= 1e3:
		return digits(v/1e3) + " k/s"
	}
	return digits(v) + " /s"
}

// digits writes three digits, or all of a longer whole part.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
