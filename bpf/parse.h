/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Header formats and a cursor that cannot leave the frame. The headers are
 * our own because those of <linux/ip.h> have bit-fields, whose order follows
 * the build host's byte order and not the target's.
 */
#ifndef KIT_PARSE_H
#define KIT_PARSE_H

#define ETH_P_IP	0x0800
#define ETH_P_ARP	0x0806
#define ETH_P_8021Q	0x8100
#define ETH_P_8021AD	0x88a8

#define IPPROTO_ICMP	1
#define IPPROTO_TCP	6
#define IPPROTO_UDP	17

#define IP_MF		0x2000
#define IP_OFFSET	0x1fff

#define ICMP_ECHOREPLY		0
#define ICMP_DEST_UNREACH	3
#define ICMP_ECHO		8
#define ICMP_TIME_EXCEEDED	11
#define ICMP_PARAMETERPROB	12

#define VLAN_TAGS	2	/* as many are looked through: 802.1Q, QinQ */

struct eth_header {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

/* RFC 826 for Ethernet and IPv4. Addresses lie on odd 16-bit words. */
struct arp_header {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__be32 sender;
	__u8 target_mac[6];
	__be32 target;
} __attribute__((packed, aligned(2)));

/* RFC 791 section 3.1 */
struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

/* The eight bytes that UDP and TCP have in common, and that an ICMP error quotes. */
struct ports_header {
	__be16 source;
	__be16 destination;
	__be32 rest;
};

/* RFC 792; id is the echo messages'. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

/*
 * In host byte order. Older verifiers (seen in 6.1) forget a register's bounds
 * when its bytes are swapped, and clang drops a mask of what has 16 bits
 * anyway; so the mask is hidden from clang.
 */
static __always_inline __u32 number16(__be16 raw)
{
	__u32 n = bpf_ntohs(raw);

	barrier_var(n);
	return n & 0xffff;
}

#define NO_BOUND	0x7fffffff

/*
 * pos moves from header to header. end is where the frame's linear part ends,
 * which is all that the verifier knows. left is how much the IPv4 header says
 * there is, so that the padding of a short Ethernet frame is not taken for
 * ports; before that header it bounds nothing.
 */
struct cursor {
	void *pos;
	void *end;
	__s32 left;
};

/* Moves past the next size bytes; false when there are fewer. */
static __always_inline bool pull(struct cursor *c, __s32 size)
{
	if (c->left < size || c->pos + size > c->end)
		return false;
	c->pos += size;
	c->left -= size;
	return true;
}

/* Version 4 with a header length of 5 to 15 words. */
static __always_inline bool ipv4_header_valid(const struct ipv4_header *ip)
{
	return ip->version_ihl >= 0x45 && ip->version_ihl <= 0x4f;
}

/* In bytes, options included; 20 to 60 for a valid header. */
static __always_inline __u32 ipv4_header_length(const struct ipv4_header *ip)
{
	return (ip->version_ihl & 0xf) * 4;
}

/* From behind the fixed header to behind the options; pull finds out whether that is in the frame. */
static __always_inline void skip_options(struct cursor *c, const struct ipv4_header *ip)
{
	c->pos = (void *)ip + ipv4_header_length(ip);
	c->left -= ipv4_header_length(ip) - sizeof(*ip);
}

#endif /* KIT_PARSE_H */
