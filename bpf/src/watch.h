/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Telling watchers what becomes of connections: that one has begun, that it has
 * shown its client to be real, that its entry is gone. Templates are none, nor are
 * packets that are served without an entry. Nobody watches, mostly: then this is
 * one load, and none of it is on the way of a packet that only follows its recipe.
 */
#ifndef SHUNT_WATCH_H
#define SHUNT_WATCH_H

#include "template.h"
#include "traffic.h"

/* What the connection in that slot has carried, both ways, goes to *told. */
static __always_inline void report_traffic(struct connection_news *told, __u32 group, __u32 slot, __u64 recipe,
					   __u32 word, const int v6)
{
	struct slot_traffic *in = slot_of(traffic_at(group, v6), slot), *out;
	struct lookup reply = {};

	if (!in)
		return;
	told->in_packets = LOAD(&in->packets);
	told->in_bytes = LOAD(&in->bytes);
	if (recipe_method(recipe) != METHOD_NAT)
		return;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		reply.key.source[i] = told->source[i];
		reply.key.destination[i] = told->destination[i];
	}
	reply.key.id = told->id & ID_MASK;
	look_up_reply(&reply, &reply.key, recipe, word, v6);
	out = reply.recipe ? slot_of(traffic_at(reply.group, v6), reply.slot) : 0;
	if (!out)
		return;
	told->out_packets = LOAD(&out->packets);
	told->out_bytes = LOAD(&out->bytes);
}

/*
 * Tells watchers of the connection whose forward entry is in that slot and has, or
 * had, that recipe. A slot that has been reused since says nothing.
 */
static __always_inline int announce_slot(__u32 index, __u32 slot, __u64 recipe, __u32 kind, const int v6)
{
	void *group = group_at(index, v6);
	struct connection_news *told;
	__u64 *entry;

	if (!group)
		return 0;
	entry = entry_at(group, slot, v6);
	if (!entry)
		return 0;
	told = bpf_ringbuf_reserve(&news, sizeof(*told), 0);
	if (!told) {
		count(EVENT_NOTE_NEWS_LOST);
		return 0;
	}
	told->id = LOAD(entry + WORDS(v6));
	order();
#pragma unroll
	for (int i = 0; i < 4; i++) {
		const __u32 *words = (const __u32 *)entry;

		told->source[i] = v6 || !i ? LOAD(words + i) : 0;
		told->destination[i] = v6 ? LOAD(words + 4 + i) : i ? 0 : LOAD(words + 1);
	}
	order();
	if (((told->id >> ID_GENERATION) ^ recipe) & GENERATION_MASK ||
	    (LOAD(entry + WORDS(v6) + 1) ^ recipe) & GENERATION_MASK) {
		bpf_ringbuf_discard(told, 0);
		return 0;
	}
	told->recipe = recipe & ~BIT(RECIPE_BUSY);
	told->tick = now_tick();
	told->kind = kind;
	told->family = v6 ? 6 : 4;
	told->pad = 0;
	told->pad2 = 0;
	told->local = is_full_nat(recipe) ? LOAD(entry + WORDS(v6) + 2) >> 32 : 0;
	told->in_packets = told->in_bytes = told->out_packets = told->out_bytes = 0;
	if (kind == NEWS_CLOSED)
		report_traffic(told, index, slot, recipe, told->local, v6);
	bpf_ringbuf_submit(told, 0);
	return 1;
}

__noinline int announce4(__u32 index, __u32 slot, __u64 recipe, __u32 kind)
{
	return announce_slot(index, slot, recipe, kind, 0);
}

__noinline int announce6(__u32 index, __u32 slot, __u64 recipe, __u32 kind)
{
	return announce_slot(index, slot, recipe, kind, 1);
}

/*
 * Tells watchers, if there are any, what has become of the connection whose forward
 * entry is in that slot with that recipe: enum news_kind.
 */
static __always_inline void announce(__u32 group, __u32 slot, __u64 recipe, enum news_kind kind, const int v6)
{
	if (!LOAD(&current.watching) || is_template(recipe))
		return;
	if (v6)
		announce6(group, slot, recipe, kind);
	else
		announce4(group, slot, recipe, kind);
}

#endif
