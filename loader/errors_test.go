package loader

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// Each errno of each system call keeps itself in the chain, has a sentinel where callers branch, and says what to do.
func TestErrorsSayWhatToDo(t *testing.T) {
	register := func(mode bindMode) func(error) error {
		return func(err error) error { return explainRegister(err, mode) }
	}
	bind := func(mode bindMode) func(error) error { return func(err error) error { return explainBind(err, mode) } }
	r := newClosedRig(t, netlab.Options{})
	c := r.card()
	attach := func(mode AttachMode) func(error) error {
		return func(err error) error { return c.explainAttach(err, "eth0", mode) }
	}
	virtio := &Device{info: Info{Driver: virtioDriver}}
	for _, e := range []struct {
		explain func(error) error
		errno   error
		is      error
		says    string
	}{
		{explainSocket, unix.EPERM, ErrPermission, "CAP_NET_RAW"},
		{explainSocket, unix.EAFNOSUPPORT, ErrKernel, "CONFIG_XDP_SOCKETS"},
		{explainSocket, unix.EMFILE, unix.EMFILE, ""},
		{register(bindMode{}), unix.ENOBUFS, unix.ENOBUFS, "CAP_IPC_LOCK"},
		{register(bindMode{offload: true}), unix.ENOMEM, unix.ENOMEM, "fewer frames"},
		{register(bindMode{}), unix.EINVAL, unix.EINVAL, ""},
		{register(bindMode{offload: true}), unix.EINVAL, ErrNoChecksum, "it needs Linux 6.11: set the TX checksum to auto or off"},
		{bind(bindMode{}), unix.EBUSY, ErrQueueBusy, "ss --xdp"},
		{bind(bindMode{}), unix.EPERM, ErrPermission, "CAP_NET_RAW"},
		{bind(bindMode{}), unix.ENODEV, ErrGone, ""},
		{bind(bindMode{}), unix.EINVAL, unix.EINVAL, ""},
		{bind(bindMode{scatter: true}), unix.EINVAL, ErrKernel, "kernel 6.6"},
		{bind(bindMode{zeroCopy: true}), unix.EOPNOTSUPP, ErrNoZeroCopy, "use copy mode"},
		{bind(bindMode{zeroCopy: true, scatter: true}), unix.EOPNOTSUPP, ErrNoZeroCopy, "use copy mode"},
		{explainBPF, unix.EPERM, ErrPermission, "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"},
		{explainBPF, ebpf.ErrNotSupported, ErrKernel, "Linux 5.10"},
		{explainBPF, unix.ENOMEM, unix.ENOMEM, ""},
		{attach(AttachNative), unix.EBUSY, ErrAttached, "bpftool net"},
		{attach(AttachNative), unix.EPERM, ErrPermission, "CAP_NET_ADMIN"},
		{attach(AttachNative), unix.ENODEV, ErrGone, ""},
		{attach(AttachNative), unix.ERANGE, ErrMTU, "ip link set dev eth0 mtu 1500"},
		{attach(AttachNative), unix.EOPNOTSUPP, ErrNoNative, "use generic"},
		{attach(AttachNative), unix.EINVAL, ErrNoNative, "dmesg"},
		{attach(AttachGeneric), unix.EINVAL, unix.EINVAL, "attach the XDP program to eth0 (generic)"},
		{virtio.explainZeroCopy, fmt.Errorf("%w: %w", ErrNoZeroCopy, unix.EINVAL), ErrNoZeroCopy, "iommu_platform=on,disable-legacy=on"},
	} {
		err := e.explain(e.errno)
		require.ErrorIs(t, err, e.errno)
		require.ErrorIs(t, err, e.is)
		require.ErrorContains(t, err, e.says)
	}
}

// Without CAP_IPC_LOCK the packet memory counts against the memlock limit.
func TestMemlockLimit(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 64 << 10, Max: limit.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit)) }()
	u, err := mapUmem(2048, 128, 1, 0, false)
	require.NoError(t, err)
	defer u.close()
	require.NoError(t, r.having([]int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, func() error {
		_, err := openSocket(u, r.lab.Left.Index(), 0, ringSizes{64, 64, 128, 64}, bindMode{})
		require.ErrorIs(t, err, unix.ENOBUFS)
		require.ErrorContains(t, err, "register 262144 bytes of packet memory")
		require.ErrorContains(t, err, "CAP_IPC_LOCK")
		return nil
	}))
}
