package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack/wire"
)

// errSilence: nobody answered.
var errSilence = errors.New("no answer")

// whoHas asks by ARP who has target, from an address of ours or from 0.0.0.0,
// which is a probe that leaves the others' tables alone (RFC 5227 section 2.1.1).
func whoHas(ctx context.Context, card *net.Interface, from, target netip.Addr) (net.HardwareAddr, error) {
	if len(card.HardwareAddr) != 6 {
		return nil, fmt.Errorf("%s is no Ethernet card", card.Name)
	}
	conn, err := arpSocket(card.Index)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ours := wire.HardwareAddr(card.HardwareAddr)
	asked, ok1 := wire.AddrFrom(target)
	asker, ok2 := wire.AddrFrom(from)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%s is no IPv4 address", target)
	}
	request := make([]byte, wire.EthernetMinimum)
	n := wire.PutEthernet(request, &wire.EthernetInfo{Dst: wire.HardwareBroadcast, Src: ours, Type: wire.EtherTypeARP})
	wire.PutARP(request[n:], &wire.ARPFields{Op: wire.ARPRequest, SenderHardware: ours, Sender: asker, Target: asked})
	for range arpTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		who, err := awaitReply(conn, asked, ours)
		if !errors.Is(err, errSilence) {
			return who, err
		}
	}
	return nil, errSilence
}

// arpSocket is a packet socket for the ARP frames of a card.
func arpSocket(index int) (*os.File, error) {
	const protocol = unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xFF<<8 // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "arp"), nil
}

// awaitReply reads until somebody else says that it has the address.
func awaitReply(conn *os.File, asked wire.Addr, ours wire.HardwareAddr) (net.HardwareAddr, error) {
	if err := conn.SetReadDeadline(time.Now().Add(arpWait)); err != nil {
		return nil, err
	}
	frame := make([]byte, 2048)
	for {
		n, err := conn.Read(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errSilence
		}
		if err != nil {
			return nil, err
		}
		info, ok := wire.ParseEthernet(frame[:n])
		if !ok || info.Type != wire.EtherTypeARP {
			continue
		}
		p, err := wire.ParseARP(frame[info.HeaderLen:n])
		if err != nil || p.Sender() != asked || p.SenderHardware() == ours {
			continue
		}
		who := p.SenderHardware()
		return who[:], nil
	}
}
