package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"kitnet.dev/kit/cmd/kitd/internal/iperf3"
	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// iperfNetwork is the stack as package iperf3 sees it.
type iperfNetwork struct{ n *socketapi.Net }

// Listen implements iperf3.Network.
func (w iperfNetwork) Listen(at netip.AddrPort) (net.Listener, error) {
	l, err := w.n.Listen("tcp4", at.String())
	if err != nil {
		return nil, err
	}
	return iperfListener{l}, nil
}

// ListenPacket implements iperf3.Network.
func (w iperfNetwork) ListenPacket(at netip.AddrPort) (net.PacketConn, error) {
	return w.n.ListenPacket("udp4", at.String())
}

type iperfListener struct{ net.Listener }

// Accept gives connections that say what iperf3 asks.
func (l iperfListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return iperfConn{c.(*socketapi.TCPConn)}, nil
}

// iperfConn is an iperf3.Info and an iperf3.Congestion, and takes the options that net.TCPConn has no names for.
type iperfConn struct{ *socketapi.TCPConn }

func (c iperfConn) TCPInfo() (retransmits uint64, rtt time.Duration, cwnd, mss int) {
	i, _ := c.Stream().Info() // all zeros where the connection is gone
	return uint64(i.Retransmitted), i.SRTT, int(i.Cwnd) * i.SendMSS, i.SendMSS
}

func (c iperfConn) SetCongestion(name string) error { return c.Stream().SetCongestion(name) }
func (c iperfConn) Congestion() string              { return c.Stream().Congestion() }
func (c iperfConn) SetMaxSegment(n int) error       { return c.Stream().SetMaxSegment(n) }

func (c iperfConn) SetTOS(tos int) error {
	c.Stream().SetTOS(uint8(tos))
	return nil
}

// iperfService is the iperf3 server at one address.
type iperfService struct {
	stop context.CancelFunc
	done chan struct{}
}

// Close ends the service, and a test that runs.
func (v *iperfService) Close() error {
	v.stop()
	<-v.done
	return nil
}

// newIperf makes the one server of a stack: it runs one test at a time, wherever its clients come to.
func newIperf(s *stack.Stack, log *slog.Logger) *iperf3.Server {
	return iperf3.New(iperf3.Config{Network: iperfNetwork{socketapi.NewNet(s)}, Logger: log.With("service", "iperf3")})
}

// openIperf serves at an address.
func openIperf(server *iperf3.Server, s *stack.Stack, at netip.AddrPort, log *slog.Logger) (io.Closer, error) {
	l, err := iperfNetwork{socketapi.NewNet(s)}.Listen(at)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	v := &iperfService{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(v.done)
		if err := server.ServeOn(ctx, l); err != nil {
			log.Error("iperf3 takes no more clients", "at", at, "error", err)
		}
	}()
	return v, nil
}
