package bench

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
)

// The clients speak through the kernel's sockets by bare system calls on one thread, and so add as little of their own as a
// Go program can. They are the same for all subjects. One that measures times says its result in one line of JSON and ends;
// one that moves bytes is a child as a subject is.

// asked is the result of a client: times in ns, of round trips or of whole connections.
type asked struct {
	Count int   `json:"count"`
	Lost  int   `json:"lost"` // answers that did not come, or connections that failed
	P50   int64 `json:"p50"`
	P99   int64 `json:"p99"`
	P999  int64 `json:"p999"`
	Max   int64 `json:"max"`
	Took  int64 `json:"took"` // from the first to the last
	// Resent is how many segments the client's kernel sent again, where connections stay.
	Resent int `json:"resent"`
}

const (
	// askWarm are the round trips that a client makes before it counts.
	askWarm = 200
	// askMost bounds the times that a client keeps.
	askMost = 1 << 21
	// askPatience is how long a client waits for an answer before it counts it as lost.
	askPatience = time.Second
)

// clientMain is a client's main function; which client, the subject's role tells.
func clientMain(t task) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	switch t.Role {
	case Echo, SocketsEcho, child.StreamEcho:
		return askMain(t)
	case child.StreamConnect:
		return connectMain(t)
	case child.StreamRequest:
		return requestMain(t)
	case child.FootprintConnection:
		return child.Run(t, holdConnections)
	case child.StreamsReceive, child.StreamsSend:
		return child.Run(t, moveOnMany)
	}
	return child.Run(t, moveBytes)
}

// askMain has one question outstanding at a time.
func askMain(t task) error {
	c := asker{spin: t.Spin, stream: t.Role == child.StreamEcho}
	length := t.Payload
	if !c.stream {
		length = max(length, 8) // for a number
	}
	c.out, c.in = make([]byte, length), make([]byte, length)
	for n := range t.Sockets {
		c.to = append(c.to, sockaddrOf(nthAddress(t, n)))
	}
	var err error
	if c.stream {
		c.fd, err = streamSocket(t)
	} else {
		c.fd, err = datagramSocket(t)
	}
	if err != nil {
		return err
	}
	defer unix.Close(c.fd)
	times := make([]int64, 0, askMost)
	for range max(askWarm, min(len(c.to), comparedSockets)) {
		if _, _, err := c.ask(); err != nil {
			return err
		}
	}
	lost, begin := 0, time.Now()
	for end := begin.Add(t.Duration); time.Now().Before(end) && len(times) < askMost; {
		took, ok, err := c.ask()
		switch {
		case err != nil:
			return err
		case ok:
			times = append(times, int64(took))
		default:
			lost++
		}
	}
	return tell(times, asked{Lost: lost, Took: int64(time.Since(begin))})
}

// tell writes a client's result, which it completes with what the times say.
func tell(times []int64, result asked) error {
	slices.Sort(times)
	result.Count = len(times)
	result.P50, result.P99, result.P999 = quantile(times, 0.5), quantile(times, 0.99), quantile(times, 0.999)
	result.Max = quantile(times, 1)
	return json.NewEncoder(os.Stdout).Encode(result)
}

func datagramSocket(t task) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("bench: make the client's socket: %w", err)
	}
	patience := unix.NsecToTimeval(int64(askPatience))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetNonblock(fd, t.Spin),
	)
	if t.Sockets == 0 {
		err = errors.Join(err, unix.Connect(fd, sockaddr(t)))
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bench: connect the client to %s: %w", t.Address, err)
	}
	return fd, nil
}

func sockaddr(t task) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(t.Address.Port()), Addr: t.Address.Addr().As4()}
}

// sockaddrOf is an address as sendto(2) takes it.
func sockaddrOf(at netip.AddrPort) (raw unix.RawSockaddrInet4) {
	raw.Family, raw.Addr = unix.AF_INET, at.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:], at.Port())
	return raw
}

// asker sends numbered questions and waits for each to come back.
type asker struct {
	fd           int
	spin, stream bool
	number       uint64
	out, in      []byte
	to           []unix.RawSockaddrInet4 // in turn, where the socket is not connected
	next         int                     // of to
}

// ask makes one round trip; ok is false where no answer came in time.
func (c *asker) ask() (took time.Duration, ok bool, err error) {
	c.number++
	if c.stream {
		took, err = c.askStream()
		return took, err == nil, err
	}
	binary.BigEndian.PutUint64(c.out, c.number)
	var to, from *unix.RawSockaddrInet4
	if len(c.to) > 0 {
		to, from = &c.to[c.next], &unix.RawSockaddrInet4{}
		c.next = (c.next + socketStride) % len(c.to)
	}
	start := time.Now()
	if _, e := rawTo(c.fd, c.out, to); e != 0 {
		return 0, false, fmt.Errorf("bench: the client's send: %w", e)
	}
	for {
		n, e := rawFrom(c.fd, c.in, from)
		switch {
		case e == 0 && to != nil && *from != *to:
			return 0, false, fmt.Errorf("bench: an answer came from another socket than the one that was asked")
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

// rawTo is sendto(2), to nil for a connected socket, and rawFrom recvfrom(2), without telling Go's scheduler either.
func rawTo(fd int, b []byte, to *unix.RawSockaddrInet4) (int, unix.Errno) {
	if to == nil {
		return rawIO(unix.SYS_WRITE, fd, b)
	}
	n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet4)
	return int(n), e
}

func rawFrom(fd int, b []byte, from *unix.RawSockaddrInet4) (int, unix.Errno) {
	if from == nil {
		return rawIO(unix.SYS_READ, fd, b)
	}
	length := uint32(unix.SizeofSockaddrInet4)
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&length)))
	return int(n), e
}
