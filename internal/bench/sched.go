package bench

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
)

// pinThread binds the calling goroutine and its OS thread to each other, and the thread to a core and ahead of other work.
// It returns what undoes it.
func pinThread(cpu int) (restore func(), err error) {
	var old, want unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return nil, fmt.Errorf("bench: read own CPU affinity: %w", err)
	}
	want.Set(cpu)
	back, err := hurryThread()
	if err != nil {
		return nil, err
	}
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		back()
		return nil, fmt.Errorf("bench: bind to CPU %d: %w", cpu, err)
	}
	return func() {
		if unix.SchedSetaffinity(0, &old) != nil {
			// Locked once more, so that a thread with the wrong binding is not given back to the runtime.
			runtime.LockOSThread()
		}
		back()
	}, nil
}

// hurryThread binds the calling goroutine and its OS thread to each other and puts the thread ahead of other work. It
// returns what undoes it.
func hurryThread() (restore func(), err error) {
	runtime.LockOSThread()
	// The system call returns 20 less the nice value, so that no value looks like an error (getpriority(2)).
	old, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, child.Ahead)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("bench: go ahead of other work (needs CAP_SYS_NICE): %w", err)
	}
	return func() {
		if unix.Setpriority(unix.PRIO_PROCESS, 0, 20-old) == nil {
			runtime.UnlockOSThread()
		}
	}, nil
}

// hurrySession puts the process's session ahead of other sessions, between which the kernel otherwise shares the cores
// evenly whatever the nice values inside (sched(7), "The autogroup feature"). It returns what undoes it.
func hurrySession() (restore func(), err error) {
	const file = "/proc/self/autogroup"
	text, err := os.ReadFile(file)
	var group string
	var nice int
	if _, scanErr := fmt.Sscanf(string(text), "%s nice %d", &group, &nice); err != nil || scanErr != nil {
		// A kernel without the feature has no such file; a process outside all sessions reads nothing.
		return func() {}, nil
	}
	set := func(nice int) error { return os.WriteFile(file, []byte(strconv.Itoa(nice)), 0) }
	if err := set(child.Ahead); err != nil {
		return nil, fmt.Errorf("bench: put this session ahead of others (needs CAP_SYS_NICE): %w", err)
	}
	return func() { _ = set(nice) }, nil // it worked a moment ago, and nothing more can be done
}
