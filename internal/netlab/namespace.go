package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of a laboratory.
type Namespace struct {
	// Name is the file under /run/netns, for `ip netns exec`.
	Name string
	// Ends are the namespace's ends of cables, in the order of Connect.
	Ends []*End

	label string
	fd    int
	inode uint64
	links *netlink.Handle // not to be used once closed: it would open sockets anew, in the machine's own namespace

	mu      sync.Mutex
	starter chan func() // to the thread that starts processes; nil until the first
	stopped chan struct{}
	losses  []*Loss
	closed  bool
}

// newNamespace makes a named namespace with lo up and IPv6 off.
func newNamespace(name, label string) (*Namespace, error) {
	if err := createNamed(name); err != nil {
		return nil, fmt.Errorf("netlab: make network namespace %s: %w%s", name, err, hint(err))
	}
	n := &Namespace{Name: name, label: label, fd: -1}
	if err := n.open(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// hint tells what to do about a missing privilege.
func hint(err error) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "; run as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)"
	}
	return ""
}

// open fills in the descriptors and sets the namespace up.
func (n *Namespace) open() (err error) {
	n.fd, err = unix.Open(n.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("netlab: open %s: %w", n.Path(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return fmt.Errorf("netlab: stat %s: %w", n.Path(), err)
	}
	n.inode = st.Ino
	n.links, err = netlink.NewHandleAt(netns.NsHandle(n.fd), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlab: open netlink in %s: %w", n.Name, err)
	}
	for _, scope := range []string{"all", "default"} {
		// A kernel without IPv6 has no such file and nothing to switch off.
		err := n.Sysctl("net.ipv6.conf."+scope+".disable_ipv6", "1")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	lo, err := n.links.LinkByName("lo")
	if err == nil {
		err = n.links.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("netlab: set lo of %s up: %w", n.Name, err)
	}
	return nil
}

func (n *Namespace) newEnd(side Side) *End {
	return &End{
		Interface: n.label + strconv.Itoa(len(n.Ends)), Addresses: side.Addresses, ns: n, offloads: side.Offloads,
	}
}

// Path returns the namespace's file, to setns to.
func (n *Namespace) Path() string { return filepath.Join(runDir, n.Name) }

// Interface returns the name of the first end.
func (n *Namespace) Interface() string { return n.Ends[0].Interface }

// Index returns the interface index of the first end.
func (n *Namespace) Index() int { return n.Ends[0].Index }

// HardwareAddr returns the Ethernet address of the first end.
func (n *Namespace) HardwareAddr() net.HardwareAddr { return n.Ends[0].HardwareAddr }

// Addr returns the first address of the first end, the zero Addr where it has none.
func (n *Namespace) Addr() netip.Addr { return n.Ends[0].Addr() }

// Links returns a netlink handle inside the namespace. It is the namespace's own: do not close it.
func (n *Namespace) Links() *netlink.Handle { return n.links }

// Do runs f on an OS thread inside the namespace and returns its error. Sockets that f makes stay in the namespace
// wherever they are used later; goroutines that f starts run outside. A thread that can't go back ends with the call.
func (n *Namespace) Do(f func() error) error {
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return fmt.Errorf("netlab: enter %s: the laboratory is closed", n.Name)
	}
	var err error
	finished := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, openErr := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if openErr != nil {
			err, finished = fmt.Errorf("netlab: open own network namespace: %w", openErr), true
			return
		}
		defer unix.Close(home)
		if setErr := unix.Setns(n.fd, unix.CLONE_NEWNET); setErr != nil {
			err, finished = fmt.Errorf("netlab: enter %s: %w%s", n.Name, setErr, hint(setErr)), true
			return
		}
		defer func() {
			// A goroutine that ends while locked takes its thread with it.
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = f()
		finished = true
	}()
	<-done
	if !finished {
		// f called runtime.Goexit, as a failing test does: end the caller too.
		runtime.Goexit()
	}
	return err
}

// Sysctl writes a setting of the namespace, named with dots: net.ipv4.icmp_ratelimit.
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error {
		path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("netlab: set %s to %s in %s: %w", name, value, n.Name, err)
		}
		return nil
	})
}

// Listen returns a kernel listener inside the namespace; arguments as net.Listen.
func (n *Namespace) Listen(network, address string) (ln net.Listener, err error) {
	err = n.Do(func() (err error) {
		ln, err = net.Listen(network, address)
		return err
	})
	return ln, err
}

// ListenPacket returns a kernel packet socket inside the namespace; arguments as net.ListenPacket. For "udp" it is a
// *net.UDPConn.
func (n *Namespace) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	err = n.Do(func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}

// Dial returns a kernel connection from inside the namespace; arguments as net.Dialer.DialContext, the address a literal.
func (n *Namespace) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Start starts the command inside the namespace, with the namespace's own /sys. The process is killed when its maker
// dies, however that happens, and when the laboratory closes; the caller waits for it as usual.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if cmd.Dir == "" {
		// The starting thread has a working directory of its own, which does not follow os.Chdir.
		dir, err := os.Getwd()
		if err != nil {
			return fmt.Errorf("netlab: start %s in %s: %w", cmd.Path, n.Name, err)
		}
		cmd.Dir = dir
	}
	result := make(chan error, 1)
	if err := n.onStarter(func() { result <- cmd.Start() }); err != nil {
		return err
	}
	if err := <-result; err != nil {
		return fmt.Errorf("netlab: start %s in %s: %w", cmd.Path, n.Name, err)
	}
	return nil
}

// Run runs a program inside the namespace to its end and returns its standard output; what it wrote to standard error is
// in the error.
func (n *Namespace) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := n.Start(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return out.Bytes(), fmt.Errorf("netlab: %s in %s: %w: %s", strings.Join(cmd.Args, " "), n.Name, err,
			bytes.TrimSpace(errOut.Bytes()))
	}
	return out.Bytes(), nil
}

// Command returns a command that enters the namespace by `ip netns exec`, for whoever must start it elsewhere than with
// Start (a shell line, a terminal). The laboratory's Close kills it if it still runs.
func (n *Namespace) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// onStarter runs f on the thread that starts this namespace's processes. All are started by one thread that lives as long
// as the laboratory, because the kernel sends a process its parent-death signal when the thread dies that made it.
func (n *Namespace) onStarter(f func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return fmt.Errorf("netlab: start a process in %s: the laboratory is closed", n.Name)
	}
	if n.starter == nil {
		work, ready, stopped := make(chan func()), make(chan error, 1), make(chan struct{})
		go n.serve(work, ready, stopped)
		if err := <-ready; err != nil {
			return err
		}
		n.starter, n.stopped = work, stopped
	}
	n.starter <- f
	return nil
}

// serve is the starter's thread. It never goes back to the Go runtime: it has a mount namespace of its own.
func (n *Namespace) serve(work <-chan func(), ready chan<- error, stopped chan<- struct{}) {
	defer close(stopped)
	runtime.LockOSThread()
	if err := n.move(); err != nil {
		ready <- fmt.Errorf("netlab: enter %s to start processes: %w%s", n.Name, err, hint(err))
		return
	}
	ready <- nil
	for f := range work {
		f()
	}
}

// move puts the calling thread into the namespace and gives it a /sys that shows the namespace's links, as `ip netns
// exec` does.
func (n *Namespace) move() error {
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "none", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return unix.Mount(n.Name, "/sys", "sysfs", 0, "")
}

// close kills what runs inside, removes the links and the namespace's name.
func (n *Namespace) close() error {
	n.mu.Lock()
	n.closed = true
	starter, stopped, losses := n.starter, n.stopped, n.losses
	n.losses = nil
	n.mu.Unlock()

	var errs []error
	for _, l := range losses {
		errs = append(errs, l.release())
	}
	if n.inode != 0 {
		killAll(n.inode)
	}
	if starter != nil {
		close(starter)
		<-stopped
	}
	if n.links != nil {
		// Named explicitly: a descriptor that someone still holds would keep the namespace and its links alive.
		for _, e := range n.Ends {
			var gone netlink.LinkNotFoundError
			link, err := n.links.LinkByName(e.Interface)
			if err == nil {
				err = n.links.LinkDel(link)
			}
			if err != nil && !errors.As(err, &gone) && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("netlab: remove %s: %w", e.Interface, err))
			}
		}
		n.links.Close()
	}
	if n.fd >= 0 {
		unix.Close(n.fd)
	}
	if err := deleteNamed(n.Name); err != nil {
		errs = append(errs, fmt.Errorf("netlab: remove network namespace %s: %w", n.Name, err))
	}
	return errors.Join(errs...)
}
