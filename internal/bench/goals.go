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

// goals compares kit with what it is to reach, as far as that was measured: with datagrams its handler, with TCP what a
// program gets from a listener.
func (r *Report) goals() (goals []Goal) {
	add := func(workload, subject, name string, want float64, got func(*Result) (float64, bool)) {
		w := r.Workload(workload)
		if w == nil {
			return
		}
		result := w.Result(subject)
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
	add(echo, kitHandler, "echo, ratio to "+recvmmsg, 2.5, ratio(recvmmsg))
	add(echo, kitHandler, "echo, ratio to "+rawXDP, 0.8, ratio(rawXDP))
	add(roundtrip, kitHandler, "round trip, p50 in ratio to "+goNet, 1, ratio(goNet))
	add(overload, kitHandler, "overload, share of the best that remains at 2×", 0.9, func(r *Result) (float64, bool) {
		v, ok := r.Median[keptKey(2)]
		return v, ok
	})
	for _, g := range []struct {
		workload, name string
		gVisor, kernel float64
	}{
		{tcpReceive, "TCP receive", 3, 0.9},
		{tcpSend, "TCP send", 3, 0.9},
		{tcpConnect, "TCP connections, one at a time", 2, 0.9},
		{tcpConnect64, "TCP connections, 64 at a time", 2, 0.9},
	} {
		add(g.workload, kitTCP, g.name+", ratio to "+bestGVisor, g.gVisor, ratio(bestGVisor))
		add(g.workload, kitTCP, g.name+", ratio to "+bestKernel, g.kernel, ratio(bestKernel))
	}
	add(tcpRoundtrip, kitTCP, "TCP round trip, p50 in ratio to "+bestKernel, 1, ratio(bestKernel))
	return goals
}

// Check returns an error where a subject could not be measured or a result is wrong by an order of magnitude, which no
// noise explains. It is for a smoke run; whether the goals are met is another question.
func (r *Report) Check() error {
	errs := []error{r.Err()}
	sane := func(workload, subject, other string, low, high float64) {
		w := r.Workload(workload)
		if w == nil {
			return
		}
		result := w.Result(subject)
		if result == nil {
			return
		}
		if ratio, ok := result.Ratios[other]; ok && (ratio < low || ratio > high) {
			errs = append(errs, fmt.Errorf("%s: %s is %.2f times %s, which can't be: want %g to %g", workload, subject,
				ratio, other, low, high))
		}
	}
	// Measured: 4 to 6; 2 to 3; 0.9 to 1.2; 0.2 to 0.5.
	sane(receive, kitHandler, recvmmsg, 1, 100)
	sane(echo, kitHandler, recvmmsg, 0.8, 50)
	sane(receive, kitHandler, rawXDP, 0.1, 10)
	sane(roundtrip, kitHandler, goNet, 0.01, 3)
	// Measured: 0.5 to 1.4.
	for _, name := range []string{tcpReceive, tcpSend, tcpRoundtrip, tcpConnect, tcpConnect64} {
		sane(name, kitTCP, bestKernel, 0.1, 10)
	}
	return errors.Join(errs...)
}
