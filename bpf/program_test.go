package bpf

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What Go does to the tables, the program sees with the next frame, to the edges of each table.

func TestProgramFollowsAFullTable(t *testing.T) {
	r := newRig(t, programs(t)[0])
	addrs := colliding(250, 2*MaxAddresses) // one chain, and it wraps around
	for i := range MaxAddresses {
		require.NoError(t, r.tables.SetAddress(addrs[i], Shared))
		require.NoError(t, r.tables.SetAddress(addrs[MaxAddresses+i], Broadcast))
		require.NoError(t, r.tables.BindPort(UDP, addrs[i], uint16(1000+i)))
	}
	for i, addr := range addrs[:MaxAddresses] {
		r.wants(XSKUDP, ip(udpTo(addr, uint16(1000+i))))
		r.wants(PassPort, ip(udpTo(addr, uint16(1000+i+1))))
		r.wants(XSKUDP, ip(udpTo(addrs[MaxAddresses+i], uint16(1000+i))))
	}
	r.wants(PassAddress, ip(udpTo(stranger, 1000)))

	// Every second one goes; marks keep the chain whole.
	for i := 0; i < len(addrs); i += 2 {
		require.NoError(t, r.tables.RemoveAddress(addrs[i]))
	}
	for i, addr := range addrs[:MaxAddresses] {
		want := map[bool]Reason{true: PassAddress, false: XSKUDP}[i%2 == 0]
		r.wants(want, ip(udpTo(addr, uint16(1000+i))))
	}
	r.wants(PassAddress, ip(udpTo(netip.IPv4Unspecified(), 1000)), "a mark is taken for an address")
	require.NoError(t, r.tables.SetAddress(addrs[0], Shared))
	r.wants(PassPort, ip(udpTo(addrs[0], 1000)), "the ports of the address before")
}

// A table in which every cell is used or marked has no end to a chain; the search ends all the same.
func TestProgramSearchesATableWithoutEmptyCells(t *testing.T) {
	r := newRig(t, programs(t)[0])
	for i := range r.tables.config.Cells {
		r.tables.store(i, removedCell)
	}
	r.wants(PassAddress, ip(udpTo(stranger, 7)))
	require.NoError(t, r.tables.SetAddress(owned1, Owned))
	r.wants(XSKOwned, ip(udpTo(owned1, 7)))
	for bit := range 32 {
		b := owned1.As4()
		b[bit/8] ^= 1 << (bit % 8)
		r.wants(PassAddress, ip(udpTo(netip.AddrFrom4(b), 7)), "an address that differs in one bit")
	}
	r.wants(PassARP, arp(peer, stranger))
}

func TestProgramFollowsKinds(t *testing.T) {
	r := newRig(t, programs(t)[0])
	frame, question := ip(udpTo(shared1, udpPort)), arp(peer, shared1)
	r.wants(PassAddress, frame)
	require.NoError(t, r.tables.SetAddress(shared1, Shared))
	r.wants(PassPort, frame)
	require.NoError(t, r.tables.BindPort(UDP, shared1, udpPort))
	r.wants(XSKUDP, frame)
	r.wants(PassARP, question)
	require.NoError(t, r.tables.SetAddress(shared1, Owned))
	r.wants(XSKOwned, frame)
	r.wants(XSKARP, question)
	require.NoError(t, r.tables.UnbindPort(UDP, shared1, udpPort))
	r.wants(XSKOwned, frame)
	require.NoError(t, r.tables.SetAddress(shared1, Broadcast))
	r.wants(PassPort, frame)
	require.NoError(t, r.tables.RemoveAddress(shared1))
	r.wants(PassAddress, frame)
}

// The program goes on when Go has let go of the tables, and with it of nothing that it needs.
func TestTablesOutliveTheCollection(t *testing.T) {
	spec, err := Spec(programs(t)[0], 1)
	require.NoError(t, err)
	coll, err := ebpf.NewCollection(spec)
	require.NoError(t, err)
	tables, err := NewTables(coll)
	require.NoError(t, err)
	program, err := coll.Programs[spec.Programs[string(programs(t)[0])].Name].Clone()
	require.NoError(t, err)
	defer program.Close()
	coll.Close()

	require.NoError(t, tables.SetEnabled(true))
	require.NoError(t, tables.SetAddress(owned1, Owned))
	r := &rig{t: t, program: program, tables: tables}
	r.wants(PassNoXSK, ip(udpTo(owned1, 1)))
	require.NoError(t, tables.Close())
	action, err := program.Run(&ebpf.RunOptions{Data: ip(udpTo(owned1, 1))})
	require.NoError(t, err)
	require.EqualValues(t, xdpPass, action)
}

// A frame goes to the socket of the queue it came in on, and to no other.
func TestEachQueueHasItsSocket(t *testing.T) {
	needsKernel(t, 5, 15, "a test run on a queue")
	r := newRig(t, programs(t)[0])
	populate(t, r.tables)

	// The thread with the foreign namespace ends with the test: it is never unlocked.
	runtime.LockOSThread()
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
	card := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "kit0", NumRxQueues: 3}, PeerName: "kit1"}
	require.NoError(t, netlink.LinkAdd(card))

	frame := ip(udpTo(shared1, udpPort))
	onQueue := func(queue uint32) uint32 {
		// struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
		context := [6]uint32{1: uint32(len(frame)), 3: uint32(card.Index), 4: queue}
		action, err := r.program.Run(&ebpf.RunOptions{Data: frame, Context: &context})
		require.NoError(t, err)
		return action
	}
	require.EqualValues(t, xdpRedirect, onQueue(0))
	require.EqualValues(t, xdpPass, onQueue(1), "a slot without a socket")
	require.EqualValues(t, xdpPass, onQueue(2), "a queue beyond the map")
	require.NoError(t, r.coll.Maps[XSKMap].Put(uint32(1), uint32(newXSK(t))))
	require.EqualValues(t, xdpRedirect, onQueue(1))
	require.NoError(t, r.coll.Maps[XSKMap].Delete(uint32(0)))
	require.EqualValues(t, xdpPass, onQueue(0))
	require.EqualValues(t, xdpRedirect, onQueue(1))
}

// Machines that cannot read words at odd addresses refuse a program that tries; this flag makes any machine one.
func TestProgramNeedsNoUnalignedReads(t *testing.T) {
	const strictAlignment = 1 // BPF_F_STRICT_ALIGNMENT
	for _, program := range programs(t) {
		spec, err := Spec(program, 1)
		require.NoError(t, err)
		spec.Programs[string(program)].Flags |= strictAlignment
		coll, err := ebpf.NewCollection(spec)
		require.NoError(t, err, "%+v", err)
		coll.Close()
	}
}

// BenchmarkVerdict measures whole test runs of the program on one frame. The bare programs decide nothing, so that
// the difference to them is what the decision costs a frame.
func BenchmarkVerdict(b *testing.B) {
	program := programs(b)[0]
	r := newRig(b, program)
	populate(b, r.tables)
	barePass := bare(b, asm.Mov.Imm(asm.R0, xdpPass))
	bareRedirect := bare(b, asm.LoadMapPtr(asm.R1, r.coll.Maps[XSKMap].FD()), asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R3, xdpPass), asm.FnRedirectMap.Call())
	frame := ip(udpTo(shared1, udpPort))
	for _, c := range []struct {
		name    string
		program *ebpf.Program
		frame   []byte
	}{
		{"bare pass", barePass, frame},
		{"IPv6", r.program, ethernet(0x86dd, make([]byte, 40))},
		{"another address", r.program, ip(udpTo(stranger, udpPort))},
		{"kernel's port", r.program, ip(udpTo(shared1, udpPort+1))},
		{"bare redirect", bareRedirect, frame},
		{"bound UDP port", r.program, frame},
		{"bound TCP port", r.program, ip(tcpTo(shared1, tcpPort))},
		{"owned", r.program, ip(udpTo(owned1, 1))},
		{"ICMP error", r.program, icmpError(3, header{protocol: 17}, udp(udpPort, 5000))},
		{"first fragment", r.program, fragmentOf(shared1, 1, 0, true, udp(4000, udpPort))},
		{"later fragment", r.program, fragmentOf(shared1, 1, 2, false, nil)},
	} {
		b.Run(c.name, func(b *testing.B) {
			_, took, err := c.program.Benchmark(c.frame, b.N, nil)
			require.NoError(b, err)
			b.ReportMetric(float64(took.Nanoseconds()), "ns/op")
		})
	}
}

// bare is a program of a few instructions that leave the action in R0.
func bare(b *testing.B, instructions ...asm.Instruction) *ebpf.Program {
	b.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Instructions: append(instructions, asm.Return())})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, program.Close()) })
	return program
}

// BenchmarkBind measures a bind and its unbind, which are stores.
func BenchmarkBind(b *testing.B) {
	tables := plainTables()
	require.NoError(b, tables.SetAddress(shared1, Shared))
	for b.Loop() {
		_ = tables.BindPort(UDP, shared1, 7)
		_ = tables.UnbindPort(UDP, shared1, 7)
	}
}
