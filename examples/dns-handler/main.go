// dns-handler is a name server on kit's engine: each answer is written into the frame that asked, without a copy, an allocation or a
// switch to another goroutine. It gives one IPv4 address for every name. In the folder examples:
//
//	go build -o bin/ ./dns-handler && sudo bin/dns-handler -i eth0 -listen 0.0.0.0:53 -answer 192.0.2.1
//
// and then from another machine, with this one's address:
//
//	dig @10.0.0.5 kit.example
//	echo kit.example A >queries; dnsperf -s 10.0.0.5 -d queries -l 5
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"log"
	"net/netip"
	"os/signal"
	"syscall"

	"kitnet.dev/kit"
)

func main() {
	card := flag.String("i", "eth0", "network `interface`; '': the kernel's UDP, to compare")
	var local netip.AddrPort
	var answer netip.Addr
	flag.TextVar(&local, "listen", netip.MustParseAddrPort("0.0.0.0:53"), "IPv4 `address` and port to serve")
	flag.TextVar(&answer, "answer", netip.MustParseAddr("192.0.2.1"), "IPv4 `address` of all names")
	flag.Parse()
	if !answer.Is4() {
		log.Fatal("-answer wants an IPv4 address, such as 192.0.2.1")
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	serve := onCard
	if *card == "" {
		serve = onKernel
	}
	if err := serve(stop, *card, local, answer.As4()); err != nil {
		log.Fatal(err)
	}
}

func onCard(stop context.Context, card string, local netip.AddrPort, addr [4]byte) error {
	k, err := kit.Open(kit.Config{Interface: card})
	if err != nil {
		return err
	}
	defer k.Close()
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(k.Bind(s, &local), k.Handle(s, func(p *kit.Packet) {
		if n := respond(p.Room(), len(p.Payload), addr); n > 0 {
			p.Reply(n)
		}
	})); err != nil {
		return err
	}
	log.Printf("serving on %v of %s", local, card)
	<-stop.Done()
	return nil
}

// respond makes the query in the first n bytes of b its answer, and returns how long that is; 0: it deserves none (RFC 1035 §4.1).
func respond(b []byte, n int, addr [4]byte) int {
	const header, questions = 12, 4 // header's length, and where the number of questions is
	if n < header || b[2]&0x80 != 0 || binary.BigEndian.Uint16(b[questions:]) != 1 {
		return 0
	}
	end := header
	for end < n && b[end] != 0 && b[end] < 64 { // labels; a question has no reason to compress its name
		end += 1 + int(b[end])
	}
	if end += 5; end > n || b[end-5] != 0 {
		return 0
	}
	query := b[2] >> 3 & 15 // the opcode
	b[2] = b[2]&0x79 | 0x84 // a response with authority, to the same opcode and wish for recursion
	b[3] = 0
	clear(b[questions+2 : header]) // no records, the query's EDNS included
	isA := binary.BigEndian.Uint32(b[end-4:]) == 1<<16|1
	if query != 0 {
		b[3] = 4 // not implemented
	} else if record := end + 16; isA && len(b) >= record {
		b[questions+3] = 1 // one answer
		copy(b[end:], "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04")
		return end + 12 + copy(b[end+12:], addr[:])
	}
	return end
}
