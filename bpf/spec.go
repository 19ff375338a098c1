package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// Program names one of the two builds of the XDP program. They decide alike.
type Program string

const (
	// Frags takes frames of several buffers too, so that the card's MTU is not bounded by the page size. It needs Linux 5.18.
	Frags Program = bpfProgKitXdp
	// Linear takes frames of one buffer only and loads on Linux 5.10 and later.
	Linear Program = bpfProgKitXdpLinear
)

// XSKMap is the name in a loaded collection of the map from queue number to AF_XDP socket (both uint32).
// A socket leaves it by itself when it is closed.
const XSKMap = bpfMapXsks

// configMap is cilium/ebpf's name for the map behind the C global variable config.
const configMap = ".bss"

// HaveFrags reports whether this kernel knows XDP programs for frames of several buffers. The error is
// another than "unknown", such as a missing capability (EPERM).
func HaveFrags() (bool, error) {
	// The helper came with the program flag, in the same series for 5.18 (include/uapi/linux/bpf.h).
	err := features.HaveProgramHelper(ebpf.XDP, asm.FnXdpGetBuffLen)
	if err == nil || errors.Is(err, ebpf.ErrNotSupported) {
		return err == nil, nil
	}
	return false, fmt.Errorf("asking the kernel for XDP programs with several buffers failed; the process needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: %w", err)
}

// Spec returns the collection of one program and its maps, with room in [XSKMap] for queues 0 to queues-1.
func Spec(program Program, queues int) (*ebpf.CollectionSpec, error) {
	if queues < 1 {
		return nil, fmt.Errorf("an XDP program for %d queues cannot be loaded: a card has at least one", queues)
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("reading the embedded BPF object failed, which only a broken build explains: %w", err)
	}
	chosen := spec.Programs[string(program)]
	if chosen == nil {
		return nil, fmt.Errorf("the BPF object has no program %q, only %q and %q", program, Frags, Linear)
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{string(program): chosen}
	spec.Maps[XSKMap].MaxEntries = uint32(queues)
	return spec, nil
}
