// dns is a name server by github.com/miekg/dns, over UDP and TCP, on a card: it gives one IPv4 address for every name.
// In the folder examples:
//
//	go build -o bin/ ./dns && sudo bin/dns -i eth0 -listen :53 -answer 192.0.2.1
//
// and then from another machine, with this one's address:
//
//	dig @10.0.0.5 kit.example
//	dig @10.0.0.5 kit.example +tcp
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/netip"
	"os/signal"
	"syscall"

	"github.com/miekg/dns"

	"kitnet.dev/kit"
)

func main() {
	card := flag.String("i", "eth0", "network `interface`")
	listen := flag.String("listen", ":53", "`address` to serve")
	answer := flag.String("answer", "192.0.2.1", "IPv4 `address` of all names")
	flag.Parse()
	if err := run(*card, *listen, *answer); err != nil {
		log.Fatal(err)
	}
}

func run(card, listen, answer string) error {
	addr, err := netip.ParseAddr(answer)
	if err != nil || !addr.Is4() {
		return errors.New("-answer wants an IPv4 address, such as 192.0.2.1")
	}
	k, err := kit.Open(kit.Config{Interface: card})
	if err != nil {
		return err
	}
	defer k.Close()
	pc, err := k.Net().ListenPacket("udp", listen)
	if err != nil {
		return err
	}
	l, err := k.Net().Listen("tcp", listen)
	if err != nil {
		return err
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) { respond(w, query, addr) })
	udp := &dns.Server{PacketConn: pc, Handler: handler}
	tcp := &dns.Server{Listener: l, Handler: handler}

	failed := make(chan error, 2)
	for _, s := range []*dns.Server{udp, tcp} {
		go func() { failed <- s.ActivateAndServe() }()
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	log.Printf("serving on %v of %s", pc.LocalAddr(), card)
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
		return errors.Join(udp.Shutdown(), tcp.Shutdown())
	}
}

// respond answers a question for an address, and says of everything else that there is none.
func respond(w dns.ResponseWriter, query *dns.Msg, addr netip.Addr) {
	m := new(dns.Msg).SetReply(query)
	m.Authoritative = true
	if q := query.Question; len(q) == 1 && q[0].Qtype == dns.TypeA && q[0].Qclass == dns.ClassINET {
		head := dns.RR_Header{Name: q[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
		m.Answer = []dns.RR{&dns.A{Hdr: head, A: addr.AsSlice()}}
	}
	_ = w.WriteMsg(m) // an error is a client that went away
}
