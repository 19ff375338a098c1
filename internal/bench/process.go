package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"kitnet.dev/kit/internal/netlab"
)

const (
	// readyPatience is how long a subject may take until it serves.
	readyPatience = 20 * time.Second
	// replyPatience is how long a subject, which may be under flood on a busy core, may take for its counters.
	replyPatience = 10 * time.Second
)

// process is a running subject.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  chan string // what it says, closed at its end
	stderr *bytes.Buffer
}

// reading is a subject's counters at one moment.
type reading struct {
	Received, Sent   uint64
	At, User, System time.Duration // CLOCK_MONOTONIC; CPU time used since the process began
	More             []float64     // see child.Counters
}

// startProcess starts a subject in the namespace and waits until it serves.
func startProcess(ctx context.Context, ns *netlab.Namespace, cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, lines: make(chan string), stderr: &bytes.Buffer{}}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("bench: make a pipe: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("bench: make a pipe: %w", err)
	}
	cmd.Stderr = p.stderr
	if err := ns.Start(cmd); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.lines)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
	line, err := p.line(ctx, readyPatience)
	if err == nil && line != "ready" {
		err = fmt.Errorf("bench: the subject says %q instead of ready", line)
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// line returns the next line that the subject says.
func (p *process) line(ctx context.Context, patience time.Duration) (string, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case line, ok := <-p.lines:
		if !ok {
			return "", errors.New("bench: the subject has ended")
		}
		return line, nil
	case <-timer.C:
		return "", fmt.Errorf("bench: the subject says nothing for %v", patience)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// read asks for the subject's counters.
func (p *process) read(ctx context.Context) (r reading, err error) {
	if _, err := io.WriteString(p.stdin, "\n"); err != nil {
		return r, fmt.Errorf("bench: ask the subject for its counters: %w", err)
	}
	line, err := p.line(ctx, replyPatience)
	if err != nil {
		return r, err
	}
	if _, err := fmt.Sscanf(line, "%d %d %d %d %d", &r.Received, &r.Sent, &r.At, &r.User, &r.System); err != nil {
		return r, fmt.Errorf("bench: the subject's counters are %q: %w", line, err)
	}
	for _, more := range strings.Fields(line)[5:] {
		n, err := strconv.ParseFloat(more, 64)
		if err != nil {
			return r, fmt.Errorf("bench: the subject's counters are %q: %w", line, err)
		}
		r.More = append(r.More, n)
	}
	return r, nil
}

// stop ends the subject and returns an error if it had ended by itself.
func (p *process) stop() error {
	closeErr := p.stdin.Close()
	kill := time.AfterFunc(replyPatience, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	for range p.lines { // until it has ended
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("bench: the subject: %w: %s", err, strings.TrimSpace(p.stderr.String()))
	}
	if closeErr != nil && !errors.Is(closeErr, os.ErrClosed) {
		return fmt.Errorf("bench: close the subject's input: %w", closeErr)
	}
	return nil
}
