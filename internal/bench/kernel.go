package bench

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
)

// The kernel's sockets: for datagrams recvmmsg and sendmmsg from C, the same by way of golang.org/x/net, and Go's net package
// one datagram at a time; for TCP C and Go's net package.

const (
	// kernelBatch is the most datagrams a call.
	kernelBatch = 64
	// kernelLongest is the longest datagram taken, bytes.
	kernelLongest = 2048
	// kernelRoom is the receive buffer that the kernel's subjects ask for, bytes, as the C one does.
	kernelRoom = 8 << 20
)

//go:embed rival
var rivalSources embed.FS

// compile builds the programs in C into dir and returns their paths, or the reason where there is no working C compiler.
func compile(dir string) (paths map[program]string, why string) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return nil, "no C compiler is installed"
	}
	if err := os.CopyFS(dir, rivalSources); err != nil {
		return nil, err.Error()
	}
	paths = map[program]string{}
	for _, p := range []program{recvmmsgProgram, sendmmsgProgram, streamProgram} {
		source := filepath.Join(dir, "rival", string(p)+".c")
		path := filepath.Join(dir, string(p))
		if out, err := exec.Command(cc, "-O2", "-pthread", "-o", path, source).CombinedOutput(); err != nil {
			return nil, fmt.Sprintf("%s fails: %v: %s", cc, err, out)
		}
		paths[p] = path
	}
	return paths, ""
}

// recvmmsgArgs are the arguments of the C subject for datagrams.
func recvmmsgArgs(t task) []string {
	wait := "sleep"
	if t.Subject == recvmmsgSpin {
		wait = "spin"
	}
	numbers := []string{strconv.Itoa(t.CPU), strconv.Itoa(t.Sockets)}
	return slices.Concat([]string{string(t.Role), wait}, hostPort(nthAddress(t, 0)), numbers)
}

// streamArgs are the arguments of the C subject for TCP.
func streamArgs(t task) []string {
	numbers := []string{strconv.Itoa(t.CPU), strconv.Itoa(child.Room(t.Workers))}
	return slices.Concat([]string{string(t.Role)}, hostPort(t.Address), numbers)
}

// serveGoStream serves TCP through package net.
func serveGoStream(t task, c *counters, ready func()) error {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		})
		return errors.Join(err, controlErr)
	}}
	ln, err := config.Listen(context.Background(), "tcp4", t.Address.String())
	if err != nil {
		return err
	}
	return child.ServeStream(ln, t, c, ready)
}

// listenKernel binds a kernel socket to the task's address, with room for bursts.
func listenKernel(t task) (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(t.Address))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, kernelRoom)
	})
	if err = errors.Join(err, setErr); err != nil {
		return nil, errors.Join(fmt.Errorf("set the receive buffer: %w", err), conn.Close())
	}
	return conn, nil
}

// serveGoNet takes, answers or sends one datagram at a time through package net.
func serveGoNet(t task, c *counters, ready func()) error {
	switch t.Role {
	case child.FootprintUDP, child.FootprintListener, child.FootprintConnection:
		return serveGoFootprint(t, c, ready)
	}
	conn, err := listenKernel(t)
	if err != nil {
		return err
	}
	defer conn.Close()
	if t.Role == Transmit {
		return transmitGoNet(conn, t, c, ready)
	}
	ready()
	b := make([]byte, kernelLongest)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		c.Received.Add(1)
		if t.Role != Echo {
			continue
		}
		if _, err := conn.WriteToUDPAddrPort(b[:n], from); err != nil {
			return err
		}
		c.Sent.Add(1)
	}
}

// serveGoBatch takes and answers batches through golang.org/x/net/ipv4.
func serveGoBatch(t task, c *counters, ready func()) error {
	udp, err := listenKernel(t)
	if err != nil {
		return err
	}
	defer udp.Close()
	conn := ipv4.NewPacketConn(udp)
	messages := make([]ipv4.Message, kernelBatch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, kernelLongest)}
	}
	ready()
	for {
		n, err := conn.ReadBatch(messages, unix.MSG_WAITFORONE)
		if err != nil {
			return err
		}
		c.Received.Add(uint64(n))
		if t.Role != Echo {
			continue
		}
		for i := range messages[:n] {
			m := &messages[i]
			m.Buffers[0] = m.Buffers[0][:m.N]
		}
		for left := messages[:n]; len(left) > 0; {
			sent, err := conn.WriteBatch(left, 0)
			if err != nil {
				return err
			}
			c.Sent.Add(uint64(sent))
			left = left[sent:]
		}
		for i := range messages[:n] {
			m := &messages[i]
			m.Buffers[0] = m.Buffers[0][:kernelLongest]
		}
	}
}

// mmsghdr is the kernel's struct mmsghdr (recvmmsg(2)).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// serveRecvmmsg is the C subject's loop in Go by bare system calls, for a machine without a C compiler.
func serveRecvmmsg(t task, c *counters, ready func()) error {
	conn, err := listenKernel(t)
	if err != nil {
		return err
	}
	defer conn.Close()
	file, err := conn.File() // a blocking descriptor of the same socket
	if err != nil {
		return err
	}
	defer file.Close()
	fd := int(file.Fd())
	runtime.LockOSThread()
	flags := uintptr(unix.MSG_WAITFORONE)
	if t.Subject == recvmmsgSpin {
		flags = unix.MSG_DONTWAIT
	}

	buffers := make([][kernelLongest]byte, kernelBatch)
	peers := make([]unix.RawSockaddrInet4, kernelBatch)
	vectors := make([]unix.Iovec, kernelBatch)
	messages := make([]mmsghdr, kernelBatch)
	for i := range messages {
		vectors[i].Base = &buffers[i][0]
		h := &messages[i].header
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&peers[i])), &vectors[i]
		h.SetIovlen(1)
	}
	ready()
	for {
		for i := range messages {
			vectors[i].SetLen(kernelLongest)
			messages[i].header.Namelen = unix.SizeofSockaddrInet4
		}
		n, err := mmsg(unix.SYS_RECVMMSG, fd, messages, flags)
		if err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return fmt.Errorf("recvmmsg: %w", err)
		}
		c.Received.Add(uint64(n))
		if t.Role != Echo {
			continue
		}
		for i := range messages[:n] {
			vectors[i].SetLen(int(messages[i].length))
		}
		for left := messages[:n]; len(left) > 0; {
			sent, err := mmsg(unix.SYS_SENDMMSG, fd, left, 0)
			if err != nil {
				return fmt.Errorf("sendmmsg: %w", err)
			}
			c.Sent.Add(uint64(sent))
			left = left[sent:]
		}
	}
}

// mmsg is recvmmsg(2) without a time-out, or sendmmsg(2).
func mmsg(trap uintptr, fd int, messages []mmsghdr, flags uintptr) (int, error) {
	for {
		n, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), flags, 0, 0)
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}
