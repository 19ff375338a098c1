package bench

import "fmt"

// Stepped says which columns of a workload are one thing at several steps, for who draws them.
type Stepped struct {
	Workload string
	What     string   // sentence's beginning
	At       []string // the steps in words
	Keys     []string // the columns
}

// Steps returns what is measured at several steps.
func Steps() []Stepped {
	var all []Stepped
	for _, o := range socketWorkloads() {
		s := Stepped{Workload: o.name, What: o.drawn}
		for _, n := range socketCounts {
			s.At, s.Keys = append(s.At, fmt.Sprint(n)), append(s.Keys, o.key(n))
		}
		all = append(all, s)
	}
	over := Stepped{Workload: overload, What: "Share of a subject's best that it answers at multiples of its saturation"}
	for _, factor := range overloadFactors {
		over.At, over.Keys = append(over.At, fmt.Sprintf("%g×", factor)), append(over.Keys, keptKey(factor))
	}
	model := Stepped{Workload: engines, What: "Throughput of so many engines by the model, × one's"}
	for _, n := range engineCounts {
		model.At, model.Keys = append(model.At, fmt.Sprint(n)), append(model.Keys, speedupKey(n))
	}
	requests := Stepped{Workload: tcpRequests, What: "Requests answered on so many connections"}
	for _, n := range requestCounts {
		requests.At, requests.Keys = append(requests.At, fmt.Sprint(n)), append(requests.Keys, requestRateKey(n))
	}
	all = append(all, over, model, requests)
	for _, name := range []string{tcpReceiveStreams, tcpSendStreams} {
		s := Stepped{Workload: name, What: "Throughput of so many connections together"}
		for _, n := range streamCounts {
			s.At, s.Keys = append(s.At, fmt.Sprint(n)), append(s.Keys, streamRateKey(n))
		}
		all = append(all, s)
	}
	return all
}
