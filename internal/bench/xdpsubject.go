package bench

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// XDP programs alone, which are a floor under all that gets packets to a process: they see each frame in the softirq, on the core
// that sent it, whose cache holds it, and no other core has a part.

// serveXDP counts the datagrams to the task's address, and drops them or sends them back from where they came.
func serveXDP(t task, c *counters, ready func()) error {
	then := dropIt
	if t.Role == Echo {
		then = sendBack
	}
	count, err := newCount("kit_bench_xdp")
	if err != nil {
		return err
	}
	defer count.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kit_bench_xdp", Type: ebpf.XDP, License: "Dual MIT/GPL",
		Instructions: countProgram(count, datagramMatch{at: t.Address, addrAt: destAddrAt, portAt: destPortAt}, then()),
	})
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	defer program.Close()
	card, err := net.InterfaceByName(t.Interface)
	if err != nil {
		return err
	}
	attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: card.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return fmt.Errorf("attach to %s: %w", t.Interface, err)
	}
	failed := make(chan error, 1)
	c.Update = func() {
		n, err := readCount(count)
		if err != nil {
			select {
			case failed <- err:
			default:
			}
		}
		c.Received.Store(n)
		if t.Role == Echo {
			c.Sent.Store(n)
		}
	}
	ready()
	return errors.Join(<-failed, attached.Close())
}

const (
	// countLines is how many queues count apart, a power of two, and countLine how many bytes each has: two cache lines, as
	// processors fetch them in pairs.
	countLines = 16
	countLine  = 128
)

// newCount makes a map of a number for each queue.
func newCount(name string) (*ebpf.Map, error) {
	count, err := ebpf.NewMap(&ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: countLines * countLine, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("bench: make a counter's map: %w", err)
	}
	return count, nil
}

// readCount sums them.
func readCount(count *ebpf.Map) (n uint64, err error) {
	var lines [countLines][countLine / 8]uint64
	if err := count.Lookup(uint32(0), &lines); err != nil {
		return 0, fmt.Errorf("bench: read a counter: %w", err)
	}
	for i := range lines {
		n += lines[i][0]
	}
	return n, nil
}

// Where the fields are in a frame without IPv4 options.
const (
	protocolAt   = etherLen + 9
	sourceAddrAt = etherLen + 12
	destAddrAt   = etherLen + 16
	destPortAt   = srcPortAt + 2
)

// dropIt is the end of a program that drops the frame.
func dropIt() asm.Instructions { return asm.Instructions{asm.Mov.Imm(asm.R0, xdpDrop)} }

// sendBack is the end of one that sends the frame, at r2, back: it exchanges the addresses and the ports as turnRound does.
func sendBack() (code asm.Instructions) {
	for _, f := range []struct {
		a, b int16
		size asm.Size
	}{
		{0, 6, asm.Word}, {4, 10, asm.Half}, {sourceAddrAt, destAddrAt, asm.Word}, {srcPortAt, destPortAt, asm.Half},
	} {
		code = append(code,
			asm.LoadMem(asm.R3, asm.R2, f.a, f.size), asm.LoadMem(asm.R4, asm.R2, f.b, f.size),
			asm.StoreMem(asm.R2, f.a, asm.R4, f.size), asm.StoreMem(asm.R2, f.b, asm.R3, f.size))
	}
	return append(code, asm.Mov.Imm(asm.R0, xdpTX))
}
