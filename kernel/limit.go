package kernel

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// raiseLimit doubles the number of files that the process may open: first up to the hard limit, then, with
// CAP_SYS_RESOURCE, beyond it up to fs.nr_open. It reports whether the limit is higher now.
func (p *Ports) raiseLimit() bool {
	var l unix.Rlimit
	if unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &l) != nil {
		return false
	}
	want := unix.Rlimit{Cur: min(2*l.Cur, maxFiles()), Max: l.Max}
	if l.Cur < l.Max {
		want.Cur = min(want.Cur, l.Max)
	} else {
		want.Max = want.Cur
	}
	if want.Cur <= l.Cur {
		return false
	}
	if unix.Prlimit(0, unix.RLIMIT_NOFILE, &want, nil) != nil {
		return false
	}
	p.log.Info("the limit of open files was raised, as every port takes one", "from", l.Cur, "to", want.Cur)
	return true
}

// maxFiles is fs.nr_open, the highest limit that the kernel allows.
func maxFiles() uint64 {
	b, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			return n
		}
	}
	return 1 << 20 // the kernel's default
}
