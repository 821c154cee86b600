/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Reading the tables before these, of another size or layout, while their connections
 * come over (carry.h). Where nothing comes over, constants say so and nothing of this
 * is on any packet's way.
 */
#ifndef SHUNT_CARRIED_H
#define SHUNT_CARRIED_H

#include "layouts.h"
#include "connection.h"

/* An entry of an old table, in the present layout's terms. */
struct old_entry {
	struct key key;
	__u64 raw; /* the recipe as it lies there; 0: no entry */
	__u64 recipe; /* as an insert wants it */
	__u32 group;
	__u32 slot;
	__u32 seen;
	__u32 hop;
	__u32 born; /* tick */
	__u32 pad;
};

static __always_inline __u32 carried_groups(const int v6)
{
	return v6 ? carried_groups6 : carried_groups4;
}

static __always_inline void *old_group_at(__u32 index, const int v6)
{
	return v6 ? bpf_map_lookup_elem(&carried6, &index) : bpf_map_lookup_elem(&carried4, &index);
}

static __always_inline __u64 *old_entry_at(void *group, __u32 slot, const int v6)
{
	asm volatile("" : "+r"(slot));
	if (slot >= LAYOUT_SLOTS)
		return 0;
	return group + LAYOUT_HEAD + slot * (v6 ? LAYOUT_ENTRY6 : LAYOUT_ENTRY4);
}

/* The old tables have the present groups, whatever their entries are like. */
_Static_assert((int)LAYOUT_SETS == SETS && (int)LAYOUT_WAYS == WAYS && (int)LAYOUT_OVERFLOW == OVERFLOW, "ABI");
_Static_assert((int)LAYOUT_PLACE_GROUP == PLACE_GROUP, "ABI");

/* Whether the old entries have the present layout: a table is being made larger or smaller. */
static __always_inline int has_present_layout(void)
{
	return carried_layout == ABI_VERSION;
}

static __always_inline __u64 old_generation_mask(void)
{
	if (has_present_layout())
		return GENERATION_MASK;
	return carried_layout >= LAYOUT_BORN_SINCE ? LAYOUT_GENERATION_MASK5 : LAYOUT_GENERATION_MASK4;
}

static __always_inline __u64 old_id_generation(__u64 id)
{
	return has_present_layout() ? id >> ID_GENERATION : id >> LAYOUT_ID_GENERATION;
}

/* Whether a program of before was making or removing the connection with this old recipe. */
static __always_inline int is_old_busy(__u64 raw)
{
	return !!(raw & (has_present_layout() ? BIT(RECIPE_BUSY) : BIT(LAYOUT_BUSY)));
}

/* The key part of an old id. */
static __always_inline __u64 convert_id(__u64 id)
{
	return has_present_layout() ? id & ID_MASK : make_id(id, id >> LAYOUT_PROTOCOL);
}

/* Moves bits of an old recipe to where they belong now. */
static __always_inline __u64 moved(__u64 raw, __u32 from, __u32 to, __u64 mask)
{
	return (raw >> from & mask) << to;
}

/* The present recipe of an old one, without what an insert fills in, and unclaimed. */
static __always_inline __u64 convert_recipe(__u64 raw)
{
	__u64 recipe;

	if (has_present_layout())
		return raw & ~(__u64)FILLED_MASK & ~BIT(RECIPE_BUSY);
	recipe = moved(raw, LAYOUT_SERVER, RECIPE_SERVER, LAYOUT_SERVER_MASK) |
		 moved(raw, LAYOUT_STATE, RECIPE_STATE, LAYOUT_STATE_MASK) |
		 moved(raw, LAYOUT_METHOD, RECIPE_METHOD, LAYOUT_METHOD_MASK) |
		 moved(raw, LAYOUT_REPLY, RECIPE_REPLY, 1) | moved(raw, LAYOUT_PROVEN, RECIPE_PROVEN, 1) |
		 moved(raw, LAYOUT_CONTROLLED, RECIPE_CONTROLLED, 1) | moved(raw, LAYOUT_WIDE, RECIPE_WIDE, 1) |
		 moved(raw, LAYOUT_DOUBT, RECIPE_DOUBT, 1) | moved(raw, LAYOUT_PROLONGED, RECIPE_PROLONGED, 1) |
		 moved(raw, LAYOUT_LOADED, RECIPE_LOADED, 1);
	if (carried_layout < LAYOUT_BORN_SINCE)
		return recipe;
	return recipe | moved(raw, LAYOUT_SEQUENCE, RECIPE_SEQUENCE, 1) |
	       moved(raw, LAYOUT_SPACED, RECIPE_SPACED, LAYOUT_SPACED_MASK) |
	       moved(raw, LAYOUT_COUNTED, RECIPE_COUNTED, 1) | moved(raw, LAYOUT_VALIDATED, RECIPE_VALIDATED, 1) |
	       moved(raw, LAYOUT_KILLED, RECIPE_KILLED, 1);
}

/* The tick at which an old entry began. */
static __always_inline __u32 convert_born(__u64 id, __u64 raw, __u32 tick)
{
	const __u32 half = (1 << LAYOUT_BORN_HALF) - 1, present_half = (1 << BORN_HALF_BITS) - 1;
	__u32 born;

	if (has_present_layout()) {
		born = (raw >> RECIPE_BORN & present_half) << BORN_HALF_BITS | (id >> ID_BORN & present_half);
		return tick - (((tick >> BORN_SHIFT) - born & BORN_MASK) << BORN_SHIFT);
	}
	if (carried_layout < LAYOUT_BORN_SINCE)
		return tick;
	born = (raw >> LAYOUT_BORN & half) << LAYOUT_BORN_HALF | (id >> LAYOUT_ID_BORN & half);
	return tick - (((tick >> LAYOUT_BORN_SHIFT) - born & LAYOUT_BORN_MASK) << LAYOUT_BORN_SHIFT);
}

/* Reads what is in e's slot of e's group; raw is 0 if that is nothing. */
static __always_inline void read_old(struct old_entry *e, __u32 tick, const int v6)
{
	void *group = old_group_at(e->group, v6);
	__u64 *entry, id, tail, raw, *words;

	e->raw = 0;
	if (!group)
		return;
	entry = old_entry_at(group, e->slot, v6);
	if (!entry)
		return;
	id = LOAD(entry + WORDS(v6));
	order();
	words = (__u64 *)e->key.source;
	if (v6) {
		words[0] = LOAD(entry);
		words[1] = LOAD(entry + 1);
		words[2] = LOAD(entry + 2);
		words[3] = LOAD(entry + 3);
	} else {
		words[0] = (__u32)LOAD(entry);
		words[1] = 0;
		words[2] = LOAD(entry) >> 32;
		words[3] = 0;
	}
	tail = LOAD(entry + WORDS(v6) + 2);
	order();
	raw = LOAD(entry + WORDS(v6) + 1);
	if (!raw || (old_id_generation(id) ^ raw) & old_generation_mask())
		return;
	e->key.id = convert_id(id);
	e->seen = tail;
	e->hop = tail >> 32;
	e->born = convert_born(id, raw, tick);
	e->recipe = convert_recipe(raw);
	e->raw = raw;
}

__noinline int read_old4(struct old_entry *e, __u32 tick)
{
	if (e)
		read_old(e, tick, 0);
	return 0;
}

__noinline int read_old6(struct old_entry *e, __u32 tick)
{
	if (e)
		read_old(e, tick, 1);
	return 0;
}

/* The search for a key in an old group. */
struct old_search {
	struct key key;
	__u32 group;
	__u32 first; /* the set's first slot */
	__u32 slot; /* out: LAYOUT_SLOTS: not there */
	__u32 pad;
};

static __always_inline long search_old(__u32 i, struct old_search *s, const int v6)
{
	__u32 slot = i < LAYOUT_WAYS ? s->first + i : LAYOUT_SETS * LAYOUT_WAYS + i - LAYOUT_WAYS;
	void *group = old_group_at(s->group, v6);
	__u64 *entry, id;

	if (!group)
		return 1;
	if (i == LAYOUT_WAYS && !LOAD((__u32 *)(group + LAYOUT_STRAYS)))
		return 1;
	entry = old_entry_at(group, slot, v6);
	if (!entry)
		return 1;
	id = LOAD(entry + WORDS(v6));
	/* What was freed here has kept its id. */
	if (!LOAD(entry + WORDS(v6) + 1) || convert_id(id) != s->key.id)
		return 0;
	order();
	if (!same_addresses(entry, &s->key, v6))
		return 0;
	s->slot = slot;
	return 1;
}

static long search_old4(__u32 i, struct old_search *s)
{
	return search_old(i, s, 0);
}

static long search_old6(__u32 i, struct old_search *s)
{
	return search_old(i, s, 1);
}

/* Finds e's key in the old table and reads its entry; raw is 0 if there is none. */
static __always_inline void find_old(struct old_entry *e, __u32 tick, const int v6)
{
	struct old_search s = { .key = e->key, .slot = LAYOUT_SLOTS };
	__u64 product = (__u64)hash_key(&s.key, v6) * carried_groups(v6);

	/* As locate: the group from the product's high half, the set from its low one. */
	s.group = product >> 32;
	s.first = ((__u64)(__u32)product * LAYOUT_SETS >> 32) * LAYOUT_WAYS;
	e->raw = 0;
	if (v6)
		bpf_loop(LAYOUT_WAYS + LAYOUT_OVERFLOW, search_old6, &s, 0);
	else
		bpf_loop(LAYOUT_WAYS + LAYOUT_OVERFLOW, search_old4, &s, 0);
	if (s.slot == LAYOUT_SLOTS)
		return;
	e->group = s.group;
	e->slot = s.slot;
	if (v6)
		read_old6(e, tick);
	else
		read_old4(e, tick);
}

__noinline int find_old4(struct old_entry *e, __u32 tick)
{
	if (e)
		find_old(e, tick, 0);
	return 0;
}

__noinline int find_old6(struct old_entry *e, __u32 tick)
{
	if (e)
		find_old(e, tick, 1);
	return 0;
}

static __always_inline void look_up_old(struct old_entry *e, __u32 tick, const int v6)
{
	if (v6)
		find_old6(e, tick);
	else
		find_old4(e, tick);
}

static __always_inline long reload_old(struct wait *wait, const int v6)
{
	void *group = old_group_at(wait->group, v6);
	__u64 *entry;

	if (!group)
		return 1;
	entry = old_entry_at(group, wait->slot, v6);
	return !entry || !is_old_busy(LOAD(entry + WORDS(v6) + 1));
}

static long reload_old4(__u32 i, struct wait *wait)
{
	return reload_old(wait, 0);
}

static long reload_old6(__u32 i, struct wait *wait)
{
	return reload_old(wait, 1);
}

/* Waits while a program of before makes or removes the connection: a microsecond or so. */
static __always_inline void await_old(const struct old_entry *e, const int v6)
{
	struct wait wait = { .group = e->group, .slot = e->slot };

	if (v6)
		bpf_loop(BUSY_LOADS, reload_old6, &wait, 0);
	else
		bpf_loop(BUSY_LOADS, reload_old4, &wait, 0);
}

/* Whether the reply key is one of a connection that has not come over: no other may have it. */
__noinline int is_reply_carried4(const struct key *key)
{
	struct old_entry e = {};

	if (!carried_groups4 || !key)
		return 0;
	e.key = *key;
	find_old4(&e, 0);
	return !!(e.recipe & BIT(RECIPE_REPLY)) && e.raw;
}

__noinline int is_reply_carried6(const struct key *key)
{
	struct old_entry e = {};

	if (!carried_groups6 || !key)
		return 0;
	e.key = *key;
	find_old6(&e, 0);
	return !!(e.recipe & BIT(RECIPE_REPLY)) && e.raw;
}

#endif
