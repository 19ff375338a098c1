package loader

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// holdVariable makes a copy of this test binary open the interface of that name and wait to be killed.
const holdVariable = "KIT_LOADER_TEST_HOLD"

func TestMain(m *testing.M) {
	if name := os.Getenv(holdVariable); name != "" {
		device, err := Open(Config{Interface: name})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("open")
		_ = device.Links()[0].Wait(time.Hour)
		runtime.KeepAlive(device)
	}
	os.Exit(m.Run())
}

// passProgram is somebody else's XDP program, which passes everything.
func passProgram(t testing.TB) *ebpf.Program {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "somebody_elses", Type: ebpf.XDP, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, program.Close()) })
	return program
}

// newClosedRig makes a veth pair and opens nothing yet.
func newClosedRig(t testing.TB, opts netlab.Options) *rig {
	r := &rig{t: t, lab: netlab.Test(t, opts)}
	r.teach(r.lab.Right, ours)
	return r
}

// The refusal names the program, who holds it, and a command that removes it; the command does.
func TestOpenRefusesAnotherProgram(t *testing.T) {
	for name, flags := range map[string]link.XDPAttachFlags{"native": link.XDPDriverMode, "generic": link.XDPGenericMode} {
		t.Run(name+" by link", func(t *testing.T) {
			r := newClosedRig(t, netlab.Options{})
			program := passProgram(t)
			require.NoError(t, r.lab.Left.Do(func() error {
				attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: r.lab.Left.Index(), Flags: flags})
				if err == nil {
					t.Cleanup(func() { require.NoError(t, attached.Close()) })
				}
				return err
			}))
			r.wantRefusal("\"somebody_elses\" ("+name+") held by ", fmt.Sprintf("(pid %d); ", os.Getpid()), "bpftool link detach id ")
		})
		t.Run(name+" by netlink", func(t *testing.T) {
			r := newClosedRig(t, netlab.Options{})
			program := passProgram(t)
			device, err := r.lab.Left.Links().LinkByIndex(r.lab.Left.Index())
			require.NoError(t, err)
			setFlags := map[string]int{"native": unix.XDP_FLAGS_DRV_MODE, "generic": unix.XDP_FLAGS_SKB_MODE}
			require.NoError(t, r.lab.Left.Do(func() error {
				return netlink.LinkSetXdpFdWithFlags(device, program.FD(), setFlags[name])
			}))
			r.wantRefusal("\"somebody_elses\" ("+name+"); ", "ip link set dev left0 xdp")
		})
	}
}

// wantRefusal requires that Open refuses with the given parts, then runs the command that the error ends with and
// requires that Open works after it.
func (r *rig) wantRefusal(parts ...string) {
	r.t.Helper()
	err := r.open(Config{})
	require.ErrorIs(r.t, err, ErrAttached)
	for _, part := range parts {
		require.ErrorContains(r.t, err, part)
	}
	_, command, found := strings.Cut(err.Error(), "or remove it with: ")
	require.True(r.t, found)
	words := strings.Fields(command)
	_, err = r.lab.Left.Run(r.t.Context(), words[0], words[1:]...)
	require.NoError(r.t, err)
	require.NoError(r.t, r.open(Config{}))
}

func TestTwoDevicesOnOneInterface(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	err := r.open(Config{})
	require.ErrorIs(t, err, ErrAttached)
	require.ErrorContains(t, err, "kit_xdp")
}

// Somebody takes the program off: Info tells.
func TestInfoTellsThatTheProgramIsGone(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	require.True(t, r.device.Info().Attached)
	held, err := link.NewFromID(link.ID(r.device.Info().LinkID))
	require.NoError(t, err)
	defer held.Close()
	require.NoError(t, held.Detach())
	require.False(t, r.device.Info().Attached)
	require.True(t, r.device.Info().Present)
}

// The process that holds the program is killed: the kernel takes the program off by itself, and the queues are free.
func TestKillDetaches(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), holdVariable+"="+r.lab.Left.Interface())
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, r.lab.Left.Start(child))
	line := make([]byte, 256)
	n, err := out.Read(line)
	require.NoError(t, err)
	require.Equal(t, "open\n", string(line[:n]))
	require.ErrorContains(t, r.open(Config{}), fmt.Sprintf("(pid %d)", child.Process.Pid), "it is named")

	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	c := r.card()
	r.until(func() bool {
		other, err := c.attachedProgram()
		require.NoError(t, err)
		return other == nil
	}, "the program is still attached")
	require.NoError(t, r.open(Config{}))
	r.wantEcho(3, 100)
}

// card opens the left end for questions.
func (r *rig) card() *card {
	var c *card
	require.NoError(r.t, r.lab.Left.Do(func() (err error) {
		c, err = openCard(r.lab.Left.Interface())
		return err
	}))
	r.t.Cleanup(c.close)
	return c
}

// A bridge's driver has no native XDP: auto falls back to generic and says so, native refuses.
func TestAttachFallsBackLoudly(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	require.NoError(t, r.lab.Left.Links().LinkAdd(bridge))
	require.NoError(t, r.lab.Left.Links().LinkSetUp(bridge))
	open := func(attach AttachMode) (*Device, error) {
		var d *Device
		err := r.lab.Left.Do(func() (err error) {
			d, err = Open(Config{Interface: "br0", Attach: attach, Logger: r.logger()})
			return err
		})
		return d, err
	}
	_, err := open(AttachNative)
	require.ErrorIs(t, err, ErrNoNative)
	require.ErrorIs(t, err, unix.EOPNOTSUPP)
	require.ErrorContains(t, err, "use generic")
	require.Empty(t, r.log.String())

	d, err := open(AttachAuto)
	require.NoError(t, err)
	require.Equal(t, AttachGeneric, d.Info().Attach)
	require.Equal(t, CopyAlways, d.Info().Queues[0].Copy)
	require.Contains(t, r.log.String(), "level=WARN msg=\"native XDP could not be had, falling back to generic")
	require.NoError(t, d.Close())
}

func TestZeroCopyIsRefusedOnVeth(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	err := r.open(Config{Copy: CopyZero})
	require.ErrorIs(t, err, ErrNoZeroCopy)
	require.ErrorContains(t, err, "use copy mode")
	require.ErrorIs(t, r.open(Config{Copy: CopyZero, Attach: AttachGeneric}), ErrNoZeroCopy)

	require.NoError(t, r.open(Config{}))
	require.Contains(t, r.log.String(), "zero-copy could not be had, the kernel copies")
	require.Equal(t, CopyAlways, r.device.Info().Queues[0].Copy)
}

// having runs f inside the left end's namespace on a thread with the given effective capabilities only.
func (r *rig) having(capabilities []int, f func() error) error {
	return r.lab.Left.Do(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var had [2]unix.CapUserData
		if err := unix.Capget(&header, &had[0]); err != nil {
			return err
		}
		some := had
		some[0].Effective, some[1].Effective = 0, 0
		for _, c := range capabilities {
			some[c/32].Effective |= 1 << (c % 32)
		}
		if err := unix.Capset(&header, &some[0]); err != nil {
			return err
		}
		return errors.Join(f(), unix.Capset(&header, &had[0]))
	})
}

// needed are the capabilities that the documentation asks for but CAP_PERFMON. Kernels before 5.11 charge BPF to the
// memlock limit as well.
func needed(t *testing.T) []int {
	needed := []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF, unix.CAP_IPC_LOCK}
	if before(t, KernelVersion{5, 11}) {
		needed = append(needed, unix.CAP_SYS_RESOURCE)
	}
	return needed
}

func TestCapabilitiesThatSuffice(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	require.NoError(t, r.having(append(needed(t), unix.CAP_PERFMON), func() error {
		findings, err := look(r.lab.Left.Interface())
		require.NoError(t, err)
		for _, f := range findings {
			require.Equal(t, OK, f.Severity, "%+v", f)
		}
		d, err := Open(Config{Interface: r.lab.Left.Interface()})
		if err != nil {
			return err
		}
		return d.Close()
	}))
}

// The verifier refuses pointer arithmetic without CAP_PERFMON: the error names it.
func TestMissingPerfmon(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	require.NoError(t, r.having(needed(t), func() error {
		_, err := Open(Config{Interface: r.lab.Left.Interface()})
		require.ErrorIs(t, err, ErrPermission)
		require.ErrorContains(t, err, "CAP_PERFMON")
		return nil
	}))
}

func TestMissingCapabilities(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	require.NoError(t, r.having(nil, func() error {
		_, err := Open(Config{Interface: r.lab.Left.Interface()})
		require.ErrorIs(t, err, ErrPermission)
		require.ErrorIs(t, err, unix.EPERM)
		require.ErrorContains(t, err, "CAP_BPF")

		_, err = openSocket(newUmem(make([]byte, 2048), 2048, 1, 1, 0), 1, 0, ringSizes{rx: 64, tx: 64, fill: 64, completion: 64}, bindMode{})
		require.ErrorIs(t, err, ErrPermission)
		require.ErrorContains(t, err, "CAP_NET_RAW")

		findings, err := look(r.lab.Left.Interface())
		require.NoError(t, err)
		require.Equal(t, Fail, finding(t, findings, "capabilities").Severity)
		require.Contains(t, finding(t, findings, "capabilities").What, "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON")
		return nil
	}))
	require.NoError(t, r.open(Config{}), "the refusals left nothing behind")
}
