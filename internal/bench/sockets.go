package bench

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit"
)

// receive-sockets is receive with many sockets, all of which have their turn, so that each packet finds its socket's memory where
// the packets of the others have left it: in no cache, where there are enough of them.

// receiveSockets is the workload's name.
const receiveSockets = "receive-sockets"

const (
	// socketsPerAddr is how many sockets there are on an address, from socketBasePort on.
	socketsPerAddr = 50_000
	socketBasePort = 10_000
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

// socketAt is where the nth of several sockets is, from 0, if the first is on that address.
func socketAt(first netip.Addr, n int) netip.AddrPort {
	for range n / socketsPerAddr {
		first = first.Next()
	}
	return netip.AddrPortFrom(first, uint16(socketBasePort+n%socketsPerAddr))
}

func socketRateKey(sockets int) string { return fmt.Sprintf("received_%d_per_s", sockets) }
func socketCostKey(sockets int) string { return fmt.Sprintf("cost_%d", sockets) }

func socketsWorkload() workload {
	w := workload{
		name: receiveSockets, role: Sockets, measure: measureSockets,
		title: "receive with many bound sockets that have their turns, and what a packet costs, × with one socket",
	}
	rate := func(n int) {
		w.columns = append(w.columns, Column{Key: socketRateKey(n), Title: fmt.Sprintf("received by %d", n), Unit: PerSecond})
	}
	rate(comparedSockets)
	for _, n := range socketCounts[1:] {
		title := fmt.Sprintf("cost of %d", n)
		w.columns = append(w.columns, Column{Key: socketCostKey(n), Title: title, Unit: Factor, LowerIsBetter: true})
	}
	for _, n := range socketCounts {
		if n != comparedSockets {
			rate(n)
		}
	}
	return w
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

// socketsNotes say what could mislead a reader of receive-sockets' table.
func socketsNotes() []string {
	notes := []string{"receive-sockets: kit owns the addresses, since with the kernel's addresses each port costs a file descriptor. " +
		"All sockets have their turns, each next one far from the last. Where the generator is the limit with one socket, the ratio " +
		"says too little."}
	return append(notes, filesNotes("receive-sockets: the kernel's %d sockets", socketCounts)...)
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

// measureSockets measures receive with each number of sockets, in a process of its own; a smoke run leaves out all but one socket
// and those that are compared.
func measureSockets(ctx context.Context, r *runner, s Subject) (Sample, error) {
	sample := Sample{}
	for _, n := range socketCounts {
		if r.opts.Smoke && n != 1 && n != comparedSockets {
			continue
		}
		if s.kernel && !canOpen(n+spareFiles) {
			continue
		}
		err := r.underLiveTo(ctx, s, task{Role: Sockets, Sockets: n}, func(p *process, g *live) error {
			return whileSending(ctx, g, 0, warmUp, func() error {
				did, _, err := r.watch(ctx, p)
				if err == nil && did.Received == 0 {
					err = fmt.Errorf("bench: %d sockets received nothing", n)
				}
				sample[socketRateKey(n)] = float64(did.Received) / did.At.Seconds()
				return err
			})
		})
		if err != nil {
			return nil, err
		}
		if n > 1 {
			sample[socketCostKey(n)] = sample[socketRateKey(socketCounts[0])] / sample[socketRateKey(n)]
		}
	}
	return sample, nil
}

// serveKitSockets counts on many sockets by one handler.
func serveKitSockets(t task, c *counters, ready func()) error {
	var owned []netip.Prefix
	for n := 0; n < t.Sockets; n += socketsPerAddr {
		owned = append(owned, netip.PrefixFrom(socketAt(t.Address.Addr(), n).Addr(), t.Bits))
	}
	k, err := openCard(t, owned...)
	if err != nil {
		return err
	}
	var received uint64 // one engine
	count := func(*kit.Packet) {
		received++
		c.Received.Store(received)
	}
	for n := range t.Sockets {
		at := t.Address
		if t.Sockets > 1 {
			at = socketAt(at.Addr(), n)
		}
		s, err := bindKit(k, at)
		if err != nil {
			return err
		}
		if err := k.Handle(s, count); err != nil {
			return err
		}
	}
	ready()
	select {}
}
