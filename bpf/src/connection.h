/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A connection over its one or two keys: claim and remove it, insert a key,
 * make room. NAT has two keys, client to server ("forward", which has the last
 * word on the state) and server to client ("reply"); other methods have one.
 */
#ifndef SHUNT_CONNECTION_H
#define SHUNT_CONNECTION_H

#include "table.h"

/* Ports as on the wire: source in the low half of the word as loaded. */
static __always_inline __u32 join_ports(__be16 source, __be16 destination)
{
	return (__u32)source | (__u32)destination << 16;
}

/* The reply key of the connection with this forward key on server. */
static __always_inline void reply_key(struct key *reply, const struct key *forward, const struct server *server)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		reply->source[i] = server->address[i];
		reply->destination[i] = forward->source[i];
	}
	reply->id = make_id(join_ports(server->port, (__u16)forward->id), forward->id >> ID_PROTOCOL);
}

/* The forward key of the connection with this reply key from server. */
static __always_inline void forward_key(struct key *forward, const struct key *reply, const struct server *server)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		forward->source[i] = reply->destination[i];
		forward->destination[i] = server->virtual_address[i];
	}
	forward->id = make_id(join_ports((__u16)(reply->id >> 16), server->virtual_port), reply->id >> ID_PROTOCOL);
}

/* The key that the entry holds. */
static __always_inline void entry_key(struct key *key, const __u64 *entry, const int v6)
{
	__u64 *source = (__u64 *)key->source;
	__u64 *destination = (__u64 *)key->destination;

	if (v6) {
		source[0] = LOAD(entry);
		source[1] = LOAD(entry + 1);
		destination[0] = LOAD(entry + 2);
		destination[1] = LOAD(entry + 3);
	} else {
		source[0] = (__u32)LOAD(entry);
		source[1] = 0;
		destination[0] = LOAD(entry) >> 32;
		destination[1] = 0;
	}
	key->id = LOAD(entry + WORDS(v6)) & ID_MASK;
}

/*
 * From here on: global functions, which the verifier checks once each, whoever
 * calls them. They take no pointers into maps: entries are named by number.
 */
struct lookup {
	struct key key;
	__u64 recipe; /* out: 0: the key has no live entry */
	__u32 group; /* out: where it is */
	__u32 slot;
	__u32 seen; /* out: what it holds */
	__u32 hop;
};

static __always_inline void look_up(struct lookup *l, const int v6)
{
	struct key key = l->key;
	struct place place;
	struct found found;

	l->recipe = 0;
	if (!locate(&place, hash_key(&key, v6), v6))
		return;
	find(&found, &place, &key, v6);
	if (!found.entry)
		return;
	l->group = place.index;
	l->slot = found.slot;
	l->recipe = found.recipe;
	l->seen = found.seen;
	l->hop = found.hop;
}

__noinline int look_up4(struct lookup *l)
{
	if (l)
		look_up(l, 0);
	return 0;
}

__noinline int look_up6(struct lookup *l)
{
	if (l)
		look_up(l, 1);
	return 0;
}

/* Looks l's key up; what it finds must be of the server and in the direction given. */
static __always_inline void look_up_half(struct lookup *l, __u32 server, __u64 reply_bit, const int v6)
{
	if (v6)
		look_up6(l);
	else
		look_up4(l);
	if (recipe_server(l->recipe) != server || (l->recipe & BIT(RECIPE_REPLY)) != reply_bit)
		l->recipe = 0;
}

/* The reply entry of the connection with this forward key on the server with this index. */
static __always_inline void look_up_reply(struct lookup *reply, const struct key *forward, __u32 index, const int v6)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	reply->recipe = 0;
	if (!server)
		return;
	reply_key(&reply->key, forward, server);
	look_up_half(reply, index, BIT(RECIPE_REPLY), v6);
}

/* The forward entry of the connection with this reply key from the server with this index. */
static __always_inline void look_up_forward(struct lookup *forward, const struct key *reply, __u32 index, const int v6)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	forward->recipe = 0;
	if (!server)
		return;
	forward_key(&forward->key, reply, server);
	look_up_half(forward, index, 0, v6);
}

/* Frees the slot, whose entry is the caller's to remove. */
static __always_inline void release_slot(__u32 index, __u32 slot, const int v6)
{
	void *group = group_at(index, v6);
	__u64 *entry;

	if (!group)
		return;
	entry = entry_at(group, slot, v6);
	if (entry)
		release(group, entry, slot, v6);
}

/*
 * Claims the connection whose forward entry is in that slot and removes it: its
 * reply key, its count, its entry. False if the recipe is not what the caller
 * read: somebody else has changed it since.
 */
static __always_inline int claim_and_remove(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	void *group = group_at(index, v6);
	struct lookup reply = {};
	struct key key;
	__u64 *entry;

	if (!group)
		return 0;
	entry = entry_at(group, slot, v6);
	if (!entry || !change(entry, recipe, recipe | BIT(RECIPE_BUSY), v6))
		return 0;
	entry_key(&key, entry, v6);
	if (recipe_method(recipe) == METHOD_NAT) {
		look_up_reply(&reply, &key, recipe_server(recipe), v6);
		if (reply.recipe)
			release_slot(reply.group, reply.slot, v6);
	}
	count_connection(recipe_server(recipe), recipe_state(recipe), -1);
	release(group, entry, slot, v6);
	return 1;
}

__noinline int claim_and_remove4(__u32 index, __u32 slot, __u64 recipe)
{
	return claim_and_remove(index, slot, recipe, 0);
}

__noinline int claim_and_remove6(__u32 index, __u32 slot, __u64 recipe)
{
	return claim_and_remove(index, slot, recipe, 1);
}

static __always_inline int remove_entry(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	return v6 ? claim_and_remove6(index, slot, recipe) : claim_and_remove4(index, slot, recipe);
}

/* Loads while another CPU makes or removes the connection: a microsecond or so. */
#define BUSY_LOADS 256

struct wait {
	__u64 recipe;
	__u32 group;
	__u32 slot;
};

static __always_inline long reload(struct wait *wait, const int v6)
{
	void *group = group_at(wait->group, v6);
	__u64 *entry;

	if (!group)
		return 1;
	entry = entry_at(group, wait->slot, v6);
	if (!entry)
		return 1;
	wait->recipe = LOAD(entry + WORDS(v6) + 1);
	return !(wait->recipe & BIT(RECIPE_BUSY));
}

static long reload4(__u32 i, struct wait *wait)
{
	return reload(wait, 0);
}

static long reload6(__u32 i, struct wait *wait)
{
	return reload(wait, 1);
}

/*
 * Waits for the claim on an entry to end. Its recipe then; 0 if the entry is
 * gone, with RECIPE_BUSY still if it took too long.
 */
static __always_inline __u64 await(__u32 group, __u32 slot, __u64 recipe, const int v6)
{
	struct wait wait = { .recipe = recipe, .group = group, .slot = slot };

	if (!(recipe & BIT(RECIPE_BUSY)))
		return recipe;
	if (v6)
		bpf_loop(BUSY_LOADS, reload6, &wait, 0);
	else
		bpf_loop(BUSY_LOADS, reload4, &wait, 0);
	return (wait.recipe ^ recipe) & GENERATION_MASK ? 0 : wait.recipe;
}

/*
 * Whether a forward entry has outlived its state's timeout. Replies write the
 * forward entry's seen too, once a second (settle), so it speaks for both keys.
 */
static __always_inline int has_expired(__u64 recipe, __u32 seen, __u32 tick)
{
	__s32 idle = tick - seen;

	/* Negative: another CPU saw a later tick. */
	return idle > (__s32)timeout_of(recipe_state(recipe));
}

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
 * Inserts the key with recipe (its generation is filled in) unless it is there.
 * Both outcomes leave the entry in *found.
 */
static __always_inline enum insertion try_insert(struct found *found, const struct place *place, const struct key *key,
						 __u64 recipe, __u64 tail, const int v6)
{
	struct group_head *head = place->group;
	enum insertion result = NO_ROOM;
	__u32 generation;
	__u64 *entry;

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
		__sync_fetch_and_add(&head->strays, 1);
	}
	entry = found->entry;
	generation = (head->generation + 1) & GENERATION_MASK;
	if (!generation)
		generation = 1;
	head->generation = generation;
	recipe |= generation;
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
	order();
	STORE(entry + WORDS(v6) + 1, recipe);
	order();
	STORE(entry + WORDS(v6), key->id | (__u64)generation << ID_GENERATION);
	found->recipe = recipe;
	found->seen = tail;
	found->hop = tail >> 32;
	result = INSERTED;
unlock:
	bpf_spin_unlock(&head->lock);
	return result;
}

/*
 * How willingly the entry's connection is given up: 0 never, highest first. An
 * expired one above all, else an unproven one by its age.
 */
static __always_inline __u32 dispensability(const __u64 *entry, __u32 tick, const int v6)
{
	__u64 recipe = LOAD(entry + WORDS(v6) + 1);
	__u32 seen = LOAD(entry + WORDS(v6) + 2);

	if (!recipe || recipe & (BIT(RECIPE_BUSY) | BIT(RECIPE_REPLY)))
		return 0;
	if (has_expired(recipe, seen, tick))
		return 1U << 31 | (tick - seen);
	if (recipe & BIT(RECIPE_PROVEN))
		return 0;
	return (__s32)(tick - seen) < 0 ? 1 : tick - seen + 1;
}

/* The search for the connection that is given up for a new one. */
struct eviction {
	__u32 group;
	__u32 set_slot; /* the set's first */
	__u32 tick;
	__u32 best; /* dispensability */
	__u32 slot; /* of the entry that has it */
};

/* The i-th slot a key can be in whose set begins with slot first. */
static __always_inline __u32 candidate_slot(__u32 first, __u32 i)
{
	return i < WAYS ? first + i : SETS * WAYS + i - WAYS;
}

static __always_inline long weigh(__u32 i, struct eviction *e, const int v6)
{
	void *group = group_at(e->group, v6);
	__u32 slot = candidate_slot(e->set_slot, i), score;
	__u64 *entry;

	if (!group)
		return 1;
	entry = entry_at(group, slot, v6);
	if (!entry)
		return 1;
	score = dispensability(entry, e->tick, v6);
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
static __always_inline __u64 choose_victim(__u32 group, __u32 set_slot, __u32 tick, const int v6)
{
	struct eviction e = { .group = group, .set_slot = set_slot, .tick = tick };

	if (v6)
		bpf_loop(WAYS + OVERFLOW, weigh6, &e, 0);
	else
		bpf_loop(WAYS + OVERFLOW, weigh4, &e, 0);
	return (__u64)e.best << 32 | e.slot;
}

__noinline __u64 choose_victim4(__u32 group, __u32 set_slot, __u32 tick)
{
	return choose_victim(group, set_slot, tick, 0);
}

__noinline __u64 choose_victim6(__u32 group, __u32 set_slot, __u32 tick)
{
	return choose_victim(group, set_slot, tick, 1);
}

#define INSERT_TRIES 3

struct insert_request {
	struct key key;
	__u32 hash; /* of the key */
	__u32 pad;
	__u64 recipe; /* in: without a generation; out: what the entry has */
	__u32 tick;
	__u32 hop;
	__u32 group; /* out: where the entry is, or the victim */
	__u32 slot; /* out */
	__u64 victim; /* out: the recipe of the entry to be given up first */
	__u32 is_live; /* out: the victim has not expired */
	__u32 pad1;
};

/*
 * Chooses whom to give up where the place's key can go: an expired connection or
 * the oldest unproven one, never a live proven one. False if there is none.
 */
static __always_inline int find_victim(struct insert_request *r, const struct place *place, const int v6)
{
	__u32 set_slot = place->near_slot < place->far_slot ? place->near_slot : place->far_slot;
	__u64 victim =
		v6 ? choose_victim6(place->index, set_slot, r->tick) : choose_victim4(place->index, set_slot, r->tick);
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
	if (!dispensability(entry, r->tick, v6))
		r->victim = 0;
	return 1;
}

/* try_insert of r's key; the entry's recipe and place go to r. */
static __always_inline enum insertion insert_once(struct insert_request *r, const int v6)
{
	__u64 tail = (__u64)r->hop << 32 | r->tick;
	enum insertion result;
	struct found found = {};
	struct place place;

	if (!locate(&place, r->hash, v6))
		return NO_ROOM;
	result = try_insert(&found, &place, &r->key, r->recipe, tail, v6);
	r->group = place.index;
	r->victim = 0;
	if (result == NO_ROOM)
		return find_victim(r, &place, v6) ? AGAIN : NO_ROOM;
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

/* Inserts r's key, making room where needed. */
static __always_inline enum insertion insert_key(struct insert_request *r, const int v6)
{
	enum insertion result = AGAIN;

	for (int i = 0; i < INSERT_TRIES && result == AGAIN; i++) {
		result = v6 ? insert_once6(r) : insert_once4(r);
		if (result == AGAIN && r->victim && remove_entry(r->group, r->slot, r->victim, v6) && r->is_live)
			count(EVENT_NOTE_EVICTED);
	}
	return result == AGAIN ? NO_ROOM : result;
}

#endif
