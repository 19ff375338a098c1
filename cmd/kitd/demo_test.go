package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// leftovers lists the namespaces and directories of a demonstration's process.
func leftovers(t *testing.T, pid int) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/run/netns/kitlab-%d-*", filepath.Join(os.TempDir(), "kitd-demo-%d-*")} {
		names, err := filepath.Glob(fmt.Sprintf(pattern, pid))
		require.NoError(t, err)
		found = append(found, names...)
	}
	return found
}

// startDemo runs the demonstration until it has said a text.
func startDemo(t *testing.T, until string) (cmd *exec.Cmd, complaint *bytes.Buffer) {
	t.Helper()
	netlab.NeedRoot(t)
	complaint = &bytes.Buffer{}
	cmd = exec.Command(binary, "demo")
	cmd.Stderr = complaint
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), until) {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return cmd, complaint
		}
	}
	_ = cmd.Wait()
	require.Fail(t, "the demonstration ended early", complaint.String())
	return nil, nil
}

func TestDemo(t *testing.T) {
	netlab.NeedRoot(t)
	start := time.Now()
	cmd := exec.Command(binary, "demo")
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	require.NoError(t, cmd.Run(), "%s", &complaint)
	require.Less(t, time.Since(start), time.Minute)
	require.Empty(t, complaint.String())
	for _, text := range []string{
		"kitd shares ", "the kernel answers ping beside it: 50 of 50 came back", "address already in use",
		"kill -9 of kitd: a kernel server has port 7", "kitd stops in order on SIGTERM", "kit answers arping",
		"in 41 fragments each way: 5 of 5 came back", "kit / kernel",
	} {
		require.Contains(t, out.String(), text)
	}
	require.Regexp(t, `UDP echo, 64 at a time, replies/s +[\d,]+ +[\d,]+ +\d+\.\d\d\n`, out.String())
	require.NotContains(t, out.String(), "\x1b", "plain lines where it is no terminal")
	require.Empty(t, leftovers(t, cmd.Process.Pid))
}

func TestDemoInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd, complaint := startDemo(t, "kit, 64 at a time")
		require.NotEmpty(t, leftovers(t, cmd.Process.Pid))
		require.NoError(t, cmd.Process.Signal(signal))
		_ = cmd.Wait()
		require.Equal(t, 1, cmd.ProcessState.ExitCode())
		require.Equal(t, "kitd: the demonstration was interrupted; nothing of it is left\n", complaint.String())
		require.Empty(t, leftovers(t, cmd.Process.Pid))
	}
}

// TestDemoKilled: its kitd dies with it, and the next one removes the rest.
func TestDemoKilled(t *testing.T) {
	killed, _ := startDemo(t, "kit, 64 at a time")
	require.NoError(t, killed.Process.Kill())
	_ = killed.Wait()
	next, _ := startDemo(t, "kitd shares")
	require.Empty(t, leftovers(t, killed.Process.Pid))
	require.NoError(t, next.Process.Signal(syscall.SIGINT))
	_ = next.Wait()
	require.Empty(t, leftovers(t, next.Process.Pid))
}

func TestDemoWithoutRoot(t *testing.T) {
	cmd := exec.Command(binary, "demo")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, 1, cmd.ProcessState.ExitCode())
	require.Contains(t, string(out), "kitd: the demonstration needs root, because ")
	require.Equal(t, 1, strings.Count(string(out), "\n"), "one sentence")
}
