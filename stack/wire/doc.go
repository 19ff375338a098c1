// Package wire reads and writes the headers of the packets that the stack
// speaks: Ethernet with VLAN tags, ARP, IPv4, ICMP, UDP and TCP, and the one's
// complement checksums in them.
//
// A header is read through a view: a slice type over the packet's own bytes
// whose Parse function has checked every length once, so that the accessors
// cannot leave the packet. Nothing is copied and nothing allocates. A view made
// by a conversion instead of its Parse function is not checked, and its
// accessors may panic.
//
// A header is written by a Put function, which takes the fields in a struct,
// writes them at the start of a buffer and returns nothing but, where it
// varies, the length. A buffer that is too short is a mistake of the caller and
// panics like any index out of range; no Put function has another way to fail.
//
// All numbers in packets are big-endian; all numbers in the API are the
// machine's own. Lengths and offsets are in bytes.
package wire
