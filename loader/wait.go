package loader

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lifeCheck is how long a link sleeps at most before it looks whether its interface still exists: the deletion of
	// a bound interface does not end a poll.
	lifeCheck = 100 * time.Millisecond
	// kickCheck is how long it sleeps at most while frames wait to be kicked again.
	kickCheck = time.Millisecond
)

// Wait sleeps until a frame has arrived, Wake was called or timeout has passed; negative means no time-out. It may
// return early, and does so while frames wait to be sent, so that Flush is called again. Zero does not sleep: it only
// looks whether the interface still exists, which an engine that never sleeps wants to ask now and then.
// An error wraps ErrGone and the errno: the interface was deleted, and the link will never carry a frame again.
func (l *Link) Wait(timeout time.Duration) error {
	if l.gone != nil || l.rx.ready(1) > 0 {
		return l.gone
	}
	if timeout == 0 {
		return l.alive()
	}
	l.counters.Sleeps++
	for {
		slice := lifeCheck
		if l.unkicked && !l.stalled {
			slice = kickCheck
		}
		if timeout > 0 {
			slice = min(slice, timeout)
		}
		l.sleep = unix.NsecToTimespec(int64(slice))
		n, err := unix.Ppoll(l.waiter[:], &l.sleep, nil)
		if n > 0 {
			return l.woken()
		}
		if err == unix.EINTR {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for queue %d: %w", l.queue, err)
		}
		if err := l.alive(); err != nil || l.unkicked {
			return err
		}
		// Time is counted by the sleeps that ended, so that no clock is read.
		if timeout > 0 {
			if timeout -= slice; timeout <= 0 {
				return nil
			}
		}
	}
}

// woken looks at what ended the sleep.
func (l *Link) woken() error {
	if l.waiter[1].Revents != 0 {
		l.wake.drain()
	}
	if l.waiter[0].Revents&^unix.POLLIN != 0 {
		return l.alive()
	}
	return nil
}

// alive returns an error when the interface is gone. The kernel says so once, in the socket's pending error.
func (l *Link) alive() error {
	if err := l.bell.failure(); err != nil {
		l.lost(err)
	}
	return l.gone
}

// lost remembers that the interface is gone, and why.
func (l *Link) lost(err error) {
	if l.gone == nil {
		l.gone = fmt.Errorf("queue %d: %w: %w; the link is of no use any more, open the interface again", l.queue, ErrGone, err)
	}
}

// A wakeup is the eventfd that ends a sleep. The lock is for closing: nobody may write to a descriptor whose number
// already means something else.
type wakeup struct {
	mu    sync.RWMutex
	fd    int     // -1 when closed
	count [8]byte // what drain reads; here so that it is not allocated
}

// open makes the eventfd.
func (w *wakeup) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make an eventfd: %w; raise the limit of open files (ulimit -n)", err)
	}
	w.fd = fd
	return nil
}

// one is what ring adds to the eventfd's count.
var one = binary.NativeEndian.AppendUint64(nil, 1)

// ring makes the eventfd readable.
func (w *wakeup) ring() {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.fd >= 0 {
		_, _ = unix.Write(w.fd, one) // it can only fail when it is already readable
	}
}

// drain makes the eventfd unreadable until the next ring.
func (w *wakeup) drain() {
	_, _ = unix.Read(w.fd, w.count[:])
}

func (w *wakeup) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		return nil
	}
	fd := w.fd
	w.fd = -1
	return unix.Close(fd)
}
