package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"kitnet.dev/kit/internal/bench/child"
	"kitnet.dev/kit/internal/netlab"
)

// workload is one thing to measure.
type workload struct {
	name, title string
	role        Role // that the subjects are in
	columns     []Column
	measure     func(context.Context, *runner, Subject) (Sample, error)
}

// The names of workloads that goals and checks speak of.
const (
	receive   = "receive"
	echo      = "echo"
	transmit  = "transmit"
	roundtrip = "roundtrip"
	overload  = "overload"
)

// WorkloadNames returns the names of all workloads.
func WorkloadNames() (names []string) {
	for _, w := range allWorkloads() {
		names = append(names, w.name)
	}
	return names
}

func allWorkloads() []workload {
	var sockets []workload
	for _, o := range socketWorkloads() {
		sockets = append(sockets, o.complete())
	}
	trips := []Column{
		{Key: "p50_ns", Title: "p50", Unit: Nanoseconds, LowerIsBetter: true},
		{Key: "p99_ns", Title: "p99", Unit: Nanoseconds, LowerIsBetter: true},
		{Key: "p999_ns", Title: "p99.9", Unit: Nanoseconds, LowerIsBetter: true},
		{Key: "lost", Title: "lost", Unit: Count, LowerIsBetter: true},
	}
	return append([]workload{
		{
			name: receive, title: "datagrams received while a generator in the kernel sends all that it can",
			role: Receive,
			columns: append([]Column{
				{Key: "received_per_s", Title: "received", Unit: PerSecond},
				{Key: "offered_per_s", Title: "offered", Unit: PerSecond},
				{Key: "arrived_per_s", Title: "arrived", Unit: PerSecond},
			}, costColumns()...),
			measure: measureReceive,
		},
		{
			name: transmit, title: "datagrams that arrive while the subject sends all that it can",
			role: Transmit,
			columns: append([]Column{
				{Key: "arrived_per_s", Title: "arrived", Unit: PerSecond},
				{Key: "sent_per_s", Title: "sent", Unit: PerSecond},
			}, costColumns()...),
			measure: measureTransmit,
		},
		scalingWorkload(),
		{
			name: echo, title: "answers to a generator that asks as fast as it can",
			role: Echo,
			columns: []Column{
				{Key: "answered_per_s", Title: "answered", Unit: PerSecond},
				{Key: "asked_per_s", Title: "asked", Unit: PerSecond},
			},
			measure: measureEcho,
		},
		{
			name: roundtrip, title: "one datagram outstanding, from a kernel client that sleeps while it waits",
			role: Echo, columns: trips,
			measure: func(ctx context.Context, r *runner, s Subject) (Sample, error) { return measureTrips(ctx, r, s, false) },
		},
		{
			name: "roundtrip-spin", title: "one datagram outstanding, from a kernel client that spins while it waits",
			role: Echo, columns: trips,
			measure: func(ctx context.Context, r *runner, s Subject) (Sample, error) { return measureTrips(ctx, r, s, true) },
		},
		{
			name: overload, title: "echo of what is offered: how much of a subject's best remains at twice that load",
			role: Echo,
			columns: []Column{
				{Key: keptKey(2), Title: "at 2×", Unit: Share},
				{Key: keptKey(1.5), Title: "at 1.5×", Unit: Share},
				{Key: keptKey(1.25), Title: "at 1.25×", Unit: Share},
				{Key: keptKey(1), Title: "at 1×", Unit: Share},
				{Key: "best_per_s", Title: "best", Unit: PerSecond},
				{Key: "offered_per_s", Title: "offered at 2×", Unit: PerSecond},
			},
			measure: measureOverload,
		},
	}, slices.Concat(sockets, streamWorkloads(), []workload{enginesWorkload(), footprintWorkload()})...)
}

const (
	// liveFlows are the source ports of the generator inside the kernel, beginning with liveBasePort.
	liveFlows    = 64
	liveBasePort = 20000
	// warmUp is what a subject gets before a measurement begins.
	warmUp = 100 * time.Millisecond
)

// underLive starts the subject and the generator that it is given, and calls f while frames arrive.
func (r *runner) underLive(ctx context.Context, s Subject, role Role, f func(*process, *live) error) error {
	return r.underLiveTo(ctx, s, task{Role: role}, f)
}

// underLiveTo is underLive for a task that may have several sockets.
func (r *runner) underLiveTo(ctx context.Context, s Subject, t task, f func(*process, *live) error) (err error) {
	if s.kernel {
		end := r.lab.Right.Ends[0]
		if err := end.SetOffloads(netlab.GRO); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end.SetOffloads(0)) }()
	}
	p, err := r.startTask(ctx, s, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	g, err := newLive(liveTarget{
		From: r.lab.Left, To: r.addressOf(s, t.Role), ToMAC: r.lab.Right.HardwareAddr(), Payload: r.opts.Payload,
		Flows: liveFlows, BasePort: liveBasePort, CPU: r.opts.GeneratorCPU, Sockets: t.Sockets,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	return f(p, g)
}

// whileSending runs the generator at a rate, and f after a warm-up meanwhile.
func whileSending(ctx context.Context, g *live, rate float64, warm time.Duration, f func() error) error {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan error, 1)
	before, err := g.Sent()
	if err != nil {
		return err
	}
	go func() { sent <- g.Run(sending, rate) }()
	err = g.begun(ctx, before)
	if err == nil {
		err = pause(ctx, warm)
	}
	if err == nil {
		err = f()
	}
	stop()
	return errors.Join(err, <-sent)
}

// pause sleeps, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func measureReceive(ctx context.Context, r *runner, s Subject) (sample Sample, err error) {
	err = r.underLive(ctx, s, Receive, func(p *process, g *live) error {
		return whileSending(ctx, g, 0, warmUp, func() error {
			offered, err := startMeter(g.Sent)
			if err != nil {
				return err
			}
			arrived, err := startMeter(r.arrived)
			if err != nil {
				return err
			}
			did, softirq, err := r.watch(ctx, p)
			if err != nil {
				return err
			}
			offeredRate, err := offered.rate()
			if err != nil {
				return err
			}
			arrivedRate, err := arrived.rate()
			if err != nil {
				return err
			}
			if did.Received == 0 {
				return errors.New("bench: the subject received nothing")
			}
			sample = Sample{
				"received_per_s": float64(did.Received) / did.At.Seconds(),
				"offered_per_s":  offeredRate,
				"arrived_per_s":  arrivedRate,
			}
			costs(sample, did, softirq, float64(did.Received))
			return nil
		})
	})
	return sample, err
}

// arrived returns how many frames the receiving interface has counted.
func (r *runner) arrived() (uint64, error) {
	link, err := r.lab.Right.Links().LinkByIndex(r.lab.Right.Index())
	if err != nil {
		return 0, fmt.Errorf("bench: read the counters of %s: %w", r.lab.Right.Interface(), err)
	}
	return link.Attrs().Statistics.RxPackets, nil
}

// meter is the rate of a counter since a moment.
type meter struct {
	count func() (uint64, error)
	first uint64
	at    time.Time
}

func startMeter(count func() (uint64, error)) (meter, error) {
	first, err := count()
	return meter{count: count, first: first, at: time.Now()}, err
}

// read returns the counts since startMeter, and how many a second that were.
func (m meter) read() (n uint64, rate float64, err error) {
	last, err := m.count()
	n = last - m.first
	return n, float64(n) / time.Since(m.at).Seconds(), err
}

// rate returns the counts a second since startMeter.
func (m meter) rate() (float64, error) {
	_, rate, err := m.read()
	return rate, err
}

// softirqTime is the time that all cores have spent in softirqs since boot (/proc/stat, in ticks of 10 ms), 0 where it
// can't be read.
func softirqTime() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	// cpu user nice system idle iowait irq softirq …
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return 0
	}
	ticks, err := strconv.ParseUint(fields[7], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func measureEcho(ctx context.Context, r *runner, s Subject) (sample Sample, err error) {
	if r.opts.Payload > kxdpgunLongest {
		return r.echoed(ctx, s, task{Role: Echo})
	}
	p, err := r.start(ctx, s, Echo)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if _, err := exec.LookPath("kxdpgun"); err != nil {
		return nil, errors.New("bench: kxdpgun is not installed: apt-get install knot-dnsutils")
	}
	d := (r.opts.Window + time.Second - 1).Truncate(time.Second)
	summary, err := kxdpgun(ctx, r.dir, r.lab.Left, r.address, r.opts.Payload, r.opts.GeneratorCPU, d)
	if err != nil {
		return nil, err
	}
	if summary.Replies == 0 {
		return nil, fmt.Errorf("bench: kxdpgun got no answer to %d queries", summary.Queries)
	}
	return Sample{
		"answered_per_s": float64(summary.Replies) / summary.Duration.Seconds(),
		"asked_per_s":    float64(summary.Queries) / summary.Duration.Seconds(),
	}, nil
}

// echoed measures a task that answers, from one socket or many: live frames ask, and a sink counts the answers.
func (r *runner) echoed(ctx context.Context, s Subject, t task) (sample Sample, err error) {
	err = r.underLiveTo(ctx, s, t, func(_ *process, g *live) (err error) {
		sink, err := newSinkOf(r.lab.Left, r.sentBy(s, t))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sink.Close()) }()
		at, err := offer(ctx, g, sink, 0, r.opts.Window)
		if err == nil && at.goodput == 0 {
			err = errors.New("bench: the subject answered nothing")
		}
		sample = Sample{"answered_per_s": at.goodput, "asked_per_s": at.offered}
		return err
	})
	return sample, err
}

func measureTrips(ctx context.Context, r *runner, s Subject, spin bool) (Sample, error) {
	result, err := r.ask(ctx, s, task{Role: Echo, Payload: r.opts.Payload, Spin: spin})
	if err != nil {
		return nil, err
	}
	return Sample{
		"p50_ns": float64(result.P50), "p99_ns": float64(result.P99), "p999_ns": float64(result.P999),
		"lost": float64(result.Lost),
	}, nil
}

// ask starts the subject and runs a client at the left end of the cable, with that task, to its end.
func (r *runner) ask(ctx context.Context, s Subject, t task) (result asked, err error) {
	if s.xdp {
		pass, err := attachPass(r.lab.Left)
		if err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, pass.Close()) }()
	}
	p, err := r.startTask(ctx, s, task{Role: t.Role, Sockets: t.Sockets, Workers: t.Workers})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := r.tell(ctx, r.lab.Left, r.clientTask(s, t), &result); err != nil {
		return result, err
	}
	if result.Count == 0 {
		return result, fmt.Errorf("bench: the client got no answer, %d were lost", result.Lost)
	}
	return result, nil
}

// tell runs a process of ours with that task in a namespace to its end, and reads the result that it writes as JSON.
func (r *runner) tell(ctx context.Context, at *netlab.Namespace, t task, result any) error {
	cmd, err := child.Command(r.opts.Self, t)
	if err != nil {
		return err
	}
	out, err := at.Run(ctx, cmd.Path, cmd.Args[1:]...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, result); err != nil {
		return fmt.Errorf("bench: the result of %s is %q: %w", t.Subject, out, err)
	}
	return nil
}

// clientTask completes a client's task.
func (r *runner) clientTask(s Subject, t task) task {
	t.Subject, t.Address, t.CPU, t.Duration = clientSubject, r.addressOf(s, t.Role), r.opts.GeneratorCPU, r.opts.Window
	return t
}
