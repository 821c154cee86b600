/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What tables of earlier versions look like: frozen, by ABI_VERSION. carry.h reads
 * them by these names and writes the present layout by its own (entry.h). A version
 * that changes the layout of entries adds here what the one before it had; one that
 * changes the hash, or what a template's counts are, keeps the old way beside it too.
 *
 * Versions 4 and 5 have the same groups, keys and first flags. 4 has generations of
 * 24 bits, no birth, and none of the flags from LAYOUT_SEQUENCE on.
 */
#ifndef SHUNT_LAYOUTS_H
#define SHUNT_LAYOUTS_H

#include <linux/types.h>

enum layout {
	LAYOUT_OLDEST = 4, /* what is older cannot be carried */
	LAYOUT_BORN_SINCE = 5,

	/* a group: its head, 14 sets of 8 entries, 14 more */
	LAYOUT_HEAD = 64, /* bytes */
	LAYOUT_STRAYS = 8, /* byte at which their number is, 32 bits */
	LAYOUT_SETS = 14,
	LAYOUT_WAYS = 8,
	LAYOUT_OVERFLOW = 14,
	LAYOUT_SLOTS = LAYOUT_SETS * LAYOUT_WAYS + LAYOUT_OVERFLOW,

	/* an entry: addresses (one word IPv4, four IPv6), id, recipe, seen and hop */
	LAYOUT_ENTRY4 = 32, /* bytes */
	LAYOUT_ENTRY6 = 64,
	LAYOUT_PROTOCOL = 32, /* of id; below it the ports */
	LAYOUT_ID_GENERATION = 40,
	LAYOUT_ID_BORN = 56,
	LAYOUT_BORN = 16, /* of the recipe, as all below */
	LAYOUT_SERVER = 24,
	LAYOUT_STATE = 44,
	LAYOUT_METHOD = 48,
	LAYOUT_REPLY = 50,
	LAYOUT_PROVEN = 51,
	LAYOUT_BUSY = 52,
	LAYOUT_CONTROLLED = 53,
	LAYOUT_WIDE = 54,
	LAYOUT_DOUBT = 55,
	LAYOUT_PROLONGED = 56,
	LAYOUT_LOADED = 57,
	LAYOUT_SEQUENCE = 58,
	LAYOUT_SPACED = 59,
	LAYOUT_COUNTED = 61,
	LAYOUT_VALIDATED = 62,
	LAYOUT_KILLED = 63,

	LAYOUT_GENERATION_MASK4 = 0xffffff,
	LAYOUT_GENERATION_MASK5 = 0xffff,
	LAYOUT_SERVER_MASK = 0xfffff,
	LAYOUT_STATE_MASK = 0xf,
	LAYOUT_METHOD_MASK = 3,
	LAYOUT_SPACED_MASK = 3,
	LAYOUT_BORN_SHIFT = 3, /* units of 2^3 ticks, */
	LAYOUT_BORN_HALF = 8, /* 16 bits in two halves */
	LAYOUT_BORN_MASK = 0xffff,

	/* the word of a wide connection's reply entry, in place of a hop */
	LAYOUT_PLACE_GROUP = 7, /* the slot below it */
};

/* A group is not to be locked: its table has no inserters any more. */
struct carried_group4 {
	__u64 words[(LAYOUT_HEAD + LAYOUT_SLOTS * LAYOUT_ENTRY4) / 8];
};

struct carried_group6 {
	__u64 words[(LAYOUT_HEAD + LAYOUT_SLOTS * LAYOUT_ENTRY6 + 64) / 8];
};

/* Of the slots of a group: packets and bytes of each. */
struct carried_traffic {
	__u64 words[2 * LAYOUT_SLOTS];
};

_Static_assert(sizeof(struct carried_group4) == 4096, "frozen");
_Static_assert(sizeof(struct carried_group6) == 8192, "frozen");

#endif
