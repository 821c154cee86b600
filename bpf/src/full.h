/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A table without room for a new connection. Nothing live and proven is given up for
 * it: it is refused, or, where a hash of the client chooses the server and replies
 * pass by, served without an entry. The segments of such a connection that follow
 * are served so for as long as its entry would live (judge, may_go_on).
 */
#ifndef SHUNT_FULL_H
#define SHUNT_FULL_H

#include "proof.h"

/* Whether the scheduler finds the same server for every packet of a connection. */
static __always_inline int is_hashed(__u32 scheduler, __u32 flags)
{
	const __u32 hashes = 1 << SCHEDULER_SH | 1 << SCHEDULER_MH | 1 << SCHEDULER_DH;

	return hashes >> (scheduler & 31) & 1 && !(flags & SERVICE_PERSISTENT);
}

/* The tick at which a connection last found no room in the family's table; 0: never. */
static __always_inline __u32 last_full(const int v6)
{
	__u32 index = v6;
	struct table_state *table = bpf_map_lookup_elem(&table_states, &index);

	return table ? LOAD(&table->full_tick) : 0;
}

/* Notes that the connection which c's packet begins has found no room. */
static __always_inline void note_full(const struct slow *c, const int v6)
{
	__u32 index = v6;
	struct table_state *table = bpf_map_lookup_elem(&table_states, &index);
	struct service_state *service;

	if (c->is_trial)
		return;
	service = state_of_service(c->pick.service);
	if (!table || !service)
		return;
	STORE(&table->full_tick, c->tick ? c->tick : 1);
	__sync_fetch_and_add(&table->full, 1);
	__sync_fetch_and_add(&service->full, 1);
}

#endif
