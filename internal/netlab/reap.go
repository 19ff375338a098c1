package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// runDir holds named namespaces, as iproute2 has it.
	runDir = "/run/netns"
	// prefix begins the name of every namespace of ours: kitlab-PID-START-SERIAL-RANDOM-LABEL.
	prefix = "kitlab-"
)

// Reap removes the namespaces that laboratories of dead processes left, with all that runs in them. Those of living
// processes, and every name that is not ours, stay. Several may run at once.
func Reap() error {
	entries, err := os.ReadDir(runDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("netlab: look for leftovers: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		pid, start, ok := owner(entry.Name())
		if !ok || alive(pid, start) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join(runDir, entry.Name()), &st) == nil && isNamespace(entry.Name()) {
			killAll(st.Ino)
		}
		if err := deleteNamed(entry.Name()); err != nil {
			errs = append(errs, fmt.Errorf("netlab: remove leftover namespace %s: %w", entry.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// owner reads the maker's process id and start time from a namespace's name.
func owner(name string) (pid int, start uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, 0, false
	}
	parts := strings.SplitN(rest, "-", 3)
	if len(parts) != 3 {
		return 0, 0, false
	}
	pid, err := strconv.Atoi(parts[0])
	if err != nil || pid <= 0 {
		return 0, 0, false
	}
	start, err = strconv.ParseUint(parts[1], 10, 64)
	return pid, start, err == nil
}

// alive tells whether the process that started at that time still runs. What can't be read is taken for alive.
func alive(pid int, start uint64) bool {
	now, state, err := processStart(pid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false
	}
	return err != nil || now == start && state != 'Z' && state != 'X'
}

// processStart returns a process's start time in clock ticks since boot and its state letter (proc_pid_stat(5), fields
// 22 and 3).
func processStart(pid int) (start uint64, state byte, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The second field is the command in parentheses and may hold anything, parentheses too.
	_, rest, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat has %d fields, want 20 after the command", pid, len(fields))
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return start, fields[0][0], err
}

// isNamespace tells whether the name is a mounted namespace, not just the file that one is to be mounted on.
func isNamespace(name string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(filepath.Join(runDir, name), &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// killAll kills every process whose network namespace has the given inode, this one excepted, until none is left.
func killAll(inode uint64) {
	// A process may fork while we look, so look again until a pass finds none; a process in an uninterruptible wait is
	// left to its signal after a second.
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if !killOnce(inode) {
			return
		}
	}
}

// killOnce is one pass of killAll; it reports whether it found a process.
func killOnce(inode uint64) (found bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil || st.Ino != inode {
			continue
		}
		// A zombie shows no namespace, so this one lives.
		if unix.Kill(pid, unix.SIGKILL) == nil {
			found = true
		}
	}
	return found
}

// createNamed makes a namespace and its name under /run/netns. On failure neither stays.
func createNamed(name string) error {
	if err := prepareRunDir(); err != nil {
		return err
	}
	path := filepath.Join(runDir, name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	result := make(chan error)
	go func() {
		// Never unlocked: the thread has left its namespace, so it ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("unshare: %w", err)
			return
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, ""); err != nil {
			result <- fmt.Errorf("mount on %s: %w", path, err)
			return
		}
		result <- nil
	}()
	if err := <-result; err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// prepareRunDir makes /run/netns a shared mount point, as `ip netns add` does: a process that has taken a copy of the
// mounts then sees a namespace go, and does not keep it alive.
func prepareRunDir() error {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return err
	}
	dir, err := unix.Open(runDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir) // and so unlocks
	if err := unix.Flock(dir, unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", runDir, err)
	}
	err = unix.Mount("", runDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if err == nil || !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := unix.Mount(runDir, runDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make %s a mount point: %w", runDir, err)
	}
	return unix.Mount("", runDir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// deleteNamed removes a namespace's name; the namespace itself goes with its last user. One that is gone already, or was
// never mounted, is no error.
func deleteNamed(name string) error {
	path := filepath.Join(runDir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w%s", path, err, hint(err))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
