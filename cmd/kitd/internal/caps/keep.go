package caps

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel is what decides whether reading and writing BPF maps needs a
// capability.
type Kernel struct {
	Major, Minor int
	// BPFRestricted: the sysctl kernel.unprivileged_bpf_disabled is not 0.
	BPFRestricted bool
}

// ThisKernel reads the running kernel's version and sysctl. Where the sysctl
// can't be read it counts as set, which keeps more.
func ThisKernel() Kernel {
	var name unix.Utsname
	_ = unix.Uname(&name) // fails only for a bad pointer
	k := Kernel{BPFRestricted: true}
	k.Major, k.Minor = release(unix.ByteSliceToString(name.Release[:]))
	if text, err := os.ReadFile("/proc/sys/kernel/unprivileged_bpf_disabled"); err == nil {
		k.BPFRestricted = strings.TrimSpace(string(text)) != "0"
	}
	return k
}

// release reads "6.18.44-generic" as 6, 18; 0 for what is not a number.
func release(text string) (major, minor int) {
	number := func() (n int) {
		for len(text) > 0 && '0' <= text[0] && text[0] <= '9' {
			n = n*10 + int(text[0]-'0')
			text = text[1:]
		}
		return n
	}
	major = number()
	text = strings.TrimPrefix(text, ".")
	return major, number()
}

// Keep is what kitd needs to go on serving.
//
//   - CAP_NET_ADMIN in shared mode: asking the kernel for a neighbour.
//   - CAP_NET_BIND_SERVICE in shared mode: reserving ports below 1024 that are
//     bound later, for a reload or a new address of the card.
//   - CAP_BPF where the kernel wants it for reading maps that are open already:
//     before 5.19 if kernel.unprivileged_bpf_disabled is set; CAP_SYS_ADMIN
//     before 5.8, which has no CAP_BPF.
//
// In owned mode the kernel has no part in ports and neighbours.
func Keep(shared bool, k Kernel) Set {
	var keep Set
	if shared {
		keep = NetAdmin | NetBindService
	}
	before := func(major, minor int) bool {
		return k.Major < major || k.Major == major && k.Minor < minor
	}
	switch {
	case !k.BPFRestricted || !before(5, 19):
	case before(5, 8):
		keep |= SysAdmin
	default:
		keep |= BPF
	}
	return keep
}
