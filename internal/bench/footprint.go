package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
)

// footprint is what kit costs where it does nothing: the memory of a socket, the daemon's, the CPU time that it uses while no
// packet comes, and how long it takes to start and to stop.

// footprint is the workload's name.
const footprint = "footprint"

// The keys of footprint's values that others speak of.
const (
	udpBytesKey  = "udp_bytes"
	idleShareKey = "idle_share"
)

const (
	// footprintSockets is how many sockets share what is measured, and smokeSockets as many in a smoke run.
	footprintSockets = 10_000
	smokeSockets     = 2_000
	// footprintWarm is the share of them that come before memory is first measured: what is there once, such as the card's
	// buffers that the first packets touch, is no socket's.
	footprintWarm = 0.25
)

// footprintKinds are what is counted, by the role of the child that has them.
var footprintKinds = []struct {
	role  Role
	key   string
	title string
}{
	{child.FootprintUDP, udpBytesKey, "UDP socket"},
	{child.FootprintListener, "listener_bytes", "TCP listener"},
	{child.FootprintConnection, "connection_bytes", "idle connection"},
}

func footprintWorkload() workload {
	w := workload{name: footprint, role: Footprint, measure: measureFootprint,
		title: "memory of a socket; kitd's CPU time while nothing comes, its memory, its start and its stop"}
	column := func(key, title string, unit Unit) {
		w.columns = append(w.columns, Column{Key: key, Title: title, Unit: unit, LowerIsBetter: true})
	}
	for _, kind := range footprintKinds {
		column(kind.key, kind.title, Bytes)
	}
	column(idleShareKey, "idle CPU", Share)
	column("resident_bytes", "resident", Bytes)
	column("start_ns", "start", Nanoseconds)
	column("stop_ns", "stop", Nanoseconds)
	return w
}

// footprintNote says what could mislead a reader of footprint's table.
const footprintNote = "footprint: of a socket that has had no data, one of 10,000 or, in a smoke run, of 2,000. kit's memory is its " +
	"process's, with addresses that it owns: with the kernel's, each port costs a kernel's socket more. Go net's is its process's " +
	"and the kernel's for socket, inode and file (/proc/slabinfo). kitd is bound to no core; it is ready when it says so, and " +
	"stopped when its process has ended."

func measureFootprint(ctx context.Context, r *runner, s Subject) (Sample, error) {
	sample := Sample{}
	sockets := footprintSockets
	if r.opts.Smoke {
		sockets = smokeSockets
	}
	for _, kind := range footprintKinds {
		each, err := r.memoryOf(ctx, s, task{Role: kind.role, Sockets: sockets})
		if err != nil {
			return nil, err
		}
		sample[kind.key] = each
	}
	if !s.kernel && len(r.opts.Kitd) > 0 {
		if err := r.measureKitd(ctx, sample); err != nil {
			return nil, err
		}
	}
	return sample, nil
}

// memoryOf returns the bytes that one of the task's sockets costs.
func (r *runner) memoryOf(ctx context.Context, s Subject, t task) (each float64, err error) {
	slabs, err := socketSlabs()
	if err != nil && s.kernel {
		return 0, err
	}
	p, err := r.startTask(ctx, s, t)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	ends := 1.0
	if t.Role == child.FootprintConnection {
		ends = 2 // the client's are the kernel's too
		cmd, err := child.Command(r.opts.Self, r.clientTask(s, t))
		if err != nil {
			return 0, err
		}
		client, err := startProcess(ctx, r.lab.Left, cmd)
		if err != nil {
			return 0, fmt.Errorf("bench: the client: %w", err)
		}
		defer func() { err = errors.Join(err, client.stop()) }()
	}
	for {
		did, err := p.read(ctx)
		if err != nil {
			return 0, err
		}
		if did.Received == uint64(t.Sockets) {
			each = float64(did.Sent)
			break
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
	if s.kernel {
		after, err := socketSlabs()
		if err != nil {
			return 0, err
		}
		each += float64(after-slabs) / float64(t.Sockets) / ends
	}
	return each, nil
}

// socketSlabs returns the bytes of the kernel's objects of all sockets on the machine, without buffers and dentries.
func socketSlabs() (total int64, err error) {
	text, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return 0, fmt.Errorf("bench: read the kernel's memory of sockets: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var name string
		var active, objects, size int64
		if _, err := fmt.Sscanf(line, "%s %d %d %d", &name, &active, &objects, &size); err != nil {
			continue // a heading
		}
		switch name {
		case "UDP", "TCP", "sock_inode_cache", "filp":
			total += active * size
		}
	}
	if total == 0 {
		return 0, errors.New("bench: /proc/slabinfo names no sockets")
	}
	return total, nil
}

// resident returns the bytes of memory that a process has, 0 for this one.
func resident(pid int) (n int64, err error) {
	name := "self"
	if pid != 0 {
		name = fmt.Sprint(pid)
	}
	// Exact, other than /proc/PID/statm.
	text, err := os.ReadFile("/proc/" + name + "/smaps_rollup")
	if err != nil {
		return 0, fmt.Errorf("bench: read the memory of a process: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err == nil {
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("bench: /proc/%s/smaps_rollup has no Rss", name)
}

// hoard opens one socket after another, keeps them, and says in the counters how many there are and, with the last, the bytes of
// this process's memory that each costs.
func hoard(t task, c *counters, open func(n int) (any, error)) error {
	kept := make([]any, 0, t.Sockets)
	defer runtime.KeepAlive(&kept) // else the garbage collector closes Go's sockets
	warm := int(footprintWarm * float64(t.Sockets))
	var before int64
	for n := range t.Sockets {
		one, err := open(n)
		if err != nil {
			return err
		}
		kept = append(kept, one)
		if n+1 == warm {
			if before, err = settled(); err != nil {
				return err
			}
		}
	}
	after, err := settled()
	if err != nil {
		return err
	}
	c.Sent.Store(uint64(max(after-before, 0)) / uint64(t.Sockets-warm))
	c.Received.Store(uint64(len(kept)))
	select {}
}

// settled is this process's memory without garbage.
func settled() (int64, error) {
	debug.FreeOSMemory()
	return resident(0)
}

// serveKitFootprint has kit's sockets.
func serveKitFootprint(t task, c *counters, ready func()) error {
	k, err := openCard(t, netip.PrefixFrom(t.Address.Addr(), t.Bits))
	if err != nil {
		return err
	}
	listen := func(at netip.AddrPort) (net.Listener, error) { return k.Net().Listen("tcp4", at.String()) }
	return serveFootprint(t, c, ready, listen, func(at netip.AddrPort) (any, error) { return bindKit(k, at) })
}

// serveGoFootprint has the kernel's.
func serveGoFootprint(t task, c *counters, ready func()) error {
	listen := func(at netip.AddrPort) (net.Listener, error) { return net.Listen("tcp4", at.String()) }
	return serveFootprint(t, c, ready, listen, func(at netip.AddrPort) (any, error) {
		return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	})
}

func serveFootprint(t task, c *counters, ready func(), listen func(netip.AddrPort) (net.Listener, error),
	bind func(netip.AddrPort) (any, error)) error {
	open := func(n int) (any, error) { return bind(socketAt(t.Address.Addr(), n)) }
	switch t.Role {
	case child.FootprintListener:
		open = func(n int) (any, error) { return listen(socketAt(t.Address.Addr(), n)) }
	case child.FootprintConnection:
		ln, err := listen(t.Address)
		if err != nil {
			return err
		}
		open = func(int) (any, error) { return ln.Accept() }
	}
	ready()
	return hoard(t, c, open)
}

// holdConnections is a client that makes so many connections and keeps them.
func holdConnections(t task, _ *counters, ready func()) error {
	for range t.Sockets {
		if _, err := streamSocket(t); err != nil {
			return err
		}
	}
	ready()
	select {}
}

const (
	// kitdPatience is how long kitd may take to start or to stop.
	kitdPatience = 20 * time.Second
	// kitdSettle is how long it runs before it counts as idle.
	kitdSettle = 300 * time.Millisecond
)

// measureKitd starts kitd, looks at it while nothing happens, and stops it.
func (r *runner) measureKitd(ctx context.Context, sample Sample) error {
	args := append(r.opts.Kitd[1:len(r.opts.Kitd):len(r.opts.Kitd)], "run", "--interface", r.lab.Right.Interface(),
		"--serve", fmt.Sprintf("udp-echo=:%d", servicePort), "--control", filepath.Join(r.dir, "kitd.sock"))
	ctx, cancel := context.WithTimeout(ctx, kitdPatience+r.opts.Window)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.opts.Kitd[0], args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("bench: make a pipe: %w", err)
	}
	start := time.Now()
	if err := r.lab.Right.Start(cmd); err != nil {
		return err
	}
	var said bytes.Buffer
	ready := false
	for in := bufio.NewScanner(io.TeeReader(stderr, &said)); !ready && in.Scan(); {
		ready = in.Text() == "kitd: ready"
	}
	sample["start_ns"] = float64(time.Since(start))
	drained := make(chan struct{})
	go func() { // so that it is never held up
		defer close(drained)
		_, _ = io.Copy(&said, stderr)
	}()
	if ready {
		err = r.idle(ctx, cmd.Process.Pid, sample)
	}
	stop := time.Now()
	signalErr := cmd.Process.Signal(unix.SIGTERM)
	<-drained
	waitErr := cmd.Wait()
	sample["stop_ns"] = float64(time.Since(stop))
	if !ready && waitErr == nil {
		err = errors.New("bench: it never said that it is ready")
	}
	if err = errors.Join(err, signalErr, waitErr); err != nil {
		return fmt.Errorf("bench: kitd: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// idle looks at a process while nothing happens.
func (r *runner) idle(ctx context.Context, pid int, sample Sample) error {
	if err := pause(ctx, kitdSettle); err != nil {
		return err
	}
	start := time.Now()
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	if err := pause(ctx, r.opts.Window); err != nil {
		return err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	sample[idleShareKey] = float64(after-before) / float64(time.Since(start))
	memory, err := resident(pid)
	sample["resident_bytes"] = float64(memory)
	return err
}

// cpuTime is the CPU time that all threads of a process have used, exact to the nanosecond: its clock (clock_getcpuclockid(3)),
// whose number linux/posix-timers_types.h makes of the process's, with CPUCLOCK_SCHED.
func cpuTime(pid int) (time.Duration, error) {
	const sched = 2
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &now); err != nil {
		return 0, fmt.Errorf("bench: read the CPU time of a process: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
