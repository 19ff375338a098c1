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

// aim is what a subject of kit's is to reach in a workload: a ratio to a reference or, without one, a value of its own.
type aim struct {
	workload, subject, name string
	to                      string  // the reference
	value                   string  // the key of the value
	want                    float64 // a bound; on which side of it is better, the value's column says, or the first
	scale                   float64 // of the value, 0 is 1
}

// aims are the goals. Those of the datagrams' speed are issue 5's, as those of TCP's to the best kernel are.
var aims = []aim{
	{workload: receive, subject: kitHandler, name: "receive, handler", to: rawXDP, want: 0.97},
	{workload: receive, subject: kitBatch, name: "receive, ReadBatch", to: rawXDP, want: 0.9},
	{workload: receive, subject: kitBatch, name: "receive, ReadBatch", to: recvmmsg, want: 3},
	{workload: receive, subject: kitCalls, name: "receive, RecvFrom one at a time", to: goNet, want: 1.5},
	{workload: receiveSockets, subject: kitHandler, name: "receive, cost a packet of 100,000 sockets in ratio to that of one",
		value: socketCostKey(100_000), want: 1.3},
	{workload: scaling, subject: kitHandler, name: "scaling from one engine to two", to: rawXDP, want: 0.9},
	{workload: transmit, subject: kitBatch, name: "transmit, WriteBatch", to: rawXDP, want: 0.95},
	{workload: transmit, subject: kitBatch, name: "transmit, WriteBatch", to: sendmmsg, want: 2},
	{workload: echo, subject: kitHandler, name: "echo", to: recvmmsg, want: 3},
	{workload: echo, subject: kitHandler, name: "echo", to: rawXDP, want: 0.9},
	{workload: roundtrip, subject: kitHandler, name: "round trip, p50", to: rawXDP, want: 1.1},
	{workload: roundtrip, subject: kitHandler, name: "round trip, p50", to: recvmmsg, want: 1},
	{workload: roundtrip, subject: kitHandler, name: "round trip, p50", to: goNet, want: 1},
	{workload: overload, subject: kitHandler, name: "overload, share of the best that remains at 2×", value: keptKey(2), want: 0.95},
	{workload: tcpReceive, subject: kitTCP, name: "TCP receive", to: bestGVisor, want: 4},
	{workload: tcpReceive, subject: kitTCP, name: "TCP receive", to: bestKernel, want: 1},
	{workload: tcpSend, subject: kitTCP, name: "TCP send", to: bestGVisor, want: 4},
	{workload: tcpSend, subject: kitTCP, name: "TCP send", to: bestKernel, want: 1},
	{workload: tcpConnect, subject: kitTCP, name: "TCP connections, one at a time", to: bestGVisor, want: 2},
	{workload: tcpConnect, subject: kitTCP, name: "TCP connections, one at a time", to: bestKernel, want: 1},
	{workload: tcpConnect64, subject: kitTCP, name: "TCP connections, 64 at a time", to: bestGVisor, want: 2},
	{workload: tcpConnect64, subject: kitTCP, name: "TCP connections, 64 at a time", to: bestKernel, want: 1},
	{workload: footprint, subject: kitd, name: "CPU time of an idle kitd, percent of a core",
		value: idleShareKey, want: 0.5, scale: 100},
	{workload: tcpRoundtrip, subject: kitTCP, name: "TCP round trip, p50", to: bestKernel, want: 1},
}

// goals compares kit with what it is to reach, as far as that was measured.
func (r *Report) goals() (goals []Goal) {
	for _, a := range aims {
		w := r.Workload(a.workload)
		if w == nil {
			continue
		}
		result := w.Result(a.subject)
		if result == nil {
			continue
		}
		name, got, ok := a.name, 0.0, false
		if a.to != "" {
			name += ", ratio to " + a.to
			got, ok = result.Ratios[a.to]
		} else {
			got, ok = result.Median[a.value]
			got *= max(a.scale, 1)
		}
		if !ok {
			continue
		}
		lower := w.Columns[0].LowerIsBetter
		for _, c := range w.Columns {
			if c.Key == a.value {
				lower = c.LowerIsBetter
			}
		}
		goals = append(goals, Goal{Name: name, Want: a.want, Got: got, LowerIsBetter: lower,
			Met: lower && got <= a.want || !lower && got >= a.want})
	}
	return goals
}

// Check returns an error where a subject could not be measured or a result is wrong by an order of magnitude, which no
// noise explains but that the cores moved, so that ratios are judged only where some round was comparable. It is for a smoke run;
// whether the goals are met is another question.
func (r *Report) Check() error {
	errs := []error{r.Err()}
	sane := func(workload, subject, other string, low, high float64) {
		w := r.Workload(workload)
		if w == nil || w.Placement != nil && !w.Placement.Comparable {
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
	// Measured: 4 to 6; 6 to 12; 1.5 to 2.2; 0.8 to 1.2; 2 to 3; 0.9 to 1.2; 0.9 to 1.2; 0.2 to 0.5.
	sane(receive, kitHandler, recvmmsg, 1, 100)
	sane(receive, kitCalls, goNet, 1, 100)
	sane(transmit, kitBatch, sendmmsg, 0.5, 20)
	sane(transmit, kitBatch, rawXDP, 0.1, 10)
	sane(echo, kitHandler, recvmmsg, 0.8, 50)
	sane(receive, kitHandler, rawXDP, 0.1, 10)
	sane(scaling, kitHandler, rawXDP, 0.2, 5)
	sane(roundtrip, kitHandler, goNet, 0.01, 3)
	// Measured: 0.8 to 1.2; 0.6 to 0.9; 0.2 to 1.5.
	sane(transmitSockets, kitBatch, sendmmsg, 0.1, 20)
	sane(roundtripSockets, kitHandler, recvmmsg, 0.01, 3)
	for _, name := range []string{tcpReceiveStreams, tcpSendStreams} {
		sane(name, kitTCP, bestKernel, 0.02, 50)
	}
	// Measured: 0.5 to 1.4.
	for _, name := range []string{tcpReceive, tcpSend, tcpRoundtrip, tcpRequests, tcpConnect, tcpConnect64} {
		sane(name, kitTCP, bestKernel, 0.1, 10)
	}
	return errors.Join(errs...)
}
