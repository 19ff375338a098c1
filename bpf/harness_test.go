package bpf

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The addresses and numbers that the named frames and the fuzzer know.
var (
	shared1   = netip.MustParseAddr("10.0.0.1")
	shared2   = netip.MustParseAddr("10.0.0.2")
	owned1    = netip.MustParseAddr("10.0.0.5")
	subnet    = netip.MustParseAddr("10.0.0.255")
	everybody = netip.MustParseAddr("255.255.255.255")
	stranger  = netip.MustParseAddr("10.0.0.77")
	peer      = netip.MustParseAddr("10.0.0.9")
)

const (
	udpPort = 7
	tcpPort = 80
	echoID  = 0x1234
)

// xdpRedirect and xdpPass are what a test run returns (enum xdp_action).
const (
	xdpPass     = 2
	xdpRedirect = 4
)

// skip is for what this kernel or user cannot do; with KIT_NO_SKIP nothing may be missing.
func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("KIT_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// needsKernel skips a test on a kernel older than major.minor.
func needsKernel(t testing.TB, major, minor int, what string) {
	t.Helper()
	var uts unix.Utsname
	require.NoError(t, unix.Uname(&uts))
	var haveMajor, haveMinor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &haveMajor, &haveMinor)
	require.NoError(t, err)
	if haveMajor < major || haveMajor == major && haveMinor < minor {
		skip(t, fmt.Sprintf("%s needs Linux %d.%d, this is %d.%d", what, major, minor, haveMajor, haveMinor))
	}
}

// programs are the builds that this kernel can load.
func programs(t testing.TB) []Program {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "loading an XDP program needs root")
	}
	require.NoError(t, rlimit.RemoveMemlock())
	frags, err := HaveFrags()
	require.NoError(t, err)
	if !frags {
		return []Program{Linear}
	}
	return []Program{Frags, Linear}
}

// eachProgram runs a test on every build.
func eachProgram(t *testing.T, test func(t *testing.T, program Program)) {
	for _, program := range programs(t) {
		t.Run(string(program), func(t *testing.T) { test(t, program) })
	}
}

// A rig is a loaded program with its tables, run on single frames without a card.
type rig struct {
	t       testing.TB
	program *ebpf.Program
	coll    *ebpf.Collection
	tables  *Tables
	before  Stats
}

// newRig loads a program with empty tables, switched on, and an AF_XDP socket at queue 0.
func newRig(t testing.TB, program Program) *rig {
	t.Helper()
	spec, err := Spec(program, 2)
	require.NoError(t, err)
	coll, err := ebpf.NewCollection(spec)
	require.NoError(t, err, "%+v", err)
	t.Cleanup(coll.Close)
	tables, err := NewTables(coll)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tables.Close()) })
	require.NoError(t, tables.SetEnabled(true))
	require.NoError(t, coll.Maps[XSKMap].Put(uint32(0), uint32(newXSK(t))))
	return &rig{t: t, program: coll.Programs[string(program)], coll: coll, tables: tables}
}

// populate gives the tables, and a model beside them, what the named frames expect.
func populate(t testing.TB, tables *Tables) *model {
	t.Helper()
	require.NoError(t, tables.SetAddress(shared1, Shared))
	require.NoError(t, tables.SetAddress(shared2, Shared))
	require.NoError(t, tables.SetAddress(owned1, Owned))
	require.NoError(t, tables.SetAddress(subnet, Broadcast))
	require.NoError(t, tables.SetAddress(everybody, Broadcast))
	for _, port := range []uint16{0, udpPort, 65535} {
		require.NoError(t, tables.BindPort(UDP, shared1, port))
		require.NoError(t, tables.BindPort(TCP, shared2, port))
	}
	require.NoError(t, tables.BindPort(TCP, shared1, tcpPort))
	require.NoError(t, tables.BindPort(UDP, owned1, 67))
	require.NoError(t, tables.BindICMPID(shared1, echoID))

	m := newModel()
	m.addresses = map[netip.Addr]Kind{shared1: Shared, shared2: Shared, owned1: Owned, subnet: Broadcast, everybody: Broadcast}
	for _, port := range []uint16{0, udpPort, 65535} {
		m.bound[binding{spaceUDP, shared1, port}] = true
		m.bound[binding{spaceTCP, shared2, port}] = true
	}
	m.bound[binding{spaceTCP, shared1, tcpPort}] = true
	m.bound[binding{spaceUDP, owned1, 67}] = true
	m.bound[binding{spaceEcho, shared1, echoID}] = true
	return m
}

// run judges one frame and returns the one reason that was counted.
func (r *rig) run(frame []byte) (action uint32, reason Reason) {
	r.t.Helper()
	action, err := r.program.Run(&ebpf.RunOptions{Data: frame})
	require.NoError(r.t, err)
	after, err := r.tables.Stats()
	require.NoError(r.t, err)
	counted := -1
	for i := range after {
		if after[i] != r.before[i] {
			require.Equal(r.t, r.before[i]+1, after[i], "a frame was counted more than once as %s", Reason(i))
			require.Equal(r.t, -1, counted, "a frame was counted under two reasons")
			counted = i
		}
	}
	require.NotEqual(r.t, -1, counted, "a frame was not counted")
	r.before = after
	return action, Reason(counted)
}

// wants runs a frame and requires the reason, and the action that belongs to it.
func (r *rig) wants(reason Reason, frame []byte, note ...any) {
	r.t.Helper()
	action, got := r.run(frame)
	require.Equal(r.t, reason.String(), got.String(), note...)
	if reason.Steered() {
		require.EqualValues(r.t, xdpRedirect, action, note...)
	} else {
		require.EqualValues(r.t, xdpPass, action, note...)
	}
}

// forget empties the program's memory of fragments.
func (r *rig) forget() {
	r.t.Helper()
	var key bpfKitFragment
	for {
		err := r.coll.Maps[bpfMapFragments].NextKey(nil, &key)
		if err != nil {
			require.ErrorIs(r.t, err, ebpf.ErrKeyNotExist)
			return
		}
		require.NoError(r.t, r.coll.Maps[bpfMapFragments].Delete(&key))
	}
}

// newXSK is an AF_XDP socket with the rings that an XSK map asks for (net/xdp/xsk.c, xsk_is_setup_for_bpf_map). It is
// bound to no card: a test run looks the socket up and sends nothing to it.
func newXSK(t testing.TB) int {
	t.Helper()
	const frames, size = 64, 2048
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	umem, err := unix.Mmap(-1, 0, frames*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(umem)) })

	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&umem[0]))), Len: uint64(len(umem)), Size: size}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	require.Zero(t, errno)
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING} {
		require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_XDP, ring, frames))
	}
	return fd
}
