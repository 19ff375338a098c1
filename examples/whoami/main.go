// whoami tells everybody who asks over UDP their own address and port, as they are seen from here. Beside it a BPF program of its own
// counts what the kernel gets on the same card. It shows how such code is tested: main_test.go runs it without root on a wire in
// memory, and with root on a veth pair. In the folder examples:
//
//	go test ./whoami && sudo -E env PATH="$PATH" go test ./whoami
//	go build -o bin/ ./whoami && sudo bin/whoami -i eth0 -listen 0.0.0.0:3478
//
// and then from another machine, with this one's address:
//
//	echo | nc -u -w 1 10.0.0.5 3478
package main

import (
	"context"
	"flag"
	"log"
	"net/netip"
	"os/signal"
	"syscall"

	"kitnet.dev/kit"
	"kitnet.dev/kit/socketapi"
)

func main() {
	card := flag.String("i", "eth0", "network `interface`")
	listen := flag.String("listen", "0.0.0.0:3478", "IPv4 `address` and port to serve")
	flag.Parse()
	if err := run(*card, *listen); err != nil {
		log.Fatal(err)
	}
}

func run(card, listen string) error {
	local, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	k, err := kit.Open(kit.Config{Interface: card})
	if err != nil {
		return err
	}
	defer k.Close()
	if err := serve(k.Kit, &local); err != nil {
		return err
	}
	var beside portsObjects
	if err := loadPortsObjects(&beside, nil); err != nil {
		return err
	}
	defer beside.Close()
	attached, err := attach(&beside, card)
	if err != nil {
		return err
	}
	defer attached.Close()

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	log.Printf("serving on %v of %s", local, card)
	<-stop.Done()
	n, err := passed(&beside, local.Port())
	log.Printf("datagrams to port %d that the kernel got beside kit: %d", local.Port(), n)
	return err
}

// serve answers whoever asks at local, which is rewritten with the address that it got.
func serve(k *socketapi.Kit, local *netip.AddrPort) error {
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := k.Bind(s, local); err != nil {
		return err
	}
	return k.Handle(s, whoami)
}

// whoami writes the answer into the frame that asked.
func whoami(p *kit.Packet) {
	if room := p.Room(); len(room) >= len("255.255.255.255:65535\n") {
		p.Reply(len(append(p.Src().AppendTo(room[:0]), '\n')))
	}
}
