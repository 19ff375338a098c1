package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// patience bounds every wait of these tests; nothing is measured by it.
const patience = 20 * time.Second

// binary is kitd, built as it is released: without cgo.
var binary string

func TestMain(m *testing.M) {
	directory, err := os.MkdirTemp("", "kitd-test-")
	if err == nil {
		err = os.Chmod(directory, 0o755) // a test runs it as nobody
	}
	if err == nil {
		binary = filepath.Join(directory, "kitd")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	status := 1
	if err == nil {
		status = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "kitd can't be built:", err)
	}
	_ = os.RemoveAll(directory)
	os.Exit(status)
}

// process is a kitd in a namespace.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	control string
	mu      sync.Mutex
	stderr  bytes.Buffer
	ended   chan struct{}
	status  error
}

// Write collects what the process says.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.Write(b)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// start runs 'kitd run' on a namespace's card and waits until it serves.
func start(t *testing.T, in *netlab.Namespace, args ...string) *process {
	t.Helper()
	p := launch(t, in, nil, args...)
	p.ready()
	return p
}

// launch runs 'kitd run' on a namespace's card.
func launch(t *testing.T, in *netlab.Namespace, attributes *syscall.SysProcAttr, args ...string) *process {
	t.Helper()
	directory, err := os.MkdirTemp("", "kitd-") // t.TempDir's names are too long for a socket
	require.NoError(t, err)
	require.NoError(t, os.Chmod(directory, 0o777))
	p := &process{t: t, control: filepath.Join(directory, "c.sock"), ended: make(chan struct{})}
	p.cmd = exec.Command(binary, append([]string{"run", "-i", in.Interface(), "--control", p.control}, args...)...)
	p.cmd.Stderr, p.cmd.SysProcAttr = p, attributes
	require.NoError(t, in.Start(p.cmd))
	go func() {
		p.status = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("kitd said:\n%s", p.log())
		}
		require.NoError(t, os.RemoveAll(directory))
	})
	return p
}

func (p *process) ready() {
	p.t.Helper()
	p.says("kitd: ready\n")
}

// says waits until the log holds a text.
func (p *process) says(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		select {
		case <-p.ended:
			require.Contains(p.t, p.log(), text, "kitd has ended")
		default:
		}
		return strings.Contains(p.log(), text)
	}, patience, 5*time.Millisecond, "kitd does not say %q", text)
}

// wait returns the exit status.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		require.Fail(p.t, "kitd does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop wants an orderly end.
func (p *process) stop() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(p.t, p.wait(), p.log())
	entries, err := os.ReadDir(filepath.Dir(p.control))
	require.NoError(p.t, err)
	require.Empty(p.t, entries, "the control socket is gone")
}

// ask runs a noun or verb of the command line against this kitd.
func (p *process) ask(args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	return command(p.t, append(args, "--control", p.control)...)
}

// command runs kitd to its end.
func command(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return finish(t, exec.CommandContext(ctx, binary, args...), (*exec.Cmd).Start)
}

// commandIn runs kitd in a namespace to its end.
func commandIn(t *testing.T, in *netlab.Namespace, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return finish(t, exec.Command(binary, args...), in.Start)
}

func finish(t *testing.T, cmd *exec.Cmd, start func(*exec.Cmd) error) (stdout, stderr string, status int) {
	t.Helper()
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	require.NoError(t, start(cmd))
	_ = cmd.Wait() // the status says it
	return out.String(), complaint.String(), cmd.ProcessState.ExitCode()
}

// noun reads a noun as JSON.
func noun[T any](p *process, name string, args ...string) (document T) {
	p.t.Helper()
	out, complaint, status := p.ask(append([]string{name, "-o", "json"}, args...)...)
	require.Contains(p.t, []int{0, 3}, status, complaint)
	require.NoError(p.t, json.Unmarshal([]byte(out), &document), "%s", out)
	return document
}

// client is a UDP socket of the kernel in a namespace, towards an address.
func client(t *testing.T, in *netlab.Namespace, address string) net.Conn {
	t.Helper()
	conn, err := in.Dial(t.Context(), "udp", address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// answer sends a text and returns what comes back within a moment, "" for
// nothing or a refusal.
func answer(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Second)))
	if _, err := conn.Write([]byte(text)); err != nil {
		return ""
	}
	b := make([]byte, 65536)
	n, err := conn.Read(b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// wantAnswer wants text echoed, and is patient while a change takes effect.
func wantAnswer(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return answer(t, conn, text) == text }, patience, 5*time.Millisecond,
		"%s does not echo %q", conn.RemoteAddr(), text)
}

// kernelEcho is an echo service on the kernel's sockets.
func kernelEcho(t *testing.T, in *netlab.Namespace, address string) {
	t.Helper()
	conn, err := in.ListenPacket("udp", address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(append([]byte("kernel: "), b[:n]...), from)
		}
	}()
}
