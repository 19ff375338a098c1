package kit

import (
	"context"
	"net"
	"time"

	"kitnet.dev/kit/socketapi"
)

// Functions and types beside those of the same names in package net. They use the Kit that SetDefault was given, so that a program
// which calls that once needs to write kit for net elsewhere, and no more; those with a Net field may name another Kit's. A
// program with several Kits, or one that hands its network over, uses the methods of Kit.Net instead.

// The types of the net package on kit.
type (
	// Net has the functions below as methods, of one Kit; see Kit.Net.
	Net = socketapi.Net
	// Dialer is net.Dialer.
	Dialer = socketapi.Dialer
	// ListenConfig is net.ListenConfig.
	ListenConfig = socketapi.ListenConfig
	// TCPConn is net.TCPConn: what Dial and Accept return for "tcp".
	TCPConn = socketapi.TCPConn
	// TCPListener is net.TCPListener: what Listen returns.
	TCPListener = socketapi.TCPListener
	// UDPConn is net.UDPConn: what ListenPacket, and Dial for "udp", return.
	UDPConn = socketapi.UDPConn
)

// SetDefault makes k the Kit of this package's functions, Dialers and ListenConfigs, until it is closed. Without one they fail with
// ENETDOWN and say what to do.
func SetDefault(k *Kit) { socketapi.SetDefault(k.Net()) }

// Listen is net.Listen.
func Listen(network, address string) (net.Listener, error) {
	return new(ListenConfig).Listen(context.Background(), network, address)
}

// ListenPacket is net.ListenPacket.
func ListenPacket(network, address string) (net.PacketConn, error) {
	return new(ListenConfig).ListenPacket(context.Background(), network, address)
}

// ListenTCP is net.ListenTCP.
func ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	return (*Net)(nil).ListenTCP(network, laddr)
}

// ListenUDP is net.ListenUDP.
func ListenUDP(network string, laddr *net.UDPAddr) (*UDPConn, error) {
	return (*Net)(nil).ListenUDP(network, laddr)
}

// Dial is net.Dial.
func Dial(network, address string) (net.Conn, error) { return new(Dialer).Dial(network, address) }

// DialTimeout is net.DialTimeout.
func DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return (&Dialer{Timeout: timeout}).Dial(network, address)
}

// DialContext is net.Dialer.DialContext, in the form that http.Transport takes.
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return new(Dialer).DialContext(ctx, network, address)
}

// DialTCP is net.DialTCP.
func DialTCP(network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	return (*Net)(nil).DialTCP(network, laddr, raddr)
}

// DialUDP is net.DialUDP.
func DialUDP(network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	return (*Net)(nil).DialUDP(network, laddr, raddr)
}
