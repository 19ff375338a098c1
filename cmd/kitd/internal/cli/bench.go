package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"kitnet.dev/kit/internal/bench"
)

func (e *Env) benchCommand() *cobra.Command {
	var smoke bool
	given := bench.DefaultOptions(false)
	cmd := &cobra.Command{
		Use: "bench", Short: "kit and its rivals on one veth pair, alternating in one run", Args: noArgs,
		Long: "Measures kit, raw AF_XDP without a stack, the kernel's sockets, Go's net package and gVisor on one veth pair, one\n" +
			"after the other, again and again. What counts are the ratios. Needs root and kxdpgun, and for gVisor a program that\n" +
			"make bench builds. Progress goes to stderr.\n\n" +
			"A virtual machine's host moves its CPUs, and all figures follow. So each measurement stands between two of how\n" +
			"long a cache line takes from core to core, only rounds in which that stayed the same count, and others are\n" +
			"repeated, up to twice as many as were asked for.\n\n" +
			"Subjects:  " + strings.Join(bench.SubjectNames(), ", ") + "\nWorkloads: " + strings.Join(bench.WorkloadNames(), ", "),
	}
	output := outputFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&smoke, "smoke", false, "a short run, which fails if a subject can't be measured or is wildly off")
	flags.StringSliceVar(&given.Subjects, "subjects", nil, "`NAMES` of the subjects to measure (default: all)")
	flags.StringSliceVar(&given.Workloads, "workloads", nil, "`NAMES` of the workloads to run (default: all)")
	flags.IntVar(&given.Repetitions, "repetitions", given.Repetitions, "how often each subject is measured")
	flags.DurationVar(&given.Window, "window", given.Window, "how long one measurement takes")
	flags.IntVar(&given.Payload, "payload", given.Payload, "`BYTES` of a datagram, up to 1472, a whole frame")
	flags.IntVar(&given.Request, "request", given.Request, "`BYTES` of a request and of its answer in tcp-roundtrip")
	flags.DurationVar(&given.CoreToCore, "core-to-core", 0,
		"before each round, wait until a cache line takes this `TIME` or less from\n"+
			"core to core, 10 minutes in all (default: no waiting)")
	flags.StringVar(&given.GVisor, "gvisor", "", "`PATH` of gvisor-rival, which is gVisor's subjects")
	flags.StringVar(&given.NoGVisor, "no-gvisor", "", "`WHY` there is no gvisor-rival, for the report")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o := bench.DefaultOptions(smoke, append(e.Self, bench.ChildArgument)...)
		o.Kitd = e.Self
		for name, take := range map[string]func(){
			"subjects": func() { o.Subjects = given.Subjects }, "workloads": func() { o.Workloads = given.Workloads },
			"repetitions": func() { o.Repetitions = given.Repetitions }, "window": func() { o.Window = given.Window },
			"payload": func() { o.Payload = given.Payload },
			"request": func() { o.Request = given.Request }, "core-to-core": func() { o.CoreToCore = given.CoreToCore },
			"gvisor":    func() { o.GVisor = given.GVisor },
			"no-gvisor": func() { o.NoGVisor = given.NoGVisor },
		} {
			if flags.Changed(name) {
				take()
			}
		}
		ctx, stop := interruptible(cmd)
		defer stop()
		report, err := e.Bench(ctx, o, e.Stderr)
		if err != nil {
			return err
		}
		if err := e.showReport(&report, *output); err != nil {
			return err
		}
		if err := report.Err(); err != nil {
			return fmt.Errorf("not all could be measured: %w", err)
		}
		if smoke {
			return report.Check()
		}
		return nil
	}
	return cmd
}

func (e *Env) showReport(r *bench.Report, f format) error {
	var raw bytes.Buffer
	if err := r.WriteJSON(&raw); err != nil {
		return err
	}
	return e.show(raw.Bytes(), f, "workloads", func(out io.Writer, _ []byte) error { return r.WriteTable(out) })
}

// benchChildCommand is a process of the benchmark.
func (e *Env) benchChildCommand() *cobra.Command {
	return &cobra.Command{
		Use: bench.ChildArgument, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if status := bench.ChildMain(args); status != exitOK {
				return statusError(status)
			}
			return nil
		},
	}
}

// benchRun is bench.Run; a run that was interrupted measured nothing.
func benchRun(ctx context.Context, o bench.Options, out io.Writer) (bench.Report, error) {
	report, err := bench.Run(ctx, o, out)
	if ctx.Err() != nil {
		return report, errors.New("the benchmark was interrupted; nothing of it is left")
	}
	return report, err
}
