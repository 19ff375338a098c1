// Package kernel is what kit's shared address mode asks of the Linux kernel and follows in it.
//
// A Follower tells a Sink, such as a stack's interface, what the kernel knows of one network interface: its IPv4 addresses,
// its routes, its neighbours and its link; first all of it, then every change, or only those of its link where the addresses are
// not the kernel's. It is also the stack's Resolver: where a neighbour is missing or has gone stale, it has the kernel ask for
// it. What it can't follow it tries again, and Follower.Troubles says so until it has succeeded.
//
// Ports takes the port that a socket of kit is bound to in the kernel as well, by a kernel socket that is bound and never
// read, and then steers it to kit. So no other program gets it, and whoever holds it already is not robbed. OwnedPorts does
// the same for addresses that the kernel does not have.
//
// Routes are those of the tables local and main, as if they were one, which is how packets are routed where `ip rule` shows the
// three rules that a kernel starts with; other rules and tables are not followed, nor are routes for one type of service only:
// Follower.Unfollowed says so. An interface in a VRF is refused. Of a route with several hops the first that leads over the
// interface is taken. A hop behind an IPv6 gateway or in a tunnel, a route over another interface, and an address that the
// kernel has on another one, are stack.RouteElsewhere: only the kernel can go there. What the kernel has learnt from ICMP
// (redirects, path MTUs) is not followed.
//
// All sockets are opened in the network namespace of the thread that calls NewFollower, NewPorts, Addresses or HasAddress,
// and stay there.
package kernel
