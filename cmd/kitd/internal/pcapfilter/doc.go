// Package pcapfilter compiles the capture filters that tcpdump takes, and
// evaluates them over Ethernet frames, without libpcap.
//
// The language is that of pcap-filter(7): host, net, port, portrange and proto
// with src and dst, the protocols ether, ip, ip6, arp, rarp, tcp, udp, icmp,
// icmp6, igmp and sctp, vlan, broadcast, multicast, less and greater, byte
// access such as udp[8:2] = 5, and, or, not and parentheses. Words of that
// language that mean nothing on an Ethernet card under kit, and host names,
// are refused with an error that names the word. The meaning is libpcap's too,
// corners included: and and or have one precedence, vlan moves everything that
// stands behind it by one tag, and a filter that reads behind the end of a
// frame does not match it.
package pcapfilter
