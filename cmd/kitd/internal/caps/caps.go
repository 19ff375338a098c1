// Package caps gives up the Linux capabilities that a running kitd no longer
// needs.
//
// Starting takes a lot: loading and attaching XDP, AF_XDP sockets, locked
// memory. Serving takes little. What is dropped is gone from every set of every
// thread (permitted, effective, inheritable, bounding, ambient), and
// no_new_privs keeps a program that kitd might be made to start from getting it
// back.
package caps

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Set is a set of capabilities, one bit each by its number in
// include/uapi/linux/capability.h.
type Set uint64

// The capabilities that kitd speaks of by name.
const (
	NetBindService Set = 1 << unix.CAP_NET_BIND_SERVICE
	NetAdmin       Set = 1 << unix.CAP_NET_ADMIN
	NetRaw         Set = 1 << unix.CAP_NET_RAW
	IPCLock        Set = 1 << unix.CAP_IPC_LOCK
	SetPCap        Set = 1 << unix.CAP_SETPCAP
	SysAdmin       Set = 1 << unix.CAP_SYS_ADMIN
	Perfmon        Set = 1 << unix.CAP_PERFMON
	BPF            Set = 1 << unix.CAP_BPF
)

// names by number.
var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// Names lists the set's members by number; never nil.
func (s Set) Names() []string {
	list := []string{}
	for rest := s; rest != 0; rest &= rest - 1 {
		n := bits.TrailingZeros64(uint64(rest))
		if n < len(names) {
			list = append(list, names[n])
		} else {
			list = append(list, fmt.Sprintf("CAP_%d", n))
		}
	}
	return list
}

// String joins the names with commas, or says "none".
func (s Set) String() string {
	if s == 0 {
		return "none"
	}
	return strings.Join(s.Names(), ",")
}

// State is what a process holds.
type State struct {
	Permitted, Effective, Inheritable, Bounding, Ambient Set
	NoNewPrivs                                           bool
}

// Current reads the state of the calling thread.
func Current() (State, error) {
	f, err := os.Open("/proc/thread-self/status")
	if err != nil {
		return State{}, fmt.Errorf("capabilities of this process can't be read: %w; mount /proc", err)
	}
	defer f.Close()
	return parse(f)
}

// parse reads the lines CapInh, CapPrm, CapEff, CapBnd, CapAmb and NoNewPrivs
// of proc_pid_status(5).
func parse(r io.Reader) (State, error) {
	var s State
	sets := map[string]*Set{
		"CapInh": &s.Inheritable, "CapPrm": &s.Permitted, "CapEff": &s.Effective, "CapBnd": &s.Bounding, "CapAmb": &s.Ambient,
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, text, _ := strings.Cut(lines.Text(), ":")
		text = strings.TrimSpace(text)
		if key == "NoNewPrivs" {
			s.NoNewPrivs = text == "1"
		}
		set, wanted := sets[key]
		if !wanted {
			continue
		}
		value, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			return State{}, fmt.Errorf("capabilities of this process can't be read: %s is %q, not a hexadecimal number", key, text)
		}
		*set = Set(value)
		delete(sets, key)
	}
	if err := lines.Err(); err != nil {
		return State{}, fmt.Errorf("capabilities of this process can't be read: %w", err)
	}
	if len(sets) > 0 {
		return State{}, errors.New("capabilities of this process can't be read: /proc has no such lines")
	}
	return s, nil
}

// After computes what is left when everything but keep is dropped. Nothing is
// ever gained. The bounding set can be cut only with CAP_SETPCAP.
func (s State) After(keep Set) State {
	left := State{
		Permitted:  s.Permitted & keep,
		Effective:  s.Effective & keep,
		Bounding:   s.Bounding,
		NoNewPrivs: true,
	}
	if s.Effective&SetPCap != 0 {
		left.Bounding &= keep
	}
	return left
}

// Drop gives up everything but keep, in all threads, and returns what is left.
// It needs a binary without cgo, because only there the Go runtime can make one
// call in every thread.
func Drop(keep Set) (State, error) {
	before, err := Current()
	if err != nil {
		return before, err
	}
	want := before.After(keep)
	if err := prctl("no_new_privs", unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return before, err
	}
	for rest := before.Bounding &^ want.Bounding; rest != 0; rest &= rest - 1 {
		n := bits.TrailingZeros64(uint64(rest))
		if err := prctl("bounding set", unix.PR_CAPBSET_DROP, uintptr(n), 0); err != nil {
			return before, err
		}
	}
	if err := prctl("ambient set", unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return before, err
	}
	if err := capset(want); err != nil {
		return before, err
	}
	after, err := Current()
	if err == nil && after != want {
		err = fmt.Errorf("capabilities were dropped but %s are left where %s were wanted; report this kernel",
			after.Permitted, want.Permitted)
	}
	return after, err
}

func prctl(what string, option, arg2, arg3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, arg2, arg3, 0, 0, 0)
	return explain(what, errno)
}

// capset sets permitted, effective and inheritable (capset(2), version 3: two
// 32-bit halves).
func capset(s State) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for half := range data {
		shift := 32 * half
		data[half] = unix.CapUserData{
			Effective:   uint32(s.Effective >> shift),
			Permitted:   uint32(s.Permitted >> shift),
			Inheritable: uint32(s.Inheritable >> shift),
		}
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	return explain("capabilities", errno)
}

func explain(what string, errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return fmt.Errorf("dropping the %s failed because this binary uses cgo; build kitd with CGO_ENABLED=0: %w", what, errno)
	}
	return fmt.Errorf("dropping the %s failed: %w; is a security module in the way?", what, errno)
}
