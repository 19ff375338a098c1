package loader

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// bindPatience is how long a bind is repeated while the queue is still held by a socket that was closed: the kernel
	// gives a queue back by a work item, which was seen to take up to 44 ms.
	bindPatience = 500 * time.Millisecond
	bindPause    = 2 * time.Millisecond
)

// A bindMode is one way to ask for a socket: whether the driver shall use the packet memory itself (XDP_ZEROCOPY) or
// the kernel copies (XDP_COPY), whether frames may span several descriptors (XDP_USE_SG, kernel 6.6), and whether they have
// metadata by which their checksum is left to the card (XDP_UMEM_TX_METADATA_LEN, kernel 6.11).
type bindMode struct {
	zeroCopy bool
	scatter  bool
	offload  bool
}

// flags are the sxdp_flags of the mode.
func (m bindMode) flags() uint16 {
	flags := uint16(unix.XDP_USE_NEED_WAKEUP)
	if m.zeroCopy {
		flags |= unix.XDP_ZEROCOPY
	} else {
		flags |= unix.XDP_COPY
	}
	if m.scatter {
		flags |= unix.XDP_USE_SG
	}
	return flags
}

// String names the mode as reports do.
func (m bindMode) String() string {
	name := "copy"
	if m.zeroCopy {
		name = "zero-copy"
	}
	if m.scatter {
		name += ", multi-buffer"
	}
	if m.offload {
		name += ", TX checksum offload"
	}
	return name
}

// ringSizes are the entries of a socket's four rings, powers of two. tx 0 makes a socket that only receives.
type ringSizes struct{ rx, tx, fill, completion uint32 }

// rings are the four rings of a socket as both sides see them. A tx without entries: the socket only receives.
type rings struct{ rx, tx, fill, completion ringShared }

// A socket is one AF_XDP socket bound to one queue, with its rings mapped. The umem belongs to the caller.
type socket struct {
	fd    int
	mode  bindMode
	rings rings
	maps  [][]byte
	self  [1]unix.PollFd // for receive
}

// openSocket makes a socket over memory, sets its rings up and binds it to the queue in the given mode. While the queue
// is still held by a socket that is being torn down (EBUSY) it tries again for bindPatience.
func openSocket(u *umem, ifindex, queue int, sizes ringSizes, mode bindMode) (*socket, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make an AF_XDP socket: %w", explainSocket(err))
	}
	s := &socket{fd: fd, mode: mode, self: [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}}
	if err := s.setup(u, sizes); err != nil {
		s.close()
		return nil, err
	}
	if err := s.bind(ifindex, queue); err != nil {
		s.close()
		return nil, err
	}
	if got, err := s.zeroCopy(); err == nil {
		s.mode.zeroCopy = got
	}
	return s, nil
}

// explainSocket adds what to do to the errors of making an AF_XDP socket.
func explainSocket(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w; run as root or with CAP_NET_RAW", ErrPermission, err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: %w; use a kernel built with CONFIG_XDP_SOCKETS", ErrKernel, err)
	}
	return err
}

// setup registers the packet memory, sizes the rings and maps them.
func (s *socket) setup(u *umem, sizes ringSizes) error {
	reg := unix.XDPUmemReg{
		Addr: uint64(uintptr(u.base())),
		Len:  uint64(len(u.memory)),
		Size: u.chunkSize,
	}
	if s.mode.offload {
		reg.Flags, reg.Tx_metadata_len = unix.XDP_UMEM_TX_METADATA_LEN, txMetadataLen
	}
	if err := setsockopt(s.fd, unix.XDP_UMEM_REG, &reg); err != nil {
		return fmt.Errorf("register %d bytes of packet memory (%s): %w", len(u.memory), s.mode, explainRegister(err, s.mode))
	}
	rings := []struct {
		name   string
		option int
		size   uint32
	}{
		{"fill", unix.XDP_UMEM_FILL_RING, sizes.fill},
		{"completion", unix.XDP_UMEM_COMPLETION_RING, sizes.completion},
		{"RX", unix.XDP_RX_RING, sizes.rx},
		{"TX", unix.XDP_TX_RING, sizes.tx},
	}
	for _, r := range rings {
		if r.size == 0 {
			continue
		}
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, r.option, int(r.size)); err != nil {
			return fmt.Errorf("make a %s ring of %d entries: %w; use a smaller ring", r.name, r.size, err)
		}
	}
	return s.mapRings(sizes)
}

// explainRegister adds what to do to the errors of XDP_UMEM_REG (net/xdp/xdp_umem.c).
func explainRegister(err error, mode bindMode) error {
	switch {
	case mode.offload && errors.Is(err, unix.EINVAL): // a flag that it does not know
		return fmt.Errorf("%w: %w; it needs Linux %s: set the TX checksum to auto or off", ErrNoChecksum, err, metadataKernel)
	case errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("%w: the memlock limit is too low; give CAP_IPC_LOCK or raise it (ulimit -l, LimitMEMLOCK=infinity)", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w; use fewer frames", err)
	}
	return err
}

// mapRings maps the four rings and lays the private views over them.
func (s *socket) mapRings(sizes ringSizes) error {
	var off unix.XDPMmapOffsets
	if err := getsockopt(s.fd, unix.XDP_MMAP_OFFSETS, &off); err != nil {
		return fmt.Errorf("ask for the ring offsets: %w", err)
	}
	for _, r := range []struct {
		name      string
		ring      *ringShared
		page      int64
		off       unix.XDPRingOffset
		size      uint32
		entrySize uint32
	}{
		{"fill", &s.rings.fill, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, sizes.fill, addrSize},
		{"completion", &s.rings.completion, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, sizes.completion, addrSize},
		{"RX", &s.rings.rx, unix.XDP_PGOFF_RX_RING, off.Rx, sizes.rx, descSize},
		{"TX", &s.rings.tx, unix.XDP_PGOFF_TX_RING, off.Tx, sizes.tx, descSize},
	} {
		if r.size == 0 {
			continue
		}
		var err error
		if *r.ring, err = s.mapRing(r.page, r.off, r.size, r.entrySize); err != nil {
			return fmt.Errorf("map the %s ring: %w", r.name, err)
		}
	}
	return nil
}

// mapRing maps one ring at its page offset.
func (s *socket) mapRing(page int64, off unix.XDPRingOffset, size, entrySize uint32) (ringShared, error) {
	length := int(off.Desc) + int(size)*int(entrySize)
	memory, err := unix.Mmap(s.fd, page, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ringShared{}, err
	}
	s.maps = append(s.maps, memory)
	return newRingShared(memory, off, size, entrySize)
}

// bind binds the socket to the queue, patient with EBUSY.
func (s *socket) bind(ifindex, queue int) error {
	address := &unix.SockaddrXDP{Flags: s.mode.flags(), Ifindex: uint32(ifindex), QueueID: uint32(queue)}
	deadline := time.Now().Add(bindPatience)
	for {
		err := unix.Bind(s.fd, address)
		if errors.Is(err, unix.EBUSY) && time.Now().Before(deadline) {
			time.Sleep(bindPause)
			continue
		}
		if err == nil {
			return nil
		}
		return fmt.Errorf("bind an AF_XDP socket to queue %d (%s): %w", queue, s.mode, explainBind(err, s.mode))
	}
}

// explainBind adds what to do to the errors of bind (net/xdp/xsk.c).
func explainBind(err error, mode bindMode) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w; another program's socket is on it (ss --xdp -ap shows whose): stop that program", ErrQueueBusy, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w; run as root or with CAP_NET_RAW", ErrPermission, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w", ErrGone, err)
	case mode.zeroCopy:
		return fmt.Errorf("%w: %w; use copy mode", ErrNoZeroCopy, err)
	case mode.scatter:
		return fmt.Errorf("%w: %w; frames of several buffers need kernel 6.6", ErrKernel, err)
	}
	return err
}

// raiseBudget lets one sendto send the whole TX ring, where the default is 32 frames (XDP_MAX_TX_SKB_BUDGET, copy mode).
// Kernels that do not know it say EAGAIN after 32, and Flush goes on.
func (s *socket) raiseBudget(tx uint32) {
	if tx > defaultTxBudget {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, int(tx))
	}
}

// preferBusyPoll has the driver's work done in our system calls (SO_PREFER_BUSY_POLL). Interrupts are not deferred any
// further than the system is set up for.
func (s *socket) preferBusyPoll() error {
	for _, o := range []struct{ option, value int }{
		{unix.SO_PREFER_BUSY_POLL, 1}, {unix.SO_BUSY_POLL, busyPollMicroseconds}, {unix.SO_BUSY_POLL_BUDGET, busyPollBudget},
	} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, o.option, o.value); err != nil {
			_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL, 0)
			return fmt.Errorf("set the busy-poll options: %w; they need Linux 5.11 and CAP_NET_ADMIN", err)
		}
	}
	return nil
}

const (
	defaultTxBudget      = 32 // TX_BATCH_SIZE of net/xdp/xsk.c
	busyPollMicroseconds = 20 // how long one system call may poll
	busyPollBudget       = 64 // frames that one system call may take from the card
)

// napi reports whether the socket's traffic comes through a NAPI instance that can be polled (SO_INCOMING_NAPI_ID,
// known after the first frame). veth has none.
func (s *socket) napi() bool {
	id, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_INCOMING_NAPI_ID)
	return err == nil && id != 0
}

// zeroCopy reads back whether the driver uses the packet memory itself (XDP_OPTIONS).
func (s *socket) zeroCopy() (bool, error) {
	flags, err := unix.GetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_OPTIONS)
	return flags&unix.XDP_OPTIONS_ZEROCOPY != 0, err
}

// statistics are the kernel's counters of the socket (XDP_STATISTICS). Kernels before 5.9 know the first three only;
// the others are 0 there.
func (s *socket) statistics() (unix.XDPStatistics, error) {
	var stats unix.XDPStatistics
	err := getsockopt(s.fd, unix.XDP_STATISTICS, &stats)
	return stats, err
}

// transmit makes the kernel look at the TX ring.
func (s *socket) transmit() error { return unix.Send(s.fd, nil, unix.MSG_DONTWAIT) }

// receive makes the driver look at the fill ring, or poll the card in busy-poll mode. poll rather than recvmsg, which
// AF_XDP has only since 5.11.
func (s *socket) receive() {
	_, _ = unix.Ppoll(s.self[:], &atOnce, nil) // its answer is on the RX ring
}

// atOnce is the time-out of a poll that does not wait. The kernel only reads it.
var atOnce unix.Timespec

// failure reads and clears the socket's pending error (SO_ERROR): ENETDOWN when the interface was unregistered.
func (s *socket) failure() error {
	pending, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if pending != 0 {
		return unix.Errno(pending)
	}
	return nil
}

// close gives the queue back and unmaps the rings. The packet memory stays. It may be called again.
func (s *socket) close() error {
	var errs []error
	for _, memory := range s.maps {
		errs = append(errs, unix.Munmap(memory))
	}
	s.maps = nil
	if s.fd >= 0 {
		errs = append(errs, unix.Close(s.fd))
		s.fd = -1
	}
	return errors.Join(errs...)
}

// setsockopt sets an option of level SOL_XDP whose value is a struct.
func setsockopt[T any](fd, option int, value *T) error {
	return unix.SetsockoptString(fd, unix.SOL_XDP, option, unsafe.String((*byte)(unsafe.Pointer(value)), unsafe.Sizeof(*value)))
}

// getsockopt reads an option of level SOL_XDP whose value is a struct; what the kernel does not know of it stays zero.
func getsockopt[T any](fd, option int, value *T) error {
	length := uint32(unsafe.Sizeof(*value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option),
		uintptr(unsafe.Pointer(value)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
