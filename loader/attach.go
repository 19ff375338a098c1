package loader

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/bpf"
)

// Values of IFLA_XDP_ATTACHED (include/uapi/linux/if_link.h).
const (
	xdpAttachedDriver   = 1
	xdpAttachedGeneric  = 2
	xdpAttachedHardware = 3
	xdpAttachedMulti    = 4
)

// An AttachedProgram is an XDP program that somebody has put on an interface.
type AttachedProgram struct {
	ID   uint32
	Name string // "" where it may not be read
	Mode string // native, generic, hardware or several
	// LinkID is the bpf_link's that holds it, 0 where it was attached without one (ip link set ... xdp).
	LinkID uint32
	// Holder is the process that has the link open, as "name (pid)", "" where none was found.
	Holder string
}

// String names the program as errors do.
func (p *AttachedProgram) String() string {
	name := p.Name
	if name == "" {
		name = "?"
	}
	text := fmt.Sprintf("XDP program %d %q (%s)", p.ID, name, p.Mode)
	if p.Holder != "" {
		text += " held by " + p.Holder
	}
	return text
}

// Detach is the command that removes the program from an interface.
func (p *AttachedProgram) Detach(iface string) string {
	switch {
	case p.LinkID != 0:
		return fmt.Sprintf("bpftool link detach id %d", p.LinkID)
	case p.Mode == "generic":
		return fmt.Sprintf("ip link set dev %s xdpgeneric off", iface)
	case p.Mode == "hardware":
		return fmt.Sprintf("ip link set dev %s xdpoffload off", iface)
	}
	return fmt.Sprintf("ip link set dev %s xdp off", iface)
}

// attachedProgram is the XDP program on the card, nil when there is none.
func (c *card) attachedProgram() (*AttachedProgram, error) {
	attrs, err := c.attrs()
	if err != nil {
		return nil, err
	}
	if attrs.Xdp == nil || !attrs.Xdp.Attached {
		return nil, nil
	}
	p := &AttachedProgram{ID: attrs.Xdp.ProgId, Mode: attachedMode(attrs.Xdp.AttachMode)}
	if program, err := ebpf.NewProgramFromID(ebpf.ProgramID(p.ID)); err == nil {
		if info, err := program.Info(); err == nil {
			p.Name = info.Name
		}
		program.Close()
	}
	if p.LinkID = linkOf(c.index, p.ID); p.LinkID != 0 {
		p.Holder = holderOf(p.LinkID)
	}
	return p, nil
}

func attachedMode(attached uint32) string {
	switch attached {
	case xdpAttachedDriver:
		return AttachNative.String()
	case xdpAttachedGeneric:
		return AttachGeneric.String()
	case xdpAttachedHardware:
		return "hardware"
	case xdpAttachedMulti:
		return "several"
	}
	return fmt.Sprintf("mode %d", attached)
}

// linkOf is the number of the bpf_link that holds a program on an interface, 0 where there is none or it is not ours to see.
func linkOf(ifindex int, program uint32) uint32 {
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil || info.Type != link.XDPType || uint32(info.Program) != program {
			continue
		}
		if xdp := info.XDP(); xdp != nil && int(xdp.Ifindex) == ifindex {
			return uint32(info.ID)
		}
	}
	return 0
}

// holderOf is a process that has a bpf_link open, found in /proc/*/fdinfo.
func holderOf(linkID uint32) string {
	want := []byte("link_id:\t" + strconv.FormatUint(uint64(linkID), 10) + "\n")
	files, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(text, want) {
			continue
		}
		directory := filepath.Dir(filepath.Dir(file))
		name, err := os.ReadFile(filepath.Join(directory, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(directory))
	}
	return ""
}

// refuseOther is the error for an interface that has an XDP program already, nil for one that has none.
func (c *card) refuseOther(iface string) error {
	other, err := c.attachedProgram()
	if err != nil || other == nil {
		return err
	}
	return fmt.Errorf("%w: %s has %s; stop it, or remove it with: %s", ErrAttached, iface, other, other.Detach(iface))
}

// A program is the loaded XDP program and its tables.
type program struct {
	kind   bpf.Program
	coll   *ebpf.Collection
	tables *bpf.Tables
}

// loadProgram loads the XDP program with room for the given number of queues. It takes the one for frames of several
// buffers only where AF_XDP has such frames too: before, a driver would accept an MTU whose frames no socket gets.
func loadProgram(kernel KernelVersion, queues int) (*program, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise the memlock limit, which kernels before 5.11 charge BPF to: %w; "+
			"run as root or with CAP_SYS_RESOURCE", err)
	}
	frags, err := bpf.HaveFrags()
	if err != nil {
		return nil, explainBPF(err)
	}
	p := &program{kind: bpf.Linear}
	if frags && !kernel.Before(scatterKernel) {
		p.kind = bpf.Frags
	}
	spec, err := bpf.Spec(p.kind, queues)
	if err != nil {
		return nil, err
	}
	if p.coll, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load the XDP program: %w", explainBPF(err))
	}
	if p.tables, err = bpf.NewTables(p.coll); err != nil {
		p.coll.Close()
		return nil, fmt.Errorf("map the steering tables: %w", err)
	}
	return p, nil
}

// explainBPF adds what to do to the errors of the bpf system call.
func explainBPF(err error) error {
	// EACCES is the verifier's, to whom pointer arithmetic needs CAP_PERFMON.
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w; run as root or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", ErrPermission, err)
	}
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: %w; kit needs Linux %s with CONFIG_BPF_SYSCALL", ErrKernel, err, leastKernel)
	}
	return err
}

// steer puts a socket into the program's map, where it gets what the program decides for its queue.
func (p *program) steer(queue, socket int) error {
	if err := p.coll.Maps[bpf.XSKMap].Put(uint32(queue), uint32(socket)); err != nil {
		return fmt.Errorf("put the socket of queue %d into the XDP program's map: %w", queue, err)
	}
	return nil
}

func (p *program) close() error {
	err := p.tables.Close()
	p.coll.Close()
	return err
}

// attach puts the program on the card by a bpf_link, which goes with its descriptor when the process ends. It returns the
// mode that it got.
func (c *card) attach(p *program, iface string, want AttachMode, log *slog.Logger) (link.Link, AttachMode, error) {
	xdp := p.coll.Programs[string(p.kind)]
	if want != AttachGeneric {
		attached, err := link.AttachXDP(link.XDPOptions{Program: xdp, Interface: c.index, Flags: link.XDPDriverMode})
		if err == nil {
			return attached, AttachNative, nil
		}
		err = c.explainAttach(err, iface, AttachNative)
		if want == AttachNative || errors.Is(err, ErrAttached) || errors.Is(err, ErrPermission) || errors.Is(err, ErrGone) {
			return nil, 0, err
		}
		log.Warn("native XDP could not be had, falling back to generic, which is slower on a real card",
			"interface", iface, "reason", err)
	}
	attached, err := link.AttachXDP(link.XDPOptions{Program: xdp, Interface: c.index, Flags: link.XDPGenericMode})
	if err != nil {
		return nil, 0, c.explainAttach(err, iface, AttachGeneric)
	}
	return attached, AttachGeneric, nil
}

// explainAttach adds what to do to the errors of attaching (dev_xdp_attach, net/core/dev.c).
func (c *card) explainAttach(err error, iface string, mode AttachMode) error {
	err = fmt.Errorf("attach the XDP program to %s (%s): %w", iface, mode, err)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		if other := c.refuseOther(iface); other != nil {
			return other
		}
		return fmt.Errorf("%w: %w; bpftool net shows what holds the interface", ErrAttached, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w; run as root or with CAP_NET_ADMIN and CAP_BPF", ErrPermission, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", ErrGone, err)
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("%w: %w; the driver wants a smaller MTU for XDP: ip link set dev %s mtu 1500", ErrMTU, err, iface)
	case mode == AttachNative && errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w; the driver has none: use generic", ErrNoNative, err)
	case mode == AttachNative:
		return fmt.Errorf("%w: %w; dmesg may say why (LRO on, too many queues, MTU): use generic or change that", ErrNoNative, err)
	}
	return err
}
