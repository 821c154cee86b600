/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Persistence templates: entries of the connection tables that pair a client
 * network and a service with a server (entry.h, template_layout). What follows is
 * about one that is there; persist.h is about finding and making one.
 *
 * A template counts the connections made under it in place of a next hop, so that
 * it does not die before them. The count is written as a hop is: holding the
 * group's lock, after the generation was compared. It may be wrong where a
 * template was given up and made anew; the sweep recounts and heals it.
 */
#ifndef SHUNT_TEMPLATE_H
#define SHUNT_TEMPLATE_H

#include "connection.h"

/* A count that tells nothing: there were more, or one came or went while they were counted. */
#define COUNT_UNKNOWN TEMPLATE_COUNT_MASK

static __always_inline int is_template(__u64 recipe)
{
	return recipe_state(recipe) == STATE_TEMPLATE;
}

static __always_inline __u32 controlled(__u32 counts)
{
	return counts >> TEMPLATE_CONTROLLED & TEMPLATE_COUNT_MASK;
}

static __always_inline __u32 recounted(__u32 counts)
{
	return counts >> TEMPLATE_RECOUNTED & TEMPLATE_COUNT_MASK;
}

static __always_inline __u32 make_counts(__u32 controlled, __u32 recounted)
{
	return controlled << TEMPLATE_CONTROLLED | recounted << TEMPLATE_RECOUNTED;
}

/* Whether a template has connections, by its count or by the sweep's. */
static __always_inline int is_in_use(__u32 counts)
{
	return controlled(counts) || (recounted(counts) && recounted(counts) != COUNT_UNKNOWN);
}

/* The key of the template that clients of this address have, by the schedule in force of the service with this index.
 */
static __always_inline void template_key(struct key *key, const __u32 *client, const struct schedule *schedule,
					 __u32 index)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		key->source[i] = client[i] & schedule->client_mask[i];
		key->destination[i] = 0;
	}
	key->destination[0] = index;
	key->id = make_id(0, PROTOCOL_TEMPLATE);
}

/* What may be written to a template's counts. */
enum template_news {
	NEWS_BEGUN, /* a connection under it */
	NEWS_LOADED, /* one that began elsewhere: it does not begin the template's time anew */
	NEWS_ENDED, /* one of them has */
	NEWS_MET, /* the sweep met one of them */
	NEWS_PROVEN, /* one of them has shown that its client is real */
};

static __always_inline __u32 counts_after(__u32 counts, enum template_news news)
{
	__u32 n = controlled(counts), met = recounted(counts);

	if (news == NEWS_MET)
		return make_counts(n, met == COUNT_UNKNOWN ? met : met + 1);
	/* A count that is full is no longer known: only the recount brings it down. */
	if (n != COUNT_UNKNOWN)
		n = news == NEWS_BEGUN || news == NEWS_LOADED ? n + 1 : n - !!n;
	return make_counts(n, COUNT_UNKNOWN);
}

/* Writes the news to the counts of the template t has found; false if it is gone or going. */
static __always_inline int count_under(const struct lookup *t, enum template_news news, __u32 tick, const int v6)
{
	struct group_head *head = group_at(t->group, v6);
	__u64 *entry, recipe;
	int there;

	if (!head)
		return 0;
	entry = entry_at(head, t->slot, v6);
	if (!entry)
		return 0;
	bpf_spin_lock(&head->lock);
	recipe = LOAD(entry + WORDS(v6) + 1);
	there = !((recipe ^ t->recipe) & GENERATION_MASK) && !(recipe & BIT(RECIPE_BUSY));
	if (there) {
		__u32 *tail = (__u32 *)(entry + WORDS(v6) + 2);

		STORE(tail + 1, counts_after(LOAD(tail + 1), news));
		if (news == NEWS_BEGUN)
			STORE(tail, tick);
	}
	bpf_spin_unlock(&head->lock);
	return there;
}

/* Counts one more connection under the template that t has found; false if it is gone. */
__noinline int hold_template4(struct lookup *t, __u32 tick)
{
	return t ? count_under(t, NEWS_BEGUN, tick, 0) : 0;
}

__noinline int hold_template6(struct lookup *t, __u32 tick)
{
	return t ? count_under(t, NEWS_BEGUN, tick, 1) : 0;
}

/* As hold_template, for a connection that began elsewhere. */
__noinline int hold_loaded4(struct lookup *t)
{
	return t ? count_under(t, NEWS_LOADED, 0, 0) : 0;
}

__noinline int hold_loaded6(struct lookup *t)
{
	return t ? count_under(t, NEWS_LOADED, 0, 1) : 0;
}

/* Takes that back. */
__noinline int let_template_go4(struct lookup *t)
{
	return t ? count_under(t, NEWS_ENDED, 0, 0) : 0;
}

__noinline int let_template_go6(struct lookup *t)
{
	return t ? count_under(t, NEWS_ENDED, 0, 1) : 0;
}

/* Sets and clears bits of the recipe that l has found, unless its slot has been reused or is claimed. */
static __always_inline void mark(const struct lookup *l, __u64 set, __u64 clear, const int v6)
{
	void *group = group_at(l->group, v6);
	__u64 *entry;

	if (!group)
		return;
	entry = entry_at(group, l->slot, v6);
	if (!entry)
		return;
	for (int i = 0; i < CHANGE_TRIES; i++) {
		__u64 old = LOAD(entry + WORDS(v6) + 1);
		__u64 new = (old | set) & ~clear;

		if ((old ^ l->recipe) & GENERATION_MASK || old & BIT(RECIPE_BUSY) || new == old)
			return;
		if (change(entry, old, new, v6))
			return;
	}
}

/*
 * Finds the template of the connection that is, or was, in that slot with that
 * recipe. One that names another server was made since.
 */
static __always_inline void look_up_template(struct lookup *t, __u32 group_index, __u32 slot, __u64 recipe,
					     const int v6)
{
	__u32 index = recipe_server(recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	void *group = group_at(group_index, v6);
	struct service *service;
	__u64 *entry;

	t->recipe = 0;
	if (!server || !group)
		return;
	index = server->service;
	service = bpf_map_lookup_elem(&services, &index);
	entry = entry_at(group, slot, v6);
	if (!service || !entry)
		return;
	entry_key(&t->key, entry, v6);
	template_key(&t->key, t->key.source, in_force(service), index);
	look_up_by(t, v6);
	if (recipe_server(t->recipe) != recipe_server(recipe))
		t->recipe = 0;
}

/* Tells its template what has become of the connection in that slot, which has RECIPE_CONTROLLED. */
static __always_inline int tell_template(__u32 group, __u32 slot, __u64 recipe, __u32 news, const int v6)
{
	struct lookup t = {};

	look_up_template(&t, group, slot, recipe, v6);
	if (!t.recipe)
		return 0;
	if (news == NEWS_PROVEN)
		mark(&t, BIT(RECIPE_PROVEN), 0, v6);
	else
		count_under(&t, news, 0, v6);
	return 1;
}

__noinline int tell_template4(__u32 group, __u32 slot, __u64 recipe, __u32 news)
{
	return tell_template(group, slot, recipe, news, 0);
}

__noinline int tell_template6(__u32 group, __u32 slot, __u64 recipe, __u32 news)
{
	return tell_template(group, slot, recipe, news, 1);
}

static __always_inline void tell(__u32 group, __u32 slot, __u64 recipe, enum template_news news, const int v6)
{
	if (!(recipe & BIT(RECIPE_CONTROLLED)))
		return;
	if (v6)
		tell_template6(group, slot, recipe, news);
	else
		tell_template4(group, slot, recipe, news);
}

/* Frees the template in the slot, whose claim the caller has. */
static __always_inline void remove_template(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	unbind_connection(recipe_server(recipe), STATE_TEMPLATE);
	release_slot(index, slot, v6);
}

/*
 * Ends the time of the template in that slot: one that has connections is given a
 * minute more, any other is removed, which is true. A claim under the lock, so
 * that no connection can begin under it in between.
 */
static __always_inline int expire_template(__u32 index, __u32 slot, __u64 recipe, __u32 tick, const int v6)
{
	struct group_head *head = group_at(index, v6);
	__u64 new = recipe | BIT(RECIPE_PROLONGED);
	int is_claimed = 0;
	__u64 *entry;

	if (!head)
		return 0;
	entry = entry_at(head, slot, v6);
	if (!entry)
		return 0;
	bpf_spin_lock(&head->lock);
	if (!is_in_use(LOAD(entry + WORDS(v6) + 2) >> 32))
		new = recipe | BIT(RECIPE_BUSY);
	if (change(entry, recipe, new, v6)) {
		is_claimed = !!(new &BIT(RECIPE_BUSY));
		if (!is_claimed)
			STORE((__u32 *)(entry + WORDS(v6) + 2), tick);
	}
	bpf_spin_unlock(&head->lock);
	if (is_claimed)
		remove_template(index, slot, recipe, v6);
	return is_claimed;
}

__noinline int expire_template4(__u32 index, __u32 slot, __u64 recipe, __u32 tick)
{
	return expire_template(index, slot, recipe, tick, 0);
}

__noinline int expire_template6(__u32 index, __u32 slot, __u64 recipe, __u32 tick)
{
	return expire_template(index, slot, recipe, tick, 1);
}

/*
 * Compares a template's count of connections with how many the sweep has met since
 * it met the template last. Where none came or went in between, the two must be the
 * same: if they are not two times running, the sweep's is right. Its counts then.
 */
static __always_inline __u32 review_template(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	struct lookup t = { .group = index, .slot = slot, .recipe = recipe };
	struct group_head *head = group_at(index, v6);
	int is_healed = 0, is_doubtful = 0;
	__u32 n, met, *tail;
	__u64 *entry;

	if (!head)
		return 0;
	entry = entry_at(head, slot, v6);
	if (!entry)
		return 0;
	tail = (__u32 *)(entry + WORDS(v6) + 2);
	bpf_spin_lock(&head->lock);
	n = controlled(LOAD(tail + 1));
	met = recounted(LOAD(tail + 1));
	if ((LOAD(entry + WORDS(v6) + 1) ^ recipe) & GENERATION_MASK) {
		n = met = COUNT_UNKNOWN; /* another entry's by now */
	} else {
		is_doubtful = met != COUNT_UNKNOWN && met != n;
		is_healed = is_doubtful && recipe & BIT(RECIPE_DOUBT);
		if (is_healed)
			n = met;
		STORE(tail + 1, make_counts(n, 0));
	}
	bpf_spin_unlock(&head->lock);
	if (is_healed)
		count(EVENT_NOTE_TEMPLATE_HEALED);
	if (is_doubtful && !is_healed)
		mark(&t, BIT(RECIPE_DOUBT), 0, v6);
	else
		mark(&t, 0, BIT(RECIPE_DOUBT), v6);
	return make_counts(n, met);
}

__noinline __u32 review_template4(__u32 index, __u32 slot, __u64 recipe)
{
	return review_template(index, slot, recipe, 0);
}

__noinline __u32 review_template6(__u32 index, __u32 slot, __u64 recipe)
{
	return review_template(index, slot, recipe, 1);
}

/* Begins to count anew what the sweep meets under a template. */
static __always_inline void restart_count(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	struct group_head *head = group_at(index, v6);
	__u64 *entry;

	if (!head)
		return;
	entry = entry_at(head, slot, v6);
	if (!entry)
		return;
	bpf_spin_lock(&head->lock);
	if (!((LOAD(entry + WORDS(v6) + 1) ^ recipe) & GENERATION_MASK)) {
		__u32 *counts = (__u32 *)(entry + WORDS(v6) + 2) + 1;

		STORE(counts, make_counts(controlled(LOAD(counts)), 0));
	}
	bpf_spin_unlock(&head->lock);
}

#endif
