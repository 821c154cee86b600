/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Ending a TCP connection so that both of its ends know. There are no packets to be
 * sent without one that came, so that the resets are made of the connection's own
 * next packets, one of each; where they are in the sequence they say themselves.
 *
 * A connection that is to end is marked RECIPE_KILLED and in state CLOSE, whose
 * timeout ends it: the fast path leaves its packets to settle, and that to here.
 * - A packet that its sender would send again goes on to the other end as a reset
 *   with the same sequence number, which is what a receiver that has had all
 *   before it expects (RFC 5961 §3.2); once, RECIPE_TOLD.
 * - All others are answered with a reset (RFC 9293 §3.5.2), and so is that one when
 *   it comes again. An answer's number is what its sender has acknowledged.
 * - Resets go on as they are.
 * The entry stays for its timeout also after both ends were told: a reset that has
 * crossed other segments may be beside the window, and is made anew for the next.
 */
#ifndef SHUNT_KILL_H
#define SHUNT_KILL_H

#include "answer.h"
#include "track.h"

#define KILL_GOES_ON (-1) /* no XDP action: the packet is to follow its recipe */

/* Marks the entry that l has found; false if it changed at every try. */
static __always_inline int mark_killed(struct lookup *l, const int v6)
{
	__u64 *entry = entry_of(l, v6);

	if (!entry)
		return 0;
	for (int i = 0; i < CHANGE_TRIES; i++) {
		__u64 old = LOAD(entry + WORDS(v6) + 1);
		__u64 new =
			(with_state(old, STATE_CLOSE) | BIT(RECIPE_KILLED)) & ~(BIT(RECIPE_TOLD) | BIT(RECIPE_LOADED));

		if ((old ^ l->recipe) & GENERATION_MASK || old & BIT(RECIPE_BUSY))
			return 0;
		if (!change(entry, old, new, v6))
			continue;
		l->recipe = old;
		if (!has_hop_for_seen(old))
			STORE((__u32 *)(entry + WORDS(v6) + 2), now_tick());
		return 1;
	}
	return 0;
}

/*
 * Has the TCP connection whose forward entry l has found end with resets; false if
 * others were changing it. If only its reply entry changed at every try, replies
 * find out within a second: that is how long they go by without settle.
 */
static __always_inline int kill_with_resets(struct lookup *l, const int v6)
{
	struct lookup reply = {};

	if (!mark_killed(l, v6))
		return 0;
	move_count(l->recipe, with_state(l->recipe, STATE_CLOSE));
	if (recipe_method(l->recipe) != METHOD_NAT)
		return 1;
	look_up_reply(&reply, &l->key, l->recipe, l->hop, v6);
	if (reply.recipe)
		mark_killed(&reply, v6);
	return 1;
}

/* Whether the segment is one that its sender sends again until it is acknowledged; -1: it is none. */
static __always_inline int wants_ack(struct xdp_md *ctx, const struct slow *s)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 l3 = s->l3 & 0x1f, l4 = s->l4 & 0x3fff;
	struct tcphdr *tcp = data + l4;

	if ((void *)(tcp + 1) > end)
		return -1;
	return s->tcp_flags & (TCP_SYN | TCP_FIN) || s->length > l4 - l3 + tcp->doff * 4;
}

/* Makes the segment in s a reset with its own numbers: no payload, no TCP options. False if it cannot be. */
static __always_inline int become_reset(struct xdp_md *ctx, struct slow *s, const int v6)
{
	__u32 l3 = s->l3 & 0x1f, l4 = s->l4 & 0x3fff;
	struct tcphdr *tcp;
	void *data, *end;
	__u16 length;
	__u32 sum;

	/* It is no fragment any more; of IPv6, the header that says so would have to go. */
	if ((v6 && s->piece == PIECE_FIRST) || !cut(ctx, l4 + sizeof(*tcp)))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	tcp = data + l4;
	if ((void *)(tcp + 1) > end || data + l3 + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) > end)
		return 0;
	((__u8 *)tcp)[12] = sizeof(*tcp) / 4 << 4;
	((__u8 *)tcp)[TCP_HEADER_FLAGS] = TCP_RST | (s->tcp_flags & TCP_ACK);
	if (!(s->tcp_flags & TCP_ACK))
		tcp->ack_seq = 0;
	tcp->window = 0;
	tcp->urg_ptr = 0;
	tcp->check = 0;
	length = l4 - l3 + sizeof(*tcp);
	sum = bpf_htons(sizeof(*tcp)) + bpf_htons(IPPROTO_TCP);
	if (v6) {
		struct ipv6hdr *ip6 = data + l3;

		ip6->payload_len = bpf_htons(length - sizeof(*ip6));
		sum = add_sum(sum, &ip6->saddr, 2 * sizeof(ip6->saddr));
	} else {
		struct iphdr *ip = data + l3;
		__be16 place = ip->frag_off;

		ip->frag_off &= bpf_htons(IP_DF);
		ip->check = adjust_checksum(ip->check, (__u32)(__u16)~place + ip->frag_off);
		ip->check = adjust_checksum(ip->check, (__u16)~ip->tot_len + bpf_htons(length));
		ip->tot_len = bpf_htons(length);
		sum = add_sum(sum, &ip->saddr, 2 * sizeof(ip->saddr));
	}
	tcp->check = ~fold(add_sum(sum, tcp, sizeof(*tcp)));
	s->length = length;
	return 1;
}

/* Marks that the sender of the packet in s was told, on the entry that the other end's packets have. */
static __always_inline void note_told(struct slow *s, const int v6)
{
	struct lookup *other = &s->other;

	if (recipe_method(s->hit.recipe) != METHOD_NAT)
		return;
	if (!(s->hit.recipe & BIT(RECIPE_REPLY)))
		look_up_reply(other, &s->key, s->hit.recipe, s->hit.hop, v6);
	if (other->recipe && !(other->recipe & BIT(RECIPE_TOLD)))
		mark(other, BIT(RECIPE_TOLD), 0, v6);
}

/*
 * What becomes of the packet in s, of a connection that was killed; its entries are
 * in hit and, if it is a reply, in other. The XDP action, or KILL_GOES_ON.
 *
 * Answers are not limited as others are: each is for a segment of a connection that
 * there was, is no longer than it, and is what its operator has asked for.
 */
static __always_inline int meet_killed(struct xdp_md *ctx, struct slow *s, const int v6)
{
	struct answer_request r = { .event = EVENT_ANSWER_KILLED, .l3 = s->l3, .l4 = s->l4 };
	int retried;

	if (s->tcp_flags & TCP_RST)
		return KILL_GOES_ON;
	retried = wants_ack(ctx, s);
	if (retried < 0)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (retried && !(s->hit.recipe & BIT(RECIPE_TOLD))) {
		if (!become_reset(ctx, s, v6))
			return finish(ctx, EVENT_DROP_NOT_QUOTABLE, service_with(s->hit.recipe));
		mark(&s->hit, BIT(RECIPE_TOLD), 0, v6);
		count(EVENT_NOTE_KILLED);
		return KILL_GOES_ON;
	}
	if (!(v6 ? reset6(ctx, &r) : reset4(ctx, &r)))
		return finish(ctx, EVENT_DROP_NOT_QUOTABLE, service_with(s->hit.recipe));
	note_told(s, v6);
	return finish(ctx, EVENT_ANSWER_KILLED, service_with(s->hit.recipe));
}

__noinline int meet_killed4(struct xdp_md *ctx, struct slow *s)
{
	return s ? meet_killed(ctx, s, 0) : XDP_DROP;
}

__noinline int meet_killed6(struct xdp_md *ctx, struct slow *s)
{
	return s ? meet_killed(ctx, s, 1) : XDP_DROP;
}

#endif
