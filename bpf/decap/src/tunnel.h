/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The tunnel's header: from the outer payload to the inner packet, which then is
 * at next and whose family is in is_inner_v6. What has a header that is not
 * understood in full is left to the stack, which may have a tunnel device.
 */
#ifndef DECAP_TUNNEL_H
#define DECAP_TUNNEL_H

#include "outer.h"

#define GRE_CHECKSUM 0x8000 /* RFC 2784 §2.1 */

struct gre_header {
	__be16 flags; /* and version */
	__be16 eth_proto;
};

/* kernel: include/net/gue.h; draft-ietf-intarea-gue-09 §3.1 */
#define GUE_VARIANT 6 /* bits 6 and 7 of the first octet */
#define GUE_CONTROL 0x20
#define GUE_LENGTH 0x1f /* of the optional fields, in 4 octets */
#define GUE_FLAG_PRIVATE 0x0001 /* an optional field has more flags */
#define GUE_PRIVATE_REMOTE_CHECKSUM 0x80000000

struct gue_header {
	__u8 first;
	__u8 protocol;
	__be16 flags;
};

/* Whether the address is in a prefix of the role. */
static __always_inline int is_listed(const __u32 *address, enum decap_role role, const int v6)
{
	struct decap_prefix key = { .bits = DECAP_HEAD_BITS + (v6 ? 128 : 32), .role = role, .family = v6 ? 6 : 4 };

#pragma unroll
	for (int i = 0; i < (v6 ? 4 : 1); i++)
		key.address[i] = address[i];
	return bpf_map_lookup_elem(&decap_prefixes, &key) != 0;
}

static __always_inline int is_port(__be16 port)
{
#pragma unroll
	for (int i = 0; i < DECAP_PORTS; i++) {
		if (port && config.ports[i] == port)
			return 1;
	}
	return 0;
}

/* Which tunnel it is; of UDP, only the port says. */
static __always_inline enum decap_event read_type(struct xdp_md *ctx, struct unwrap *u)
{
	struct udphdr *udp;

	u->type = u->protocol == IPPROTO_GRE ? DECAP_GRE : DECAP_IPIP;
	if (u->protocol != IPPROTO_UDP)
		return DECAP_NONE;
	u->type = DECAP_GUE;
	if (u->is_later)
		return DECAP_PASS_OTHER;
	udp = at(ctx, u->next, sizeof(*udp));
	if (!udp || u->next + sizeof(*udp) > u->end)
		return DECAP_PASS_MALFORMED;
	return is_port(udp->dest) ? DECAP_NONE : DECAP_PASS_OTHER;
}

/* Whether it is for this host, and from a director. */
static __always_inline enum decap_event check_outer(const struct unwrap *u)
{
	if (u->is_fragment)
		return DECAP_PASS_FRAGMENT;
	if (!(u->is_v6 ? is_listed(u->destination, DECAP_TO, 1) : is_listed(u->destination, DECAP_TO, 0)))
		return DECAP_PASS_ADDRESS;
	if (config.is_from_any)
		return DECAP_NONE;
	if (!(u->is_v6 ? is_listed(u->source, DECAP_FROM, 1) : is_listed(u->source, DECAP_FROM, 0)))
		return DECAP_PASS_SOURCE;
	return DECAP_NONE;
}

static __always_inline enum decap_event read_inner_protocol(struct unwrap *u, __u8 protocol)
{
	if (protocol != IPPROTO_IPIP && protocol != IPPROTO_IPV6)
		return DECAP_PASS_PROTOCOL;
	u->is_inner_v6 = protocol == IPPROTO_IPV6;
	return DECAP_NONE;
}

static __always_inline enum decap_event read_gre(struct xdp_md *ctx, struct unwrap *u)
{
	struct gre_header *gre = at(ctx, u->next, sizeof(*gre));

	if (!gre || u->next + sizeof(*gre) > u->end)
		return DECAP_PASS_MALFORMED;
	/* Keys, sequence numbers and routes, or version 1: another's (RFC 2890, RFC 2637). */
	if (gre->flags & bpf_htons((__u16)~GRE_CHECKSUM))
		return DECAP_PASS_OPTIONS;
	if (gre->eth_proto != bpf_htons(ETH_P_IP) && gre->eth_proto != bpf_htons(ETH_P_IPV6))
		return DECAP_PASS_PROTOCOL;
	u->is_inner_v6 = gre->eth_proto == bpf_htons(ETH_P_IPV6);
	if (gre->flags) {
		u->covered = u->next;
		u->next += 4;
	}
	u->next += sizeof(*gre);
	return DECAP_NONE;
}

/* What the flags in gue's private field say; at is its offset. */
static __always_inline enum decap_event read_private(struct xdp_md *ctx, __u32 offset, __u32 optional)
{
	__be32 *flags = at(ctx, offset, sizeof(*flags));

	if (!flags || optional < sizeof(*flags))
		return DECAP_PASS_MALFORMED;
	if (*flags & bpf_htonl(GUE_PRIVATE_REMOTE_CHECKSUM))
		return DECAP_PASS_REMOTE_CHECKSUM;
	return *flags ? DECAP_PASS_OPTIONS : DECAP_NONE;
}

static __always_inline enum decap_event read_gue_header(struct xdp_md *ctx, struct unwrap *u)
{
	struct gue_header *gue = at(ctx, u->next, sizeof(*gue));
	enum decap_event event;
	__u32 optional;

	if (!gue || u->next + sizeof(*gue) > u->end)
		return DECAP_PASS_MALFORMED;
	if (gue->first >> GUE_VARIANT == 1) { /* the inner packet itself: its version begins with 01 */
		u->is_inner_v6 = gue->first >> 4 == 6;
		return gue->first >> 4 == 4 || u->is_inner_v6 ? DECAP_NONE : DECAP_PASS_OPTIONS;
	}
	if (gue->first >> GUE_VARIANT || gue->first & GUE_CONTROL || gue->flags & bpf_htons((__u16)~GUE_FLAG_PRIVATE))
		return DECAP_PASS_OPTIONS;
	event = read_inner_protocol(u, gue->protocol);
	optional = (gue->first & GUE_LENGTH) * 4;
	if (event == DECAP_NONE && gue->flags)
		event = read_private(ctx, u->next + sizeof(*gue), optional);
	u->next += sizeof(*gue) + optional;
	return event;
}

static __always_inline enum decap_event read_gue(struct xdp_md *ctx, struct unwrap *u)
{
	struct udphdr *udp = at(ctx, u->next, sizeof(*udp));
	__u32 length;

	if (!udp)
		return DECAP_PASS_MALFORMED;
	length = bpf_ntohs(udp->len);
	if (length < sizeof(*udp) || u->next + length > u->end)
		return DECAP_PASS_MALFORMED;
	u->end = u->next + length;
	/* 0: there is none; of tunnels in IPv6 too (RFC 768, RFC 6935 §5). */
	if (udp->check) {
		u->covered = u->next;
		u->pseudo = bpf_htons(IPPROTO_UDP) + udp->len + address_sum(u->source) + address_sum(u->destination);
	}
	u->next += sizeof(*udp);
	return read_gue_header(ctx, u);
}

static __always_inline enum decap_event read_tunnel(struct xdp_md *ctx, struct unwrap *u)
{
	enum decap_event event = read_type(ctx, u);

	if (event == DECAP_NONE)
		event = check_outer(u);
	if (event != DECAP_NONE)
		return event;
	u->covered = u->pseudo = 0;
	if (u->type == DECAP_GUE)
		return read_gue(ctx, u);
	if (u->type == DECAP_GRE)
		return read_gre(ctx, u);
	return read_inner_protocol(u, u->protocol);
}

#endif
