package tests

import (
	"bytes"
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack/wire"
)

// A taggedPeer is a host whose frames carry VLAN tags. It speaks through an AF_XDP link, which sees the tags as they are on the
// wire; packet sockets of the kernel see them taken off.
type taggedPeer struct {
	t    *testing.T
	link *loader.Link
	mac  wire.HardwareAddr
	tags []wire.VLANTag
}

// newTaggedPeer takes the left end of the laboratory's cable, and what comes there for addr.
func newTaggedPeer(t *testing.T, lab *netlab.Lab, addr netip.Addr, tags []wire.VLANTag) *taggedPeer {
	t.Helper()
	var d *loader.Device
	require.NoError(t, lab.Left.Do(func() (err error) {
		d, err = loader.Open(loader.Config{Interface: lab.Left.Interface()})
		return err
	}))
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	require.NoError(t, d.Tables().SetAddress(addr, bpf.Owned))
	require.NoError(t, d.Tables().SetEnabled(true))
	return &taggedPeer{t: t, link: d.Links()[0], mac: d.Links()[0].HardwareAddr(), tags: tags}
}

// send sends n bytes of type kind that build writes behind the tags.
func (p *taggedPeer) send(to wire.HardwareAddr, kind wire.EtherType, n int, build func(b []byte)) {
	p.t.Helper()
	f := p.link.Alloc()
	require.NotNil(p.t, f)
	h := wire.EthernetInfo{Dst: to, Src: p.mac, Type: kind}
	h.NTags = uint8(copy(h.Tags[:], p.tags))
	at := wire.PutEthernet(f, &h)
	build(f[at : at+n])
	require.True(p.t, p.link.Send(f[:at+n]))
	p.link.Flush()
}

// hear returns the next frame's sender and payload that is of type kind. It must carry the peer's tags.
func (p *taggedPeer) hear(kind wire.EtherType) (from wire.HardwareAddr, payload []byte) {
	p.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); payload == nil; {
		require.True(p.t, time.Now().Before(deadline), "no frame of type %v came", kind)
		p.link.Poll(1, func(f []byte) {
			h, ok := wire.ParseEthernet(f)
			if ok && h.Type == kind && h.Dst == p.mac {
				require.Equal(p.t, p.tags, h.Tags[:h.NTags], "the tags of the answer")
				from, payload = h.Src, bytes.Clone(f[h.HeaderLen:])
			}
		})
		if payload == nil {
			require.NoError(p.t, p.link.Wait(100*time.Millisecond))
		}
	}
	return from, payload
}

// Frames with one tag and with two reach an owned address, and what goes back has the tags: the answer to ARP, to a ping, a
// handler's, one that takes several frames, and what a socket sends.
func TestTaggedFrames(t *testing.T) {
	const customer, service = wire.VLANTag(0x8100<<16 | 10), wire.VLANTag(0x88a8<<16 | 20)
	for name, tags := range map[string][]wire.VLANTag{"802.1Q": {customer}, "QinQ": {service, customer}} {
		t.Run(name, func(t *testing.T) {
			lab := netlab.Test(t, netlab.Options{})
			k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
			ours, _ := wire.AddrFrom(netip.MustParseAddr("10.77.0.66"))
			theirs, _ := wire.AddrFrom(ownedAddr.Addr())
			peer := newTaggedPeer(t, lab, ours.Netip(), tags)

			peer.send(wire.HardwareBroadcast, wire.EtherTypeARP, wire.ARPLen, func(b []byte) {
				wire.PutARP(b, &wire.ARPFields{Op: wire.ARPRequest, SenderHardware: peer.mac, Sender: ours, Target: theirs})
			})
			mac, _ := peer.hear(wire.EtherTypeARP)
			require.Equal(t, wire.HardwareAddr(lab.Right.HardwareAddr()), mac)

			ask := func(port uint16, payload []byte) wire.UDP {
				n := wire.IPv4Len + wire.UDPLen + len(payload)
				peer.send(mac, wire.EtherTypeIPv4, n, func(b []byte) {
					wire.PutIPv4(b, &wire.IPv4Fields{TotalLength: n, TTL: 64, Protocol: wire.ProtocolUDP, Src: ours, Dst: theirs})
					copy(b[wire.IPv4Len+wire.UDPLen:], payload)
					wire.PutUDP(b[wire.IPv4Len:], &wire.UDPFields{Src: ours, Dst: theirs, SrcPort: 4000, DstPort: port, PayloadLen: len(payload)},
						wire.Sum(payload, 0))
				})
				_, answer := peer.hear(wire.EtherTypeIPv4)
				ip, err := wire.ParseIPv4(answer)
				require.NoError(t, err)
				return wire.UDP(ip.Payload())
			}
			echo(t, k)
			require.Equal(t, []byte("handler"), ask(7, []byte("handler")).Payload())

			long := socketAt(t, k, netip.AddrPortFrom(ownedAddr.Addr(), 8))
			require.NoError(t, k.Handle(long, func(p *kit.Packet) { p.ReplyWith(make([]byte, 2000)) }))
			require.Equal(t, uint16(8), ask(8, []byte("more than a frame")).SrcPort())
			peer.hear(wire.EtherTypeIPv4) // the other fragment

			s := socketAt(t, k, netip.AddrPortFrom(ownedAddr.Addr(), 9))
			go func() {
				b := make([]byte, 64)
				if n, from, err := k.RecvFrom(s, b, 0); err == nil {
					_, _ = k.SendTo(s, b[:n], 0, from)
				}
			}()
			require.Equal(t, []byte("socket"), ask(9, []byte("socket")).Payload())

			require.Equal(t, uint8(3), uint8(ask(10, []byte("nobody"))[0]), "ICMP: port unreachable")
		})
	}
}

// socketAt makes a UDP socket at an address.
func socketAt(t *testing.T, k *kit.Kit, at netip.AddrPort) kit.Token {
	t.Helper()
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	require.NoError(t, k.Bind(s, &at))
	return s
}

// An ICMP socket on a shared address: it hears the replies to its own requests, and the kernel's pings go on beside it.
func TestSharedICMPSocket(t *testing.T) {
	for name, groups := range map[string]string{"the kernel keeps identifiers": "0 2147483647", "it does not": "1 0"} {
		t.Run(name, func(t *testing.T) {
			lab := netlab.Test(t, netlab.Options{})
			require.NoError(t, lab.Right.Sysctl("net.ipv4.ping_group_range", groups))
			k := open(t, lab, kit.Config{})
			s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, kit.IPPROTO_ICMP)
			require.NoError(t, err)
			require.NoError(t, k.SetTimeout(s, kit.SO_RCVTIMEO, 5*time.Second))
			request := []byte{8, 0, 0, 0, 0, 0, 0, 7, 'k', 'i', 't'}
			_, err = k.SendTo(s, request, 0, netip.AddrPortFrom(lab.Left.Addr(), 0))
			require.NoError(t, err)
			b := make([]byte, 64)
			n, from, err := k.RecvFrom(s, b, 0)
			require.NoError(t, err)
			require.Equal(t, lab.Left.Addr(), from.Addr())
			require.Equal(t, byte(0), b[0], "an echo reply")
			require.Equal(t, request[6:], b[6:n])
			ping(t, lab.Right, "-c", "10", "-i", "0.01", "-q", lab.Left.Addr().String())
			_, err = k.SendTo(s, request, 0, netip.AddrPortFrom(lab.Left.Addr(), 0))
			require.NoError(t, err)
			_, _, err = k.RecvFrom(s, b, 0)
			require.NoError(t, err)
		})
	}
}

// Handlers that share a port on a card of several queues: each flow has one of them, whatever queue it comes to, and when one
// closes the others have its flows.
func TestSharedPortHandlers(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{Queues: 4})
	k := open(t, lab, kit.Config{})
	const handlers = 3
	var calls [handlers]atomic.Int64
	var tokens [handlers]kit.Token
	var addr netip.AddrPort
	for i := range handlers {
		s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
		require.NoError(t, err)
		require.NoError(t, k.SetSockOptInt(s, kit.SOL_SOCKET, kit.SO_REUSEPORT, 1))
		require.NoError(t, k.Handle(s, func(p *kit.Packet) { calls[i].Add(1); p.Echo() }))
		addr = netip.AddrPortFrom(lab.Right.Addr(), 7)
		require.NoError(t, k.Bind(s, &addr))
		tokens[i] = s
	}
	flows := func() {
		for i := range 64 {
			payload := fmt.Appendf(nil, "flow %d", i)
			require.Equal(t, payload, exchange(t, lab.Left, addr.String(), payload))
		}
	}
	flows()
	for i := range handlers {
		require.NotZero(t, calls[i].Load(), "handler %d", i)
	}
	require.NoError(t, k.CloseSocket(tokens[0]))
	before := calls[0].Load()
	flows()
	require.Equal(t, before, calls[0].Load())
	_, err := lab.Right.ListenPacket("udp4", addr.String())
	require.ErrorIs(t, err, syscall.EADDRINUSE, "two of them still have it")
	require.NoError(t, k.CloseSocket(tokens[1]))
	require.NoError(t, k.CloseSocket(tokens[2]))
	kernelUDP(t, lab, 7)
}
