/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The inner packet: whose it is, whether it and its wrapping are whole, what it
 * takes over from that. Nothing is dropped or changed before it is known to be
 * for a virtual address.
 */
#ifndef DECAP_INNER_H
#define DECAP_INNER_H

#include "tunnel.h"

enum ecn {
	ECN_NOT_ECT,
	ECN_ECT1,
	ECN_ECT0,
	ECN_CE,
};

static __always_inline enum decap_event read_inner4(struct xdp_md *ctx, struct unwrap *u)
{
	struct iphdr *ip = at(ctx, u->next, sizeof(*ip));
	__u32 length;

	if (!ip || u->next + sizeof(*ip) > u->end || ip->version != 4)
		return DECAP_PASS_INNER;
	if (!is_listed(&ip->daddr, DECAP_VIRTUAL, 0))
		return DECAP_PASS_NOT_VIRTUAL;
	length = bpf_ntohs(ip->tot_len);
	u->inner_end = u->next + length;
	if (ip->ihl * 4 < sizeof(*ip) || length < ip->ihl * 4 || u->inner_end > u->end)
		return DECAP_DROP_INNER_LENGTH;
	return DECAP_NONE;
}

static __always_inline enum decap_event read_inner6(struct xdp_md *ctx, struct unwrap *u)
{
	struct ipv6hdr *ip6 = at(ctx, u->next, sizeof(*ip6));

	if (!ip6 || u->next + sizeof(*ip6) > u->end || ip6->version != 6)
		return DECAP_PASS_INNER;
	if (!is_listed(ip6->daddr.in6_u.u6_addr32, DECAP_VIRTUAL, 1))
		return DECAP_PASS_NOT_VIRTUAL;
	u->inner_end = u->next + sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
	return u->inner_end > u->end ? DECAP_DROP_INNER_LENGTH : DECAP_NONE;
}

/* The checksums that go with the outer headers. */
static __always_inline enum decap_event check_sums(struct xdp_md *ctx, struct unwrap *u)
{
	int sum;

	if (u->header && sum_octets(ctx, u, u->l3, u->header) != 0xffff)
		return DECAP_DROP_OUTER_CHECKSUM;
	if (!u->covered)
		return DECAP_NONE;
	sum = sum_octets(ctx, u, u->covered, u->end - u->covered);
	if (sum >= 0 && fold(sum + u->pseudo) == 0xffff)
		return DECAP_NONE;
	return u->type == DECAP_GUE ? DECAP_DROP_GUE_CHECKSUM : DECAP_DROP_GRE_CHECKSUM;
}

/* What of congestion goes on inside: RFC 6040 §4.2, figure 4; DECAP_DROP_ECN or a codepoint in *inner. */
static __always_inline enum decap_event merge_ecn(struct unwrap *u, __u8 *inner)
{
	__u8 outer = u->ecn;

	if (*inner == ECN_NOT_ECT && outer == ECN_CE)
		return DECAP_DROP_ECN;
	/* The figure's (!) and (!!!). */
	if ((*inner == ECN_NOT_ECT && outer != ECN_NOT_ECT) || (*inner == ECN_ECT1 && outer == ECN_ECT0) ||
	    (*inner == ECN_CE && outer == ECN_ECT1))
		count(u, DECAP_NOTE_ECN);
	if (outer == ECN_CE && *inner != ECN_CE)
		count(u, DECAP_NOTE_CE);
	if (*inner != ECN_NOT_ECT && outer == ECN_CE)
		*inner = ECN_CE;
	else if (*inner == ECN_ECT0 && outer == ECN_ECT1)
		*inner = ECN_ECT1;
	return DECAP_NONE;
}

static __always_inline enum decap_event take_ecn4(struct xdp_md *ctx, struct unwrap *u)
{
	struct iphdr *ip = at(ctx, u->next, sizeof(*ip));
	__u16 old, new;
	__u8 ecn;

	if (!ip)
		return DECAP_DROP_HEAD;
	ecn = ip->tos & 3;
	old = *(__u16 *)ip;
	if (merge_ecn(u, &ecn) != DECAP_NONE)
		return DECAP_DROP_ECN;
	if (ecn == (ip->tos & 3))
		return DECAP_NONE;
	ip->tos = (ip->tos & ~3) | ecn;
	new = *(volatile __u16 *)ip;
	ip->check = adjust_checksum(ip->check, word_delta(old, new));
	return DECAP_NONE;
}

static __always_inline enum decap_event take_ecn6(struct xdp_md *ctx, struct unwrap *u)
{
	__u8 *octets = at(ctx, u->next, sizeof(struct ipv6hdr));
	__u8 ecn;

	if (!octets)
		return DECAP_DROP_HEAD;
	ecn = octets[1] >> 4 & 3;
	if (merge_ecn(u, &ecn) != DECAP_NONE)
		return DECAP_DROP_ECN;
	octets[1] = (octets[1] & 0xcf) | ecn << 4;
	return DECAP_NONE;
}

/* Takes the outer headers off: the link header, tags included, moves to the inner packet. */
static __always_inline enum decap_event strip(struct xdp_md *ctx, struct unwrap *u)
{
	/* The masks change nothing: they show the verifier the bounds. */
	__u32 link = ((u->l3 - 1) & (LINK_ROOM - 1)) + 1;

	if (bpf_xdp_load_bytes(ctx, 0, u->link, link))
		return DECAP_DROP_HEAD;
	*(__be16 *)(u->link + ((link - 2) & (LINK_ROOM - 2))) =
		u->is_inner_v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	/* Padding: where it cannot be cut, the stack does it. */
	if (u->frame > u->inner_end)
		bpf_xdp_adjust_tail(ctx, -(int)(u->frame - u->inner_end));
	if (bpf_xdp_adjust_head(ctx, u->next - link) || bpf_xdp_store_bytes(ctx, 0, u->link, link))
		return DECAP_DROP_HEAD;
	return u->type == DECAP_GUE ? DECAP_TAKEN_GUE : u->type == DECAP_GRE ? DECAP_TAKEN_GRE : DECAP_TAKEN_IPIP;
}

#endif
