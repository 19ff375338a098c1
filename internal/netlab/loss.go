package netlab

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Loss drops and duplicates packets at an end of a cable, by a BPF program in its clsact qdisc. The fate of the n-th
// packet depends on the seed and on n alone, so that a run repeats exactly as long as the packets come in the same order.
// XDP comes before it on ingress, and an AF_XDP sender passes no egress: put it at the kernel's end, whose ingress sees
// what AF_XDP sent, and whose egress what the kernel sends.
type Loss struct {
	end      *End
	parent   uint32
	program  *ebpf.Program
	counters *ebpf.Map
}

// LossStats count the packets that a Loss has judged.
type LossStats struct {
	// Seen are all packets, Dropped and Duplicated those with that fate.
	Seen, Dropped, Duplicated uint64
}

// Fates are what may happen to a packet.
type Fate uint8

// A packet passes, is dropped, or comes twice.
const (
	Pass Fate = iota
	Drop
	Duplicate
)

// FateOf returns what a Loss with these odds does to the packet with the given number, counted from 0.
func FateOf(number uint64, drop10k, duplicate10k uint32, seed uint64) Fate {
	// splitmix64, whose state after n steps is a multiplication: no state of its own to keep.
	z := seed + (number+1)*gamma
	z = (z ^ z>>30) * mix1
	z = (z ^ z>>27) * mix2
	z ^= z >> 31
	switch {
	case uint32(z)%10_000 < drop10k:
		return Drop
	case uint32(z>>32)%10_000 < duplicate10k:
		return Duplicate
	}
	return Pass
}

// The constants of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
const (
	gamma = 0x9e3779b97f4a7c15
	mix1  = 0xbf58476d1ce4e5b9
	mix2  = 0x94d049bb133111eb
)

// copyMark marks the second one of a duplicated packet, which meets the program again and must pass.
const copyMark = 0x6b697464

// Loss is End.Loss of the namespace's first end.
func (n *Namespace) Loss(drop10k, duplicate10k uint32, seed uint64) (*Loss, error) {
	return n.Ends[0].Loss(drop10k, duplicate10k, seed)
}

// LossOut is End.LossOut of the namespace's first end.
func (n *Namespace) LossOut(drop10k, duplicate10k uint32, seed uint64) (*Loss, error) {
	return n.Ends[0].LossOut(drop10k, duplicate10k, seed)
}

// Loss drops and duplicates what arrives at the end, so many of 10,000 packets.
func (e *End) Loss(drop10k, duplicate10k uint32, seed uint64) (*Loss, error) {
	return e.lose(netlink.HANDLE_MIN_INGRESS, drop10k, duplicate10k, seed)
}

// LossOut drops and duplicates what the kernel sends from the end, so many of 10,000 packets.
func (e *End) LossOut(drop10k, duplicate10k uint32, seed uint64) (*Loss, error) {
	return e.lose(netlink.HANDLE_MIN_EGRESS, drop10k, duplicate10k, seed)
}

func (e *End) lose(parent, drop10k, duplicate10k uint32, seed uint64) (*Loss, error) {
	if drop10k > 10_000 || duplicate10k > 10_000 {
		return nil, fmt.Errorf("netlab: lose %d and duplicate %d packets of 10,000 on %s: more than all", drop10k,
			duplicate10k, e.Interface)
	}
	counters, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "kit_loss", Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: make the counters of a loss: %w%s", err, hint(err))
	}
	direction := int32(0)
	if parent == netlink.HANDLE_MIN_INGRESS {
		direction = bpfFIngress
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kit_loss", Type: ebpf.SchedCLS, License: "Dual MIT/GPL",
		Instructions: lossProgram(counters, direction, drop10k, duplicate10k, seed),
	})
	if err != nil {
		counters.Close()
		return nil, fmt.Errorf("netlab: load a loss program: %w", err)
	}
	l := &Loss{end: e, parent: parent, program: program, counters: counters}
	if err := l.attach(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

// bpfFIngress asks bpf_clone_redirect for the interface's input (linux/bpf.h).
const bpfFIngress = 1

// Where the fields of struct __sk_buff are (linux/bpf.h), in bytes.
const (
	skbMark    = 8
	skbIfindex = 40
)

// What a direct-action classifier returns (linux/pkt_cls.h).
const (
	actOK   = 0
	actShot = 2
)

// lossProgram is FateOf as a BPF program: r6 the packet, r7 the counters, r8 the hash.
func lossProgram(counters *ebpf.Map, direction int32, drop10k, duplicate10k uint32, seed uint64) asm.Instructions {
	count := func(offset int16) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R7, asm.R1, asm.DWord, offset),
		}
	}
	multiply := func(factor uint64) asm.Instructions {
		return asm.Instructions{
			asm.LoadImm(asm.R1, int64(factor), asm.DWord),
			asm.Mul.Reg(asm.R8, asm.R1),
		}
	}
	fold := func(shift int32) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R8),
			asm.RSh.Imm(asm.R1, shift),
			asm.Xor.Reg(asm.R8, asm.R1),
		}
	}
	fetch := asm.FetchAdd.Mem(asm.R7, asm.R8, asm.DWord, 0)
	fetch.Constant = 1 // BPF_FETCH; cilium/ebpf 0.22 encodes an atomic operation without it
	return slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			// The copy of a duplicated packet: take the mark off and let it pass, uncounted.
			asm.LoadMem(asm.R1, asm.R6, skbMark, asm.Word),
			asm.JNE.Imm32(asm.R1, copyMark, "judge"),
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
			asm.Ja.Label("pass"),

			asm.StoreImm(asm.RFP, -4, 0, asm.Word).WithSymbol("judge"),
			asm.LoadMapPtr(asm.R1, counters.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "pass"),
			asm.Mov.Reg(asm.R7, asm.R0),

			// r8 = seed + (number + 1) * gamma, the number taken once for each packet
			asm.Mov.Imm(asm.R8, 1),
			fetch,
			asm.Add.Imm(asm.R8, 1),
		},
		multiply(gamma),
		asm.Instructions{
			asm.LoadImm(asm.R1, int64(seed), asm.DWord),
			asm.Add.Reg(asm.R8, asm.R1),
		},
		fold(30), multiply(mix1), fold(27), multiply(mix2), fold(31),
		asm.Instructions{
			asm.Mov.Reg32(asm.R1, asm.R8),
			asm.Mod.Imm32(asm.R1, 10_000),
			asm.JLT.Imm(asm.R1, int32(drop10k), "drop"),
			asm.Mov.Reg(asm.R1, asm.R8),
			asm.RSh.Imm(asm.R1, 32),
			asm.Mod.Imm32(asm.R1, 10_000),
			asm.JGE.Imm(asm.R1, int32(duplicate10k), "pass"),
		},
		count(16),
		asm.Instructions{
			asm.Mov.Imm32(asm.R1, copyMark),
			asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.LoadMem(asm.R2, asm.R6, skbIfindex, asm.Word),
			asm.Mov.Imm(asm.R3, direction),
			asm.FnCloneRedirect.Call(),
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),

			asm.Mov.Imm(asm.R0, actOK).WithSymbol("pass"),
			asm.Return(),
			asm.Mov.Imm(asm.R1, 1).WithSymbol("drop"),
			asm.AddAtomic.Mem(asm.R7, asm.R1, asm.DWord, 8),
			asm.Mov.Imm(asm.R0, actShot),
			asm.Return(),
		},
	)
}

func (l *Loss) qdisc() netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.end.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

func (l *Loss) filter() *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: l.end.Index, Parent: l.parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: l.program.FD(), Name: "kit_loss", DirectAction: true,
	}
}

func (l *Loss) attach() error {
	n := l.end.ns
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return fmt.Errorf("netlab: attach a loss to %s: the laboratory is closed", l.end.Interface)
	}
	links := n.links
	// The other direction's loss has the same qdisc.
	if err := links.QdiscAdd(l.qdisc()); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("netlab: add clsact to %s: %w", l.end.Interface, err)
	}
	if err := links.FilterAdd(l.filter()); err != nil {
		return fmt.Errorf("netlab: attach a loss to %s (one at a time in each direction): %w", l.end.Interface, err)
	}
	n.losses = append(n.losses, l)
	return nil
}

// Stats returns the counts since the Loss began.
func (l *Loss) Stats() (LossStats, error) {
	var c [3]uint64
	if err := l.counters.Lookup(uint32(0), &c); err != nil {
		return LossStats{}, fmt.Errorf("netlab: read the counters of a loss: %w", err)
	}
	return LossStats{Seen: c[0], Dropped: c[1], Duplicated: c[2]}, nil
}

// Close takes the loss off the end. It may be called again, also after the laboratory has closed, and then does nothing.
func (l *Loss) Close() error {
	n := l.end.ns
	n.mu.Lock()
	defer n.mu.Unlock()
	at := slices.Index(n.losses, l)
	if at < 0 {
		return nil
	}
	n.losses = slices.Delete(n.losses, at, at+1)
	return errors.Join(n.links.FilterDel(l.filter()), l.release())
}

// release closes the program and the counters; the kernel drops the program when the filter goes, or the interface.
func (l *Loss) release() error {
	return errors.Join(l.program.Close(), l.counters.Close())
}
