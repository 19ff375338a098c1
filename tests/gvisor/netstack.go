package main

import (
	"fmt"
	"net"
	"runtime"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/qdisc/fifo"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"kitnet.dev/kit/internal/bench/child"
)

// queueLen is the length of the queue before the link, in packets, as runsc sets it.
const queueLen = 1000

// listen makes a netstack on the link, with the task's address, and listens there. Settings are those of runsc
// (runsc/boot/loader.go and network.go): SACK, receive buffers that grow to 4 MiB, a queue before the link, without which
// sending is a third as fast; but checksums are checked, as all subjects do, and the congestion control is CUBIC.
func listen(link stack.LinkEndpoint, t child.Task) (net.Listener, error) {
	const nic = 1
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC},
		HandleLocal:        true,
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return nil, fmt.Errorf("set %T: %s", o, err)
		}
	}
	options := stack.NICOptions{QDisc: fifo.New(link, runtime.GOMAXPROCS(0), queueLen)}
	if err := s.CreateNICWithOptions(nic, link, options); err != nil {
		return nil, fmt.Errorf("add the link: %s", err)
	}
	address := tcpip.AddrFrom4(t.Address.Addr().As4()).WithPrefix()
	address.PrefixLen = t.Bits
	at := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address}
	if err := s.AddProtocolAddress(nic, at, stack.AddressProperties{}); err != nil {
		return nil, fmt.Errorf("add the address: %s", err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: address.Subnet(), NIC: nic}})
	return gonet.ListenTCP(s, tcpip.FullAddress{NIC: nic, Addr: address.Address, Port: t.Address.Port()}, ipv4.ProtocolNumber)
}
