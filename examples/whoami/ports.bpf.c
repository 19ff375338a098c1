//go:build ignore

// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Counts the UDP datagrams that reach the kernel on an interface, by their
 * destination port. It stands behind kit's XDP program (tcx, Linux 6.6): what
 * kit takes does not come here.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_LEN 14
#define ETH_P_IP 0x0800
#define PROTO_UDP 17
#define PROTO_OFFSET (ETH_LEN + 9)
#define TCX_NEXT -1 /* go on, as if this program were not there */

char _license[] SEC("license") = "Dual MIT/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} datagrams SEC(".maps");

SEC("tcx/ingress")
int count(struct __sk_buff *skb)
{
	__u8 version_ihl, protocol;
	__u16 fragment, port;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_LEN, &version_ihl, 1) ||
	    bpf_skb_load_bytes(skb, PROTO_OFFSET, &protocol, 1) ||
	    bpf_skb_load_bytes(skb, ETH_LEN + 6, &fragment, 2))
		return TCX_NEXT;
	/* Only a first fragment has ports. */
	if (protocol != PROTO_UDP || fragment & bpf_htons(0x1fff))
		return TCX_NEXT;
	if (bpf_skb_load_bytes(skb, ETH_LEN + (version_ihl & 15) * 4 + 2, &port, 2))
		return TCX_NEXT;

	__u32 key = bpf_ntohs(port);
	__u64 *n = bpf_map_lookup_elem(&datagrams, &key);

	if (n)
		__sync_fetch_and_add(n, 1);
	return TCX_NEXT;
}
