// Package demo shows kitd at work on a veth pair of its own: kitd at one end, the
// kernel's own clients at the other, and what they get from it against what they
// get from the kernel.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// Options say how to run.
type Options struct {
	// Self is the command line that runs kitd; 'run' and KernelEcho are put behind
	// it.
	Self     []string
	Out      io.Writer
	Terminal bool // Out is one: lines may be written over
}

// KernelEcho is the hidden command that answers with the kernel's sockets.
const KernelEcho = "demo-kernel-echo"

// How long each load runs, and how often kit and the kernel take turns.
const (
	rounds   = 2
	loadTime = 3 * time.Second
	oneTime  = 2 * time.Second
	echoPort = 7
)

// show is a running demonstration.
type show struct {
	options Options
	screen  *screen
	lab     *netlab.Lab
	// address is the kernel's, which kit shares; owned is one that only kit has.
	address, owned netip.Addr
	directory      string // of the control socket
	kit, kernel    figures
}

// Run runs the demonstration to its end, in less than a minute, or until ctx
// ends. Nothing stays behind, and what an earlier one left that was killed is
// removed.
func Run(ctx context.Context, o Options) (err error) {
	if err := needs(); err != nil {
		return err
	}
	s := &show{options: o, screen: newScreen(o.Out, o.Terminal)}
	if err := s.prepare(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.clean()) }()
	err = s.play(ctx)
	if ctx.Err() != nil {
		return errors.New("the demonstration was interrupted; nothing of it is left")
	}
	return err
}

// needs says what the demonstration takes and is not there.
func needs() error {
	if os.Geteuid() != 0 {
		return errors.New("the demonstration needs root, because it makes two network namespaces and a veth pair and attaches XDP " +
			"(CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF): run sudo kitd demo")
	}
	if _, err := exec.LookPath("ping"); err != nil {
		return fmt.Errorf("the demonstration needs ping: %w; install it (apt-get install iputils-ping)", err)
	}
	return nil
}

// prepare makes the namespaces, the cable and a place for the control socket.
func (s *show) prepare() (err error) {
	reapDirectories()
	offloads := netlab.TxChecksum | netlab.TSO | netlab.GSO // as a kernel has them by itself
	s.lab, err = netlab.New(netlab.Options{Left: netlab.Side{Offloads: offloads}, Right: netlab.Side{Offloads: offloads}})
	if err != nil {
		return fmt.Errorf("the demonstration's namespaces can't be made: %w", err)
	}
	if s.directory, err = os.MkdirTemp("", directoryPrefix+strconv.Itoa(os.Getpid())+"-"); err != nil {
		return errors.Join(fmt.Errorf("the demonstration has no place for a control socket: %w", err), s.lab.Close())
	}
	s.address = s.lab.Left.Addr()
	last := s.address.As4()
	last[3] = 5
	s.owned = netip.AddrFrom4(last)
	return nil
}

// directoryPrefix begins the names of the directories: kitd-demo-PID-RANDOM.
const directoryPrefix = "kitd-demo-"

// reapDirectories removes the directories of demonstrations that were killed.
func reapDirectories() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), directoryPrefix+"*"))
	for _, directory := range left {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(directory), directoryPrefix), "-")
		if pid, err := strconv.Atoi(text); err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = os.RemoveAll(directory) // what can't be removed is tried again next time
		}
	}
}

// clean removes everything; it kills what still runs.
func (s *show) clean() error {
	return errors.Join(s.lab.Close(), os.RemoveAll(s.directory))
}

// play shows one thing after the other.
func (s *show) play(ctx context.Context) error {
	s.introduce()
	for round := range rounds {
		d, err := s.startKitd(ctx, "--serve", fmt.Sprintf("udp-echo=:%d", echoPort))
		if err != nil {
			return err
		}
		if round == 0 {
			err = s.besides(ctx, d)
		}
		if err == nil {
			err = s.load(ctx, "kit", &s.kit, d)
		}
		if err != nil {
			return d.because(err)
		}
		if round == 0 {
			err = s.kill(ctx, d)
		} else {
			err = s.stop(ctx, d)
		}
		if err != nil {
			return err
		}
		if err := s.loadKernel(ctx); err != nil {
			return err
		}
	}
	if err := s.own(ctx); err != nil {
		return err
	}
	return s.summarize()
}

func (s *show) introduce() {
	s.screen.line("")
	s.screen.line("  namespace right                    namespace left")
	s.screen.line("  the kernel's clients ── %s ═══ veth ═══ %s ── kitd on %s, UDP port %d",
		s.lab.Right.Interface(), s.lab.Left.Interface(), s.address, echoPort)
	s.screen.line("  %s                               └─ all else: the kernel", s.lab.Right.Addr())
	s.screen.line("")
}

// besides shows that the kernel keeps the rest of the card.
func (s *show) besides(ctx context.Context, d *kitd) error {
	s.screen.done("kitd shares %s: XDP %s, frames by %s, ready after %d ms", s.address, d.status.Attach.InUse, d.status.Copy.InUse,
		d.readyAfter.Milliseconds())
	if err := s.ping(ctx, s.address, "the kernel answers ping beside it", 50, 56); err != nil {
		return err
	}
	conn, err := s.lab.Left.ListenPacket("udp", netip.AddrPortFrom(s.address, 5000).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	asker, err := s.lab.Right.Dial(ctx, "udp", netip.AddrPortFrom(s.address, 5000).String())
	if err != nil {
		return err
	}
	defer asker.Close()
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err = asker.Write([]byte("for the kernel")); err == nil {
		_, _, err = conn.ReadFrom(make([]byte, 100))
	}
	if err != nil {
		return fmt.Errorf("a kernel service on another port of the same address got nothing: %w", err)
	}
	s.screen.done("a kernel service on UDP port 5000 of the same address works as before")
	if other, err := s.lab.Left.ListenPacket("udp", netip.AddrPortFrom(s.address, echoPort).String()); err == nil {
		other.Close()
		return fmt.Errorf("a kernel program could bind port %d, which is kit's", echoPort)
	} else if errors.Is(err, unix.EADDRINUSE) {
		s.screen.done("a kernel program that wants port %d is told: address already in use", echoPort)
	}
	return nil
}

// ping has the kernel's ping ask an address.
func (s *show) ping(ctx context.Context, to netip.Addr, what string, count, size int) error {
	out, err := s.lab.Right.Run(ctx, "ping", "-q", "-c", strconv.Itoa(count), "-i", "0.01", "-s", strconv.Itoa(size), to.String())
	if err != nil {
		return fmt.Errorf("ping of %s is not answered: %w", to, err)
	}
	s.screen.done("%s: %d of %d came back%s", what, count, count, average(string(out)))
	return nil
}

// average finds ping's average in its last line: rtt min/avg/max/mdev = a/b/c/d
// ms.
func average(out string) string {
	_, times, ok := strings.Cut(out, "mdev = ")
	parts := strings.Split(times, "/")
	if !ok || len(parts) < 2 {
		return ""
	}
	return ", " + parts[1] + " ms on average"
}

// kill ends kitd as nobody should, and shows that the kernel is back.
func (s *show) kill(ctx context.Context, d *kitd) error {
	start := time.Now()
	d.kill()
	server, err := s.startKernelEcho()
	if err != nil {
		return err
	}
	defer server.stop()
	conn, err := s.lab.Right.Dial(ctx, "udp", netip.AddrPortFrom(s.address, echoPort).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := awaitAnswer(ctx, conn); err != nil {
		return fmt.Errorf("after kill -9 of kitd the kernel does not answer on port %d: %w", echoPort, err)
	}
	s.screen.done("kill -9 of kitd: a kernel server has port %d and answers %d ms later", echoPort, time.Since(start).Milliseconds())
	return nil
}

// awaitAnswer asks until somebody answers.
func awaitAnswer(ctx context.Context, conn net.Conn) error {
	const patience = 5 * time.Second
	b := make([]byte, 100)
	for start := time.Now(); time.Since(start) < patience && ctx.Err() == nil; {
		_, _ = conn.Write([]byte("who is there?")) // a refusal comes back until somebody is
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		if n, err := conn.Read(b); err == nil && n > 0 {
			return nil
		}
	}
	return errors.Join(ctx.Err(), fmt.Errorf("no answer in %v", patience))
}

// stop ends kitd in order.
func (s *show) stop(ctx context.Context, d *kitd) error {
	start := time.Now()
	if err := d.stop(ctx); err != nil {
		return err
	}
	s.screen.done("kitd stops in order on SIGTERM, in %d ms", time.Since(start).Milliseconds())
	return nil
}

// own shows an address that the kernel does not have.
func (s *show) own(ctx context.Context) error {
	d, err := s.startKitd(ctx, "--address", netip.PrefixFrom(s.owned, 24).String())
	if err != nil {
		return err
	}
	if err := s.askOwned(ctx); err != nil {
		return d.because(err)
	}
	return s.stop(ctx, d)
}

func (s *show) askOwned(ctx context.Context) error {
	s.screen.line("")
	if _, err := exec.LookPath("arping"); err == nil {
		_, err := s.lab.Right.Run(ctx, "arping", "-c", "2", "-W", "0.1", "-I", s.lab.Right.Interface(), s.owned.String())
		if err != nil {
			_, err = s.lab.Right.Run(ctx, "arping", "-c", "2", "-I", s.lab.Right.Interface(), s.owned.String()) // iputils' has no -W 0.1
		}
		if err != nil {
			return fmt.Errorf("arping of the owned address %s is not answered: %w", s.owned, err)
		}
		s.screen.done("kitd owns %s, which the kernel does not have: kit answers arping", s.owned)
	}
	if err := s.ping(ctx, s.owned, "kit answers ping", 50, 56); err != nil {
		return err
	}
	return s.ping(ctx, s.owned, "and ping -s 60000, in 41 fragments each way", 5, 60000)
}
