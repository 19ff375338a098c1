package bench

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// sink counts and drops a subject's answers at the generator's end of the cable, before the kernel would refuse them for
// want of a socket: an XDP program, so that it costs the answering core little and every subject the same.
type sink struct {
	count   *ebpf.Map
	program *ebpf.Program
	link    link.Link
}

// newSink counts the UDP datagrams that arrive at the namespace's first end from the given address; all else passes.
func newSink(at *netlab.Namespace, from netip.AddrPort) (*sink, error) {
	count, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "kit_bench_sink", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("bench: make the sink's map: %w", err)
	}
	s := &sink{count: count}
	s.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kit_bench_sink", Type: ebpf.XDP, License: "Dual MIT/GPL", Instructions: sinkProgram(count, from),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bench: load the sink: %w", err), s.Close())
	}
	err = at.Do(func() (err error) {
		s.link, err = link.AttachXDP(link.XDPOptions{
			Program: s.program, Interface: at.Index(), Flags: link.XDPDriverMode,
		})
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bench: attach the sink to %s: %w", at.Interface(), err), s.Close())
	}
	return s, nil
}

// sinkProgram: r2 the frame, r0 the verdict.
func sinkProgram(count *ebpf.Map, from netip.AddrPort) asm.Instructions {
	const (
		protocolAt = etherLen + 9
		sourceAt   = etherLen + 12
	)
	addr := from.Addr().As4()
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, xdpData, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, xdpDataEnd, asm.Word),
		asm.Mov.Imm(asm.R0, xdpPass),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, headersLen),
		asm.JGT.Reg(asm.R4, asm.R3, "exit"),
		asm.LoadMem(asm.R4, asm.R2, protocolAt, asm.Byte),
		asm.JNE.Imm(asm.R4, unix.IPPROTO_UDP, "exit"),
		asm.LoadMem(asm.R4, asm.R2, srcPortAt, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.JNE.Imm(asm.R4, int32(from.Port()), "exit"),
		asm.LoadMem(asm.R4, asm.R2, sourceAt, asm.Word),
		asm.HostTo(asm.BE, asm.R4, asm.Word),
		asm.LoadImm(asm.R5, int64(addr[0])<<24|int64(addr[1])<<16|int64(addr[2])<<8|int64(addr[3]), asm.DWord),
		asm.JNE.Reg(asm.R4, asm.R5, "exit"),
		asm.LoadMapValue(asm.R1, count.FD(), 0),
		asm.Mov.Imm(asm.R4, 1),
		asm.AddAtomic.Mem(asm.R1, asm.R4, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, xdpDrop),
		asm.Return().WithSymbol("exit"),
	}
}

// Count returns how many datagrams have arrived.
func (s *sink) Count() (n uint64, err error) {
	if err := s.count.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("bench: read the sink's count: %w", err)
	}
	return n, nil
}

func (s *sink) Close() error {
	var errs []error
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	if s.program != nil {
		errs = append(errs, s.program.Close())
	}
	return errors.Join(append(errs, s.count.Close())...)
}
