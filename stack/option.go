package stack

import (
	"syscall"

	"kitnet.dev/kit/stack/wire"
)

// The smallest buffers that a socket can be given, as SOCK_MIN_RCVBUF and SOCK_MIN_SNDBUF of the kernel.
const minSocketBuffer = 2048

// maxSocketBuffer bounds what a user can ask for.
const maxSocketBuffer = 256 << 20

func clampBuffer(n int) int64 { return int64(min(max(n, minSocketBuffer), maxSocketBuffer)) }

// SetReceiveBuffer bounds the bytes that wait to be read on each engine, the ring's own headers included (SO_RCVBUF). It is
// kept between 2 KiB and 256 MiB. Memory is taken only as datagrams need it.
func (d *Datagram) SetReceiveBuffer(n int) {
	d.rcvbuf.Store(clampBuffer(n))
	d.setLimits()
}

// SetSendBuffer bounds the bytes that wait to be sent (SO_SNDBUF), as SetReceiveBuffer does.
func (d *Datagram) SetSendBuffer(n int) {
	d.sndbuf.Store(clampBuffer(n))
	d.setLimits()
}

func (d *Datagram) setLimits() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.halves {
		if h := d.halves[i].Load(); h != nil {
			h.rx.SetLimit(int(d.rcvbuf.Load()))
			h.tx.SetLimit(int(d.sndbuf.Load()))
		}
	}
}

// ReceiveBuffer is what SetReceiveBuffer set.
func (d *Datagram) ReceiveBuffer() int { return int(d.rcvbuf.Load()) }

// SendBuffer is what SetSendBuffer set.
func (d *Datagram) SendBuffer() int { return int(d.sndbuf.Load()) }

// SetBroadcast allows sending to broadcast addresses (SO_BROADCAST). It is allowed from the start.
func (d *Datagram) SetBroadcast(on bool) { d.noBroadcast.Store(!on) }

// Broadcast is what SetBroadcast set.
func (d *Datagram) Broadcast() bool { return !d.noBroadcast.Load() }

// SetFragment says what becomes of a datagram that is longer than its path's MTU: it leaves in fragments, as from the start, or it is
// dropped (DropTooLong), for protocols that look for the path's MTU themselves (RFC 8899 §3).
func (d *Datagram) SetFragment(on bool) { d.whole.Store(!on) }

// SetProbe makes datagrams that may not leave in fragments leave where the card carries them, whatever ICMP has told of the path: an error
// can be forged, and a protocol that probes finds out by itself (RFC 8899 §4.6, IP_PMTUDISC_PROBE).
func (d *Datagram) SetProbe(on bool) { d.probe.Store(on) }

// Probe is what SetProbe set.
func (d *Datagram) Probe() bool { return d.probe.Load() }

// Fragment is what SetFragment set.
func (d *Datagram) Fragment() bool { return !d.whole.Load() }

// SetTTL sets the time to live of what is sent (IP_TTL); 0 is EINVAL.
func (d *Datagram) SetTTL(ttl uint8) error {
	if ttl == 0 {
		return syscall.EINVAL
	}
	d.ttl.Store(uint32(ttl))
	return nil
}

// TTL is what SetTTL set, 64 from the start.
func (d *Datagram) TTL() uint8 { return uint8(d.ttl.Load()) }

// SetTOS sets the type-of-service byte of what is sent (IP_TOS).
func (d *Datagram) SetTOS(tos uint8) { d.tos.Store(uint32(tos)) }

// TOS is what SetTOS set.
func (d *Datagram) TOS() uint8 { return uint8(d.tos.Load()) }

// SetReuseAddr is SO_REUSEADDR, which a program may set and read back. It changes nothing: the port of a datagram socket is
// free as soon as it is closed.
func (d *Datagram) SetReuseAddr(on bool) { d.reuseAddr.Store(on) }

// ReuseAddr is what SetReuseAddr set.
func (d *Datagram) ReuseAddr() bool { return d.reuseAddr.Load() }

// SetReusePort lets sockets that all asked for it before Bind share an address and port: packets of one flow go to one of
// them (SO_REUSEPORT). A bound socket answers EINVAL.
func (d *Datagram) SetReusePort(on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bound.Load() != nil {
		return syscall.EINVAL
	}
	d.reuse = on
	return nil
}

// ReusePort is what SetReusePort set.
func (d *Datagram) ReusePort() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reuse
}

// Protocol is wire.ProtocolUDP or wire.ProtocolICMP.
func (d *Datagram) Protocol() wire.Protocol { return d.proto }

// SetHandler gives the socket's datagrams to h on the engine instead of to Read; nil ends that, and when it returns no call
// of the old handler is under way. EOPNOTSUPP: the socket is not for UDP. EBADF: it is closed.
func (d *Datagram) SetHandler(h Handler) error {
	if d.proto != wire.ProtocolUDP {
		return syscall.EOPNOTSUPP
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return syscall.EBADF
	}
	d.handler = h
	for i := range d.halves {
		if hf := d.halves[i].Load(); hf != nil {
			hf.e.do(func() { hf.handler = h })
		}
	}
	return nil
}
