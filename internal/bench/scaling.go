package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
)

// scaling is receive on a card with several queues, by an engine on each of two cores. A core does all of its part: it generates,
// takes the softirq of its queue, and runs the queue's engine, so that nothing passes from core to core but what the subject's
// engines or the kernel share. Each core is measured alone, and then both at once.

// scaling is the workload's name.
const scaling = "scaling"

// leastQueues is how many queues the cable has; more where two cores would else feed one queue.
const leastQueues = 4

// Its values.
const (
	scalingKey    = "scaling"
	twoEnginesKey = "received_2_per_s"
	oneEngineKey  = "received_1_per_s"
)

func scalingWorkload() workload {
	return workload{
		name: scaling, role: Scaling, measure: measureScaling,
		title: "what two engines, each with its queue on a core of its own, receive at once, × what one receives alone",
		columns: []Column{
			{Key: scalingKey, Title: "scaling", Unit: Factor},
			{Key: twoEnginesKey, Title: "received by 2", Unit: PerSecond},
			{Key: oneEngineKey, Title: "received by 1", Unit: PerSecond},
			{Key: "cost_2_ns", Title: "CPU a packet of 2", Unit: Nanoseconds, LowerIsBetter: true},
			{Key: "cost_1_ns", Title: "CPU a packet of 1", Unit: Nanoseconds, LowerIsBetter: true},
		},
	}
}

// queuesFor is how many queues a veth pair needs so that the cores feed different ones: what a core sends arrives at the queue of
// its number, modulo how many there are (veth_select_rxq in drivers/net/veth.c).
func queuesFor(cores []int) int {
	for n := leastQueues; ; n++ {
		taken := map[int]bool{}
		for _, cpu := range cores {
			taken[cpu%n] = true
		}
		if len(taken) == len(cores) {
			return n
		}
	}
}

func measureScaling(ctx context.Context, r *runner, s Subject) (sample Sample, err error) {
	cores := []int{r.opts.GeneratorCPU, r.opts.SubjectCPU}
	lab, err := netlab.New(netlab.Options{Neighbors: true, Queues: queuesFor(cores)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	at := netip.AddrPortFrom(lab.Right.Addr(), servicePort)
	cmd, err := r.command(s, task{
		Subject: s.Name, Role: Scaling, Interface: lab.Right.Interface(), Address: at, Cores: cores, Payload: r.opts.Payload,
	})
	if err != nil {
		return nil, err
	}
	p, err := startProcess(ctx, lab.Right, cmd)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	var generators []*live
	defer func() {
		for _, g := range generators {
			err = errors.Join(err, g.Close())
		}
	}()
	for i, cpu := range cores {
		g, err := newLive(liveTarget{
			From: lab.Left, To: at, ToMAC: lab.Right.HardwareAddr(), Payload: r.opts.Payload,
			Flows: liveFlows, BasePort: scalingPort(i), CPU: cpu,
		})
		if err != nil {
			return nil, err
		}
		generators = append(generators, g)
		held, err := hold(g.program, []*netlab.Namespace{lab.Left, lab.Right}[i])
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, held.Close()) }()
	}
	turns := scalingTurns
	if r.opts.Smoke {
		turns = 1
	}
	// What the subject did with one engine, a turn of each, and with all.
	var one, all reading
	during := func(did *reading, gs ...*live) error {
		return whileAllSend(ctx, gs, func() error {
			in, _, err := watch(ctx, p, r.opts.Window/time.Duration(turns))
			if err == nil && in.Received == 0 {
				err = errors.New("bench: the subject received nothing")
			}
			did.add(in)
			return err
		})
	}
	for range turns {
		for _, g := range generators {
			if err := during(&one, g); err != nil {
				return nil, err
			}
		}
		if err := during(&all, generators...); err != nil {
			return nil, err
		}
	}
	return Sample{
		scalingKey:    all.rate() / one.rate(),
		twoEnginesKey: all.rate(), "cost_2_ns": all.cost(),
		oneEngineKey: one.rate(), "cost_1_ns": one.cost(),
	}, nil
}

// scalingTurns is how often one core, the other, and both have their turn in a measurement: what else the machine does comes and goes, and
// so is in all of them.
const scalingTurns = 3

func (r *reading) add(o reading) {
	r.Received += o.Received
	r.At += o.At
	r.User += o.User
	r.System += o.System
}

// rate is datagrams a second, and cost the CPU time of each in ns.
func (r *reading) rate() float64 { return float64(r.Received) / r.At.Seconds() }
func (r *reading) cost() float64 { return float64(r.User+r.System) / float64(r.Received) }

// hold attaches a generator's program to a namespace's loopback, where nothing passes. The kernel puts a program that is attached nowhere into
// its dispatcher when a run begins, and takes it out at the end (bpf_prog_change_xdp, net/bpf/test_run.c), and both wait for RCU,
// which takes up to seconds while another generator has its core to itself.
func hold(program *ebpf.Program, at *netlab.Namespace) (held link.Link, err error) {
	const loopback = 1 // the first interface of each namespace
	err = at.Do(func() (err error) {
		held, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: loopback, Flags: link.XDPGenericMode})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bench: attach the generator to the loopback: %w", err)
	}
	return held, nil
}

// whileAllSend is whileSending of several generators, each on a core of its own.
func whileAllSend(ctx context.Context, gs []*live, f func() error) error {
	if len(gs) == 0 {
		return f()
	}
	return whileSending(ctx, gs[0], 0, warmUp, func() error { return whileAllSend(ctx, gs[1:], f) })
}

// scalingPort is the first source port of what arrives on the ith core.
func scalingPort(i int) uint16 { return uint16(liveBasePort + i*liveFlows) }

// lane is what one core's engine counts, on cache lines of its own.
type lane struct {
	_        [128]byte
	received atomic.Uint64
	cpu      int
	pinned   bool
	_        [128]byte
}

// take counts a datagram; one goroutine calls it.
func (l *lane) take() { l.received.Store(l.received.Load() + 1) }

func newLanes(t task, c *counters) []lane {
	lanes := make([]lane, len(t.Cores))
	for i, cpu := range t.Cores {
		lanes[i].cpu = cpu
	}
	c.Update = func() {
		sum := uint64(0)
		for i := range lanes {
			sum += lanes[i].received.Load()
		}
		c.Received.Store(sum)
	}
	return lanes
}

// scalingNote says what could mislead a reader of scaling's table.
const scalingNote = "scaling: each core generates its frames, takes the softirq of its queue, and runs that queue's engine, which goes before " +
	"the generator (SCHED_FIFO) and sleeps between its batches of 64; received by 1 is the mean of the two cores alone. What two " +
	"cores take from each other anyway, such as a cache that they share or a clock that is faster while one rests, is in raw " +
	"AF_XDP's scaling too, and without a receiver in XDP_DROP's: so kit's ratio to raw AF_XDP is what its engines cost each " +
	"other. raw AF_XDP one counter shows what a single cache line costs that both write to."

// pinEngine binds the calling goroutine to a thread and that to a core, on which it goes before the generator as soon as it is
// woken: else the kernel would let the generator overrun the ring before it gives the core away.
func pinEngine(cpu int) error {
	runtime.LockOSThread()
	var want unix.CPUSet
	want.Set(cpu)
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		return fmt.Errorf("bind to CPU %d: %w", cpu, err)
	}
	attr := unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("go before the generator (SCHED_FIFO): %w", err)
	}
	return nil
}

// serveKitScaling counts on as many engines as there are cores. An engine is where its queue's datagrams come, so its handler binds
// it to the core that they were sent on.
func serveKitScaling(t task, c *counters, ready func()) error {
	k, err := kit.Open(kit.Config{Interface: t.Interface, Attach: loader.AttachNative, Wait: stack.Interrupt})
	if err != nil {
		return err
	}
	s, err := bindKit(k, t.Address)
	if err != nil {
		return err
	}
	lanes, failed := newLanes(t, c), make(chan error, 1)
	err = k.Handle(s, func(p *kit.Packet) {
		l := &lanes[(p.SrcPort()-liveBasePort)/liveFlows]
		if !l.pinned {
			l.pinned = true
			if err := pinEngine(l.cpu); err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		}
		l.take()
	})
	if err != nil {
		return err
	}
	ready()
	return <-failed
}

// serveRawScaling reads and counts each core's queue on a thread of its own. The subject with one counter shows what the workload
// would show of engines that write to one cache line.
func serveRawScaling(links []*loader.Link, t task, c *counters, ready func()) error {
	lanes, failed := newLanes(t, c), make(chan error, len(t.Cores))
	var one atomic.Uint64
	var bound sync.WaitGroup
	for i, cpu := range t.Cores {
		queue, l := links[cpu%len(links)], &lanes[i]
		mine := reader{address: t.Address.Addr().As4(), port: t.Address.Port()}
		bound.Add(1)
		go func() {
			err := pinEngine(cpu)
			bound.Done()
			input := func(frame []byte) {
				if !mine.read(frame) {
					return
				}
				if t.Subject == rawCounter {
					one.Add(1)
				}
				l.take()
			}
			for err == nil {
				if queue.Poll(rawBudget, input) == 0 {
					err = queue.Wait(-1)
				}
			}
			failed <- err
		}()
	}
	bound.Wait()
	ready()
	return <-failed
}
