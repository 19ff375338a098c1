package loader

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Facts are what decides whether and how well kit runs on this machine and card.
type Facts struct {
	// Release is the kernel's as uname gives it, Kernel its version.
	Release string
	Kernel  KernelVersion
	// BTF: the kernel describes its types in /sys/kernel/btf/vmlinux.
	BTF bool
	// JIT: BPF programs run as machine code (net.core.bpf_jit_enable).
	JIT bool
	// Capabilities of this process.
	Capabilities Capabilities
	// Memlock is the limit of locked memory in bytes, unix.RLIM_INFINITY for none.
	Memlock uint64
	// Program is why the XDP program does not load here, nil when it does.
	Program error
	// Socket is why no AF_XDP socket can be made, nil when one can.
	Socket error
	// HugePages are the free huge pages, HugePageSize is the size of one in bytes.
	HugePages, HugePageSize uint64
	// CPUs is the number of processors, Nodes of NUMA nodes.
	CPUs, Nodes int
	// Card is the interface's, nil when none was asked for.
	Card *CardFacts
}

// Capabilities are those of a process (capabilities(7)) that matter here.
type Capabilities struct {
	NetAdmin, NetRaw, BPF, Perfmon, SysAdmin, IPCLock bool
}

// CardFacts are what matters of an interface.
type CardFacts struct {
	Interface string
	// Missing: there is no such interface; the rest means nothing.
	Missing bool
	// Ethernet: it carries Ethernet frames and is not the loopback.
	Ethernet bool
	// Up: administratively up. Running: it has a carrier.
	Up, Running bool
	MTU         int // bytes
	Driver      string
	Features    XDPFeatures
	// RxQueues and TxQueues are in use now.
	RxQueues, TxQueues int
	// Offloads are the features that are on, by the kernel's names (ethtool -k shows others).
	Offloads map[string]bool
	// VLANs are the VLAN interfaces on top of this one.
	VLANs []string
	// Attached is the XDP program that is on it, nil for none.
	Attached *AttachedProgram
	// NUMANode is where the card is, -1 where that means nothing.
	NUMANode int
}

// Probe collects the facts of the machine and, unless name is empty, of an interface in the calling thread's network
// namespace. It loads the XDP program and makes a socket for a moment, and changes nothing.
func Probe(name string) (*Facts, error) {
	f := &Facts{CPUs: runtime.NumCPU()}
	var err error
	if f.Release, err = kernelRelease(); err != nil {
		return nil, err
	}
	if f.Kernel, err = parseKernel(f.Release); err != nil {
		return nil, err
	}
	_, err = os.Stat("/sys/kernel/btf/vmlinux")
	f.BTF = err == nil
	f.JIT = jitEnabled()
	if f.Capabilities, err = capabilities(); err != nil {
		return nil, err
	}
	f.Memlock = memlock()
	f.HugePages, f.HugePageSize = hugePages()
	nodes, _ := filepath.Glob("/sys/devices/system/node/node[0-9]*")
	f.Nodes = len(nodes)
	f.Program, f.Socket = tryProgram(f.Kernel), trySocket()
	if name == "" {
		return f, nil
	}
	f.Card, err = probeCard(name)
	return f, err
}

// jitEnabled reads net.core.bpf_jit_enable. Where it may not be read (another network namespace than the first hides
// it, as does a kernel built with the compiler always on) the kernel's default holds: on.
func jitEnabled() bool {
	text, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	return err != nil || strings.TrimSpace(string(text)) != "0"
}

// capabilities reads the effective set of this thread.
func capabilities() (Capabilities, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return Capabilities{}, os.NewSyscallError("capget", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	return Capabilities{
		NetAdmin: has(unix.CAP_NET_ADMIN), NetRaw: has(unix.CAP_NET_RAW), BPF: has(unix.CAP_BPF),
		Perfmon: has(unix.CAP_PERFMON), SysAdmin: has(unix.CAP_SYS_ADMIN), IPCLock: has(unix.CAP_IPC_LOCK),
	}, nil
}

// memlock is the limit of locked memory in bytes.
func memlock() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return 0
	}
	return limit.Cur
}

// hugePages reads how many huge pages are free and how long one is, in bytes.
func hugePages() (free, size uint64) {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseUint(fields[1], 10, 64)
		switch fields[0] {
		case "HugePages_Free:":
			free = n
		case "Hugepagesize:":
			size = n << 10
		}
	}
	return free, size
}

// tryProgram loads the XDP program and throws it away.
func tryProgram(kernel KernelVersion) error {
	p, err := loadProgram(kernel, 1)
	if err != nil {
		return err
	}
	return p.close()
}

// trySocket makes an AF_XDP socket and throws it away.
func trySocket() error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return explainSocket(err)
	}
	return unix.Close(fd)
}

// probeCard collects the facts of an interface.
func probeCard(name string) (*CardFacts, error) {
	f := &CardFacts{Interface: name}
	c, err := openCard(name)
	if errors.Is(err, ErrGone) {
		f.Missing = true
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.close()
	attrs, err := c.attrs()
	if err != nil {
		return nil, err
	}
	f.Ethernet = attrs.EncapType == ethernetType
	f.Up, f.Running = attrs.RawFlags&unix.IFF_UP != 0, attrs.RawFlags&unix.IFF_RUNNING != 0
	f.MTU, f.Driver, f.Features = attrs.MTU, c.driver(name), c.xdpFeatures()
	f.RxQueues, f.TxQueues = c.queueCounts(attrs)
	f.NUMANode = c.numaNode(name)
	if f.Offloads, err = c.tool.Features(name); err != nil {
		f.Offloads = nil // an interface without ethtool has none that could hurt
	}
	if f.VLANs, err = c.vlans(); err != nil {
		return nil, err
	}
	f.Attached, err = c.attachedProgram()
	return f, err
}

// vlans are the names of the VLAN interfaces on top of the card.
func (c *card) vlans() ([]string, error) {
	all, err := c.links.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	return vlansOn(all, c.index), nil
}

// vlansOn are the names of those interfaces that are VLANs on top of the one with the given index.
func vlansOn(all []netlink.Link, index int) []string {
	var names []string
	for _, l := range all {
		if l.Type() == "vlan" && l.Attrs().ParentIndex == index {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}
