// Package kittest is for unit tests of packet code: of handlers, of programs on kit's sockets, and of BPF programs beside kit's.
//
// The same code can be tried in two places, by the same script:
//
//	NewHost   a stack on a wire in memory, in virtual time: no root, no sleeping, seconds pass in microseconds
//	NewPair   two network namespaces and a veth pair between them, removed when the test ends: the kernel's own code runs
//
//	        in memory                               on a veth pair
//	Peer ────── Wire ────── Host          Peer, Left ────── veth ────── Right, kit
//	10.77.0.9            10.77.0.2        10.77.0.9, .1                 10.77.0.2
//
// A Peer is the other end of either. A script plays it, in the words of tcpdump, with the payload in quotes:
//
//	peer.Play(`
//		> 10.77.0.9.4000 > 10.77.0.2.7: udp "ping"    # the peer sends it
//		< 10.77.0.2.7 > 10.77.0.9.4000: udp "ping"    # and wants this to come back
//		silence                                       # and nothing else
//	`)
//
// Peer.Conn is the same for a TCP connection, with numbers that count from its start. A Path between the two loses, delays,
// repeats, reorders and damages frames, and a seed says which.
//
// Without root, NewPair skips the test and says why; where the environment has KIT_NO_SKIP=1, as in a CI that is meant to
// run all, it fails the test.
package kittest
