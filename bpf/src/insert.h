/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Inserting a key, and whom to give up for it where its set is full. Inserters
 * of one group exclude one another by its lock; nobody else waits for it.
 */
#ifndef SHUNT_INSERT_H
#define SHUNT_INSERT_H

#include "remove.h"

/* Finds a slot without an entry among slots from first on. */
static __always_inline int free_slot(struct found *found, void *first, __u32 first_slot, const int slots, const int v6)
{
#pragma unroll
	for (int i = 0; i < slots; i++) {
		__u64 *entry = first + i * ENTRY_SIZE(v6);

		if (!LOAD(entry + WORDS(v6) + 1)) {
			found->entry = entry;
			found->slot = first_slot + i;
			return 1;
		}
	}
	return 0;
}

enum insertion {
	INSERTED,
	EXISTS, /* the key has an entry: what was found */
	NO_ROOM,
	AGAIN, /* give up the victim, if there is one, and try once more */
};

/*
 * Inserts the key with recipe (FILLED_MASK of it is filled in) unless it is there;
 * born is the tick at which it began.
 * Both outcomes leave the entry in *found. A trial looks for room and takes none.
 */
static __always_inline enum insertion try_insert(struct found *found, const struct place *place, const struct key *key,
						 __u64 recipe, __u64 tail, __u32 born, __u32 is_trial, const int v6)
{
	struct group_head *head = place->group;
	enum insertion result = NO_ROOM;
	struct group_traffic *traffic;
	__u32 generation;
	__u64 *entry;

	traffic = traffic_at(place->index, v6);
	bpf_spin_lock(&head->lock);
	if (search_all(found, place, key, v6)) {
		found->recipe = LOAD(found->entry + WORDS(v6) + 1);
		result = EXISTS;
		goto unlock;
	}
	if (!free_slot(found, place->near, place->near_slot, WAYS / 2, v6) &&
	    !free_slot(found, place->far, place->far_slot, WAYS / 2, v6)) {
		if (!free_slot(found, place->group + OVERFLOW_OFFSET(v6), SETS * WAYS, OVERFLOW, v6))
			goto unlock;
		__sync_fetch_and_add(&head->strays, !is_trial);
	}
	result = INSERTED;
	found->recipe = recipe;
	if (is_trial)
		goto unlock;
	entry = found->entry;
	generation = (head->generation + 1) & GENERATION_MASK;
	if (!generation)
		generation = 1;
	head->generation = generation;
	recipe |= generation | born_in_recipe(born);
	if (v6) {
		const __u64 *source = (const __u64 *)key->source;
		const __u64 *destination = (const __u64 *)key->destination;

		STORE(entry, source[0]);
		STORE(entry + 1, source[1]);
		STORE(entry + 2, destination[0]);
		STORE(entry + 3, destination[1]);
	} else {
		STORE(entry, key->source[0] | (__u64)key->destination[0] << 32);
	}
	STORE(entry + WORDS(v6) + 2, tail);
	clear_slot(traffic, found->slot);
	order();
	STORE(entry + WORDS(v6) + 1, recipe);
	order();
	STORE(entry + WORDS(v6), key->id | (__u64)generation << ID_GENERATION | born_in_id(born));
	found->recipe = recipe;
	found->seen = tail;
	found->hop = tail >> 32;
unlock:
	bpf_spin_unlock(&head->lock);
	return result;
}

/* Ranks of what is given up; below the lowest, the time without a packet, in ticks. */
enum dispensability {
	HAS_EXPIRED = 1U << 31,
	IS_OF_FLOOD = 1U << 30, /* of the service that most of those in reach are of: see vote */
	IS_UNPROVEN = 1U << 29,
	IS_HALF_PROVEN = 1U << 28,
	HAS_ENDED = 1U << 27,
};

/*
 * How willingly the entry's connection, or template, is given up: 0 never, highest
 * first. An expired one above all; else an unproven one that is not established, the
 * one without a packet for longest; then one that is, or of UDP one that a reply alone
 * has proven, so; then a proven one that is over and only waits for stray segments;
 * last a proven template that has no connections: its client would lose its server.
 * What was loaded is not given up for what is being loaded, of which it is a part.
 * A reply key has its connection's state, and mostly its time: see resolve_victim.
 */
__noinline __u32 dispensability(__u64 recipe, __u64 tail, __u32 tick, __u32 for_loaded)
{
	__u32 seen = tail, age = (__s32)(tick - seen) < 0 ? 0 : tick - seen;

	if (!recipe || recipe & BIT(RECIPE_BUSY))
		return 0;
	if (age > HAS_ENDED - 2)
		age = HAS_ENDED - 2; /* a year */
	if (has_expired(recipe, seen, tick) && !(is_template(recipe) && is_in_use(tail >> 32)))
		return HAS_EXPIRED | age;
	if (for_loaded && recipe & BIT(RECIPE_LOADED))
		return 0;
	if (!is_firm(recipe))
		return (recipe_state(recipe) == STATE_ESTABLISHED || is_proven(recipe) ? IS_HALF_PROVEN : IS_UNPROVEN) |
		       age;
	if (1 << recipe_state(recipe) & (1 << STATE_TIME_WAIT | 1 << STATE_CLOSE))
		return HAS_ENDED | age;
	return is_template(recipe) && !is_in_use(tail >> 32) ? age + 1 : 0;
}

/* The search for the connection that is given up for a new one. */
struct eviction {
	__u32 group;
	__u32 set_slot; /* the set's first */
	__u32 tick;
	__u32 best; /* dispensability */
	__u32 slot; /* of the entry that has it */
	__u32 rules; /* enum eviction_rules */
	__u32 service; /* of most of those that are not proven */
	__u32 votes;
};

enum eviction_rules {
	FOR_LOADED = 1, /* what was loaded stays */
	NOT_BY_REPLY = 2, /* reply keys stay */
	SECOND_ROUND = 4, /* the vote is over */
};

/* The i-th slot a key can be in whose set begins with slot first. */
static __always_inline __u32 candidate_slot(__u32 first, __u32 i)
{
	return i < WAYS ? first + i : SETS * WAYS + i - WAYS;
}

/*
 * One vote for the service of an entry that is not proven: the one that has most of
 * them in reach is left in the end (Boyer and Moore, "MJRTY", 1991). In a flood that is
 * the one attacked, so that the handshakes of other services outlive the flood's.
 * Templates vote too: a flood of a persistent service would fill the sets with them.
 */
static __always_inline void vote(struct eviction *e, __u32 service)
{
	if (!e->votes)
		e->service = service;
	e->votes += e->service == service ? 1 : -1;
}

static __always_inline __u32 service_of(__u64 recipe)
{
	__u32 index = recipe_server(recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	return server ? server->service : 0;
}

static __always_inline long weigh(__u32 i, struct eviction *e, const int v6)
{
	void *group = group_at(e->group, v6);
	__u32 slot = candidate_slot(e->set_slot, i), score;
	__u64 *entry, recipe;

	if (!group)
		return 1;
	entry = entry_at(group, slot, v6);
	if (!entry)
		return 1;
	recipe = LOAD(entry + WORDS(v6) + 1);
	if (recipe & BIT(RECIPE_REPLY) && e->rules & NOT_BY_REPLY)
		return 0;
	score = dispensability(recipe, tail_of(recipe, LOAD(entry + WORDS(v6) + 2), v6), e->tick,
			       e->rules & FOR_LOADED);
	if (score & (IS_UNPROVEN | IS_HALF_PROVEN) && !(score & HAS_EXPIRED)) {
		if (!(e->rules & SECOND_ROUND))
			vote(e, service_of(recipe));
		else if (service_of(recipe) == e->service)
			score |= IS_OF_FLOOD;
	}
	if (score > e->best) {
		e->best = score;
		e->slot = slot;
	}
	return 0;
}

static long weigh4(__u32 i, struct eviction *e)
{
	return weigh(i, e, 0);
}

static long weigh6(__u32 i, struct eviction *e)
{
	return weigh(i, e, 1);
}

/* The entry to be given up where a key's set begins with set_slot: dispensability above, slot below. */
static __always_inline __u64 choose_victim(__u32 group, __u32 set_slot, __u32 tick, __u32 rules, const int v6)
{
	struct eviction e = { .group = group, .set_slot = set_slot, .tick = tick, .rules = rules };

	if (v6)
		bpf_loop(WAYS + OVERFLOW, weigh6, &e, 0);
	else
		bpf_loop(WAYS + OVERFLOW, weigh4, &e, 0);
	if (e.votes && !(e.best & HAS_EXPIRED)) {
		e.rules |= SECOND_ROUND;
		if (v6)
			bpf_loop(WAYS + OVERFLOW, weigh6, &e, 0);
		else
			bpf_loop(WAYS + OVERFLOW, weigh4, &e, 0);
	}
	return (__u64)e.best << 32 | e.slot;
}

__noinline __u64 choose_victim4(__u32 group, __u32 set_slot, __u32 tick, __u32 rules)
{
	return choose_victim(group, set_slot, tick, rules, 0);
}

__noinline __u64 choose_victim6(__u32 group, __u32 set_slot, __u32 tick, __u32 rules)
{
	return choose_victim(group, set_slot, tick, rules, 1);
}

#define INSERT_TRIES 3

struct insert_request {
	struct key key;
	__u32 hash; /* of the key */
	__u32 pad;
	__u64 recipe; /* in: nothing in FILLED_MASK; out: what the entry has */
	__u32 tick;
	__u32 born; /* tick at which it began */
	__u32 hop;
	__u32 not_by_reply; /* nobody is given up by its reply key */
	__u32 group; /* out: where the entry is, or the victim */
	__u32 slot; /* out */
	__u64 victim; /* out: the recipe of the entry to be given up first */
	__u32 is_live; /* out: the victim has not expired */
	__u32 is_trial; /* in: nothing is inserted, and nobody given up: is there room? */
	__u32 client_hop; /* in: of a reply key of full NAT, in place of the tick */
	__u32 pad2;
};

/*
 * Chooses whom to give up where the place's key can go, see dispensability: never a live
 * proven connection, and nothing loaded that lives for another loaded one. False if there is none.
 */
static __always_inline int find_victim(struct insert_request *r, const struct place *place, const int v6)
{
	__u32 set_slot = place->near_slot < place->far_slot ? place->near_slot : place->far_slot;
	__u32 rules = (r->recipe & BIT(RECIPE_LOADED) ? FOR_LOADED : 0) | (r->not_by_reply ? NOT_BY_REPLY : 0);
	__u64 victim = v6 ? choose_victim6(place->index, set_slot, r->tick, rules) :
			    choose_victim4(place->index, set_slot, r->tick, rules);
	__u64 *entry;

	r->slot = victim;
	r->is_live = !(victim >> 63);
	if (!(victim >> 32))
		return 0;
	entry = entry_at(place->group, r->slot, v6);
	if (!entry)
		return 0;
	r->victim = LOAD(entry + WORDS(v6) + 1);
	/* If it has changed since it was weighed, it is not given up: the caller tries once more. */
	if (!dispensability(r->victim, tail_of(r->victim, LOAD(entry + WORDS(v6) + 2), v6), r->tick,
			    rules & FOR_LOADED))
		r->victim = 0;
	return 1;
}

/* try_insert of r's key; the entry's recipe and place go to r. */
static __always_inline enum insertion insert_once(struct insert_request *r, const int v6)
{
	__u64 tail = (__u64)r->hop << 32 | (has_hop_for_seen(r->recipe) ? r->client_hop : r->tick);
	enum insertion result;
	struct found found = {};
	struct place place;

	if (!locate(&place, r->hash, v6))
		return NO_ROOM;
	result = try_insert(&found, &place, &r->key, r->recipe, tail, r->born, r->is_trial, v6);
	r->group = place.index;
	r->victim = 0;
	if (result == NO_ROOM)
		return find_victim(r, &place, v6) ? r->is_trial ? INSERTED : AGAIN : NO_ROOM;
	if (!found.recipe)
		return AGAIN; /* the key's slot was just being freed: id goes first */
	r->recipe = found.recipe;
	r->slot = found.slot;
	return result;
}

__noinline int insert_once4(struct insert_request *r)
{
	return r ? insert_once(r, 0) : NO_ROOM;
}

__noinline int insert_once6(struct insert_request *r)
{
	return r ? insert_once(r, 1) : NO_ROOM;
}

/*
 * Where r's victim is a reply key, makes it the connection that has it, by which it is
 * given up. One whose client alone has sent packets lives on: then no reply key is
 * chosen any more. Without this, sets filled with reply keys alone would have no room
 * while no sweep runs, or in a flood.
 */
static __always_inline void resolve_victim(struct insert_request *r, const int v6)
{
	void *group = group_at(r->group, v6);
	struct lookup forward = {};
	__u32 score = 0;
	struct key key;
	__u64 *entry;

	if (!group)
		return;
	entry = entry_at(group, r->slot, v6);
	if (!entry)
		return;
	entry_key(&key, entry, v6);
	look_up_forward(&forward, &key, r->victim, LOAD(entry + WORDS(v6) + 2) >> 32, v6);
	if (forward.recipe)
		score = dispensability(forward.recipe, forward.seen, r->tick, !!(r->recipe & BIT(RECIPE_LOADED)));
	r->victim = score ? forward.recipe : 0;
	r->group = forward.group;
	r->slot = forward.slot;
	r->is_live = !(score >> 31);
	r->not_by_reply = !score;
}

__noinline int resolve_victim4(struct insert_request *r)
{
	if (r)
		resolve_victim(r, 0);
	return 0;
}

__noinline int resolve_victim6(struct insert_request *r)
{
	if (r)
		resolve_victim(r, 1);
	return 0;
}

/* Gives up r's victim, if that is still possible. A function by itself: insert_key has it for every try. */
static __always_inline void give_up(struct insert_request *r, const int v6)
{
	if (r->victim & BIT(RECIPE_REPLY)) {
		if (v6)
			resolve_victim6(r);
		else
			resolve_victim4(r);
	}
	if (r->victim && remove_entry(r->group, r->slot, r->victim, v6) && r->is_live)
		count(EVENT_NOTE_EVICTED);
}

__noinline int give_up4(struct insert_request *r)
{
	if (r)
		give_up(r, 0);
	return 0;
}

__noinline int give_up6(struct insert_request *r)
{
	if (r)
		give_up(r, 1);
	return 0;
}

/* Inserts r's key, making room where needed. */
static __always_inline enum insertion insert_key(struct insert_request *r, const int v6)
{
	enum insertion result = AGAIN;

	for (int i = 0; i < INSERT_TRIES; i++) {
		result = v6 ? insert_once6(r) : insert_once4(r);
		if (result != AGAIN)
			break;
		if (v6)
			give_up6(r);
		else
			give_up4(r);
	}
	return result == AGAIN ? NO_ROOM : result;
}

/* The same as a function of its own, for those whose callers are few: the verifier counts eight. */
__noinline int insert_key4(struct insert_request *r)
{
	return r ? insert_key(r, 0) : NO_ROOM;
}

__noinline int insert_key6(struct insert_request *r)
{
	return r ? insert_key(r, 1) : NO_ROOM;
}

#endif
