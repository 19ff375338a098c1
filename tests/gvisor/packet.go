package main

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// packetBuffer is the room of the packet socket each way, bytes, as runsc sets it (runsc/sandbox/network.go).
	packetBuffer = 4 << 20
	// segments is how long a bundle of segments may be that the kernel is given to cut, bytes: the kernel's own limit for a
	// card (IFLA_GSO_MAX_SIZE).
	segments = 65536
)

// newPacket makes gVisor's endpoint on a packet socket. It receives with recvmmsg, as runsc does; PACKET_MMAP was no faster,
// nor was gVisor's GRO. It gives the kernel bundles of segments to cut, as the kernel's own TCP does even where the card can't
// cut them: a third faster at sending than cutting them itself.
func newPacket(card *net.Interface) (stack.LinkEndpoint, error) {
	// Bound with the protocol, so that no packet of another interface comes before.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a packet socket: %w", err)
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, packetBuffer),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: card.Index}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up a packet socket on %s: %w", card.Name, err), unix.Close(fd))
	}
	return fdbased.New(&fdbased.Options{
		FDs: []int{fd}, MTU: uint32(card.MTU), EthernetHeader: true, Address: tcpip.LinkAddress(card.HardwareAddr),
		PacketDispatchMode: fdbased.RecvMMsg, GSOMaxSize: segments,
	})
}
