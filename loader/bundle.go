package loader

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// mostBundle is the longest IPv4 packet of a bundle, in bytes: what its total length can say.
	mostBundle = 65535
	// longBundle is that of segments where the kernel cuts them itself: each bundle wakes the receiver, so that few are faster.
	longBundle = 4 * mostBundle
	// mostBundleParts is how many slices of payload SendBundle takes.
	mostBundleParts = 64
	// bundleBuffer is the packet socket's send buffer in bytes: what may wait in the card's transmit queue.
	bundleBuffer = 4 << 20

	tcpChecksumAt = 16 // bytes into the TCP header
	udpChecksumAt = 6  // bytes into the UDP header
	ipProtocolAt  = 9  // bytes into the IPv4 header
)

// packetSocket hands TCP segments and UDP datagrams to the driver in bundles, which the card, or the kernel just above the
// driver, cuts apart (packet(7) with PACKET_VNET_HDR). In copy mode AF_XDP costs a buffer, a walk through the driver and a
// softirq for each frame; this costs them once for a bundle. It receives nothing.
type packetSocket struct {
	fd   int
	most int // bytes of a bundle of segments
	vnet virtioNetHeader
	iov  [2 + mostBundleParts]unix.Iovec
	msg  unix.Msghdr
	// tcpFault and udpFault are why it is not to be used any more.
	tcpFault, udpFault error
}

// virtioNetHeader is struct virtio_net_hdr of include/uapi/linux/virtio_net.h, in the machine's byte order. Lengths in bytes.
type virtioNetHeader struct {
	flags, gsoType                               uint8
	headerLen, gsoSize, checksumFrom, checksumAt uint16
}

const (
	virtioNeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	virtioGSOTCPv4      = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	virtioGSOUDP        = 5 // VIRTIO_NET_HDR_GSO_UDP_L4, since Linux 6.2
)

// openPacketSocket needs CAP_NET_RAW, and looks for the interface in the network namespace of the calling thread. most is the
// longest bundle of segments in bytes.
func openPacketSocket(ifindex, most int) (*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	p := &packetSocket{fd: fd, most: most}
	if err := p.setup(ifindex); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return p, nil
}

func (p *packetSocket) setup(ifindex int) error {
	if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return err
	}
	if unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bundleBuffer) != nil { // needs CAP_NET_ADMIN
		_ = unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bundleBuffer)
	}
	return unix.Bind(p.fd, &unix.SockaddrLinklayer{Ifindex: ifindex}) // protocol 0: receives nothing
}

func (p *packetSocket) close() {
	if p != nil && p.fd >= 0 {
		_ = unix.Close(p.fd)
		p.fd = -1
	}
}

// send hands a bundle to the kernel, which copies it.
func (p *packetSocket) send(header []byte, network int, payload [][]byte, segment int) error {
	p.vnet = virtioNetHeader{
		flags: virtioNeedsChecksum, gsoType: virtioGSOTCPv4, headerLen: uint16(len(header)), gsoSize: uint16(segment),
		checksumFrom: uint16(network + int(header[network]&0xF)*4), checksumAt: tcpChecksumAt,
	}
	if header[network+ipProtocolAt] == unix.IPPROTO_UDP {
		p.vnet.gsoType, p.vnet.checksumAt = virtioGSOUDP, udpChecksumAt
	}
	p.iov[0] = iovec((*byte)(unsafe.Pointer(&p.vnet)), int(unsafe.Sizeof(p.vnet)))
	p.iov[1] = iovec(unsafe.SliceData(header), len(header))
	n := 2
	for _, part := range payload {
		base, last := unsafe.SliceData(part), &p.iov[n-1]
		if n > 2 && uintptr(unsafe.Pointer(last.Base))+uintptr(last.Len) == uintptr(unsafe.Pointer(base)) {
			last.Len += uint64(len(part)) // mostly the next bytes of the same ring
			continue
		}
		p.iov[n] = iovec(base, len(part))
		n++
	}
	p.msg.Iov = &p.iov[0]
	p.msg.SetIovlen(n)
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&p.msg)), unix.MSG_DONTWAIT)
	clear(p.iov[1:n]) // holds on to nobody's memory
	if errno != 0 {
		return errno
	}
	return nil
}

func iovec(base *byte, n int) (v unix.Iovec) {
	v.Base = base
	v.SetLen(n)
	return v
}

// fault is why bundles of a protocol are not to be sent any more.
func (p *packetSocket) fault(protocol uint8) *error {
	if protocol == unix.IPPROTO_UDP {
		return &p.udpFault
	}
	return &p.tcpFault
}

// bundles says why no bundles may be sent: frames go by a transmit queue of their number, past the queueing discipline, and
// must not overtake bundles nor be overtaken.
func (d *Device) bundles() error {
	if d.info.TxQueues != 1 {
		return fmt.Errorf("%d transmit queues, of which the kernel would choose another than the frames'", d.info.TxQueues)
	}
	kind, err := d.card.qdisc()
	if err == nil && kind != noQueue {
		err = fmt.Errorf("the queueing discipline %s, which frames go past", kind)
	}
	return err
}

// longestBundle is of segments, in bytes: a card that cuts them takes no longer ones, so that the kernel would have to cut those.
func (d *Device) longestBundle() int {
	if kernel, err := runningKernel(); err != nil || kernel.Before(longBundleKernel) {
		return mostBundle
	}
	if on, err := d.card.tool.Features(d.info.Interface); err != nil || on["tx-tcp-segmentation"] {
		return mostBundle
	}
	return longBundle
}

// BundleLimit is the longest IPv4 packet that SendBundle takes now of TCP or UDP, in bytes; 0 where it takes none: with
// zero-copy, which has transmit queues of its own and needs it least, on a card with several transmit queues, and where a
// queueing discipline other than noqueue stood between when the device was opened. Frames and bundles would overtake each other
// there.
func (l *Link) BundleLimit(protocol uint8) int {
	if l.packet == nil || *l.packet.fault(protocol) != nil {
		return 0
	}
	if protocol == unix.IPPROTO_TCP {
		return l.packet.most
	}
	return mostBundle
}

// SendBundle sends consecutive TCP segments of one connection, or UDP datagrams of one pair of sockets, that differ in nothing
// but sequence number, payload and checksum, after all that Send has queued. header are the headers of all: Ethernet, from byte
// network on IPv4 without fragmentation whose total length is the sum of headers and payload, 0 if that is over 65535, and TCP
// with the first sequence number or UDP with the length of all, whose checksum field is the pseudo-header's sum, not
// complemented. payload in at most 64 slices is cut into this many bytes each; the last may be shorter, and of segments has the
// PSH. The memory is the caller's again on return. It reports false when nothing was sent, and counts why.
func (l *Link) SendBundle(header []byte, network int, payload [][]byte, segment int) bool {
	protocol := header[network+ipProtocolAt]
	if l.BundleLimit(protocol) == 0 || len(payload) > mostBundleParts {
		return false
	}
	if l.unkicked && l.Flush() {
		l.counters.BundleAgain++
		return false
	}
	bytes := 0
	for _, part := range payload {
		bytes += len(part)
	}
	err := l.packet.send(header, network, payload, segment)
	switch {
	case err == nil:
		segments := (bytes + segment - 1) / segment
		l.counters.Bundles++
		l.counters.TxFrames += uint64(segments)
		l.counters.TxBytes += uint64(bytes + segments*len(header))
		return true
	case bytes > mostBundle && (err == unix.EMSGSIZE || err == unix.ENOBUFS || err == unix.ENOMEM):
		l.packet.most = mostBundle // so much memory is not to be had in few enough pieces
		l.counters.BundleAgain++
	case err == unix.EAGAIN, err == unix.ENOBUFS, err == unix.ENOMEM, err == unix.ENETDOWN:
		l.counters.BundleAgain++
	default: // frames say what is wrong with the interface; a kernel that takes no bundles is not asked twice
		l.counters.BundleFailed++
		*l.packet.fault(protocol) = err
	}
	return false
}
