// Package kernel is what kit's shared address mode asks of the Linux kernel and follows in it.
//
// A Follower tells a Sink, such as a stack's interface, what the kernel knows of one network interface: its IPv4 addresses,
// its routes, its neighbours and its link; first all of it, then every change. It is also the stack's Resolver: where a
// neighbour is missing or has gone stale, it has the kernel ask for it.
//
// Ports takes the port that a socket of kit is bound to in the kernel as well, by a kernel socket that is bound and never
// read, and then steers it to kit. So no other program gets it, and whoever holds it already is not robbed. OwnedPorts does
// the same for addresses that the kernel does not have.
//
// All sockets are opened in the network namespace of the thread that calls NewFollower, NewPorts, Addresses or HasAddress,
// and stay there.
package kernel
