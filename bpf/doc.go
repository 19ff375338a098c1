// Package bpf holds kit's one XDP program and the Go side of its tables.
//
// kit.bpf.c decides for each frame whether the queue's AF_XDP socket gets it
// or the kernel. It reads three things that [Tables] writes through shared
// memory, so that no steering change costs a system call: a switch, a table of
// addresses, and for each address one bit a UDP port, a TCP port and an ICMP
// echo identifier. Whatever is in doubt (cut, malformed, unknown) is the
// kernel's, and each decision is counted under a [Reason].
//
//	destination address     the AF_XDP socket gets
//	[Owned]                 everything IPv4, fragments included, and ARP for or from the address
//	[Shared]                UDP and TCP to a bound port, echo replies to a bound identifier, ICMP errors
//	                        (types 3, 11 and 12) that quote a packet from a bound port or identifier,
//	                        and the fragments of all these whose first fragment came first
//	[Broadcast]             UDP to a port bound on any address, its fragments likewise
//	any other, IPv6         nothing
//
// Up to two VLAN tags are looked through. A later fragment has no ports; the
// program remembers the last 4096 fragmented datagrams by the first fragment,
// and one that overtakes its first stays with the kernel as [PassFragment].
// An ICMP redirect to a shared address stays with the kernel too, for the
// routes are the kernel's.
//
// To load it:
//
//	program := bpf.Linear
//	if ok, err := bpf.HaveFrags(); err != nil {
//		return err
//	} else if ok {
//		program = bpf.Frags
//	}
//	spec, err := bpf.Spec(program, queues)
//	coll, err := ebpf.NewCollection(spec)
//	tables, err := bpf.NewTables(coll)
//	coll.Maps[bpf.XSKMap].Put(uint32(queue), uint32(socket))
//	link.AttachXDP(link.XDPOptions{Program: coll.Programs[string(program)], ...})
package bpf
