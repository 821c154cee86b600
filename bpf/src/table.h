/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The connection tables: find, insert, claim, free. See
 * director/decisions/0001-connection-table.md for the measurements.
 *
 * An entry is seen as 64-bit words: addresses (1 word IPv4, 4 IPv6), id, recipe,
 * seen and hop. Functions take the family as a constant and are inlined.
 *
 * Who may write what:
 * - A slot is free when its recipe is 0. Only an inserter, holding the group's
 *   lock, fills a free slot: addresses, seen and hop, recipe, then id.
 * - A live entry's recipe changes by compare-and-swap only. RECIPE_BUSY on the
 *   client-to-server entry is the claim to make or to remove the connection: the
 *   claimant alone inserts or removes the server-to-client key; the last it does
 *   is to clear the bit, or to free the slot: id, then recipe.
 * - seen is written by anybody, at any time; a write that lands on a later entry
 *   of the slot says "now", which is true of that entry too.
 * - hop is written holding the lock, after the generation was compared.
 * A reader loads id, addresses, seen and hop, recipe, in this order. If the
 * generations of id and recipe are equal, all came from the same entry: its id
 * is written after, and its recipe cleared before, anything else changes.
 */
#ifndef SHUNT_TABLE_H
#define SHUNT_TABLE_H

#include "clock.h"
#include "count.h"

/* How group4 and group6 begin. */
struct group_head {
	struct bpf_spin_lock lock;
	__u32 generation;
	__u32 strays;
	__u32 pad[13];
};

_Static_assert(sizeof(struct group_head) == __builtin_offsetof(struct group4, slots), "a view of group4");
_Static_assert(sizeof(struct group_head) == __builtin_offsetof(struct group6, slots), "a view of group6");

struct key {
	__u32 source[4];
	__u32 destination[4];
	__u64 id; /* ports and protocol, no generation and no birth */
};

/* Where a key's entry can be. */
struct place {
	void *group;
	void *near; /* the half of its set that is searched first, */
	void *far; /* and the other */
	__u32 hash; /* of the key */
	__u32 index; /* of the group */
	__u32 near_slot; /* of the first entry in near */
	__u32 far_slot;
};

/* A consistent copy of an entry. */
struct found {
	__u64 *entry; /* 0: none */
	__u32 slot; /* in its group */
	__u64 id;
	__u64 recipe;
	__u32 seen;
	__u32 hop;
};

#define WORDS(v6) ((v6) ? 4 : 1)
#define ENTRY_SIZE(v6) ((v6) ? sizeof(struct entry6) : sizeof(struct entry4))
#define HALF_SIZE(v6) (WAYS / 2 * ENTRY_SIZE(v6))
#define OVERFLOW_OFFSET(v6) (sizeof(struct group_head) + 2 * SETS * HALF_SIZE(v6))
#define LOAD(pointer) (*(volatile typeof(*(pointer)) *)(pointer))
#define STORE(pointer, value) (*(volatile typeof(*(pointer)) *)(pointer) = (value))

#define ID_MASK ((1ULL << ID_KEY_BITS) - 1)
#define BIT(n) (1ULL << (n))

static __always_inline __u64 make_id(__u32 ports, __u8 protocol)
{
	return (__u64)protocol << ID_PROTOCOL | ports;
}

static __always_inline __u32 recipe_server(__u64 recipe)
{
	return recipe >> RECIPE_SERVER & SERVER_MASK;
}

static __always_inline __u32 recipe_state(__u64 recipe)
{
	return recipe >> RECIPE_STATE & STATE_MASK;
}

/* When an entry that was made at the tick began, as born_layout has it: the two parts. */
static __always_inline __u64 born_in_recipe(__u32 tick)
{
	return (__u64)(tick >> (BORN_SHIFT + BORN_HALF_BITS) & 0xff) << RECIPE_BORN;
}

static __always_inline __u64 born_in_id(__u32 tick)
{
	return (__u64)(tick >> BORN_SHIFT & 0xff) << ID_BORN;
}

static __always_inline __u32 recipe_method(__u64 recipe)
{
	return recipe >> RECIPE_METHOD & METHOD_MASK;
}

static __always_inline __u64 with_state(__u64 recipe, __u32 state)
{
	return (recipe & ~((__u64)STATE_MASK << RECIPE_STATE)) | (__u64)state << RECIPE_STATE;
}

/* Keeps earlier accesses before later ones where the machine does not. */
static __always_inline void order(void)
{
	if (weakly_ordered) {
		__u64 scratch = 0;

		/* A value-returning atomic is fully ordered: kernel
		 * Documentation/atomic_t.txt, "ORDERING". */
		LOAD(&scratch) = __sync_fetch_and_add(&scratch, 1);
	}
	asm volatile("" ::: "memory");
}

/*
 * Multilinear-HM hashing over 32-bit words: the high half is strongly universal
 * for secret seeds (Lemire and Kaser, "Strongly universal string hashing is
 * fast", 2014), so that no choice of addresses fills one set. That is pairwise
 * only: ports in arithmetic progression, as real clients use them, would land at
 * equal distances; the last step (of SplitMix64, Steele et al. 2014) breaks
 * these up.
 */
static __always_inline __u32 hash_key(const struct key *key, const int v6)
{
	__u64 hash = seeds[10] + (seeds[0] + key->source[0]) * (seeds[1] + key->destination[0]) +
		     (seeds[2] + (__u32)key->id) * (seeds[3] + (key->id >> ID_PROTOCOL));

	if (v6) {
		hash += (seeds[4] + key->source[1]) * (seeds[5] + key->destination[1]);
		hash += (seeds[6] + key->source[2]) * (seeds[7] + key->destination[2]);
		hash += (seeds[8] + key->source[3]) * (seeds[9] + key->destination[3]);
	}
	hash = (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9ULL;
	return hash >> 32;
}

static __always_inline void *group_at(__u32 index, const int v6)
{
	return v6 ? bpf_map_lookup_elem(&connections6, &index) : bpf_map_lookup_elem(&connections4, &index);
}

/* Fills in where a key of that hash can be; false only if the array is too small. */
static __always_inline int locate(struct place *place, __u64 hash, const int v6)
{
	/* The group from the product's high half, the set from its low one: independent. */
	__u64 product = hash * (v6 ? groups6 : groups4);
	__u32 index = product >> 32;
	__u32 half = hash & 1;
	__u32 set = (__u64)(__u32)product * SETS >> 32;
	__u64 set_offset = set * 2 * HALF_SIZE(v6), half_offset = half * HALF_SIZE(v6);

	/* Or clang adds the two by "or", of which the verifier keeps no upper bound. */
	asm volatile("" : "+r"(set_offset));
	place->hash = hash;
	place->index = index;
	place->near_slot = (set * 2 + half) * (WAYS / 2);
	place->far_slot = (set * 2 + (half ^ 1)) * (WAYS / 2);
	place->group = group_at(index, v6);
	if (!place->group)
		return 0;
	place->near = place->group + sizeof(struct group_head) + set_offset + half_offset;
	place->far = place->group + sizeof(struct group_head) + set_offset + (half_offset ^ HALF_SIZE(v6));
	return 1;
}

/* The group's entry in the slot; 0 if there is no such slot. */
static __always_inline __u64 *entry_at(void *group, __u32 slot, const int v6)
{
	/* Or clang tests a part of a register that 6.1's verifier does not connect with the whole. */
	asm volatile("" : "+r"(slot));
	if (slot >= SLOTS)
		return 0;
	return group + sizeof(struct group_head) + slot * ENTRY_SIZE(v6);
}

/* Whether the entry's addresses are the key's. */
static __always_inline int same_addresses(const __u64 *entry, const struct key *key, const int v6)
{
	const __u64 *source = (const __u64 *)key->source;
	const __u64 *destination = (const __u64 *)key->destination;

	if (!v6)
		return LOAD(entry) == (key->source[0] | (__u64)key->destination[0] << 32);
	return LOAD(entry) == source[0] && LOAD(entry + 1) == source[1] && LOAD(entry + 2) == destination[0] &&
	       LOAD(entry + 3) == destination[1];
}

/* Looks for the key among slots entries from first on, which is in slot first_slot. */
static __always_inline int search(struct found *found, void *first, __u32 first_slot, const int slots,
				  const struct key *key, const int v6)
{
	const __u64 wanted = key->id << (64 - ID_KEY_BITS);

#pragma unroll
	for (int i = 0; i < slots; i++) {
		__u64 *entry = first + i * ENTRY_SIZE(v6);
		__u64 id = LOAD(entry + WORDS(v6));

		if (id << (64 - ID_KEY_BITS) != wanted)
			continue;
		order();
		if (!same_addresses(entry, key, v6))
			continue;
		found->entry = entry;
		found->slot = first_slot + i;
		found->id = id;
		return 1;
	}
	return 0;
}

/* As search, in the overflow slots; out of the way of hits. */
static __always_inline int search_strays(struct found *found, void *group, const struct key *key, const int v6)
{
	struct group_head *head = group;

	if (!LOAD(&head->strays))
		return 0;
	return search(found, group + OVERFLOW_OFFSET(v6), SETS * WAYS, OVERFLOW, key, v6);
}

/* Looks for the key in all its places; fills in entry, slot and id; entry 0: not there. */
static __always_inline int search_all(struct found *found, const struct place *place, const struct key *key,
				      const int v6)
{
	found->entry = 0;
	return search(found, place->near, place->near_slot, WAYS / 2, key, v6) ||
	       search(found, place->far, place->far_slot, WAYS / 2, key, v6) ||
	       search_strays(found, place->group, key, v6);
}

/* Finds the key's live entry and copies it; found->entry is 0 if there is none. */
static __always_inline void find(struct found *found, const struct place *place, const struct key *key, const int v6)
{
	__u64 tail;

	if (!search_all(found, place, key, v6))
		return;
	tail = LOAD(found->entry + WORDS(v6) + 2);
	order();
	found->recipe = LOAD(found->entry + WORDS(v6) + 1);
	found->seen = tail;
	found->hop = tail >> 32;
	if (!found->recipe || (((found->id >> ID_GENERATION) ^ found->recipe) & GENERATION_MASK)) {
		count(EVENT_NOTE_STALE_READ);
		found->entry = 0;
	}
}

#define CHANGE_TRIES 4 /* of one who finds that others have changed the entry meanwhile */

/* Changes the entry's recipe if it still is old. */
static __always_inline int change(__u64 *entry, __u64 old, __u64 new, const int v6)
{
	return __sync_val_compare_and_swap(entry + WORDS(v6) + 1, old, new) == old;
}

/* Frees a slot its caller has claimed (or, of a reply key, whose connection it has). */
static __always_inline void release(void *group, __u64 *entry, __u32 slot, const int v6)
{
	struct group_head *head = group;

	STORE(entry + WORDS(v6), 0);
	order();
	STORE(entry + WORDS(v6) + 1, 0);
	if (slot >= SETS * WAYS)
		__sync_fetch_and_add(&head->strays, -1);
}

#endif
