package loader

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A KernelVersion is the first two numbers of a Linux release.
type KernelVersion struct{ Major, Minor int }

// leastKernel has bpf_link for XDP (5.9) and loads the XDP program (5.10).
var leastKernel = KernelVersion{5, 10}

// scatterKernel has AF_XDP frames of several buffers (XDP_USE_SG).
var scatterKernel = KernelVersion{6, 6}

// metadataKernel has TX metadata by flag (XDP_UMEM_TX_METADATA_LEN).
var metadataKernel = KernelVersion{6, 11}

// longBundleKernel has room for more than 64 KiB in a packet socket's packet (packet_alloc_skb, net/packet/af_packet.c), and cuts
// TCP packets of such a length with the right checksums (6.4; tcp_gso_segment, net/ipv4/tcp_offload.c).
var longBundleKernel = KernelVersion{6, 6}

// String is as in "6.1".
func (v KernelVersion) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Before tells whether v is older than other.
func (v KernelVersion) Before(other KernelVersion) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}

// parseKernel reads the first two numbers of a release as uname gives it, such as 6.1.0-13-amd64.
func parseKernel(release string) (KernelVersion, error) {
	var v KernelVersion
	if n, _ := fmt.Sscanf(release, "%d.%d", &v.Major, &v.Minor); n != 2 {
		return v, fmt.Errorf("%w: release %q is not a Linux version", ErrKernel, release)
	}
	return v, nil
}

// kernelRelease is the running kernel's release.
func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("ask for the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// runningKernel is the kernel's version. It refuses one that is too old.
func runningKernel() (KernelVersion, error) {
	release, err := kernelRelease()
	if err != nil {
		return KernelVersion{}, err
	}
	version, err := parseKernel(release)
	if err == nil && version.Before(leastKernel) {
		err = fmt.Errorf("%w: Linux %s is too old; kit needs %s, which detaches the XDP program when the process ends",
			ErrKernel, release, leastKernel)
	}
	return version, err
}
