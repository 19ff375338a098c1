// Package bench measures kit against what else could do its work, on one veth pair, alternating in one run: raw AF_XDP
// in Go without a stack (the floor under kit), XDP programs alone (the floor under that), the kernel's sockets from C, Go's net
// package and, with TCP, gVisor's netstack on each of its links to a card (tests/gvisor, a module of its own).
//
// A subject is one of those, a process of its own in the receiving namespace, bound to a core. A generator or a client is on
// the other end of the cable and on another core. The workloads with datagrams:
//
//	receive         as many datagrams as the generator can offer; how many the subject gets
//	receive-sockets receive with 1 to 100,000 bound sockets that have their turns; how much dearer a packet is than with one
//	transmit-sockets, echo-sockets, roundtrip-sockets
//	                the same of transmit, of echo and of roundtrip
//	scaling         receive on two queues, an engine on each of two cores that also generate; how much more than on one
//	transmit        datagrams that the subject sends as fast as it can; how many arrive at the other end
//	echo            kxdpgun at full rate asks, the subject answers; how many answers come back
//	roundtrip       one datagram outstanding; how long until its answer, for a client that sleeps while it waits
//	roundtrip-spin  the same for a client that spins
//	overload        echo while the offered load rises to twice what the subject can do; how much of its best remains
//
// and with TCP, from a client of the kernel's sockets that is one for all subjects:
//
//	tcp-receive     one connection on which the client sends all that it can
//	tcp-send        one connection on which the subject does
//	tcp-roundtrip   one request outstanding on a connection; how long until its answer
//	tcp-requests    1 to 10,000 connections that stay, each with a request outstanding; how many are answered
//	tcp-receive-streams, tcp-send-streams
//	                tcp-receive and tcp-send on 1 to 10,000 connections at once; how much they carry together, and how evenly
//	tcp-connect     connections that are made, carry a byte each way and are closed, one after the other
//	tcp-connect-64  the same, 64 at a time
//
// Without a load:
//
//	engines         a model of 1 to 16 engines (package model), each run for itself on one core
//	footprint       the memory of a socket, and kitd's idle CPU time, memory, start and stop
//
// What counts are ratios within one run: each round measures every subject once, in turn, and a ratio is taken within the
// round; the median of the rounds' is reported. Absolute figures are this machine's only.
//
// The host of a virtual machine moves its CPUs, and with how far apart two of them are changes what can be measured on them, by
// as much as two. So how long a cache line takes from one core to the other is measured before and after each measurement, and
// kept with it. A round is comparable where all these times are within a factor of 1.5; the rounds that count are the largest
// set of such that are within that factor together, the nearest of several as large. Rounds are added, up to twice as many as
// were asked for and none in a smoke run, until as many count as were asked for. The others are left out, and the report says
// how many and why; where no round is comparable, all count and the report says that. That the cores moved away and back
// within one measurement goes unnoticed.
package bench
