package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"kitnet.dev/kit/cmd/kitd/internal/control"
)

// child is a process of the demonstration, with what it says on stderr.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	said  bytes.Buffer
	lines chan struct{} // capacity 1: something was said
}

// Write collects what the process says.
func (c *child) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.lines <- struct{}{}:
	default:
	}
	return c.said.Write(b)
}

func (c *child) log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// start runs this program again in the left namespace.
func (s *show) start(args ...string) (*child, error) {
	command := append(append([]string{}, s.options.Self...), args...)
	c := &child{cmd: exec.Command(command[0], command[1:]...), ended: make(chan struct{}), lines: make(chan struct{}, 1)}
	c.cmd.Stderr = c
	if err := s.lab.Left.Start(c.cmd); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // the log says why
		close(c.ended)
	}()
	return c, nil
}

// await waits until the process has said a line.
func (c *child) await(ctx context.Context, line string) error {
	timeout := time.After(10 * time.Second)
	for !strings.Contains(c.log(), line+"\n") {
		select {
		case <-c.lines:
		case <-c.ended:
			return fmt.Errorf("%s ended: %s", strings.Join(c.cmd.Args, " "), strings.TrimSpace(c.log()))
		case <-timeout:
			return fmt.Errorf("%s is not ready after 10 s: %s", strings.Join(c.cmd.Args, " "), strings.TrimSpace(c.log()))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.ended
}

// kitd is a kitd on the left end of the cable.
type kitd struct {
	*child
	client     *control.Client
	status     control.Status // when it was ready
	readyAfter time.Duration
}

// startKitd runs kitd and waits until it serves.
func (s *show) startKitd(ctx context.Context, args ...string) (*kitd, error) {
	path := filepath.Join(s.directory, "kitd.sock")
	start := time.Now()
	c, err := s.start(append([]string{"run", "-i", s.lab.Left.Interface(), "--control", path, "--log-level", "warn"}, args...)...)
	if err != nil {
		return nil, err
	}
	d := &kitd{child: c, client: control.NewClient(path)}
	if err := c.await(ctx, "kitd: ready"); err != nil {
		c.kill()
		return nil, err
	}
	d.readyAfter = time.Since(start)
	d.status, err = ask[control.Status](ctx, d, "status")
	return d, err
}

// ask reads a noun.
func ask[T any](ctx context.Context, d *kitd, noun string) (document T, err error) {
	raw, err := d.client.Get(ctx, noun, nil)
	if err == nil {
		err = json.Unmarshal(raw, &document)
	}
	return document, err
}

// because adds what kitd said to an error.
func (d *kitd) because(err error) error {
	if said := strings.TrimSpace(strings.ReplaceAll(d.log(), "kitd: ready\n", "")); said != "" {
		return fmt.Errorf("%w (kitd said: %s)", err, said)
	}
	return err
}

// stop sends SIGTERM and wants status 0.
func (d *kitd) stop(ctx context.Context) error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("kitd can't be stopped: %w", err)
	}
	select {
	case <-d.ended:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Second):
		d.kill()
		return errors.New("kitd does not stop within 10 s of SIGTERM")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return d.because(fmt.Errorf("kitd ended with status %d after SIGTERM", code))
	}
	return nil
}

// kernelServer is an echo service on the kernel's sockets, in a process of its
// own as kitd is.
type kernelServer struct{ *child }

func (s *show) startKernelEcho() (*kernelServer, error) {
	c, err := s.start(KernelEcho, netip.AddrPortFrom(s.address, echoPort).String())
	return &kernelServer{c}, err
}

func (k *kernelServer) stop() { k.kill() }
