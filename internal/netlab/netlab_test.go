package netlab_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// roleVariable makes a copy of this test binary build a laboratory and wait to be killed.
const roleVariable = "KIT_NETLAB_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "hold" {
		hold()
	}
	os.Exit(m.Run())
}

// hold makes a laboratory with a process in it, prints its names and never ends.
func hold() {
	lab, err := netlab.New(netlab.Options{})
	if err == nil {
		err = lab.Left.Start(exec.Command("sleep", "1000"))
	}
	if err == nil {
		// A grandchild, which no parent-death signal reaches.
		_, err = lab.Right.Run(context.Background(), "sh", "-c", "sleep 1001 >/dev/null 2>&1 &")
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(lab.Left.Name, lab.Right.Name)
	select {}
}

func namespaces(t *testing.T) []string {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// exchange sends a datagram from one namespace's kernel to the other's and returns what came.
func exchange(t *testing.T, from, to *netlab.Namespace, addr netip.Addr, payload []byte) []byte {
	server, err := to.ListenPacket("udp4", netip.AddrPortFrom(addr, 0).String())
	require.NoError(t, err)
	defer server.Close()
	client, err := from.Dial(context.Background(), "udp4", server.LocalAddr().String())
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write(payload)
	require.NoError(t, err)
	require.NoError(t, server.SetReadDeadline(time.Now().Add(5*time.Second)))
	buf := make([]byte, 65536)
	n, _, err := server.ReadFrom(buf)
	require.NoError(t, err)
	return buf[:n]
}

func TestLabCarriesDatagramsBothWays(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	require.Equal(t, "10.77.0.1", lab.Left.Addr().String())
	require.Equal(t, "10.77.0.2", lab.Right.Addr().String())
	require.Equal(t, []byte("ping"), exchange(t, lab.Left, lab.Right, lab.Right.Addr(), []byte("ping")))
	require.Equal(t, []byte("pong"), exchange(t, lab.Right, lab.Left, lab.Left.Addr(), []byte("pong")))
	require.Equal(t, []byte("lo"), exchange(t, lab.Left, lab.Left, netip.MustParseAddr("127.0.0.1"), []byte("lo")), "lo is up")
}

func TestLabIsBuiltAsAsked(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{
		MTU: 3000, Queues: 3, Neighbors: true,
		Left: netlab.Side{
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("198.51.100.1/24")},
			Offloads:  netlab.TxChecksum,
		},
		Right: netlab.Side{Addresses: []netip.Prefix{}, Offloads: netlab.GRO},
	})
	left, right := lab.Left.Ends[0], lab.Right.Ends[0]
	for _, end := range []struct {
		*netlab.End
		ns *netlab.Namespace
	}{{left, lab.Left}, {right, lab.Right}} {
		link, err := end.ns.Links().LinkByIndex(end.Index)
		require.NoError(t, err)
		require.Equal(t, end.Interface, link.Attrs().Name)
		require.Equal(t, 3000, link.Attrs().MTU)
		require.Equal(t, 3, link.Attrs().NumTxQueues)
		require.Equal(t, 3, link.Attrs().NumRxQueues)
		require.Equal(t, end.HardwareAddr, link.Attrs().HardwareAddr)
		require.NoError(t, end.ns.Do(func() error {
			interfaces, err := net.Interfaces()
			require.NoError(t, err)
			require.Len(t, interfaces, 2, "lo and the end, nothing of the machine")
			addrs, err := net.InterfaceAddrs()
			require.NoError(t, err)
			for _, a := range addrs {
				require.NotNil(t, a.(*net.IPNet).IP.To4(), "IPv6 is off, but %v is there", a)
			}
			return nil
		}))
	}
	require.False(t, lab.Right.Addr().IsValid())
	require.Equal(t, "192.0.2.1", lab.Left.Addr().String())

	require.Contains(t, offloads(t, lab.Left), "tx-checksumming: on")
	require.Contains(t, offloads(t, lab.Left), "generic-receive-offload: off")
	require.Contains(t, offloads(t, lab.Left), "tcp-segmentation-offload: off")
	require.Contains(t, offloads(t, lab.Right), "tx-checksumming: off")
	require.Contains(t, offloads(t, lab.Right), "generic-receive-offload: on")
	require.Contains(t, offloads(t, lab.Right), "generic-segmentation-offload: off")
	require.NoError(t, right.SetOffloads(netlab.TxChecksum|netlab.TSO|netlab.GSO))
	require.Contains(t, offloads(t, lab.Right), "tx-checksumming: on")
	require.Contains(t, offloads(t, lab.Right), "tcp-segmentation-offload: on")
	require.Contains(t, offloads(t, lab.Right), "generic-segmentation-offload: on")
	require.Contains(t, offloads(t, lab.Right), "generic-receive-offload: off")

	neighbors, err := lab.Right.Links().NeighList(right.Index, unix.AF_INET)
	require.NoError(t, err)
	require.Len(t, neighbors, 2)
	for _, n := range neighbors {
		require.Equal(t, left.HardwareAddr, n.HardwareAddr)
	}
}

func offloads(t *testing.T, n *netlab.Namespace) string {
	out, err := n.Run(context.Background(), "ethtool", "-k", n.Interface())
	require.NoError(t, err)
	return string(out)
}

func TestMoreNamespacesAndCables(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	third, err := lab.AddNamespace("third")
	require.NoError(t, err)
	a, b, err := lab.Connect(lab.Right, third, netlab.Options{})
	require.NoError(t, err)
	require.Equal(t, "right1", a.Interface)
	require.Equal(t, "third0", b.Interface)
	require.Equal(t, []byte("x"), exchange(t, lab.Right, third, b.Addr(), []byte("x")))

	_, err = lab.AddNamespace("third")
	require.ErrorIs(t, err, os.ErrExist)
	_, err = lab.AddNamespace("../up")
	require.ErrorContains(t, err, "small letters")
	_, _, err = lab.Connect(third, third, netlab.Options{})
	require.ErrorContains(t, err, "itself")
}

func TestTwoLaboratoriesAtOnce(t *testing.T) {
	netlab.NeedRoot(t)
	var wait sync.WaitGroup
	errs := make(chan error, 4)
	for range 4 {
		wait.Go(func() {
			lab, err := netlab.New(netlab.Options{})
			if err == nil {
				_, err = lab.Left.Run(context.Background(), "ip", "addr", "show", "dev", "left0")
				err = errors.Join(err, netlab.Reap(), lab.Close())
			}
			errs <- err
		})
	}
	wait.Wait()
	for range 4 {
		require.NoError(t, <-errs)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	netlab.NeedRoot(t)
	lab, err := netlab.New(netlab.Options{})
	require.NoError(t, err)
	left, right := lab.Left, lab.Right
	loss, err := left.Loss(1, 1, 1)
	require.NoError(t, err)

	child := exec.Command("sleep", "1000")
	require.NoError(t, left.Start(child))
	require.NoError(t, right.Command("sleep", "1000").Start())
	require.NoError(t, lab.Close())
	require.Error(t, child.Wait(), "a process in the laboratory ends with it")
	require.NotContains(t, namespaces(t), left.Name)
	require.NotContains(t, namespaces(t), right.Name)

	require.NoError(t, lab.Close(), "a second Close does nothing")
	require.NoError(t, loss.Close(), "nor does that of a loss")
	require.ErrorContains(t, left.Do(func() error { return nil }), "closed")
	require.ErrorContains(t, left.Start(exec.Command("true")), "closed")
	_, err = left.Loss(1, 1, 1)
	require.ErrorContains(t, err, "closed")
	_, err = lab.AddNamespace("late")
	require.ErrorContains(t, err, "closed")
}

func TestNewRollsBack(t *testing.T) {
	netlab.NeedRoot(t)
	twice := netip.MustParsePrefix("192.0.2.1/24")
	for name, opts := range map[string]netlab.Options{
		"the pair can't be made":     {MTU: 5},
		"an address is refused":      {Right: netlab.Side{Addresses: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/64")}}},
		"an address is given twice":  {Left: netlab.Side{Addresses: []netip.Prefix{twice, twice}}},
		"more queues than there are": {Queues: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := netlab.New(opts)
			require.ErrorContains(t, err, "netlab: ")
			mine := fmt.Sprintf("kitlab-%d-", os.Getpid())
			for _, n := range namespaces(t) {
				require.False(t, strings.HasPrefix(n, mine), "left behind: %s", n)
			}
		})
	}
}

func TestReapAfterKill(t *testing.T) {
	netlab.NeedRoot(t)
	self, err := os.Executable()
	require.NoError(t, err)
	holder := exec.Command(self)
	holder.Env = append(os.Environ(), roleVariable+"=hold")
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, line)
	names := strings.Fields(line)
	require.Len(t, names, 2, line)

	require.NoError(t, netlab.Reap())
	require.Subset(t, namespaces(t), names, "a living process keeps its laboratory")
	inode := inodeOf(t, names[1])
	require.NotEmpty(t, processesIn(t, inode))

	require.NoError(t, holder.Process.Kill())
	_ = holder.Wait() // it was killed, and says so
	var wait sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wait.Go(func() { errs[i] = netlab.Reap() })
	}
	wait.Wait()
	require.NoError(t, errors.Join(errs...), "several at once")
	require.NotContains(t, namespaces(t), names[0])
	require.NotContains(t, namespaces(t), names[1])
	require.Empty(t, processesIn(t, inode))
}

func TestReapTouchesOnlyOurNames(t *testing.T) {
	netlab.NeedRoot(t)
	netlab.Test(t, netlab.Options{}) // makes /run/netns
	for _, name := range []string{"kitlab", "kitlab-x-1-1-left-", "kitlab-", "other-1-1-1-", "kitlab-0-0-x-"} {
		// Ending so that two runs at once do not meet.
		path := filepath.Join("/run/netns", name+strconv.Itoa(os.Getpid()))
		require.NoError(t, os.WriteFile(path, nil, 0o444))
		t.Cleanup(func() { os.Remove(path) })
		require.NoError(t, netlab.Reap())
		require.FileExists(t, path)
	}
	// Process 1 did not start at tick 1.
	half := fmt.Sprintf("/run/netns/kitlab-1-1-1-%d-left", os.Getpid())
	require.NoError(t, os.WriteFile(half, nil, 0o444))
	require.NoError(t, netlab.Reap(), "a name on which nothing was mounted yet")
	require.NoFileExists(t, half)
}

func inodeOf(t *testing.T, name string) uint64 {
	var st unix.Stat_t
	require.NoError(t, unix.Stat("/run/netns/"+name, &st))
	return st.Ino
}

func processesIn(t *testing.T, inode uint64) (pids []string) {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	require.NoError(t, err)
	for _, p := range paths {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && st.Ino == inode {
			pids = append(pids, p)
		}
	}
	return pids
}

func TestDoGoesBack(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own := threadNamespace(t)
	sentinel := errors.New("from inside")
	var inside, nested uint64
	err := lab.Left.Do(func() error {
		inside = threadNamespace(t)
		require.NoError(t, lab.Right.Do(func() error { nested = threadNamespace(t); return nil }))
		require.Equal(t, inside, threadNamespace(t))
		return sentinel
	})
	require.ErrorIs(t, err, sentinel)
	require.Equal(t, own, threadNamespace(t))
	require.Equal(t, inodeOf(t, lab.Left.Name), inside)
	require.Equal(t, inodeOf(t, lab.Right.Name), nested)

	// A test that fails inside Do ends outside, too.
	reached := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = lab.Left.Do(func() error { runtime.Goexit(); return nil })
		reached = true
	}()
	<-done
	require.False(t, reached)
}

func threadNamespace(t *testing.T) uint64 {
	var st unix.Stat_t
	require.NoError(t, unix.Stat("/proc/thread-self/ns/net", &st))
	return st.Ino
}

func TestProcessesSeeTheirNamespace(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	ctx := context.Background()
	out, err := lab.Left.Run(ctx, "ls", "/sys/class/net")
	require.NoError(t, err)
	require.Equal(t, "left0\nlo\n", string(out))
	out, err = lab.Right.Command("ls", "/sys/class/net").Output()
	require.NoError(t, err)
	require.Equal(t, "lo\nright0\n", string(out))

	_, err = lab.Left.Run(ctx, "sh", "-c", "echo nonsense >&2; exit 3")
	require.ErrorContains(t, err, "nonsense")
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.ExitCode())
	_, err = lab.Left.Run(ctx, "/no/such/program")
	require.ErrorIs(t, err, os.ErrNotExist)

	t.Chdir("/")
	out, err = lab.Left.Run(ctx, "pwd")
	require.NoError(t, err)
	require.Equal(t, "/\n", string(out), "the working directory is the caller's, not the starting thread's")

	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	var echoed bytes.Buffer
	cmd.Stdout = &echoed
	require.NoError(t, lab.Left.Start(cmd))
	_, err = io.WriteString(in, "through")
	require.NoError(t, err)
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	require.Equal(t, "through", echoed.String())
}

func TestSysctl(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	require.NoError(t, lab.Right.Sysctl("net.ipv4.ip_forward", "1"))
	for ns, want := range map[*netlab.Namespace]string{lab.Left: "0\n", lab.Right: "1\n"} {
		out, err := ns.Run(context.Background(), "cat", "/proc/sys/net/ipv4/ip_forward")
		require.NoError(t, err)
		require.Equal(t, want, string(out))
	}
	require.ErrorIs(t, lab.Right.Sysctl("net.ipv4.no_such", "1"), os.ErrNotExist)
}

// recorder is a TB that notes what Test and NeedRoot call.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                        {}
func (r *recorder) Skipf(format string, a ...any)  { r.skipped = fmt.Sprintf(format, a...) }
func (r *recorder) Fatalf(format string, a ...any) { r.failed = fmt.Sprintf(format, a...) }

func TestNeedRootSkipsOrFails(t *testing.T) {
	netlab.NeedRoot(t)
	runtime.LockOSThread() // never unlocked: the thread that gave its privilege up ends with the test
	asNobody := func(f func()) {
		// Only this thread: the libc-like call of package syscall would change them all.
		_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0))
		require.Zero(t, e)
		defer func() {
			_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
			require.Zero(t, e)
		}()
		f()
	}
	for noSkip, want := range map[string]recorder{
		"":  {skipped: "needs root for network namespaces and XDP"},
		"1": {failed: "needs root, and KIT_NO_SKIP=1 allows no skip", skipped: "needs root for network namespaces and XDP"},
	} {
		t.Setenv("KIT_NO_SKIP", noSkip)
		var got recorder
		asNobody(func() { netlab.NeedRoot(&got) })
		require.Equal(t, want, got)
	}
}
