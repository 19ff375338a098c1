package netlab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A Heard is a frame that came to an end of a cable.
type Heard struct {
	Frame []byte
	// Partial: its UDP or TCP checksum is left to a card (TP_STATUS_CSUMNOTREADY): the field has the pseudo-header's sum.
	Partial bool
}

// An Ear hears all frames that come to an end for its own Ethernet address, by a packet socket.
type Ear struct {
	fd      int
	frame   []byte
	control []byte
}

const (
	earBuffer = 4 << 20 // bytes, of the socket
	earFrame  = 1 << 17 // bytes of the longest frame
	// auxdata is the length of struct tpacket_auxdata (include/uapi/linux/if_packet.h), whose first field is tp_status.
	auxdata = 20
)

// Hear listens at the namespace's first end. Whoever asks for a frame waits for it for this long.
func (n *Namespace) Hear(patience time.Duration) (*Ear, error) {
	e := &Ear{fd: -1, frame: make([]byte, earFrame), control: make([]byte, unix.CmsgSpace(auxdata))}
	err := n.Do(func() (err error) {
		protocol := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
		if e.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol)); err != nil {
			return err
		}
		timeout := unix.NsecToTimeval(int64(patience))
		if err := unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, earBuffer); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(e.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		return unix.Bind(e.fd, &unix.SockaddrLinklayer{Ifindex: n.Index(), Protocol: protocol})
	})
	if err != nil {
		_ = e.Close()
		return nil, fmt.Errorf("netlab: hear what comes to %s: %w%s", n.Interface(), err, hint(err))
	}
	return e, nil
}

// Next is the next frame.
func (e *Ear) Next() (Heard, error) {
	for {
		n, c, _, from, err := unix.Recvmsg(e.fd, e.frame, e.control, 0)
		if err != nil {
			return Heard{}, fmt.Errorf("netlab: hear a frame: %w", err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_HOST {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(e.control[:c])
		if err != nil || len(messages) != 1 || len(messages[0].Data) < auxdata {
			return Heard{}, fmt.Errorf("netlab: hear a frame: without a status: %v", err)
		}
		status := binary.NativeEndian.Uint32(messages[0].Data)
		return Heard{bytes.Clone(e.frame[:n]), status&unix.TP_STATUS_CSUMNOTREADY != 0}, nil
	}
}

// Close ends the hearing.
func (e *Ear) Close() error {
	if e.fd < 0 {
		return nil
	}
	fd := e.fd
	e.fd = -1
	return unix.Close(fd)
}
