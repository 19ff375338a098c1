package bench

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
)

// rawBudget is how many frames a poll takes, as many as kit's engine does.
const rawBudget = 256

// serveRawXDP is AF_XDP without a stack, the floor under kit: the same XDP program and link, but frames are only read
// and counted, sent as they are ready, or sent back with their addresses and ports exchanged; no checksum is. It waits as kit does
// by default. The subject that does not read them counts descriptors.
func serveRawXDP(t task, c *counters, ready func()) error {
	device, err := loader.Open(loader.Config{Interface: t.Interface})
	if err != nil {
		return err
	}
	defer device.Close()
	tables, links := device.Tables(), device.Links()
	if len(links) != 1 && t.Role != Scaling {
		return fmt.Errorf("%s has %d queues, want 1", t.Interface, len(links))
	}
	if err := steerRaw(tables, t); err != nil {
		return err
	}
	if err := tables.SetEnabled(true); err != nil {
		return err
	}
	if t.Role == Scaling {
		return serveRawScaling(links, t, c, ready)
	}
	link := links[0]
	if t.Role == Transmit {
		return transmitRaw(link, t, c, ready)
	}
	var received, sent uint64
	input := func([]byte) { received++ }
	if t.Subject == rawXDP {
		mine := reader{address: t.Address.Addr().As4(), port: t.Address.Port()}
		input = func(frame []byte) {
			if mine.read(frame) {
				received++
			}
		}
	}
	echo := t.Role == Echo || t.Role == SocketsEcho
	if echo {
		input = func(frame []byte) {
			if len(frame) < headersLen {
				return
			}
			received++
			turnRound(frame)
			if link.Send(frame) {
				sent++
			}
		}
	}
	runtime.LockOSThread()
	ready()
	pending := false
	for last := time.Now(); ; {
		n := link.Poll(rawBudget, input)
		if n > 0 || pending {
			pending = echo && link.Flush()
			c.Received.Store(received)
			c.Sent.Store(sent)
			last = time.Now()
			continue
		}
		if time.Since(last) < stack.DefaultSpin {
			continue
		}
		if err := link.Wait(-1); err != nil {
			return err
		}
		last = time.Now()
	}
}

// steerRaw lets come what is to the task's address or, where there are many sockets, to all their addresses.
func steerRaw(tables *bpf.Tables, t task) error {
	if t.Role == SocketsEcho {
		for _, owned := range ownedBy(t) {
			if err := tables.SetAddress(owned.Addr(), bpf.Owned); err != nil {
				return err
			}
		}
		return nil
	}
	if err := tables.SetAddress(t.Address.Addr(), bpf.Shared); err != nil {
		return err
	}
	return tables.BindPort(bpf.UDP, t.Address.Addr(), t.Address.Port())
}

// reader reads what any receiver of datagrams has to: the Ethernet type, IPv4's version, protocol and destination, UDP's ports and
// length, and of the payload the first byte; sum is of what is only read.
type reader struct {
	address [4]byte
	port    uint16
	sum     uint32
}

// read says whether a frame is a datagram to the reader.
func (r *reader) read(frame []byte) bool {
	if len(frame) <= headersLen {
		return false
	}
	f := (*[headersLen + 1]byte)(frame)
	udp := f[srcPortAt:headersLen]
	if binary.BigEndian.Uint16(f[etherLen-2:]) != unix.ETH_P_IP || f[etherLen] != 0x45 || f[protocolAt] != unix.IPPROTO_UDP ||
		[4]byte(f[destAddrAt:destAddrAt+4]) != r.address || binary.BigEndian.Uint16(udp[2:]) != r.port ||
		int(binary.BigEndian.Uint16(udp[4:])) > len(frame)-srcPortAt {
		return false
	}
	r.sum += uint32(binary.BigEndian.Uint16(udp)) + uint32(f[headersLen])
	return true
}

// turnRound exchanges the Ethernet addresses, IPv4 addresses and UDP ports of a frame without IPv4 options. The checksums
// stay right.
func turnRound(frame []byte) {
	f := (*[headersLen]byte)(frame)
	exchange(f[0:6], f[6:12])
	exchange(f[etherLen+12:etherLen+16], f[etherLen+16:etherLen+20])
	exchange(f[srcPortAt:srcPortAt+2], f[srcPortAt+2:srcPortAt+4])
}

func exchange(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}
