package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// receiveBuffer is how many bytes of changes the kernel keeps for a Follower before it drops some and says ENOBUFS.
const receiveBuffer = 4 << 20

// changes is a netlink socket on which the kernel tells every change. It is also the one that neighbours are asked on, so
// that answers come in line with the changes.
type changes struct {
	file *os.File
	raw  syscall.RawConn
	seq  atomic.Uint32
	buf  []byte
}

// subscribe opens the socket in the calling thread's network namespace.
func subscribe(bufferBytes int, linkOnly bool) (*changes, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	// Beyond net.core.rmem_max only CAP_NET_ADMIN gets; what the limit allows is the next best.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferBytes) != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferBytes)
	}
	wanted := []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_NEXTHOP,
	}
	if linkOnly {
		wanted = wanted[:1]
	}
	groups := uint32(0)
	for _, g := range wanted {
		groups |= 1 << (g - 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribe to the kernel's changes by netlink: %w", err)
	}
	c := &changes{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 64<<10)}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	return c, nil
}

// errNothing is when there is nothing more to receive at the moment.
var errNothing = errors.New("nothing to receive")

// receive returns the messages of one read, valid until the next. If wait is set it waits for them until the deadline, for
// ever where that is zero; else not at all. Errors: errNothing; unix.ENOBUFS, when changes were lost; os.ErrClosed.
func (c *changes) receive(wait bool, deadline time.Time) (messages []syscall.NetlinkMessage, err error) {
	if !wait {
		deadline = time.Time{} // one that has passed would keep it from looking
	}
	if err := c.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	var n int
	var from unix.Sockaddr
	var got error
	err = c.raw.Read(func(fd uintptr) bool {
		// With MSG_TRUNC the result is the message's length, whatever the buffer holds.
		n, from, got = unix.Recvfrom(int(fd), c.buf, unix.MSG_TRUNC)
		return got != unix.EAGAIN || !wait
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), err == nil && (got == unix.EAGAIN || got == unix.EINTR):
		return nil, errNothing
	case err != nil:
		return nil, err
	case got != nil:
		return nil, got
	case n > len(c.buf):
		return nil, unix.ENOBUFS
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return nil, nil // only the kernel's word counts
	}
	messages, err = syscall.ParseNetlinkMessage(c.buf[:n])
	if err != nil {
		return nil, unix.ENOBUFS // as good as lost
	}
	return messages, nil
}

// ask sends a request whose answer, or error, comes by receive. The kernel has dealt with it when ask returns.
func (c *changes) ask(kind uint16, flags uint16, body []byte) error {
	b := make([]byte, 0, unix.SizeofNlMsghdr+len(body))
	b = native.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = native.AppendUint32(b, c.seq.Add(1))
	b = native.AppendUint32(b, 0)
	b = append(b, body...)
	var sent error
	err := c.raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return sent != unix.EAGAIN
	})
	return errors.Join(err, sent)
}

func (c *changes) close() error { return c.file.Close() }

// requests is a netlink socket for questions that are answered at once.
type requests struct{ handle *nl.SocketHandle }

// openRequests opens the socket in the calling thread's network namespace.
func openRequests() (*requests, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := errors.Join(s.SetSendTimeout(&nl.SocketTimeoutTv), s.SetReceiveTimeout(&nl.SocketTimeoutTv)); err != nil {
		s.Close()
		return nil, fmt.Errorf("set the time-outs of a netlink socket: %w", err)
	}
	return &requests{handle: &nl.SocketHandle{Socket: s}}, nil
}

func (r *requests) close() { r.handle.Close() }

// get sends one request and calls f with the body of each answer.
func (r *requests) get(kind, flags int, body []byte, f func(body []byte)) error {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: r.handle}
	req.AddRawData(body)
	return req.ExecuteIter(unix.NETLINK_ROUTE, 0, func(b []byte) bool {
		f(b)
		return true
	})
}

// dumpTries is how often a dump is begun anew because the kernel's table changed under it.
const dumpTries = 10

// dump calls f with every entry of one of the kernel's tables. When the table changes meanwhile it begins anew, after a call
// of restart; nl.ErrDumpInterrupted means that it did so every time, and some entries may be missing.
func (r *requests) dump(kind int, body []byte, restart func(), f func(body []byte)) (err error) {
	for range dumpTries {
		restart()
		if err = r.get(kind, unix.NLM_F_DUMP, body, f); !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}

// link asks for one interface by name, or by index where name is empty. The kernel answers under the lock that all changes
// to interfaces, addresses and routes are made under (RTNL), so one that has been announced is complete after it.
func (r *requests) link(name string, index int) (l link, err error) {
	body := make([]byte, unix.SizeofIfInfomsg, 64)
	native.PutUint32(body[4:], uint32(index))
	if name != "" {
		v := make([]byte, unix.IFNAMSIZ)
		if copy(v, name) == len(v) {
			return link{}, unix.ENODEV // no interface has so long a name
		}
		body = putAttr(body, unix.IFLA_IFNAME, v)
	}
	found := false
	err = r.get(unix.RTM_GETLINK, 0, body, func(b []byte) { l, found = decodeLink(b) })
	if err == nil && !found {
		err = unix.ENODEV
	}
	return l, err
}

// links lists all interfaces.
func (r *requests) links() (all []link, err error) {
	err = r.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), func() { all = nil }, func(b []byte) {
		if l, ok := decodeLink(b); ok {
			all = append(all, l)
		}
	})
	return all, err
}

// addresses lists the IPv4 addresses of all interfaces, each interface's primary ones first.
func (r *requests) addresses() (all []address, err error) {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0] = unix.AF_INET
	err = r.dump(unix.RTM_GETADDR, body, func() { all = nil }, func(b []byte) {
		if a, ok := decodeAddress(b); ok {
			all = append(all, a)
		}
	})
	return all, err
}

// neighbours lists the neighbours on one interface.
func (r *requests) neighbours(index int) (all []neighbour, err error) {
	body := make([]byte, unix.SizeofNdMsg, 32)
	body[0] = unix.AF_INET
	body = putAttr(body, unix.NDA_IFINDEX, native.AppendUint32(nil, uint32(index)))
	err = r.dump(unix.RTM_GETNEIGH, body, func() { all = nil }, func(b []byte) {
		if n, ok := decodeNeighbour(b); ok && n.index == index {
			all = append(all, n)
		}
	})
	return all, err
}

// rules counts the routing rules beyond the standard ones.
func (r *requests) rules() (others int, err error) {
	body := make([]byte, ruleHeaderLen)
	body[0] = unix.AF_INET
	err = r.dump(unix.RTM_GETRULE, body, func() { others = 0 }, func(b []byte) {
		if standard, ok := decodeRule(b); ok && !standard {
			others++
		}
	})
	return others, err
}
