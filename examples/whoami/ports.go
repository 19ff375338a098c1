package main

import (
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Debian 12's compiler makes the committed files, byte for byte.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -go-package main -output-dir=$KIT_BPF_OUT ports ports.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -I../../bpf/headers

// attach puts the program behind kit's on a card.
func attach(beside *portsObjects, card string) (link.Link, error) {
	i, err := net.InterfaceByName(card)
	if err != nil {
		return nil, err
	}
	return link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: beside.Count, Attach: ebpf.AttachTCXIngress})
}

// passed is how many datagrams to a port the kernel got.
func passed(beside *portsObjects, port uint16) (n uint64, err error) {
	err = beside.Datagrams.Lookup(uint32(port), &n)
	return n, err
}
