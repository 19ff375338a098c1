//go:build ignore

// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * kit's XDP program: which frames go to the queue's AF_XDP socket, from tables
 * that Go writes through memory (kit.h, tables.go). Whatever is in doubt is
 * the kernel's. model_test.go says the same in Go.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#include "kit.h"
#include "parse.h"

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))

char _license[] SEC("license") = "Dual MIT/GPL";

struct kit_config config;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KIT_SLOTS);
	__type(key, __u32);
	__type(value, struct kit_ports);
} ports SEC(".maps");

/* Go sizes it to the card's queues. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, KIT_FRAGMENTS);
	__type(key, struct kit_fragment);
	__type(value, __u8);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kit_stats);
} stats SEC(".maps");

/* What a first fragment teaches about the later ones of its datagram. */
struct lesson {
	bool first;
	struct kit_fragment key;
};

/* The cell of an address, 0 for one that is not in the table. */
static __always_inline __u64 find(__be32 address)
{
	__u32 number = bpf_ntohl(address);
	__u32 start = number * KIT_HASH >> KIT_CELLS_SHIFT;
	__u32 n;

	for (n = 0; n < KIT_CELLS; n++) {
		__u64 cell = READ_ONCE(config.cells[(start + n) % KIT_CELLS]);

		if (!cell)
			break;
		if (cell >> 32 == number)
			return cell;
	}
	return 0;
}

static __always_inline enum kit_kind kind_of(__u64 cell)
{
	return cell >> 16 & 0xffff;
}

/* Whether a port or an ICMP identifier is bound in a cell's slot. */
static __always_inline bool bound(__u64 cell, enum kit_space space, __be16 number)
{
	__u32 slot = cell & 0xffff, n = number16(number);
	struct kit_ports *p = bpf_map_lookup_elem(&ports, &slot);

	return p && READ_ONCE(p->bound[space][n / 64]) >> (n % 64) & 1;
}

/*
 * The packet that an ICMP error quotes is one of ours when its source is the
 * address that the error came to and its source port, or the identifier of
 * its echo request, is bound (RFC 1122 section 3.2.2). A quote cut before
 * that, or of a later fragment, does not tell.
 */
static __always_inline enum kit_reason quote(struct cursor *c, __u64 cell, __be32 ours)
{
	struct ipv4_header *ip = c->pos;
	struct ports_header *ports;
	struct icmp_header *icmp;
	bool mine = false;

	if (!pull(c, sizeof(*ip)) || !ipv4_header_valid(ip) || ip->source != ours || ip->fragment & bpf_htons(IP_OFFSET))
		return KIT_PASS_ICMP_ERROR;
	skip_options(c, ip);
	ports = c->pos;
	icmp = c->pos;
	if (!pull(c, sizeof(*ports)))
		return KIT_PASS_ICMP_ERROR;
	if (ip->protocol == IPPROTO_UDP)
		mine = bound(cell, KIT_UDP, ports->source);
	else if (ip->protocol == IPPROTO_TCP)
		mine = bound(cell, KIT_TCP, ports->source);
	else if (ip->protocol == IPPROTO_ICMP && icmp->type == ICMP_ECHO)
		mine = bound(cell, KIT_ECHO, icmp->id);
	return mine ? KIT_XSK_ICMP_ERROR : KIT_PASS_ICMP_ERROR;
}

/*
 * A redirect (type 5) stays with the kernel: on a shared address the routes
 * are the kernel's, and Go hears of the change by netlink. Source quench is
 * deprecated (RFC 6633).
 */
static __always_inline enum kit_reason icmp(struct cursor *c, __u64 cell, __be32 ours)
{
	struct icmp_header *h = c->pos;

	if (!pull(c, sizeof(*h)))
		return KIT_PASS_SHORT;
	switch (h->type) {
	case ICMP_ECHOREPLY:
		return bound(cell, KIT_ECHO, h->id) ? KIT_XSK_ECHO : KIT_PASS_ECHO;
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETERPROB:
		return quote(c, cell, ours);
	}
	return KIT_PASS_ICMP;
}

/* A whole datagram or its first fragment, to an address that is not owned. */
static __always_inline enum kit_reason transport(struct cursor *c, __u64 cell, struct ipv4_header *ip)
{
	struct ports_header *h;

	if (ip->protocol != IPPROTO_UDP) {
		if (kind_of(cell) == KIT_BROADCAST)
			return KIT_PASS_PROTOCOL;
		if (ip->protocol == IPPROTO_ICMP)
			return icmp(c, cell, ip->destination);
		if (ip->protocol != IPPROTO_TCP)
			return KIT_PASS_PROTOCOL;
	}
	h = c->pos;
	if (!pull(c, sizeof(*h)))
		return KIT_PASS_SHORT;
	if (ip->protocol == IPPROTO_UDP)
		return bound(cell, KIT_UDP, h->destination) ? KIT_XSK_UDP : KIT_PASS_PORT;
	return bound(cell, KIT_TCP, h->destination) ? KIT_XSK_TCP : KIT_PASS_PORT;
}

/* Only a first fragment has ports; the later ones go where it went, if it came first. */
static __always_inline enum kit_reason fragment(struct cursor *c, __u64 cell, struct ipv4_header *ip,
						struct lesson *lesson)
{
	lesson->key = (struct kit_fragment){
		.source = ip->source,
		.destination = ip->destination,
		.id = ip->id,
		.protocol = ip->protocol,
	};
	if (ip->fragment & bpf_htons(IP_OFFSET))
		return bpf_map_lookup_elem(&fragments, &lesson->key) ? KIT_XSK_FRAGMENT : KIT_PASS_FRAGMENT;
	lesson->first = true;
	return transport(c, cell, ip);
}

/*
 * Whether length bytes from pos on lie in the frame. The helper is asked only
 * for a multi-buffer frame, and only kernels that have those have it.
 */
static __always_inline bool holds(struct xdp_md *ctx, void *pos, void *end, __u32 offset, __u32 length,
				  bool frags)
{
	if (pos + length <= end)
		return true;
	return frags && offset + length <= bpf_xdp_get_buff_len(ctx);
}

/* offset is where in the frame the IPv4 header begins. */
static __always_inline enum kit_reason ipv4(struct xdp_md *ctx, struct cursor *c, __u32 offset,
					    struct lesson *lesson, bool frags)
{
	struct ipv4_header *ip = c->pos;
	__u32 length;
	__u64 cell;

	if (!pull(c, sizeof(*ip)))
		return KIT_PASS_SHORT;
	if (!ipv4_header_valid(ip))
		return KIT_PASS_MALFORMED;
	length = number16(ip->length);
	if (length < ipv4_header_length(ip))
		return KIT_PASS_MALFORMED;
	if (!holds(ctx, ip, c->end, offset, length, frags))
		return KIT_PASS_SHORT;
	c->left = length - sizeof(*ip);
	skip_options(c, ip);

	cell = find(ip->destination);
	switch (kind_of(cell)) {
	case KIT_REMOVED:
		return KIT_PASS_ADDRESS;
	case KIT_OWNED:
		return KIT_XSK_OWNED;
	default:
		if (ip->fragment & bpf_htons(IP_MF | IP_OFFSET))
			return fragment(c, cell, ip, lesson);
		return transport(c, cell, ip);
	}
}

/* Questions for an owned address, answers to it, and others who claim it (RFC 5227 section 2.4). */
static __always_inline enum kit_reason arp(struct cursor *c)
{
	struct arp_header *h = c->pos;

	if (!pull(c, sizeof(*h)))
		return KIT_PASS_SHORT;
	if (h->hardware != bpf_htons(1) || h->protocol != bpf_htons(ETH_P_IP) ||
	    h->hardware_length != 6 || h->protocol_length != 4)
		return KIT_PASS_ARP;
	if (kind_of(find(h->target)) == KIT_OWNED || kind_of(find(h->sender)) == KIT_OWNED)
		return KIT_XSK_ARP;
	return KIT_PASS_ARP;
}

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

static __always_inline enum kit_reason decide(struct xdp_md *ctx, struct lesson *lesson, bool frags)
{
	struct cursor c = { (void *)(long)ctx->data, (void *)(long)ctx->data_end, NO_BOUND };
	struct eth_header *eth = c.pos;
	__u32 i, offset = sizeof(*eth);
	struct vlan_tag *tag;
	__be16 type;

	if (!READ_ONCE(config.enabled))
		return KIT_PASS_DISABLED;
	if (!pull(&c, sizeof(*eth)))
		return KIT_PASS_SHORT;
	type = eth->type;
	for (i = 0; i < VLAN_TAGS && is_vlan(type); i++) {
		tag = c.pos;
		if (!pull(&c, sizeof(*tag)))
			return KIT_PASS_SHORT;
		type = tag->type;
		offset += sizeof(*tag);
	}
	if (type == bpf_htons(ETH_P_IP))
		return ipv4(ctx, &c, offset, lesson, frags);
	if (type == bpf_htons(ETH_P_ARP))
		return arp(&c);
	return KIT_PASS_ETHERTYPE;
}

/*
 * A first fragment that is not ours also ends what an older datagram with the
 * same identification taught, else its later ones would go astray.
 */
static __always_inline void learn(struct lesson *lesson, bool ours)
{
	__u8 known = 1;

	if (ours)
		bpf_map_update_elem(&fragments, &lesson->key, &known, BPF_ANY);
	else
		bpf_map_delete_elem(&fragments, &lesson->key);
}

static __always_inline int steer(struct xdp_md *ctx, bool frags)
{
	struct lesson lesson = { .first = false };
	enum kit_reason reason = decide(ctx, &lesson, frags);
	int action = XDP_PASS;
	struct kit_stats *s;
	__u32 zero = 0;

	if (reason >= KIT_XSK_OWNED) {
		action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
		if (action != XDP_REDIRECT)
			reason = KIT_PASS_NO_XSK;
	}
	if (lesson.first)
		learn(&lesson, action == XDP_REDIRECT);
	s = bpf_map_lookup_elem(&stats, &zero);
	if (s && reason < KIT_REASONS)
		s->frames[reason]++;
	return action;
}

/* For kernels that know frames of several buffers, 5.18 and later. */
SEC("xdp.frags")
int kit_xdp(struct xdp_md *ctx)
{
	return steer(ctx, true);
}

/* The same for older kernels. */
SEC("xdp")
int kit_xdp_linear(struct xdp_md *ctx)
{
	return steer(ctx, false);
}
