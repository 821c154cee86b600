/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Fragments of datagrams to or from an address that may be ours. The first is a packet
 * like others, with the whole transport header or none at all (RFC 1858, RFC 7112); what
 * it shows is noted under what all fragments of the datagram have in common. The others
 * follow the same connection by that, without a transport header to be read or written.
 * Nothing is kept of packets: one whose first was not seen follows the last datagram
 * between its addresses, if for as long as that is remembered there were no others'
 * ports, or is dropped if it is ours.
 *
 * What a later fragment can do is to reach the server that the first has reached: to
 * overwrite what was looked at there, it would have to begin before the transport
 * header's end, and is dropped then (RFC 3128).
 */
#ifndef SHUNT_FRAGMENT_H
#define SHUNT_FRAGMENT_H

#include "piece.h"
#include "track.h"

static __always_inline __u32 fragment_ticks(void)
{
	__u32 zero = 0;
	struct packet_options *o = bpf_map_lookup_elem(&options, &zero);

	return o ? o->fragment_ticks : 0;
}

/* What is noted of the datagram; 0: nothing, or too long ago. */
static __always_inline struct fragment *recall(const struct slow *s)
{
	struct fragment *f = bpf_map_lookup_elem(&fragments, &s->fragment);

	return f && !is_longer(fragment_ticks(), f->tick, s->tick) ? f : 0;
}

/* Has s->fragment mean the last datagram between the addresses; the id that it had. */
static __always_inline __u32 mean_last(struct slow *s)
{
	__u32 id = s->fragment.id;

	s->fragment.id = 0;
	s->fragment.is_last = 1;
	return id;
}

static __always_inline void mean(struct slow *s, __u32 id)
{
	s->fragment.id = id;
	s->fragment.is_last = 0;
}

/* Notes that the datagram f, which the fragment in s begins, is the last between its addresses. */
static __always_inline void note_last(struct slow *s, struct fragment *f)
{
	__u32 ticks = fragment_ticks(), id = mean_last(s);
	struct fragment *last = bpf_map_lookup_elem(&fragments, &s->fragment);

	f->mixed_tick = s->tick - ticks - 1;
	if (!last) {
		bpf_map_update_elem(&fragments, &s->fragment, f, BPF_ANY);
	} else {
		if (last->ports != f->ports || last->protocol != f->protocol) {
			if (!is_longer(ticks, last->tick, s->tick))
				last->mixed_tick = s->tick;
			last->ports = f->ports;
			last->protocol = f->protocol;
			last->header = f->header;
			last->fate = f->fate;
		}
		last->tick = s->tick;
	}
	mean(s, id);
}

/* Notes what the first fragment in s shows; of two that say they are it, the last is believed. */
static __always_inline void note_first(struct slow *s)
{
	struct fragment f = { .ports = s->key.id, .tick = s->tick, .header = s->header, .protocol = s->protocol };

	/* Without room for it, those that follow are dropped by name. */
	bpf_map_update_elem(&fragments, &s->fragment, &f, BPF_ANY);
	note_last(s, &f);
}

/* Has what follows of the datagram that the packet in s begins go its way, which is no connection's. */
static __always_inline void bind_fragments(struct slow *s, enum fragment_fate fate, __u64 recipe)
{
	struct fragment *f = bpf_map_lookup_elem(&fragments, &s->fragment);
	__u32 id;

	if (f) {
		f->recipe = recipe;
		f->fate = fate;
	}
	id = mean_last(s);
	f = bpf_map_lookup_elem(&fragments, &s->fragment);
	if (f && f->ports == (__u32)s->key.id)
		f->fate = fate;
	mean(s, id);
}

/* The same of a packet that gets no connection: what is passed is passed whole. */
static __always_inline void bind_refused(struct slow *s, enum event event)
{
	if (s->piece == PIECE_FIRST && event != EVENT_NONE && (__u32)event < EVENT_DROPS)
		bind_fragments(s, FRAGMENT_PASSED, 0);
}

/* The same of one that create has dealt with: it may have got a server, but no entry. */
static __always_inline void bind_created(struct slow *s, enum event event)
{
	if (s->piece != PIECE_FIRST)
		return;
	bind_refused(s, event);
	if (event != EVENT_NONE)
		return;
	s->hit.key = s->key;
	look_up_by(&s->hit, s->is_v6);
	if (!s->hit.recipe)
		bind_fragments(s, FRAGMENT_FOLLOWS, s->recipe);
}

/*
 * Leaves in s what the connection with its key has to be followed by; recipe 0: there
 * is none. Its state stays: the first fragment has told all there is.
 */
static __always_inline void rejoin(struct slow *s, const int v6)
{
	struct lookup *hit = &s->hit, *forward = hit;
	enum direction direction = DIRECTION_INPUT;
	struct server *server;
	__u64 *entry;
	__u32 index;

	s->recipe = 0;
	hit->key = s->key;
	look_up_by(hit, v6);
	if (!hit->recipe)
		return;
	if (hit->recipe & BIT(RECIPE_REPLY)) {
		direction = DIRECTION_OUTPUT;
		forward = &s->other;
		look_up_forward(forward, &s->key, hit->recipe, hit->hop, v6);
	}
	if (forward->recipe & BIT(RECIPE_BUSY)) {
		if (v6)
			await_entry6(forward);
		else
			await_entry4(forward);
	}
	if (!forward->recipe || forward->recipe & (BIT(RECIPE_BUSY) | BIT(RECIPE_KILLED)))
		return;
	index = recipe_server(forward->recipe);
	server = bpf_map_lookup_elem(&servers, &index);
	if (!server || is_longer(timeout_at(server, forward->recipe), forward->seen, s->tick))
		return;
	s->recipe = hit->recipe;
	s->hop = hop_of_reply(hit, forward);
	s->local = forward->hop;
	if (server->life != LIFE_LIVE || s->tick - forward->seen < refresh_ticks)
		return;
	entry = entry_of(forward, v6);
	if (entry)
		STORE((__u32 *)(entry + WORDS(v6) + 2), seen_after(forward, server, direction, s->tick));
}

__noinline int rejoin4(struct slow *s)
{
	if (s)
		rejoin(s, 0);
	return 0;
}

__noinline int rejoin6(struct slow *s)
{
	if (s)
		rejoin(s, 1);
	return 0;
}

/* rejoin, by what was noted of the datagram. */
static __always_inline void rejoin_noted(struct slow *s, const struct fragment *f)
{
	s->protocol = f->protocol;
	s->key.id = make_id(f->ports, f->protocol);
	if (s->is_v6)
		rejoin6(s);
	else
		rejoin4(s);
}

/*
 * The end of the fragment in s by that event, if it is ours for certain: the filter's
 * bits may be others' too. A server is known by the connections of datagrams before.
 */
static __always_inline int drop_ours(struct xdp_md *ctx, struct slow *s, enum event event)
{
	struct fragment *last;

	if (echo_of(s->key.destination, s->is_v6))
		return finish(ctx, event, 0);
	mean_last(s);
	last = bpf_map_lookup_elem(&fragments, &s->fragment);
	if (last) {
		rejoin_noted(s, last);
		if (s->recipe)
			return finish(ctx, event, 0);
	}
	return finish(ctx, EVENT_PASS_FRAGMENT, 0);
}

/* What is known of the last datagram between the addresses, if there were no others of late. */
static __always_inline struct fragment *guess(struct slow *s)
{
	struct fragment *last;

	mean_last(s);
	last = recall(s);
	return last && is_longer(fragment_ticks(), last->mixed_tick, s->tick) ? last : 0;
}

/* A fragment but the first. */
static __always_inline int meet_later(struct xdp_md *ctx, struct slow *s)
{
	struct fragment *f = recall(s);
	int is_tcp = s->protocol == IPPROTO_TCP;

	if (!f && !is_tcp && s->protocol != IPPROTO_UDP && s->protocol != IPPROTO_DSTOPTS)
		return finish(ctx, EVENT_PASS_FRAGMENT, 0);
	if (!f && is_tcp && s->begin < sizeof(struct tcphdr))
		return drop_ours(ctx, s, EVENT_DROP_FRAGMENT_TINY);
	if (!f)
		f = guess(s);
	if (!f)
		return drop_ours(ctx, s, EVENT_DROP_FRAGMENT_UNKNOWN);
	if (f->fate == FRAGMENT_PASSED)
		return finish(ctx, EVENT_PASS_FRAGMENT, 0);
	if (f->fate == FRAGMENT_DROPPED)
		return finish(ctx, EVENT_DROP_ECHO, 0);
	if (f->fate == FRAGMENT_ECHOED)
		return s->is_v6 ? return_echo6(ctx, s->l3, 0) : return_echo4(ctx, s->l3, 0);
	if (s->begin < f->header)
		return drop_ours(ctx, s, EVENT_DROP_FRAGMENT_TINY);
	rejoin_noted(s, f);
	if (!s->recipe)
		s->recipe = f->recipe;
	if (!s->recipe)
		return drop_ours(ctx, s, EVENT_DROP_FRAGMENT_UNKNOWN);
	count(EVENT_NOTE_FRAGMENTS);
	return s->is_v6 ? follow_later6(ctx, s) : follow_later4(ctx, s);
}

/* An ICMP message: whole, or the first fragment of an echo request, which its others are answered or dropped with. */
static __always_inline int meet_message(struct xdp_md *ctx, struct slow *s)
{
	struct fragment f = { .tick = s->tick, .header = s->header, .protocol = s->protocol };
	enum event event;

	if (s->piece == PIECE_WHOLE)
		return go_on(ctx, SLOT_ICMP);
	event = !s->is_virtual ? EVENT_NONE : s->is_v6 ? judge_echo6(&s->key) : judge_echo4(&s->key);
	if (event == EVENT_NONE)
		return finish(ctx, EVENT_PASS_FRAGMENT, 0);
	f.fate = event == EVENT_ANSWER_ECHO ? FRAGMENT_ECHOED :
		 event == EVENT_PASS_ICMP   ? FRAGMENT_PASSED :
					      FRAGMENT_DROPPED;
	bpf_map_update_elem(&fragments, &s->fragment, &f, BPF_ANY);
	if (event != EVENT_ANSWER_ECHO)
		return finish(ctx, event, 0);
	return s->is_v6 ? return_echo6(ctx, s->l3, s->l4) : return_echo4(ctx, s->l3, s->l4);
}

/* Whether the tables in force have the connection of the packet in s. */
static __always_inline int has_connection(struct slow *s, const int v6)
{
	s->hit.key = s->key;
	look_up_by(&s->hit, v6);
	return !!s->hit.recipe;
}

/* A packet with a transport header: it goes the way of those that shunt_main leaves to others. */
static __always_inline int meet_first(struct xdp_md *ctx, struct slow *s, const int v6)
{
	s->hash = hash_key(&s->key, v6);
	if (carried_groups(v6) && !has_connection(s, v6))
		return go_on(ctx, SLOT_CARRY);
	return go_on(ctx, SLOT_SETTLE);
}

SEC("xdp.frags")
int shunt_fragment(struct xdp_md *ctx)
{
	struct slow *s = slow_scratch();
	enum event event = view_fragment(ctx);

	if (!s)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (event == EVENT_DROP_FRAGMENT_TINY)
		return drop_ours(ctx, s, event);
	if (event == EVENT_GO_ICMP)
		return meet_message(ctx, s);
	if (event != EVENT_NONE)
		return finish(ctx, event, 0);
	if (s->piece == PIECE_LATER)
		return meet_later(ctx, s);
	if (s->piece == PIECE_FIRST)
		note_first(s);
	return s->is_v6 ? meet_first(ctx, s, 1) : meet_first(ctx, s, 0);
}

#endif
