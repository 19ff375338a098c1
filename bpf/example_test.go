package bpf_test

import (
	"log"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"kitnet.dev/kit/bpf"
)

// The program on a card with one queue; socket is the descriptor of an AF_XDP socket bound to it.
func Example() {
	var (
		card   *net.Interface
		socket int
	)
	program := bpf.Linear
	frags, err := bpf.HaveFrags()
	if err != nil {
		log.Fatal(err)
	}
	if frags {
		program = bpf.Frags
	}
	spec, err := bpf.Spec(program, 1)
	if err != nil {
		log.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		log.Fatal(err)
	}
	defer coll.Close()
	tables, err := bpf.NewTables(coll)
	if err != nil {
		log.Fatal(err)
	}
	defer tables.Close()
	if err := coll.Maps[bpf.XSKMap].Put(uint32(0), uint32(socket)); err != nil {
		log.Fatal(err)
	}
	attached, err := link.AttachXDP(link.XDPOptions{Program: coll.Programs[string(program)], Interface: card.Index})
	if err != nil {
		log.Fatal(err)
	}
	defer attached.Close()

	addr := netip.MustParseAddr("10.0.0.1")
	for _, err := range []error{
		tables.SetAddress(addr, bpf.Shared),
		tables.BindPort(bpf.UDP, addr, 7),
		tables.SetEnabled(true),
	} {
		if err != nil {
			log.Fatal(err)
		}
	}
}
