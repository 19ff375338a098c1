package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kitnet.dev/kit/internal/bench/child"
	"kitnet.dev/kit/internal/netlab"
)

// The workloads with TCP.
const (
	tcpReceive   = "tcp-receive"
	tcpSend      = "tcp-send"
	tcpRoundtrip = "tcp-roundtrip"
	tcpRequests  = "tcp-requests"
	tcpConnect   = "tcp-connect"
	tcpConnect64 = "tcp-connect-64"
)

// streamWarm is how long a transfer runs before it is measured: windows open, buffers grow.
const streamWarm = 300 * time.Millisecond

func streamWorkloads() []workload {
	bulk := append([]Column{{Key: "bits_per_s", Title: "throughput", Unit: BitsPerSecond}}, streamCosts()...)
	connections := []Column{
		{Key: "connections_per_s", Title: "connections", Unit: ConnectionsPerSecond},
		{Key: "p50_ns", Title: "p50", Unit: Nanoseconds, LowerIsBetter: true},
		{Key: "p99_ns", Title: "p99", Unit: Nanoseconds, LowerIsBetter: true},
		{Key: "failed", Title: "failed", Unit: Count, LowerIsBetter: true},
	}
	return []workload{
		{
			name: tcpReceive, title: "TCP from a client that sends all that it can on one connection",
			columns: bulk, measure: bulkMeasure(child.StreamReceive), role: child.StreamReceive,
		},
		{
			name: tcpSend, title: "TCP to a client that takes all that comes on one connection",
			columns: bulk, measure: bulkMeasure(child.StreamSend), role: child.StreamSend,
		},
		{
			name: tcpRoundtrip, title: "one request outstanding on a TCP connection, from a client that sleeps while it waits",
			columns: []Column{
				{Key: "p50_ns", Title: "p50", Unit: Nanoseconds, LowerIsBetter: true},
				{Key: "p99_ns", Title: "p99", Unit: Nanoseconds, LowerIsBetter: true},
				{Key: "p999_ns", Title: "p99.9", Unit: Nanoseconds, LowerIsBetter: true},
			},
			measure: measureStreamTrips, role: child.StreamEcho,
		},
		requestsWorkload(),
		manyStreamsWorkload(tcpReceiveStreams, child.StreamsReceive, "from a client that sends all that it can on many connections"),
		manyStreamsWorkload(tcpSendStreams, child.StreamsSend, "to a client that takes all that comes on many connections"),
		{
			name: tcpConnect, title: "TCP connections with a byte each way, one after the other",
			columns: connections, measure: connectMeasure(1), role: child.StreamConnect,
		},
		{
			name: tcpConnect64, title: "TCP connections with a byte each way, 64 at a time",
			columns: connections, measure: connectMeasure(64), role: child.StreamConnect,
		},
	}
}

// streamCosts are the columns that bulk fills in beside the throughput.
func streamCosts() []Column {
	return []Column{
		{Key: "subject_busy", Title: "subject busy", Unit: Share},
		{Key: "client_busy", Title: "client busy", Unit: Share},
		{Key: "softirq_busy", Title: "softirq", Unit: Share},
	}
}

// congestion is the congestion control of all subjects and of the client (RFC 9438), whatever the machine's own choice is.
const congestion = "cubic"

// setTCP gives the kernel at both ends of the cable its own default limits of buffers, in bytes, whatever the machine's are, and
// no memory of earlier connections to an address, which other subjects had (tcp_metrics). The client's end gets all ports, and
// keeps no connection in TIME-WAIT, which it is in for a minute as it closes first; it sends its last ACK all the same.
func (r *runner) setTCP() error {
	var errs []error
	for _, end := range []*netlab.Namespace{r.lab.Left, r.lab.Right} {
		errs = append(errs,
			end.Sysctl("net.ipv4.tcp_rmem", "4096 131072 6291456"),
			end.Sysctl("net.ipv4.tcp_wmem", "4096 16384 4194304"),
			end.Sysctl("net.ipv4.tcp_no_metrics_save", "1"))
	}
	return errors.Join(append(errs,
		r.lab.Left.Sysctl("net.ipv4.ip_local_port_range", "1024 65535"),
		r.lab.Left.Sysctl("net.ipv4.tcp_max_tw_buckets", "0"))...)
}

// streamNotes say what could mislead a reader of the tables about TCP.
func streamNotes(request int) []string {
	return []string{
		"TCP: checksum offload, TSO, GSO and GRO are off at both ends, for all subjects. The kernel's TCP makes bundles of " +
			"segments all the same, which the kernel cuts above the card, and so do kit and gVisor on AF_PACKET; gVisor on AF_XDP " +
			"sends segment by segment. A kernel with GRO on, which needs no card, receives faster than here.",
		"TCP: the client is the same for all, the kernel's sockets by bare system calls. A frame is received on the core that " +
			"sent it: so in tcp-send the subject's core does the client kernel's receiving too, and in tcp-receive, where the " +
			"subject is the kernel, the client's core does the subject's. Where the client is busy all the time, it is the limit.",
		"TCP: congestion control is CUBIC for all, and SACK is on. Segments are lost where a queue before the receiver is full: " +
			"the kernel's own, without NAPI, or that of AF_XDP. gVisor's settings are those of its runsc, with two " +
			"processors for goroutines on its one core, which is faster than one.",
		fmt.Sprintf("TCP: requests and answers of %d B. A connection is made, carries a byte each way, and is closed "+
			"by FINs both ways, the client's first; the client has all ports from 1024 on and keeps none in TIME-WAIT "+
			"(net.ipv4.tcp_max_tw_buckets is 0), so that it does not run out of them.", request),
	}
}

type measureFunc = func(context.Context, *runner, Subject) (Sample, error)

// bulkMeasure measures how many bytes the receiving end gets, be it the subject or the client.
func bulkMeasure(role Role) measureFunc {
	return func(ctx context.Context, r *runner, s Subject) (Sample, error) {
		sample, _, err := r.bulk(ctx, s, task{Role: role}, streamWarm)
		return sample, err
	}
}

// bulk measures a task of which subject and client each have a part, after a warm-up, and returns the client's further counters too.
func (r *runner) bulk(ctx context.Context, s Subject, t task, warm time.Duration) (sample Sample, more []float64, err error) {
	subject, err := r.startTask(ctx, s, t)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, subject.stop()) }()
	cmd, err := child.Command(r.opts.Self, r.clientTask(s, t))
	if err != nil {
		return nil, nil, err
	}
	client, err := startProcess(ctx, r.lab.Left, cmd)
	if err != nil {
		return nil, nil, fmt.Errorf("bench: the client: %w", err)
	}
	defer func() { err = errors.Join(err, client.stop()) }()
	if err := pause(ctx, warm); err != nil {
		return nil, nil, err
	}
	softirq := softirqTime()
	var readings [2][2]reading // the subject's and the client's, before and after
	for i := range readings {
		if i > 0 {
			if err := pause(ctx, r.opts.Window); err != nil {
				return nil, nil, err
			}
		}
		for j, p := range []*process{subject, client} {
			if readings[i][j], err = p.read(ctx); err != nil {
				return nil, nil, err
			}
		}
	}
	softirq = softirqTime() - softirq
	subjectDid, clientDid := readings[1][0].since(readings[0][0]), readings[1][1].since(readings[0][1])
	receiver := subjectDid
	if t.Role == child.StreamSend || t.Role == child.StreamsSend {
		receiver = clientDid
	}
	if receiver.Received == 0 {
		return nil, nil, fmt.Errorf("bench: no byte was received for %v", receiver.At)
	}
	return Sample{
		"bits_per_s":   8 * float64(receiver.Received) / receiver.At.Seconds(),
		"subject_busy": subjectDid.busy(), "client_busy": clientDid.busy(),
		"softirq_busy": softirq.Seconds() / subjectDid.At.Seconds(),
	}, readings[1][1].More, nil
}

// since is what happened from one reading to another.
func (r reading) since(first reading) reading {
	return reading{
		Received: r.Received - first.Received, Sent: r.Sent - first.Sent,
		At: r.At - first.At, User: r.User - first.User, System: r.System - first.System,
	}
}

// busy is the share of the time that the process had its core, of a reading that since made.
func (r reading) busy() float64 { return (r.User + r.System).Seconds() / r.At.Seconds() }

func measureStreamTrips(ctx context.Context, r *runner, s Subject) (Sample, error) {
	result, err := r.ask(ctx, s, task{Role: child.StreamEcho, Payload: r.opts.Request})
	if err != nil {
		return nil, err
	}
	return Sample{"p50_ns": float64(result.P50), "p99_ns": float64(result.P99), "p999_ns": float64(result.P999)}, nil
}

// connectMeasure measures connections made and closed by a client that has so many under way at a time.
func connectMeasure(workers int) measureFunc {
	return func(ctx context.Context, r *runner, s Subject) (Sample, error) {
		result, err := r.ask(ctx, s, task{Role: child.StreamConnect, Workers: workers})
		if err != nil {
			return nil, err
		}
		return Sample{
			"connections_per_s": float64(result.Count) / time.Duration(result.Took).Seconds(),
			"p50_ns":            float64(result.P50), "p99_ns": float64(result.P99), "failed": float64(result.Lost),
		}, nil
	}
}
