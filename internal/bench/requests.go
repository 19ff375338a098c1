package bench

import (
	"context"
	"fmt"
	"time"

	"kitnet.dev/kit/internal/bench/child"
)

// tcp-requests is tcp-roundtrip with many connections, each of which has a request outstanding: what receive-sockets is to
// receive.

// requestCounts are the numbers of connections that are measured. For 100,000 a client would need a second address, and more
// files than many machines allow a process.
var requestCounts = []int{1, timedRequests, comparedRequests}

const (
	// comparedRequests is the number with which subjects are compared; a smoke run leaves it out, and compares with the next.
	comparedRequests = 10_000
	// timedRequests is the number of which the table has times.
	timedRequests = 100
)

// The keys of what is lost: how many requests were sent again, in ratio to those answered, on the most connections; and, on all,
// how many connections waited for an answer for a second when the measurement ended.
const (
	resentKey     = "resent_share"
	unansweredKey = "unanswered"
)

func requestRateKey(connections int) string { return fmt.Sprintf("requests_%d_per_s", connections) }

func requestsWorkload() workload {
	w := workload{
		name: tcpRequests, role: child.StreamRequest, measure: measureRequests,
		title: "requests of a byte on many TCP connections, each with one outstanding",
	}
	for _, n := range []int{comparedRequests, timedRequests, 1} {
		title := fmt.Sprintf("answered on %d", n)
		w.columns = append(w.columns, Column{Key: requestRateKey(n), Title: title, Unit: RequestsPerSecond})
	}
	w.columns = append(w.columns,
		Column{Key: "p50_ns", Title: fmt.Sprintf("p50 of %d", timedRequests), Unit: Nanoseconds, LowerIsBetter: true},
		Column{Key: "p99_ns", Title: fmt.Sprintf("p99 of %d", timedRequests), Unit: Nanoseconds, LowerIsBetter: true},
		Column{Key: resentKey, Title: fmt.Sprintf("sent again on %d", comparedRequests), Unit: Share, LowerIsBetter: true},
		Column{Key: unansweredKey, Title: "unanswered", Unit: Count, LowerIsBetter: true})
	return w
}

// requestsNote says what could mislead a reader of tcp-requests' table.
const requestsNote = "tcp-requests: all connections are there, and have carried a byte each way, before the measurement begins. A " +
	"time is from one answer on a connection to the next, and so has the client's turn with the other connections in it. The " +
	"client has one core, and where the subject is not busy it is the limit; the kernel's subjects do their receiving on it, in " +
	"the softirq of the client's send, and so lose nothing. Of 10,000 requests outstanding not all fit an AF_XDP ring, 4096 " +
	"frames by kit's default, or a packet socket's buffer: where the subject is slower than the client, the others are lost and " +
	"sent again, after 200 ms and more; a ring of 16,384 (RingSize) lost none of kit's. unanswered is connections that had waited " +
	"a second when the measurement ended."

// measureRequests measures with each number of connections, in a process of its own.
func measureRequests(ctx context.Context, r *runner, s Subject) (Sample, error) {
	sample := Sample{}
	for _, n := range requestCounts {
		if r.opts.Smoke && n == comparedRequests || !canOpen(n+spareFiles) {
			continue
		}
		result, err := r.askOn(ctx, s, n)
		if err != nil {
			return nil, fmt.Errorf("%d connections: %w", n, err)
		}
		sample[requestRateKey(n)] = float64(result.Count) / time.Duration(result.Took).Seconds()
		sample[unansweredKey] += float64(result.Lost)
		switch n {
		case timedRequests:
			sample["p50_ns"], sample["p99_ns"] = float64(result.P50), float64(result.P99)
		case comparedRequests:
			sample[resentKey] = float64(result.Resent) / float64(result.Count)
		}
	}
	return sample, nil
}

// askOn asks on so many connections, which client and subject may have.
func (r *runner) askOn(ctx context.Context, s Subject, connections int) (asked, error) {
	restore, err := allowFiles(connections + spareFiles)
	if err != nil {
		return asked{}, err
	}
	defer restore()
	return r.ask(ctx, s, task{Role: child.StreamRequest, Workers: connections})
}
