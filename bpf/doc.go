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
// Loading takes CAP_BPF, CAP_NET_ADMIN and, because IPv4 options make the
// offset of the ports variable, CAP_PERFMON. It works from Linux 5.10 on.
package bpf
