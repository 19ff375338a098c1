package loader

import (
	"fmt"
	"strings"
)

// Severity is how bad a finding is.
type Severity uint8

const (
	// OK: nothing to do.
	OK Severity = iota
	// Warn: kit runs, worse than it could.
	Warn
	// Fail: kit does not run.
	Fail
)

var severityNames = []string{"ok", "warn", "fail"}

// String is ok, warn or fail.
func (s Severity) String() string { return nameOf(severityNames, s) }

// MarshalText writes String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads ok, warn or fail.
func (s *Severity) UnmarshalText(text []byte) error {
	return parseName(s, severityNames, "severity", string(text))
}

// A Finding is one thing that was looked at.
type Finding struct {
	// Topic names it in one or two words.
	Topic    string   `json:"topic"`
	Severity Severity `json:"severity"`
	// What was found, half a sentence.
	What string `json:"what"`
	// Fix is the command to run, or what else to do; empty for OK.
	Fix string `json:"fix,omitempty"`
}

// Check probes the machine and, unless iface is empty, an interface in the calling thread's network namespace, and judges
// what it finds for a Config of defaults. A missing interface is a finding; an error means that the looking failed.
func Check(iface string) ([]Finding, error) {
	facts, err := Probe(iface)
	if err != nil {
		return nil, err
	}
	return facts.Findings(), nil
}

// Findings judges the facts, those of the machine first.
func (f *Facts) Findings() []Finding {
	findings := []Finding{f.kernel(), f.btf(), f.jit(), f.capabilities(), f.program(), f.socket(), f.memlock(), f.hugePages()}
	if f.Card == nil {
		return findings
	}
	if f.Card.Missing {
		return append(findings, Finding{"interface", Fail, "there is no interface " + f.Card.Interface, "ip link shows the names"})
	}
	return append(findings, f.card()...)
}

func (f *Facts) kernel() Finding {
	if f.Kernel.Before(leastKernel) {
		return Finding{"kernel", Fail, fmt.Sprintf("Linux %s is older than %s", f.Release, leastKernel), "install a newer kernel"}
	}
	what := "Linux " + f.Release
	if f.Kernel.Before(scatterKernel) {
		what += fmt.Sprintf(", without AF_XDP frames of several buffers (%s)", scatterKernel)
	}
	return Finding{Topic: "kernel", What: what}
}

func (f *Facts) btf() Finding {
	if f.BTF {
		return Finding{Topic: "BTF", What: "the kernel describes its types"}
	}
	return Finding{Topic: "BTF", What: "the kernel does not describe its types; kit does not need it"}
}

func (f *Facts) jit() Finding {
	if f.JIT {
		return Finding{Topic: "BPF JIT", What: "XDP programs run as machine code"}
	}
	return Finding{"BPF JIT", Warn, "XDP programs are interpreted, which is slow", "sysctl -w net.core.bpf_jit_enable=1"}
}

func (f *Facts) capabilities() Finding {
	c := f.Capabilities
	var missing []string
	for _, need := range []struct {
		name string
		has  bool
	}{
		{"CAP_NET_ADMIN", c.NetAdmin}, {"CAP_NET_RAW", c.NetRaw},
		{"CAP_BPF", c.BPF || c.SysAdmin}, {"CAP_PERFMON", c.Perfmon || c.SysAdmin},
	} {
		if !need.has {
			missing = append(missing, need.name)
		}
	}
	if len(missing) > 0 {
		return Finding{"capabilities", Fail, "this process lacks " + strings.Join(missing, ", "),
			"run as root, or setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon=ep on the program"}
	}
	return Finding{Topic: "capabilities", What: "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON are there"}
}

func (f *Facts) program() Finding {
	if f.Program != nil {
		return Finding{"XDP program", Fail, f.Program.Error(), "see the kernel and capabilities findings"}
	}
	return Finding{Topic: "XDP program", What: "loads"}
}

func (f *Facts) socket() Finding {
	if f.Socket != nil {
		return Finding{"AF_XDP", Fail, f.Socket.Error(), "see the kernel and capabilities findings"}
	}
	return Finding{Topic: "AF_XDP", What: "sockets can be made"}
}

// queueMemory is the packet memory of one queue with default settings and small frames, in bytes.
const queueMemory = 2 * defaultRing * smallFrame

func (f *Facts) memlock() Finding {
	queues := uint64(1)
	if f.Card != nil {
		queues = uint64(max(f.Card.RxQueues, 1))
	}
	need := queues * queueMemory
	if f.Capabilities.IPCLock || f.Memlock >= need {
		return Finding{Topic: "locked memory", What: fmt.Sprintf("%d MiB of packet memory may be locked", need>>20)}
	}
	return Finding{"locked memory", Fail,
		fmt.Sprintf("the limit is %d KiB, the packet memory takes %d KiB", f.Memlock>>10, need>>10),
		"ulimit -l unlimited (LimitMEMLOCK=infinity in a systemd unit), or give CAP_IPC_LOCK"}
}

func (f *Facts) hugePages() Finding {
	if f.HugePages == 0 {
		return Finding{Topic: "huge pages", What: "none are free; ordinary pages serve"}
	}
	return Finding{Topic: "huge pages", What: fmt.Sprintf("%d of %d KiB are free", f.HugePages, f.HugePageSize>>10)}
}

// card judges the interface.
func (f *Facts) card() []Finding {
	c := f.Card
	findings := []Finding{c.link(), c.driver(), c.attached(), c.queues(f.CPUs), f.mtu()}
	findings = append(findings, c.offloads()...)
	if c.NUMANode >= 0 && f.Nodes > 1 {
		findings = append(findings, Finding{"NUMA", Warn, fmt.Sprintf("%s is at node %d of %d", c.Interface, c.NUMANode, f.Nodes),
			fmt.Sprintf("start with: numactl --cpunodebind=%d --membind=%d", c.NUMANode, c.NUMANode)})
	}
	return findings
}

func (c *CardFacts) link() Finding {
	switch {
	case !c.Ethernet:
		return Finding{"interface", Fail, c.Interface + " does not carry Ethernet frames", "choose an Ethernet interface"}
	case !c.Up:
		return Finding{"interface", Warn, c.Interface + " is down", fmt.Sprintf("ip link set dev %s up", c.Interface)}
	case !c.Running:
		return Finding{"interface", Warn, c.Interface + " has no carrier", "plug the cable in, or bring the other end up"}
	}
	return Finding{Topic: "interface", What: c.Interface + " is up"}
}

func (c *CardFacts) driver() Finding {
	name := c.Driver
	if name == "" {
		name = "of unknown name"
	}
	switch {
	case !c.Features.Known:
		return Finding{Topic: "driver", What: fmt.Sprintf("%s; this kernel does not say what XDP it has", name)}
	case !c.Features.Native || !c.Features.Redirect:
		return Finding{"driver", Warn, fmt.Sprintf("%s has no native XDP: the program runs generic, which is slower", name),
			"a card whose driver has native XDP"}
	case !c.Features.ZeroCopy:
		return Finding{Topic: "driver", What: fmt.Sprintf("%s has native XDP; the kernel copies frames", name)}
	}
	return Finding{Topic: "driver", What: fmt.Sprintf("%s has native XDP and zero-copy AF_XDP", name)}
}

func (c *CardFacts) attached() Finding {
	if c.Attached != nil {
		return Finding{"other program", Fail, fmt.Sprintf("%s has %s", c.Interface, c.Attached), c.Attached.Detach(c.Interface)}
	}
	return Finding{Topic: "other program", What: "no XDP program is attached"}
}

func (c *CardFacts) queues(cpus int) Finding {
	what := fmt.Sprintf("%d to receive and %d to send, %d processors", c.RxQueues, c.TxQueues, cpus)
	fewer := fmt.Sprintf("ethtool -L %s combined %d", c.Interface, max(min(c.TxQueues, cpus), 1))
	switch {
	case c.TxQueues < c.RxQueues:
		return Finding{"queues", Warn, what + ": some can only receive", fewer}
	case c.Driver == virtioDriver && c.RxQueues > cpus/2 && c.RxQueues > 1:
		// The driver wants a transmit queue of its own for each processor (virtnet_xdp_set).
		return Finding{"queues", Warn, what + ": native XDP takes a transmit queue for each processor besides these",
			fmt.Sprintf("ethtool -L %s combined %d, or more queues in the hypervisor", c.Interface, max(cpus/2, 1))}
	}
	return Finding{Topic: "queues", What: what}
}

// mtu judges whether the interface's frames fit with default settings.
func (f *Facts) mtu() Finding {
	c := f.Card
	g, err := (&Config{Interface: c.Interface}).plan(c.MTU)
	if err != nil {
		return Finding{"MTU", Fail, err.Error(), fmt.Sprintf("ip link set dev %s mtu 1500", c.Interface)}
	}
	what := fmt.Sprintf("%d bytes in frames of %d", c.MTU, g.chunkSize)
	fix := fmt.Sprintf("ip link set dev %s mtu %d", c.Interface, largestLinear)
	old := f.Kernel.Before(scatterKernel)
	if !g.scatter() {
		if old && c.MTU > largestLinear {
			return Finding{"MTU", Warn, fmt.Sprintf("%s, for which drivers have no native XDP before Linux %s", what, scatterKernel), fix}
		}
		return Finding{Topic: "MTU", What: what}
	}
	what = fmt.Sprintf("%d bytes take several frames of %d", c.MTU, g.chunkSize)
	if old {
		return Finding{"MTU", Fail, fmt.Sprintf("%s, which needs Linux %s", what, scatterKernel), fix}
	}
	if c.Features.Known && !c.Features.MultiBuffer {
		return Finding{"MTU", Warn, what + ", which the driver does not do: the program runs generic", fix}
	}
	return Finding{Topic: "MTU", What: what}
}

// largestLinear is the largest MTU that was seen to work with XDP programs of one buffer: a page less what the kernel
// keeps in it.
const largestLinear = 3506

// offloads judges what the card does to frames before the program sees them.
func (c *CardFacts) offloads() []Finding {
	var findings []Finding
	add := func(what, fix string) { findings = append(findings, Finding{"offloads", Warn, what, fix}) }
	if c.Offloads["rx-lro"] {
		add("LRO joins segments, and drivers refuse native XDP with it", fmt.Sprintf("ethtool -K %s lro off", c.Interface))
	}
	if c.Offloads["rx-gro-hw"] {
		add("the card joins segments", fmt.Sprintf("ethtool -K %s rx-gro-hw off", c.Interface))
	}
	if c.Offloads["rx-gro"] && c.Features.Known && !c.Features.Native {
		add("GRO joins segments before a generic program sees them", fmt.Sprintf("ethtool -K %s gro off", c.Interface))
	}
	if c.Offloads["rx-vlan-hw-parse"] && len(c.VLANs) > 0 {
		add(fmt.Sprintf("the card strips VLAN tags (%s), so that tagged frames look untagged", strings.Join(c.VLANs, ", ")),
			fmt.Sprintf("ethtool -K %s rxvlan off", c.Interface))
	}
	if len(findings) > 0 {
		return findings
	}
	what := "none that hurt"
	if partialChecksums(c.Driver, AttachNative) {
		what = "the other end's kernel leaves UDP and TCP checksums unfinished, which kit accepts; " +
			"ethtool -K on the other end with tx off finishes them"
	}
	return []Finding{{Topic: "offloads", What: what}}
}
