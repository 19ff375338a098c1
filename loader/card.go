package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ethernetType is what netlink calls an interface with Ethernet frames (ARPHRD_ETHER).
const ethernetType = "ether"

// virtioDriver is what ethtool calls a virtio card's driver.
const virtioDriver = "virtio_net"

// A card is an interface that questions are asked about. Its sockets stay in the network namespace of the thread that
// opened it, so that questions may come from any goroutine later.
type card struct {
	index  int
	links  *netlink.Handle
	tool   *ethtool.Ethtool
	genl   *nl.SocketHandle
	netdev uint16 // number of the netdev netlink family, 0 where the kernel has none (before 6.3)
}

// openCard finds an interface by name in the calling thread's network namespace.
func openCard(name string) (*card, error) {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a route netlink socket: %w", err)
	}
	c := &card{links: links}
	if err := c.find(name); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *card) find(name string) (err error) {
	device, err := c.links.LinkByName(name)
	if err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return fmt.Errorf("%w: %s: %w; ip link shows the names", ErrGone, name, unix.ENODEV)
		}
		return fmt.Errorf("look for interface %s: %w", name, err)
	}
	c.index = device.Attrs().Index
	if c.tool, err = ethtool.NewEthtool(); err != nil {
		return fmt.Errorf("open an ethtool socket: %w", err)
	}
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("open a generic netlink socket: %w", err)
	}
	c.genl = &nl.SocketHandle{Socket: socket}
	if family, err := netlink.GenlFamilyGet("netdev"); err == nil {
		c.netdev = family.ID
	}
	return nil
}

func (c *card) close() {
	c.links.Close()
	if c.tool != nil {
		c.tool.Close()
	}
	if c.genl != nil {
		c.genl.Close()
	}
}

// attrs are the interface's present attributes.
func (c *card) attrs() (*netlink.LinkAttrs, error) {
	device, err := c.links.LinkByIndex(c.index)
	if err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
			return nil, fmt.Errorf("%w: index %d: %w", ErrGone, c.index, unix.ENODEV)
		}
		return nil, fmt.Errorf("read interface %d: %w", c.index, err)
	}
	return device.Attrs(), nil
}

// driver is the name of the interface's driver, "" where ethtool does not know.
func (c *card) driver(name string) string {
	driver, err := c.tool.DriverName(name)
	if err != nil {
		return ""
	}
	return driver
}

// queueCounts are the receive and transmit queues that the card uses now: by ETHTOOL_GCHANNELS, by the netdev netlink
// family where the driver has no channels (Linux 6.8), else by /sys, else all that the interface was made with.
func (c *card) queueCounts(attrs *netlink.LinkAttrs) (rx, tx int) {
	if channels, err := c.tool.GetChannels(attrs.Name); err == nil {
		rx, tx = int(channels.RxCount+channels.CombinedCount), int(channels.TxCount+channels.CombinedCount)
		if rx > 0 && tx > 0 {
			return rx, tx
		}
	}
	if rx, tx, err := c.netdevQueues(); err == nil && rx > 0 && tx > 0 {
		return rx, tx
	}
	if directory, ok := c.sysfs(attrs.Name); ok {
		r, _ := filepath.Glob(filepath.Join(directory, "queues", "rx-*"))
		t, _ := filepath.Glob(filepath.Join(directory, "queues", "tx-*"))
		return max(len(r), 1), max(len(t), 1)
	}
	return max(attrs.NumRxQueues, 1), max(attrs.NumTxQueues, 1)
}

// sysfs is the interface's directory in /sys. ok is false where /sys shows another network namespace than the card's, as
// it does to a thread that only called setns.
func (c *card) sysfs(name string) (directory string, ok bool) {
	directory = filepath.Join("/sys/class/net", name)
	index, err := os.ReadFile(filepath.Join(directory, "ifindex"))
	return directory, err == nil && strings.TrimSpace(string(index)) == strconv.Itoa(c.index)
}

// numaNode is the NUMA node that the card is at, -1 where that is not known or means nothing.
func (c *card) numaNode(name string) int {
	if directory, ok := c.sysfs(name); ok {
		if text, err := os.ReadFile(filepath.Join(directory, "device", "numa_node")); err == nil {
			if node, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				return node
			}
		}
	}
	return -1
}

// XDPFeatures are what a driver says of its XDP and AF_XDP (the netdev generic netlink family, Linux 6.3;
// include/uapi/linux/netdev.h).
type XDPFeatures struct {
	// Known is false where the kernel does not say; the rest means nothing then.
	Known bool
	// Native: the driver runs XDP programs itself. Redirect: it can redirect, which AF_XDP needs.
	Native, Redirect bool
	// ZeroCopy: the driver has zero-copy AF_XDP. A driver may say so and still refuse.
	ZeroCopy bool
	// MultiBuffer: the driver hands frames of several buffers to a program.
	MultiBuffer bool
	// ZeroCopySegments is how many buffers a frame may have with zero-copy, 0 where not known.
	ZeroCopySegments int
	// TxChecksum: the driver computes checksums of AF_XDP frames.
	TxChecksum bool
}

// Numbers of the netdev family (include/uapi/linux/netdev.h).
const (
	netdevCmdDevGet       = 1
	netdevCmdQueueGet     = 10
	netdevAttrIfindex     = 1
	netdevAttrXDPFeatures = 3
	netdevAttrZCSegments  = 4
	netdevAttrXSKFeatures = 6
	netdevQueueAttrIndex  = 2
	netdevQueueAttrType   = 3
	netdevXDPBasic        = 1 << 0
	netdevXDPRedirect     = 1 << 1
	netdevXDPZeroCopy     = 1 << 3
	netdevXDPRxSG         = 1 << 5
	netdevXSKTxChecksum   = 1 << 1
)

// errNoNetdev: the kernel has no netdev netlink family.
var errNoNetdev = errors.New("no netdev netlink family, which Linux 6.3 has")

// ask puts a question about the interface to the netdev family and returns the attributes of each answer. The message
// is written as raw bytes: the library's own generic netlink header is refused with EINVAL.
func (c *card) ask(command byte, attr uint16, flags int) ([]map[uint16][]byte, error) {
	if c.netdev == 0 {
		return nil, errNoNetdev
	}
	request := nl.NewNetlinkRequest(int(c.netdev), flags)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: c.genl}
	body := []byte{command, 1, 0, 0}
	body = binary.NativeEndian.AppendUint16(body, 8)
	body = binary.NativeEndian.AppendUint16(body, attr)
	request.AddRawData(binary.NativeEndian.AppendUint32(body, uint32(c.index)))
	messages, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, fmt.Errorf("ask the netdev netlink family: %w", err)
	}
	answers := make([]map[uint16][]byte, 0, len(messages))
	for _, message := range messages {
		if len(message) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(message[nl.SizeofGenlmsg:])
		if err != nil {
			return nil, fmt.Errorf("read an answer of the netdev netlink family: %w", err)
		}
		answer := map[uint16][]byte{}
		for _, a := range attrs {
			answer[a.Attr.Type] = a.Value
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

// number reads an attribute of 4 or 8 bytes; 0 for one that is not there.
func number(value []byte) uint64 {
	switch len(value) {
	case 4:
		return uint64(binary.NativeEndian.Uint32(value))
	case 8:
		return binary.NativeEndian.Uint64(value)
	}
	return 0
}

// xdpFeatures asks what the driver can do.
func (c *card) xdpFeatures() XDPFeatures {
	answers, err := c.ask(netdevCmdDevGet, netdevAttrIfindex, 0)
	if err != nil || len(answers) != 1 {
		return XDPFeatures{}
	}
	bits := number(answers[0][netdevAttrXDPFeatures])
	return XDPFeatures{
		Known:            true,
		Native:           bits&netdevXDPBasic != 0,
		Redirect:         bits&netdevXDPRedirect != 0,
		ZeroCopy:         bits&netdevXDPZeroCopy != 0,
		MultiBuffer:      bits&netdevXDPRxSG != 0,
		ZeroCopySegments: int(number(answers[0][netdevAttrZCSegments])),
		TxChecksum:       number(answers[0][netdevAttrXSKFeatures])&netdevXSKTxChecksum != 0,
	}
}

// netdevQueues counts the interface's queues.
func (c *card) netdevQueues() (rx, tx int, err error) {
	answers, err := c.ask(netdevCmdQueueGet, netdevQueueAttrIndex, unix.NLM_F_DUMP)
	if err != nil {
		return 0, 0, err
	}
	for _, answer := range answers {
		if number(answer[netdevQueueAttrIndex]) != uint64(c.index) {
			continue
		}
		if number(answer[netdevQueueAttrType]) == 0 {
			rx++
		} else {
			tx++
		}
	}
	return rx, tx, nil
}

// hardwareAddr is an Ethernet address as a link has it, zero for an interface without one.
func hardwareAddr(addr net.HardwareAddr) (out [6]byte) {
	copy(out[:], addr)
	return out
}

// partialChecksums tells whether an interface hands over frames whose UDP and TCP checksums are not finished: those
// whose sender is a kernel on the same machine, and a virtio card's when the program runs generic.
func partialChecksums(driver string, attached AttachMode) bool {
	switch driver {
	case "veth", "tun", "tap", "netkit":
		return true
	case virtioDriver, "bridge", "macvlan", "ipvlan", "dummy":
		return attached == AttachGeneric
	}
	return false
}

// noQueue is the queueing discipline that is none.
const noQueue = "noqueue"

// qdisc is the name of the interface's root queueing discipline.
func (c *card) qdisc() (string, error) {
	list, err := c.links.QdiscList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: c.index}})
	if err != nil {
		return "", fmt.Errorf("read the queueing discipline: %w", err)
	}
	for _, q := range list {
		if q.Attrs().Parent == netlink.HANDLE_ROOT {
			return q.Type(), nil
		}
	}
	return "", errors.New("the queueing discipline is unknown")
}
