package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
	"kitnet.dev/kit/internal/netlab"
)

// Options say what to run. Start from DefaultOptions.
type Options struct {
	// Self is the command line with which this program calls ChildMain; the task is put behind it.
	Self []string
	// Subjects and Workloads are the names of those to run; nil means all.
	Subjects, Workloads []string
	// Repetitions is how often each subject is measured in each workload.
	Repetitions int
	// Window is how long a measurement takes, without its start; kxdpgun rounds it up to seconds.
	Window time.Duration
	// Payload is the length of a datagram in bytes, 64 in the published tables. kxdpgun sends up to 81; of more, live frames ask.
	Payload int
	// Request is the length in bytes of a question, and of its answer, in the round trip with TCP.
	Request int
	// Kitd is the command line of kitd, whose start, rest and stop footprint measures; without it, it does not.
	Kitd []string
	// GVisor is the path of gvisor-rival, the program of the subjects that are gVisor. Where it is "", NoGVisor says why.
	GVisor, NoGVisor string
	// GeneratorCPU and SubjectCPU are the cores to bind to.
	GeneratorCPU, SubjectCPU int
	// CoreToCore is the most that a cache line may take from one of these cores to the other when a round of measurements
	// begins: a run waits for that, ten minutes in all. 0 is to measure wherever the cores are.
	CoreToCore time.Duration
	// Smoke leaves out the finer steps of the overload curve; with the other options of DefaultOptions(true) all takes some
	// 60 s, and more where the cores move.
	Smoke bool
}

// DefaultOptions returns the options of a full run, or of a smoke run: one short measurement of each of some subjects.
// self is the command line with which this program calls ChildMain.
func DefaultOptions(smoke bool, self ...string) Options {
	o := Options{
		Self: self, Repetitions: 3, Window: time.Second, Payload: 64, Request: 1, SubjectCPU: min(1, runtime.NumCPU()-1),
		NoGVisor: "no gvisor-rival was named",
	}
	if smoke {
		o.Smoke, o.Repetitions, o.Window = true, 1, 200*time.Millisecond
		o.Subjects = slices.Clone(smokeSubjects)
	}
	return o
}

// smokeSubjects are those of a smoke run that does not name others, and smokeOnly which of them it measures in a workload that
// takes long for each: those that goals compare.
var (
	smokeSubjects = []string{kitHandler, kitBatch, kitCalls, rawXDP, recvmmsg, sendmmsg, goNet, kitTCP, goNetTCP, kitd}
	smokeOnly     = map[string][]string{
		echo:             {kitHandler, rawXDP, recvmmsg},
		roundtrip:        {kitHandler, rawXDP, recvmmsg, goNet},
		"roundtrip-spin": {kitHandler, goNet},
		overload:         {kitHandler, recvmmsg},
		receiveSockets:   {kitHandler},
		transmitSockets:  {kitBatch, sendmmsg},
		echoSockets:      {kitHandler},
		roundtripSockets: {kitHandler, recvmmsg},
		scaling:          {kitHandler, rawXDP},
		engines:          {kitHandler, kitTCP},
	}
)

// check refuses options that can't be run.
func (o *Options) check() error {
	if len(o.Self) == 0 {
		return errors.New("bench: Options.Self is empty: say how this program starts its child processes")
	}
	if o.Repetitions < 1 {
		return fmt.Errorf("bench: %d repetitions: want 1 or more", o.Repetitions)
	}
	if o.Window < 10*time.Millisecond {
		return fmt.Errorf("bench: a window of %v: want 10 ms or more", o.Window)
	}
	if o.Payload < 19 || o.Payload > longestPayload {
		return fmt.Errorf("bench: a payload of %d bytes: want 19, a DNS query, to %d, a whole frame", o.Payload, longestPayload)
	}
	if o.Request < 1 || o.Request > 1<<10 {
		return fmt.Errorf("bench: a request of %d bytes: want 1 to %d", o.Request, 1<<10)
	}
	if o.CoreToCore < 0 {
		return fmt.Errorf("bench: a way from core to core of %v: want more, or 0 for any", o.CoreToCore)
	}
	if o.CoreToCore > 0 && o.oneCore() {
		return fmt.Errorf("bench: the way from core to core can't be %v: there is one core, CPU %d", o.CoreToCore, o.SubjectCPU)
	}
	names := func(kind string, asked, have []string) error {
		for _, name := range asked {
			if !slices.Contains(have, name) {
				return fmt.Errorf("bench: no %s %q: there are %s", kind, name, strings.Join(have, ", "))
			}
		}
		return nil
	}
	return errors.Join(names("subject", o.Subjects, SubjectNames()), names("workload", o.Workloads, WorkloadNames()))
}

// SubjectNames returns the names of all subjects.
func SubjectNames() (names []string) {
	for _, s := range Subjects() {
		names = append(names, s.Name)
	}
	return names
}

// runner is a run in progress.
type runner struct {
	opts     Options
	out      io.Writer
	lab      *netlab.Lab
	dir      string             // for files, removed at the end
	programs map[program]string // their paths
	noC      string             // why those in C are not among them, "" where they are
	subjects []Subject          // those that were asked for
	address  netip.AddrPort     // of the kernel and of who shares its address
	owned    netip.AddrPort     // of who has an address that the kernel does not have

	distance func() (float64, error) // between the two cores, as coreToCore; nil where there is one
	patience time.Duration           // what is left of nearPatience
	tooFar   bool                    // whether it did not suffice
}

// servicePort is where subjects serve.
const servicePort = 7

// longestPayload is the longest that fits an Ethernet frame of 1500 bytes, beside 20 of IPv4 and 8 of UDP.
const longestPayload = 1472

// Run builds a laboratory, measures, and returns the report; it tells its progress on out. What a subject fails at is in
// the report (see Report.Err); an error means that nothing could be measured, or that ctx ended.
func Run(ctx context.Context, opts Options, out io.Writer) (report Report, err error) {
	if err := opts.check(); err != nil {
		return report, err
	}
	for _, hurry := range []func() (func(), error){hurrySession, hurryThread} {
		restore, err := hurry()
		if err != nil {
			return report, err
		}
		defer restore()
	}
	r := &runner{opts: opts, out: out, patience: nearPatience}
	if !opts.oneCore() {
		r.distance = func() (float64, error) { return coreToCore(opts.GeneratorCPU, opts.SubjectCPU) }
	}
	if r.dir, err = os.MkdirTemp("", "kit-bench-"); err != nil {
		return report, fmt.Errorf("bench: make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	r.programs, r.noC = compile(r.dir)
	if err := r.choose(); err != nil {
		return report, err
	}
	if r.lab, err = netlab.New(netlab.Options{Neighbors: true, Right: netlab.Side{Addresses: rightAddresses()}}); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, r.lab.Close()) }()
	r.address = netip.AddrPortFrom(r.lab.Right.Addr(), servicePort)
	r.owned = netip.AddrPortFrom(rightAddresses()[socketAddrs-1].Addr().Next(), servicePort)
	if err := r.learnOwned(); err != nil {
		return report, err
	}
	if err := r.setTCP(); err != nil {
		return report, err
	}

	report = Report{Version: Version, Machine: machine(), Subjects: r.subjects, Notes: r.notes()}
	for _, w := range r.workloads() {
		measured, err := r.measure(ctx, w)
		if err != nil {
			return report, err
		}
		if len(measured.Results) == 0 {
			continue // none of its subjects was asked for
		}
		report.Workloads = append(report.Workloads, measured)
	}
	report.Notes = append(report.Notes, r.placementNotes(report.Workloads)...)
	report.Goals = report.goals()
	return report, nil
}

// Err returns what subjects failed at, nil where all were measured.
func (r *Report) Err() error {
	var errs []error
	for _, w := range r.Workloads {
		for _, s := range w.Results {
			if s.Error != "" {
				errs = append(errs, fmt.Errorf("%s of %s: %s", w.Name, s.Subject, s.Error))
			}
		}
	}
	return errors.Join(errs...)
}

// measure runs one workload in rounds: in each every subject once, and each begins with another. Rounds are added until as many
// as were asked for are comparable, or there are too many.
func (r *runner) measure(ctx context.Context, w workload) (Workload, error) {
	done := Workload{Name: w.name, Title: w.title, Columns: w.columns}
	subjects := slices.DeleteFunc(slices.Clone(r.subjects), func(s Subject) bool {
		return !slices.Contains(s.roles, w.role) || s.Missing != "" || r.spared(w, s)
	})
	for _, s := range subjects {
		done.Results = append(done.Results, Result{Subject: s.Name})
	}
	for n := 0; r.another(&done, n); n++ {
		if err := r.round(ctx, w, subjects, &done, n); err != nil {
			return done, err
		}
	}
	if r.distance != nil {
		done.settle(r.opts.near())
	}
	var all []Sample
	for i := range done.Results {
		all = append(all, done.Results[i].Samples...)
	}
	if len(all) > 0 {
		done.Columns = measured(w.columns, all...)
	}
	done.summarize()
	return done, nil
}

// spared says that a smoke run leaves a subject out of a workload.
func (r *runner) spared(w workload, s Subject) bool {
	only := smokeOnly[w.name]
	return r.opts.Smoke && only != nil && slices.Equal(r.opts.Subjects, smokeSubjects) && !slices.Contains(only, s.Name)
}

// another says whether a workload needs one more round than the n that it had.
func (r *runner) another(w *Workload, n int) bool {
	asked := r.opts.Repetitions
	if n < asked {
		return true
	}
	rounds := w.rounds() // none where each subject has failed
	return r.distance != nil && n < asked+extraRounds*asked && len(rounds) > 0 &&
		len(choose(rounds, r.opts.near())) < asked
}

// round measures every subject once, as the workload's nth round from 0.
func (r *runner) round(ctx context.Context, w workload, subjects []Subject, done *Workload, n int) error {
	number := fmt.Sprintf("%d/%d", n+1, r.opts.Repetitions)
	if extra := n - r.opts.Repetitions; extra >= 0 {
		number = fmt.Sprintf("extra %d/%d", extra+1, extraRounds*r.opts.Repetitions)
	}
	if err := r.waitNear(ctx); err != nil {
		return err
	}
	for i := range subjects {
		at := (i + n) % len(subjects)
		result := &done.Results[at]
		if result.Error != "" {
			continue
		}
		sample, err := r.sample(ctx, w, subjects[at])
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			*result = Result{Subject: result.Subject, Error: err.Error()}
			fmt.Fprintf(r.out, "%s %s %s: %v\n", w.name, number, result.Subject, err)
			continue
		}
		result.Samples = append(result.Samples, sample)
		first := measured(w.columns, sample)[0]
		fmt.Fprintf(r.out, "%s %s %s: %s", w.name, number, result.Subject, first.Unit.Format(sample[first.Key]))
		if r.distance != nil {
			fmt.Fprintf(r.out, ", core to core %s, then %s", betweenCores(sample[beforeKey]), betweenCores(sample[afterKey]))
		}
		fmt.Fprintln(r.out)
	}
	return nil
}

// sample measures a subject once, and how far apart the cores are before and after.
func (r *runner) sample(ctx context.Context, w workload, s Subject) (Sample, error) {
	way := Sample{}
	if err := r.placed(way, beforeKey); err != nil {
		return nil, err
	}
	sample, err := w.measure(ctx, r, s)
	if err != nil {
		return nil, err
	}
	if err := r.placed(way, afterKey); err != nil {
		return nil, err
	}
	maps.Copy(sample, way)
	return sample, nil
}

// choose fills in the subjects that were asked for, and which of them are missing. One that was asked for by name must not
// be.
func (r *runner) choose() error {
	if r.programs == nil {
		r.programs = map[program]string{}
	}
	noGVisor := r.opts.NoGVisor
	if r.opts.GVisor != "" {
		path, err := exec.LookPath(r.opts.GVisor)
		if err != nil {
			noGVisor = err.Error()
		} else {
			r.programs[gvisorProgram] = path
		}
	}
	for _, s := range Subjects() {
		if r.opts.Subjects != nil && !slices.Contains(r.opts.Subjects, s.Name) {
			continue
		}
		if s.program == recvmmsgProgram && r.programs[s.program] == "" {
			s.roles = answers // the Go program in its place has one socket
		}
		if s.serve == nil && r.programs[s.program] == "" {
			s.Missing = r.noC
			if s.program == gvisorProgram {
				s.Missing = strings.Join(strings.Fields(noGVisor), " ") // what a compiler says has lines
			}
			if r.opts.Subjects != nil && !r.opts.Smoke {
				return fmt.Errorf("bench: %s can't be measured: %s", s.Name, s.Missing)
			}
		}
		r.subjects = append(r.subjects, s)
	}
	return nil
}

func (r *runner) workloads() (chosen []workload) {
	for _, w := range allWorkloads() {
		if w.role == Scaling && r.opts.oneCore() {
			continue
		}
		if r.opts.Workloads == nil || slices.Contains(r.opts.Workloads, w.name) {
			chosen = append(chosen, w)
		}
	}
	return chosen
}

// start starts a subject at the right end of the cable.
func (r *runner) start(ctx context.Context, s Subject, role Role) (*process, error) {
	return r.startTask(ctx, s, task{Role: role})
}

// startTask starts a subject with a task, which it completes.
func (r *runner) startTask(ctx context.Context, s Subject, t task) (*process, error) {
	t.Subject, t.Interface, t.Address, t.CPU = s.Name, r.lab.Right.Interface(), r.addressOf(s, t.Role), r.opts.SubjectCPU
	t.Bits, t.Payload = r.lab.Right.Ends[0].Addresses[0].Bits(), r.opts.Payload
	t.Peer, t.PeerMAC = netip.AddrPortFrom(r.lab.Left.Addr(), transmitPort), r.lab.Left.HardwareAddr()
	cmd, err := r.command(s, t)
	if err != nil {
		return nil, err
	}
	return startProcess(ctx, r.lab.Right, cmd)
}

func (r *runner) addressOf(s Subject, role Role) netip.AddrPort {
	if s.owned || slices.Contains(manySockets, role) && !s.kernel {
		return r.owned
	}
	return r.address
}

// command is the subject's command line: its own program's or, without one, this program's.
func (r *runner) command(s Subject, t task) (*exec.Cmd, error) {
	path := r.programs[s.program]
	switch {
	case path == "":
		return child.Command(r.opts.Self, t)
	case s.program == recvmmsgProgram:
		return exec.Command(path, recvmmsgArgs(t)...), nil
	case s.program == sendmmsgProgram:
		return exec.Command(path, sendmmsgArgs(t)...), nil
	case s.program == streamProgram:
		return exec.Command(path, streamArgs(t)...), nil
	}
	return child.Command([]string{path}, t)
}

// has reports whether one of the workloads that were asked for is in one of the roles.
func (r *runner) has(roles ...Role) bool {
	return slices.ContainsFunc(r.workloads(), func(w workload) bool { return slices.Contains(roles, w.role) })
}

// notes say what could mislead a reader of the report.
func (r *runner) notes() []string {
	cores := fmt.Sprintf("The generator and the receiving softirq share CPU %d; the subject is bound to CPU %d.",
		r.opts.GeneratorCPU, r.opts.SubjectCPU)
	if r.opts.GeneratorCPU == r.opts.SubjectCPU {
		cores = fmt.Sprintf("Generator, softirq and subject share one core, CPU %d: everything is slower than it could be.",
			r.opts.SubjectCPU)
	}
	c := "recvmmsg is a C program (cc -O2)."
	if r.noC != "" {
		c = "recvmmsg is a Go program with bare system calls, since " + r.noC + "."
	}
	notes := []string{
		"A veth pair inside one machine, AF_XDP in copy mode: a card with zero-copy gives other ratios.",
		cores,
		"All offloads are off, as frames come from a wire. With them on, the kernel is faster than AF_XDP at receiving from " +
			"a UDP GSO sender, and at sending with UDP GSO.",
		c,
		fmt.Sprintf("Datagrams of %d bytes. Each value is the median of %d repetitions, unless a note below says how many count. "+
			"All that is measured runs at nice %d, and still other work on the machine makes 1.3 times either way normal.",
			r.opts.Payload, r.opts.Repetitions, child.Ahead),
		"Where as much was received as offered, the generator was the limit and not the subject; and a subject that does not " +
			"sleep while it waits uses its whole core, whatever it receives.",
		transmitNote,
		"A receiver is slower for reading what arrived, since it has to fetch it from the sender's core. So raw AF_XDP reads of each " +
			"frame what any receiver must: the headers of Ethernet, IPv4 and UDP, and the payload's first byte. It verifies no checksum, " +
			"for which kit and the kernel read the whole payload. raw AF_XDP unread only counts descriptors, which no receiver can: with " +
			"the cores far apart that is 1.6 times as fast. XDP_DROP and XDP_TX run on the sender's core, and need no other.",
		fmt.Sprintf("echo's generator is kxdpgun for datagrams of up to %d bytes, and live frames for longer ones.", kxdpgunLongest),
		"receive and overload take live frames from inside the kernel; for the kernel's sockets GRO is on at the " +
			"receiving end, without which veth does not take them.",
	}
	if r.has(manySockets...) {
		notes = append(notes, socketNotes()...)
	}
	switch {
	case r.has(Scaling):
		notes = append(notes, scalingNote)
	case r.opts.oneCore():
		notes = append(notes, "scaling: not measured, since it needs two cores.")
	}
	if r.has(Engines) {
		notes = append(notes, enginesNote)
	}
	if r.has(Footprint) {
		notes = append(notes, footprintNote)
	}
	if r.has(slices.Concat(streams, bulkStreams)...) {
		notes = append(notes, streamNotes(r.opts.Request)...)
	}
	if r.has(child.StreamRequest) {
		notes = append(notes, requestsNote)
		notes = append(notes, filesNotes("tcp-requests: %d connections", requestCounts)...)
	}
	if r.has(bulkStreams...) {
		notes = append(notes, manyStreamsNote)
		notes = append(notes, filesNotes("tcp-receive-streams, tcp-send-streams: %d connections", streamCounts)...)
	}
	return notes
}

// placementNotes say what could mislead a reader who does not know how far apart the cores were.
func (r *runner) placementNotes(measured []Workload) []string {
	if r.distance == nil {
		return []string{"There is one core, and so no way from core to core that could have changed between measurements."}
	}
	notes := []string{fmt.Sprintf("core to core is how long a cache line takes from CPU %d to CPU %d, before and after each "+
		"measurement. The host of a virtual machine moves its CPUs, and all that is measured follows: compare what was measured "+
		"at the same.",
		r.opts.GeneratorCPU, r.opts.SubjectCPU)}
	if r.tooFar {
		notes = append(notes, fmt.Sprintf("The cores did not come as near as %v in the %v that the run waited for it, and then "+
			"it measured wherever they were.", r.opts.CoreToCore, nearPatience))
	}
	for i := range measured {
		w := &measured[i]
		if w.Placement == nil {
			continue // no subject could be measured
		}
		if note := w.Placement.note(w.Name, r.opts.Repetitions); note != "" {
			notes = append(notes, note)
		}
	}
	return notes
}

// machine describes where this runs.
func machine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	return m
}
