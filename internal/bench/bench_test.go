package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
	"kitnet.dev/kit/internal/netlab"
)

// quickOptions measure as little as can be: what is proved is that everything runs, not how fast.
func quickOptions(workloads ...string) Options {
	o := DefaultOptions(true, "/proc/self/exe", ChildArgument)
	// Longer than some turns of the Go scheduler, which are 10 ms each where a subject's engine and its reader share one core.
	o.Subjects, o.Workloads, o.Window = nil, workloads, 200*time.Millisecond
	return o
}

// run runs a benchmark and wants a value for each subject.
func run(t *testing.T, o Options) Report {
	netlab.NeedRoot(t)
	before := leftovers(t)
	var progress strings.Builder
	report, err := Run(context.Background(), o, &progress)
	require.NoError(t, err, progress.String())
	require.NoError(t, report.Err())
	require.Equal(t, before, leftovers(t), "nothing is left behind")
	require.Len(t, report.Workloads, len(o.Workloads))
	for _, w := range report.Workloads {
		for _, r := range w.Results {
			// Rounds between which the host moved the CPUs are repeated.
			require.GreaterOrEqual(t, len(r.Samples), o.Repetitions)
			require.LessOrEqual(t, len(r.Samples), o.Repetitions+extraRounds*o.Repetitions)
			require.Positive(t, r.Median[w.Columns[0].Key], "%s of %s", w.Name, r.Subject)
			require.Contains(t, progress.String(), w.Name+" 1/1 "+r.Subject)
		}
	}
	return report
}

// leftovers are this process's namespaces.
func leftovers(t *testing.T) (names []string) {
	lab := netlab.Test(t, netlab.Options{}) // makes /run/netns
	stem := strings.Join(strings.SplitN(lab.Left.Name, "-", 4)[:3], "-")
	require.NoError(t, lab.Close())
	entries, err := os.ReadDir("/run/netns")
	require.NoError(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), stem) {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestEverySubjectReceivesAndAnswers(t *testing.T) {
	report := run(t, quickOptions(receive, roundtrip))
	require.Len(t, report.Subjects, len(Subjects()))
	requireAll(t, report, []Role{Receive, Echo}, rawXDP, recvmmsg, goNet)
	for _, r := range report.Workload(roundtrip).Results {
		require.Zero(t, r.Median["lost"], r.Subject)
	}
}

// requireAll wants all subjects that can be in a workload's role in it, and ratios to the references.
func requireAll(t *testing.T, report Report, roles []Role, references ...string) {
	for i, w := range report.Workloads {
		var names, want []string
		for _, r := range w.Results {
			names = append(names, r.Subject)
		}
		for _, s := range report.Subjects {
			if slices.Contains(s.roles, roles[i]) {
				want = append(want, s.Name)
			}
		}
		require.Equal(t, want, names, w.Name)
		for _, name := range references {
			require.Equal(t, 1.0, w.Result(name).Ratios[name], w.Name)
		}
	}
}

func TestEverySubjectTransmits(t *testing.T) {
	report := run(t, quickOptions(transmit))
	requireAll(t, report, []Role{Transmit}, rawXDP, sendmmsg, goNet)
	for _, r := range report.Workload(transmit).Results {
		require.InEpsilon(t, r.Median["sent_per_s"], r.Median["arrived_per_s"], 0.2, r.Subject)
	}
}

func TestManySockets(t *testing.T) {
	roles := []Role{Sockets, SocketsTransmit, SocketsEcho, SocketsEcho}
	workloads := socketWorkloads()
	var names []string
	for _, o := range workloads {
		names = append(names, o.name)
	}
	report := run(t, quickOptions(names...))
	requireAll(t, report, roles)
	for i, w := range report.Workloads {
		o := workloads[i]
		require.Equal(t, o.key(comparedSockets), w.Columns[0].Key, w.Name)
		for _, r := range w.Results {
			one, many := r.Median[o.key(1)], r.Median[o.key(comparedSockets)]
			if !o.lower {
				one, many = many, one
			}
			require.InEpsilon(t, many/one, r.Median[socketCostKey(comparedSockets)], 1e-6, "%s of %s", w.Name, r.Subject)
			require.NotContains(t, r.Median, o.key(100), "a smoke run leaves it out")
			require.Zero(t, r.Median["lost"], "%s of %s", w.Name, r.Subject)
		}
	}
	for i, reference := range []string{recvmmsg, sendmmsg, rawXDP, recvmmsg} {
		require.Equal(t, 1.0, report.Workloads[i].Result(reference).Ratios[reference])
	}
}

// Whole frames, which kxdpgun can't send.
func TestLongDatagrams(t *testing.T) {
	o := quickOptions(receive, transmit, echo)
	o.Payload, o.Subjects = longestPayload, []string{kitHandler, kitBatch, rawXDP, xdpTXOnly, recvmmsg, sendmmsgGSO}
	run(t, o)
}

// A stand-in for gVisor, which is of another module, has its part of the run but for the stack: a program of its own, an owned
// address, and the workloads.
func TestEverySubjectSpeaksTCP(t *testing.T) {
	o := quickOptions(tcpRoundtrip, tcpConnect, tcpConnect64)
	o.GVisor, o.Request = standInProgram(t), 64
	report := runStreams(t, o)
	for _, name := range []string{tcpConnect, tcpConnect64} {
		for _, r := range report.Workload(name).Results {
			require.Zero(t, r.Median["failed"], r.Subject)
		}
	}
	require.Contains(t, strings.Join(report.Notes, "\n"), "requests and answers of 64 B")
}

func TestEverySubjectAnswersOnManyConnections(t *testing.T) {
	o := quickOptions(tcpRequests)
	o.GVisor = standInProgram(t)
	report := runStreams(t, o)
	w := report.Workload(tcpRequests)
	require.Equal(t, requestRateKey(timedRequests), w.Columns[0].Key, "which is compared, as a smoke run leaves out what is else")
	for _, r := range w.Results {
		require.Positive(t, r.Median[requestRateKey(1)], r.Subject)
		require.LessOrEqual(t, r.Median["p50_ns"], r.Median["p99_ns"], r.Subject)
		require.Zero(t, r.Median[unansweredKey], r.Subject)
		require.NotContains(t, r.Median, requestRateKey(comparedRequests), r.Subject)
	}
}

func TestRequestsOnTenThousandConnections(t *testing.T) {
	o := quickOptions(tcpRequests)
	o.Smoke, o.Subjects = false, []string{kitTCP, kernelTCP}
	netlab.NeedRoot(t)
	report, err := Run(context.Background(), o, &bytes.Buffer{})
	require.NoError(t, err)
	require.NoError(t, report.Err())
	w := report.Workload(tcpRequests)
	require.Len(t, w.Results, 2)
	for _, r := range w.Results {
		require.Equal(t, canOpen(comparedRequests+spareFiles), r.Median[requestRateKey(comparedRequests)] > 0, r.Subject)
		require.Contains(t, r.Median, requestRateKey(timedRequests))
	}
}

func TestEverySubjectMovesBytesOnManyConnections(t *testing.T) {
	report := run(t, quickOptions(tcpReceiveStreams, tcpSendStreams))
	requireAll(t, report, bulkStreams)
	for _, w := range report.Workloads {
		require.Equal(t, streamRateKey(100), w.Columns[0].Key, "which is compared, as a smoke run leaves out what is else")
		require.Equal(t, 1.0, w.best([]string{kernelTCP, goNetTCP}).Ratios[bestKernel], w.Name)
		for _, r := range w.Results {
			require.Positive(t, r.Median[streamRateKey(1)], "%s of %s", w.Name, r.Subject)
			require.GreaterOrEqual(t, r.Median[fairnessKey(100)], 0.01, "%s of %s", w.Name, r.Subject)
			require.LessOrEqual(t, r.Median[fairnessKey(100)], 1.0, "%s of %s", w.Name, r.Subject)
			require.Less(t, r.Median[idleKey(100)], 1.0, "%s of %s", w.Name, r.Subject)
			require.Equal(t, w.Name == tcpReceiveStreams, slices.ContainsFunc(w.Columns, func(c Column) bool { return c.Key == againKey(100) }))
		}
	}
}

func TestBytesOnTenThousandConnections(t *testing.T) {
	netlab.NeedRoot(t)
	o := quickOptions(tcpReceiveStreams, tcpSendStreams)
	o.Smoke, o.Subjects = false, []string{kitTCP, kernelTCP}
	report, err := Run(context.Background(), o, &bytes.Buffer{})
	require.NoError(t, err)
	require.NoError(t, report.Err())
	for _, w := range report.Workloads {
		require.Len(t, w.Results, 2, w.Name)
		for _, r := range w.Results {
			require.Equal(t, canOpen(comparedStreams+spareFiles), r.Median[streamRateKey(comparedStreams)] > 0, "%s of %s", w.Name, r.Subject)
		}
	}
}

func TestAllowedFiles(t *testing.T) {
	limits := func() (have unix.Rlimit) {
		require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &have))
		return have
	}
	before := limits()
	few := before
	few.Cur = 1000
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &few, nil))
	defer func() { require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &before, nil)) }()
	restore, err := allowFiles(1001)
	require.NoError(t, err)
	require.EqualValues(t, 1001, limits().Cur)
	out, err := exec.Command("sh", "-c", "ulimit -n").Output()
	require.NoError(t, err)
	require.Equal(t, "1001\n", string(out), "a process that this one starts has it too")
	restore()
	require.Equal(t, few, limits())
	require.True(t, canOpen(1001))
	require.False(t, canOpen(1<<30), "more than the kernel allows anybody (fs.nr_open)")
	require.Equal(t, few, limits())
}

func TestEverySubjectMovesBytes(t *testing.T) {
	o := quickOptions(tcpReceive, tcpSend)
	// On a busy machine the last segment of all may be lost, and nothing moves until the kernel sends it again, 200 ms later.
	o.GVisor, o.Window = standInProgram(t), 500*time.Millisecond
	report := runStreams(t, o)
	for _, w := range report.Workloads {
		for _, r := range w.Results {
			require.Positive(t, r.Median["subject_busy"], "%s of %s", w.Name, r.Subject)
			require.Positive(t, r.Median["client_busy"], "%s of %s", w.Name, r.Subject)
		}
	}
}

// runStreams runs a benchmark of all subjects with TCP.
func runStreams(t *testing.T, o Options) Report {
	report := run(t, o)
	for _, w := range report.Workloads {
		require.Len(t, w.Results, 5, w.Name)
		for _, reference := range references[len(references)-2:] {
			require.Equal(t, 1.0, w.best(reference.of).Ratios[reference.name])
		}
	}
	return report
}

// standInProgram writes a program that starts this one as a stand-in for gvisor-rival.
func standInProgram(t *testing.T) string {
	self, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "gvisor-rival")
	script := fmt.Sprintf("#!/bin/sh\nexec %q %s \"$@\"\n", self, standIn)
	require.NoError(t, os.WriteFile(path, []byte(script), 0o700))
	return path
}

// Without gvisor-rival a run goes on, and says why there is none; a run of gVisor alone does not begin.
func TestMissingGVisorIsSaid(t *testing.T) {
	o := quickOptions(tcpRoundtrip)
	o.NoGVisor = "its build fails: no network\nat all"
	report := run(t, o)
	require.Len(t, report.Workload(tcpRoundtrip).Results, 3)
	var table strings.Builder
	require.NoError(t, report.WriteTable(&table))
	want := `gVisor AF_XDP +gVisor's netstack on its AF_XDP link endpoint; missing: its build fails: no network at all\n`
	require.Regexp(t, want, table.String())

	o.GVisor = "/nowhere/gvisor-rival"
	o.Smoke, o.Subjects = false, []string{gvisorXDP}
	_, err := Run(context.Background(), o, &bytes.Buffer{})
	require.ErrorContains(t, err, "gVisor AF_XDP can't be measured: ")
	require.ErrorContains(t, err, "/nowhere/gvisor-rival: no such file or directory")
}

func TestEchoOverloadAndSpinningClient(t *testing.T) {
	o := quickOptions(echo, "roundtrip-spin", overload)
	o.Subjects = []string{kitHandler}
	report := run(t, o)
	kept := report.Workload(overload).Result(kitHandler).Median
	require.LessOrEqual(t, kept[keptKey(2)], 1.0)
	require.Contains(t, kept, keptKey(1))
	require.NotContains(t, kept, keptKey(1.5), "a smoke run leaves it out")
}

// Without a C compiler the recvmmsg subject is a Go program, and the report says so.
func TestRecvmmsgWithoutACompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	o := quickOptions(roundtrip)
	o.Subjects = []string{recvmmsg, recvmmsgSpin}
	report := run(t, o)
	require.Contains(t, report.Notes,
		"recvmmsg is a Go program with bare system calls, since no C compiler is installed.")

	r := &runner{opts: o, noC: "no C compiler is installed"}
	r.opts.Subjects = nil
	require.NoError(t, r.choose())
	for _, s := range r.subjects {
		require.False(t, s.kernel && slices.Contains(s.roles, Sockets), "%s has one socket then", s.Name)
		require.Equal(t, s.Name == sendmmsg || s.Name == sendmmsgGSO || s.Name == kernelTCP, s.Missing == r.noC, s.Name)
	}
}

func TestMissingKxdpgunIsSaid(t *testing.T) {
	netlab.NeedRoot(t)
	t.Setenv("PATH", t.TempDir())
	o := quickOptions(echo)
	o.Subjects = []string{goNet}
	report, err := Run(context.Background(), o, &bytes.Buffer{})
	require.NoError(t, err)
	require.EqualError(t, report.Err(), "echo of Go net: bench: kxdpgun is not installed: apt-get install knot-dnsutils")
}

func TestRunEndsWithItsContext(t *testing.T) {
	netlab.NeedRoot(t)
	before := leftovers(t)
	ctx, cancel := context.WithCancel(context.Background())
	o := quickOptions(receive)
	o.Window = time.Hour
	var once bool
	progress := writerFunc(func(b []byte) { once = true })
	time.AfterFunc(200*time.Millisecond, cancel)
	_, err := Run(ctx, o, progress)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, once, "the first measurement did not end")
	require.Equal(t, before, leftovers(t))
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestOptionsAreChecked(t *testing.T) {
	for want, spoil := range map[string]func(*Options){
		"Self is empty":                                  func(o *Options) { o.Self = nil },
		"0 repetitions":                                  func(o *Options) { o.Repetitions = 0 },
		"a window of 1ms":                                func(o *Options) { o.Window = time.Millisecond },
		"a payload of 9000 bytes":                        func(o *Options) { o.Payload = 9000 },
		"a request of 2000 bytes":                        func(o *Options) { o.Request = 2000 },
		`no subject "DPDK": there are kit handler, `:     func(o *Options) { o.Subjects = []string{"DPDK"} },
		`no workload "x": there are receive, transmit, `: func(o *Options) { o.Workloads = []string{"x"} },
	} {
		o := DefaultOptions(false, "self")
		require.NoError(t, o.check())
		spoil(&o)
		_, err := Run(context.Background(), o, &bytes.Buffer{})
		require.ErrorContains(t, err, want)
	}
}

func TestSubjectThatCannotServeSaysWhy(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	address := netip.AddrPortFrom(lab.Right.Addr(), 7)
	taken, err := lab.Right.ListenPacket("udp4", address.String())
	require.NoError(t, err)
	defer taken.Close()
	for _, name := range []string{kitHandler, goNet} {
		cmd, err := child.Command([]string{"/proc/self/exe", ChildArgument}, task{
			Subject: name, Role: Echo, Interface: lab.Right.Interface(), Address: address,
		})
		require.NoError(t, err)
		_, err = startProcess(context.Background(), lab.Right, cmd)
		require.ErrorContains(t, err, "address already in use", name)
	}
}

func TestChildRefusesNonsense(t *testing.T) {
	netlab.NeedRoot(t)
	for want, args := range map[string][]string{
		"takes one argument":    {},
		"read the child's task": {"{"},
		"is no subject":         {`{"subject":"DPDK"}`},
		"CPU 1000":              {`{"subject":"Go net","cpu":1000}`},
	} {
		cmd := exec.Command("/proc/self/exe", append([]string{ChildArgument}, args...)...)
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), want)
	}
}

func TestProcessThatDiesOrLies(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	ctx := context.Background()
	_, err := startProcess(ctx, lab.Right, exec.Command("sh", "-c", "echo the reason >&2; exit 3"))
	require.ErrorContains(t, err, "the subject has ended")
	require.ErrorContains(t, err, "the reason")
	_, err = startProcess(ctx, lab.Right, exec.Command("sh", "-c", "echo hello; cat"))
	require.ErrorContains(t, err, `says "hello" instead of ready`)

	p, err := startProcess(ctx, lab.Right,
		exec.Command("sh", "-c", "echo ready; read x; echo 1 2 3 4 5 0.5 1e-3; read x; echo 1 2 3 4 5 six; read x; echo nonsense; cat"))
	require.NoError(t, err)
	got, err := p.read(ctx)
	require.NoError(t, err)
	require.Equal(t, reading{Received: 1, Sent: 2, At: 3, User: 4, System: 5, More: []float64{0.5, 0.001}}, got)
	_, err = p.read(ctx)
	require.ErrorContains(t, err, `the subject's counters are "1 2 3 4 5 six"`)
	_, err = p.read(ctx)
	require.ErrorContains(t, err, `the subject's counters are "nonsense"`)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = p.read(gone)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, p.stop())
}
