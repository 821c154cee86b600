/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The counters of each connection, where it is set: packets and bytes by the slot
 * of the key that they have. A map beside the tables, so that entries stay as
 * small as they are. Where the constant says no, nothing of this is in the program.
 *
 * A slot's counters are set to zero, under the group's lock, before its new entry
 * can be found. A packet that found the entry before that one, and counts only
 * now, is counted to the new one: as seldom as a slot is freed and filled again
 * while one packet is on its way through.
 */
#ifndef SHUNT_TRAFFIC_H
#define SHUNT_TRAFFIC_H

#include "table.h"

/* The counters of a group's slots; 0 where connections are not counted. To be had before the group's lock is. */
static __always_inline struct group_traffic *traffic_at(__u32 group, const int v6)
{
	if (!counts_connections)
		return 0;
	return v6 ? bpf_map_lookup_elem(&connection_traffic6, &group) :
		    bpf_map_lookup_elem(&connection_traffic4, &group);
}

/* The counters of one slot; 0 if there are none. */
static __always_inline struct slot_traffic *slot_of(struct group_traffic *traffic, __u32 slot)
{
	/* See entry_at. */
	asm volatile("" : "+r"(slot));
	return traffic && slot < SLOTS ? &traffic->slots[slot] : 0;
}

/* Counts a packet of that length with the key of the entry in the slot. */
static __always_inline void count_in_slot(__u32 group, __u32 slot, __u32 length, const int v6)
{
	struct slot_traffic *traffic = slot_of(traffic_at(group, v6), slot);

	if (!traffic)
		return;
	__sync_fetch_and_add(&traffic->packets, 1);
	__sync_fetch_and_add(&traffic->bytes, length);
}

/*
 * As count_in_slot, of the entry that a lookup has just found. Where it lies is told
 * from its address: to keep the numbers would cost those that do not count.
 */
static __always_inline void count_hit(const __u64 *entry, __u32 length, const int v6)
{
	const __u32 size = v6 ? sizeof(struct group6) : sizeof(struct group4);
	void *table;
	__u64 offset;

	if (!counts_connections)
		return;
	table = group_at(0, v6);
	if (!table)
		return;
	offset = (void *)entry - table;
	count_in_slot(offset / size, (offset % size - sizeof(struct group_head)) / ENTRY_SIZE(v6), length, v6);
}

/* Begins to count anew in a slot that is being filled. */
static __always_inline void clear_slot(struct group_traffic *group, __u32 slot)
{
	struct slot_traffic *traffic = slot_of(group, slot);

	if (!traffic)
		return;
	STORE(&traffic->packets, 0);
	STORE(&traffic->bytes, 0);
}

#endif
