package loader

import "errors"

// What callers branch on. The errors that Open and Probe return wrap one of these, the errno where there was one, and
// say what to do.
var (
	// ErrConfig: the settings contradict each other or the card.
	ErrConfig = errors.New("bad configuration")
	// ErrKernel: the kernel is too old or built without what kit needs.
	ErrKernel = errors.New("kernel not suitable")
	// ErrPermission: a capability is missing.
	ErrPermission = errors.New("not permitted")
	// ErrAttached: another XDP program is on the interface.
	ErrAttached = errors.New("another XDP program is attached")
	// ErrNoNative: native XDP was demanded and the driver has none.
	ErrNoNative = errors.New("no native XDP")
	// ErrNoZeroCopy: zero-copy was demanded and the driver has none.
	ErrNoZeroCopy = errors.New("no zero-copy AF_XDP")
	// ErrNoChecksum: checksum offload was demanded and cannot be had.
	ErrNoChecksum = errors.New("no TX checksum offload")
	// ErrQueueBusy: another AF_XDP socket holds the queue.
	ErrQueueBusy = errors.New("queue is taken")
	// ErrMTU: frames of the interface's MTU do not fit.
	ErrMTU = errors.New("MTU does not fit")
	// ErrGone: the interface was deleted, or unbound from its driver.
	ErrGone = errors.New("interface is gone")
)
