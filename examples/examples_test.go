package examples

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/netlab"
)

// patience is how long a client may take.
const patience = 2 * time.Minute

// binaries is where the examples lie when they are built.
var binaries string

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "kit-examples-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(binaries)
	os.Exit(status)
}

// built builds all examples once.
var built = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-o", binaries+"/", "./...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// A program is an example, or another program, that runs.
type program struct {
	*exec.Cmd
	mu   sync.Mutex
	said bytes.Buffer
	news chan struct{} // there is more
	done chan struct{} // it has said all
}

// start runs an example until the test ends, which wants it to stop in order when asked to.
func start(t *testing.T, n *netlab.Namespace, name string, args ...string) *program {
	t.Helper()
	require.NoError(t, built())
	return watch(t, n, filepath.Join(binaries, name), args...)
}

// watch is start for any program.
func watch(t *testing.T, n *netlab.Namespace, name string, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(name, args...), news: make(chan struct{}, 1), done: make(chan struct{})}
	out, in, err := os.Pipe()
	require.NoError(t, err)
	p.Stdout, p.Stderr = in, in
	require.NoError(t, n.Start(p.Cmd))
	require.NoError(t, in.Close())
	go func() {
		defer close(p.done)
		defer out.Close()
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			p.mu.Lock()
			p.said.WriteString(line)
			p.mu.Unlock()
			select {
			case p.news <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { p.stop(t) })
	return p
}

// text is what the program has said so far.
func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// wants waits until the program has said something.
func (p *program) wants(t *testing.T, what string) {
	t.Helper()
	limit := time.After(patience)
	for !strings.Contains(p.text(), what) {
		select {
		case <-p.news:
		case <-p.done:
			require.Contains(t, p.text(), what, "and it has ended")
		case <-limit:
			require.Contains(t, p.text(), what)
		}
	}
}

// stop asks the program to end, and wants it to do so without complaint.
func (p *program) stop(t *testing.T) {
	t.Helper()
	if p.ProcessState != nil {
		return
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.done
	require.NoError(t, p.Wait(), "%s", p.text())
}

// serve starts an example that serves on the right end of the laboratory's cable, and waits until it says so.
func serve(t *testing.T, lab *netlab.Lab, name string, args ...string) *program {
	t.Helper()
	p := start(t, lab.Right, name, append([]string{"-i", lab.Right.Interface()}, args...)...)
	p.wants(t, "serving")
	return p
}

// client runs a program of another make in a namespace, and returns what it says.
func client(t *testing.T, n *netlab.Namespace, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := n.Run(ctx, name, args...)
	require.NoError(t, err, "%s", out)
	return string(out)
}

// shell is client for a line of bash.
func shell(t *testing.T, n *netlab.Namespace, line string) string {
	t.Helper()
	return client(t, n, "bash", "-o", "pipefail", "-c", line)
}

// background starts a program of another make until the test ends, which takes it away.
func background(t *testing.T, n *netlab.Namespace, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	require.NoError(t, n.Start(cmd))
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed, and says so
	})
}

// answers waits until a server of another make takes TCP connections.
func answers(t *testing.T, n *netlab.Namespace, at netip.AddrPort) {
	t.Helper()
	require.Eventually(t, func() bool {
		c, err := n.Dial(t.Context(), "tcp", at.String())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)
}

// at is an address's text with a port.
func at(n *netlab.Namespace, port uint16) string { return netip.AddrPortFrom(n.Addr(), port).String() }

// transferSize is how many bytes are transferred: KIT_TRANSFER where that is set, such as 1073741824.
func transferSize(t *testing.T, otherwise int64) int64 {
	text := os.Getenv("KIT_TRANSFER")
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err, "KIT_TRANSFER is a number of bytes")
	return n
}

// What a new user sees first: each example is short, and says how to start it.
func TestExamplesSayHowToStart(t *testing.T) {
	mains, err := filepath.Glob("*/main.go")
	require.NoError(t, err)
	require.NotEmpty(t, mains)
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	for _, m := range mains {
		name := filepath.Dir(m)
		text, err := os.ReadFile(m)
		require.NoError(t, err)
		require.Less(t, bytes.Count(text, []byte("\n")), 100, m)
		require.True(t, strings.HasPrefix(string(text), "// "+name+" "), "%s begins with what it is", m)
		require.Contains(t, string(text), "go build -o bin/ ./"+name+" && sudo bin/"+name+" -i eth0", m)

		row := regexp.MustCompile("(?m)^\\| `examples/" + name + "` \\|.*\\| `sudo bin/" + name + "( .*?)` \\|.*$").FindStringSubmatch(string(readme))
		require.NotNil(t, row, "the README's table has %s and how to run it", name)
		require.NoError(t, built())
		help, err := exec.Command(filepath.Join(binaries, name), "-h").CombinedOutput()
		require.NoError(t, err, "%s", help)
		for _, f := range regexp.MustCompile(` (-[a-z]+)`).FindAllStringSubmatch(row[1], -1) {
			require.Contains(t, string(help), "  "+f[1]+" ", "the README names a flag of %s", name)
		}
	}
}
