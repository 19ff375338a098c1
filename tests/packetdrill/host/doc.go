// Package host is a machine in virtual time: kit's stack on a wire in memory, with the socket calls of Linux in front of it
// and packets at the back. Nothing in it happens by itself; whoever drives it injects packets, takes them off, and lets time
// pass. It is what packetdrill plays its scripts against (package shim), and speaks of descriptors and errno for that reason.
//
// One goroutine at a time uses a Host. A call that has to wait returns Blocked; its end is looked for whenever the host does
// something, and told by Ended.
package host
