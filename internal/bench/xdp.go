package bench

import (
	"fmt"
	"runtime"
	"time"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
)

// rawBudget is how many frames a poll takes, as many as kit's engine does.
const rawBudget = 256

// serveRawXDP is AF_XDP without a stack, the floor under kit: the same XDP program and link, but frames are only counted,
// sent as they are ready, or sent back with their addresses and ports exchanged; nothing is checked. It waits as kit does by default.
func serveRawXDP(t task, c *counters, ready func()) error {
	device, err := loader.Open(loader.Config{Interface: t.Interface})
	if err != nil {
		return err
	}
	defer device.Close()
	tables, links := device.Tables(), device.Links()
	if len(links) != 1 {
		return fmt.Errorf("%s has %d queues, want 1", t.Interface, len(links))
	}
	if err := tables.SetAddress(t.Address.Addr(), bpf.Shared); err != nil {
		return err
	}
	if err := tables.BindPort(bpf.UDP, t.Address.Addr(), t.Address.Port()); err != nil {
		return err
	}
	if err := tables.SetEnabled(true); err != nil {
		return err
	}
	link := links[0]
	if t.Role == Transmit {
		return transmitRaw(link, t, c, ready)
	}
	input := func([]byte) {}
	var sent uint64
	if t.Role == Echo {
		input = func(frame []byte) {
			if len(frame) < headersLen {
				return
			}
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
			pending = t.Role == Echo && link.Flush()
			c.Received.Add(uint64(n))
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
