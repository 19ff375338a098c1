package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketMode lets the owner and the group in, nobody else.
const socketMode = 0o660

// Listener is the control socket of one kitd. The path is its alone: a lock
// beside it, PATH.lock, is held as long as the process lives, however it ends.
type Listener struct {
	net.Listener
	path string
	lock *os.File
}

// Listen makes the control socket with mode 0660. The socket of a kitd that died
// is replaced; that of one that lives is left alone, and so is a file that is
// no socket.
func Listen(path string) (*Listener, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("control socket %s belongs to a kitd that runs: stop it, or use another --control", path)
		}
		return nil, fmt.Errorf("control socket %s can't be made: %w; use --control with a directory that can be written", path, err)
	}
	l := &Listener{path: path, lock: lock}
	if err = l.clear(); err == nil {
		err = l.bind()
	}
	if err != nil {
		l.unlock()
		return nil, err
	}
	return l, nil
}

// lockFile takes the lock for good, or says EWOULDBLOCK. A holder removes the
// file before it lets go, so a lock counts only on the file that has the name.
func lockFile(name string) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, plain(err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		held, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, plain(err)
		}
		if named, err := os.Lstat(name); err == nil && os.SameFile(held, named) {
			return f, nil
		}
		f.Close()
	}
}

// plain strips the path from an error, where the sentence names it already.
func plain(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

func (l *Listener) unlock() {
	_ = os.Remove(l.lock.Name())
	_ = l.lock.Close()
}

// clear removes the socket of a dead process from the path.
func (l *Listener) clear() error {
	info, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket %s can't be looked at: %w", l.path, plain(err))
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket %s can't be made: something that is no socket has that name; move it away, or use another --control", l.path)
	}
	conn, err := net.Dial("unix", l.path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("control socket %s is answered by another program: stop it, or use another --control", l.path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("control socket %s is there but can't be asked who owns it: %w; use another --control", l.path, err)
	}
	if err := os.Remove(l.path); err != nil {
		return fmt.Errorf("control socket %s of a kitd that died can't be removed: %w", l.path, plain(err))
	}
	return nil
}

// bind makes the socket. Its mode is set on the descriptor first, so that there
// is no moment at which the umask alone decides who may connect.
func (l *Listener) bind() error {
	fail := func(err error) error {
		return fmt.Errorf("control socket %s can't be made: %w; use another --control", l.path, plain(err))
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), filepath.Base(l.path))
	defer f.Close() // FileListener has its own
	if err := unix.Fchmod(fd, socketMode); err != nil {
		return fail(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: l.path}); err != nil {
		return fail(err)
	}
	if err = os.Chmod(l.path, socketMode); err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err == nil {
		l.Listener, err = net.FileListener(f)
	}
	if err != nil {
		_ = os.Remove(l.path)
		return fail(err)
	}
	return nil
}

// Close stops listening and removes the socket and its lock.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		return err // the second Close
	}
	_ = os.Remove(l.path)
	l.unlock()
	return err
}
