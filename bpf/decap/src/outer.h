/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The frame down to the outer IP header: leaves in u the offsets, addresses and
 * protocol. Packets that are of no tunnel leave early: they are most of what a
 * server gets.
 */
#ifndef DECAP_OUTER_H
#define DECAP_OUTER_H

#include "unwrap.h"

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET 0x1fff
#define EXTENSION_HEADERS 4

struct vlan_tag {
	__be16 tci;
	__be16 eth_proto; /* of what follows */
};

static __always_inline int is_vlan(__be16 eth_proto)
{
	return eth_proto == bpf_htons(ETH_P_8021Q) || eth_proto == bpf_htons(ETH_P_8021AD);
}

/* The link header and up to two tags; l3 and is_v6. */
static __always_inline enum decap_event read_link(struct xdp_md *ctx, struct unwrap *u)
{
	struct ethhdr *eth = at(ctx, 0, sizeof(*eth));
	struct vlan_tag *tag;
	__be16 eth_proto;

	/* What is sent to a group is for no one host to unwrap (RFC 1112 §6.4, RFC 4213 §3.6). */
	if (!eth || eth->h_dest[0] & 1)
		return DECAP_PASS_OTHER;
	eth_proto = eth->h_proto;
	u->l3 = sizeof(*eth);
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (!is_vlan(eth_proto))
			break;
		tag = at(ctx, u->l3, sizeof(*tag));
		if (!tag)
			return DECAP_PASS_OTHER;
		eth_proto = tag->eth_proto;
		u->l3 += sizeof(*tag);
	}
	if (eth_proto != bpf_htons(ETH_P_IP) && eth_proto != bpf_htons(ETH_P_IPV6))
		return DECAP_PASS_OTHER;
	u->is_v6 = eth_proto == bpf_htons(ETH_P_IPV6);
	return DECAP_NONE;
}

/* Whether a tunnel that is asked for has this protocol. */
static __always_inline int may_be_tunnel(__u8 protocol)
{
	if (protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6)
		return config.types >> DECAP_IPIP & 1;
	if (protocol == IPPROTO_GRE)
		return config.types >> DECAP_GRE & 1;
	return protocol == IPPROTO_UDP && config.types >> DECAP_GUE & 1;
}

static __always_inline enum decap_event read_outer4(struct xdp_md *ctx, struct unwrap *u)
{
	struct iphdr *ip = at(ctx, u->l3, sizeof(*ip));
	__u32 length;

	if (!ip)
		return DECAP_PASS_MALFORMED;
	u->protocol = ip->protocol;
	if (!may_be_tunnel(u->protocol))
		return DECAP_PASS_OTHER;
	u->header = ip->ihl * 4;
	length = bpf_ntohs(ip->tot_len);
	u->end = u->l3 + length;
	if (ip->version != 4 || u->header < sizeof(*ip) || length < u->header || u->end > u->frame)
		return DECAP_PASS_MALFORMED;
	u->next = u->l3 + u->header;
	u->is_fragment = (ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_OFFSET)) != 0;
	u->is_later = (ip->frag_off & bpf_htons(IP_OFFSET)) != 0;
	u->ecn = ip->tos & 3;
	u->source[0] = ip->saddr;
	u->destination[0] = ip->daddr;
#pragma unroll
	for (int i = 1; i < 4; i++)
		u->source[i] = u->destination[i] = 0;
	return DECAP_NONE;
}

struct extension_header {
	__u8 next;
	__u8 length; /* in 8 octets, less the first (RFC 8200 §4.3); a fragment header has none */
	__be16 fragment; /* of that: the offset, and whether more follow */
	__u8 rest[4];
};

static __always_inline int is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_FRAGMENT;
}

/*
 * Goes behind the extension headers: Linux's own tunnels put destination options there
 * (kernel: net/ipv6/ip6_tunnel.c, init_tel_txopt; RFC 2473 §4.1.1). Global: verified once.
 */
__noinline int skip_extensions(struct xdp_md *ctx, struct unwrap *u)
{
	if (!u)
		return DECAP_FAULT_MAP;
	for (int i = 0; i < EXTENSION_HEADERS && is_extension(u->protocol); i++) {
		struct extension_header *e = at(ctx, u->next, sizeof(*e));

		if (!e)
			return DECAP_PASS_MALFORMED;
		/* Segments left: it is not where it goes to yet (RFC 8200 §4.4). */
		if (u->protocol == IPPROTO_ROUTING && e->fragment & bpf_htons(0xff))
			return DECAP_PASS_OTHER;
		if (u->protocol == IPPROTO_FRAGMENT) {
			u->is_fragment = 1;
			u->is_later = (e->fragment & bpf_htons(0xfff8)) != 0;
			u->next += sizeof(*e);
			u->protocol = e->next;
			/* What follows is not the start of anything. */
			if (u->is_later)
				return DECAP_NONE;
			continue;
		}
		u->next += (e->length + 1) * 8;
		u->protocol = e->next;
	}
	return is_extension(u->protocol) ? DECAP_PASS_EXTENSIONS : DECAP_NONE;
}

static __always_inline enum decap_event read_outer6(struct xdp_md *ctx, struct unwrap *u)
{
	struct ipv6hdr *ip6 = at(ctx, u->l3, sizeof(*ip6));

	if (!ip6)
		return DECAP_PASS_MALFORMED;
	u->protocol = ip6->nexthdr;
	if (!may_be_tunnel(u->protocol) && !is_extension(u->protocol))
		return DECAP_PASS_OTHER;
	u->header = 0;
	u->next = u->l3 + sizeof(*ip6);
	u->end = u->next + bpf_ntohs(ip6->payload_len);
	if (ip6->version != 6 || u->end > u->frame)
		return DECAP_PASS_MALFORMED;
	u->is_fragment = u->is_later = 0;
	u->ecn = ((__u8 *)ip6)[1] >> 4 & 3;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		u->source[i] = ip6->saddr.in6_u.u6_addr32[i];
		u->destination[i] = ip6->daddr.in6_u.u6_addr32[i];
	}
	if (is_extension(u->protocol)) {
		enum decap_event event = skip_extensions(ctx, u);

		if (event != DECAP_NONE)
			return event;
	}
	return may_be_tunnel(u->protocol) ? DECAP_NONE : DECAP_PASS_OTHER;
}

#endif
