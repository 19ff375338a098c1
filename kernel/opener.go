package kernel

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// An opener opens sockets in the network namespace that it was started in, from whatever thread. Where that is not the
// namespace of the whole process, a thread of its own stays in it: to enter it again for each socket would take
// CAP_SYS_ADMIN, which a daemon gives up after its start.
type opener struct {
	work chan openRequest // nil: the whole process is in the namespace
}

type openRequest struct {
	kind, proto int
	answer      chan<- openAnswer
}

type openAnswer struct {
	fd  int
	err error
}

// start looks at the calling thread's namespace.
func (o *opener) start() error {
	var mine, all unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &mine); err != nil {
		return fmt.Errorf("look at the thread's network namespace: %w", err)
	}
	if err := unix.Stat("/proc/self/ns/net", &all); err != nil {
		return fmt.Errorf("look at the process's network namespace: %w", err)
	}
	if mine.Dev == all.Dev && mine.Ino == all.Ino {
		return nil
	}
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the thread's network namespace: %w", err)
	}
	defer unix.Close(ns)
	o.work = make(chan openRequest)
	ready := make(chan error)
	go o.serve(ns, ready)
	if err := <-ready; err != nil {
		return fmt.Errorf("enter the network namespace (it takes CAP_SYS_ADMIN): %w", err)
	}
	return nil
}

// serve opens sockets until the work ends. Its thread never goes back to the Go runtime: it has left its namespace.
func (o *opener) serve(ns int, ready chan<- error) {
	runtime.LockOSThread()
	err := unix.Setns(ns, unix.CLONE_NEWNET)
	ready <- err
	if err != nil {
		return
	}
	for r := range o.work {
		fd, err := openSocket(r.kind, r.proto)
		r.answer <- openAnswer{fd, err}
	}
}

func openSocket(kind, proto int) (int, error) {
	return unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
}

// open opens an IPv4 socket. It must not be called after stop.
func (o *opener) open(kind, proto int) (int, error) {
	if o.work == nil {
		return openSocket(kind, proto)
	}
	answer := make(chan openAnswer, 1)
	o.work <- openRequest{kind, proto, answer}
	a := <-answer
	return a.fd, a.err
}

// stop ends the thread. Only the first call does.
func (o *opener) stop() {
	if o.work != nil {
		close(o.work)
		o.work = nil
	}
}
