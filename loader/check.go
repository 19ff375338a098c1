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

// A judge looks at facts as they matter to a configuration.
type judge struct {
	*Facts
	*CardFacts // nil without a card
	config     *Config
	sizes      geometry
	misfit     error // the sizes do not go together, or not with the card
	engines    []int // numbers of the queues to open
	misnumber  error // there are no such queues
}

// Findings judges the facts for a configuration, whose Interface and Logger do not matter here: those of the machine first.
func (f *Facts) Findings(c Config) []Finding {
	j := judge{Facts: f, CardFacts: f.Card, config: &c}
	if f.Card == nil || f.Card.Missing {
		j.CardFacts = nil
		j.engines = []int{0}
		j.sizes, j.misfit = c.plan(max(c.MTU, usualMTU))
	} else {
		c.Interface = f.Card.Interface
		j.engines, j.misnumber = c.chooseQueues(max(f.Card.RxQueues, 1))
		j.sizes, j.misfit = c.plan(f.Card.MTU)
	}
	findings := []Finding{f.kernel(), f.btf(), f.jit(), f.capabilities(), f.program(), f.socket(), j.memlock(), f.hugePages()}
	if f.Card == nil {
		return findings
	}
	if f.Card.Missing {
		return append(findings, Finding{"interface", Fail, "there is no interface " + f.Card.Interface, "ip link shows the names"})
	}
	return append(findings, j.card()...)
}

// usualMTU is that of Ethernet, for where no card is named.
const usualMTU = 1500

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

// memlock judges whether the kernel lets the packet memory of all queues be locked (xdp_umem_account_pages, net/xdp/xdp_umem.c).
func (j *judge) memlock() Finding {
	if j.misfit != nil || j.misnumber != nil {
		return Finding{Topic: "locked memory", What: "what it takes is not known: see the frames and queues"}
	}
	need := uint64(len(j.engines)) * j.sizes.memory()
	if j.Capabilities.IPCLock || j.Memlock >= need {
		return Finding{Topic: "locked memory", What: fmt.Sprintf("%d MiB of packet memory may be locked", need>>20)}
	}
	return Finding{"locked memory", Fail,
		fmt.Sprintf("the limit is %d KiB, the packet memory takes %d KiB", j.Memlock>>10, need>>10),
		"ulimit -l unlimited (LimitMEMLOCK=infinity in a systemd unit), or give CAP_IPC_LOCK"}
}

func (f *Facts) hugePages() Finding {
	if f.HugePages == 0 {
		return Finding{Topic: "huge pages", What: "none are free; ordinary pages serve"}
	}
	return Finding{Topic: "huge pages", What: fmt.Sprintf("%d of %d KiB are free", f.HugePages, f.HugePageSize>>10)}
}

// card judges the interface.
func (j *judge) card() []Finding {
	c := j.CardFacts
	findings := []Finding{c.link(), j.driver(), c.attached(), j.queues(), j.mtu()}
	if j.config.Copy == CopyZero {
		findings = append(findings, j.zeroCopy())
	}
	findings = append(append(findings, j.checksum()...), j.offloads()...)
	if c.NUMANode >= 0 && j.Nodes > 1 {
		findings = append(findings, Finding{"NUMA", Warn, fmt.Sprintf("%s is at node %d of %d", c.Interface, c.NUMANode, j.Nodes),
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

// attach is where the program will run, as far as the driver says.
func (j *judge) attach() AttachMode {
	if j.config.Attach == AttachGeneric || j.Features.Known && !j.Features.native() {
		return AttachGeneric
	}
	return AttachNative
}

// native tells whether AF_XDP works in the driver.
func (x *XDPFeatures) native() bool { return x.Native && x.Redirect }

func (j *judge) driver() Finding {
	name := j.Driver
	if name == "" {
		name = "of unknown name"
	}
	switch x := &j.Features; {
	case j.config.Attach == AttachGeneric:
		return Finding{Topic: "driver", What: name + "; the program runs generic, as asked for"}
	case !x.Known:
		return Finding{Topic: "driver", What: fmt.Sprintf("%s; this kernel does not say what XDP it has", name)}
	case !x.native() && j.config.Attach == AttachNative:
		return Finding{"driver", Fail, fmt.Sprintf("%s has no native XDP, which was asked for", name), "attach auto or generic"}
	case !x.native():
		return Finding{"driver", Warn, fmt.Sprintf("%s has no native XDP: the program runs generic, which is slower", name),
			"a card whose driver has native XDP"}
	case !x.ZeroCopy:
		return Finding{Topic: "driver", What: fmt.Sprintf("%s has native XDP; the kernel copies frames", name)}
	case j.config.Copy == CopyAlways:
		return Finding{Topic: "driver", What: fmt.Sprintf("%s has native XDP; the kernel copies frames, as asked for", name)}
	}
	return Finding{Topic: "driver", What: fmt.Sprintf("%s has native XDP and zero-copy AF_XDP", name)}
}

// zeroCopy judges whether zero-copy can be had, which was asked for.
func (j *judge) zeroCopy() Finding {
	const topic, fix = "copy", "copy mode auto or copy"
	segments := 1
	if j.Features.Known {
		segments = j.Features.ZeroCopySegments
	}
	switch {
	case j.attach() == AttachGeneric:
		return Finding{topic, Fail, "zero-copy was asked for, and a generic program has none", fix}
	case j.Features.Known && !j.Features.ZeroCopy:
		return Finding{topic, Fail, "zero-copy was asked for, and the driver has none", fix}
	case j.misfit == nil && len(j.config.modes(j.sizes, AttachNative, !j.Kernel.Before(scatterKernel), segments)) == 0:
		return Finding{topic, Fail, fmt.Sprintf("zero-copy was asked for, and the driver has none for frames of several buffers of %d",
			j.sizes.chunkSize), fix + fmt.Sprintf(", or ip link set dev %s mtu %d", j.Interface, largestLinear)}
	}
	return Finding{Topic: topic, What: "zero-copy, as asked for"}
}

// checksum judges whether checksums can be left to the card. Nothing is said where nobody asked for it and the card has not
// got it.
func (j *judge) checksum() []Finding {
	const topic, fix = "TX checksum", "TX checksum auto or off"
	mode := j.config.TxChecksum
	if mode == ChecksumOff || j.misfit != nil {
		return nil
	}
	modes := j.config.modes(j.sizes, j.attach(), !j.Kernel.Before(scatterKernel), max(j.Features.ZeroCopySegments, 1))
	plain := len(modes) > 0 && modes[0].zeroCopy && j.Features.ZeroCopy
	modes, err := j.config.offload(modes, j.sizes, &j.Features)
	switch {
	case mode == ChecksumOn && j.Kernel.Before(metadataKernel):
		return []Finding{{topic, Fail, fmt.Sprintf("checksums are to be left to the card, which needs Linux %s", metadataKernel), fix}}
	case err != nil:
		return []Finding{{topic, Fail, err.Error(), fix}}
	case len(modes) == 0 || !modes[0].offload:
		return nil
	case modes[0].zeroCopy && j.Features.TxChecksum:
		return []Finding{{Topic: topic, What: "the card computes UDP and TCP checksums"}}
	case plain:
		return []Finding{{topic, Warn, "the driver computes no checksums with zero-copy, which is given up for them, as was asked for", fix}}
	}
	return []Finding{{Topic: topic, What: "the kernel leaves UDP and TCP checksums to the card, or computes them, as was asked for"}}
}

func (c *CardFacts) attached() Finding {
	if c.Attached != nil {
		return Finding{"other program", Fail, fmt.Sprintf("%s has %s", c.Interface, c.Attached), c.Attached.Detach(c.Interface)}
	}
	return Finding{Topic: "other program", What: "no XDP program is attached"}
}

func (j *judge) queues() Finding {
	c := j.CardFacts
	what := fmt.Sprintf("%d to receive and %d to send, %d processors", c.RxQueues, c.TxQueues, j.CPUs)
	if j.misnumber != nil {
		return Finding{"queues", Fail, j.misnumber.Error(), "choose from those, or all"}
	}
	few := max(min(c.TxQueues, j.CPUs), 1)
	fewer := fmt.Sprintf("ethtool -L %s combined %d", c.Interface, few)
	if j.config.Queues != nil {
		what += fmt.Sprintf(", of which %v are taken", j.engines)
		fewer += fmt.Sprintf(", or choose queues below %d", c.TxQueues)
	}
	switch {
	case c.TxQueues <= j.engines[len(j.engines)-1]:
		return Finding{"queues", Warn, what + ": some can only receive", fewer}
	case c.Driver == virtioDriver && j.attach() == AttachNative && c.RxQueues > j.CPUs/2 && c.RxQueues > 1:
		// The driver wants a transmit queue of its own for each processor (virtnet_xdp_set).
		return Finding{"queues", Warn, what + ": native XDP takes a transmit queue for each processor besides these",
			fmt.Sprintf("ethtool -L %s combined %d, or more queues in the hypervisor", c.Interface, max(j.CPUs/2, 1))}
	}
	return Finding{Topic: "queues", What: what}
}

// mtu judges whether the interface's frames and those to send fit into the packet memory and its rings.
func (j *judge) mtu() Finding {
	c, g := j.CardFacts, &j.sizes
	if j.misfit != nil {
		if j.config.defaultSizes() {
			return Finding{"MTU", Fail, j.misfit.Error(), fmt.Sprintf("ip link set dev %s mtu %d", c.Interface, usualMTU)}
		}
		return Finding{"frames", Fail, j.misfit.Error(), "other sizes, or none for the defaults"}
	}
	what := fmt.Sprintf("%d bytes in %d frames of %d a queue", c.MTU, g.frames, g.chunkSize)
	fix := fmt.Sprintf("ip link set dev %s mtu %d", c.Interface, largestLinear)
	old := j.Kernel.Before(scatterKernel)
	unable := func(what string) Finding { // the driver, which takes a program no more
		if j.config.Attach == AttachNative {
			return Finding{"MTU", Fail, what, fix}
		}
		return Finding{"MTU", Warn, what + ": the program runs generic", fix}
	}
	if !g.scatter() {
		if old && c.MTU > largestLinear && j.attach() == AttachNative {
			return unable(fmt.Sprintf("%s, for which drivers have no native XDP before Linux %s", what, scatterKernel))
		}
		return Finding{Topic: "MTU", What: what}
	}
	what = fmt.Sprintf("%d bytes take several frames of %d", c.MTU, g.chunkSize)
	if old {
		if g.chunkSize < largeFrame && g.longest <= largeFrame-headroom {
			fix = fmt.Sprintf("a frame size of %d, or ip link set dev %s mtu %d", largeFrame, c.Interface, int(g.chunkSize)-headroom-frameExtra)
		}
		return Finding{"MTU", Fail, fmt.Sprintf("%s, which needs Linux %s", what, scatterKernel), fix}
	}
	if c.Features.Known && !c.Features.MultiBuffer && j.attach() == AttachNative {
		return unable(what + ", which the driver does not do")
	}
	return Finding{Topic: "MTU", What: what}
}

// largestLinear is the largest MTU that was seen to work with XDP programs of one buffer: a page less what the kernel
// keeps in it.
const largestLinear = 3506

// offloads judges what the card does to frames before the program sees them.
func (j *judge) offloads() []Finding {
	c := j.CardFacts
	var findings []Finding
	add := func(what, fix string) { findings = append(findings, Finding{"offloads", Warn, what, fix}) }
	if c.Offloads["rx-lro"] {
		add("LRO joins segments, and drivers refuse native XDP with it", fmt.Sprintf("ethtool -K %s lro off", c.Interface))
	}
	if c.Offloads["rx-gro-hw"] {
		add("the card joins segments", fmt.Sprintf("ethtool -K %s rx-gro-hw off", c.Interface))
	}
	if c.Offloads["rx-gro"] && j.attach() == AttachGeneric {
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
	if partialChecksums(c.Driver, j.attach()) {
		what = "the other end's kernel leaves UDP and TCP checksums unfinished, which kit accepts; " +
			"ethtool -K on the other end with tx off finishes them"
	}
	return []Finding{{Topic: "offloads", What: what}}
}
