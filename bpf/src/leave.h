/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Out: one from the time to live, the next hop's tags and link addresses, and the
 * interface. What else changes in a packet has been changed.
 */
#ifndef SHUNT_LEAVE_H
#define SHUNT_LEAVE_H

#include "checksum.h"
#include "finish.h"

/* TTL - 1 in a 16-bit word as loaded on a little-endian machine is word - 1: one's complement ~1. */
#define TTL_DELTA 0xfffe

/* Octets of the next hop's tags. */
static __always_inline __u32 tags_of(const struct hop *hop)
{
	const __u32 each = sizeof(struct vlan_tag);

	return (!!(hop->outer_vlan & bpf_htons(VLAN_PRESENT)) + !!(hop->inner_vlan & bpf_htons(VLAN_PRESENT))) * each;
}

/* Writes the link header, with the hop's tags; the outer one has the priority that is given. */
static __always_inline int put_link(void *data, void *end, const struct hop *hop, __u32 tags, __be16 priority,
				    __be16 eth_proto)
{
	struct ethhdr *eth = data;
	struct vlan_tag *outer = (void *)(eth + 1), *inner = outer + 1;

	if ((void *)(inner + 1) > end)
		return 0;
	store_link(eth, hop);
	if (!tags) {
		*(__be16 *)(data + __builtin_offsetof(struct ethhdr, h_proto)) = eth_proto;
		return 1;
	}
	eth->h_proto = tags > sizeof(*outer) ? bpf_htons(ETH_P_8021AD) : bpf_htons(ETH_P_8021Q);
	outer->tci = (hop->outer_vlan & bpf_htons(VLAN_ID_MASK)) | priority;
	outer->eth_proto = eth_proto;
	if (tags > sizeof(*outer)) {
		outer->eth_proto = bpf_htons(ETH_P_8021Q);
		inner->tci = hop->inner_vlan & bpf_htons(VLAN_ID_MASK);
		inner->eth_proto = eth_proto;
	}
	return 1;
}

/* Pushes, pops and rewrites VLAN tags until the frame, which has so many, has the hop's, and sets its addresses. */
__noinline int retag(struct xdp_md *ctx, struct hop *hop, __u32 tags)
{
	struct vlan_tag *outer, *inner;
	struct ethhdr *eth;
	__be16 eth_proto;
	__u32 wanted;

	if (!hop)
		return 0;
	eth = (void *)(long)ctx->data;
	outer = (void *)(eth + 1);
	inner = outer + 1;
	if ((void *)(inner + 1) > (void *)(long)ctx->data_end)
		return 0;
	/* What the innermost header says follows: the network layer. */
	eth_proto = tags == 0 ? eth->h_proto : tags == 1 ? outer->eth_proto : inner->eth_proto;
	tags *= sizeof(struct vlan_tag);
	wanted = tags_of(hop);
	if (tags != wanted && bpf_xdp_adjust_head(ctx, (int)tags - (int)wanted))
		return 0;
	return put_link((void *)(long)ctx->data, (void *)(long)ctx->data_end, hop, wanted, 0, eth_proto);
}

static __always_inline int leave_by(struct xdp_md *ctx, __u32 ifindex, __u32 service)
{
	if (ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	if (bpf_redirect_map(&ports, ifindex, XDP_ABORTED) != XDP_REDIRECT)
		return finish(ctx, EVENT_DROP_NO_ROUTE, service);
	return XDP_REDIRECT;
}

#define FAMILY4 2 /* AF_INET */
#define FAMILY6 10 /* AF_INET6 */

/* Makes fib, but for its ifindex, ask for the route of a packet. */
static __always_inline void ask_route(struct bpf_fib_lookup *fib, __u8 protocol, __u16 length, const __u32 *source,
				      const __u32 *destination, const int v6)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = protocol;
	fib->tot_len = length;
	fib->family = v6 ? FAMILY6 : FAMILY4;
#pragma unroll
	for (int i = 0; i < (v6 ? 4 : 1); i++) {
		fib->ipv6_src[i] = source[i];
		fib->ipv6_dst[i] = destination[i];
	}
}

/* Sends a reply by the route: its learned hop is void or has failed. fib: all but ifindex set. */
__noinline int leave_by_route(struct xdp_md *ctx, struct bpf_fib_lookup *fib, __u32 service)
{
	struct bpf_fib_lookup lookup;
	struct ethhdr *eth;
	long error;

	if (!fib)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	lookup = *fib;
	lookup.ifindex = ctx->ingress_ifindex;
	error = bpf_fib_lookup(ctx, &lookup, sizeof(lookup), 0);
	if (error)
		return finish(ctx, error == BPF_FIB_LKUP_RET_FRAG_NEEDED ? EVENT_DROP_TOO_BIG : EVENT_DROP_NO_ROUTE,
			      service);
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return finish(ctx, EVENT_DROP_NO_ROUTE, service);
	__builtin_memcpy(eth->h_dest, lookup.dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, lookup.smac, ETH_ALEN);
	count(EVENT_NOTE_BY_ROUTE);
	return leave_by(ctx, lookup.ifindex, service);
}

/* Sets the link addresses and leaves by the hop. */
static __always_inline int leave(struct xdp_md *ctx, const struct packet *p, struct hop *hop, __u32 service)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if (((__u32)p->outer_vlan | (__u32)p->inner_vlan << 16) != *(__u32 *)&hop->outer_vlan) {
		if (!retag(ctx, hop, (p->outer_vlan != 0) + (p->inner_vlan != 0)))
			return finish(ctx, EVENT_DROP_VLAN, service);
	} else {
		if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
			return finish(ctx, EVENT_FAULT_MAP, 0);
		store_link(eth, hop);
	}
	return leave_by(ctx, hop->ifindex, service);
}

/* Decrements the time to live as a router does; delta_ip is what else changed in the IPv4 header. */
static __always_inline void age(const struct packet *p, __u32 delta_ip, const int v6)
{
	if (v6) {
		((struct ipv6hdr *)p->l3)->hop_limit--;
	} else {
		struct iphdr *ip = p->l3;

		ip->ttl--;
		if (__builtin_constant_p(delta_ip) && !delta_ip) {
			__u32 check = ip->check + 1; /* RFC 1141: the same sum in fewer steps */

			ip->check = check + ((check + 1) >> 16);
		} else {
			ip->check = adjust_checksum(ip->check, delta_ip + TTL_DELTA);
		}
	}
}

static __always_inline int lifetime_left(const struct packet *p, const int v6)
{
	return (v6 ? ((struct ipv6hdr *)p->l3)->hop_limit : ((struct iphdr *)p->l3)->ttl) > 1;
}

#endif
