package kernel

import (
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack/wire"
)

// The ports that OwnedPorts chooses from, RFC 6335 §6.
const (
	firstDynamic = 49152
	lastDynamic  = 65535
)

// OwnedPorts implements stack.Ports for addresses that the kernel does not have. Nobody else can take a port there, and all
// packets to such an address are steered anyhow; only broadcasts are shared with the kernel, and steered by the UDP ports
// that are bound.
type OwnedPorts struct {
	steer Steer
	mu    sync.Mutex
	held  map[portKey]int // users
}

// NewOwnedPorts makes OwnedPorts that hold nothing.
func NewOwnedPorts(steer Steer) *OwnedPorts {
	return &OwnedPorts{steer: steer, held: make(map[portKey]int)}
}

// Reserve takes a port; 0 takes a free one. One that is held already gets one user more. The error wraps EADDRINUSE when port
// is 0 and all are taken, else what Steer says.
func (p *OwnedPorts) Reserve(proto wire.Protocol, addr netip.Addr, port uint16) (uint16, error) {
	key := portKey{proto, addr.Unmap(), port}
	if !key.addr.Is4() {
		return 0, fmt.Errorf("reserve %s: it is not an IPv4 address: %w", key, unix.EAFNOSUPPORT)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if port == 0 {
		if err := pick(&key, firstDynamic, lastDynamic, p.held); err != nil {
			return 0, err
		}
	}
	if p.held[key] == 0 && proto == wire.ProtocolUDP {
		if err := p.steer.BindPort(uint8(proto), key.addr, key.port); err != nil {
			return 0, fmt.Errorf("steer broadcasts to %s: %w", key, err)
		}
	}
	p.held[key]++
	return key.port, nil
}

// Release ends one use of a port; with the last it is free.
func (p *OwnedPorts) Release(proto wire.Protocol, addr netip.Addr, port uint16) {
	key := portKey{proto, addr.Unmap(), port}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[key] == 0 {
		return
	}
	if p.held[key]--; p.held[key] > 0 {
		return
	}
	delete(p.held, key)
	if proto == wire.ProtocolUDP {
		// Broadcasts that still come are dropped for want of a socket.
		_ = p.steer.UnbindPort(uint8(proto), key.addr, key.port)
	}
}
