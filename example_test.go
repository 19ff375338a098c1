package kit_test

import (
	"fmt"
	"log"
	"net/http"
	"net/netip"

	"kitnet.dev/kit"
)

// A UDP echo service on a card's own address: port 7 comes to this program, all else stays with the kernel.
func Example() {
	k, err := kit.Open(kit.Config{Interface: "eth0"})
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()

	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	if err != nil {
		log.Fatal(err)
	}
	addr := netip.AddrPortFrom(kit.INADDR_ANY, 7)
	if err := k.Bind(s, &addr); err != nil {
		log.Fatal(err)
	}
	fmt.Println("serving", addr)
	buf := make([]byte, 65536)
	for {
		n, from, err := k.RecvFrom(s, buf, 0)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := k.SendTo(s, buf[:n], 0, from); err != nil {
			log.Print(err)
		}
	}
}

// The same in batches: fewer calls for the same work, and still an ordinary goroutine.
func Example_batch() {
	k, s := openEcho()
	defer k.Close()
	ms := make([]kit.Message, 64)
	for i := range ms {
		ms[i].Buf = make([]byte, 2048)
	}
	for {
		n, err := k.ReadBatch(s, ms, 0)
		if err != nil {
			log.Fatal(err)
		}
		answers := make([]kit.Message, n)
		for i := range answers {
			answers[i] = kit.Message{Buf: ms[i].Buf[:ms[i].N], Addr: ms[i].Addr}
		}
		for len(answers) > 0 {
			sent, err := k.WriteBatch(s, answers, 0)
			if err != nil {
				log.Fatal(err)
			}
			answers = answers[sent:]
		}
	}
}

// The same on the engine: the answer is built in the frame that asked.
func Example_handler() {
	k, s := openEcho()
	defer k.Close()
	if err := k.Handle(s, func(p *kit.Packet) { p.Echo() }); err != nil {
		log.Fatal(err)
	}
	select {}
}

// A web server whose port 80 is kit's, and a client: a program of the net package, with kit written for net.
func ExampleSetDefault() {
	k, err := kit.Open(kit.Config{Interface: "eth0"})
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
	kit.SetDefault(k)

	l, err := kit.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, nil)

	client := http.Client{Transport: &http.Transport{DialContext: kit.DialContext}}
	r, err := client.Get("http://10.0.0.9/")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Status)
}

// An address that the kernel does not have: all of its traffic comes to kit, which answers ARP and ping for it.
func ExampleOpen_owned() {
	k, err := kit.Open(kit.Config{
		Interface: "eth0",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")},
		Gateway:   netip.MustParseAddr("10.0.0.1"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
}

func openEcho() (*kit.Kit, kit.Token) {
	k, err := kit.Open(kit.Config{Interface: "eth0"})
	if err != nil {
		log.Fatal(err)
	}
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	if err != nil {
		log.Fatal(err)
	}
	addr := netip.AddrPortFrom(kit.INADDR_ANY, 7)
	if err := k.Bind(s, &addr); err != nil {
		log.Fatal(err)
	}
	return k, s
}
