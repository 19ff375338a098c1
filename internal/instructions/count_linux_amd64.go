package instructions

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a process may take that is counted.
const patience = 5 * time.Minute

// mark tells the tracer that an interval begins or ends here.
func mark() {
	unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

// A tracer single-steps a process whose threads it all traces.
type tracer struct {
	pid       int
	threads   map[int]bool
	intervals []int
}

// trace runs a program and returns how many instructions each of its intervals had, and what it wrote.
func trace(argv, env []string) (intervals []int, output string, err error) {
	out, err := os.CreateTemp("", "kit-instructions")
	if err != nil {
		return nil, "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	t := &tracer{threads: make(map[int]bool)}
	done := make(chan error)
	go func() {
		// Only the thread that started the program may trace it. It ends with this goroutine.
		runtime.LockOSThread()
		done <- t.run(argv, env, out.Fd())
	}()
	err = <-done
	if _, e := out.Seek(0, io.SeekStart); e != nil {
		err = errors.Join(err, e)
	}
	b, e := io.ReadAll(out)
	return t.intervals, string(b), errors.Join(err, e)
}

func (t *tracer) run(argv, env []string, out uintptr) (err error) {
	t.pid, err = syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Env: env, Files: []uintptr{0, out, out}, Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if err != nil {
		return err
	}
	late := time.AfterFunc(patience, func() { unix.Kill(t.pid, unix.SIGKILL) })
	defer late.Stop()
	status, err := t.follow()
	switch {
	case err != nil:
		unix.Kill(t.pid, unix.SIGKILL)
		return errors.Join(err, t.bury())
	case status.Signaled():
		return fmt.Errorf("the process that was counted ended by signal %v", status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Errorf("the process that was counted ended with status %d", status.ExitStatus())
	}
	return nil
}

// bury waits for the end of a process that was killed.
func (t *tracer) bury() error {
	for {
		var status unix.WaitStatus
		tid, err := wait(-t.pid, &status)
		if err != nil {
			return err
		}
		if tid == t.pid && !status.Stopped() {
			return nil
		}
	}
}

// wait is wait4(2) for a thread, or by minus its group for all threads that this one traces.
func wait(who int, status *unix.WaitStatus) (tid int, err error) {
	for {
		tid, err = unix.Wait4(who, status, unix.WALL|unix.WNOTHREAD, nil)
		if err != unix.EINTR {
			return tid, err
		}
	}
}

// follow lets the process run, and steps through its intervals, until it ends.
func (t *tracer) follow() (status unix.WaitStatus, err error) {
	if _, err = wait(t.pid, &status); err != nil {
		return status, err
	}
	if !status.Stopped() { // at the end of execve
		return status, nil
	}
	if err = unix.PtraceSetOptions(t.pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		return status, err
	}
	t.threads[t.pid] = true
	if err = unix.PtraceCont(t.pid, 0); err != nil {
		return status, err
	}
	for {
		tid, err := wait(-t.pid, &status)
		if err != nil {
			return status, err
		}
		if !status.Stopped() {
			delete(t.threads, tid)
			if tid == t.pid { // the last: the kernel tells of the others first
				return status, nil
			}
			continue
		}
		if t.threads[tid] && status.StopSignal() == unix.SIGSTOP {
			signal, err := t.interval(tid)
			if err != nil {
				return status, err
			}
			t.resume(tid, signal)
			continue
		}
		t.goOn(tid, status)
	}
}

// goOn lets a thread run on that stopped for anything but what we want of it: as it begins, as it makes another, for a signal.
func (t *tracer) goOn(tid int, status unix.WaitStatus) {
	signal := 0
	if t.threads[tid] && status.TrapCause() <= 0 {
		signal = int(status.StopSignal())
	}
	t.threads[tid] = true
	t.resume(tid, signal)
}

// resume fails only for a thread that was killed, of which wait tells.
func (t *tracer) resume(tid, signal int) { _ = unix.PtraceCont(tid, signal) }

// interval steps one thread from where it is to its next mark, while the others stand still.
// It returns the signal that came meanwhile, which has to wait.
func (t *tracer) interval(tid int) (signal int, err error) {
	for other := range t.threads {
		if other != tid {
			if err = t.freeze(other); err != nil {
				return 0, err
			}
		}
	}
	n, signal, err := steps(tid)
	for other := range t.threads {
		if other != tid {
			t.resume(other, 0)
		}
	}
	t.intervals = append(t.intervals, n)
	return signal, err
}

// freeze stops a thread where it is.
func (t *tracer) freeze(tid int) error {
	if err := unix.Tgkill(t.pid, tid, unix.SIGSTOP); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		if _, err := wait(tid, &status); err != nil {
			return err
		}
		if !status.Stopped() {
			delete(t.threads, tid)
			return nil
		}
		if status.StopSignal() == unix.SIGSTOP {
			return nil
		}
		t.goOn(tid, status)
	}
}

// steps counts the instructions of a thread up to its next mark. One with a repeat prefix stops at each of its repetitions.
func steps(tid int) (n, signal int, err error) {
	const rip = 16 * 8 // in struct user, arch/x86/include/asm/user_64.h
	var at [8]byte
	last := uint64(0)
	for {
		if err = unix.PtraceSingleStep(tid); err != nil {
			return n, signal, err
		}
		var status unix.WaitStatus
		if _, err = wait(tid, &status); err != nil {
			return n, signal, err
		}
		switch {
		case !status.Stopped():
			return n, signal, errors.New("the thread that was counted ended")
		case status.StopSignal() == unix.SIGSTOP:
			return n, signal, nil
		case status.StopSignal() != unix.SIGTRAP: // no instruction has run
			signal = int(status.StopSignal())
			continue
		}
		if _, err = unix.PtracePeekUser(tid, rip, at[:]); err != nil {
			return n, signal, err
		}
		if now := binary.NativeEndian.Uint64(at[:]); now != last {
			n, last = n+1, now
		}
	}
}

// environment is this process's, for one that is to be counted.
func environment(name string) (env []string) {
	for _, v := range os.Environ() {
		switch key, _, _ := strings.Cut(v, "="); key {
		case "GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT":
		default:
			env = append(env, v)
		}
	}
	return append(env, counted+"="+name, "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1,cpu.erms=off")
}
