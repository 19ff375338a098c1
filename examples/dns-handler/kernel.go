package main

import (
	"context"
	"errors"
	"log"
	"net"
	"net/netip"
)

// onKernel gives the same answers by Go's net, to compare.
func onKernel(stop context.Context, _ string, local netip.AddrPort, addr [4]byte) error {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(local))
	if err != nil {
		return err
	}
	context.AfterFunc(stop, func() { _ = c.Close() })
	log.Printf("serving on %v of the kernel", local)
	for b := make([]byte, 2048); ; {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if n = respond(b, n, addr); n > 0 {
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	}
}
