package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// live sends frames from inside the kernel: BPF_PROG_RUN with live frames on an XDP program that redirects each frame to
// the sending end of a cable. No socket and no copy from user space takes part, so that it offers several million frames
// a second from one core and the receiver is what a measurement shows.
type live struct {
	program *ebpf.Program
	state   *ebpf.Map
	from    *netlab.Namespace
	frame   []byte
	cpu     int
}

// liveTarget says where the frames go.
type liveTarget struct {
	From     *netlab.Namespace
	To       netip.AddrPort
	ToMAC    net.HardwareAddr
	Payload  int    // bytes of UDP payload, at least balance
	Flows    int    // source ports to take turns with, a power of two
	BasePort uint16 // the first of them
	Sockets  int    // to go to in turn, in place of To, where more than one; see socketAt
	CPU      int
}

const (
	etherLen   = 14
	headersLen = etherLen + 20 + 8 // Ethernet, IPv4 without options, UDP
	srcPortAt  = etherLen + 20     // where the UDP source port is
	balanceAt  = headersLen        // where the payload begins, which balances the ports in the checksum
	// liveBatch is how many frames the kernel runs the program on before it lets the receiving softirq in.
	liveBatch = 64
	// paceSlack is how many frames a paced sender may be behind and catch up with; more are not sent at all.
	paceSlack = 64
)

// liveState is the program's map value: what it has sent, when the next frame is due (CLOCK_MONOTONIC, ns), and the time
// between two frames (ns, 0: send each).
type liveState struct {
	Sent, Next, Interval uint64
}

func newLive(t liveTarget) (*live, error) {
	state, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "kit_bench_live", Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("bench: make the generator's map: %w", err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kit_bench_live", Type: ebpf.XDP, License: "Dual MIT/GPL", Instructions: liveProgram(state, t),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bench: load the generator: %w", err), state.Close())
	}
	return &live{program: program, state: state, from: t.From, frame: liveFrame(t), cpu: t.CPU}, nil
}

// liveFrame builds the frame that all are copies of. Its source port is 0 and the first payload word 0xffff; the program
// puts a port and its complement there, so that the checksum stays right. So it is with the destination's port and the lower half
// of its address, where there are several sockets.
func liveFrame(t liveTarget) []byte {
	payload := make([]byte, t.Payload)
	for i := range payload {
		payload[i] = byte(8 + i)
	}
	for i := range t.balance() {
		payload[i] = 0xff
	}
	to := t.To
	if t.Sockets > 1 {
		a := to.Addr().As4()
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{a[0], a[1]}), 0)
	}
	return udpFrame(t.From.HardwareAddr(), t.ToMAC, netip.AddrPortFrom(t.From.Addr(), 0), to, payload)
}

// udpFrame builds a datagram's Ethernet frame.
func udpFrame(fromMAC, toMAC net.HardwareAddr, from, to netip.AddrPort, payload []byte) []byte {
	f := make([]byte, headersLen+len(payload))
	copy(f[0:], toMAC)
	copy(f[6:], fromMAC)
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[etherLen:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[8], ip[9] = 64, unix.IPPROTO_UDP
	src, dst := from.Addr().As4(), to.Addr().As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum16(0, ip[:20]))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	copy(udp[8:], payload)
	sum := sum16(0, ip[12:20])
	sum = sum16(sum, []byte{0, unix.IPPROTO_UDP, udp[4], udp[5]})
	sum = ^sum16(sum, udp)
	if sum == 0 {
		sum = 0xffff // RFC 768: 0 says that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return f
}

// sum16 adds 16-bit words in one's complement (RFC 1071).
func sum16(sum uint16, b []byte) uint16 {
	s := uint32(sum)
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// What an XDP program returns (linux/bpf.h).
const (
	xdpAborted = 0
	xdpDrop    = 1
	xdpPass    = 2
	xdpTX      = 3
)

// Where the fields of struct xdp_md are (linux/bpf.h), in bytes.
const (
	xdpData    = 0
	xdpDataEnd = 4
	xdpQueue   = 16 // rx_queue_index
)

// liveProgram paces, gives each frame the next flow's source port and redirects it: r6 data, r7 the state.
func liveProgram(state *ebpf.Map, t liveTarget) asm.Instructions {
	return slices.Concat(livePace(state, t.balance()), liveFlow(t), liveSockets(t), asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(t.From.Index())),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return().WithSymbol("exit"),
	})
}

// livePace counts the frames that are due, and drops others. It leaves the number of the frame, from 0, in r9.
func livePace(state *ebpf.Map, balance int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, xdpData, asm.Word),
		asm.LoadMem(asm.R2, asm.R1, xdpDataEnd, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R6),
		asm.Add.Imm(asm.R3, headersLen+balance),
		asm.Mov.Imm(asm.R0, xdpAborted),
		asm.JGT.Reg(asm.R3, asm.R2, "exit"),
		asm.LoadMapValue(asm.R7, state.FD(), 0),

		asm.LoadMem(asm.R8, asm.R7, 16, asm.DWord),
		asm.JEq.Imm(asm.R8, 0, "send"),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R2, asm.R7, 8, asm.DWord),
		asm.JGE.Reg(asm.R0, asm.R2, "due"),
		asm.Mov.Imm(asm.R0, xdpDrop),
		asm.Ja.Label("exit"),
		// next = max(next, now - slack) + interval
		asm.Mov.Reg(asm.R3, asm.R8).WithSymbol("due"),
		asm.Mul.Imm(asm.R3, paceSlack),
		asm.Sub.Reg(asm.R0, asm.R3),
		asm.JGE.Reg(asm.R2, asm.R0, "advance"),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.Add.Reg(asm.R2, asm.R8).WithSymbol("advance"),
		asm.StoreMem(asm.R7, 8, asm.R2, asm.DWord),

		// One core runs the program, so a plain addition counts right.
		asm.LoadMem(asm.R1, asm.R7, 0, asm.DWord).WithSymbol("send"),
		asm.Mov.Reg(asm.R9, asm.R1),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R7, 0, asm.R1, asm.DWord),
	}
}

// liveFlow writes the source port, and anew all that a program that sends frames back exchanges: the kernel uses the memory of
// frames again, as they came back, and does not restore them.
func liveFlow(t liveTarget) asm.Instructions {
	frame := liveFrame(t)
	return asm.Instructions{
		asm.StoreImm(asm.R6, 0, frameWord(frame, 0), asm.Word),
		asm.StoreImm(asm.R6, 4, frameWord(frame, 4), asm.Word),
		asm.StoreImm(asm.R6, 8, frameWord(frame, 8), asm.Word),
		asm.StoreImm(asm.R6, sourceAddrAt, frameWord(frame, sourceAddrAt), asm.Word),
		asm.StoreImm(asm.R6, destAddrAt, frameWord(frame, destAddrAt), asm.Word),
		asm.StoreImm(asm.R6, destPortAt, int64(binary.NativeEndian.Uint16(frame[destPortAt:])), asm.Half),
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.And.Imm(asm.R2, int32(t.Flows-1)),
		asm.Add.Imm(asm.R2, int32(t.BasePort)),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.StoreMem(asm.R6, srcPortAt, asm.R2, asm.Half),
		asm.Xor.Imm(asm.R2, 0xffff),
		asm.StoreMem(asm.R6, balanceAt, asm.R2, asm.Half),
	}
}

// frameWord is four bytes as the processor stores them by one instruction.
func frameWord(frame []byte, at int) int64 {
	return int64(int32(binary.NativeEndian.Uint32(frame[at:])))
}

// balance is how many bytes of the payload keep the checksum right: for each port or half of an address that the program writes
// its complement.
func (t *liveTarget) balance() int32 {
	if t.Sockets > 1 {
		return 6
	}
	return 2
}

// socketStride is the step from one frame's socket to the next one's, prime, so that all have their turn and no processor fetches
// the next one ahead.
const socketStride = 7919

// liveSockets gives each frame another socket to go to, where there are several.
func liveSockets(t liveTarget) asm.Instructions {
	if t.Sockets <= 1 {
		return nil
	}
	first := socketAt(t.To.Addr(), 0)
	header := slices.Clone(liveFrame(t)[etherLen:srcPortAt])
	clear(header[10:12]) // the checksum
	return asm.Instructions{
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.Mul.Imm(asm.R2, socketStride),
		asm.Mod.Imm(asm.R2, int32(t.Sockets)),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.Div.Imm(asm.R3, socketsPerAddr),
		asm.Mod.Imm(asm.R2, socketsPerAddr),

		asm.Add.Imm(asm.R2, int32(first.Port())),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.StoreMem(asm.R6, destPortAt, asm.R2, asm.Half),
		asm.Xor.Imm(asm.R2, 0xffff),
		asm.StoreMem(asm.R6, balanceAt+2, asm.R2, asm.Half),

		asm.Add.Imm(asm.R3, int32(addr32(first.Addr())&0xffff)),
		asm.Mov.Reg(asm.R4, asm.R3),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.StoreMem(asm.R6, destAddrAt+2, asm.R3, asm.Half),
		asm.Xor.Imm(asm.R3, 0xffff),
		asm.StoreMem(asm.R6, balanceAt+4, asm.R3, asm.Half),

		// The IPv4 header's checksum (RFC 1071): that of the rest, and this half of the address.
		asm.Add.Imm(asm.R4, int32(sum16(0, header))),
		asm.Mov.Reg(asm.R3, asm.R4),
		asm.RSh.Imm(asm.R3, 16),
		asm.And.Imm(asm.R4, 0xffff),
		asm.Add.Reg(asm.R4, asm.R3),
		asm.Xor.Imm(asm.R4, 0xffff),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.StoreMem(asm.R6, etherLen+10, asm.R4, asm.Half),
	}
}

// Sent returns how many frames were sent since the generator was made.
func (l *live) Sent() (uint64, error) {
	var s liveState
	if err := l.state.Lookup(uint32(0), &s); err != nil {
		return 0, fmt.Errorf("bench: read the generator's count: %w", err)
	}
	return s.Sent, nil
}

// Run sends rate frames a second (0: as many as go) until ctx is done, on the generator's core and from inside the
// namespace. Sent tells meanwhile how many.
func (l *live) Run(ctx context.Context, rate float64) error {
	sent, err := l.Sent()
	if err != nil {
		return err
	}
	state := liveState{Sent: sent}
	if rate > 0 {
		state.Interval = max(1, uint64(1e9/rate))
	}
	if err := l.state.Put(uint32(0), &state); err != nil {
		return fmt.Errorf("bench: set the generator's pace: %w", err)
	}
	return l.from.Do(func() error {
		restore, err := pinThread(l.cpu)
		if err != nil {
			return err
		}
		defer restore()
		defer interruptAfter(ctx)()
		for ctx.Err() == nil {
			if err := l.burst(); err != nil {
				return err
			}
		}
		return nil
	})
}

// begun waits until more than that have been sent.
func (l *live) begun(ctx context.Context, before uint64) error {
	for deadline := time.Now().Add(replyPatience); ; {
		sent, err := l.Sent()
		if err != nil || sent > before {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("bench: the generator sent nothing for %v", replyPatience)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// interruptAfter ends the calling thread's system calls, by signals, once ctx is done. The caller calls what it returns
// when it needs that no longer.
func interruptAfter(ctx context.Context) (stop func()) {
	pid, tid := unix.Getpid(), unix.Gettid()
	over := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		select {
		case <-ctx.Done():
		case <-over:
			return
		}
		// A signal that comes just before the system call is lost to it, so more follow. SIGURG is what Go's runtime sends
		// to its own threads, and so harmless.
		for tick := time.NewTicker(time.Millisecond); ; {
			_ = unix.Tgkill(pid, tid, unix.SIGURG) // the thread lives as long as done is waited for
			select {
			case <-tick.C:
			case <-over:
				tick.Stop()
				return
			}
		}
	})
	return func() {
		close(over)
		done.Wait()
	}
}

// testRun is the part of union bpf_attr that BPF_PROG_TEST_RUN reads (linux/bpf.h).
type testRun struct {
	progFD, retval           uint32
	dataSizeIn, dataSizeOut  uint32
	dataIn, dataOut          unsafe.Pointer
	repeat, duration         uint32
	ctxSizeIn, ctxSizeOut    uint32
	ctxIn, ctxOut            unsafe.Pointer
	flags, cpu, batchSize, _ uint32
}

// burst is one BPF_PROG_RUN of the calling thread, until a signal comes or some four billion frames are sent. The package
// ebpf's own starts anew after a signal; and each costs the kernel a page pool, whose end takes some 25 ms.
func (l *live) burst() error {
	const (
		bpfProgTestRun = 10
		liveFrames     = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	)
	// struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
	md := [6]uint32{1: uint32(len(l.frame))}
	attr := testRun{
		progFD: uint32(l.program.FD()), repeat: math.MaxUint32, flags: liveFrames, batchSize: liveBatch,
		dataIn: unsafe.Pointer(&l.frame[0]), dataSizeIn: uint32(len(l.frame)),
		ctxIn: unsafe.Pointer(&md), ctxSizeIn: uint32(unsafe.Sizeof(md)),
	}
	_, _, e := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(l)
	if e != 0 && e != unix.EINTR {
		return fmt.Errorf("bench: run the generator (live frames need Linux 5.18): %w", e)
	}
	return nil
}

func (l *live) Close() error { return errors.Join(l.program.Close(), l.state.Close()) }
