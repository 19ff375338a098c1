package bench

import (
	"errors"
	"fmt"
)

// Goal is a figure that kit is to reach, and what it reached.
type Goal struct {
	// Name says what is compared.
	Name string `json:"name"`
	// Want is the bound, Got what was measured; LowerIsBetter tells on which side of the bound it should be.
	Want          float64 `json:"want"`
	Got           float64 `json:"got"`
	LowerIsBetter bool    `json:"lower_is_better"`
	Met           bool    `json:"met"`
}

// String is one line of the table.
func (g Goal) String() string {
	word, verdict := "at least", "met"
	if g.LowerIsBetter {
		word = "at most"
	}
	if !g.Met {
		verdict = "MISSED"
	}
	return fmt.Sprintf("%s: %.2f, wanted %s %.2f: %s", g.Name, g.Got, word, g.Want, verdict)
}

// goals compares kit's handler with what it is to reach, as far as that was measured.
func (r *Report) goals() (goals []Goal) {
	add := func(workload, name string, want float64, got func(*Result) (float64, bool)) {
		w := r.Workload(workload)
		if w == nil {
			return
		}
		result := w.Result(kitHandler)
		if result == nil {
			return
		}
		value, ok := got(result)
		if !ok {
			return
		}
		lower := w.Columns[0].LowerIsBetter
		goals = append(goals, Goal{Name: name, Want: want, Got: value, LowerIsBetter: lower,
			Met: lower && value <= want || !lower && value >= want})
	}
	ratio := func(to string) func(*Result) (float64, bool) {
		return func(r *Result) (float64, bool) { v, ok := r.Ratios[to]; return v, ok }
	}
	add(echo, "echo, ratio to "+recvmmsg, 2.5, ratio(recvmmsg))
	add(echo, "echo, ratio to "+rawXDP, 0.8, ratio(rawXDP))
	add(roundtrip, "round trip, p50 in ratio to "+goNet, 1, ratio(goNet))
	add(overload, "overload, share of the best that remains at 2×", 0.9, func(r *Result) (float64, bool) {
		v, ok := r.Median[keptKey(2)]
		return v, ok
	})
	return goals
}

// Check returns an error where a subject could not be measured or a result is wrong by an order of magnitude, which no
// noise explains. It is for a smoke run; whether the goals are met is another question.
func (r *Report) Check() error {
	errs := []error{r.Err()}
	sane := func(workload, other string, low, high float64) {
		w := r.Workload(workload)
		if w == nil {
			return
		}
		result := w.Result(kitHandler)
		if result == nil {
			return
		}
		if ratio, ok := result.Ratios[other]; ok && (ratio < low || ratio > high) {
			errs = append(errs, fmt.Errorf("%s: %s is %.2f times %s, which can't be: want %g to %g", workload, kitHandler,
				ratio, other, low, high))
		}
	}
	// Measured: 4 to 6; 2 to 3; 0.9 to 1.2; 0.2 to 0.5.
	sane(receive, recvmmsg, 1, 100)
	sane(echo, recvmmsg, 0.8, 50)
	sane(receive, rawXDP, 0.1, 10)
	sane(roundtrip, goNet, 0.01, 3)
	return errors.Join(errs...)
}
