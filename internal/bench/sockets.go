package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit"
)

// The workloads with many sockets, all of which have their turn, so that each packet finds its socket's memory where the packets of
// the others have left it: in no cache, where there are enough of them.

// The workloads' names.
const (
	receiveSockets   = "receive-sockets"
	transmitSockets  = "transmit-sockets"
	echoSockets      = "echo-sockets"
	roundtripSockets = "roundtrip-sockets"
)

const (
	// socketsPerAddr is how many sockets there are on an address, from socketBasePort on.
	socketsPerAddr = 50_000
	socketBasePort = 10_000
	// socketTurn is how many datagrams a socket sends in its turn.
	socketTurn = 4
	// socketAddrs is on how many addresses the most sockets are.
	socketAddrs = 2
)

// socketCounts are the numbers of sockets that are measured, the first of them 1.
var socketCounts = []int{1, 100, comparedSockets, socketAddrs * socketsPerAddr}

// comparedSockets is the number with which subjects are compared, and the largest that all machines allow the kernel's sockets.
const comparedSockets = 10_000

// rightAddresses are those of the subjects' end of the cable.
func rightAddresses() (addrs []netip.Prefix) {
	at := netip.AddrFrom4([4]byte{10, 77, 0, 2})
	for range socketAddrs {
		addrs = append(addrs, netip.PrefixFrom(at, 24))
		at = at.Next()
	}
	return addrs
}

// learnOwned writes the addresses that subjects own into the client's neighbour table for good, as those of the kernel's are: not every
// subject speaks ARP.
func (r *runner) learnOwned() error {
	at := r.owned.Addr()
	for range socketAddrs {
		err := r.lab.Left.Links().NeighSet(&netlink.Neigh{
			LinkIndex: r.lab.Left.Index(), Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
			IP: at.AsSlice(), HardwareAddr: r.lab.Right.HardwareAddr(),
		})
		if err != nil {
			return fmt.Errorf("bench: write neighbour %s of %s: %w", at, r.lab.Left.Interface(), err)
		}
		at = at.Next()
	}
	return nil
}

// socketAt is where the nth of several sockets is, from 0, if the first is on that address.
func socketAt(first netip.Addr, n int) netip.AddrPort {
	for range n / socketsPerAddr {
		first = first.Next()
	}
	return netip.AddrPortFrom(first, uint16(socketBasePort+n%socketsPerAddr))
}

// overSockets is a workload that is measured with each number of sockets.
type overSockets struct {
	workload        // whose columns are those beside what is here
	value    string // the format of the key of what is measured with a number of sockets
	head     string // that of its column
	drawn    string // says what a chart shows
	unit     Unit
	lower    bool // is better
	// one measures with so many sockets, and adds to the sample what there is beside the value.
	one func(ctx context.Context, r *runner, s Subject, sockets int, sample Sample) (value float64, err error)
}

// key is that of the value with so many sockets.
func (o *overSockets) key(sockets int) string { return fmt.Sprintf(o.value, sockets) }

// socketCostKey is that of the value, or of its inverse, in ratio to one socket's: how much dearer a packet is.
func socketCostKey(sockets int) string { return fmt.Sprintf("cost_%d", sockets) }

// socketWorkloads are the workloads with many sockets.
func socketWorkloads() []overSockets {
	return []overSockets{
		{
			workload: workload{
				name: receiveSockets, role: Sockets,
				title: "receive with many bound sockets that have their turns, and what a packet costs, × with one socket",
			},
			value: "received_%d_per_s", head: "received by %d", drawn: "Packets received by so many sockets",
			unit: PerSecond, one: receiveOn,
		},
		{
			workload: workload{
				name: transmitSockets, role: SocketsTransmit,
				title: fmt.Sprintf("transmit from many connected sockets that have their turns, %d datagrams each, and what a "+
					"datagram costs, × with one socket", socketTurn),
			},
			value: "arrived_%d_per_s", head: "arrived from %d", drawn: "Datagrams that arrive from so many sockets",
			unit: PerSecond, one: transmitOn,
		},
		{
			workload: workload{
				name: echoSockets, role: SocketsEcho,
				title: "answers of many bound sockets that are asked in turn, by a generator in the kernel that asks all that it " +
					"can, and what an answer costs, × with one socket",
			},
			value: "answered_%d_per_s", head: "answered by %d", drawn: "Datagrams answered by so many sockets",
			unit: PerSecond, one: echoOn,
		},
		{
			workload: workload{
				name: roundtripSockets, role: SocketsEcho,
				title: "one datagram outstanding, each to the next of many bound sockets, from a kernel client that sleeps while it " +
					"waits, and how long it takes, × with one socket",
				columns: []Column{
					{Key: "p99_ns", Title: fmt.Sprintf("p99 of %d", comparedSockets), Unit: Nanoseconds, LowerIsBetter: true},
					{Key: "lost", Title: "lost", Unit: Count, LowerIsBetter: true},
				},
			},
			value: "p50_%d_ns", head: "p50 of %d", drawn: "Round trip's p50 with so many sockets",
			unit: Nanoseconds, lower: true, one: tripsOn,
		},
	}
}

// complete returns the workload with all its columns: the value with which subjects are compared, costs, other values, and what
// else it has.
func (o overSockets) complete() workload {
	w := o.workload
	value := func(n int) {
		w.columns = append(w.columns, Column{Key: o.key(n), Title: fmt.Sprintf(o.head, n), Unit: o.unit, LowerIsBetter: o.lower})
	}
	w.columns = nil
	value(comparedSockets)
	for _, n := range socketCounts[1:] {
		title := fmt.Sprintf("cost of %d", n)
		w.columns = append(w.columns, Column{Key: socketCostKey(n), Title: title, Unit: Factor, LowerIsBetter: true})
	}
	for _, n := range socketCounts {
		if n != comparedSockets {
			value(n)
		}
	}
	w.columns = append(w.columns, o.columns...)
	w.measure = o.measureAll
	return w
}

// measureAll measures with each number of sockets, in a process of its own; a smoke run leaves out all but one socket and those
// that are compared.
func (o overSockets) measureAll(ctx context.Context, r *runner, s Subject) (Sample, error) {
	sample := Sample{}
	for _, n := range socketCounts {
		if r.opts.Smoke && n != 1 && n != comparedSockets {
			continue
		}
		if s.kernel && !canOpen(n+spareFiles) {
			continue
		}
		value, err := o.one(ctx, r, s, n, sample)
		if err != nil {
			return nil, fmt.Errorf("%d sockets: %w", n, err)
		}
		sample[o.key(n)] = value
		if n == 1 {
			continue
		}
		cost := value / sample[o.key(1)]
		if !o.lower {
			cost = 1 / cost
		}
		sample[socketCostKey(n)] = cost
	}
	return sample, nil
}

// spareFiles is how many files a process has open beside its sockets, at most.
const spareFiles = 100

// allowFiles lets this process, and those that it starts, have so many files open (RLIMIT_NOFILE), until restore is called.
func allowFiles(files int) (restore func(), err error) {
	var have unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &have); err != nil {
		return nil, fmt.Errorf("bench: read how many files may be open: %w", err)
	}
	// Set even where it is enough: what Go has raised at its start is lowered again in processes that it starts.
	want := unix.Rlimit{Cur: max(have.Cur, uint64(files)), Max: max(have.Max, uint64(files))}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &want, nil); err != nil {
		return nil, fmt.Errorf("bench: have %d files open: %w", files, err)
	}
	return func() { _ = unix.Prlimit(0, unix.RLIMIT_NOFILE, &have, nil) }, nil // lowering it needs no right
}

// canOpen says whether a process that this one starts may have so many files open.
func canOpen(files int) bool {
	restore, err := allowFiles(files)
	if err == nil {
		restore()
	}
	return err == nil
}

// socketNotes say what could mislead a reader of the tables of the workloads with many sockets.
func socketNotes() []string {
	notes := []string{
		"Many sockets: kit owns their addresses, since with the kernel's addresses each port costs a file descriptor. All sockets " +
			"have their turns, each next one far from the last. Where the generator is the limit with one socket, the ratio says " +
			"too little.",
		fmt.Sprintf("transmit-sockets: %d datagrams a call on a connected socket, with one socket too; so one socket of the kernel's "+
			"is slower than in transmit. kit's engine sends all that it finds of one socket's datagrams in bundles of up to 64, of "+
			"several calls too, and of many sockets in bundles of %d. Each socket has had one turn before the measurement begins.",
			socketTurn, socketTurn),
		"echo-sockets: live frames ask, as in overload, more than any subject answers; echo has another generator. Its program " +
			"does more for many sockets than for one, and so it is slower: raw AF_XDP, which sends back all that comes to the " +
			"addresses and has no sockets, shows how much of a cost is the generator's. The kernel's subject finds several " +
			"datagrams in a socket that has waited for its turn, and epoll has a part where there are many sockets and none where " +
			"there is one.",
		"roundtrip-sockets: the client has one socket, which is not connected. Each of the subject's, or 10,000 of them, has answered " +
			"before the measurement begins. A time has in it what the subject's core does to wake, which many sockets do not make dearer.",
	}
	return append(notes, filesNotes("Many sockets: the kernel's %d", socketCounts)...)
}

// filesNotes say which of several numbers are not measured, since a process may not have so many files open.
func filesNotes(what string, counts []int) (notes []string) {
	for _, n := range counts {
		if !canOpen(n + spareFiles) {
			notes = append(notes, fmt.Sprintf(what+" are not measured, since this process may not have so many files open (ulimit -n).", n))
		}
	}
	return notes
}

// receiveOn measures receive.
func receiveOn(ctx context.Context, r *runner, s Subject, sockets int, _ Sample) (rate float64, err error) {
	err = r.underLiveTo(ctx, s, task{Role: Sockets, Sockets: sockets}, func(p *process, g *live) error {
		return whileSending(ctx, g, 0, warmUp, func() error {
			did, _, err := r.watch(ctx, p)
			if err == nil && did.Received == 0 {
				err = errors.New("bench: the subject received nothing")
			}
			rate = float64(did.Received) / did.At.Seconds()
			return err
		})
	})
	return rate, err
}

// transmitOn measures transmit.
func transmitOn(ctx context.Context, r *runner, s Subject, sockets int, _ Sample) (rate float64, err error) {
	sample, err := r.transmitted(ctx, s, task{Role: SocketsTransmit, Sockets: sockets})
	return sample["arrived_per_s"], err
}

// echoOn measures echo, with live frames.
func echoOn(ctx context.Context, r *runner, s Subject, sockets int, _ Sample) (rate float64, err error) {
	sample, err := r.echoed(ctx, s, task{Role: SocketsEcho, Sockets: sockets})
	return sample["answered_per_s"], err
}

// tripsOn measures round trips.
func tripsOn(ctx context.Context, r *runner, s Subject, sockets int, sample Sample) (p50 float64, err error) {
	result, err := r.ask(ctx, s, task{Role: SocketsEcho, Sockets: sockets, Payload: r.opts.Payload})
	if err != nil {
		return 0, err
	}
	if sockets == comparedSockets {
		sample["p99_ns"] = float64(result.P99)
	}
	sample["lost"] += float64(result.Lost)
	return float64(result.P50), nil
}

// nthAddress is where the nth of the task's sockets is, from 0, as its address where there is one.
func nthAddress(t task, n int) netip.AddrPort {
	if t.Sockets > 1 {
		return socketAt(t.Address.Addr(), n)
	}
	return t.Address
}

// ownedBy are the addresses of the task's sockets.
func ownedBy(t task) (owned []netip.Prefix) {
	for n := 0; n < t.Sockets; n += socketsPerAddr {
		owned = append(owned, netip.PrefixFrom(nthAddress(t, n).Addr(), t.Bits))
	}
	return owned
}

// openKitSockets opens the task's card, with addresses of its own, and the task's sockets.
func openKitSockets(t task) (*kit.Kit, []kit.Token, error) {
	k, err := openCard(t, ownedBy(t)...)
	if err != nil {
		return nil, nil, err
	}
	sockets := make([]kit.Token, t.Sockets)
	for n := range sockets {
		if sockets[n], err = bindKit(k, nthAddress(t, n)); err != nil {
			return nil, nil, err
		}
	}
	return k, sockets, nil
}

// serveKitSockets counts or answers on many sockets by one handler.
func serveKitSockets(t task, c *counters, ready func()) error {
	k, sockets, err := openKitSockets(t)
	if err != nil {
		return err
	}
	handler := countOrEcho(t.Role == SocketsEcho, c)
	for _, s := range sockets {
		if err := k.Handle(s, handler); err != nil {
			return err
		}
	}
	ready()
	select {}
}

// transmitKitSockets sends from one socket after the other.
func transmitKitSockets(t task, c *counters, ready func()) error {
	k, sockets, err := openKitSockets(t)
	if err != nil {
		return err
	}
	messages := transmitMessages(t)
	for _, s := range sockets {
		if err := k.Connect(s, t.Peer); err != nil {
			return fmt.Errorf("connect to %s: %w", t.Peer, err)
		}
		// What a socket's first turn costs more is over before anything is measured.
		if _, err := k.WriteBatch(s, messages, 0); err != nil {
			return err
		}
	}
	ready()
	for n := 0; ; n = (n + socketStride) % len(sockets) {
		sent, err := k.WriteBatch(sockets[n], messages, 0)
		c.Sent.Add(uint64(sent))
		if err != nil {
			return err
		}
	}
}
