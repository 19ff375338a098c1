package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/cmd/kitd/internal/daemon"
	"kitnet.dev/kit/cmd/kitd/internal/demo"
	"kitnet.dev/kit/cmd/kitd/internal/sockfilter"
	"kitnet.dev/kit/internal/bench"
	"kitnet.dev/kit/loader"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("os/signal.loop"))
}

var update = flag.Bool("update", false, "write what the commands print to testdata")

// kitd is a running kitd with fixed answers.
type kitd struct{ degraded []string }

func (k kitd) Status() control.Status {
	return control.Status{
		Version: 1, Kitd: "v0.1.0", PID: 4711, Interface: "eth0", HardwareAddr: "02:00:00:00:00:01", MTU: 1500, Mode: "owned",
		Addresses: []string{"10.0.0.5/24", "10.0.0.6/24"}, Gateway: "10.0.0.1",
		Attach: control.Choice{Asked: "auto", InUse: "native"}, Copy: control.Choice{Asked: "copy", InUse: "copy"},
		TxChecksum: control.Choice{Asked: "auto", InUse: "off"},
		Wait:       "adaptive", Queues: []int{0, 1},
		Services: []control.Service{
			{Name: "udp-echo", Asked: "udp-echo=:7", Addresses: []string{"10.0.0.5:7", "10.0.0.6:7"}},
			{Name: "udp-discard", Asked: "udp-discard=10.0.0.9:9", Addresses: []string{}},
		},
		Started: time.Unix(1700000000, 0).UTC(), UptimeSeconds: 3723.5,
		Rates:        control.Rates{RxPackets: 100000, RxBytes: 6400000, TxPackets: 99999, TxBytes: 6399936, Drops: 1},
		Capabilities: []string{"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"}, NoNewPrivs: true, Degraded: k.degraded,
		Notes: []string{"policy routing is in use; see 'ip rule'"},
	}
}

func (kitd) Stats() control.Stats {
	zero, one := 0, 1
	return control.Stats{Version: 1, Counters: []control.Counter{
		{Group: "xdp", Name: "xsk_udp", Value: 1000000, Help: "Frames: UDP to a bound port."},
		{Group: "engine", Name: "rx_frames", Interface: "eth0", Queue: &zero, Value: 600000, Help: "Frames that came from the card."},
		{Group: "engine", Name: "rx_frames", Interface: "eth0", Queue: &one, Value: 400000, Help: "Frames that came from the card."},
		{Group: "engine", Name: "held", Interface: "eth0", Queue: &one, Value: 3, Gauge: true, Help: "Fragments that wait."},
		{Group: "drop", Name: "udp-checksum", Value: 0, Help: "The UDP checksum is wrong."},
	}}
}

func (kitd) Sockets(filter string) (control.Sockets, error) {
	if _, err := sockfilter.Compile(filter); err != nil {
		return control.Sockets{}, err
	}
	list := control.Sockets{Version: 1, Sockets: []control.Socket{
		{ID: 1, Proto: "udp", State: "unconnected", Local: "10.0.0.5:7", Interface: "eth0", Handler: true, Received: 12345, Sent: 12340,
			Accelerated: true},
		{ID: 2, Proto: "icmp", State: "established", Local: "10.0.0.5:99", Remote: "10.0.0.1:0", Interface: "eth0", ReadQueue: 64, Dropped: 2,
			Accelerated: true},
		{ID: 3, Proto: "tcp", State: "established", Local: "127.0.0.1:4711", Remote: "127.0.0.1:25", Received: 4, Sent: 5,
			Reason: "destination 127.0.0.1 is the kernel's"},
	}}
	if filter != "" {
		list.Sockets = list.Sockets[:1]
	}
	return list, nil
}

func (kitd) Neighbors() control.Neighbors {
	return control.Neighbors{Version: 1, Neighbors: []control.Neighbor{
		{Interface: "eth0", Addr: "10.0.0.1", HardwareAddr: "02:00:00:00:00:fe", State: "reachable", AgeSeconds: 12.3},
		{Interface: "eth0", Addr: "10.0.0.99", State: "failed", Queued: 2},
	}}
}

func (kitd) Routes() control.Routes {
	return control.Routes{Version: 1, Routes: []control.Route{
		{Interface: "eth0", Dst: "10.0.0.0/24", Source: "10.0.0.5", Kind: "unicast"},
		{Interface: "eth0", Dst: "0.0.0.0/0", Gateway: "10.0.0.1", Metric: 100, MTU: 1400, Kind: "unicast"},
	}, Notes: []string{"policy routing is in use; see 'ip rule'"}}
}

// Connect reaches a peer that answers what it gets, behind its address.
func (kitd) Connect(_ context.Context, address string, fallback bool) (control.Stream, error) {
	if fallback {
		return nil, fmt.Errorf("kitd can't connect to %q by the kernel: connection refused", address)
	}
	if address != "10.0.0.9:7" {
		return nil, fmt.Errorf("kitd can't connect to %q: connection refused", address)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "peer")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		ends[i] = c.(*net.UnixConn)
	}
	go func() {
		defer ends[1].Close()
		b, _ := io.ReadAll(ends[1])
		_, _ = fmt.Fprintf(ends[1], "%s: %s", address, b)
	}()
	return ends[0], nil
}

func (kitd) Queues() control.Queues {
	return control.Queues{Version: 1, Queues: []control.Queue{
		{Interface: "eth0", Queue: 0, Running: true, Sleeping: true, Steps: 9, Sockets: 2, RxFrames: 600000, TxFrames: 5, Drops: 1},
		{Interface: "eth0", Queue: 1, Running: true, Sockets: 2, RxFrames: 400000},
	}}
}

func (kitd) Capture(r control.CaptureRequest) (control.CaptureRun, error) {
	return func(_ context.Context, w io.Writer, started func()) control.CaptureResult {
		started()
		fmt.Fprintf(w, "%s %q count %d drops %v\n", r.Format, r.Filter, r.Count, r.Drops)
		return control.CaptureResult{Captured: 1, Lost: 2}
	}, nil
}

// result is what a command line did.
type result struct {
	stdout, stderr string
	status         int
}

// try runs a command line in an Env of its own, which change may alter.
func try(t *testing.T, change func(*Env), args ...string) result {
	t.Helper()
	var out, err bytes.Buffer
	e := &Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err, Self: []string{"kitd"},
		Run: func(context.Context, daemon.Options) error { return errors.New("nothing is to run") },
		Check: func(context.Context, *config.Config) ([]loader.Finding, error) {
			return nil, errors.New("nothing to check")
		},
	}
	if change != nil {
		change(e)
	}
	status := e.Main(t.Context(), args)
	return result{out.String(), err.String(), status}
}

// serve starts a kitd and returns its control socket.
func serve(t *testing.T, k kitd) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := control.Listen(path)
	require.NoError(t, err)
	server, done := control.NewServer(k), make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.NoError(t, <-done)
	})
	return path
}

// golden compares with a file of testdata, which -update writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "%s; if it is meant so: go test -update", name)
}

func TestNouns(t *testing.T) {
	path := serve(t, kitd{degraded: []string{}})
	for _, noun := range []string{"status", "stats", "sockets", "neighbors", "routes", "queues"} {
		for _, form := range formats {
			r := try(t, nil, noun, "-o", form, "--control", path)
			require.Equal(t, exitOK, r.status, r.stderr)
			golden(t, noun+"-"+form, r.stdout)
			if form != "jsonl" && form != "json" {
				continue
			}
			decoder := json.NewDecoder(strings.NewReader(r.stdout))
			for decoder.More() {
				var document struct {
					Version int `json:"version"`
				}
				require.NoError(t, decoder.Decode(&document))
				require.Equal(t, 1, document.Version, "%s %s", noun, form)
			}
			if form == "jsonl" {
				for line := range strings.Lines(r.stdout) {
					require.True(t, json.Valid([]byte(line)), "each line stands alone: %s", line)
				}
			}
		}
	}
}

func TestDegradedStatus(t *testing.T) {
	path := serve(t, kitd{degraded: []string{"eth0 is down: 'ip link set eth0 up'", "the last reload failed: x"}})
	r := try(t, nil, "status", "--control", path)
	require.Equal(t, exitDegraded, r.status)
	golden(t, "status-degraded", r.stdout)
	require.Empty(t, r.stderr)
	require.Equal(t, exitDegraded, try(t, nil, "status", "-o", "json", "--control", path).status)
}

func TestNobodyRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	for _, noun := range []string{"status", "stats", "sockets", "neighbors", "routes", "queues", "capture"} {
		r := try(t, nil, noun, "--control", path)
		require.Equal(t, exitFailed, r.status)
		require.Empty(t, r.stdout)
		require.Equal(t, "kitd: no kitd answers on "+path+": start it with kitd run -i IFACE, or give --control\n", r.stderr)
	}
}

func TestStatsFlags(t *testing.T) {
	path := serve(t, kitd{})
	golden(t, "stats-all", try(t, nil, "stats", "--all", "--control", path).stdout)
	r := try(t, nil, "stats", "--control", path)
	require.Equal(t, "counters that are zero and left out: 1; --all shows them\n", r.stderr)

	r = try(t, nil, "stats", "--watch", "-o", "json", "--control", path)
	require.Equal(t, exitUsage, r.status)
	require.Equal(t, "kitd: --watch prints one document after the other: use -o jsonl, whose lines stand alone\n", r.stderr)
	r = try(t, nil, "stats", "--watch=1ms", "--control", path)
	require.Equal(t, exitUsage, r.status)
}

// stopper ends a context when it has seen some writes.
type stopper struct {
	text bytes.Buffer
	left int
	stop context.CancelFunc
}

func (s *stopper) Write(b []byte) (int, error) {
	if s.left--; s.left <= 0 {
		s.stop()
	}
	return s.text.Write(b)
}

func TestStatsWatch(t *testing.T) {
	path := serve(t, kitd{})
	ctx, cancel := context.WithCancel(t.Context())
	out := &stopper{left: 2, stop: cancel}
	e := &Env{Stdout: out, Stderr: io.Discard}
	require.Equal(t, exitOK, e.Main(ctx, []string{"stats", "--watch=100ms", "--control", path}))
	tables := strings.Split(out.text.String(), "GROUP")
	require.Len(t, tables, 3)
	require.Contains(t, tables[1], "600000")
	require.Regexp(t, `rx_frames +600000 +0 `, tables[2], "the rate, from the second time on")
}

func TestSocketsFilter(t *testing.T) {
	path := serve(t, kitd{})
	r := try(t, nil, "sockets", "--control", path, "sport", "=", ":7", "and", "udp")
	require.Equal(t, exitOK, r.status, r.stderr)
	require.Len(t, strings.Split(strings.TrimSpace(r.stdout), "\n"), 2)
	r = try(t, nil, "sockets", "--control", path, "port 7")
	require.Equal(t, exitUsage, r.status)
	require.Contains(t, r.stderr, `kitd: socket filter "port 7": "port" stands where a test is due`)
}

func TestCapture(t *testing.T) {
	path := serve(t, kitd{})
	r := try(t, nil, "capture", "--control", path, "--drops", "-c", "5", "udp", "port", "7")
	require.Equal(t, result{
		stdout: "text \"udp port 7\" count 5 drops true\n",
		stderr: "capturing, Ctrl-C ends it\npackets captured: 1; lost, because they came faster than they were written: 2\n",
	}, r)

	r = try(t, nil, "capture", "--control", path, "-w", "-")
	require.Equal(t, "pcapng \"\" count 0 drops false\n", r.stdout)

	file := filepath.Join(t.TempDir(), "x.pcapng")
	r = try(t, nil, "capture", "--control", path, "-w", file)
	require.Empty(t, r.stdout)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "pcapng \"\" count 0 drops false\n", string(text))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	r = try(t, nil, "capture", "--control", path, "-w", "/nonexistent/x")
	require.Equal(t, result{stderr: "kitd: the capture can't be written: open /nonexistent/x: no such file or directory\n", status: exitFailed}, r)
	r = try(t, func(e *Env) { e.Terminal = true }, "capture", "-w", "-")
	require.Equal(t, exitUsage, r.status)
	r = try(t, nil, "capture", "-c", "0")
	require.Equal(t, exitUsage, r.status)
	r = try(t, nil, "capture", "mpls")
	require.Equal(t, result{stderr: "kitd: filter \"mpls\": \"mpls\" at byte 1 is not supported by kit's filters\n", status: exitUsage}, r)
}

// closedPipe is stdout of 'kitd capture -w - | head'.
type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
}

func TestCaptureIntoAPipeThatEnds(t *testing.T) {
	path := serve(t, kitd{})
	r := try(t, func(e *Env) { e.Stdout = closedPipe{} }, "capture", "--control", path)
	require.Equal(t, exitOK, r.status, r.stderr)
}

func TestConnect(t *testing.T) {
	path := serve(t, kitd{})
	r := try(t, func(e *Env) { e.Stdin = strings.NewReader("hello") }, "connect", "--control", path, "10.0.0.9", "7")
	require.Equal(t, result{stdout: "10.0.0.9:7: hello"}, r)
	r = try(t, nil, "connect", "--control", path, "10.0.0.9", "8")
	require.Equal(t, result{stderr: "kitd: kitd can't connect to \"10.0.0.9:8\": connection refused\n", status: exitFailed}, r)
	r = try(t, nil, "connect", "--control", path, "--fallback", "10.0.0.9", "7")
	require.Equal(t, result{stderr: "kitd: kitd can't connect to \"10.0.0.9:7\" by the kernel: connection refused\n", status: exitFailed}, r)
	for args, complaint := range map[string]string{
		"10.0.0.9":                       "connect takes HOST and PORT",
		"--gateway 10.0.0.1 10.0.0.9 7":  "--address and --gateway go with -i",
		"-i eth0 --address 10.0.0.5 h 7": `--address "10.0.0.5" is not an address with a prefix length`,
		"-i eth0 --gateway x 10.0.0.9 7": `--gateway "x" is not an address`,
	} {
		r := try(t, nil, append([]string{"connect"}, strings.Fields(args)...)...)
		require.Equal(t, exitUsage, r.status, args)
		require.Contains(t, r.stderr, complaint)
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"frobnicate":                        `there is no command "frobnicate"; 'kitd help' lists them`,
		"stauts":                            `there is no command "stauts"; did you mean status or stats?`,
		"telnet 10.0.0.1 7":                 `there is no command "telnet"; 'kitd help' lists them`,
		"status extra":                      `kitd status takes no argument, and "extra" is one`,
		"status -o xml":                     `--output "xml" is none of table, json, jsonl`,
		"status --frob":                     `unknown flag: --frob; 'kitd status --help' lists the flags`,
		"run":                               `no network card is named: use -i IFACE, or interface in the file given by --config`,
		"run eth0":                          `kitd run takes no argument, and "eth0" is one`,
		"run -i eth0 --wait fast":           `--wait "fast" is none of adaptive, busy, interrupt`,
		"run -i eth0 --serve gopher=:70":    `--serve "gopher=:70" is no service of kitd; did you mean iperf3? There are `,
		"run -i eth0 --gateway 10.0.0.1":    `gateway 10.0.0.1 needs an --address`,
		"run -i eth0 --config /nonexistent": `configuration file /nonexistent can't be read: no such file or directory`,
		"check --serve udp-echo":            `--serve "udp-echo" is not NAME=ADDR, such as udp-echo=:7`,
		"check --mtu 5":                     `mtu 5 is not from 68 to 65535 bytes`,
		"check --config /nonexistent":       `configuration file /nonexistent can't be read: no such file or directory`,
		"capture -c many":                   `--count "many"`,
	} {
		r := try(t, nil, strings.Fields(args)...)
		require.Equal(t, exitUsage, r.status, "%s: %s", args, r.stderr)
		require.Empty(t, r.stdout, args)
		require.Contains(t, r.stderr, "kitd: "+want, args)
	}
}

func TestAllProblemsOfAConfigurationAreSaid(t *testing.T) {
	r := try(t, nil, "run", "-i", "eth0", "--mtu", "5", "--ring-size", "5", "--gateway", "10.0.0.1")
	require.Equal(t, exitUsage, r.status)
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	require.Len(t, lines, 3)
	for _, line := range lines {
		require.True(t, strings.HasPrefix(line, "kitd: "), line)
	}
}

func TestRunHandsOverWhatItWasTold(t *testing.T) {
	var got daemon.Options
	r := try(t, func(e *Env) {
		e.Run = func(_ context.Context, o daemon.Options) error {
			got = o
			o.Log.Debug("hello")
			o.Ready()
			return nil
		}
	}, "run", "-i", "eth0", "--serve", "udp-echo=:7", "--log", "json", "--log-level", "debug", "--wait", "busy")
	require.Equal(t, exitOK, r.status, r.stderr)
	require.Empty(t, r.stdout)
	require.Regexp(t, `^\{"time":.*"level":"DEBUG","msg":"hello"\}\nkitd: ready\n$`, r.stderr)
	require.Equal(t, "eth0", got.Config.Interface)
	require.Equal(t, "busy", got.Config.Wait)
	again, err := got.Reload()
	require.NoError(t, err)
	require.Equal(t, got.Config, again)
	require.NotNil(t, got.Open)
	require.NotNil(t, got.Drop)
	got.Notify("READY=1") // without a service manager nothing comes of it
}

func TestRunThatFails(t *testing.T) {
	r := try(t, nil, "run", "-i", "eth0")
	require.Equal(t, result{stderr: "kitd: nothing is to run\n", status: exitFailed}, r)
}

func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		r := try(t, func(e *Env) {
			e.Run = func(ctx context.Context, o daemon.Options) error {
				require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
				<-o.Hangup
				require.NoError(t, syscall.Kill(os.Getpid(), signal))
				<-ctx.Done()
				return nil
			}
		}, "run", "-i", "eth0")
		require.Equal(t, exitOK, r.status)
	}
}

func TestCheck(t *testing.T) {
	findings := []loader.Finding{
		{Topic: "kernel", What: "Linux 6.18"},
		{Topic: "driver", Severity: loader.Warn, What: "veth copies", Fix: "use a card with zero-copy"},
		{Topic: "port 7", Severity: loader.Fail, What: "another program has it", Fix: "ss -lunp 'sport = :7' shows who has it"},
	}
	for name, c := range map[string]struct {
		list   []loader.Finding
		status int
	}{"ok": {findings[:1], exitOK}, "warn": {findings[:2], exitDegraded}, "fail": {findings, exitFailed}} {
		for _, form := range formats {
			var got *config.Config
			r := try(t, func(e *Env) {
				e.Check = func(_ context.Context, c2 *config.Config) ([]loader.Finding, error) { got = c2; return c.list, nil }
			}, "check", "-i", "eth0", "--serve", "udp-echo=:7", "-o", form)
			require.Equal(t, c.status, r.status)
			require.Empty(t, r.stderr)
			golden(t, "check-"+name+"-"+form, r.stdout)
			require.Equal(t, "eth0", got.Interface)
			require.Len(t, got.Services, 1)
		}
	}
	r := try(t, nil, "check")
	require.Equal(t, result{stderr: "kitd: nothing to check\n", status: exitFailed}, r)
}

// What is judged is what kitd run would run with, from the same places.
func TestCheckTakesAConfigurationFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kitd.toml")
	require.NoError(t, os.WriteFile(file, []byte("interface = \"eth7\"\nframe-size = 4096\nframes = 8192\nring-size = 1024\nmtu = 1400\n"+
		"queues = [1]\nattach = \"generic\"\ncopy = \"copy\"\nwait = \"busy\"\n"), 0o600))
	var judged, ran *config.Config
	change := func(e *Env) {
		e.Check = func(_ context.Context, c *config.Config) ([]loader.Finding, error) {
			judged = c
			return []loader.Finding{{Topic: "kernel"}}, nil
		}
		e.Run = func(_ context.Context, o daemon.Options) error { ran = o.Config; return nil }
	}
	for _, command := range []string{"check", "run"} {
		require.Equal(t, exitOK, try(t, change, command, "--config", file, "--frames", "4096").status)
	}
	require.Equal(t, ran, judged)
	require.Equal(t, "eth7", judged.Interface)
	require.Equal(t, 4096, judged.FrameSize)
	require.Equal(t, 4096, judged.Frames, "a flag wins")
}

func TestDemo(t *testing.T) {
	r := try(t, func(e *Env) {
		e.Terminal = true
		e.Demo = func(_ context.Context, o demo.Options) error {
			_, err := fmt.Fprintln(o.Out, o.Self, o.Terminal)
			return err
		}
	}, "demo")
	require.Equal(t, result{stdout: "[kitd] true\n"}, r)
}

func TestBench(t *testing.T) {
	var got bench.Options
	bad := false
	run := func(args ...string) result {
		return try(t, func(e *Env) {
			e.Bench = func(_ context.Context, o bench.Options, progress io.Writer) (report bench.Report, err error) {
				got = o
				fmt.Fprintln(progress, "measuring")
				report.Version = bench.Version
				w := bench.Workload{Name: "echo", Columns: []bench.Column{{Key: "rate"}}, Results: []bench.Result{{Subject: "kit"}}}
				if bad {
					w.Results[0].Error = "it fell over"
				}
				report.Workloads = append(report.Workloads, w)
				return report, nil
			}
		}, append([]string{"bench"}, args...)...)
	}
	r := run("-o", "json")
	require.Equal(t, exitOK, r.status, r.stderr)
	require.Equal(t, "measuring\n", r.stderr)
	require.True(t, json.Valid([]byte(r.stdout)))
	want := bench.DefaultOptions(false, "kitd", bench.ChildArgument)
	want.Kitd = []string{"kitd"}
	require.Equal(t, want, got)

	run("--smoke", "--subjects", "kit handler,Go net", "--repetitions", "2")
	want = bench.DefaultOptions(true, "kitd", bench.ChildArgument)
	want.Kitd = []string{"kitd"}
	want.Subjects, want.Repetitions = []string{"kit handler", "Go net"}, 2
	require.Equal(t, want, got)

	run("--gvisor", "bin/gvisor-rival", "--request", "64", "--payload", "1472", "--core-to-core", "120ns")
	require.Equal(t, 120*time.Nanosecond, got.CoreToCore)
	require.Equal(t, "bin/gvisor-rival", got.GVisor)
	require.Equal(t, 64, got.Request)
	require.Equal(t, 1472, got.Payload)
	run("--no-gvisor", "its build fails")
	require.Equal(t, "its build fails", got.NoGVisor)

	bad = true
	r = run("-o", "jsonl")
	require.Equal(t, exitFailed, r.status)
	require.Contains(t, r.stderr, "kitd: not all could be measured: ")
	require.Contains(t, r.stderr, "it fell over")
	require.Contains(t, r.stdout, `"version":1`)
}

func TestVersion(t *testing.T) {
	r := try(t, nil, "version")
	require.Regexp(t, `^kitd \S+ .*, go1\.\d+.*\n$`, r.stdout)
	r = try(t, nil, "version", "-o", "json")
	var b build
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &b))
	require.Equal(t, 1, b.Version)
	require.NotEmpty(t, b.Go)
}

func TestHelpAndCompletion(t *testing.T) {
	help := try(t, nil, "help").stdout
	require.Equal(t, help, try(t, nil).stdout)
	for _, command := range []string{"run", "check", "status", "stats", "sockets", "neighbors", "routes", "queues", "capture",
		"connect", "demo", "bench", "version", "completion", "help"} {
		require.Regexp(t, `(?m)^  `+command+` `, help)
		require.NotEmpty(t, try(t, nil, "help", command).stdout)
	}
	require.Contains(t, try(t, nil, "completion", "bash").stdout, "bash completion")
	for args, want := range map[string]string{
		"run --serve udp":  "udp-echo=:\nudp-discard=:\nudp-chargen=:",
		"run --attach ":    "auto\nnative\ngeneric",
		"stats -o j":       "json\njsonl",
		"run --interface ": "lo",
	} {
		fields := strings.Split(args, " ")
		r := try(t, nil, append([]string{"__complete"}, fields...)...)
		require.Contains(t, r.stdout, want, args)
	}
}
