// ping asks a host for echoes (RFC 792) with kit's ICMP socket, which stands in for a raw one. In the folder examples:
//
//	go build -o bin/ ./ping && sudo bin/ping -i eth0 -c 4 10.0.0.9
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"syscall"
	"time"

	"kitnet.dev/kit"
)

func main() {
	card := flag.String("i", "eth0", "network `interface`")
	count := flag.Int("c", 4, "how many `requests`")
	interval := flag.Duration("interval", time.Second, "`time` between requests, and for an answer")
	flag.Parse()
	host, err := netip.ParseAddr(flag.Arg(0))
	if err == nil {
		err = run(*card, host, *count, *interval)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(card string, host netip.Addr, count int, interval time.Duration) error {
	k, err := kit.Open(kit.Config{Interface: card})
	if err != nil {
		return err
	}
	defer k.Close()
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, kit.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	// The port of an ICMP socket is the identifier of its messages; the stack picks one and writes it, and the checksum.
	if err := k.Connect(s, netip.AddrPortFrom(host, 0)); err != nil {
		return err
	}
	answered := 0
	for seq := 1; seq <= count; seq++ {
		request := make([]byte, 64)
		request[0] = 8 // echo request
		binary.BigEndian.PutUint16(request[6:], uint16(seq))
		began := time.Now()
		_, err := k.Send(s, request, 0)
		if err == nil {
			err = await(k, s, uint16(seq), began.Add(interval))
		}
		if err == nil {
			answered++
			fmt.Printf("%v answers request %d in %v\n", host, seq, time.Since(began))
		} else {
			fmt.Printf("request %d: %v\n", seq, err)
		}
		if seq < count {
			time.Sleep(time.Until(began.Add(interval)))
		}
	}
	fmt.Printf("%d requests, %d answers\n", count, answered)
	if answered == 0 {
		return errors.New("no answer")
	}
	return nil
}

// await waits for the echo with a sequence number.
func await(k *kit.Kit, s kit.Token, seq uint16, deadline time.Time) error {
	buf := make([]byte, 65536)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return syscall.ETIMEDOUT
		}
		if err := k.SetTimeout(s, kit.SO_RCVTIMEO, left); err != nil {
			return err
		}
		n, err := k.Recv(s, buf, 0)
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if n >= 8 && buf[0] == 0 && binary.BigEndian.Uint16(buf[6:]) == seq {
			return nil
		}
	}
}
