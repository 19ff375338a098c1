/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What kit.bpf.c and tables.go agree on: the memory that Go writes and the
 * program reads, and the names under which frames are counted.
 *
 * Numbers in the tables are in host byte order. Every entry is one aligned
 * word, so that a single store shows it whole to a program that is running.
 */
#ifndef KIT_H
#define KIT_H

#define KIT_CELLS	256	/* of the address table, a power of two */
#define KIT_CELLS_SHIFT	24	/* leaves the hash's top bits: log2(KIT_CELLS) of 32 */
#define KIT_HASH	0x9e3779b1u /* 2^32 divided by the golden ratio: neighbours spread */
#define KIT_SLOTS	65	/* port tables: the broadcasts' one, 64 addresses */
#define KIT_NUMBERS	65536	/* ports of a protocol, ICMP identifiers */
#define KIT_FRAGMENTS	4096	/* fragmented datagrams remembered at a time */

/* What an address in the table stands for. */
enum kit_kind {
	KIT_REMOVED,	/* nothing: the cell only keeps its probe chain whole */
	KIT_SHARED,	/* the kernel's too: what is bound is kit's */
	KIT_OWNED,	/* kit's alone, with its ARP and every protocol */
	KIT_BROADCAST,	/* UDP to a port that any address has bound */
};

/* The spaces of numbers that can be bound on an address. */
enum kit_space {
	KIT_UDP,
	KIT_TCP,
	KIT_ECHO,	/* identifiers of ICMP echo requests */
	KIT_SPACES,
};

/*
 * Why a frame went where it went; each is a counter. From KIT_XSK_OWNED on
 * the frame went to the queue's AF_XDP socket, before it to the kernel.
 */
enum kit_reason {
	KIT_PASS_DISABLED,
	KIT_PASS_ETHERTYPE,
	KIT_PASS_SHORT,
	KIT_PASS_MALFORMED,
	KIT_PASS_ARP,
	KIT_PASS_ADDRESS,
	KIT_PASS_PROTOCOL,
	KIT_PASS_PORT,
	KIT_PASS_ECHO,
	KIT_PASS_ICMP,
	KIT_PASS_ICMP_ERROR,
	KIT_PASS_FRAGMENT,
	KIT_PASS_NO_XSK,
	KIT_XSK_OWNED,
	KIT_XSK_ARP,
	KIT_XSK_UDP,
	KIT_XSK_TCP,
	KIT_XSK_ECHO,
	KIT_XSK_ICMP_ERROR,
	KIT_XSK_FRAGMENT,
	KIT_REASONS,
};

/*
 * The address table is open-addressed with linear probing from
 * address * KIT_HASH >> KIT_CELLS_SHIFT. A cell is
 *	address << 32 | kind << 16 | slot
 * and a chain ends at the first cell that is 0. A removed cell is
 * KIT_REMOVED with an address of 0 and keeps its slot above 0.
 */
struct kit_config {
	__u32 enabled;	/* 0: every frame is the kernel's */
	__u32 reserved;
	__u64 cells[KIT_CELLS];
};

/* One slot: number n of a space is bound when bit n % 64 of word n / 64 is set. */
struct kit_ports {
	__u64 bound[KIT_SPACES][KIT_NUMBERS / 64];
};

/* The datagram that a fragment belongs to (RFC 791 section 3.2), as on the wire. */
struct kit_fragment {
	__be32 source;
	__be32 destination;
	__be16 id;
	__u8 protocol;
	__u8 zero;
};

struct kit_stats {
	__u64 frames[KIT_REASONS];
};

#endif /* KIT_H */
