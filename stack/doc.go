// Package stack is kit's IPv4 host: ARP, IPv4, ICMP and UDP over Links.
//
// One Engine drives one Link, and one goroutine drives one Engine. It owns the neighbour table, the demultiplexer and the
// engine's half of every socket; nobody locks anything for a packet. A Datagram is the user's side of a socket. The two meet
// in rings, one writer and one reader each:
//
//	Link.Poll ─▶ ethernet ─▶ ipv4 ─▶ udp ─▶ half.rx ═▶ Datagram.Read
//	Link.Send ◀─ begin, commit ◀─ emitUDP ◀─ half.tx ◀═ Datagram.Write
//
// A packet that arrives has exactly one end: it is delivered, answered, consumed (it told the stack something), held for
// reassembly, forwarded to another engine, or dropped under a DropReason. Stats has the sums.
//
// Time is passed in: only the goroutine that Start makes reads the clock, so a test steps a Stack through hours in
// milliseconds, over package linktest's wire and without root.
package stack
