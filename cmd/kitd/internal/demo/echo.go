package demo

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Sizes of the kernel's echo service.
const (
	echoBatch   = 64      // datagrams a system call
	echoLongest = 2048    // bytes of a datagram
	echoRoom    = 4 << 20 // bytes of the receive buffer
)

// ServeKernelEcho answers datagrams at an address as fast as Go can with the
// kernel's sockets: recvmmsg and sendmmsg of up to 64. It waits for a port that
// is still taken, says "ready" on log, and returns only with an error.
func ServeKernelEcho(address string, log io.Writer) error {
	conn, err := listenPatiently(address)
	if err != nil {
		return fmt.Errorf("the kernel's echo service can't listen on %s: %w", address, err)
	}
	defer conn.Close()
	_ = conn.SetReadBuffer(echoRoom) // less will do
	fmt.Fprintln(log, "ready")
	messages := make([]ipv4.Message, echoBatch)
	room := make([][]byte, echoBatch)
	for i := range messages {
		room[i] = make([]byte, echoLongest)
		messages[i].Buffers = [][]byte{room[i]}
	}
	batches := ipv4.NewPacketConn(conn)
	for {
		n, err := batches.ReadBatch(messages, unix.MSG_WAITFORONE)
		if err != nil {
			return fmt.Errorf("the kernel's echo service can't read: %w", err)
		}
		for i := range messages[:n] {
			messages[i].Buffers[0] = room[i][:messages[i].N]
		}
		for left := messages[:n]; len(left) > 0; {
			sent, err := batches.WriteBatch(left, 0)
			if err != nil {
				return fmt.Errorf("the kernel's echo service can't write: %w", err)
			}
			left = left[sent:]
		}
		for i := range messages[:n] {
			messages[i].Buffers[0] = room[i]
		}
	}
}

// listenPatiently binds as soon as the port is free: the one who was killed for
// it may take a moment to be gone.
func listenPatiently(address string) (*net.UDPConn, error) {
	at, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; {
		conn, err := net.ListenUDP("udp4", at)
		if err == nil || !errors.Is(err, unix.EADDRINUSE) || time.Since(start) > 5*time.Second {
			return conn, err
		}
		time.Sleep(time.Millisecond)
	}
}
