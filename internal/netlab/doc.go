// Package netlab builds laboratories: network namespaces of our own, joined by veth pairs, in which tests, the demo and
// the benchmark put kit beside the kernel without touching an interface of the machine.
//
// A laboratory starts as two namespaces and one cable:
//
//	Left  left0 ────────── veth ────────── right0  Right
//	10.77.0.1/24                           10.77.0.2/24
//
// AddNamespace and Connect make any other shape from there. The namespaces are ordinary named ones under /run/netns, so
// `ip netns exec` and every other tool reach them; their names carry the process id and the start time of their maker:
//
//	kitlab-4711-238115-1-9f3c-left
//
// so that two laboratories never meet, and Reap knows which ones belong to a dead process. New reaps first: a run that was
// killed leaves nothing behind once the next one has started.
//
// By default every offload of both ends is off (frames then look as they would on a real wire: whole checksums, nothing
// above the MTU), IPv6 is off (no frame that nobody asked for), and the addresses are the ones above.
//
// Everything here needs root (CAP_SYS_ADMIN for namespaces and mounts, CAP_NET_ADMIN for links).
package netlab
