package iperf3

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Network gives the server its sockets.
type Network interface {
	// Listen listens for TCP connections.
	Listen(addr netip.AddrPort) (net.Listener, error)
	// ListenPacket makes a UDP socket bound to addr. It is called with the address of the client's control connection, for
	// the time of one test.
	ListenPacket(addr netip.AddrPort) (net.PacketConn, error)
}

// Info is what a connection may know about TCP's work, for the retransmissions in the results and for the report.
type Info interface {
	// TCPInfo says the segments retransmitted so far, the smoothed round-trip time, the congestion window in bytes and the
	// maximum segment size in bytes.
	TCPInfo() (retransmits uint64, rtt time.Duration, cwnd, mss int)
}

// Congestion is a connection whose congestion control can be chosen, by the kernel's names such as "cubic".
type Congestion interface {
	// SetCongestion chooses. An error that is ENOENT says that there is none of that name.
	SetCongestion(name string) error
	// Congestion names the one in use; "" where that is unknown.
	Congestion() string
}

// What else a connection or a packet connection may do. The names of package net are its methods'.
type (
	noDelayer   interface{ SetNoDelay(on bool) error }
	segmenter   interface{ SetMaxSegment(bytes int) error }
	bufferer    interface{ SetReadBuffer(bytes int) error }
	outBufferer interface{ SetWriteBuffer(bytes int) error }
	classifier  interface{ SetTOS(tos int) error }
	closeWriter interface{ CloseWrite() error }
	keepAliver  interface {
		SetKeepAlive(on bool) error
		SetKeepAlivePeriod(d time.Duration) error
	}
)

// Message is a datagram of a batch.
type Message struct {
	Buf  []byte         // Read: room. Write: the payload.
	N    int            // Read: the length of the datagram, or of Buf where it was cut
	Addr netip.AddrPort // Read: the sender. Write: the destination.
}

// BatchReader is a packet connection that receives several datagrams in one call. ReadBatch waits for one, takes those that
// are there, and returns how many.
type BatchReader interface {
	ReadBatch(ms []Message) (int, error)
}

// BatchWriter is a packet connection that sends several datagrams in one call. WriteBatch returns how many it sent; fewer
// than len(ms) only with an error.
type BatchWriter interface {
	WriteBatch(ms []Message) (int, error)
}

// addrPortConn is what *net.UDPConn has and a net.PacketConn has not: calls that do not allocate.
type addrPortConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
}

// reader finds the fastest way to receive that a packet connection has.
func reader(c net.PacketConn) BatchReader {
	if r, ok := c.(BatchReader); ok {
		return r
	}
	if r, ok := c.(addrPortConn); ok {
		return single{r}
	}
	return single{plain{c}}
}

// writer finds the fastest way to send.
func writer(c net.PacketConn) BatchWriter {
	if w, ok := c.(BatchWriter); ok {
		return w
	}
	if w, ok := c.(addrPortConn); ok {
		return single{w}
	}
	return single{plain{c}}
}

// single makes batches of single calls.
type single struct{ c addrPortConn }

func (s single) ReadBatch(ms []Message) (int, error) {
	m := &ms[0]
	var err error
	m.N, m.Addr, err = s.c.ReadFromUDPAddrPort(m.Buf)
	if err != nil {
		return 0, err
	}
	return 1, nil
}

func (s single) WriteBatch(ms []Message) (int, error) {
	for i := range ms {
		if _, err := s.c.WriteToUDPAddrPort(ms[i].Buf, ms[i].Addr); err != nil {
			return i, err
		}
	}
	return len(ms), nil
}

// plain gives a net.PacketConn of any make the calls of addrPortConn. It allocates.
type plain struct{ c net.PacketConn }

func (p plain) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := p.c.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	at, err := addrPort(from)
	return n, at, err
}

func (p plain) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	return p.c.WriteTo(b, net.UDPAddrFromAddrPort(addr))
}

// addrPort is a TCP or UDP address as a netip.AddrPort, an IPv4 address as one.
func addrPort(a net.Addr) (netip.AddrPort, error) {
	if a == nil {
		return netip.AddrPort{}, errors.New("there is no address")
	}
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s address %s: %w", a.Network(), a, err)
	}
	return unmap(at), nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// passing reports errors of UDP that say nothing about the next datagram: no room now, or an ICMP error about one before.
func passing(err error) bool {
	return errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ECONNREFUSED)
}
