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

/* Pushes, pops and rewrites VLAN tags until the frame has the hop's, and sets its addresses. */
__noinline int retag(struct xdp_md *ctx, struct hop *hop, __u32 tags)
{
	struct vlan_tag *outer, *inner;
	void *data, *end;
	struct ethhdr *eth;
	__be16 eth_proto;
	__u32 wanted;

	if (!hop)
		return 0;
	wanted = (hop->outer_vlan != 0) + (hop->inner_vlan != 0);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	outer = (void *)(eth + 1);
	inner = outer + 1;
	if ((void *)(inner + 1) > end)
		return 0;
	/* What the innermost header says follows: the network layer. */
	eth_proto = tags == 0 ? eth->h_proto : tags == 1 ? outer->eth_proto : inner->eth_proto;
	if (tags != wanted && bpf_xdp_adjust_head(ctx, (int)(tags - wanted) * (int)sizeof(struct vlan_tag)))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	outer = (void *)(eth + 1);
	inner = outer + 1;
	if ((void *)(inner + 1) > end)
		return 0;
	store_mac(eth->h_dest, load_mac(hop->destination_mac));
	store_mac(eth->h_source, load_mac(hop->source_mac));
	if (wanted == 0) {
		eth->h_proto = eth_proto;
		return 1;
	}
	eth->h_proto = bpf_htons(wanted == 2 ? ETH_P_8021AD : ETH_P_8021Q);
	outer->tci = hop->outer_vlan & bpf_htons(VLAN_ID_MASK);
	outer->eth_proto = eth_proto;
	if (wanted == 2) {
		outer->eth_proto = bpf_htons(ETH_P_8021Q);
		inner->tci = hop->inner_vlan & bpf_htons(VLAN_ID_MASK);
		inner->eth_proto = eth_proto;
	}
	return 1;
}

static __always_inline int leave_by(struct xdp_md *ctx, __u32 ifindex, __u32 service)
{
	if (ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	if (bpf_redirect_map(&ports, ifindex, XDP_ABORTED) != XDP_REDIRECT)
		return finish(ctx, EVENT_DROP_NO_ROUTE, service);
	return XDP_REDIRECT;
}

/* Sends a reply by the route: its learned hop is void or has failed. fib: all but ifindex set. */
__noinline int leave_by_route(struct xdp_md *ctx, struct bpf_fib_lookup *fib, __u32 service)
{
	struct bpf_fib_lookup lookup;
	struct ethhdr *eth;

	if (!fib)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	lookup = *fib;
	lookup.ifindex = ctx->ingress_ifindex;
	if (bpf_fib_lookup(ctx, &lookup, sizeof(lookup), 0))
		return finish(ctx, EVENT_DROP_NO_ROUTE, service);
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
		store_mac(eth->h_dest, load_mac(hop->destination_mac));
		store_mac(eth->h_source, load_mac(hop->source_mac));
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
		ip->check = adjust_checksum(ip->check, delta_ip + TTL_DELTA);
	}
}

static __always_inline int lifetime_left(const struct packet *p, const int v6)
{
	return (v6 ? ((struct ipv6hdr *)p->l3)->hop_limit : ((struct iphdr *)p->l3)->ttl) > 1;
}

#endif
