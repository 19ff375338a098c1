// Package bench measures kit against what else could do its work, on one veth pair, alternating in one run: raw AF_XDP
// in Go without a stack (the floor under kit), the kernel's sockets with recvmmsg and sendmmsg, and Go's net package.
//
// A subject is one of those, a process of its own in the receiving namespace, bound to a core. A generator is on the
// other end of the cable and on another core. The workloads:
//
//	receive         as many datagrams as the generator can offer; how many the subject gets
//	echo            kxdpgun at full rate asks, the subject answers; how many answers come back
//	roundtrip       one datagram outstanding; how long until its answer, for a client that sleeps while it waits
//	roundtrip-spin  the same for a client that spins
//	overload        echo while the offered load rises to twice what the subject can do; how much of its best remains
//
// What counts are ratios within one run: each repetition measures every subject once, in turn, and a ratio is taken
// within the repetition. Absolute figures are this machine's only.
package bench
