package kernel

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// An opener opens sockets in the network namespace of the thread that started it, for whoever asks. A thread of its own stays
// in that namespace: to enter it anew for each socket would take CAP_SYS_ADMIN, which a daemon gives up after its start.
type opener struct {
	work chan openRequest // nil when stopped
}

type openRequest struct {
	kind, proto int
	answer      chan<- openAnswer
}

type openAnswer struct {
	fd  int
	err error
}

// start leaves a thread in the calling thread's namespace.
func (o *opener) start() error {
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
		fd, err := openSocket(r.kind, r.proto)
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

func openSocket(kind, proto int) (int, error) {
	return unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
}

// open opens an IPv4 socket. It must not be called after stop.
func (o *opener) open(kind, proto int) (int, error) {
	answer := make(chan openAnswer, 1)
	o.work <- openRequest{kind, proto, answer}
	a := <-answer
	return a.fd, a.err
}

// stop ends the thread.
func (o *opener) stop() {
	if o.work != nil {
		close(o.work)
		o.work = nil
	}
}
