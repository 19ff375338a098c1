package bench

import (
	"encoding/binary"
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
	count    *ebpf.Map
	attached *attachedXDP
}

// newSink counts the UDP datagrams that arrive at the namespace's first end from the given address; all else passes.
func newSink(at *netlab.Namespace, from netip.AddrPort) (*sink, error) {
	return newSinkOf(at, datagramMatch{at: from, addrAt: sourceAddrAt, portAt: srcPortAt})
}

// sentBy are the datagrams that a subject with that task sends.
func (r *runner) sentBy(s Subject, t task) datagramMatch {
	return datagramMatch{at: r.addressOf(s, t.Role), addrAt: sourceAddrAt, portAt: srcPortAt, sockets: t.Sockets}
}

// newSinkOf counts those that match.
func newSinkOf(at *netlab.Namespace, match datagramMatch) (*sink, error) {
	count, err := newCount("kit_bench_sink")
	if err != nil {
		return nil, err
	}
	x, err := attachXDP(at, "kit_bench_sink", countProgram(count, match, dropIt()))
	if err != nil {
		return nil, errors.Join(err, count.Close())
	}
	return &sink{count: count, attached: x}, nil
}

// attachedXDP is an XDP program on an interface.
type attachedXDP struct {
	program *ebpf.Program
	link    link.Link
}

// attachXDP loads a program and attaches it to the namespace's first end.
func attachXDP(at *netlab.Namespace, name string, code asm.Instructions) (x *attachedXDP, err error) {
	x = &attachedXDP{}
	x.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, License: "Dual MIT/GPL", Instructions: code})
	if err != nil {
		return nil, fmt.Errorf("bench: load %s: %w", name, err)
	}
	err = at.Do(func() (err error) {
		x.link, err = link.AttachXDP(link.XDPOptions{Program: x.program, Interface: at.Index(), Flags: link.XDPDriverMode})
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bench: attach %s to %s: %w", name, at.Interface(), err), x.program.Close())
	}
	return x, nil
}

func (x *attachedXDP) Close() error { return errors.Join(x.link.Close(), x.program.Close()) }

// attachPass attaches a program that lets all pass: veth takes what an XDP program at the other end sends only where it has one too.
func attachPass(at *netlab.Namespace) (*attachedXDP, error) {
	return attachXDP(at, "kit_bench_pass", asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()})
}

// datagramMatch says which datagrams a program is about: by an address and a port, and where in the frame these are. Where there
// are several sockets, it is about where socketAt says that they are, from that address on, and the same ports of each address.
type datagramMatch struct {
	at             netip.AddrPort
	addrAt, portAt int16
	sockets        int
}

// spans are the first address and port, and how many there are of each.
func (m *datagramMatch) spans() (addr, addrs, port, ports uint32) {
	if m.sockets <= 1 {
		return addr32(m.at.Addr()), 1, uint32(m.at.Port()), 1
	}
	addrs = uint32(m.sockets+socketsPerAddr-1) / socketsPerAddr
	return addr32(m.at.Addr()), addrs, socketBasePort, uint32(min(m.sockets, socketsPerAddr))
}

// countProgram counts the datagrams that match and does with them what comes then, and all else passes: r2 the frame, r0 the
// verdict. One core at a time runs the program for a queue, so a plain addition on the queue's own line counts right.
func countProgram(count *ebpf.Map, match datagramMatch, then asm.Instructions) asm.Instructions {
	addr, addrs, port, ports := match.spans()
	code := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, xdpData, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, xdpDataEnd, asm.Word),
		asm.LoadMem(asm.R6, asm.R1, xdpQueue, asm.Word),
		asm.Mov.Imm(asm.R0, xdpPass),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, headersLen),
		asm.JGT.Reg(asm.R4, asm.R3, "exit"),
		asm.LoadMem(asm.R4, asm.R2, protocolAt, asm.Byte),
		asm.JNE.Imm(asm.R4, unix.IPPROTO_UDP, "exit"),
		asm.LoadMem(asm.R4, asm.R2, match.portAt, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.Sub.Imm(asm.R4, int32(port)),
		asm.JGE.Imm(asm.R4, int32(ports), "exit"), // unsigned: nor is one below the first
		asm.LoadMem(asm.R4, asm.R2, match.addrAt, asm.Word),
		asm.HostTo(asm.BE, asm.R4, asm.Word),
		asm.LoadImm(asm.R5, int64(addr), asm.DWord),
		asm.Sub.Reg(asm.R4, asm.R5),
		asm.JGE.Imm(asm.R4, int32(addrs), "exit"),
		asm.LoadMapValue(asm.R1, count.FD(), 0),
		asm.And.Imm(asm.R6, countLines-1),
		asm.Mul.Imm(asm.R6, countLine),
		asm.Add.Reg(asm.R1, asm.R6),
		asm.LoadMem(asm.R4, asm.R1, 0, asm.DWord),
		asm.Add.Imm(asm.R4, 1),
		asm.StoreMem(asm.R1, 0, asm.R4, asm.DWord),
	}
	return append(append(code, then...), asm.Return().WithSymbol("exit"))
}

// addr32 is an IPv4 address as a number.
func addr32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// Count returns how many datagrams have arrived.
func (s *sink) Count() (uint64, error) { return readCount(s.count) }

func (s *sink) Close() error { return errors.Join(s.attached.Close(), s.count.Close()) }
