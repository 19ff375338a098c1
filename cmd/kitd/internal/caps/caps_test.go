package caps

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const all Set = 1<<41 - 1

func TestAfter(t *testing.T) {
	root := State{Permitted: all, Effective: all, Bounding: all}
	service := State{
		Permitted: NetAdmin | NetRaw | BPF, Effective: NetAdmin | NetRaw | BPF,
		Inheritable: NetAdmin | NetRaw | BPF, Bounding: NetAdmin | NetRaw | BPF, Ambient: NetAdmin | NetRaw | BPF,
	}
	for name, c := range map[string]struct {
		before State
		keep   Set
		want   State
	}{
		"root keeps two": {root, NetAdmin | NetBindService, State{
			Permitted: NetAdmin | NetBindService, Effective: NetAdmin | NetBindService,
			Bounding: NetAdmin | NetBindService, NoNewPrivs: true,
		}},
		"without CAP_SETPCAP the bounding set stays": {service, NetAdmin, State{
			Permitted: NetAdmin, Effective: NetAdmin, Bounding: NetAdmin | NetRaw | BPF, NoNewPrivs: true,
		}},
		"nothing is gained": {service, NetAdmin | NetBindService, State{
			Permitted: NetAdmin, Effective: NetAdmin, Bounding: NetAdmin | NetRaw | BPF, NoNewPrivs: true,
		}},
		"nobody has nothing": {State{Bounding: all}, all, State{Bounding: all, NoNewPrivs: true}},
	} {
		require.Equal(t, c.want, c.before.After(c.keep), name)
	}
}

func TestKeep(t *testing.T) {
	modern := Kernel{Major: 6, Minor: 1, BPFRestricted: true}
	require.Equal(t, NetBindService|NetAdmin, Keep(true, modern))
	require.Equal(t, Set(0), Keep(false, modern))
	require.Equal(t, BPF, Keep(false, Kernel{Major: 5, Minor: 18, BPFRestricted: true}))
	require.Equal(t, BPF, Keep(false, Kernel{Major: 5, Minor: 8, BPFRestricted: true}))
	require.Equal(t, SysAdmin, Keep(false, Kernel{Major: 5, Minor: 4, BPFRestricted: true}))
	require.Equal(t, Set(0), Keep(false, Kernel{Major: 5, Minor: 4}))
	require.Equal(t, Set(0), Keep(false, Kernel{Major: 5, Minor: 19, BPFRestricted: true}))
}

func TestRelease(t *testing.T) {
	for text, want := range map[string][2]int{
		"6.18.44-fc": {6, 18}, "5.10.0": {5, 10}, "7.3": {7, 3}, "7": {7, 0}, "": {0, 0}, "odd": {0, 0},
	} {
		major, minor := release(text)
		require.Equal(t, want, [2]int{major, minor}, text)
	}
	require.NotZero(t, ThisKernel().Major)
}

func TestNames(t *testing.T) {
	require.Equal(t, []string{"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"}, (NetAdmin | NetBindService).Names())
	require.Equal(t, []string{"CAP_SETPCAP", "CAP_PERFMON", "CAP_BPF", "CAP_63"}, (BPF | Perfmon | SetPCap | 1<<63).Names())
	require.Equal(t, []string{}, Set(0).Names())
	require.Equal(t, "none", Set(0).String())
	require.Equal(t, "CAP_NET_RAW,CAP_IPC_LOCK,CAP_SYS_ADMIN", (NetRaw | IPCLock | SysAdmin).String())
}

func TestParse(t *testing.T) {
	s, err := parse(strings.NewReader("Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t0000000000003000\nCapEff:\t0000000000001000\n" +
		"CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000400\nNoNewPrivs:\t1\n"))
	require.NoError(t, err)
	require.Equal(t, State{Permitted: NetAdmin | NetRaw, Effective: NetAdmin, Bounding: all, Ambient: NetBindService, NoNewPrivs: true}, s)
	_, err = parse(strings.NewReader("CapInh:\tzz\n"))
	require.EqualError(t, err, `capabilities of this process can't be read: CapInh is "zz", not a hexadecimal number`)
	_, err = parse(strings.NewReader("Name:\tx\n"))
	require.EqualError(t, err, "capabilities of this process can't be read: /proc has no such lines")
	_, err = Current()
	require.NoError(t, err)
}

// TestDrop drops in a process of its own, built without cgo as kitd is: what is
// dropped is gone from every thread, also from ones that sleep in a system call.
func TestDrop(t *testing.T) {
	if os.Getenv("KIT_TEST_DROP") != "" {
		dropAndLook(t)
		return
	}
	binary := filepath.Join(t.TempDir(), "caps.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	child := exec.Command(binary, "-test.run", "^TestDrop$")
	child.Env = append(os.Environ(), "KIT_TEST_DROP=1")
	out, err = child.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func dropAndLook(t *testing.T) {
	before, err := Current()
	require.NoError(t, err)
	for range 4 {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer w.Close()
		go func() { _, _ = os.NewFile(r.Fd(), "blocking").Read(make([]byte, 1)) }() // Fd makes it block a thread
	}
	require.Eventually(t, func() bool {
		tasks, err := filepath.Glob("/proc/self/task/*/status")
		return err == nil && len(tasks) > 4
	}, 10*time.Second, time.Millisecond, "the readers have a thread each")
	after, err := Drop(NetAdmin)
	require.NoError(t, err)
	require.Equal(t, before.After(NetAdmin), after)
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	require.NoError(t, err)
	for _, task := range tasks {
		f, err := os.Open(task)
		require.NoError(t, err)
		s, err := parse(f)
		f.Close()
		require.NoError(t, err)
		require.Equal(t, after, s, task)
	}
	again, err := Drop(NetAdmin)
	require.NoError(t, err)
	require.Equal(t, after.Permitted, again.Permitted)
}
