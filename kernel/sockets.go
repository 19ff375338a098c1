package kernel

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack/wire"
)

// Sockets opens sockets in the network namespace of the thread that made it, for whoever asks. A thread of its own stays in that
// namespace: to enter it anew for each socket would take CAP_SYS_ADMIN, which a daemon gives up after its start.
type Sockets struct {
	mu   sync.RWMutex
	work chan openRequest // nil when closed
}

type openRequest struct {
	family, kind, proto int
	answer              chan<- openAnswer
}

type openAnswer struct {
	fd  int
	err error
}

// NewSockets leaves a thread in the calling thread's namespace, until Close.
func NewSockets() (*Sockets, error) {
	s := new(Sockets)
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

func (o *Sockets) start() error {
	ns, err := unix.Open(threadNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the thread's network namespace: %w", err)
	}
	defer unix.Close(ns)
	work, ready := make(chan openRequest), make(chan error)
	go serveSockets(ns, ready, work)
	if err := <-ready; err != nil {
		return fmt.Errorf("enter the thread's network namespace from another thread: %w; it takes CAP_SYS_ADMIN", err)
	}
	o.work = work
	return nil
}

const threadNamespace = "/proc/thread-self/ns/net"

// serveSockets opens sockets in the namespace ns until the work ends.
func serveSockets(ns int, ready chan<- error, work <-chan openRequest) {
	runtime.LockOSThread()
	entered, err := enter(ns)
	ready <- err
	if err != nil {
		return
	}
	for r := range work {
		fd, err := unix.Socket(r.family, r.kind|unix.SOCK_CLOEXEC, r.proto)
		r.answer <- openAnswer{fd, err}
	}
	if !entered {
		runtime.UnlockOSThread() // else the thread must not be used by others and ends here
	}
}

// enter puts the calling thread into the namespace ns. It reports false where it is there already, as it is in most programs.
func enter(ns int) (entered bool, err error) {
	var want, have unix.Stat_t
	if err := unix.Fstat(ns, &want); err != nil {
		return false, err
	}
	if err := unix.Stat(threadNamespace, &have); err != nil {
		return false, err
	}
	if want.Dev == have.Dev && want.Ino == have.Ino {
		return false, nil
	}
	return true, unix.Setns(ns, unix.CLONE_NEWNET)
}

// open opens a socket. EBADF: after Close.
func (o *Sockets) open(family, kind, proto int) (int, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.work == nil {
		return -1, unix.EBADF
	}
	answer := make(chan openAnswer, 1)
	o.work <- openRequest{family, kind, proto, answer}
	a := <-answer
	return a.fd, a.err
}

// Socket opens a socket that does not block. family is AF_INET or AF_INET6, kind SOCK_STREAM or SOCK_DGRAM. Errors are the
// kernel's, and EBADF after Close.
func (o *Sockets) Socket(family, kind int) (fd int, err error) {
	return o.open(family, kind|unix.SOCK_NONBLOCK, 0)
}

// Share calls bind, which binds a socket of this process: there is nothing reserved in the kernel that it could collide with.
func (o *Sockets) Share(_ wire.Protocol, _ netip.AddrPort, _ int, bind func() error) (release func(), err error) {
	return func() {}, bind()
}

// Close ends the thread. Sockets that were opened stay.
func (o *Sockets) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.work != nil {
		close(o.work)
		o.work = nil
	}
	return nil
}
