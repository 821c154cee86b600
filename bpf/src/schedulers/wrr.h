/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * wrr: walk on from the last server to one of at least the current weight; at the
 * end of the list that weight goes down by the gcd of all, and from 1 back to the
 * greatest (kernel: net/netfilter/ipvs/ip_vs_wrr.c).
 *
 * The kernel walks the list once for each current weight it comes by. Only two
 * walks matter: the rest of the list at the weight it stands at, then one from the
 * head. In that one, a current weight that no eligible server has finds nothing,
 * and weights and current weights lie one gcd apart: the first that finds a server
 * finds the first of the heaviest.
 */
#ifndef SHUNT_SCHEDULERS_WRR_H
#define SHUNT_SCHEDULERS_WRR_H

#include "cursor.h"

struct weighted_walk {
	__u32 list;
	__u32 position; /* where to begin; out: where the server stands */
	__u32 server; /* out: of at least the wanted weight; 0: none */
	__u32 wanted;
	/* out: the first of the heaviest that were met */
	__u32 heaviest;
	__u32 heaviest_position;
	__u32 heaviest_weight;
};

static long weighted_step(__u32 i, struct weighted_walk *walk)
{
	struct candidate c = candidate_at(walk->list, walk->position + i);

	if (!c.server)
		return 0;
	if (c.weight >= walk->wanted) {
		walk->server = c.server;
		walk->position += i;
		return 1;
	}
	if (c.weight > walk->heaviest_weight) {
		walk->heaviest = c.server;
		walk->heaviest_position = walk->position + i;
		walk->heaviest_weight = c.weight;
	}
	return 0;
}

/* The cursor when every server was tried at every weight, in vain. */
static __always_inline __u64 cursor_in_vain(const struct pick_request *r)
{
	const __u32 greatest = r->schedule.max_weight, step = r->schedule.gcd;
	__u32 position = next_position(r);

	/* Begun in the middle of the last pass, the kernel ends with a last pass, there. */
	if (position && (__u32)r->cursor <= step)
		return cursor_at(r, position, (greatest - 1) % step + 1);
	return cursor_at(r, 0, greatest);
}

/* One try. Moves the cursor even if there is no server, as the kernel does. */
__noinline __u32 turn_wrr(struct pick_request *r)
{
	struct weighted_walk walk = {};
	__u32 step;

	if (!r)
		return 0;
	r->next = r->cursor;
	step = r->schedule.gcd;
	if (!r->schedule.max_weight || !step)
		return 0;
	walk.list = r->schedule.list;
	walk.server = nothing(r);
	walk.heaviest_weight = nothing(r);
	walk.wanted = (__u32)r->cursor;
	walk.position = next_position(r);
	if (walk.position < r->schedule.servers)
		bpf_loop(r->schedule.servers - walk.position, weighted_step, &walk, 0);
	if (!walk.server) {
		walk.wanted = walk.wanted > step ? walk.wanted - step : r->schedule.max_weight;
		walk.position = 0;
		walk.heaviest_weight = nothing(r);
		bpf_loop(r->schedule.servers, weighted_step, &walk, 0);
	}
	if (!walk.server && walk.heaviest_weight) {
		walk.server = walk.heaviest;
		walk.position = walk.heaviest_position;
		walk.wanted -= (walk.wanted - walk.heaviest_weight + step - 1) / step * step;
	}
	r->next = walk.server ? cursor_at(r, walk.position + 1, walk.wanted) : cursor_in_vain(r);
	return walk.server;
}

/* Part of pick, as pick_rr is. */
static __always_inline __u32 pick_wrr(struct pick_request *r, struct service *service)
{
	__u32 server = 0;

	for (int i = 0; i < CURSOR_TRIES; i++) {
		server = turn_wrr(r);
		if (move_cursor(r, service))
			return server;
	}
	count(EVENT_NOTE_CURSOR_CONTENDED);
	return server;
}

#endif
