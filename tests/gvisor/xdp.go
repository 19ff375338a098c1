package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	xdplink "gvisor.dev/gvisor/pkg/tcpip/link/xdp"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/xdp"
)

// newXDP makes gVisor's AF_XDP endpoint on the interface's first queue.
//
// The endpoint would bind its socket without XDP_USE_NEED_WAKEUP. The kernel then never asks to be woken, gVisor asks the
// kernel to send only if it asked for that (pkg/xdp, TXQueue.kick), and in copy mode nothing is ever sent. So the socket is
// bound here, as runsc does by default (--EXPERIMENTAL-xdp-need-wakeup).
func newXDP(card *net.Interface) (stack.LinkEndpoint, error) {
	const queue = 0
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make an AF_XDP socket: %w", err)
	}
	endpoint, err := xdplink.New(&xdplink.Options{
		FD: fd, Address: tcpip.LinkAddress(card.HardwareAddr), InterfaceIndex: card.Index, QueueID: queue,
	})
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if err := attach(card, fd); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// The kernel lets go of the queue some milliseconds after its last user.
	deadline := time.Now().Add(bindPatience)
	for err = unix.EBUSY; err == unix.EBUSY && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		err = xdp.Bind(fd, uint32(card.Index), queue, true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind the AF_XDP socket to %s: %w", card.Name, err), unix.Close(fd))
	}
	return batches{endpoint}, nil
}

const bindPatience = time.Second

// attach puts a program on the card that redirects all that comes to the socket, as runsc does. It stays for the life of the
// process.
func attach(card *net.Interface, fd int) error {
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Name: "gvisor_xsks", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make a map: %w", err)
	}
	if err := sockets.Put(uint32(0), uint32(fd)); err != nil {
		return fmt.Errorf("put the socket into the map: %w", err)
	}
	const queueIndex, pass = 16, 2 // struct xdp_md's rx_queue_index; XDP_PASS (linux/bpf.h)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "gvisor_redirect", Type: ebpf.XDP, License: "Dual MIT/GPL", Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, queueIndex, asm.Word),
			asm.LoadMapPtr(asm.R1, sockets.FD()),
			asm.Mov.Imm(asm.R3, pass),
			asm.FnRedirectMap.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		return fmt.Errorf("load the XDP program: %w", err)
	}
	attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: card.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return fmt.Errorf("attach the XDP program to %s: %w", card.Name, err)
	}
	attachments = append(attachments, attached)
	return nil
}

// attachments keep the garbage collector from taking the program off the card.
var attachments []link.Link

// batches cuts what is sent into pieces that the kernel takes at once. A call sends at most 32 frames of the ring in copy mode
// (net/xdp/xsk.c, TX_BATCH_SIZE); gVisor gives it up to 47 and calls no more until it has the next.
type batches struct{ stack.LinkEndpoint }

const batch = 32

func (b batches) WritePackets(packets stack.PacketBufferList) (written int, err tcpip.Error) {
	if packets.Len() <= batch {
		return b.LinkEndpoint.WritePackets(packets)
	}
	for left := packets.AsSlice(); len(left) > 0 && err == nil; {
		var some stack.PacketBufferList
		for _, p := range left[:min(batch, len(left))] {
			some.PushBack(p)
		}
		var n int
		n, err = b.LinkEndpoint.WritePackets(some)
		written += n
		left = left[n:]
	}
	return written, err
}
