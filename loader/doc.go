// Package loader puts kit on a network card: it loads and attaches the XDP program of package bpf, opens one AF_XDP
// socket on each queue, and hands out a [Link] for each. It is plain Go over system calls, without cgo.
//
//	           ┌────────────── Device ───────────────┐
//	Open ────► │ card     XDP program ◄── bpf.Tables │ ──► which frames are kit's
//	           │  ├ queue 0: socket, umem, Link      │ ──► one engine
//	           │  └ queue 1: socket, umem, Link      │ ──► one engine
//	           └─────────────────────────────────────┘
//
// # Opening
//
// [Open] tries what is fastest first and says what it could not have: native XDP, then generic; zero-copy, then a copy
// by the kernel. [Device.Info] tells what came of it. An interface that has another XDP program is refused with that
// program's name and the command that removes it. The program hangs on a bpf_link: when the process ends, however it
// ends, the kernel takes the program off and sees all traffic again. [Probe] and [Facts.Findings] tell beforehand what stands in the way.
//
// It takes CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON (the verifier's leave for pointer arithmetic), and
// CAP_IPC_LOCK or a memlock limit that the packet memory fits in. It takes Linux 5.10, where BPF counts against that limit
// too (until 5.11), and 6.6 for frames longer than a buffer (an MTU above 3822). The interface is looked for in the network
// namespace of the calling thread, and stays that one.
//
// # A link
//
// A Link has one owner, a goroutine that polls it. Received frames are lent to a function and answered in place or
// forgotten; frames to send come from Alloc; Flush makes one system call for all that was queued; Wait sleeps until
// there is something to do. Nothing of it allocates, locks or reads the clock, and only Flush and Wait make system
// calls, once for a batch.
//
// The kernel is the other side of four rings (net/xdp/xsk_queue.h). Their indices are the only thing that both sides
// write to; a Link believes an index of the other side only if it is possible, so that no bad one leads outside the
// rings, and counts those that are not. The cycle of who owns a chunk of packet memory is drawn in umem.go.
//
// # Files
//
// ring.go the rings; umem.go the packet memory; xsk.go the socket; link.go, join.go and wait.go the link; attach.go the
// XDP program; device.go the whole; config.go what may be asked for; card.go questions to the interface; probe.go and
// check.go facts and findings.
package loader
