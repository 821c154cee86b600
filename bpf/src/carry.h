/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Connections come over from the tables before these, which have another size or
 * layout (layouts.h). A packet that finds no entry brings its connection over
 * (shunt_carry); user space has all the others brought over in slices
 * (shunt_bring4/6), and then loads the programs without the old tables. No count of
 * connections changes: each is the same connection as before. The programs are in
 * bring.h.
 *
 * Nobody inserts into the old tables any more, and no packet follows what is in
 * there. To bring a connection over is:
 * - insert its forward key into the new table, then its reply key, both as they are:
 *   live at once, claimed by nobody, so that no packet waits or is dropped for it.
 *   What is missing of it is found in the old table still, by the packet that needs
 *   it; a key that is there already was brought over by another CPU.
 * - free the old forward entry by compare-and-swap, which one CPU wins. Who has
 *   inserted and finds the old entry gone was late: the connection came over and may
 *   have ended since. It takes its entries back.
 * A connection that cannot come over ends: its counts are undone by who frees it.
 */
#ifndef SHUNT_CARRY_H
#define SHUNT_CARRY_H

#include "create.h"

/* One key that comes over. */
struct carry_half {
	struct old_entry old;
	struct insert_request new;
	__u32 result; /* enum insertion */
	__u32 pad;
};

struct carrying {
	struct carry_half forward;
	struct carry_half reply;
	struct carry_half template;
	struct lookup look;
	__u32 tick;
	__u32 is_last; /* no room is made any more */
	__u32 has_forward; /* the connection's forward key is in its place */
	__u32 pad;
};

MAP(carry_scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct carrying, SCRATCHES);

/* What became of an old connection or template. */
enum carried {
	CARRY_NOTHING, /* it is not there any more */
	CARRY_DONE,
	CARRY_LOST,
	CARRY_EXPIRED,
	CARRY_BUSY, /* claimed by a program of before, which runs still */
	CARRY_AGAIN, /* when room has been made for a half of it */
};

/* --- one key ------------------------------------------------------------------ */

/* Adds what an old entry's packets were counted as to the counters of its new one. */
static __always_inline void bring_traffic(const struct carry_half *h, const int v6)
{
	__u32 group = h->old.group, slot = h->old.slot;
	struct carried_traffic *from;
	struct slot_traffic *to;

	if (!counts_connections || !carried_counts)
		return;
	from = v6 ? bpf_map_lookup_elem(&carried_traffic6, &group) : bpf_map_lookup_elem(&carried_traffic4, &group);
	to = slot_of(traffic_at(h->new.group, v6), h->new.slot);
	asm volatile("" : "+r"(slot));
	if (!from || !to || slot >= LAYOUT_SLOTS)
		return;
	__sync_fetch_and_add(&to->packets, from->words[2 * slot]);
	__sync_fetch_and_add(&to->bytes, from->words[2 * slot + 1]);
}

/* Inserts the old entry's key as it was; the result is in h. */
static __always_inline int bring(struct carry_half *h, __u32 tick, const int v6)
{
	struct insert_request *r = &h->new;
	void *group;
	__u64 *entry;

	r->key = h->old.key;
	r->hash = hash_key(&r->key, v6);
	r->recipe = h->old.recipe;
	r->tick = tick;
	r->born = h->old.born;
	r->hop = h->old.hop;
	r->client_hop = h->old.seen;
	r->is_trial = 0;
	h->result = v6 ? insert_once6(r) : insert_once4(r);
	if (h->result != INSERTED)
		return 0;
	group = group_at(r->group, v6);
	entry = group ? entry_at(group, r->slot, v6) : 0;
	if (!entry)
		return 0;
	/* A packet in between has said a later tick: its next one will again. */
	if (!has_hop_for_seen(h->old.recipe))
		STORE((__u32 *)(entry + WORDS(v6) + 2), h->old.seen);
	bring_traffic(h, v6);
	return 0;
}

__noinline int bring4(struct carry_half *h, __u32 tick)
{
	return h ? bring(h, tick, 0) : 0;
}

__noinline int bring6(struct carry_half *h, __u32 tick)
{
	return h ? bring(h, tick, 1) : 0;
}

/* As insert_key makes room, out here: the verifier counts eight functions that call one another. */
static __always_inline void make_room(struct carry_half *h, const int v6)
{
	if (h->result == AGAIN)
		give_up(&h->new, v6);
}

/* Whether h's new entry is that of the same connection, or template: its own, or another CPU's. */
static __always_inline int is_brought(const struct carry_half *h)
{
	const __u64 same =
		(__u64)SERVER_MASK << RECIPE_SERVER | (__u64)METHOD_MASK << RECIPE_METHOD | BIT(RECIPE_REPLY);

	return h->result == INSERTED || (h->result == EXISTS && !((h->new.recipe ^ h->old.recipe) & same));
}

/*
 * Takes the entry that was inserted out again, unless somebody else removes it.
 * Nothing else is changed: its key alone goes.
 */
static __always_inline int retract(const struct carry_half *h, const int v6)
{
	void *group = group_at(h->new.group, v6);
	__u64 *entry;

	if (h->result != INSERTED || !group)
		return 0;
	entry = entry_at(group, h->new.slot, v6);
	if (!entry)
		return 0;
	for (int i = 0; i < CHANGE_TRIES; i++) {
		__u64 recipe = LOAD(entry + WORDS(v6) + 1);

		if ((recipe ^ h->new.recipe) & GENERATION_MASK || recipe & BIT(RECIPE_BUSY))
			return 0;
		if (!change(entry, recipe, recipe | BIT(RECIPE_BUSY), v6))
			continue;
		release(group, entry, h->new.slot, v6);
		return 1;
	}
	return 0;
}

/*
 * Frees an old entry: true for the one who does. A program of before may have changed
 * the recipe at the moment of the switch: h then has its last one.
 */
static __always_inline int free_old(struct old_entry *e, const int v6)
{
	void *group = old_group_at(e->group, v6);
	__u64 *entry, raw = e->raw;

	if (!group || !raw)
		return 0;
	entry = old_entry_at(group, e->slot, v6);
	if (!entry)
		return 0;
	for (int i = 0; i < CHANGE_TRIES; i++) {
		__u64 met = __sync_val_compare_and_swap(entry + WORDS(v6) + 1, raw, 0);

		if (met == raw) {
			e->raw = raw;
			return 1;
		}
		if (!met || is_old_busy(met) || (met ^ raw) & old_generation_mask())
			return 0;
		raw = met;
	}
	return 0;
}

__noinline int free_old4(struct old_entry *e)
{
	return e ? free_old(e, 0) : 0;
}

__noinline int free_old6(struct old_entry *e)
{
	return e ? free_old(e, 1) : 0;
}

/* As free_old, of the entry that h has brought: what changed at the last moment comes after it. */
static __always_inline int hand_over(struct carry_half *h, const int v6)
{
	__u64 before = h->old.raw, recipe;
	void *group;
	__u64 *entry;

	if (!(v6 ? free_old6(&h->old) : free_old4(&h->old)))
		return 0;
	if (h->old.raw == before || h->result != INSERTED)
		return 1;
	group = group_at(h->new.group, v6);
	entry = group ? entry_at(group, h->new.slot, v6) : 0;
	recipe = convert_recipe(h->old.raw) | (h->new.recipe &FILLED_MASK);
	if (entry)
		change(entry, h->new.recipe, recipe, v6);
	return 1;
}

/* --- templates ------------------------------------------------------------------ */

/* Brings the template over whose entry is in c->template.old. */
static __always_inline enum carried bring_template(struct carrying *c, const int v6)
{
	struct carry_half *t = &c->template;

	if (!t->old.raw)
		return CARRY_NOTHING;
	if (is_old_busy(t->old.raw))
		return CARRY_BUSY;
	/* What a sweep of the old table has met of it says nothing of this one. */
	t->old.hop = make_counts(controlled(t->old.hop), COUNT_UNKNOWN);
	if (v6)
		bring6(t, c->tick);
	else
		bring4(t, c->tick);
	if (t->result == AGAIN && !c->is_last)
		return CARRY_AGAIN;
	if (!hand_over(t, v6)) {
		retract(t, v6);
		return CARRY_NOTHING;
	}
	if (is_brought(t))
		return CARRY_DONE;
	unbind_connection(recipe_server(t->old.recipe), STATE_TEMPLATE);
	count(EVENT_NOTE_CARRY_LOST);
	return CARRY_LOST;
}

__noinline int bring_template4(struct carrying *c)
{
	return c ? bring_template(c, 0) : CARRY_NOTHING;
}

__noinline int bring_template6(struct carrying *c)
{
	return c ? bring_template(c, 1) : CARRY_NOTHING;
}

/* As bring_template, making room. */
static __always_inline enum carried bring_any_template(struct carrying *c, const int v6)
{
	enum carried carried = CARRY_AGAIN;

	for (int i = 0; i < INSERT_TRIES && carried == CARRY_AGAIN; i++) {
		c->is_last = i == INSERT_TRIES - 1;
		carried = v6 ? bring_template6(c) : bring_template4(c);
		if (carried == CARRY_AGAIN)
			make_room(&c->template, v6);
	}
	return carried;
}

/* Brings the template over that clients of this address have of the service with this index, if there is one. */
static __always_inline void bring_template_of(struct carrying *c, const __u32 *client, __u32 index, const int v6)
{
	struct service *service = bpf_map_lookup_elem(&services, &index);

	if (!service)
		return;
	template_key(&c->template.old.key, client, in_force(service), index);
	look_up_old(&c->template.old, c->tick, v6);
	bring_any_template(c, v6);
}

/* --- connections ---------------------------------------------------------------- */

/*
 * Undoes the counts of the connection whose old forward entry the caller has freed,
 * and which is in no table now.
 */
static __always_inline void write_off(struct carrying *c, const int v6)
{
	const struct old_entry *old = &c->forward.old;
	__u32 index = recipe_server(old->recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct lookup *t = &c->look;
	struct service *service;

	unbind_connection(index, recipe_state(old->recipe));
	if (!server)
		return;
	index = server->service;
	if (old->recipe & BIT(RECIPE_COUNTED))
		uncount_source(index, &c->forward.old.key);
	if (!(old->recipe & BIT(RECIPE_CONTROLLED)))
		return;
	service = bpf_map_lookup_elem(&services, &index);
	if (!service)
		return;
	template_key(&t->key, old->key.source, in_force(service), index);
	look_up_by(t, v6);
	if (t->recipe && recipe_server(t->recipe) == recipe_server(old->recipe))
		count_under(t, NEWS_ENDED, 0, v6);
}

__noinline int write_off4(struct carrying *c)
{
	if (c)
		write_off(c, 0);
	return 0;
}

__noinline int write_off6(struct carrying *c)
{
	if (c)
		write_off(c, 1);
	return 0;
}

/* Finds the old reply entry of the connection in c->forward.old. */
static __always_inline void find_old_reply(struct carrying *c, const int v6)
{
	struct old_entry *forward = &c->forward.old, *reply = &c->reply.old;
	__u32 index = recipe_server(forward->recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	reply->raw = 0;
	if (recipe_method(forward->recipe) != METHOD_NAT || !server)
		return;
	reply_key(&reply->key, &forward->key, server, forward->recipe, forward->hop);
	look_up_old(reply, c->tick, v6);
	if (!(reply->recipe & BIT(RECIPE_REPLY)) || recipe_server(reply->recipe) != index)
		reply->raw = 0;
}

/*
 * Inserts the reply key of the connection whose forward key is in its place already;
 * false if it cannot be. If the connection has just been removed, before it had a
 * reply key here, nobody else would remove that.
 */
static __always_inline int bring_reply(struct carrying *c, const int v6)
{
	const struct insert_request *forward = &c->forward.new;
	struct carry_half *reply = &c->reply;
	void *group;
	__u64 *entry, recipe;

	if (!reply->old.raw)
		return 1;
	if (is_wide(reply->old.recipe))
		reply->old.hop = make_place(forward->group, forward->slot);
	if (v6)
		bring6(reply, c->tick);
	else
		bring4(reply, c->tick);
	if (reply->result != INSERTED)
		return is_brought(reply);
	group = group_at(forward->group, v6);
	entry = group ? entry_at(group, forward->slot, v6) : 0;
	if (!entry)
		return 1;
	recipe = await(forward->group, forward->slot, LOAD(entry + WORDS(v6) + 1), v6);
	if (!recipe || (recipe ^ forward->recipe) & GENERATION_MASK)
		retract(reply, v6);
	return 1;
}

/* Brings the connection over whose forward entry is in c->forward.old. */
static __always_inline enum carried bring_connection(struct carrying *c, const int v6)
{
	struct carry_half *forward = &c->forward;
	int is_whole;

	if (is_old_busy(forward->old.raw))
		return CARRY_BUSY;
	if (!c->has_forward) {
		find_old_reply(c, v6);
		if (v6)
			bring6(forward, c->tick);
		else
			bring4(forward, c->tick);
		if (forward->result == AGAIN && !c->is_last)
			return CARRY_AGAIN;
		c->has_forward = 1;
	}
	c->reply.result = NO_ROOM;
	is_whole = is_brought(forward) && bring_reply(c, v6);
	if (c->reply.result == AGAIN && !c->is_last)
		return CARRY_AGAIN;
	if (!is_whole)
		retract(forward, v6);
	if (!hand_over(forward, v6)) {
		/* Another CPU was first: what it made of the connection stands. */
		if (is_whole && forward->result == INSERTED) {
			retract(&c->reply, v6);
			retract(forward, v6);
		}
		return CARRY_NOTHING;
	}
	if (v6)
		free_old6(&c->reply.old);
	else
		free_old4(&c->reply.old);
	if (is_whole) {
		count(EVENT_NOTE_CARRIED);
		return CARRY_DONE;
	}
	if (v6)
		write_off6(c);
	else
		write_off4(c);
	count(EVENT_NOTE_CARRY_LOST);
	return CARRY_LOST;
}

__noinline int bring_connection4(struct carrying *c)
{
	return c ? bring_connection(c, 0) : CARRY_NOTHING;
}

__noinline int bring_connection6(struct carrying *c)
{
	return c ? bring_connection(c, 1) : CARRY_NOTHING;
}

/* As bring_connection, making room. */
static __always_inline enum carried bring_any(struct carrying *c, const int v6)
{
	enum carried carried = CARRY_AGAIN;

	c->has_forward = 0;
	c->forward.result = c->reply.result = NO_ROOM;
	for (int i = 0; i < INSERT_TRIES && carried == CARRY_AGAIN; i++) {
		c->is_last = i == INSERT_TRIES - 1;
		carried = v6 ? bring_connection6(c) : bring_connection4(c);
		if (carried != CARRY_AGAIN)
			break;
		make_room(&c->forward, v6);
		make_room(&c->reply, v6);
	}
	return carried;
}

#endif
