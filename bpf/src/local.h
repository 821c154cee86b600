/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Full NAT: an address and a port of this host stand in for the client's, so that
 * servers need no route back through it. The hop word of the forward entry names
 * them (local_layout); the reply key has them as its destination, and the reply
 * entry has the forward entry's place. Where a reply entry has its last-seen, one of
 * full NAT has the client's next hop, or with RECIPE_SEQUENCE what the client must
 * acknowledge to prove itself: the forward entry's last-seen speaks for both, as ever.
 */
#ifndef SHUNT_LOCAL_H
#define SHUNT_LOCAL_H

#include "table.h"

/* Whether an entry with that recipe is of a connection by full NAT. */
static __always_inline int is_full_nat(__u64 recipe)
{
	const __u64 both = BIT(RECIPE_WIDE) | BIT(RECIPE_FULLNAT);

	return (recipe & both) == both;
}

/* Whether the seen word of an entry with that recipe is the client's next hop, and no tick. */
static __always_inline int has_hop_for_seen(__u64 recipe)
{
	const __u64 all = BIT(RECIPE_WIDE) | BIT(RECIPE_FULLNAT) | BIT(RECIPE_REPLY);

	return (recipe & all) == all;
}

/* The hop word that names an address of locals and a port. */
static __always_inline __u32 make_local(__u32 index, __be16 port)
{
	return index << LOCAL_INDEX | (__u32)port << LOCAL_PORT;
}

/* The hop word of a forward entry as it is inserted: by full NAT it names nothing until there is a port. */
static __always_inline __u32 first_word(__u64 recipe, __u32 hop)
{
	return is_full_nat(recipe) ? make_local(LOCAL_NONE, 0) : hop;
}

/* The port that stands in for the client's, by the hop word of its forward entry. */
static __always_inline __be16 local_port(__u32 word)
{
	return word >> LOCAL_PORT;
}

/* The address that does; 0: there is no such one. */
static __always_inline struct local_address *local_of(__u32 word)
{
	__u32 index = word >> LOCAL_INDEX;

	return bpf_map_lookup_elem(&locals, &index);
}

#endif
