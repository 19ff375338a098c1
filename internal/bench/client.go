package bench

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// asked is the result of a client: round trips in ns.
type asked struct {
	Count int   `json:"count"`
	Lost  int   `json:"lost"`
	P50   int64 `json:"p50"`
	P99   int64 `json:"p99"`
	P999  int64 `json:"p999"`
	Max   int64 `json:"max"`
}

const (
	// askWarm are the round trips that a client makes before it counts.
	askWarm = 200
	// askMost bounds the round trips that a client keeps.
	askMost = 1 << 21
	// askPatience is how long a client waits for an answer before it counts it as lost.
	askPatience = time.Second
)

// askMain is the client: it has one datagram outstanding through the kernel's socket, by bare system calls on one thread,
// and so adds as little of its own as a Go program can.
func askMain(t task) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	fd, err := askSocket(t)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	c := asker{fd: fd, spin: t.Spin, out: make([]byte, max(t.Payload, 8)), in: make([]byte, max(t.Payload, 8))}
	times := make([]int64, 0, askMost)
	for range askWarm {
		if _, _, err := c.ask(); err != nil {
			return err
		}
	}
	var result asked
	for end := time.Now().Add(t.Duration); time.Now().Before(end) && len(times) < askMost; {
		took, ok, err := c.ask()
		switch {
		case err != nil:
			return err
		case ok:
			times = append(times, int64(took))
		default:
			result.Lost++
		}
	}
	slices.Sort(times)
	result.Count = len(times)
	result.P50, result.P99, result.P999 = quantile(times, 0.5), quantile(times, 0.99), quantile(times, 0.999)
	result.Max = quantile(times, 1)
	return json.NewEncoder(os.Stdout).Encode(result)
}

func askSocket(t task) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("bench: make the client's socket: %w", err)
	}
	patience := unix.NsecToTimeval(int64(askPatience))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetNonblock(fd, t.Spin),
		unix.Connect(fd, &unix.SockaddrInet4{Port: int(t.Address.Port()), Addr: t.Address.Addr().As4()}),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bench: connect the client to %s: %w", t.Address, err)
	}
	return fd, nil
}

// asker sends numbered datagrams and waits for each to come back.
type asker struct {
	fd      int
	spin    bool
	number  uint64
	out, in []byte
}

// ask makes one round trip; ok is false where no answer came in time.
func (c *asker) ask() (took time.Duration, ok bool, err error) {
	c.number++
	binary.BigEndian.PutUint64(c.out, c.number)
	start := time.Now()
	if _, e := rawIO(unix.SYS_WRITE, c.fd, c.out); e != 0 {
		return 0, false, fmt.Errorf("bench: the client's send: %w", e)
	}
	for {
		n, e := rawIO(unix.SYS_READ, c.fd, c.in)
		switch {
		case e == 0 && n >= 8 && binary.BigEndian.Uint64(c.in) == c.number:
			return time.Since(start), true, nil
		case e != 0 && e != unix.EAGAIN && e != unix.EINTR:
			return 0, false, fmt.Errorf("bench: the client's receive: %w", e)
		case e == unix.EAGAIN && !c.spin, time.Since(start) > askPatience:
			return 0, false, nil
		}
	}
}

// rawIO reads or writes without telling Go's scheduler: the client has nothing else to run.
func rawIO(trap uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), e
}
