/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets between programs: how one is left for the next, and how the last of them
 * follows the recipe of a packet that was left.
 */
#ifndef SHUNT_FOLLOW_H
#define SHUNT_FOLLOW_H

#include "fullnat.h"
#include "mss.h"

/* Hands the packet to the program in the slot of the set, which parses it anew; comes back only if there is none. */
static __always_inline int go_on(struct xdp_md *ctx, __u32 slot)
{
	bpf_tail_call(ctx, &slots, slot_set + slot);
	return finish(ctx, EVENT_FAULT_MAP, 0);
}

/* Leaves the packet where the slow path finds it; 0: there is no such place. */
static __always_inline struct slow *note_packet(struct xdp_md *ctx, const struct packet *p, __u32 hash, int is_virtual,
						const int v6)
{
	struct slow *s = slow_scratch();

	if (!s)
		return 0;
	s->key = p->key;
	s->hash = hash;
	s->l3 = p->offset;
	s->l4 = p->l4 - (void *)(long)ctx->data;
	s->tick = p->tick;
	s->length = p->length;
	s->outer_vlan = p->outer_vlan;
	s->inner_vlan = p->inner_vlan;
	s->protocol = p->protocol;
	s->tcp_flags = p->tcp_flags;
	s->is_v6 = v6;
	s->is_virtual = is_virtual;
	s->is_new = 0;
	s->is_trial = 0;
	s->old = 0;
	s->is_admitted = 0;
	s->piece = PIECE_WHOLE;
	return s;
}

/* As count_hit, of the packet in s, if its key has an entry. */
static __always_inline void count_slow(struct slow *s, const int v6)
{
	struct lookup *l = &s->hit;

	if (!counts_connections)
		return;
	l->key = s->key;
	look_up_by(l, v6);
	if (l->recipe)
		count_in_slot(l->group, l->slot, s->length, v6);
}

/* Follows the recipe in s of the packet in s, which is p. */
static __always_inline int follow_whole(struct xdp_md *ctx, const struct packet *p, struct server *server,
					const struct slow *s, const int v6)
{
	if (is_full_nat(s->recipe))
		return follow_full_nat(ctx, p, server, s, v6);
	return follow_to(ctx, p, server, s->recipe, s->hop, v6);
}

/*
 * follow_to, of the packet in s, whose headers are looked at anew. is_later: it is a
 * fragment but the first, and there is nothing to be looked at behind the IP header.
 */
static __always_inline int follow_slow(struct xdp_md *ctx, struct slow *s, const int is_later, const int v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 l3 = s->l3 & 0x1f, l4 = s->l4 & 0x3fff, index = recipe_server(s->recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct packet p;

	if (!server)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (server->life == LIFE_LIVE)
		count_slow(s, v6);
	if (is_wide(s->recipe) && !is_full_nat(s->recipe)) {
		if (!tailor_server(s))
			return finish(ctx, EVENT_FAULT_MAP, 0);
		server = &s->own;
	}

	p.key = s->key;
	p.length = s->length;
	p.is_new = s->is_new;
	p.is_later = is_later;
	p.outer_vlan = s->outer_vlan;
	p.inner_vlan = s->inner_vlan;
	p.offset = l3;
	p.l3 = data + l3;
	p.l4 = data + l4;
	if (p.l3 + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) > end)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (is_later) {
		p.protocol = s->protocol;
		return follow_whole(ctx, &p, server, s, v6);
	}
	/* The protocol as a constant: the verifier must not think of UDP's bounds and TCP's fields. */
	if (s->protocol == IPPROTO_TCP) {
		p.protocol = IPPROTO_TCP;
		if (p.l4 + sizeof(struct tcphdr) > end)
			return finish(ctx, EVENT_FAULT_MAP, 0);
		return follow_whole(ctx, &p, server, s, v6);
	}
	p.protocol = IPPROTO_UDP;
	if (p.l4 + sizeof(struct udphdr) > end)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	return follow_whole(ctx, &p, server, s, v6);
}

__noinline int follow_slow4(struct xdp_md *ctx, struct slow *s)
{
	return s ? follow_slow(ctx, s, 0, 0) : XDP_DROP;
}

__noinline int follow_slow6(struct xdp_md *ctx, struct slow *s)
{
	return s ? follow_slow(ctx, s, 0, 1) : XDP_DROP;
}

__noinline int follow_later4(struct xdp_md *ctx, struct slow *s)
{
	return s ? follow_slow(ctx, s, 1, 0) : XDP_DROP;
}

__noinline int follow_later6(struct xdp_md *ctx, struct slow *s)
{
	return s ? follow_slow(ctx, s, 1, 1) : XDP_DROP;
}

static __always_inline int follow_made(struct xdp_md *ctx, struct slow *s)
{
	if (s->protocol == IPPROTO_TCP && (s->tcp_flags & (TCP_SYN | TCP_RST)) == TCP_SYN && s->mss)
		clamp_mss(ctx, s);
	return s->is_v6 ? follow_slow6(ctx, s) : follow_slow4(ctx, s);
}

#endif
