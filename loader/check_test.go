package loader

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// finding is the first one of a topic.
func finding(t *testing.T, findings []Finding, topic string) Finding {
	t.Helper()
	for _, f := range findings {
		if f.Topic == topic {
			return f
		}
	}
	require.Fail(t, "there is no finding about "+topic)
	return Finding{}
}

// look is what there is to say of an interface for a Config of defaults.
func look(name string) ([]Finding, error) {
	facts, err := Probe(name)
	if err != nil {
		return nil, err
	}
	return facts.Findings(Config{}), nil
}

// goodFacts are a machine and a card that nothing is wrong with.
func goodFacts() *Facts {
	return &Facts{
		Release: "6.12.1", Kernel: KernelVersion{6, 12}, BTF: true, JIT: true,
		Capabilities: Capabilities{NetAdmin: true, NetRaw: true, BPF: true, Perfmon: true},
		Memlock:      unix.RLIM_INFINITY, CPUs: 8, Nodes: 1,
		Card: &CardFacts{
			Interface: "eth0", Ethernet: true, Up: true, Running: true, MTU: 1500, Driver: "ice",
			Features: XDPFeatures{Known: true, Native: true, Redirect: true, ZeroCopy: true, MultiBuffer: true, ZeroCopySegments: 8},
			RxQueues: 8, TxQueues: 8, Offloads: map[string]bool{"rx-gro": true, "rx-vlan-hw-parse": true}, NUMANode: 0,
		},
	}
}

func TestFindingsOfAGoodMachine(t *testing.T) {
	for _, f := range goodFacts().Findings(Config{}) {
		require.Equal(t, OK, f.Severity, "%+v", f)
		require.Empty(t, f.Fix)
		require.NotEmpty(t, f.What)
	}
}

func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(f *Facts)
		topic    string
		severity Severity
		what     string
		fix      string
	}{
		{"old kernel", func(f *Facts) { f.Release, f.Kernel = "5.4.0", KernelVersion{5, 4} }, "kernel", Fail, "5.4.0 is older than 5.10", "newer kernel"},
		{"kernel without multi-buffer", func(f *Facts) { f.Kernel = KernelVersion{6, 1} }, "kernel", OK, "without AF_XDP frames of several buffers (6.6)", ""},
		{"no BTF", func(f *Facts) { f.BTF = false }, "BTF", OK, "kit does not need it", ""},
		{"no JIT", func(f *Facts) { f.JIT = false }, "BPF JIT", Warn, "interpreted", "sysctl -w net.core.bpf_jit_enable=1"},
		{"no capabilities", func(f *Facts) { f.Capabilities = Capabilities{BPF: true} }, "capabilities", Fail, "lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON", "setcap"},
		{"SYS_ADMIN for BPF", func(f *Facts) { f.Capabilities = Capabilities{NetAdmin: true, NetRaw: true, SysAdmin: true} }, "capabilities", OK, "", ""},
		{"program does not load", func(f *Facts) { f.Program = errors.New("why") }, "XDP program", Fail, "why", "see"},
		{"no AF_XDP", func(f *Facts) { f.Socket = errors.New("why") }, "AF_XDP", Fail, "why", "see"},
		{"low memlock", func(f *Facts) { f.Memlock = 64 << 10 }, "locked memory", Fail, "the limit is 64 KiB, the packet memory takes 131072 KiB", "ulimit -l unlimited"},
		{"low memlock, capability", func(f *Facts) { f.Memlock, f.Capabilities.IPCLock = 64<<10, true }, "locked memory", OK, "128 MiB", ""},
		{"huge pages", func(f *Facts) { f.HugePages, f.HugePageSize = 7, 2<<20 }, "huge pages", OK, "7 of 2048 KiB are free", ""},
		{"no interface", func(f *Facts) { f.Card = &CardFacts{Interface: "eth9", Missing: true} }, "interface", Fail, "no interface eth9", "ip link"},
		{"no Ethernet", func(f *Facts) { f.Card.Ethernet = false }, "interface", Fail, "does not carry Ethernet", "choose"},
		{"down", func(f *Facts) { f.Card.Up = false }, "interface", Warn, "eth0 is down", "ip link set dev eth0 up"},
		{"no carrier", func(f *Facts) { f.Card.Running = false }, "interface", Warn, "no carrier", "cable"},
		{"features not known", func(f *Facts) { f.Card.Features = XDPFeatures{} }, "driver", OK, "does not say", ""},
		{"no native XDP", func(f *Facts) { f.Card.Features.Native = false }, "driver", Warn, "no native XDP", "a card"},
		{"no zero-copy", func(f *Facts) { f.Card.Features.ZeroCopy = false }, "driver", OK, "the kernel copies", ""},
		{"other program", func(f *Facts) { f.Card.Attached = &AttachedProgram{ID: 7, Name: "xdp_fw", Mode: "native", LinkID: 4} }, "other program", Fail, `XDP program 7 "xdp_fw" (native)`, "bpftool link detach id 4"},
		{"fewer transmit queues", func(f *Facts) { f.Card.TxQueues = 4 }, "queues", Warn, "some can only receive", "ethtool -L eth0 combined 4"},
		{"virtio queues", func(f *Facts) { f.Card.Driver, f.CPUs = "virtio_net", 8 }, "queues", Warn, "transmit queue for each processor", "ethtool -L eth0 combined 4"},
		{"virtio, one queue", func(f *Facts) { f.Card.Driver, f.Card.RxQueues, f.Card.TxQueues = "virtio_net", 1, 1 }, "queues", OK, "", ""},
		{"MTU of 3000", func(f *Facts) { f.Card.MTU = 3000 }, "MTU", OK, "3000 bytes in 8192 frames of 4096 a queue", ""},
		{"MTU of 3800, old kernel", func(f *Facts) { f.Card.MTU, f.Kernel = 3800, KernelVersion{6, 1} }, "MTU", Warn, "no native XDP before Linux 6.6", "ip link set dev eth0 mtu 3506"},
		{"jumbo", func(f *Facts) { f.Card.MTU = 9000 }, "MTU", OK, "9000 bytes take several frames of 4096", ""},
		{"jumbo, old kernel", func(f *Facts) { f.Card.MTU, f.Kernel = 9000, KernelVersion{6, 1} }, "MTU", Fail, "needs Linux 6.6", "ip link set dev eth0 mtu 3506"},
		{"jumbo, driver without", func(f *Facts) { f.Card.MTU, f.Card.Features.MultiBuffer = 9000, false }, "MTU", Warn, "driver does not do", "ip link set dev eth0 mtu 3506"},
		{"absurd MTU", func(f *Facts) { f.Card.MTU = 60 }, "MTU", Fail, "IPv4 needs", "mtu 1500"},
		{"LRO", func(f *Facts) { f.Card.Offloads["rx-lro"] = true }, "offloads", Warn, "LRO", "ethtool -K eth0 lro off"},
		{"hardware GRO", func(f *Facts) { f.Card.Offloads["rx-gro-hw"] = true }, "offloads", Warn, "joins", "ethtool -K eth0 rx-gro-hw off"},
		{"GRO before a generic program", func(f *Facts) { f.Card.Features.Native = false }, "offloads", Warn, "GRO", "ethtool -K eth0 gro off"},
		{"stripped tags", func(f *Facts) { f.Card.VLANs = []string{"eth0.5"} }, "offloads", Warn, "strips VLAN tags (eth0.5)", "ethtool -K eth0 rxvlan off"},
		{"unfinished checksums", func(f *Facts) { f.Card.Driver = "veth" }, "offloads", OK, "checksums unfinished", ""},
		{"NUMA", func(f *Facts) { f.Card.NUMANode, f.Nodes = 1, 2 }, "NUMA", Warn, "node 1 of 2", "numactl --cpunodebind=1 --membind=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			facts := goodFacts()
			c.change(facts)
			got := finding(t, facts.Findings(Config{}), c.topic)
			require.Equal(t, c.severity, got.Severity)
			require.Contains(t, got.What, c.what)
			require.Contains(t, got.Fix, c.fix)
			require.Equal(t, c.severity == OK, got.Fix == "", "a fix exactly where something is wrong")
		})
	}
}

// What is judged is what Open would be asked for, not the defaults.
func TestFindingsForAConfig(t *testing.T) {
	bare := func(f *Facts) { f.Card.Features = XDPFeatures{Known: true} }
	copies := func(f *Facts) { f.Card.Features.ZeroCopy = false }
	old := func(f *Facts) { f.Kernel = KernelVersion{6, 1} }
	for _, c := range []struct {
		name     string
		config   Config
		change   func(f *Facts)
		topic    string
		severity Severity
		what     string
		fix      string
	}{
		{"native asked for", Config{Attach: AttachNative}, nil, "driver", OK, "ice has native XDP", ""},
		{"native asked for in vain", Config{Attach: AttachNative}, bare, "driver", Fail, "no native XDP, which was asked for", "auto or generic"},
		{"generic asked for", Config{Attach: AttachGeneric}, bare, "driver", OK, "runs generic, as asked for", ""},
		{"generic where GRO joins", Config{Attach: AttachGeneric}, nil, "offloads", Warn, "GRO joins", "gro off"},
		{"copy asked for", Config{Copy: CopyAlways}, nil, "driver", OK, "copies frames, as asked for", ""},
		{"checksums left to the card", Config{}, func(f *Facts) { f.Card.Features.TxChecksum = true }, "TX checksum", OK, "the card computes", ""},
		{"checksums, zero-copy without", Config{TxChecksum: ChecksumOn}, nil, "TX checksum", Warn, "given up", "TX checksum auto"},
		{"checksums, copied", Config{TxChecksum: ChecksumOn, Copy: CopyAlways}, nil, "TX checksum", OK, "as was asked for", ""},
		{"checksums in vain", Config{TxChecksum: ChecksumOn, Copy: CopyZero}, nil, "TX checksum", Fail, "no checksums with zero-copy", "TX checksum auto"},
		{"checksums, no room", Config{TxChecksum: ChecksumOn}, func(f *Facts) { f.Card.MTU = 9000 }, "TX checksum", Fail, "do not fit", "TX checksum auto"},
		{"checksums, old kernel", Config{TxChecksum: ChecksumOn}, func(f *Facts) { f.Kernel = KernelVersion{6, 1} },
			"TX checksum", Fail, "needs Linux 6.11", "TX checksum auto"},
		{"zero-copy asked for", Config{Copy: CopyZero}, nil, "copy", OK, "as asked for", ""},
		{"zero-copy in vain", Config{Copy: CopyZero}, copies, "copy", Fail, "the driver has none", "copy mode"},
		{"zero-copy and generic", Config{Copy: CopyZero, Attach: AttachGeneric}, nil, "copy", Fail, "a generic program has none", "copy mode"},
		{"zero-copy and jumbo", Config{Copy: CopyZero}, func(f *Facts) { f.Card.MTU, f.Card.Features.ZeroCopySegments = 9000, 1 },
			"copy", Fail, "several buffers of 4096", "mtu 3506"},
		{"zero-copy and small frames", Config{Copy: CopyZero, FrameSize: 2048},
			func(f *Facts) { f.Card.MTU, f.Card.Features.ZeroCopySegments = 3000, 1 }, "copy", Fail, "several buffers of 2048", "copy mode"},
		{"frame size", Config{FrameSize: 4096}, nil, "MTU", OK, "1500 bytes in 8192 frames of 4096 a queue", ""},
		{"strange frame size", Config{FrameSize: 1000}, nil, "frames", Fail, "AF_XDP has 2048 and 4096", "other sizes"},
		{"small frames, old kernel", Config{FrameSize: 2048}, func(f *Facts) { old(f); f.Card.MTU = 3000 },
			"MTU", Fail, "needs Linux 6.6", "a frame size of 4096, or ip link set dev eth0 mtu 1774"},
		{"MTU above the card's", Config{MTU: 3000}, nil, "frames", Fail, "more than the 1500 of eth0", "other sizes"},
		{"MTU below the card's", Config{MTU: 1400}, nil, "MTU", OK, "", ""},
		{"few frames", Config{Frames: 2048}, nil, "frames", Fail, "2048 frames with rings of 4096", "other sizes"},
		{"odd ring", Config{RingSize: 100}, nil, "frames", Fail, "power of two", "other sizes"},
		{"jumbo and native, driver without", Config{Attach: AttachNative},
			func(f *Facts) { f.Card.MTU, f.Card.Features.MultiBuffer = 9000, false }, "MTU", Fail, "driver does not do", "mtu 3506"},
		{"jumbo and generic, driver without", Config{Attach: AttachGeneric},
			func(f *Facts) { f.Card.MTU, f.Card.Features.MultiBuffer = 9000, false }, "MTU", OK, "", ""},
		{"one queue, little memory", Config{Queues: []int{3}}, func(f *Facts) { f.Memlock = 16 << 20 }, "locked memory", OK, "16 MiB", ""},
		{"more frames, little memory", Config{Queues: []int{3}, Frames: 16384}, func(f *Facts) { f.Memlock = 16 << 20 },
			"locked memory", Fail, "takes 32768 KiB", "ulimit"},
		{"runs of frames, little memory", Config{Queues: []int{3}}, func(f *Facts) { f.Card.MTU, f.Memlock = 9000, 32<<20 },
			"locked memory", Fail, "takes 49148 KiB", "ulimit"},
		{"queues that are there", Config{Queues: []int{7, 2}}, nil, "queues", OK, "of which [2 7] are taken", ""},
		{"queues that are not", Config{Queues: []int{8}}, nil, "queues", Fail, "it receives on queues 0 to 7", "choose"},
		{"memory of queues that are not", Config{Queues: []int{8}}, func(f *Facts) { f.Memlock = 1 }, "locked memory", OK, "not known", ""},
		{"queues that send", Config{Queues: []int{0, 3}}, func(f *Facts) { f.Card.TxQueues = 4 }, "queues", OK, "", ""},
		{"queues that can't", Config{Queues: []int{0, 4}}, func(f *Facts) { f.Card.TxQueues = 4 }, "queues", Warn, "only receive", "queues below 4"},
		{"virtio, generic", Config{Attach: AttachGeneric}, func(f *Facts) { f.Card.Driver = "virtio_net" }, "queues", OK, "", ""},
		{"no card, more frames", Config{Frames: 32768}, func(f *Facts) { f.Memlock, f.Card = 32<<20, nil }, "locked memory", Fail, "65536 KiB", "ulimit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			facts := goodFacts()
			if c.change != nil {
				c.change(facts)
			}
			got := finding(t, facts.Findings(c.config), c.topic)
			require.Equal(t, c.severity, got.Severity, "%+v", got)
			require.Contains(t, got.What, c.what)
			require.Contains(t, got.Fix, c.fix)
			require.Equal(t, c.severity == OK, got.Fix == "", "a fix exactly where something is wrong")
		})
	}
}

func TestSeverityText(t *testing.T) {
	text, err := json.Marshal(Finding{"MTU", Warn, "what", ""})
	require.NoError(t, err)
	require.JSONEq(t, `{"topic":"MTU","severity":"warn","what":"what"}`, string(text))
	var f Finding
	require.NoError(t, json.Unmarshal(text, &f))
	require.Equal(t, Warn, f.Severity)
	require.ErrorIs(t, f.Severity.UnmarshalText([]byte("bad")), ErrConfig)
}

// The real thing, on a veth end: everything is well until somebody attaches a program.
func TestCheckOnVeth(t *testing.T) {
	r := newClosedRig(t, netlab.Options{Queues: 2})
	check := func(name string) (findings []Finding) {
		require.NoError(t, r.lab.Left.Do(func() (err error) {
			findings, err = look(name)
			return err
		}))
		return findings
	}
	for _, f := range check(r.lab.Left.Interface()) {
		require.Equal(t, OK, f.Severity, "%+v", f)
	}
	require.Contains(t, finding(t, check(r.lab.Left.Interface()), "queues").What, "2 to receive and 2 to send")
	require.NoError(t, r.open(Config{}))
	require.Equal(t, Fail, finding(t, check(r.lab.Left.Interface()), "other program").Severity)
	require.Equal(t, Fail, finding(t, check("nosuch0"), "interface").Severity)
	require.Equal(t, Fail, finding(t, check("lo"), "interface").Severity)
	for _, f := range check("") {
		require.NotEqual(t, "interface", f.Topic)
	}
}

func TestVLANsOnTop(t *testing.T) {
	named := func(name string, parent int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Name: name, ParentIndex: parent}
	}
	require.Equal(t, []string{"eth0.5"}, vlansOn([]netlink.Link{
		&netlink.Device{LinkAttrs: named("eth0", 0)}, &netlink.Vlan{LinkAttrs: named("eth0.5", 2)},
		&netlink.Vlan{LinkAttrs: named("eth1.5", 3)}, &netlink.Macvlan{LinkAttrs: named("eth0.m", 2)},
	}, 2))
}
