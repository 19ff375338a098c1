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
const patience = 3 * time.Minute

// marker is the signal by which a thread says where it is. It never arrives: the tracer keeps it.
const marker = unix.SIGUSR2

// mark tells the tracer that it may do the next thing.
func mark() { unix.Tgkill(os.Getpid(), unix.Gettid(), marker) }

// beginInterval begins to count with the next instruction.
func beginInterval() {
	runtime.LockOSThread()
	mark() // from here on all other threads stand still
	runtime.UnlockOSThread()
	runtime.Gosched() // to which the runtime's monitor may have asked us before; now it can't any more
	mark()
}

// endInterval ends that, and lets the other threads go on.
func endInterval() { mark() }

// A tracer single-steps a process whose threads it all traces. A thread that is to stand still is sent SIGSTOP, which never
// arrives either: a traced thread stops before any signal, and goes on with it or without.
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
	for len(t.threads) > 0 {
		var status unix.WaitStatus
		tid, err := wait(-t.pid, &status)
		if err != nil {
			return err
		}
		if !status.Stopped() {
			delete(t.threads, tid)
		}
	}
	return nil
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
		t.threads[tid] = true
		signal := wanted(status)
		if status.StopSignal() == marker {
			if signal, err = t.interval(tid); err != nil {
				return status, err
			}
		}
		t.resume(tid, signal)
	}
}

// wanted is the signal with which a thread goes on that stopped: none where it began, made another, or was stopped, by us or by a
// user's kill -STOP, after which there is a SIGCONT too.
func wanted(status unix.WaitStatus) (signal int) {
	switch s := status.StopSignal(); {
	case s == unix.SIGSTOP, s == unix.SIGCONT, s == unix.SIGTRAP && status.TrapCause() > 0:
		return 0
	default:
		return int(s)
	}
}

// resume fails only for a thread that was killed, of which wait tells.
func (t *tracer) resume(tid, signal int) { _ = unix.PtraceCont(tid, signal) }

// interval lets one thread run to its next mark, and steps it from there to the one behind, while the others stand
// still. It returns the signal that came meanwhile, which has to wait.
func (t *tracer) interval(tid int) (signal int, err error) {
	frozen := make(map[int]int) // and the signals with which they go on
	for other := range t.threads {
		if _, ok := frozen[other]; ok || other == tid {
			continue
		}
		if err = unix.Tgkill(t.pid, other, unix.SIGSTOP); err != nil {
			return 0, err
		}
		// Whatever it stops for, it stops; a SIGSTOP that is left over is no harm.
		status, err := t.stopped(other, frozen)
		if err == nil {
			frozen[other] = wanted(status)
		} else if t.threads[other] {
			return 0, err
		}
	}
	t.resume(tid, 0)
	for {
		status, err := t.stopped(tid, frozen)
		if err != nil {
			return 0, err
		}
		if status.StopSignal() == marker {
			break
		}
		t.resume(tid, wanted(status))
	}
	n, signal, err := t.steps(tid, frozen)
	for other, signal := range frozen {
		t.resume(other, signal)
	}
	t.intervals = append(t.intervals, n)
	return signal, err
}

// steps counts the instructions of a thread up to its next mark. One with a repeat prefix stops at each of its repetitions. Threads
// that begin meanwhile are frozen.
func (t *tracer) steps(tid int, frozen map[int]int) (n, signal int, err error) {
	const rip = 16 * 8 // in struct user, arch/x86/include/asm/user_64.h
	var at [8]byte
	last := uint64(0)
	for {
		if err = unix.PtraceSingleStep(tid); err != nil {
			return n, signal, err
		}
		status, err := t.stopped(tid, frozen)
		if err != nil {
			return n, signal, err
		}
		switch s := status.StopSignal(); {
		case s == marker:
			return n, signal, nil
		case s != unix.SIGTRAP: // before the instruction
			signal = max(signal, wanted(status))
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

// stopped waits for a thread to stop. It waits for all of them, as the end of the first thread is told only when all
// others are known to have ended.
func (t *tracer) stopped(tid int, frozen map[int]int) (status unix.WaitStatus, err error) {
	for {
		who, err := wait(-t.pid, &status)
		switch {
		case err != nil:
			return status, err
		case !status.Stopped():
			delete(t.threads, who)
			delete(frozen, who)
			if who == tid {
				return status, errors.New("the thread that was counted ended")
			}
		case who == tid:
			return status, nil
		default:
			t.threads[who] = true
			frozen[who] = wanted(status)
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
